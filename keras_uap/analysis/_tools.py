"""What the measurements share: results, checks, labels, fits and random noise.

Every measurement returns a small frozen result. Its `to_dict` gives what JSON
can hold; arrays of pictures, which would make it hundreds of megabytes, are
left out, and stay under their field names.
"""

import dataclasses

import keras
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
from keras_uap.universal_perturbation import UniversalPerturbation

# Metadata of a dataclass field of pictures: left out of `to_dict`.
PICTURES = {"keras_uap_pictures": True}


class Result:
    """Base of the results: `to_dict` from the fields of the dataclass."""

    def to_dict(self):
        """The result as plain Python values, for JSON, without pictures."""
        return {
            field.name: _plain(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if not field.metadata
        }


def _plain(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value


def check_alike(images, held_out):
    """Checks that images to fit on and images to measure on have one shape.

    Raises:
        ValueError: if they do not.
    """
    if images.shape[1:] != held_out.shape[1:]:
        raise ValueError(
            "The held-out images do not have the shape of those to fit on. "
            f"Received: {held_out.shape}. Expected: (n, "
            f"{', '.join(map(str, images.shape[1:]))})."
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


def count_groups(groups, images):
    """The number of photographs behind the images."""
    return len(images) if groups is None else len(np.unique(groups))


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


def fit_perturbation(
    classifier,
    images,
    epsilon=10.0,
    norm="linf",
    value_range=(0, 255),
    target=None,
    seed=0,
    draws=1024,
    batch_size=16,
    optimizer=None,
    from_logits=None,
    verbose=0,
):
    """Finds a universal perturbation with a given amount of work.

    The measurements that need several perturbations find them with this. Few
    images are shown several times and of many only some are taken, so that
    perturbations from sets of different sizes cost the same.

    Args:
        classifier: Keras model that maps images to class scores.
        images: Array `(n, H, W, C)` to fit on.
        epsilon: Float above 0, the radius of the ball, in pixel units.
        norm: `"linf"` or `"l2"`.
        value_range: Pair of floats, the pixel range, or `None`.
        target: Integer, the class to send images to, or `None`.
        seed: Integer; the order of the images follows from it.
        draws: Integer, how many images are shown, rounded up to whole passes.
        batch_size: Integer.
        optimizer: What `UniversalPerturbation.compile` takes; `None` for sign
            steps that become smaller (`decaying_lion`).
        from_logits: Boolean, whether the classifier returns logits; `None`
            finds out.
        verbose: `"auto"`, 0, 1 or 2, as in Keras.

    Returns:
        NumPy array `(H, W, C)`, in pixel units.

    Raises:
        TypeError, ValueError: as `UniversalPerturbation` and its `fit`.
    """
    images = as_images(images)
    check_whole("seed", seed, 0)
    check_whole("draws", draws, 1)
    check_whole("batch_size", batch_size, 1)
    if len(images) > draws:
        rng = np.random.default_rng(seed)
        images = images[rng.permutation(len(images))[:draws]]
    uap = UniversalPerturbation(
        classifier,
        epsilon,
        norm,
        value_range=value_range,
        target=target,
        from_logits=from_logits,
    )
    if not uap.built:
        uap.build((None, *images.shape[1:]))
    # The order comes from this generator alone; the global state stays.
    uap.seed_generator.state.assign([seed, 0])
    epochs = -(-draws // len(images))
    if optimizer is None:
        optimizer = uap.decaying_lion(epochs * -(-len(images) // batch_size))
    uap.compile(optimizer)
    uap.fit(images, batch_size=batch_size, epochs=epochs, verbose=verbose)
    return uap.perturbation


def default_fit(classifier, norm, value_range, draws, from_logits):
    """Returns `fit(images, epsilon, seed)` made of `fit_perturbation`."""

    def fit(images, epsilon, seed):
        return fit_perturbation(
            classifier,
            images,
            epsilon=epsilon,
            norm=norm,
            value_range=value_range,
            seed=seed,
            draws=draws,
            from_logits=from_logits,
        )

    return fit


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


def progress_bar(total, verbose, unit):
    """A Keras progress bar; `verbose="auto"` shows it."""
    return keras.utils.Progbar(
        total, verbose=1 if verbose == "auto" else verbose, unit_name=unit
    )
