"""A perturbation in another size, for classifiers of other images.

Resizing changes what is measured, so nothing in this package resizes a
perturbation unasked: a perturbation of the wrong size is an error, and
`resize_perturbation` changes its size. The result is projected to the ball,
because upscaling increases the l2 norm, and `"bicubic"` overshoots.
"""

import numpy as np
import tensorflow as tf

from keras_uap.perturbations.interchange import read_perturbation
from keras_uap.perturbations.lp_ball import as_norm, lp_norm, project
from keras_uap.utils.validation import invalid, is_whole

# Images resized at once: a thousand of 224x224 take 600 MB.
_AT_ONCE = 64


def resize_perturbation(
    perturbation, size, epsilon=None, norm="linf", method="bilinear", card=None
):
    """Resizes a perturbation and projects it to its ball.

    Example:

    ```python
    v, card = keras_uap.interchange.load_perturbation("uap.npz")
    v, card = keras_uap.resize_perturbation(v, 160, card=card)
    keras_uap.interchange.save_perturbation("uap160.npz", v, card)
    card["resized"]  # {"from": [224, 224, 3], "method": "bilinear"}
    ```

    Args:
        perturbation: Array `(H, W, C)`, in pixel units.
        size: Integer or pair of integers, the new height and width.
        epsilon: Float above 0, the radius of the ball, in pixel units.
            `None` means the norm of `perturbation`, or the card's epsilon.
        norm: `"linf"`, `"l2"`, `np.inf` or `2`, the norm of the ball. A
            card's own takes its place.
        method: String, a method of `tf.image.resize`: `"bilinear"`,
            `"nearest"`, `"bicubic"`, `"area"`, `"lanczos3"` and the like.
        card: Dictionary, the card that belongs to the perturbation. The new
            one records the change under `"resized"`; its rates stay those
            of the original.

    Returns:
        Float32 NumPy array `(height, width, C)`, never of a norm above
        `epsilon`. With a `card`, a pair of the array and its own card.

    Raises:
        TypeError: if `perturbation` is not an array of numbers.
        ValueError: if it is not of shape `(H, W, C)`, or for a size, a method
            or a norm that does not exist.
    """
    array = read_perturbation(perturbation)
    if array.ndim != 3:
        raise ValueError(
            "Only perturbations (height, width, channels) can be resized. For "
            f"signals, fit another perturbation. Received: shape {array.shape}."
        )
    pair = (size, size) if np.ndim(size) == 0 else tuple(size)
    if len(pair) != 2 or not all(is_whole(s) and s >= 1 for s in pair):
        expected = "a whole number of pixels, or a pair (height, width) of them"
        raise invalid("size", expected, size)
    if card is not None:
        norm = card.get("norm", norm)
        epsilon = card.get("epsilon") if epsilon is None else epsilon
    norm = as_norm(norm)
    resized = resize_images(array[np.newaxis], pair, method)[0]
    if epsilon is None:
        epsilon = lp_norm(array, norm)
    if np.any(resized):  # A ball of radius 0 is refused.
        resized = project(resized, epsilon, norm)
    if card is None:
        return resized
    card = card | {"norm": norm, "epsilon": epsilon}
    card["shape"] = list(resized.shape)
    card["resized"] = {"from": list(array.shape), "method": method}
    return resized, card


def resize_images(images, size, method="bilinear"):
    """Resizes images, without aliasing where they become smaller.

    Args:
        images: Array `(n, H, W, C)`.
        size: Pair of integers, height and width.
        method: String, a method of `tf.image.resize`.

    Returns:
        Float32 NumPy array `(n, height, width, C)`.
    """
    try:
        starts = range(0, len(images), _AT_ONCE)
        batches = [images[start : start + _AT_ONCE] for start in starts]
        resize = tf.image.resize
        parts = [resize(b, size, method, antialias=True) for b in batches]
    except ValueError as error:
        raise invalid("method", "one of tf.image.resize", method) from error
    return np.concatenate(parts).astype("float32")
