"""The result of `keras_uap.harden`: its numbers, table, plot and page."""

import dataclasses

import keras

from keras_uap import visualization
from keras_uap.classifiers.around import read_classifier
from keras_uap.evaluation.audit_result import Audit
from keras_uap.reporting import html
from keras_uap.reporting.result import LEFT_OUT, Result
from keras_uap.utils.formatting import interval, percent, sample
from keras_uap.utils.saving import random_state_kept
from keras_uap.utils.validation import check_number

# Margin by which a perturbation that needs no gradients of the hardened
# classifier must win before masked gradients are reported.
_MARGIN = 0.03
# Warn when at least this share of the clean predictions changed.
_LOST = 0.1
# The first row of the table, which has an interval.
_STRONGEST = "fooled by the strongest attack"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Hardening(Result):
    """The result of `keras_uap.harden`.

    All rates are of the held-out images.

    Attributes:
        before, after: `Audit`s of the original classifier and of the hardened
            one.
        gain_interval: 95% interval of how much less often the strongest attack
            fools after hardening, paired by image. It is narrower than those
            of the two rates, which are of the same images.
        agreement, agreement_interval: Share of the clean images that keep the
            prediction of the original classifier, and its 95% interval.
        robust_agreement_before, robust_agreement, robust_agreement_interval:
            Share of the images that keep, under the strongest attack, the
            clean prediction of the original classifier; and the 95% interval
            of the latter.
        robust_gain_interval: 95% interval of how much robust agreement rose,
            paired by image.
        transferred_rate: Fooling rate of the hardened classifier by the
            strongest perturbation of the original one.
        data_free_rate: The same for a perturbation found without images.
        fresh_rate: The largest fooling rate of the attacks on images against
            the hardened classifier that do not start from the transferred
            perturbation.
        longer_rate: The fooling rate of the attack with most model passes.
        accuracy_before, accuracy, robust_accuracy: Shares of the images that
            get the given label: clean, before and after, and under the
            strongest attack after. `None` without labels.
        history: Dictionary of lists, of the training's epochs. `attack_passes`
            are those of an attack that joins the memory.
        settings: Dictionary, the settings of the training.
        training_passes: Integer, the model passes of the training, those of
            its attacks included.
        training_seconds, seconds: Floats, of the training and of all; what
            was done before an interruption counts.
        restored: Boolean, whether the classifier has its original weights
            again, because it came out worse; see `keep` of `harden`. All rates
            are of the hardened weights.
        warnings: Tuple of sentences.
        ends: Tuple of what `at` mixes: the classifier's config, its original
            weights and the hardened ones. Or `None`.
    """

    before: Audit
    after: Audit
    gain_interval: tuple
    agreement: float
    agreement_interval: tuple
    robust_agreement_before: float
    robust_agreement: float
    robust_agreement_interval: tuple
    robust_gain_interval: tuple
    transferred_rate: float
    data_free_rate: float
    fresh_rate: float
    longer_rate: float
    accuracy_before: float | None
    accuracy: float | None
    robust_accuracy: float | None
    history: dict
    settings: dict
    training_passes: int
    training_seconds: float
    seconds: float
    warnings: tuple
    restored: bool = False
    ends: tuple | None = dataclasses.field(default=None, metadata=LEFT_OUT)

    def at(self, share):
        """Returns a classifier between the original and the hardened one.

        Each weight is `(1 - share) * original + share * hardened`. A smaller
        share keeps more clean predictions, without another training. The
        rates of this result are those of `share=1`: audit what you choose.

        Args:
            share: Float from 0, the original classifier, to 1, the hardened
                one.

        Returns:
            A new Keras model, not compiled. It takes the pixel range of the
            classifier that `harden` was given: 0 to 255 for `attach(model)`.
            `model.set_weights(result.at(share).get_weights())` puts its
            weights into that model; a share of 0 undoes the hardening.

        Raises:
            ValueError: if `share` is out of range, or no weights were kept.
        """
        check_number("share", share, least=0, most=1)
        if self.ends is None:
            raise ValueError(
                "This result holds no weights to mix. Expected: the Hardening "
                "that keras_uap.harden returned."
            )
        config, original, hardened = self.ends
        with random_state_kept():
            model = read_classifier(config, safe_mode=False)
        for weight, start, end in zip(model.weights, original, hardened):
            if keras.backend.is_float_dtype(weight.dtype):
                end = (1 - share) * start + share * end
            weight.assign(end)
        return model

    def plot(self, class_names=None):
        """Draws before and after; returns the matplotlib figure.

        Args:
            class_names: List of strings, one for each class.
        """
        return visualization.plot_hardening(self, class_names)

    def save_html(self, path, class_names=None):
        """Writes one page of HTML: before and after, and the audit of after.

        Args:
            path: String or path of the file; it appears whole or not at all.
            class_names: Sequence of strings, to name labels.
        """
        html.write_audit(path, self.after, class_names, self)

    def changes(self):
        """Triples of a name, the rate before and the rate after."""
        before, after = self.before, self.after
        fooled = before.fooling_rate
        robust = self.robust_agreement_before, self.robust_agreement
        rates = [
            (_STRONGEST, fooled, after.fooling_rate),
            ("random noise, same norm", before.random_rate, after.random_rate),
            ("transferred perturbation", fooled, self.transferred_rate),
            ("clean agreement", 1.0, self.agreement),
            ("robust agreement", *robust),
        ]
        if self.accuracy is not None:
            rates.append(
                ("clean accuracy", self.accuracy_before, self.accuracy)
            )
        return rates

    def others(self):
        """A sentence on other attacks of the hardened classifier."""
        return (
            "Attacks that start without the transferred perturbation fool up "
            f"to {percent(self.fresh_rate)}, the longest "
            f"{percent(self.longer_rate)}, an attack without images "
            f"{percent(self.data_free_rate)}."
        )

    def rows(self, class_names=None):
        """A title, the names of the columns and a row for each quantity."""
        before = self.before
        audits = before, self.after
        intervals = {
            _STRONGEST: [interval(each.fooling_interval) for each in audits],
            "clean agreement": ("", interval(self.agreement_interval)),
            "robust agreement": ("", interval(self.robust_agreement_interval)),
        }
        rows = []
        for name, *rates in self.changes():
            rows.append((name, *map(percent, rates)))
            if name in intervals:
                rows.append(("its 95% interval", *intervals[name]))
        gain = interval(self.robust_gain_interval)
        rows.append(("robust agreement gained, 95% interval", "", gain))
        gain = interval(self.gain_interval)
        rows.append(("fooled less often by, 95% interval", "", gain))
        halves = [audit.half() for audit in audits]
        rows.append(("model passes to fool half", *halves))
        title = (
            f"Hardening, {before.report.norm} norm at most "
            f"{before.card['epsilon']:.4g}, {sample(before)}, held out; "
            f"trained on {before.num_fit} images"
        )
        return title, ("", "before", "after"), rows

    def _remarks(self):
        return [
            "Robust agreement is the share of images that keep, under attack, "
            "the clean prediction of the original classifier. The strongest "
            f"attack after hardening: {self.after.strongest.name}. "
            f"{self.others()}",
            *self.after.notes,
            *(f"Warning: {text}" for text in self.warnings),
        ]


def warnings_of(result):
    """Warnings about no gain, lost predictions and masked gradients."""
    before, after = result.before, result.after
    found = []
    if result.restored:
        found.append(
            "The classifier has its original weights again: hardening changed "
            "clean predictions, and shows no gain in robust agreement. Pass "
            "keep=True for the hardened ones, or take result.at(1.0)."
        )
    if before.fooling_rate <= after.fooling_rate:
        found.append(
            "Nothing was gained: the hardened classifier is fooled as often as "
            "before."
        )
    elif result.gain_interval[0] <= 0:
        found.append(
            "The intervals before and after overlap: so few images do not "
            "show that anything was gained. Measure on more images."
        )
    elif before.fooling_interval[0] <= after.fooling_interval[1]:
        found.append(
            "The intervals before and after overlap. Image by image the "
            "classifier is still fooled less often, by "
            f"{interval(result.gain_interval)} of the images."
        )
    if 1 - result.agreement >= _LOST:
        found.append(
            f"The prediction changed on {1 - result.agreement:.0%} of the "
            "clean images. A lower `robustness`, more images and more epochs "
            "preserve more predictions."
        )
    transferred = "The transferred perturbation", result.transferred_rate
    data_free = "A perturbation found without images", result.data_free_rate
    for name, rate in (transferred, data_free):
        if rate > result.fresh_rate + _MARGIN:
            found.append(
                f"{name} fools {rate:.0%}, more than the "
                f"{result.fresh_rate:.0%} of attacks that start without it: "
                "the gradients are masked, or the attacks were too short. The "
                "classifier is more fragile than measured."
            )
    found += [f"Before: {text}" for text in before.warnings]
    return found + [f"After: {text}" for text in after.warnings]
