"""The normals of decision boundaries, and their subspace."""

import numpy as np

from keras_uap.visualization import style


def plot_normals(result):
    """Draws `BoundaryNormals`: the distances, and the first few normals.

    Args:
        result: `keras_uap.analysis.BoundaryNormals`.
    """
    shown = [v for v in result.normals[:4] if style.is_drawn(v)]
    figure = style.figure(8 + 0.5 * len(shown), 4.6)
    columns = -(-len(shown) // 2)
    widths = [2.4] + [1] * columns
    grid = figure.add_gridspec(2, 1 + columns, width_ratios=widths)
    axes = figure.add_subplot(grid[:, 0])
    axes.hist(result.distances, bins=30, color=style.CLEAN)
    x = "l2 distance to the boundary, pixel units"
    style.label(axes, "Distances", x, "images")
    for i, normal in enumerate(shown):
        at = figure.add_subplot(grid[i % 2, 1 + i // 2])
        style.show_perturbation(at, normal)
        at.set_title(f"normal at image {result.indices[i]}", fontsize=8)
    count = f"{len(result.indices)} of {result.num_images} images"
    style.suptitle(figure, f"Nearest decision boundaries of {count}")
    return figure


def plot_spectrum(result):
    """Draws a `NormalSpectrum` beside that of random vectors.

    Args:
        result: `keras_uap.analysis.NormalSpectrum`.
    """
    axes = style.axes(8, 4.8)
    index = np.arange(1, result.num_normals + 1)
    values, random = result.singular_values, result.random_singular_values
    axes.plot(index, values, color=style.FOOLED, label="boundary normals")
    noise = {"color": style.NEUTRAL, "label": "random unit vectors"}
    axes.plot(index, random, "--", **noise)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    dim = min(100, max(1, result.num_normals // 5))
    squares = np.square(random)
    style.label(
        axes,
        f"Singular values of n = {result.num_normals} unit normals in "
        f"{result.dimension:,} dimensions\nthe first {dim} hold "
        f"{result.share(dim):.0%} of the squared length; of random vectors "
        f"{squares[:dim].sum() / squares.sum():.0%}",
        "index of the singular value",
        "singular value (unit vectors, no unit)",
    )
    style.legend(axes)
    return axes.figure


def plot_subspace(result):
    """Draws a `SubspaceFooling`; returns the figure.

    Args:
        result: `keras_uap.analysis.SubspaceFooling`.
    """
    axes = style.axes(max(8, 2 + 1.1 * len(result.dims)), 4.6)
    names = [f"span of the\nfirst {dim}" for dim in result.dims]
    names.append("whole space")
    rates = [*result.fooling_rates, result.random_rate]
    intervals = [*result.intervals, result.random_interval]
    colors = [style.FOOLED] * len(result.dims) + [style.NEUTRAL]
    style.rate_bars(axes, names, rates, intervals, colors)
    best = {"color": style.CLEAN, "label": f"best of {result.num_random}"}
    axes.plot(result.best_rates, "D", **best)
    top = max(*result.best_rates, *np.ravel(intervals))
    style.percent_axis(axes, "y", np.clip(1.25 * top, 0.05, 1.05))
    gain = result.fooling_rates[-1] - result.random_rate
    low, high = result.difference_intervals[-1]
    style.label(
        axes,
        f"Random vectors of {result.norm} norm {result.epsilon:g}, in the span "
        f"of singular vectors and anywhere\n{style.sample(result)}, mean of "
        f"{result.num_random} vectors; lines: 95%\nspan of "
        f"{result.dims[-1]} minus whole space, paired: {gain:+.0%} "
        f"(95%: {low:+.0%} to {high:+.0%})",
        y="fooling rate",
    )
    style.legend(axes)
    return axes.figure
