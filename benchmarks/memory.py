"""The peak memory of a fit from tf.data, few images and many.

    pip install -e . -r benchmarks/requirements.txt
    python benchmarks/memory.py --photos FOLDER --output DIR

The embedded EfficientNet-Lite0, l-infinity norm, epsilon 10, pixels 0 to 255.
FOLDER holds 224x224 crops named `<photograph>_<crop>.jpg`; without it the
embedded photographs are used. Writes memory.json and .md to DIR.
`--quick` only checks that everything runs: its figures mean nothing.
"""

import argparse
import json
import os
import subprocess
import sys

import tensorflow as tf
from common import BATCH, EPSILON, make_parser, peak_memory, say, tabulate

import keras_uap
from keras_uap import samples


def memory(setup):
    few = setup.size(100, 16)
    rows = []
    for count in (few, setup.size(10 * few, 2 * few)):
        command = [sys.executable, sys.argv[0], "--memory-of", str(count)]
        if setup.photos:
            command += ["--photos", setup.photos]
        output = subprocess.run(
            command, check=True, capture_output=True, text=True
        ).stdout
        rows.append({"images": count, **json.loads(output.splitlines()[-1])})
        rows[-1]["ratio"] = (
            rows[-1]["peak memory, MiB"] / rows[0]["peak memory, MiB"]
        )
        say(f"  {rows[-1]}")
    return (
        "Peak memory of a fit from tf.data",
        "Each fit runs in a process of its own, one epoch of `lion` over JPEG "
        "files read, decoded and batched by tf.data; few files are repeated.",
        rows,
    )


def memory_of_fit(photos, count):
    """Runs in a child process: prints the peak memory of one fit."""
    folder = photos or os.path.join(os.path.dirname(samples.__file__), "photos")
    paths = tf.io.gfile.glob(
        [os.path.join(folder, "*.jpg"), os.path.join(folder, "fit", "*.jpg")]
    )

    def read(path):
        return tf.io.decode_jpeg(tf.io.read_file(path), channels=3)

    data = (
        tf.data.Dataset.from_tensor_slices(sorted(paths))
        .repeat()
        .take(count)
        .map(read)
        .batch(BATCH, drop_remainder=True)
        .prefetch(2)
    )
    uap = keras_uap.UniversalPerturbation(samples.load_classifier(), EPSILON)
    uap.compile("lion")
    before = peak_memory()
    uap.fit(data, verbose=0)
    print(
        json.dumps(
            {"peak memory, MiB": peak_memory(), "before the fit, MiB": before}
        )
    )


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        memory_of_fit(options.photos, options.memory_of)
    else:
        tabulate(options, memory)
