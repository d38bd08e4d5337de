"""`evaluate`: how often saved perturbations fool a classifier."""

import textwrap

from keras_uap import analysis
from keras_uap.classifiers.adapter import as_adapter
from keras_uap.cli import loading
from keras_uap.evaluation.report import PASSES
from keras_uap.utils.formatting import interval, percent, sample, text_table
from keras_uap.utils.progress import Progress

# Samples of random noise of the perturbation's norm.
NOISES = 3


def run(options):
    paths = options.perturbation
    reports, class_names, _ = measure(options, paths)
    if len(paths) == 1:
        return text_of(reports[0], class_names), reports[0].to_dict()
    header = ("perturbation", "norm", "fooled", "95% interval", "noise")
    rows, values = [], []
    for path, report in zip(paths, reports):
        size = f"{report.norm} {report.epsilon:.4g}"
        rates = percent(report.fooling_rate), interval(report.fooling_interval)
        rows.append((path, size, *rates, percent(report.random_rate)))
        values.append({"perturbation": path} | report.to_dict())
    text = f"{sample(reports[0])}\n{text_table(header, rows)}"
    return text, {"reports": values}


def measure(options, paths):
    """Returns the reports of perturbations, names of classes, and the cards."""
    classifier = loading.attach(loading.load_model(options.model), options)
    shape = classifier.input_shape[1:]
    loaded = [loading.load_perturbation(path, shape) for path in paths]
    class_names = loading.load_class_names(options, classifier)
    images = loading.load_images(options, "images", shape, classifier)
    adapter = as_adapter(classifier, shape, None, images.images[:4])
    reports = [report_of(adapter, *each, images, options) for each in loaded]
    names = class_names or images.class_names
    return reports, names, [card for _, card in loaded]


def report_of(classifier, perturbation, card, images, options):
    """Returns `analysis.fooling_report` of `datasets.Pictures`."""
    count = (PASSES + NOISES) * len(images.images)
    return analysis.fooling_report(
        classifier,
        perturbation,
        images,
        norm=card["norm"],
        epsilon=card["epsilon"],
        target=card.get("target"),
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
