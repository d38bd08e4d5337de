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
import time

import common
import keras

import keras_uap
from keras_uap import auditing, hardening, samples

PAPERS = "as in the paper"
PAPERS_EPOCHS = 4
# What differs from the defaults of `keras_uap.harden`.
RECIPES = {
    "default": {},
    "gentle": {"robustness": 0.25},
    "hard": {"robustness": 0.75},
    "half the learning rate": {"learning_rate": 1e-4},
    "half as long": {"epochs": 2},
    "twice as long": {"epochs": 8},
    PAPERS: {},
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


def papers_fine_tuning(classifier, images, seed):
    """The paper's: half of the images with one of ten perturbations.

    Two rounds of two epochs, each with ten perturbations found anew, which
    takes about as many passes as the default recipe. The labels are the
    classifier's own answers of before, and batch normalization stays as it is.
    """
    for layer in classifier.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    labels = classifier.predict(images, verbose=0).argmax(-1)
    training = keras.Sequential(
        [
            keras.Input(images.shape[1:]),
            keras_uap.PerturbationLayer(rate=0.5, pool_size=10, seed=seed),
            classifier,
        ]
    )
    steps = PAPERS_EPOCHS * -(-len(images) // common.BATCH)
    training.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(
                hardening.LEARNING_RATE, steps
            )
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    defence = keras_uap.UniversalAdversarialTraining(
        images[:256],
        epsilon=common.EPSILON,
        every=2,
        epochs=1,
        batch_size=common.BATCH,
        loss="dominant",
        seed=seed,
    )
    return training.fit(
        images,
        labels,
        batch_size=common.BATCH,
        epochs=PAPERS_EPOCHS,
        callbacks=[defence],
        verbose=2,
    ).history


def run_papers(classifier, pictures, parts, options):
    """The same audits around the paper's fine-tuning."""
    begun = time.time()
    shared = (
        keras_uap.LpBall(common.EPSILON),
        (common.LOW, common.HIGH),
        options.budget,
        options.seed,
        None,
        1,
        parts,
    )
    before = auditing.audit_pictures(classifier, pictures, *shared)
    started = time.time()
    fit = pictures.images[parts[0]]
    history = papers_fine_tuning(classifier, fit, options.seed)
    seconds = time.time() - started
    after = auditing.audit_pictures(
        classifier, pictures, *shared, known=before.perturbation
    )
    rounds = PAPERS_EPOCHS // 2
    return hardening.compared(
        before,
        after,
        pictures,
        parts[2],
        history=history,
        settings={"recipe": PAPERS, "seed": options.seed},
        training_passes=2 * PAPERS_EPOCHS * len(fit) + rounds * 21 * 256,
        training_seconds=seconds,
        seconds=time.time() - begun,
    )


def run(name, options):
    """Hardens a classifier by a recipe; returns the result's dictionary."""
    pictures, parts = common.load_three_parts(
        options.photos, options.images, options.held_out, options.seed
    )
    if options.classifier is None:
        classifier = samples.load_classifier()
    else:
        classifier = keras.saving.load_model(options.classifier, compile=False)
    if name == PAPERS:
        return run_papers(classifier, pictures, parts, options).to_dict()
    result = hardening.harden_pictures(
        classifier,
        pictures,
        keras_uap.LpBall(common.EPSILON),
        (common.LOW, common.HIGH),
        budget=options.budget,
        seed=options.seed,
        parts=parts,
        verbose=1,
        **RECIPES[name],
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
    for name in RECIPES:
        stem = f"{which}{name.replace(' ', '_')}_seed{options.seed}"
        path = options.output / f"{stem}.json"
        wanted = name in options.only if options.only else not path.exists()
        if wanted:
            common.say(name)
            text = json.dumps(run(name, options), indent=1)
            path.write_text(text, encoding="utf-8")
        if path.exists():
            found[name] = json.loads(path.read_text(encoding="utf-8"))
    print(f"| {' | '.join(['recipe', *COLUMNS, 'minutes of training'])} |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    for name, values in found.items():
        print(row(name, values))


if __name__ == "__main__":
    main()
