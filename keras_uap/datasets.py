"""Images from a folder, a TFDS data set or the samples, ready for a fit.

Images of any size become what a classifier takes: cut to the middle of its
aspect ratio and scaled, as the model zoo does it, to whole grey levels.
`augmentation` makes few photographs go further.
"""

import collections
import pathlib

import keras
import numpy as np
import tensorflow as tf

from keras_uap.batches import without_tuner as without_tuner
from keras_uap.parts import photographs
from keras_uap.parts import split as split

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
_CHANNELS = {"rgb": 3, "grayscale": 1}

# What may be kept in memory: 3,500 colour pictures of 224x224.
_MOST_BYTES = 2**29

# Fewer pictures than this are varied: see `augmented`.
FEW = 500

# What `load` gives; all but the images may be None.
Pictures = collections.namedtuple(
    "Pictures",
    ["images", "class_names", "labels", "groups", "folders", "paths"],
    defaults=[None] * 5,
)


class DamagedError(ValueError):
    """A file that is no picture."""


def images(
    source,
    size=(224, 224),
    split="train",
    limit=None,
    batch_size=32,
    labels=False,
    color_mode="rgb",
    shuffle=False,
    seed=None,
    cache=None,
):
    """Returns a data set of image batches from a folder or a TFDS name.

    Example:

    ```python
    photos = keras_uap.datasets.images("photos/")
    pairs = keras_uap.datasets.images(
        "imagenette/320px-v2", split="train[:1000]", labels=True, shuffle=True
    )
    ```

    Args:
        source: String or path: a folder with pictures in it or in folders
            below it. Or the name of a TFDS data set, or a TFDS builder.
            Data sets that are not there yet are downloaded.
        size: Pair of integers `(height, width)`.
        split: String, the split of a TFDS data set, such as
            `"train[:1000]"`.
        limit: Integer, the most images to take: of a folder, from all over
            its sorted files; of a TFDS data set, the first.
        batch_size: Integer.
        labels: Boolean, whether each batch is a pair `(images, labels)`. In a
            folder, each folder in it is a class, in sorted order.
        color_mode: `"rgb"` or `"grayscale"`. Pictures of the other kind are
            converted.
        shuffle: Boolean, whether each pass comes in another order.
        seed: Integer, the seed of those orders.
        cache: Boolean, whether pictures are read once and kept in memory, a
            byte a value. `None` does so up to half a gigabyte.

    Returns:
        A `tf.data.Dataset` of float32 batches `(n, height, width, channels)`
        of whole numbers from 0 to 255, or of pairs of those and int64 labels
        `(n,)`. With labels, its attribute `class_names` is a list of strings.

    Raises:
        ImportError: for a TFDS name where TFDS is not installed.
        ValueError: if there is no such folder, data set or split, or no
            pictures or labels in it, or an argument is out of range.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1. Received: {limit!r}.")
    if color_mode not in _CHANNELS:
        raise ValueError(
            "color_mode must be 'rgb' or 'grayscale'. Received: "
            f"{color_mode!r}."
        )
    paths = None
    if hasattr(source, "as_dataset"):
        data, names = _from_tfds(source, source.name, split, labels)
    elif pathlib.Path(source).is_dir():
        data, names, paths = _from_folder(source, labels, limit, shuffle, seed)
    else:
        name = str(source)
        data, names = _from_tfds(_tfds_builder(name), name, split, labels)
    if limit is not None:
        data = data.take(limit)
    resize = keras.layers.Resizing(
        *size, crop_to_aspect_ratio=True, data_format="channels_last"
    )

    def prepare(image, *label):
        image = _to_color_mode(tf.cast(image, "float32"), color_mode)
        # Bytes, so that four times as many fit into memory.
        return tf.cast(tf.round(resize(image)), "uint8"), *label

    data = data.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    # Negative where the number is not known beforehand.
    number = int(data.cardinality())
    most = max(1, _MOST_BYTES // (size[0] * size[1] * _CHANNELS[color_mode]))
    if cache or (cache is None and 0 <= number <= most):
        data = data.cache()
    if shuffle:
        data = data.shuffle(min(number, most) if number > 0 else most, seed)

    def finish(image, *label):
        image = tf.cast(image, "float32")
        return (image, *label) if label else image

    data = data.batch(batch_size).map(finish).prefetch(2)
    data = without_tuner(data)
    if labels:
        data.class_names = names
    if paths is not None and not shuffle:
        data.file_paths = paths
    return data


def load(
    source,
    size=(224, 224),
    split="train",
    limit=None,
    labels=False,
    color_mode="rgb",
):
    """Loads pictures into memory, with what `split` must know of them.

    Args:
        source, size, split, limit, labels, color_mode: As for `images`.

    Returns:
        `Pictures`: uint8 `images` `(n, height, width, channels)`;
        `class_names`, a list, and `labels` `(n,)`, with `labels=True`;
        `groups` `(n,)`, the photograph of each picture, where the names of
        the files tell; `folders` `(n,)`, the folder in the source that each
        is in, where there are several; and `paths` `(n,)` of the files. What
        is not known is `None`.

    Raises:
        ImportError, ValueError: as `images`, and for a file that is no
            picture.
    """
    data = images(
        source, size, split, limit, 32, labels, color_mode, cache=False
    )
    pictures, targets = [], []
    # A byte a value keeps a thousand pictures at 150 MB.
    try:
        for batch in data:
            batch, target = batch if labels else (batch, ())
            pictures.append(batch.numpy().astype("uint8"))
            targets.append(np.asarray(target))
    except tf.errors.InvalidArgumentError as error:
        raise DamagedError(
            f"{source} holds a file that is no picture, or is damaged. "
            f"{first_line(error)}"
        ) from error
    groups = folders = paths = None
    if hasattr(data, "file_paths"):
        paths = np.array(data.file_paths)
        groups = photographs(data.file_paths)
        root = pathlib.Path(source)
        folders = [
            pathlib.Path(path).relative_to(root).parts[0]
            if pathlib.Path(path).parent != root
            else "."
            for path in data.file_paths
        ]
        folders = np.array(folders) if len(set(folders)) > 1 else None
    return Pictures(
        np.concatenate(pictures),
        getattr(data, "class_names", None),
        np.concatenate(targets) if labels else None,
        groups,
        folders,
        paths,
    )


def augmentation(value_range=(0, 255), seed=None, crops=True):
    """Returns Keras layers that vary photographs: a few go much further.

    Random mirror images, zooms into the picture (up to twice), shifts (up to a
    tenth), brightness (up to a fifth of the range) and contrast.

    Args:
        value_range: Pair of floats, the pixel range.
        seed: Integer, the seed of the draws.
        crops: Boolean, whether to zoom and shift.

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
    if not crops:
        del pipeline[1:3]

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
    return without_tuner(
        tf.data.Dataset.from_tensor_slices(images)
        .shuffle(len(images), seed=seed)
        .batch(batch_size)
        .prefetch(2)
        .map(augmentation(value_range, seed))
    )


def views(pictures, batch_size=16, value_range=(0, 255), seed=0):
    """Returns a data set of varied batches of pictures, whole where they are.

    A picture that was loaded is the middle of its file. Where the files are
    known, each view is a random crop of the whole of one, a quarter of it to
    all of it, of any shape between 3:4 and 4:3; else as `augmented`.

    Args:
        pictures: `Pictures`, as `load` gives, with images of `value_range`.
        batch_size: Integer.
        value_range: Pair of floats, the pixel range.
        seed: Integer, the seed of the order and of the draws.

    Returns:
        A `tf.data.Dataset` of float32 batches, each pass with other draws.
    """
    images, paths = pictures.images, pictures.paths
    if paths is None:
        return augmented(images, batch_size, value_range, seed)
    low, high = value_range
    size = images.shape[1:3]
    color_mode = "grayscale" if images.shape[-1] == 1 else "rgb"

    def read(path):
        image = _to_color_mode(_read_picture(path), color_mode)
        # What is kept in memory is at most twice the size that is needed.
        sides = tf.cast(tf.shape(image)[:2], "float64")
        scale = 2.0 * max(size) / tf.reduce_min(sides)
        scale = tf.minimum(scale, 1)
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
    data = tf.data.Dataset.zip(
        whole.shuffle(len(paths), seed=seed), draws.batch(2)
    )
    data = data.map(crop, num_parallel_calls=tf.data.AUTOTUNE)
    return without_tuner(
        data.batch(batch_size)
        .prefetch(2)
        .map(augmentation(value_range, seed, crops=False))
    )


def first_line(error):
    """The first line of an error's message, which may have none."""
    return (str(error).strip().splitlines() or [""])[0]


def _from_folder(folder, labels, limit, shuffle, seed):
    """Returns a data set of `(image,)` or `(image, label)`, names, paths."""
    paths = pathlib.Path(folder).rglob("*")
    if not any(path.suffix.lower() in _SUFFIXES for path in paths):
        raise ValueError(
            f"No pictures in {folder} or the folders below it. Expected files "
            f"that end in one of {', '.join(_SUFFIXES)}."
        )
    if labels and not any(p.is_dir() for p in pathlib.Path(folder).iterdir()):
        raise ValueError(
            f"{folder} has no labels: they are the names of the folders in it, "
            "a folder for each class. It has pictures only."
        )
    # Keras finds the files; they are read below, where the order is ours.
    found = keras.utils.image_dataset_from_directory(
        folder,
        labels="inferred" if labels else None,
        batch_size=None,
        shuffle=False,
        verbose=False,
    )
    paths = np.array(found.file_paths)
    if limit is not None and limit < len(paths):
        # The first files may all be of one class.
        paths = paths[np.arange(limit) * len(paths) // limit]
    if shuffle:
        paths = np.random.default_rng(seed).permutation(paths)
    columns = (paths,)
    if labels:
        root = pathlib.Path(folder)
        classes = {name: i for i, name in enumerate(found.class_names)}
        columns += (
            np.array(
                [
                    classes[pathlib.Path(path).relative_to(root).parts[0]]
                    for path in paths
                ],
                "int64",
            ),
        )

    def read(path, *label):
        return _read_picture(path), *label

    data = tf.data.Dataset.from_tensor_slices(columns)
    data = data.map(read, num_parallel_calls=tf.data.AUTOTUNE)
    return data, found.class_names, paths.tolist()


def _read_picture(path):
    # Not every format can be decoded as grey.
    image = tf.io.decode_image(
        tf.io.read_file(path), channels=3, expand_animations=False
    )
    image.set_shape((None, None, 3))
    return image


def _tfds_builder(name):
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "TFDS data sets need: pip install tensorflow-datasets "
            "importlib_resources."
        ) from error
    try:
        return tfds.builder(name)
    except Exception as error:
        raise ValueError(
            f"{name!r} is neither a folder nor a TFDS data set. "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error


def _from_tfds(builder, name, split, labels):
    """Returns a data set of `(image,)` or `(image, label)`, and class names."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    named = isinstance(features, tfds.features.FeaturesDict)
    features = dict(features.items()) if named else {}
    image = features.get("image")
    if not isinstance(image, tfds.features.Image) or (
        image.shape[-1] not in (1, 3, 4) or image.np_dtype != np.uint8
    ):
        raise ValueError(
            f"The TFDS data set {name!r} holds no pictures that can be used. "
            "Expected: a feature 'image' of uint8 values, grey or colour. "
            f"Received: {_describe(features)}."
        )
    keys, names = ["image"], None
    if labels:
        label = features.get("label")
        if not isinstance(label, tfds.features.ClassLabel):
            raise ValueError(
                f"The TFDS data set {name!r} has no labels. Expected: a "
                f"feature 'label'. Received: {_describe(features)}."
            )
        keys, names = ["image", "label"], list(label.names)
    try:
        builder.download_and_prepare()
    except NotImplementedError:  # A folder: there is nothing to prepare.
        pass
    except Exception as error:
        raise ValueError(
            f"The TFDS data set {name!r} cannot be downloaded and prepared. "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error
    try:
        # TFDS would keep whole splits in memory, also those cut by a limit.
        data = builder.as_dataset(
            split=split, read_config=tfds.ReadConfig(try_autocache=False)
        )
    except Exception as error:
        raise ValueError(
            f"The TFDS data set {name!r} has no split {split!r}. "
            f"{first_line(error)}"
        ) from error
    return data.map(lambda x: tuple(x[key] for key in keys)), names


def _describe(features):
    return ", ".join(
        f"{key} {type(feature).__name__}" for key, feature in features.items()
    )


def _to_color_mode(image, color_mode):
    if image.shape[-1] == 4:
        image = image[..., :3]
    if color_mode == "rgb" and image.shape[-1] == 1:
        return tf.image.grayscale_to_rgb(image)
    if color_mode == "grayscale" and image.shape[-1] == 3:
        return tf.image.rgb_to_grayscale(image)
    return image
