"""Tests of the lp ball."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import keras_uap
from keras_uap.perturbations.lp_ball import as_epsilon, as_norm, lp_norm

ARRAYS = hnp.arrays(
    "float32",
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=6),
    elements=st.floats(-1e6, 1e6, width=32),
)
EPSILONS = st.floats(1e-6, 1e6)


@settings(deadline=None, max_examples=100)
@given(ARRAYS, EPSILONS, st.sampled_from(["linf", "l2"]))
def test_projection_is_inside_the_ball_and_nearest(v, epsilon, norm):
    projected = keras_uap.project(v, epsilon, norm)
    assert lp_norm(projected, norm) <= epsilon
    assert projected.dtype == np.float32
    exact = v.astype("float64")
    if norm == "linf":
        expected = np.clip(exact, -epsilon, epsilon)
    else:
        length = np.sqrt(np.sum(exact**2))
        expected = exact * min(1.0, epsilon / max(length, 1e-300))
    np.testing.assert_allclose(projected, expected, rtol=2e-6, atol=1e-30)


@settings(deadline=None, max_examples=50)
@given(ARRAYS, EPSILONS, st.sampled_from(["linf", "l2"]))
def test_projection_leaves_what_is_inside(v, epsilon, norm):
    once = keras_uap.project(v, epsilon, norm)
    np.testing.assert_array_equal(keras_uap.project(once, epsilon, norm), once)


def test_tensors_stay_tensors():
    assert tf.is_tensor(keras_uap.project(tf.ones((2, 2)), 0.5))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_bound_holds_for_many_values(norm):
    v = np.random.default_rng(0).normal(0, 50, (224, 224, 3))
    assert lp_norm(keras_uap.project(v, 9.1, norm), norm) <= 9.1


@pytest.mark.parametrize(
    ("norm", "expected"),
    [("linf", "linf"), (np.inf, "linf"), ("l2", "l2"), (2, "l2"), (2.0, "l2")],
)
def test_spellings_of_the_norm(norm, expected):
    assert as_norm(norm) == expected
    assert lp_norm([3.0, -4.0], norm) == (4.0 if expected == "linf" else 5.0)


@pytest.mark.parametrize("norm", ["l1", "Linf", 1, True, None, np.nan])
def test_unknown_norm(norm):
    with pytest.raises(ValueError, match="norm="):
        as_norm(norm)


@pytest.mark.parametrize("epsilon", [0, -1.0, np.nan, np.inf])
def test_epsilon_out_of_range(epsilon):
    with pytest.raises(ValueError, match="epsilon="):
        as_epsilon(epsilon)


@pytest.mark.parametrize("epsilon", ["10", True, None, [1.0]])
def test_epsilon_of_another_kind(epsilon):
    with pytest.raises(TypeError, match="epsilon="):
        as_epsilon(epsilon)


@pytest.mark.parametrize("epsilon", [3, np.float32(3), np.int64(3)])
def test_epsilon_becomes_a_float(epsilon):
    assert type(as_epsilon(epsilon)) is float


def test_constraint_round_trip():
    ball = keras_uap.LpBall(0.5, "l2")
    config = keras.saving.serialize_keras_object(ball)
    again = keras.saving.deserialize_keras_object(config)
    w = np.ones((3, 3), "float32")
    np.testing.assert_array_equal(again(w), ball(w))
    assert lp_norm(again(w), "l2") <= 0.5


def test_constraint_of_a_trained_weight():
    layer = keras.layers.Dense(2, kernel_constraint=keras_uap.LpBall(0.1))
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 3)), 5 * np.ones((8, 2)), verbose=0)
    assert 0 < lp_norm(layer.kernel) <= 0.1
