"""Tests of perturbation files."""

import json
import os
import pathlib
import zipfile

import numpy as np
import pytest
import scipy.io
from models import SHAPE

from keras_uap import interchange

CARD = {"epsilon": 0.5, "norm": "linf", "value_range": (0, 1)}


@pytest.fixture
def v():
    draws = np.random.default_rng(0).uniform(-0.5, 0.5, SHAPE)
    return draws.astype("float32")


@pytest.fixture
def saved(v, tmp_path):
    return interchange.save_perturbation(tmp_path / "uap.npz", v, CARD)


@pytest.mark.parametrize(
    ("norm", "epsilon", "value_range"),
    [("linf", 0.5, (0, 1)), (np.inf, 1, None), ("l2", 10, (-1.0, 1.0))],
)
def test_round_trip(norm, epsilon, value_range, v, tmp_path):
    card = {"epsilon": epsilon, "norm": norm, "value_range": value_range}
    card |= {"held_out": {"fooling_rate": 0.5}, "author": "Ä", "seed": 3}
    copy = v.copy()
    path = interchange.save_perturbation(tmp_path / "uap", v, card)
    assert path == tmp_path / "uap.npz"
    array, loaded = interchange.load_perturbation(path)
    np.testing.assert_array_equal(array, copy)
    assert array.dtype == np.float32
    assert loaded["norm"] == ("l2" if norm == "l2" else "linf")
    assert loaded["epsilon"] == epsilon
    assert loaded["value_range"] == (value_range and list(value_range))
    assert loaded["shape"] == [8, 8, 3]
    for key in ("held_out", "author", "seed"):
        assert loaded[key] == card[key]


def test_bound_of_a_rounded_perturbation(tmp_path):
    """0.1 in float32 is more than 0.1."""
    v = np.full(SHAPE, 0.1)
    path = interchange.save_perturbation(
        tmp_path / "a", v, CARD | {"epsilon": 0.1}
    )
    array, card = interchange.load_perturbation(path)
    assert np.abs(array.astype("float64")).max() <= card["epsilon"] == 0.1
    np.testing.assert_allclose(array, v, rtol=1e-6)


def test_nothing_is_pickled(saved):
    with np.load(saved, allow_pickle=False) as archive:
        assert sorted(archive) == ["card", "perturbation"]
        assert archive["perturbation"].dtype == np.float32
        assert json.loads(str(archive["card"]))["norm"] == "linf"
    with zipfile.ZipFile(saved) as archive:
        for name in archive.namelist():
            assert not np.load(archive.open(name)).dtype.hasobject


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_file_that_was_cut_short(share, saved):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="damaged"):
        interchange.load_perturbation(saved)


def test_flipped_bytes_never_give_another_perturbation(saved, v):
    content = bytearray(saved.read_bytes())
    refused = 0
    for i in range(0, len(content), 37):
        content[i] ^= 0xFF
        saved.write_bytes(content)
        content[i] ^= 0xFF
        try:
            array, _ = interchange.load_perturbation(saved)
        except ValueError:
            refused += 1
        else:
            np.testing.assert_array_equal(array, v)
    assert refused > 10


def good_text(**changes):
    card = {**CARD, "shape": list(SHAPE), **changes}
    return np.array(json.dumps({k: w for k, w in card.items() if w != "-"}))


@pytest.mark.parametrize(
    "members",
    [
        {"perturbation": np.zeros(SHAPE)},
        {"card": good_text()},
        {"perturbation": np.array([None, {}]), "card": good_text()},
        {"perturbation": np.full(SHAPE, "a"), "card": good_text()},
        {"perturbation": np.full(SHAPE, np.nan), "card": good_text()},
        {"perturbation": np.full(SHAPE, 0.6), "card": good_text()},
        {"perturbation": np.zeros((8, 8)), "card": good_text()},
        {"perturbation": np.zeros(8), "card": good_text(shape=[8])},
        {"perturbation": np.zeros(SHAPE), "card": np.array("not JSON")},
        {"perturbation": np.zeros(SHAPE), "card": np.array("[1, 2]")},
        {"perturbation": np.zeros(SHAPE), "card": np.array(["{}"])},
        {"perturbation": np.zeros(SHAPE), "card": np.array(b"{}")},
        {"perturbation": np.zeros(SHAPE), "card": np.array("[" * 99999)},
        {"perturbation": np.zeros(SHAPE), "card": good_text(norm="l1")},
        {"perturbation": np.zeros(SHAPE), "card": good_text(epsilon="-")},
        {"perturbation": np.zeros(SHAPE), "card": good_text(epsilon=-1)},
        {"perturbation": np.zeros(SHAPE), "card": good_text(value_range=3)},
        {"perturbation": np.zeros(SHAPE), "card": good_text(shape="-")},
        {"perturbation": np.zeros(SHAPE), "card": good_text(format=2)},
        {"perturbation": np.zeros(SHAPE), "card": good_text(format="1")},
    ],
)
def test_archives_of_another_kind(members, tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, **members)
    with pytest.raises(ValueError, match=r"other\.npz"):
        interchange.load_perturbation(path)


def test_files_of_another_kind(tmp_path, v):
    np.save(tmp_path / "v.npy", v)
    (tmp_path / "text.npz").write_text("Hello.")
    for name in ("v.npy", "text.npz", "."):
        with pytest.raises(ValueError, match="not a perturbation"):
            interchange.load_perturbation(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        interchange.load_perturbation(tmp_path / "none.npz")


# A file of format 1, with all that its card held then.
FORMAT_1 = pathlib.Path(__file__).parents[1] / "files" / "format_1.npz"


@pytest.mark.parametrize("first", [False, True])
def test_files_of_older_versions_are_still_read(first, tmp_path):
    path = FORMAT_1
    if first:  # The very first cards named no format.
        with np.load(FORMAT_1) as archive:
            card = json.loads(str(archive["card"]))
            del card["format"]
            path = tmp_path / "first.npz"
            np.savez(
                path,
                perturbation=archive["perturbation"],
                card=np.array(json.dumps(card)),
            )
    v, card = interchange.load_perturbation(path)
    np.testing.assert_array_equal(
        v, np.linspace(-10, 10, 4 * 5 * 3, dtype="float32").reshape(4, 5, 3)
    )
    assert card["epsilon"] == 10.0
    assert card["norm"] == "linf"
    assert card["value_range"] == [0.0, 255.0]
    assert card["version"] == "0.1.0"
    assert card["fooling_rate"] == 0.741


# Perturbations that the paper's authors published -----------------------------


@pytest.fixture
def published():
    """An image as they publish it, width 6 and height 4, as `(H, W, C)`."""
    draws = np.random.default_rng(0).uniform(-10, 10, (4, 6, 3))
    return draws.astype("float32")


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_imports_a_mat_file(compressed, dtype, published, tmp_path):
    r = np.swapaxes(published, 0, 1).astype(dtype)  # Width first.
    variables = {"note": "Ä", "q": np.eye(3), "c": np.array([{}, 1], object)}
    scipy.io.savemat(
        tmp_path / "uap.mat", variables | {"r": r}, do_compression=compressed
    )
    v, card = interchange.import_perturbation(tmp_path / "uap.mat")
    np.testing.assert_array_equal(v, published)
    assert v.dtype == np.float32
    assert v.flags.c_contiguous
    assert card["norm"] == "linf"
    assert card["epsilon"] == np.abs(published).max()
    assert card["value_range"] == [0.0, 255.0]
    assert card["imported"] == {
        "file": "uap.mat",
        "variable": "r",
        "dtype": dtype,
        "shape": [6, 4, 3],
        "changes": ["width and height swapped"],
    }


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_imports_an_npy_file(norm, published, tmp_path):
    exact = published[np.newaxis].astype("float64") + 1e-12
    np.save(tmp_path / "uap.npy", exact)
    v, card = interchange.import_perturbation(tmp_path / "uap.npy", norm)
    np.testing.assert_array_equal(v, exact[0].astype("float32"))
    assert card["imported"]["shape"] == [1, 4, 6, 3]
    assert card["imported"]["changes"] == [
        "first axis, of one image, left out",
        "rounded to float32",
    ]
    # What was imported can be saved, and loads again.
    path = interchange.save_perturbation(tmp_path / "uap.npz", v, card)
    again, loaded = interchange.load_perturbation(path)
    np.testing.assert_array_equal(again, v)
    assert loaded["imported"] == card["imported"]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("r.npy", np.full(SHAPE, np.nan), "finite"),
        ("r.npy", np.full(SHAPE, 1e300), "finite"),
        ("r.npy", np.zeros(SHAPE), "zero everywhere"),
        ("r.npy", np.ones((2, *SHAPE)), "shape"),
        ("r.npy", np.ones((8, 8)), "shape"),
        ("r.npy", np.ones((0, 8, 3)), "shape"),
        ("r.npy", np.ones(SHAPE, complex), "complex"),
        ("r.npy", np.full(SHAPE, None), "allow_pickle"),
        ("r.mat", {"v": np.ones(SHAPE)}, "no variable 'r'"),
        ("r.mat", {"r": np.ones(SHAPE, complex)}, "complex"),
        ("r.mat", {"r": np.full(SHAPE, "a", object)}, "dtype object"),
        ("r.mat", {"r": "a text"}, "dtype <U"),
        ("r.mat", {"r": np.ones((8, 8))}, "shape"),
        ("r.txt", None, r"path must end in \.mat or \.npy"),
    ],
)
def test_files_that_cannot_be_imported(name, value, says, tmp_path):
    path = tmp_path / name
    if name.endswith(".mat"):
        scipy.io.savemat(path, value)
    elif name.endswith(".npy"):
        np.save(path, value)
    with pytest.raises(ValueError, match=says):
        interchange.import_perturbation(path)


def test_import_says_that_there_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        interchange.import_perturbation(tmp_path / "none.mat")


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"epsilon": 0.4}, ValueError, "more than epsilon"),
        ({"epsilon": "0.5"}, ValueError, "epsilon"),
        ({"norm": "l0"}, ValueError, "norm"),
        ({"value_range": (1, 0)}, ValueError, "value_range"),
        ({"note": {1, 2}}, TypeError, "JSON"),
        ({"note": np.nan}, TypeError, "JSON"),
    ],
)
def test_bad_cards(change, error, says, v, tmp_path):
    v[0, 0, 0] = 0.5
    with pytest.raises(error, match=says):
        interchange.save_perturbation(tmp_path / "a", v, CARD | change)
    with pytest.raises(ValueError, match="must name"):
        interchange.save_perturbation(tmp_path / "a", v, {"epsilon": 1})
    assert list(tmp_path.iterdir()) == []


def test_bad_perturbations(tmp_path):
    for value, error in (
        (np.full(SHAPE, np.nan), ValueError),
        (np.zeros(8), ValueError),
        ("", TypeError),
    ):
        with pytest.raises(error, match="perturbation"):
            interchange.save_perturbation(tmp_path / "a", value, CARD)
    with pytest.raises(TypeError, match="card"):
        interchange.save_perturbation(tmp_path / "a", np.zeros(SHAPE), None)


@pytest.mark.parametrize("fails", ["write", "replace"])
def test_old_file_stays_when_writing_fails(fails, saved, v, monkeypatch):
    before = saved.read_bytes()

    def half_written(file, **arrays):
        file.write(b"half")
        raise OSError("No space left on device")

    def refused(*paths):
        raise OSError("Permission denied")

    if fails == "write":
        monkeypatch.setattr(np, "savez_compressed", half_written)
    else:
        monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(OSError, match=r"space|denied"):
        interchange.save_perturbation(saved, 0 * v, CARD)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_file_has_the_usual_permissions(saved, tmp_path):
    usual = tmp_path / "usual"
    usual.touch()
    assert saved.stat().st_mode == usual.stat().st_mode
