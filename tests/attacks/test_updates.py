"""A new update is one class, and so is a new loss."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_uap
from keras_uap import losses
from keras_uap.attacks import updates


class Halfway(updates.Update):
    """Moves v halfway towards the mean difference from grey."""

    on_several_devices = False
    with_target = False
    with_xla = False

    def __init__(self):
        super().__init__()
        self.seen = keras.metrics.Sum(name="seen")
        self.metrics = [self.seen]

    def __call__(self, model, images, clean):
        self.seen.update_state(tf.size(clean.labels))
        goal = tf.reduce_mean(images, axis=0) - 0.5
        model.v.assign(model.ball.project(0.5 * (model.v + goal)))
        scores = model.adapter.logits(model.perturbed(images))
        predicted = tf.argmax(scores, axis=-1)
        return updates.Step(predicted, tf.size(predicted))


def test_toy_update_is_a_class_and_nothing_else(linear, images, make_uap):
    uap = make_uap(linear(), 0.05)
    uap.compile(Halfway())
    history = uap.fit(images, epochs=2, batch_size=8, verbose=0).history
    assert history["seen"] == [len(images)] * 2
    assert history["model_passes"] == [len(images)] * 2
    assert 0 < history["norm"][-1] <= 0.05
    assert "loss" not in history


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda make: make(target=1), "Halfway cannot reach a target"),
        (lambda make: make(jit_compile=True), "jit_compile=True"),
    ],
)
def test_an_update_says_what_it_cannot(ask, says, linear, make_uap):
    def make(target=None, jit_compile=False):
        uap = make_uap(linear(), target=target)
        uap.compile(Halfway(), jit_compile=jit_compile)

    with pytest.raises(ValueError, match=says):
        ask(make)


def test_an_update_for_one_device_is_refused_on_two():
    with pytest.raises(ValueError, match="several devices"):
        Halfway().refuse_fit(2, None)


class SameFeatures(losses.BatchLoss):
    """The inner product of features and clean features."""

    needs_features = True

    def summary(self, y_true, y_pred):
        return tf.reduce_sum(tf.one_hot(y_true, y_pred.shape[-1]), axis=0)

    def call(self, y_true, y_pred, seen):
        # Known in the test: half of the images are of one class.
        tf.debugging.assert_equal(
            tf.reduce_sum(seen.summary), tf.cast(tf.size(y_true), "float32")
        )
        return tf.reduce_sum(seen.features * seen.clean_features, axis=-1)


def test_toy_loss_of_features_is_a_class_and_nothing_else(
    linear, images, make_uap
):
    uap = make_uap(linear(), 0.05)
    uap.compile("sgd", loss=SameFeatures())
    history = uap.fit(images, batch_size=len(images), verbose=0).history
    # The head of a linear classifier is given the image: the gradient is it.
    assert history["model_passes"] == [2 * len(images)]
    flat = images.reshape(len(images), -1)
    assert history["loss"][0] == pytest.approx(
        float(np.mean(np.sum(flat * flat, axis=-1))), rel=1e-4
    )
    direction = -images.sum(axis=0)
    assert np.mean(np.sign(uap.perturbation) == np.sign(direction)) > 0.99


def test_features_are_the_inputs_of_the_head(cnn, images):
    from keras_uap.classifiers.logits import features_function, logits_function

    for activation in ("softmax", None):
        model = cnn(activation)
        features, logits = features_function(model)(images)
        before = keras.Model(model.inputs, model.layers[-1].input)
        np.testing.assert_allclose(features, before(images), rtol=1e-6)
        np.testing.assert_allclose(
            logits, logits_function(model)(images), atol=1e-5
        )
    named = features_function(model, model.layers[1].name)(images)[0]
    assert named.shape[0] == len(images)
    with pytest.raises(ValueError, match="no layer 'nothing'"):
        features_function(model, "nothing")


def test_features_of_what_cannot_be_seen(subclassed, images):
    from keras_uap.classifiers.logits import features_function

    with pytest.raises(ValueError, match="layers cannot be seen"):
        features_function(subclassed())


def test_loss_of_features_with_an_opaque_classifier(subclassed, images):
    uap = keras_uap.UniversalPerturbation(
        subclassed(), 0.05, value_range=(0, 1)
    )
    uap.compile("lion", loss=SameFeatures())
    with pytest.raises(ValueError, match="layers cannot be seen"):
        uap.fit(images, verbose=0)
