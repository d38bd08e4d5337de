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
    rates, intervals = result.fooling_rates, result.intervals
    axes.barh(places, rates, 0.6, color=style.FOOLED, label="perturbation")
    style.whiskers(axes, places, rates, intervals, horizontal=True)
    marks = {"markeredgecolor": "white", "clip_on": False}
    noise = {"color": style.NEUTRAL, "label": "random noise, same norm"}
    axes.plot(result.random_rates, places, "D", **noise, **marks)
    changed = places[result.of_picture]
    if len(changed):
        alone = result.change_rates[changed]
        name = "the change alone, on clean images"
        marks |= {"color": style.CLEAN, "label": name}
        axes.plot(alone, changed, "o", **marks)
    style.write_rates(axes, places, rates, intervals[:, 1], horizontal=True)
    names = [style.fit_text(name, 30) for name in result.names]
    axes.set_yticks(places, names, fontsize=9)
    axes.set_ylim(count - 0.4, -0.6)
    style.percent_axis(axes, "x", 1.08)
    title = f"What a perturbation of {result.norm} norm {result.norms[0]:.4g}"
    title += f" survives\n{style.sample(result)}; lines: 95%"
    x = "fooled: another label than the clean image under the same change"
    style.label(axes, title, x)
    style.legend_below(axes, 3)
    return axes.figure
