"""Standard audits of known classifiers, for `samples.reference_audits`.

    python benchmarks/reference_audits.py --photos FOLDER \\
        --classifiers FOLDER --hardened PATH --fashion-mnist FOLDER
    python benchmarks/reference_audits.py --photos FOLDER --only lite0

Each classifier is audited with the standard budget and seed 0. Its row is
written to `keras_uap/samples/reference_audits.json` as soon as it is known, in
the place of an earlier row of that name. Without `--only`, those are audited
whose files are given; the embedded EfficientNet-Lite0 needs no file.

The photographs are every fourth of the crops in `--photos`, 224x224 pixels,
named `<photograph>_<crop>.jpg`; the classifiers in `--classifiers` are `.keras`
files that take them, and `--hardened` is what `harden` made of Lite0. The
networks for Fashion-MNIST are those of `audit.py`, trained on its training
images and audited on 3,000 of its test images.
"""

import argparse
import datetime
import gzip
import json
import pathlib
import platform
import subprocess

import keras
import numpy as np
import tensorflow as tf
from audit import fashion_networks
from common import load_classifier, say

import keras_uap
from keras_uap import datasets
from keras_uap.utils.saving import atomic_path

FILE = pathlib.Path(keras_uap.__file__).parent / "samples/reference_audits.json"

NAMES = {
    "lite0": "EfficientNet-Lite0",
    "lite1": "EfficientNet-Lite1",
    "mobilenet_v2": "MobileNetV2",
    "squeezenet": "SqueezeNet",
    "lite0_hardened": "EfficientNet-Lite0, hardened",
    "convolutional": "Fashion-MNIST, convolutional",
    "dense": "Fashion-MNIST, dense",
}
FILES = {
    "lite1": "efficientnet_lite1.keras",
    "mobilenet_v2": "mobilenet_v2.keras",
    "squeezenet": "squeezenet.keras",
}
FASHION = ("convolutional", "dense")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--photos", help="folder of 224x224 crops")
    parser.add_argument(
        "--classifiers", type=pathlib.Path, help="folder of .keras files"
    )
    parser.add_argument("--hardened", help=".keras file of the hardened Lite0")
    parser.add_argument(
        "--fashion-mnist", type=pathlib.Path, help="folder of its four files"
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--output", type=pathlib.Path, default=FILE)
    options = parser.parse_args()

    if options.photos:
        photos = every_fourth(options.photos)
        for key, path in paths(options).items():
            if key in options.only:
                add(options.output, key, load_classifier(path), photos, 10.0)
    if options.fashion_mnist and set(FASHION) & set(options.only):
        x, y, test = fashion_mnist(options.fashion_mnist)
        images = datasets.Pictures(test[:3000])
        for model in fashion_networks(x, y):
            if model.name in options.only:
                add(options.output, model.name, model, images, 25.5)


def paths(options):
    """The files of the classifiers of photographs; `None` is embedded."""
    found = {"lite0": None}
    if options.classifiers:
        found |= {key: options.classifiers / FILES[key] for key in FILES}
    if options.hardened:
        found["lite0_hardened"] = options.hardened
    return found


def every_fourth(folder):
    pictures = datasets.load(folder)
    return pictures.take(np.arange(0, len(pictures.images), 4))


def fashion_mnist(folder):
    """Training images, their labels and test images of the original files."""

    def read(name, header):
        with gzip.open(folder / f"{name}-ubyte.gz") as file:
            return np.frombuffer(file.read(), "uint8", offset=header)

    x, test = (
        read(f"{part}-images-idx3", 16).reshape(-1, 28, 28, 1)
        for part in ("train", "t10k")
    )
    return x, read("train-labels-idx1", 8), test


def add(path, key, classifier, pictures, epsilon):
    """Audits a classifier and writes its row."""
    name, kind = NAMES[key], "test images of Fashion-MNIST"
    say(name)
    audit = keras_uap.audit(
        classifier, pictures, epsilon=epsilon, budget="standard", seed=0
    )
    say(f"{name}: {audit!r}")
    count = f"{len(pictures.images):,}"
    if key not in FASHION:
        photographs = len(np.unique(pictures.groups))
        kind = f"crops of {photographs:,} photographs"
    row = {
        "name": name,
        "norm": audit.card["norm"],
        "epsilon": audit.card["epsilon"],
        "value_range": audit.card["value_range"],
        **{
            field: getattr(audit, field)
            for field in (
                *("fooling_rate", "fooling_interval", "random_rate"),
                *("num_images", "num_groups", "passes", "passes_to_half"),
            )
        },
        "data": f"{count} {kind}",
        "versions": {
            "keras_uap": keras_uap.__version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "python": platform.python_version(),
        },
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
    }
    rows = json.loads(path.read_text()) if path.exists() else []
    rows = {each["name"]: each for each in [*rows, row]}
    order = list(NAMES.values())
    kept = sorted(rows.values(), key=lambda each: order.index(each["name"]))
    with atomic_path(path) as unfinished:
        unfinished.write_text(json.dumps(kept, indent=1) + "\n")


def commit():
    """The commit of the code, with a plus where files have changed since."""
    git = ["git", "-C", str(pathlib.Path(__file__).parent)]

    def ask(*words):
        return subprocess.run(
            [*git, *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    changed = ask("status", "--porcelain", "--", "*.py")
    return ask("rev-parse", "--short", "HEAD") + "+" * bool(changed)


if __name__ == "__main__":
    main()
