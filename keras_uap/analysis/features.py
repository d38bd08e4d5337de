"""Feature collapse: does a perturbation make all images alike to the head?

The head of a classifier, its last dense layer, sees the features of an image.
If a universal perturbation decides the prediction, the features of different
images come to lie close together, or point the same way. Two numbers of pairs
of images are measured: the distance of their features (root mean square), and
the cosine of the angle between them (mean). They are given for clean images,
for perturbed ones and for those with random noise of the same norm.

There are three kinds of pairs. Crops of one photograph are alike from the
start. Pairs of two photographs are of one class or of two. The classes are the
*clean* predictions, also for the perturbed images, so that the same pairs are
compared.

Intervals are jackknife intervals over photographs, or over images where the
photographs are not known: the measurement is repeated without each photograph,
and the spread of the results gives the variance. All pairs of a photograph are
left out together.

Reference:
    - [Ye, Cheng and Huang, 2022](https://arxiv.org/abs/2209.13113), on
      features that universal perturbations make
    - Arvesen, 1969, Annals of Mathematical Statistics 40 (the jackknife for
      means over pairs)
"""

import dataclasses

import numpy as np
from scipy import stats

from keras_uap import visualization
from keras_uap.attacks.losses import Features
from keras_uap.classifiers.adapter import as_adapter
from keras_uap.classifiers.logits import predict_logits
from keras_uap.evaluation.measurement import Measurement, stacked
from keras_uap.perturbations.pixels import apply_perturbation
from keras_uap.reporting.result import Result
from keras_uap.utils.formatting import percent, sample
from keras_uap.utils.validation import check_whole


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FeatureCollapse(Result):
    """What `feature_collapse` measured, on p kinds of pairs of n images.

    Attributes:
        names: Tuple of three strings: clean images, perturbed ones, and those
            with random noise of the same norm. The arrays are in this order.
        pairs: Tuple of p strings, of "one photograph", "one class", "two
            classes" and "all". Kinds of which there are too few pairs for an
            interval are left out.
        num_pairs: Integer array `(p,)`.
        distances: Array `(3, p)`, the root mean square distance of the two
            images' features, in the units of the features.
        relative_distances: Array `(3, p)`, the same as a share of that of the
            clean images: 1 for those.
        relative_intervals: Array `(3, p, 2)`, 95% intervals of it.
        cosines: Array `(3, p)`, the mean cosine of the two images' features.
        cosine_intervals: Array `(3, p, 2)`, 95% intervals of it.
        own_cosines: Array `(3,)`, the mean cosine of an image's features with
            its own clean ones: 1 for the clean.
        fooling_rate, random_rate: Floats, of the perturbation and the noise.
        fooling_interval, random_interval: 95% intervals of these.
        num_features, num_classes: Integers, features of an image, and classes
            that the clean images are given.
        epsilon, norm: The norm of the perturbation, in pixel units.
        num_images, num_groups: Integers, images and photographs.
    """

    names: tuple
    pairs: tuple
    num_pairs: np.ndarray
    distances: np.ndarray
    relative_distances: np.ndarray
    relative_intervals: np.ndarray
    cosines: np.ndarray
    cosine_intervals: np.ndarray
    own_cosines: np.ndarray
    fooling_rate: float
    random_rate: float
    fooling_interval: tuple
    random_interval: tuple
    num_features: int
    num_classes: int
    epsilon: float
    norm: str
    num_images: int
    num_groups: int

    def rows(self, class_names=None):
        """A title, the names of the columns and a row for each kind."""
        rows = [
            (
                f"{pair}, {name.removeprefix('random ')}",
                f"{self.num_pairs[j]}",
                percent(self.relative_distances[i, j]),
                "{:.0%} to {:.0%}".format(*self.relative_intervals[i, j]),
                f"{self.cosines[i, j]:.2f}",
                "{:.2f} to {:.2f}".format(*self.cosine_intervals[i, j]),
            )
            for j, pair in enumerate(self.pairs)
            for i, name in enumerate(self.names)
        ]
        measured = f"{sample(self)} of {self.num_classes} classes"
        header = "pairs of images", "pairs", "distance", "95%", "cosine", "95%"
        return f"Features before the head, {measured}", header, rows

    def plot(self):
        """Draws distances and cosines of pairs; returns the figure."""
        return visualization.plot_features(self)


def feature_collapse(
    classifier,
    perturbation,
    images,
    groups=None,
    layer=None,
    norm="linf",
    value_range=(0, 255),
    seed=0,
    batch_size=32,
    from_logits=None,
    verbose="auto",
):
    """Measures how far apart the head's inputs are, without and with v.

    Args:
        classifier: Functional or Sequential Keras model that maps images to
            class scores.
        perturbation: Array `(H, W, C)`, in the pixel units of `value_range`.
        images: Images `(n, H, W, C)`, not those that the perturbation was
            fitted on; of at least three photographs.
        groups: Array `(n,)`, the photograph of each image.
        layer: String, the layer whose output is looked at. `None` takes the
            inputs of the head, the last dense layer. A classifier that ends
            otherwise, as in a convolution and a pooling, needs a name here.
        norm: `"linf"` or `"l2"`, the norm in which random noise is to equal
            the perturbation.
        value_range: Pair of floats, the pixel range, or `None`.
        seed: Integer, the seed of the noise.
        batch_size: Integer.
        from_logits: Boolean, whether the classifier returns logits; `None`
            finds out.
        verbose: `"auto"`, 0 or 1, whether to show progress.

    Returns:
        A `FeatureCollapse`.

    Raises:
        TypeError: if `classifier` is not a Keras model.
        ValueError: if its layers cannot be seen, it has no dense layer at its
            end and none is named, there is no such layer, there are fewer
            than three photographs, or the features of the clean images do not
            differ.

    Reference:
        - [Ye, Cheng and Huang, 2022](https://arxiv.org/abs/2209.13113)
    """
    given = Measurement(perturbation, images, groups, norm, value_range, seed)
    images, v = given.images, given.v
    check_whole("batch_size", batch_size, 1)
    Features(layer)  # Raises an error if it is no name.
    groups = np.arange(len(images)) if given.groups is None else given.groups
    _, groups = np.unique(groups, return_inverse=True)
    num_groups = int(groups.max()) + 1
    if num_groups < 3:
        raise ValueError(
            "images must be of at least three photographs, to compare pairs. "
            f"Received: {len(images)} images of {num_groups}."
        )
    few = images[:4].astype("float32")
    adapter = as_adapter(classifier, images.shape[1:], from_logits, few)
    features, labels = [], []
    for added in (0 * v, v, given.noise()):
        found, logits = predict_logits(
            adapter.compiled_features(layer),
            images,
            lambda x, v=added: apply_perturbation(x, v, given.value_range),
            batch_size,
            verbose,
        )
        features.append(found.astype("float64"))
        labels.append(logits.argmax(-1))
    # Rows of length 1; one of zeros points nowhere, and stays.
    units = [
        each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-300)
        for each in features
    ]
    return FeatureCollapse(
        names=("clean", "perturbed", "random noise"),
        **_pairs(features, units, labels[0], groups),
        own_cosines=np.array([(units[0] * u).sum(-1).mean() for u in units]),
        **given.rates(*labels),
        num_features=features[0].shape[1],
        num_classes=len(np.unique(labels[0])),
        num_images=len(images),
        num_groups=num_groups,
    )


def _pairs(features, units, labels, groups):
    """The fields of a result about pairs."""
    squares = [_square_distances(each) for each in features]
    products = [each @ each.T for each in units]
    dropped = _dropped(groups)
    pairs = ~np.eye(len(labels), dtype=bool)
    photograph = groups[:, np.newaxis] == groups
    same = labels[:, np.newaxis] == labels
    rows = []
    for kind, chosen in (
        ("one photograph", pairs & photograph),
        ("one class", ~photograph & same),
        ("two classes", ~photograph & ~same),
        ("all", pairs),
    ):
        # Of all pairs, and of those without each photograph.
        counts = dropped(chosen.astype("float64"))
        if not np.all(counts > 0):
            continue
        means = [dropped(np.where(chosen, s, 0)) / counts for s in squares]
        cosines = [dropped(np.where(chosen, p, 0)) / counts for p in products]
        if not np.all(means[0] > 0):
            continue
        distances = np.sqrt(means)
        relative = distances / distances[0]
        rows.append(
            {
                "pairs": kind,
                "num_pairs": round(counts[0] / 2),
                "distances": distances[:, 0],
                "relative_distances": relative[:, 0],
                "relative_intervals": [
                    _jackknife(each, 0, np.inf) for each in relative
                ],
                "cosines": [each[0] for each in cosines],
                "cosine_intervals": [_jackknife(c, -1.0, 1.0) for c in cosines],
            }
        )
    if not rows or rows[-1]["pairs"] != "all":
        raise ValueError(
            "The features of the clean images do not differ: nothing is left "
            f"to collapse. Received: {len(labels)} images. Pass other images."
        )
    # The kind of image is the first axis, before that of the kind of pair.
    return {
        name: each if np.ndim(each) == 1 else np.swapaxes(each, 0, 1)
        for name, each in stacked(rows).items()
    }


def _square_distances(features):
    # From the mean: less is lost where all are far from zero.
    centred = features - features.mean(axis=0)
    squares = np.square(centred).sum(axis=1)
    products = centred @ centred.T
    return np.maximum(0, squares[:, np.newaxis] + squares - 2 * products)


def _dropped(groups):
    """Returns the function that sums an array `(n, n)` without each group.

    It gives an array: the sum of all, and then those without the rows and
    columns of each group.
    """
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))

    def sums(values):
        rows = np.add.reduceat(values[order], starts)
        blocks = np.add.reduceat(rows[:, order], starts, axis=1)
        own = 2 * blocks.sum(axis=1) - np.diag(blocks)
        return np.concatenate([[blocks.sum()], blocks.sum() - own])

    return sums


def _jackknife(values, least, most):
    """The 95% interval of the first value, from those without each group."""
    value, others = values[0], values[1:]
    count = len(others)
    variance = (count - 1) / count * np.square(others - others.mean()).sum()
    half = stats.t.ppf(0.975, count - 1) * np.sqrt(variance)
    return max(least, value - half), min(most, value + half)
