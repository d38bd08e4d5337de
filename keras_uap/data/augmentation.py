"""Augmentation: few photographs go further with other views of them."""

import keras
import numpy as np
import tensorflow as tf

from keras_uap.data.decoding import read_image, to_color_mode
from keras_uap.data.pictures import pixel_range, without_tuner
from keras_uap.utils.validation import as_images, check_axes

# Audits augment fewer images than this. At this number, augmented and plain
# images give the same rate for the same work; beyond it, plain ones are better.
FEW = 500


def augmentation(value_range=(0, 255), seed=None, crops=True):
    """Returns a function that augments batches of photographs.

    It applies random mirroring, zoom (up to twice), shifts (up to a tenth),
    brightness (up to a fifth of the range) and contrast.

    Args:
        value_range: Pair of floats, the pixel range.
        seed: Integer, the seed of the draws.
        crops: Boolean, whether to zoom and shift.

    Returns:
        A function from a batch of images to a float32 batch of the same shape,
        for `tf.data.Dataset.map`.
    """
    seeds = [None if seed is None else 10 * int(seed) + i for i in range(5)]
    # Whatever the user's Keras configuration says.
    options = {"data_format": "channels_last", "dtype": "float32"}
    layers = keras.layers
    pipeline = [
        layers.RandomFlip("horizontal", seed=seeds[0], **options),
        layers.RandomZoom((-0.5, 0.0), seed=seeds[1], **options),
        layers.RandomTranslation(0.1, 0.1, seed=seeds[2], **options),
        layers.RandomBrightness(0.2, value_range, seed=seeds[3], **options),
        layers.RandomContrast(0.3, value_range, seed=seeds[4], **options),
    ]
    if not crops:
        del pipeline[1:3]

    def augment(batch):
        batch = tf.cast(batch, "float32")
        _check_images(batch.shape)
        for layer in pipeline:
            batch = layer(batch, training=True)
        return tf.clip_by_value(batch, *value_range)

    return augment


def _check_images(shape):
    """Raises ValueError for shapes that cannot be mirrored and cropped."""
    if len(shape) != 4:
        raise ValueError(
            "Only batches of images (n, H, W, C) can be augmented. Received: "
            f"shape {tuple(shape)}. Pass signals as they are."
        )
    check_axes(shape)


def augmented(images, batch_size=16, value_range=(0, 255), seed=0):
    """Returns a dataset of augmented batches of an array of images.

    Args:
        images: Array `(n, H, W, C)`.
        batch_size: Integer.
        value_range: Pair of floats, the pixel range; `None` takes that of the
            images.
        seed: Integer, the seed of the order and of the draws.

    Returns:
        A `tf.data.Dataset` of float32 batches. Each epoch has another order
        and other draws.
    """
    _check_images(np.shape(images))
    images = as_images(images)
    if value_range is None:
        value_range = pixel_range(images)
    # No prefetch behind the layers: each batch moves their random state, and
    # whoever takes one batch must move it by one, in every run.
    return without_tuner(
        tf.data.Dataset.from_tensor_slices(images)
        .shuffle(len(images), seed=seed)
        .batch(batch_size)
        .prefetch(2)
        .map(augmentation(value_range, seed))
    )


def views(pictures, batch_size=16, value_range=(0, 255), seed=0):
    """Returns a dataset of augmented batches, cropped from whole files.

    A loaded image is the middle of its file. Where the files are known, each
    augmented view is a random crop of the whole file: a quarter of it to all
    of it, with an aspect ratio from 3:4 to 4:3. Otherwise as `augmented`.

    Args:
        pictures: `Pictures`, as `load` gives, with images of `value_range`.
        batch_size: Integer.
        value_range: Pair of floats, the pixel range; `None` means grey levels
            of 0 to 255 for files, and the range of the images otherwise.
        seed: Integer, the seed of the order and of the draws.

    Returns:
        A `tf.data.Dataset` of float32 batches. Each epoch has other draws.
    """
    images, paths = pictures.images, pictures.paths
    if paths is None:
        return augmented(images, batch_size, value_range, seed)
    if value_range is None:
        value_range = (0.0, 255.0)
    low, high = value_range
    size = images.shape[1:3]
    color_mode = "grayscale" if images.shape[-1] == 1 else "rgb"

    def read(path):
        image = tf.numpy_function(read_image, [path], tf.uint8)
        image = tf.ensure_shape(image, (None, None, 3))
        image = to_color_mode(tf.cast(image, "float32"), color_mode)
        # At most twice the size that is needed is kept in memory.
        sides = tf.cast(tf.shape(image)[:2], "float64")
        scale = tf.minimum(2.0 * max(size) / tf.reduce_min(sides), 1)
        sides = tf.cast(tf.round(sides * scale), "int32")
        image = tf.image.resize(image, sides, antialias=True)
        return tf.cast(tf.round(image), "uint8")

    def crop(image, draw):
        begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            tf.shape(image),
            tf.zeros((1, 0, 4)),
            draw,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.25, 1.0),
            use_image_if_no_bounding_boxes=True,
        )
        image = tf.slice(image, begin, extent)
        image = tf.image.resize(image, size, antialias=True)
        image = tf.ensure_shape(image, images.shape[1:])
        return low + image * ((high - low) / 255)

    whole = tf.data.Dataset.from_tensor_slices(paths)
    whole = whole.map(read, num_parallel_calls=tf.data.AUTOTUNE).cache()
    draws = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
    whole = whole.shuffle(len(paths), seed=seed)
    data = tf.data.Dataset.zip(whole, draws.batch(2))
    data = data.map(crop, num_parallel_calls=tf.data.AUTOTUNE)
    return without_tuner(
        data.batch(batch_size)
        .prefetch(2)
        .map(augmentation(value_range, seed, crops=False))
    )
