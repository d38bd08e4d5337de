"""What `fit` takes, and what becomes of it: batches for Keras.

Arrays and data sets become a *source*. All that can be checked before any work
is checked when it is made, and `first` are images to build a model for. A
source of arrays knows the clean predictions of its images; a data set may
change from epoch to epoch (augmentation), so there they are found with every
batch.
"""

import collections
import math
import re
import weakref

import keras
import numpy as np
import tensorflow as tf

from keras_uap.data.pictures import (
    Pictures,
    check_batch,
    is_array,
    is_endless,
    new_seed,
    no_images,
    without_tuner,
)
from keras_uap.utils.keras_compat import has_generator
from keras_uap.utils.validation import as_numbers

# What a classifier makes of clean images: labels `(n,)`, and features `(n, d)`
# where an update wants them, or `None`.
Clean = collections.namedtuple("Clean", ["labels", "features"], defaults=[None])

# Images and what becomes of them clean travel together under these names, so
# that labels of the caller's data set are never taken for clean predictions.
_IMAGES = "keras_uap_images"
_CLEAN = "keras_uap_clean_predictions"
_FEATURES = "keras_uap_clean_features"

# Features of more bytes than this are found with every batch, as those of a
# data set are, and not kept.
_MOST_FEATURES = 2**29

# What is found in the middle of a data set, and must not be.
_NOT_FINITE = "keras_uap: NaN or infinity in batch"
_OTHER_SHAPE = "keras_uap: images of another shape in batch"
_READ_ONCE = "keras_uap: nothing when read again"
_MUST = {
    _NOT_FINITE: "be finite",
    _OTHER_SHAPE: "hold images of the perturbation's shape",
}


def source(x, y=None, name="x", steps=None, steps_name="steps_per_epoch"):
    """Returns what `fit` takes as an `ArraySource` or a `DataSource`.

    Args:
        x: Array, tensor or list of images; a `tf.data.Dataset`, a
            `keras.utils.PyDataset`; what `datasets.load` gives; or a source,
            which passes through.
        y: Labels `(n,)` of an array, or `None`.
        name: String, what the argument is called.
        steps: Integer, the batches to take of a data set; `None` for all.
        steps_name: String, what that argument is called.

    Raises:
        TypeError: if it is neither, or does not hold numbers.
        ValueError: if it is empty, without an end or not finite, or the labels
            are not those of the images.
    """
    if isinstance(x, (ArraySource, DataSource)):
        return x
    if x is None:
        raise ValueError(
            f"{name} is missing. Pass images, or a data set of images."
        )
    if isinstance(x, Pictures):
        return ArraySource(x.images, x.labels if y is None else y, name)
    if isinstance(x, (tf.data.Dataset, keras.utils.PyDataset)):
        return DataSource(x, y, name, steps, steps_name)
    if is_array(x) or isinstance(x, (list, tuple)):
        return ArraySource(x, y, name)
    raise TypeError(
        f"{name} must be an array of images, a tf.data.Dataset or a "
        f"keras.utils.PyDataset. Received: {type(x).__name__}."
    )


def pair_source(data, name, steps, steps_name):
    """A source of validation data in any of the forms that Keras takes."""
    x, y = data, None
    # A longer list is one of images.
    pair = isinstance(data, (list, tuple)) and not isinstance(data, Pictures)
    if pair and 1 <= len(data) <= 3:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        _refuse_weights(sample_weight)
    return source(x, y, name, steps, steps_name)


class ArraySource:
    """Images and labels as arrays. See `source`."""

    def __init__(self, images, labels, name):
        try:
            self.images = np.asarray(images)
        except ValueError as error:  # Parts of different shapes.
            raise ValueError(
                f"{name} must be one array of images of one size. Labels go "
                f"to `y`. Received: a {type(images).__name__} of "
                f"{len(images)}. {error}"
            ) from error
        self.labels = labels
        self.name = name
        self.steps = None
        self._clean = self._features = None
        if not self.images.size:
            raise no_images(name)
        if labels is not None and self.images.ndim:
            _check_labels(labels, len(self.images))
        self.first = check_batch(self.images, name)

    def told(self):
        """What it is, in words."""
        return f"{len(self.images)} images"

    def split(self, share):
        """Splits the last `share` of the images off, as Keras does."""
        count = len(self.images)
        at = math.floor(count * (1 - share)) if 0 < share < 1 else 0
        if not 0 < at < count:
            raise ValueError(
                "validation_split must be in (0, 1) and leave images on both "
                f"sides. Received: {share} of {count} images."
            )
        labels = self.labels
        return [
            ArraySource(
                self.images[part],
                None if labels is None else labels[part],
                self.name,
            )
            for part in (slice(at), slice(at, None))
        ]

    def num_batches(self, size):
        """How many batches of a size an epoch has; `None` if not known."""
        return math.ceil(len(self.images) / size)

    count_batches = num_batches

    def batches(
        self,
        size,
        adapter=None,
        order=None,
        verbose=0,
        with_features=False,
        layer=None,
    ):
        """Returns a data set of batches.

        Args:
            size: Integer, the images in a batch.
            adapter: `ClassifierAdapter`, to put clean predictions beside the
                images; they are computed once. `None` leaves them out.
            order: `Order` of the images. `None` takes them as they come.
            verbose: `"auto"`, 0, 1 or 2, whether to show progress.
            with_features: Boolean, whether to put the features of the clean
                images beside them too, if memory allows.
            layer: String, the layer that gives them, or `None`.
        """
        parts = self.images
        if adapter is not None:
            self._look(adapter, with_features, layer, verbose)
            parts = {_IMAGES: self.images, _CLEAN: self._clean}
            if with_features and self._features is not None:
                parts[_FEATURES] = self._features
        if self.labels is not None:
            parts = (parts, self.labels)
        return _gathered(parts, len(self.images), size, order)

    def _look(self, adapter, with_features, layer, verbose):
        """Finds what is not known yet, in one forward of each image."""
        if with_features and self._features is None:
            count = adapter.num_features(layer)
            if count and 4 * count * len(self.images) <= _MOST_FEATURES:
                self._clean, self._features = adapter.labels_and_features(
                    self.images, layer, verbose=verbose
                )
        if self._clean is None:
            self._clean = adapter.labels(self.images, verbose=verbose)


class DataSource:
    """Images, or pairs of images and labels, as a data set. See `source`."""

    def __init__(self, data, labels, name, steps, steps_name):
        if labels is not None:
            raise ValueError(
                f"{name} is a data set, which brings its labels along: pairs "
                "(images, labels). Received: labels beside it."
            )
        if isinstance(data, tf.data.Dataset):
            whole = without_tuner(data)
            data, first = _begun(whole)
            self._generated = whole if data is not whole else None
        else:
            first = data[0] if data.num_batches != 0 else None
            self._generated = None
        if first is None:
            raise no_images(name)
        self.data = data
        self.name = name
        self.steps = steps
        images, _, sample_weight = keras.utils.unpack_x_y_sample_weight(first)
        _refuse_weights(sample_weight)
        self.first = check_batch(np.asarray(images), name)
        if steps is None and is_endless(data):
            raise ValueError(
                f"{name} is a data set without an end. Received: "
                f"{steps_name}=None. Pass {steps_name}, the batches to take."
            )

    def told(self):
        """What it is, in words."""
        count = self.num_batches(None)
        return "a data set" + ("" if count is None else f" of {count} batches")

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
        # A pass that is under way, of a generator, is not for counting.
        data = self.data if self._generated is None else self._generated
        count = data.reduce(np.int64(0), lambda count, *_: count + 1)
        if self._generated is not None and next(iter(data), None) is None:
            raise ValueError(
                f"{self.name} is a generator that gives its batches once, and "
                "they must be counted first. Pass steps_per_epoch, or a "
                "function that makes a new generator each time."
            )
        return int(count)

    def batches(self, size, *args, **kwargs):
        """Returns the data set as it is."""
        return self.data


class Order:
    """In what order an epoch takes the images: that of a seed.

    Keras shuffles arrays too, but a resumed run would begin again with the
    order of the first epoch. Here each epoch's seed comes from a generator
    whose state is saved and restored with the weights.
    """

    def __init__(self):
        self._seed = None

    def renew(self, seed_generator):
        """Draws the seed of the next epoch."""
        self._seed = new_seed(seed_generator)

    def of(self, count):
        return np.random.default_rng(self._seed).permutation(count)


def unpack(data):
    """Returns images, `Clean` or None, and labels or None."""
    x, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    _refuse_weights(sample_weight)
    if isinstance(x, dict) and _IMAGES in x:
        return x[_IMAGES], Clean(x[_CLEAN], x.get(_FEATURES)), labels
    return x, None, labels


def checked(images, shape, number):
    """Refuses, in a graph, a batch that is not finite or of another shape.

    Args:
        images: Tensor of a batch.
        shape: Tuple `(H, W, C)` that it must have, or it might broadcast.
        number: Float tensor, the batch's place in the epoch.

    Returns:
        The batch, float32, of a known shape; and whether it is finite, as a
        tensor, for where XLA drops the check.
    """
    number = tf.cast(number, "int32")
    images = tf.cast(images, "float32")
    if images.shape[1:].is_fully_defined():
        right = images.shape[1:] == tuple(shape)
    else:
        right = tf.cond(
            tf.rank(images) == len(shape) + 1,
            lambda: tf.reduce_all(tf.shape(images)[1:] == shape),
            lambda: False,
        )
    if right is not True:
        check = tf.debugging.Assert(right, [_OTHER_SHAPE, number])
        with tf.control_dependencies([] if check is None else [check]):
            images = tf.ensure_shape(images, (None, *shape))
    finite = tf.reduce_all(tf.math.is_finite(images))
    tf.debugging.Assert(finite, [_NOT_FINITE, number])
    return images, finite


def raise_if_bad_batch(error, name):
    """Raises a ValueError that says which batch of a data set is bad."""
    if not isinstance(error, tf.errors.InvalidArgumentError):
        return
    if _READ_ONCE in str(error):
        raise ValueError(
            f"{name} must begin anew each time it is read. Received: a data "
            "set that gave nothing the second time, such as a generator that "
            "is spent. Pass from_generator a function that makes a new one."
        ) from None
    for mark in _MUST:
        # TensorFlow words it differently in graphs and eagerly.
        found = re.search(rf"{mark}\W+(\d+)", str(error))
        if found:
            raise _bad_batch(name, mark, found.group(1)) from None
    # With XLA, and in `predict`.
    found = re.search(
        r"of tensor \S+ (\[.*\]) is not comp.*(\[.*\])", str(error)
    )
    if found:
        raise ValueError(
            f"{name} must {_MUST[_OTHER_SHAPE]}. Received: a batch of shape "
            f"{found.group(1)}. Expected: {found.group(2)}."
        ) from None


def not_finite(name, number):
    """The ValueError for a batch of a data set that is not finite."""
    return _bad_batch(name, _NOT_FINITE, number)


def _bad_batch(name, mark, number):
    return ValueError(
        f"{name} must {_MUST[mark]}. Received: "
        f"{mark.removeprefix('keras_uap: ')} {number} of an epoch, counted "
        "from 0."
    )


def _begun(data):
    """Looks at the first element of a `tf.data.Dataset`, and loses nothing.

    A Python generator may be one that gives its batches once. Where there is
    one, the first pass goes on where the look at the first element ended.

    Returns:
        The data set to read instead, and its first element or `None`.
    """
    iterator = iter(data)
    first = next(iterator, None)
    if first is None or not has_generator(data):
        return data, first
    begun = [(first, iterator)]
    # What TensorFlow keeps of this function, it keeps for ever: no data.
    reference = weakref.ref(data)

    def elements():
        if begun:
            first, rest = begun.pop()
            yield first
            yield from rest
            return
        spent = True
        for element in reference():
            spent = False
            yield element
        if spent:
            raise ValueError(_READ_ONCE)

    again = tf.data.Dataset.from_generator(
        elements, output_signature=data.element_spec
    )
    if data.cardinality() != tf.data.UNKNOWN_CARDINALITY:
        again = again.apply(
            tf.data.experimental.assert_cardinality(data.cardinality())
        )
    return without_tuner(again), first


def _gathered(parts, count, size, order):
    """A data set of batches out of arrays, in an order of the epoch's own."""

    # What TensorFlow keeps of this function, it keeps for ever: no arrays.
    def indices():
        yield np.arange(count) if order is None else order.of(count)

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
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    return without_tuner(data.with_options(options))


def _check_labels(y, count):
    labels = as_numbers("y, the labels,", y)
    if labels.ndim == 0 or len(labels) != count:
        raise ValueError(
            f"There must be one label per image. Received: {count} images and "
            f"labels of shape {labels.shape}."
        )


def _refuse_weights(sample_weight):
    if sample_weight is not None:
        raise ValueError(
            "A perturbation counts every image once: sample_weight is not "
            "supported. Pass images, or (images, labels)."
        )
