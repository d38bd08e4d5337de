"""Pixels and what is added to them: ranges, clipping, arrays of one shape."""

import base64
import math
import warnings

import numpy as np
import tensorflow as tf

from keras_uap.utils.validation import as_numbers, invalid

# What to do about a perturbation of the wrong size.
RESIZE_HINT = "keras_uap.resize_perturbation makes another size of one."


class NoPerturbationError(ValueError, AttributeError):
    """There is no perturbation before the size of the images is known."""

    # Keras reads an attribute before it sets it: hence an AttributeError.

    def __init__(self, hint):
        super().__init__(f"There is no perturbation yet. {hint}")


def as_value_range(value_range):
    """Returns `value_range` as a pair of floats, or None.

    Raises:
        ValueError: if it is not a pair `(low, high)` with `low < high`.
    """
    if value_range is None:
        return None
    try:
        low, high = (float(value) for value in value_range)
    except (TypeError, ValueError, OverflowError):
        low, high = np.nan, np.nan
    if not -np.inf < low < high < np.inf:
        expected = "a pair (low, high) of finite numbers, low < high, or None"
        raise invalid("value_range", expected, value_range)
    return low, high


def as_perturbation(perturbation):
    """Returns a perturbation as a float32 NumPy array.

    Raises:
        TypeError: if it is not an array of numbers.
        ValueError: if it holds NaN or infinity.
    """
    # What float32 cannot hold becomes infinite, and is refused.
    with np.errstate(over="ignore"):
        array = as_numbers("perturbation", perturbation).astype("float32")
    if not np.all(np.isfinite(array)):
        raise ValueError("perturbation must be finite. Received: NaN or inf.")
    return array


def as_pool(perturbation, pool_size=None, rank=None):
    """Returns `(pool_size, H, W, C)` from one perturbation or a pool.

    Args:
        perturbation: Array.
        pool_size: Integer or None.
        rank: Integer, the axes of one perturbation. `None` finds out: three,
            or two for signals.

    Raises:
        TypeError: if it is not an array of numbers.
        ValueError: if it is not finite, or of another shape or number.
    """
    array = as_perturbation(perturbation)
    if rank is None:
        # Three axes are one image, unless they are said to be several signals.
        several = (pool_size or 1) > 1 and len(array) == pool_size
        rank = 2 if array.ndim == 2 or (array.ndim == 3 and several) else 3
    if array.ndim not in (rank, rank + 1):
        raise ValueError(
            "perturbation must have shape (height, width, channels), or "
            f"(pool_size, ...) for a pool. Received: shape {array.shape}."
        )
    pool = array[np.newaxis] if array.ndim == rank else array
    if pool_size not in (None, len(pool)):
        expected = f"as many as pool_size={pool_size}"
        raise invalid("len(perturbation)", expected, len(pool))
    return pool


def as_mask(mask):
    """Returns a mask as a float32 array of zeros and ones.

    Raises:
        TypeError: if it is not an array of numbers.
        ValueError: if it is zero everywhere.
    """
    mask = (as_numbers("mask", mask) != 0).astype("float32")
    if not mask.any():
        raise ValueError("mask is zero everywhere: nothing can be perturbed.")
    return mask


def mask_to_config(mask):
    """A mask, or `None`, for a config: bits, as numbers take megabytes."""
    if mask is None:
        return {"mask_shape": None, "mask_bits": None}
    bits = base64.b64encode(np.packbits(np.asarray(mask) != 0))
    return {"mask_shape": list(mask.shape), "mask_bits": bits.decode("ascii")}


def mask_from_config(config):
    """Returns a copy of a config with the `mask` of `mask_to_config` in it."""
    config = dict(config)
    shape = config.pop("mask_shape", None)
    text = config.pop("mask_bits", None)
    if text is not None:
        bits = np.frombuffer(base64.b64decode(text), "uint8")
        if bits.size != -(-math.prod(shape) // 8):
            raise ValueError("The mask in the file is damaged.")
        bits = np.unpackbits(bits, count=math.prod(shape))
        config["mask"] = bits.reshape(shape)
    elif shape is not None:
        # In older files, the weights that are loaded next hold the mask.
        config["mask"] = np.ones(shape, "float32")
    return config


def spread_mask(mask, image_shape):
    """Spreads a mask `(H, W)` over the channels; checks its shape."""
    if mask.shape == image_shape[:-1]:
        mask = mask[..., np.newaxis]
    elif mask.shape != image_shape:
        expected = f"{image_shape[:-1]} or {image_shape}"
        raise invalid("mask.shape", expected, mask.shape)
    return np.broadcast_to(mask, image_shape).copy()


def shape_hint(image, expected):
    """What to do about images of another shape, where that can be told.

    Args:
        image, expected: Tuples, the shapes of an image.
    """
    image, expected = tuple(image), tuple(expected)
    if len(image) and image == expected[1:]:
        return " The data set is not batched: call .batch(32) on it."
    if image == expected[:-1]:
        return " The axis of the channels is missing: images[..., np.newaxis]."
    return ""


def same_shape(images, perturbation):
    """Raises ValueError unless images and a perturbation have one shape.

    Args:
        images: Shape of one image, `(H, W, C)`, or of a batch. Axes may be
            `None` where they are not known.
        perturbation: Shape of the perturbation, `(H, W, C)`.
    """
    images, expected = tf.TensorShape(images), tuple(perturbation)
    image = images[1:] if images.rank == len(expected) + 1 else images
    if not image.is_compatible_with(expected):
        raise ValueError(
            "The images do not have the perturbation's shape. Received: "
            f"{tuple(images)}. Expected: {expected}, or batches."
            + (shape_hint(image, expected) or f" {RESIZE_HINT}")
        )


def clip_to_range(images, value_range):
    """Clips images to `(low, high)`; `None` leaves them as they are."""
    if value_range is None:
        return images
    return tf.clip_by_value(images, *value_range)


def mid_grey(image_shape, value_range):
    """The image that shows nothing: to look at a perturbation alone.

    Args:
        image_shape: Tuple `(H, W, C)`.
        value_range: Pair of floats, or `None`.

    Returns:
        Float32 array: the middle of the range everywhere, or zero without one.
    """
    low, high = value_range or (0.0, 0.0)
    return np.full(image_shape, (low + high) / 2, "float32")


def apply_perturbation(images, perturbation, value_range):
    """Returns `clip(images + perturbation)` as a float32 tensor."""
    images = tf.cast(images, "float32")
    return clip_to_range(images + tf.cast(perturbation, "float32"), value_range)


def warn_of_other_range(images, value_range, name, stacklevel):
    """Warns where the pixels can hardly be of `value_range`."""
    if value_range is None:
        return
    low, high = value_range
    seen_low, seen_high = float(images.min()), float(images.max())
    narrow = seen_high - seen_low < 0.05 * (high - low)
    if seen_low < low or seen_high > high or (narrow and seen_high <= 1):
        warnings.warn(
            f"The pixels of {name} lie in [{seen_low:.4g}, {seen_high:.4g}], "
            f"but value_range is ({low:g}, {high:g}). Pass the value_range of "
            "the classifier, and epsilon in the same units.",
            stacklevel=stacklevel + 1,
        )
