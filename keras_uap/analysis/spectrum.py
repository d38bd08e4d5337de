"""Spectrum: the frequencies of a perturbation, and which of them fool.

The Fourier transform is taken of each channel over height and width (of a
signal, over time). The radial frequency counts cycles per image: waves that fit
into the longer side. The share of power at each frequency is averaged over the
channels.

The frequencies are then cut into bands, which gives a low-passed, some
band-passed and a high-passed part that add up to the perturbation. Each part is
scaled to the norm of the whole, and its fooling rate is measured. The baseline
is random noise that passed the same filter and has the same norm: it measures
the weakness of the classifier in that band, and the difference measures the
pattern of the perturbation.

By default the norm is l2, which compares parts of equal power; their largest
values then exceed those of the whole. With `norm="linf"` every part stays
within the largest value of the whole, but has far less power: a filtered
perturbation reaches its bound at its peaks alone. The root mean square shows
this.

Reference:
    - [Yin et al., 2019](https://arxiv.org/abs/1906.08988), A Fourier
      perspective on model robustness in computer vision
    - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401)
"""

import dataclasses
import itertools

import numpy as np

from keras_uap import visualization
from keras_uap.evaluation.intervals import rate_interval
from keras_uap.evaluation.measurement import Measurement, stacked
from keras_uap.perturbations.interchange import read_perturbation
from keras_uap.perturbations.lp_ball import LpBall
from keras_uap.reporting.result import Result, in_columns
from keras_uap.utils.formatting import interval, percent, sample
from keras_uap.utils.progress import progress_bar
from keras_uap.utils.validation import as_sizes, check_whole

# A share of power that rounding leaves: scaled up, it would be a perturbation.
_NOTHING = 1e-12


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PerturbationSpectrum(Result):
    """What `perturbation_spectrum` measured, for f frequencies and b bands.

    Attributes:
        frequencies: Integer array `(f,)`, radial frequencies from 0, in cycles
            per image: waves along its longer side.
        power: Array `(f,)`, the share of the perturbation's power at each,
            rounded to whole cycles; they add up to 1.
        white_power: Array `(f,)`, the share that white noise has there: how
            many of the frequencies round to it.
        bands: Array `(b, 2)`, from which frequency on and up to which, in
            cycles per image. The first is all of them, unfiltered.
        shares: Array `(b,)`, the share of the perturbation's power in each.
        fooling_rates: Array `(b,)`, of the part in each band, at the norm
            `epsilon`. A part of no power stays zero and fools nothing.
        intervals: Array `(b, 2)`, 95% intervals.
        random_rates: Array `(b,)`, for random noise in the same band, at the
            same norm, mean of the draws.
        random_intervals: Array `(b, 2)`, 95% intervals.
        root_mean_squares: Array `(b,)`, of the values of each part at that
            norm, in pixel units.
        random_root_mean_squares: Array `(b,)`, the same of the noise.
        epsilon, norm: The norm of the perturbation and of every part, in pixel
            units.
        num_random: Integer, draws of noise for each band.
        num_images, num_groups: Integers, images and photographs.
    """

    frequencies: np.ndarray
    power: np.ndarray
    white_power: np.ndarray
    bands: np.ndarray
    shares: np.ndarray
    fooling_rates: np.ndarray
    intervals: np.ndarray
    random_rates: np.ndarray
    random_intervals: np.ndarray
    root_mean_squares: np.ndarray
    random_root_mean_squares: np.ndarray
    epsilon: float
    norm: str
    num_random: int
    num_images: int
    num_groups: int

    def names(self):
        """The bands in words, a tuple of b strings."""
        inner = [f"{low:g} to {high:g}" for low, high in self.bands[1:-1]]
        return ("all", *inner, f"{self.bands[-1, 0]:g} and more")

    def rows(self, class_names=None):
        """A title, the names of the columns and a row for each band."""
        size = f"{self.norm} norm {self.epsilon:.4g}"
        return in_columns(
            f"Parts of a perturbation, each of {size}, {sample(self)}",
            ("cycles per image", str, self.names()),
            ("power", percent, self.shares),
            ("rms", "{:.3g}".format, self.root_mean_squares),
            ("fooled", percent, self.fooling_rates),
            ("95% interval", interval, self.intervals),
            ("noise", percent, self.random_rates),
        )

    def plot(self):
        """Draws the power and the rates of the bands; returns the figure."""
        return visualization.plot_perturbation_spectrum(self)


def perturbation_spectrum(
    classifier,
    perturbation,
    images,
    edges=None,
    groups=None,
    norm="l2",
    value_range=(0, 255),
    num_random=3,
    seed=0,
    batch_size=32,
    from_logits=None,
    verbose="auto",
):
    """Measures what a perturbation is made of, and which part of it fools.

    Args:
        classifier: Keras model that maps images to class scores.
        perturbation: Array `(H, W, C)`, or `(T, C)` of signals, in the pixel
            units of `value_range`.
        images: Images `(n, H, W, C)` or signals `(n, T, C)` to measure on.
        edges: Sequence of rising floats above 0, where a band ends and the
            next one begins, in cycles per image. `None` means octaves: 1/32,
            1/16, 1/8 and 1/4 of the longer side, but for those below 1.
        groups: Array `(n,)`, the photograph of each image.
        norm: `"l2"` or `"linf"`, in which the parts and the noise equal the
            perturbation: of equal power, or with an equal largest value.
        value_range: Pair of floats, the pixel range, or `None`.
        num_random: Integer, draws of random noise for each band.
        seed: Integer, the seed of the noise.
        batch_size: Integer.
        from_logits: Boolean, whether the classifier returns logits; `None`
            finds out.
        verbose: `"auto"`, 0 or 1, whether to show progress.

    Returns:
        A `PerturbationSpectrum`.

    Raises:
        TypeError: if `classifier` is not a Keras model, or `edges` are no
            numbers.
        ValueError: for a perturbation that is zero or has no place for waves,
            images of another shape, or bands without a frequency.

    Reference:
        - [Yin et al., 2019](https://arxiv.org/abs/1906.08988)
    """
    v = read_perturbation(perturbation, value_range)
    check_whole("num_random", num_random, 1)
    if v.ndim < 2 or not v.any():
        raise ValueError(
            "perturbation must have shape (height, width, channels), or "
            "(time, channels) of a signal, and not be zero. Received: shape "
            f"{v.shape}, largest value {np.abs(v).max(initial=0):g}."
        )
    given = Measurement(v, images, groups, norm, value_range, seed)
    radii = _radii(v.shape)
    bands = _bands(edges, radii, max(v.shape[:-1]))
    labelled = given.labelled(classifier, batch_size, from_logits)
    ball = LpBall(given.epsilon, given.norm)
    power = _power(v)
    rng = np.random.default_rng(seed)
    progress = progress_bar(len(bands) * (1 + num_random), verbose, "part")

    def measure(part):
        fooled = labelled.fooled(part)
        progress.add(1)
        return fooled, np.sqrt(np.mean(np.square(part, dtype="float64")))

    rows = []
    for band in bands:
        inside = _inside(radii, band)
        share = power[inside].sum()
        part = _filtered(v, inside) if share > _NOTHING else 0 * v
        fooled, size = measure(ball.scaled(part))
        draws = [
            measure(ball.scaled(_filtered(ball.noise(v.shape, rng), inside)))
            for _ in range(num_random)
        ]
        moved, noise_size = (np.mean(each, axis=0) for each in zip(*draws))
        rows.append(
            {
                "shares": share,
                "fooling_rates": fooled.mean(),
                "intervals": rate_interval(fooled, labelled.groups),
                "random_rates": moved.mean(),
                "random_intervals": rate_interval(moved, labelled.groups),
                "root_mean_squares": size,
                "random_root_mean_squares": noise_size,
            }
        )
    return PerturbationSpectrum(
        frequencies=np.arange(int(np.rint(radii.max())) + 1),
        power=_by_radius(radii, power),
        white_power=_by_radius(radii, np.full(radii.shape, 1 / radii.size)),
        bands=bands,
        **stacked(rows),
        epsilon=ball.epsilon,
        norm=ball.norm,
        num_random=num_random,
        **labelled.counts,
    )


def _radii(shape):
    """The radial frequency at each place of a transform, in cycles per image.

    Args:
        shape: Tuple `(H, W, C)` or `(T, C)`.
    """
    sizes = shape[:-1]
    # Per pixel, so that a wave is as fast in any direction.
    grid = np.meshgrid(*map(np.fft.fftfreq, sizes), indexing="ij")
    return max(sizes) * np.sqrt(sum(np.square(each) for each in grid))


def _bands(edges, radii, longer_side):
    """All frequencies, then the bands between the edges: array `(b, 2)`."""
    top = float(radii.max())
    if edges is None:
        octaves = [longer_side / part for part in (32, 16, 8, 4)]
        edges = [edge for edge in octaves if 1 <= edge < top]
    else:
        edges = as_sizes("edges", edges)
    limits = [0.0, *edges, top]
    bands = np.array([(0.0, top), *itertools.pairwise(limits)])
    for band in bands:
        if band[0] >= top or not _inside(radii, band).any():
            raise ValueError(
                "edges must rise, with at least one frequency in each band, up "
                f"to {top:.4g} cycles per image. Received: {tuple(edges)}, "
                f"with none from {band[0]:g} to {band[1]:g}."
            )
    return bands


def _inside(radii, band):
    low, high = band
    # The last band holds its end.
    return (low <= radii) & ((radii < high) | (high == radii.max()))


def _power(v):
    """The share of power at each place of the transform of `v`."""
    axes = tuple(range(v.ndim - 1))
    transform = np.fft.fftn(v.astype("float64"), axes=axes)
    power = np.square(np.abs(transform)).mean(axis=-1)
    return power / power.sum()


def _by_radius(radii, power):
    """The sums of the power at the places that round to each frequency."""
    return np.bincount(np.rint(radii).astype(int).ravel(), power.ravel())


def _filtered(v, inside):
    """The part of `v` that is made of some of the frequencies."""
    if inside.all():
        return v
    axes = tuple(range(v.ndim - 1))
    transform = np.fft.fftn(v.astype("float64"), axes=axes)
    return np.fft.ifftn(transform * inside[..., np.newaxis], axes=axes).real
