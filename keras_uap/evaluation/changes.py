"""Changes that perturbations and perturbed images meet on their way.

A perturbation is shifted, mirrored, cut to a patch or blurred, then added. A
perturbed image is blurred, saved as JPEG, scaled down and up again, cropped or
rounded. Such a change alters predictions on clean images, too: an image is
fooled where its prediction differs from that of the clean image under the same
change.
"""

import dataclasses
import functools

import numpy as np
import tensorflow as tf
from scipy import ndimage

from keras_uap.evaluation.examples import spread_indices
from keras_uap.evaluation.intervals import interval_of_some
from keras_uap.perturbations.pixels import apply_perturbation
from keras_uap.perturbations.resizing import resize_images
from keras_uap.utils.validation import check_number, check_whole
from keras_uap.visualization.style import is_image

# The pixels by which an audit shifts a perturbation.
_SHIFT = 8


@dataclasses.dataclass(frozen=True)
class Survived:
    """What the strongest perturbation of an audit fools after a change.

    Attributes:
        name: String, the change.
        fooling_rate, fooling_interval: Share of the images whose prediction
            differs from that of the clean image under the same change, and its
            95% interval.
        change_rate: Share of the clean images whose prediction the change alone
            alters.
        num_images, num_groups: Integers, images and photographs measured on:
            some of the held-out ones.
    """

    name: str
    fooling_rate: float
    fooling_interval: tuple
    change_rate: float
    num_images: int
    num_groups: int


def survival_in(labelled, v, fooled, passes):
    """Measures what a perturbation fools after changes, on some images.

    Args:
        labelled: `LabelledImages`.
        v: Array `(H, W, C)`, the perturbation.
        fooled: Boolean array `(n,)`, which images it fools as it is.
        passes: Integer, the model passes that this may take; they decide on how
            many images.

    Returns:
        A tuple of `Survived`, the first without a change, and the passes that
        were taken. Without images of a value range, an empty one and 0.
    """
    images, value_range = labelled.images, labelled.value_range
    if value_range is None or not is_image(images[0]):
        return (), 0
    changes = [("jpeg", 90), ("jpeg", 75), ("scale", 0.75), ("scale", 0.5)]
    rounded = functools.partial(_rounded, value_range=value_range)
    changes.append(("rounded to grey levels", rounded))
    if min(images.shape[1:-1]) > _SHIFT:
        changes.append(("shift", _SHIFT))
    changes = as_changes(changes, images, value_range)
    # As it is, the first change, is known; clean images need no shift of v.
    needed = sum(1 + of_picture for _, of_picture, _ in changes[1:])
    groups = labelled.groups
    places = spread_indices(len(images), groups, passes // needed)
    if not len(places):
        return (), 0
    clean = labelled.clean[places]
    groups = places if groups is None else groups[places]

    def row(name, hits, others):
        return Survived(
            name,
            float(hits.mean()),
            interval_of_some(hits, groups),
            float(np.mean(others != clean)),
            len(places),
            len(np.unique(groups)),
        )

    found = [row("no change", fooled[places], clean)]
    for name, of_picture, change in changes[1:]:
        if of_picture:
            others, own = (
                labels_of_changed(labelled, added, change, places)
                for added in (np.zeros_like(v), v)
            )
        else:
            others = clean
            own = labels_of_changed(labelled, change(v), np.copy, places)
        found.append(row(name, own != others, others))
    return tuple(found), needed * len(places)


def labels_of_changed(labelled, added, change, places=slice(None)):
    """The labels of images that were changed after something was added.

    Args:
        labelled: `LabelledImages`.
        added: Array `(H, W, C)`, what is added first.
        change: Function of float32 images `(n, H, W, C)`.
        places: Indices of some of the images.
    """

    def transform(images):
        images = apply_perturbation(images, added, labelled.value_range)
        return tf.convert_to_tensor(change(images.numpy()), "float32")

    return labelled.adapter.labels(
        labelled.images[places], transform, labelled.batch_size
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
    def read(pixels):
        # As Pillow and browsers decode.
        return tf.io.decode_jpeg(
            tf.io.encode_jpeg(pixels, quality=quality),
            dct_method="INTEGER_ACCURATE",
        )

    return _rounded(images, value_range, read)


def _rounded(images, value_range, read=np.copy):
    """Images rounded to bytes, and what is read of each of them then."""
    low, high = value_range
    pixels = np.rint((images - low) * (255 / (high - low)))
    pixels = np.stack([*map(read, np.clip(pixels, 0, 255).astype("uint8"))])
    return pixels * np.float32((high - low) / 255) + np.float32(low)


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


def as_changes(changes, images, value_range):
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
