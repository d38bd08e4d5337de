"""`evaluate`: how often a saved perturbation fools a classifier."""

from keras_uap import analysis
from keras_uap.commands import inputs
from keras_uap.commands.options import (
    add_class_names,
    add_images,
    add_model,
    add_perturbation,
    add_seed,
)

HELP = "Measure a saved perturbation."
EXAMPLE = """\
python -m keras_uap evaluate --model classifier.keras \\
      --perturbation result/uap.npz --images other_photos/"""


def add_arguments(parser):
    add_model(parser)
    add_perturbation(parser)
    add_images(
        parser,
        labels="give error rates too: the classes of the pictures are those "
        "of the model (a folder for each, in sorted order)",
    )
    add_seed(parser)
    add_class_names(parser)


def run(options):
    report, class_names, _ = measure(options)
    return report.table(class_names), report.to_dict()


def measure(options):
    """Returns the report that the options ask for, names, and the card."""
    classifier = inputs.attach(inputs.load_model(options.model), options)
    shape = classifier.input_shape[1:]
    perturbation, card = inputs.load_perturbation(options.perturbation, shape)
    class_names = inputs.load_class_names(options, classifier)
    pictures = inputs.load_images(options, "images", shape)
    inputs.check_labels(options, pictures.class_names, classifier)
    report = analysis.fooling_report(
        classifier,
        perturbation,
        pictures.images,
        pictures.labels,
        pictures.groups,
        norm=card["norm"],
        value_range=inputs.PIXELS,
        seed=options.seed,
        verbose=0,
        epsilon=card["epsilon"],
        target=card.get("target"),
    )
    return report, class_names or pictures.class_names, card
