"""A perturbation, and images without and with it."""

import numpy as np

from keras_uap.classifiers.adapter import as_adapter
from keras_uap.data.pictures import as_array
from keras_uap.perturbations import pixels
from keras_uap.perturbations.interchange import read_perturbation
from keras_uap.visualization import style


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
        perturbation: Array `(H, W, C)` with 1 or 3 channels, or `(T, C)`
            for signals, in the pixel units of `value_range`; or what else
            stands for one, as in `keras_uap.analysis`.
        images: Images `(n, H, W, C)` or signals `(n, T, C)`, the images to
            show, the first eight. Signals are drawn as lines, one for each of
            the first eight channels; behind a perturbed one is the clean one.
        value_range: Pair of floats, the pixel range, or `None`.
        class_names: Sequence of strings, the names of the classes.
        from_logits: Boolean, whether the classifier returns logits; `None`
            finds out.
        title: String, over the whole figure.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it.

    Raises:
        ValueError: if the images do not have the perturbation's shape.
    """
    v = read_perturbation(perturbation, value_range)
    if not style.is_drawn(v):
        raise ValueError(
            "A plot needs a perturbation of shape (height, width, 1 or 3), "
            f"or (time, channels) for signals. Received: {v.shape}."
        )
    images = as_array(images, most=8)
    pixels.same_shape(images.shape[1:], v.shape)
    value_range = pixels.as_value_range(value_range)
    images = images.astype("float32")
    adapter = as_adapter(classifier, v.shape, from_logits, images[:4])
    perturbed = pixels.apply_perturbation(images, v, value_range).numpy()
    clean_names, clean_labels = _describe(adapter, images, class_names)
    names, labels = _describe(adapter, perturbed, class_names)

    count = len(images)
    # Lines need room beside them for the places of their channels.
    figure = style.figure((3 if style.is_signal(v) else 2.3) * (count + 1), 5.8)
    if title is None:
        # Images keep their aspect: the room above them must follow it.
        figure.set_layout_engine("compressed")
    else:
        style.suptitle(figure, title)
    axes = figure.subplots(2, count + 1)
    largest = np.abs(v).max() or 1.0
    style.show_perturbation(axes[0, 0], v)
    axes[0, 0].set_title(
        f"perturbation\nlargest value {largest:.4g}\nstretched to full range",
        fontsize=9,
    )
    _show_images(axes[:, 1:], images, perturbed, value_range)
    axes[1, 0].hist(v.ravel(), bins=41, color=style.NEUTRAL)
    axes[1, 0].set_title("its values", fontsize=9)
    axes[1, 0].set_xlabel("change of a value", fontsize=8)
    axes[1, 0].set_yticks([])
    axes[1, 0].tick_params(labelsize=8)

    left = {"xycoords": "axes fraction", "textcoords": "offset points"}
    left |= {"rotation": 90, "ha": "right", "va": "center", "fontsize": 10}
    for name, at in zip(("clean", "with v"), axes[:, 1]):
        if style.is_signal(v):
            # The label of several channels is kept.
            at.set_ylabel(f"{name}\n{at.get_ylabel()}".strip(), fontsize=8)
        else:
            at.annotate(name, (0, 0.5), (-6, 0), **left)
    for at, name in zip(axes[0, 1:], clean_names):
        at.set_title(name, fontsize=9, color=style.CLEAN)
    for at, name, fooled in zip(axes[1, 1:], names, labels != clean_labels):
        color = style.FOOLED if fooled else style.NEUTRAL
        verdict = "fooled" if fooled else "not fooled"
        at.set_title(f"{name}\n{verdict}", fontsize=9, color=color)
    return figure


def _show_images(axes, images, perturbed, value_range):
    """Shows clean images in the first row and perturbed ones in the second."""
    if images.ndim == 3:
        lanes = style.lanes(images, perturbed)
        for (above, below), clean, fooling in zip(axes.T, images, perturbed):
            style.show_signal(above, clean, lanes, style.CLEAN)
            style.show_signal(below, fooling, lanes, style.FOOLED, clean)
        return
    low, high = value_range or (float(images.min()), float(images.max()))
    for at, image in zip(axes.ravel(), [*images, *perturbed]):
        style.show(at, (image - low) / (high - low))


def _describe(adapter, images, class_names):
    """Returns texts of a name and a confidence, and labels."""
    probabilities = adapter.confidences(adapter.predict(images))
    labels = probabilities.argmax(axis=-1)
    texts = [
        f"{style.short_name(label, class_names, 26)}\nconfidence {share:.0%}"
        for label, share in zip(labels, probabilities.max(axis=-1))
    ]
    return texts, labels
