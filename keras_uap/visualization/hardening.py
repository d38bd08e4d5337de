"""A classifier before and after it was hardened."""

import numpy as np

from keras_uap.visualization import style


def plot_hardening(result, class_names=None):
    """Draws a `Hardening` on one page.

    Args:
        result: What `keras_uap.harden` returned.
        class_names: Sequence of strings, the names of the classes.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = style.figure(11, 5)
    rates_at, *shown_at = figure.subplots(1, 3, width_ratios=[2, 1, 1])
    before, after = result.before, result.after
    ball = f"{before.report.norm} norm at most {before.card['epsilon']:.4g}"
    fooled = f"{before.fooling_rate:.0%} fooled before"
    fooled += f", {after.fooling_rate:.0%} after"
    kept = f"{result.agreement:.0%} clean agreement, {style.sample(before)}"
    style.suptitle(figure, f"Hardening, {ball}: {fooled}, {kept}")
    none = (np.nan, np.nan)
    names = ["fooled by\nthe strongest", "by random\nnoise"]
    names += ["clean\nagreement", "robust\nagreement"]
    rates = [before.fooling_rate, before.random_rate]
    rates += [1.0, result.robust_agreement_before]
    intervals = [before.fooling_interval, none, none, none]
    series = [("before", style.NEUTRAL, rates, intervals)]
    rates = [after.fooling_rate, after.random_rate]
    rates += [result.agreement, result.robust_agreement]
    intervals = [after.fooling_interval, none, result.agreement_interval]
    intervals += [result.robust_agreement_interval]
    series += [("after", style.CLEAN, rates, intervals)]
    style.grouped_bars(rates_at, names, series)
    style.percent_axis(rates_at, "y", 1.02)
    style.label(rates_at, y="held-out images, lines: 95% interval")
    style.legend(rates_at)
    audits = {"before": before, "after": after}
    for axes, (name, audit) in zip(shown_at, audits.items()):
        style.show_perturbation(axes, audit.perturbation)
        text = f"The strongest {name}"
        for label, share in audit.report.dominant_labels(1):
            name = style.short_name(label, class_names, 18)
            text += f"\n{share:.0%} of the fooled to\n{name}"
        axes.set_title(text, fontsize=10)
    return figure
