"""A perturbation beside simpler ones of the same norm."""

from keras_uap.visualization import style


def plot_baselines(result):
    """Draws `Baselines`: fooling rates against the norm.

    Args:
        result: `keras_uap.analysis.Baselines`.
    """
    axes = style.axes(8, 5)
    for i, name in enumerate(result.names):
        color, marker = style.SERIES[i % 6], style.MARKERS[i % 6]
        rates, intervals = result.fooling_rates[i], result.intervals[i]
        axes.plot(result.norms, rates, color=color, marker=marker, label=name)
        band = {"color": color, "alpha": 0.15, "linewidth": 0}
        axes.fill_between(result.norms, *intervals.T, **band)
    style.percent_axis(axes, "y", 1.02)
    title = "Fooling rate of perturbations of the same norm"
    title += f"\n{style.sample(result)}; bands: 95%"
    x = f"{result.norm} norm, pixel units"
    style.label(axes, title, x, "held-out fooling rate")
    style.legend(axes)
    return axes.figure
