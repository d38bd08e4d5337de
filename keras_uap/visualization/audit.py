"""The runs of an audit beside each other, and the strongest perturbation."""

from keras_uap.visualization import ink


def plot_audit(audit, class_names=None):
    """Draws an `Audit` on one page.

    Args:
        audit: What `keras_uap.audit` returned.
        class_names: Sequence of strings, the names of the classes.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = ink.figure(11.5, 5)
    rates_at, shown_at, labels_at = figure.subplots(
        1, 3, width_ratios=[2, 1, 1.1]
    )
    ink.suptitle(
        figure,
        f"Audit, {audit.report.norm} norm at most "
        f"{audit.card['epsilon']:.4g}: {audit.fooling_rate:.0%} fooled, "
        f"{ink.sample(audit)}",
        12,
    )
    names = [f"{run.name}, seed {run.seed}" for run in audit.runs]
    rates = [run.fooling_rate for run in audit.runs]
    colors = [
        ink.FOOLED if run == audit.strongest else ink.CLEAN
        for run in audit.runs
    ]
    places = range(len(names))
    rates_at.barh(places, rates, color=colors)
    intervals = [run.fooling_interval for run in audit.runs]
    rates_at.errorbar(
        rates,
        places,
        xerr=[
            [max(0, rate - low) for rate, (low, _) in zip(rates, intervals)],
            [max(0, high - rate) for rate, (_, high) in zip(rates, intervals)],
        ],
        fmt="none",
        color="black",
        capsize=3,
    )
    rates_at.axvline(
        audit.random_rate,
        color=ink.NEUTRAL,
        linestyle="--",
        label="random noise, same norm",
    )
    rates_at.set_yticks(places, names, fontsize=9)
    rates_at.invert_yaxis()
    rates_at.set_xlim(0, 1.02)
    ink.percent(rates_at.xaxis)
    rates_at.set_xlabel("held-out images fooled, lines: 95 % interval")
    rates_at.set_title("Runs, in red the strongest", fontsize=10)
    figure.legend(loc="outside lower left", fontsize=9, frameon=False)

    v = audit.perturbation
    ink.show_perturbation(shown_at, v)
    if ink.is_drawn(v):
        shown_at.set_title(
            "The strongest perturbation\nstretched to full range", fontsize=10
        )
    labels = audit.report.dominant_labels(6)[::-1]
    labels_at.barh(
        [ink.short_name(c, class_names, 14) for c, _ in labels],
        [share for _, share in labels],
        color=ink.CLEAN,
    )
    ink.percent(labels_at.xaxis)
    labels_at.set_xlabel("share of the fooled")
    labels_at.set_title("Labels they are\nsent to", fontsize=10)
    ink.tidy(rates_at, labels_at)
    return figure
