"""Tests of DeepFool, against closed forms and counted model passes."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import slow

import keras_uap


def weights(model):
    return [np.asarray(w, "float64") for w in model.get_weights()]


def closed_form(model, images, num_candidates, confidence=0.0):
    """Minimal perturbations of a linear classifier, in NumPy."""
    kernel, bias = weights(model)
    if kernel.shape[-1] == 1:  # One logit z is two classes, (0, z).
        kernel = np.hstack([np.zeros_like(kernel), kernel])
        bias = np.array([0.0, bias[0]])
    flat = images.reshape(len(images), -1).astype("float64")
    perturbations, labels = [], []
    for scores in flat @ kernel + bias:
        order = np.argsort(-scores, kind="stable")[:num_candidates]
        own, others = order[0], order[1:]
        normals = kernel[:, others] - kernel[:, [own]]
        gaps = scores[own] - scores[others] + confidence
        nearest = np.argmin(gaps / np.linalg.norm(normals, axis=0))
        normal = normals[:, nearest]
        perturbations.append(gaps[nearest] * normal / np.sum(normal**2))
        labels.append(others[nearest])
    return np.reshape(perturbations, images.shape), np.array(labels)


@pytest.mark.parametrize(
    ("classes", "num_candidates"), [(4, 4), (6, 3), (4, 2), (4, 10), (1, 2)]
)
@pytest.mark.parametrize("activation", ["softmax", None])
def test_closed_form(classes, num_candidates, activation, linear, images):
    if classes == 1 and activation == "softmax":
        activation = "sigmoid"
    model = linear(classes, activation)
    result = keras_uap.deepfool(
        model, images, num_candidates, overshoot=0.02, verbose=0
    )
    expected, labels = closed_form(model, images, num_candidates)
    np.testing.assert_allclose(result.perturbations, 1.02 * expected, atol=1e-4)
    np.testing.assert_array_equal(result.labels, labels)
    np.testing.assert_array_equal(result.steps, 1)
    assert result.converged.all()
    moved = keras_uap.logits_function(model)(images + result.perturbations)
    np.testing.assert_array_equal(np.argmax(moved, -1), labels)


@pytest.mark.parametrize("confidence", [0.5, 20.0])
@pytest.mark.parametrize("num_candidates", [2, 4])
def test_closed_form_with_confidence(
    confidence, num_candidates, linear, images
):
    """Exactly to where the other class leads by so many logits."""
    model = linear()
    result = keras_uap.deepfool(
        model,
        images,
        num_candidates,
        overshoot=0.0,
        verbose=0,
        confidence=confidence,
    )
    expected, labels = closed_form(model, images, num_candidates, confidence)
    np.testing.assert_allclose(result.perturbations, expected, atol=1e-4)
    np.testing.assert_array_equal(result.labels, labels)
    assert result.converged.all()
    scores = model.predict(images, verbose=0)
    rows, own = np.arange(40), scores.argmax(-1)
    moved = model.predict(images + result.perturbations, verbose=0)
    np.testing.assert_allclose(
        moved[rows, labels] - moved[rows, own], confidence, atol=1e-3
    )


def by_hand(model, x, num_candidates, overshoot, confidence, max_steps=50):
    """DeepFool of one image in NumPy, with gradients by a tape."""
    network = keras.Model(model.inputs[0], model.layers[-1].output)

    def look(x):
        point = tf.constant(x[np.newaxis], "float32")
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(point)
            z = network(point)
        slopes = np.asarray(
            tape.jacobian(z, point, experimental_use_pfor=False)
        )[0, :, 0]
        return np.asarray(z, "float64")[0], slopes.astype("float64")

    start, _ = look(x)
    order = np.argsort(-start)
    own, others = order[0], order[1:num_candidates]
    total = np.zeros(x.shape)
    for steps in range(max_steps + 1):
        z, slopes = look(x + (1 + overshoot) * total)
        best = np.max(np.delete(z, own))
        if best - z[own] >= confidence and best > z[own]:
            return (1 + overshoot) * total, steps, True
        if steps == max_steps:
            return (1 + overshoot) * total, steps, False
        nearest = None
        for k in others:
            slope = slopes[k] - slopes[own]
            gap = confidence + z[own] - z[k]
            step = gap * slope / np.sum(slope**2)
            if nearest is None or np.sum(step**2) < np.sum(nearest**2):
                nearest = step
        total += nearest


@pytest.mark.slow
@pytest.mark.parametrize("confidence", [0.0, 2.0])
def test_agrees_with_numpy_on_a_network(confidence, cnn, images):
    model = cnn(activation=None)
    images = images[:12]
    result = keras_uap.deepfool(
        model,
        images,
        3,
        0.05,
        max_steps=8,
        verbose=0,
        confidence=confidence,
    )
    assert result.steps.max() > 1
    for x, increment, steps, converged in zip(
        images, result.perturbations, result.steps, result.converged
    ):
        expected = by_hand(model, x, 3, 0.05, confidence, 8)
        np.testing.assert_allclose(increment, expected[0], atol=1e-3)
        assert (steps, converged) == expected[1:]


def dominant_by_hand(model, images, labels, confidence):
    """Increments to the dominant boundary of a linear classifier, in NumPy."""
    kernel, bias = weights(model)
    scores = images.reshape(len(images), -1).astype("float64") @ kernel + bias
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    p[np.arange(len(p)), labels] = 0.0
    dominant = p.sum(0).argmax()
    increments = []
    for z, own in zip(scores, labels):
        goal = dominant
        if own == goal:
            goal = np.argmax(np.where(np.arange(len(z)) == own, -np.inf, z))
        slope = kernel[:, goal] - kernel[:, own]
        gap = max(confidence - (z[goal] - z[own]), 0.0)
        increments.append(gap * slope / np.sum(slope**2))
    return np.reshape(increments, images.shape), dominant


@pytest.mark.parametrize("max_steps", [1, 3])
@pytest.mark.parametrize("confidence", [0.0, 4.0, 10.0])
def test_dominant_boundary_of_a_linear_classifier(
    max_steps, confidence, linear, images
):
    model = linear()
    logits = keras_uap.logits_function(model)
    # Some images are already beyond it, and some are of the dominant class.
    labels = np.argmax(logits(images[::-1].copy()), -1)
    rule = keras_uap.DeepFool(
        overshoot=0.02, max_steps=max_steps, confidence=confidence
    )
    assert rule.boundary == "dominant"
    batch = rule.minimal_perturbations(logits, tf.constant(images), labels)
    expected, dominant = dominant_by_hand(model, images, labels, confidence)
    done = np.all(expected == 0, axis=(1, 2, 3))
    assert 0 < done.sum() < 40
    assert np.any(labels == dominant)
    np.testing.assert_allclose(batch.increments, 1.02 * expected, atol=1e-4)
    np.testing.assert_array_equal(batch.steps, ~done)
    assert np.all(batch.converged)
    np.testing.assert_array_equal(
        batch.first_labels, np.argmax(logits(images), -1)
    )
    if max_steps == 1:
        # A forward of all, then a backward of all, or both of those left.
        left = np.sum(~done)
        assert int(batch.passes) == 40 + min(40, 2 * left)


def test_dominant_boundary_within_a_fit(linear, images, make_uap):
    """One batch from v = 0 steps along the sum of the directions."""
    model = linear()
    labels = model.predict(images, verbose=0).argmax(-1)
    uap = make_uap(model, 100.0, value_range=None)
    uap.compile(keras_uap.DeepFool(step_size=0.04, momentum=0.0))
    history = uap.fit(images, batch_size=40, verbose=0).history
    increments, _ = dominant_by_hand(model, images, labels, 10.0)
    # Each counts as a direction alone; some have a long way, some a short one.
    lengths = np.linalg.norm(increments.reshape(40, -1), axis=-1)
    assert lengths.max() > 1.2 * lengths.min() > 0
    total = np.einsum("nhwc,n->hwc", increments, 1 / lengths)
    np.testing.assert_allclose(
        uap.perturbation, 4.0 * total / np.abs(total).mean(), rtol=1e-3
    )
    assert history["model_passes"] == [80]
    assert history["not_converged"] == [0]


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_dominant_leaves_out_images_without_a_gradient(value, broken, images):
    images[:, 0, 0, 0] = np.where(np.arange(40) % 3 == 0, 0.9, 0.1)
    lost = np.arange(40) % 3 == 0
    batch = keras_uap.DeepFool(confidence=1e3).minimal_perturbations(
        keras_uap.logits_function(broken(value, 0.5)), tf.constant(images)
    )
    np.testing.assert_array_equal(batch.converged, ~lost)
    np.testing.assert_array_equal(batch.increments.numpy()[lost], 0.0)
    assert np.isfinite(batch.increments).all()


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [slow(1), 7])
def test_batches_do_not_change_the_result(batch_size, cnn, images):
    model = cnn()
    whole = keras_uap.deepfool(model, images, batch_size=40, verbose=0)
    parts = keras_uap.deepfool(model, images, batch_size=batch_size, verbose=0)
    assert whole.converged.all()
    assert whole.steps.max() > 1  # The network is not linear.
    np.testing.assert_allclose(
        parts.perturbations, whole.perturbations, atol=1e-5
    )
    for name in ("labels", "steps", "converged"):
        np.testing.assert_array_equal(
            getattr(parts, name), getattr(whole, name)
        )


def test_the_label_changes_and_half_the_way_does_not(cnn, images):
    model = cnn()
    result = keras_uap.deepfool(model, images, overshoot=0.02, verbose=0)

    def label(x):
        return model.predict(x, verbose=0).argmax(-1)

    clean = label(images)
    np.testing.assert_array_equal(
        label(images + result.perturbations), result.labels
    )
    assert np.all(result.labels != clean)
    half = label(images + 0.5 * result.perturbations)
    assert np.mean(half == clean) > 0.9


@pytest.mark.slow
def test_more_candidates_are_never_further(linear, images):
    model = linear(6)
    lengths = [
        np.linalg.norm(
            keras_uap.deepfool(
                model, images, k, verbose=0
            ).perturbations.reshape(40, -1),
            axis=1,
        )
        for k in (2, 4, 6)
    ]
    assert np.all(lengths[0] >= lengths[1] - 1e-5)
    assert np.all(lengths[1] >= lengths[2] - 1e-5)
    assert np.any(lengths[0] > lengths[2] + 1e-3)


@pytest.mark.parametrize(
    "value", [np.nan, slow(0.0), slow(np.inf), slow(1e-21), slow(1e25)]
)
def test_images_without_a_gradient_are_left_out(value, broken, linear, images):
    images[:, 0, 0, 0] = np.where(np.arange(40) % 3 == 0, 0.9, 0.1)
    result = keras_uap.deepfool(broken(value, 0.5), images, verbose=0)
    lost = np.arange(40) % 3 == 0
    np.testing.assert_array_equal(result.converged, ~lost)
    np.testing.assert_array_equal(result.perturbations[lost], 0.0)
    np.testing.assert_array_equal(result.steps[lost], 0)
    others, _ = closed_form(linear(), images[~lost], 10)
    np.testing.assert_allclose(
        result.perturbations[~lost], 1.02 * others, atol=1e-4
    )


@pytest.mark.slow
def test_too_few_steps_do_not_converge(cnn, images):
    one = keras_uap.deepfool(cnn(), images, max_steps=1, verbose=0)
    many = keras_uap.deepfool(cnn(), images, verbose=0)
    np.testing.assert_array_equal(one.converged, many.steps == 1)
    np.testing.assert_array_equal(one.steps, 1)
    assert not one.converged.all()
    assert np.isfinite(one.perturbations).all()


@pytest.mark.slow
def test_mixed_precision(cnn, images):
    result = keras_uap.deepfool(cnn(dtype="mixed_float16"), images, verbose=0)
    full = keras_uap.deepfool(cnn(), images, verbose=0)
    assert result.perturbations.dtype == np.float32
    assert result.converged.all()
    distance = np.linalg.norm(result.perturbations.reshape(40, -1), axis=1)
    expected = np.linalg.norm(full.perturbations.reshape(40, -1), axis=1)
    np.testing.assert_allclose(distance, expected, atol=0.05)


def test_images_and_classifier_are_left_as_they_are(cnn, images):
    model = cnn(dropout=0.3)
    before = [variable.numpy() for variable in model.variables]
    copy = images.copy()
    images.flags.writeable = False
    keras_uap.deepfool(model, images, verbose=0)
    np.testing.assert_array_equal(images, copy)
    for variable, value in zip(model.variables, before):
        np.testing.assert_array_equal(variable, value)


class CountedLogits:
    """A logits function that counts the images it takes, there and back."""

    def __init__(self, logits):
        self.logits = logits
        self.forwards = self.backwards = 0

    def __call__(self, images):
        @tf.custom_gradient
        def count(x):
            def backward(upstream):
                self.backwards += len(upstream)
                return upstream

            self.forwards += len(x)
            return x, backward

        return self.logits(count(images))


@pytest.mark.parametrize("share_fooled", [0.0, 0.5, 1.0])
def test_model_passes_to_the_dominant_boundary(share_fooled, cnn, images):
    logits = CountedLogits(keras_uap.logits_function(cnn()))
    labels = np.argmax(logits(tf.constant(images)), -1)
    fooled = np.arange(40) < 40 * share_fooled
    labels = np.where(fooled, (labels + 1) % 4, labels)
    for max_steps in (1, 3):
        logits.forwards = logits.backwards = 0
        rule = keras_uap.DeepFool(max_steps=max_steps, confidence=1.0)
        batch = rule.minimal_perturbations(logits, tf.constant(images), labels)
        assert int(batch.passes) == logits.forwards + logits.backwards
        assert logits.forwards >= 40
        assert max(batch.steps) <= max_steps


@pytest.mark.parametrize("num_candidates", [2, 4])
@pytest.mark.parametrize("share_fooled", [0.0, 0.5, 1.0])
def test_model_passes_are_counted_right(
    num_candidates, share_fooled, cnn, images
):
    logits = CountedLogits(keras_uap.logits_function(cnn()))
    labels = np.argmax(logits(tf.constant(images)), -1)
    fooled = np.arange(40) < 40 * share_fooled
    labels = np.where(fooled, (labels + 1) % 4, labels)
    logits.forwards = 0
    rule = keras_uap.DeepFool(num_candidates, boundary="nearest")
    batch = rule.minimal_perturbations(logits, tf.constant(images), labels)
    assert int(batch.passes) == logits.forwards + logits.backwards
    assert logits.forwards >= 40
    # Images that have another label from the start need no step.
    np.testing.assert_array_equal(batch.steps[fooled], 0)
    assert np.all(batch.converged)
    if share_fooled == 1.0:
        assert (logits.forwards, logits.backwards) == (40, 0)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("num_candidates", 1),
        ("num_candidates", 2.5),
        ("num_candidates", True),
        ("overshoot", -0.1),
        ("overshoot", np.nan),
        ("max_steps", 0),
        ("confidence", -0.5),
        ("batch_size", 0),
        ("batch_size", 2.0),
        ("images", np.zeros((0, 8, 8, 3))),
        ("images", np.zeros(())),
        ("images", np.full((2, 8, 8, 3), np.nan)),
        ("images", np.full((2, 8, 8, 3), "a")),
        ("from_logits", "no"),
    ],
)
def test_bad_arguments(argument, value, linear, images):
    arguments = {"images": images, argument: value}
    with pytest.raises((ValueError, TypeError), match=argument):
        keras_uap.deepfool(linear(), verbose=0, **arguments)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("step_size", 0.0),
        ("step_size", np.inf),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("boundary", "nearer"),
        ("confidence", -1.0),
        ("confidence", np.inf),
    ],
)
def test_bad_arguments_of_the_rule(argument, value):
    with pytest.raises(ValueError, match=argument):
        keras_uap.DeepFool(**{argument: value})


def test_the_dominant_boundary_is_one_of_a_whole_batch():
    for arguments in ({"one_by_one": True}, {"num_candidates": 3}):
        with pytest.raises(ValueError, match="Pass boundary='nearest'"):
            keras_uap.DeepFool(boundary="dominant", **arguments)


def test_what_a_rule_is_where_nothing_is_said():
    def settings(**arguments):
        rule = keras_uap.DeepFool(**arguments)
        return rule.boundary, rule.confidence, rule.max_steps

    assert settings() == ("dominant", 10.0, 1)
    paper = ("nearest", 0.0, 50)
    assert settings(one_by_one=True) == paper
    assert settings(num_candidates=10) == paper
    assert settings(boundary="nearest") == paper


def test_a_rule_of_a_file_without_a_boundary_is_the_papers():
    old = {
        "num_candidates": 2,
        "overshoot": 0.02,
        "max_steps": 50,
        "one_by_one": False,
        "step_size": 0.8,
        "momentum": 0.9,
    }
    rule = keras_uap.DeepFool.from_config(old)
    assert (rule.boundary, rule.confidence) == ("nearest", 0.0)
    assert rule.get_config() == old | {"boundary": "nearest", "confidence": 0.0}


def test_images_of_another_size(linear):
    with pytest.raises(ValueError, match="size that the classifier takes"):
        keras_uap.deepfool(linear(), np.zeros((2, 9, 8, 3)), verbose=0)
    with pytest.raises(TypeError, match="classifier"):
        keras_uap.deepfool(len, np.zeros((2, 8, 8, 3)))


@pytest.mark.slow
def test_opaque_model_of_whole_numbers(subclassed, images):
    model = subclassed()
    result = keras_uap.deepfool(
        model, np.round(images).astype("uint8"), verbose=0
    )
    assert result.converged.all()


def test_round_trip_of_the_rule():
    schedule = keras.optimizers.schedules.PolynomialDecay(0.5, 10, 0.1)
    rule = keras_uap.DeepFool(
        np.int64(3), 0.1, 7, one_by_one=True, step_size=schedule, momentum=0.5
    )
    config = keras.saving.serialize_keras_object(rule)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == rule.get_config()
    assert float(again.step_size(5)) == float(schedule(5))


@pytest.mark.slow
def test_deleted_classifiers_are_let_go_of(cnn, subclassed, images):
    for make in (cnn, subclassed):
        model = make()
        keras_uap.deepfool(model, images[:4], verbose=0)
        refs = [weakref.ref(layer) for layer in model._flatten_layers()]
        refs += [weakref.ref(variable) for variable in model.variables]
        del model
        gc.collect()
        assert [ref() for ref in refs] == [None] * len(refs)
