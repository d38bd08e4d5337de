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
    x, noise = result.frequencies, result.white_power
    power_at.plot(x, result.power, color=style.FOOLED, label="perturbation")
    power_at.plot(x, noise, "--", color=style.NEUTRAL, label="white noise")
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
    style.percent_axis(power_at, "y", decimals=None)
    title, y = "Power; lines: between the bands", "share of the power at each"
    style.label(power_at, title, "cycles per image", y)
    style.legend(power_at)
    own = result.fooling_rates, result.intervals
    random = result.random_rates, result.random_intervals
    series = [
        ("perturbation", style.FOOLED, *own),
        ("random noise, same band and norm", style.NEUTRAL, *random),
    ]
    places = style.grouped_bars(
        rates_at, result.names(), series, 5.6 / len(result.bands)
    )
    for at, (*_, rates, intervals) in zip(places, series):
        style.write_rates(rates_at, at, rates, intervals[:, 1])
    style.percent_axis(rates_at, "y", 1.08)
    title = "Parts at equal norm; lines: 95%"
    x = "part of these cycles per image"
    style.label(rates_at, title, x, "fooling rate")
    style.legend_below(rates_at, 2, "right")
    title = f"A perturbation of {result.norm} norm {result.epsilon:.4g}"
    style.suptitle(figure, f"{title} by frequency, {style.sample(result)}")
    return figure
