"""The attacks of an audit, and the strongest perturbation."""

import numpy as np

from keras_uap.visualization import style


def plot_audit(audit, class_names=None):
    """Draws an `Audit` on one page.

    Args:
        audit: What `keras_uap.audit` returned.
        class_names: Sequence of strings, the names of the classes.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    context = audit.context()
    figure = style.figure(14.5 if context else 11.5, 5)
    ratios = [2, 1, 1.1] + [1.1] * bool(context)
    rates_at, shown_at, labels_at, *known_at = figure.subplots(
        1, len(ratios), width_ratios=ratios
    )
    ball = f"{audit.report.norm} norm at most {audit.card['epsilon']:.4g}"
    rate = f"{audit.fooling_rate:.0%} fooled, {style.sample(audit)}"
    style.suptitle(figure, f"Audit, {ball}: {rate}")
    _draw_race(rates_at, audit)
    v = audit.perturbation
    style.show_perturbation(shown_at, v)
    if style.is_drawn(v):
        title = "The strongest perturbation\nstretched to full range"
        shown_at.set_title(title, fontsize=10)
    style.ranking(labels_at, audit.report.dominant_labels(6), class_names, 14)
    style.label(labels_at, "Labels they are\nsent to", "share of the fooled")
    for axes in known_at:
        _draw_context(axes, context)
    return figure


def _draw_context(axes, context):
    """Fooling rates of known classifiers, the audited one among them."""
    rates = [each["fooling_rate"] for each in context]
    names = [each["name"] or "this classifier" for each in context]
    places = np.arange(len(context))
    colors = [style.NEUTRAL if e["name"] else style.FOOLED for e in context]
    axes.barh(places, rates, color=colors)
    bounds = [each["fooling_interval"] for each in context]
    style.whiskers(axes, places, rates, bounds, horizontal=True)
    axes.set_yticks(places, style.tick_names(names, 1.5))
    axes.invert_yaxis()
    style.percent_axis(axes, "x", 1.02)
    style.label(axes, "Known classifiers,\non other images", "fooled")


def _draw_race(axes, audit):
    """Fooling rate against model passes, a line for each attack."""
    from matplotlib import colormaps

    attacks, color_map = {}, colormaps["viridis"]
    for run in audit.runs:
        attacks.setdefault((run.name, run.seed), []).append(run)
    strongest = audit.strongest.name, audit.strongest.seed
    # No shade is orange, so that the strongest attack stands out.
    shades = iter(np.linspace(0.35, 0.9, len(attacks)))
    for (name, seed), runs in attacks.items():
        leads = (name, seed) == strongest
        passes = [run.passes for run in runs]
        rates = [run.fooling_rate for run in runs]
        color = style.FOOLED if leads else color_map(next(shades))
        line = {"label": name, "color": color, "zorder": 2 + leads}
        axes.plot(passes, rates, "o-", **line)
        if leads:
            intervals = [run.fooling_interval for run in runs]
            style.whiskers(axes, passes, rates, intervals)
    noise = {"color": style.NEUTRAL, "label": "random noise, same norm"}
    axes.axhline(audit.random_rate, linestyle="--", **noise)
    # A perturbation of another classifier takes no pass.
    axes.set_xscale("symlog", linthresh=100)
    axes.set_xlim(0, 1.2 * max(run.passes for run in audit.runs))
    style.percent_axis(axes, "y", 1.02)
    title = "Effort; orange: the strongest, black bars: its 95% interval"
    style.label(axes, title, "model passes", "held-out images fooled")
    style.legend_below(axes, 2, "left")
