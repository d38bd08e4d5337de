"""Images from a folder, a TFDS dataset or the samples, ready for a fit.

Images of any size become what a classifier takes: cropped at the centre to its
aspect ratio and scaled, as in the model zoo, to whole grey levels. Image files
are turned upright by their EXIF data, and transparent pixels become white.
"""

import contextlib
import os
import pathlib
import threading
import warnings

import keras
import numpy as np
import tensorflow as tf

from keras_uap.data.decoding import read_image, to_color_mode
from keras_uap.data.folders import find_images
from keras_uap.data.pictures import Pictures, without_tuner
from keras_uap.data.splitting import photographs
from keras_uap.utils import validation
from keras_uap.utils.formatting import images_of
from keras_uap.utils.progress import progress_bar

_CHANNELS = {"rgb": 3, "grayscale": 1}

# The most unreadable files of a folder that have a warning each.
_NAMED = 5

# The most bytes to cache: 3,500 colour images of 224x224.
_MOST_BYTES = 2**29

# Below this largest value, the range of the files was probably misread.
_NEARLY_BLACK = 32


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
    """Returns a dataset of image batches from a folder or a TFDS name.

    A file of a folder that cannot be read as an image is left out, with a
    warning that names it.

    Example:

    ```python
    photos = keras_uap.datasets.images("photos/")
    pairs = keras_uap.datasets.images(
        "imagenette/320px-v2", split="train[:1000]", labels=True, shuffle=True
    )
    ```

    Args:
        source: String or path: a folder with images in it or in folders
            below it. Or the name of a TFDS dataset, or a TFDS builder.
            Datasets that are not there yet are downloaded.
        size: Pair of integers `(height, width)`.
        split: String, the split of a TFDS dataset, such as
            `"train[:1000]"`.
        limit: Integer, the most images to take: of a folder, from all over
            its sorted files; of a TFDS dataset, the first.
        batch_size: Integer.
        labels: Boolean, whether each batch is a pair `(images, labels)`. In a
            folder, each folder in it is a class, in sorted order.
        color_mode: `"rgb"` or `"grayscale"`. Images of the other kind are
            converted.
        shuffle: Boolean, whether each pass over it has another order.
        seed: Integer, the seed of those orders.
        cache: Boolean, whether images are read once and kept in memory, a
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
        ValueError: if there is no such folder, dataset or split, or no
            images or labels in it, an argument is out of range, or a file
            cannot be read and `strict=True`.
    """
    validation.check_flag("strict", strict)
    validation.check_counts(limit=limit)
    validation.check_choice("color_mode", color_mode, tuple(_CHANNELS))
    options = {"data_format": "channels_last", "dtype": "float32"}
    resize = keras.layers.Resizing(*size, crop_to_aspect_ratio=True, **options)

    def prepare(image, *label):
        image = to_color_mode(tf.cast(image, "float32"), color_mode)
        # Bytes, so that four times as many fit into memory.
        return tf.cast(tf.round(resize(image)), "uint8"), *label

    left_out, paths = [], None
    if _is_folder(source):
        paths, numbers, names = find_images(source, labels)
        if limit is not None and limit < len(paths):
            # One file of each stretch: the first may all be of one class, and
            # so may every second one.
            ends = np.arange(limit + 1) * len(paths) // limit
            some = np.random.default_rng(0).integers(ends[:-1], ends[1:])
            paths, numbers = paths[some], numbers[some]
        if strict:
            for path in paths:
                read_image(path)
        number = len(paths)
        if shuffle:
            order = np.random.default_rng(seed).permutation(number)
            paths, numbers = paths[order], numbers[order]
        columns = (paths, numbers) if labels else (paths,)
        data = _read_files(columns, prepare, left_out)
    else:
        data, names = _from_tfds(source, split, labels)
        if limit is not None:
            data = data.take(limit)
        data = data.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
        # Negative if it is unknown.
        number = int(data.cardinality())
    most = max(1, _MOST_BYTES // (size[0] * size[1] * _CHANNELS[color_mode]))
    if cache or (cache is None and 0 <= number <= most):
        data = data.cache()
    if shuffle:
        data = data.shuffle(min(number, most) if number > 0 else most, seed)

    def as_float(image, *label):
        image = tf.cast(image, "float32")
        return (image, *label) if label else image

    data = without_tuner(data.batch(batch_size).map(as_float).prefetch(2))
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
    groups=None,
):
    """Loads images into memory, with what `split` needs to know of them.

    Args:
        source, size, split, limit, labels, color_mode: As for `images`.
        verbose: `"auto"`, 0 or 1, whether to show progress.
        groups: Which files of a folder were cut from one photograph. `None`
            joins files only where all names of a folder say so:
            `garden_crop3.jpg`, or `garden_3.jpg` with numbers that count up
            from 0 or 1 without a gap, under as many names as files, or more.
            `"none"`: each is its own photograph. `"name"`: what comes before
            the last underscore is the photograph. `"folder"`: the folder is.
            Any other string is a regular expression for the path, whose first
            group, or else its match, is the photograph.

    Returns:
        `Pictures`: uint8 `images` `(n, height, width, channels)`;
        `class_names`, a list, and `labels` `(n,)`, with `labels=True`;
        `groups` `(n,)`, the photograph of each image, or `None` where each
        is its own; `folders` `(n,)`, the folder in the source that
        each is in, where there are several; and `paths` `(n,)` of the files.
        What is not known is `None`. `left_out` are the files that cannot be
        read, and `notes` say what was taken.

    Raises:
        ImportError, ValueError: as `images`, if none of the files can be
            read, or for `groups` that are no regular expression, put all
            files in one photograph or go with a TFDS dataset.
    """
    photograph, every = None, None
    if _is_folder(source):
        # All names decide, as a few of them may show a gap that is none.
        every = find_images(source, labels)[0].tolist()
        found = photographs(every, groups)
        photograph = None if found is None else dict(zip(every, found))
    elif groups is not None:
        raise ValueError(
            "groups are read from the names of files. Received: groups="
            f"{groups!r} with {source!r}, which is no folder."
        )
    options = size, split, limit, 32, labels, color_mode
    data = images(source, *options, cache=False)
    total = len(getattr(data, "file_paths", ())) or None
    progress = progress_bar(total, verbose)
    # With a byte a value, a thousand images take 150 MB.
    batches, targets = [], []
    for batch in data:
        batch, target = batch if labels else (batch, ())
        batches.append(batch.numpy().astype("uint8"))
        targets.append(np.asarray(target))
        progress.update(sum(map(len, batches)))
    if not batches:
        raise UnreadableError(
            f"{source} holds no image that can be read. Received: "
            f"{len(data.left_out)} file(s), such as {data.left_out[0]}."
        )
    known = {}
    if labels:
        known["class_names"] = data.class_names
        known["labels"] = np.concatenate(targets)
    if hasattr(data, "file_paths"):
        paths = [p for p in data.file_paths if p not in set(data.left_out)]
        known["paths"] = np.array(paths)
        if photograph is not None:
            known["groups"] = np.array([photograph[path] for path in paths])
        folders = [
            os.path.relpath(os.path.dirname(path), source).split(os.sep)[0]
            for path in paths
        ]
        if len(set(folders)) > 1:
            known["folders"] = np.array(folders)
    loaded = np.concatenate(batches)
    if loaded.max() < _NEARLY_BLACK:
        warnings.warn(
            f"The images of {source} are nearly black, up to {loaded.max()} of "
            "255. 16-bit files are divided by 256: scale data of fewer bits.",
            stacklevel=2,
        )
    left_out = tuple(sorted(data.left_out))
    pictures = Pictures(loaded, left_out=left_out, **known)
    note = images_of(len(loaded), pictures.num_groups)
    if every is None and len(loaded) == limit:
        note += ", the first of the dataset"
    elif every is not None and limit is not None and limit < len(every):
        note += f", from all over a folder of {len(every):,} files"
    if left_out:
        note += f"; {len(left_out)} file(s) left out that cannot be read"
    return pictures._replace(notes=(f"{note}.",))


def _is_folder(source):
    return not hasattr(source, "as_dataset") and pathlib.Path(source).is_dir()


def _read_files(columns, prepare, left_out):
    """Returns a dataset of `(image,)` or `(image, label)`, each prepared.

    Args:
        columns: Tuple of an array of paths and, with labels, an int64 array.
        prepare: Function from an image `(h, w, 3)` to one of the size wanted.
        left_out: List, to which the paths of unreadable files are added.
    """
    lock = threading.Lock()

    def decode(path):
        try:
            return True, read_image(path, fast=True)
        except ValueError as error:
            with lock:
                _leave_out(str(os.fsdecode(path)), left_out, error)
            return False, np.zeros((1, 1, 3), "uint8")

    def read(path, *label):
        out = tf.bool, tf.uint8
        readable, image = tf.numpy_function(decode, [path], out, stateful=False)
        image = tf.ensure_shape(image, (None, None, 3))
        return tf.ensure_shape(readable, ()), *prepare(image, *label)

    data = tf.data.Dataset.from_tensor_slices(columns)
    data = data.map(read, num_parallel_calls=tf.data.AUTOTUNE)
    data = data.filter(lambda readable, *_: readable)
    return data.map(lambda _, *rest: rest)


def _leave_out(path, left_out, error):
    """Notes an unreadable file, with a warning unless there are many."""
    if path in left_out:
        return
    left_out.append(path)
    if len(left_out) <= _NAMED:
        warnings.warn(f"Left out: {error}", stacklevel=2)
    elif len(left_out) == _NAMED + 1:
        warnings.warn(
            "Left out: more files that cannot be read. The dataset's "
            "attribute left_out lists them.",
            stacklevel=2,
        )


def _from_tfds(source, split, labels):
    """Returns a dataset of `(image,)` or `(image, label)`, and class names.

    Args:
        source: TFDS builder, or the name of a TFDS dataset.
        split: String.
        labels: Boolean.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f"{str(source)!r} is no folder. TFDS datasets need: pip install "
            "tensorflow-datasets importlib_resources."
        ) from error
    builder = source
    if not hasattr(source, "as_dataset"):
        with validation.explained(
            f"{str(source)!r} is neither a folder nor a TFDS name"
        ):
            builder = tfds.builder(str(source))
    name = f"The TFDS dataset {getattr(source, 'name', str(source))!r}"
    features = builder.info.features
    named = isinstance(features, tfds.features.FeaturesDict)
    features = dict(features.items()) if named else {}
    described = [f"{key} {type(f).__name__}" for key, f in features.items()]
    described = ", ".join(described)
    image, label = features.get("image"), features.get("label")
    if not isinstance(image, tfds.features.Image) or (
        image.shape[-1] not in (1, 3, 4) or image.np_dtype != np.uint8
    ):
        raise ValueError(
            f"{name} holds no images that can be used. Expected: a feature "
            f"'image' of uint8, grey or colour. Received: {described}."
        )
    if labels and not isinstance(label, tfds.features.ClassLabel):
        raise ValueError(
            f"{name} has no labels. Expected: 'label'. Received: {described}."
        )
    with (
        validation.explained(f"{name} cannot be downloaded and prepared"),
        contextlib.suppress(NotImplementedError),  # Of a folder.
    ):
        builder.download_and_prepare()
    with validation.explained(f"{name} has no split {split!r}"):
        # TFDS would keep whole splits in memory, even if a limit cuts them.
        config = tfds.ReadConfig(try_autocache=False)
        data = builder.as_dataset(split=split, read_config=config)
    keys = ["image", "label"] if labels else ["image"]
    names = list(label.names) if labels else None
    return data.map(lambda x: tuple(x[key] for key in keys)), names
