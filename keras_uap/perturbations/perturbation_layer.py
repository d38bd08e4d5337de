"""A layer that adds a perturbation and clips the pixels to their range.

It works in a model or in `tf.data`, with one perturbation or a draw from a pool
for each image, always or for a share `rate` of the training samples.

With `epsilon` the perturbation is trained together with the model around it
(universal adversarial training); see `keras_uap.perturbations.ascent`.

Reference:
    - [Shafahi et al., 2018](https://arxiv.org/abs/1811.11304)
"""

import keras
import numpy as np
import tensorflow as tf

from keras_uap.perturbations import pixels
from keras_uap.perturbations.ascent import with_ascent
from keras_uap.perturbations.interchange import read_perturbation
from keras_uap.perturbations.lp_ball import PoolBall, as_norm
from keras_uap.utils.formatting import one_line
from keras_uap.utils.keras_compat import is_called_by_another
from keras_uap.utils.saving import SavedSeed
from keras_uap.utils.validation import check_number, check_whole


@keras.saving.register_keras_serializable(package="keras_uap")
class PerturbationLayer(SavedSeed, keras.layers.Layer):
    """Adds a universal perturbation to images and clips them to their range.

    With `rate=None` every image is perturbed, in training and at inference:
    that is how to attack a model or to measure one. With a `rate`, each
    training sample is perturbed with that probability and inference sees clean
    images: that is how to harden a model.

    It works in functional, sequential and subclassed models and in
    `tf.data.Dataset.map`, on batches and on single images, on float and
    integer pixels. The output is float32. A later `assign` of
    `layer.perturbations` is seen without rebuilding the model.

    With `epsilon` the perturbation itself is trained, against the model, in a
    plain `fit`: every backward pass moves it one step of `step_size` up the
    loss and back into the ball of radius `epsilon`. The learning rate, momentum
    and clipping of the model's optimizer do not affect it. Exceptions: weight
    decay, `Ftrl` (resets it to zero) and `use_ema=True` (averages it, inside
    the ball). `layer.trainable = False` before `compile` freezes it.

    The classifier behind the layer is trained in place. Use that model alone
    after training, without the layer.

    Example:

    ```python
    # Attack: every image is perturbed.
    layer = keras_uap.PerturbationLayer(v, value_range=(0, 255))
    attacked = keras.Sequential([keras.Input(v.shape), layer, classifier])

    # Defend: universal adversarial training in a plain fit.
    layer = keras_uap.PerturbationLayer(epsilon=10.0)
    training = keras.Sequential([keras.Input(shape), layer, classifier])
    training.compile("adam", loss, metrics=["accuracy"])
    training.fit(images, labels, epochs=5)
    classifier.save("hardened.keras")  # Loads without keras_uap.
    ```

    Args:
        perturbation: Array `(H, W, C)`, or a pool `(pool_size, H, W, C)`, in
            the pixel units of `value_range`; or a `UniversalPerturbation`, or
            the path of an `.npz` or `.keras` file of one. `None` starts with
            zeros. For signals, `(T, C)`, or a pool of them with its
            `pool_size` given.
        value_range: Pair of floats `(low, high)`, the range of the pixels, or
            `None` for no clipping.
        rate: Float in [0, 1], the share of training samples that are
            perturbed, or `None` to perturb every image, always.
        pool_size: Integer, the number of perturbations. Each perturbed image
            gets one drawn at random. Taken from `perturbation` if it is a
            pool.
        seed: Integer, the seed of the draws.
        epsilon: Float above 0, the radius of the ball in which the
            perturbation is trained, in the pixel units of `value_range`.
            `None` leaves the perturbation as it is. With an `epsilon`, `rate`
            defaults to 1.
        norm: `"linf"`, `"l2"`, `np.inf` or `2`, the norm of the ball.
        step_size: Float above 0, how far one step moves the perturbation, in
            pixel units: each value for L-infinity (sign steps), the l2 norm
            of the step for l2. Defaults to `epsilon`: with small steps the
            perturbation lags behind the model and hardens it little.
        **kwargs: `name`, `dtype` and the like, as for any Keras layer.

    Input shape:
        `(batch, H, W, C)`, or the shape of a single image `(H, W, C)`. For
        signals, `(batch, T, C)` or `(T, C)`; a layer without `perturbation`
        takes them from a `keras.Input((T, C))` or, with `epsilon`, from any
        model around it.

    Output shape:
        The same.

    Raises:
        TypeError: if `perturbation` is not an array of numbers, or `epsilon`
            not a number.
        ValueError: for arguments out of range, a perturbation outside the
            ball of `epsilon`, or images whose shape differs from the
            perturbation's.

    Reference:
        - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401)
        - [Shafahi et al., 2018](https://arxiv.org/abs/1811.11304)
    """

    def __init__(
        self,
        perturbation=None,
        value_range=(0, 255),
        rate=None,
        pool_size=None,
        seed=None,
        epsilon=None,
        norm="linf",
        step_size=None,
        **kwargs,
    ):
        # Under mixed_float16 a step of v would be 0.125 at pixel value 200.
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.value_range = pixels.as_value_range(value_range)
        self.norm = as_norm(norm)
        self.ball = None if epsilon is None else PoolBall(epsilon, norm)
        self.epsilon = epsilon and self.ball.epsilon
        self.step_size = self.epsilon
        if step_size is not None:
            if self.ball is None:
                raise ValueError(f"{step_size=} without epsilon. Pass both.")
            check_number("step_size", step_size, above=0, below=np.inf)
            self.step_size = float(step_size)
        if rate is None and self.ball is not None:
            rate = 1.0
        if rate is not None:
            check_number("rate", rate, least=0, most=1)
        self.rate = rate
        if perturbation is not None:
            perturbation = read_perturbation(perturbation, self.value_range)
            perturbation = self._as_pool(perturbation, pool_size)
            pool_size = len(perturbation)
        self.pool_size = 1 if pool_size is None else pool_size
        check_whole("pool_size", self.pool_size, 1)
        if seed is not None:
            check_whole("seed", seed, 0)
        self.seed = None if seed is None else int(seed)
        self.seed_generator = None
        if rate is not None or self.pool_size > 1:
            self.seed_generator = keras.random.SeedGenerator(self.seed)
        if perturbation is not None:
            self._build_for(perturbation.shape[1:], perturbation)

    def _as_pool(self, perturbation, pool_size, rank=None):
        """Returns a pool inside the ball, as an array."""
        pool = pixels.as_pool(perturbation, pool_size, rank)
        if self.ball is not None:
            self.ball.refuse_outside(pool)
            pool = self.ball.project(pool)
        return pool

    def build(self, input_shape):
        if len(input_shape) not in (3, 4):
            raise ValueError(
                "PerturbationLayer takes images (height, width, channels), or "
                f"batches of them. Received: shape {tuple(input_shape)}."
            )
        # Three axes are an image, or a batch of signals of a known size. A
        # batch may have any size, and a model that trains v gets batches.
        signals = len(input_shape) == 3 and None not in input_shape[1:]
        if signals and input_shape[0] is not None:
            signals = self.ball is not None and is_called_by_another(self)
        self._build_for(input_shape[-2:] if signals else input_shape[-3:])

    def _build_for(self, image_shape, start=None):
        if self.built:
            return
        image_shape = tuple(image_shape)
        if None in image_shape:
            raise ValueError(
                "A perturbation has a fixed size. Received: images of shape "
                f"{image_shape}. Resize them first, or pass `perturbation`."
            )
        if start is None:
            start = np.zeros((self.pool_size, *image_shape), "float32")

        # The value goes in through the initializer: an `assign` made while
        # `ds.map` traces the layer would be lost.
        self.perturbations = self.add_weight(
            shape=start.shape,
            initializer=lambda shape, dtype=None: tf.constant(start, dtype),
            trainable=self.ball is not None,
            constraint=self.ball,
            # All replicas compute the same next value.
            aggregation="only_first_replica",
            dtype="float32",
            # A mixed-precision model around the layer would read it as
            # float16.
            autocast=False,
            name="perturbations",
        )
        self.built = True

    @property
    def perturbation(self):
        """The perturbation as a NumPy array `(H, W, C)`, in pixel units.

        With a pool, an array `(pool_size, H, W, C)`.
        """
        if not self.built:
            raise pixels.NoPerturbationError("Call the layer, or set one.")
        pool = keras.ops.convert_to_numpy(self.perturbations)
        if self.ball is not None:
            pool = self.ball.project(pool)
        return pool if self.pool_size > 1 else pool[0]

    @perturbation.setter
    def perturbation(self, value):
        rank = len(self.perturbations.shape) - 1 if self.built else None
        pool = self._as_pool(value, self.pool_size, rank)
        self._build_for(pool.shape[1:])
        if pool.shape != tuple(self.perturbations.shape):
            raise ValueError(
                f"The perturbation {pool.shape} does not fit. Expected: "
                f"{tuple(self.perturbations.shape)}. {pixels.RESIZE_HINT}"
            )
        self.perturbations.assign(pool)

    def call(self, inputs, training=False):
        images = tf.cast(inputs, self.compute_dtype)
        if tf.distribute.has_strategy():
            refuse_other_scope(self, tf.distribute.get_strategy())
        pixels.same_shape(images.shape, self.perturbations.shape[1:])
        if self.rate == 0 or (self.rate is not None and not training):
            return images
        if images.shape.rank == len(self.perturbations.shape) - 1:
            if self.ball is not None and training:
                raise ValueError(
                    f"A perturbation trains on batches, not on {images.shape}. "
                    "For signals, put keras.Input((steps, channels)) before."
                )
            return self._perturb(images[tf.newaxis])[0]
        return self._perturb(images)

    def _perturb(self, images):
        pool = tf.convert_to_tensor(self.perturbations)
        if self.ball is not None and self.trainable:
            pool = with_ascent(self.perturbations, self.ball, self.step_size)
        elif self.ball is not None:
            # An optimizer that averages ends with sums, rounded either way.
            pool = self.ball.project(pool)
        pool = tf.cast(pool, images.dtype)
        count, seed = tf.shape(images)[0], self.seed_generator
        if self.pool_size > 1:
            index = keras.random.randint((count,), 0, self.pool_size, seed=seed)
            pool = tf.gather(pool, index)
        perturbed = pixels.clip_to_range(images + pool, self.value_range)
        if self.rate in (None, 1):
            return perturbed
        draw = keras.random.uniform((count,), seed=seed)
        shape = [-1] + [1] * (images.shape.rank - 1)
        return tf.where(tf.reshape(draw < self.rate, shape), perturbed, images)

    def compute_output_shape(self, input_shape):
        if self.built:
            pixels.same_shape(input_shape, self.perturbations.shape[1:])
        return input_shape

    def load_own_variables(self, store):
        super().load_own_variables(store)
        if self.built and self.ball is not None:
            self.ball.refuse_outside(np.asarray(self.perturbations))

    def get_build_config(self):
        if not self.built:
            return {}
        return {"image_shape": list(self.perturbations.shape[1:])}

    def build_from_config(self, config):
        if "image_shape" in config:
            self._build_for(config["image_shape"])

    def __repr__(self):
        names = ("name", "value_range", "rate", "epsilon")
        shown = {name: getattr(self, name) for name in names}
        shown["norm"] = self.ball and self.norm
        shown["perturbations"] = self.perturbations if self.built else None
        return one_line("PerturbationLayer", shown)

    def get_config(self):
        # The array is a weight, not a part of the config: as JSON it would
        # take megabytes and lose bits.
        names = ("value_range", "rate", "pool_size", "seed", "epsilon", "norm")
        config = {name: getattr(self, name) for name in names}
        return super().get_config() | config | {"step_size": self.step_size}


def refuse_other_scope(layer, strategy):
    """Raises ValueError for a layer built outside the scope of `strategy`."""
    # TensorFlow's errors do not tell what to do.
    scope = strategy.extended.variable_created_in_scope
    if layer.weights and not scope(layer.weights[0].value):
        raise ValueError(
            f"The layer {layer.name!r} was built outside the scope of the "
            "strategy that trains it. Build both inside one strategy.scope()."
        )
