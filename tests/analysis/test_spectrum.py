"""Tests of the frequencies of a perturbation."""

import json

import keras
import numpy as np
import pytest

from keras_uap import analysis
from keras_uap.analysis import spectrum
from keras_uap.perturbations.lp_ball import lp_norm

SHAPE = (16, 16, 2)
QUIET = {"norm": "linf", "value_range": (0, 1), "verbose": 0}


def wave(cycles, shape=SHAPE, axis=1):
    """A cosine of so many cycles along one axis, of an amplitude of 0.1."""
    size = shape[axis]
    line = 0.1 * np.cos(2 * np.pi * cycles * np.arange(size) / size)
    line = line.reshape([size if i == axis else 1 for i in range(len(shape))])
    return np.broadcast_to(line, shape).astype("float32").copy()


def sees(pattern, least):
    """Class 1 where an image has more of a pattern than `least`."""
    shape = pattern.shape
    model = keras.Sequential(
        [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    direction = (pattern / np.square(pattern).sum()).ravel()
    kernel = np.stack([np.zeros(pattern.size), direction], axis=1)
    middle = 0.5 * direction.sum()
    model.set_weights([kernel, np.array([0.0, -middle - least])])
    return model


def grey(shape=SHAPE, count=12):
    return np.full((count, *shape), 0.5, "float32")


@pytest.mark.parametrize("axis", [0, 1])
def test_one_frequency_is_in_one_bin_and_one_band(axis):
    v = wave(3, axis=axis)
    # Sees the wave in v at half its height; noise has next to nothing of it.
    result = analysis.perturbation_spectrum(
        sees(v, 0.5), v, grey(), edges=(2, 5), **QUIET
    )
    np.testing.assert_allclose(
        result.power, np.eye(len(result.power))[3], atol=1e-9
    )
    np.testing.assert_allclose(result.shares, [1, 0, 1, 0], atol=1e-9)
    # What rounding leaves in the other bands is not scaled up.
    np.testing.assert_array_equal(result.fooling_rates, [1, 0, 1, 0])
    np.testing.assert_array_equal(result.random_rates, [0, 0, 0, 0])
    assert result.names() == ("all", "0 to 2", "2 to 5", "5 and more")
    assert result.epsilon == pytest.approx(0.1)
    # A cosine's root mean square; zero where there is nothing.
    np.testing.assert_allclose(
        result.root_mean_squares, np.array([1, 0, 1, 0]) * 0.1 / 2**0.5, 1e-5
    )
    table = result.table()
    assert "2 to 5" in table
    assert max(map(len, table.splitlines())) < 80
    json.dumps(result.to_dict())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_parts_are_of_the_norm_of_the_whole(norm):
    v = np.random.default_rng(0).normal(size=SHAPE).astype("float32")
    radii = spectrum._radii(v.shape)
    bands = spectrum._bands((2, 5), radii, 16)
    parts = [spectrum._filtered(v, spectrum._inside(radii, b)) for b in bands]
    np.testing.assert_allclose(sum(parts[1:]), v, atol=1e-6)
    result = analysis.perturbation_spectrum(
        sees(wave(3), 9.0), v, grey(), edges=(2, 5), **{**QUIET, "norm": norm}
    )
    size = lp_norm(v, norm)
    assert result.epsilon == pytest.approx(size)
    expected = [
        np.sqrt(np.mean(np.square(part))) * size / lp_norm(part, norm)
        for part in parts
    ]
    np.testing.assert_allclose(result.root_mean_squares, expected, 1e-5)
    if norm == "l2":
        np.testing.assert_allclose(
            result.random_root_mean_squares, expected, 1e-5
        )


def test_white_noise_has_the_power_of_white_noise():
    v = np.random.default_rng(0).normal(size=(32, 32, 64)).astype("float32")
    result = analysis.perturbation_spectrum(
        sees(v, 9.0), v, grey(v.shape, 2), num_random=1, **QUIET
    )
    np.testing.assert_allclose(result.power, result.white_power, atol=0.01)
    assert result.white_power.sum() == pytest.approx(1)
    # Of 1,024 frequencies one is the mean, four are of one cycle, and four
    # diagonal ones round to it.
    np.testing.assert_allclose(result.white_power[:2] * 1024, [1, 8])
    assert result.names() == (
        *("all", "0 to 1", "1 to 2", "2 to 4", "4 to 8", "8 and more"),
    )


def test_cycles_are_those_of_the_longer_side():
    # As fast along the short side as 8 cycles along the long one.
    v = wave(4, (8, 16, 1), axis=0)
    result = analysis.perturbation_spectrum(
        sees(v, 0.5), v, grey(v.shape), edges=(7, 9), **QUIET
    )
    np.testing.assert_allclose(result.power[8], 1)
    np.testing.assert_allclose(result.shares, [1, 0, 1, 0], atol=1e-9)


def test_signals():
    v = wave(5, (20, 2), axis=0)
    result = analysis.perturbation_spectrum(
        sees(v, 0.5), v, grey(v.shape), edges=(4, 6), **QUIET
    )
    np.testing.assert_allclose(result.power, np.eye(11)[5], atol=1e-9)
    np.testing.assert_array_equal(result.fooling_rates, [1, 0, 1, 0])


def test_noise_in_the_band_stands_beside():
    # The mean colour, which noise has as well, of either sign.
    v = np.full(SHAPE, 0.1, "float32")
    result = analysis.perturbation_spectrum(
        sees(v, 0.5), v, grey(), edges=(1,), num_random=40, **QUIET
    )
    np.testing.assert_allclose(result.fooling_rates, [1, 1, 0])
    whole, mean, rest = result.random_rates
    assert whole == rest == 0
    assert 0.1 < mean < 0.6
    low, high = result.random_intervals[1]
    assert low < mean < high
    again = analysis.perturbation_spectrum(
        sees(v, 0.5), v, grey(), edges=(1,), num_random=40, **QUIET
    )
    assert again.to_json() == result.to_json()


def test_intervals_count_photographs():
    images = grey(count=24)
    images[:12] *= 0.5
    arguments = (sees(wave(3), 0.5), wave(3), images)
    alone = analysis.perturbation_spectrum(*arguments, **QUIET)
    grouped = analysis.perturbation_spectrum(
        *arguments, groups=np.arange(24) // 4, **QUIET
    )
    assert (grouped.num_images, grouped.num_groups) == (24, 6)
    assert np.diff(grouped.intervals[0]) > np.diff(alone.intervals[0])


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"edges": (5, 2)}, ValueError, "edges must rise"),
        ({"edges": (2, 2)}, ValueError, "edges must rise"),
        ({"edges": (99,)}, ValueError, "up to 11.31 cycles"),
        ({"edges": (0,)}, ValueError, "above 0"),
        ({"edges": "low"}, TypeError, "edges must be an array of numbers"),
        ({"num_random": 0}, ValueError, "num_random"),
        ({"perturbation": np.zeros(SHAPE)}, ValueError, "not be zero"),
        ({"perturbation": np.ones(4)}, ValueError, "must have shape"),
        ({"perturbation": np.ones((8, 8, 2))}, ValueError, "shape"),
        ({"classifier": len}, TypeError, "Keras model"),
    ],
)
def test_refuses(arguments, error, text):
    good = {"classifier": None, "perturbation": wave(3), "images": grey()}
    if "classifier" not in arguments:
        good["classifier"] = sees(wave(3), 0.5)
    with pytest.raises(error, match=text):
        analysis.perturbation_spectrum(**{**good, **arguments}, **QUIET)


def test_the_last_frequency_of_a_signal_is_in_one_band():
    v = wave(10, (20, 1), axis=0)
    arguments = (sees(v, 0.5), v, grey(v.shape))
    with pytest.raises(ValueError, match="edges must rise"):
        analysis.perturbation_spectrum(*arguments, edges=(10,), **QUIET)
    result = analysis.perturbation_spectrum(*arguments, edges=(9,), **QUIET)
    np.testing.assert_allclose(result.shares, [1, 0, 1], atol=1e-9)
