"""Images from a folder, a TFDS data set or the samples, ready for a fit.

Images of any size become what a classifier takes: scaled so that the shorter
side fits and cut to the middle, as the model zoo does it. `augmentation` makes
few photographs go further.
"""

import pathlib

import keras
import tensorflow as tf

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")


def images(source, size=(224, 224), split="train", limit=None, batch_size=32):
    """Returns a data set of image batches from a folder or a TFDS name.

    Args:
        source: String or path: a folder with pictures in it or in folders
            below it, or the name of a TFDS data set.
        size: Pair of integers `(height, width)`.
        split: String, the split of a TFDS data set.
        limit: Integer, the most images to take, in sorted order.
        batch_size: Integer.

    Returns:
        A `tf.data.Dataset` of float32 batches `(n, height, width, 3)` in
        0 to 255.

    Raises:
        ValueError: if there is no such folder or data set, or no picture in
            it, or `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1. Received: {limit!r}.")
    if pathlib.Path(source).is_dir():
        data = _from_folder(source, size)
    else:
        data = _from_tfds(str(source), size, split)
    if limit is not None:
        data = data.take(limit)
    return data.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def augmentation(value_range=(0, 255), seed=None):
    """Returns Keras layers that vary photographs: a few go much further.

    Random mirror images, zooms into the picture (up to twice), shifts (up to a
    tenth), brightness (up to a fifth of the range) and contrast.

    Args:
        value_range: Pair of floats, the pixel range.
        seed: Integer, the seed of the draws.

    Returns:
        A function from a batch of images to a float32 batch of the same shape,
        for `tf.data.Dataset.map`.
    """
    layers = keras.layers
    seeds = [None if seed is None else 10 * seed + i for i in range(5)]
    pipeline = [
        layers.RandomFlip("horizontal", seed=seeds[0]),
        layers.RandomZoom((-0.5, 0.0), seed=seeds[1]),
        layers.RandomTranslation(0.1, 0.1, seed=seeds[2]),
        layers.RandomBrightness(0.2, value_range, seed=seeds[3]),
        layers.RandomContrast(0.3, value_range, seed=seeds[4]),
    ]

    def augment(batch):
        batch = tf.cast(batch, "float32")
        for layer in pipeline:
            batch = layer(batch, training=True)
        return tf.clip_by_value(batch, *value_range)

    return augment


def augmented(images, batch_size=16, value_range=(0, 255), seed=0):
    """Returns a data set of varied batches of an array of images.

    Args:
        images: Array `(n, H, W, C)`.
        batch_size: Integer.
        value_range: Pair of floats, the pixel range.
        seed: Integer, the seed of the order and of the draws.

    Returns:
        A `tf.data.Dataset` of float32 batches. Each pass over it comes in
        another order and with other draws.
    """
    # No prefetch behind the layers: each batch moves their random state, and
    # whoever looks at one batch only must move it by one, in every run.
    return (
        tf.data.Dataset.from_tensor_slices(images)
        .shuffle(len(images), seed=seed)
        .batch(batch_size)
        .prefetch(2)
        .map(augmentation(value_range, seed))
    )


def _from_folder(folder, size):
    found = any(
        path.suffix.lower() in _SUFFIXES
        for path in pathlib.Path(folder).rglob("*")
    )
    if not found:
        raise ValueError(
            f"No pictures in {folder} or the folders below it. Expected files "
            f"that end in one of {', '.join(_SUFFIXES)}."
        )
    return keras.utils.image_dataset_from_directory(
        folder,
        labels=None,
        batch_size=None,
        image_size=size,
        shuffle=False,
        crop_to_aspect_ratio=True,
        verbose=False,
    )


def first_line(error):
    """The first line of an error's message, which may have none."""
    return (str(error).strip().splitlines() or [""])[0]


def _from_tfds(name, size, split):
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "TFDS data sets need: pip install tensorflow-datasets "
            "importlib_resources."
        ) from error
    try:
        builder = tfds.builder(name)
    except Exception as error:
        raise ValueError(
            f"{name!r} is neither a folder nor a TFDS data set. "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error
    features = builder.info.features
    if features is None or "image" not in features:
        raise ValueError(f"The TFDS data set {name!r} holds no images.")
    builder.download_and_prepare()
    resize = keras.layers.Resizing(*size, crop_to_aspect_ratio=True)

    def prepare(example):
        image = tf.cast(example["image"], "float32")
        if image.shape[-1] == 1:
            image = tf.image.grayscale_to_rgb(image)
        return resize(image)

    return builder.as_dataset(split=split).map(
        prepare, num_parallel_calls=tf.data.AUTOTUNE
    )
