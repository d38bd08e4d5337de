"""Finds the perturbations that `samples.load_perturbation` gives.

    python benchmarks/sample_perturbations.py --norm linf
    python benchmarks/sample_perturbations.py --norm l2

Each is found on varied views of the embedded photographs to fit, over the
boundary of the dominant label (by sign steps that become smaller, for l2 by
DeepFool), and measured on the embedded held-out photographs, which chose
nothing: the last v is the one that is kept. 3,072 views are about 9,216 model
passes.
"""

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

import keras_uap
from keras_uap import analysis, datasets, interchange, samples
from keras_uap.attacks import updates

EPSILON = {"linf": 10.0, "l2": 2000.0}
BATCH = 16


def find(norm, views, seed):
    """Returns a perturbation of the embedded classifier, and its card."""
    keras.utils.set_random_seed(seed)
    classifier = samples.load_classifier()
    photos = samples.load_photos("fit")
    uap = keras_uap.UniversalPerturbation(classifier, EPSILON[norm], norm)
    batches = -(-views // BATCH)
    optimizer, loss = updates.strongest(uap.ball)
    uap.compile(optimizer, loss=loss)
    data = datasets.augmented(photos, BATCH, seed=seed).repeat()
    history = uap.fit(data, steps_per_epoch=batches, verbose=2)
    report = analysis.fooling_report(
        classifier,
        uap.perturbation,
        samples.load_photos("held_out"),
        groups=samples.photo_groups("held_out"),
        norm=norm,
        verbose=0,
    )
    print(report)
    card = {
        "norm": norm,
        "epsilon": EPSILON[norm],
        "value_range": [0, 255],
        "classifier": classifier.name,
        "target": None,
        "seed": seed,
        "found_by": f"benchmarks/sample_perturbations.py --norm {norm} "
        f"--views {views} --seed {seed}",
        "model_passes": int(history.history["model_passes"][-1]),
        "held_out": report.for_card(),
    }
    return uap.perturbation, card


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--norm", choices=sorted(EPSILON), required=True)
    parser.add_argument("--views", type=int, default=3072)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path(samples.__file__).parent / "perturbations",
    )
    options = parser.parse_args()
    v, card = find(options.norm, options.views, options.seed)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"efficientnet_lite0_{options.norm}.npz"
    interchange.save_perturbation(path, v, card)
    print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
