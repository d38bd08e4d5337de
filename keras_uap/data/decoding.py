"""Image files as arrays: upright, on white, in colour or in grey."""

import os

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps
import tensorflow as tf

from keras_uap.utils.formatting import first_line


def is_upright(image):
    return image.getexif().get(PIL.ExifTags.Base.Orientation, 1) == 1


def read_picture(path):
    """Returns the uint8 array `(h, w, 3)` of a picture file.

    Raises:
        ValueError: if it cannot be read, with the path.
    """
    path = str(os.fsdecode(path))
    try:
        with PIL.Image.open(path) as image:
            if not is_upright(image):
                image = PIL.ImageOps.exif_transpose(image)
            if image.mode.startswith("I;16"):
                # The upper byte of two; Pillow would cut off above 255.
                grey = (np.asarray(image) >> 8).astype("uint8")
                return np.repeat(grey[..., None], 3, axis=-1)
            if image.mode in ("I", "F"):
                raise ValueError(
                    "its pixels are numbers without a range of grey levels"
                )
            if image.has_transparency_data:
                image = image.convert("RGBA")
                white = PIL.Image.new("RGBA", image.size, "white")
                image = PIL.Image.alpha_composite(white, image)
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Each format has errors of its own.
        raise ValueError(
            f"{path} cannot be read as a picture. {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error


def to_color_mode(image, color_mode):
    if image.shape[-1] == 4:
        image = image[..., :3]
    if color_mode == "rgb" and image.shape[-1] == 1:
        return tf.image.grayscale_to_rgb(image)
    if color_mode == "grayscale" and image.shape[-1] == 3:
        return tf.image.rgb_to_grayscale(image)
    return image
