"""Tests of images without content."""

import keras
import numpy as np
import pytest

import keras_uap

SHAPE = (20, 12, 3)


@pytest.mark.parametrize("kind", ["jigsaw", "noise"])
@pytest.mark.parametrize("value_range", [(0, 255), (-1.0, 2.0)])
def test_range_shape_and_seed(kind, value_range):
    def make(seed, n=6, shape=SHAPE):
        return keras_uap.noise_images(n, shape, kind, seed, value_range)

    images = make(0, 50)
    low, high = value_range
    assert images.shape == (50, *SHAPE)
    assert images.dtype == np.float32
    assert low <= images.min() < low + 0.1 * (high - low)
    assert high >= images.max() > high - 0.1 * (high - low)
    middle = (low + high) / 2
    assert abs(images.mean() - middle) < 0.05 * (high - low)
    np.testing.assert_array_equal(make(0), make(0))
    assert not np.array_equal(make(0), make(1))
    assert len(np.unique(make(0), axis=0)) == 6
    assert make(0, shape=(30, 2)).shape == (6, 30, 2)
    assert make(0, shape=(1, 1, 1)).shape == (6, 1, 1, 1)


def test_jigsaw_is_made_of_pieces():
    images = keras_uap.noise_images(30, (64, 64, 3))
    counts = [len(np.unique(x.reshape(-1, 3), axis=0)) for x in images]
    sides = np.sqrt(counts)
    np.testing.assert_array_equal(sides, np.round(sides))
    assert sides.min() <= 4
    assert sides.max() >= 16
    assert 2 <= sides.min() <= sides.max() <= 32
    # Each colour is one rectangle.
    first = images[np.argmin(counts)]
    same = (first == first[0, 0]).all(-1)
    rows, columns = same.any(1), same.any(0)
    np.testing.assert_array_equal(same, np.outer(rows, columns))
    assert rows.sum() in (
        64 // round(sides.min()),
        64 // round(sides.min()) + 1,
    )


def test_noise_is_normal():
    images = keras_uap.noise_images(20, (32, 32, 3), "noise")
    assert abs(images.std() - 127.5 / 3.29) < 0.5
    assert np.mean((images == 0) | (images == 255)) == pytest.approx(
        0.001, abs=0.0005
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be"),
        ({"shape": (8, 0, 3)}, "shape must be"),
        ({"shape": (8,)}, r"\(8,\)"),
        ({"kind": "photos"}, "'photos'"),
        ({"value_range": None}, "None"),
        ({"value_range": (1, 0)}, "low < high"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_uap.noise_images(**{"n": 2, "shape": SHAPE, **arguments})


def test_start_from_noise(linear, images, make_uap, tmp_path):
    """A fit starts where it is told to, and stays in the ball."""
    classifier = linear()
    noise = keras_uap.noise_images(32, (8, 8, 3), value_range=(0, 1))
    first = make_uap(classifier)
    first.compile("lion")
    first.fit(noise, verbose=0)
    v = first.perturbation

    uap = make_uap(classifier, initial_perturbation=v)
    np.testing.assert_array_equal(uap.perturbation, v)
    uap.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    np.testing.assert_array_equal(loaded.perturbation, v)
    for model in (uap, loaded):
        model.compile(keras.optimizers.SGD(1e-6))
        model.fit(images, verbose=0)
        moved = np.abs(model.perturbation - v).max()
        assert 0 < moved < 1e-3
        assert np.abs(model.perturbation).max() <= 0.05


def test_start_outside_the_ball_is_refused(linear, make_uap):
    outside = np.full((8, 8, 3), 0.06, "float32")
    with pytest.raises(ValueError, match="project brings it inside"):
        make_uap(linear(), initial_perturbation=outside)
    inside = keras_uap.project(outside, 0.05)
    uap = make_uap(linear(), initial_perturbation=inside)
    np.testing.assert_array_equal(uap.perturbation, inside)


def test_start_of_a_classifier_without_a_size(subclassed, make_uap):
    v = np.full((8, 8, 3), 0.01, "float32")
    uap = make_uap(subclassed(), initial_perturbation=v)
    np.testing.assert_array_equal(uap.perturbation, v)
    uap = make_uap(subclassed())
    uap.perturbation = v
    np.testing.assert_array_equal(uap.perturbation, v)


def test_start_keeps_to_the_mask(linear, make_uap):
    mask = np.zeros((8, 8))
    mask[2:4] = 1
    v = np.full((8, 8, 3), 0.05, "float32")
    uap = make_uap(linear(), mask=mask, initial_perturbation=v)
    np.testing.assert_allclose(uap.perturbation, v * mask[..., None], rtol=1e-6)
