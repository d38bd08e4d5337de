"""Tests of perturbation files."""

import json
import os
import zipfile

import numpy as np
import pytest

from keras_uap import interchange

SHAPE = (8, 8, 3)
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


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
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


def test_member_that_declares_too_much(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("perturbation.npy", b"")
        archive.writestr("card.npy", b"\0" * (2**22 + 1))
    with pytest.raises(ValueError, match="declares"):
        interchange.load_perturbation(path)


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
    for value, error in ((np.full(SHAPE, np.nan), ValueError), ("", TypeError)):
        with pytest.raises(error, match="perturbation"):
            interchange.save_perturbation(tmp_path / "a", value, CARD)


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
