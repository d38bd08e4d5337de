"""The style of all plots: figures, colours, bars, intervals and names."""

import collections
import functools
import io
import textwrap

import numpy as np

from keras_uap.utils.formatting import sample

# Colour-blind safe (Okabe and Ito, 2008): blue for clean, vermilion for fooled.
CLEAN, FOOLED, NEUTRAL = "#0072B2", "#D55E00", "#666666"
SERIES = (FOOLED, CLEAN, "#009E73", "#CC79A7", NEUTRAL, "#E69F00")
MARKERS = "os^Dvx"

# A clean signal, behind the perturbed one.
BEHIND = "#AAAAAA"
# The channels of a signal that are drawn, the first ones.
CHANNELS = 8


def figure(width, height):
    """Makes an empty figure of a size in inches.

    It is made without pyplot, which would keep it until it is closed. A
    notebook shows it as the last value of a cell.
    """
    size = {"figsize": (width, height), "layout": "constrained", "dpi": 110}
    return _figure_class()(**size)


def as_png(figure):
    """A figure as the bytes of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


@functools.cache
def _figure_class():
    from matplotlib.figure import Figure  # It takes a while to import.

    class PlotFigure(Figure):
        """A figure that a notebook shows without pyplot."""

        _repr_png_ = as_png

    return PlotFigure


def axes(width, height):
    """Makes a figure of one plot; `axes.figure` is the figure."""
    return figure(width, height).subplots()


def fooled(result):
    """What was measured on, and how many images are fooled, also by noise."""
    rate, noise = result.fooling_rate, result.random_rate
    return f"{sample(result)}: {rate:.0%} fooled, by random noise {noise:.0%}"


def unit(value_range):
    """The end of a norm in pixel units: " of 255", or nothing."""
    if value_range is None:
        return ""
    return f" of {value_range[1] - value_range[0]:g}"


def norm_in_words(report):
    """The norm of a perturbation, and the ball that it was sought in."""
    end, radius = unit(report.value_range), report.ball_epsilon
    norm = f"{report.norm} norm {report.epsilon:.4g}{end}"
    if radius is None:
        return norm
    if report.epsilon >= 0.99 * radius:
        return f"{report.norm} ball of {radius:.4g}{end}"
    return f"{norm}, in a ball of {radius:.4g}{end}"


def class_name(label, class_names):
    """The name of a class, or its number."""
    known = class_names is not None and 0 <= label < len(class_names)
    return class_names[label] if known else f"class {label}"


def short_name(label, class_names, most=24):
    """The name of a class, cut to a number of characters of common width."""
    return fit_text(class_name(label, class_names), most)


def fit_text(text, most):
    """Cuts a text of font size 9 to the room of some characters."""
    from matplotlib.textpath import TextPath

    def is_wide(text):
        # A dollar sign would begin a formula.
        path = TextPath((0, 0), text.replace("$", "S"), size=9)
        return path.get_extents().width > 0.62 * 9 * most

    text = " ".join(str(text).split()).replace("$", r"\$")
    if not text or not is_wide(text):
        return text
    while len(text) > 1 and is_wide(text + "\u2026"):
        text = text[:-1]
    return text.rstrip("\\") + "\u2026"


def suptitle(figure, text):
    """Puts a title over the whole figure, in as many lines as it needs."""
    most = max(8, int(figure.get_figwidth() * 72 / (0.6 * 11)))
    lines = [textwrap.fill(line, most) for line in text.split("\n")]
    figure.suptitle("\n".join(lines), fontsize=11)


def tick_names(names, inches):
    """Names for ticks that are so far apart: in lines, the last one cut."""
    room = max(6, int(inches * 72 / (0.62 * 9)))
    wrap = textwrap.TextWrapper(room, max_lines=3, placeholder="\u2026").wrap
    return [
        "\n".join(fit_text(line, room) for line in wrap(str(name)))
        for name in names
    ]


def show(axes, image):
    """Shows an image `(H, W, 1 or 3)` of values in 0 to 1."""
    values = np.clip(image if image.shape[-1] == 3 else image[..., 0], 0, 1)
    axes.imshow(values, cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()


def is_image(array):
    """Whether an array can be drawn: `(H, W, 1)` or `(H, W, 3)`."""
    return array.ndim == 3 and array.shape[-1] in (1, 3)


def is_signal(array):
    """Whether an array is a signal: `(T, C)`."""
    return array.ndim == 2


def is_drawn(array):
    """Whether an array can be drawn, as an image or as lines."""
    return is_image(array) or is_signal(array)


# Where the channels of a signal are drawn: what is added to each, where its
# middle then lies, and the ends of the axis.
Lanes = collections.namedtuple("Lanes", ["offsets", "middles", "low", "high"])


def lanes(*signals):
    """Places for the channels of signals, so that none crosses the next.

    Args:
        *signals: Arrays `(T, C)` or `(n, T, C)` that are drawn alike.
    """
    drawn = np.concatenate(
        [each.reshape(-1, each.shape[-1])[:, :CHANNELS] for each in signals]
    )
    low, high = drawn.min(axis=0), drawn.max(axis=0)
    middles, width = (low + high) / 2, 1.1 * float((high - low).max()) or 1.0
    offsets = np.zeros(len(middles))
    if len(middles) > 1:
        below = -width * np.arange(len(middles))
        offsets, middles = below - middles, below
    ends = middles[-1] - width / 2, middles[0] + width / 2
    return Lanes(offsets, middles, *ends)


def show_signal(axes, signal, lanes, color, behind=None):
    """Draws a signal `(T, C)`: a line for each of the first channels.

    Args:
        axes: Matplotlib axes.
        signal: Array `(T, C)`.
        lanes: `Lanes` of the signals that are drawn alike.
        color: String, the colour of the lines.
        behind: Array `(T, C)`, a second signal, drawn in grey behind.
    """
    count, whole = len(lanes.offsets), signal.shape[-1]
    if behind is not None:
        shown = behind[:, :count] + lanes.offsets
        axes.plot(shown, color=BEHIND, linewidth=1.6)
    axes.plot(signal[:, :count] + lanes.offsets, color=color, linewidth=0.8)
    axes.set_xlim(0, max(1, len(signal) - 1))
    axes.set_ylim(lanes.low, lanes.high)
    axes.tick_params(labelsize=8)
    axes.set_xlabel("step", fontsize=8)
    if whole > 1:
        axes.set_yticks(lanes.middles, range(count))
        some = f" (the first {count} of {whole})" if whole > count else ""
        axes.set_ylabel(f"channel{some}", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def show_perturbation(axes, perturbation):
    """Shows a perturbation at its largest; leaves what is neither empty."""
    if is_image(perturbation):
        show(axes, stretch(perturbation))
    elif is_signal(perturbation):
        # Around zero, which is drawn too: many are little but a shift.
        places = lanes(perturbation, -perturbation)
        zeros = np.zeros_like(perturbation)
        show_signal(axes, perturbation, places, FOOLED, zeros)
    else:
        axes.set_axis_off()


def stretch(perturbation):
    """A perturbation as an image: zero is grey, the largest value an end."""
    return perturbation / (2 * (np.abs(perturbation).max() or 1.0)) + 0.5


def whiskers(axes, places, rates, intervals, horizontal=False):
    """Draws 95% intervals around rates.

    Args:
        axes: Matplotlib axes.
        places: Sequence of k positions of bars or points.
        rates: Sequence of k numbers.
        intervals: Array `(k, 2)`; NaN draws none.
        horizontal: Boolean, whether the bars are horizontal.
    """
    rates = np.asarray(rates, float)
    lows, highs = np.transpose(np.asarray(intervals, float))
    lengths = np.maximum(0, [rates - lows, highs - rates])
    points = (rates, places) if horizontal else (places, rates)
    lines = {"xerr" if horizontal else "yerr": lengths}
    axes.errorbar(*points, **lines, fmt="none", color="black", capsize=4)


def grouped_bars(axes, names, series, inches=None):
    """Draws bars of several series beside each other, with 95% intervals.

    Args:
        axes: Matplotlib axes.
        names: Sequence of k strings, the groups of bars.
        series: Sequence of tuples `(label, color, rates, intervals)`.
        inches: Float, how far groups are apart; longer names are broken.

    Returns:
        Array `(len(series), k)`, the positions of the bars.
    """
    width, middle = 0.8 / len(series), (len(series) - 1) / 2
    groups = np.arange(len(names))
    places = [groups + width * (i - middle) for i in range(len(series))]
    for at, (label, color, rates, intervals) in zip(places, series):
        axes.bar(at, rates, 0.94 * width, color=color, label=label)
        whiskers(axes, at, rates, intervals)
    names = names if inches is None else tick_names(names, inches)
    axes.set_xticks(groups, names, fontsize=9)
    return np.array(places)


def ranking(axes, labels, class_names, most=24):
    """Draws shares of labels as horizontal bars, the largest on top.

    Args:
        axes: Matplotlib axes.
        labels: List of pairs of a label and a share, largest first.
        class_names: Sequence of strings, or `None`.
        most: Integer, the longest name in characters.
    """
    names = [short_name(label, class_names, most) for label, _ in labels]
    axes.barh(names[::-1], [share for _, share in labels][::-1], color=CLEAN)
    percent_axis(axes, "x")


def write_rates(axes, places, rates, highs, horizontal=False):
    """Writes each rate at the end of its bar, beyond its interval."""
    ends = np.maximum(rates, highs) + 0.015
    for place, rate, end in zip(places, rates, ends):
        at = (end, place) if horizontal else (place, end)
        side = {"va": "center"} if horizontal else {"ha": "center"}
        axes.text(*at, f"{rate:.0%}", fontsize=9, **side)


def label(axes, title="", x="", y=""):
    """Writes the title of axes and what their sides show.

    The frame keeps its upper and right side around an image alone.
    """
    axes.set_title(title, fontsize=10)
    axes.set(xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(bool(axes.images))


def rate_bars(axes, names, rates, intervals, colors):
    """Draws rates as bars, with 95% intervals and the numbers beside them.

    Args:
        axes: Matplotlib axes.
        names: Sequence of k strings.
        rates: Sequence of k numbers.
        intervals: Array `(k, 2)`; NaN draws none.
        colors: Sequence of k strings.
    """
    places = np.arange(len(rates))
    axes.bar(places, rates, 0.6, color=colors)
    whiskers(axes, places, rates, intervals)
    for place, rate in zip(places, rates):
        axes.text(place + 0.06, rate + 0.01, f"{rate:.0%}", fontsize=10)
    axes.set_xticks(places, names, fontsize=9)


def heat_map(axes, values, texts, legend):
    """Colours a table of values in 0 to 1, and writes a text on each."""
    image = axes.imshow(values, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    bar = axes.figure.colorbar(image, ax=axes)
    bar.set_label(legend, fontsize=9)
    centred = {"ha": "center", "va": "center", "fontsize": 9}
    for (i, j), value in np.ndenumerate(values):
        # What can be read on cividis.
        color = "white" if value < 0.55 else "black"
        axes.text(j, i, texts[i][j], color=color, **centred)


def percent_axis(axes, side, top=None, decimals=0):
    """Labels an axis of shares in per cent.

    Args:
        axes: Matplotlib axes.
        side: `"x"` or `"y"`.
        top: Float, where the axis ends that begins at 0, or `None`.
        decimals: Integer; `None` takes as many as needed.
    """
    from matplotlib.ticker import PercentFormatter

    axis = axes.xaxis if side == "x" else axes.yaxis
    axis.set_major_formatter(PercentFormatter(1.0, decimals))
    if top is not None:
        axes.set(**{f"{side}lim": (0, top)})


def legend(axes, **place):
    """Adds a plain legend inside of axes."""
    axes.legend(fontsize=9, frameon=False, **place)


def legend_below(axes, ncols, side="center"):
    """Adds the legend of axes below the whole figure."""
    style = {"fontsize": 9, "ncols": ncols, "frameon": False}
    entries = axes.get_legend_handles_labels()
    axes.figure.legend(*entries, loc=f"outside lower {side}", **style)
