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
import json
import time

import keras
import numpy as np
from common import load_split

import keras_uap
from keras_uap import analysis, samples


def lion(uap, batches):
    return "lion"


def decaying_lion(uap, batches):
    return uap.decaying_lion(batches)


def deepfool(uap, batches):
    steps = keras.optimizers.schedules.PolynomialDecay(1.5, batches, 0.015)
    return keras_uap.DeepFool(max_steps=3, step_size=steps, boundary="nearest")


# name, update, what to fit on and how much of it, epochs, where it starts
ROWS = [
    ("lion, one epoch", lion, "crops", 1040, 1, None),
    ("decaying lion, four epochs", decaying_lion, "crops", 1600, 4, None),
    ("DeepFool, whole batches", deepfool, "crops", 256, 4, None),
    ("data-free, jigsaw images", decaying_lion, "jigsaw", 512, 2, None),
    ("data-free, noise", decaying_lion, "noise", 512, 2, None),
    ("few crops", decaying_lion, "crops", 32, 4, None),
    ("few crops after jigsaw images", decaying_lion, "crops", 32, 4, "jigsaw"),
]
BATCH = 16


def draw(kind, count, seed):
    return keras_uap.noise_images(count, (224, 224, 3), kind, seed)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", help="folder of 224x224 crops")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--held-out", type=int, default=500)
    parser.add_argument("--only", help="rows whose name contains this")
    parser.add_argument("--json", help="file to write the figures to")
    options = parser.parse_args()

    classifier = samples.load_classifier()
    most = max(row[3] for row in ROWS)
    images, held_out, groups = load_split(
        options.photos, most, options.held_out
    )
    print(
        f"EfficientNet-Lite0, linf, epsilon 10; {len(held_out)} held-out crops "
        f"of {len(np.unique(groups))} photographs; {options.runs} runs\n"
    )
    print(
        "| update | images to fit | model passes | held-out fooling rate "
        "| range | seconds |"
    )
    print("|---|---|---|---|---|---|")
    results = []
    for name, update, source, count, epochs, first in ROWS:
        if options.only and options.only not in name:
            continue
        rates, passes, seconds = [], [], []
        for seed in range(options.runs):
            keras.utils.set_random_seed(seed)
            uap = keras_uap.UniversalPerturbation(classifier, epsilon=10.0)
            if first is not None:  # Fitted without data, just as above.
                uap.compile(uap.decaying_lion(2 * 512 // BATCH))
                uap.fit(draw(first, 512, seed), epochs=2, verbose=0)
                uap = keras_uap.UniversalPerturbation(
                    classifier,
                    epsilon=10.0,
                    initial_perturbation=uap.perturbation,
                )
            data = images[:count]
            if source != "crops":
                data = draw(source, count, seed)
            uap.compile(update(uap, epochs * -(-len(data) // BATCH)))
            start = time.perf_counter()
            history = uap.fit(
                data, batch_size=BATCH, epochs=epochs, verbose=0
            ).history
            seconds.append(time.perf_counter() - start)
            passes.append(sum(history["model_passes"]))
            rates.append(
                uap.evaluate(held_out, verbose=0, return_dict=True)[
                    "fooling_rate"
                ]
            )
        results.append(
            {
                "update": name,
                "images": len(data),
                "model_passes": passes,
                "fooling_rates": rates,
                "seconds": seconds,
            }
        )
        print(
            f"| {name} | {len(data)} | {np.mean(passes):.0f} | "
            f"{np.mean(rates):.1%} | {min(rates):.1%} to {max(rates):.1%} | "
            f"{np.median(seconds):.0f} |",
            flush=True,
        )
    report = analysis.fooling_report(
        classifier, uap.perturbation, held_out, groups=groups, verbose=0
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
