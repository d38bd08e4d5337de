"""Does a perturbation of several networks transfer better than of one?

    python benchmarks/ensemble.py --photos FOLDER --others PATH [PATH]

Two experiments. In each, perturbations are fitted with the same images, the
same number of image draws and the same update to one network, to another, and
to an `Ensemble` of both. (A pass through the ensemble costs one through each
member.)

- fashion: three small networks of different architecture are trained on
  Fashion-MNIST (from TFDS). Two are held in. The third is held out: no
  perturbation has seen it. l-infinity norm 25.5 of 255, measured on test
  images, three seeds, mean and range.
- photos: EfficientNet-Lite0 and the classifiers in PATH, `.keras` files that
  take RGB images in 0 to 255 to logits of the ImageNet classes. Every two are
  an ensemble: with one PATH the question is what each loses for the other, with
  two also how often the third is fooled, which no perturbation has seen.
  l-infinity norm 10 of 255, measured on crops of photographs that were not
  fitted on, one seed, 95 % intervals.

Without `--photos` and `--others`, only the first experiment is run.
"""

import argparse
import itertools
import json
import os
import pathlib

import common
import harden_fashion_mnist
import keras

import keras_uap
from keras_uap import analysis, samples

FULL = {
    "train": 20_000,
    "test": 2000,
    "plain_epochs": 4,
    "images": 1000,
    "epochs": 4,
    "crops": 512,
    "held_out": 300,
}
QUICK = {
    "train": 1000,
    "test": 200,
    "plain_epochs": 1,
    "images": 64,
    "epochs": 1,
    "crops": 16,
    "held_out": 8,
}


def make_dense():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dense(128, activation="relu"),
            layers.Dense(10),
        ],
        name="dense",
    )


def make_separable():
    layers = keras.layers
    parts = [keras.Input((28, 28, 1)), layers.Rescaling(1 / 127.5, -1)]
    for filters, strides in ((32, 2), (64, 1), (64, 2)):
        parts += [
            layers.SeparableConv2D(filters, 5, strides, "same", use_bias=False),
            layers.BatchNormalization(),
            layers.Activation("swish"),
        ]
    parts += [layers.GlobalAveragePooling2D(), layers.Dense(10)]
    return keras.Sequential(parts, name="separable")


def fit(classifier, images, epsilon, epochs, seed):
    """Returns the perturbation after `epochs` of decaying sign steps."""
    keras.utils.set_random_seed(seed)
    uap = keras_uap.UniversalPerturbation(classifier, epsilon, from_logits=True)
    batches = epochs * -(-len(images) // 16)
    uap.compile(uap.decaying_lion(batches))
    uap.fit(images, epochs=epochs, batch_size=16, verbose=0)
    return uap.perturbation


def measure(networks, sources, images, held_out, epsilon, epochs, seed, groups):
    """Fits to each source, a tuple of names; measures on all networks."""
    found = {}
    for names in sources:
        members = [networks[name] for name in names]
        source = members[0]
        if len(members) > 1:
            source = keras_uap.Ensemble(members, from_logits=True)
        found[" + ".join(names)] = fit(source, images, epsilon, epochs, seed)
    return analysis.transfer_matrix(
        networks,
        found,
        held_out,
        groups=groups,
        seed=seed,
        from_logits=True,
        verbose=0,
    )


def alone_and_in_pairs(names):
    """The networks alone, and every two of them."""
    pairs = itertools.combinations(names, 2)
    return [*((name,) for name in names), *pairs]


def fashion(size, seeds):
    """Three networks on Fashion-MNIST, the last of them held out."""
    x, y, x_test, _ = common.fashion_mnist(
        f"train[:{size['train']}]", f"test[:{size['test']}]"
    )
    results = []
    for seed in seeds:
        keras.utils.set_random_seed(seed)
        networks = {
            "convolutions": harden_fashion_mnist.make_classifier(),
            "separable": make_separable(),
            "dense": make_dense(),
        }
        for network in networks.values():
            harden_fashion_mnist.train(network, x, y, size["plain_epochs"])
        # Every network is held out once, from perturbations of the others.
        for out in networks:
            held_in = [name for name in networks if name != out]
            result = measure(
                networks,
                alone_and_in_pairs(held_in),
                x[: size["images"]],
                x_test,
                25.5,
                size["epochs"],
                seed,
                None,
            )
            column = list(networks).index(out)
            rates = {
                name: float(result.fooling_rates[row, column])
                for row, name in enumerate(result.perturbations)
            }
            rates["random signs"] = float(result.random_rates[0, column])
            results.append({"seed": seed, "held_out": out, "rates": rates})
            print(results[-1], flush=True)
    print(
        "\nFashion-MNIST, l-infinity 25.5 of 255, fooling rate of the network "
        f"held out, %, {len(seeds)} seeds, mean (range)\n\n"
        "| held out | fitted to | fooled |\n|---|---|---|"
    )
    for out in networks:
        runs = [r["rates"] for r in results if r["held_out"] == out]
        for name in runs[0]:
            cell = harden_fashion_mnist.spread([rates[name] for rates in runs])
            print(f"| {out} | {name} | {cell} |")
    return results


def photographs(size, folder, paths, seed):
    """EfficientNet-Lite0 and other ImageNet networks, alone and in pairs."""
    images, held_out, groups = common.load_split(
        folder, size["crops"], size["held_out"]
    )
    networks = {"EfficientNet-Lite0": samples.load_classifier()}
    for path in map(pathlib.Path, paths):
        # Images of Lite0's size; resized for the others.
        networks[path.stem] = keras_uap.attach(
            path, image_shape=images.shape[1:]
        )
    result = measure(
        networks,
        alone_and_in_pairs(networks),
        images,
        held_out,
        10.0,
        size["epochs"] // 2 or 1,
        seed,
        groups,
    )
    print(
        f"\nphotographs, l-infinity 10 of 255, {len(images)} crops to fit, "
        f"{result.num_images} of {result.num_groups} other photographs to "
        "measure, fooling rate, % (95 % interval)\n\n"
        f"| fitted to | {' | '.join(networks)} |\n|---{'|---' * len(networks)}|"
    )
    for row, name in enumerate(result.perturbations):
        cells = [
            f"{100 * rate:.1f} ({100 * low:.0f} to {100 * high:.0f})"
            for rate, (low, high) in zip(
                result.fooling_rates[row], result.intervals[row]
            )
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    noise = [f"{100 * rate:.1f}" for rate in result.random_rates[0]]
    print(f"| random signs | {' | '.join(noise)} |")
    return result.to_dict()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", help="folder of crops; see common.py")
    parser.add_argument(
        "--others",
        nargs="+",
        default=[],
        metavar="PATH",
        help=".keras files of other classifiers",
    )
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--json", help="file to write the figures to")
    options = parser.parse_args()
    size = QUICK if os.environ.get("KERAS_UAP_QUICK") == "1" else FULL
    figures = {"size": size}
    if options.seeds:
        figures["fashion"] = fashion(size, options.seeds)
    if options.others:
        figures["photos"] = photographs(size, options.photos, options.others, 0)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
