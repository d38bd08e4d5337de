"""How long `import keras_uap` and `keras-uap --help` take, beside Keras.

    python benchmarks/import_time.py --output DIR

Each time is that of a Python process of its own, from start to end. A turn
runs each of them once, so that what else the machine does falls on all;
ratios and differences are those within a turn, and medians of the turns. On a
busy machine read the processor time, which others take nothing of.
Writes import_time.json and .md to DIR. `--quick` only checks that it runs.
"""

import resource
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


def processor_seconds():
    """What all processes that were started and have ended took, so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def import_time(setup):
    def run(name):
        say(f"  {name}")
        return subprocess.run(
            [sys.executable, *COMMANDS[name]], capture_output=True
        )

    turns = setup.size(max(setup.repeats, 5), 1)
    run(BASE)  # The files are in memory from here on.
    times = {name: np.zeros((2, turns)) for name in COMMANDS}
    for turn in range(turns):
        for name in COMMANDS:
            before = processor_seconds()
            seconds = seconds_of(lambda name=name: run(name))
            times[name][:, turn] = seconds, processor_seconds() - before
    rows = []
    for name, seconds in times.items():
        row = {"process": name}
        kinds = ("seconds", "processor seconds")
        for kind, those, base in zip(kinds, seconds, times[BASE]):
            row[kind] = np.median(those)
            row[f"{kind}, ratio"] = np.median(those / base)
            row[f"{kind}, more"] = np.median(those - base)
        rows.append(row)
    return (
        "Time to import, and to help",
        f"Medians of {turns} turns; ratios and differences to `{BASE}` of the "
        "same turn.",
        rows,
    )


if __name__ == "__main__":
    tabulate(make_parser(__doc__).parse_args(), import_time)
