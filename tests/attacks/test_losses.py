"""Tests of the objectives, against closed forms in NumPy."""

import keras
import numpy as np
import pytest

from keras_uap import losses

LOGITS = np.array(
    [[3.0, 1.0, -2.0], [0.0, 30.0, 1.0], [0.5, 0.5, 0.5]], "float32"
)
CLASS = np.array([0, 2, 1])


def crossentropy(y, z):
    z = z.astype("float64")
    return np.log(np.exp(z).sum(-1)) - z[np.arange(len(z)), y]


def lead(y, z):
    own = z[np.arange(len(z)), y]
    others = np.where(np.eye(z.shape[-1])[y] > 0, -np.inf, z)
    return own - others.max(-1)


@pytest.mark.parametrize("cap", [2.0, 9.0, 100.0])
@pytest.mark.parametrize("targeted", [False, True])
def test_crossentropy(cap, targeted):
    loss = losses.ClippedCrossentropy(cap, targeted)
    expected = crossentropy(CLASS, LOGITS)
    if not targeted:
        expected = -np.minimum(expected, cap)
    np.testing.assert_allclose(loss.call(CLASS, LOGITS), expected, atol=1e-5)


@pytest.mark.parametrize("cap", [0.5, 5.0, 100.0])
@pytest.mark.parametrize("targeted", [False, True])
def test_margin(cap, targeted):
    loss = losses.Margin(cap, targeted)
    expected = lead(CLASS, LOGITS) * (-1 if targeted else 1)
    np.testing.assert_allclose(
        loss.call(CLASS, LOGITS), np.maximum(expected, -cap), atol=1e-5
    )


@pytest.mark.parametrize("name", ["crossentropy", "margin"])
@pytest.mark.parametrize("targeted", [False, True])
def test_names_and_round_trip(name, targeted):
    loss = losses.get(name, targeted)
    config = keras.saving.serialize_keras_object(loss)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(loss)
    assert again.targeted is targeted
    assert again.cap == loss.cap
    assert losses.get(loss) is loss


def test_float16_logits_are_taken_in_float32():
    z = np.array([[60000.0, -60000.0]], "float16")
    value = losses.Margin(cap=1e6).call(np.array([0]), z)
    np.testing.assert_allclose(value, [2 * float(z[0, 0])], rtol=1e-3)


@pytest.mark.parametrize("cap", [0.0, -1.0, np.nan])
@pytest.mark.parametrize("loss", [losses.Margin, losses.ClippedCrossentropy])
def test_cap_out_of_range(loss, cap):
    with pytest.raises(ValueError, match="cap="):
        loss(cap=cap)


def test_unknown_losses():
    with pytest.raises(ValueError, match="loss='hinge'"):
        losses.get("hinge")
    with pytest.raises(TypeError, match="loss="):
        losses.get(3)
