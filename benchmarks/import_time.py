"""How long `import keras_uap` and `keras-uap --help` take, beside Keras.

    python benchmarks/import_time.py --output DIR

Each time is that of a Python process of its own, from start to end. A turn
runs each of them once, so that what else the machine does falls on all;
ratios and differences are those within a turn, and medians of the turns.
Writes import_time.json and .md to DIR. `--quick` only checks that it runs.
"""

import subprocess
import sys

import numpy as np
from common import make_parser, say, seconds_of, tabulate

BASE = "import keras"
COMMANDS = {
    "nothing": ["-c", "pass"],
    BASE: ["-c", BASE],
    "import keras_uap": ["-c", "import keras_uap"],
    "keras-uap --help": ["-m", "keras_uap", "--help"],
    "keras-uap audit --help": ["-m", "keras_uap", "audit", "--help"],
    "a mistake": ["-m", "keras_uap", "audit"],
}


def import_time(setup):
    def run(name):
        say(f"  {name}")
        return subprocess.run(
            [sys.executable, *COMMANDS[name]], capture_output=True
        )

    turns = setup.size(max(setup.repeats, 5), 1)
    run(BASE)  # The files are in memory from here on.
    times = {name: np.zeros(turns) for name in COMMANDS}
    for turn in range(turns):
        for name in COMMANDS:
            times[name][turn] = seconds_of(lambda name=name: run(name))
    rows = [
        {
            "process": name,
            "seconds": np.median(seconds),
            "ratio": np.median(seconds / times[BASE]),
            "more than import keras, seconds": np.median(seconds - times[BASE]),
        }
        for name, seconds in times.items()
    ]
    return (
        "Time to import, and to help",
        f"Medians of {turns} turns; ratios and differences to `{BASE}` of the "
        "same turn.",
        rows,
    )


if __name__ == "__main__":
    tabulate(make_parser(__doc__).parse_args(), import_time)
