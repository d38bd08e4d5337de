"""Confidence intervals of a rate and of a paired difference of two rates.

Images cut from one photograph are alike, so they count as fewer independent
images. Both intervals take a formula for independent images and replace the
number of images by an effective sample size (Korn and Graubard, 1998):

```
size = n * variance(independent) / variance(correlated groups)
size = size * (normal quantile / t quantile)^2
size = at least that of full correlation, at most n
rate:       interval of Wilson for `size` images
difference: interval of Bonett and Price for `size` images
```

- The variance of correlated groups follows from the intraclass correlation,
  estimated by analysis of variance (Donner, 1986). It is never taken to be
  below that of independent images. Franco et al. (2019) compare intervals of
  this kind and recommend Wilson's with a modeled correlation.
- The t quantile has the effective number of groups, less one, as its degrees
  of freedom: `sum(a)^2 / sum(a^2)`, where `a` is what each group contributes
  to the sum of squares (Carter, Schnepel and Steigerwald, 2017). Two groups
  that hold all the hits count as two groups, however many have none.
- With full correlation, groups of sizes `m` count as `n^2 / sum(m^2)` images
  (Kish, 1965), with the number of groups, less one, as degrees of freedom.
  This decides where all images agree and no correlation can be estimated.
- Without groups, every image is its own group.

Wilson's interval has the modified limits of Brown, Cai and DasGupta (2001)
for up to three hits or misses. Bonett and Price (2012) add one image of each
sign to the differences.

Reference:
    - [Wilson, 1927](https://doi.org/10.1080/01621459.1927.10502953)
    - Kish, 1965, Survey Sampling, Wiley
    - [Donner, 1986](https://doi.org/10.2307/1403259)
    - Korn and Graubard, 1998, Survey Methodology 24, pages 193 to 201
    - [Brown, Cai and DasGupta, 2001](https://doi.org/10.1214/ss/1009213286)
    - [Bonett and Price, 2012](https://doi.org/10.3102/1076998611411915)
    - [Carter, Schnepel and Steigerwald, 2017](
      https://doi.org/10.1162/REST_a_00639)
    - [Franco, Little, Louis and Slud, 2019](
      https://pmc.ncbi.nlm.nih.gov/articles/PMC6690503)
"""

import numpy as np
from scipy import stats

from keras_uap.utils.validation import as_groups, as_numbers, check_number


def rate_interval(hits, groups=None, level=0.95):
    """Returns the confidence interval of a rate.

    Args:
        hits: Array `(n,)` in [0, 1]: which images were fooled, or the share
            of the perturbations that fooled each image.
        groups: Array `(n,)`, the photograph of each image; images of one
            group may depend on each other. `None` if all are independent.
        level: Float in (0, 1), the confidence level.

    Returns:
        A pair of floats in [0, 1].

    Raises:
        ValueError: if the arrays are empty or of different lengths, a value
            is out of range, or there is only one group.
    """
    totals = _group_totals("hits", hits, 0, groups, level)
    low, high = rate_limits(*totals, level)
    return float(low), float(high)


def difference_interval(differences, groups=None, level=0.95):
    """Returns the confidence interval of a paired difference of two rates.

    What the images and photographs have in common cancels out, so this
    interval shows differences that two separate intervals cannot.

    Args:
        differences: Array `(n,)` in [-1, 1], for each image the first value
            minus the second, such as 1 where only the first perturbation
            fools it.
        groups: Array `(n,)`, the photograph of each image. `None` if all are
            independent.
        level: Float in (0, 1), the confidence level.

    Returns:
        A pair of floats in [-1, 1].

    Raises:
        ValueError: if the arrays are empty or of different lengths, a value
            is out of range, or there is only one group.
    """
    totals = _group_totals("differences", differences, -1, groups, level)
    low, high = difference_limits(*totals, level)
    return float(low), float(high)


def interval_of_some(hits, groups=None, level=0.95):
    """`rate_interval` of a part of the images, which may be of one group.

    One photograph says nothing of others: the interval is then 0 to 1.
    """
    if groups is not None and len(np.unique(groups)) < 2:
        return 0.0, 1.0
    return rate_interval(hits, groups, level)


def is_wide(interval):
    """Whether an interval is wider than 30 percentage points."""
    return interval[1] - interval[0] > 0.3


def rate_limits(sums, squares, sizes, level=0.95):
    """Returns the limits of `rate_interval` for many samples at once.

    Args:
        sums, squares: Arrays `(..., k)`, the sum and the sum of squares of
            the values of each group.
        sizes: Integer array `(k,)`, the number of images of each group.
        level: Float in (0, 1), the confidence level.

    Returns:
        Two arrays of the shape `(...)`.
    """
    size = _effective_size(sums, squares, sizes, level)
    rate = np.clip(sums.sum(-1) / sizes.sum(), 0, 1)
    square = stats.norm.ppf((1 + level) / 2) ** 2 / size
    middle = (rate + square / 2) / (1 + square)
    half = np.sqrt(square * (rate * (1 - rate) + square / 4)) / (1 + square)

    def lower(limit, hits):
        # The rate at which a Poisson count reaches `hits` with 1 - level.
        few = stats.gamma.ppf(1 - level, np.maximum(hits, 1e-9)) / size
        return np.where(hits <= 3, np.minimum(limit, few), limit)

    low = lower(middle - half, rate * size)
    high = 1 - lower(1 - middle - half, (1 - rate) * size)
    return np.clip(low, 0, 1), np.clip(high, 0, 1)


def difference_limits(sums, squares, sizes, level=0.95):
    """Returns the limits of `difference_interval` for many samples at once.

    Args and returns are those of `rate_limits`.
    """
    size = _effective_size(sums, squares, sizes, level)
    count = sizes.sum()
    middle = size / (size + 2) * sums.sum(-1) / count
    square = (size * squares.sum(-1) / count + 2) / (size + 2)
    half = stats.norm.ppf((1 + level) / 2) * np.sqrt(
        (square - middle**2) / (size + 2)
    )
    return np.clip(middle - half, -1, 1), np.clip(middle + half, -1, 1)


def _effective_size(sums, squares, sizes, level):
    """The effective number of independent images, `(...)`."""
    count, number = sizes.sum(), len(sizes)
    mean = sums.sum(-1) / count
    # What each group contributes to the sum of squares around the mean.
    parts = squares - 2 * mean[..., None] * sums + mean[..., None] ** 2 * sizes
    total = parts.sum(-1)
    within = np.sum(squares - sums**2 / sizes, axis=-1)
    # The size of the group of an image, on average over images. It is 1
    # without groups, where there is nothing within them.
    own = np.sum(sizes**2) / count
    spread = own * (total - within) / max(count - own, 1e-9)
    weight = 1 - own * (number - 1) / max(count - own, 1e-9)
    spread += weight * within / max(1, count - number)
    # Values are exact to 1e-6: what is below comes from rounding.
    varies = total > 1e-9
    total = np.where(varies, total, 1)
    spread = np.maximum(spread, total / count)
    groups = np.where(
        varies, total**2 / np.maximum(np.sum(parts**2, axis=-1), 1e-18), 1
    )
    size = np.where(varies, total / spread, 0) * _few_groups(groups, level)
    least = count / own * _few_groups(number, level)
    return np.clip(size, least, count)


def _few_groups(number, level):
    """The factor on a sample size for the t quantile of so many groups."""
    level = (1 + level) / 2
    freedom = np.maximum(number - 1, 0.1)
    return (stats.norm.ppf(level) / stats.t.ppf(level, freedom)) ** 2


def _group_totals(name, values, lowest, groups, level):
    """Checks the arguments; returns sums, sums of squares and sizes."""
    check_number("level", level, above=0, below=1)
    # A share of several seeds is a quotient of counts: sums of it differ in
    # their last digits.
    values = np.round(as_numbers(name, values).astype("float64"), 6)
    inside = (values >= lowest) & (values <= 1)  # Nor NaN.
    if values.ndim != 1 or len(values) == 0 or not inside.all():
        raise ValueError(
            f"{name} must be a one-dimensional array of finite values between "
            f"{lowest} and 1, at least one. Received: {name}={values!r}."
        )
    if groups is None or len(values) == 1:  # One image is its own group.
        groups = np.arange(len(values))
    else:
        groups = as_groups(groups, values)
    _, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    sums, squares = (np.bincount(index, values**power) for power in (1, 2))
    return sums, squares, sizes
