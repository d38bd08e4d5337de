"""Checks of arguments that are shared: each names what it refuses."""

import numpy as np


def check_whole(name, value, least):
    """Raises ValueError unless `value` is an integer of at least `least`."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, np.integer))
        or value < least
    ):
        raise ValueError(
            f"{name} must be a whole number of at least {least}. "
            f"Received: {name}={value!r}."
        )


def check_number(name, value, holds, expected):
    """Raises ValueError unless `value` is a number for which `holds` is true.

    Args:
        name: String, the argument.
        value: What was received.
        holds: Function from a number to a boolean; NaN must give `False`.
        expected: String, what `holds` asks for: "above 0".
    """
    if (
        isinstance(value, (bool, np.bool_))
        or not isinstance(value, (int, float, np.integer, np.floating))
        or not holds(value)
    ):
        raise ValueError(
            f"{name} must be a number {expected}. Received: {name}={value!r}."
        )


def check_flag(name, value):
    """Raises ValueError unless `value` is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(
            f"{name} must be True or False. Received: {name}={value!r}."
        )


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
    # bfloat16 and its like are of kind V.
    if kind in "OSUcmM":
        raise TypeError(
            f"{name} must be an array of numbers. Received: {name}={value!r}."
        )
    return array


def check_images(images, name="images"):
    """Returns a batch of images as an array.

    Raises:
        TypeError: if it is not an array of numbers.
        ValueError: if there is no image, or one is not finite.
    """
    images = as_numbers(name, images)
    if images.ndim < 2 or images.size == 0:
        raise ValueError(
            f"{name} must be a batch of at least one image, of shape "
            f"(n, height, width, channels). Received: shape {images.shape}."
        )
    if not np.all(np.isfinite(images)):
        raise ValueError(f"{name} must be finite. Received: NaN or infinity.")
    return images


def as_wholes(name, values, least, most):
    """Returns a sequence of whole numbers as a tuple.

    Raises:
        ValueError: if it is empty, or one is not from `least` to `most`.
    """
    sequence = isinstance(values, (list, tuple, range, np.ndarray))
    found = tuple(values) if sequence and np.ndim(values) == 1 else ()
    good = [
        isinstance(value, (int, np.integer))
        and not isinstance(value, bool)
        and least <= value <= most
        for value in found
    ]
    if not good or not all(good):
        expected = (
            f"of at least {least}"
            if most == np.inf
            else f"from {least} to {most}"
        )
        raise ValueError(
            f"{name} must be whole numbers {expected}, at least one. "
            f"Received: {name}={values!r}."
        )
    return tuple(int(value) for value in found)


def as_sizes(name, values):
    """Returns a sequence of numbers above 0 as a tuple of floats.

    Raises:
        TypeError: if it does not hold numbers.
        ValueError: if it is empty, or one is not above 0 and finite.
    """
    array = as_numbers(name, values)
    if (
        array.ndim != 1
        or array.size == 0
        or not np.all((array > 0) & np.isfinite(array))
    ):
        raise ValueError(
            f"{name} must be numbers above 0. Received: {name}={values!r}."
        )
    return tuple(float(value) for value in array)
