"""What a perturbation is fitted on: how many images, which, how large a ball.

Fig. 6 of the paper, and two questions that its readers ask. Each point is a
perturbation of its own, fitted with the same amount of work and measured on
the same held-out images, which no fit has seen. Repeats with other seeds show
how much of a difference is chance.

Reference:
    - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401), Fig. 6
"""

import collections.abc
import dataclasses

import numpy as np

from keras_uap import visualization
from keras_uap.analysis.fitting import check_alike, default_fit
from keras_uap.analysis.result import Result, progress_bar
from keras_uap.batches import as_array, as_pictures
from keras_uap.checks import as_sizes, as_wholes, check_whole
from keras_uap.interval import rate_interval
from keras_uap.labeller import LabelledImages
from keras_uap.lp_ball import LpBall, as_norm
from keras_uap.visualization.ink import sample
from keras_uap.words import interval, percent


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FoolingCurve(Result):
    """Held-out fooling rates against one thing that varies, at k values.

    Attributes:
        name: String, what varies, with its unit.
        values: Tuple of k numbers or names.
        fooling_rates: Array `(k, seeds)`, one perturbation each.
        intervals: Array `(k, 2)`, 95 % intervals of the mean over the seeds.
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
        rows = [
            (
                value if isinstance(value, str) else f"{value:g}",
                percent(self.fooling_rates[i].mean()),
                interval(self.intervals[i]),
                percent(self.random_rates[i]),
            )
            for i, value in enumerate(self.values)
        ]
        title = (
            f"Held-out fooling rate, {self.norm} ball, {sample(self)}, "
            f"{self.fooling_rates.shape[1]} seed(s)"
        )
        header = (self.name, "fooled", "95 % interval", "random noise")
        return title, header, rows

    def plot(self):
        """Draws the curve, or bars for names; returns the figure."""
        return visualization.plot_curve(self)


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
    images = as_array(images)
    held_out = as_pictures(held_out, "held_out", groups)
    check_alike(images, held_out.images)
    sizes = as_wholes("sizes", sizes, 1, len(images))

    def subset(size, each):
        order = np.random.default_rng(each).permutation(len(images))
        return images[order[:size]], epsilon

    return _curve(
        "number of images",
        sizes,
        subset,
        classifier,
        held_out,
        groups,
        fit,
        norm,
        value_range,
        draws,
        num_seeds,
        seed,
        batch_size,
        from_logits,
        verbose,
    )


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
            crops of a single one, noise, drawings.
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
        raise TypeError(
            "kinds must be a dictionary from names to arrays. Received: "
            f"kinds={kinds!r}."
        )
    kinds = {
        name: as_array(images, f"kinds[{name!r}]")
        for name, images in dict(kinds).items()
    }
    if not kinds:
        raise ValueError("kinds must hold at least one. Received: none.")
    return _curve(
        "kind of images",
        tuple(kinds),
        lambda kind, each: (kinds[kind], epsilon),
        classifier,
        held_out,
        groups,
        fit,
        norm,
        value_range,
        draws,
        num_seeds,
        seed,
        batch_size,
        from_logits,
        verbose,
    )


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
        A `FoolingCurve` named "epsilon, pixel units".

    Raises:
        ValueError: for radii that are not above 0.
    """
    images = as_array(images)
    epsilons = as_sizes("epsilons", epsilons)
    return _curve(
        "epsilon, pixel units",
        epsilons,
        lambda epsilon, each: (images, epsilon),
        classifier,
        held_out,
        groups,
        fit,
        norm,
        value_range,
        draws,
        num_seeds,
        seed,
        batch_size,
        from_logits,
        verbose,
    )


def _curve(
    name,
    values,
    choose,
    classifier,
    held_out,
    groups,
    fit,
    norm,
    value_range,
    draws,
    num_seeds,
    seed,
    batch_size,
    from_logits,
    verbose,
):
    """Fits and measures; `choose(value, seed)` gives images and epsilon."""
    check_whole("num_seeds", num_seeds, 1)
    check_whole("seed", seed, 0)
    check_whole("draws", draws, 1)
    norm = as_norm(norm)
    held_out = as_pictures(held_out, "held_out", groups)
    held_out, groups = held_out.images, held_out.groups
    balls = []
    for value in values:
        images, epsilon = choose(value, seed)
        check_alike(images, held_out)
        balls.append(LpBall(epsilon, norm))
    fit = fit or default_fit(classifier, norm, value_range, draws, from_logits)
    labelled = LabelledImages(
        classifier, held_out, value_range, groups, batch_size, from_logits
    )
    progress = progress_bar(len(values) * num_seeds, verbose, "perturbation")
    rates = np.zeros((len(values), num_seeds))
    intervals, random_rates, noise_rate = [], [], {}
    for i, value in enumerate(values):
        hits = np.zeros(len(held_out))
        for j in range(num_seeds):
            images, epsilon = choose(value, seed + j)
            fooled = labelled.fooled(fit(images, epsilon, seed + j))
            rates[i, j] = fooled.mean()
            hits += fooled / num_seeds
            progress.update(i * num_seeds + j + 1)
        intervals.append(rate_interval(hits, labelled.groups))
        if epsilon not in noise_rate:
            rng = np.random.default_rng(seed)
            noise = balls[i].noise(held_out.shape[1:], rng)
            noise_rate[epsilon] = labelled.fooled(noise).mean()
        random_rates.append(noise_rate[epsilon])
    return FoolingCurve(
        name=name,
        values=values,
        fooling_rates=rates,
        intervals=np.array(intervals),
        random_rates=np.array(random_rates),
        norm=norm,
        num_images=len(held_out),
        num_groups=labelled.num_groups,
    )
