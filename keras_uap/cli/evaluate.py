"""`evaluate`: how often a saved perturbation fools a classifier."""

import textwrap

from keras_uap import analysis
from keras_uap.cli import loading
from keras_uap.evaluation.report import PASSES
from keras_uap.utils.progress import Progress

# Samples of random noise of the perturbation's norm.
NOISES = 3


def run(options):
    report, class_names, _ = measure(options)
    return text_of(report, class_names), report.to_dict()


def measure(options):
    """Returns the report that the options ask for, names, and the card."""
    classifier = loading.attach(loading.load_model(options.model), options)
    shape = classifier.input_shape[1:]
    perturbation, card = loading.load_perturbation(options.perturbation, shape)
    class_names = loading.load_class_names(options, classifier)
    images = loading.load_images(options, "images", shape)
    loading.check_labels(options, images.class_names, classifier)
    report = report_of(classifier, perturbation, card, images, options)
    return report, class_names or images.class_names, card


def report_of(classifier, perturbation, card, images, options):
    """Returns `analysis.fooling_report` of `datasets.Pictures`."""
    count = (PASSES + NOISES) * len(images.images)
    return analysis.fooling_report(
        classifier,
        perturbation,
        images.images,
        images.labels,
        images.groups,
        norm=card["norm"],
        epsilon=card["epsilon"],
        target=card.get("target"),
        value_range=loading.PIXELS,
        num_random=NOISES,
        seed=options.seed,
        batch_size=options.batch_size,
        verbose=Progress("images classified", count),
    )


def text_of(report, class_names):
    """The table of a report, and what its fooling rate means."""
    meaning = textwrap.fill(
        "The same perturbation, added to each image, changes the prediction of "
        f"{report.fooling_rate:.0%} of them; random noise of the same norm "
        f"changes {report.random_rate:.0%}. Whether the predictions were right "
        "plays no part. The rate is a lower bound: a stronger attack may find "
        "a worse perturbation.",
        79,
    )
    return f"{report.table(class_names)}\n\n{meaning}"
