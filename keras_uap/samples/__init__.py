"""The embedded default: a real ImageNet classifier and real photographs.

The classifier is EfficientNet-Lite0 with its ImageNet weights. The photographs
are free-licensed, cut to images of 224x224 on which the classifier has a
confidence of at least 0.35, and split by photograph: no photograph is on both
sides.
`CREDITS.md` and `photos/CREDITS.csv`, beside this file, name the authors and
licences.
"""

import json
import pathlib

import keras
import numpy as np
from PIL import Image

from keras_uap.perturbations import interchange
from keras_uap.perturbations.lp_ball import as_norm

__all__ = [
    "SPLITS",
    "class_names",
    "load_classifier",
    "load_perturbation",
    "load_photos",
    "photo_groups",
    "reference_audits",
]

_FOLDER = pathlib.Path(__file__).parent
SPLITS = ("fit", "held_out")


def load_classifier():
    """Loads EfficientNet-Lite0 with ImageNet weights.

    Returns:
        A Keras model that maps images `(n, 224, 224, 3)`, RGB in 0 to 255, to
        1,000 logits in the usual ImageNet order, as in `class_names()`.
    """
    return keras.saving.load_model(
        _FOLDER / "efficientnet_lite0.keras", compile=False
    )


def load_photos(split):
    """Loads photos.

    Args:
        split: `"fit"` (136 images of 26 photographs), to find perturbations
            with, or `"held_out"` (54 images of 12 others), to measure them on.

    Returns:
        uint8 NumPy array `(n, 224, 224, 3)`, RGB in 0 to 255.

    Raises:
        ValueError: for another split.
    """
    return np.stack(
        [
            np.asarray(Image.open(path).convert("RGB"))
            for path in _photo_paths(split)
        ]
    )


def photo_groups(split):
    """Returns the name of the photograph that each image was cut from.

    Images of one photograph are alike, so an interval for a fooling rate must
    count photographs, not images: pass this as `groups`.

    Args:
        split: `"fit"` or `"held_out"`.

    Returns:
        NumPy array of strings `(n,)`, in the order of `load_photos(split)`.
    """
    return np.array(
        [path.stem.rpartition("_")[0] for path in _photo_paths(split)]
    )


def load_perturbation(norm="linf"):
    """Loads a perturbation of the embedded classifier, ready-made.

    It was found on the photographs of `load_photos("fit")`; its card says how,
    and how many of those of `load_photos("held_out")` it fools.
    `benchmarks/sample_perturbations.py` finds it again.

    Args:
        norm: `"linf"`, with an epsilon of 10, or `"l2"`, of 2,000.

    Returns:
        A pair of a float32 NumPy array `(224, 224, 3)`, in pixels of 0 to
        255, and its card, a dictionary.

    Raises:
        ValueError: for another norm.
    """
    name = f"efficientnet_lite0_{as_norm(norm)}.npz"
    return interchange.load_perturbation(_FOLDER / "perturbations" / name)


def reference_audits():
    """Returns audits of known classifiers, to compare yours with.

    They were made with budget `"standard"` by
    `benchmarks/reference_audits.py`, each on images of its own kind.

    Returns:
        List of dictionaries: the `name` of the classifier; `norm`, `epsilon`
        and `value_range`; `fooling_rate`, `fooling_interval`, `random_rate`,
        `num_images`, `num_groups`, `passes` and `passes_to_half` as in the
        result of `keras_uap.audit`; `data`, the images; `versions`, `date` and
        `commit` of the code.
    """
    path = _FOLDER / "reference_audits.json"
    return json.loads(path.read_text(encoding="utf-8"))


def class_names():
    """Returns the 1,000 ImageNet class names, in the order of the logits."""
    text = (_FOLDER / "imagenet_classes.txt").read_text(encoding="utf-8")
    return text.splitlines()


def _photo_paths(split):
    if split not in SPLITS:
        raise ValueError(
            f"Unknown split. Received: split={split!r}. Expected 'fit' or "
            "'held_out'."
        )
    return sorted((_FOLDER / "photos" / split).glob("*.jpg"))
