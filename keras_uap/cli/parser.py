"""The parser of the command line: each command, its options and their checks.

Nothing here needs TensorFlow, so that `--help` and mistakes are answered at
once. What a command does is in the file of its name.
"""

import argparse
import math
import pathlib
import shlex
import sys
from argparse import ArgumentTypeError

from keras_uap.cli.console import UsageError, check_file, make_folder
from keras_uap.data.folders import find_images
from keras_uap.version import __version__

# Perturbations and images are in grey levels, whatever the model takes.
PIXELS = (0.0, 255.0)

DESCRIPTION = """\
Find and measure universal adversarial perturbations of image classifiers: one
small image that, added to almost any image, changes the prediction. For testing
and hardening your own models."""


def parse(arguments=None):
    """Returns the options of a command line, once they are checked.

    Args:
        arguments: List of strings; `None` takes those of the program.

    Raises:
        UsageError: if an option is wrong, or names a file that is missing.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    options = make_parser().parse_args(arguments)
    check(options)
    options.call = shlex.join(["keras-uap", *arguments])
    return options


class _Parser(argparse.ArgumentParser):
    """A parser that raises `UsageError`, which is printed in one line."""

    def error(self, message):
        raise UsageError(f"{message}. See {self.prog} --help.")


# What the value of an option may be ------------------------------------------


def whole(text, least=1, below=math.inf):
    """Parses a whole number, of at least 1 by default."""
    if not text.isdecimal() or not least <= int(text) < below:
        raise ArgumentTypeError(
            f"must be a whole number of at least {least}, not {text!r}"
        )
    return int(text)


def seed(text):
    """Parses a whole number that every generator takes for a seed."""
    return whole(text, least=0, below=2**31)


def positive(text):
    """Parses a finite number above 0."""
    number = _number(text)
    if not 0 < number < math.inf:
        raise ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return number


def share(text):
    """Parses a number from 0 to 1."""
    number = _number(text)
    if not 0 <= number <= 1:
        raise ArgumentTypeError(f"must be a number from 0 to 1, not {text!r}")
    return number


def _number(text):
    try:
        return float(text)
    except ValueError:
        return math.nan


# Options that commands share -------------------------------------------------


def _option(flag, **arguments):
    """A parent parser of one option, from what `add_argument` takes."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(flag, **arguments)
    return parser


def _group(*parsers):
    return argparse.ArgumentParser(add_help=False, parents=parsers)


def _model(several=False):
    return _group(
        _option(
            "--model",
            required=True,
            nargs="+" if several else None,
            help="the classifier: a .keras file, or the folder of a SavedModel",
        ),
        _option(
            "--value-range",
            nargs="+",
            action="append",
            metavar="RANGE",
            help="pixel range of the classifier: LOW HIGH (default: 0 255), or "
            "caffe, tf or torch, as in keras.applications"
            + ("; once for all, or once for each model" if several else ""),
        ),
        _option(
            "--channel-order",
            choices=("rgb", "bgr"),
            help="channel order of the classifier (default: rgb, or bgr with "
            "--value-range caffe)",
        ),
        _option(
            "--size",
            type=whole,
            nargs=2,
            metavar=("HEIGHT", "WIDTH"),
            help="image height and width, if the classifier does not state "
            "them",
        ),
        _option(
            "--model-output",
            metavar="NAME",
            help="name of the output with the class scores, if there are "
            "several",
        ),
    )


def _perturbation(several=False):
    return _option(
        "--perturbation",
        required=True,
        nargs="+" if several else None,
        metavar="UAP.npz",
        help=("files" if several else "a file")
        + " that demo or fit wrote, uap.npz or uap.keras",
    )


def _batch_size(default, fits=False):
    text = "images in each update, and " if fits else ""
    return _option(
        "--batch-size",
        type=whole,
        default=default,
        metavar="N",
        help=f"{text}images classified at once; fewer need less memory "
        f"(default: {default})",
    )


def _budget(default, help):
    return _option(
        "--budget",
        choices=("quick", "standard"),
        default=default,
        help=f"{help} (default: {default})",
    )


def _labels(effect):
    return _option(
        "--labels",
        action="store_true",
        help="the folders of the images, in sorted order, are the classes of "
        f"the model: {effect}",
    )


_GATE = _group(
    _option(
        "--fail-above",
        type=float,
        metavar="RATE",
        help="exit with status 3 if the fooling rate is above RATE, 0 to 1",
    ),
    _option(
        "--baseline",
        metavar="JSON",
        help="exit with status 3 if the fooling rate is above that of an "
        "earlier audit.json by more than --tolerance and both intervals",
    ),
    _option(
        "--tolerance",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="for --baseline (default: 0.05)",
    ),
    _option(
        "--junit", metavar="FILE", help="write the limits as JUnit XML to FILE"
    ),
)
_CARD = _option(
    "--card",
    metavar="FILE.md",
    help="write a block for a model card to FILE.md, and as JSON to FILE.json",
)

_AUDIT_BUDGET = _budget(
    "standard",
    "quick: at most 11,000 model passes; standard: at most 55,000, about ten "
    "minutes for a small model on two cores",
)

_IMAGES = _group(
    _option(
        "--images",
        required=True,
        help="a folder of images, or the name of a TFDS dataset",
    ),
    _option(
        "--split",
        default="train",
        help="split of a TFDS dataset (default: train)",
    ),
    _option(
        "--limit",
        type=whole,
        default=1000,
        metavar="N",
        help="maximum number of images, evenly from all of a folder (default: "
        "1000)",
    ),
    _option(
        "--groups",
        metavar="RULE",
        help="which files were cut from one photograph: none, name (what comes "
        "before the last underscore), folder, or a regular expression for the "
        "photograph (default: only names such as garden_crop3.jpg, or numbers "
        "that count up from 0 or 1 under several names)",
    ),
)
_HELD_OUT = _group(
    _option(
        "--held-out",
        metavar="IMAGES",
        help="images to measure on (default: a quarter of --images, of other "
        "photographs)",
    ),
    _option(
        "--held-out-split",
        metavar="SPLIT",
        help="split of --held-out (default: that of --split)",
    ),
)
_SEED = _option(
    "--seed",
    type=seed,
    default=0,
    metavar="N",
    help="random seed (default: 0)",
)
_BALL = _group(
    _option(
        "--epsilon",
        type=positive,
        metavar="E",
        help="largest norm of the perturbation, in grey levels of 0 to 255 "
        "(default: 10 for linf, 2000 for l2)",
    ),
    _option(
        "--norm",
        choices=("linf", "l2"),
        default="linf",
        help="linf limits the change of each value, l2 that of the whole image "
        "(default: linf)",
    ),
    _SEED,
)
_NAMES = _option(
    "--class-names",
    metavar="FILE",
    help="text file with one class name on each line",
)
_OUTPUT = _option(
    "--output",
    type=pathlib.Path,
    default=pathlib.Path("."),
    metavar="FOLDER",
    help="folder for the files (default: the current one)",
)
_JSON = _option(
    "--json",
    action="store_true",
    help="print JSON to stdout, and everything else to stderr",
)
_DATA = _group(_model(), _IMAGES)
_EVALUATE = [
    *(_DATA, _labels("report error rates, too")),
    *(_SEED, _NAMES, _batch_size(32)),
]

_FIT = _group(
    _option(
        "--update",
        metavar="NAME",
        help="how each batch updates the perturbation: decaying_lion takes "
        "sign steps with linear decay, deepfool takes DeepFool's increments; "
        "or any Keras optimizer, with the cross-entropy (default: "
        "decaying_lion, or deepfool for l2 without a target)",
    ),
    _option(
        "--epochs",
        type=whole,
        metavar="N",
        help="number of epochs; each costs two or three model passes an image "
        "(default: 5, or with augmentation at least as many as make 2,000 "
        "augmented views)",
    ),
    _option(
        "--target",
        type=int,
        metavar="CLASS",
        help="class index to send images to (default: any other class)",
    ),
    _option(
        "--augment",
        action="store_true",
        help="augment the images in each epoch: random crops, light and "
        "mirroring. Fewer than 500 images are always augmented",
    ),
)
_HARDEN = _group(
    _option(
        "--robustness",
        type=share,
        default=0.5,
        metavar="R",
        help="trade-off from 0 (keep all clean predictions) to 1 (most "
        "robust; default: 0.5)",
    ),
    _option(
        "--epochs",
        type=whole,
        metavar="N",
        help="epochs of the training (default: as many as show 8,000 images)",
    ),
    _option(
        "--learning-rate",
        type=positive,
        default=2e-4,
        metavar="RATE",
        help="initial learning rate of Adam, with a cosine decay to 0 "
        "(default: 0.0002)",
    ),
    _budget(
        "quick",
        "of each of the two audits, quick: at most 25,000 model passes; "
        "standard: at most 55,000",
    ),
    _labels("train on them instead of on the predictions of the model"),
    _option(
        "--keep",
        action="store_true",
        help="write the hardened weights even if hardening shows no gain "
        "(default: then the original weights)",
    ),
)

# For each command: a line of help, the options of an example, and its parents.
COMMANDS = {
    "demo": (
        "Find a perturbation of the embedded ImageNet classifier, in a few "
        "minutes.",
        "--output demo",
        [_BALL, _batch_size(16, fits=True), _OUTPUT],
    ),
    "audit": (
        "Measure how fragile your classifier is: the strongest of several "
        "attacks counts.",
        "--model classifier.keras --images photos/ \\\n      --output audit",
        [
            *(_DATA, _BALL, _AUDIT_BUDGET, _GATE, _CARD, _NAMES),
            *(_batch_size(32), _OUTPUT),
        ],
    ),
    "fit": (
        "Find a perturbation of your own classifier on your own images.",
        "--model classifier.keras --images photos/ \\\n"
        "      --value-range -1 1 --epsilon 10 --output result",
        [_DATA, _HELD_OUT, _BALL, _FIT, _NAMES, _batch_size(16, True), _OUTPUT],
    ),
    "evaluate": (
        "Measure how often saved perturbations fool a classifier.",
        "--model classifier.keras \\\n"
        "      --perturbation result/uap.npz --images other_photos/",
        [*_EVALUATE, _perturbation(several=True)],
    ),
    "transfer": (
        "Measure several perturbations on several classifiers.",
        "--model one.keras two.keras \\\n"
        "      --perturbation one/uap.npz two/uap.npz --images other_photos/",
        [
            *(_model(several=True), _perturbation(several=True), _IMAGES),
            *(_SEED, _batch_size(32), _OUTPUT),
        ],
    ),
    "harden": (
        "Train a classifier so that perturbations fool it less.",
        "--model classifier.keras --images photos/ \\\n      --output hardened",
        [_DATA, _HELD_OUT, _BALL, _HARDEN, _NAMES, _OUTPUT],
    ),
    "report": (
        "Write a page about a saved perturbation.",
        "--model classifier.keras \\\n"
        "      --perturbation result/uap.npz --images other_photos/ "
        "--output page",
        [*_EVALUATE, _perturbation(), _OUTPUT],
    ),
}


def make_parser():
    """Returns the parser of all commands."""
    parser = _Parser(prog="keras-uap", description=DESCRIPTION)
    version = f"keras-uap {__version__}"
    parser.add_argument("--version", action="version", version=version)
    shown = {"dest": "command", "metavar": "command"}
    commands = parser.add_subparsers(required=True, **shown)
    for name, (text, example, parents) in COMMANDS.items():
        commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example:\n  python -m keras_uap {name} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[*parents, _JSON],
        )
    return parser


# Checks that need no model ---------------------------------------------------


def check(options):
    """Raises UsageError for missing files and other visible mistakes."""
    given = vars(options)
    for name in ("model", "perturbation", "class_names"):
        for path in _as_list(given.get(name)):
            if not pathlib.Path(path).exists():
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} {path}: there is no such file.")
    if given.get("class_names"):
        read_names(options.class_names)
    for number in range(len(_as_list(given.get("model")))):
        value_range(options, number)
    for name in ("images", "held_out"):
        if given.get(name):
            flag = f"--{name.replace('_', '-')} {given[name]}"
            _check_images(flag, given[name], given.get("labels", False))
    if "output" in given:
        make_folder(options.output)
    for name in ("junit", "card"):
        if given.get(name):
            check_file(f"--{name}", pathlib.Path(given[name]))
    if given.get("card") and pathlib.Path(options.card).suffix != ".md":
        raise UsageError(f"--card {options.card} must end in .md.")


def _check_images(flag, source, labels):
    """Raises UsageError for a file or a folder that is missing."""
    if pathlib.Path(source).is_dir():
        find_images(source, labels)
    elif pathlib.Path(source).exists():
        raise UsageError(
            f"{flag} is a file. Expected: a folder of images, or the name of a "
            "TFDS dataset."
        )
    elif source.startswith((".", "/", "~")) or source.endswith("/"):
        raise UsageError(f"{flag}: there is no such folder.")


def read_names(path):
    """Reads the lines of the `--class-names` file."""
    try:
        return pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"--class-names {path} cannot be read. Expected: a text file with "
            f"a name a line. {type(error).__name__}: {error}"
        ) from error


def value_range(options, number=0):
    """Returns the `--value-range` of one of several models.

    Args:
        options: The parsed options.
        number: Integer, which of the models.

    Returns:
        `"caffe"`, `"tf"`, `"torch"`, or a pair of floats.
    """
    given = options.value_range or [list(PIXELS)]
    models = len(_as_list(options.model))
    if len(given) not in (1, models):
        raise UsageError(
            "--value-range must be given once for all models, or once for "
            f"each. Received: {len(given)} for {models} model(s)."
        )
    words = given[0 if len(given) == 1 else number]
    if len(words) == 1 and words[0] in ("caffe", "tf", "torch"):
        return words[0]
    numbers = [_number(word) for word in words]
    if len(words) != 2 or not -math.inf < numbers[0] < numbers[1] < math.inf:
        raise UsageError(
            "--value-range must be two numbers, the lower one first, or "
            f"caffe, tf or torch. Received: {' '.join(map(str, words))}."
        )
    return tuple(numbers)


def _as_list(given):
    """The values of an option that takes one or several, or is left out."""
    return [given] if isinstance(given, str) else given or []
