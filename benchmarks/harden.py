"""Hardens EfficientNet-Lite0 on photographs, by recipes beside each other.

    python benchmarks/harden.py --photos FOLDER --only default gentle

Each recipe trains the embedded EfficientNet-Lite0 (or another one,
`--classifier`), without labels, on up to 1,000 crops of photographs in FOLDER
(named `<photograph>_<crop>.jpg`). `keras_uap.audit`'s attacks judge it before
and after, l-infinity, epsilon 10 of 255. Crops of other photographs choose the
strongest, and up to 500 of yet others, a quarter of all photographs and the
same for every seed, are what the rates are of.

`--epochs` says how long all of them train, instead of as long as `harden` does.

What was measured is kept in `--output`, a JSON file a recipe, seed and length,
beside the hardened classifier. One that is there is not run again, unless
`--only` names it. So is the audit of before, which all recipes share. Without
--photos the embedded photographs are used.

`--train-only` leaves out the two audits, the longest part: the training starts
from a perturbation of 2,000 passes instead of an audit's strongest, and what it
made is kept for `--passes`.

`--passes` attacks what is kept once more with so many model passes, from coarse
to fine (or by `--attacks`), and prints what that fools: would more work find
more?

"fooled" is the rate of the strongest, chosen on other crops; "any" that of the
run that fools most of the held-out ones, "anew" the same of those that neither
started from the perturbation of before nor are that one or one without data.
"""

import argparse
import functools
import json
import pathlib
import pickle
import time

import common
import keras
import numpy as np

import keras_uap
from keras_uap import analysis, datasets
from keras_uap.classifiers.adapter import as_adapter
from keras_uap.defenses import harden
from keras_uap.evaluation import attack_suite
from keras_uap.evaluation import audit as auditing
from keras_uap.evaluation.intervals import rate_interval
from keras_uap.utils import progress
from keras_uap.utils.formatting import interval, percent

ATTACKS = {
    attack.name: attack
    for attack in attack_suite.ATTACKS
    if attack.start in (None, "coarse")
}
PAPERS = "as in the paper"
# What differs from the defaults of `keras_uap.harden`.
RECIPES = {
    "default": {},
    "gentle": {"robustness": 0.25},
    "hard": {"robustness": 0.75},
    "very hard": {"robustness": 0.9},
    "half the learning rate": {"learning_rate": 1e-4},
    "twice the learning rate": {"learning_rate": 4e-4},
    PAPERS: {},
}
# What differs from its default recipe, in ways that it does not offer.
CHANGES = {
    "one perturbation": {"pool_size": 1, "memory_size": 0},
    "no memory": {"memory_size": 0},
    "temperature 1": {"temperature": 1.0},
    "steps of all of epsilon": {"step_size": common.EPSILON},
    "average of weights": {},
    "the last half of the layers": {},
    "pictures not varied": {},
    "its labels instead of soft answers": {},
}
COLUMNS = {
    "kept": ("agreement",),
    "fooled": ("after", "fooling_rate"),
    "robust agreement": ("robust_agreement",),
    "random signs": ("after", "random_rate"),
    "anew": ("fresh_rate",),
    "most work": ("longer_rate",),
    "transferred": ("transferred_rate",),
    "data-free": ("data_free_rate",),
    "fooled before": ("before", "fooling_rate"),
}


def papers_fine_tuning(classifier, fit, seed, epochs):
    """The paper's: half of the images with one of ten perturbations.

    Rounds of two epochs, each with ten perturbations found anew, which takes
    about as many passes as the default recipe. The labels are the
    classifier's own answers of before, and batch normalization stays as it is.

    Returns:
        What `hardening.compared` is told: the history, and the model passes.
    """
    for layer in classifier.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    images = fit.images
    labels = classifier.predict(images, verbose=0).argmax(-1)
    training = keras.Sequential(
        [
            keras.Input(images.shape[1:]),
            keras_uap.PerturbationLayer(rate=0.5, pool_size=10, seed=seed),
            classifier,
        ]
    )
    steps = epochs * -(-len(images) // common.BATCH)
    training.compile(
        harden.falling_adam(harden.LEARNING_RATE, steps),
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
    history = training.fit(
        images,
        labels,
        batch_size=common.BATCH,
        epochs=epochs,
        callbacks=[defence],
        verbose=2,
    ).history
    rounds = -(-epochs // 2)
    return {
        "history": history,
        "training_passes": 2 * epochs * len(images) + rounds * 21 * 256,
    }


def train(classifier, fit, seed, epochs, known, name):
    """Trains by a recipe, or by the default but for one thing.

    Returns as above. `known` is the perturbation that the first one starts
    from.
    """
    if name == PAPERS:
        return papers_fine_tuning(classifier, fit, seed, epochs)
    if name == "the last half of the layers":
        for layer in classifier.layers[: len(classifier.layers) // 2]:
            layer.trainable = False
    arguments = {
        "temperature": harden.TEMPERATURE,
        "pool_size": 2,
        "memory_size": harden.ROUNDS,
        "seed": seed,
        "learning_rate": harden.LEARNING_RATE,
        **(RECIPES | CHANGES)[name],
    }
    learning_rate = arguments.pop("learning_rate")
    if name == "its labels instead of soft answers":
        arguments["temperature"] = 1.0
        labels = classifier.predict(fit.images, verbose=0).argmax(-1)
        fit = fit._replace(labels=labels)
    data = harden.training_data(
        fit,
        (common.LOW, common.HIGH),
        seed,
        augment=name != "pictures not varied",
    )
    distiller = keras_uap.AdversarialDistiller(
        classifier, common.EPSILON, **arguments
    )
    harden.show(distiller, known, 0)
    steps = epochs * -(-len(fit.images) // common.BATCH)
    averaged = {"use_ema": name == "average of weights", "ema_momentum": 0.98}
    distiller.compile(harden.falling_adam(learning_rate, steps, **averaged))
    passes = harden.passes_of(fit, epochs)
    rounds = harden.Rounds(
        attacker(classifier, fit), int(harden.ROUND_SHARE * passes), print
    )
    history = distiller.fit(
        data, epochs=epochs, shuffle=False, verbose=2, callbacks=[rounds]
    ).history
    return {
        "history": history,
        "training_passes": passes + sum(history["attack_passes"]),
    }


def kept(what, options, suffix):
    """Where something of this network, seed and, if trained, length is kept."""
    network = (
        "" if options.classifier is None else options.classifier.stem + "_"
    )
    length = ""
    if what != "before" and options.epochs is not None:
        length = f"_epochs{options.epochs}"
    stem = f"{network}{what.replace(' ', '_')}_seed{options.seed}{length}"
    return options.output / f"{stem}{suffix}"


def before_audit(classifier, parts, options):
    """The audit of the classifier as it is, which all recipes share."""
    path = kept("before", options, ".pickle")
    if not path.exists():
        common.say("before")
        found = audit(classifier, parts, options)
        path.write_bytes(pickle.dumps(found))
    return pickle.loads(path.read_bytes())


def audit(classifier, parts, options, known=None):
    return auditing.audit_pictures(
        classifier,
        parts,
        keras_uap.LpBall(common.EPSILON),
        (common.LOW, common.HIGH),
        options.budget,
        options.seed,
        verbose=1,
        known=known,
        hardened=True,
    )


def run(name, options):
    """Hardens a classifier by a recipe, and keeps it.

    Returns:
        The result's dictionary, or `None` without audits.
    """
    begun = time.time()
    parts = load(options)
    classifier = common.load_classifier(options.classifier)
    if options.train_only:
        known = quick_start(classifier, parts[0], options)
    else:
        before = before_audit(classifier, parts, options)
        known = before.perturbation
    if name in RECIPES and name != PAPERS and not options.train_only:
        result = harden.harden_pictures(
            classifier,
            parts,
            keras_uap.LpBall(common.EPSILON),
            (common.LOW, common.HIGH),
            budget=options.budget,
            seed=options.seed,
            verbose=1,
            before=before,
            epochs=options.epochs,
            **RECIPES[name],
        )
        classifier.save(kept(name, options, ".keras"))
        return result.to_dict()
    epochs = options.epochs or harden.epochs_for(len(parts[0].images))
    started = time.time()
    training = train(classifier, parts[0], options.seed, epochs, known, name)
    seconds = time.time() - started
    classifier.save(kept(name, options, ".keras"))
    if options.train_only:
        common.say(f"{name}: {seconds / 60:.0f} minutes of training")
        return None
    return harden.compared(
        before,
        audit(classifier, parts, options, known),
        parts[2],
        settings={"recipe": name, "seed": options.seed},
        training_seconds=seconds,
        seconds=time.time() - begun,
        **training,
    ).to_dict()


def load(options):
    return common.load_three_parts(
        options.photos, options.images, options.held_out, options.seed
    )


def quick_start(classifier, fit, options):
    """The perturbation of 2,000 passes that trainings start from."""
    path = kept("before", options, ".npy")
    if not path.exists():
        np.save(path, attack(classifier, "dominant", fit, 2000, options.seed))
    return np.load(path)


def attack(classifier, name, fit, passes, seed):
    """Returns what one attack of an audit finds with so many passes."""
    (found,) = attacker(classifier, fit).run(ATTACKS[name], passes, seed)
    return found.v


def attacker(classifier, fit):
    return attack_suite.Attacker(
        as_adapter(classifier, fit.images.shape[1:]),
        datasets.Pictures(fit.images),
        keras_uap.LpBall(common.EPSILON),
        (common.LOW, common.HIGH),
        None,
        progress.silent,
    )


def attack_kept(name, attack_name, options, original, parts):
    """A row of one longer attack: who is fooled, who agrees with before."""
    classifier = keras.saving.load_model(
        kept(name, options, ".keras"), compile=False
    )
    # Another order of the crops than those of the quick audit.
    v = attack(
        classifier,
        attack_name,
        parts[0],
        options.passes,
        options.seed + 1,
    )
    groups = parts[2].groups
    report = analysis.fooling_report(
        classifier,
        v,
        parts[2].images,
        groups=groups,
        value_range=(common.LOW, common.HIGH),
        num_random=1,
        verbose=0,
    )
    robust = report.perturbed_labels == original
    # Where nothing is fooled there is none.
    leading = [share for _, share in report.dominant_labels(1)] or [0.0]
    return [
        name,
        attack_name,
        percent(np.mean(report.clean_labels == original)),
        with_interval(report.fooling_rate, report.fooling_interval),
        with_interval(robust.mean(), rate_interval(robust, groups)),
        percent(report.random_rate),
        percent(leading[0]),
    ]


def attack_all(names, options):
    """Prints a table: would more work find more in what is kept?"""
    parts = load(options)
    classifier = common.load_classifier(options.classifier)
    original = classifier.predict(parts[2].images, verbose=0)
    original = original.argmax(-1)
    columns = [
        "recipe",
        "attack",
        "clean answers kept",
        f"fooled, {options.passes:,} passes (95 %)",
        "robust agreement (95 %)",
        "random signs",
        "most of the fooled to one class",
    ]
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for name in names:
        for attack_name in options.attacks:
            cells = attack_kept(name, attack_name, options, original, parts)
            print(f"| {' | '.join(cells)} |", flush=True)


def with_interval(rate, bounds):
    return f"{percent(rate)} ({interval(bounds)})"


def row(name, values):
    rates = (
        functools.reduce(dict.get, keys, values) for keys in COLUMNS.values()
    )
    cells = [f"{rate:.1%}" for rate in rates]
    runs = values["after"]["runs"]
    cells.append(f"{max(run['fooling_rate'] for run in runs):.1%}")
    minutes = values["training_seconds"] / 60
    return f"| {' | '.join([name, *cells, f'{minutes:.0f}'])} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", help="folder of 224x224 crops")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--held-out", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument("--passes", type=int, metavar="N")
    parser.add_argument(
        "--attacks",
        nargs="+",
        choices=list(ATTACKS),
        default=["coarse to fine"],
    )
    parser.add_argument("--classifier", type=pathlib.Path, help="a .keras file")
    parser.add_argument("--budget", default="quick")
    parser.add_argument(
        "--only", nargs="+", choices=[*RECIPES, *CHANGES], metavar="RECIPE"
    )
    parser.add_argument("--output", type=pathlib.Path, default="harden")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    recipes = [*RECIPES, *CHANGES]
    if options.passes is not None:
        there = [n for n in recipes if kept(n, options, ".keras").exists()]
        attack_all(options.only or there, options)
        return
    suffix = ".keras" if options.train_only else ".json"
    for name in options.only or recipes:
        path = kept(name, options, suffix)
        if options.only or not path.exists():
            common.say(name)
            result = run(name, options)
            if result is not None:
                text = json.dumps(result, indent=1)
                path.write_text(text, encoding="utf-8")
    if options.train_only:
        return
    found = {}
    for name in recipes:
        path = kept(name, options, ".json")
        if path.exists():
            found[name] = json.loads(path.read_text(encoding="utf-8"))
    names = ["recipe", *COLUMNS, "any", "minutes of training"]
    print(f"| {' | '.join(names)} |")
    print("|---" * len(names) + "|")
    for name, values in found.items():
        print(row(name, values))


if __name__ == "__main__":
    main()
