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
from keras_uap.utils.validation import explained
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
        expected = f"a whole number of at least {least}"
        raise ArgumentTypeError(f"must be {expected}, not {text!r}")
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


# Options: the arguments of `add_argument` ------------------------------------


def _option(flag, help, **arguments):
    """One option, as `add_argument` takes it.

    Args:
        flag: String, the flag and the names of its values in the help.
        help: String. A default that it does not name is added.
        **arguments: What else `add_argument` takes.
    """
    flag, *names = flag.split()
    if len(names) > 1:
        arguments |= {"nargs": len(names), "metavar": tuple(names)}
    elif names:
        arguments["metavar"] = names[0]
    if arguments.get("default") is not None and "default:" not in help:
        help += " (default: %(default)s)"
    return flag, {"help": help, **arguments}


def _model(several=False):
    return [
        _option(
            "--model",
            "the classifier: a .keras file, or the folder of a SavedModel",
            required=True,
            nargs="+" if several else None,
        ),
        _option(
            "--value-range RANGE",
            "pixel range of the classifier: LOW HIGH (default: 0 255), or "
            "caffe, tf or torch, as in keras.applications"
            + ("; once for all, or once for each model" if several else ""),
            nargs="+",
            action="append",
        ),
        _option(
            "--channel-order",
            "channel order of the classifier (default: rgb, or bgr with "
            "--value-range caffe)",
            choices=("rgb", "bgr"),
        ),
        _option(
            "--size HEIGHT WIDTH",
            "image height and width, if the classifier does not state them",
            type=whole,
        ),
        _option(
            "--model-output NAME",
            "name of the output with the class scores, if there are several",
        ),
    ]


def _perturbation(several=False):
    return _option(
        "--perturbation UAP.npz",
        ("files" if several else "a file")
        + " that audit, demo or fit wrote, uap.npz or uap.keras",
        required=True,
        nargs="+" if several else None,
    )


def _batch_size(default, fits=False):
    return _option(
        "--batch-size N",
        ("images in each update, and " if fits else "")
        + "images classified at once; fewer need less memory",
        type=whole,
        default=default,
    )


def _budget(default, help):
    choices = ("quick", "standard")
    return _option("--budget", help, choices=choices, default=default)


def _labels(effect):
    return _option(
        "--labels",
        "the folders of the images, in sorted order, are the classes of the "
        f"model: {effect}",
        action="store_true",
    )


_IMAGES = [
    _option(
        "--images",
        "a folder of images, or the name of a TFDS dataset",
        required=True,
    ),
    _option("--split", "split of a TFDS dataset", default="train"),
    _option(
        "--limit N",
        "maximum number of images, evenly from all of a folder",
        type=whole,
        default=1000,
    ),
    _option(
        "--groups RULE",
        "which files were cut from one photograph: none, name (what comes "
        "before the last underscore), folder, or a regular expression for the "
        "photograph (default: only names such as garden_crop3.jpg, or numbers "
        "that count up from 0 or 1 under several names)",
    ),
]
_DATA = [*_model(), *_IMAGES]
_HELD_OUT = [
    _option(
        "--held-out IMAGES",
        "images to measure on (default: a quarter of --images, of other "
        "photographs)",
    ),
    _option(
        "--held-out-split SPLIT",
        "split of --held-out (default: that of --split)",
    ),
]
_SEED = _option("--seed N", "random seed", type=seed, default=0)
_BALL = [
    _option(
        "--epsilon E",
        "largest norm of the perturbation, in grey levels of 0 to 255 "
        "(default: 10 for linf, 2000 for l2)",
        type=positive,
    ),
    _option(
        "--norm",
        "linf limits the change of each value, l2 that of the whole image",
        choices=("linf", "l2"),
        default="linf",
    ),
    _SEED,
]
_FITTED = [*_DATA, *_HELD_OUT, *_BALL]
_NAMES = _option(
    "--class-names FILE", "text file with one class name on each line"
)
_OUTPUT = _option(
    "--output FOLDER",
    "folder for the files (default: the current one)",
    type=pathlib.Path,
    default=pathlib.Path("."),
)
_JSON = _option(
    "--json",
    "print JSON to stdout, and everything else to stderr",
    action="store_true",
)
_EVALUATE = [
    *(*_DATA, _labels("report error rates, too")),
    *(_SEED, _NAMES, _batch_size(32)),
]
_AUDIT = [
    _budget(
        "standard",
        "quick: at most 11,000 model passes; standard: at most 55,000, about "
        "ten minutes for a small model on two cores",
    ),
    _option(
        "--fail-above RATE",
        "exit with status 3 if the fooling rate is above RATE, 0 to 1",
        type=share,
    ),
    _option(
        "--baseline JSON",
        "exit with status 3 if the fooling rate rose from that of an earlier "
        "audit.json by more than --tolerance, and the rise has an interval "
        "above 0; for the first audit, leave the option out",
    ),
    _option("--tolerance SHARE", "for --baseline", type=share, default=0.05),
    _option("--junit FILE", "write the limits as JUnit XML to FILE"),
    _option(
        "--card FILE.md",
        "write a block for a model card to FILE.md, and as JSON to FILE.json",
    ),
]
_FIT = [
    _option(
        "--update NAME",
        "how each batch updates the perturbation: decaying_lion takes sign "
        "steps with linear decay, deepfool takes DeepFool's increments; or any "
        "Keras optimizer, with the cross-entropy (default: decaying_lion, or "
        "deepfool for l2 without a target)",
    ),
    _option(
        "--epochs N",
        "number of epochs; each costs two or three model passes an image "
        "(default: 5, or with augmentation at least as many as make 2,000 "
        "augmented views)",
        type=whole,
    ),
    _option(
        "--target CLASS",
        "class index to send images to (default: any other class)",
        type=int,
    ),
    _option(
        "--augment",
        "augment the images in each epoch: random crops, light and mirroring. "
        "Fewer than 500 images are always augmented",
        action="store_true",
    ),
]
_HARDEN = [
    _option(
        "--robustness R",
        "trade-off from 0 (keep all clean predictions) to 1 (most robust; "
        "default: 0.5)",
        type=share,
        default=0.5,
    ),
    _option(
        "--epochs N",
        "epochs of the training (default: as many as show 6,500 images)",
        type=whole,
    ),
    _option(
        "--learning-rate RATE",
        "initial learning rate of Adam, with a cosine decay to 0",
        type=positive,
        default=2e-4,
    ),
    _budget(
        "quick",
        "of each of the two audits, quick: at most 25,000 model passes; "
        "standard: at most 55,000",
    ),
    _labels("train on them instead of on the predictions of the model"),
    _option(
        "--keep",
        "write the hardened weights even if hardening shows no gain (default: "
        "then the original weights)",
        action="store_true",
    ),
]

# For each command: a line of help, the options of an example, and its options.
COMMANDS = {
    "demo": (
        "Find a perturbation of the embedded ImageNet classifier, in a few "
        "minutes.",
        "--output demo",
        [*_BALL, _batch_size(16, fits=True), _OUTPUT],
    ),
    "audit": (
        "Measure how fragile your classifier is: the strongest of several "
        "attacks counts.",
        "--model classifier.keras --images photos/ \\\n      --output audit",
        [*_DATA, *_BALL, *_AUDIT, _NAMES, _batch_size(32), _OUTPUT],
    ),
    "fit": (
        "Find a perturbation of your own classifier on your own images.",
        "--model classifier.keras --images photos/ \\\n"
        "      --value-range -1 1 --epsilon 10 --output result",
        [*_FITTED, *_FIT, _NAMES, _batch_size(16, fits=True), _OUTPUT],
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
            *(*_model(several=True), _perturbation(several=True), *_IMAGES),
            *(_SEED, _batch_size(32), _OUTPUT),
        ],
    ),
    "harden": (
        "Train a classifier so that perturbations fool it less.",
        "--model classifier.keras --images photos/ \\\n      --output hardened",
        [*_FITTED, *_HARDEN, _NAMES, _OUTPUT],
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
    for name, (text, example, options) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example:\n  python -m keras_uap {name} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for flag, arguments in [*options, _JSON]:
            command.add_argument(flag, **arguments)
    return parser


# Checks that need no model ---------------------------------------------------


def check(options):
    """Raises UsageError for missing files and other visible mistakes."""
    given = vars(options)
    for name in ("model", "perturbation", "class_names", "baseline"):
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
            f"{flag} is a file. Expected: a folder, or a TFDS name."
        )
    elif source.startswith((".", "/", "~")) or source.endswith("/"):
        raise UsageError(f"{flag}: there is no such folder.")


def read_names(path):
    """Reads the lines of the `--class-names` file."""
    expected = "Expected: a text file with a name a line"
    with explained(f"--class-names {path} cannot be read. {expected}"):
        return pathlib.Path(path).read_text(encoding="utf-8").splitlines()


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
