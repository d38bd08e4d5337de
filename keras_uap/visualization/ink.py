"""What the pictures share: colours, words and marks."""

import numpy as np

# Colour-blind safe (Okabe and Ito, 2008): blue for clean, vermilion for fooled.
CLEAN, FOOLED, NEUTRAL = "#0072B2", "#D55E00", "#666666"
SERIES = (FOOLED, CLEAN, "#009E73", "#CC79A7", NEUTRAL, "#E69F00")


def figure(width, height):
    """Makes an empty figure of a size in inches.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Pictures need matplotlib: pip install matplotlib."
        ) from error
    return Figure(figsize=(width, height), layout="constrained", dpi=110)


def axes(width, height):
    """Makes a figure of one picture; `axes.figure` is the figure."""
    return figure(width, height).subplots()


def sample(result):
    """What was measured on: "n = 54 images of 12 photographs"."""
    if result.num_groups == result.num_images:
        return f"n = {result.num_images} images"
    return f"n = {result.num_images} images of {result.num_groups} photographs"


def class_name(label, class_names):
    """The name of a class, or its number."""
    return f"class {label}" if class_names is None else class_names[label]


def short_name(label, class_names, most=24):
    """The name of a class, cut to a number of characters."""
    text = class_name(label, class_names)
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def show(axes, image):
    """Shows an image `(H, W, 1 or 3)` of values in 0 to 1."""
    axes.imshow(
        np.clip(image if image.shape[-1] == 3 else image[..., 0], 0, 1),
        cmap="gray",
        vmin=0,
        vmax=1,
    )
    axes.set_axis_off()


def stretch(perturbation):
    """A perturbation as an image: zero is grey, the largest value an end."""
    return perturbation / (2 * (np.abs(perturbation).max() or 1.0)) + 0.5


def whisker(axes, x, rate, low, high):
    """Marks an interval around a rate."""
    axes.errorbar(
        x,
        rate,
        [[max(0, rate - low)], [max(0, high - rate)]],
        color="black",
        capsize=4,
    )


def heat_map(axes, values, texts, legend):
    """Colours a table of values in 0 to 1, and writes a text on each."""
    image = axes.imshow(values, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    bar = axes.figure.colorbar(image, ax=axes)
    bar.set_label(legend, fontsize=9)
    for (i, j), value in np.ndenumerate(values):
        axes.text(
            j,
            i,
            texts[i][j],
            ha="center",
            va="center",
            fontsize=9,
            # What can be read on cividis.
            color="white" if value < 0.55 else "black",
        )


def percent(axis):
    """Labels an axis of shares in per cent."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def legend(axes, **place):
    """Adds a plain legend."""
    axes.legend(fontsize=9, frameon=False, **place)


def tidy(*all_axes):
    """Takes away the frame's upper and right side."""
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
