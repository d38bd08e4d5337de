"""Transfer: does a perturbation of one classifier fool another?

Table 2 of the paper. The perturbation of each row is added to the images of
each classifier, one a column. Classifiers differ in the size of their images
and in their pixel range. Images and perturbations come in one size and one
`value_range`. For a classifier with another size both are resized, bilinearly
(the perturbation by `resize_perturbation`, which keeps its norm within what it
was). For one with another range both are stretched to it. Then they are added
and clipped. Cells where something was resized are marked in table and plot.

Reference:
    - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401), Table 2
"""

import collections.abc
import dataclasses
import itertools

import numpy as np

from keras_uap import visualization
from keras_uap.classifiers.adapter import stated_shape
from keras_uap.data.pictures import as_pictures
from keras_uap.evaluation.labelled_images import LabelledImages
from keras_uap.evaluation.measurement import random_noise
from keras_uap.perturbations.interchange import read_perturbation
from keras_uap.perturbations.lp_ball import as_norm, lp_norm
from keras_uap.perturbations.pixels import as_value_range
from keras_uap.perturbations.resizing import resize_images, resize_perturbation
from keras_uap.reporting.result import Result, in_columns
from keras_uap.utils.formatting import interval, percent, sample
from keras_uap.utils.validation import check_whole, invalid


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TransferMatrix(Result):
    """What `transfer_matrix` measured, for p perturbations and c classifiers.

    Attributes:
        perturbations, classifiers: Tuples of names, rows and columns.
        fooling_rates: Array `(p, c)`.
        intervals: Array `(p, c, 2)`, 95% intervals.
        random_rates: Array `(p, c)`, for random noise of the same norm.
        resized: Boolean array `(p, c)`, whether images or perturbation had to
            be resized.
        norm, epsilons: The norm, and each perturbation's own value of it, in
            pixel units of `value_range`.
        num_images, num_groups: Integers, images and photographs.
    """

    perturbations: tuple
    classifiers: tuple
    fooling_rates: np.ndarray
    intervals: np.ndarray
    random_rates: np.ndarray
    resized: np.ndarray
    norm: str
    epsilons: np.ndarray
    num_images: int
    num_groups: int

    def rows(self, class_names=None):
        """A title, the names of the columns and a row for each pair."""
        pairs = itertools.product(self.perturbations, self.classifiers)
        found_on, measured_on = zip(*pairs)
        size = f"{self.norm} norm {self.epsilons.max():.4g}"
        return in_columns(
            f"Transfer, {size}, {sample(self)}",
            ("found on", str, found_on),
            ("measured on", str, measured_on),
            ("fooled", percent, self.fooling_rates.ravel()),
            ("95%", interval, self.intervals.reshape(-1, 2)),
            ("noise", percent, self.random_rates.ravel()),
            ("resized", {True: "yes", False: "no"}.get, self.resized.ravel()),
        )

    def plot(self):
        """Draws the matrix as a heat map; returns the matplotlib figure."""
        return visualization.plot_transfer(self)


def transfer_matrix(
    classifiers,
    perturbations,
    images,
    groups=None,
    norm="linf",
    value_range=(0, 255),
    value_ranges=None,
    seed=0,
    batch_size=32,
    from_logits=None,
    verbose="auto",
):
    """Measures every perturbation on every classifier.

    Args:
        classifiers: Dictionary from names to Keras models, or a sequence of
            models, named by themselves.
        perturbations: Dictionary from names to arrays `(H, W, C)`, or a
            sequence of arrays, named as the classifiers if they are as many.
        images: Images `(n, H, W, C)`, images that no perturbation was fitted
            on.
        groups: Array `(n,)`, the photograph that each image was cut from.
        norm: `"linf"` or `"l2"`, in which random noise equals a perturbation.
        value_range: Pair of floats, the pixel range of the images and the
            perturbations.
        value_ranges: Dictionary from names of classifiers to their own pixel
            range, for those that take another one than `value_range`.
        seed: Integer, the seed of the noise.
        batch_size: Integer.
        from_logits: Boolean, whether the classifiers return logits; `None`
            finds out.
        verbose: `"auto"`, 0 or 1, whether to show progress.

    Returns:
        A `TransferMatrix`.

    Raises:
        TypeError: if a classifier is not a Keras model.
        ValueError: for empty arguments, other numbers of channels, signals of
            another length, names that are not classifiers, or `value_ranges`
            without a `value_range`.

    Reference:
        - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401)
    """
    classifiers = _named(classifiers, "classifiers")
    perturbations = _named(perturbations, "perturbations", list(classifiers))
    pictures = as_pictures(images, "images", groups)
    images = pictures.images
    norm = as_norm(norm)
    value_range = as_value_range(value_range)
    check_whole("seed", seed, 0)
    value_ranges = _as_ranges(value_ranges, value_range, classifiers)
    arrays = {}
    for name, perturbation in perturbations.items():
        arrays[name] = v = read_perturbation(perturbation, value_range)
        if v.ndim != images.ndim - 1 or v.shape[-1] != images.shape[-1]:
            raise ValueError(
                "A perturbation must have as many channels as the images. "
                f"Received: {name!r} of shape {v.shape}, images of shape "
                f"{images.shape}."
            )
    if images.ndim != 4:
        _check_one_length(arrays, classifiers, images.shape[1:])
    shape = (len(arrays), len(classifiers))
    rates, random_rates = np.zeros(shape), np.zeros(shape)
    intervals, resized = np.zeros((*shape, 2)), np.zeros(shape, bool)
    for column, (name, classifier) in enumerate(classifiers.items()):
        own = value_ranges.get(name, value_range)
        seen, scale = _as_seen_by(classifier, images, value_range, own)
        size = seen.shape[1:3]
        pictures = pictures._replace(images=seen)
        options = own, batch_size, from_logits, verbose
        labelled = LabelledImages(classifier, pictures, *options)
        random_rate = {}
        for row, v in enumerate(arrays.values()):
            at = row, column
            resized[at] = not v.shape[:2] == size == images.shape[1:3]
            if v.shape[:2] != size:
                v = resize_perturbation(v, size, norm=norm)
            v = scale * v
            rates[at], intervals[at] = labelled.rate(v, verbose)
            # The noise has the norm that the perturbation arrived with.
            epsilon = round(lp_norm(v, norm), 6)
            if epsilon not in random_rate:
                rng = np.random.default_rng(seed)
                noise = random_noise(v.shape, epsilon, norm, rng)
                random_rate[epsilon] = labelled.fooled(noise, verbose).mean()
            random_rates[at] = random_rate[epsilon]
    return TransferMatrix(
        perturbations=tuple(arrays),
        classifiers=tuple(classifiers),
        fooling_rates=rates,
        intervals=intervals,
        random_rates=random_rates,
        resized=resized,
        norm=norm,
        epsilons=np.array([lp_norm(v, norm) for v in arrays.values()]),
        **labelled.counts,
    )


def _as_ranges(value_ranges, value_range, classifiers):
    """Returns the pixel ranges of classifiers that have one of their own."""
    value_ranges = {} if value_ranges is None else value_ranges
    if not isinstance(value_ranges, collections.abc.Mapping):
        expected = "a dictionary from names of classifiers"
        raise invalid("value_ranges", expected, value_ranges, error=TypeError)
    unknown = sorted(set(value_ranges) - set(classifiers))
    if unknown:
        raise ValueError(
            "value_ranges must be keyed by names of classifiers. Received: "
            f"{unknown}. Expected: among {list(classifiers)}."
        )
    value_ranges = {
        name: as_value_range(each) for name, each in value_ranges.items()
    }
    if value_range is None and any(value_ranges.values()):
        raise ValueError(
            "value_ranges needs the value_range of the images. Received: "
            f"value_range=None, {value_ranges=}. Pass value_range=(low, high)."
        )
    return value_ranges


def _check_one_length(arrays, classifiers, shape):
    """Raises ValueError where something other than images had to be resized."""
    stated = {name: stated_shape(each) for name, each in classifiers.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    for name, found in (*shapes.items(), *stated.items()):
        if found not in (None, shape):
            raise ValueError(
                "Signals, perturbations and classifiers must be of one shape: "
                "only images can be resized. Received: "
                f"{name!r} of shape {found}, signals of shape {shape}."
            )


def _as_seen_by(classifier, images, value_range, own):
    """Brings images to the size and the pixel range of a classifier.

    Returns:
        The images, and what a perturbation is to be multiplied by.
    """
    stated = stated_shape(classifier)
    is_image = stated is not None and len(stated) == 3
    size = stated[:2] if is_image else images.shape[1:3]
    if images.shape[1:3] != size:
        images = resize_images(images, size)
    if own in (None, value_range):
        return images, 1.0
    (low, high), (own_low, own_high) = value_range, own
    scale = (own_high - own_low) / (high - low)
    shift = own_low - scale * low
    return scale * np.asarray(images, "float32") + shift, scale


def _named(items, what, names=None):
    """Returns a dictionary from names to items."""
    if isinstance(items, (list, tuple)):
        if names is None or len(names) != len(items):
            names = [
                getattr(item, "name", None) or f"{what} {i}"
                for i, item in enumerate(items)
            ]
        if len(set(names)) < len(names):
            raise ValueError(
                f"{what} must have different names. Received: {names}. Pass a "
                "dictionary from names of your choice."
            )
        items = dict(zip(names, items))
    if not isinstance(items, collections.abc.Mapping):
        raise TypeError(
            f"{what} must be a dictionary or a list. Received: {items!r}."
        )
    if not items:
        raise ValueError(f"{what} must hold at least one. Received: none.")
    return items
