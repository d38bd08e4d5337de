"""Tiny classifiers and images that the tests share.

Pixels lie in 0 to 1 and the classifiers have weights of about 1, so that a
perturbation of a few hundredths changes labels and float32 is exact enough to
compare with NumPy in float64.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_uap

SHAPE = (8, 8, 3)
CLASSES = 4


@pytest.fixture(autouse=True)
def _same_seed():
    keras.utils.set_random_seed(7)


@pytest.fixture
def images():
    """40 images of 4 overlapping kinds, float32 in 0 to 1."""
    rng = np.random.default_rng(1)
    kinds = rng.uniform(0.2, 0.8, (CLASSES, *SHAPE))
    noise = rng.normal(0, 0.25, (40, *SHAPE))
    kinds = kinds[rng.integers(0, CLASSES, 40)]
    return np.clip(kinds + noise, 0, 1).astype("float32")


@pytest.fixture
def held_out(images):
    return images[::-1][:24].copy() * np.float32(0.9)


@pytest.fixture
def linear():
    """Makes linear classifiers with weights of a standard normal."""

    def make(classes=CLASSES, activation=None, seed=0, scale=1.0, shape=SHAPE):
        rng = np.random.default_rng(seed)
        model = keras.Sequential(
            [
                keras.Input(shape),
                keras.layers.Flatten(),
                keras.layers.Dense(classes, activation=activation),
            ]
        )
        size = int(np.prod(shape))
        kernel = scale * rng.normal(size=(size, classes))
        # The mean image lies on the boundary of all classes.
        bias = -0.5 * kernel.sum(axis=0)
        model.set_weights([kernel, bias])
        return model

    return make


@pytest.fixture
def cnn():
    """Makes small convolutional classifiers with random weights."""

    def make(activation="softmax", dtype=None, dropout=0.0):
        layers = keras.layers
        return keras.Sequential(
            [
                keras.Input(SHAPE, dtype="float32"),
                layers.Rescaling(2.0, -1.0, dtype=dtype),
                layers.Conv2D(
                    6,
                    3,
                    activation="tanh",
                    dtype=dtype,
                    kernel_initializer=keras.initializers.RandomNormal(
                        stddev=1.0, seed=3
                    ),
                ),
                layers.Dropout(dropout, dtype=dtype),
                layers.Flatten(dtype=dtype),
                layers.Dense(
                    CLASSES,
                    activation=activation,
                    dtype=dtype,
                    kernel_initializer=keras.initializers.RandomNormal(
                        stddev=0.3, seed=4
                    ),
                ),
            ]
        )

    return make


@keras.saving.register_keras_serializable(package="keras_uap_tests")
class Subclassed(keras.Model):
    """A classifier that says nothing of itself but `model(x)`."""

    def __init__(self, activation="softmax", classes=CLASSES, **kwargs):
        super().__init__(**kwargs)
        self.activation = activation
        self.classes = classes
        self.flatten = keras.layers.Flatten()
        self.dense = keras.layers.Dense(
            classes,
            activation=activation,
            kernel_initializer=keras.initializers.RandomNormal(seed=5),
        )

    def call(self, inputs):
        return self.dense(self.flatten(inputs) * 8.0 - 4.0)

    def get_config(self):
        config = super().get_config()
        config.update({"activation": self.activation, "classes": self.classes})
        return config


@pytest.fixture
def subclassed():
    return Subclassed


@keras.saving.register_keras_serializable(package="keras_uap_tests")
class Gradient(keras.layers.Layer):
    """Hands its input on, and puts `value` in place of some gradients.

    Images whose first pixel is above `above` get it.
    """

    def __init__(self, value=0.0, above=2.0, **kwargs):
        super().__init__(**kwargs)
        self.value = value
        self.above = above

    def call(self, inputs):
        @tf.custom_gradient
        def replace(x):
            rows = tf.reshape(x[:, 0, 0, 0] > self.above, (-1, 1, 1, 1))
            return x, lambda upstream: tf.where(
                rows, tf.constant(self.value, x.dtype), upstream
            )

        return replace(inputs)


@pytest.fixture
def broken(linear):
    """Makes linear classifiers that have no gradient for some images."""

    def make(value, above):
        return keras.Sequential(
            [keras.Input(SHAPE), Gradient(value, above), linear()]
        )

    return make


@pytest.fixture
def make_uap():
    """Makes a `UniversalPerturbation` for pixels in 0 to 1."""

    def make(classifier, epsilon=0.05, **kwargs):
        kwargs.setdefault("value_range", (0, 1))
        return keras_uap.UniversalPerturbation(classifier, epsilon, **kwargs)

    return make


class EachBatch(keras.callbacks.Callback):
    """Calls a function with the model after every batch and every epoch."""

    def __init__(self, check):
        super().__init__()
        self.check = check
        self.calls = 0

    def on_train_batch_end(self, batch, logs=None):
        self.calls += 1
        self.check(self.model)

    def on_epoch_end(self, epoch, logs=None):
        self.check(self.model)


@pytest.fixture
def each_batch():
    return EachBatch
