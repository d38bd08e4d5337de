"""What `keras_uap.audit` found: its numbers, and the words for them."""

import dataclasses
import textwrap

import numpy as np

from keras_uap import visualization
from keras_uap.evaluation.report import FoolingReport
from keras_uap.reporting import html
from keras_uap.reporting.result import PICTURES, Result
from keras_uap.utils.formatting import interval
from keras_uap.utils.progress import in_words
from keras_uap.visualization.style import class_name


@dataclasses.dataclass(frozen=True)
class Run:
    """One attack of an audit.

    Attributes:
        name, seed: What was minimised, and the seed.
        passes: Integer, forwards and backwards of one image that it took.
        seconds: Float.
        no_gradient: Float, the share of the images shown that had no usable
            gradient, or that DeepFool did not get over a boundary.
        select_rate: Float, share fooled of the part to select.
        fooling_rate, fooling_interval: Share fooled of the held-out part, and
            its 95 % interval.
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
            strongest perturbation fools, and its 95 % interval.
        random_rate: The same for random noise of the same norm.
        larger_rate: The same for the perturbation at twice the norm.
        perturbation: Array `(H, W, C)`, the strongest one, in pixel units.
        strongest: `Run`, the one that found it.
        runs: Tuple of `Run`.
        report: `keras_uap.analysis.FoolingReport` of the strongest on the
            held-out images: classes, labels, confidence.
        budget: String.
        num_fit, num_select, num_images: Integers, the images of each part;
            `num_images` are held out.
        num_groups: Integer, the photographs of the held-out part.
        passes: Integer, forwards and backwards of one image, in all.
        seconds: Float.
        warnings, notes: Tuples of sentences: what smells of hidden gradients
            or stands on too little, and what was done and left out.
        card: Dictionary, for `keras_uap.interchange.save_perturbation`.
    """

    fooling_rate: float
    fooling_interval: tuple
    random_rate: float
    larger_rate: float
    perturbation: np.ndarray = dataclasses.field(metadata=PICTURES)
    strongest: Run
    runs: tuple
    report: FoolingReport
    budget: str
    num_fit: int
    num_select: int
    num_images: int
    num_groups: int
    passes: int
    seconds: float
    warnings: tuple
    notes: tuple
    card: dict

    def to_dict(self):
        """The audit as plain Python values, for JSON, without pictures."""
        values = super().to_dict()
        values["strongest"] = dataclasses.asdict(self.strongest)
        values["runs"] = [dataclasses.asdict(run) for run in self.runs]
        values["report"] = self.report.to_dict()
        return values

    def plot(self, class_names=None):
        """Draws the runs and the perturbation; returns the figure.

        Args:
            class_names: List of strings, one for each class.
        """
        return visualization.plot_audit(self, class_names)

    def save_html(self, path, class_names=None):
        """Writes the audit as one page of HTML that can be handed on.

        The page needs no other file and no network: pictures, style and
        script are inside. A slider shows examples at 0 to 2 times the
        perturbation.

        Args:
            path: String or path of the file; it appears whole or not at all.
            class_names: Sequence of strings, to name labels.
        """
        html.write_audit(path, self, class_names)

    def table(self, class_names=None):
        """The audit as a text of at most 80 columns.

        Args:
            class_names: Sequence of strings, to name labels.
        """
        return "\n".join(
            [
                *(
                    f"{name:<34}{value}"
                    for name, value in _summary_rows(self, class_names)
                ),
                "",
                *_run_lines(self),
                "",
                *_words(self),
            ]
        )

    def rows(self, class_names=None):
        """A title, the names of the columns and a row for each quantity."""
        rows = _summary_rows(self, class_names)
        for run in self.runs:
            mark = ", the strongest" if run == self.strongest else ""
            rows.append(
                (
                    f"run {run.name}, seed {run.seed}{mark}",
                    f"{run.fooling_rate:.1%}   (95 % interval "
                    f"{interval(run.fooling_interval)})",
                )
            )
        return "Audit", ("", "value"), rows

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


def _summary_rows(result, class_names):
    report, unit = result.report, ""
    if report.value_range is not None:
        unit = f" of {report.value_range[1] - report.value_range[0]:g}"
    low, high = result.fooling_interval
    held_out = f"{result.num_images}"
    if result.num_groups != result.num_images:
        held_out += f" of {result.num_groups} photographs"
    rows = [
        ("held-out images", held_out),
        ("norm", f"{report.norm}, at most {result.card['epsilon']:.4g}{unit}"),
        (
            "fooled by the strongest",
            f"{result.fooling_rate:.1%}   (95 % interval {low:.1%} to "
            f"{high:.1%})",
        ),
        ("by random noise, same norm", f"{result.random_rate:.1%}"),
        ("by the strongest, twice the norm", f"{result.larger_rate:.1%}"),
        ("confidence, clean", f"{report.clean_confidence:.2f}"),
        ("confidence, where fooled", f"{report.fooled_confidence:.2f}"),
    ]
    for label, share in report.dominant_labels(1):
        name = class_name(label, class_names)
        rows.append((f"to {name}"[:32], f"{share:.1%} of the fooled"))
    for label, (rate, count) in list(report.per_class().items())[:3]:
        name = class_name(label, class_names)
        rows.append((f"of {name}"[:32], f"{rate:.1%} of {count} images fooled"))
    rows.append(
        ("cost", f"{result.passes:,} passes, {in_words(result.seconds)}")
    )
    return rows


def _run_lines(result):
    lines = [
        f"  {'run':<26}{'seed':>5}{'passes':>8}{'select':>9}"
        f"{'held out':>10}{'95 % interval':>18}"
    ]
    for run in result.runs:
        low, high = run.fooling_interval
        mark = "*" if run == result.strongest else " "
        lines.append(
            f"{mark} {run.name:<26}{run.seed:>5}{run.passes:>8}"
            f"{run.select_rate:>9.1%}{run.fooling_rate:>10.1%}"
            f"{f'{low:.1%} to {high:.1%}':>18}"
        )
    return [*lines, "* the strongest, by the part to select alone"]


def _words(result):
    """What the number means, and what to think of it."""
    meaning = (
        f"One and the same perturbation changes the answer on "
        f"{result.fooling_rate:.0%} of images that nothing was fitted on or "
        "chosen by. This is a lower bound: a stronger attack may find more, "
        "none can make it less."
    )
    lines = [textwrap.fill(meaning, 79)]
    lines += [textwrap.fill(note, 79) for note in result.notes]
    lines += [textwrap.fill(f"Warning: {text}", 79) for text in result.warnings]
    return lines
