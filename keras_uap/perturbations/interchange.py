"""A perturbation as a file: `.npz` with its metadata, the card, inside.

The archive holds two arrays: `perturbation`, float32 `(H, W, C)`, and `card`,
a JSON text in a zero-dimensional string array. Nothing in it is pickled, so it
loads with `allow_pickle=False`. The card describes the values: `norm`,
`epsilon`, `value_range`, `shape`, `version`, and what else the author adds,
such as fooling rates, the seed and the name of the classifier.

`import_perturbation` reads the perturbations that the authors of the paper
published, which are bare arrays in `.mat` and `.npy` files.
"""

import inspect
import io
import json
import os
import pathlib
import zipfile

import numpy as np

from keras_uap.perturbations.lp_ball import LpBall, as_norm, lp_norm
from keras_uap.perturbations.pixels import as_perturbation, as_value_range
from keras_uap.utils.saving import atomic_path
from keras_uap.utils.validation import explained, invalid
from keras_uap.version import __version__

CARD_FORMAT = 1


def save_perturbation(path, perturbation, card):
    """Saves a perturbation and its card as `.npz`.

    The file is written whole or not at all.

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
    card = card | {"format": CARD_FORMAT, "version": __version__}
    card.setdefault("shape", list(array.shape))
    card, ball = _as_card(card, array, "card")
    try:
        text = json.dumps(card, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"JSON cannot hold the card. {error}.") from error
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
    read = _read_keras if pathlib.Path(path).suffix == ".keras" else _read_npz
    os.stat(path)  # A file that is not there is not damaged.
    kind = "not a perturbation saved by keras_uap, or it is damaged"
    with explained(f"{path} is {kind}"):
        array, card = read(path)
        array = _check_shape(as_perturbation(array))
    card, ball = _as_card(card, array, str(path))
    return ball.project(array), card


def read_perturbation(perturbation, value_range=None):
    """Returns a perturbation, whatever holds it, as an array.

    Args:
        perturbation: Array `(H, W, C)`; what has an attribute `perturbation`,
            such as a `UniversalPerturbation`, a `PerturbationLayer` or an
            `Audit`; or a string or path that `load_perturbation` takes.
        value_range: Pair of floats, the pixel range of the caller's images;
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
        if not os.path.exists(perturbation):
            expected = "an array, or an .npz or .keras file that exists"
            raise invalid("perturbation", expected, str(perturbation))
        perturbation, card = load_perturbation(perturbation)
        own = card["value_range"]
    # A property may raise AttributeError where there is no perturbation yet.
    elif inspect.getattr_static(perturbation, "perturbation", None) is not None:
        own = getattr(perturbation, "value_range", None)
        own = getattr(perturbation, "card", {}).get("value_range", own)
        perturbation = perturbation.perturbation
    if None not in (own, value_range):
        own, value_range = as_value_range(own), as_value_range(value_range)
        if own != value_range:
            raise ValueError(
                f"The perturbation is of another pixel range, {own}. Received: "
                f"{value_range=}. Pass images of its range, or scale it."
            )
    return as_perturbation(perturbation)


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
        `imported` names the file and what was done to the array.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, not of this kind, or does not hold
            one finite image.

    Reference:
        - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401)
    """
    norm = as_norm(norm)
    path = pathlib.Path(path)
    if path.suffix not in (".mat", ".npy"):
        raise ValueError(f"path must end in .mat or .npy. Received: {path}.")
    os.stat(path)  # A file that is not there is not damaged.
    kind = "not a perturbation of the paper's authors, or it is damaged"
    with explained(f"{path} is {kind}"):
        is_mat = path.suffix == ".mat"
        array = _read_mat(path) if is_mat else np.load(path, allow_pickle=False)
        if array.dtype.kind not in "fiu":
            raise ValueError(f"The array has dtype {array.dtype}.")
        found = {"dtype": array.dtype.name, "shape": list(array.shape)}
        changes = []
        if array.ndim == 4 and len(array) == 1:
            array = array[0]
            changes.append("first axis, of one image, left out")
        if array.ndim != 3 or array.size == 0:
            raise ValueError(f"The array has the shape {array.shape}.")
        if is_mat:
            found["variable"] = _MAT_VARIABLE
            array = np.swapaxes(array, 0, 1)
            changes.append("width and height swapped")
        v = np.ascontiguousarray(as_perturbation(array))
        if not np.array_equal(v, array):
            changes.append("rounded to float32")
    epsilon = lp_norm(v, norm)
    if epsilon == 0:
        raise ValueError(f"{path}: the perturbation is zero everywhere.")
    card = {
        "epsilon": epsilon,
        "norm": norm,
        "value_range": [0.0, 255.0],
        "shape": list(v.shape),
        "imported": {"file": path.name, **found, "changes": changes},
    }
    return v, card


# The authors' name of the perturbation in their `.mat` files.
_MAT_VARIABLE = "r"


def _read_mat(path):
    import scipy.io  # It takes its time, and few files need it.

    with open(path, "rb") as file:
        variables = scipy.io.loadmat(file, variable_names=[_MAT_VARIABLE])
    if _MAT_VARIABLE not in variables:
        raise ValueError(f"It has no variable {_MAT_VARIABLE!r}.")
    return variables[_MAT_VARIABLE]


def _read_npz(path):
    with np.load(path, allow_pickle=False) as archive:
        array, text = archive["perturbation"], archive["card"]
    return array, json.loads(str(text))


def _read_keras(path):
    """Reads the perturbation of a `UniversalPerturbation`, and its card.

    The classifier in the file is not loaded: it may need classes of the
    caller's own.
    """
    import h5py  # It takes half a second, and few files need it.

    with zipfile.ZipFile(path) as archive:
        saved = json.loads(archive.read("config.json"))
        weights = io.BytesIO(archive.read("model.weights.h5"))
    if saved["registered_name"] != "keras_uap>UniversalPerturbation":
        raise ValueError(f"It holds a {saved['class_name']}, no perturbation.")
    shape = saved["build_config"].get("image_shape")
    if shape is None:
        raise ValueError("It was saved before it had a perturbation.")
    with h5py.File(weights, "r") as file:
        array = file["vars"]["0"][()]
    return array, {**saved["config"], "shape": list(shape)}


def _check_shape(array):
    if array.ndim not in (2, 3) or array.size == 0:
        raise ValueError(
            "perturbation must have shape (height, width, channels), or (time, "
            f"channels). Received: shape {array.shape}."
        )
    return array


def _as_card(card, array, where):
    """Returns the card and its ball, if both describe the array."""
    if not isinstance(card, dict):
        raise ValueError(f"{where}: the card must be a dictionary.")
    missing = {"epsilon", "norm", "value_range"} - card.keys()
    if missing:
        raise ValueError(f"{where}: the card must name {sorted(missing)}.")
    # The first files had no format in their cards.
    if card.get("format", CARD_FORMAT) != CARD_FORMAT:
        raise ValueError(
            f"{where}: the card has format {card['format']!r}; keras_uap "
            f"{__version__} reads format {CARD_FORMAT}."
        )
    if list(array.shape) != card.get("shape"):
        raise ValueError(
            f"{where}: the card has shape {card.get('shape')}, the array has "
            f"{list(array.shape)}. keras_uap.resize_perturbation changes both."
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
