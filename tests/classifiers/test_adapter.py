"""Attacks run on a folded copy, reports on the classifier itself."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_uap
from keras_uap.attacks import losses
from keras_uap.classifiers.adapter import ClassifierAdapter

SHAPE = (8, 8, 3)


@keras.saving.register_keras_serializable(package="keras_uap_tests")
class Counted(keras.layers.Layer):
    """Passes its input on, and counts how often it is traced."""

    calls = 0

    def call(self, inputs):
        type(self).calls += not tf.executing_eagerly()
        return inputs


def normalized(activation="softmax"):
    """A classifier whose batch normalization is not the identity."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            Counted(),
            keras.layers.Conv2D(6, 3),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation=activation),
        ]
    )
    rng = np.random.default_rng(0)
    norm = model.layers[2]
    norm.set_weights([rng.uniform(0.5, 2.0, w.shape) for w in norm.weights])
    return model


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_the_copy_gives_the_logits_of_the_classifier(images, activation):
    model = normalized(activation)
    adapter = ClassifierAdapter(model, SHAPE)
    assert adapter._folds
    batch = tf.constant(images)
    exact = adapter.forward(batch, exact=True).numpy()
    np.testing.assert_allclose(adapter.forward(batch), exact, atol=1e-4)
    features, logits = adapter.forward_for(batch, losses.Features())
    np.testing.assert_allclose(logits, exact, atol=1e-4)
    own = keras.Model(model.inputs, model.layers[-2].output)
    np.testing.assert_allclose(features, own(batch), atol=1e-4)


def test_nothing_is_folded_without_batch_normalization(linear):
    adapter = ClassifierAdapter(linear(), SHAPE)
    assert not adapter._folds
    assert not adapter.refresh(np.zeros((2, *SHAPE), "float32"))


def test_a_classifier_trained_between_fits_is_attacked_as_it_is(images):
    model = normalized()
    uap = keras_uap.UniversalPerturbation(
        model, 0.1, value_range=(0, 1), seed=1
    )
    uap.compile("lion")
    uap.fit(images, batch_size=8, verbose=0)
    traced = Counted.calls
    rng = np.random.default_rng(1)
    model.layers[2].set_weights(
        [rng.uniform(0.5, 2.0, w.shape) for w in model.layers[2].weights]
    )
    uap.fit(images, batch_size=8, verbose=0)
    assert Counted.calls == traced
    batch = tf.constant(images)
    np.testing.assert_allclose(
        uap.adapter.forward(batch),
        uap.adapter.forward(batch, exact=True),
        atol=1e-4,
    )


def test_rates_are_measured_on_the_classifier_itself(images, held_out):
    uap = keras_uap.UniversalPerturbation(normalized(), 0.1, value_range=(0, 1))
    uap.compile("lion")
    uap.fit(images, batch_size=8, verbose=0)
    expected = uap.evaluate(held_out, verbose=0)
    for layer in uap.adapter._folding.layers:
        layer.kernel.assign(0 * layer.kernel)
    assert uap.evaluate(held_out, verbose=0) == expected


def test_a_copy_that_differs_is_not_used(images, monkeypatch):
    model = normalized()
    uap = keras_uap.UniversalPerturbation(
        model, 0.1, value_range=(0, 1), seed=1
    )
    uap.compile("lion")
    uap.fit(images, batch_size=8, verbose=0)
    layer = type(uap.adapter._folding.layers[0])
    monkeypatch.setattr(
        layer, "update", lambda own: own.kernel.assign_add(1 + 0 * own.kernel)
    )
    with pytest.warns(UserWarning, match="differs from it by up to"):
        uap.fit(images, batch_size=8, verbose=0)
    batch = tf.constant(images)
    np.testing.assert_array_equal(
        uap.adapter.forward(batch), uap.adapter.forward(batch, exact=True)
    )
    uap.fit(images, batch_size=8, verbose=0)  # It is said once.
