"""The same seed gives the same bytes, in one process and in another."""

import hashlib
import json

import keras
import models
import numpy as np
import pytest
import tensorflow as tf

import keras_uap

UPDATES = {
    "deepfool": "deepfool",
    "one by one": lambda: keras_uap.DeepFool(one_by_one=True),
    "lion": "lion",
    "adam": "adam",
}
HERE = "test_determinism"


def digests(times=1, deterministic=False):
    """Hashes of what is fitted from one seed, several times over."""
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    return [
        {**{name: digest(name) for name in UPDATES}, "layer": layer_digest()}
        for _ in range(times)
    ]


def digest(name):
    keras.utils.set_random_seed(5)
    classifier = keras.Sequential(
        [
            keras.Input(models.SHAPE),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(models.CLASSES),
        ]
    )
    uap = keras_uap.UniversalPerturbation(classifier, 0.1, value_range=(0, 1))
    update = UPDATES[name]
    uap.compile(update() if callable(update) else update)
    history = uap.fit(
        models.images(40),
        epochs=2,
        batch_size=8,
        validation_data=models.images(20, seed=3),
        verbose=0,
    ).history
    content = uap.perturbation.tobytes() + json.dumps(history).encode()
    return hashlib.sha256(content).hexdigest()


def layer_digest():
    keras.utils.set_random_seed(5)
    layer = keras_uap.PerturbationLayer(
        epsilon=0.1, value_range=(0, 1), rate=0.5
    )
    classifier = models.linear(activation="softmax")
    model = keras.Sequential([keras.Input(models.SHAPE), layer, classifier])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(models.images(40), np.arange(40) % 4, epochs=2, verbose=0)
    return hashlib.sha256(layer.perturbation.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def twice(child):
    return child(HERE, "digests", 2)


def test_in_one_process(twice, count):
    count("fits compared", len(twice[0]))
    assert twice[0] == twice[1]


def test_in_another_process(twice, child, count):
    count("fits compared", len(twice[0]))
    assert child(HERE, "digests") == twice[:1]


def test_with_deterministic_ops(child, quick, count):
    """Their ops may be others, so they are compared among themselves."""
    if quick:
        pytest.skip("not in the sample")
    first = child(HERE, "digests", 1, True)
    count("fits compared", len(first[0]))
    assert child(HERE, "digests", 1, True) == first
