"""Photo crops for the benchmarks, split by photograph."""

import pathlib

import numpy as np
from PIL import Image

from keras_uap import samples


def load_split(folder, num_fit, num_held_out, seed=0):
    """Returns crops to fit on, crops of other photographs, and their groups.

    Args:
        folder: Path of a folder with `<photograph>_<crop>.jpg` files of
            224x224 pixels, or None for the embedded photographs.
        num_fit, num_held_out: Integers, the most crops to take.
        seed: Integer, decides which photographs are held out (a quarter).

    Returns:
        Three arrays: uint8 `(num_fit, 224, 224, 3)`, uint8
        `(num_held_out, 224, 224, 3)`, and the photograph of each held-out
        crop.
    """
    if folder is None:
        return (
            samples.load_photos("fit")[:num_fit],
            samples.load_photos("held_out")[:num_held_out],
            samples.photo_groups("held_out")[:num_held_out],
        )
    paths = sorted(pathlib.Path(folder).glob("*.jpg"))
    if not paths:
        raise SystemExit(f"no .jpg files in {folder}")
    groups = np.array([path.stem.rpartition("_")[0] for path in paths])
    photographs = np.random.default_rng(seed).permutation(np.unique(groups))
    held_out = np.isin(groups, photographs[: len(photographs) // 4])
    rng = np.random.default_rng(seed + 1)
    fit = rng.permutation(np.flatnonzero(~held_out))[:num_fit]
    held_out = rng.permutation(np.flatnonzero(held_out))[:num_held_out]

    def load(indices):
        return np.stack(
            [np.asarray(Image.open(paths[i]).convert("RGB")) for i in indices]
        )

    return load(fit), load(held_out), groups[held_out]
