"""Images from a folder, a TFDS data set or the samples, ready for a fit.

Images of any size become what a classifier takes: cut to the middle of its
aspect ratio and scaled, as the model zoo does it, to whole grey levels.
Pictures of a folder stand upright, as their EXIF data say, and what is
transparent lies on white, as on most pages. `augmentation` makes few
photographs go further.
"""

import os
import pathlib
import threading
import warnings

import keras
import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps
import tensorflow as tf

from keras_uap.batches import Pictures as Pictures
from keras_uap.batches import without_tuner as without_tuner
from keras_uap.checks import check_flag
from keras_uap.folders import find_pictures
from keras_uap.parts import photographs
from keras_uap.parts import split as split
from keras_uap.progress import progress_bar

__all__ = [
    "FEW",
    "Pictures",
    "UnreadableError",
    "augmentation",
    "augmented",
    "images",
    "load",
    "split",
    "views",
    "without_tuner",
]

_CHANNELS = {"rgb": 3, "grayscale": 1}

# So many files that cannot be read are named each, of a folder with more.
_NAMED = 5

# So many files are looked at together before and after they are read.
_TOGETHER = 32

# What may be kept in memory: 3,500 colour pictures of 224x224.
_MOST_BYTES = 2**29

# Fewer pictures than this are varied: see `augmented`. With as many, varied
# ones fool as often for the same work; with twice as many, less.
FEW = 500


class UnreadableError(ValueError):
    """None of the files can be read."""


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
    strict=False,
):
    """Returns a data set of image batches from a folder or a TFDS name.

    A file of a folder that cannot be read as a picture is left out, with a
    warning that names it.

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
        strict: Boolean, whether to read all files of a folder at once and
            raise an error where one cannot be read.

    Returns:
        A `tf.data.Dataset` of float32 batches `(n, height, width, channels)`
        of whole numbers from 0 to 255, or of pairs of those and int64 labels
        `(n,)`. With labels, its attribute `class_names` is a list of strings.
        Its attribute `left_out` is a list of the files that could not be
        read so far. Of a folder, the number of batches is known when it has
        been read.

    Raises:
        ImportError: for a TFDS name where TFDS is not installed.
        ValueError: if there is no such folder, data set or split, or no
            pictures or labels in it, an argument is out of range, or a file
            cannot be read and `strict=True`.
    """
    check_flag("strict", strict)
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1. Received: {limit!r}.")
    if color_mode not in _CHANNELS:
        raise ValueError(
            "color_mode must be 'rgb' or 'grayscale'. Received: "
            f"{color_mode!r}."
        )
    resize = keras.layers.Resizing(
        *size, crop_to_aspect_ratio=True, data_format="channels_last"
    )

    def prepare(image, *label):
        image = _to_color_mode(tf.cast(image, "float32"), color_mode)
        # Bytes, so that four times as many fit into memory.
        return tf.cast(tf.round(resize(image)), "uint8"), *label

    left_out, paths = [], None
    if not hasattr(source, "as_dataset") and pathlib.Path(source).is_dir():
        paths, numbers, names = find_pictures(source, labels, limit)
        if strict:
            for path in paths:
                _read_picture(path)
        number = len(paths)
        if shuffle:
            order = np.random.default_rng(seed).permutation(number)
            paths, numbers = paths[order], numbers[order]
        columns = (paths, numbers) if labels else (paths,)
        data = _read_files(columns, prepare, left_out)
    else:
        if hasattr(source, "as_dataset"):
            builder, name = source, source.name
        else:
            builder, name = _tfds_builder(str(source)), str(source)
        data, names = _from_tfds(builder, name, split, labels)
        if limit is not None:
            data = data.take(limit)
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
    data.left_out = left_out
    if labels:
        data.class_names = names
    if paths is not None and not shuffle:
        data.file_paths = paths.tolist()
    return data


def load(
    source,
    size=(224, 224),
    split="train",
    limit=None,
    labels=False,
    color_mode="rgb",
    verbose=0,
):
    """Loads pictures into memory, with what `split` must know of them.

    Args:
        source, size, split, limit, labels, color_mode: As for `images`.
        verbose: `"auto"`, 0 or 1, whether to show progress.

    Returns:
        `Pictures`: uint8 `images` `(n, height, width, channels)`;
        `class_names`, a list, and `labels` `(n,)`, with `labels=True`;
        `groups` `(n,)`, the photograph of each picture, where the names of
        the files tell; `folders` `(n,)`, the folder in the source that each
        is in, where there are several; and `paths` `(n,)` of the files. What
        is not known is `None`. `left_out` are the files that cannot be read.

    Raises:
        ImportError, ValueError: as `images`, and if none of the files can be
            read.
    """
    data = images(
        source, size, split, limit, 32, labels, color_mode, cache=False
    )
    pictures, targets, done = [], [], 0
    progress = progress_bar(_count(data, limit), verbose)
    # A byte a value keeps a thousand pictures at 150 MB.
    for batch in data:
        batch, target = batch if labels else (batch, ())
        pictures.append(batch.numpy().astype("uint8"))
        targets.append(np.asarray(target))
        done += len(pictures[-1])
        progress.update(done)
    if not pictures:
        raise UnreadableError(
            f"{source} holds no picture that can be read. Received: "
            f"{len(data.left_out)} file(s) that cannot, such as "
            f"{data.left_out[0]}."
        )
    groups = folders = paths = None
    if hasattr(data, "file_paths"):
        paths = [p for p in data.file_paths if p not in set(data.left_out)]
        groups = photographs(paths)
        root = pathlib.Path(source)
        folders = [
            pathlib.Path(path).relative_to(root).parts[0]
            if pathlib.Path(path).parent != root
            else "."
            for path in paths
        ]
        folders = np.array(folders) if len(set(folders)) > 1 else None
    return Pictures(
        np.concatenate(pictures),
        getattr(data, "class_names", None),
        np.concatenate(targets) if labels else None,
        groups,
        folders,
        None if paths is None else np.array(paths),
        tuple(data.left_out),
    )


def _count(data, limit):
    """How many images `load` will find in batches of 32; `None` if unknown."""
    if hasattr(data, "file_paths"):
        return len(data.file_paths)
    count = 32 * int(data.cardinality())
    return None if count < 0 else min(count, limit or count)


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
        _check_pictures(batch.shape)
        for layer in pipeline:
            batch = layer(batch, training=True)
        return tf.clip_by_value(batch, *value_range)

    return augment


def _check_pictures(shape):
    """Raises ValueError for what a mirror image would make no sense of."""
    if len(shape) != 4:
        raise ValueError(
            "Only batches of images (n, height, width, channels) can be "
            f"varied. Received: shape {tuple(shape)}. Signals go into fit, "
            "audit and harden as they are."
        )


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
    _check_pictures(np.shape(images))
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
        image = tf.numpy_function(_read_picture, [path], tf.uint8)
        image = tf.ensure_shape(image, (None, None, 3))
        image = _to_color_mode(tf.cast(image, "float32"), color_mode)
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


def _read_files(columns, prepare, left_out):
    """Returns a data set of `(image,)` or `(image, label)`, each prepared.

    TensorFlow decodes JPEG files that need nothing else, the many, and Pillow
    all others. What neither can read leaves a gap in the order of the files.

    Args:
        columns: Tuple of an array of paths and, with labels, an int64 array.
        prepare: Function from an image `(h, w, 3)` to one of the size wanted.
        left_out: List, to which paths that cannot be read are added.
    """
    paths, lock = columns[0], threading.Lock()

    def tell(places, start, end):
        with lock:
            for path in paths[sorted({*range(start, end)} - {*places})]:
                if path not in left_out:
                    left_out.append(str(path))
                    _warn_of(path, len(left_out))
        return end

    def mark(place, paths, *label):
        plain = tf.numpy_function(_are_plain, [paths], tf.bool, stateful=False)
        return place, tf.ensure_shape(plain, (None,)), paths, *label

    def read(place, plain, path, *label):
        image = tf.cond(
            plain,
            lambda: tf.io.decode_jpeg(tf.io.read_file(path), channels=3),
            lambda: tf.numpy_function(
                _read_picture, [path], tf.uint8, stateful=False
            ),
        )
        image = tf.ensure_shape(image, (None, None, 3))
        return place, *prepare(image, *label)

    def note_gaps(start, row):
        places, *rest = row
        end = places[-1] + 1
        end = tf.cond(
            end - start > tf.size(places, tf.int64),
            lambda: tf.numpy_function(tell, [places, start, end], tf.int64),
            lambda: end,
        )
        # The last row is no picture.
        there = tf.where(places[0] < len(paths), tf.size(places), 0)
        return tf.ensure_shape(end, ()), tuple(part[:there] for part in rest)

    data = (
        tf.data.Dataset.from_tensor_slices((np.arange(len(paths)), *columns))
        .batch(_TOGETHER)
        .map(mark, num_parallel_calls=tf.data.AUTOTUNE)
        .unbatch()
        .map(read, num_parallel_calls=tf.data.AUTOTUNE)
        .ignore_errors()
        .batch(_TOGETHER)
    )
    # One more, so that a gap at the end is seen.
    last = [tf.zeros((1, *s.shape[1:]), s.dtype) for s in data.element_spec]
    last[0] = tf.constant([len(paths)], "int64")
    last = tf.data.Dataset.from_tensors(tuple(last))
    return data.concatenate(last).scan(np.int64(0), note_gaps).unbatch()


def _warn_of(path, number):
    """Names a file that is left out, unless there are many."""
    if number <= _NAMED:
        try:
            _read_picture(path)
            reason = f"{path} cannot be decoded."
        except ValueError as error:
            reason = str(error)
        warnings.warn(f"Left out: {reason}", stacklevel=2)
    elif number == _NAMED + 1:
        warnings.warn(
            "Left out: more files that cannot be read. The data set's "
            "attribute left_out lists them.",
            stacklevel=2,
        )


def _are_plain(paths):
    """Whether files are JPEG in grey or RGB, and stand upright."""
    plain = np.zeros(len(paths), bool)
    for i, path in enumerate(paths):
        try:
            with PIL.Image.open(os.fsdecode(path)) as image:
                plain[i] = (
                    image.format == "JPEG"
                    and image.mode in ("L", "RGB")
                    and _is_upright(image)
                )
        except Exception:  # Whoever reads it finds the same, and says so.
            continue
    return plain


def _is_upright(image):
    return image.getexif().get(PIL.ExifTags.Base.Orientation, 1) == 1


def _read_picture(path):
    """Returns the uint8 array `(h, w, 3)` of a picture file.

    Raises:
        ValueError: if it cannot be read, with the path.
    """
    path = str(os.fsdecode(path))
    try:
        with PIL.Image.open(path) as image:
            if not _is_upright(image):
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
