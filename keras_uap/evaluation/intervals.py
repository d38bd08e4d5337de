"""Confidence intervals for a share of images.

Crops of one photograph are alike. Fifty crops of five photographs tell less
about a fooling rate than fifty photographs do, and an interval that treats
them as independent is too narrow. `rate_interval` estimates how alike the
images of a group are, and from that how many independent images the sample is
worth; it gives Wilson's interval for that number, with Student's quantile.

Photographs may give unequal numbers of crops. Where one gives most of them,
the mean follows that one, whose own deviation from the mean then hides how far
off it is. So the likeness is estimated from all groups (analysis of variance
between and within them), and the degrees of freedom are Satterthwaite's for
that estimate, at most the number of groups or of independent images, less one.

`difference_interval` is for two perturbations measured on the same images:
what the photographs have in common then cancels out.

Reference:
    - Wilson, 1927, Journal of the American Statistical Association 22
    - Satterthwaite, 1946, Biometrics Bulletin 2 (degrees of freedom)
    - Donner, 1986, International Statistical Review 54 (likeness in groups)
    - Korn and Graubard, 1998, Survey Methodology 24 (effective sample size)
    - Brown, Cai and DasGupta, 2001, Statistical Science 16 (few hits)
"""

import numpy as np
from scipy import stats

from keras_uap.utils.validation import as_numbers, check_number


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
    if groups is None:
        return _wilson(share, count, level)
    index, number = _index(groups, hits)
    spread = share * (1 - share)
    # A share of draws counts whole: it tells of the image all the same.
    rare = min(np.count_nonzero(hits), np.count_nonzero(hits != 1))
    if rare == 0:
        # No image differs from another: how alike they are is not known, and
        # each group is one image in the worst case.
        effective, freedom = number, number - 1
    else:
        variance, freedom = _variance(hits, index, spread, rare)
        effective = spread / variance
    return _wilson(share, effective, level, freedom)


def is_wide(interval):
    """Whether an interval says next to nothing: wider than 30 points."""
    return interval[1] - interval[0] > 0.3


def interval_of_some(hits, groups=None, level=0.95):
    """`rate_interval` of a part of the images, which may be of one group.

    One photograph says nothing of others: the interval is then 0 to 1.
    """
    if groups is not None and len(np.unique(groups)) < 2:
        return 0.0, 1.0
    return rate_interval(hits, groups, level)


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
    mean = differences.mean()
    groups = np.arange(len(differences)) if groups is None else groups
    index, _ = _index(groups, differences)
    variance, freedom = _variance(
        differences,
        index,
        spread=differences.var(ddof=1),
        rare=np.count_nonzero(differences),
    )
    half = stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(variance)
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


def _variance(values, index, spread, rare):
    """The variance of a mean of groups, and its degrees of freedom.

    Args:
        values: Array `(n,)`.
        index: Integer array `(n,)`, the group of each value, from 0.
        spread: Float, the variance of one value, at most.
        rare: Integer, how many values differ from the usual one.
    """
    sizes = np.bincount(index)
    count, number = len(values), len(sizes)
    means = np.bincount(index, weights=values) / sizes
    left = max(1, count - number)
    between = np.sum(sizes * np.square(means - values.mean())) / (number - 1)
    within = np.sum(np.square(values - means[index])) / left
    # How many images are of the group of an image, and the size of a group
    # for which `between` would stand: equal if all groups are equal, and the
    # variance is then `between / count`.
    own = np.sum(np.square(sizes)) / count
    size = (count - own) / (number - 1)
    between *= own / size / count
    within *= (1 - own / size) / count
    # Images of one photograph are not less alike than others.
    variance = max(between + within, spread / count)
    # Likeness is read from pairs of hits. The fewer there are beside the
    # images of a group, the more counts the worst case, that each group is one
    # image; with no hit it is all there is.
    worst, doubt = max(variance, values.var() / number), count / number
    variance += (worst - variance) * doubt / (rare**2 + doubt)
    if variance == 0:
        return 0.0, number - 1
    error = between**2 / (number - 1) + within**2 / left
    # So many independent images; at worst, each group is one.
    effective = min(number, max(spread / variance, count / own))
    freedom = min(effective - 1, variance**2 / max(error, 1e-300))
    return variance, max(1.0, freedom)


def _wilson(share, count, level, freedom=np.inf):
    quantile = stats.t.ppf((1 + level) / 2, freedom)
    square = quantile**2 / count
    middle = (share + square / 2) / (1 + square)
    half = np.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    low, high = middle - half, middle + half
    # One to three hits are too many too often for Wilson's lower end.
    if 0 < share * count <= 3:
        low = min(low, stats.gamma.ppf(1 - level, share * count) / count)
    if 0 < (1 - share) * count <= 3:
        misses = stats.gamma.ppf(1 - level, (1 - share) * count) / count
        high = max(high, 1 - misses)
    return max(0.0, float(low)), min(1.0, float(high))
