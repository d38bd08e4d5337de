"""Fair parts: what is fitted on, what chooses, and what is measured on.

Three rules. Crops of one photograph stay together, or the held-out part would
know what was fitted on. Every class has its share of each part, or the held-out
part would be other classes. And what chose an epoch or a run is not what its
rate is reported on, or the rate would be too high: so there are three parts.

The photographs of each class, in an order of the seed, are dealt out one after
another, each to the part that lacks most of its share so far.
"""

import collections
import pathlib
import re

import numpy as np

from keras_uap.utils.validation import as_groups, as_sizes, check_whole

# To fit on, to choose with, to measure on.
SHARES = (0.6, 0.15, 0.25)

# A name such as `garden_03`: the photograph, and which of its crops.
_CROP = re.compile(r"(.+)_(crop)?\d+", re.IGNORECASE)
# What has more pictures than this is no photograph with its crops: `IMG_0001`.
_MOST_CROPS = 20


def split(images, groups=None, classes=None, shares=SHARES, seed=0):
    """Splits images into fair parts: to fit, to select with, to measure on.

    Example:

    ```python
    fit, select, held_out = keras_uap.datasets.split(images, groups)
    uap.fit(images[fit], validation_data=images[select], epochs=5)
    uap.evaluate(images[held_out])
    ```

    Args:
        images: Array `(n, ...)`, or any sequence, of which only the length is
            looked at.
        groups: Array `(n,)`, the photograph that each image was cut from.
            Images of one photograph stay together.
        classes: Array `(n,)`, for instance labels or folders, each of which
            gets its share of every part.
        shares: Floats above 0, the shares of the parts.
        seed: Integer; the parts follow from it.

    Returns:
        A tuple of integer arrays, the indices of each part, sorted.

    Raises:
        ValueError: if there are fewer images or photographs than parts, or
            not one group and one class per image.
    """
    count = len(images)
    shares = np.array(as_sizes("shares", shares))
    check_whole("seed", seed, 0)
    groups = as_groups(groups, images)
    unit = np.arange(count)
    if groups is not None:
        _, unit = np.unique(groups, return_inverse=True)
    number = len(np.unique(unit))
    if number < len(shares):
        raise ValueError(
            f"There are too few images for {len(shares)} parts: each needs a "
            f"photograph of its own. Received: {count} images of {number} "
            "photographs."
        )
    kind = np.zeros(count, int)
    if classes is not None:
        classes = np.asarray(classes)
        if classes.shape != (count,):
            raise ValueError(
                f"There must be one class per image. Received: {count} images "
                f"and classes of shape {classes.shape}."
            )
        _, kind = np.unique(classes, return_inverse=True)
    # The class of a photograph is that of its first image.
    first = np.unique(unit, return_index=True)[1]
    part = _deal(
        np.bincount(unit), kind[first], shares, np.random.default_rng(seed)
    )
    return tuple(np.flatnonzero(part[unit] == i) for i in range(len(shares)))


def _deal(sizes, kinds, shares, rng):
    """Returns the part of each photograph.

    Args:
        sizes: Integer array, how many images each photograph has.
        kinds: Integer array, the class of each.
        shares: Float array, of each part.
        rng: `numpy.random.Generator`.
    """
    shares = shares / shares.sum()
    part = np.zeros(len(sizes), int)
    dealt = np.zeros(len(shares))
    # Class after class, classes and the photographs of each in random order.
    place = rng.permutation(kinds.max() + 1)[kinds]
    for i in np.lexsort((rng.random(len(sizes)), place)):
        lack = shares * (dealt.sum() + sizes[i]) - dealt
        part[i] = lack.argmax()
        dealt[part[i]] += sizes[i]
    for empty in np.flatnonzero(dealt == 0):
        # Of the part that has most, the smallest photograph.
        largest = np.bincount(part, minlength=len(shares)).argmax()
        own = np.flatnonzero(part == largest)
        part[own[sizes[own].argmin()]] = empty
    return part


def photographs(paths):
    """Tells from file names which pictures were cut from one photograph.

    Names such as `garden_1.jpg` and `garden_2.jpg` are crops of `garden` where
    every picture of a folder is named so and the names make sense: several
    photographs in the folder, none with more than 20 crops. Of names such as
    `garden_crop1.jpg` there may be any number.

    Args:
        paths: Sequence of strings or paths of files.

    Returns:
        Array `(n,)` of strings, the photograph of each file, or `None` where
        the names tell nothing.
    """
    paths = [pathlib.Path(path) for path in paths]
    folders = collections.defaultdict(list)
    for i, path in enumerate(paths):
        folders[path.parent].append(i)
    groups = [str(path) for path in paths]
    for folder, members in folders.items():
        found = [_CROP.fullmatch(paths[i].stem) for i in members]
        if not all(found):
            continue
        names = [match.group(1) for match in found]
        counts = collections.Counter(names)
        # `dog_1`, `dog_2`: one name in a folder is its class.
        said = all(match.group(2) for match in found)
        if len(counts) > 1 and (said or max(counts.values()) <= _MOST_CROPS):
            for i, name in zip(members, names):
                groups[i] = str(folder / name)
    if not 1 < len(set(groups)) < len(groups):
        return None
    return np.array(groups)
