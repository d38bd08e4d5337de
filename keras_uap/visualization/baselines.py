"""A perturbation beside simpler ones of the same norm."""

from keras_uap.visualization import ink


def plot_baselines(result):
    """Draws `Baselines`: fooling rates against the norm.

    Args:
        result: `keras_uap.analysis.Baselines`.
    """
    axes = ink.axes(8, 5)
    for i, name in enumerate(result.names):
        rates = result.fooling_rates[i]
        axes.plot(
            result.norms,
            rates,
            color=ink.SERIES[i % len(ink.SERIES)],
            marker="os^Dvx"[i % 6],
            label=name,
        )
        axes.fill_between(
            result.norms,
            *result.intervals[i].T,
            color=ink.SERIES[i % len(ink.SERIES)],
            alpha=0.15,
            linewidth=0,
        )
    ink.percent(axes.yaxis)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(f"{result.norm} norm, pixel units")
    axes.set_ylabel("held-out fooling rate")
    axes.set_title(
        "Fooling rate of perturbations of the same norm\n"
        f"{ink.sample(result)}; bands: 95 %",
        fontsize=10,
    )
    ink.legend(axes)
    ink.tidy(axes)
    return axes.figure
