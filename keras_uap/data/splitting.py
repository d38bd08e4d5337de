"""Splits images by photograph: to fit on, to select with, held out.

Three rules make a held-out rate fair. Crops of one photograph stay in one part.
Every class has its share of each part. The part that selects an epoch or an
attack is not the part that its rate is reported on, which would be too high.

The photographs of each class are dealt in an order that follows from the seed,
each to the part that lacks most of its share so far.
"""

import collections
import pathlib
import re

import numpy as np

from keras_uap.utils import validation

# To fit on, to select with, held out.
SHARES = (0.6, 0.15, 0.25)

# A name such as `garden_03`: the photograph, and which of its crops.
_CROP = re.compile(r"(?P<name>.+)_(?P<crop>crop)?(?P<number>\d+)", re.I)


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
    shares = np.array(validation.as_sizes("shares", shares))
    validation.check_whole("seed", seed, 0)
    groups = validation.as_groups(groups, images)
    each = np.arange(count) if groups is None else groups
    unit = np.unique(each, return_inverse=True)[1]
    number = len(np.unique(unit))
    if number < len(shares):
        raise ValueError(
            f"There are too few images for {len(shares)} parts, each of other "
            f"photographs. Received: {count} images of {number} photographs."
        )
    kind = np.zeros(count, int)
    if classes is not None:
        classes = np.asarray(classes)
        if classes.shape != (count,):
            expected = f"({count},), one class per image"
            raise validation.invalid("classes.shape", expected, classes.shape)
        _, kind = np.unique(classes, return_inverse=True)
    # The class of a photograph is that of its first image.
    first = np.unique(unit, return_index=True)[1]
    rng = np.random.default_rng(seed)
    part = _deal(np.bincount(unit), kind[first], shares, rng)
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


def photographs(paths, groups=None):
    """Returns the photograph that each file was cut from.

    Images cut from one photograph resemble each other, so they belong in one
    part, and an interval counts them together. Names are read as crops only
    where they say so: every file of a folder is named `garden_crop3.jpg`, or
    `garden_3.jpg` with numbers that count up from 0 or 1 without a gap under
    at least two names, and no name has more files than there are names.
    Camera files (`IMG_20240501_123456`) and class prefixes (`cat_00` to
    `cat_19` beside `dog_00`) do not qualify.

    Args:
        paths: Sequence of strings or paths of files: all of a data set, as a
            few of them may show a gap that is none.
        groups: `None` reads the names as above. `"none"`: every file is a
            photograph of its own. `"name"`: what comes before the last
            underscore is the photograph. `"folder"`: the folder is. Any other
            string is a regular expression: its first group, or else its whole
            match, is the photograph; a file that it does not match is its own.

    Returns:
        Array `(n,)` of strings, or `None` where every file is a photograph of
        its own.

    Raises:
        ValueError: for a regular expression that does not compile, or that
            puts all files in one group.
    """
    rules = "None, 'none', 'name', 'folder' or a regular expression"
    with validation.explained(f"groups must be {rules}. Received: {groups=}"):
        re.compile("" if groups is None else groups)
    paths = [pathlib.Path(path) for path in paths]
    if groups == "none":
        return None
    if groups is None:
        found = _crops(paths)
    else:
        named = [_named(path, groups) for path in paths]
        if not any(named):
            raise ValueError(f"The rule fits no file. Received: {groups=}.")
        found = [name or str(path) for name, path in zip(named, paths)]
        if len(set(found)) == 1 < len(found):
            raise ValueError(
                "groups must name at least two photographs. Received: groups="
                f"{groups!r}, which puts all files in one, {found[0]!r}."
            )
    return None if len(set(found)) == len(found) else np.array(found)


def _crops(paths):
    """The photograph of each file where the names say so, or its path."""
    folders = collections.defaultdict(list)
    for i, path in enumerate(paths):
        folders[path.parent].append(i)
    groups = [str(path) for path in paths]
    for folder, members in folders.items():
        found = [_CROP.fullmatch(paths[i].stem) for i in members]
        if not all(found):
            continue
        numbers = collections.defaultdict(list)
        for match in found:
            numbers[match["name"]].append(int(match["number"]))
        if all(match["crop"] for match in found) or _count_up(numbers):
            for i, match in zip(members, found):
                groups[i] = str(folder / match["name"])
    return groups


def _count_up(numbers):
    """Whether the numbers under each name are those of crops."""
    most = max(map(len, numbers.values()))
    return 2 <= most <= len(numbers) and all(
        sorted(own) in (list(range(len(own))), list(range(1, len(own) + 1)))
        for own in numbers.values()
    )


def _named(path, groups):
    """The photograph of a file by a rule of the caller, None if it has none."""
    if groups == "folder":
        return str(path.parent)
    if groups == "name":
        name = path.stem.rpartition("_")[0]
        return str(path.parent / name) if name else None
    match = re.search(groups, str(path))
    return match and (match.group(1 if match.re.groups else 0) or None)
