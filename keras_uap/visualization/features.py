"""How far apart the features of images are."""

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
    colors = style.CLEAN, style.FOOLED, style.NEUTRAL
    counts = zip(result.pairs, result.num_pairs)
    names = [f"{pair} ({count:,})" for pair, count in counts]
    for axes, values, intervals in (
        (distances, result.relative_distances, result.relative_intervals),
        (cosines, result.cosines, result.cosine_intervals),
    ):
        series = zip(result.names, colors, values, intervals)
        style.grouped_bars(axes, names, list(series), 1.2)
        axes.axhline(0, color="black", linewidth=0.8)
    title = "Distance of two images' features (root mean square)"
    x, y = (
        "pairs of images (how many)",
        "share of the clean distance, lines: 95%",
    )
    style.label(distances, title, x, y)
    title, y = "Cosine of two images' features", "mean cosine, lines: 95%"
    style.label(cosines, title, x, y)
    style.percent_axis(distances, "y")
    distances.set_ylim(bottom=0)
    cosines.set_ylim(min(0.0, result.cosine_intervals.min()) * 1.05, 1.05)
    style.legend_below(distances, 3)
    title = f"Inputs of the head, {result.num_features} features"
    style.suptitle(figure, f"{title}, {style.fooled(result)}")
    return figure
