"""The frequencies of a perturbation, and what its bands fool."""

import numpy as np

from keras_uap.visualization import style


def plot_perturbation_spectrum(result):
    """Draws a `PerturbationSpectrum`: the power, and the rates of the bands.

    Args:
        result: `keras_uap.analysis.PerturbationSpectrum`.
    """
    figure = style.figure(11.5, 4.8)
    power_at, rates_at = figure.subplots(1, 2, width_ratios=[1, 1.2])
    power_at.plot(
        result.frequencies,
        result.power,
        color=style.FOOLED,
        label="perturbation",
    )
    power_at.plot(
        result.frequencies,
        result.white_power,
        color=style.NEUTRAL,
        linestyle="--",
        label="white noise",
    )
    for edge in result.bands[2:, 0]:
        power_at.axvline(edge, color=style.NEUTRAL, linewidth=0.5, alpha=0.5)
    # The mean colour, of no cycle, has its place too.
    power_at.set_xscale("symlog", linthresh=1)
    top = result.frequencies[-1]
    octaves = int(np.log2(max(top, 1))) + 1
    ticks = [0, *(2**i for i in range(0, octaves, 1 + octaves // 9))]
    power_at.set_xticks(ticks, [f"{tick}" for tick in ticks])
    power_at.minorticks_off()
    power_at.set_xlim(0, max(top, 1))
    power_at.set_ylim(bottom=0)
    style.percent(power_at.yaxis, None)
    power_at.set_xlabel("cycles per image")
    power_at.set_ylabel("share of the power at each")
    power_at.set_title("Power; lines: between the bands", fontsize=10)
    style.legend(power_at)

    names = style.tick_names(result.names(), 5.6 / len(result.bands))
    places = np.arange(len(names))
    for side, rates, intervals, color, label in (
        (-0.19, "fooling_rates", "intervals", style.FOOLED, "perturbation"),
        (
            *(0.19, "random_rates", "random_intervals", style.NEUTRAL),
            "random noise, same band and norm",
        ),
    ):
        rates, intervals = getattr(result, rates), getattr(result, intervals)
        rates_at.bar(places + side, rates, color=color, width=0.36, label=label)
        for place, rate, (low, high) in zip(places, rates, intervals):
            style.whisker(rates_at, place + side, rate, low, high)
            rates_at.text(
                place + side,
                max(rate, high) + 0.015,
                f"{rate:.0%}",
                fontsize=9,
                ha="center",
            )
    rates_at.set_xticks(places, names, fontsize=9)
    style.percent(rates_at.yaxis)
    rates_at.set_ylim(0, 1.08)
    rates_at.set_xlabel("part of these cycles per image")
    rates_at.set_ylabel("fooling rate")
    rates_at.set_title("Parts at equal norm; bars: 95 %", fontsize=10)
    figure.legend(
        *rates_at.get_legend_handles_labels(),
        loc="outside lower right",
        ncols=2,
        fontsize=9,
        frameon=False,
    )
    style.suptitle(
        figure,
        f"A perturbation of {result.norm} norm {result.epsilon:.4g} by "
        f"frequency, {style.sample(result)}",
    )
    style.tidy(power_at, rates_at)
    return figure
