"""Geometry: do the decision boundaries near many images lean the same way?

Section 4 of the paper. DeepFool's perturbation of an image points straight to
the nearest decision boundary; divided by its length it is the boundary's unit
normal. If the normals at many images were unrelated, their matrix would have
the flat singular values of random unit vectors. They fall much faster (Fig.
9): a low-dimensional subspace holds most of them, and a random vector *of that
subspace* fools far more often than a random vector of the whole space.

A normal of a 224x224 photograph has 150,528 entries. The singular values of n
normals come from their n x n Gram matrix, which is exact and small; of its
eigenvectors the right singular vectors are made one block at a time.

Reference:
    - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401), Fig. 9
"""

import dataclasses

import numpy as np
import scipy.linalg
import tensorflow as tf

from keras_uap import visualization
from keras_uap.attacks.deepfool import deepfool
from keras_uap.attacks.losses import ClippedCrossentropy
from keras_uap.classifiers.logits import check_gradient
from keras_uap.data.pictures import as_array, as_pictures
from keras_uap.evaluation.intervals import difference_interval, rate_interval
from keras_uap.evaluation.labelled_images import LabelledImages
from keras_uap.perturbations.lp_ball import LpBall
from keras_uap.perturbations.pixels import apply_perturbation, same_shape
from keras_uap.reporting.result import LEFT_OUT, Result, in_columns
from keras_uap.utils.formatting import interval, percent, sample
from keras_uap.utils.progress import progress_bar
from keras_uap.utils.validation import as_images, as_wholes, check_whole

# Columns of a random matrix that are held at a time.
_BLOCK = 8192

# How far beyond a boundary DeepFool steps, as a share of the distance.
_OVERSHOOT = 0.02


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class BoundaryNormals(Result):
    """What `boundary_normals` found.

    Attributes:
        distances: Array `(n,)`, l2 distance of each image to the boundary, in
            pixel units.
        indices: Integer array `(n,)`, which of the images these are: those
            that DeepFool brought over a boundary.
        num_images: Integer, images tried.
        normals: Float32 array `(n, H, W, C)` of unit vectors.
    """

    distances: np.ndarray
    indices: np.ndarray
    num_images: int
    normals: np.ndarray = dataclasses.field(repr=False, metadata=LEFT_OUT)

    def rows(self, class_names=None):
        """A title, the names of the columns and a row for each quantity."""
        quartiles = np.percentile(self.distances, (0, 25, 50, 75, 100))
        least, low, median, high, most = map("{:.4g}".format, quartiles)
        rows = [
            ("images", f"{self.num_images}"),
            ("of them brought over a boundary", f"{len(self.indices)}"),
            ("distance, least", least),
            ("distance, a quarter below", low),
            ("distance, median", median),
            ("distance, a quarter above", high),
            ("distance, most", most),
        ]
        title = "Distances to the decision boundary, l2, pixel units"
        return title, ("", "value"), rows

    def plot(self):
        """Draws distances and a few normals; returns the figure."""
        return visualization.plot_normals(self)


def boundary_normals(
    classifier,
    images,
    num_candidates=5,
    max_steps=50,
    batch_size=32,
    from_logits=None,
    verbose="auto",
):
    """Finds the unit normals of the decision boundary nearest to images.

    Args:
        classifier: Keras model that maps images to class scores.
        images: Images `(n, H, W, C)` in the classifier's own pixel range.
        num_candidates, max_steps, batch_size, from_logits, verbose: See
            `keras_uap.deepfool`.

    Returns:
        A `BoundaryNormals`.

    Raises:
        TypeError: if `classifier` is not a Keras model.
        ValueError: if DeepFool brings no image over a boundary.
    """
    steps = num_candidates, _OVERSHOOT, max_steps
    options = batch_size, from_logits, verbose
    found = deepfool(classifier, images, *steps, *options)
    flat = found.perturbations.reshape(len(found.labels), -1)
    lengths = np.linalg.norm(flat, axis=1)
    usable = np.flatnonzero(found.converged & (lengths > 0))
    if len(usable) == 0:
        raise ValueError(
            "DeepFool brought none of the images over a decision boundary in "
            f"{max_steps} steps. Raise max_steps, or look at the classifier."
        )
    normals = (flat[usable] / lengths[usable, np.newaxis]).astype("float32")
    return BoundaryNormals(
        # DeepFool steps over the boundary by this share.
        distances=lengths[usable] / (1 + _OVERSHOOT),
        indices=usable,
        num_images=len(found.labels),
        normals=normals.reshape(-1, *found.perturbations.shape[1:]),
    )


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class NormalSpectrum(Result):
    """What `normal_spectrum` computed of n normals of D entries.

    Attributes:
        singular_values: Array `(n,)`, falling.
        random_singular_values: Array `(n,)`, of n random unit vectors.
        num_normals, dimension: Integers, n and D.
        directions: Float32 array `(r, H, W, C)`, the right singular vectors of
            the r values that are not zero: unit vectors, perpendicular.
    """

    singular_values: np.ndarray
    random_singular_values: np.ndarray
    num_normals: int
    dimension: int
    directions: np.ndarray = dataclasses.field(repr=False, metadata=LEFT_OUT)

    def share(self, dim):
        """The share of the normals' squared length in the first `dim`.

        Args:
            dim: Integer, how many of the singular vectors count.
        """
        return _share(self.singular_values, dim)

    def rows(self, class_names=None):
        """A title, the names of the columns and a row for some dimensions."""
        dims = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
        dims = [dim for dim in dims if dim < self.num_normals]
        dims.append(self.num_normals)
        random = [_share(self.random_singular_values, dim) for dim in dims]
        return in_columns(
            f"Squared length of n = {self.num_normals} unit normals in "
            f"{self.dimension:,} dimensions",
            ("singular vectors", "first {}".format, dims),
            ("normals", percent, map(self.share, dims)),
            ("random vectors", percent, random),
        )

    def plot(self):
        """Draws both spectra; returns the matplotlib figure."""
        return visualization.plot_spectrum(self)


def _share(values, dim):
    """The share of the sum of squares that the first `dim` values make."""
    squares = np.square(values)
    return float(squares[:dim].sum() / squares.sum())


def normal_spectrum(normals, seed=0):
    """Computes the singular values and vectors of a set of normals.

    Args:
        normals: Array `(n, H, W, C)` of unit vectors, or a
            `BoundaryNormals`.
        seed: Integer, the seed of the random unit vectors.

    Returns:
        A `NormalSpectrum`.

    Raises:
        ValueError: for fewer than two normals, or normals that are zero or not
            finite.

    Reference:
        - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401)
    """
    check_whole("seed", seed, 0)
    normals = getattr(normals, "normals", normals)
    normals = as_images(normals, "normals")
    if len(normals) < 2:
        raise ValueError(
            f"A spectrum needs at least two normals. Received: {len(normals)}."
        )
    matrix = normals.reshape(len(normals), -1).astype("float32", copy=False)
    count, dimension = matrix.shape
    starts = range(0, dimension, _BLOCK)
    blocks = [matrix[:, start : start + _BLOCK] for start in starts]
    gram = _gram(blocks)
    if not np.all(np.diag(gram) > 0):
        raise ValueError(
            "A normal of zeros has no direction. Received: zeros at index "
            f"{int(np.argmin(np.diag(gram)))}."
        )
    values, vectors = _eigen(gram)
    # An eigenvalue of the Gram matrix below this is rounding, not data.
    rank = int(np.sum(values > values[0] * len(values) * 1e-7))
    singular = np.sqrt(values)
    weights = (vectors[:, :rank] / singular[:rank]).T
    directions = weights.astype("float32") @ matrix
    rng = np.random.default_rng(seed)
    noise = _gram(rng.standard_normal(b.shape, "float32") for b in blocks)
    lengths = np.sqrt(np.diag(noise))
    random_values, _ = _eigen(noise / np.outer(lengths, lengths))
    return NormalSpectrum(
        singular_values=singular,
        random_singular_values=np.sqrt(random_values),
        num_normals=count,
        dimension=dimension,
        directions=directions.reshape(rank, *normals.shape[1:]),
    )


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SubspaceFooling(Result):
    """What `subspace_fooling` measured, for k dimensions.

    Attributes:
        dims: Tuple of k integers.
        fooling_rates: Array `(k,)`, of random vectors in the span of the first
            `dims` singular vectors.
        intervals: Array `(k, 2)`, 95% intervals of them.
        best_rates: Array `(k,)`, of the best of the vectors drawn.
        random_rate, random_interval: The same for random vectors of the whole
            space.
        difference_intervals: Array `(k, 2)`, 95% intervals of the rate in the
            span minus `random_rate`, paired by image.
        epsilon, norm: The norm of all of them, in pixel units.
        num_random: Integer, vectors drawn for each.
        num_images, num_groups: Integers, images and photographs.
    """

    dims: tuple
    fooling_rates: np.ndarray
    intervals: np.ndarray
    best_rates: np.ndarray
    random_rate: float
    random_interval: tuple
    difference_intervals: np.ndarray
    epsilon: float
    norm: str
    num_random: int
    num_images: int
    num_groups: int

    def rows(self, class_names=None):
        """A title, the names of the columns and a row for each dimension."""
        names = [f"span of the first {dim}" for dim in self.dims]
        more = [*map(interval, self.difference_intervals), "-"]
        return in_columns(
            f"Random vectors, {self.norm} norm {self.epsilon:g}, "
            f"{sample(self)}",
            ("vectors", str, [*names, "whole space"]),
            ("fooled", percent, [*self.fooling_rates, self.random_rate]),
            ("95%", interval, [*self.intervals, self.random_interval]),
            ("best", str, [*map(percent, self.best_rates), "-"]),
            ("more than random, 95%", str, more),
        )

    def plot(self):
        """Draws the rates against the dimension; returns the figure."""
        return visualization.plot_subspace(self)


def subspace_fooling(
    classifier,
    spectrum,
    images,
    dims=(100,),
    groups=None,
    epsilon=2000.0,
    norm="l2",
    num_random=5,
    value_range=(0, 255),
    seed=0,
    batch_size=32,
    from_logits=None,
    verbose="auto",
):
    """Measures random vectors of the subspace against random vectors.

    Args:
        classifier: Keras model that maps images to class scores.
        spectrum: A `NormalSpectrum`, of normals at other images.
        images: Images `(m, H, W, C)` to measure on.
        dims: Sequence of integers, at most the number of directions.
        groups: Array `(m,)`, the photograph of each image.
        epsilon: Float above 0, the norm of every vector, in pixel units. The
            paper's is 2000 (l2).
        norm: `"l2"` or `"linf"`. Vectors are scaled to it, not clipped, so
            that they stay in the subspace.
        num_random: Integer, vectors drawn for each dimension.
        value_range: Pair of floats, the pixel range, or `None`.
        seed: Integer.
        batch_size: Integer.
        from_logits: Boolean, whether the classifier returns logits; `None`
            finds out.
        verbose: `"auto"`, 0 or 1, whether to show progress.

    Returns:
        A `SubspaceFooling`.

    Raises:
        ValueError: for dimensions out of range.

    Reference:
        - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401)
    """
    dims = _check_dims("dims", dims, spectrum)
    ball = LpBall(epsilon, norm)
    check_whole("num_random", num_random, 1)
    check_whole("seed", seed, 0)
    images = as_pictures(images, "images", groups)
    options = value_range, batch_size, from_logits
    labelled = LabelledImages(classifier, images, *options)
    groups = labelled.groups
    rng = np.random.default_rng(seed)
    progress = progress_bar((len(dims) + 1) * num_random, verbose, "vector")

    def measure(dim=None):
        """How often each image is fooled, and the rate of the best vector."""
        hits = []
        for _ in range(num_random):
            if dim is None:
                v = ball.noise(spectrum.directions.shape[1:], rng)
            else:
                v = ball.scaled(_combine(spectrum, rng.standard_normal(dim)))
            hits.append(labelled.fooled(v))
            progress.add(1)
        return np.mean(hits, axis=0), np.mean(hits, axis=1).max()

    hits, best = zip(*map(measure, dims))
    random_hits, _ = measure()
    more = [difference_interval(each - random_hits, groups) for each in hits]
    return SubspaceFooling(
        dims=dims,
        fooling_rates=np.mean(hits, axis=1),
        intervals=np.array([rate_interval(each, groups) for each in hits]),
        best_rates=np.array(best),
        random_rate=float(random_hits.mean()),
        random_interval=rate_interval(random_hits, groups),
        difference_intervals=np.array(more),
        epsilon=ball.epsilon,
        norm=ball.norm,
        num_random=num_random,
        **labelled.counts,
    )


def subspace_perturbation(
    classifier,
    spectrum,
    images,
    dim=100,
    epsilon=2000.0,
    norm="l2",
    value_range=(0, 255),
    steps=60,
    learning_rate=0.2,
    seed=0,
    batch_size=16,
    from_logits=None,
    verbose="auto",
):
    """Finds a universal perturbation inside the subspace.

    It has `dim` free numbers, its coordinates, instead of one for each pixel
    value. They start at random and go up the gradient of the clipped
    cross-entropy, at a fixed norm.

    Args:
        classifier: Keras model that maps images to class scores.
        spectrum: A `NormalSpectrum`.
        images: Images `(n, H, W, C)` to fit on.
        dim: Integer, how many of the first singular vectors to use.
        epsilon: Float above 0, the norm of the result, in pixel units.
        norm: `"l2"` or `"linf"`, reached by scaling.
        value_range: Pair of floats, the pixel range, or `None`.
        steps: Integer, batches to take a step on.
        learning_rate: Float above 0, the length of the first step beside
            coordinates of length 1; it falls to zero in a line.
        seed: Integer; the order of the images follows from it.
        batch_size: Integer.
        from_logits: Boolean, whether the classifier returns logits; `None`
            finds out.
        verbose: `"auto"`, 0 or 1, whether to show progress.

    Returns:
        NumPy array `(H, W, C)` in the span of the first `dim` singular
        vectors.

    Raises:
        ValueError: for a dimension out of range.
    """
    (dim,) = _check_dims("dim", (dim,), spectrum)
    ball = LpBall(epsilon, norm)
    check_whole("steps", steps, 1)
    check_whole("batch_size", batch_size, 1)
    check_whole("seed", seed, 0)
    images = as_array(images)
    same_shape(images.shape[1:], spectrum.directions.shape[1:])
    labelled = LabelledImages(
        classifier, images, value_range, from_logits=from_logits
    )
    loss = ClippedCrossentropy()

    @tf.function(autograph=False)
    def pixel_gradient(batch, labels, v):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(v)
            x = apply_perturbation(batch, v, labelled.value_range)
            scores = labelled.adapter.logits(x)
            value = tf.reduce_mean(loss.call(labels, scores))
        return check_gradient(tape.gradient(value, v))

    rng = np.random.default_rng(seed)
    basis = spectrum.directions[:dim].reshape(dim, -1)
    coordinates = rng.standard_normal(dim)
    coordinates /= np.linalg.norm(coordinates)
    momentum = np.zeros(dim)
    epochs = range(-(-steps * batch_size // len(images)))
    order = np.concatenate([rng.permutation(len(images)) for _ in epochs])
    progress = progress_bar(steps, verbose, "batch")
    for step in range(steps):
        chosen = order[step * batch_size : (step + 1) * batch_size]
        v = ball.scaled(_combine(spectrum, coordinates))
        labels = labelled.clean[chosen]
        gradient = pixel_gradient(images[chosen], labels, v).numpy()
        slope = basis @ gradient.ravel()
        length = np.linalg.norm(slope)
        if np.isfinite(length) and length > 0:
            momentum = 0.8 * momentum - 0.2 * slope / length
            size = max(np.linalg.norm(momentum), 1e-12)
            pace = learning_rate * (1 - step / steps)
            coordinates = coordinates + pace * momentum / size
            coordinates /= np.linalg.norm(coordinates)
        progress.update(step + 1)
    return ball.scaled(_combine(spectrum, coordinates))


def _combine(spectrum, coordinates):
    """The vector of the subspace with these coordinates."""
    count = len(coordinates)
    basis = spectrum.directions[:count].reshape(count, -1)
    vector = coordinates.astype("float32") @ basis
    return vector.reshape(spectrum.directions.shape[1:])


def _check_dims(name, dims, spectrum):
    if not isinstance(spectrum, NormalSpectrum):
        raise TypeError(
            "spectrum must be a NormalSpectrum, as normal_spectrum gives. "
            f"Received: spectrum={spectrum!r}."
        )
    # More normals give more directions.
    return as_wholes(name, dims, 1, len(spectrum.directions))


def _gram(blocks):
    """The inner products of rows, summed in float64 over blocks of columns."""
    exact = (block.astype("float64") for block in blocks)
    return sum(block @ block.T for block in exact)


def _eigen(gram):
    """Eigenvalues, falling and not below zero, and eigenvectors."""
    values, vectors = scipy.linalg.eigh(gram)
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]
