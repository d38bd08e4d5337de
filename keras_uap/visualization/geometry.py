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
    grid = figure.add_gridspec(
        2,
        1 + (len(shown) + 1) // 2,
        width_ratios=[2.4] + [1] * -(-len(shown) // 2),
    )
    axes = figure.add_subplot(grid[:, 0])
    axes.hist(result.distances, bins=30, color=style.CLEAN)
    axes.set_xlabel("l2 distance to the boundary, pixel units")
    axes.set_ylabel("images")
    axes.set_title("Distances", fontsize=10)
    for i, normal in enumerate(shown):
        at = figure.add_subplot(grid[i % 2, 1 + i // 2])
        style.show_perturbation(at, normal)
        at.set_title(f"normal at image {result.indices[i]}", fontsize=8)
    figure.suptitle(
        f"Nearest decision boundaries of {len(result.indices)} of "
        f"{result.num_images} images",
        fontsize=11,
    )
    style.tidy(axes)
    return figure


def plot_spectrum(result):
    """Draws a `NormalSpectrum` beside that of random vectors.

    Args:
        result: `keras_uap.analysis.NormalSpectrum`.
    """
    axes = style.axes(8, 4.8)
    index = np.arange(1, result.num_normals + 1)
    axes.plot(
        index,
        result.singular_values,
        color=style.FOOLED,
        label="boundary normals",
    )
    axes.plot(
        index,
        result.random_singular_values,
        color=style.NEUTRAL,
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
    style.legend(axes)
    style.tidy(axes)
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
    places = np.arange(len(rates))
    axes.bar(
        places,
        rates,
        color=[style.FOOLED] * len(result.dims) + [style.NEUTRAL],
        width=0.6,
    )
    for place, rate, (low, high) in zip(places, rates, intervals):
        style.whisker(axes, place, rate, low, high)
        axes.text(place + 0.06, rate + 0.01, f"{rate:.0%}", fontsize=10)
    axes.plot(
        places[:-1],
        result.best_rates,
        "D",
        color=style.CLEAN,
        label=f"best of {result.num_random}",
    )
    axes.set_xticks(places, names, fontsize=9)
    style.percent(axes.yaxis)
    axes.set_ylim(
        0,
        min(
            1.05,
            max(0.05, 1.25 * max(*result.best_rates, *np.ravel(intervals))),
        ),
    )
    axes.set_ylabel("fooling rate")
    gain = result.fooling_rates[-1] - result.random_rate
    low, high = result.difference_intervals[-1]
    axes.set_title(
        f"Random vectors of {result.norm} norm {result.epsilon:g}, in the span "
        f"of singular vectors and anywhere\n{style.sample(result)}, mean of "
        f"{result.num_random} vectors; bars: 95 %\nspan of "
        f"{result.dims[-1]} minus whole space, paired: {gain:+.0%} "
        f"(95 %: {low:+.0%} to {high:+.0%})",
        fontsize=10,
    )
    style.legend(axes)
    style.tidy(axes)
    return axes.figure
