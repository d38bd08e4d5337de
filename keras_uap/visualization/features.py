"""How far apart the features of images are."""

import numpy as np

from keras_uap.visualization import style


def plot_features(result):
    """Draws a `FeatureCollapse`: distances and cosines of pairs of images.

    Args:
        result: `keras_uap.analysis.FeatureCollapse`.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = style.figure(11, 4.8)
    distances, cosines = figure.subplots(1, 2)
    places = np.arange(len(result.pairs))
    for i, (name, colour) in enumerate(
        zip(result.names, (style.CLEAN, style.FOOLED, style.NEUTRAL))
    ):
        at = places + 0.27 * (i - 1)
        for axes, values, intervals in (
            (
                distances,
                result.relative_distances[i],
                result.relative_intervals[i],
            ),
            (cosines, result.cosines[i], result.cosine_intervals[i]),
        ):
            axes.bar(at, values, 0.25, color=colour, label=name)
            for place, value, (low, high) in zip(at, values, intervals):
                style.whisker(axes, place, value, low, high)
    names = [
        f"{pair} ({count:,})"
        for pair, count in zip(result.pairs, result.num_pairs)
    ]
    for axes in (distances, cosines):
        axes.set_xticks(places, style.tick_names(names, 1.2), fontsize=9)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xlabel("pairs of images (how many)")
    style.percent(distances.yaxis)
    distances.set_ylim(bottom=0)
    distances.set_ylabel("share of the clean distance, lines: 95 %")
    distances.set_title(
        "Distance of two images' features (root mean square)", fontsize=10
    )
    cosines.set_ylim(min(0.0, result.cosine_intervals.min()) * 1.05, 1.05)
    cosines.set_ylabel("mean cosine, lines: 95 %")
    cosines.set_title("Cosine of two images' features", fontsize=10)
    figure.legend(
        *distances.get_legend_handles_labels(),
        fontsize=9,
        loc="outside lower center",
        ncols=3,
        frameon=False,
    )
    style.suptitle(
        figure,
        f"Inputs of the head, {result.num_features} features, "
        f"{style.sample(result)}: {result.fooling_rate:.0%} fooled, by random "
        f"noise {result.random_rate:.0%}",
        12,
    )
    style.tidy(distances, cosines)
    return figure
