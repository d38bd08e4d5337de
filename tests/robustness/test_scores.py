"""Scores that are not finite: refused with their number, never a label."""

import keras
import models
import numpy as np
import pytest
import tensorflow as tf

import keras_uap

EPSILON = 0.05


@keras.saving.register_keras_serializable(package="keras_uap_tests")
class Spoils(keras.layers.Layer):
    """Puts a value into the scores of images, where a pixel is above a bar."""

    def __init__(self, value, bar, classes=None, **kwargs):
        super().__init__(**kwargs)
        self.value = value
        self.bar = bar
        self.classes = classes

    def call(self, inputs):
        images, scores = inputs
        hit = images[:, 0, 0, :1] > self.bar
        if self.classes is not None:
            hit &= tf.range(models.CLASSES) < self.classes
        return tf.where(hit, self.value, scores)


def spoiled(*arguments):
    inputs = keras.Input(models.SHAPE)
    scores = models.linear()(inputs)
    return keras.Model(inputs, Spoils(*arguments)([inputs, scores]))


def calls(model, images):
    """What takes scores for predictions, by name."""
    v = np.full(models.SHAPE, EPSILON, "float32")
    plain = {"value_range": (0, 1), "from_logits": True, "verbose": 0}
    uap = keras_uap.UniversalPerturbation(
        model, EPSILON, value_range=(0, 1), from_logits=True
    )
    uap.perturbation = v
    data = tf.data.Dataset.from_tensor_slices(images).batch(16)
    return {
        "report": lambda: keras_uap.analysis.fooling_report(
            model, v, images, **plain
        ),
        "audit": lambda: keras_uap.audit(
            model, images, epsilon=EPSILON, **plain
        ),
        "harden": lambda: keras_uap.harden(
            model, images, epsilon=EPSILON, epochs=1, **plain
        ),
        "evaluate": lambda: uap.evaluate(images, verbose=0),
        "evaluate a dataset": lambda: uap.evaluate(data, verbose=0),
        "fit": lambda: uap.fit(images, verbose=0),
        "transfer": lambda: keras_uap.analysis.transfer_matrix(
            {"model": model}, {"v": v}, images, value_range=(0, 1), verbose=0
        ),
    }


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_refused_with_their_number(value, quick, rng, count):
    images = models.images(48)
    for _ in range(1 if quick else 6):
        bars = np.sort(images[:, 0, 0, 0])
        bar = float(bars[rng.integers(0, 47)])
        model = spoiled(value, bar)
        expected = int(np.sum(images[:, 0, 0, 0] > bar))
        for name, call in calls(model, images).items():
            with pytest.raises(ValueError, match="scores") as caught:
                print(name, call())
            count("calls on scores that are not finite, refused")
            if name == "report":
                assert f"for {expected} of 48 images" in str(caught.value)


def test_a_class_that_is_switched_off_is_none(quick, rng, count):
    """Minus infinity is a score; the rates are those of the other classes."""
    images = models.images(48)
    for _ in range(2 if quick else 10):
        classes = int(rng.integers(1, models.CLASSES - 1))
        model = spoiled(-np.inf, -1.0, classes)
        v = EPSILON * rng.choice([-1.0, 1.0], models.SHAPE).astype("float32")
        report = keras_uap.analysis.fooling_report(
            model, v, images, value_range=(0, 1), from_logits=True, verbose=0
        )
        scores = models.linear().predict(images, verbose=0)
        clean = classes + scores[:, classes:].argmax(-1)
        moved = np.clip(images + v, 0, 1)
        scores = models.linear().predict(moved, verbose=0)
        perturbed = classes + scores[:, classes:].argmax(-1)
        assert report.fooling_rate == np.mean(clean != perturbed)
        assert np.isfinite(report.clean_confidence)
        count("reports on classes that are switched off, recounted")
