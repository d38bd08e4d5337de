"""The inputs that measurements of perturbations share, read and checked."""

import numpy as np

from keras_uap.data.pictures import as_array, as_pictures
from keras_uap.evaluation.intervals import rate_interval
from keras_uap.evaluation.labelled_images import LabelledImages
from keras_uap.perturbations.interchange import read_perturbation
from keras_uap.perturbations.lp_ball import LpBall, as_norm, lp_norm
from keras_uap.perturbations.pixels import as_value_range, same_shape
from keras_uap.utils.validation import check_whole


class Measurement:
    """One perturbation, the images to measure it on, and noise of its norm.

    Args:
        perturbation: Array `(H, W, C)`, or what else stands for one.
        images: Images `(n, H, W, C)`, as for `as_pictures`.
        groups: Array `(n,)`, the photograph of each image, or `None`.
        norm: `"linf"` or `"l2"`.
        value_range: Pair of floats, the pixel range, or `None`.
        seed: Integer, the seed of the noise.

    Raises:
        TypeError, ValueError: for inputs that are none, or do not fit.
    """

    def __init__(self, perturbation, images, groups, norm, value_range, seed):
        self.v = read_perturbation(perturbation, value_range)
        self.norm = as_norm(norm)
        self.value_range = as_value_range(value_range)
        check_whole("seed", seed, 0)
        self.pictures = as_pictures(images, "images", groups)
        self.images, self.groups = self.pictures.images, self.pictures.groups
        same_shape(self.images.shape[1:], self.v.shape)
        self.epsilon = lp_norm(self.v, self.norm)
        self._rng = np.random.default_rng(seed)

    def noise(self):
        """Draws random noise of the perturbation's norm."""
        return random_noise(self.v.shape, self.epsilon, self.norm, self._rng)

    def rates(self, clean, perturbed, noisy):
        """The fooling rates of v and of noise, and the norm of both.

        Args:
            clean, perturbed, noisy: Integer arrays `(n,)`, the predictions.

        Returns:
            Dictionary, fields of a result.
        """
        fooled, moved = perturbed != clean, noisy != clean
        return {
            "fooling_rate": float(fooled.mean()),
            "random_rate": float(moved.mean()),
            "fooling_interval": rate_interval(fooled, self.groups),
            "random_interval": rate_interval(moved, self.groups),
            "epsilon": self.epsilon,
            "norm": self.norm,
        }

    def labelled(self, classifier, batch_size, from_logits, verbose=0):
        """The images with the clean predictions of a classifier."""
        options = self.value_range, batch_size, from_logits, verbose
        return LabelledImages(classifier, self.pictures, *options)


def read_parts(images, held_out, groups=None):
    """Reads images to fit on and images to measure on, of one shape.

    Returns:
        Array `(n, H, W, C)`, and the held-out `Pictures`.

    Raises:
        TypeError, ValueError: if they are not images, or differ in shape.
    """
    images = as_array(images)
    held_out = as_pictures(held_out, "held_out", groups)
    check_alike(images, held_out.images)
    return images, held_out


def check_alike(images, held_out):
    """Checks that images to fit on and images to measure on have one shape.

    Raises:
        ValueError: if they do not.
    """
    if images.shape[1:] != held_out.shape[1:]:
        raise ValueError(
            "The held-out images do not have the shape of those to fit on. "
            f"Received: {held_out.shape[1:]}. Expected: {images.shape[1:]}."
        )


def stacked(rows):
    """Puts what several measurements gave into the fields of a result.

    Args:
        rows: List of dictionaries from names of fields to values, one for
            each measurement.

    Returns:
        Dictionary from the names to arrays, and to tuples of strings.
    """
    fields = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        name: tuple(values) if isinstance(values[0], str) else np.array(values)
        for name, values in fields.items()
    }


def random_noise(shape, size, norm, rng):
    """Returns `LpBall(size, norm).noise(shape, rng)`, zeros for a size of 0."""
    if size == 0:
        return np.zeros(shape, "float32")
    return LpBall(size, norm).noise(shape, rng)


def at_norm(perturbation, size, norm):
    """Scales a perturbation to a norm, which may be 0."""
    return LpBall(size, norm).scaled(perturbation) if size else 0 * perturbation
