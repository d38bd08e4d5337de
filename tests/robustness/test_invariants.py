"""What must hold in every mode, checked after every batch.

Random draws of updates, norms, masks, targets, batch sizes, precisions and
pixel ranges. After every batch `v` is finite, inside the ball and zero off the
mask. After the run the metrics equal a recount by NumPy, and what the caller
handed in is as it was.
"""

import collections

import hypothesis
import keras
import models
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import keras_uap
from keras_uap.perturbations.lp_ball import lp_norm

NORMS = st.sampled_from(["linf", "l2"])
SEEDS = st.integers(0, 999)


def powers(low, high):
    return st.floats(low, high).map(lambda power: 10.0**power)


# What `compile` is given, made from drawn arguments.
OPTIMIZERS = {
    name: st.just(name).map(lambda name: lambda: name)
    for name in ("lion", "sgd", "adam")
} | {
    "momentum": powers(-4, 30).map(
        lambda rate: lambda: keras.optimizers.SGD(rate, 0.9)
    ),
    "deepfool": st.builds(
        lambda *arguments: (
            lambda: keras_uap.DeepFool(
                arguments[0], step_size=arguments[1], momentum=arguments[2]
            )
        ),
        st.integers(2, 5),
        st.floats(0.1, 5),
        st.floats(0, 0.99),
    ),
    "one by one": st.just(lambda: keras_uap.DeepFool(3, one_by_one=True)),
}


@st.composite
def masks(draw):
    shape = draw(st.sampled_from([models.SHAPE[:2], models.SHAPE]))
    rng = np.random.default_rng(draw(SEEDS))
    mask = rng.uniform(size=shape) < draw(st.floats(0.02, 1))
    mask.flat[0] = True
    return mask.astype("float32")


@st.composite
def modes(draw, devices=1):
    """One way to fit: the classifier, the images and all the arguments."""
    updates = [*OPTIMIZERS]
    if devices > 1:
        updates.remove("one by one")
    update = draw(st.sampled_from(updates))
    activation = draw(st.sampled_from(["softmax", "linear", "sigmoid"]))
    classes = 1 if activation == "sigmoid" else draw(st.integers(2, 5))
    low, high = draw(st.sampled_from([(0, 1), (-1, 1), (0, 255)]))
    norm = draw(NORMS)
    epsilon = (high - low) * draw(powers(-3, -0.3))
    targets = st.none()
    if update not in ("deepfool", "one by one"):
        targets |= st.integers(0, max(classes, 2) - 1)
    return {
        "update": update,
        "optimizer": draw(OPTIMIZERS[update]),
        "loss": draw(st.sampled_from(["crossentropy", "margin"])),
        "eager": devices == 1 and draw(st.sampled_from([True] * 3 + [False])),
        "classifier": draw(st.sampled_from(["cnn", "linear"])),
        "dtype": draw(st.sampled_from(["float32", "mixed_float16"])),
        "activation": activation,
        "classes": classes,
        "seed": draw(SEEDS),
        "range": (low, high),
        "clips": draw(st.sampled_from([True] * 4 + [False])),
        "bytes": high == 255 and draw(st.booleans()),
        "norm": norm,
        "epsilon": epsilon * 10 if norm == "l2" else epsilon,
        "mask": draw(st.none() | masks()),
        "target": draw(targets),
        "images": draw(st.integers(3, 24)),
        "batch_size": devices * draw(st.sampled_from([1, 2, 5, 7, 16, 64])),
    }


def labels_of(classifier, images):
    scores = np.asarray(classifier.predict(images, verbose=0), "float64")
    if scores.shape[-1] == 1:
        return (scores[:, 0] > 0.5).astype(int)
    return scores.argmax(-1)


def make_classifier(mode):
    if mode["classifier"] == "linear":
        return models.linear(mode["classes"], mode["activation"], mode["seed"])
    return models.cnn(
        mode["activation"],
        mode["dtype"],
        0.5,
        mode["classes"],
        mode["range"],
        mode["seed"],
    )


def make_images(mode):
    low, high = mode["range"]
    images = models.images(mode["images"], mode["seed"])
    images = images * np.float32(high - low) + np.float32(low)
    return images.astype("uint8") if mode["bytes"] else images


def check_mode(mode, count):
    """Fits in one mode and checks all invariants."""
    count("runs")
    count(f"runs of {mode['update']}")
    images, mask = make_images(mode), mode["mask"]
    copy = images.copy()
    free, mask_copy = np.ones(models.SHAPE), None
    if mask is not None:
        mask_copy = mask.copy()
        free = free * mask.reshape(*mask.shape, *[1] * (3 - mask.ndim))
    classifier = make_classifier(mode)
    weights = [w.copy() for w in classifier.get_weights()]
    flags = [layer.trainable for layer in classifier.layers]
    uap = keras_uap.UniversalPerturbation(
        classifier,
        mode["epsilon"],
        mode["norm"],
        value_range=mode["range"] if mode["clips"] else None,
        mask=mask,
        target=mode["target"],
    )
    uap.compile(
        mode["optimizer"](), loss=mode["loss"], run_eagerly=mode["eager"]
    )

    def check(model):
        v = np.asarray(model.v)
        count("invariants checked", 3)
        assert np.isfinite(v).all()
        assert lp_norm(v, mode["norm"]) <= mode["epsilon"]
        assert not v[free == 0].any()

    history = uap.fit(
        images,
        batch_size=mode["batch_size"],
        epochs=2,
        validation_data=images[: max(2, len(images) // 2)],
        callbacks=[models.EachBatch(check)],
        verbose=0,
    ).history
    check(uap)

    clean = images.astype("float32")
    expected = clean + uap.perturbation
    if mode["clips"]:
        expected = np.clip(expected, *mode["range"])
    count("invariants checked", 7)
    np.testing.assert_array_equal(uap.perturb(images), expected)
    np.testing.assert_array_equal(images, copy)
    if mask is not None:
        np.testing.assert_array_equal(mask, mask_copy)
    for before, after in zip(weights, classifier.get_weights()):
        np.testing.assert_array_equal(before, after)
    assert flags == [layer.trainable for layer in classifier.layers]
    for key, values in history.items():
        assert "loss" in key or np.isfinite(values).all(), key

    before, after = (
        labels_of(classifier, clean),
        labels_of(classifier, expected),
    )
    measured = uap.evaluate(images, verbose=0, return_dict=True)
    # In float16 an image may lie between two labels that tie.
    half = mode["classifier"] == "cnn" and mode["dtype"] != "float32"
    slack = 1.5 / len(images) if half else 1e-6
    recount = np.mean(before != after)
    assert abs(measured["fooling_rate"] - recount) <= slack
    if mode["target"] is not None:
        count("invariants checked")
        others = before != mode["target"]
        recount = np.mean(after[others] == mode["target"]) if any(others) else 0
        slack *= len(others) / max(1, sum(others))
        assert abs(measured["target_rate"] - recount) <= slack


def test_all_modes(draws, seed, count):
    @draws(175, 10)
    @given(modes())
    def check(mode):
        keras.utils.set_random_seed(seed)
        check_mode(mode, count)

    check()


# Two logical devices must be told before TensorFlow starts, so they have a
# process of their own.


def on_two_devices(seed, runs):
    """Fits on two logical devices; returns the counts."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    counts = collections.Counter()

    def count(what, number=1):
        counts[what] += number

    @hypothesis.settings(max_examples=runs, deadline=None, database=None)
    @hypothesis.seed(seed)
    @given(modes(devices=2))
    def check(mode):
        keras.utils.set_random_seed(seed)
        with strategy.scope():
            check_mode(mode, count)
        count("runs on two devices")

    check()
    return counts


def test_on_two_devices(child, quick, seed, count):
    if quick:
        pytest.skip("not in the sample")
    counts = child("test_invariants", "on_two_devices", seed, 13)
    for what, number in counts.items():
        count(what, number)


@st.composite
def layers(draw):
    """A layer that trains, and how the model around it is trained."""
    layer = {
        "epsilon": draw(powers(-3, 0.5)),
        "norm": draw(NORMS),
        "pool_size": draw(st.integers(1, 3)),
        "rate": draw(st.floats(0, 1)),
    }
    names = ["adam", "sgd", "rmsprop", "lion"]
    return (
        layer,
        draw(st.sampled_from(names)),
        draw(st.sampled_from([1, 3, 8])),
    )


def test_layer_that_trains(draws, seed, count):
    """A layer that trains its perturbation along with a classifier."""

    @draws(25, 2)
    @given(layers())
    def check(case):
        arguments, optimizer, batch_size = case
        keras.utils.set_random_seed(seed)
        layer = keras_uap.PerturbationLayer(value_range=(0, 1), **arguments)
        classifier = models.linear(activation="softmax")
        model = keras.Sequential([keras.Input(models.SHAPE), layer, classifier])
        model.compile(
            optimizer, "sparse_categorical_crossentropy", run_eagerly=True
        )

        def in_the_ball(_):
            count("invariants checked", 2)
            for v in np.asarray(layer.perturbations):
                assert np.isfinite(v).all()
                assert lp_norm(v, layer.norm) <= layer.epsilon

        model.fit(
            models.images(20),
            np.arange(20) % 4,
            batch_size=batch_size,
            callbacks=[models.EachBatch(in_the_ball)],
            verbose=0,
        )
        count("runs")
        count("runs of a layer that trains")

    check()
