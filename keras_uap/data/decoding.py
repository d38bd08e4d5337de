"""Image files as arrays: upright, on white, in colour or in grey."""

import os

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps
import tensorflow as tf

from keras_uap.utils.validation import explained


def read_image(path, fast=False):
    """Returns the uint8 array `(h, w, 3)` of an image file.

    Args:
        path: String, bytes or path.
        fast: Boolean, whether TensorFlow decodes upright grey or RGB JPEG
            files. Its values differ a little from Pillow's.

    Raises:
        ValueError: if it cannot be read, with the path.
    """
    path = str(os.fsdecode(path))
    with (
        explained(f"{path} cannot be read as an image"),
        PIL.Image.open(path) as image,
    ):
        upright = image.getexif().get(PIL.ExifTags.Base.Orientation, 1) == 1
        plain = image.format == "JPEG" and image.mode in ("L", "RGB")
        if fast and upright and plain:
            content = tf.io.read_file(path)
            return tf.io.decode_jpeg(content, channels=3).numpy()
        if not upright:
            image = PIL.ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            # Keeps the upper byte; Pillow would clip values at 255.
            grey = (np.asarray(image) >> 8).astype("uint8")
            return np.repeat(grey[..., None], 3, axis=-1)
        if image.mode in ("I", "F"):
            raise ValueError("its values have no range of grey levels")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            white = PIL.Image.new("RGBA", image.size, "white")
            image = PIL.Image.alpha_composite(white, image)
        return np.asarray(image.convert("RGB"))


def to_color_mode(image, color_mode):
    """Returns an image tensor in `"rgb"` or `"grayscale"`, without alpha."""
    if image.shape[-1] == 4:
        image = image[..., :3]
    if color_mode == "rgb" and image.shape[-1] == 1:
        return tf.image.grayscale_to_rgb(image)
    if color_mode == "grayscale" and image.shape[-1] == 3:
        return tf.image.rgb_to_grayscale(image)
    return image
