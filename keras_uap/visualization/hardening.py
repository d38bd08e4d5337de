"""A classifier before and after it was hardened."""

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
    figure.suptitle(
        f"Hardening, {before.report.norm} norm at most "
        f"{before.card['epsilon']:.4g}: {before.fooling_rate:.0%} fooled "
        f"before, {after.fooling_rate:.0%} after, {result.agreement:.0%} of "
        f"the answers kept, {style.sample(before)}",
        fontsize=11,
    )
    rows = [
        (
            "fooled by\nthe strongest",
            (before.fooling_rate, before.fooling_interval),
            (after.fooling_rate, after.fooling_interval),
        ),
        (
            "by random\nnoise",
            (before.random_rate, None),
            (after.random_rate, None),
        ),
        (
            "clean answers\nkept",
            (1.0, None),
            (result.agreement, result.agreement_interval),
        ),
        (
            "robust\nagreement",
            (result.robust_agreement_before, None),
            (result.robust_agreement, result.robust_agreement_interval),
        ),
    ]
    for i, name in enumerate(("before", "after")):
        places = [place + 0.4 * i - 0.2 for place in range(len(rows))]
        cells = [row[1 + i] for row in rows]
        rates_at.bar(
            places,
            [rate for rate, _ in cells],
            width=0.38,
            color=(style.NEUTRAL, style.CLEAN)[i],
            label=name,
        )
        for place, (rate, interval) in zip(places, cells):
            if interval is not None:
                style.whisker(rates_at, place, rate, *interval)
    rates_at.set_xticks(range(len(rows)), [row[0] for row in rows], fontsize=9)
    rates_at.set_ylim(0, 1.02)
    style.percent(rates_at.yaxis)
    rates_at.set_ylabel("held-out images, lines: 95 % interval")
    style.legend(rates_at)
    style.tidy(rates_at)
    for axes, name, audit in zip(
        shown_at, ("before", "after"), (before, after)
    ):
        style.show_perturbation(axes, audit.perturbation)
        text = f"The strongest {name}"
        for label, share in audit.report.dominant_labels(1):
            name = style.short_name(label, class_names, 18)
            text += f"\n{share:.0%} of the fooled to\n{name}"
        axes.set_title(text, fontsize=10)
    return figure
