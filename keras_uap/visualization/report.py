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
    norm = style.norm_in_words(report)
    style.suptitle(figure, f"One perturbation, {norm}: {style.sample(report)}")
    own, none = report.fooling_interval, (np.nan, np.nan)
    noise = report.random_rate, report.random_interval
    bars = [
        ("perturbation", report.fooling_rate, own, style.FOOLED),
        ("rounded to\ngrey levels", report.rounded_rate, none, style.FOOLED),
        ("random noise,\nsame norm", *noise, style.NEUTRAL),
    ]
    style.rate_bars(rates_at, *zip(*(b for b in bars if b[1] is not None)))
    style.percent_axis(rates_at, "y", 1.05)
    y = "images with another label than clean"
    style.label(rates_at, "Fooling rate; black bars: 95% interval", y=y)
    style.ranking(labels_at, report.dominant_labels(8), class_names)
    title = "Labels that fooled images are sent to"
    style.label(labels_at, title, "share of the fooled images")

    fooled = report.fooled
    bins = np.linspace(0, 1, 21)
    line = {"color": style.CLEAN, "histtype": "step", "linewidth": 2}
    text = f"clean, mean {report.clean_confidence:.2f}"
    sure_at.hist(report.clean_confidences, bins, label=text, **line)
    text = f"fooled, mean {report.fooled_confidence:.2f}"
    area = {"color": style.FOOLED, "alpha": 0.6}
    area["label"] = text if fooled.any() else "none is fooled"
    sure_at.hist(report.perturbed_confidences[fooled], bins, **area)
    title, x = "Confidence of the classifier", "probability of the top label"
    style.label(sure_at, title, x, "images")
    style.legend(sure_at)

    classes = list(report.per_class().items())[:8][::-1]
    names = [style.short_name(label, class_names) for label, _ in classes]
    rates, counts = zip(*(rate for _, rate in classes))
    names = [f"{name} ({count})" for name, count in zip(names, counts)]
    classes_at.barh(names, rates, color=style.FOOLED)
    style.percent_axis(classes_at, "x", 1.02)
    title = "The most common clean labels (their images)"
    style.label(classes_at, title, "share of its images that are fooled")
    return figure
