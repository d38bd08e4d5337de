"""`evaluate`: how often a saved perturbation fools a classifier."""

from keras_uap import analysis
from keras_uap.commands import _tools

HELP = "Measure a saved perturbation."
EXAMPLE = """\
python -m keras_uap evaluate --model classifier.keras \\
      --perturbation result/uap.npz --images other_photos/"""


def add_arguments(parser):
    _tools.add_model(parser)
    parser.add_argument(
        "--perturbation",
        required=True,
        metavar="UAP.npz",
        help="a file that demo or fit wrote, uap.npz or uap.keras",
    )
    _tools.add_images(
        parser,
        labels="give error rates too: the classes of the pictures are those "
        "of the model (a folder for each, in sorted order)",
    )
    _tools.add_seed(parser)
    _tools.add_class_names(parser)


def run(options):
    report, class_names = measure(options)
    return report.table(class_names), report.to_dict()


def measure(options):
    """Returns the report that the options ask for, and names of classes."""
    classifier = _tools.attach(_tools.load_model(options.model), options)
    shape = classifier.input_shape[1:]
    perturbation, card = _tools.load_perturbation(options.perturbation, shape)
    class_names = _tools.load_class_names(options, classifier)
    images, labels, names = _tools.load_images(options, "images", shape)
    _tools.check_labels(options, names, classifier)
    report = analysis.fooling_report(
        classifier,
        perturbation,
        images,
        labels,
        norm=card["norm"],
        value_range=_tools.PIXELS,
        seed=options.seed,
        verbose=0,
        epsilon=card["epsilon"],
        target=card.get("target"),
    )
    return report, class_names or names
