"""Hardens the embedded EfficientNet-Lite0 on photographs.

    python benchmarks/defend_efficientnet.py --photos FOLDER

fine-tunes EfficientNet-Lite0 (ImageNet weights) on crops of three quarters of
the photographs in FOLDER, with its own clean predictions as labels, while
`PerturbationLayer(epsilon=10)` trains a perturbation against it. The fooling
rate of a fresh perturbation is measured before and after on crops of the other
photographs, with the same images and settings: l-infinity, epsilon 10 of 255.
It is the share of crops whose prediction by the network then under attack
changes. "Agreement" is the share of those crops, clean, on which the network
says what the original said. The statistics of batch normalization stay as they
are: a few hundred crops would spoil them. The files are named
`<photograph>_<crop>.jpg`. Without --photos it uses the embedded photographs.
"""

import argparse
import json
import time

import keras
import numpy as np
from common import load_split

import keras_uap
from keras_uap import samples

EPSILON = 10.0


def fresh_fooling_rate(classifier, images, held_out, epochs):
    """The held-out fooling rate of a perturbation fitted to `classifier`."""
    keras.utils.set_random_seed(0)
    uap = keras_uap.UniversalPerturbation(classifier, EPSILON)
    uap.compile(uap.decaying_lion(epochs * -(-len(images) // 16)))
    uap.fit(images, epochs=epochs, verbose=0)
    return uap.evaluate(held_out, verbose=0, return_dict=True)["fooling_rate"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", help="folder of 224x224 crops")
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--attack-epochs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--step-size", type=float, default=3.0)
    parser.add_argument("--json", help="file to write the figures to")
    options = parser.parse_args()

    start = time.perf_counter()
    images, held_out, groups = load_split(
        options.photos, options.images, options.held_out
    )
    classifier = samples.load_classifier()

    def predict(x):
        return np.argmax(classifier.predict(x, verbose=0), axis=-1)

    labels, original = predict(images), predict(held_out)
    epochs = options.attack_epochs
    figures = {
        "crops": len(images),
        "held_out_crops": len(held_out),
        "held_out_photographs": len(set(groups)),
        "before": fresh_fooling_rate(classifier, images, held_out, epochs),
    }

    keras.utils.set_random_seed(0)
    for layer in classifier.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    layer = keras_uap.PerturbationLayer(
        epsilon=EPSILON, step_size=options.step_size
    )
    training = keras.Sequential(
        [keras.Input(images.shape[1:]), layer, classifier]
    )
    steps = options.epochs * -(-len(images) // 16)
    training.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(options.learning_rate, steps)
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    training.fit(
        images, labels, batch_size=16, epochs=options.epochs, verbose=2
    )
    figures["after"] = fresh_fooling_rate(classifier, images, held_out, epochs)
    figures["agreement"] = float(np.mean(predict(held_out) == original))
    figures["seconds"] = time.perf_counter() - start

    print(
        f"\nEfficientNet-Lite0, l-infinity {EPSILON:g} of 255, "
        f"{figures['crops']} crops to train and attack with, n = "
        f"{figures['held_out_crops']} held-out crops of "
        f"{figures['held_out_photographs']} other photographs\n\n"
        "| fooled before, % | fooled after, % | agreement on clean crops, % | "
        "seconds, all told |\n|---|---|---|---|\n"
        f"| {100 * figures['before']:.1f} | {100 * figures['after']:.1f} | "
        f"{100 * figures['agreement']:.1f} | {figures['seconds']:.0f} |"
    )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
