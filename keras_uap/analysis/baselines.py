"""Baselines: is a universal perturbation more than any large perturbation?

Fig. 8 of the paper. The universal perturbation is compared with random noise,
the adversarial perturbation of one image, the sum of the adversarial
perturbations of many images, and the mean image, all at the same norms.

Reference:
    - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401), Fig. 8
"""

import dataclasses
import itertools

import numpy as np

from keras_uap import visualization
from keras_uap.attacks.deepfool import deepfool
from keras_uap.evaluation.labelled_images import LabelledImages
from keras_uap.evaluation.measurement import read_parts
from keras_uap.perturbations.interchange import read_perturbation
from keras_uap.perturbations.lp_ball import LpBall, as_norm, lp_norm
from keras_uap.perturbations.pixels import same_shape
from keras_uap.reporting.result import Result, in_columns
from keras_uap.utils.formatting import interval, percent, sample
from keras_uap.utils.progress import progress_bar
from keras_uap.utils.validation import as_images, as_sizes, check_whole


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Baselines(Result):
    """What `baseline_rates` measured, for k directions at m norms.

    Attributes:
        names: Tuple of k strings.
        norms: Array `(m,)`, the value of `norm`, in pixel units.
        fooling_rates: Array `(k, m)`.
        intervals: Array `(k, m, 2)`, 95% intervals.
        norm: String.
        num_images, num_groups: Integers, images and photographs.
    """

    names: tuple
    norms: np.ndarray
    fooling_rates: np.ndarray
    intervals: np.ndarray
    norm: str
    num_images: int
    num_groups: int

    def rows(self, class_names=None):
        """A title, the names of the columns and a row for each direction."""
        names, norms = zip(*itertools.product(self.names, self.norms))
        return in_columns(
            f"Perturbations of one norm, {sample(self)}",
            ("direction", str, names),
            (f"{self.norm} norm", "{:.4g}".format, norms),
            ("fooled", percent, self.fooling_rates.ravel()),
            ("95% interval", interval, self.intervals.reshape(-1, 2)),
        )

    def plot(self):
        """Draws the rates against the norm; returns the figure."""
        return visualization.plot_baselines(self)


def baseline_rates(
    classifier,
    perturbation,
    images,
    held_out,
    norms=None,
    groups=None,
    norm="l2",
    increments=None,
    value_range=(0, 255),
    seed=0,
    batch_size=32,
    from_logits=None,
    verbose="auto",
):
    """Compares a perturbation with simpler ones of the same norm.

    Args:
        classifier: Keras model that maps images to class scores.
        perturbation: Array `(H, W, C)`, a universal perturbation.
        images: Images `(n, H, W, C)`: the one image, the sum and the mean are
            of these.
        held_out: Images `(m, H, W, C)` to measure on.
        norms: Sequence of floats above 0, in pixel units. `None` means a
            quarter, a half, the whole and the double of the perturbation's.
        groups: Array `(m,)`, the photograph of each held-out image.
        norm: `"l2"` or `"linf"`. Directions are scaled to it, except that
            random noise for `"linf"` has only signs.
        increments: Array `(n, H, W, C)`, the adversarial perturbations of
            `images` if there are any; otherwise `deepfool` finds them.
        value_range: Pair of floats, the pixel range, or `None`.
        seed: Integer, of the noise and the choice of the one image.
        batch_size: Integer.
        from_logits: Boolean, whether the classifier returns logits; `None`
            finds out.
        verbose: `"auto"`, 0 or 1, whether to show progress.

    Returns:
        A `Baselines`.

    Raises:
        ValueError: for norms that are not above 0, or arrays that do not fit.

    Reference:
        - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401)
    """
    v = read_perturbation(perturbation, value_range)
    check_whole("seed", seed, 0)
    norm = as_norm(norm)
    images, held_out = read_parts(images, held_out, groups)
    same_shape(images.shape[1:], v.shape)
    if norms is None:
        norms = [lp_norm(v, norm) * factor for factor in (0.25, 0.5, 1, 2)]
    norms = np.array(as_sizes("norms", norms))
    options = {"batch_size": batch_size, "from_logits": from_logits}
    labelled = LabelledImages(classifier, held_out, value_range, **options)
    if increments is None:
        found = deepfool(classifier, images, 2, verbose=verbose, **options)
        increments = found.perturbations
    increments = as_images(increments, "increments")
    rng = np.random.default_rng(seed)
    moved = np.flatnonzero(increments.reshape(len(increments), -1).any(axis=1))
    if len(moved) == 0:
        raise ValueError(
            "No image has an adversarial perturbation: all increments are zero."
        )
    directions = {
        "universal": v,
        "sum of adversarial": increments.sum(axis=0, dtype="float64"),
        "one image's adversarial": increments[rng.choice(moved)],
        "mean image": images.mean(axis=0, dtype="float64"),
        "random noise": LpBall(1.0, norm).noise(v.shape, rng),
    }
    shape = (len(directions), len(norms))
    progress = progress_bar(np.prod(shape), verbose, "rate")
    measured = []
    for direction, size in itertools.product(directions.values(), norms):
        measured.append(labelled.rate(LpBall(size, norm).scaled(direction)))
        progress.add(1)
    rates, intervals = zip(*measured)
    return Baselines(
        names=tuple(directions),
        norms=norms,
        fooling_rates=np.reshape(rates, shape),
        intervals=np.reshape(intervals, (*shape, 2)),
        norm=norm,
        **labelled.counts,
    )
