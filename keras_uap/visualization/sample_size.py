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
        if max(places) > 20 * min(places):
            axes.set_xscale("log")
            axes.minorticks_off()
        shown = _apart(places, axes.get_xscale() == "log")
        axes.set_xticks(shown, [f"{value:g}" for value in shown])
    named_places = set(_apart(places, not named and axes.get_xscale() == "log"))
    style.whiskers(axes, places, means, result.intervals)
    for i, place in enumerate(places):
        if seeds > 1:
            axes.plot(
                [place] * seeds,
                result.fooling_rates[i],
                "_",
                markersize=12,
                color=style.CLEAN,
                label="each seed" if i == 0 else None,
            )
        if place not in named_places:
            continue
        axes.annotate(
            f"{means[i]:.0%}",
            (place, means[i]),
            (6, 5),
            textcoords="offset points",
            fontsize=9,
        )
    if hasattr(result, "half_epsilon"):
        _mark_half(axes, result)
    style.percent_axis(axes.yaxis)
    axes.set_ylim(0, 1.05)
    style.label(
        axes,
        f"Held-out fooling rate against {result.name}\n{result.norm} ball, "
        f"{style.sample(result)}, {seeds} seed{'s'[: seeds > 1]}; bars: 95%",
        result.name,
        "held-out fooling rate",
    )
    style.legend(axes)
    style.tidy(axes)
    return axes.figure


def _mark_half(axes, result):
    """Draws where an `EpsilonCurve` fools half, and writes it in the legend."""
    low, high = result.half_interval
    # What is not known goes on to the edge of those measured.
    line = [
        max(low, min(result.values)),
        max(result.values) if high is None else high,
    ]
    axes.plot(line, [0.5, 0.5], color=style.CLEAN, linewidth=6, alpha=0.3)
    axes.plot(
        [] if result.half_epsilon is None else [result.half_epsilon],
        [] if result.half_epsilon is None else [0.5],
        "D",
        color=style.CLEAN,
        label=f"half fooled: {result.half()}",
    )


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
