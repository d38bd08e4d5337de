"""Intervals: known values, and how often 95% intervals hold the truth."""

import numpy as np
import pytest
from interval_grid import (
    KINDS,
    cells,
    least_coverage,
    measure,
    tolerance,
)
from scipy import stats

from keras_uap.analysis import difference_interval, rate_interval
from keras_uap.evaluation import intervals


@pytest.mark.parametrize("kind", KINDS)
def test_coverage(kind):
    some = cells([kind], (15, 54, 500), (0.0, 0.1, 0.5))
    covered, cell = least_coverage(list(some)[::4], 1000)
    assert covered >= 0.92 - tolerance(1000), f"{covered:.1%} at {cell}"


# From reports: n, and the share of images that are gained.
@pytest.mark.parametrize(
    ("n", "share"), [(20, 0.03), (20, 0.97), (54, 0.02), (150, 0.01), (54, 0.1)]
)
@pytest.mark.parametrize("layout", ["no groups", "12 equal"])
def test_few_differences_of_one_sign(n, share, layout):
    rng = np.random.default_rng(0)
    cell = ("difference", layout, n, (share, 0), 0.0)
    covered, _ = measure(*cell, 5000, rng)
    assert covered >= 0.92


@pytest.mark.parametrize("n", [15, 20, 54, 150])
def test_exact_coverage_between_the_rates_of_the_grid(n):
    """Sums over all numbers of hits, for 1,000 rates."""
    hits = np.arange(n + 1)
    values = np.arange(n) < hits[:, None]
    rates = np.linspace(0.0005, 0.9995, 1000)[:, None]
    chances = stats.binom.pmf(hits, n, rates)
    for limits in (intervals.rate_limits, intervals.difference_limits):
        low, high = limits(values, values, np.ones(n, int))
        inside = (low <= rates) & (rates <= high)
        assert (chances * inside).sum(-1).min() >= 0.925


@pytest.mark.parametrize(
    ("layout", "n", "rate", "correlation", "most"),
    [
        ("no groups", 54, 0.5, 0.0, 1.03),
        ("no groups", 1000, 0.02, 0.0, 1.01),
        ("groups of 5", 500, 0.3, 0.0, 1.06),
        # The square root of the design effect is 1.48.
        ("groups of 5", 500, 0.3, 0.3, 1.6),
        ("12 equal", 500, 0.5, 0.0, 1.25),
    ],
)
def test_widths(layout, n, rate, correlation, most):
    """Beside Wilson's interval for as many independent images."""
    rng = np.random.default_rng(0)
    cell = ("rate", layout, n, (rate, 0), correlation)
    _, width = measure(*cell, 1000, rng)
    plain = stats.binomtest(int(rate * n), n).proportion_ci(method="wilson")
    assert width <= most * (plain.high - plain.low)


# Known values ---------------------------------------------------------------


def test_independent_images():
    """Wilson's and Bonett and Price's formulas with Student's quantile."""
    n, hits, t = 100, 10, stats.t.ppf(0.975, 99)
    values = np.arange(n) < hits
    middle = (hits + t**2 / 2) / (n + t**2)
    half = t / (n + t**2) * np.sqrt(hits * (n - hits) / n + t**2 / 4)
    assert rate_interval(values) == pytest.approx(
        (middle - half, middle + half)
    )
    # 10 gained and 4 lost, of an effective size of 100 images.
    n = 100 * (stats.norm.ppf(0.975) / t) ** 2
    values = np.repeat([1, -1, 0], [10, 4, 86])
    middle = 0.06 * n / (n + 2)
    square = (0.14 * n + 2) / (n + 2) - middle**2
    half = stats.norm.ppf(0.975) * np.sqrt(square / (n + 2))
    found = difference_interval(values)
    assert found == pytest.approx((middle - half, middle + half))


def test_images_of_their_own_groups_are_independent():
    hits = np.arange(40) % 3 == 0
    for method in (rate_interval, difference_interval):
        assert method(hits, np.arange(40)) == method(hits)


def test_copies_of_images_add_nothing():
    """Fully correlated groups are worth one image each."""
    hits = np.arange(30) < 12
    groups = np.repeat(np.arange(30), 8)
    for method in (rate_interval, difference_interval):
        found = method(np.repeat(hits, 8), groups)
        assert found == pytest.approx(method(hits), abs=0.01)


@pytest.mark.parametrize("num_seeds", [1, 3, 5, 6, 7, 9, 10, 20])
@pytest.mark.parametrize("missed", [0, 3])
def test_number_of_seeds_changes_nothing(num_seeds, missed):
    """A sum of quotients differs from 1 in its last digits."""
    groups = np.repeat(np.arange(6), 10)
    fooled = np.arange(60) >= missed
    hits = sum(fooled / num_seeds for _ in range(num_seeds))
    assert rate_interval(hits, groups) == rate_interval(fooled, groups)
    assert difference_interval(hits, groups) == difference_interval(
        fooled, groups
    )
    if not missed:
        found = rate_interval(hits, groups)
        assert found == pytest.approx((0.476, 1), abs=0.001)


@pytest.mark.parametrize(
    "differences",
    [[1, 1], [-1, -1], [1, 0], [0, 1], [0], [1], [1, -1], 5 * [0.4], 5 * [1]],
)
def test_few_images(differences):
    low, high = difference_interval(differences)
    assert -1 <= low < high <= 1
    assert low <= np.mean(differences) <= high
    low, high = rate_interval(np.abs(differences))
    assert 0 <= low < high <= 1


def test_no_difference_is_not_certain():
    for n, most in ((15, 0.2), (150, 0.02)):
        low, high = difference_interval(np.zeros(n))
        assert 0.8 * most < high < most
        assert low == -high
    groups = np.repeat(np.arange(6), 25)
    low, high = difference_interval(np.zeros(150), groups)
    assert high > 0.3
    assert low == -high


def test_signs_and_sides_are_alike():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 12, 90)
    values = rng.choice([-1, 0, 1], 90, p=[0.05, 0.85, 0.1])
    low, high = difference_interval(values, groups)
    assert difference_interval(-values, groups) == pytest.approx((-high, -low))
    low, high = rate_interval(values == 1, groups)
    misses = rate_interval(values != 1, groups)
    assert misses == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize("size", [4, 5])
def test_rounding_decides_nothing(size):
    """Ten groups of one hit each: as if the images were independent."""
    hits = np.tile(np.arange(size) == 0, 10)
    low, high = rate_interval(hits, np.repeat(np.arange(10), size))
    free, above = rate_interval(hits)
    assert 0.5 * free < low < free < 1 / size < above < high < 1.25 * above


def test_intervals_change_smoothly_from_no_hit():
    """A first hit among many photographs does not make them independent."""
    groups = np.repeat(np.arange(57), 9)
    _, none = rate_interval(np.zeros(513), groups)
    _, one = rate_interval(np.arange(513) == 0, groups)
    assert 0.6 * none < one < 2 * none


@pytest.mark.parametrize("method", [rate_interval, difference_interval])
@pytest.mark.parametrize(
    ("values", "message"),
    [([0.5, 1.1], "between"), ([-1.5, 0], "between"), ([np.nan], "finite")],
)
def test_values_out_of_range_are_refused(method, values, message):
    with pytest.raises(ValueError, match=message):
        method(values)
