"""Whether images or perturbations decide."""

import numpy as np

from keras_uap.visualization import style


def plot_influence(result):
    """Draws a `MutualInfluence`: each image, and the means of each kind.

    Args:
        result: `keras_uap.analysis.MutualInfluence`.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = style.figure(11, 5)
    points, bars = figure.subplots(1, 2, width_ratios=[1, 1.25])
    lowest = min(0.0, result.with_perturbation.min(), result.with_image.min())
    ends = (lowest - 0.05, 1.05)
    points.plot(ends, ends, color="#BBBBBB", linewidth=1, zorder=0)
    for i, name in enumerate(result.names):
        x, y = result.with_image[i], result.with_perturbation[i]
        marks = {"color": style.SERIES[i % 6], "alpha": 0.6, "markersize": 5}
        points.plot(x, y, style.MARKERS[i % 6], label=name, **marks)
    points.set(xlim=ends, ylim=ends)
    title = "Each image: above the line v decides (the universal one on"
    x = "correlation of z(x + v) with z(x)"
    y = "correlation of z(x + v) with z(v)"
    style.label(points, f"{title} {result.decided[0]:.0%})", x, y)
    style.legend_below(points, 2, "left")
    _draw_means(bars, result)
    bars.set_ylim(min(0.0, ends[0]), 1.05)
    style.legend_below(bars, 2, "right")
    title = "Logits z of images x with a perturbation v"
    style.suptitle(figure, f"{title}, {style.sample(result)}")
    return figure


def _draw_means(axes, result):
    """Draws the mean correlations of each kind of perturbation as bars."""
    norms = zip(result.names, result.norms)
    names = [f"{name} ({each.mean():.3g})" for name, each in norms]
    with_v, with_x = result.with_perturbation, result.with_image
    own = with_v.mean(axis=1), result.perturbation_intervals
    image = with_x.mean(axis=1), result.image_intervals
    series = [
        ("with z(v), v alone on grey", style.FOOLED, *own),
        ("with z(x)", style.CLEAN, *image),
    ]
    style.grouped_bars(axes, names, series, 1.25)
    places, unrelated = np.arange(len(names)), result.unrelated.mean(axis=1)
    line = {"linestyle": "--", "linewidth": 1.2, "label": "z(x) with z(v)"}
    axes.hlines(unrelated, places - 0.4, places + 0.4, color="black", **line)
    axes.axhline(0, color="black", linewidth=0.8)
    title = f"Means (mean {result.norm} norm of v)"
    style.label(axes, title, y="mean correlation, lines: 95%")
