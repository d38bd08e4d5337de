"""What a perturbation is fitted on: how many images, which, how large a ball.

Fig. 6 of the paper, and two questions that its readers ask. Each point is a
separate perturbation, fitted with the same amount of work and measured on
the same held-out images, which no fit has seen. Repeats with other seeds show
how much of a difference is chance.

A curve against the radius gives one number to compare classifiers by: the
smallest epsilon that fools half of the images. A perturbation of a smaller ball
lies in every larger one, so the rate of a radius is that of the best up to it,
and so are the ends of its interval; all three rise. Between two radii they are
taken for straight lines, and each meets a half at one epsilon: the number, and
the ends of its interval. What lies outside the radii measured is not guessed.

Reference:
    - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401), Fig. 6
"""

import collections.abc
import dataclasses

import numpy as np

from keras_uap import visualization
from keras_uap.analysis.fitting import default_fit
from keras_uap.data.pictures import as_array, as_pictures
from keras_uap.evaluation.intervals import rate_interval
from keras_uap.evaluation.labelled_images import LabelledImages
from keras_uap.evaluation.measurement import check_alike, read_parts
from keras_uap.perturbations.lp_ball import LpBall, as_epsilon, as_norm
from keras_uap.reporting.result import Result, in_columns
from keras_uap.utils.formatting import interval, percent, sample
from keras_uap.utils.progress import progress_bar
from keras_uap.utils.validation import as_sizes, as_wholes, check_whole, invalid


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FoolingCurve(Result):
    """Held-out fooling rates against one thing that varies, at k values.

    Attributes:
        name: String, what varies, with its unit.
        values: Tuple of k numbers or names.
        fooling_rates: Array `(k, seeds)`, one perturbation each.
        intervals: Array `(k, 2)`, 95% intervals of the mean over the seeds.
            They speak for other photographs, not for other seeds.
        random_rates: Array `(k,)`, for random noise of the same norm.
        norm: String.
        num_images, num_groups: Integers, held-out images and photographs.
    """

    name: str
    values: tuple
    fooling_rates: np.ndarray
    intervals: np.ndarray
    random_rates: np.ndarray
    norm: str
    num_images: int
    num_groups: int

    def rows(self, class_names=None):
        """A title, the names of the columns and a row for each value."""
        names = [v if isinstance(v, str) else f"{v:g}" for v in self.values]
        seeds = self.fooling_rates.shape[1]
        return in_columns(
            f"Held-out fooling rate, {self.norm} ball, {sample(self)}, "
            f"{seeds} seed{'s'[: seeds > 1]}",
            (self.name, str, names),
            ("fooled", percent, self.fooling_rates.mean(axis=1)),
            ("95% interval", interval, self.intervals),
            ("random noise", percent, self.random_rates),
        )

    def plot(self):
        """Draws the curve, or bars for names; returns the figure."""
        return visualization.plot_curve(self)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class EpsilonCurve(FoolingCurve):
    """A `FoolingCurve` against epsilon, with the one that fools half.

    Attributes:
        name, values, fooling_rates, intervals, random_rates: As of a
            `FoolingCurve`.
        norm, num_images, num_groups: As of a `FoolingCurve`.
        half_epsilon: Float, the smallest epsilon that fools half of the
            held-out images, in pixel units, between those measured. `None`
            where it is less than the smallest of them or more than the
            largest.
        half_interval: Pair, its 95% interval, for other photographs, not for
            other seeds. The lower end is 0 where less than the smallest
            epsilon measured may do, the upper end `None` where more than the
            largest may be needed.
        random_half_epsilon: Float or `None`, the same of random noise.
    """

    half_epsilon: float | None
    half_interval: tuple
    random_half_epsilon: float | None

    def half(self):
        """The epsilon that fools half, in words.

        Returns:
            String, such as "5.31 (95%: 4.12 to 6.6)", "below 2 (95%: below
            2.3)" or "above 10 (95%: above 8.9)".
        """
        low, high = self.half_interval
        if high is None:
            text = f"above {low:.3g}"
        elif low == 0:
            text = f"below {high:.3g}"
        else:
            text = f"{low:.3g} to {high:.3g}"
        number = self._half_of(self.half_epsilon, self.fooling_rates.mean(1))
        return f"{number} (95%: {text})"

    def random_half(self):
        """The epsilon at which random noise fools half, in words."""
        return self._half_of(self.random_half_epsilon, self.random_rates)

    def _half_of(self, epsilon, rates):
        if epsilon is not None:
            return f"{epsilon:.3g}"
        if max(rates) < 0.5:
            return f"above {max(self.values):g}"
        return f"below {min(self.values):g}"

    def rows(self, class_names=None):
        """A title, the names of the columns and a row for each value."""
        title, header, rows = super().rows(class_names)
        half, by_noise = self.half(), self.random_half()
        title += f"\nHalf are fooled at epsilon {half}, by noise: {by_noise}"
        return title, header, rows


def sample_size_curve(
    classifier,
    images,
    held_out,
    sizes=(16, 64, 256, 1024),
    num_seeds=3,
    groups=None,
    fit=None,
    epsilon=10.0,
    norm="linf",
    value_range=(0, 255),
    draws=1024,
    seed=0,
    batch_size=32,
    from_logits=None,
    verbose="auto",
):
    """Measures the held-out fooling rate against the number of images.

    Args:
        classifier: Keras model that maps images to class scores.
        images: Images `(n, H, W, C)`; each fit draws its own subset of it.
        held_out: Images `(m, H, W, C)` of other photographs.
        sizes: Sequence of integers, at most n.
        num_seeds: Integer, perturbations for each size.
        groups: Array `(m,)`, the photograph of each held-out image.
        fit: Function `fit(images, epsilon, seed)` that returns a perturbation.
            `None` means `fit_perturbation` with the arguments below.
        epsilon, norm, value_range, draws, from_logits: See
            `fit_perturbation`.
        seed: Integer, the seed of the first; each next one is one higher.
        batch_size: Integer, for measuring.
        verbose: `"auto"`, 0 or 1, whether to show progress.

    Returns:
        A `FoolingCurve` named "number of images".

    Raises:
        ValueError: for sizes out of range, or images that are not images.

    Reference:
        - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401)
    """
    images, held_out = read_parts(images, held_out, groups)
    sizes = as_wholes("sizes", sizes, 1, len(images))
    options = value_range, batch_size, from_logits
    labelled = LabelledImages(classifier, held_out, *options)

    def subset(size, each):
        order = np.random.default_rng(each).permutation(len(images))
        return images[order[:size]]

    fit = fit or default_fit(classifier, norm, value_range, draws, from_logits)
    options = fit, labelled, norm, num_seeds, seed, verbose
    curve = _curve(sizes, subset, [epsilon] * len(sizes), *options)
    return FoolingCurve(name="number of images", **curve)


def image_kinds(
    classifier,
    kinds,
    held_out,
    num_seeds=1,
    groups=None,
    fit=None,
    epsilon=10.0,
    norm="linf",
    value_range=(0, 255),
    draws=1024,
    seed=0,
    batch_size=32,
    from_logits=None,
    verbose="auto",
):
    """Measures the held-out fooling rate against the kind of images.

    Args:
        classifier: Keras model that maps images to class scores.
        kinds: Dictionary from names to arrays `(n, H, W, C)`: photographs,
            images of a single one, noise, drawings.
        held_out: Images `(m, H, W, C)` of photographs.
        num_seeds: Integer, perturbations for each kind.
        groups: Array `(m,)`, the photograph of each held-out image.
        fit, epsilon, norm, value_range: As for `sample_size_curve`.
        draws, seed, batch_size: As for `sample_size_curve`.
        from_logits, verbose: As for `sample_size_curve`.

    Returns:
        A `FoolingCurve` named "kind of images", with names as values.

    Raises:
        ValueError: for kinds without images.
    """
    if not isinstance(kinds, collections.abc.Mapping):
        expected = "a dictionary from names to arrays"
        raise invalid("kinds", expected, kinds, error=TypeError)
    kinds = {k: as_array(x, f"kinds[{k!r}]") for k, x in kinds.items()}
    if not kinds:
        raise ValueError("kinds must hold at least one. Received: none.")
    held_out = as_pictures(held_out, "held_out", groups)
    for images in kinds.values():
        check_alike(images, held_out.images)
    options = value_range, batch_size, from_logits
    labelled = LabelledImages(classifier, held_out, *options)

    names = tuple(kinds)
    fit = fit or default_fit(classifier, norm, value_range, draws, from_logits)
    options = fit, labelled, norm, num_seeds, seed, verbose
    epsilons = [epsilon] * len(names)
    curve = _curve(names, lambda name, _: kinds[name], epsilons, *options)
    return FoolingCurve(name="kind of images", **curve)


def epsilon_curve(
    classifier,
    images,
    held_out,
    epsilons=(2.0, 5.0, 10.0),
    num_seeds=1,
    groups=None,
    fit=None,
    norm="linf",
    value_range=(0, 255),
    draws=1024,
    seed=0,
    batch_size=32,
    from_logits=None,
    verbose="auto",
):
    """Measures the held-out fooling rate against the radius of the ball.

    Args:
        classifier: Keras model that maps images to class scores.
        images: Images `(n, H, W, C)` to fit on.
        held_out: Images `(m, H, W, C)` of other photographs.
        epsilons: Sequence of floats above 0, in pixel units.
        num_seeds: Integer, perturbations for each radius.
        groups: Array `(m,)`, the photograph of each held-out image.
        fit, norm, value_range, draws, seed, batch_size, from_logits, verbose:
            As for `sample_size_curve`.

    Returns:
        An `EpsilonCurve` named "epsilon, pixel units". Choose radii on both
        sides of the one that fools half.

    Raises:
        ValueError: for radii that are not above 0.
    """
    images, held_out = read_parts(images, held_out, groups)
    epsilons = as_sizes("epsilons", epsilons)
    options = value_range, batch_size, from_logits
    labelled = LabelledImages(classifier, held_out, *options)
    fit = fit or default_fit(classifier, norm, value_range, draws, from_logits)
    options = fit, labelled, norm, num_seeds, seed, verbose
    curve = _curve(epsilons, lambda *_: images, epsilons, *options)
    # The more are fooled, the smaller the epsilon that fools half.
    lows, highs = curve["intervals"].T
    low, high = _half(epsilons, highs), _half(epsilons, lows)
    half = _half(epsilons, curve["fooling_rates"].mean(axis=1))
    random_half = _half(epsilons, curve["random_rates"])
    return EpsilonCurve(
        name="epsilon, pixel units",
        **curve,
        half_epsilon=half if 0 < half < np.inf else None,
        half_interval=(
            min(low, max(epsilons)),
            None if high == np.inf else max(high, min(epsilons)),
        ),
        random_half_epsilon=random_half if 0 < random_half < np.inf else None,
    )


def _half(epsilons, rates):
    """The smallest epsilon with a rate of a half.

    Returns:
        Float: 0 where it is below those given, infinity where it is above.
    """
    order = np.argsort(epsilons, kind="stable")
    epsilons = np.asarray(epsilons)[order]
    rates = np.maximum.accumulate(np.asarray(rates)[order])
    first = int(np.searchsorted(rates, 0.5))
    if first == len(rates):
        return np.inf
    if first == 0:
        return float(epsilons[0]) if rates[0] == 0.5 else 0.0
    pair = [first - 1, first]
    return float(np.interp(0.5, rates[pair], epsilons[pair]))


def _curve(
    values, choose, epsilons, fit, labelled, norm, num_seeds, seed, verbose
):
    """Fits perturbations for each value, and measures them.

    Args:
        values: As of a `FoolingCurve`.
        choose: Function from a value and a seed to images.
        epsilons: Sequence of floats, the radius for each value.
        fit: Function `fit(images, epsilon, seed)`.
        labelled: `LabelledImages`, held out.
        norm, num_seeds, seed, verbose: As for `sample_size_curve`.

    Returns:
        Dictionary, the fields of a `FoolingCurve` apart from its name.
    """
    check_whole("num_seeds", num_seeds, 1)
    check_whole("seed", seed, 0)
    noise_rates, epsilons = {}, [*map(as_epsilon, epsilons)]
    for epsilon in set(epsilons):
        rng = np.random.default_rng(seed)
        noise = LpBall(epsilon, norm).noise(labelled.images.shape[1:], rng)
        noise_rates[epsilon] = labelled.fooled(noise).mean()
    progress = progress_bar(len(values) * num_seeds, verbose, "perturbation")
    fooled = np.zeros((len(values), num_seeds, len(labelled.images)), bool)
    for i, j in np.ndindex(fooled.shape[:2]):
        images = choose(values[i], seed + j)
        fooled[i, j] = labelled.fooled(fit(images, epsilons[i], seed + j))
        progress.add(1)
    mean_hits, groups = fooled.mean(axis=1), labelled.groups
    return {
        "values": values,
        "fooling_rates": fooled.mean(axis=2),
        "intervals": np.array([rate_interval(h, groups) for h in mean_hits]),
        "random_rates": np.array([noise_rates[each] for each in epsilons]),
        "norm": as_norm(norm),
        **labelled.counts,
    }
