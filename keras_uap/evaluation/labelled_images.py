"""Images with their clean predictions, to measure perturbations on."""

import warnings

import numpy as np

from keras_uap.classifiers.adapter import as_adapter
from keras_uap.data.pictures import as_pictures
from keras_uap.evaluation.intervals import rate_interval
from keras_uap.perturbations.interchange import read_perturbation
from keras_uap.perturbations.pixels import (
    apply_perturbation,
    as_value_range,
    same_shape,
)
from keras_uap.utils.formatting import percent
from keras_uap.utils.validation import check_whole


class LabelledImages:
    """Images and their clean predictions, to measure perturbations on.

    Args:
        classifier: Keras model that maps images to class scores, or its
            `ClassifierAdapter`.
        images: `Pictures`, or what they are read from.
        value_range: Pair of floats, the pixel range, or `None`.
        batch_size: Integer.
        from_logits: Boolean, whether the classifier returns logits; `None`
            finds out.
        verbose: `"auto"`, 0 or 1, whether to show progress.

    Attributes:
        warnings: List of strings, why rates may not be what they seem.

    Raises:
        TypeError: if `classifier` is not a Keras model.
        ValueError: for images that are empty or not finite, or groups that
            are not theirs.
    """

    def __init__(
        self,
        classifier,
        images,
        value_range=(0, 255),
        batch_size=32,
        from_logits=None,
        verbose=0,
    ):
        check_whole("batch_size", batch_size, 1)
        pictures = as_pictures(images)
        self.images, self.groups = pictures.images, pictures.groups
        self.value_range = as_value_range(value_range)
        self.batch_size = batch_size
        shape, few = self.images.shape[1:], self.images[:4]
        self.adapter = as_adapter(classifier, shape, from_logits, few)
        self.clean_logits = self._predict(None, verbose)
        self.clean = self.clean_logits.argmax(axis=-1)
        self.num_classes = self.clean_logits.shape[-1]
        self.warnings = []
        if not self.adapter.is_function:
            others = self.images[::-1]  # In other batches.
            again = self.adapter.labels(others, None, batch_size, verbose)
            share = float(np.mean(again[::-1] != self.clean))
            warning = (
                f"The classifier is random: {percent(share)} of the images have"
                " another label when shown again, which rates count as fooled."
            )
            warnings.warn(warning, stacklevel=4)
            self.warnings.append(warning)

    def logits(self, perturbation, verbose=0):
        """Logits `(n, num_classes)` of the images with a perturbation."""
        v = read_perturbation(perturbation, self.value_range)
        same_shape(self.images.shape[1:], v.shape)
        return self._predict(
            lambda x: apply_perturbation(x, v, self.value_range), verbose
        )

    def _predict(self, transform, verbose):
        return self.adapter.predict(
            self.images, transform, self.batch_size, verbose
        )

    def labels(self, perturbation, verbose=0):
        """Integer labels `(n,)` of the images with a perturbation."""
        return self.logits(perturbation, verbose).argmax(axis=-1)

    def fooled(self, perturbation, verbose=0):
        """Boolean array `(n,)`, whose label differs from the clean one."""
        return self.labels(perturbation, verbose) != self.clean

    def rate(self, perturbation, verbose=0):
        """The fooling rate and its interval, which counts photographs."""
        fooled = self.fooled(perturbation, verbose)
        return float(fooled.mean()), rate_interval(fooled, self.groups)

    @property
    def counts(self):
        """The numbers of images and photographs, as fields of a result."""
        return {"num_images": len(self.images), "num_groups": self.num_groups}

    @property
    def num_groups(self):
        """The number of photographs behind the images."""
        if self.groups is None:
            return len(self.images)
        return len(set(self.groups.tolist()))
