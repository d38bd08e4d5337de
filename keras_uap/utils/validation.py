"""Shared checks of arguments, with errors that name the argument.

`check_*` raises or returns nothing. `as_*` returns the argument in
the form that the package works with.
"""

import contextlib
import operator
import re

import numpy as np

from keras_uap.utils.formatting import cut

# What keeps a file from loading, by the error of Keras or TensorFlow.
_REASONS = (
    ("add_slot", "the state of an optimizer of Keras 2"),
    ("'tf_keras|'keras.src.engine", "layers of Keras 2 (tf_keras)"),
    (
        r"(?:locate (?:class|function)|Unknown (?:layer|object):) '?([\w>]+)",
        r"\1, which keras.saving.load_model needs in custom_objects=",
    ),
    ("Lambda", "a Lambda layer, which load_model runs with safe_mode=False"),
    ("format not supported", "no .keras or .h5 file, and no SavedModel"),
)


@contextlib.contextmanager
def explained(text, hint=""):
    """Raises any error of a library as a ValueError that begins with `text`."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{text}. {reason_of(error)}{hint}") from error


def reason_of(error):
    """What an error of a library says, in a sentence."""
    for pattern, reason in _REASONS:
        if found := re.search(pattern, str(error)):
            return f"It holds {found.expand(reason)}."
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {cut(first, 200)}"


def invalid(name, expected, value, fix="", error=ValueError):
    """Returns the error of an argument, to be raised.

    Args:
        name: String, the argument.
        expected: String, what it must be.
        value: What was received.
        fix: String, a sentence that says what to do.
        error: Class of the error.
    """
    value = cut(repr(value), 200)
    text = f"{name} must be {expected}. Received: {name}={value}. {fix}"
    return error(text.rstrip())


def check_choice(name, value, choices):
    """Raises ValueError unless `value` is one of some strings."""
    if value not in choices:
        raise invalid(name, " or ".join(map(repr, choices)), value)


def is_whole(value):
    """Whether `value` is an integer, which a boolean is not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def check_whole(name, value, least):
    """Raises ValueError unless `value` is an integer of at least `least`."""
    if not is_whole(value) or value < least:
        raise invalid(name, f"a whole number of at least {least}", value)


def check_counts(**counts):
    """Raises ValueError unless each is None or a whole number above 0."""
    for name, value in counts.items():
        if value is not None:
            check_whole(name, value, 1)


def check_number(name, value, least=None, above=None, most=None, below=None):
    """Raises ValueError unless `value` is a number within its bounds.

    Args:
        name: String, the argument.
        value: What was received. At least one bound is given.
        least, above: Float, the lower bound, itself allowed or not.
        most, below: Float, the upper bound, itself allowed or not;
            `below=np.inf` asks for a finite number.
    """
    bounds = [
        ("of at least", least, operator.ge),
        ("above", above, operator.gt),
        ("at most", most, operator.le),
        ("below", below, operator.lt),
    ]
    bounds = [bound for bound in bounds if bound[1] is not None]
    number = is_whole(value) or isinstance(value, (float, np.floating))
    # NaN is within no bound.
    if number and all(within(value, limit) for _, limit, within in bounds):
        return
    expected = " and ".join(
        "finite" if limit == np.inf else f"{text} {limit:g}"
        for text, limit, _ in bounds
    )
    if None not in (least, most):
        expected = f"between {least:g} and {most:g}"
    raise invalid(name, f"a number {expected}", value)


def check_flag(name, value):
    """Raises ValueError unless `value` is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise invalid(name, "True or False", value)


def as_numbers(name, value):
    """Returns `value` as a NumPy array of real numbers.

    Raises:
        TypeError: if it is not one. Nothing is converted from text, complex
            numbers or Python objects.
    """
    try:
        array = np.asarray(value)
        kind = array.dtype.kind
    except (TypeError, ValueError):  # Parts of different shapes, or no array.
        kind = "O"
    # bfloat16 and similar types are of kind V.
    if kind in "OSUcmM":
        raise invalid(name, "an array of numbers", value, error=TypeError)
    return array


def check_axes(shape, name="images"):
    """Raises ValueError for vectors, and images with their channels first."""
    if len(shape) < 3:
        raise ValueError(
            f"{name} must have axes (n, height, width, channels), or (n, time, "
            f"channels) of signals. Received: shape {tuple(shape)}. For vectors"
            ", put keras.layers.Flatten() in front of the classifier."
        )
    if len(shape) != 4 or None in shape[1:] or min(shape[2:]) <= 4:
        return
    # As few as channels are, or fewer than both sides of a square.
    if shape[1] in (1, 3, 4) or shape[1] < shape[2] == shape[3]:
        raise ValueError(
            f"{name} must have their channels last, (n, height, width, "
            f"channels). Received: shape {tuple(shape)}. Transpose them, and "
            "pass keras_uap.attach(classifier, data_format='channels_first')."
        )


def as_images(images, name="images"):
    """Returns a batch of images as an array.

    Raises:
        TypeError: if it is not an array of numbers.
        ValueError: if there is no image, or one is not finite.
    """
    images = as_numbers(name, images)
    if images.size == 0:
        raise ValueError(
            f"{name} must be a batch of at least one image, of shape "
            f"(n, height, width, channels). Received: shape {images.shape}."
        )
    check_axes(images.shape, name)
    finite = np.isfinite(images)
    if not finite.all():
        index = np.argwhere(~finite)[0]
        raise ValueError(
            f"{name} must be finite. Received: NaN or infinity in image "
            f"{index[0]}, at position {tuple(index[1:].tolist())}."
        )
    return images


def as_groups(groups, images):
    """Returns the photograph of each image as an array, or None.

    Raises:
        ValueError: if there is not one group per image, or only one group.
    """
    if groups is None:
        return None
    if isinstance(groups, str):
        expected = "an array. A rule reads file names: it goes with a folder"
        raise invalid("groups", expected, groups)
    groups = np.asarray(groups)
    if groups.shape != (len(images),):
        expected = f"({len(images)},), one group per image"
        raise invalid("groups.shape", expected, groups.shape)
    if any(group is None or group != group for group in groups.tolist()):
        raise ValueError("groups must name the photograph of every image.")
    if len(np.unique(groups)) < 2:
        raise ValueError("groups must name at least two photographs, not one.")
    return groups


def as_wholes(name, values, least, most):
    """Returns a sequence of whole numbers as a tuple.

    Raises:
        ValueError: if it is empty, or one is not from `least` to `most`.
    """
    sequence = isinstance(values, (list, tuple, range, np.ndarray))
    found = tuple(values) if sequence and np.ndim(values) == 1 else ()
    if not found or not all(is_whole(v) and least <= v <= most for v in found):
        expected = f"whole numbers from {least} to {most}, at least one"
        raise invalid(name, expected, values)
    return tuple(int(value) for value in found)


def as_sizes(name, values):
    """Returns a sequence of numbers above 0 as a tuple of floats.

    Raises:
        TypeError: if it does not hold numbers.
        ValueError: if it is empty, or one is not above 0 and finite.
    """
    array = as_numbers(name, values)
    good = np.all((array > 0) & np.isfinite(array))
    if array.ndim != 1 or array.size == 0 or not good:
        raise invalid(name, "numbers above 0", values)
    return tuple(float(value) for value in array)


def as_class(name, value, num_classes=np.inf):
    """Returns the index of a class as an integer; `None` stays `None`.

    Raises:
        TypeError: if it is not a whole number.
        ValueError: if it is not one of the classes.
    """
    if value is None:
        return None
    if not is_whole(value):
        raise invalid(name, "a class index", value, error=TypeError)
    check_whole(name, value, 0)
    if value >= num_classes:
        classes = f"{num_classes} classes, 0 to {num_classes - 1}"
        raise invalid(name, f"one of the {classes}", int(value))
    return int(value)
