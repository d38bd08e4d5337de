"""Fooling rates against what a perturbation was fitted on."""

import numpy as np

from keras_uap.visualization import style


def plot_curve(result):
    """Draws a `FoolingCurve`: a line over numbers, bars over names.

    Of an `EpsilonCurve` also where half are fooled.

    Args:
        result: `keras_uap.analysis.FoolingCurve` or `EpsilonCurve`.
    """
    axes = style.axes(8, 4.8)
    means = result.fooling_rates.mean(axis=1)
    seeds = result.fooling_rates.shape[1]
    named = isinstance(result.values[0], str)
    places = np.arange(len(means)) if named else np.asarray(result.values)
    is_log = not named and max(places) > 20 * min(places)
    apart = _apart(places, is_log)
    noise = {"color": style.NEUTRAL, "label": "random noise, same norm"}
    if named:
        axes.bar(places, means, 0.5, color=style.FOOLED, label="perturbation")
        axes.bar(places + 0.33, result.random_rates, 0.16, **noise)
        names = style.tick_names(result.values, 6.2 / len(places))
        axes.set_xticks(places, names, fontsize=9)
    else:
        own = {"color": style.FOOLED, "label": "perturbation, mean"}
        axes.plot(places, means, "o-", **own)
        axes.plot(places, result.random_rates, "--", **noise)
        if is_log:
            axes.set_xscale("log")
            axes.minorticks_off()
        axes.set_xticks(apart, [f"{value:g}" for value in apart])
    style.whiskers(axes, places, means, result.intervals)
    if seeds > 1:
        marks = {"markersize": 12, "color": style.CLEAN}
        first, *others = result.fooling_rates.T
        axes.plot(places, first, "_", label="each seed", **marks)
        axes.plot(places, np.transpose(others), "_", **marks)
    beside = {"xytext": (6, 5), "textcoords": "offset points", "fontsize": 9}
    for place, mean in zip(places, means):
        if place in apart:
            axes.annotate(f"{mean:.0%}", (place, mean), **beside)
    if hasattr(result, "half_epsilon"):
        _mark_half(axes, result)
    style.percent_axis(axes, "y", 1.05)
    title = f"Held-out fooling rate against {result.name}\n{result.norm} ball, "
    title += f"{style.sample(result)}, {seeds} seed{'s'[: seeds > 1]}; "
    title += "lines: 95%"
    style.label(axes, title, result.name, "held-out fooling rate")
    style.legend(axes)
    return axes.figure


def _mark_half(axes, result):
    """Draws where an `EpsilonCurve` fools half, and writes it in the legend."""
    low, high = result.half_interval
    # What is not known goes on to the edge of those measured.
    high = max(result.values) if high is None else high
    line = [max(low, min(result.values)), high]
    axes.plot(line, [0.5, 0.5], color=style.CLEAN, linewidth=6, alpha=0.3)
    half = [] if result.half_epsilon is None else [result.half_epsilon]
    mark = {"color": style.CLEAN, "label": f"half fooled: {result.half()}"}
    axes.plot(half, [0.5] * len(half), "D", **mark)


def _apart(places, is_log):
    """The places whose names have room beside each other."""
    places = np.asarray(places)
    scale = np.log(places) if is_log else places.astype(float)
    least = 0.07 * np.ptp(scale)
    kept = []
    for i in np.argsort(scale):
        if not kept or scale[i] - scale[kept[-1]] >= least:
            kept.append(i)
    return places[kept].tolist()
