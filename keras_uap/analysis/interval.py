"""Confidence intervals for a share of images.

Crops of one photograph are alike. Fifty crops of five photographs tell less
about a fooling rate than fifty photographs do, and an interval that treats
them as independent is too narrow. `rate_interval` estimates from the spread
between groups how many independent images the sample is worth, and gives
Wilson's interval for that number, with Student's quantile for the number of
groups.

Reference:
    - Wilson, 1927, Journal of the American Statistical Association 22
    - Korn and Graubard, 1998, Survey Methodology 24 (effective sample size)
"""

import numpy as np
from scipy import stats


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
    hits = np.asarray(hits, dtype="float64")
    if hits.ndim != 1 or len(hits) == 0:
        raise ValueError(
            "hits must be a one-dimensional array of at least one value. "
            f"Received: shape {hits.shape}."
        )
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1). Received: {level!r}.")
    count, share = len(hits), hits.mean()
    effective = float(count)
    quantile = stats.norm.ppf((1 + level) / 2)
    if groups is not None:
        groups = np.asarray(groups)
        if groups.shape != hits.shape:
            raise ValueError(
                "There must be one group per image. Received: "
                f"{len(hits)} images and groups of shape {groups.shape}."
            )
        _, index = np.unique(groups, return_inverse=True)
        number = index.max() + 1
        if number < 2:
            raise ValueError(
                "An interval needs images of at least two groups. Received: "
                "one group."
            )
        quantile = stats.t.ppf((1 + level) / 2, df=number - 1)
        totals = np.bincount(index, weights=hits - share)
        variance = number / (number - 1) * np.sum(np.square(totals)) / count**2
        if variance > 0:
            # Never more than the images that there are.
            effective = min(count, share * (1 - share) / variance)
        else:
            effective = float(number)
    return _wilson(share, effective, quantile)


def _wilson(share, count, quantile):
    square = quantile**2 / count
    middle = (share + square / 2) / (1 + square)
    half = np.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))
