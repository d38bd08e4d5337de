"""Labels of images, and the noise to compare a perturbation with."""

import numpy as np

from keras_uap.checks import as_images, check_whole
from keras_uap.logits import compile_logits, logits_function, predict_logits
from keras_uap.lp_ball import lp_norm
from keras_uap.pixels import (
    RESIZE_HINT,
    apply_perturbation,
    as_perturbation,
    as_value_range,
)


def check_groups(groups, images):
    """Returns groups as an array, or None.

    Raises:
        ValueError: if there is not one group per image, or only one group.
    """
    if groups is None:
        return None
    groups = np.asarray(groups)
    if groups.shape != (len(images),):
        raise ValueError(
            "There must be one group per image. Received: "
            f"{len(images)} images and groups of shape {groups.shape}."
        )
    if len(np.unique(groups)) < 2:
        raise ValueError(
            "groups must name at least two photographs: an interval cannot be "
            "had from one. Received: one group."
        )
    return groups


class Labeller:
    """Labels of images without and with a perturbation, clean ones kept.

    Args:
        classifier: Keras model that maps images to class scores.
        images: Array `(n, H, W, C)`.
        value_range: Pair of floats, the pixel range, or `None`.
        batch_size: Integer.
        from_logits: Boolean, whether the classifier returns logits; `None`
            finds out.
        verbose: `"auto"`, 0 or 1, whether to show progress.

    Raises:
        TypeError: if `classifier` is not a Keras model.
        ValueError: for images that are empty or not finite.
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
        self.images = as_images(images)
        self.value_range = as_value_range(value_range)
        self.batch_size = batch_size
        function = logits_function(
            classifier, from_logits, self.images[:4].astype("float32")
        )
        self._logits = compile_logits(function, self.images.shape[1:])
        self.clean = self._predict(None, verbose, "clean image")

    def labels(self, perturbation, verbose=0, unit="perturbed image"):
        """Integer labels `(n,)` of the perturbed images."""
        v = as_perturbation(perturbation)
        if v.shape != self.images.shape[1:]:
            raise ValueError(
                "The perturbation does not have the images' shape. Received: "
                f"{v.shape}. Expected: {self.images.shape[1:]}. {RESIZE_HINT}"
            )
        return self._predict(
            lambda x: apply_perturbation(x, v, self.value_range), verbose, unit
        )

    def fooled(self, perturbation, verbose=0, unit="perturbed image"):
        """Boolean array `(n,)`, whose label differs from the clean one."""
        return self.labels(perturbation, verbose, unit) != self.clean

    def _predict(self, transform, verbose, unit):
        scores = predict_logits(
            self._logits, self.images, transform, self.batch_size, verbose, unit
        )
        self.num_classes = scores.shape[-1]
        return scores.argmax(axis=-1)


def random_noise(shape, size, norm, rng):
    """Returns random noise of a norm, float32.

    Args:
        shape: Tuple of integers.
        size: Float, the norm of the noise.
        norm: `"linf"` for random signs, `"l2"` for Gaussian noise.
        rng: `numpy.random.Generator`.
    """
    noise = rng.standard_normal(shape)
    if norm == "linf":
        return (size * np.sign(noise)).astype("float32")
    return (size * noise / np.linalg.norm(noise)).astype("float32")


def scaled(perturbation, size, norm):
    """Returns the perturbation at another norm; zero stays zero."""
    length = lp_norm(perturbation, norm)
    if length == 0:
        return np.asarray(perturbation, "float32")
    # Just inside, so that rounding to float32 does not leave the ball.
    factor = size * (1 - 1e-6) / length
    return (np.asarray(perturbation, "float64") * factor).astype("float32")
