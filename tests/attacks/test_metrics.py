"""Tests of the metrics, against a recount in NumPy."""

import keras
import numpy as np
import pytest

import keras_uap


@pytest.mark.parametrize("as_scores", [False, True])
def test_fooling_rate_is_the_share_that_changed(as_scores):
    rng = np.random.default_rng(0)
    clean, perturbed = rng.integers(0, 3, (2, 50))
    rate = keras_uap.FoolingRate()
    for part in (slice(0, 32), slice(32, 50)):  # A ragged last batch.
        pair = clean[part], perturbed[part]
        if as_scores:
            pair = [np.eye(3)[labels] - 0.5 for labels in pair]
        rate.update_state(*pair)
    assert float(rate.result()) == pytest.approx(np.mean(clean != perturbed))
    rate.reset_state()
    assert float(rate.result()) == 0.0


def test_mixed_kinds_of_labels():
    rate = keras_uap.FoolingRate()
    rate.update_state(np.array([1, 0], "int32"), np.array([[0.1, 2.0]] * 2))
    assert float(rate.result()) == 0.5


def test_sample_weights():
    rate = keras_uap.FoolingRate()
    rate.update_state([0, 1, 2], [0, 2, 2], sample_weight=[1.0, 2.0, 1.0])
    assert float(rate.result()) == 0.5


@pytest.mark.parametrize("shape", [(4, 1), (4, 2, 3), ()])
def test_ambiguous_predictions(shape):
    with pytest.raises(ValueError, match="shape"):
        keras_uap.FoolingRate().update_state(np.zeros(shape), np.zeros(4))


def test_round_trip():
    rate = keras_uap.FoolingRate(name="other")
    config = keras.saving.serialize_keras_object(rate)
    assert keras.saving.deserialize_keras_object(config).name == "other"


def test_scores_that_are_not_finite_show():
    """They are no prediction, so the rate is neither 0 nor 1."""
    rate = keras_uap.FoolingRate()
    scores = np.eye(4)[[0] * 3]
    rate.update_state(scores, np.full((3, 4), np.nan))
    assert np.isnan(rate.result())
    rate.reset_state()
    rate.update_state(scores, np.array([[-np.inf, 1, 0, 0]] * 3))
    assert rate.result() == 1
