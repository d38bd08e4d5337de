"""The image files of a folder, found without importing TensorFlow."""

import os
import pathlib

import numpy as np

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def find_images(folder, labels):
    """Finds the image files in a folder and in those below it.

    Args:
        folder: String or path.
        labels: Boolean, whether each folder in it is a class.

    Returns:
        An array of paths, an int64 array of their classes, and a list of the
        names of the folders in it.

    Raises:
        ValueError: if there are no images, or no labels.
    """
    folder = pathlib.Path(folder)
    # Hidden folders, and those that macOS adds to archives, are no classes.
    names = sorted(
        path.name
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith((".", "__MACOSX"))
    )
    paths, numbers = [], []
    for number, name in enumerate(names if labels else [""]):
        for root, _, files in sorted(os.walk(folder / name)):
            found = [f for f in files if f.lower().endswith(_SUFFIXES)]
            paths += [os.path.join(root, file) for file in sorted(found)]
            numbers += [number] * len(found)
    if labels and not names and find_images(folder, False):
        raise ValueError(f"{folder} has no labels: no folder for each class.")
    if not paths:
        raise ValueError(
            f"No images in {folder} or the folders below it. Expected files "
            f"that end in one of {', '.join(_SUFFIXES)}."
        )
    paths, numbers = np.array(paths), np.array(numbers, "int64")
    return paths, numbers, names
