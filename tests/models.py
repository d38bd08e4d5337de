"""Tiny classifiers, images and callbacks that the tests share.

Pixels lie in 0 to 1 and the classifiers have weights of about 1, so that a
perturbation of a few hundredths changes labels and float32 is exact enough to
compare with NumPy in float64.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_uap
from keras_uap.evaluation import attack_suite, race

SHAPE = (8, 8, 3)
CLASSES = 4


# The attacks of an audit by name, as they are before a test leaves some out.
ATTACKS = {attack.name: attack for attack in attack_suite.ATTACKS}


def shorten_audits(monkeypatch, passes, *names, most=0, rungs=()):
    """Replaces the race of every audit by a few short attacks.

    Args:
        monkeypatch: `pytest.MonkeyPatch`.
        passes: Integer, the model passes of an attack in the first rung.
        *names: Strings, the attacks; by default two.
        most: Integer, the model passes of all attacks. With 0 the race ends
            after its rungs.
        rungs: Tuple of pairs, the rungs after the first.
    """
    names = "transferred start", *(names or ("dominant", "data-free start"))
    attacks = tuple(ATTACKS[name] for name in names)
    monkeypatch.setattr(attack_suite, "ATTACKS", attacks)
    short = race.Budget(((len(attacks), passes), *rungs), most, False)
    for budget in race.BUDGETS:
        monkeypatch.setitem(race.BUDGETS, budget, short)
    monkeypatch.setattr(race, "_HARDENED", short)


def images(count=40, seed=1):
    """Images `(count, 8, 8, 3)` of 4 overlapping kinds, float32 in 0 to 1."""
    rng = np.random.default_rng(seed)
    kinds = rng.uniform(0.2, 0.8, (CLASSES, *SHAPE))
    noise = rng.normal(0, 0.25, (count, *SHAPE))
    kinds = kinds[rng.integers(0, CLASSES, count)]
    return np.clip(kinds + noise, 0, 1).astype("float32")


# Classifiers ------------------------------------------------------------------


def linear(classes=CLASSES, activation=None, seed=0, scale=1.0, shape=SHAPE):
    """A linear classifier with weights of a standard normal."""
    model = keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, activation=activation),
        ]
    )
    size = int(np.prod(shape))
    rng = np.random.default_rng(seed)
    kernel = scale * rng.normal(size=(size, classes))
    # The mean image lies on the boundary of all classes.
    model.set_weights([kernel, -0.5 * kernel.sum(axis=0)])
    return model


def cnn(
    activation="softmax",
    dtype=None,
    dropout=0.0,
    classes=CLASSES,
    value_range=(0, 1),
    seed=3,
    shape=SHAPE,
):
    """A small convolutional classifier with random weights."""
    layers = keras.layers
    low, high = value_range
    scale = 2 / (high - low)

    def normal(stddev, seed):
        return keras.initializers.RandomNormal(stddev=stddev, seed=seed)

    return keras.Sequential(
        [
            keras.Input(shape, dtype="float32"),
            layers.Rescaling(scale, -1.0 - low * scale, dtype=dtype),
            layers.Conv2D(
                6,
                3,
                activation="tanh",
                dtype=dtype,
                kernel_initializer=normal(1.0, seed),
            ),
            layers.Dropout(dropout, dtype=dtype),
            layers.Flatten(dtype=dtype),
            layers.Dense(
                classes,
                activation=activation,
                dtype=dtype,
                kernel_initializer=normal(0.3, seed + 1),
            ),
        ]
    )


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


def broken(value, above, activation=None):
    """A linear classifier that has the gradient `value` for some images."""
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            Gradient(value, above),
            linear(activation=activation),
        ]
    )


# Updates ----------------------------------------------------------------------


# One of each kind, to compile with.
UPDATES = {
    "deepfool": lambda: keras_uap.DeepFool(),
    "nearest": lambda: keras_uap.DeepFool(boundary="nearest"),
    "one_by_one": lambda: keras_uap.DeepFool(one_by_one=True),
    "lion": lambda: "lion",
    "decaying_lion": lambda: "decaying_lion",
    "adam": lambda: keras.optimizers.Adam(0.02),
    "sgd": lambda: keras.optimizers.SGD(0.02, momentum=0.9),
}


# Callbacks --------------------------------------------------------------------


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


class EachEpoch(keras.callbacks.Callback):
    """Keeps the validation rate and the perturbation of every epoch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append((logs["val_fooling_rate"], self.model.perturbation))


class Crash(Exception):
    """Stands in for a machine that is switched off."""


class CrashAt(keras.callbacks.Callback):
    """Raises an error at the beginning of an epoch."""

    def __init__(self, epoch, error=Crash):
        super().__init__()
        self.epoch = epoch
        self.error = error

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise self.error


class SetRates(keras.callbacks.Callback):
    """Puts v to one of given strengths at the end of each epoch's batches."""

    def __init__(self, strengths):
        super().__init__()
        self.strengths = iter(strengths)

    def on_train_batch_end(self, batch, logs=None):
        self.model.v.assign(self.model.v * 0 + next(self.strengths))


# Marks ------------------------------------------------------------------------


def slow(*values):
    """Values of a parametrized test that run with the slow tests alone."""
    return pytest.param(*values, marks=pytest.mark.slow)
