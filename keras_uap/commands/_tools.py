"""What the commands share: options, loading, fitting, progress."""

import argparse
import pathlib

import keras
import numpy as np

import keras_uap
from keras_uap import datasets, interchange

BATCH = 16
# Perturbations and pictures are in grey levels, whatever the model takes.
PIXELS = (0.0, 255.0)


class UsageError(Exception):
    """A mistake in the arguments that the user can mend."""


class Interrupted(Exception):
    """Ctrl-C, after something was written."""


# Options --------------------------------------------------------------------


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
        help="pictures to measure on (default: the last fifth of --images)",
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


# Loading --------------------------------------------------------------------


def make_folder(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--output {folder} cannot be made: {error.strerror}."
        ) from error


def load_model(path):
    """Loads a `.keras` file as it is; gives the path of a SavedModel."""
    path = pathlib.Path(path)
    if not path.exists():
        raise UsageError(f"--model {path}: there is no such file.")
    if path.is_dir():
        return path
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:
        raise UsageError(
            f"--model {path} cannot be loaded as a Keras model. "
            f"{type(error).__name__}: {datasets.first_line(error)}"
        ) from error


def attach(model, options, number=0):
    """Returns a classifier of RGB or grey pictures in 0 to 255.

    Args:
        model: What `load_model` gives.
        options: The parsed options.
        number: Integer, which of several models this is.
    """
    shape = None
    if options.size is not None:
        # The channels are those that the classifier states.
        shape = (*options.size, None)
    try:
        classifier = keras_uap.attach(
            model,
            _value_range(options, number),
            options.channel_order,
            shape,
            output=options.model_output,
        )
    except (TypeError, ValueError) as error:
        # What an argument is called in Python, and what here.
        text = (
            f"--model {error}"
            if isinstance(model, pathlib.Path)
            else str(error)
        )
        for python, here in (
            ("image_shape=(height, width, channels)", "--size HEIGHT WIDTH"),
            ("output=...", "--model-output NAME."),
        ):
            text = text.replace(python, here)
        raise UsageError(text) from error
    shape = classifier.input_shape[1:]
    if len(shape) != 3 or shape[-1] not in (1, 3):
        raise UsageError(
            "The command line takes models of pictures, (height, width, 1 or "
            f"3). This model takes {shape}: use the Python interface."
        )
    return classifier


def _value_range(options, number):
    given = options.value_range or [list(PIXELS)]
    models = 1 if isinstance(options.model, str) else len(options.model)
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
    if not low < high:
        raise UsageError(
            "--value-range must be two numbers, the lower one first, or "
            f"caffe, tf or torch. Received: {' '.join(map(str, words))}."
        )
    return low, high


def load_images(options, name, shape, shuffle=False):
    """Loads the pictures of `--images` or `--held-out`.

    Args:
        options: The parsed options.
        name: `"images"` or `"held_out"`.
        shape: Tuple `(H, W, C)` of the pictures to make.
        shuffle: Boolean, whether they come in the order of the seed.

    Returns:
        uint8 array `(n, H, W, C)`; labels `(n,)` or `None`; and the names of
        the classes, or `None`.
    """
    source = getattr(options, name)
    labels = getattr(options, "labels", False)
    split = options.split
    if name == "held_out":
        split = options.held_out_split or split
    data = datasets.images(
        source,
        shape[:2],
        split,
        options.limit,
        labels=labels,
        color_mode="grayscale" if shape[-1] == 1 else "rgb",
        shuffle=shuffle,
        seed=getattr(options, "seed", 0),
        cache=False,
    )
    pictures, targets = [], []
    # A byte a value keeps a thousand pictures at 150 MB.
    for batch in data:
        batch, target = batch if labels else (batch, ())
        pictures.append(batch.numpy().astype("uint8"))
        targets.append(np.asarray(target))
    if not pictures:
        raise UsageError(
            f"--{name.replace('_', '-')} {source} holds no picture that can "
            f"be read. Received: {len(data.left_out)} file(s) that cannot, "
            f"such as {data.left_out[0]}."
        )
    pictures = np.concatenate(pictures)
    if data.left_out:
        print(
            f"  {len(data.left_out)} file(s) left out that cannot be read, "
            f"{len(pictures)} pictures taken",
            flush=True,
        )
    if not labels:
        return pictures, None, None
    return pictures, np.concatenate(targets), data.class_names


def check_labels(options, names, classifier):
    """Checks that the classes of the pictures can be those of the model."""
    classes = max(2, classifier.output_shape[-1])
    if names is not None and len(names) != classes:
        raise UsageError(
            f"--labels: --images {options.images} has {len(names)} classes, "
            f"the model has {classes}. They must be the same, in the same "
            "order. Leave --labels out to take the model's own answers."
        )


def split_off(images, labels=None):
    """Holds out the last fifth of the pictures of `--images`."""
    at = int(len(images) * 0.8)
    if at < 1 or at == len(images):
        raise UsageError(
            f"--images holds {len(images)} picture(s), too few to hold a "
            "fifth of them out. Add pictures, or pass --held-out."
        )
    if labels is None:
        return (images[:at], None), (images[at:], None)
    return (images[:at], labels[:at]), (images[at:], labels[at:])


def load_perturbation(path, shape=None):
    """Loads a perturbation, in grey levels of 0 to 255, and its card."""
    try:
        if pathlib.Path(path).suffix == ".keras":
            perturbation, card = _of_model(path)
        else:
            perturbation, card = interchange.load_perturbation(path)
    except FileNotFoundError:
        raise UsageError(
            f"--perturbation {path}: there is no such file."
        ) from None
    low, high = card["value_range"] or PIXELS
    if shape is not None and perturbation.shape != shape:
        raise UsageError(
            f"--perturbation {path} has shape {perturbation.shape}, the "
            f"model's pictures have {shape}. keras_uap.resize_perturbation "
            "makes another size of one."
        )
    scale = 255 / (high - low)
    return perturbation * scale, {**card, "epsilon": card["epsilon"] * scale}


def _of_model(path):
    """The perturbation of a saved `UniversalPerturbation`, and its card."""
    if not pathlib.Path(path).exists():
        raise FileNotFoundError(path)
    try:
        uap = keras.saving.load_model(path)
    except Exception as error:
        raise UsageError(
            f"--perturbation {path} cannot be loaded; the uap.npz beside it "
            "needs no classifier. "
            f"{type(error).__name__}: {datasets.first_line(error)}"
        ) from error
    if not isinstance(uap, keras_uap.UniversalPerturbation):
        raise UsageError(
            f"--perturbation {path} holds a {type(uap).__name__}. Expected: "
            "a UniversalPerturbation, as in the uap.keras of demo or fit."
        )
    card = {
        "epsilon": uap.epsilon,
        "norm": uap.norm,
        "value_range": uap.value_range,
        "target": uap.target,
    }
    return uap.perturbation, card


def load_class_names(options, classifier):
    """Returns the names in `--class-names`, or None."""
    if options.class_names is None:
        return None
    text = pathlib.Path(options.class_names).read_text(encoding="utf-8")
    names = text.splitlines()
    classes = max(2, classifier.output_shape[-1])
    if len(names) != classes:
        raise UsageError(
            f"--class-names {options.class_names} has {len(names)} lines, the "
            f"model has {classes} classes."
        )
    return names


# Fitting and telling of it --------------------------------------------------


def make_uap(options, classifier, target=None):
    """Makes a perturbation of the ball in the options."""
    epsilon = options.epsilon
    if epsilon is None:  # The paper's values.
        epsilon = 10.0 if options.norm == "linf" else 2000.0
    return keras_uap.UniversalPerturbation(
        classifier, epsilon, options.norm, value_range=PIXELS, target=target
    )


def say(step, text):
    print(f"[{step}] {text}", flush=True)


class Progress(keras.callbacks.Callback):
    """Tells of each epoch of a perturbation in 80 columns."""

    def on_epoch_end(self, epoch, logs=None):
        name = "target_rate" if "target_rate" in logs else "fooling_rate"
        verb = "sent to the target" if "target_rate" in logs else "fooled"
        text = f"  epoch {epoch + 1} of {self.params['epochs']}: "
        text += f"{logs[name]:.1%} {verb}"
        if f"val_{name}" in logs:
            text += f", {logs[f'val_{name}']:.1%} of the held-out pictures"
        print(text, flush=True)


def short(text, most):
    """Shortens a text in its middle."""
    if len(text) <= most:
        return text
    end = (most - 2) // 2
    return f"{text[: most - 2 - end]}..{text[-end:]}"
