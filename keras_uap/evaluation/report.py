"""The report on one perturbation: its fooling rate and what to compare it with.

A fooling rate means little alone. On images that a classifier is unsure of,
random noise of the same norm changes many predictions too, so the report gives
both, with confidence intervals and the number of images. It also shows what
clipping to the pixel range and rounding to whole grey levels cost, how sure
the classifier was and is, and which classes are hit.
"""

import collections
import dataclasses

import numpy as np
import tensorflow as tf

from keras_uap import visualization
from keras_uap.classifiers.adapter import as_adapter
from keras_uap.classifiers.logits import as_labels
from keras_uap.evaluation import intervals
from keras_uap.evaluation.examples import Examples, take_examples
from keras_uap.evaluation.measurement import Measurement, random_noise
from keras_uap.perturbations.lp_ball import as_epsilon, lp_norm
from keras_uap.perturbations.pixels import apply_perturbation
from keras_uap.reporting import html
from keras_uap.reporting.result import LEFT_OUT, Result
from keras_uap.utils.formatting import cut, interval, percent, sample
from keras_uap.utils.validation import as_class, check_whole
from keras_uap.visualization.style import class_name, norm_in_words

# The warning below a rate with a wide interval.
TOO_FEW = (
    "The interval is wider than 30 points: measure on more photographs before "
    "you rely on this rate."
)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FoolingReport(Result):
    """What `fooling_report` measured.

    Attributes:
        num_images, num_groups: Integers, images and photographs measured on.
        norm, epsilon: The norm, and the perturbation's own value of it, in
            pixel units.
        value_range: Pair of floats, the pixel range, or `None`.
        fooling_rate, fooling_interval: Share of images whose label differs
            from the clean prediction, and its 95% interval.
        random_rate, random_interval: The same for random noise of the same
            norm (signs for `"linf"`, Gaussian noise for `"l2"`).
        rounded_rate: The fooling rate after rounding to whole grey levels, or
            `None` for signals and without a value range.
        unclipped_rate: The fooling rate without clipping to the pixel range.
        clean_confidence, perturbed_confidence: Mean probability of the top
            label before and after.
        fooled_confidence: Mean probability of the wrong label on images that
            are fooled.
        share_changed, share_at_bound: Shares of the perturbation's values that
            are not zero, and that lie at the bound of an L-infinity ball.
        clean_labels, perturbed_labels: Integer arrays `(n,)`, predictions.
        clean_confidences, perturbed_confidences: Arrays `(n,)`, the
            probability of the top label of each image before and after.
        clean_error_rate, error_rate: Share of predictions that differ from the
            given labels before and after, or `None` without labels.
        ball_epsilon: The epsilon of the fit, or `None` where not given.
        target: Integer, the class that images were to be sent to, or `None`.
        target_rate, target_interval: Share of the images not already of the
            target that are sent there, and its 95% interval, or `None`.
        target_random_rate: The same share for random noise, or `None`.
        examples: `Examples`, a few of the images at several strengths.
    """

    num_images: int
    num_groups: int
    norm: str
    epsilon: float
    value_range: tuple | None
    fooling_rate: float
    fooling_interval: tuple
    random_rate: float
    random_interval: tuple
    rounded_rate: float | None
    unclipped_rate: float
    clean_confidence: float
    perturbed_confidence: float
    fooled_confidence: float
    share_changed: float
    share_at_bound: float
    clean_labels: np.ndarray
    perturbed_labels: np.ndarray
    clean_confidences: np.ndarray
    perturbed_confidences: np.ndarray
    clean_error_rate: float | None
    error_rate: float | None
    ball_epsilon: float | None = None
    target: int | None = None
    target_rate: float | None = None
    target_interval: tuple | None = None
    target_random_rate: float | None = None
    examples: Examples | None = dataclasses.field(
        default=None, repr=False, metadata=LEFT_OUT
    )

    @property
    def fooled(self):
        """Boolean array `(n,)`, whether the perturbation changes the label."""
        return self.clean_labels != self.perturbed_labels

    def per_class(self):
        """Fooling rate by clean prediction.

        Returns:
            Dictionary from class index to `(fooling rate, images)`, the class
            with the most images first.
        """
        fooled, labels = self.fooled, self.clean_labels
        return {
            label: (float(fooled[labels == label].mean()), count)
            for label, count in _most_common(labels)
        }

    def dominant_labels(self, most=5):
        """The labels that fooled images are sent to most.

        Args:
            most: Integer, how many labels to return at most.

        Returns:
            List of `(class index, share of the fooled images)`, largest first.
        """
        sent = self.perturbed_labels[self.fooled]
        common = _most_common(sent)[:most]
        return [(label, count / len(sent)) for label, count in common]

    def to_dict(self):
        """The report as plain Python values, for JSON."""
        values = super().to_dict()
        rates = self.per_class().items()
        values["per_class"] = {str(c): list(rate) for c, rate in rates}
        values["dominant_labels"] = [list(p) for p in self.dominant_labels()]
        return values

    def for_card(self):
        """The metadata of a perturbation about held-out images."""
        values = {
            "fooling_rate": self.fooling_rate,
            "interval_95": list(self.fooling_interval),
            "random_noise_rate": self.random_rate,
            "num_images": self.num_images,
            "num_photographs": self.num_groups,
        }
        if self.target_rate is not None:
            values |= {
                "target_rate": self.target_rate,
                "target_interval_95": list(self.target_interval),
                "target_random_noise_rate": self.target_random_rate,
            }
        return values

    def plot(self, class_names=None):
        """Draws the report on one page; returns the matplotlib figure.

        Args:
            class_names: List of strings, one for each class.
        """
        return visualization.plot_report(self, class_names)

    def save_html(self, path, class_names=None, card=None):
        """Writes the report as one page of HTML that can be passed on.

        The page needs no other file and opens offline: images, style and
        script are inside. A slider shows examples at 0 to 2 times the
        perturbation.

        Args:
            path: String or path of the file; it appears whole or not at all.
            class_names: Sequence of strings, to name labels.
            card: Dictionary, what is known of the perturbation, as in
                `keras_uap.interchange.save_perturbation`: `classifier`,
                `seed`, `found_by` and `stop_reason` are shown.
        """
        html.write_report(path, self, class_names, card, self._remarks())

    def _remarks(self):
        return [TOO_FEW] if intervals.is_wide(self.fooling_interval) else []

    def rows(self, class_names=None):
        """A title, the names of the columns and a row for each quantity."""
        noise = self.random_rate, self.random_interval
        rows = [
            _rate("fooled", self.fooling_rate, self.fooling_interval),
            _rate("random noise, same norm", *noise),
            _rate("rounded to grey levels", self.rounded_rate),
            _rate("without clipping", self.unclipped_rate),
        ]
        if self.target is not None:
            name = cut(class_name(self.target, class_names), 24)
            others = f"{np.sum(self.clean_labels != self.target)} others"
            sent = f"sent to {name}, of {others}"
            rows += [
                _rate(sent, self.target_rate, self.target_interval)
                or (sent, "-", ""),
                _rate(f"sent to {name}, by noise", self.target_random_rate),
            ]
        rows.append(_rate("error rate, clean", self.clean_error_rate))
        rows.append(_rate("error rate, perturbed", self.error_rate))
        for label, share in self.dominant_labels():
            name = class_name(label, class_names)
            rows.append(_rate(f"fooled images sent to {name}", share))
        fooled = f"{self.fooled_confidence:.2f}" if self.fooling_rate else "-"
        rows += [
            ("confidence, clean", f"{self.clean_confidence:.2f}", ""),
            ("confidence, perturbed", f"{self.perturbed_confidence:.2f}", ""),
            ("confidence, where fooled", fooled, ""),
            _rate("values changed", self.share_changed),
        ]
        if self.norm == "linf":
            rows.append(_rate("values at the bound", self.share_at_bound))
        title = f"One perturbation, {norm_in_words(self)}, {sample(self)}"
        return title, ("", "value", "95% interval"), [r for r in rows if r]


def _most_common(labels):
    """Pairs of a label and its count, the largest count first."""
    return collections.Counter(np.sort(labels).tolist()).most_common()


def _rate(name, rate, bounds=None):
    """A row of the table, or `None` where there is no rate."""
    if rate is None:
        return None
    return name, percent(rate), "" if bounds is None else interval(bounds)


# How often `fooling_report` classifies each image, without the
# draws of noise: clean, perturbed, rounded and unclipped.
PASSES = 4


def fooling_report(
    classifier,
    perturbation,
    images,
    labels=None,
    groups=None,
    norm="linf",
    value_range=(0, 255),
    num_random=3,
    seed=0,
    batch_size=32,
    from_logits=None,
    verbose="auto",
    epsilon=None,
    target=None,
):
    """Measures a perturbation on images.

    Args:
        classifier: Keras model that maps images to class scores.
        perturbation: Array `(H, W, C)`, in the pixel units of `value_range`.
        images: Images `(n, H, W, C)`, not those that the perturbation was
            fitted on.
        labels: Class indices `(n,)`, or a probability for each class
            `(n, num_classes)`, for error rates. They play no part in fooling
            rates.
        groups: Array `(n,)`, the photograph that each image was cut from.
            Images of one group are not independent, and the intervals become
            wider.
        norm: `"linf"` or `"l2"`, the norm in which random noise is to equal
            the perturbation.
        value_range: Pair of floats, the pixel range, or `None`.
        num_random: Integer, draws of random noise; their rates are averaged.
        seed: Integer, the seed of the noise.
        batch_size: Integer.
        from_logits: Boolean, whether the classifier returns logits; `None`
            finds out.
        verbose: `"auto"`, 0 or 1, whether to show progress.
        epsilon: Float, the radius of the ball that the perturbation was sought
            in. The table shows where it ends far inside.
        target: Integer, the class that the perturbation was to send images to,
            for its target rate.

    Returns:
        A `FoolingReport`.

    Raises:
        TypeError: if `classifier` is not a Keras model.
        ValueError: for images that are empty, not finite or of another shape
            than the perturbation, labels or groups of another length, or
            labels or a target that are no classes.
    """
    given = Measurement(perturbation, images, groups, norm, value_range, seed)
    check_whole("num_random", num_random, 1)
    epsilon = None if epsilon is None else as_epsilon(epsilon)
    shape, few = given.images.shape[1:], given.images[:4]
    adapter = as_adapter(classifier, shape, from_logits, few)
    labels = given.pictures.labels if labels is None else labels
    labels = as_labels("labels", labels, len(given.images), adapter.num_classes)
    target = as_class("target", target, adapter.num_classes)
    labelled = given.labelled(adapter, batch_size, from_logits, verbose)
    options = given.norm, num_random, seed, verbose, epsilon, target
    return report_on(labelled, given.v, labels, *options)


def report_on(
    labelled,
    v,
    labels=None,
    norm="linf",
    num_random=3,
    seed=0,
    verbose=0,
    epsilon=None,
    target=None,
):
    """`fooling_report` of `LabelledImages`, with arguments already checked."""
    value_range, size = labelled.value_range, lp_norm(v, norm)
    perturbed = labelled.logits(v, verbose)

    def rate(transform):
        labels = labelled.adapter.labels(
            labelled.images, transform, labelled.batch_size, verbose
        )
        return float(np.mean(labels != labelled.clean))

    rounded_rate = None
    # Grey levels are unknown for signals, and without a value range.
    if labelled.images.ndim == 4 and value_range is not None:
        rounded_rate = rate(lambda x: _in_grey_levels(x, v, value_range))
    unclipped_rate = rate(lambda x: apply_perturbation(x, v, None))
    rng = np.random.default_rng(seed)
    noise = [random_noise(v.shape, size, norm, rng) for _ in range(num_random)]
    random = np.stack([labelled.labels(each, verbose) for each in noise])
    before, after = labelled.clean, perturbed.argmax(-1)
    fooled, random_hits = before != after, np.mean(random != before, axis=0)
    errors = None, None
    if labels is not None:
        errors = [float(np.mean(each != labels)) for each in (before, after)]
    confidences = labelled.adapter.confidences
    clean_certainty = confidences(labelled.clean_logits).max(-1)
    certainty = confidences(perturbed).max(-1)
    sure = certainty[fooled]
    bound = np.abs(v) >= lp_norm(v, "linf") * (1 - 1e-5)
    return FoolingReport(
        num_images=len(labelled.images),
        num_groups=labelled.num_groups,
        norm=norm,
        epsilon=size,
        value_range=value_range,
        fooling_rate=float(fooled.mean()),
        fooling_interval=intervals.rate_interval(fooled, labelled.groups),
        random_rate=float(random_hits.mean()),
        random_interval=intervals.rate_interval(random_hits, labelled.groups),
        rounded_rate=rounded_rate,
        unclipped_rate=unclipped_rate,
        clean_confidence=float(clean_certainty.mean()),
        perturbed_confidence=float(certainty.mean()),
        fooled_confidence=float(sure.mean()) if len(sure) else 0.0,
        share_changed=float((v != 0).mean()),
        share_at_bound=float(bound.mean()),
        clean_labels=before,
        perturbed_labels=after,
        clean_confidences=clean_certainty,
        perturbed_confidences=certainty,
        clean_error_rate=errors[0],
        error_rate=errors[1],
        ball_epsilon=epsilon,
        examples=take_examples(labelled, v),
        **_target_rates(target, before, after, random, labelled.groups),
    )


def _target_rates(target, before, after, random, groups):
    """The fields of a report about its target."""
    others = before != target
    if target is None or not others.any():
        return {"target": target}
    hits = after[others] == target
    noise_rate = np.mean(random == target, axis=0)[others].mean()
    groups = None if groups is None else groups[others]
    return {
        "target": int(target),
        "target_rate": float(hits.mean()),
        "target_interval": intervals.interval_of_some(hits, groups),
        "target_random_rate": float(noise_rate),
    }


def _in_grey_levels(images, v, value_range):
    """Perturbed images, rounded to the grey levels of an image file."""
    images = apply_perturbation(images, v, value_range)
    low, high = value_range
    step = (high - low) / 255.0
    return low + step * tf.round((images - low) / step)
