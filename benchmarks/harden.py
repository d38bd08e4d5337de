"""Hardens EfficientNet-Lite0 on photographs, by recipes beside each other.

    python benchmarks/harden.py --photos FOLDER --only default gentle

Each recipe trains the embedded EfficientNet-Lite0 (or another one,
`--classifier`), without labels, on up to 1,000 crops of photographs in FOLDER
(named `<photograph>_<crop>.jpg`). `keras_uap.audit`'s attacks judge it before
and after, l-infinity, epsilon 10 of 255. Crops of other photographs choose the
strongest, and up to 500 of yet others, a quarter of all photographs and the
same for every seed, are what the rates are of.

What was measured is kept in `--output`, a JSON file a recipe and seed; one that
is there is not run again, unless `--only` names it. Without --photos the
embedded photographs are used.
"""

import argparse
import json
import pathlib

import common
import keras

import keras_uap
from keras_uap import hardening, samples

# What differs from the defaults of `keras_uap.harden`.
RECIPES = {
    "default": {},
    "gentle": {"robustness": 0.25},
    "hard": {"robustness": 0.75},
    "half the learning rate": {"learning_rate": 1e-4},
    "half as long": {"epochs": 2},
    "twice as long": {"epochs": 8},
}
COLUMNS = {
    "kept": ("after", "agreement"),
    "fooled": ("after", "fooling_rate"),
    "robust agreement": ("after", "robust_agreement"),
    "random signs": ("after", "random_noise_rate"),
    "transferred": ("after", "transferred_rate"),
    "data-free": ("after", "data_free_rate"),
    "fooled before": ("before", "fooling_rate"),
}


def run(recipe, options):
    """Hardens a classifier by a recipe; returns the result's dictionary."""
    pictures, parts = common.load_three_parts(
        options.photos, options.images, options.held_out, options.seed
    )
    if options.classifier is None:
        classifier = samples.load_classifier()
    else:
        classifier = keras.saving.load_model(options.classifier, compile=False)
    result = hardening.harden_pictures(
        classifier,
        pictures,
        keras_uap.LpBall(common.EPSILON),
        (common.LOW, common.HIGH),
        budget=options.budget,
        seed=options.seed,
        parts=parts,
        verbose=1,
        **recipe,
    )
    return result.to_dict()


def row(name, values):
    cells = [f"{values[part][key]:.1%}" for part, key in COLUMNS.values()]
    minutes = values["training_seconds"] / 60
    return f"| {' | '.join([name, *cells, f'{minutes:.0f}'])} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", help="folder of 224x224 crops")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--held-out", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--classifier", type=pathlib.Path, help="a .keras file")
    parser.add_argument("--budget", default="quick")
    parser.add_argument("--only", nargs="+", choices=RECIPES, metavar="RECIPE")
    parser.add_argument("--output", type=pathlib.Path, default="harden")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    found = {}
    which = "" if options.classifier is None else options.classifier.stem + "_"
    for name, recipe in RECIPES.items():
        stem = f"{which}{name.replace(' ', '_')}_seed{options.seed}"
        path = options.output / f"{stem}.json"
        wanted = name in options.only if options.only else not path.exists()
        if wanted:
            common.say(name)
            text = json.dumps(run(recipe, options), indent=1)
            path.write_text(text, encoding="utf-8")
        if path.exists():
            found[name] = json.loads(path.read_text(encoding="utf-8"))
    print(f"| {' | '.join(['recipe', *COLUMNS, 'minutes of training'])} |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    for name, values in found.items():
        print(row(name, values))


if __name__ == "__main__":
    main()
