"""What the two defences achieve on Fashion-MNIST, and what they cost.

    python benchmarks/defend.py --json defend.json

For every seed: a small CNN is trained on Fashion-MNIST (from TFDS) until it is
right on 90 % of the test images. Then copies of it are trained on, in four
ways:

- control: on the clean images, as before;
- paper, round one: 5 epochs, a layer that perturbs half of the images with one
  of 10 perturbations found against the undefended model;
- paper, round two: 5 more epochs with 10 perturbations found against the model
  of round one;
- simultaneous: 5 epochs, the layer trains its own perturbation.

Every model is then attacked anew, by perturbations fitted to itself, with
l-infinity norm 25.5 of 255. Reported is the share of the 10,000 test images
whose prediction changes. "gradient" is the better of a cross-entropy and a
margin perturbation, chosen on 500 training images that neither was fitted to;
"DeepFool" is the paper's update on the same images. All attacks go through the
whole model in inference mode, where the layer is the identity.

The time of an epoch is measured for all kinds of training in turn, in one
process, as wall time and as processor time of all threads (which other
programs on the machine disturb less). The ratio to plain training is the
median over the turns. `--seeds` without a number measures this only.
"""

import argparse
import json
import os
import time

import keras
import numpy as np
from common import fashion_mnist

import keras_uap

EPSILON = 25.5
BATCH = 128
TURNS = 11

FULL = {
    "train": 60_000,
    "test": 10_000,
    "plain_epochs": 10,
    "epochs": 5,
    "pool": 10,
    "pool_images": 1000,
    "pool_epochs": 5,
    "attack_images": 2000,
    "attack_epochs": 10,
    "deepfool_epochs": 5,
}
QUICK = {
    "train": 2000,
    "test": 500,
    "plain_epochs": 3,
    "epochs": 1,
    "pool": 2,
    "pool_images": 100,
    "pool_epochs": 1,
    "attack_images": 200,
    "attack_epochs": 2,
    "deepfool_epochs": 1,
}


def make_classifier():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ],
        name="classifier",
    )


def compile_for(model, steps):
    """Adam whose learning rate falls from 1e-3 to 0, as is usual."""
    model.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(1e-3, steps)
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def in_front(layer, classifier):
    return keras.Sequential([keras.Input((28, 28, 1)), layer, classifier])


def train(model, x, y, epochs, callbacks=()):
    """Trains a model; returns the seconds that it took."""
    compile_for(model, epochs * -(-len(x) // BATCH))
    start = time.perf_counter()
    model.fit(
        x,
        y,
        batch_size=BATCH,
        epochs=epochs,
        callbacks=list(callbacks),
        verbose=0,
    )
    return time.perf_counter() - start


def copy_of(classifier):
    copy = keras.models.clone_model(classifier)
    copy.set_weights(classifier.get_weights())
    compile_for(copy, 1)
    return copy


def attack(classifier, images, held_out, count, epochs, optimizers):
    """Fits fresh perturbations; returns the held-out rate of the best one.

    Args:
        classifier: The model to attack.
        images: Training images.
        held_out: Images to measure on.
        count: Integer, the first images, which are fitted to. The 500 after
            them choose among the perturbations.
        epochs: Integer, passes over the images.
        optimizers: List of pairs of a function `(uap, batches)` to what
            `compile` takes, and a loss.

    Returns:
        The fooling rate.
    """
    fit, choose = images[:count], images[count : count + 500]
    best = (-1.0, None)
    for seed, (optimizer, loss) in enumerate(optimizers):
        keras.utils.set_random_seed(seed)
        uap = keras_uap.UniversalPerturbation(classifier, EPSILON)
        uap.compile(optimizer(uap, epochs * -(-count // 32)), loss=loss)
        uap.fit(
            fit,
            epochs=epochs,
            batch_size=32,
            validation_data=choose,
            verbose=0,
        )
        rate = uap.evaluate(choose, verbose=0, return_dict=True)
        if rate["fooling_rate"] > best[0]:
            best = (rate["fooling_rate"], uap)
    measured = best[1].evaluate(held_out, verbose=0, return_dict=True)
    return measured["fooling_rate"]


GRADIENT = [
    (lambda uap, batches: uap.decaying_lion(batches), "crossentropy"),
    (lambda uap, batches: uap.decaying_lion(batches), "margin"),
]
DEEPFOOL = [(lambda uap, batches: keras_uap.DeepFool(), "crossentropy")]


def measure(classifier, data, size):
    """Clean accuracy, and how often fresh perturbations fool the model."""
    x, _, x_test, y_test = data
    accuracy = classifier.evaluate(x_test, y_test, batch_size=500, verbose=0)
    count = size["attack_images"]
    images = x[-(count + 500) :]
    return {
        "accuracy": accuracy[1],
        "gradient": attack(
            classifier, images, x_test, count, size["attack_epochs"], GRADIENT
        ),
        "deepfool": attack(
            classifier, images, x_test, count, size["deepfool_epochs"], DEEPFOOL
        ),
    }


def one_seed(seed, data, size):
    """Trains and measures all models of one seed."""
    x, y = data[:2]
    epochs = size["epochs"]
    keras.utils.set_random_seed(seed)
    plain = make_classifier()
    train(plain, x, y, size["plain_epochs"])
    figures, seconds = {}, {}

    def note(name, model, spent):
        figures[name] = measure(model, data, size)
        seconds[name] = spent / epochs
        print(seed, name, figures[name], round(spent), "s", flush=True)

    note("undefended", plain, 0.0)

    keras.utils.set_random_seed(seed)
    control = copy_of(plain)
    note("control", control, train(control, x, y, epochs))

    keras.utils.set_random_seed(seed)
    paper = copy_of(plain)
    layer = keras_uap.PerturbationLayer(
        rate=0.5, pool_size=size["pool"], seed=seed
    )
    for number, name in enumerate(["paper, round one", "paper, round two"]):
        callback = keras_uap.UniversalAdversarialTraining(
            x[: size["pool_images"]],
            EPSILON,
            epochs=size["pool_epochs"],
            seed=10 * seed + number,
        )
        model = in_front(layer, paper)
        note(name, paper, train(model, x, y, epochs, [callback]))

    keras.utils.set_random_seed(seed)
    hardened = copy_of(plain)
    layer = keras_uap.PerturbationLayer(epsilon=EPSILON)
    model = in_front(layer, hardened)
    note("simultaneous", hardened, train(model, x, y, epochs))
    return figures, seconds


def ratios(data):
    """Time of an epoch over that of plain training: wall, processor."""
    x, y = data[0][:12_800], data[1][:12_800]
    pool = np.random.default_rng(0).uniform(-25, 25, (10, 28, 28, 1))
    models = {"plain": make_classifier()}
    for name, layer in {
        "simultaneous": keras_uap.PerturbationLayer(epsilon=EPSILON),
        "pool of 10, rate 0.5": keras_uap.PerturbationLayer(pool, rate=0.5),
    }.items():
        models[name] = in_front(layer, make_classifier())
    seconds = {name: [] for name in models}
    for model in models.values():
        train(model, x, y, 1)
    for _ in range(TURNS):
        for name, model in models.items():
            start = np.array([time.perf_counter(), time.process_time()])
            model.fit(x, y, batch_size=BATCH, verbose=0)
            end = np.array([time.perf_counter(), time.process_time()])
            seconds[name].append(end - start)
    plain = np.array(seconds.pop("plain"))
    return {
        name: np.median(np.array(spent) / plain, axis=0).round(3).tolist()
        for name, spent in seconds.items()
    }


def spread(values, unit=100):
    values = unit * np.array(values)
    return f"{values.mean():.1f} ({values.min():.1f} to {values.max():.1f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--json", help="file to write the figures to")
    options = parser.parse_args()
    size = QUICK if os.environ.get("KERAS_UAP_QUICK") == "1" else FULL
    data = fashion_mnist(f"train[:{size['train']}]", f"test[:{size['test']}]")
    times = ratios(data)
    print("epoch over plain training, [wall, cpu]:", times, flush=True)
    runs = {seed: one_seed(seed, data, size) for seed in options.seeds}

    if not runs:
        return
    names = list(next(iter(runs.values()))[0])
    print(
        f"\nFashion-MNIST, l-infinity {EPSILON} of 255, {len(runs)} seeds, "
        f"mean (range), n = {len(data[2])} test images\n\n"
        "| model | clean accuracy, % | fooled by gradient, % | "
        "fooled by DeepFool, % | seconds an epoch, all told |\n"
        "|---|---|---|---|---|"
    )
    for name in names:
        cells = [
            spread([figures[name][key] for figures, _ in runs.values()])
            for key in ("accuracy", "gradient", "deepfool")
        ]
        spent = np.mean([seconds[name] for _, seconds in runs.values()])
        cells.append(f"{spent:.1f}" if spent else "")
        print(f"| {name} | {' | '.join(cells)} |")
    if options.json:
        result = {
            "size": size,
            "epoch_time_ratio": times,
            "runs": {
                seed: {"figures": figures, "seconds_per_epoch": seconds}
                for seed, (figures, seconds) in runs.items()
            },
        }
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
