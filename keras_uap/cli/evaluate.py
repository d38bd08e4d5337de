"""`evaluate`: how often a saved perturbation fools a classifier."""

import textwrap

from keras_uap import analysis
from keras_uap.cli import console, inputs
from keras_uap.evaluation.report import PASSES

# Draws of random noise, as wide as the perturbation.
NOISES = 3


def run(options):
    report, class_names, _ = measure(options)
    text = f"{report.table(class_names)}\n\n{meaning(report)}"
    return text, report.to_dict()


def measure(options):
    """Returns the report that the options ask for, names, and the card."""
    classifier = inputs.attach(inputs.load_model(options.model), options)
    shape = classifier.input_shape[1:]
    perturbation, card = inputs.load_perturbation(options.perturbation, shape)
    class_names = inputs.load_class_names(options, classifier)
    pictures = inputs.load_images(options, "images", shape)
    inputs.check_labels(options, pictures.class_names, classifier)
    report = report_of(
        classifier,
        perturbation,
        pictures,
        options,
        norm=card["norm"],
        epsilon=card["epsilon"],
        target=card.get("target"),
    )
    return report, class_names or pictures.class_names, card


def report_of(classifier, perturbation, pictures, options, **named):
    """`analysis.fooling_report` of `datasets.Pictures`, and the time left."""
    count = (PASSES + NOISES) * len(pictures.images)
    return analysis.fooling_report(
        classifier,
        perturbation,
        pictures.images,
        pictures.labels,
        pictures.groups,
        value_range=inputs.PIXELS,
        num_random=NOISES,
        seed=options.seed,
        batch_size=options.batch_size,
        verbose=console.Progress("pictures shown", count),
        **named,
    )


def meaning(report):
    """What the numbers of a report mean, in a few lines."""
    rate = f"{report.fooling_rate:.0%}"
    return textwrap.fill(
        "One and the same perturbation, added to each of the pictures, changes "
        f"the model's answer on {rate} of them; random noise of the same norm "
        f"does so on {report.random_rate:.0%}. What was right or wrong before "
        "plays no part in it. It is a lower bound: a stronger attack may find "
        "a worse perturbation.",
        79,
    )
