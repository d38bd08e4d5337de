"""The runs of an audit beside each other, and the strongest perturbation."""

from keras_uap.visualization import style


def plot_audit(audit, class_names=None):
    """Draws an `Audit` on one page.

    Args:
        audit: What `keras_uap.audit` returned.
        class_names: Sequence of strings, the names of the classes.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = style.figure(11.5, 5)
    rates_at, shown_at, labels_at = figure.subplots(
        1, 3, width_ratios=[2, 1, 1.1]
    )
    style.suptitle(
        figure,
        f"Audit, {audit.report.norm} norm at most "
        f"{audit.card['epsilon']:.4g}: {audit.fooling_rate:.0%} fooled, "
        f"{style.sample(audit)}",
        12,
    )
    names = [f"{run.name}, seed {run.seed}" for run in audit.runs]
    rates = [run.fooling_rate for run in audit.runs]
    colors = [
        style.FOOLED if run == audit.strongest else style.CLEAN
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
        color=style.NEUTRAL,
        linestyle="--",
        label="random noise, same norm",
    )
    rates_at.set_yticks(places, names, fontsize=9)
    rates_at.invert_yaxis()
    rates_at.set_xlim(0, 1.02)
    style.percent(rates_at.xaxis)
    rates_at.set_xlabel("held-out images fooled, lines: 95 % interval")
    rates_at.set_title("Runs, in red the strongest", fontsize=10)
    figure.legend(loc="outside lower left", fontsize=9, frameon=False)

    v = audit.perturbation
    style.show_perturbation(shown_at, v)
    if style.is_drawn(v):
        shown_at.set_title(
            "The strongest perturbation\nstretched to full range", fontsize=10
        )
    labels = audit.report.dominant_labels(6)[::-1]
    labels_at.barh(
        [style.short_name(c, class_names, 14) for c, _ in labels],
        [share for _, share in labels],
        color=style.CLEAN,
    )
    style.percent(labels_at.xaxis)
    labels_at.set_xlabel("share of the fooled")
    labels_at.set_title("Labels they are\nsent to", fontsize=10)
    style.tidy(rates_at, labels_at)
    return figure
