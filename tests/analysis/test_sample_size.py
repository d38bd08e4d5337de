"""Tests of the epsilon that fools half of the images."""

import keras
import numpy as np
import pytest

from keras_uap import analysis
from keras_uap.analysis.sample_size import _half

SHAPE = (4, 4, 1)


def is_bright():
    """Class 1 where the mean pixel is above a half."""
    model = keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    kernel = np.stack([np.zeros(16), np.full(16, 1 / 16)], axis=1)
    model.set_weights([kernel, np.array([0.0, -0.5])])
    return model


def flat(count=100):
    """Flat images: a brightening by t fools the share 2 t of them."""
    levels = (np.arange(count, dtype="float32") + 0.5) / count / 2
    return np.ones((count, *SHAPE), "float32") * levels.reshape(-1, 1, 1, 1)


def curve_of(epsilons, fit=None, groups=None, **kwargs):
    return analysis.epsilon_curve(
        is_bright(),
        flat(),
        flat(),
        epsilons,
        fit=fit or (lambda images, epsilon, seed: np.full(SHAPE, epsilon)),
        groups=groups,
        value_range=(0, 1),
        verbose=0,
        **kwargs,
    )


def test_the_epsilon_that_fools_half_is_known():
    # Of a linear classifier: half the images are nearer than 0.25.
    result = curve_of((0.1, 0.2, 0.3, 0.4))
    np.testing.assert_allclose(
        result.fooling_rates[:, 0], [0.2, 0.4, 0.6, 0.8], atol=1e-9
    )
    assert result.half_epsilon == pytest.approx(0.25)
    low, high = result.half_interval
    # Of 100 images: 0.05 is what two standard errors of a rate come to.
    assert 0.17 < low < 0.22
    assert 0.28 < high < 0.33
    assert result.random_half_epsilon is None
    assert f"Half are fooled at epsilon {result.half()}" in result.table()
    assert "by noise: above 0.4" in result.table()
    assert result.half().startswith("0.25 (95%: 0.")
    assert result.to_dict()["half_interval"] == [low, high]
    legend = result.plot().axes[0].get_legend().get_texts()
    assert any(result.half() in text.get_text() for text in legend)


def test_crops_of_few_photographs_say_less():
    alone = curve_of((0.1, 0.2, 0.3, 0.4))
    grouped = curve_of((0.1, 0.2, 0.3, 0.4), groups=np.arange(100) // 5)
    assert grouped.half_epsilon == alone.half_epsilon
    assert grouped.half_interval[0] < alone.half_interval[0]
    assert (grouped.half_interval[1] or np.inf) > alone.half_interval[1]


def test_a_half_that_was_not_measured_is_not_guessed():
    above = curve_of((0.05, 0.1))
    assert above.half_epsilon is None
    assert above.half_interval == (0.1, None)
    assert above.half() == "above 0.1 (95%: above 0.1)"
    below = curve_of((0.4, 0.45))
    assert below.half_epsilon is None
    assert below.half_interval == (0.0, 0.4)
    assert below.half() == "below 0.4 (95%: below 0.4)"
    unsure = curve_of((0.245,))
    assert unsure.half_epsilon is None
    assert unsure.half_interval == (0.0, None)
    assert unsure.half() == "above 0.245 (95%: above 0)"


def test_a_fit_that_failed_at_a_larger_radius_does_not_count():
    def fit(images, epsilon, seed):
        return np.full(SHAPE, 0.0 if epsilon == 0.3 else epsilon)

    # The perturbation of 0.26 lies in the ball of 0.3 too.
    result = curve_of((0.4, 0.3, 0.26, 0.1), fit)
    assert result.fooling_rates[1] == 0
    assert result.half_epsilon == pytest.approx(0.25)
    low, high = result.half_interval
    assert low < 0.25 < high


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ((0.0, 0.5, 1.0), 2.0),
        ((0.5, 0.5, 1.0), 1.0),
        ((0.4, 0.4, 0.6), 3.0),
        ((0.6, 0.7, 0.8), 0.0),
        ((0.1, 0.2, 0.4), np.inf),
        ((0.4, 0.1, 0.6), 3.0),
        ((0.2, 0.8, 0.1), 1.5),
    ],
)
def test_where_rates_meet_a_half(rates, expected):
    assert _half((1.0, 2.0, 4.0), rates) == pytest.approx(expected)
    mixed = [2, 0, 1]
    epsilons = np.array((1.0, 2.0, 4.0))[mixed]
    assert _half(epsilons, np.array(rates)[mixed]) == pytest.approx(expected)


def test_other_curves_have_no_half():
    result = analysis.sample_size_curve(
        is_bright(),
        flat(),
        flat(),
        (1, 2),
        num_seeds=1,
        fit=lambda images, epsilon, seed: np.full(SHAPE, 0.1),
        value_range=(0, 1),
        verbose=0,
    )
    assert not isinstance(result, analysis.EpsilonCurve)
    assert "half" not in result.table().lower()
