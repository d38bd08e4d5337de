"""Tests of several classifiers as one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_uap

layers = keras.layers


def test_ensemble_of_linear_classifiers(linear, images, tmp_path):
    members = [linear(seed=1), linear(seed=2, activation="softmax")]
    both = keras_uap.Ensemble(members)
    logits = [
        images.reshape(40, -1) @ kernel + bias
        for kernel, bias in (member.get_weights() for member in members)
    ]
    expected = np.mean([tf.nn.log_softmax(z) for z in logits], axis=0)
    np.testing.assert_allclose(both(images), expected, rtol=1e-4, atol=1e-4)
    assert both.input_shape == (None, 8, 8, 3)
    both.save(tmp_path / "both.keras")
    loaded = keras.saving.load_model(tmp_path / "both.keras")
    np.testing.assert_allclose(loaded(images), both(images), rtol=1e-5)


@pytest.mark.slow
def test_perturbation_of_an_ensemble_fools_both(make_uap, images, tmp_path):
    """The two members see different pixels: half of v is for each."""
    from_left, from_right = _half(0), _half(1)
    both = keras_uap.Ensemble([from_left, from_right])

    def rates(v):
        return [
            make_uap(m, 0.2, initial_perturbation=v).evaluate(images, verbose=0)
            for m in (from_left, from_right)
        ]

    found = {}
    for name, classifier in {"left": from_left, "both": both}.items():
        uap = make_uap(classifier, 0.2)
        uap.compile("lion")
        uap.fit(images, epochs=4, batch_size=8, verbose=0)
        found[name] = rates(uap.perturbation)
    assert found["left"][1] == 0
    assert min(found["both"]) > 0.2
    uap.save(tmp_path / "uap.keras")
    loaded = keras.saving.load_model(tmp_path / "uap.keras")
    assert loaded.evaluate(images, verbose=0) == uap.evaluate(images, verbose=0)


def _half(side):
    """A linear classifier that sees one half of the image."""
    rng = np.random.default_rng(3)
    kernel = rng.normal(size=(8, 8, 3, 2))
    kernel[:, slice(0, 4) if side else slice(4, 8)] = 0
    kernel = kernel.reshape(-1, 2)
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(2)]
    )
    model.set_weights([kernel, -0.5 * kernel.sum(axis=0)])
    return model


def test_ensemble_refuses(linear, subclassed):
    with pytest.raises(ValueError, match="at least one"):
        keras_uap.Ensemble([])
    with pytest.raises(ValueError, match=r"one shape.*attach"):
        keras_uap.Ensemble([linear(), linear(shape=(4, 4, 3))])
    with pytest.raises(ValueError, match=r"same classes.*\[4, 2\]"):
        keras_uap.Ensemble([linear(), linear(2)])
    with pytest.raises(ValueError, match=r"classifiers\[1\].*from_logits=\["):
        keras_uap.Ensemble([linear(), subclassed()])
    with pytest.raises(ValueError, match="1 for 2 classifiers"):
        keras_uap.Ensemble([linear(), linear()], from_logits=[None])
    with pytest.raises(TypeError, match="Keras model"):
        keras_uap.Ensemble([len])
    opaque = keras_uap.Ensemble([subclassed()], from_logits=False)
    assert opaque(np.zeros((2, 8, 8, 3))).shape == (2, 4)
