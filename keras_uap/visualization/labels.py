"""Where perturbations send images."""

import numpy as np

from keras_uap.visualization import style as ink


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
    placed = [
        _places(graph.subgraph(nodes), dominant) for nodes, dominant in shown
    ]
    radius = max(
        np.linalg.norm(p) for places in placed for p in places.values()
    )
    # Of the circles, and of the names outside them.
    inches = 2 * (radius * _UNIT + _NAME) / 72
    figure = ink.figure(inches * columns + 0.4, (inches + 0.4) * rows + 0.9)
    ink.suptitle(
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
    for axes, places, (nodes, dominant) in zip(all_axes, placed, shown):
        part = graph.subgraph(nodes)
        _draw_part(axes, part, places, dominant, class_names)
        half = radius + _NAME / _UNIT
        axes.set_xlim(-half, half)
        axes.set_ylim(-half, half)
    return figure


# Points of a picture of a label graph: how long a first arrow is, how far
# rings are apart, and what room a name has outside and between them.
_UNIT, _GAP, _NAME, _INNER_NAME = 135, 0.65, 100, 66


def _draw_part(axes, graph, places, dominant, class_names):
    """Draws one part: arrows, and a circle and a name for each label."""
    inner = set()
    for start, end in graph.edges:
        if start in places and end in places:
            inner |= {end} if start != dominant else set()
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
        if node == dominant:
            _draw_dominant(axes, node, place, class_names)
        else:
            _draw_label(axes, node, place, node in inner, class_names)
    hidden = len(graph) - len(places)
    others = len(graph) - 1
    text = (
        f"{others} label{'s lead' if others > 1 else ' leads'} to "
        f"{ink.short_name(dominant, class_names)}"
    )
    if hidden:
        text += f" ({hidden} not drawn)"
    axes.set_title(text, fontsize=10)
    axes.set_aspect("equal")
    axes.set_axis_off()


def _draw_dominant(axes, label, place, class_names):
    """Draws the label in the middle, its name below it."""
    axes.plot(*place, "o", color=ink.FOOLED, markersize=9)
    axes.text(
        *(place - [0, 0.1]),
        ink.cut(ink.class_name(label, class_names), 15, 10),
        fontsize=10,
        ha="center",
        va="top",
        color=ink.FOOLED,
        fontweight="bold",
        # The arrows of a large part run behind the name.
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        zorder=4,
    )


def _draw_label(axes, label, place, is_inner, class_names):
    """Draws a label, its name outwards, or inwards where arrows come in."""
    axes.plot(*place, "o", color=ink.CLEAN, markersize=9)
    right = place[0] >= 0
    angle = np.arctan2(place[1], place[0])
    room, start = _NAME - 12, place * (1 + 8 / (_UNIT * np.hypot(*place)))
    if is_inner:
        # Beside the arrow that goes on to the middle.
        room = _INNER_NAME
        start = place * (1 - 9 / (_UNIT * np.hypot(*place)))
        aside = np.array([-np.sin(angle), np.cos(angle)])
        start = start + aside * (8 / _UNIT)
    axes.text(
        *start,
        ink.cut(ink.class_name(label, class_names), room / (0.62 * 8), 8),
        fontsize=8,
        ha="left" if right != is_inner else "right",
        va="center",
        rotation=np.degrees(angle) + (0 if right else 180),
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
    ring = sorted(
        graph.predecessors(dominant),
        key=lambda n: (-graph[n][dominant]["images"], n),
    )[:most]
    # What it leads to itself is beside them.
    ring += [n for n in graph.successors(dominant) if n not in ring]
    turn = 2 * np.pi / max(1, len(ring))
    # Of each node, its angle and what angle there is for its sources.
    nodes = {node: (turn * (i + 0.25), turn) for i, node in enumerate(ring)}
    places = {dominant: np.zeros(2)}
    radius = 1.0
    while nodes:
        places |= {n: _polar(radius, angle) for n, (angle, _) in nodes.items()}
        if radius > 2.0:
            break
        # Each next ring stands behind the nodes that it points to.
        radius += _GAP
        following = {}
        for node, (angle, room) in nodes.items():
            behind = [n for n in graph.predecessors(node) if n not in places]
            behind = behind[: min(4, int(room * radius * _UNIT / 13))]
            step = min(0.2, room / max(1, len(behind)))
            for k, source in enumerate(behind):
                spread = step * (k - (len(behind) - 1) / 2)
                following[source] = angle + spread, step
        nodes = following
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
    axes = ink.axes(8, 2.0 + 0.42 * len(order))
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
    axes.set_xlabel("share of the held-out images not already of the target")
    axes.set_title(
        f"Images sent to a chosen label, {result.norm} norm "
        f"{result.epsilon:g}\n{ink.sample(result)}; lines: 95 %",
        fontsize=10,
    )
    axes.figure.legend(
        fontsize=9, loc="outside lower center", ncols=2, frameon=False
    )
    ink.tidy(axes)
    return axes.figure
