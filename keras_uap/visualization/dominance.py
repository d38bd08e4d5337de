"""What dominant labels take, and when they are known."""

import numpy as np

from keras_uap.visualization import style


def plot_dominance(result, class_names=None):
    """Draws a `Dominance`: what few labels take, and what v alone is seen as.

    Args:
        result: `keras_uap.analysis.Dominance`.
        class_names: List of strings, one for each class.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = style.figure(11, 4.8)
    shares, alone = figure.subplots(1, 2, width_ratios=[1.2, 1])
    names = ["first" if top == 1 else f"first {top}" for top in result.tops]
    colors = style.CLEAN, style.FOOLED, style.NEUTRAL
    series = zip(result.names, colors, result.shares, result.intervals)
    style.grouped_bars(shares, names, list(series))
    style.percent_axis(shares, "y", 1.02)
    title = "What the most common labels take"
    x, y = "most common labels of each kind", "share of the images, lines: 95%"
    style.label(shares, title, x, y)
    style.legend_below(shares, 3, "left")
    labels = result.alone_labels[1][::-1]
    at = np.arange(len(labels))
    on_grey = result.alone_probabilities[1][::-1]
    own = {"color": style.SERIES[2], "label": "its probability for v on grey"}
    alone.barh(at + 0.2, on_grey, 0.4, **own)
    sent = [np.mean(result.labels[1] == label) for label in labels]
    own = {"color": style.FOOLED, "label": "images that have it with v"}
    alone.barh(at - 0.2, sent, 0.4, **own)
    names = [style.short_name(label, class_names, 22) for label in labels]
    alone.set_yticks(at, names, fontsize=9)
    style.percent_axis(alone, "x", 1.02)
    title = "Top labels of v alone; the most common one of\nperturbed images is"
    style.label(alone, f"{title} number {result.alone_rank} of them")
    style.legend_below(alone, 1, "right")
    title = f"Dominant labels, {result.norm} norm {result.epsilon:.4g}"
    style.suptitle(figure, f"{title}, {style.fooled(result)}")
    return figure


def plot_dominance_history(result, class_names=None):
    """Draws a `DominanceHistory`: the label of each fit, and what it took.

    Args:
        result: `keras_uap.analysis.DominanceHistory`.
        class_names: List of strings, one for each class.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    axes = style.axes(9.5, 5)
    x, rates, shares = result.batches, result.fooling_rates, result.shares
    for i, seed in enumerate(result.seeds):
        color = style.SERIES[i % 6]
        label = result.labels[i, -1]
        name = "no label" if label < 0 else style.short_name(label, class_names)
        axes.plot(x, rates[i], "--", color=color, linewidth=1)
        text = f"seed {seed}: {name}, since batch {result.settled[i]}"
        axes.plot(x, shares[i], color=color, label=text)
        last = result.labels[i] == label
        for same, face in ((last, color), (~last, "white")):
            marks = {"color": color, "markerfacecolor": face}
            axes.plot(x[same], shares[i][same], style.MARKERS[i % 6], **marks)
    noise = {"color": style.NEUTRAL, "label": "random noise, its most common"}
    axes.axhline(result.random_share, linestyle=":", **noise)
    axes.set_xscale("log", base=2)
    axes.set_xticks(result.batches, result.batches, fontsize=9)
    axes.minorticks_off()
    # The last look may be just after the one before.
    _, *middle = axes.get_xticklabels()
    if len(middle) > 1 and result.batches[-1] < 1.4 * result.batches[-2]:
        middle[-2].set_visible(False)
    style.percent_axis(axes, "y", 1.02)
    title = "solid: sent to the label that takes most, hollow where that was "
    title += "another one; dashed: fooled"
    x = f"batches of {result.batch_size} images"
    style.label(axes, title, x, "held-out images")
    style.legend_below(axes, 2)
    start = "random points" if result.random_start else "zero"
    fits = f"{len(result.seeds)} fit(s) from {start}, loss {result.loss}"
    ball = f"{result.norm} ball of {result.epsilon:.4g}"
    title = f"Dominant labels, {fits}, {ball}, {style.sample(result)}"
    style.suptitle(axes.figure, title)
    return axes.figure
