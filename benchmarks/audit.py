"""Whether `audit` finds what more work would find.

    python benchmarks/audit.py --photos FOLDER --classifier lite1.keras
    python benchmarks/audit.py --fashion-mnist
    python benchmarks/audit.py --draws 20
    python benchmarks/audit.py --draws 20 --fit

The first two make one audit of each classifier and, on the same parts of the
same images, one attack of each objective with --passes (18,000) model passes.
Without --classifier it is the embedded EfficientNet-Lite0, without --photos the
embedded photographs. Two networks are trained on Fashion-MNIST (from TFDS) for
the second: a convolutional one and one of dense layers.

The third draws --images pictures of ten class folders anew for every draw
(Fashion-MNIST), audits the convolutional network on them, and counts how often
the rate on 1,000 other pictures lies in the interval that was told. The fourth
writes the folders, and asks the command `fit` instead.

Everything is in the l-infinity ball, of 10 of 255 for photographs and of 25.5
for Fashion-MNIST.
"""

import argparse
import contextlib
import io
import json
import pathlib
import tempfile
import time

import keras
import numpy as np
from common import fashion_mnist, load_classifier, say
from PIL import Image

import keras_uap
from keras_uap import __main__ as command_line
from keras_uap import datasets, interchange, samples
from keras_uap.evaluation import audit, race
from keras_uap.evaluation.labelled_images import LabelledImages

OBJECTIVES = ["dominant", "features+dominant", "crossentropy"]
BATCH = 16


# Networks ---------------------------------------------------------------------


def fashion_networks(x, y):
    """Two networks for Fashion-MNIST, trained for three epochs."""
    layers = keras.layers
    bodies = {
        "convolutional": [
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
        ],
        "dense": [
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dense(256, activation="relu"),
        ],
    }
    for name, body in bodies.items():
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                layers.Rescaling(1 / 255),
                *body,
                layers.Dense(10),
            ],
            name=name,
        )
        model.compile(
            "adam",
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        model.fit(x, y, batch_size=128, epochs=3, verbose=0)
        yield model


# Measuring --------------------------------------------------------------------


def longer_run(classifier, images, epsilon, objective, passes, seed):
    """One perturbation for so many passes, the clean predictions included."""
    keras.utils.set_random_seed(seed)
    uap = keras_uap.UniversalPerturbation(classifier, epsilon)
    images = np.random.default_rng(seed).permutation(images)
    images = images[: passes // 3]
    epochs = max(1, round((passes - len(images)) / (2 * len(images))))
    uap.compile("decaying_lion", loss=objective)
    uap.fit(images, batch_size=BATCH, epochs=epochs, verbose=0)
    return uap.perturbation


def compare(classifier, images, groups, epsilon, options):
    """One audit, and single runs of more passes on its own parts."""
    seed = options.seed
    found = keras_uap.audit(
        classifier,
        images,
        groups=groups,
        epsilon=epsilon,
        budget=options.budget,
        seed=seed,
    )
    print(found, flush=True)
    fit, _, held_out = datasets.split(images, groups, seed=seed)
    judge = LabelledImages(classifier, images[held_out], (0, 255))
    passes = options.passes
    longer = {}
    for objective in OBJECTIVES:
        begun = time.time()
        try:
            v = longer_run(
                classifier, images[fit], epsilon, objective, passes, seed
            )
        except ValueError as error:  # A head that cannot be seen.
            say(f"{objective}: {error}")
            continue
        longer[objective] = float(judge.fooled(v).mean())
        say(
            f"{objective}: {longer[objective]:.1%}, {time.time() - begun:.0f} s"
        )
    row = {
        "classifier": classifier.name,
        "held-out images": found.num_images,
        "photographs": found.num_groups,
        "random signs": found.random_rate,
        "audit": found.fooling_rate,
        "interval": found.fooling_interval,
        "passes of audit": found.passes,
        "strongest": f"{found.strongest.name}, seed {found.strongest.seed}",
        "best of its runs, held out": max(
            run.fooling_rate for run in found.runs
        ),
        "passes of a longer run": passes,
        "longer runs": longer,
        "seconds of audit": found.seconds,
    }
    best = max(longer.values())
    print(
        f"\n{classifier.name}: audit {found.fooling_rate:.1%}, best of its "
        f"runs on the same images {row['best of its runs, held out']:.1%}, "
        f"best run of {passes:,} passes {best:.1%}; random signs "
        f"{found.random_rate:.1%}; {found.num_images} images of "
        f"{found.num_groups} photographs\n",
        flush=True,
    )
    return row


def draw_again(classifier, x, y, options):
    """How often the rate on other pictures lies in the interval told."""
    rng = np.random.default_rng(options.seed)
    rows = []
    for number in range(options.draws):
        order = rng.permutation(len(x))
        chosen, others = np.split(order, [options.images])
        others = others[:1000]
        if options.fit:
            with tempfile.TemporaryDirectory() as folder:
                v, told, (low, high) = told_by_fit(
                    folder, classifier, x[chosen], y[chosen], number
                )
        else:
            pictures = datasets.Pictures(x[chosen], labels=y[chosen])
            found = audit.audit_pictures(
                classifier,
                [pictures.take(i) for i in pictures.split(seed=number)],
                keras_uap.LpBall(25.5, "linf"),
                (0.0, 255.0),
                options.budget,
                number,
            )
            v, told = found.perturbation, found.fooling_rate
            low, high = found.fooling_interval
        judge = LabelledImages(classifier, x[others], (0, 255))
        rate = float(judge.fooled(v).mean())
        rows.append(
            {
                "told": told,
                "interval": (low, high),
                "on 1,000 others": rate,
                "inside": low <= rate <= high,
            }
        )
        print(
            f"draw {number}: {told:.1%} told ({low:.1%} to "
            f"{high:.1%}), {rate:.1%} of 1,000 others",
            flush=True,
        )
    inside = sum(row["inside"] for row in rows)
    print(f"{inside} of {len(rows)} inside the interval")
    return rows


def told_by_fit(folder, classifier, images, labels, seed):
    """Writes folders of classes; returns what `fit` tells, and finds."""
    folder = pathlib.Path(folder)
    classifier.save(folder / "classifier.keras")
    for number, (image, label) in enumerate(zip(images, labels)):
        place = folder / "pictures" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(place / f"{number}.png")
    words = ["fit", "--model", folder / "classifier.keras"]
    words += ["--images", folder / "pictures", "--output", folder / "result"]
    words += ["--epsilon", "25.5", "--seed", seed, "--json"]
    with contextlib.redirect_stdout(io.StringIO()):
        status = command_line.main([*map(str, words)])
    if status:
        raise SystemExit("fit failed")
    v, card = interchange.load_perturbation(folder / "result" / "uap.npz")
    told = card["held_out"]
    return v, told["fooling_rate"], told["interval_95"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", help="folder of 224x224 crops")
    parser.add_argument("--classifier", nargs="+", default=[])
    parser.add_argument("--fashion-mnist", action="store_true")
    parser.add_argument("--draws", type=int)
    parser.add_argument("--fit", action="store_true", help="with --draws")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--crops", type=int, default=1500)
    parser.add_argument(
        "--budget", choices=sorted(race.BUDGETS), default="standard"
    )
    parser.add_argument("--passes", type=int, default=18_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="file to write the figures to")
    options = parser.parse_args()

    rows = []
    if options.draws or options.fashion_mnist:
        x_train, y_train, x, y = fashion_mnist("train", "test")
        networks = list(fashion_networks(x_train, y_train))
    if options.draws:
        rows = draw_again(networks[0], x, y, options)
    elif options.fashion_mnist:
        for network in networks:
            rows.append(compare(network, x[:3000], None, 25.5, options))
    else:
        images, groups = photographs(options)
        paths = options.classifier or [None]
        for path in paths:
            classifier = load_classifier(path)
            rows.append(compare(classifier, images, groups, 10.0, options))
    if options.json:
        pathlib.Path(options.json).write_text(
            json.dumps(rows, indent=2) + "\n", encoding="utf-8"
        )


def photographs(options):
    """Crops of all photographs, and the photograph of each."""
    if options.photos is None:
        parts = ("fit", "held_out")
        return (
            np.concatenate([samples.load_photos(part) for part in parts]),
            np.concatenate([samples.photo_groups(part) for part in parts]),
        )
    pictures = datasets.load(options.photos, limit=options.crops)
    return pictures.images, pictures.groups


if __name__ == "__main__":
    main()
