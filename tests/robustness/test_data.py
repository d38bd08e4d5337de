"""Hostile data: bad batches in the middle of a stream, odd classifiers."""

import keras
import models
import numpy as np
import pytest
import tensorflow as tf
from limits import time_limit

import keras_uap

UPDATES = ["deepfool", "lion", "one_by_one"]


def make_uap(classifier, update, **kwargs):
    uap = keras_uap.UniversalPerturbation(classifier, 0.05, value_range=(0, 1))
    uap.compile(models.UPDATES[update](), **kwargs)
    return uap


# Bad batches ------------------------------------------------------------------


def stream(images, bad_batch, bad_epoch, bad):
    """A data set whose batch `bad_batch` is bad from the `bad_epoch`-th run."""
    runs = iter(range(10**6))

    def batches():
        epoch = next(runs)
        for i in range(5):
            x = images[8 * i : 8 * i + 8].copy()
            yield bad(x) if epoch >= bad_epoch and i == bad_batch else x

    return tf.data.Dataset.from_generator(
        batches, output_signature=tf.TensorSpec(None, "float32")
    )


def with_pixel(value):
    def bad(x):
        x[3, 2, 1, 0] = value
        return x

    return bad


BAD_BATCHES = {
    "NaN": with_pixel(np.nan),
    "infinity": with_pixel(np.inf),
    "minus infinity": with_pixel(-np.inf),
    "another height": lambda x: x[:, :-1],
    "other channels": lambda x: x[..., :1],
    "no batch": lambda x: x[0],
}


@pytest.mark.parametrize("bad", BAD_BATCHES)
@pytest.mark.parametrize("update", UPDATES)
def test_bad_batch_in_a_stream(update, bad, quick, count):
    if quick and update != "deepfool":
        pytest.skip("not in the sample")
    count("bad streams tried")
    images = models.images(40)
    uap = make_uap(models.linear(activation="softmax"), update)
    record = models.EachEpoch()
    # TensorFlow's own error names both shapes.
    error, says = tf.errors.InvalidArgumentError, "EnsureShape|shape"
    if bad in ("NaN", "infinity", "minus infinity"):
        error, says = ValueError, "must be finite"
    with pytest.raises(error, match=says):
        uap.fit(
            stream(images, 3, 4, BAD_BATCHES[bad]),
            epochs=20,
            validation_data=images,
            callbacks=[record],
            verbose=0,
        )
    assert 1 <= len(record.seen) < 20
    best = max(rate for rate, _ in record.seen)
    v = [v for rate, v in record.seen if rate == best][-1]
    np.testing.assert_array_equal(uap.perturbation, v)
    assert "ended by" in uap.stop_reason


# Odd classifiers and images ---------------------------------------------------


def constant():
    model = models.linear()
    model.set_weights([0 * w for w in model.get_weights()])
    return model


def behind(value, above):
    return lambda: models.broken(value, above, activation="softmax")


CLASSIFIERS = {
    "usual": lambda: models.linear(activation="softmax"),
    "two classes": lambda: models.linear(2, "softmax"),
    "single logit": lambda: models.linear(1),
    "single probability": lambda: models.linear(1, "sigmoid"),
    "saturated softmax": lambda: models.linear(4, "softmax", scale=1e4),
    "saturated sigmoid": lambda: models.linear(1, "sigmoid", scale=1e4),
    "all scores equal": constant,
    "no gradient": behind(0.0, -1.0),
    "NaN gradients of some": behind(np.nan, 0.5),
    "NaN gradients of all": behind(np.nan, -1.0),
    "infinite gradients of some": behind(np.inf, 0.5),
}
SILENT = {"all scores equal", "no gradient", "NaN gradients of all"}


def odd_images():
    images = models.images(12)
    levels = np.linspace(0, 1, 12).reshape(-1, 1, 1, 1)
    return {
        "usual": images,
        "all black": 0 * images,
        "one image": images[:1],
        "all white": 0 * images + 1,
        "constant": 0 * images + levels.astype("float32"),
        "all alike": images[:1].repeat(12, axis=0),
    }


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_odd_classifier_and_images(classifier, update, quick, count):
    uap = make_uap(CLASSIFIERS[classifier](), update, run_eagerly=quick)
    for images in [*odd_images().values()][: 2 if quick else None]:
        count("odd classifiers and images tried")
        uap.perturbation = np.zeros(models.SHAPE)
        with time_limit(120):
            logs = uap.fit(images, epochs=2, batch_size=5, verbose=0).history
        v = uap.perturbation
        assert np.isfinite(v).all()
        assert np.abs(v).max() <= 0.05
        if classifier in SILENT:
            lost = logs.get("no_gradient", logs.get("not_converged"))
            assert not v.any()
            assert lost[-1] == len(images)


@pytest.mark.parametrize("activation", ["softmax", None])
def test_one_class(activation, count):
    """A softmax with nothing to choose is refused; a single logit is not."""
    count("odd classifiers and images tried")

    def fit():
        layers = [keras.layers.Flatten(), keras.layers.Dense(1, activation)]
        model = keras.Sequential([keras.Input(models.SHAPE), *layers])
        make_uap(model, "deepfool").fit(models.images(8), verbose=0)

    if activation == "softmax":
        with pytest.raises(ValueError, match="class"):
            fit()
    else:
        fit()
