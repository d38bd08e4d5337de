"""Images, and what is known of them, read from whatever holds them.

`Pictures` are images in memory with their labels, groups, folders and paths.
`as_pictures` reads arrays and data sets into them.
"""

import collections
import itertools

import keras
import numpy as np
import tensorflow as tf

from keras_uap.data.splitting import SHARES, split
from keras_uap.utils.formatting import one_line
from keras_uap.utils.validation import as_groups, as_images

_Columns = collections.namedtuple(
    "Pictures",
    "images class_names labels groups folders paths left_out notes",
    defaults=[None] * 5 + [(), ()],
)


class Pictures(_Columns):
    """Images, and what is known of them; all but the images may be `None`.

    `datasets.load` gives them, and they are taken wherever images are.

    Attributes:
        images: uint8 array `(n, H, W, C)`.
        class_names: List of the names of the classes.
        labels: Integer array `(n,)`, the class of each image.
        groups: Array `(n,)`, the photograph that each image was cut from.
        folders: Array `(n,)`, the folder that each image lies in.
        paths: Array `(n,)` of the files, for images of a folder.
        left_out: Tuple of the files that could not be read.
        notes: Tuple of sentences, what was taken from the source.
    """

    __slots__ = ()

    @property
    def num_groups(self):
        """The number of photographs that the images were cut from."""
        if self.groups is None:
            return len(self.images)
        return len(np.unique(self.groups))

    def split(self, shares=SHARES, seed=0):
        """Splits by photograph, with its share of each class in every part.

        Args:
            shares: Floats above 0, the shares of the parts: to fit, to choose
                with, to measure on.
            seed: Integer; the parts follow from it.

        Returns:
            A tuple of integer arrays, the indices of each part, sorted.

        Raises:
            ValueError: as `datasets.split`.
        """
        classes = self.labels if self.folders is None else self.folders
        if np.ndim(classes) == 2:  # A probability for each class.
            classes = np.argmax(classes, axis=-1)
        return split(self.images, self.groups, classes, shares, seed)

    def take(self, index):
        """Returns the `Pictures` of some rows.

        Args:
            index: Integer array, or anything else that NumPy arrays take.
        """
        columns = {
            name: getattr(self, name)[index]
            for name in ("images", "labels", "groups", "folders", "paths")
            if getattr(self, name) is not None
        }
        return self._replace(**columns)

    def __repr__(self):
        return one_line("Pictures", self._asdict())


def pixel_range(images):
    """The least and the largest value, for images of no stated range."""
    low, high = float(np.min(images)), float(np.max(images))
    return low, high if low < high else low + 1.0  # Of constant images.


def new_seed(seed_generator):
    """Draws a seed for NumPy from a `keras.random.SeedGenerator`."""
    return keras.ops.convert_to_numpy(seed_generator.next()).tolist()


def without_tuner(data):
    """Returns a `tf.data.Dataset` that is not tuned while it runs.

    In TensorFlow 2.21, whoever drops an iterator waits for the tuner's next
    turn. Its period doubles up to a minute, so that an epoch of 3.6 s ends
    with 1.5 s of waiting. `num_parallel_calls=tf.data.AUTOTUNE` still runs on
    all cores without it.

    Args:
        data: A `tf.data.Dataset`. One whose options say whether to tune it,
            `autotune.enabled`, keeps its will.

    Returns:
        The same data with another option.
    """
    if data.options().autotune.enabled is not None:
        return data
    options = tf.data.Options()
    options.autotune.enabled = False
    return data.with_options(options)


def as_array(images, name="images", most=None):
    """Reads images of any kind that `fit` takes into one array.

    Args:
        images: As for `as_pictures`.
        name: String, what the argument is called.
        most: Integer, the first images to read, or `None` for all.

    Returns:
        Array `(n, H, W, C)` of finite numbers.

    Raises:
        TypeError, ValueError: as `as_pictures`.
    """
    return as_pictures(images, name, None, most).images


def as_pictures(images, name="images", groups=None, most=None):
    """Reads images of any kind that `fit` takes, with labels and groups.

    Args:
        images: Array, tensor or list of images; a `tf.data.Dataset` or
            `keras.utils.PyDataset` of batches of images or of pairs
            `(images, labels)`; or `Pictures`.
        name: String, what the argument is called.
        groups: Array `(n,)`, the photograph of each image. `None` takes those
            of `Pictures`.
        most: Integer, the first images to read, or `None` for all.

    Returns:
        `Pictures`: the images as an array of finite numbers, with labels
        where they are class indices or probabilities, and groups where they
        are known.

    Raises:
        TypeError: if they are not numbers.
        ValueError: if there is none, one is not finite, the data set has no
            end, or there is not one group per image.
    """
    if isinstance(images, (tf.data.Dataset, keras.utils.PyDataset)):
        pictures = _gathered_pictures(images, name, most)
    else:
        pictures = images if isinstance(images, Pictures) else Pictures(images)
        if most is not None:
            pictures = Pictures(as_images(pictures.images, name)[:most])
    array = as_images(pictures.images, name)
    groups = as_groups(pictures.groups if groups is None else groups, array)
    return pictures._replace(images=array, groups=groups)


def _gathered_pictures(data, name, most):
    """The images of a data set, and their labels or None, as arrays."""
    parts, labels = [], []
    for x, y in read(data, name, most):
        as_images(x, name)
        # A byte a value, where nothing is lost.
        small = x.astype("uint8") if np.all((x >= 0) & (x <= 255)) else x
        parts.append(small if np.array_equal(small, x) else x)
        labels.append(y)
        if most is not None and sum(map(len, parts)) >= most:
            break
    if not parts:
        raise ValueError(f"{name} is empty: it holds no images.")
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) > 1:
        raise ValueError(
            f"{name} must hold images of one size. Received: {sorted(shapes)}."
        )
    images = np.concatenate(parts)[:most]
    # Anything but one row of labels an image plays no part.
    if any(y is None or len(np.shape(y)) not in (1, 2) for y in labels):
        return Pictures(images)
    return Pictures(images, labels=np.concatenate(labels)[:most])


def read(data, name="images", most=None):
    """Reads a data set of batches to its end.

    Args:
        data: A `tf.data.Dataset` or `keras.utils.PyDataset`.
        name: String, what the argument is called.
        most: Not `None` where the reader will stop by itself.

    Returns:
        A generator of pairs: the images of a batch as an array, and its labels
        or `None`.

    Raises:
        ValueError: if it has no end.
    """
    if most is None and is_endless(data):
        raise ValueError(
            f"{name} is a data set without an end. Pass {name}.take(count)."
        )
    if isinstance(data, keras.utils.PyDataset):
        number = data.num_batches
        numbers = itertools.count() if number is None else range(number)
        data = map(data.__getitem__, numbers)
    for batch in data:
        images, labels, _ = unpack_batch(batch, name)
        yield np.asarray(images), labels


def unpack_batch(batch, name):
    """Images, labels or None, and sample weights or None, of a batch.

    Raises:
        TypeError: if it is not one array of images, or one and labels.
        ValueError: if it is a single image and its label.
    """
    images, labels, weights = keras.utils.unpack_x_y_sample_weight(batch)
    if isinstance(images, (dict, tuple, tf.RaggedTensor, tf.SparseTensor)):
        raise TypeError(
            f"{name} must hold images of one size, or pairs (images, labels). "
            f"Received: {images.__class__.__name__}. Map dictionaries to pairs "
            "(as_supervised=True of tfds.load); resize images before .batch."
        )
    for each in filter(tf.is_tensor, (images, labels)):
        if each.dtype == tf.string or each.dtype.is_complex:
            found = f"Received: {each.dtype.name}. Map labels to class indices."
            raise TypeError(f"{name} must be an array of numbers. {found}")
    if tf.is_tensor(labels) and labels.shape.rank == 0:
        raise ValueError(
            f"{name} must hold batches. Received: an image and its label. Pass "
            f"{name}.batch(32)."
        )
    return images, labels, weights


def is_endless(data):
    if isinstance(data, tf.data.Dataset):
        return data.cardinality() == tf.data.INFINITE_CARDINALITY
    return data.num_batches is None
