"""Tests of `UniversalPerturbation`: what one batch of an update does."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import SHAPE, UPDATES, slow

import keras_uap
from keras_uap.perturbations.lp_ball import lp_norm

# Algorithm 1 ------------------------------------------------------------------


def algorithm_1(
    images, scores, jacobian, epsilon, norm, value_range, rule
):  # fmt: skip
    """One pass of the paper's Algorithm 1 in NumPy, float64."""

    def label(x):
        return np.argmax(scores(x))

    def deepfool(x, own):
        classes = np.argsort(-scores(x))[: rule.num_candidates]
        total = np.zeros_like(x)
        for _ in range(rule.max_steps):
            point = x + (1 + rule.overshoot) * total
            if label(point) != own:
                break
            f, w = scores(point), jacobian(point)
            steps = [
                (f[own] - f[k]) * (w[k] - w[own]) / np.sum((w[k] - w[own]) ** 2)
                for k in classes[1:]
            ]
            total = total + min(steps, key=np.linalg.norm)
        increment = (1 + rule.overshoot) * total
        return increment if label(x + increment) != own else 0.0 * total

    v = np.zeros(images.shape[1:])
    for x in images.astype("float64"):
        own = label(x)
        moved = x + v if value_range is None else np.clip(x + v, *value_range)
        if label(moved) == own:
            v = v + deepfool(moved, own)
            if norm == "linf":
                v = np.clip(v, -epsilon, epsilon)
            else:
                v = v * min(1.0, epsilon / np.linalg.norm(v))
    return v


def linear_by_hand(model):
    kernel, bias = (np.asarray(w, "float64") for w in model.get_weights())
    rows = kernel.T.reshape(-1, *SHAPE)
    return (lambda x: x.reshape(-1) @ kernel + bias), (lambda x: rows)


def cnn_by_tape(model):
    logits = keras.Model(model.inputs[0], model.layers[-1].output)

    def scores(x):
        return np.asarray(logits(x[np.newaxis].astype("float32")))[0]

    def jacobian(x):
        point = tf.constant(x[np.newaxis], "float32")
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(point)
            outputs = logits(point)
        # Tracing a vectorized one would take longer than four gradients.
        slopes = tape.jacobian(outputs, point, experimental_use_pfor=False)
        return np.asarray(slopes, "float64")[0, :, 0]

    return scores, jacobian


@pytest.mark.parametrize(
    ("kind", "num_candidates", "norm", "value_range"),
    [
        ("linear", 2, "linf", None),
        slow("linear", 4, "l2", (0, 1)),
        slow("cnn", 2, "linf", (0, 1)),
        ("cnn", 4, "l2", None),
    ],
)
def test_one_by_one_is_algorithm_1(
    kind, num_candidates, norm, value_range, linear, cnn, images, make_uap
):
    epsilon = 0.03 if norm == "linf" else 0.25
    if kind == "linear":
        classifier = linear(activation="softmax")
        by_hand = linear_by_hand(classifier)
    else:
        classifier = cnn(activation=None)
        by_hand = cnn_by_tape(classifier)
        images = images[:12]
    rule = keras_uap.DeepFool(num_candidates, one_by_one=True)
    uap = make_uap(classifier, epsilon, norm=norm, value_range=value_range)
    uap.compile(rule)
    uap.fit(images, batch_size=7, shuffle=False, verbose=0)
    expected = algorithm_1(images, *by_hand, epsilon, norm, value_range, rule)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(uap.perturbation, expected, atol=1e-4)


def test_batch_step_is_the_normed_sum_of_increments(linear, images, make_uap):
    """One batch from v = 0: a step of step_size * epsilon, on average."""
    model = linear()
    uap = make_uap(model, 100.0, value_range=None)
    uap.compile(
        keras_uap.DeepFool(step_size=0.04, momentum=0.0, boundary="nearest")
    )
    uap.fit(images, batch_size=40, verbose=0)
    increments = keras_uap.deepfool(model, images, 2, verbose=0).perturbations
    total = increments.sum(axis=0)
    np.testing.assert_allclose(
        uap.perturbation, 4.0 * total / np.abs(total).mean(), rtol=1e-3
    )


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("target", [None, 2])
def test_gradient_step_is_down_the_loss(
    masked, target, linear, images, make_uap
):
    """SGD with learning rate 1: a step of 1 on average, where v may live."""
    model = linear()
    mask = np.zeros(SHAPE[:2])
    mask[2:5, 3:6] = 1
    uap = make_uap(
        model,
        100.0,
        value_range=None,
        target=target,
        mask=mask if masked else None,
    )
    uap.compile(keras.optimizers.SGD(1.0))
    uap.fit(images, batch_size=40, verbose=0)

    kernel, bias = (np.asarray(w, "float64") for w in model.get_weights())
    scores = images.reshape(40, -1) @ kernel + bias
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    clean = scores.argmax(-1)
    goal = clean if target is None else np.full(40, target)
    # Cross-entropy's gradient by the logits is p - onehot. (Its cap of 9 is
    # out of reach of a clean prediction.)
    by_logits = p - np.eye(4)[goal]
    gradient = (by_logits @ kernel.T).reshape(images.shape).sum(axis=0)
    direction = gradient if target is None else -gradient
    place = np.ones(SHAPE) * (mask[..., np.newaxis] if masked else 1)
    direction = direction * place
    expected = direction / (np.abs(direction).sum() / place.sum())
    np.testing.assert_allclose(uap.perturbation, expected, atol=1e-3)


# Bounds -----------------------------------------------------------------------


def in_bounds(mask):
    def check(model):
        v = model.perturbation
        assert np.isfinite(v).all()
        assert lp_norm(v, model.norm) <= model.epsilon
        if mask is not None:
            assert np.all(v[mask == 0] == 0)

    return check


@pytest.mark.slow
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    update=st.sampled_from(sorted(UPDATES)),
    norm=st.sampled_from(["linf", "l2"]),
    epsilon=st.floats(1e-3, 3.0),
    masked=st.booleans(),
    target=st.none() | st.integers(0, 3),
    dtype=st.sampled_from(["float32", "mixed_float16"]),
    value_range=st.sampled_from([None, (0, 1)]),
)
def test_always_in_the_ball(
    update,
    norm,
    epsilon,
    masked,
    target,
    dtype,
    value_range,
    cnn,
    images,
    make_uap,
    each_batch,
):
    if update in ("deepfool", "nearest", "one_by_one"):
        target = None
    mask = None
    if masked:
        mask = np.random.default_rng(0).integers(0, 2, SHAPE)
    uap = make_uap(
        cnn(dtype=dtype),
        epsilon,
        norm=norm,
        mask=mask,
        target=target,
        value_range=value_range,
    )
    uap.compile(UPDATES[update](), run_eagerly=True)
    check = each_batch(in_bounds(mask))
    uap.fit(images[:12], batch_size=5, verbose=0, callbacks=check)
    assert check.calls == 3


@pytest.mark.parametrize(
    ("update", "norm"), [*zip(UPDATES, itertools.cycle(["l2", "linf"]))]
)
def test_in_the_ball_when_compiled(
    update, norm, cnn, images, make_uap, each_batch
):
    epsilon = 0.0501 if norm == "linf" else 0.701
    uap = make_uap(cnn(dtype="mixed_float16"), epsilon, norm=norm)
    uap.compile(UPDATES[update]())
    check = each_batch(in_bounds(None))
    history = uap.fit(images, verbose=0, epochs=2, callbacks=check).history
    assert check.calls == 6
    assert history["norm"][-1] == lp_norm(uap.perturbation, norm)
    assert np.any(uap.perturbation != 0)


# What is counted --------------------------------------------------------------


@pytest.mark.parametrize(
    ("update", "value"),
    [
        ("deepfool", 0.0),
        ("deepfool", np.inf),
        ("one_by_one", np.nan),
        ("lion", 0.0),
        ("lion", np.nan),
    ],
)
def test_images_without_a_gradient_do_not_count(
    update, value, broken, linear, images, make_uap
):
    """They are counted, and v is what the other images alone make of it."""
    images = images[:16]
    lost = np.arange(16) % 2 == 0
    images[:, 0, 0, 0] = np.where(lost, 0.9, 0.1)
    # The dominant class would be that of all images.
    make = UPDATES[update]
    if update == "deepfool":
        make = functools.partial(keras_uap.DeepFool, boundary="nearest")
    runs = []
    for model, some in (
        (broken(value, 0.5), images),
        (linear(), images[~lost]),
    ):
        uap = make_uap(model, value_range=None)
        uap.compile(make(), run_eagerly=True)
        history = uap.fit(some, batch_size=len(some), shuffle=False, verbose=0)
        runs.append((uap.perturbation, history.history))
    assert np.isfinite(runs[0][0]).all()
    np.testing.assert_allclose(runs[0][0], runs[1][0], atol=1e-5)
    key = "no_gradient" if update == "lion" else "not_converged"
    assert runs[1][1][key] == [0]
    if update == "one_by_one":  # Some are fooled when their turn comes.
        assert 1 <= runs[0][1][key][0] <= 8
    else:
        assert runs[0][1][key] == [8]


@pytest.mark.parametrize("form", ["array", "dataset"])
@pytest.mark.parametrize("update", ["deepfool", "one_by_one", "lion"])
def test_model_passes_are_those_that_were_made(
    update, form, cnn, images, make_uap
):
    """Counted by a layer in front of the classifier."""

    class Counter(keras.layers.Layer):
        passes = 0

        def call(self, inputs):
            @tf.custom_gradient
            def count(x):
                def backward(upstream):
                    Counter.passes += len(upstream)
                    return upstream

                Counter.passes += len(x) if hasattr(x, "numpy") else 0
                return x, backward

            return count(inputs)

    images = images[:12]
    classifier = keras.Sequential([keras.Input(SHAPE), Counter(), cnn()])
    uap = make_uap(classifier)
    uap.compile(UPDATES[update](), run_eagerly=True)
    data = images
    if form == "dataset":
        data = tf.data.Dataset.from_tensor_slices(images).batch(8)
    # The head is compared with the classifier's own once, before any update.
    uap.evaluate(images, verbose=0)
    Counter.passes = 0
    history = uap.fit(data, batch_size=8, verbose=0)
    # The clean predictions of an array come from a compiled function, in
    # which the counter counts nothing: they are no part of the update. Nor are
    # the four images on which the fit compares its trace with the classifier.
    assert history.history["model_passes"] == [Counter.passes - 4]


def test_error_of_one_by_one_leaves_tensorflow_as_it_was(images, make_uap):
    """`tf.scan` would leave a caching device: no scope could be entered."""
    layers = [keras.Input(SHAPE), keras.layers.Flatten()]
    layers += [keras.layers.Lambda(tf.stop_gradient), keras.layers.Dense(3)]
    uap = make_uap(keras.Sequential(layers))
    uap.compile(keras_uap.DeepFool(one_by_one=True))
    with pytest.raises(ValueError, match="no gradient"):
        uap.fit(images, verbose=0)
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        assert tf.distribute.has_strategy()
    assert not tf.distribute.has_strategy()


def test_running_rate_is_before_the_own_update(cnn, images, make_uap):
    """In one batch from v = 0 no image is fooled yet."""
    uap = make_uap(cnn())
    for update in ("deepfool", "lion"):
        uap.perturbation = np.zeros(SHAPE)
        uap.compile(update)
        history = uap.fit(images, batch_size=40, verbose=0)
        assert history.history["fooling_rate"] == [0.0]
