"""Pictures of perturbations, drawn with matplotlib.

matplotlib is imported when a picture is drawn, not before, and figures are
made without pyplot: nothing appears on a screen unless the caller shows it.
"""

import numpy as np
import tensorflow as tf

from keras_uap.logits import logits_function
from keras_uap.pixels import (
    RESIZE_HINT,
    apply_perturbation,
    as_perturbation,
    as_value_range,
)

# Colour-blind safe (Okabe and Ito, 2008): blue for clean, vermilion for fooled.
CLEAN, FOOLED, NEUTRAL = "#0072B2", "#D55E00", "#666666"
_SERIES = (FOOLED, CLEAN, "#009E73", "#CC79A7", NEUTRAL, "#E69F00")


def plot_perturbation(
    classifier,
    perturbation,
    images,
    value_range=(0, 255),
    class_names=None,
    from_logits=None,
    title=None,
):
    """Draws a perturbation, and images without and with it.

    Args:
        classifier: Keras model that maps images to class scores.
        perturbation: Array `(H, W, C)` with 1 or 3 channels, in the pixel
            units of `value_range`.
        images: Array `(n, H, W, C)`, the images to show, up to eight.
        value_range: Pair of floats, the pixel range.
        class_names: Sequence of strings, the names of the classes.
        from_logits: Boolean, whether the classifier returns logits; `None`
            finds out.
        title: String, over the whole figure.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it.

    Raises:
        ValueError: if the images do not have the perturbation's shape.
    """
    v = as_perturbation(perturbation)
    images = np.asarray(images)[:8]
    if v.ndim != 3 or v.shape[-1] not in (1, 3):
        raise ValueError(
            "A picture needs a perturbation of shape (height, width, 1 or 3). "
            f"Received: {v.shape}."
        )
    if images.shape[1:] != v.shape or len(images) == 0:
        raise ValueError(
            "The images do not have the perturbation's shape. Received: "
            f"{images.shape}. Expected: (n, *{v.shape}). {RESIZE_HINT}"
        )
    low, high = as_value_range(value_range) or (
        float(images.min()),
        float(images.max()),
    )
    images = images.astype("float32")
    perturbed = apply_perturbation(images, v, value_range).numpy()
    logits = logits_function(classifier, from_logits, images[:4])
    clean_names, clean_labels = _describe(logits, images, class_names)
    names, labels = _describe(logits, perturbed, class_names)

    count = len(images)
    figure = _figure(2.3 * (count + 1), 5.8)
    if title is not None:
        figure.suptitle(title, fontsize=12)
    axes = figure.subplots(2, count + 1)
    largest = np.abs(v).max() or 1.0
    _show(axes[0, 0], v / (2 * largest) + 0.5)
    axes[0, 0].set_title(
        f"perturbation\nlargest value {largest:.4g}\nstretched to full range",
        fontsize=9,
    )
    axes[1, 0].hist(v.ravel(), bins=41, color=NEUTRAL)
    axes[1, 0].set_title("its values", fontsize=9)
    axes[1, 0].set_xlabel("change of a pixel value", fontsize=8)
    axes[1, 0].set_yticks([])
    axes[1, 0].tick_params(labelsize=8)
    for i in range(count):
        _show(axes[0, i + 1], (images[i] - low) / (high - low))
        axes[0, i + 1].set_title(clean_names[i], fontsize=9, color=CLEAN)
        _show(axes[1, i + 1], (perturbed[i] - low) / (high - low))
        fooled = labels[i] != clean_labels[i]
        axes[1, i + 1].set_title(
            names[i] + ("\nfooled" if fooled else "\nnot fooled"),
            fontsize=9,
            color=FOOLED if fooled else NEUTRAL,
        )
    return figure


def plot_report(report, class_names=None):
    """Draws a `FoolingReport` on one page.

    Args:
        report: A `keras_uap.analysis.FoolingReport`.
        class_names: Sequence of strings, the names of the classes.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = _figure(11, 8)
    (rates_at, labels_at), (sure_at, classes_at) = figure.subplots(2, 2)
    epsilon = f"{report.norm} norm {report.epsilon:.4g}"
    figure.suptitle(
        f"One perturbation, {epsilon}: {_sample(report)}", fontsize=12
    )
    rates = [report.fooling_rate, report.rounded_rate, report.random_rate]
    rates_at.bar(
        ["perturbation", "rounded to\ngrey levels", "random noise,\nsame norm"],
        rates,
        color=[FOOLED, FOOLED, NEUTRAL],
        width=0.6,
    )
    for x, (low, high) in (
        (0, report.fooling_interval),
        (2, report.random_interval),
    ):
        _whisker(rates_at, x, rates[x], low, high)
    for x, rate in enumerate(rates):
        rates_at.text(x + 0.06, rate + 0.01, f"{rate:.0%}", fontsize=10)
    _percent(rates_at.yaxis)
    rates_at.set_ylim(0, 1.05)
    rates_at.set_ylabel("images with another label than clean")
    rates_at.set_title("Fooling rate, bars: 95 % interval", fontsize=10)

    labels = report.dominant_labels(8)[::-1]
    labels_at.barh(
        [_short(_name(c, class_names)) for c, _ in labels],
        [share for _, share in labels],
        color=CLEAN,
    )
    _percent(labels_at.xaxis)
    labels_at.set_xlabel("share of the fooled images")
    labels_at.set_title("Labels that fooled images are sent to", fontsize=10)

    fooled = report.clean_labels != report.perturbed_labels
    bins = np.linspace(0, 1, 21)
    sure_at.hist(
        report.clean_confidences,
        bins,
        color=CLEAN,
        histtype="step",
        linewidth=2,
        label=f"clean, mean {report.clean_confidence:.2f}",
    )
    sure_at.hist(
        report.perturbed_confidences[fooled],
        bins,
        color=FOOLED,
        alpha=0.6,
        label=f"fooled, mean {report.fooled_confidence:.2f}",
    )
    sure_at.set_xlabel("probability of the top label")
    sure_at.set_ylabel("images")
    sure_at.legend(fontsize=9, frameon=False)
    sure_at.set_title("How sure the classifier is", fontsize=10)

    classes = list(report.per_class().items())[:8][::-1]
    classes_at.barh(
        [f"{_short(_name(c, class_names))} ({n})" for c, (_, n) in classes],
        [rate for _, (rate, _) in classes],
        color=FOOLED,
    )
    classes_at.set_xlim(0, 1.02)
    _percent(classes_at.xaxis)
    classes_at.set_xlabel("fooled")
    classes_at.set_title(
        "Most common clean labels (images) and how many are fooled",
        fontsize=10,
    )
    for axes in (rates_at, labels_at, sure_at, classes_at):
        _tidy(axes)
    return figure


def plot_transfer(result):
    """Draws a `TransferMatrix` as a heat map; returns the figure."""
    rows, columns = result.fooling_rates.shape
    figure = _figure(3.2 + 1.7 * columns, 2.6 + 0.9 * rows)
    axes = figure.subplots()
    _heat_map(axes, result.fooling_rates, 0, 1, "fooling rate")
    for i in range(rows):
        for j in range(columns):
            rate = result.fooling_rates[i, j]
            low, high = result.intervals[i, j]
            star = " *" if result.resized[i, j] else ""
            axes.text(
                j,
                i,
                f"{rate:.0%}{star}\n{low:.0%} to {high:.0%}\n"
                f"noise {result.random_rates[i, j]:.0%}",
                ha="center",
                va="center",
                fontsize=9,
                color=_ink(rate),
            )
    axes.set_xticks(range(columns), result.classifiers, fontsize=9)
    axes.set_yticks(range(rows), result.perturbations, fontsize=9)
    axes.set_xlabel("measured on")
    axes.set_ylabel("found on")
    note = "\n* resized" if result.resized.any() else ""
    axes.set_title(
        f"Transfer, {result.norm} norm {result.epsilons.max():.4g}\n"
        f"{_sample(result)}; rate, 95 % interval,\n"
        f"random noise of the same norm{note}",
        fontsize=10,
    )
    return figure


def plot_diversity(result):
    """Draws a `Diversity`: its perturbations and their inner products."""
    count = len(result.inner_products)
    figure = _figure(max(7.5, 1.8 * count), 6.6)
    grid = figure.add_gridspec(2, count, height_ratios=[1, 2.2])
    for i, v in enumerate(result.perturbations):
        axes = figure.add_subplot(grid[0, i])
        title = f"seed {result.seeds[i]}"
        if result.fooling_rates is not None:
            title += f"\nfools {result.fooling_rates[i]:.0%}"
        axes.set_title(title, fontsize=9)
        if v.ndim == 3 and v.shape[-1] in (1, 3):
            _show(axes, v / (2 * (np.abs(v).max() or 1.0)) + 0.5)
        else:
            axes.set_axis_off()
    axes = figure.add_subplot(grid[1, :])
    _heat_map(
        axes,
        np.abs(result.inner_products),
        0,
        1,
        "normalised inner product, absolute",
    )
    for i in range(count):
        for j in range(count):
            value = result.inner_products[i, j]
            axes.text(
                j,
                i,
                f"{value:.2f}",
                ha="center",
                va="center",
                fontsize=9,
                color=_ink(abs(value)),
            )
    axes.set_xticks(range(count), result.seeds)
    axes.set_yticks(range(count), result.seeds)
    axes.set_xlabel("seed")
    axes.set_ylabel("seed")
    measured = (
        f"; fooling rates on n = {result.num_images} held-out images"
        if result.num_images
        else ""
    )
    figure.suptitle(
        f"{count} perturbations of one classifier, normalised inner products"
        f"{measured}",
        fontsize=11,
    )
    return figure


def plot_curve(result):
    """Draws a `FoolingCurve`: a line over numbers, bars over names."""
    figure = _figure(8, 4.8)
    axes = figure.subplots()
    means = result.fooling_rates.mean(axis=1)
    seeds = result.fooling_rates.shape[1]
    named = isinstance(result.values[0], str)
    places = np.arange(len(means)) if named else np.asarray(result.values)
    if named:
        axes.bar(places, means, color=FOOLED, width=0.5, label="perturbation")
        axes.bar(
            places + 0.33,
            result.random_rates,
            color=NEUTRAL,
            width=0.16,
            label="random noise, same norm",
        )
        axes.set_xticks(places, result.values, fontsize=9)
    else:
        axes.plot(
            places, means, color=FOOLED, marker="o", label="perturbation, mean"
        )
        axes.plot(
            places,
            result.random_rates,
            color=NEUTRAL,
            linestyle="--",
            label="random noise, same norm",
        )
        if max(places) > 20 * min(places):
            axes.set_xscale("log")
            axes.minorticks_off()
        axes.set_xticks(places, [f"{value:g}" for value in result.values])
    for i, place in enumerate(places):
        low, high = result.intervals[i]
        _whisker(axes, place, means[i], low, high)
        if seeds > 1:
            axes.plot(
                [place] * seeds,
                result.fooling_rates[i],
                linestyle="none",
                marker="_",
                markersize=12,
                color=CLEAN,
                label="each seed" if i == 0 else None,
            )
        axes.annotate(
            f"{means[i]:.0%}",
            (place, means[i]),
            (6, 5),
            textcoords="offset points",
            fontsize=9,
        )
    _percent(axes.yaxis)
    axes.set_ylim(0, 1.05)
    axes.set_xlabel(result.name)
    axes.set_ylabel("held-out fooling rate")
    axes.set_title(
        f"Held-out fooling rate against {result.name}\n{result.norm} ball, "
        f"{_sample(result)}, {seeds} seed{'s'[: seeds > 1]}; bars: 95 %",
        fontsize=10,
    )
    axes.legend(fontsize=9, frameon=False)
    _tidy(axes)
    return figure


def plot_label_flow(flow, class_names=None):
    """Draws a `LabelFlow`: the top labels, and how many images they take."""
    figure = _figure(11, 4.6)
    bars, curve = figure.subplots(1, 2, width_ratios=[1, 1.1])
    top = flow.labels[:10][::-1]
    names = [_short(_name(label, class_names)) for label in top]
    places = np.arange(len(top))
    after = [np.mean(flow.perturbed_labels == label) for label in top]
    before = [np.mean(flow.clean_labels == label) for label in top]
    bars.barh(places + 0.2, after, 0.4, color=FOOLED, label="perturbed")
    bars.barh(places - 0.2, before, 0.4, color=CLEAN, label="clean")
    bars.set_yticks(places, names, fontsize=9)
    _percent(bars.xaxis)
    bars.set_xlabel("share of the images")
    bars.set_title("The most common labels of perturbed images", fontsize=10)
    bars.legend(fontsize=9, frameon=False, loc="lower right")
    most = min(60, max(len(flow.captured), len(flow.clean_captured)))
    for shares, colour, style, text in (
        (flow.captured, FOOLED, "-", "perturbed images"),
        (flow.clean_captured, CLEAN, "--", "clean images"),
    ):
        shares = np.concatenate([[0], shares])[: most + 1]
        curve.plot(
            np.arange(len(shares)), shares, style, color=colour, label=text
        )
    _percent(curve.yaxis)
    curve.set_ylim(0, 1.02)
    curve.set_xlabel("k, the number of labels")
    curve.set_ylabel("images captured by the top k labels")
    curve.set_title("Share of images in the top k labels", fontsize=10)
    curve.legend(fontsize=9, frameon=False, loc="lower right")
    figure.suptitle(
        f"Dominant labels, n = {flow.num_images} images, "
        f"{flow.fooling_rate:.0%} fooled",
        fontsize=12,
    )
    for axes in (bars, curve):
        _tidy(axes)
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
        figure = _figure(6, 2)
        axes = figure.subplots()
        axes.set_axis_off()
        axes.set_title("The label graph has no edges", fontsize=10)
        return figure
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    figure = _figure(7.2 * columns, 6.6 * rows + 0.5)
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


def _draw_part(axes, graph, dominant, class_names, most=18):
    """One part: the dominant label, its sources around it, theirs beyond."""
    inner = sorted(
        graph.predecessors(dominant),
        key=lambda n: (-graph[n][dominant]["images"], n),
    )
    inner = inner[:most]
    places = {dominant: np.zeros(2)}
    angles = {}
    for i, node in enumerate(inner):
        angles[node] = 2 * np.pi * (i + 0.25) / len(inner)
        places[node] = _polar(1.0, angles[node])
    # Each next ring stands behind the nodes that it points to.
    ring, radius = inner, 1.0
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
        if target not in places:
            angles[target] = 0.0
            places[target] = _polar(0.5, 0.0)
    for start, end in graph.edges:
        if start in places and end in places:
            axes.annotate(
                "",
                places[end],
                places[start],
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": NEUTRAL,
                    "linewidth": min(
                        2, 0.6 + 0.2 * graph[start][end]["images"]
                    ),
                    "shrinkA": 4,
                    "shrinkB": 6,
                },
            )
    for node, place in places.items():
        centre = node == dominant
        axes.plot(*place, "o", color=FOOLED if centre else CLEAN, markersize=9)
        right = place[0] >= 0
        angle = 0.0 if centre else np.degrees(angles[node])
        radius = max(1.0, np.hypot(*place))
        axes.text(
            *(place - [0, 0.12] if centre else place * (1 + 0.06 / radius)),
            _short(_name(node, class_names))
            if centre
            else _short(_name(node, class_names), 16),
            fontsize=11 if centre else 8,
            ha="center" if centre else ("left" if right else "right"),
            va="top" if centre else "center",
            rotation=angle if right else angle + 180,
            rotation_mode="anchor",
            color=FOOLED if centre else "black",
            fontweight="bold" if centre else "normal",
            # The arrows of a large part run behind the name.
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1}
            if centre
            else None,
            zorder=4,
        )
    hidden = len(graph) - len(places)
    others = len(graph) - 1
    text = (
        f"{others} label{'s lead' if others > 1 else ' leads'} to "
        f"{_short(_name(dominant, class_names))}"
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


def plot_targets(result, class_names=None):
    """Draws a `TargetRates` as bars; returns the figure."""
    order = np.argsort(result.target_rates)
    figure = _figure(8, 1.6 + 0.42 * len(order))
    axes = figure.subplots()
    places = np.arange(len(order))
    axes.barh(
        places,
        result.fooling_rates[order],
        color="#DDDDDD",
        label="any other label than clean",
    )
    axes.barh(
        places, result.target_rates[order], 0.5, color=FOOLED, label="target"
    )
    for place, i in enumerate(order):
        rate = result.target_rates[i]
        low, high = result.intervals[i]
        axes.plot([low, high], [place, place], color="black", linewidth=1.5)
        axes.text(high + 0.01, place, f"{rate:.0%}", va="center", fontsize=9)
    axes.set_yticks(
        places,
        [_short(_name(result.targets[i], class_names)) for i in order],
        fontsize=9,
    )
    _percent(axes.xaxis)
    axes.set_xlim(0, 1.05)
    axes.set_xlabel("share of the held-out images")
    axes.set_title(
        f"Images sent to a chosen label, {result.norm} norm "
        f"{result.epsilon:g}\n{_sample(result)}; lines: 95 %",
        fontsize=10,
    )
    axes.legend(
        fontsize=9,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.12),
        ncols=2,
        frameon=False,
    )
    _tidy(axes)
    return figure


def plot_spectrum(result):
    """Draws a `NormalSpectrum` beside that of random vectors."""
    figure = _figure(8, 4.8)
    axes = figure.subplots()
    index = np.arange(1, result.num_normals + 1)
    axes.plot(
        index, result.singular_values, color=FOOLED, label="boundary normals"
    )
    axes.plot(
        index,
        result.random_singular_values,
        color=NEUTRAL,
        linestyle="--",
        label="random unit vectors",
    )
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("index of the singular value")
    axes.set_ylabel("singular value (unit vectors, no unit)")
    dim = min(100, max(1, result.num_normals // 5))
    random_share = np.square(result.random_singular_values)
    axes.set_title(
        f"Singular values of n = {result.num_normals} unit normals in "
        f"{result.dimension:,} dimensions\nthe first {dim} hold "
        f"{result.share(dim):.0%} of the squared length; of random vectors "
        f"{random_share[:dim].sum() / random_share.sum():.0%}",
        fontsize=10,
    )
    axes.legend(fontsize=9, frameon=False)
    _tidy(axes)
    return figure


def plot_subspace(result):
    """Draws a `SubspaceFooling`; returns the figure."""
    figure = _figure(8, 4.6)
    axes = figure.subplots()
    names = [f"span of the\nfirst {dim}" for dim in result.dims]
    names.append("whole space")
    rates = [*result.fooling_rates, result.random_rate]
    intervals = [*result.intervals, result.random_interval]
    places = np.arange(len(rates))
    axes.bar(
        places,
        rates,
        color=[FOOLED] * len(result.dims) + [NEUTRAL],
        width=0.6,
    )
    for place, rate, (low, high) in zip(places, rates, intervals):
        _whisker(axes, place, rate, low, high)
        axes.text(place + 0.06, rate + 0.01, f"{rate:.0%}", fontsize=10)
    axes.plot(
        places[:-1],
        result.best_rates,
        "D",
        color=CLEAN,
        label=f"best of {result.num_random}",
    )
    axes.set_xticks(places, names, fontsize=9)
    _percent(axes.yaxis)
    axes.set_ylim(
        0, min(1.05, 1.25 * max(*result.best_rates, *np.ravel(intervals)))
    )
    axes.set_ylabel("fooling rate")
    gain = result.fooling_rates[-1] - result.random_rate
    low, high = result.difference_intervals[-1]
    axes.set_title(
        f"Random vectors of {result.norm} norm {result.epsilon:g}, in the span "
        f"of singular vectors and anywhere\n{_sample(result)}, mean of "
        f"{result.num_random} vectors; bars: 95 %\nspan of "
        f"{result.dims[-1]} minus whole space, paired: {gain:+.0%} "
        f"(95 %: {low:+.0%} to {high:+.0%})",
        fontsize=10,
    )
    axes.legend(fontsize=9, frameon=False)
    _tidy(axes)
    return figure


def plot_baselines(result):
    """Draws `Baselines`: fooling rates against the norm."""
    figure = _figure(8, 5)
    axes = figure.subplots()
    for i, name in enumerate(result.names):
        rates = result.fooling_rates[i]
        axes.plot(
            result.norms,
            rates,
            color=_SERIES[i % len(_SERIES)],
            marker="os^Dvx"[i % 6],
            label=name,
        )
        axes.fill_between(
            result.norms,
            *result.intervals[i].T,
            color=_SERIES[i % len(_SERIES)],
            alpha=0.15,
            linewidth=0,
        )
    _percent(axes.yaxis)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(f"{result.norm} norm, pixel units")
    axes.set_ylabel("held-out fooling rate")
    axes.set_title(
        "Fooling rate of perturbations of the same norm\n"
        f"{_sample(result)}; bands: 95 %",
        fontsize=10,
    )
    axes.legend(fontsize=9, frameon=False)
    _tidy(axes)
    return figure


def _sample(result):
    if result.num_groups == result.num_images:
        return f"n = {result.num_images} images"
    return f"n = {result.num_images} images of {result.num_groups} photographs"


def _name(label, class_names):
    return f"class {label}" if class_names is None else class_names[label]


def _short(text, most=24):
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def _polar(radius, angle):
    return radius * np.array([np.cos(angle), np.sin(angle)])


def _whisker(axes, x, rate, low, high):
    axes.errorbar(
        x,
        rate,
        [[max(0, rate - low)], [max(0, high - rate)]],
        color="black",
        capsize=4,
    )


def _heat_map(axes, values, low, high, text):
    image = axes.imshow(
        values, vmin=low, vmax=high, cmap="cividis", aspect="auto"
    )
    bar = axes.figure.colorbar(image, ax=axes)
    bar.set_label(text, fontsize=9)


def _ink(value):
    """A colour of text that can be read on cividis."""
    return "white" if value < 0.55 else "black"


def _percent(axis):
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _tidy(axes):
    axes.spines[["top", "right"]].set_visible(False)


def _describe(logits, images, class_names):
    """Returns `name, confidence` texts and labels."""
    probabilities = np.asarray(tf.nn.softmax(logits(tf.constant(images))))
    labels = probabilities.argmax(axis=-1)
    texts = []
    for label, confidence in zip(labels, probabilities.max(axis=-1)):
        name = f"class {label}" if class_names is None else class_names[label]
        texts.append(f"{name}\n{confidence:.0%} sure")
    return texts, labels


def _show(axes, image):
    axes.imshow(
        np.clip(image if image.shape[-1] == 3 else image[..., 0], 0, 1),
        cmap="gray",
        vmin=0,
        vmax=1,
    )
    axes.set_axis_off()


def _figure(width, height):
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Pictures need matplotlib: pip install matplotlib."
        ) from error
    return Figure(figsize=(width, height), layout="constrained", dpi=110)
