"""Custom heads: whatever a head is called, the labels are the model's own."""

import keras
import models
import numpy as np
import pytest

import keras_uap

layers = keras.layers


class Cosine(layers.Dense):
    """The cosine of features and weights, as in ArcFace."""

    def call(self, x):
        x = keras.ops.normalize(x, axis=-1)
        return self.activation(x @ keras.ops.normalize(self.kernel, axis=0))


class Turned(layers.Softmax):
    def call(self, x, mask=None):
        return super().call(-x)


def softmax(x):
    """Not what its name says."""
    return keras.ops.softmax(-3 * x)


def sigmoid(x):
    return keras.ops.sigmoid(1 - 2 * x)


def linear(x):
    return keras.ops.sin(5 * x)


# By name: what stands behind the features, and whether it gives logits.
HEADS = {
    "softmax": (lambda n: [layers.Dense(n, activation="softmax")], False),
    "logits": (lambda n: [layers.Dense(n)], True),
    "activation": (
        lambda n: [layers.Dense(n), layers.Activation("softmax")],
        False,
    ),
    "a layer": (lambda n: [layers.Dense(n), layers.Softmax()], False),
    "own softmax": (lambda n: [layers.Dense(n, activation=softmax)], False),
    "own sigmoid": (lambda n: [layers.Dense(n, activation=sigmoid)], False),
    "own linear": (lambda n: [layers.Dense(n, activation=linear)], True),
    "cosine": (lambda n: [Cosine(n)], True),
    "cosine, softmax": (lambda n: [Cosine(n, activation="softmax")], False),
    "turned": (lambda n: [layers.Dense(n), Turned()], False),
    "nested": (
        lambda n: [
            keras.Sequential([layers.Dense(n, activation="softmax")]),
        ],
        False,
    ),
}


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("name", HEADS)
def test_labels_are_those_of_the_model(name, told, quick, seed, count):
    make, gives_logits = HEADS[name]
    images = models.images(60, seed)
    for i in range(2 if quick else 20):
        keras.utils.set_random_seed(1000 * seed + i)
        model = keras.Sequential(
            [
                keras.Input(models.SHAPE),
                layers.Flatten(),
                layers.Dense(12, activation="tanh"),
                *make(2 + i % 4),
            ]
        )
        logits = keras_uap.logits_function(
            model, gives_logits if told else None, images[:4]
        )
        expected = model.predict(images, verbose=0).argmax(-1)
        found = np.asarray(logits(images)).argmax(-1)
        count("heads")
        count("labels", len(images))
        np.testing.assert_array_equal(found, expected)
