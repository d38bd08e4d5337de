"""What ways of hardening achieve on Fashion-MNIST, and what they cost.

    python benchmarks/harden_fashion_mnist.py --json hardened.json

For every seed: a small CNN is trained on Fashion-MNIST (from TFDS) until it is
right on 90 % of the test images. Then copies of it are trained on, in ways
that `--only` chooses of:

- control: on the clean images, as before;
- paper, round one: 5 epochs, a layer that perturbs half of the images with one
  of 10 perturbations found against the original model;
- paper, round two: 5 more epochs with 10 perturbations found against the model
  of round one;
- simultaneous: 5 epochs, the layer trains its own perturbation;
- clean and perturbed: 5 epochs, `AdversarialDistiller` trains on both, with
  the labels, while two perturbations climb;
- clean more: the same with three quarters of the weight on the clean ones
  (`robustness=0.25`).

Every model is then attacked anew by the runs of `keras_uap.audit`, with
l-infinity norm 25.5 of 255: fitted to 2,000 training images, the strongest
chosen on 500 others, and reported is the share of the 10,000 test images whose
prediction it changes. For trained models the perturbation of the original one
is among the attacks, as it is ("transferred") and as a start. All attacks go
through the whole model in inference mode, where the layer is the identity.

The time of an epoch is measured for all kinds of training in turn, in one
process, as wall time and as processor time of all threads (which other
programs on the machine disturb less). The ratio to plain training is the
median over the turns. `--seeds` without a number measures this only.

`--call 800` does none of this. It calls `keras_uap.harden` with 800 of the test
images, without labels, prints its table, and measures the accuracy on the other
test images before and after.
"""

import argparse
import json
import os
import time

import keras
import numpy as np
from common import fashion_mnist

import keras_uap
from keras_uap import datasets
from keras_uap.defenses import harden
from keras_uap.evaluation import audit

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
}


DISTILLERS = {
    "clean and perturbed": {"pool_size": 2},
    "clean more": {"pool_size": 2, "robustness": 0.25},
}
WAYS = ["control", "paper", "simultaneous", *DISTILLERS]


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


def falling_adam(steps):
    """Adam whose learning rate falls from 1e-3 to 0, as is usual."""
    return harden.falling_adam(1e-3, steps)


def compile_for(model, steps):
    model.compile(
        falling_adam(steps),
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


def measure(classifier, data, size, options, seed, known=None):
    """Clean accuracy, and how often the strongest attack fools the model."""
    x, _, x_test, y_test = data
    accuracy = classifier.evaluate(x_test, y_test, batch_size=500, verbose=0)
    count = size["attack_images"]
    images = np.concatenate([x[-(count + 500) :], x_test])
    found = audit.audit_pictures(
        classifier,
        [
            datasets.Pictures(part)
            for part in np.split(images, [count, count + 500])
        ],
        keras_uap.LpBall(EPSILON),
        (0.0, 255.0),
        options.budget,
        seed,
        known=known,
        hardened=True,
        batch_size=500,
    )
    rates = {
        f"{run.name}, seed {run.seed}": run.fooling_rate for run in found.runs
    }
    row = {
        "accuracy": accuracy[1],
        "fooled": found.fooling_rate,
        "noise": found.random_rate,
        "strongest": f"{found.strongest.name}, seed {found.strongest.seed}",
        "runs": rates,
        "warnings": found.warnings,
    }
    return row, found.perturbation


def distill(classifier, data, size, **arguments):
    """Trains on clean and on perturbed images; returns the seconds."""
    defence = keras_uap.AdversarialDistiller(classifier, EPSILON, **arguments)
    x, y = data[:2]
    defence.compile(falling_adam(size["epochs"] * -(-len(x) // BATCH)))
    start = time.perf_counter()
    defence.fit(x, y, batch_size=BATCH, epochs=size["epochs"], verbose=0)
    return time.perf_counter() - start


def one_seed(seed, data, size, options):
    """Trains and measures all models of one seed."""
    x, y = data[:2]
    epochs = size["epochs"]
    keras.utils.set_random_seed(seed)
    plain = make_classifier()
    train(plain, x, y, size["plain_epochs"])
    figures, seconds = {}, {}

    def note(name, model, spent, known=None):
        figures[name], v = measure(model, data, size, options, seed, known)
        seconds[name] = spent / epochs
        print(seed, name, figures[name], round(spent), "s", flush=True)
        return v

    before = note("not hardened", plain, 0.0)

    for way in options.only:
        keras.utils.set_random_seed(seed)
        model = copy_of(plain)
        if way == "control":
            note(way, model, train(model, x, y, epochs), before)
        elif way == "paper":
            layer = keras_uap.PerturbationLayer(
                rate=0.5, pool_size=size["pool"], seed=seed
            )
            for number, name in enumerate(["round one", "round two"]):
                callback = keras_uap.UniversalAdversarialTraining(
                    x[: size["pool_images"]],
                    EPSILON,
                    epochs=size["pool_epochs"],
                    seed=10 * seed + number,
                )
                training = in_front(layer, model)
                spent = train(training, x, y, epochs, [callback])
                note(f"paper, {name}", model, spent, before)
        elif way == "simultaneous":
            layer = keras_uap.PerturbationLayer(epsilon=EPSILON)
            spent = train(in_front(layer, model), x, y, epochs)
            note(way, model, spent, before)
        else:
            spent = distill(model, data, size, seed=seed, **DISTILLERS[way])
            note(way, model, spent, before)
    return figures, seconds


def one_call(count, seed, data, size):
    """`keras_uap.harden` with test images; its table, and the accuracy."""
    x, y, x_test, y_test = data
    keras.utils.set_random_seed(seed)
    model = make_classifier()
    train(model, x, y, size["plain_epochs"])
    others = x_test[count:], y_test[count:]
    before = model.evaluate(*others, batch_size=500, verbose=0)[1]
    result = keras_uap.harden(
        model, x_test[:count], epsilon=EPSILON, seed=seed, verbose=0
    )
    after = model.evaluate(*others, batch_size=500, verbose=0)[1]
    print(f"\nseed {seed}\n{result}", flush=True)
    print(
        f"accuracy on {len(others[0])} other test images: {before:.1%} before, "
        f"{after:.1%} after",
        flush=True,
    )


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
    for model in models.values():
        train(model, x, y, 1)
    for name in ("clean and perturbed",):
        models[name] = keras_uap.AdversarialDistiller(
            make_classifier(), EPSILON, **DISTILLERS[name]
        )
        models[name].compile(falling_adam(len(x) // BATCH))
        models[name].fit(x, y, batch_size=BATCH, verbose=0)
    seconds = {name: [] for name in models}
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
    parser.add_argument("--budget", default="quick")
    parser.add_argument(
        "--only", nargs="+", choices=WAYS, default=WAYS, metavar="WAY"
    )
    parser.add_argument("--json", help="file to write the figures to")
    parser.add_argument("--call", type=int, metavar="IMAGES")
    options = parser.parse_args()
    size = QUICK if os.environ.get("KERAS_UAP_QUICK") == "1" else FULL
    data = fashion_mnist(f"train[:{size['train']}]", f"test[:{size['test']}]")
    if options.call:
        for seed in options.seeds:
            one_call(options.call, seed, data, size)
        return
    times = ratios(data)
    print("epoch over plain training, [wall, cpu]:", times, flush=True)
    runs = {seed: one_seed(seed, data, size, options) for seed in options.seeds}

    if not runs:
        return
    names = list(next(iter(runs.values()))[0])
    print(
        f"\nFashion-MNIST, l-infinity {EPSILON} of 255, {len(runs)} seeds, "
        f"mean (range), n = {len(data[2])} test images\n\n"
        "| model | clean accuracy, % | fooled by the strongest, % | "
        "random signs, % | seconds an epoch, all told |\n"
        "|---|---|---|---|---|"
    )
    for name in names:
        cells = [
            spread([figures[name][key] for figures, _ in runs.values()])
            for key in ("accuracy", "fooled", "noise")
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
