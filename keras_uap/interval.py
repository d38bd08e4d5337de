"""Confidence intervals for a share of images.

Crops of one photograph are alike. Fifty crops of five photographs tell less
about a fooling rate than fifty photographs do, and an interval that treats
them as independent is too narrow. `rate_interval` estimates from the spread
between groups how many independent images the sample is worth, and gives
Wilson's interval for that number, with Student's quantile for the number of
groups. `difference_interval` is for two perturbations measured on the same
images: what the photographs have in common then cancels out.

Reference:
    - Wilson, 1927, Journal of the American Statistical Association 22
    - Korn and Graubard, 1998, Survey Methodology 24 (effective sample size)
"""

import numpy as np
from scipy import stats

from keras_uap.checks import as_numbers, check_number


def rate_interval(hits, groups=None, level=0.95):
    """Returns the confidence interval of a share.

    Args:
        hits: Boolean array `(n,)`, for instance which images were fooled.
        groups: Array `(n,)`, the photograph of each image; images of one
            group may depend on each other. `None` if all are independent.
        level: Float in (0, 1), the confidence level.

    Returns:
        A pair of floats in [0, 1].

    Raises:
        ValueError: if the arrays are empty or of different lengths, there is
            only one group, or `level` is out of range.
    """
    hits = _check_values("hits", hits, level)
    count, share = len(hits), hits.mean()
    effective = float(count)
    quantile = stats.norm.ppf((1 + level) / 2)
    if groups is not None:
        index, number = _index(groups, hits)
        quantile = stats.t.ppf((1 + level) / 2, df=number - 1)
        variance = _variance(hits - share, index, number)
        if variance > 0:
            # Never more than the images that there are.
            effective = min(count, share * (1 - share) / variance)
        else:
            effective = float(number)
    return _wilson(share, effective, quantile)


def difference_interval(differences, groups=None, level=0.95):
    """Returns the confidence interval of a mean of paired differences.

    Args:
        differences: Array `(n,)`, for each image one measurement minus the
            other, such as 1 where only the first perturbation fools it.
        groups: Array `(n,)`, the photograph of each image. `None` if all are
            independent.
        level: Float in (0, 1), the confidence level.

    Returns:
        A pair of floats.

    Raises:
        ValueError: if the arrays are empty or of different lengths, there is
            only one group, or `level` is out of range.
    """
    differences = _check_values("differences", differences, level)
    count, mean = len(differences), differences.mean()
    index, number = _index(
        np.arange(count) if groups is None else groups, differences
    )
    error = np.sqrt(_variance(differences - mean, index, number))
    half = stats.t.ppf((1 + level) / 2, df=number - 1) * error
    return float(mean - half), float(mean + half)


def _check_values(name, values, level):
    values = as_numbers(name, values).astype("float64")
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(
            f"{name} must be a one-dimensional array of at least one value, "
            f"all of them finite. Received: {name}={values!r}."
        )
    check_number("level", level, above=0, below=1)
    return values


def _index(groups, values):
    """The number of each image's group, and how many groups there are."""
    groups = np.asarray(groups)
    if groups.shape != values.shape:
        raise ValueError(
            "There must be one group per image. Received: "
            f"{len(values)} images and groups of shape {groups.shape}."
        )
    _, index = np.unique(groups, return_inverse=True)
    number = index.max() + 1
    if number < 2:
        raise ValueError(
            "An interval needs images of at least two groups. Received: "
            "one group."
        )
    return index, number


def _variance(residuals, index, number):
    """The variance of a mean, from the totals of the groups."""
    totals = np.bincount(index, weights=residuals)
    return number / (number - 1) * np.sum(np.square(totals)) / len(index) ** 2


def _wilson(share, count, quantile):
    square = quantile**2 / count
    middle = (share + square / 2) / (1 + square)
    half = np.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))
