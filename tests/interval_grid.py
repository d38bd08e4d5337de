"""The settings in which the coverage of confidence intervals is measured.

The tests take a part of the grid, `benchmarks/intervals.py` all of it.
"""

import itertools

import numpy as np
from scipy import stats

from keras_uap.evaluation import intervals

COUNTS = (15, 20, 54, 150, 500, 1000)
RATES = (0.005, 0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98, 0.995)
CORRELATIONS = (0.0, 0.05, 0.1, 0.3, 0.5)
# Shares of the images that only the first and only the second perturbation
# fools.
DIFFERENCES = {
    "rare, one sign": [(0.005, 0), (0.01, 0), (0.02, 0), (0, 0.03)],
    "rare, both signs": [(0.01, 0.01), (0.02, 0.01), (0.005, 0.02)],
    "one sign": [(0.1, 0), (0, 0.3), (0.5, 0), (0.9, 0), (0.97, 0)],
    "common": [(0.1, 0.05), (0.3, 0.2), (0.4, 0.1), (0.02, 0.5), (0.5, 0.5)],
}
KINDS = {"rate": [(rate, 0) for rate in RATES], **DIFFERENCES}
LAYOUTS = {
    "no groups": np.ones,
    "12 equal": lambda n: np.ones(12),
    "groups of 5": lambda n: np.ones(n // 5),
    "8 geometric": lambda n: 0.6 ** np.arange(8),
    "20 geometric": lambda n: 0.85 ** np.arange(min(20, n // 2)),
    "one of half, 11 small": lambda n: [11, *np.ones(min(11, n // 2))],
    "one of 60%, pairs": lambda n: [0.6 * n, *np.full(n // 5, 2)],
}


def group_sizes(layout, n):
    """How many of n images each group has, at least one."""
    shares = np.array(LAYOUTS[layout](n), float)
    ends = np.cumsum(shares) / shares.sum() * (n - len(shares))
    sizes = np.diff(np.round(ends).astype(int), prepend=0) + 1
    assert sizes.sum() == n
    return sizes


def draw_counts(rng, draws, sizes, shares, correlation, model="beta"):
    """Draws how many images of each group are gained, and how many lost.

    Args:
        rng: `numpy.random.Generator`.
        draws: Integer, the number of samples.
        sizes: Integer array `(k,)`, the images of each group.
        shares: Pair of floats, the shares gained and lost in the population.
        correlation: Float in [0, 1), the correlation of two images of one
            group: of their outcomes (`"beta"`, Dirichlet-multinomial), or of
            normal variables that decide the outcomes by two thresholds
            (`"probit"`).
        model: `"beta"` or `"probit"`.

    Returns:
        Two integer arrays `(draws, k)`.
    """
    shape = (draws, len(sizes))
    if correlation == 0:
        gained, lost = (np.full(shape, share) for share in shares)
    elif model == "beta":
        weights = np.array([*shares, 1 - sum(shares)])
        weights = np.maximum(weights, 0) * (1 - correlation) / correlation
        parts = [rng.gamma(weight, size=shape) for weight in weights]
        gained, lost = parts[:2] / np.maximum(sum(parts), 1e-300)
    else:
        common = np.sqrt(correlation) * rng.standard_normal(shape)
        gained, lost = (
            stats.norm.cdf(
                (stats.norm.ppf(share) - sign * common)
                / np.sqrt(1 - correlation)
            )
            for share, sign in zip(shares, (1, -1))
        )
    gains = rng.binomial(sizes, np.clip(gained, 0, 1))
    left = np.clip(lost / np.maximum(1 - gained, 1e-12), 0, 1)
    return gains, rng.binomial(sizes - gains, left)


def measure(kind, layout, n, shares, correlation, draws, rng, model="beta"):
    """Returns the coverage and the median width of 95% intervals."""
    sizes = group_sizes(layout, n)
    gains, losses = draw_counts(rng, draws, sizes, shares, correlation, model)
    sums, squares = gains - losses, gains + losses
    limits = intervals.difference_limits
    if kind == "rate":
        limits = intervals.rate_limits
    low, high = limits(sums, squares, sizes)
    truth = shares[0] - shares[1]
    inside = (low <= truth + 1e-12) & (truth - 1e-12 <= high)
    return inside.mean(), np.median(high - low)


def cells(kinds=KINDS, counts=COUNTS, correlations=CORRELATIONS):
    """All cells of the grid: kind, layout, n, shares, correlation, model."""
    for kind, layout, n in itertools.product(kinds, LAYOUTS, counts):
        for shares, correlation in itertools.product(KINDS[kind], correlations):
            if correlation == 0:
                yield kind, layout, n, shares, correlation, "beta"
            elif layout != "no groups":
                for model in ("beta", "probit"):
                    yield kind, layout, n, shares, correlation, model


def least_coverage(some, draws, seed=0):
    """The least coverage of cells, and the cell where it was found."""
    rng = np.random.default_rng(seed)
    return min(
        (measure(*cell[:5], draws, rng, cell[5])[0], cell) for cell in some
    )


def tolerance(draws):
    """Three standard errors of a coverage of 92%."""
    return 3 * (0.92 * 0.08 / draws) ** 0.5
