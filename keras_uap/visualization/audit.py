"""The attacks of an audit, and the strongest perturbation."""

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
    rates = [run.fooling_rate for run in audit.runs]
    colors = [
        style.FOOLED if run == audit.strongest else style.CLEAN
        for run in audit.runs
    ]
    places = range(len(rates))
    rates_at.barh(places, rates, color=colors)
    intervals = [run.fooling_interval for run in audit.runs]
    style.whiskers(rates_at, places, rates, intervals, horizontal=True)
    noise = {"color": style.NEUTRAL, "label": "random noise, same norm"}
    rates_at.axvline(audit.random_rate, linestyle="--", **noise)
    names = [f"{run.name}, seed {run.seed}" for run in audit.runs]
    rates_at.set_yticks(places, names, fontsize=9)
    rates_at.invert_yaxis()
    style.percent_axis(rates_at, "x", 1.02)
    style.label(
        rates_at,
        "Attacks, in red the strongest",
        "held-out images fooled, lines: 95% interval",
    )
    style.legend_below(rates_at, 1, "left")
    v = audit.perturbation
    style.show_perturbation(shown_at, v)
    if style.is_drawn(v):
        style.label(
            shown_at, "The strongest perturbation\nstretched to full range"
        )
    style.ranking(labels_at, audit.report.dominant_labels(6), class_names, 14)
    style.label(labels_at, "Labels they are\nsent to", "share of the fooled")
    style.tidy(rates_at, labels_at)
    return figure
