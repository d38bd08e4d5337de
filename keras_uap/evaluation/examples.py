"""What a perturbation does to a few of the images, at several strengths."""

import dataclasses

import numpy as np

from keras_uap.perturbations.pixels import apply_perturbation

MOST = 8
# Times the perturbation: from none of it to twice.
STRENGTHS = np.linspace(0, 2, 9)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Examples:
    """Some of the images of a report, and their predictions.

    They are taken evenly from all images, fooled or not.

    Attributes:
        places: Integer array `(n,)`, their indices among the images.
        images: Array `(n, H, W, C)`, clean, as they were passed.
        perturbation: Array `(H, W, C)`.
        strengths: Array `(s,)`, what the perturbation is multiplied by.
        labels: Integer array `(n, s)`, the predictions at each strength.
        confidences: Array `(n, s)`, the probabilities of these labels.
    """

    places: np.ndarray
    images: np.ndarray
    perturbation: np.ndarray
    strengths: np.ndarray
    labels: np.ndarray
    confidences: np.ndarray


def take_examples(labelled, perturbation):
    """Makes `Examples` of `LabelledImages` and an array `(H, W, C)`."""
    places = spread_indices(len(labelled.images), labelled.groups)
    images = labelled.images[places]

    def logits_at(strength):
        v, value_range = strength * perturbation, labelled.value_range
        return labelled.adapter.predict(
            images, lambda x: apply_perturbation(x, v, value_range)
        )

    logits = [logits_at(strength) for strength in STRENGTHS]
    confidences = map(labelled.adapter.confidences, logits)
    return Examples(
        places=places,
        images=images,
        perturbation=perturbation,
        strengths=STRENGTHS,
        labels=np.stack([values.argmax(-1) for values in logits], 1),
        confidences=np.stack([each.max(-1) for each in confidences], 1),
    )


def spread_indices(count, groups, most=MOST):
    """Up to `most` indices, of as many photographs as there are."""
    places = np.arange(count)
    if groups is not None:
        _, first = np.unique(groups, return_index=True)
        if len(first) >= most:
            places = np.sort(first)
    steps = np.linspace(0, len(places) - 1, min(most, len(places)))
    return places[steps.round().astype(int)]
