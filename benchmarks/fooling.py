"""How often the updates fool held-out photographs, and for how many passes.

    python benchmarks/fooling.py --photos FOLDER

fits perturbations of the embedded EfficientNet-Lite0 (l-infinity, epsilon 10,
pixels 0 to 255) on crops of three quarters of the photographs in FOLDER, and
measures them on crops of the others. Every row is the mean and range of
--runs runs, whose seeds (0, 1, ...) decide the order of the images. Without
--photos it uses the embedded photographs. Model passes are forwards and
backwards of one image; the one forward that each image needs for its clean
prediction is not among them.
"""

import argparse
import dataclasses
import json
import time

import keras
import numpy as np
from common import load_split, one_each

import keras_uap
from keras_uap import analysis, samples


@dataclasses.dataclass
class Row:
    """A recipe: what finds the perturbation, and on what."""

    name: str
    optimizer: object = "decaying_lion"
    loss: str = "dominant"
    norm: str = "linf"
    source: str = "crops"
    count: int = 1040
    epochs: int = 1
    first: str = None  # What it was fitted to before.
    varied: bool = False


def nearest(max_steps=3):
    return keras_uap.DeepFool(max_steps=max_steps, boundary="nearest")


LONG = {"count": 1600, "epochs": 4}
THOUSAND = {"count": 1000, "epochs": 6}
FREE = {"count": 512, "epochs": 2, "loss": "crossentropy"}
FEW = {"count": 32, "epochs": 4, "loss": "crossentropy"}
ROWS = [
    Row("dominant"),
    Row("cross-entropy", loss="crossentropy"),
    Row("lion, cross-entropy", "lion", "crossentropy"),
    Row("features", loss="features"),
    Row("features and dominant", loss="features+dominant"),
    Row("dominant, long", **LONG),
    Row("features and dominant, long", loss="features+dominant", **LONG),
    Row("cross-entropy, long", loss="crossentropy", **LONG),
    Row("dominant, l2, long", norm="l2", **LONG),
    Row("DeepFool", "deepfool", count=256, epochs=2),
    Row("DeepFool, l2", "deepfool", norm="l2", count=256, epochs=2),
    Row("DeepFool, long", "deepfool", **LONG),
    Row(
        "DeepFool, long, momentum 0.9", keras_uap.DeepFool(momentum=0.9), **LONG
    ),
    Row("DeepFool, l2, long", "deepfool", norm="l2", **LONG),
    Row("DeepFool, nearest boundary", nearest(), count=256, epochs=4),
    Row("1,000 crops, dominant", **THOUSAND),
    Row(
        "1,000 crops, features and dominant",
        loss="features+dominant",
        **THOUSAND,
    ),
    Row(
        "1,000 crops, DeepFool, momentum 0.9",
        keras_uap.DeepFool(momentum=0.9),
        **THOUSAND,
    ),
    # About 6,000 model passes. A varied image takes three, as its clean
    # prediction is found each time.
    *(
        row
        for source, counts in (
            ("photographs", (26, 32, 100)),
            ("crops", (125, 250, 500, 1000)),
        )
        for count in counts
        for row in (
            Row(
                f"{count:,} {source}, for 6,000 passes",
                source=source,
                count=count,
                epochs=-(-3000 // count),
            ),
            Row(
                f"{count:,} {source}, varied, for 6,000 passes",
                source=source,
                count=count,
                epochs=-(-2000 // count),
                varied=True,
            ),
        )
    ),
    Row("data-free, jigsaw images", source="jigsaw", **FREE),
    Row("data-free, noise", source="noise", **FREE),
    Row("few crops", **FEW),
    Row("few crops after jigsaw images", first="jigsaw", **FEW),
]
BATCH = 16
EPSILONS = {"linf": 10.0, "l2": 2000.0}


def draw(kind, count, seed):
    return keras_uap.noise_images(count, (224, 224, 3), kind, seed)


def fit(row, classifier, images, held_out, photos, seed):
    """Returns the rate, the passes, the seconds and the perturbation."""
    keras.utils.set_random_seed(seed)
    ball = {"epsilon": EPSILONS[row.norm], "norm": row.norm}
    uap = keras_uap.UniversalPerturbation(classifier, **ball)
    if row.first is not None:  # Fitted without data, just as above.
        uap.compile("decaying_lion")
        uap.fit(draw(row.first, 512, seed), epochs=2, verbose=0)
        uap = keras_uap.UniversalPerturbation(
            classifier, initial_perturbation=uap.perturbation, **ball
        )
    data = images[: row.count]
    if row.source == "photographs":
        data = one_each(photos, row.count, seed)
    elif row.source != "crops":
        data = draw(row.source, row.count, seed)
    if row.varied:
        data = keras_uap.datasets.augmented(data, BATCH, seed=seed)
    uap.compile(row.optimizer, loss=row.loss)
    start = time.perf_counter()
    history = uap.fit(
        data,
        batch_size=None if row.varied else BATCH,
        epochs=row.epochs,
        verbose=0,
    ).history
    seconds = time.perf_counter() - start
    measured = uap.evaluate(held_out, verbose=0, return_dict=True)
    passes = sum(history["model_passes"])
    return measured["fooling_rate"], passes, seconds, uap.perturbation


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", help="folder of 224x224 crops")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--held-out", type=int, default=500)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[row.name for row in ROWS],
        metavar="NAME",
        help="rows to fit: " + "; ".join(row.name for row in ROWS),
    )
    parser.add_argument("--json", help="file to write the figures to")
    options = parser.parse_args()

    rows = [row for row in ROWS if not options.only or row.name in options.only]
    classifier = samples.load_classifier()
    most = max(row.count for row in ROWS)
    images, held_out, groups = load_split(
        options.photos, most, options.held_out
    )
    print(
        f"EfficientNet-Lite0, epsilon 10 (linf) or 2000 (l2); {len(held_out)} "
        f"held-out crops of {len(np.unique(groups))} photographs; "
        f"{options.runs} runs\n"
    )
    print(
        "| recipe | images to fit | model passes | held-out fooling rate "
        "| range | seconds |"
    )
    print("|---|---|---|---|---|---|")
    results = []
    for row in rows:
        runs = [
            fit(row, classifier, images, held_out, options.photos, seed)
            for seed in range(options.runs)
        ]
        rates, passes, seconds, found = zip(*runs)
        results.append(
            {
                "recipe": row.name,
                "images": row.count,
                "model_passes": passes,
                "fooling_rates": rates,
                "seconds": seconds,
            }
        )
        print(
            f"| {row.name} | {row.count} | {np.mean(passes):.0f} | "
            f"{np.mean(rates):.1%} | {min(rates):.1%} to {max(rates):.1%} | "
            f"{np.median(seconds):.0f} |",
            flush=True,
        )
    report = analysis.fooling_report(
        classifier,
        found[-1],
        held_out,
        groups=groups,
        norm=rows[-1].norm,
        verbose=0,
    )
    print(
        f"\nrandom signs, same norm: {report.random_rate:.1%} (95 % interval "
        f"{report.random_interval[0]:.1%} to {report.random_interval[1]:.1%})"
    )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(
                {"rows": results, "random_rate": report.random_rate}, file
            )


if __name__ == "__main__":
    main()
