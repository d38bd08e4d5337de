"""A perturbation beside simpler ones of the same norm."""

from keras_uap.visualization import style


def plot_baselines(result):
    """Draws `Baselines`: fooling rates against the norm.

    Args:
        result: `keras_uap.analysis.Baselines`.
    """
    axes = style.axes(8, 5)
    for i, name in enumerate(result.names):
        rates = result.fooling_rates[i]
        axes.plot(
            result.norms,
            rates,
            color=style.SERIES[i % len(style.SERIES)],
            marker="os^Dvx"[i % 6],
            label=name,
        )
        axes.fill_between(
            result.norms,
            *result.intervals[i].T,
            color=style.SERIES[i % len(style.SERIES)],
            alpha=0.15,
            linewidth=0,
        )
    style.percent(axes.yaxis)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(f"{result.norm} norm, pixel units")
    axes.set_ylabel("held-out fooling rate")
    axes.set_title(
        "Fooling rate of perturbations of the same norm\n"
        f"{style.sample(result)}; bands: 95 %",
        fontsize=10,
    )
    style.legend(axes)
    style.tidy(axes)
    return axes.figure
