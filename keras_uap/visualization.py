"""Pictures of perturbations, drawn with matplotlib.

matplotlib is imported when a picture is drawn, not before, and figures are
made without pyplot: nothing appears on a screen unless the caller shows it.
"""

import numpy as np
import tensorflow as tf

from keras_uap.logits import logits_function
from keras_uap.perturbation_layer import (
    apply_perturbation,
    standardize_perturbation,
    standardize_value_range,
)

# Colour-blind safe (Okabe and Ito, 2008): blue for clean, vermilion for fooled.
CLEAN, FOOLED, NEUTRAL = "#0072B2", "#D55E00", "#666666"


def plot_perturbation(
    classifier,
    perturbation,
    images,
    value_range=(0, 255),
    class_names=None,
    from_logits=None,
    title=None,
):
    """Draws a perturbation, and images without and with it.

    Args:
        classifier: Keras model that maps images to class scores.
        perturbation: Array `(H, W, C)` with 1 or 3 channels, in the pixel
            units of `value_range`.
        images: Array `(n, H, W, C)`, the images to show, up to eight.
        value_range: Pair of floats, the pixel range.
        class_names: Sequence of strings, the names of the classes.
        from_logits: Boolean, whether the classifier returns logits; `None`
            finds out.
        title: String, over the whole figure.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it.

    Raises:
        ValueError: if the images do not have the perturbation's shape.
    """
    v = standardize_perturbation(perturbation)
    images = np.asarray(images)[:8]
    if v.ndim != 3 or v.shape[-1] not in (1, 3):
        raise ValueError(
            "A picture needs a perturbation of shape (height, width, 1 or 3). "
            f"Received: {v.shape}."
        )
    if images.shape[1:] != v.shape or len(images) == 0:
        raise ValueError(
            "The images do not have the perturbation's shape. Received: "
            f"{images.shape}. Expected: (n, *{v.shape})."
        )
    low, high = standardize_value_range(value_range) or (
        float(images.min()),
        float(images.max()),
    )
    images = images.astype("float32")
    perturbed = apply_perturbation(images, v, value_range).numpy()
    logits = logits_function(classifier, from_logits, images[:4])
    clean_names, clean_labels = _describe(logits, images, class_names)
    names, labels = _describe(logits, perturbed, class_names)

    count = len(images)
    figure = _figure(2.3 * (count + 1), 5.8)
    if title is not None:
        figure.suptitle(title, fontsize=12)
    axes = figure.subplots(2, count + 1)
    largest = np.abs(v).max() or 1.0
    _show(axes[0, 0], v / (2 * largest) + 0.5)
    axes[0, 0].set_title(
        f"perturbation\nlargest value {largest:.4g}\nstretched to full range",
        fontsize=9,
    )
    axes[1, 0].hist(v.ravel(), bins=41, color=NEUTRAL)
    axes[1, 0].set_title("its values", fontsize=9)
    axes[1, 0].set_xlabel("change of a pixel value", fontsize=8)
    axes[1, 0].set_yticks([])
    axes[1, 0].tick_params(labelsize=8)
    for i in range(count):
        _show(axes[0, i + 1], (images[i] - low) / (high - low))
        axes[0, i + 1].set_title(clean_names[i], fontsize=9, color=CLEAN)
        _show(axes[1, i + 1], (perturbed[i] - low) / (high - low))
        fooled = labels[i] != clean_labels[i]
        axes[1, i + 1].set_title(
            names[i] + ("\nfooled" if fooled else "\nnot fooled"),
            fontsize=9,
            color=FOOLED if fooled else NEUTRAL,
        )
    return figure


def plot_report(report, class_names=None):
    """Draws a `FoolingReport` on one page.

    Args:
        report: A `keras_uap.analysis.FoolingReport`.
        class_names: Sequence of strings, the names of the classes.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = _figure(11, 6.5)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.2])
    rates = [report.fooling_rate, report.rounded_rate, report.random_rate]
    bars = [
        "perturbation",
        "rounded to\ngrey levels",
        "random noise,\nsame norm",
    ]
    left.bar(bars, rates, color=[FOOLED, FOOLED, NEUTRAL], width=0.6)
    for x, rate, (low, high) in (
        (0, report.fooling_rate, report.fooling_interval),
        (2, report.random_rate, report.random_interval),
    ):
        left.errorbar(
            x,
            rate,
            [[max(0, rate - low)], [max(0, high - rate)]],
            color="black",
            capsize=4,
        )
    for x, rate in enumerate(rates):
        left.text(x + 0.06, rate + 0.01, f"{rate:.0%}", fontsize=10)
    left.set_ylim(0, 1.05)
    left.set_ylabel("share of images with another label than clean")
    left.set_title(
        f"Fooling rate, {report.norm} norm {report.epsilon:.4g}\n"
        f"n = {report.num_images} images of {report.num_groups} photographs; "
        "bars: 95 %",
        fontsize=10,
    )
    labels = report.dominant_labels(8)[::-1]
    names = [
        str(c) if class_names is None else class_names[c] for c, _ in labels
    ]
    right.barh(names, [share for _, share in labels], color=CLEAN)
    right.set_xlabel("share of the fooled images")
    right.set_title("Labels that fooled images are sent to", fontsize=10)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _describe(logits, images, class_names):
    """Returns `name, confidence` texts and labels."""
    probabilities = np.asarray(tf.nn.softmax(logits(tf.constant(images))))
    labels = probabilities.argmax(axis=-1)
    texts = []
    for label, confidence in zip(labels, probabilities.max(axis=-1)):
        name = f"class {label}" if class_names is None else class_names[label]
        texts.append(f"{name}\n{confidence:.0%} sure")
    return texts, labels


def _show(axes, image):
    axes.imshow(
        np.clip(image if image.shape[-1] == 3 else image[..., 0], 0, 1),
        cmap="gray",
        vmin=0,
        vmax=1,
    )
    axes.set_axis_off()


def _figure(width, height):
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Pictures need matplotlib: pip install matplotlib."
        ) from error
    return Figure(figsize=(width, height), layout="constrained", dpi=110)
