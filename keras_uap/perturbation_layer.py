"""Applying a perturbation: add it, keep the pixels in their range.

`PerturbationLayer` does it as a Keras layer, in a model or in `tf.data`: one
perturbation or a draw from a pool for each image, always or for a share `rate`
of the training samples.
"""

import keras
import numpy as np
import tensorflow as tf


def standardize_value_range(value_range):
    """Returns `value_range` as a pair of floats, or None.

    Raises:
        ValueError: if it is not a pair `(low, high)` with `low < high`.
    """
    if value_range is None:
        return None
    try:
        low, high = (float(value) for value in value_range)
    except (TypeError, ValueError):
        low, high = np.nan, np.nan
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(
            "value_range must be a pair (low, high) of finite numbers with "
            "low < high, the range of the pixels, or None for no clipping. "
            f"Received: value_range={value_range!r}."
        )
    return low, high


def standardize_perturbation(perturbation):
    """Returns a perturbation as a float32 NumPy array.

    Raises:
        TypeError: if it is not an array of numbers.
        ValueError: if it holds NaN or infinity.
    """
    try:
        array = np.asarray(perturbation, dtype="float32")
    except (TypeError, ValueError) as error:
        raise TypeError(
            "perturbation must be an array of numbers of shape "
            f"(height, width, channels). Received: {perturbation!r}."
        ) from error
    if not np.all(np.isfinite(array)):
        raise ValueError(
            "perturbation must be finite. Received: "
            f"{np.sum(~np.isfinite(array))} values that are NaN or infinite."
        )
    return array


def clip_to_range(images, value_range):
    """Clips images to `(low, high)`; `None` leaves them as they are."""
    if value_range is None:
        return images
    return tf.clip_by_value(images, *value_range)


def apply_perturbation(images, perturbation, value_range):
    """Returns `clip(images + perturbation)` as a float32 tensor."""
    images = tf.cast(images, "float32")
    return clip_to_range(images + tf.cast(perturbation, "float32"), value_range)


@keras.saving.register_keras_serializable(package="keras_uap")
class PerturbationLayer(keras.layers.Layer):
    """Adds a universal perturbation to images and clips them to their range.

    With `rate=None` every image is perturbed, in training and at inference:
    that is how to attack a model or to measure one. With a `rate`, each
    training sample is perturbed with that probability and inference sees clean
    images: that is how to harden a model.

    It works in functional, sequential and subclassed models and in
    `tf.data.Dataset.map`, on batches and on single images, on float and
    integer pixels. The output is float32. A later `assign` of
    `layer.perturbations` is seen without building the model anew.

    Example:

    ```python
    layer = keras_uap.PerturbationLayer(v, value_range=(0, 255))
    attacked = keras.Sequential([keras.Input(v.shape), layer, classifier])
    ```

    Args:
        perturbation: Array `(H, W, C)`, or a pool `(pool_size, H, W, C)`, in
            the pixel units of `value_range`. `None` starts with zeros.
        value_range: Pair of floats `(low, high)`, the range of the pixels, or
            `None` for no clipping.
        rate: Float in [0, 1], the share of training samples that are
            perturbed, or `None` to perturb every image, always.
        pool_size: Integer, the number of perturbations. Each perturbed image
            gets one drawn at random. Taken from `perturbation` if it is a
            pool.
        seed: Integer, the seed of the draws.
        **kwargs: `name`, `dtype` and the like, as for any Keras layer.

    Input shape:
        `(batch, H, W, C)`, or the shape of a single image `(H, W, C)`.

    Output shape:
        The same.

    Raises:
        TypeError: if `perturbation` is not an array of numbers.
        ValueError: for arguments out of range, or images whose shape differs
            from the perturbation's.
    """

    def __init__(
        self,
        perturbation=None,
        value_range=(0, 255),
        rate=None,
        pool_size=None,
        seed=None,
        **kwargs,
    ):
        # Under mixed_float16 a step of v would be 0.125 at pixel value 200.
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.value_range = standardize_value_range(value_range)
        if rate is not None and not 0 <= rate <= 1:
            raise ValueError(
                "rate must be between 0 and 1, the share of training samples "
                f"to perturb, or None. Received: rate={rate!r}."
            )
        self.rate = rate
        self._initial = None
        if perturbation is not None:
            self._initial = _as_pool(perturbation, pool_size)
            pool_size = len(self._initial)
        self.pool_size = 1 if pool_size is None else pool_size
        if not isinstance(self.pool_size, int) or self.pool_size < 1:
            raise ValueError(
                "pool_size must be a whole number of at least 1. "
                f"Received: pool_size={pool_size!r}."
            )
        self.seed = seed
        draws = rate is not None or self.pool_size > 1
        self.seed_generator = (
            keras.random.SeedGenerator(seed) if draws else None
        )
        if self._initial is not None:
            self._build_for(self._initial.shape[1:])

    def build(self, input_shape):
        self._build_for(input_shape[1:])

    def _build_for(self, image_shape):
        if self.built:
            return
        image_shape = tuple(image_shape)
        if None in image_shape:
            raise ValueError(
                "A perturbation has a fixed size, but the images have shape "
                f"{image_shape}. Resize them to one size first, or pass "
                "`perturbation`."
            )

        def initializer(shape, dtype=None):
            if self._initial is None:
                return tf.zeros(shape, dtype)
            return tf.constant(self._initial, dtype)

        # The value goes in through the initializer: an `assign` made while
        # `ds.map` traces the layer would be lost.
        self.perturbations = self.add_weight(
            shape=(self.pool_size, *image_shape),
            initializer=initializer,
            trainable=False,
            dtype="float32",
            name="perturbations",
        )
        self.built = True

    @property
    def perturbation(self):
        """The perturbation as a NumPy array `(H, W, C)`, in pixel units.

        With a pool, an array `(pool_size, H, W, C)`.
        """
        pool = keras.ops.convert_to_numpy(self.perturbations)
        return pool if self.pool_size > 1 else pool[0]

    @perturbation.setter
    def perturbation(self, value):
        pool = _as_pool(value, self.pool_size)
        if not self.built:
            self._build_for(pool.shape[1:])
        if pool.shape != tuple(self.perturbations.shape):
            raise ValueError(
                "The perturbation does not fit the layer. Received: shape "
                f"{pool.shape}. Expected: {tuple(self.perturbations.shape)}."
            )
        self.perturbations.assign(pool)

    def call(self, inputs, training=False):
        images = tf.cast(inputs, self.compute_dtype)
        image_shape = self.perturbations.shape[1:]
        single = images.shape.rank == len(image_shape)
        if single:
            images = images[tf.newaxis]
        if not images.shape[1:].is_compatible_with(image_shape):
            raise ValueError(
                "The images do not have the perturbation's shape. Received: "
                f"images of shape {tuple(images.shape[1:])}. Expected: "
                f"{tuple(image_shape)}."
            )
        if self.rate is not None and not training:
            outputs = images
        else:
            outputs = self._perturb(images)
        return outputs[0] if single else outputs

    def _perturb(self, images):
        pool = tf.cast(self.perturbations, images.dtype)
        count = tf.shape(images)[0]
        if self.pool_size == 1:
            chosen = pool
        else:
            index = keras.random.randint(
                (count,), 0, self.pool_size, seed=self.seed_generator
            )
            chosen = tf.gather(pool, index)
        perturbed = clip_to_range(images + chosen, self.value_range)
        if self.rate is None:
            return perturbed
        draw = keras.random.uniform((count,), seed=self.seed_generator)
        shape = [-1] + [1] * (images.shape.rank - 1)
        return tf.where(tf.reshape(draw < self.rate, shape), perturbed, images)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_build_config(self):
        if not self.built:
            return {}
        return {"image_shape": list(self.perturbations.shape[1:])}

    def build_from_config(self, config):
        if "image_shape" in config:
            self._build_for(config["image_shape"])

    def get_config(self):
        # The array is a weight, not a part of the config: as JSON it would
        # take megabytes and lose bits.
        config = super().get_config()
        config.update(
            {
                "value_range": self.value_range,
                "rate": self.rate,
                "pool_size": self.pool_size,
                "seed": self.seed,
            }
        )
        return config


def _as_pool(perturbation, pool_size):
    """Returns `(pool_size, H, W, C)` from one perturbation or a pool."""
    array = standardize_perturbation(perturbation)
    if array.ndim == 3:
        pool = array[np.newaxis]
    elif array.ndim == 4:
        pool = array
    else:
        raise ValueError(
            "perturbation must have shape (height, width, channels), or "
            "(pool_size, height, width, channels) for a pool. Received: shape "
            f"{array.shape}."
        )
    if pool_size is not None and pool_size != len(pool):
        raise ValueError(
            f"Received pool_size={pool_size} and {len(pool)} perturbations "
            f"of shape {pool.shape[1:]}. Expected as many as pool_size."
        )
    return pool
