"""A perturbation as a file of its own: `.npz` with a card inside.

The archive holds two arrays: `perturbation`, float32 `(H, W, C)`, and `card`,
a JSON text in a zero-dimensional string array. Nothing in it is pickled, so it
loads with `allow_pickle=False`. The card says what the numbers mean: `norm`,
`epsilon`, `value_range`, `shape`, `version`, and what else the author knows,
such as fooling rates, the seed and the classifier's name.
"""

import json
import os
import pathlib
import tempfile
import zipfile

import numpy as np

from keras_uap.lp_ball import (
    ROUNDING,
    lp_norm,
    project,
    standardize_epsilon,
    standardize_norm,
)
from keras_uap.perturbation_layer import (
    standardize_perturbation,
    standardize_value_range,
)
from keras_uap.version import __version__

CARD_FORMAT = 1

# Largest file member that is read: 4096 x 4096 x 4 float32, and a long card.
_MOST_BYTES = {"perturbation.npy": 2**28 + 2**12, "card.npy": 2**22}


def save_perturbation(path, perturbation, card):
    """Saves a perturbation and its card as `.npz`.

    The file appears whole or not at all: it is written beside its place and
    then moved there.

    Args:
        path: String or path; `.npz` is added where it is missing.
        perturbation: Array `(H, W, C)`, in pixel units.
        card: Dictionary with at least `epsilon`, `norm` and `value_range`, and
            whatever else JSON can hold. `shape`, `format` and `version` are
            filled in.

    Returns:
        The path that was written.

    Raises:
        ValueError: if the card is incomplete, or the perturbation is not
            finite or outside the ball that the card names.
        TypeError: if the card holds what JSON cannot.
    """
    array = standardize_perturbation(perturbation)
    if card.get("shape", list(array.shape)) != list(array.shape):
        raise ValueError(
            "The card is that of another size. Received: a card of shape "
            f"{card['shape']}, a perturbation of {list(array.shape)}. "
            "keras_uap.resize_perturbation(..., card=card) makes both."
        )
    card = {
        **card,
        "format": CARD_FORMAT,
        "version": __version__,
        "shape": list(array.shape),
    }
    card = _standardize_card(card, array, "card")
    try:
        text = json.dumps(card, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"The card must hold what JSON can hold. {error}."
        ) from error
    array = project(array, card["epsilon"], card["norm"])
    path = pathlib.Path(path)
    if path.suffix != ".npz":
        path = path.with_name(path.name + ".npz")
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, perturbation=array, card=np.array(text))
    return path


def load_perturbation(path):
    """Loads a perturbation and its card.

    Args:
        path: String or path of an `.npz` that `save_perturbation` wrote.

    Returns:
        A pair: the perturbation, float32 NumPy array `(H, W, C)` in pixel
        units, and its card, a dictionary.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or not of this kind.
    """
    path = pathlib.Path(path)
    try:
        with open(path, "rb") as file:
            array, text = _read_members(file)
    except FileNotFoundError:
        raise
    # A damaged archive fails in zipfile, zlib or NumPy, each in its own way.
    except Exception as error:
        raise ValueError(
            f"{path} is not a perturbation saved by keras_uap, or it is "
            f"damaged. {type(error).__name__}: {error}"
        ) from error
    try:
        card = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: the card is not JSON. {error}") from error
    card = _standardize_card(card, array, str(path))
    return project(array, card["epsilon"], card["norm"]), card


def _read_members(file):
    with zipfile.ZipFile(file) as archive:
        for name, most in _MOST_BYTES.items():
            size = archive.getinfo(name).file_size
            if size > most:
                raise ValueError(f"{name} declares {size} bytes.")
    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        array, text = archive["perturbation"], archive["card"]
    if array.dtype.kind not in "fiu":
        raise ValueError(f"perturbation has dtype {array.dtype}.")
    if text.ndim != 0 or text.dtype.kind != "U":
        raise ValueError("card is not a text.")
    return standardize_perturbation(array), str(text)


def _standardize_card(card, array, where):
    """Checks that the card is one, and that it tells the truth."""
    if not isinstance(card, dict):
        raise ValueError(f"{where}: the card must be a dictionary.")
    missing = {"epsilon", "norm", "value_range"} - card.keys()
    if missing:
        raise ValueError(
            f"{where}: the card must name {sorted(missing)}. Received: "
            f"{sorted(card)}."
        )
    try:
        epsilon = standardize_epsilon(card["epsilon"])
        norm = standardize_norm(card["norm"])
        value_range = standardize_value_range(card["value_range"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
    if list(array.shape) != card.get("shape"):
        raise ValueError(
            f"{where}: the card says shape {card.get('shape')}, the "
            f"perturbation has {list(array.shape)}."
        )
    found = lp_norm(array, norm)
    if found > epsilon * (1 + ROUNDING):
        raise ValueError(
            f"{where}: the perturbation has {norm} norm {found:.6g}, more "
            f"than epsilon={epsilon:.6g}."
        )
    return {
        **card,
        "epsilon": epsilon,
        "norm": norm,
        "value_range": value_range and list(value_range),
    }


class atomic_path:
    """Context manager: a temporary path that replaces `path` on success.

    Whoever reads `path` sees the old file or the new one, never half of one.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def __enter__(self):
        handle, name = tempfile.mkstemp(
            prefix=".tmp-", suffix=self.path.suffix, dir=self.path.parent
        )
        os.close(handle)
        self.temporary = pathlib.Path(name)
        return self.temporary

    def __exit__(self, error_type, *_):
        try:
            if error_type is None:
                os.chmod(self.temporary, 0o666 & ~_umask())
                os.replace(self.temporary, self.path)
        finally:
            self.temporary.unlink(missing_ok=True)


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
