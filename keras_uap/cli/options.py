"""The options that commands share, and what can be wrong with them at once.

What is refused here is refused before TensorFlow is loaded.
"""

import argparse
import math
import pathlib

from keras_uap.cli.console import UsageError, make_folder
from keras_uap.data.folders import find_pictures

# Perturbations and pictures are in grey levels, whatever the model takes.
PIXELS = (0.0, 255.0)


def add_model(parser, several=False):
    parser.add_argument(
        "--model",
        required=True,
        nargs="+" if several else None,
        metavar="MODEL",
        help="the classifier: a .keras file, or the folder of a SavedModel",
    )
    parser.add_argument(
        "--value-range",
        nargs="+",
        action="append",
        metavar="WORD",
        help="what the classifier takes: LOW HIGH (default: 0 255), or caffe, "
        "tf or torch, as in keras.applications"
        + ("; once for all, or once for each model" if several else ""),
    )
    parser.add_argument(
        "--channel-order",
        choices=("rgb", "bgr"),
        help="(default: that of --value-range)",
    )
    parser.add_argument(
        "--size",
        type=whole,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="of the pictures, where the classifier does not state it",
    )
    parser.add_argument(
        "--model-output",
        metavar="NAME",
        help="the class scores, where the classifier has several outputs",
    )


def add_perturbation(parser, several=False):
    parser.add_argument(
        "--perturbation",
        required=True,
        nargs="+" if several else None,
        metavar="UAP.npz",
        help=("files" if several else "a file")
        + " that demo or fit wrote, uap.npz or uap.keras",
    )


def add_images(parser, labels=None):
    parser.add_argument(
        "--images",
        required=True,
        metavar="IMAGES",
        help="a folder of pictures, or the name of a TFDS data set",
    )
    parser.add_argument(
        "--split",
        default="train",
        metavar="SPLIT",
        help="split of a TFDS data set (default: train)",
    )
    parser.add_argument(
        "--limit",
        type=whole,
        default=1000,
        metavar="N",
        help="the most pictures to take, from all over a folder (default: "
        "1000)",
    )
    if labels:
        parser.add_argument("--labels", action="store_true", help=labels)


def add_held_out(parser):
    parser.add_argument(
        "--held-out",
        metavar="IMAGES",
        help="pictures to measure on (default: a quarter of --images, of "
        "photographs and folders of their own)",
    )
    parser.add_argument(
        "--held-out-split",
        metavar="SPLIT",
        help="split of --held-out (default: that of --split)",
    )


def add_class_names(parser):
    parser.add_argument(
        "--class-names",
        metavar="FILE",
        help="text file with the names of the classes, one a line",
    )


def add_ball(parser):
    parser.add_argument(
        "--epsilon",
        type=positive,
        metavar="E",
        help="radius of the ball, in grey levels of 0 to 255 (default: 10 for "
        "linf, 2000 for l2)",
    )
    parser.add_argument(
        "--norm",
        choices=("linf", "l2"),
        default="linf",
        help="linf bounds the change of every pixel, l2 that of the whole "
        "picture (default: linf)",
    )
    add_seed(parser)


def add_seed(parser):
    parser.add_argument(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="of all that is random; the same seed gives the same result "
        "(default: 0)",
    )


def add_batch_size(parser, default, fits=False):
    measured = "pictures that the model gets at once: fewer take less memory"
    parser.add_argument(
        "--batch-size",
        type=whole,
        default=default,
        metavar="N",
        help=(
            "pictures that make one step of the perturbation, and that the "
            "model gets at once"
            if fits
            else measured
        )
        + f" (default: {default})",
    )


def add_output(parser):
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("."),
        metavar="FOLDER",
        help="where files are written (default: here)",
    )


# What an option may be. argparse names the option before the sentence.


def whole(text):
    """Parses a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least 1, not {text!r}"
        )
    return int(text)


def seed(text):
    """Parses a whole number that every generator takes for a seed."""
    if not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least 0, not {text!r}"
        )
    return int(text)


def positive(text):
    """Parses a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(
            f"must be a number above 0, not {text!r}"
        )
    return number


def share(text):
    """Parses a number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(
            f"must be a number from 0 to 1, not {text!r}"
        )
    return number


def check(options):
    """Refuses files that are not there, and what else needs no model to see."""
    for name in ("model", "perturbation", "class_names"):
        for path in _as_list(getattr(options, name, None)):
            if not pathlib.Path(path).exists():
                raise UsageError(
                    f"{_flag(name)} {path}: there is no such file."
                )
    for path in _as_list(getattr(options, "class_names", None)):
        read_names(path)
    for number in range(len(_as_list(getattr(options, "model", None)))):
        value_range(options, number)
    for name in ("images", "held_out"):
        for source in _as_list(getattr(options, name, None)):
            _check_source(_flag(name), source, options)
    if hasattr(options, "output"):
        make_folder(options.output)


def _check_source(flag, source, options):
    """Refuses what is neither a folder of pictures nor a TFDS name."""
    path = pathlib.Path(source)
    if path.is_dir():
        try:
            find_pictures(path, getattr(options, "labels", False), 1)
        except ValueError as error:
            raise UsageError(f"{flag}: {error}") from None
    elif path.exists():
        raise UsageError(
            f"{flag} {source} is a file. Expected: a folder of pictures, or "
            "the name of a TFDS data set."
        )
    elif source.startswith((".", "/", "~")) or source.endswith("/"):
        raise UsageError(f"{flag} {source}: there is no such folder.")


def read_names(path):
    """Reads the lines of the `--class-names` file."""
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"--class-names {path} cannot be read. Expected: a text file with "
            f"a name a line. {type(error).__name__}: {error}"
        ) from error
    return text.splitlines()


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
    try:
        low, high = map(float, words)
    except ValueError:
        low, high = 1.0, 0.0
    if not -math.inf < low < high < math.inf:
        raise UsageError(
            "--value-range must be two numbers, the lower one first, or "
            f"caffe, tf or torch. Received: {' '.join(map(str, words))}."
        )
    return low, high


def _as_list(given):
    """The values of an option that is given once, several times or not."""
    if given is None:
        return []
    return [given] if isinstance(given, str) else given


def _flag(name):
    return f"--{name.replace('_', '-')}"
