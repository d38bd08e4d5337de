"""Scores that are not finite are never a prediction."""

import dataclasses
import json

import keras
import models
import numpy as np
import pytest
import tensorflow as tf

import keras_uap
from keras_uap.classifiers.logits import labels_of

SHAPE = models.SHAPE


@keras.saving.register_keras_serializable(package="keras_uap_tests")
class NanOnBright(keras.layers.Layer):
    """Gives NaN for images whose first pixel is above a half."""

    def call(self, inputs):
        bright = tf.reshape(inputs[:, 0, 0, 0] > 0.5, (-1, 1, 1, 1))
        return tf.where(bright, np.nan, inputs)


def nan_on_bright():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            NanOnBright(),
            layers.Flatten(),
            layers.Dense(4),
        ]
    )


def always(value):
    """A classifier that overflows, as one in float16 may."""
    model = models.linear()
    kernel, bias = model.get_weights()
    model.set_weights([kernel, np.full_like(bias, value)])
    return model


@pytest.mark.parametrize(
    ("logits", "label"),
    [
        ([1.0, 3.0, 2.0], 1),
        # A class that is switched off.
        ([-np.inf, -3.0, -5.0], 1),
        ([np.nan, 3.0, 2.0], -1),
        ([np.inf, 3.0, 2.0], -1),
        ([-np.inf, -np.inf, -np.inf], -1),
    ],
)
def test_labels(logits, label):
    assert labels_of(np.array([logits], "float32")).numpy().tolist() == [label]


@pytest.mark.parametrize(
    "classifier",
    [nan_on_bright, lambda: always(np.inf), lambda: always(np.nan)],
)
def test_they_are_refused_everywhere(classifier, images):
    model, v = classifier(), np.full(SHAPE, 0.05, "float32")
    arguments = {"value_range": (0, 1)}
    uap = keras_uap.UniversalPerturbation(model, 0.05, **arguments)
    uap.compile("lion")
    uap.perturbation = v
    data = tf.data.Dataset.from_tensor_slices(images).batch(8)
    calls = {
        "audit": lambda: keras_uap.audit(
            model, images, epsilon=0.05, verbose=0, **arguments
        ),
        "report": lambda: keras_uap.analysis.fooling_report(
            model, v, images, **arguments
        ),
        "fit": lambda: uap.fit(images, verbose=0),
        "fit of a dataset": lambda: uap.fit(data, verbose=0),
        "evaluate": lambda: uap.evaluate(images, verbose=0),
        "evaluate of a dataset": lambda: uap.evaluate(data, verbose=0),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match="scores"):
            print(name, call())


def test_how_many_images_have_none(images):
    count = int(np.sum(images[:, 0, 0, 0] > 0.5))
    with pytest.raises(ValueError, match=f"for {count} of 40 images, first"):
        keras_uap.analysis.fooling_report(
            nan_on_bright(), np.zeros(SHAPE), images, value_range=(0, 1)
        )


def test_json_has_no_nan(images):
    report = keras_uap.analysis.fooling_report(
        models.linear(), np.zeros(SHAPE), images, value_range=(0, 1)
    )
    report = dataclasses.replace(
        report, fooled_confidence=float("nan"), random_rate=np.float64("inf")
    )

    def refuse(constant):
        raise AssertionError(constant)

    values = json.loads(report.to_json(), parse_constant=refuse)
    assert values["fooled_confidence"] is None
    assert values["random_rate"] is None
