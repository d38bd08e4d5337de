"""What a perturbation still fools after it was changed."""

import numpy as np

from keras_uap.visualization import style


def plot_survival(result):
    """Draws a `Survival`: a bar for each change.

    Args:
        result: `keras_uap.analysis.Survival`.
    """
    count = len(result.names)
    axes = style.axes(9.5, 2.4 + 0.32 * count)
    places = np.arange(count)
    axes.barh(
        places,
        result.fooling_rates,
        color=style.FOOLED,
        height=0.6,
        label="perturbation",
    )
    lows, highs = result.intervals.T
    axes.errorbar(
        result.fooling_rates,
        places,
        xerr=[
            np.maximum(0, result.fooling_rates - lows),
            np.maximum(0, highs - result.fooling_rates),
        ],
        fmt="none",
        color="black",
        capsize=3,
    )
    axes.plot(
        result.random_rates,
        places,
        "D",
        color=style.NEUTRAL,
        markeredgecolor="white",
        clip_on=False,
        label="random noise, same norm",
    )
    changed = places[result.of_picture]
    if len(changed):
        axes.plot(
            result.change_rates[changed],
            changed,
            "o",
            color=style.CLEAN,
            markeredgecolor="white",
            clip_on=False,
            label="the change alone, on clean images",
        )
    for place, rate, high in zip(places, result.fooling_rates, highs):
        axes.text(
            max(rate, high) + 0.015,
            place,
            f"{rate:.0%}",
            va="center",
            fontsize=9,
        )
    names = [style.cut(name, 30) for name in result.names]
    axes.set_yticks(places, names, fontsize=9)
    axes.set_ylim(count - 0.4, -0.6)
    axes.set_xlim(0, 1.08)
    style.percent(axes.xaxis)
    axes.set_xlabel(
        "fooled: another label than the clean image under the same change"
    )
    axes.set_title(
        f"What a perturbation of {result.norm} norm {result.norms[0]:.4g} "
        f"survives\n{style.sample(result)}; lines: 95 %",
        fontsize=10,
    )
    axes.figure.legend(
        loc="outside lower center", ncols=3, fontsize=9, frameon=False
    )
    style.tidy(axes)
    return axes.figure
