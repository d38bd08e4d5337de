"""Images from a folder, a TFDS data set or the samples, ready for a fit.

Images of any size become what a classifier takes: cut to the middle of its
aspect ratio and scaled, as the model zoo does it, to whole grey levels.
Pictures of a folder stand upright, as their EXIF data say, and what is
transparent lies on white, as on most pages.
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

from keras_uap.data.decoding import is_upright, read_picture, to_color_mode
from keras_uap.data.folders import find_pictures
from keras_uap.data.pictures import Pictures, without_tuner
from keras_uap.data.splitting import photographs
from keras_uap.utils.formatting import first_line
from keras_uap.utils.progress import progress_bar
from keras_uap.utils.validation import check_flag

_CHANNELS = {"rgb": 3, "grayscale": 1}

# So many files that cannot be read are named each, of a folder with more.
_NAMED = 5

# So many files are looked at together before and after they are read.
_TOGETHER = 32

# What may be kept in memory: 3,500 colour pictures of 224x224.
_MOST_BYTES = 2**29


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
        image = to_color_mode(tf.cast(image, "float32"), color_mode)
        # Bytes, so that four times as many fit into memory.
        return tf.cast(tf.round(resize(image)), "uint8"), *label

    left_out, paths = [], None
    if not hasattr(source, "as_dataset") and pathlib.Path(source).is_dir():
        paths, numbers, names = find_pictures(source, labels, limit)
        if strict:
            for path in paths:
                read_picture(path)
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
                read_picture, [path], tf.uint8, stateful=False
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
            read_picture(path)
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
                    and is_upright(image)
                )
        except Exception:  # Whoever reads it finds the same, and says so.
            continue
    return plain


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
