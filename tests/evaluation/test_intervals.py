"""How often 95 % intervals hold the truth, when photographs give crops."""

import numpy as np
import pytest

from keras_uap.analysis import difference_interval, rate_interval

# How many crops each photograph gives.
UNEQUAL = {
    "one of 100, thirty of 2": [100] + 30 * [2],
    "one of 40, eleven of 2": [40] + 11 * [2],
    "halves from 64 to 1": [64, 32, 16, 8, 4, 2, 1],
    "halves from 64 to 8": [64, 32, 16, 8],
    "two of 50, twenty of 1": [50, 50] + 20 * [1],
    "twenty of 1 to 17": [
        *(1, 1, 2, 2, 3, 3, 4, 5, 6, 7),
        *(8, 9, 9, 1, 2, 3, 17, 12, 5, 4),
    ],
}
EQUAL = {
    "25 of 6": 25 * [6],
    "12 of 5": 12 * [5],
    "57 of 9": 57 * [9],
    "5 of 20": 5 * [20],
}
SIZES = {**UNEQUAL, **EQUAL}
SHARES = (0.01, 0.05, 0.1, 0.3, 0.5, 0.85, 0.98)
LIKENESSES = (0.0, 0.1, 0.3, 0.6, 0.9, 1.0)


def draw_hits(rng, sizes, share, likeness):
    """Hits of crops whose photographs have a rate each, beta-distributed.

    Args:
        rng: `numpy.random.Generator`.
        sizes: Sequence of integers, the crops of each photograph.
        share: Float in (0, 1), the rate over all photographs.
        likeness: Float in [0, 1], the correlation of two crops of one
            photograph.

    Returns:
        Rates of the photographs `(k,)`, and a boolean array `(n,)`.
    """
    if likeness == 0:
        rates = np.full(len(sizes), share)
    elif likeness == 1:
        rates = (rng.random(len(sizes)) < share).astype(float)
    else:
        total = (1 - likeness) / likeness
        rates = rng.beta(share * total, (1 - share) * total, len(sizes))
    return rates, rng.random(sum(sizes)) < np.repeat(rates, sizes)


def coverage(sizes, share, likeness, draws, seed=0, paired=False):
    """Measures 95 % intervals on drawn photographs.

    Args:
        sizes, share, likeness: See `draw_hits`.
        draws: Integer, the number of samples.
        seed: Integer.
        paired: Boolean, whether to measure `difference_interval`: of two
            perturbations that fool the same photographs equally often.

    Returns:
        The share of the intervals that hold the truth, and their mean width.
    """
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    inside = width = 0
    for _ in range(draws):
        _, hits = draw_hits(rng, sizes, share, likeness)
        truth, interval = share, rate_interval
        if paired:
            _, others = draw_hits(rng, sizes, share, likeness)
            hits = hits.astype(float) - others
            truth, interval = 0, difference_interval
        low, high = interval(hits, groups)
        inside += low <= truth <= high
        width += high - low
    return inside / draws, width / draws


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("name", list(UNEQUAL)[:3])
def test_one_photograph_with_most_of_the_crops(name, paired):
    covered, width = coverage(UNEQUAL[name], 0.5, 0.3, 400, paired=paired)
    assert covered >= 0.93, f"{covered:.1%}, width {width:.2f}"


def test_equal_groups_are_not_widened():
    """The widths that the number of photographs asks for."""
    for likeness, most in ((0.0, 0.19), (0.3, 0.28), (1.0, 0.4)):
        covered, width = coverage(EQUAL["25 of 6"], 0.5, likeness, 300)
        assert covered >= 0.92
        assert width <= most


@pytest.mark.parametrize("size", [4, 5])
def test_rounding_decides_nothing(size):
    """Ten groups of one hit each: as if the images were independent."""
    hits = np.tile(np.arange(size) == 0, 10)
    low, high = rate_interval(hits, np.repeat(np.arange(10), size))
    free, above = rate_interval(hits)
    assert 0.5 * free < low < 1 / size < high < 1.25 * above


def test_intervals_change_smoothly_from_no_hit():
    """A first hit among many photographs does not make them independent."""
    groups = np.repeat(np.arange(57), 9)
    _, none = rate_interval(np.zeros(513), groups)
    _, one = rate_interval(np.arange(513) == 0, groups)
    assert 0.6 * none < one
