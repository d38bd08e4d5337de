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
        points.plot(
            result.with_image[i],
            result.with_perturbation[i],
            "os^Dvx"[i % 6],
            color=style.SERIES[i % len(style.SERIES)],
            alpha=0.6,
            markersize=5,
            label=name,
        )
    points.set_xlim(ends)
    points.set_ylim(ends)
    points.set_xlabel("correlation of z(x + v) with z(x)")
    points.set_ylabel("correlation of z(x + v) with z(v)")
    points.set_title(
        "Each image: above the line v decides (the universal one on "
        f"{result.decided[0]:.0%})",
        fontsize=10,
    )
    figure.legend(
        *points.get_legend_handles_labels(),
        fontsize=9,
        loc="outside lower left",
        ncols=2,
        frameon=False,
    )
    places = np.arange(len(result.names))
    for values, intervals, aside, colour, name in (
        (
            result.with_perturbation,
            result.perturbation_intervals,
            -0.2,
            style.FOOLED,
            "with z(v), v alone on grey",
        ),
        (
            result.with_image,
            result.image_intervals,
            0.2,
            style.CLEAN,
            "with z(x)",
        ),
    ):
        means = values.mean(axis=1)
        bars.bar(places + aside, means, 0.38, color=colour, label=name)
        for place, mean, (low, high) in zip(places + aside, means, intervals):
            style.whisker(bars, place, mean, low, high)
    for place, values in zip(places, result.unrelated):
        bars.plot(
            [place - 0.4, place + 0.4],
            [values.mean()] * 2,
            "--",
            color="black",
            linewidth=1.2,
            label=None if place else "z(x) with z(v)",
        )
    names = [
        f"{name} ({norms.mean():.3g})"
        for name, norms in zip(result.names, result.norms)
    ]
    bars.set_xticks(places, style.tick_names(names, 1.25), fontsize=9)
    bars.set_ylim(min(0.0, ends[0]), 1.05)
    bars.axhline(0, color="black", linewidth=0.8)
    bars.set_ylabel("mean correlation, lines: 95 %")
    bars.set_title(f"Means (mean {result.norm} norm of v)", fontsize=10)
    handles, labels = bars.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        fontsize=9,
        loc="outside lower right",
        ncols=2,
        frameon=False,
    )
    style.suptitle(
        figure,
        f"Logits z of images x with a perturbation v, {style.sample(result)}",
        12,
    )
    style.tidy(points, bars)
    return figure
