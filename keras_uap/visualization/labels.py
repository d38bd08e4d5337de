"""Where perturbations send images."""

import numpy as np

from keras_uap.visualization import style


def plot_label_flow(flow, class_names=None):
    """Draws a `LabelFlow`: the top labels, and how many images they take.

    Args:
        flow: `keras_uap.analysis.LabelFlow`.
        class_names: List of strings, one for each class.
    """
    figure = style.figure(11, 4.6)
    bars, curve = figure.subplots(1, 2, width_ratios=[1, 1.1])
    top = flow.labels[:10][::-1]
    names = [style.short_name(label, class_names) for label in top]
    places = np.arange(len(top))
    after = [np.mean(flow.perturbed_labels == label) for label in top]
    before = [np.mean(flow.clean_labels == label) for label in top]
    bars.barh(places + 0.2, after, 0.4, color=style.FOOLED, label="perturbed")
    bars.barh(places - 0.2, before, 0.4, color=style.CLEAN, label="clean")
    bars.set_yticks(places, names, fontsize=9)
    style.percent_axis(bars, "x")
    title = "The most common labels of perturbed images"
    style.label(bars, title, "share of the images")
    style.legend(bars, loc="lower right")
    for shares, color, line, text in (
        (flow.captured, style.FOOLED, "-", "perturbed images"),
        (flow.clean_captured, style.CLEAN, "--", "clean images"),
    ):
        curve.plot([0, *shares[:60]], line, color=color, label=text)
    style.percent_axis(curve, "y", 1.02)
    title = "Share of images in the top k labels"
    y = "images captured by the top k labels"
    style.label(curve, title, "k, the number of labels", y)
    style.legend(curve, loc="lower right")
    title = f"Dominant labels, n = {flow.num_images} images"
    style.suptitle(figure, f"{title}, {flow.fooling_rate:.0%} fooled")
    return figure


def plot_label_graph(flow, class_names=None, least_share=0.5, most=4):
    """Draws the largest parts of a label graph, dominant labels in the middle.

    Args:
        flow: A `keras_uap.analysis.LabelFlow`.
        class_names: Sequence of strings, the names of the classes.
        least_share: Float, see `LabelFlow.edges`.
        most: Integer, how many parts to draw.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    parts = flow.components(least_share)
    graph = flow.graph(least_share)
    # Pairs are left out where there are larger parts.
    large = [part for part in parts if len(part[0]) > 2] or parts
    shown = large[:most]
    if not shown:
        axes = style.axes(6, 2)
        axes.set_axis_off()
        axes.set_title("The label graph has no edges", fontsize=10)
        return axes.figure
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    figure = style.figure(6.5 * columns, 5.6 * rows + 0.6)
    style.suptitle(
        figure,
        "Label graph: an arrow where more than "
        f"{least_share:.0%} of a label's images go to another\n"
        f"{len(parts)} weakly connected part{'s'[: len(parts) > 1]}, the "
        f"largest {len(shown)} drawn; n = {flow.num_images} images; colour: "
        "vermilion for the dominant label",
    )
    all_axes = np.ravel(figure.subplots(rows, columns))
    for axes in all_axes[len(shown) :]:
        axes.set_axis_off()
    for axes, (nodes, dominant) in zip(all_axes, shown):
        _draw_part(axes, graph.subgraph(nodes), dominant, class_names)
    return figure


# The most labels of a ring that are drawn.
_MOST = 10


def _draw_part(axes, graph, dominant, class_names):
    """Draws one part: the dominant label, its sources around it, and theirs."""
    import networkx

    direct = sorted(
        graph.predecessors(dominant),
        key=lambda node: (-graph[node][dominant]["images"], node),
    )[:_MOST]
    direct += [n for n in graph.successors(dominant) if n not in direct]
    indirect = [
        source
        for node in direct
        for source in sorted(graph.predecessors(node))
        if source not in [dominant, *direct]
    ][:_MOST]
    part = graph.subgraph([dominant, *direct, *indirect])
    # An empty shell gives the names of the first ring more room.
    shells = [[dominant], [], direct, indirect]
    places = networkx.shell_layout(part, shells, rotate=0.15)
    half = 1.2 * np.abs(list(places.values())).max()
    widths = [min(2, 0.6 + 0.2 * n) for *_, n in part.edges.data("images")]
    arrows = {"node_size": 90, "edge_color": style.NEUTRAL, "width": widths}
    networkx.draw_networkx_edges(part, places, ax=axes, **arrows)
    colors = [style.FOOLED if n == dominant else style.CLEAN for n in part]
    dots = {"node_size": 60, "node_color": colors}
    networkx.draw_networkx_nodes(part, places, ax=axes, **dots)
    below = {node: place - [0, 0.04 * half] for node, place in places.items()}
    names = {node: style.short_name(node, class_names, 13) for node in part}
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    look = {"font_size": 8, "verticalalignment": "top", "clip_on": False}
    texts = networkx.draw_networkx_labels(
        part, below, names, ax=axes, bbox=box, **look
    )
    texts[dominant].set(color=style.FOOLED, weight="bold")
    hidden, others = len(graph) - len(part), len(graph) - 1
    name = style.short_name(dominant, class_names)
    text = f"{others} label{'s lead' if others > 1 else ' leads'} to {name}"
    style.label(axes, text + (f" ({hidden} not drawn)" if hidden else ""))
    axes.set(xlim=(-half, half), ylim=(-half, half))
    axes.set_axis_off()


def plot_targets(result, class_names=None):
    """Draws a `TargetRates` as bars; returns the figure.

    Args:
        result: `keras_uap.analysis.TargetRates`.
        class_names: List of strings, one for each class.
    """
    order = np.argsort(result.target_rates)
    axes = style.axes(8, 2.0 + 0.42 * len(order))
    places = np.arange(len(order))
    rates, intervals = result.target_rates[order], result.intervals[order]
    name = "any other label than clean"
    axes.barh(places, result.fooling_rates[order], color="#DDDDDD", label=name)
    axes.barh(places, rates, 0.5, color=style.FOOLED, label="target")
    style.whiskers(axes, places, rates, intervals, horizontal=True)
    style.write_rates(axes, places, rates, intervals[:, 1], horizontal=True)
    names = [style.short_name(result.targets[i], class_names) for i in order]
    axes.set_yticks(places, names, fontsize=9)
    style.percent_axis(axes, "x", 1.08)
    size = f"{result.norm} norm {result.epsilon:g}"
    title = f"Images sent to a chosen label, {size}\n{style.sample(result)}"
    x = "share of the held-out images not already of the target"
    style.label(axes, f"{title}; lines: 95%", x)
    style.legend_below(axes, 2)
    return axes.figure
