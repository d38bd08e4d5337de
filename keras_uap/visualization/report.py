"""A page about one perturbation."""

import numpy as np

from keras_uap.visualization import style


def plot_report(report, class_names=None):
    """Draws a `FoolingReport` on one page.

    Args:
        report: A `keras_uap.analysis.FoolingReport`.
        class_names: Sequence of strings, the names of the classes.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = style.figure(11, 8)
    (rates_at, labels_at), (sure_at, classes_at) = figure.subplots(2, 2)
    figure.suptitle(
        f"One perturbation, {style.norm_in_words(report)}: "
        f"{style.sample(report)}",
        fontsize=12,
    )
    bars = [
        ("perturbation", report.fooling_rate, style.FOOLED),
        ("rounded to\ngrey levels", report.rounded_rate, style.FOOLED),
        ("random noise,\nsame norm", report.random_rate, style.NEUTRAL),
    ]
    names, rates, colors = zip(*(bar for bar in bars if bar[1] is not None))
    rates_at.bar(names, rates, color=colors, width=0.6)
    style.whiskers(
        rates_at,
        [0, len(rates) - 1],
        [rates[0], rates[-1]],
        [report.fooling_interval, report.random_interval],
    )
    for x, rate in enumerate(rates):
        rates_at.text(x + 0.06, rate + 0.01, f"{rate:.0%}", fontsize=10)
    style.percent_axis(rates_at, "y", 1.05)
    style.label(
        rates_at,
        "Fooling rate; lines: 95%",
        y="images with another label than clean",
    )
    style.ranking(labels_at, report.dominant_labels(8), class_names)
    style.label(
        labels_at,
        "Labels that fooled images are sent to",
        "share of the fooled images",
    )

    fooled = report.fooled
    bins = np.linspace(0, 1, 21)
    sure_at.hist(
        report.clean_confidences,
        bins,
        color=style.CLEAN,
        histtype="step",
        linewidth=2,
        label=f"clean, mean {report.clean_confidence:.2f}",
    )
    sure_at.hist(
        report.perturbed_confidences[fooled],
        bins,
        color=style.FOOLED,
        alpha=0.6,
        label=f"fooled, mean {report.fooled_confidence:.2f}"
        if fooled.any()
        else "none is fooled",
    )
    style.label(
        sure_at,
        "Confidence of the classifier",
        "probability of the top label",
        "images",
    )
    style.legend(sure_at)

    classes = list(report.per_class().items())[:8][::-1]
    classes_at.barh(
        [f"{style.short_name(c, class_names)} ({n})" for c, (_, n) in classes],
        [rate for _, (rate, _) in classes],
        color=style.FOOLED,
    )
    style.percent_axis(classes_at, "x", 1.02)
    style.label(
        classes_at,
        "The most common clean labels (their images)",
        "share of its images that are fooled",
    )
    style.tidy(rates_at, labels_at, sure_at, classes_at)
    return figure
