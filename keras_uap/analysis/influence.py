"""Influence: does the image or the perturbation decide the prediction?

An image x and a perturbation v are two inputs, and the classifier sees their
sum. Its logits z are compared as vectors over the classes, by Pearson's
correlation:

- z(x + v) with z(x): the influence of the image,
- z(x + v) with z(v): the influence of the perturbation, shown alone on grey.

Zhang et al. find that a universal perturbation decides and that images act as
noise, where random noise leaves the decision to the image. Logits of unrelated
inputs correlate too, because some classes have low logits everywhere: the
correlation of z(x) with z(v) is the baseline.

The perturbations of single images are those of DeepFool. The smallest step over
the boundary is far shorter than a universal perturbation, so it is measured
twice: at the norm of the universal one, and as it is. For l2 the first is the
step made longer. For L-infinity it is the signs of the step: these, as a fitted
perturbation and random signs do, use up the ball in every pixel. The step as it
is ends just past the boundary and is not clipped to the pixel range, as
DeepFool is defined: clipping would bring many images back.

Reference:
    - [Zhang et al., 2020](https://arxiv.org/abs/2007.06189)
"""

import dataclasses

import numpy as np

from keras_uap import visualization
from keras_uap.attacks.deepfool import deepfool
from keras_uap.evaluation.intervals import difference_interval, rate_interval
from keras_uap.evaluation.measurement import Measurement, at_norm, stacked
from keras_uap.perturbations.lp_ball import lp_norm
from keras_uap.perturbations.pixels import apply_perturbation, mid_grey
from keras_uap.reporting.result import Result, in_columns
from keras_uap.utils.formatting import percent, sample
from keras_uap.utils.validation import as_images, check_whole

# What the perturbations of single images are called.
_OWN, _MINIMAL = "image's own", "image's own, minimal"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MutualInfluence(Result):
    """What `mutual_influence` measured, for k kinds of v on n images.

    Attributes:
        names: Tuple of k strings: the universal perturbation, random noise,
            and each image's own, at the same norm and as it is.
        with_perturbation: Array `(k, n)`, the correlation of z(x + v) with
            z(v), v alone on grey.
        with_image: Array `(k, n)`, of z(x + v) with z(x).
        unrelated: Array `(k, n)`, of z(x) with z(v): what two inputs have in
            common that were never added.
        perturbation_intervals, image_intervals: Arrays `(k, 2)`, 95%
            intervals of the means of the first two.
        decided: Array `(k,)`, the share of the images where z(x + v) is more
            like z(v) than like z(x).
        decided_intervals: Array `(k, 2)`, 95% intervals of it.
        fooling_rates: Array `(k,)`.
        fooling_intervals: Array `(k, 2)`, 95% intervals of them.
        norms: Array `(k, n)`, the norm of each v, in pixel units.
        norm: String.
        grey: Float, the value that every pixel of the grey image has.
        num_images, num_groups: Integers, images and photographs.
    """

    names: tuple
    with_perturbation: np.ndarray
    with_image: np.ndarray
    unrelated: np.ndarray
    perturbation_intervals: np.ndarray
    image_intervals: np.ndarray
    decided: np.ndarray
    decided_intervals: np.ndarray
    fooling_rates: np.ndarray
    fooling_intervals: np.ndarray
    norms: np.ndarray
    norm: str
    grey: float
    num_images: int
    num_groups: int

    def rows(self, class_names=None):
        """A title, the names of the columns and a row for each kind."""
        title = "Logits of x + v: correlation with v alone, with x"
        number = "{:.2f}".format
        return in_columns(
            f"{title}, {sample(self)}",
            ("v", str, self.names),
            (self.norm, "{:.3g}".format, self.norms.mean(axis=1)),
            ("with v", number, self.with_perturbation.mean(axis=1)),
            ("with x", number, self.with_image.mean(axis=1)),
            ("v, x", number, self.unrelated.mean(axis=1)),
            ("decides", percent, self.decided),
            ("95%", "{0[0]:.0%} to {0[1]:.0%}".format, self.decided_intervals),
            ("fooled", percent, self.fooling_rates),
        )

    def plot(self):
        """Draws each image's correlations and their means; returns the figure.

        Above the diagonal the perturbation decides, below it the image.
        """
        return visualization.plot_influence(self)


def mutual_influence(
    classifier,
    perturbation,
    images,
    groups=None,
    increments=None,
    norm="linf",
    value_range=(0, 255),
    num_candidates=5,
    seed=0,
    batch_size=32,
    from_logits=None,
    verbose="auto",
):
    """Measures whether images or perturbations decide the prediction.

    Args:
        classifier: Keras model that maps images to scores of at least three
            classes: of two, every correlation is 1 or -1.
        perturbation: Array `(H, W, C)`, a universal perturbation, in the pixel
            units of `value_range`.
        images: Images `(n, H, W, C)`, not those that the perturbation was
            fitted on; at least two.
        groups: Array `(n,)`, the photograph of each image.
        increments: Array `(n, H, W, C)`, the adversarial perturbations of
            `images` if there are any; otherwise `deepfool` finds them. One of
            zeros, where DeepFool failed, stays zero.
        norm: `"linf"` or `"l2"`, the norm in which random noise and the single
            images' perturbations are to equal the universal one.
        value_range: Pair of floats, the pixel range. A perturbation alone is
            one on an image of the middle of it, or of zero for `None`.
        num_candidates: Integer of at least 2, as for `deepfool`.
        seed: Integer, the seed of the noise.
        batch_size: Integer.
        from_logits: Boolean, whether the classifier returns logits; `None`
            finds out.
        verbose: `"auto"`, 0 or 1, whether to show progress.

    Returns:
        A `MutualInfluence`.

    Raises:
        TypeError: if `classifier` is not a Keras model.
        ValueError: for fewer than three classes or two images, or arrays that
            do not fit.

    Reference:
        - [Zhang et al., 2020](https://arxiv.org/abs/2007.06189)
    """
    given = Measurement(perturbation, images, groups, norm, value_range, seed)
    images, norm, size = given.images, given.norm, given.epsilon
    check_whole("num_candidates", num_candidates, 2)
    if len(images) < 2:
        raise ValueError(
            "images must be at least two, to average over. Received: one image."
        )
    if increments is not None:
        increments = as_images(increments, "increments")
        if increments.shape != images.shape:
            raise ValueError(
                "increments must be one perturbation per image. Received: "
                f"shape {increments.shape}. Expected: {images.shape}."
            )
    options = {"batch_size": batch_size, "from_logits": from_logits}
    options["verbose"] = verbose
    labelled = given.labelled(classifier, **options)
    if labelled.num_classes < 3:
        raise ValueError(
            "A correlation over two classes is always 1 or -1. Expected: a "
            f"classifier of 3 or more. Received: {labelled.num_classes}."
        )
    if increments is None:
        found = deepfool(classifier, images, num_candidates, **options)
        increments = found.perturbations
    # For linf, signs use up the ball in every pixel, as v and the noise do.
    steps = np.sign(increments) if norm == "linf" else increments
    kinds = {
        "universal": given.v[np.newaxis],
        "random noise": given.noise()[np.newaxis],
        _OWN: np.stack([at_norm(each, size, norm) for each in steps]),
        _MINIMAL: increments,
    }
    return _measured(labelled, kinds, norm)


def _measured(labelled, kinds, norm):
    """The result for arrays `(n, H, W, C)`, or of one v for all images."""
    images, groups = labelled.images, labelled.groups
    grey = mid_grey(images.shape[1:], labelled.value_range)
    rows = []
    for name, perturbations in kinds.items():
        value_range = None if name == _MINIMAL else labelled.value_range
        both, alone = (
            labelled.adapter.predict(
                apply_perturbation(shown, perturbations, value_range),
                batch_size=labelled.batch_size,
            )
            for shown in (images, grey)
        )
        with_v = _correlations(both, alone)
        with_x = _correlations(both, labelled.clean_logits)
        decided = with_v > with_x
        fooled = both.argmax(-1) != labelled.clean
        norms = [lp_norm(each, norm) for each in perturbations]
        rows.append(
            {
                "names": name,
                "with_perturbation": with_v,
                "with_image": with_x,
                "unrelated": _correlations(labelled.clean_logits, alone),
                "perturbation_intervals": _mean_interval(with_v, groups),
                "image_intervals": _mean_interval(with_x, groups),
                "decided": decided.mean(),
                "decided_intervals": rate_interval(decided, groups),
                "fooling_rates": fooled.mean(),
                "fooling_intervals": rate_interval(fooled, groups),
                "norms": np.broadcast_to(norms, len(images)),
            }
        )
    return MutualInfluence(
        **stacked(rows),
        norm=norm,
        grey=float(grey.flat[0]),
        **labelled.counts,
    )


def _correlations(some, others):
    """Pearson's correlation of each row with its other, or with the one.

    The correlation of a row of equal logits is 0.
    """
    # A class that is switched off in some images has no logit to compare.
    finite = np.isfinite(some).all(0) & np.isfinite(others).all(0)
    some, others = (
        z.astype("float64") - z.mean(axis=-1, keepdims=True, dtype="float64")
        for z in (some[:, finite], others[:, finite])
    )
    lengths = np.linalg.norm(some, axis=-1) * np.linalg.norm(others, axis=-1)
    products = (some * others).sum(axis=-1)
    # Where a length is zero, the product is.
    return np.clip(products / np.maximum(lengths, 1e-300), -1.0, 1.0)


def _mean_interval(values, groups):
    return np.clip(difference_interval(values, groups), -1.0, 1.0)
