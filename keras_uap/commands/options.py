"""The options that commands share."""

import argparse
import pathlib


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
        type=float,
        metavar="E",
        help="radius of the ball, in grey levels of 0 to 255 (default: 10 for "
        "linf, 2000 for l2)",
    )
    parser.add_argument(
        "--norm",
        default="linf",
        metavar="NORM",
        help="linf or l2 (default: linf)",
    )
    add_seed(parser)


def add_seed(parser):
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="(default: 0)"
    )


def add_output(parser):
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("."),
        metavar="FOLDER",
        help="where files are written (default: here)",
    )


def whole(text):
    """Parses a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least 1, not {text!r}"
        )
    return int(text)
