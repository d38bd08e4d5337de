"""Hardens EfficientNet-Lite0 on photographs, by recipes beside each other.

    python benchmarks/harden.py --photos FOLDER --only default gentle

Each recipe trains the embedded EfficientNet-Lite0 on crops of three quarters
of the photographs in FOLDER (named `<photograph>_<crop>.jpg`), without labels,
and is judged by `keras_uap.audit`'s attacks on crops of the other photographs,
before and after: l-infinity, epsilon 10 of 255. A third of the latter choose
the strongest attack, the rest are what the rates are of. One seed each.

What was measured is kept in `--output`, a JSON file a recipe; a recipe that is
there is not run again, unless `--only` names it. Without --photos the embedded
photographs are used.
"""

import argparse
import json
import pathlib

import common
import numpy as np

import keras_uap
from keras_uap import datasets, hardening, samples

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
    fit, others, groups = common.load_split(
        options.photos, options.images, options.held_out
    )
    # Whole photographs choose, and others are measured on.
    names = np.unique(groups)
    select = np.isin(groups, names[: len(names) // 3])
    start = len(fit)
    parts = (
        np.arange(start),
        start + np.flatnonzero(select),
        start + np.flatnonzero(~select),
    )
    pictures = datasets.Pictures(
        np.concatenate([fit, others]),
        # Those trained on need no group; none of the others has theirs.
        groups=np.concatenate([[""] * start, groups]),
    )
    return hardening.harden_pictures(
        samples.load_classifier(),
        pictures,
        keras_uap.LpBall(common.EPSILON),
        (common.LOW, common.HIGH),
        budget=options.budget,
        parts=parts,
        verbose=1,
        **recipe,
    ).to_dict()


def row(name, values):
    cells = [f"{values[part][key]:.1%}" for part, key in COLUMNS.values()]
    minutes = values["training_seconds"] / 60
    return f"| {' | '.join([name, *cells, f'{minutes:.0f}'])} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", help="folder of 224x224 crops")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--held-out", type=int, default=750)
    parser.add_argument("--budget", default="quick")
    parser.add_argument("--only", nargs="+", choices=RECIPES, metavar="RECIPE")
    parser.add_argument("--output", type=pathlib.Path, default="harden")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, recipe in RECIPES.items():
        path = options.output / f"{name.replace(' ', '_')}.json"
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
