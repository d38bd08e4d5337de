"""Where perturbations send images."""

import numpy as np

from keras_uap.visualization import ink


def plot_label_flow(flow, class_names=None):
    """Draws a `LabelFlow`: the top labels, and how many images they take.

    Args:
        flow: `keras_uap.analysis.LabelFlow`.
        class_names: List of strings, one for each class.
    """
    figure = ink.figure(11, 4.6)
    bars, curve = figure.subplots(1, 2, width_ratios=[1, 1.1])
    top = flow.labels[:10][::-1]
    names = [ink.short_name(label, class_names) for label in top]
    places = np.arange(len(top))
    after = [np.mean(flow.perturbed_labels == label) for label in top]
    before = [np.mean(flow.clean_labels == label) for label in top]
    bars.barh(places + 0.2, after, 0.4, color=ink.FOOLED, label="perturbed")
    bars.barh(places - 0.2, before, 0.4, color=ink.CLEAN, label="clean")
    bars.set_yticks(places, names, fontsize=9)
    ink.percent(bars.xaxis)
    bars.set_xlabel("share of the images")
    bars.set_title("The most common labels of perturbed images", fontsize=10)
    ink.legend(bars, loc="lower right")
    most = min(60, max(len(flow.captured), len(flow.clean_captured)))
    for shares, colour, style, text in (
        (flow.captured, ink.FOOLED, "-", "perturbed images"),
        (flow.clean_captured, ink.CLEAN, "--", "clean images"),
    ):
        shares = np.concatenate([[0], shares])[: most + 1]
        curve.plot(
            np.arange(len(shares)), shares, style, color=colour, label=text
        )
    ink.percent(curve.yaxis)
    curve.set_ylim(0, 1.02)
    curve.set_xlabel("k, the number of labels")
    curve.set_ylabel("images captured by the top k labels")
    curve.set_title("Share of images in the top k labels", fontsize=10)
    ink.legend(curve, loc="lower right")
    figure.suptitle(
        f"Dominant labels, n = {flow.num_images} images, "
        f"{flow.fooling_rate:.0%} fooled",
        fontsize=12,
    )
    ink.tidy(bars, curve)
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
    # Pairs tell little beside larger parts.
    large = [part for part in parts if len(part[0]) > 2] or parts
    shown = large[:most]
    if not shown:
        axes = ink.axes(6, 2)
        axes.set_axis_off()
        axes.set_title("The label graph has no edges", fontsize=10)
        return axes.figure
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    figure = ink.figure(7.2 * columns, 6.6 * rows + 0.5)
    figure.suptitle(
        "Label graph: an arrow where more than "
        f"{least_share:.0%} of a label's images go to another\n"
        f"{len(parts)} weakly connected parts, the largest "
        f"{len(shown)} drawn; n = {flow.num_images} images; colour: "
        "vermilion for the dominant label",
        fontsize=11,
    )
    all_axes = np.ravel(figure.subplots(rows, columns))
    for axes in all_axes[len(shown) :]:
        axes.set_axis_off()
    for axes, (nodes, dominant) in zip(all_axes, shown):
        _draw_part(axes, graph.subgraph(nodes), dominant, class_names)
    return figure


def _draw_part(axes, graph, dominant, class_names):
    """Draws one part: arrows, and a circle and a name for each label."""
    places = _places(graph, dominant)
    for start, end in graph.edges:
        if start in places and end in places:
            images = graph[start][end]["images"]
            axes.annotate(
                "",
                places[end],
                places[start],
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": ink.NEUTRAL,
                    "linewidth": min(2, 0.6 + 0.2 * images),
                    "shrinkA": 4,
                    "shrinkB": 6,
                },
            )
    for node, place in places.items():
        _draw_label(axes, node, place, node == dominant, class_names)
    hidden = len(graph) - len(places)
    others = len(graph) - 1
    text = (
        f"{others} label{'s lead' if others > 1 else ' leads'} to "
        f"{ink.short_name(dominant, class_names)}"
    )
    if hidden:
        text += f" ({hidden} not drawn)"
    axes.set_title(text, fontsize=10)
    # Room for the names, which stand outside the circles.
    low = np.min([*places.values()], axis=0) - 0.7
    high = np.max([*places.values()], axis=0) + 0.7
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    axes.set_aspect("equal")
    axes.set_axis_off()


def _draw_label(axes, label, place, is_dominant, class_names):
    """The dominant label below its circle, the others outwards from theirs."""
    colour = ink.FOOLED if is_dominant else ink.CLEAN
    axes.plot(*place, "o", color=colour, markersize=9)
    if is_dominant:
        axes.text(
            *(place - [0, 0.12]),
            ink.short_name(label, class_names),
            fontsize=11,
            ha="center",
            va="top",
            color=ink.FOOLED,
            fontweight="bold",
            # The arrows of a large part run behind the name.
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            zorder=4,
        )
        return
    right = place[0] >= 0
    radius = np.hypot(*place)
    angle = np.degrees(np.arctan2(place[1], place[0]))
    axes.text(
        *(place * (1 + 0.06 / max(1.0, radius))),
        ink.short_name(label, class_names, 16),
        fontsize=8,
        ha="left" if right else "right",
        va="center",
        rotation=angle if right else angle + 180,
        rotation_mode="anchor",
        color="black",
        zorder=4,
    )


def _places(graph, dominant, most=18):
    """Where the labels of one part stand.

    Returns:
        Dictionary from labels to points: the dominant label in the middle, its
        sources around it, theirs beyond. Labels without room are left out.
    """
    inner = sorted(
        graph.predecessors(dominant),
        key=lambda n: (-graph[n][dominant]["images"], n),
    )
    ring = inner[:most]
    angles = {
        node: 2 * np.pi * (i + 0.25) / len(ring) for i, node in enumerate(ring)
    }
    places = {dominant: np.zeros(2)}
    places.update({node: _polar(1.0, angle) for node, angle in angles.items()})
    # Each next ring stands behind the nodes that it points to.
    radius = 1.0
    while ring and radius < 2.0:
        radius += 0.5
        following = []
        for node in ring:
            behind = [n for n in graph.predecessors(node) if n not in places]
            for k, source in enumerate(behind[:4]):
                spread = 0.16 * (k - (min(len(behind), 4) - 1) / 2)
                angles[source] = angles[node] + spread
                places[source] = _polar(radius, angles[source])
                following.append(source)
        ring = following
    for target in graph.successors(dominant):
        places.setdefault(target, _polar(0.5, 0.0))
    return places


def _polar(radius, angle):
    return radius * np.array([np.cos(angle), np.sin(angle)])


def plot_targets(result, class_names=None):
    """Draws a `TargetRates` as bars; returns the figure.

    Args:
        result: `keras_uap.analysis.TargetRates`.
        class_names: List of strings, one for each class.
    """
    order = np.argsort(result.target_rates)
    axes = ink.axes(8, 1.6 + 0.42 * len(order))
    places = np.arange(len(order))
    axes.barh(
        places,
        result.fooling_rates[order],
        color="#DDDDDD",
        label="any other label than clean",
    )
    axes.barh(
        places,
        result.target_rates[order],
        0.5,
        color=ink.FOOLED,
        label="target",
    )
    for place, i in enumerate(order):
        rate = result.target_rates[i]
        low, high = result.intervals[i]
        axes.plot([low, high], [place, place], color="black", linewidth=1.5)
        axes.text(high + 0.01, place, f"{rate:.0%}", va="center", fontsize=9)
    axes.set_yticks(
        places,
        [ink.short_name(result.targets[i], class_names) for i in order],
        fontsize=9,
    )
    ink.percent(axes.xaxis)
    axes.set_xlim(0, 1.05)
    axes.set_xlabel("share of the held-out images")
    axes.set_title(
        f"Images sent to a chosen label, {result.norm} norm "
        f"{result.epsilon:g}\n{ink.sample(result)}; lines: 95 %",
        fontsize=10,
    )
    axes.legend(
        fontsize=9,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.12),
        ncols=2,
        frameon=False,
    )
    ink.tidy(axes)
    return axes.figure
