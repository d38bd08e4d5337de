"""Diversity: how alike are the perturbations of one classifier?

Fig. 5 of the paper. The images in another order give another perturbation, and
their normalised inner products measure the difference: 1 for the same
direction, 0 for perpendicular ones. In 150,000 dimensions two random directions
have a product of about 0.003, so 0.1 is a weak resemblance.

Reference:
    - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401), Fig. 5
"""

import dataclasses

import numpy as np

from keras_uap import visualization
from keras_uap.analysis.fitting import default_fit
from keras_uap.data.pictures import as_array
from keras_uap.evaluation.labelled_images import LabelledImages
from keras_uap.evaluation.measurement import read_parts
from keras_uap.perturbations.interchange import read_perturbation
from keras_uap.reporting.result import LEFT_OUT, Result, in_columns
from keras_uap.utils.formatting import percent
from keras_uap.utils.progress import progress_bar
from keras_uap.utils.validation import check_whole, invalid


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Diversity(Result):
    """What `perturbation_diversity` measured, for k perturbations.

    Attributes:
        inner_products: Array `(k, k)`, normalised, 1 on the diagonal.
        fooling_rates: Array `(k,)`, on the held-out images, or `None`.
        seeds: Tuple of integers.
        num_images: Integer, held-out images, or 0.
        perturbations: Array `(k, H, W, C)`, in pixel units.
    """

    inner_products: np.ndarray
    fooling_rates: np.ndarray | None
    seeds: tuple
    num_images: int
    perturbations: np.ndarray = dataclasses.field(repr=False, metadata=LEFT_OUT)

    @property
    def largest(self):
        """The largest inner product of two different perturbations."""
        upper = np.triu_indices(len(self.inner_products), 1)
        return float(self.inner_products[upper].max())

    def rows(self, class_names=None):
        """A title, the names of the columns and a row for each seed."""
        title = "Perturbations of one classifier"
        fooled = ["-"] * len(self.seeds)
        if self.fooling_rates is not None:
            title += f", n = {self.num_images} held-out images"
            fooled = map(percent, self.fooling_rates)
        others = np.where(np.eye(len(self.seeds)), -np.inf, self.inner_products)
        largest = "largest inner product with another"
        return in_columns(
            title,
            ("seed", str, self.seeds),
            ("fooled", str, fooled),
            (largest, "{:.3f}".format, others.max(axis=1)),
        )

    def plot(self):
        """Draws perturbations and matrix; returns the matplotlib figure."""
        return visualization.plot_diversity(self)


def perturbation_diversity(
    classifier,
    images,
    held_out=None,
    count=5,
    fit=None,
    epsilon=10.0,
    norm="linf",
    value_range=(0, 255),
    draws=1024,
    seed=0,
    batch_size=32,
    from_logits=None,
    verbose="auto",
):
    """Finds several perturbations of one classifier and compares them.

    Args:
        classifier: Keras model that maps images to class scores.
        images: Images `(n, H, W, C)` to fit on, in another order each time.
        held_out: Images `(m, H, W, C)` to measure on, or `None`.
        count: Integer of at least 2, the number of perturbations.
        fit: Function `fit(images, epsilon, seed)` that returns a perturbation.
            `None` means `fit_perturbation` with the arguments below.
        epsilon, norm, value_range, draws, from_logits: See
            `fit_perturbation`.
        seed: Integer, the seed of the first; each next one is one higher.
        batch_size: Integer, for measuring.
        verbose: `"auto"`, 0 or 1, whether to show progress.

    Returns:
        A `Diversity`.

    Raises:
        ValueError: for a `count` below 2, or images that are not images.

    Reference:
        - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401)
    """
    check_whole("count", count, 2)
    check_whole("seed", seed, 0)
    images = as_array(images)
    fit = fit or default_fit(classifier, norm, value_range, draws, from_logits)
    labelled = None
    if held_out is not None:
        _, held_out = read_parts(images, held_out)
        options = value_range, batch_size, from_logits
        labelled = LabelledImages(classifier, held_out, *options)
    progress = progress_bar(count, verbose, "perturbation")
    seeds = tuple(range(seed, seed + count))
    perturbations, rates = [], []
    for each in seeds:
        perturbations.append(fit(images, epsilon, each))
        if labelled is not None:
            rates.append(labelled.fooled(perturbations[-1]).mean())
        progress.add(1)
    return Diversity(
        inner_products=inner_products(perturbations),
        fooling_rates=np.array(rates) if rates else None,
        seeds=seeds,
        num_images=0 if held_out is None else len(held_out.images),
        perturbations=np.stack(perturbations),
    )


def inner_products(perturbations):
    """Returns the normalised inner products of perturbations.

    Args:
        perturbations: Sequence of k arrays of one shape, none of them zero,
            or anything else that a perturbation is read from.

    Returns:
        Float64 array `(k, k)` in [-1, 1].

    Raises:
        ValueError: if one is zero, or they differ in shape.
    """
    if not isinstance(perturbations, (list, tuple, np.ndarray)):
        expected = "a sequence of arrays"
        raise invalid("perturbations", expected, perturbations, error=TypeError)
    arrays = [read_perturbation(v) for v in perturbations]
    shapes = sorted({v.shape for v in arrays})
    if len(shapes) != 1:
        raise ValueError(
            f"Perturbations must have one shape. Received: shapes {shapes}."
        )
    flat = np.stack(arrays).reshape(len(arrays), -1).astype("float64")
    lengths = np.linalg.norm(flat, axis=1)
    if not lengths.all():
        raise ValueError(
            "A perturbation of zeros has no direction. Received: zeros at "
            f"index {int(np.argmin(lengths))}."
        )
    flat /= lengths[:, np.newaxis]
    return np.clip(flat @ flat.T, -1.0, 1.0)
