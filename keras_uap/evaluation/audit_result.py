"""The result of `keras_uap.audit`: its numbers, table, plot and page."""

import dataclasses
import math

import numpy as np

from keras_uap import samples, visualization
from keras_uap.evaluation import gate
from keras_uap.evaluation.report import FoolingReport
from keras_uap.reporting import html
from keras_uap.reporting.card import write_card
from keras_uap.reporting.result import LEFT_OUT, Result
from keras_uap.utils.formatting import cut, interval, percent, sample
from keras_uap.utils.progress import in_words
from keras_uap.visualization.style import class_name, unit

# Limits of `Audit.next_steps`: noise that fools this share of what the
# strongest attack does, an interval of this width, a rate that rose by this
# much in the last round, and a lower end of the interval above this.
_CLOSE, _WIDE, _RISES, _FRAGILE = 0.8, 0.2, 0.03, 0.5


@dataclasses.dataclass(frozen=True)
class Run:
    """What one attack of an audit found in one of its rounds.

    Attributes:
        name, seed: The attack and its seed.
        passes: Integer, the model passes, a forward or a backward of one
            image, that the attack took until then, earlier rounds included.
        seconds: Float, of this round.
        no_gradient: Float, the share of the images shown that had no usable
            gradient, or that DeepFool did not get over a boundary.
        select_rate: Float, share fooled of the selection set.
        fooling_rate, fooling_interval: Share fooled of the held-out set, and
            its 95% interval.
    """

    name: str
    seed: int
    passes: int
    seconds: float
    no_gradient: float
    select_rate: float
    fooling_rate: float
    fooling_interval: tuple


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Audit(Result):
    """What `keras_uap.audit` found.

    Attributes:
        fooling_rate, fooling_interval: Share of the held-out images that the
            strongest perturbation fools, and its 95% interval.
        random_rate: The same for random noise of the same norm.
        larger_rate: The same for the perturbation at twice the norm.
        perturbation: Array `(H, W, C)`, the strongest one, in pixel units.
        strongest: `Run`, the one that found it.
        runs: Tuple of `Run`, one for each attack and round.
        report: `keras_uap.analysis.FoolingReport` of the strongest on the
            held-out images: classes, labels, confidence.
        budget: String.
        num_fit, num_select, num_images: Integers, the images of each part;
            `num_images` are held out.
        num_groups: Integer, the photographs of the held-out set.
        effort: Tuple of pairs, the model passes and the fooling rate of the
            strongest attack after each of its rounds. A classifier that takes
            more of them to fool is more robust, even where the last rate is
            the same.
        passes_to_half: Integer, the model passes at which this curve reaches a
            half, interpolated, or `None`.
        passes: Integer, the model passes in all.
        seconds: Float.
        warnings, notes: Tuples of sentences: symptoms of masked gradients and
            rates with wide intervals, and what was done or left out.
        card: Dictionary, for `keras_uap.interchange.save_perturbation`.
        survival: Tuple of `Survived`, what the strongest perturbation fools
            after JPEG, resizing, rounding and a shift, measured on some of the
            held-out images. It is empty for signals and without a value range.
    """

    fooling_rate: float
    fooling_interval: tuple
    random_rate: float
    larger_rate: float
    perturbation: np.ndarray = dataclasses.field(metadata=LEFT_OUT)
    strongest: Run
    runs: tuple
    report: FoolingReport
    budget: str
    num_fit: int
    num_select: int
    num_images: int
    num_groups: int
    effort: tuple
    passes_to_half: int | None
    passes: int
    seconds: float
    warnings: tuple
    notes: tuple
    card: dict
    survival: tuple = ()

    def plot(self, class_names=None):
        """Draws the runs and the perturbation; returns the figure.

        Args:
            class_names: List of strings, one for each class.
        """
        return visualization.plot_audit(self, class_names)

    def save_html(self, path, class_names=None):
        """Writes the audit as one page of HTML that can be passed on.

        The page needs no other file and no network: images, style and
        script are inside. A slider shows examples at 0 to 2 times the
        perturbation.

        Args:
            path: String or path of the file; it appears whole or not at all.
            class_names: Sequence of strings, to name labels.
        """
        html.write_audit(path, self, class_names)

    def save_card(self, path, command=None):
        """Writes what a model card says of the audit, as Markdown and JSON.

        Args:
            path: String or path of the Markdown file, such as `"card.md"`.
                `card.json` is written beside it.
            command: String, how the audit is repeated. `None` writes the call
                of `keras_uap.audit`.

        Raises:
            ValueError: if `path` does not end in `.md`.
        """
        write_card(path, self, command)

    def check(self, fail_above=None, baseline=None, tolerance=0.05):
        """Raises `keras_uap.AuditFailed` if the classifier is too fragile.

        Args:
            fail_above: Float in 0 to 1, the largest fooling rate allowed, or
                `None`.
            baseline: `Audit` to compare with, its `to_dict()`, or the path of
                an `audit.json`; or `None`. Its norm, epsilon and value range
                must be the same. Its images, budget and seed should be; that
                is not checked.
            tolerance: Float in 0 to 1. The check fails if the fooling rate
                rose by more than this from that of the baseline, and the 95%
                interval of the rise lies above 0.

        Raises:
            AuditFailed: an `AssertionError` with the rate, its interval and
                the limit.
            ValueError: for limits out of range, or a baseline that is no audit
                or one of another norm, epsilon or value range.
            FileNotFoundError: if there is no file of that path.
        """
        gate.check(gate.rules(self, fail_above, baseline, tolerance))

    def rows(self, class_names=None):
        """A title, the names of the columns and a row for each quantity."""
        report = self.report
        rows = [
            _row("strongest attack", self.fooling_rate, self.fooling_interval),
            _row("random noise, same norm", self.random_rate),
            _row("strongest attack, twice the norm", self.larger_rate),
            ("strongest attack fools half after", "50.0%", "", "", self.half()),
        ]
        for each in self.survival:
            name = f"{each.name}, n = {each.num_images}"
            rows.append(_row(name, each.fooling_rate, each.fooling_interval))
        for run in self.runs:
            mark = " *" if run == self.strongest else ""
            name = f"{run.name}, seed {run.seed}{mark}"
            cost = percent(run.select_rate), f"{run.passes:,}"
            rate = run.fooling_rate, run.fooling_interval
            rows.append(_row(name, *rate, *cost))
        for each in self.context():
            if each["name"] is not None:
                name, rate = f"known: {each['name']}", each["fooling_rate"]
                rows.append(_row(name, rate, each["fooling_interval"]))
        for label, share in report.dominant_labels(1):
            name = class_name(label, class_names)
            rows.append(_row(f"fooled images sent to {name}", share))
        for label, (rate, count) in list(report.per_class().items())[:3]:
            name = cut(class_name(label, class_names), 20)
            rows.append(_row(f"of {count} images of {name}", rate))
        for name, mean in (
            ("confidence, clean", report.clean_confidence),
            ("confidence, where fooled", report.fooled_confidence),
        ):
            rows.append((name, f"{mean:.2f}", "", "", ""))
        header = ("", "fooled", "95% interval", "selection", "passes")
        title = (
            f"Audit, {report.norm} norm at most {self.card['epsilon']:.4g}"
            f"{unit(report.value_range)}, {sample(self)}, held out; "
            f"{self.passes:,} model passes in {in_words(self.seconds)}, "
            "measuring included"
        )
        return title, header, rows

    def context(self):
        """The classifier among known ones audited at the same norm and epsilon.

        Epsilon is compared as a share of the value range. The images differ:
        see `keras_uap.samples.reference_audits`.

        Returns:
            List of dictionaries with `name`, `fooling_rate`,
            `fooling_interval` and `random_rate`, the largest rate first. This
            classifier has the name `None`. Empty if none is known.
        """
        report = self.report
        if report.value_range is None:
            return []

        def share(epsilon, value_range):
            return epsilon / (value_range[1] - value_range[0])

        radius = share(self.card["epsilon"], report.value_range)
        known = [
            each
            for each in samples.reference_audits()
            if each["norm"] == report.norm
            and math.isclose(
                share(each["epsilon"], each["value_range"]),
                radius,
                rel_tol=0.01,
            )
        ]
        fields = "fooling_rate", "fooling_interval", "random_rate"
        own = {name: getattr(self, name) for name in fields} | {"name": None}
        rows = sorted([own, *known], key=lambda each: -each["fooling_rate"])
        return rows if known else []

    def half(self):
        """The passes to fool half of the images, as a text."""
        most = self.effort[-1][0]  # Zero if it was only transferred.
        if self.passes_to_half is None:
            return f"over {most:,}" if most else "not reached"
        return f"{self.passes_to_half:,}"

    def next_steps(self):
        """Sentences on what to do, by the rules of the guide to audits."""
        rate, (low, high) = self.fooling_rate, self.fooling_interval
        found = []
        if self.random_rate >= _CLOSE * rate:
            found.append(
                "Random noise fools almost as many images: check the value "
                "range, and pass a classifier that returns logits."
            )
        if high - low > _WIDE:
            found.append(
                f"The interval is {100 * (high - low):.0f} points wide. About "
                f"{12 * self.num_groups:,} more photographs, a quarter of them "
                "held out, would halve it."
            )
        rates = [0.0, *(rate for _, rate in self.effort)]
        if len(rates) > 2 and rates[-1] - rates[-2] >= _RISES:
            todo = "more work may fool more."
            if self.budget == "quick":
                todo = 'audit with budget="standard".'
            found.append(f"The rate still rose in the last round: {todo}")
        if low > _FRAGILE and not found:
            found.append(
                "Most predictions do not survive: consider keras_uap.harden, "
                "and read its limits first."
            )
        return found

    def _remarks(self):
        return [
            "* The strongest attack, by its rate on the selection set alone. "
            f"One perturbation changes the prediction on "
            f"{self.fooling_rate:.0%} of the held-out images. This is a lower "
            "bound: a stronger attack may find more.",
            *self._remarks_on_others(),
            *(f"Next: {text}" for text in self.next_steps()),
            *self.notes,
            *(f"Warning: {text}" for text in self.warnings),
        ]

    def _remarks_on_others(self):
        if context := self.context():
            place = 1 + [each["name"] for each in context].index(None)
            yield (
                f"This classifier is number {place} of {len(context)} by "
                "fooling rate, with the known ones of this norm and epsilon. "
                "Their images differ, and their budget is standard."
            )
        if self.survival:
            most = max(each.change_rate for each in self.survival)
            yield (
                "Rows with n compare with the clean image under the same "
                f"change, which alone alters at most {percent(most)} of the "
                "predictions."
            )

    def __repr__(self):
        low, high = self.fooling_interval
        report = self.report
        return (
            f"Audit(fooling_rate={self.fooling_rate:.3f}, "
            f"fooling_interval=({low:.3f}, {high:.3f}), "
            f"random_rate={self.random_rate:.3f}, norm={report.norm!r}, "
            f"epsilon={self.card['epsilon']:g}, budget={self.budget!r}, "
            f"num_images={self.num_images})"
        )


def _row(name, rate, bounds=None, select="", passes=""):
    known = "" if bounds is None else interval(bounds)
    return name, percent(rate), known, select, passes
