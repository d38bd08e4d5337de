"""What `keras_uap.harden` found: its numbers, and the words for them."""

import dataclasses
import textwrap

from keras_uap import visualization
from keras_uap.evaluation.audit_result import Audit
from keras_uap.reporting import html
from keras_uap.reporting.result import Result
from keras_uap.utils.formatting import percent

# By so much may a perturbation that needs no gradients of the hardened
# classifier beat those that use them.
_MARGIN = 0.03
# From this share of answers on clean pictures lost, it is said.
_LOST = 0.1


@dataclasses.dataclass(frozen=True, eq=False)
class Hardening(Result):
    """What `keras_uap.harden` did, and what it was worth.

    All rates are of the held-out pictures.

    Attributes:
        before, after: `Audit`s of the classifier and of the hardened one.
        gain_interval: 95 % interval of how much less often the strongest attack
            fools than before, picture by picture. It is narrower than those of
            the two rates, which are of the same pictures.
        agreement, agreement_interval: Share of clean pictures that get the
            label of before, and its 95 % interval.
        robust_agreement_before, robust_agreement, robust_agreement_interval:
            Share of pictures that get, under the strongest attack, the label
            that the original gave without one; and the 95 % interval of the
            latter.
        transferred_rate: Share fooled of the hardened classifier by the
            perturbation of before.
        data_free_rate: The same for one that was found without pictures.
        fresh_rate: The same for those found on pictures against the hardened
            classifier, with no start from the one of before: of them, the one
            that fools most.
        longer_rate: The same for those of most work: of them, the one that
            fools most.
        accuracy_before, accuracy, robust_accuracy: Shares that get the label
            given: without attack before and after, and under the strongest
            attack after. `None` without labels.
        history: Dictionary of lists, of the training's epochs.
        settings: Dictionary, how it was trained.
        training_passes: Integer, forwards and backwards of one image.
        training_seconds, seconds: Floats, of the training and of all.
        warnings: Tuple of sentences.
    """

    before: Audit
    after: Audit
    gain_interval: tuple
    agreement: float
    agreement_interval: tuple
    robust_agreement_before: float
    robust_agreement: float
    robust_agreement_interval: tuple
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

    def to_dict(self):
        """The result as plain Python values, for JSON, without pictures."""
        after = {
            "gain_interval_95": list(self.gain_interval),
            "agreement": self.agreement,
            "agreement_interval_95": list(self.agreement_interval),
            "robust_agreement": self.robust_agreement,
            "robust_agreement_interval_95": list(
                self.robust_agreement_interval
            ),
            "transferred_rate": self.transferred_rate,
            "data_free_rate": self.data_free_rate,
            "fresh_rate": self.fresh_rate,
            "longer_rate": self.longer_rate,
            "clean_accuracy": self.accuracy,
            "robust_accuracy": self.robust_accuracy,
        }
        before = {
            "agreement": 1.0,
            "robust_agreement": self.robust_agreement_before,
            "clean_accuracy": self.accuracy_before,
        }
        audits = {"before": self.before, "after": self.after}
        rates = {"before": before, "after": after}
        return {
            "images": self.before.num_fit,
            "held_out_images": self.before.num_images,
            "held_out_photographs": self.before.num_groups,
            "norm": self.before.report.norm,
            "epsilon": self.before.card["epsilon"],
            **{
                name: {
                    "fooling_rate": audit.fooling_rate,
                    "interval_95": list(audit.fooling_interval),
                    "strongest": audit.strongest.name,
                    "random_noise_rate": audit.random_rate,
                    **rates[name],
                    "audit": audit.to_dict(),
                }
                for name, audit in audits.items()
            },
            "settings": self.settings,
            "history": self.history,
            "training_passes": self.training_passes,
            "training_seconds": self.training_seconds,
            "seconds": self.seconds,
            "warnings": list(self.warnings),
        }

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
        html.write_hardening(path, self, class_names)

    def changes(self):
        """Triples: what share of the pictures, before, after."""
        before, after = self.before, self.after
        rates = [
            (
                "fooled by the strongest",
                before.fooling_rate,
                after.fooling_rate,
            ),
            (
                "by random noise, same norm",
                before.random_rate,
                after.random_rate,
            ),
            (
                "by the perturbation of before",
                before.fooling_rate,
                self.transferred_rate,
            ),
            ("clean answers kept", 1.0, self.agreement),
            (
                "robust agreement",
                self.robust_agreement_before,
                self.robust_agreement,
            ),
        ]
        if self.accuracy is not None:
            rates.append(("right, clean", self.accuracy_before, self.accuracy))
        return rates

    def others(self):
        """A sentence on other attacks of the hardened classifier."""
        return (
            f"Of those found anew, the one that fools most fools "
            f"{percent(self.fresh_rate)}, those with most work up to "
            f"{percent(self.longer_rate)}, one found without pictures "
            f"{percent(self.data_free_rate)}."
        )

    def rows(self, class_names=None):
        """A title, the names of the columns and a row for each quantity."""
        rows = [(name, percent(a), percent(b)) for name, a, b in self.changes()]
        return "Hardening", ("", "before", "after"), rows

    def table(self, class_names=None):
        """The result as a text of at most 80 columns.

        Args:
            class_names: Not needed: no class is named.
        """
        before, after = self.before, self.after
        held_out = f"{before.num_images} held-out pictures"
        if before.num_groups != before.num_images:
            held_out += f" of {before.num_groups} photographs"
        epsilon = before.card["epsilon"]
        _, header, rows = self.rows()
        lines = [
            held_out,
            f"{before.report.norm} norm at most {epsilon:.4g}; trained on "
            f"{before.num_fit} pictures",
            "",
        ]
        lines += [f"{name:<36}{a:>10}{b:>10}" for name, a, b in (header, *rows)]
        for name, bounds in (
            ("fooled, before", before.fooling_interval),
            ("fooled, after", after.fooling_interval),
            ("fooled less often by", self.gain_interval),
            ("clean answers kept", self.agreement_interval),
            ("robust agreement", self.robust_agreement_interval),
        ):
            low, high = map(percent, bounds)
            lines.append(f"95 % interval, {name + ':':<21}{low:>8} to {high}")
        lines += [
            "",
            textwrap.fill(
                "Robust agreement: on so many pictures, attacked, the hardened "
                "classifier says what the original said of them clean. "
                f"The strongest attack after: {after.strongest.name}. "
                f"{self.others()}",
                79,
            ),
        ]
        lines += [textwrap.fill(f"Warning: {x}", 79) for x in self.warnings]
        return "\n".join(lines)


def warnings_of(result):
    """Sentences on what was not gained, what was lost, and what smells."""
    before, after = result.before, result.after
    found = []
    if before.fooling_rate <= after.fooling_rate:
        found.append(
            "Nothing was gained: the hardened classifier is fooled as often "
            "as before."
        )
    elif result.gain_interval[0] <= 0:
        found.append(
            "The intervals before and after overlap: with so few pictures it "
            "is not shown that anything was gained."
        )
    elif before.fooling_interval[0] <= after.fooling_interval[1]:
        least, most = map(percent, result.gain_interval)
        found.append(
            "The intervals before and after overlap. Picture by picture the "
            f"classifier is fooled less often all the same, by {least} to "
            f"{most} of the pictures."
        )
    if 1 - result.agreement >= _LOST:
        found.append(
            f"On {1 - result.agreement:.0%} of the clean pictures the answer "
            "is another one than before. Less robustness keeps more; so do "
            "more pictures and more epochs."
        )
    for rate, what in (
        (result.transferred_rate, "The perturbation of before"),
        (result.data_free_rate, "A perturbation found without pictures"),
    ):
        if rate > result.fresh_rate + _MARGIN:
            found.append(
                f"{what} fools {rate:.0%}, more than the "
                f"{result.fresh_rate:.0%} of any found anew on pictures: the "
                "hardened classifier's gradients lead attacks astray, and it "
                "is more fragile than measured."
            )
    return (
        found
        + [f"Before: {text}" for text in before.warnings]
        + [f"After: {text}" for text in after.warnings]
    )
