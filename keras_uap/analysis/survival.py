"""Survival: does a perturbation still fool after it is moved, blurred or saved?

A perturbation is found for pixels that are added as they are. A photograph of a
screen has other pixels: shifted, out of focus, scaled, compressed. Two kinds of
changes are measured.

Changes of the perturbation alone: it is shifted, mirrored, cut to a patch or
blurred, then added to the images. An image is fooled where its label differs
from its clean prediction, as everywhere in this package.

Changes of the perturbed image: out of focus, saved as JPEG, scaled down and up
again, cropped. Such a change alters the labels of clean images, too. An image
is therefore fooled where its label differs from that of the clean image under
the same change. Two more rates are given: the share whose label differs from
the clean prediction of the unchanged image, and the share that the change alone
alters.

The baseline is random noise under the same change. Where the change makes a
perturbation smaller, as blurring does, the noise is scaled to the norm that is
left of the perturbation.

Reference:
    - [Kurakin et al., 2016](https://arxiv.org/abs/1607.02533), Adversarial
      examples in the physical world
    - [Dziugaite et al., 2016](https://arxiv.org/abs/1608.00853), A study of the
      effect of JPG compression on adversarial images
"""

import dataclasses
import functools

import numpy as np
import tensorflow as tf
from scipy import ndimage

from keras_uap import visualization
from keras_uap.evaluation.measurement import (
    Measurement,
    at_norm,
    rates_and_intervals,
)
from keras_uap.perturbations.lp_ball import lp_norm
from keras_uap.perturbations.pixels import apply_perturbation
from keras_uap.perturbations.resizing import resize_images
from keras_uap.reporting.result import Result
from keras_uap.utils.formatting import interval, percent
from keras_uap.utils.progress import progress_bar
from keras_uap.utils.validation import check_number, check_whole
from keras_uap.visualization.style import is_image, sample


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Survival(Result):
    """What `survival_rates` measured, for k changes.

    Attributes:
        names: Tuple of k strings, the changes in words. The first is none.
        of_picture: Boolean array `(k,)`, whether the perturbed image was
            changed, and not the perturbation alone.
        fooling_rates: Array `(k,)`, the share of images whose label differs
            from that of the clean image, under the same change where the
            perturbed image is changed.
        intervals: Array `(k, 2)`, 95% intervals of it.
        random_rates: Array `(k,)`, the same for random noise.
        unchanged_rates: Array `(k,)`, the share of images whose label differs
            from that of the clean image without any change.
        change_rates: Array `(k,)`, the share of clean images whose label the
            change alone alters; 0 where it is one of the perturbation.
        norms: Array `(k,)`, the norm of what was added, in pixel units.
        norm: String.
        num_images, num_groups: Integers, images and photographs.
    """

    names: tuple
    of_picture: np.ndarray
    fooling_rates: np.ndarray
    intervals: np.ndarray
    random_rates: np.ndarray
    unchanged_rates: np.ndarray
    change_rates: np.ndarray
    norms: np.ndarray
    norm: str
    num_images: int
    num_groups: int

    def rows(self, class_names=None):
        """A title, the names of the columns and a row for each change."""
        rows = [
            (
                name,
                percent(self.fooling_rates[i]),
                interval(self.intervals[i]),
                percent(self.random_rates[i]),
                percent(self.unchanged_rates[i]),
                percent(self.change_rates[i]),
            )
            for i, name in enumerate(self.names)
        ]
        size = f"{self.norm} norm {self.norms[0]:.4g}"
        title = f"What a perturbation survives, {size}, {sample(self)}"
        first = "change", "fooled", "95% interval", "noise"
        return title, (*first, "of unchanged", "by change"), rows

    def plot(self):
        """Draws the rates as bars; returns the matplotlib figure."""
        return visualization.plot_survival(self)


def survival_rates(
    classifier,
    perturbation,
    images,
    changes=None,
    groups=None,
    norm="linf",
    value_range=(0, 255),
    seed=0,
    batch_size=32,
    from_logits=None,
    verbose="auto",
):
    """Measures what a perturbation still fools after it was changed.

    A change is a pair of a kind and an amount. Of the perturbation:

    - `("shift", pixels)`: down and to the right (of a signal, later), and what
      leaves at one side comes in at the other;
    - `("mirror", "left-right")` or `"up-down"`; of a signal, `"time"`;
    - `("patch", share)`: only the middle of the image has it, of so large a
      share of each side;
    - `("blur", sigma)`: by a Gaussian of so many pixels.

    Of the perturbed and clipped image:

    - `("defocus", sigma)`: blurred as a whole;
    - `("jpeg", quality)`: rounded to bytes, saved at 1 to 100 and read again;
      for grey and RGB images with a `value_range`;
    - `("scale", share)`: its sides made so much smaller, and large again;
    - `("crop", share)`: the middle of so large a share of each side, made as
      large as the image was;
    - `(name, function)`: a function of your own, from a float32 array
      `(n, H, W, C)` in pixel units to another one of that shape.

    Args:
        classifier: Keras model that maps images to class scores.
        perturbation: Array `(H, W, C)`, or `(T, C)` of signals, in the pixel
            units of `value_range`.
        images: Images `(n, H, W, C)` or signals `(n, T, C)` to measure on.
        changes: Sequence of pairs as above. `None` means several of each kind,
            as far as the images allow.
        groups: Array `(n,)`, the photograph of each image.
        norm: `"linf"` or `"l2"`, in which random noise equals a perturbation.
        value_range: Pair of floats, the pixel range, or `None`.
        seed: Integer, the seed of the noise.
        batch_size: Integer.
        from_logits: Boolean, whether the classifier returns logits; `None`
            finds out.
        verbose: `"auto"`, 0 or 1, whether to show progress.

    Returns:
        A `Survival`.

    Raises:
        TypeError: if `classifier` is not a Keras model.
        ValueError: for changes that do not exist, amounts out of range, or
            images of another shape.

    Reference:
        - [Kurakin et al., 2016](https://arxiv.org/abs/1607.02533)
    """
    given = Measurement(perturbation, images, groups, norm, value_range, seed)
    changes = _as_changes(changes, given.images, given.value_range)
    labelled = given.labelled(classifier, batch_size, from_logits)
    v, noise, norm = given.v, given.noise(), given.norm
    progress = progress_bar(len(changes), verbose, "change")
    rows, hits = [], []
    for name, of_picture, change in changes:
        if of_picture:
            clean, own, random = (
                _labels_of_changed(labelled, added, change)
                for added in (np.zeros_like(v), v, noise)
            )
            size = given.epsilon
        else:
            clean, changed = labelled.clean, change(v)
            size = lp_norm(changed, norm)
            own = labelled.labels(changed)
            random = labelled.labels(at_norm(change(noise), size, norm))
        hits.append(own != clean)
        rates = (
            np.mean(random != clean),
            np.mean(own != labelled.clean),
            np.mean(clean != labelled.clean),
        )
        rows.append((name, of_picture, *rates, size))
        progress.add(1)
    names, *columns = zip(*rows)
    of_picture, random, unchanged, alone, sizes = map(np.array, columns)
    rates, intervals = rates_and_intervals(hits, labelled.groups)
    return Survival(
        names=names,
        of_picture=of_picture,
        fooling_rates=rates,
        intervals=intervals,
        random_rates=random,
        unchanged_rates=unchanged,
        change_rates=alone,
        norms=sizes,
        norm=norm,
        **labelled.counts,
    )


def _labels_of_changed(labelled, added, change):
    """The labels of images that were changed after something was added."""

    def transform(images):
        images = apply_perturbation(images, added, labelled.value_range)
        return tf.convert_to_tensor(change(images.numpy()), "float32")

    return labelled.adapter.labels(
        labelled.images, transform, labelled.batch_size
    )


# Changes of a perturbation `(H, W, C)` or `(T, C)`.


def _shift(v, pixels):
    axes = tuple(range(v.ndim - 1))
    return np.roll(v, (pixels,) * len(axes), axes)


def _patch(v, share):
    kept = np.zeros_like(v)
    middle = _middle(v.shape[:-1], share)
    kept[middle] = v[middle]
    return kept


def _blur(v, sigma):
    return _defocus(v[np.newaxis], sigma)[0]


# Changes of images `(n, H, W, C)` or `(n, T, C)`.


def _defocus(images, sigma):
    sigmas = (0, *(sigma,) * (images.ndim - 2), 0)
    return ndimage.gaussian_filter(images, sigmas, mode="nearest")


def _jpeg(images, quality, value_range):
    low, high = value_range
    pixels = np.rint((images - low) * (255 / (high - low)))
    read = [
        # As Pillow and browsers decode.
        tf.io.decode_jpeg(
            tf.io.encode_jpeg(each, quality=quality),
            dct_method="INTEGER_ACCURATE",
        )
        for each in np.clip(pixels, 0, 255).astype("uint8")
    ]
    return np.stack(read) * np.float32((high - low) / 255) + np.float32(low)


def _scale(images, share):
    small = [max(1, round(share * side)) for side in images.shape[1:-1]]
    return _resize(_resize(images, small), images.shape[1:-1])


def _crop(images, share):
    sizes = images.shape[1:-1]
    return _resize(images[(slice(None), *_middle(sizes, share))], sizes)


def _resize(images, sizes):
    """Resizes images or signals, which are images of one column."""
    if images.ndim == 3:
        return resize_images(images[:, :, np.newaxis], (*sizes, 1))[:, :, 0]
    return resize_images(images, sizes)


def _middle(sizes, share):
    """Slices of the middle of a share of each side, of at least one pixel."""
    kept = [max(1, round(share * size)) for size in sizes]
    starts = [(size - part) // 2 for size, part in zip(sizes, kept)]
    return tuple(slice(a, a + part) for a, part in zip(starts, kept))


# By kind: its text, whether it changes the perturbed image, and a function.
_CHANGES = {
    "shift": ("v shifted by {}", False, _shift),
    "mirror": ("v mirrored, {}", False, np.flip),
    "patch": ("v in the middle {:.0%}", False, _patch),
    "blur": ("v blurred, sigma {:g}", False, _blur),
    "defocus": ("out of focus, sigma {:g}", True, _defocus),
    "jpeg": ("JPEG, quality {}", True, _jpeg),
    "scale": ("scaled to {:.0%} and back", True, _scale),
    "crop": ("cropped to {:.0%}", True, _crop),
}


def _as_changes(changes, images, value_range):
    """Checks changes; returns triples of a name, whether the perturbed image is
    changed, and a function; the first is no change."""
    sizes = images.shape[1:-1]
    if len(sizes) not in (1, 2):
        raise ValueError(
            "images must have shape (n, height, width, channels), or (n, time, "
            f"channels) of signals. Received: shape {images.shape}."
        )
    axes = {"up-down": 0, "left-right": 1} if len(sizes) == 2 else {"time": 0}
    jpeg = value_range is not None and is_image(images[0])
    if changes is None:
        changes = _default_changes(min(sizes), axes, jpeg)
    if not isinstance(changes, (list, tuple)) or not changes:
        raise ValueError(
            "changes must be a list of pairs, such as [('shift', 8), ('jpeg', "
            f"75)]. Received: changes={changes!r}."
        )
    found = [("as it is", False, lambda v: v)]
    for pair in changes:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ValueError(
                "Each of changes must be a pair (kind, amount), such as "
                f"('jpeg', 75). Received: {pair!r}."
            )
        kind, amount = pair
        if callable(amount) and isinstance(kind, str):
            _try(kind, amount, images)
            found.append((kind, True, amount))
            continue
        if kind not in tuple(_CHANGES):
            raise ValueError(
                f"changes holds an unknown kind. Received: {kind!r}. Expected: "
                f"one of {', '.join(_CHANGES)}, or a name with a function."
            )
        text, of_picture, function = _CHANGES[kind]
        arguments = _arguments(kind, amount, sizes, axes)
        if kind == "jpeg":
            arguments["value_range"] = value_range
            if not jpeg:
                raise ValueError(
                    "changes holds 'jpeg', which needs grey or RGB images with "
                    f"a value_range. Received: {images.shape}, {value_range=}."
                )
        change = functools.partial(function, **arguments)
        found.append((text.format(amount), of_picture, change))
    return found


def _default_changes(side, axes, jpeg):
    shifts = {shift for shift in (1, side // 16, side // 4) if 0 < shift < side}
    return [
        *(("shift", shift) for shift in sorted(shifts)),
        *(("mirror", axis) for axis in axes),
        *(("patch", share) for share in (0.75, 0.5)),
        *(("blur", sigma) for sigma in (1.0, 2.0)),
        *(("defocus", sigma) for sigma in (1.0, 2.0)),
        *(("jpeg", quality) for quality in (90, 75, 50) if jpeg),
        *(("scale", share) for share in (0.5, 0.25)),
        ("crop", 0.875),
    ]


def _arguments(kind, amount, sizes, axes):
    """Checks the amount of a change; returns it under its own name."""
    name = f"The amount of {kind!r} in changes"
    if kind == "mirror":
        if amount not in list(axes):
            expected = ", ".join(axes)
            raise ValueError(
                f"{name} must be one of {expected}. Received: {amount!r}."
            )
        return {"axis": axes[amount]}
    if kind in ("shift", "jpeg"):
        check_whole(name, amount, 1)
        most = 100 if kind == "jpeg" else min(sizes) - 1
        check_number(name, amount, least=1, most=most)
        return {"quality" if kind == "jpeg" else "pixels": int(amount)}
    if kind in ("blur", "defocus"):
        check_number(name, amount, above=0, below=np.inf)
        return {"sigma": float(amount)}
    check_number(name, amount, above=0, below=1)
    return {"share": float(amount)}


def _try(name, function, images):
    """Checks that a function of the caller gives images for images."""
    given = images[:2].astype("float32")
    changed = np.asarray(function(given.copy()))
    numbers = changed.dtype.kind in "fiu" and np.isfinite(changed).all()
    if not numbers or changed.shape != given.shape:
        raise ValueError(
            f"The function {name!r} of changes must return finite images of "
            f"the shape {given.shape}. Received: shape {changed.shape}, dtype "
            f"{changed.dtype}."
        )
