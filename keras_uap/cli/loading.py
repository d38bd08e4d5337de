"""Loads what the options name: classifiers, images, perturbations."""

import pathlib

from keras_uap.attacks import updates
from keras_uap.attacks.universal_perturbation import UniversalPerturbation
from keras_uap.classifiers.attach import attach as attach_classifier
from keras_uap.classifiers.attach import load_model as load_keras_model
from keras_uap.classifiers.ensemble import Ensemble
from keras_uap.cli.console import UsageError, note
from keras_uap.cli.parser import PIXELS, read_names, value_range
from keras_uap.data import loading
from keras_uap.data.splitting import SHARES
from keras_uap.defenses.adversarial_distiller import AdversarialDistiller
from keras_uap.perturbations import interchange
from keras_uap.perturbations.lp_ball import LpBall
from keras_uap.perturbations.perturbation_layer import PerturbationLayer
from keras_uap.utils.formatting import images_of
from keras_uap.utils.progress import Progress

# What saved models may hold: importing a class registers it with Keras.
REGISTERED = (AdversarialDistiller, Ensemble, PerturbationLayer)


def load_model(path):
    """Loads a `.keras` file; returns the path of a SavedModel."""
    path = pathlib.Path(path)
    if path.is_dir():
        return path
    try:
        model = load_keras_model(path)
    except ValueError as error:
        raise UsageError(f"--model {error}") from error
    if isinstance(model, UniversalPerturbation):
        raise UsageError(f"--model {path} is a perturbation, no classifier.")
    return model


def attach(model, options, number=0):
    """Returns a classifier of RGB or grey images in 0 to 255.

    Args:
        model: What `load_model` returns.
        options: The parsed options.
        number: Integer, which of several models this is.
    """
    try:
        classifier = attach_classifier(
            model,
            value_range(options, number),
            options.channel_order,
            # The classifier states the channels.
            options.size and (*options.size, None),
            output=options.model_output,
        )
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"--model: {error} On the command line, --size sets image_shape "
            "and --model-output sets output."
        ) from error
    shape = classifier.input_shape[1:]
    if len(shape) != 3 or shape[-1] not in (1, 3):
        raise UsageError(
            "The command line takes classifiers of images, (height, width, 1 "
            f"or 3). This one takes {shape}: use the Python interface."
        )
    return classifier


def load_images(options, name, shape, classifier=None):
    """Loads the images of `--images` or `--held-out`; checks their classes.

    Args:
        options: The parsed options.
        name: `"images"` or `"held_out"`.
        shape: Tuple `(H, W, C)` of the images to make.
        classifier: What `attach` returns, where images may have labels.

    Returns:
        `datasets.Pictures`.
    """
    split = getattr(options, f"{name}_split", None) or options.split
    images = loading.load(
        getattr(options, name),
        shape[:2],
        split,
        options.limit,
        getattr(options, "labels", False),
        "grayscale" if shape[-1] == 1 else "rgb",
        verbose=Progress("images loaded"),
        groups=options.groups,
    )
    for text in images.notes:
        note(f"{name.replace('_', '-')}: {text}")
    names = images.class_names
    if names is not None and len(names) != _num_classes(classifier):
        raise UsageError(
            f"--labels: --images {options.images} has {len(names)} classes, "
            f"the model has {_num_classes(classifier)}. They must be the same, "
            "in the same order. Leave --labels out to measure without them."
        )
    return images


def _num_classes(classifier):
    return max(2, classifier.output_shape[-1])


def load_parts(options, classifier):
    """Loads the images to fit on, those to select with and the held-out ones.

    Returns:
        A list of three `datasets.Pictures`.
    """
    shape = classifier.input_shape[1:]
    images = load_images(options, "images", shape, classifier)
    shares, held_out, fix = SHARES, [], "Add images."
    if getattr(options, "held_out", None) is not None:
        shares = (0.8, 0.2)
        held_out = [load_images(options, "held_out", shape, classifier)]
    elif hasattr(options, "held_out"):
        fix = "Add images or pass --held-out."
    try:
        parts = images.split(shares, options.seed)
    except ValueError as error:
        counted = images_of(len(images.images), images.num_groups)
        raise UsageError(
            f"--images holds {counted}: too few for {len(shares)} parts, each "
            f"of other photographs. {fix}"
        ) from error
    return [*map(images.take, parts), *held_out]


def load_perturbation(path, shape=None):
    """Loads a perturbation, in grey levels of 0 to 255, and its card."""
    perturbation, card = interchange.load_perturbation(path)
    if card["value_range"] is None:
        raise UsageError(
            f"--perturbation {path} names no value_range: its units are not "
            "known. Save it with one, or use keras_uap.analysis.fooling_report."
        )
    low, high = card["value_range"]
    if shape is not None and perturbation.shape != shape:
        raise UsageError(
            f"--perturbation {path} has shape {perturbation.shape}, the images "
            f"have {shape}. keras_uap.resize_perturbation changes its size."
        )
    scale = 255 / (high - low)
    return perturbation * scale, {**card, "epsilon": card["epsilon"] * scale}


def load_class_names(options, classifier):
    """Returns the names in `--class-names`, or None."""
    if options.class_names is None:
        return None
    names = read_names(options.class_names)
    if len(names) != _num_classes(classifier):
        raise UsageError(
            f"--class-names {options.class_names} has {len(names)} lines, the "
            f"model has {_num_classes(classifier)} classes."
        )
    return names


def make_ball(options):
    """Makes the ball of `--epsilon` and `--norm`."""
    paper = 10.0 if options.norm == "linf" else 2000.0
    return LpBall(options.epsilon or paper, options.norm)


def make_uap(options, classifier, target=None, update=None):
    """Makes and compiles a perturbation of the ball in the options.

    Args:
        options: The parsed options.
        classifier: What `attach` returns.
        target: Integer, the class to send images to, or `None`.
        update: String, the value of `--update`. `None` takes the strongest
            update in most measurements.
    """
    ball = make_ball(options)
    size = ball.epsilon, ball.norm
    uap = UniversalPerturbation(classifier, *size, PIXELS, target)
    optimizer, loss = updates.strongest(ball, target)
    if update is not None:
        optimizer = update
        if update != "decaying_lion":
            loss = "crossentropy"
    uap.compile(optimizer, loss=loss)
    return uap
