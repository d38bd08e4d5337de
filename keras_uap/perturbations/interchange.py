"""A perturbation as a file of its own: `.npz` with a card inside.

The archive holds two arrays: `perturbation`, float32 `(H, W, C)`, and `card`,
a JSON text in a zero-dimensional string array. Nothing in it is pickled, so it
loads with `allow_pickle=False`. The card says what the numbers mean: `norm`,
`epsilon`, `value_range`, `shape`, `version`, and what else the author knows,
such as fooling rates, the seed and the classifier's name.

`import_perturbation` reads the perturbations that the authors of the paper
published, which are bare arrays in `.mat` and `.npy` files.

Files are taken for what they may be: written by someone else, or damaged. What
they declare is checked before memory is set aside, and nothing is unpickled.
"""

import io
import json
import math
import os
import pathlib
import struct
import zipfile
import zlib

import numpy as np

from keras_uap.perturbations.lp_ball import LpBall, as_norm, lp_norm
from keras_uap.perturbations.pixels import as_perturbation, as_value_range
from keras_uap.utils.saving import atomic_path
from keras_uap.version import __version__

__all__ = [
    "import_perturbation",
    "load_perturbation",
    "save_perturbation",
]

CARD_FORMAT = 1

# Largest array that is read: 4096 x 4096 x 4 float32, with its header.
_MOST_BYTES = 2**28 + 2**12
_MOST_MEMBER_BYTES = {"perturbation.npy": _MOST_BYTES, "card.npy": 2**22}


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
            finite, not an image or a signal, or outside the ball that the
            card names.
        TypeError: if the card is not a dictionary or holds what JSON cannot.
    """
    array = _check_shape(as_perturbation(perturbation))
    if not isinstance(card, dict):
        raise TypeError(f"card must be a dictionary. Received: card={card!r}.")
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
    card, ball = _as_card(card, array, "card")
    try:
        text = json.dumps(card, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"The card must hold what JSON can hold. {error}."
        ) from error
    array = ball.project(array)
    path = pathlib.Path(path)
    if path.suffix != ".npz":
        path = path.with_name(path.name + ".npz")
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, perturbation=array, card=np.array(text))
    return path


def load_perturbation(path):
    """Loads a perturbation and its card.

    Args:
        path: String or path of an `.npz` that `save_perturbation` wrote, or of
            a `.keras` of a `UniversalPerturbation`, of which the classifier is
            not loaded.

    Returns:
        A pair: the perturbation, float32 NumPy array `(H, W, C)` in pixel
        units, and its card, a dictionary.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or not of this kind.
    """
    if pathlib.Path(path).suffix == ".keras":
        return _load_model(path)
    path, content = _read_file(path)
    try:
        array, text = _read_members(io.BytesIO(content))
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
    card, ball = _as_card(card, array, str(path))
    return ball.project(array), card


def read_perturbation(perturbation, value_range=None):
    """Returns what stands for a perturbation as an array.

    Args:
        perturbation: Array `(H, W, C)`; what has an attribute `perturbation`,
            such as a `UniversalPerturbation`, a `PerturbationLayer` or an
            `Audit`; or a string or path that `load_perturbation` takes.
        value_range: Pair of floats, the pixel range that the caller works in;
            `None` takes any.

    Returns:
        Float32 NumPy array, in pixel units.

    Raises:
        TypeError: if it is none of these.
        ValueError: if it is not finite, the file is not there or damaged, or
            the perturbation is in the units of another pixel range.
    """
    own = None
    if isinstance(perturbation, (str, os.PathLike)):
        path = pathlib.Path(perturbation)
        if not path.exists():
            raise ValueError(
                "perturbation is no file that is there. Received: "
                f"{str(path)!r}. Expected: an array, or the path of an .npz "
                "or .keras file."
            )
        perturbation, card = load_perturbation(path)
        own = card["value_range"]
    elif hasattr(type(perturbation), "perturbation") or hasattr(
        perturbation, "perturbation"
    ):
        own = getattr(perturbation, "value_range", None)
        own = getattr(perturbation, "card", {}).get("value_range", own)
        perturbation = perturbation.perturbation
    if None not in (own, value_range):
        own, value_range = as_value_range(own), as_value_range(value_range)
        if own != value_range:
            raise ValueError(
                "The perturbation is in the units of another pixel range. "
                f"Received: value_range={value_range}, and a perturbation of "
                f"value_range={own}. Pass that range with images in it, or an "
                "array that you have scaled."
            )
    return as_perturbation(perturbation)


def _load_model(path):
    """The perturbation of a saved `UniversalPerturbation`, and its card.

    The classifier in the file may need classes of the caller's own, and takes
    its time: it is left alone.
    """
    import h5py  # Half a second, and most files are none of these.

    path, content = _read_file(path)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            saved = json.loads(archive.read("config.json"))
            if saved["registered_name"] != "keras_uap>UniversalPerturbation":
                raise ValueError(
                    f"It holds a {saved['class_name']}. Expected: a "
                    "UniversalPerturbation."
                )
            shape = saved["build_config"].get("image_shape")
            if shape is None:
                raise ValueError("It was saved before it had a perturbation.")
            weights = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(weights, "r") as file:
            stored = file["vars"]["0"]
            if list(stored.shape) != list(shape):
                raise ValueError(f"The weight has shape {stored.shape}.")
            array = _check_shape(as_perturbation(stored[()]))
        card = {**saved["config"], "shape": list(shape)}
    except Exception as error:
        raise ValueError(
            f"{path} is not a UniversalPerturbation saved by keras_uap, or it "
            f"is damaged. {type(error).__name__}: {error}"
        ) from error
    card, ball = _as_card(card, array, str(path))
    return ball.project(array), card


def import_perturbation(path, norm="linf"):
    """Reads a perturbation that the paper's authors published.

    They are two kinds of file, for pixels in 0 to 255 and RGB: MATLAB's `.mat`
    with a variable `r`, `(W, H, C)`, width first; and NumPy's `.npy`,
    `(1, H, W, C)`. `save_perturbation` makes an `.npz` of what this returns.

    Args:
        path: String or path of a `.mat` (MATLAB 5 to 7.2) or `.npy` file.
        norm: `"linf"`, `"l2"`, `np.inf` or `2`, the norm that the card names.

    Returns:
        A pair: the perturbation, float32 NumPy array `(H, W, C)` in pixel
        units, and a card. Its `epsilon` is the perturbation's own norm; its
        `imported` says which file it was and what was done to the array.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, not of this kind, too large, or
            does not hold one finite image.

    Reference:
        - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401)
    """
    norm = as_norm(norm)
    path = pathlib.Path(path)
    readers = {".mat": _read_mat, ".npy": _read_npy}
    if path.suffix not in readers:
        raise ValueError(
            "path must end in .mat or .npy. Received: "
            f"path={str(path)!r}. load_perturbation reads .npz."
        )
    path, content = _read_file(path)
    try:
        array = readers[path.suffix](content)
        if array.dtype.kind not in "fiu":
            raise ValueError(f"The array has dtype {array.dtype}.")
        found = {"dtype": array.dtype.name, "shape": list(array.shape)}
        changes = []
        if array.ndim == 4 and len(array) == 1:
            array = array[0]
            changes.append("first axis, of one image, left out")
        if array.ndim != 3:
            raise ValueError(f"The array has the shape {array.shape}.")
        if path.suffix == ".mat":
            found["variable"] = _MAT_VARIABLE
            array = np.swapaxes(array, 0, 1)
            changes.append("width and height swapped")
        # What float32 cannot hold becomes infinite, and is refused below.
        with np.errstate(over="ignore"):
            rounded = np.ascontiguousarray(array, "float32")
        if not np.array_equal(rounded, array):
            changes.append("rounded to float32")
        array = _check_shape(as_perturbation(rounded))
    except Exception as error:
        raise ValueError(
            f"{path} is not a perturbation as the paper's authors published "
            f"them, or it is damaged. {type(error).__name__}: {error}"
        ) from error
    epsilon = lp_norm(array, norm)
    if epsilon == 0:
        raise ValueError(f"{path}: the perturbation is zero everywhere.")
    card = {
        "epsilon": epsilon,
        "norm": norm,
        "value_range": [0.0, 255.0],
        "shape": list(array.shape),
        "imported": {"file": path.name, **found, "changes": changes},
    }
    return array, card


def _read_file(path):
    """Returns the path as such and the bytes of a file that is not too big."""
    path = pathlib.Path(path)
    if path.exists() and not path.is_file():  # A pipe would block.
        raise ValueError(f"{path} is not a perturbation: it is no file.")
    with open(path, "rb") as file:
        content = file.read(2 * _MOST_BYTES + 1)
    if len(content) > 2 * _MOST_BYTES:
        raise ValueError(
            f"{path} is too large for a perturbation. Expected: at most "
            f"{2 * _MOST_BYTES} bytes."
        )
    return path, content


def _read_members(file):
    with zipfile.ZipFile(file) as archive:
        members = []
        for name, most in _MOST_MEMBER_BYTES.items():
            info = archive.getinfo(name)
            if info.file_size > most:
                raise ValueError(f"{name} declares {info.file_size} bytes.")
            # The others are inflated whole, whatever size is declared.
            if info.compress_type not in (
                zipfile.ZIP_STORED,
                zipfile.ZIP_DEFLATED,
            ):
                raise ValueError(f"{name} is neither stored nor deflated.")
            with archive.open(info) as member:
                members.append(_read_npy(member.read(info.file_size)))
    array, text = members
    if text.ndim != 0 or text.dtype.kind != "U":
        raise ValueError("card is not a text.")
    if array.dtype.kind not in "fiu":
        raise ValueError(f"perturbation has dtype {array.dtype}.")
    return _check_shape(as_perturbation(array)), str(text)


def _read_npy(content):
    """The array of a `.npy` file that declares no more than there is."""
    file = io.BytesIO(content)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(np.lib.format.read_magic(file))
    if read_header is None:
        raise ValueError("The version of the .npy format is unknown.")
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("The array holds Python objects.")
    declared, there = math.prod(shape) * dtype.itemsize, len(content)
    if not 0 <= declared == there - file.tell():
        raise ValueError(
            f"The array declares {declared} bytes. Received: "
            f"{there - file.tell()}."
        )
    return np.load(io.BytesIO(content), allow_pickle=False)


# What the authors call the perturbation in their `.mat` files.
_MAT_VARIABLE = "r"

# Numbers of MATLAB 5 files: kinds of parts, classes of real arrays from double
# to 64-bit integers, and what the kinds of data are in NumPy.
_MAT_COMPRESSED, _MAT_MATRIX, _MAT_COMPLEX = 15, 14, 0x800
_MAT_CLASSES = range(6, 16)
_MAT_DTYPES = {
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4"},
    **{7: "f4", 9: "f8", 12: "i8", 13: "u8"},
}


def _read_mat(content):
    """The variable `r` of a MATLAB 5 file."""
    # SciPy's reader sets aside what a file declares, knows objects and
    # functions too, and damaged files bring the process down in it. One array
    # of numbers needs little of the format.
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None or content[:6] != b"MATLAB":
        raise ValueError(
            "It is no .mat file of MATLAB 5 to 7.2 (save with '-v7')."
        )
    position = 128
    while position < len(content):
        kind, part, position = _mat_part(content, position, order, aligned=0)
        if kind == _MAT_COMPRESSED:
            inflate = zlib.decompressobj()
            part = inflate.decompress(part, _MOST_BYTES)
            if not inflate.eof:
                raise ValueError("A compressed part is cut short or too large.")
            kind, part, _ = _mat_part(part, 0, order)
        if kind != _MAT_MATRIX:
            raise ValueError(f"Found data of kind {kind} for a variable.")
        _, flags, at = _mat_part(part, 0, order)
        _, sizes, at = _mat_part(part, at, order)
        _, name, at = _mat_part(part, at, order)
        if name == _MAT_VARIABLE.encode():
            return _mat_array(flags, sizes, _mat_part(part, at, order), order)
    raise ValueError(f"It has no variable {_MAT_VARIABLE!r}.")


def _mat_part(content, position, order, aligned=8):
    """The kind and the bytes of the part at a position, and the next one."""
    kind, size = struct.unpack_from(order + "II", content, position)
    start, step = position + 8, size
    if kind >> 16:  # A short part: size, kind and data in eight bytes.
        kind, size = kind & 0xFFFF, kind >> 16
        start, step = position + 4, 4
        if size > 4:
            raise ValueError(f"A short part declares {size} bytes.")
    elif aligned:
        step += -size % aligned
    if start + size > len(content):
        raise ValueError(f"A part declares {size} bytes, more than there are.")
    return kind, content[start : start + size], start + step


def _mat_array(flags, sizes, data, order):
    kind, numbers, _ = data
    (flags,) = struct.unpack_from(order + "I", flags)
    if flags & 0xFF not in _MAT_CLASSES or flags & _MAT_COMPLEX:
        raise ValueError(f"{_MAT_VARIABLE!r} is no array of real numbers.")
    shape = np.frombuffer(sizes, order + "i4").tolist()
    array = np.frombuffer(numbers, order + _MAT_DTYPES[kind])
    if min(shape) < 0 or math.prod(shape) != array.size:
        raise ValueError(
            f"{_MAT_VARIABLE!r} declares shape {shape} and has "
            f"{array.size} values."
        )
    return array.reshape(shape, order="F")


def _check_shape(array):
    if array.ndim not in (2, 3) or array.size == 0:
        raise ValueError(
            "perturbation must have shape (height, width, channels), or (time, "
            f"channels). Received: shape {array.shape}."
        )
    return array


def _as_card(card, array, where):
    """Returns the card and its ball, once it is found to tell the truth."""
    if not isinstance(card, dict):
        raise ValueError(f"{where}: the card must be a dictionary.")
    missing = {"epsilon", "norm", "value_range"} - card.keys()
    if missing:
        raise ValueError(
            f"{where}: the card must name {sorted(missing)}. Received: "
            f"{sorted(card)}."
        )
    # The first cards that were written name no format.
    written = card.get("format", CARD_FORMAT)
    if isinstance(written, bool) or not isinstance(written, int):
        raise ValueError(f"{where}: format must be a number, not {written!r}.")
    if not 1 <= written <= CARD_FORMAT:
        raise ValueError(
            f"{where}: the card has format {written}; this version of "
            f"keras_uap ({__version__}) reads formats 1 to {CARD_FORMAT}."
        )
    if list(array.shape) != card.get("shape"):
        raise ValueError(
            f"{where}: the card says shape {card.get('shape')}, the "
            f"perturbation has {list(array.shape)}."
        )
    try:
        ball = LpBall(card["epsilon"], card["norm"])
        value_range = as_value_range(card["value_range"])
        ball.refuse_outside(array)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
    card = {**card, **ball.get_config()}
    card["value_range"] = value_range and list(value_range)
    return card, ball
