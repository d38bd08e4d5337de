"""Tests of the losses that see the whole batch or the features."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import CLASSES, SHAPE, slow

import keras_uap
from keras_uap import losses
from keras_uap.data import sources
from keras_uap.perturbations.lp_ball import LpBall, lp_norm

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (30, 5)).astype("float32")
CLASS = LOGITS.argmax(-1)


def seen(loss, y=CLASS, z=LOGITS, features=None, clean_features=None):
    return losses.Seen(features, clean_features, loss.summary(y, z))


def masses(y, z):
    z = z.astype("float64")
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    p[np.arange(len(y)), y] = 0.0
    return p.sum(0)


def goals(y, z):
    """The dominant class, or the best other of its own images, in NumPy."""
    dominant = masses(y, z).argmax()
    others = np.where(np.eye(z.shape[-1])[y] > 0, -np.inf, z)
    return np.where(y == dominant, others.argmax(-1), dominant)


def lead(y, z, goal):
    rows = np.arange(len(y))
    return z[rows, y] - z[rows, goal]


@pytest.mark.parametrize("cap", [0.5, 100.0])
def test_dominant(cap):
    loss = losses.Dominant(cap)
    goal = goals(CLASS, LOGITS)
    assert np.any(goal != np.bincount(goal).argmax())  # Some are of class J.
    np.testing.assert_allclose(
        loss.summary(CLASS, LOGITS), masses(CLASS, LOGITS), atol=1e-5
    )
    np.testing.assert_allclose(
        loss.call(CLASS, LOGITS, seen(loss)),
        np.maximum(lead(CLASS, LOGITS, goal), -cap),
        atol=1e-5,
    )
    # Of classes that are not those of the highest logits, it is below zero.
    y = LOGITS.argmin(-1)
    value = loss.call(y, LOGITS, seen(loss, y))
    np.testing.assert_allclose(
        value,
        np.maximum(lead(y, LOGITS, goals(y, LOGITS)), -cap),
        atol=1e-5,
    )
    assert np.min(value) < -0.4
    assert np.any(value == -cap) == (cap == 0.5)


def test_dominant_with_a_target_is_the_margin_to_it():
    y = np.full(30, 2)
    loss = losses.Dominant(3.0, targeted=True)
    assert loss.summary(y, LOGITS) is None
    np.testing.assert_allclose(
        loss.call(y, LOGITS, seen(loss, y)),
        losses.Margin(3.0, targeted=True).call(y, LOGITS),
    )


def test_one_image_that_is_not_finite_does_not_decide():
    z = LOGITS.copy()
    z[4] = np.nan
    rest = np.arange(30) != 4
    np.testing.assert_allclose(
        losses.Dominant().summary(CLASS, z),
        masses(CLASS[rest], LOGITS[rest]),
        atol=1e-5,
    )


def test_features():
    a, b = RNG.normal(size=(2, 30, 7)).astype("float32")
    loss = losses.Features()
    expected = (a * b).sum(-1)
    expected /= np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    value = loss.call(CLASS, LOGITS, seen(loss, features=a, clean_features=b))
    np.testing.assert_allclose(value, expected, atol=1e-5)
    same = loss.call(CLASS, LOGITS, seen(loss, features=a, clean_features=a))
    np.testing.assert_allclose(same, 1.0, atol=1e-5)


def test_weighted_sum():
    a, b = RNG.normal(size=(2, 30, 7)).astype("float32")
    parts = [losses.Features(), losses.Margin(2.0), losses.Dominant(4.0)]
    loss = losses.WeightedSum(parts, [10.0, 0.5, 2.0])
    view = seen(loss, features=a, clean_features=b)
    expected = (
        10.0 * parts[0].call(CLASS, LOGITS, view)
        + 0.5 * parts[1].call(CLASS, LOGITS)
        + 2.0 * parts[2].call(CLASS, LOGITS, seen(parts[2]))
    )
    np.testing.assert_allclose(
        loss.call(CLASS, LOGITS, view), expected, rtol=1e-5
    )
    assert loss.needs_features
    assert not losses.WeightedSum(parts[1:]).needs_features


NAMED = ["dominant", "features", "features+dominant"]


@pytest.mark.parametrize(
    "loss",
    [
        *map(losses.get, NAMED),
        losses.Dominant(3.0, targeted=True),
        losses.Features("conv"),
        losses.WeightedSum(["margin", losses.Features("x")], [0.5, 3.0]),
    ],
)
def test_round_trip(loss):
    config = keras.saving.serialize_keras_object(loss)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
    assert again.layer == loss.layer


# In a fit ---------------------------------------------------------------------


def test_dominant_step_of_a_linear_classifier(linear, images, make_uap):
    """One batch from v = 0, SGD with learning rate 1."""
    model = linear()
    uap = make_uap(model, 100.0, value_range=None)
    uap.compile(keras.optimizers.SGD(1.0), loss=losses.Dominant(cap=1e3))
    uap.fit(images, batch_size=40, verbose=0)
    kernel, bias = (np.asarray(w, "float64") for w in model.get_weights())
    scores = images.reshape(40, -1) @ kernel + bias
    y = scores.argmax(-1)
    slopes = kernel[:, goals(y, scores)] - kernel[:, y]
    direction = slopes.sum(-1).reshape(SHAPE)
    np.testing.assert_allclose(
        uap.perturbation, direction / np.abs(direction).mean(), atol=1e-4
    )


def test_features_step_of_a_linear_classifier(linear, images, make_uap):
    """The features are the image: one step from a start of one's own."""
    v = RNG.uniform(-0.1, 0.1, SHAPE).astype("float32")
    uap = make_uap(linear(), 100.0, value_range=None, initial_perturbation=v)
    uap.compile(keras.optimizers.SGD(0.5), loss="features")
    history = uap.fit(images, batch_size=40, verbose=0).history
    x = images.reshape(40, -1).astype("float64")
    p = x + v.reshape(-1)
    long, short = (np.linalg.norm(a, axis=-1, keepdims=True) for a in (p, x))
    cosine = (p * x).sum(-1, keepdims=True) / (long * short)
    gradient = (x / (long * short) - cosine * p / long**2).sum(0)
    expected = v - 0.5 * (gradient / np.abs(gradient).mean()).reshape(SHAPE)
    np.testing.assert_allclose(uap.perturbation, expected, atol=1e-3)
    assert history["loss"][0] == pytest.approx(cosine.mean(), abs=1e-5)
    assert history["model_passes"] == [80]


@pytest.mark.parametrize("layer", [None, "convolution"])
def test_features_of_clean_images_are_found_once(
    layer, cnn, images, make_uap, monkeypatch
):
    """For arrays before the first epoch, if memory allows; else in a batch."""
    model = cnn()
    if layer is not None:
        layer = model.layers[1].name

    def fitted(data, **kwargs):
        uap = make_uap(model, initial_perturbation=start)
        uap.compile("lion", loss=losses.Features(layer))
        history = uap.fit(
            data, epochs=2, shuffle=False, verbose=0, **kwargs
        ).history
        return uap.perturbation, history["model_passes"]

    start = RNG.uniform(-0.05, 0.05, SHAPE).astype("float32")
    count = len(images)
    v, passes = fitted(images, batch_size=8)
    assert passes == [2 * count] * 2
    batches_of_8 = tf.data.Dataset.from_tensor_slices(images).batch(8)
    for data, kwargs in ((batches_of_8, {}), (images, {"batch_size": 8})):
        monkeypatch.setattr(sources, "_MOST_FEATURES", 0)
        other, passes = fitted(data, **kwargs)
        np.testing.assert_allclose(other, v, atol=1e-5)
        # One more forward gives the labels and the features of a batch.
        assert passes == [3 * count] * 2


@pytest.mark.slow
@pytest.mark.parametrize("loss", NAMED)
def test_in_a_fit_it_beats_the_start(loss, cnn, images, make_uap):
    uap = make_uap(cnn())
    uap.compile("lion", loss=loss)
    history = uap.fit(images, epochs=6, batch_size=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert history["fooling_rate"][-1] > history["fooling_rate"][0]


@pytest.mark.parametrize(
    "loss",
    [NAMED[-1], slow("another layer")],
)
def test_saved_and_loaded(loss, cnn, images, make_uap, tmp_path):
    model = cnn()
    if loss == "another layer":
        loss = losses.Features(model.layers[1].name)
    uap = make_uap(model)
    uap.compile("lion", loss=loss)
    uap.fit(images, batch_size=20, verbose=0)
    uap.save(tmp_path / "uap.keras")
    again = keras.saving.load_model(tmp_path / "uap.keras")
    np.testing.assert_array_equal(again.perturbation, uap.perturbation)
    for each in (uap, again):
        each.fit(images, batch_size=20, verbose=0)
    np.testing.assert_array_equal(again.perturbation, uap.perturbation)


# The random start -------------------------------------------------------------


class Start(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 0:
            self.v = self.model.perturbation


@pytest.mark.parametrize(
    ("norm", "masked"),
    [("linf", True), slow("l2", False)],
)
def test_start_is_random_and_of_the_seed(norm, masked, cnn, images, make_uap):
    mask = np.zeros(SHAPE[:2]) if masked else None
    if masked:
        mask[2:6, 2:6] = 1
    starts = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        uap = make_uap(cnn(), 0.4, norm=norm, mask=mask)
        uap.compile("lion", loss="features")
        start = Start()
        uap.fit(images[:8], verbose=0, callbacks=start)
        starts.append(start.v)
        free = SHAPE[-1] * (16 if masked else 64)
        assert np.count_nonzero(start.v) == free
        assert 0.38 < lp_norm(start.v, norm) <= 0.4
        # A second fit goes on from where the first ended.
        before = uap.perturbation
        uap.fit(images[:8], verbose=0, callbacks=start)
        np.testing.assert_array_equal(start.v, before)
    np.testing.assert_array_equal(starts[0], starts[1])
    assert np.any(starts[0] != starts[2])


def test_uniform_points_of_the_ball():
    v = LpBall(2.0).uniform((100, 100, 3), np.random.default_rng(0))
    assert v.dtype == np.float32
    assert np.abs(v.mean()) < 0.05
    assert np.std(v) == pytest.approx(2.0 / 3**0.5, rel=0.02)
    assert np.abs(v).max() <= 2.0
    v = LpBall(2.0, "l2").uniform((100, 100, 3), np.random.default_rng(0))
    assert 1.99 < lp_norm(v, "l2") <= 2.0


def test_other_losses_start_at_zero(cnn, images, make_uap):
    uap = make_uap(cnn())
    start = Start()
    for loss in ("crossentropy", "dominant"):
        uap.perturbation = np.zeros(SHAPE)
        uap.compile("lion", loss=loss)
        uap.fit(images[:8], verbose=0, callbacks=start)
        assert not start.v.any()


# What cannot be ---------------------------------------------------------------


@pytest.mark.parametrize("loss", ["features", "features+dominant"])
def test_features_cannot_reach_a_target(loss, linear, make_uap):
    uap = make_uap(linear(), target=1)
    with pytest.raises(ValueError, match="cannot reach a target"):
        uap.compile("lion", loss=loss)


def test_dominant_reaches_a_target(cnn, images, make_uap):
    uap = make_uap(cnn(), 0.1, target=2)
    uap.compile("lion", loss="dominant")
    history = uap.fit(images, epochs=5, batch_size=8, verbose=0).history
    assert history["target_rate"][-1] > history["target_rate"][0] + 0.2


def test_features_that_cannot_be_seen_are_refused_at_once(
    subclassed, linear, images, make_uap
):
    hidden = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten()])
    hidden.add(keras.layers.Lambda(lambda x: x[:, :CLASSES]))
    uap = make_uap(hidden, from_logits=True)
    with pytest.raises(ValueError, match="no dense layer"):
        uap.compile("lion", loss="features")
    # What was compiled before still holds.
    uap.fit(images[:4], verbose=0)
    with pytest.raises(ValueError, match="no layer 'x'"):
        make_uap(linear()).compile("lion", loss=losses.Features("x"))
    opaque = make_uap(subclassed())
    opaque.compile("lion", loss="features")
    data = tf.data.Dataset.from_tensors(images)
    with pytest.raises(ValueError, match="layers cannot be seen"):
        opaque.fit(data, verbose=0)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: losses.Dominant(0.0), "cap="),
        (lambda: losses.Dominant(np.nan), "cap="),
        (lambda: losses.Features(3), "layer="),
        (lambda: losses.WeightedSum([]), "losses"),
        (lambda: losses.WeightedSum(["margin"], [1.0, 2.0]), "weights="),
        (lambda: losses.WeightedSum(["margin"], [0.0]), "weights="),
        (lambda: losses.WeightedSum(["hinge"]), "loss='hinge'"),
        (
            lambda: losses.WeightedSum(
                [losses.Features(), losses.Features("a")]
            ),
            "one layer",
        ),
    ],
)
def test_bad_arguments(make, says):
    with pytest.raises((ValueError, TypeError), match=says):
        make()


def test_importable_from_the_package():
    assert keras_uap.losses.Dominant is losses.Dominant
