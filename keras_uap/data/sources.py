"""The data arguments of `fit` and `evaluate` as batches for Keras.

Arrays and data sets become a *source*. It checks what can be checked before any
work, and `first` are images to build a model for. A source of arrays holds the
clean predictions of its images; a data set may change from epoch to epoch
(augmentation), so they are computed with every batch.
"""

import collections
import math

import keras
import numpy as np
import tensorflow as tf

from keras_uap.data import pictures
from keras_uap.utils import validation

# The clean predictions of images: labels `(n,)`, and features `(n, d)` if an
# update needs them, or `None`.
Clean = collections.namedtuple("Clean", ["labels", "features"], defaults=[None])

# Batches hold images and their clean predictions under these names, so that
# labels of the caller's data set are never taken for clean predictions.
_IMAGES = "keras_uap_images"
_CLEAN = "keras_uap_clean_predictions"
_FEATURES = "keras_uap_clean_features"

# Features of more bytes than this are computed with every batch, not kept.
_MOST_FEATURES = 2**29


def source(x, y=None, name="x", steps=None, steps_name="steps_per_epoch"):
    """Returns the source of a data argument, `ArraySource` or `DataSource`.

    Args:
        x: Array, tensor or list of images; a `tf.data.Dataset`, a
            `keras.utils.PyDataset`; `Pictures`; or a source, which passes
            through.
        y: Labels `(n,)` of an array, or `None`.
        name: String, the name of the argument.
        steps: Integer, the batches to take of a data set; `None` for all.
        steps_name: String, the name of that argument.

    Raises:
        TypeError: if it is neither, or does not hold numbers.
        ValueError: if it is empty, without an end or not finite, or the labels
            are not those of the images.
    """
    if isinstance(x, (ArraySource, DataSource)):
        return x
    if isinstance(x, pictures.Pictures):
        return ArraySource(x.images, x.labels if y is None else y, name)
    if isinstance(x, (tf.data.Dataset, keras.utils.PyDataset)):
        return DataSource(x, y, name, steps, steps_name)
    if isinstance(x, (np.ndarray, list, tuple)) or tf.is_tensor(x):
        return ArraySource(x, y, name)
    raise TypeError(
        f"{name} must be an array of images, a tf.data.Dataset or a "
        f"keras.utils.PyDataset. Received: {type(x).__name__}."
    )


def for_validation(data, steps):
    """A source of validation data in any of the forms that Keras takes."""
    x, y = data, None
    # A longer list is one of images.
    one = isinstance(data, pictures.Pictures)
    if isinstance(data, (list, tuple)) and not one and 1 <= len(data) <= 3:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        _refuse_weights(sample_weight)
    return source(x, y, "validation_data", steps, "validation_steps")


class ArraySource:
    """Images and labels as arrays. See `source`."""

    def __init__(self, images, labels, name):
        # Parts of different shapes are no array.
        with validation.explained(f"{name} must be one array. Labels go to y"):
            self.images = np.asarray(images)
        self.labels = labels
        if labels is not None:
            self.labels = validation.as_numbers("y, the labels,", labels)
        self.name = name
        self.steps = None
        self._clean = self._features = None
        self.first = validation.as_images(self.images, name)

    def split(self, share):
        """Splits the last `share` of the images off, as Keras does."""
        count = len(self.images)
        validation.check_number("validation_split", share, above=0, below=1)
        at = math.floor(count * (1 - share))
        if at == 0:
            raise ValueError(
                "validation_split must leave images on both sides. Received: "
                f"{share} of {count} images."
            )
        halves = []
        for half in (slice(at), slice(at, None)):
            labels = None if self.labels is None else self.labels[half]
            halves.append(ArraySource(self.images[half], labels, self.name))
        return halves

    def num_batches(self, size):
        """How many batches of a size an epoch has; `None` if not known."""
        return math.ceil(len(self.images) / size)

    count_batches = num_batches

    def batches(self, size, adapter=None, order=None, verbose=0, loss=None):
        """Returns a data set of batches.

        Args:
            size: Integer, the images in a batch.
            adapter: `ClassifierAdapter`, to put clean predictions beside the
                images; they are computed once. `None` leaves them out.
            order: `Order` of the images. `None` takes them as they come.
            verbose: `"auto"`, 0, 1 or 2, whether to show progress.
            loss: `BatchLoss`. The features that it needs of the clean images
                are put beside them too, if memory allows.
        """
        parts = self.images
        if adapter is not None:
            self._predict(adapter, loss, verbose)
            parts = {_IMAGES: self.images, _CLEAN: self._clean}
            if self._features is not None:
                parts[_FEATURES] = self._features
        if self.labels is not None:
            parts = (parts, self.labels)
        return _gathered(parts, len(self.images), size, order)

    def _predict(self, adapter, loss, verbose):
        """Computes what is not known yet, in one forward of each image."""
        if loss is not None and loss.needs_features and self._features is None:
            count = adapter.num_features(loss.layer)
            if count and 4 * count * len(self.images) <= _MOST_FEATURES:
                self._clean, self._features = adapter.labels_and_features(
                    self.images, loss.layer, verbose=verbose
                )
        if self._clean is None:
            self._clean = adapter.labels(self.images, verbose=verbose)


class DataSource:
    """Images, or pairs of images and labels, as a data set. See `source`."""

    def __init__(self, data, labels, name, steps, steps_name):
        if labels is not None:
            raise ValueError(
                f"{name}, a data set, must hold its labels as pairs (images, "
                "labels). Received: labels beside it."
            )
        if isinstance(data, tf.data.Dataset):
            data = pictures.without_tuner(data)
            first = next(iter(data), None)
        else:
            first = data[0] if data.num_batches != 0 else None
        if first is None:
            raise ValueError(f"{name} is empty: it holds no images.")
        self.data = data
        self.name = name
        self.steps = steps
        self.labels = None  # They come with the batches.
        images, _, sample_weight = pictures.unpack_batch(first, name)
        _refuse_weights(sample_weight)
        self.first = validation.as_images(images, name)
        if steps is None and pictures.is_endless(data):
            raise ValueError(
                f"{name} is a data set without an end. Received: "
                f"{steps_name}=None. Pass {steps_name}, the batches to take."
            )

    def split(self, share):
        raise ValueError(
            "validation_split needs an array of images. Received: "
            f"{type(self.data).__name__}. Pass validation_data instead."
        )

    def num_batches(self, size):
        """How many batches an epoch has; `None` if not known."""
        if self.steps is not None:
            return self.steps
        if not isinstance(self.data, tf.data.Dataset):
            return self.data.num_batches
        count = int(self.data.cardinality())
        return count if count >= 0 else None

    def count_batches(self, size):
        """How many batches there are. It reads the images if need be."""
        count = self.num_batches(size)
        if count is not None:
            return int(count)
        return int(self.data.reduce(np.int64(0), lambda count, *_: count + 1))

    def batches(self, size, *args, **kwargs):
        """Returns the data set as it is."""
        return self.data


class Order:
    """The order of the images in an epoch, from a seed.

    Keras shuffles arrays too, but a resumed run would start again with the
    order of the first epoch. Here each epoch's seed comes from a generator
    whose state is saved and restored with the weights.

    Attributes:
        seed: Integer, the seed of the epoch that runs.
    """

    seed = None


def unpack(data, shape):
    """Returns images, `Clean` or None, and labels or None.

    Images are a float32 tensor. One that is not finite becomes NaN everywhere,
    so that it has no gradient and makes the rates NaN: see
    `Rates.check`. That works under XLA too, which drops assertions.

    Args:
        data: A batch.
        shape: Tuple `(H, W, C)` that images must have, or they might broadcast.
    """
    images, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    _refuse_weights(sample_weight)
    clean = None
    if isinstance(images, dict) and _IMAGES in images:
        clean = Clean(images[_CLEAN], images.get(_FEATURES))
        images = images[_IMAGES]
    images = tf.ensure_shape(tf.cast(images, "float32"), (None, *shape))
    axes = range(1, len(shape) + 1)
    finite = tf.reduce_all(tf.math.is_finite(images), axes, keepdims=True)
    return tf.where(finite, images, np.nan), clean, labels


def _gathered(parts, count, size, order):
    """A data set of batches of arrays, in the order of the epoch."""

    # TensorFlow keeps this function for ever, so it must not hold arrays.
    def indices():
        if order is None:
            yield np.arange(count)
        else:
            yield np.random.default_rng(order.seed).permutation(count)

    # On a machine with a GPU the whole array would go there.
    with tf.device("CPU"):
        parts = tf.nest.map_structure(tf.convert_to_tensor, parts)

    @tf.autograph.experimental.do_not_convert
    def gather(index):
        return tf.nest.map_structure(lambda t: tf.gather(t, index), parts)

    data = (
        tf.data.Dataset.from_generator(
            indices, output_signature=tf.TensorSpec((count,), "int64")
        )
        .unbatch()
        .apply(tf.data.experimental.assert_cardinality(count))
        .batch(size)
        .map(gather)
        .prefetch(2)
    )
    # Several workers share each batch: there are no files to share out.
    options = tf.data.Options()
    policy = tf.data.experimental.AutoShardPolicy.DATA
    options.experimental_distribute.auto_shard_policy = policy
    return pictures.without_tuner(data.with_options(options))


def _refuse_weights(sample_weight):
    if sample_weight is not None:
        raise ValueError("sample_weight is not supported: images count once.")
