"""Perturbations found on some classifiers, measured on others."""

from keras_uap.visualization import style


def plot_transfer(result):
    """Draws a `TransferMatrix` as a heat map; returns the figure.

    Args:
        result: `keras_uap.analysis.TransferMatrix`.
    """
    rows, columns = result.fooling_rates.shape
    axes = style.axes(max(6.5, 3.8 + 1.7 * columns), 3.0 + 0.9 * rows)

    def text(i, j):
        low, high = result.intervals[i, j]
        star = " *" if result.resized[i, j] else ""
        return (
            f"{result.fooling_rates[i, j]:.0%}{star}\n{low:.0%} to {high:.0%}\n"
            f"noise {result.random_rates[i, j]:.0%}"
        )

    texts = [[text(i, j) for j in range(columns)] for i in range(rows)]
    style.heat_map(axes, result.fooling_rates, texts, "fooling rate")
    names = style.tick_names(result.classifiers, 1.4)
    axes.set_xticks(range(columns), names, fontsize=9)
    names = style.tick_names(result.perturbations, 1.4)
    axes.set_yticks(range(rows), names, fontsize=9)
    note = "\n* resized" if result.resized.any() else ""
    title = f"Transfer, {result.norm} norm {result.epsilons.max():.4g}\n"
    title += f"{style.sample(result)}; rate, 95% interval,\n"
    title += f"random noise of the same norm{note}"
    style.label(axes, title, "measured on", "found on")
    return axes.figure
