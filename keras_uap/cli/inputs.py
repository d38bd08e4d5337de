"""What the options name: classifiers, pictures, perturbations, loaded."""

import pathlib

import keras

# It registers what saved files refer to.
from keras_uap import api
from keras_uap.attacks import updates
from keras_uap.cli.console import Progress, UsageError
from keras_uap.cli.options import PIXELS, read_names, value_range
from keras_uap.data import loading
from keras_uap.data.splitting import SHARES
from keras_uap.perturbations import interchange
from keras_uap.utils.formatting import first_line

BATCH = 16


def load_model(path):
    """Loads a `.keras` file as it is; gives the path of a SavedModel."""
    path = pathlib.Path(path)
    if path.is_dir():
        return path
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:
        raise UsageError(
            f"--model {path} cannot be loaded as a Keras model. "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error
    if isinstance(model, api.UniversalPerturbation):
        raise UsageError(
            f"--model {path} holds a perturbation. Expected: a classifier."
        )
    return model


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
        classifier = api.attach(
            model,
            value_range(options, number),
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
            (", or (time, channels) for signals", ""),
            ("output=...", "--model-output NAME."),
            ("output='", "--model-output '"),
            ("Leave output", "Leave --model-output"),
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


def load_images(options, name, shape):
    """Loads the pictures of `--images` or `--held-out`.

    Args:
        options: The parsed options.
        name: `"images"` or `"held_out"`.
        shape: Tuple `(H, W, C)` of the pictures to make.

    Returns:
        `datasets.Pictures`.
    """
    split = options.split
    if name == "held_out":
        split = options.held_out_split or split
    try:
        pictures = loading.load(
            getattr(options, name),
            shape[:2],
            split,
            options.limit,
            getattr(options, "labels", False),
            "grayscale" if shape[-1] == 1 else "rgb",
            verbose=Progress("pictures loaded"),
        )
    except loading.UnreadableError as error:
        raise UsageError(f"--{name.replace('_', '-')} {error}") from error
    if pictures.left_out:
        print(
            f"  {len(pictures.left_out)} file(s) left out that cannot be read, "
            f"{len(pictures.images)} pictures taken",
            flush=True,
        )
    return pictures


def check_labels(options, names, classifier):
    """Checks that the classes of the pictures can be those of the model."""
    classes = max(2, classifier.output_shape[-1])
    if names is not None and len(names) != classes:
        raise UsageError(
            f"--labels: --images {options.images} has {len(names)} classes, "
            f"the model has {classes}. They must be the same, in the same "
            "order. Leave --labels out to take the model's own answers."
        )


def split(options, pictures, shares=SHARES):
    """Splits the pictures of `--images`; see `datasets.Pictures.split`.

    Args:
        options: The parsed options.
        pictures: `datasets.Pictures`.
        shares: Tuple of floats, one for each part.

    Returns:
        A tuple of integer arrays, the indices of each part.
    """
    try:
        return pictures.split(shares, options.seed)
    except ValueError as error:
        raise UsageError(
            f"--images holds {len(pictures.images)} picture(s), too few to "
            "hold some out: each part needs a photograph of its own. Add "
            "pictures, or pass --held-out."
        ) from error


def in_parts(options, pictures, shares=SHARES):
    """The parts of `split` as a list of `datasets.Pictures`."""
    return [_taken(pictures, part) for part in split(options, pictures, shares)]


def _taken(pictures, part):
    columns = {
        name: None if values is None else values[part]
        for name, values in pictures._asdict().items()
        if name not in ("class_names", "left_out")
    }
    return pictures._replace(**columns)


def load_perturbation(path, shape=None):
    """Loads a perturbation, in grey levels of 0 to 255, and its card."""
    try:
        perturbation, card = interchange.load_perturbation(path)
    except ValueError as error:
        raise UsageError(
            f"--perturbation {path} cannot be loaded. {error}"
        ) from error
    low, high = card["value_range"] or PIXELS
    if shape is not None and perturbation.shape != shape:
        raise UsageError(
            f"--perturbation {path} has shape {perturbation.shape}, the "
            f"model's pictures have {shape}. keras_uap.resize_perturbation "
            "makes another size of one."
        )
    scale = 255 / (high - low)
    return perturbation * scale, {**card, "epsilon": card["epsilon"] * scale}


def load_class_names(options, classifier):
    """Returns the names in `--class-names`, or None."""
    if options.class_names is None:
        return None
    names = read_names(options.class_names)
    classes = max(2, classifier.output_shape[-1])
    if len(names) != classes:
        raise UsageError(
            f"--class-names {options.class_names} has {len(names)} lines, the "
            f"model has {classes} classes."
        )
    return names


def make_ball(options):
    """Makes the ball of `--epsilon` and `--norm`."""
    epsilon = options.epsilon
    if epsilon is None:  # The paper's values.
        epsilon = 10.0 if options.norm == "linf" else 2000.0
    return api.LpBall(epsilon, options.norm)


def make_uap(options, classifier, target=None):
    """Makes a perturbation of the ball in the options."""
    ball = make_ball(options)
    return api.UniversalPerturbation(
        classifier, ball.epsilon, ball.norm, value_range=PIXELS, target=target
    )


def compile_update(uap, update=None):
    """Compiles what `--update` names, or what measured best in most cases."""
    optimizer, loss = updates.strongest(uap.ball, uap.target)
    if update == "lion":
        optimizer = "decaying_lion"
    elif update is not None:
        return uap.compile(update)
    return uap.compile(optimizer, loss=loss)
