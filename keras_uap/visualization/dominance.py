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
    style.percent_axis(shares.yaxis)
    shares.set_ylim(0, 1.02)
    style.label(
        shares,
        "What the most common labels take",
        "most common labels of each kind",
        "share of the images, lines: 95%",
    )
    style.legend_below(shares, 3, "left")
    labels = result.alone_labels[1][::-1]
    at = np.arange(len(labels))
    alone.barh(
        at + 0.2,
        result.alone_probabilities[1][::-1],
        0.4,
        color=style.SERIES[2],
        label="its probability for v on grey",
    )
    alone.barh(
        at - 0.2,
        [np.mean(result.labels[1] == label) for label in labels],
        0.4,
        color=style.FOOLED,
        label="images that have it with v",
    )
    alone.set_yticks(
        at, [style.short_name(c, class_names, 22) for c in labels], fontsize=9
    )
    style.percent_axis(alone.xaxis)
    alone.set_xlim(0, 1.02)
    style.label(
        alone,
        "Top labels of v alone; the most common one of\nperturbed images is "
        f"number {result.alone_rank} of them",
    )
    style.legend_below(alone, 1, "right")
    style.suptitle(
        figure,
        f"Dominant labels, {result.norm} norm {result.epsilon:.4g}, "
        f"{style.sample(result)}: {result.fooling_rate:.0%} fooled, by random "
        f"noise {result.random_rate:.0%}",
        12,
    )
    style.tidy(shares, alone)
    return figure


def plot_dominance_history(result, class_names=None):
    """Draws a `DominanceHistory`: the label of each fit, and what it took.

    Args:
        result: `keras_uap.analysis.DominanceHistory`.
        class_names: List of strings, one for each class.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = style.figure(9.5, 5)
    axes = figure.subplots()
    settled = result.settled
    for i, seed in enumerate(result.seeds):
        color = style.SERIES[i % 6]
        label = result.labels[i, -1]
        name = "no label" if label < 0 else style.short_name(label, class_names)
        x, rates, shares = result.batches, result.fooling_rates, result.shares
        axes.plot(x, rates[i], "--", color=color, linewidth=1)
        text = f"seed {seed}: {name}, since batch {settled[i]}"
        axes.plot(x, shares[i], color=color, label=text)
        last = result.labels[i] == label
        for same, face in ((last, color), (~last, "white")):
            marks = {"color": color, "markerfacecolor": face}
            axes.plot(x[same], shares[i][same], style.MARKERS[i % 6], **marks)
    axes.axhline(
        result.random_share,
        color=style.NEUTRAL,
        linestyle=":",
        label="random noise, its most common",
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(result.batches, result.batches, fontsize=9)
    axes.minorticks_off()
    # The last look may be just after the one before.
    _, *middle = axes.get_xticklabels()
    if len(middle) > 1 and result.batches[-1] < 1.4 * result.batches[-2]:
        middle[-2].set_visible(False)
    style.percent_axis(axes.yaxis)
    axes.set_ylim(0, 1.02)
    style.label(
        axes,
        "solid: sent to the label that takes most, hollow where that was "
        "another one; dashed: fooled",
        f"batches of {result.batch_size} images",
        "held-out images",
    )
    style.legend_below(axes, 2)
    start = "random points" if result.random_start else "zero"
    style.suptitle(
        figure,
        f"Dominant labels, {len(result.seeds)} fit(s) from {start}, loss "
        f"{result.loss}, {result.norm} ball of {result.epsilon:.4g}, "
        f"{style.sample(result)}",
    )
    style.tidy(axes)
    return figure
