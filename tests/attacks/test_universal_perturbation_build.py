"""Tests of `UniversalPerturbation`: its arguments and its perturbation."""

import keras
import numpy as np
import pytest
from models import SHAPE

import keras_uap


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("classifier", len, TypeError),
        ("classifier", "resnet", TypeError),
        ("epsilon", 0, ValueError),
        ("epsilon", -3.0, ValueError),
        ("epsilon", np.nan, ValueError),
        ("epsilon", "10", TypeError),
        ("norm", "l1", ValueError),
        ("value_range", (1, 0), ValueError),
        ("value_range", 255, ValueError),
        ("value_range", (0, np.nan), ValueError),
        ("target", 4, ValueError),
        ("target", -1, ValueError),
        ("target", 1.0, TypeError),
        ("target", True, TypeError),
        ("mask", np.zeros(SHAPE), ValueError),
        ("mask", np.ones((7, 8)), ValueError),
        ("mask", np.full(SHAPE, "a"), TypeError),
        ("from_logits", "yes", ValueError),
    ],
)
def test_bad_arguments(argument, value, error, linear):
    arguments = {"classifier": linear(), "epsilon": 0.1, argument: value}
    with pytest.raises(error, match=argument):
        keras_uap.UniversalPerturbation(**arguments)


def test_classifier_without_class_scores(make_uap):
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(2, 3)])
    with pytest.raises(ValueError, match="class scores"):
        make_uap(model)


def test_other_backend(linear, make_uap, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow"):
        make_uap(linear())


# A size that comes from the images --------------------------------------------


def without_a_size():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.Conv2D(4, 3),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, "softmax"),
        ]
    )


def not_built_yet():
    return keras.Sequential(
        [keras.layers.Flatten(), keras.layers.Dense(3, "softmax")]
    )


@pytest.mark.parametrize("make", [without_a_size, not_built_yet])
def test_size_comes_from_the_images(make, images, make_uap):
    uap = make_uap(make())
    with pytest.raises(ValueError, match="no perturbation yet"):
        _ = uap.perturbation
    with pytest.raises(ValueError, match="build"):
        uap.decaying_lion(3)
    uap.compile("lion")
    uap.fit(images, verbose=0)
    assert uap.perturbation.shape == SHAPE
    # "lion" by name steps a tenth of epsilon, also when v is built later.
    assert float(uap.optimizer.learning_rate) == pytest.approx(0.005)


def test_target_of_an_opaque_classifier_is_checked_each_time(
    subclassed, images, make_uap
):
    uap = make_uap(subclassed(), target=4)
    for _ in range(2):
        with pytest.raises(ValueError, match="target=4"):
            uap.fit(images, verbose=0)


# The perturbation that is set -------------------------------------------------


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (np.full(SHAPE, 0.06), ValueError, "outside the ball"),
        (np.full(SHAPE, np.nan), ValueError, "finite"),
        (np.zeros((7, 8, 3)), ValueError, "shape"),
        ("zeros", TypeError, "array of numbers"),
    ],
)
def test_bad_perturbation(value, error, says, linear, make_uap):
    uap = make_uap(linear())
    with pytest.raises(error, match=says):
        uap.perturbation = value
    np.testing.assert_array_equal(uap.perturbation, 0.0)


# Seed -------------------------------------------------------------------------


def test_a_seed_makes_fits_repeatable(linear, images, make_uap):
    def fitted(seed):
        uap = make_uap(linear(), seed=seed)
        uap.compile("lion", "features")  # It starts at random.
        uap.fit(images, batch_size=8, verbose=0)
        return uap.perturbation

    first = fitted(3)
    keras.utils.set_random_seed(11)
    np.testing.assert_array_equal(fitted(3), first)
    assert not np.array_equal(fitted(4), first)


def test_a_seed_is_kept_in_the_config(linear, make_uap):
    config = make_uap(linear(), seed=3).get_config()
    again = keras_uap.UniversalPerturbation.from_config(config)
    assert again.seed == 3
    np.testing.assert_array_equal(again.seed_generator.state, [3, 0])
    del config["seed"]  # As in files that were saved before there was one.
    assert keras_uap.UniversalPerturbation.from_config(config).seed is None


@pytest.mark.parametrize("seed", [-1, 0.5, "0"])
def test_bad_seed(seed, linear, make_uap):
    with pytest.raises(ValueError, match="seed"):
        make_uap(linear(), seed=seed)
