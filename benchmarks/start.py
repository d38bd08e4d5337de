"""How long the command line takes to answer, and `import keras_uap`.

    python benchmarks/start.py

Each line is the median of 5 fresh processes, taken in turns.
"""

import os
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "keras_uap --help": ["-m", "keras_uap", "--help"],
    "keras_uap fit --help": ["-m", "keras_uap", "fit", "--help"],
    "keras_uap --version": ["-m", "keras_uap", "--version"],
    "a mistake": ["-m", "keras_uap", "fit", "--model", "none"],
    "import keras": ["-c", "import keras"],
    "import keras_uap": ["-c", "import keras_uap"],
}


def main():
    seconds = {name: [] for name in COMMANDS}
    for _ in range(5):
        for name, words in COMMANDS.items():
            begun = time.perf_counter()
            subprocess.run(
                [sys.executable, *words],
                capture_output=True,
                env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
            )
            seconds[name].append(time.perf_counter() - begun)
    for name, each in seconds.items():
        print(f"{name:<24}{statistics.median(each):6.2f} s")
    ratio = statistics.median(
        ours / keras
        for ours, keras in zip(
            seconds["import keras_uap"], seconds["import keras"]
        )
    )
    print(f"import keras_uap takes {ratio:.2f} times import keras")


if __name__ == "__main__":
    main()
