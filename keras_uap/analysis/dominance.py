"""Dominance: which label takes most images, and when is that settled?

Section 3 of the paper: most images that a universal perturbation fools go to a
few *dominant labels*. Three questions about them:

- What does the classifier see in the perturbation itself? It is shown alone,
  on a grey image. Where its top label is the dominant one, the perturbation is
  an image of that label to the classifier.
- How much do the most common label, the three and the five most common ones
  take? That share of the clean and the perturbed images is of each kind's own
  most common labels, counted on the images that chose them.
- How early in a fit is it settled which label dominates, and do other orders
  of the images, or other starts, settle on others?

A loss can ask for a dominant label: `"dominant"` does, by its name.
`"crossentropy"` and `"features"` do not.

Reference:
    - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401)
    - [Zhang et al., 2020](https://arxiv.org/abs/2007.06189)
"""

import dataclasses

import keras
import numpy as np

from keras_uap import visualization
from keras_uap.analysis.fitting import default_fit
from keras_uap.analysis.labels import captured_by
from keras_uap.attacks import losses
from keras_uap.evaluation.intervals import rate_interval
from keras_uap.evaluation.labelled_images import LabelledImages
from keras_uap.evaluation.measurement import Measurement, read_parts, stacked
from keras_uap.perturbations.lp_ball import LpBall
from keras_uap.perturbations.pixels import apply_perturbation, mid_grey
from keras_uap.reporting.result import LEFT_OUT, Result, in_columns
from keras_uap.utils.formatting import interval, percent, sample
from keras_uap.utils.progress import progress_bar
from keras_uap.utils.validation import check_flag, check_whole
from keras_uap.visualization.style import class_name

# The numbers of labels whose common share is measured.
TOPS = (1, 3, 5)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Dominance(Result):
    """What `label_dominance` measured on n images.

    Attributes:
        names: Tuple of three strings: clean images, perturbed ones, and those
            with random noise of the same norm. The arrays are in this order.
        labels: Integer array `(3, n)`, the predictions.
        tops: Tuple of integers, 1, 3 and 5.
        shares: Array `(3, 3)`, the share of the images of a kind that the
            first, the three and the five most common labels of it take.
        intervals: Array `(3, 3, 2)`, 95% intervals of them, for labels that
            do not depend on the sample.
        alone_labels: Integer array `(3, m)`, the m top labels, best first, of
            the grey image, of the perturbation on it, of the noise on it.
        alone_probabilities: Array `(3, m)`, their probabilities.
        alone_rank: Integer, the place of the perturbed images' most common
            label among the scores of the perturbation on grey, from 1.
        fooling_rate, random_rate: Floats, of the perturbation and the noise.
        fooling_interval, random_interval: 95% intervals of these.
        grey: Float, the value that every pixel of the grey image has.
        epsilon, norm: The norm of the perturbation, in pixel units.
        num_images, num_groups: Integers, images and photographs.
    """

    names: tuple
    labels: np.ndarray
    tops: tuple
    shares: np.ndarray
    intervals: np.ndarray
    alone_labels: np.ndarray
    alone_probabilities: np.ndarray
    alone_rank: int
    fooling_rate: float
    random_rate: float
    fooling_interval: tuple
    random_interval: tuple
    grey: float
    epsilon: float
    norm: str
    num_images: int
    num_groups: int

    @property
    def dominant_label(self):
        """The most common label of the perturbed images."""
        return int(captured_by(self.labels[1])[0][0])

    def rows(self, class_names=None):
        """A title, the names of the columns and a row for each kind."""
        rows = []
        for i, name in enumerate(self.names):
            top = class_name(captured_by(self.labels[i])[0][0], class_names)
            first, *more = map(percent, self.shares[i])
            rows.append(
                (name, top, first, interval(self.intervals[i, 0]), *more)
            )
        for i, name in enumerate(("grey", "v on grey", "noise on grey")):
            top = class_name(self.alone_labels[i, 0], class_names)
            probability = f"p = {self.alone_probabilities[i, 0]:.2f}"
            rows.append((name, top, probability, *["-"] * len(self.tops)))
        title = (
            f"Labels, {sample(self)}: {self.fooling_rate:.1%} fooled, noise "
            f"{self.random_rate:.1%}"
        )
        more = [f"first {top}" for top in self.tops[1:]]
        header = ("images", "first label", "takes", "95%", *more)
        return title, header, rows

    def plot(self, class_names=None):
        """Draws the shares, and what v alone is seen as; returns the figure.

        Args:
            class_names: List of strings, one for each class.
        """
        return visualization.plot_dominance(self, class_names)


def label_dominance(
    classifier,
    perturbation,
    images,
    groups=None,
    norm="linf",
    value_range=(0, 255),
    seed=0,
    batch_size=32,
    from_logits=None,
    verbose="auto",
):
    """Measures what the most common labels take, and v alone.

    Args:
        classifier: Keras model that maps images to class scores.
        perturbation: Array `(H, W, C)`, in the pixel units of `value_range`.
        images: Images `(n, H, W, C)`, not those that the perturbation was
            fitted on.
        groups: Array `(n,)`, the photograph of each image.
        norm: `"linf"` or `"l2"`, the norm in which random noise is to equal
            the perturbation.
        value_range: Pair of floats, the pixel range. Grey is the middle of
            it, or zero for `None`.
        seed: Integer, the seed of the noise.
        batch_size: Integer.
        from_logits: Boolean, whether the classifier returns logits; `None`
            finds out.
        verbose: `"auto"`, 0 or 1, whether to show progress.

    Returns:
        A `Dominance`.

    Raises:
        TypeError: if `classifier` is not a Keras model.
        ValueError: for images that are empty, not finite or of another shape.

    Reference:
        - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401)
    """
    given = Measurement(perturbation, images, groups, norm, value_range, seed)
    labelled = given.labelled(classifier, batch_size, from_logits, verbose)
    v, noise = given.v, given.noise()
    attacked = [labelled.labels(added, verbose) for added in (v, noise)]
    labels = np.stack([labelled.clean, *attacked])
    grey = mid_grey(v.shape, labelled.value_range)
    shown = np.stack([0 * v, v, noise])
    shown = apply_perturbation(grey, shown, labelled.value_range)
    alone = labelled.adapter.predict(shown)
    order = np.argsort(-alone, axis=-1, kind="stable")
    dominant = captured_by(labels[1])[0][0]
    top = order[:, : max(TOPS)]
    return Dominance(
        names=("clean", "perturbed", "random noise"),
        labels=labels,
        tops=TOPS,
        **stacked([_shares(row, labelled.groups) for row in labels]),
        alone_labels=top,
        alone_probabilities=np.take_along_axis(
            labelled.adapter.confidences(alone), top, axis=-1
        ),
        alone_rank=int(np.flatnonzero(order[1] == dominant)[0]) + 1,
        **given.rates(*labels),
        grey=float(grey.flat[0]),
        **labelled.counts,
    )


def _shares(labels, groups):
    """What the first few labels take, and the intervals of it."""
    common, _ = captured_by(labels)
    taken = [np.isin(labels, common[:top]) for top in TOPS]
    return {
        "shares": [each.mean() for each in taken],
        "intervals": [rate_interval(each, groups) for each in taken],
    }


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class DominanceHistory(Result):
    """What `dominance_history` saw in s fits, at t moments of each.

    Attributes:
        seeds: Tuple of s integers.
        batches: Integer array `(t,)`, after how many batches it looked.
        labels: Integer array `(s, t)`, the label that most of the fooled
            held-out images had; -1 where none was fooled.
        shares: Array `(s, t)`, the share of all held-out images that had
            moved to that label.
        fooling_rates: Array `(s, t)`, the share that had moved at all.
        intervals: Array `(s, 2)`, 95% intervals of the last `shares`.
        random_label: Integer, the same label for random noise, or -1.
        random_share, random_rate: Floats, the same shares for it.
        random_interval: 95% interval of `random_share`.
        batch_size: Integer, images in a batch.
        loss: String, what the fits minimised.
        random_start: Boolean, whether they started at random in the ball.
        epsilon, norm: The ball, in pixel units.
        num_images, num_groups: Integers, held-out images and photographs.
        perturbations: Array `(s, H, W, C)`, the last of each fit, in pixel
            units.
    """

    seeds: tuple
    batches: np.ndarray
    labels: np.ndarray
    shares: np.ndarray
    fooling_rates: np.ndarray
    intervals: np.ndarray
    random_label: int
    random_share: float
    random_rate: float
    random_interval: tuple
    batch_size: int
    loss: str
    random_start: bool
    epsilon: float
    norm: str
    num_images: int
    num_groups: int
    perturbations: np.ndarray = dataclasses.field(repr=False, metadata=LEFT_OUT)

    @property
    def settled(self):
        """After how many batches the label of each fit was its last one.

        An integer array `(s,)`, of the looks that were taken: the label may
        have been there since just after the look before. Where its share is
        not above that of random noise, no label dominates, and this has no
        meaning.
        """
        same = self.labels == self.labels[:, -1:]
        # The last look at which it was another one, and the next.
        other = np.where(same, -1, np.arange(len(self.batches))).max(axis=1)
        return self.batches[other + 1]

    def rows(self, class_names=None):
        """A title, the names of the columns and a row for each fit."""
        fits = [*(f"seed {seed}" for seed in self.seeds), "random noise"]
        labels = [
            "none" if label < 0 else class_name(label, class_names)
            for label in (*self.labels[:, -1], self.random_label)
        ]
        shares = [*self.shares[:, -1], self.random_share]
        rates = [*self.fooling_rates[:, -1], self.random_rate]
        return in_columns(
            f"Dominant labels of fits, loss {self.loss}, {sample(self)}",
            ("fit", str, fits),
            ("label", str, labels),
            ("since batch", str, [*self.settled, "-"]),
            ("sent there", percent, shares),
            ("95%", interval, [*self.intervals, self.random_interval]),
            ("fooled", percent, rates),
        )

    def plot(self, class_names=None):
        """Draws what each fit's label took over its batches.

        Args:
            class_names: List of strings, one for each class.
        """
        return visualization.plot_dominance_history(self, class_names)


def dominance_history(
    classifier,
    images,
    held_out,
    num_seeds=3,
    random_start=False,
    loss=None,
    groups=None,
    epsilon=10.0,
    norm="linf",
    value_range=(0, 255),
    draws=1024,
    seed=0,
    fit_batch_size=16,
    batch_size=32,
    from_logits=None,
    verbose="auto",
):
    """Watches which label dominates while perturbations are fitted.

    It looks after 1, 2, 4, 8, ... batches and after the last one.

    Args:
        classifier: Keras model that maps images to class scores.
        images: Images `(n, H, W, C)` to fit on, in another order each time.
        held_out: Images `(m, H, W, C)` of other photographs, to look at.
        num_seeds: Integer, how many fits.
        random_start: Boolean, whether each fit starts at another random point
            of the ball, and not at zero.
        loss: What `fit_perturbation` takes. `None` means `"dominant"`, which
            asks for one label; `"crossentropy"` does not.
        groups: Array `(m,)`, the photograph of each held-out image.
        epsilon, norm, value_range, draws, from_logits: See
            `fit_perturbation`.
        seed: Integer, the seed of the first fit; each next one is one higher.
        fit_batch_size: Integer, images in a batch of the fits.
        batch_size: Integer, for measuring.
        verbose: `"auto"`, 0 or 1, whether to show progress.

    Returns:
        A `DominanceHistory`.

    Raises:
        TypeError: if `classifier` is not a Keras model.
        ValueError: for arguments out of range, or images that do not fit.

    Reference:
        - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401)
    """
    check_whole("num_seeds", num_seeds, 1)
    check_flag("random_start", random_start)
    check_whole("seed", seed, 0)
    check_whole("fit_batch_size", fit_batch_size, 1)
    loss = "dominant" if loss is None else loss
    losses.get(loss)  # Raises an error if it is none.
    ball = LpBall(epsilon, norm)
    images, held_out = read_parts(images, held_out, groups)
    options = value_range, batch_size, from_logits
    labelled = LabelledImages(classifier, held_out, *options)
    fit = default_fit(classifier, norm, value_range, draws, from_logits)
    seeds = tuple(range(seed, seed + num_seeds))
    shape = images.shape[1:]
    progress = progress_bar(num_seeds, verbose, "perturbation")
    watches, perturbations = [], []
    for each in seeds:
        watches.append(_Watch(labelled))
        how = {"batch_size": fit_batch_size, "callbacks": [watches[-1]]}
        if random_start:
            start = ball.uniform(shape, np.random.default_rng(each))
            how["initial_perturbation"] = start
        perturbations.append(fit(images, epsilon, each, loss=loss, **how))
        progress.add(1)
    noise = ball.noise(shape, np.random.default_rng(seed))
    random_label, random_hits, random_rate = _sent(labelled, noise)
    batches, labels, shares, rates = (
        np.array([[look[part] for look in watch.seen] for watch in watches])
        for part in range(4)
    )
    intervals = [rate_interval(w.hits, labelled.groups) for w in watches]
    return DominanceHistory(
        seeds=seeds,
        batches=batches[0],
        labels=labels,
        shares=shares,
        fooling_rates=rates,
        intervals=np.array(intervals),
        random_label=random_label,
        random_share=float(random_hits.mean()),
        random_rate=random_rate,
        random_interval=rate_interval(random_hits, labelled.groups),
        batch_size=fit_batch_size,
        loss=loss if isinstance(loss, str) else loss.name,
        random_start=bool(random_start),
        epsilon=ball.epsilon,
        norm=ball.norm,
        **labelled.counts,
        perturbations=np.stack(perturbations),
    )


def _sent(labelled, perturbation):
    """Where most of the images that are fooled go.

    Returns:
        The label or -1, a boolean array `(n,)` of the images sent there, and
        the fooling rate.
    """
    labels = labelled.labels(perturbation)
    fooled = labels != labelled.clean
    if not fooled.any():
        return -1, fooled, 0.0
    label = captured_by(labels[fooled])[0][0]
    return int(label), fooled & (labels == label), float(fooled.mean())


class _Watch(keras.callbacks.Callback):
    """Looks where v sends images after 1, 2, 4, ... batches and the last."""

    def __init__(self, labelled):
        super().__init__()
        self._labelled = labelled
        self._done = 0
        self.seen = []
        self.hits = None

    def on_train_batch_end(self, batch, logs=None):
        self._done += 1
        if self._done & (self._done - 1) == 0:
            self._look()

    def on_train_end(self, logs=None):
        if self.seen[-1][0] != self._done:
            self._look()

    def _look(self):
        label, self.hits, rate = _sent(self._labelled, self.model.perturbation)
        self.seen.append((self._done, label, self.hits.mean(), rate))
