"""Hostile files: refused with a ValueError, or read as what they say.

Nothing in a file may run code or hang. A file that is damaged where nothing
looks (a date in an archive) may be read, if what is read is sound.
"""

import functools
import io
import json
import warnings
import zipfile

import h5py
import keras
import models
import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from limits import forget_peak, memory, peak_memory, time_limit

import keras_uap
from keras_uap import interchange
from keras_uap.perturbations.lp_ball import lp_norm

# The most that reading one small file may add to the memory, in MiB.
MOST_MEMORY = 700
SECONDS = 20

V = np.random.default_rng(0).uniform(-1, 1, models.SHAPE).astype("float32")
CARD = {"epsilon": 1.0, "norm": "linf", "value_range": [0, 1], "note": "a"}


class Runs:
    """Makes a file when it is unpickled."""

    canary = None

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


# Damage of any file -----------------------------------------------------------


KINDS = ["cut", "flip", "tail", "short", "stretch", "fill"]


@st.composite
def damaged(draw, content):
    """A file cut short, or changed, shortened or stretched inside."""
    places = st.integers(0, len(content) - 1)
    at = draw(places)
    before, after = content[:at], content[at:]
    kind = draw(
        st.sampled_from(["cut", "flip", "tail", "short", "stretch", "fill"])
    )
    if kind == "cut":
        return before
    if kind == "flip":
        changed = bytearray(content)
        for place in draw(st.lists(places, min_size=1, max_size=8)):
            changed[place] ^= 1 << draw(st.integers(0, 7))
        return bytes(changed)
    if kind == "tail":
        return before + draw(st.binary(min_size=1, max_size=64))
    if kind == "stretch":
        return before + draw(st.binary(min_size=8, max_size=8)) + after
    size = draw(st.integers(1, 64))
    filling = b"" if kind == "short" else b"\xff" * len(after[:size])
    return before + filling + after[size:]


def of(files, refused):
    """Pairs of a file and whether it must be refused."""
    return files.map(lambda content: (content, refused))


ODD = [None, True, np.nan, np.inf, -1, 0, 10**400, 1e-320, "", "linf\0"]
ODD += ["../../etc/passwd", "A" * 1000, [], {}]
# Any value that JSON can hold.
WRONG = st.recursive(
    st.sampled_from(ODD), lambda inner: st.lists(inner, max_size=3)
)
JSON = WRONG | st.integers() | st.floats() | st.text() | st.booleans()


# .npy -------------------------------------------------------------------------


def npy(array, allow_pickle=False):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def header(text, body=b"", version=1):
    text = text.encode("latin1") + b"\n"
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + body


def with_pixel(place, value):
    array = V.copy()
    array.flat[place] = value
    return array


def claims(shape, dtype="<f4", order=False, body=b"", version=1):
    """A header that says something else than the bytes that follow."""
    text = f"{{'descr':'{dtype}','fortran_order':{order},'shape':{shape}}}"
    return header(text, body, version)


BAD_FLOATS = st.sampled_from([np.nan, np.inf, -np.inf])
WRONG_ARRAYS = st.one_of(
    st.builds(lambda: npy(np.array([Runs()], object), allow_pickle=True)),
    st.builds(
        lambda place, value: npy(with_pixel(place, value)),
        st.integers(0, V.size - 1),
        BAD_FLOATS,
    ),
    st.lists(st.integers(0, 4), max_size=6).map(
        lambda shape: npy(np.zeros([*shape, 0], "float32"))
    ),
    st.sampled_from(["S3", "U9", "M8[s]", "c16"]).map(
        lambda dtype: npy(np.zeros((2, 2), dtype))
    ),
    st.builds(
        lambda many, version: claims(
            (many, 2, 3), body=V.tobytes(), version=version
        ),
        st.integers(10**6, 10**18),
        st.integers(1, 2),
    ),
    st.integers(-(10**6), -1).map(lambda size: claims((size, 1, 1), order=0)),
    st.just(header("__import__('os').system('false')", V.tobytes())),
    st.integers(9, 9000).map(lambda n: header("(" * n, V.tobytes())),
    st.binary(min_size=40, max_size=40).map(
        lambda body: claims((1, 1, 1), "|O", body=body)
    ),
    st.just(npy(np.zeros(3, [("a", "f4"), ("b", "i4")]))),
    st.binary(max_size=300),
    st.sampled_from([0, 1, 2, 5, 6, 30]).map(
        lambda ndim: npy(np.zeros([1] * ndim))
    ),
)


def npy_files():
    whole = npy(V[np.newaxis].astype("float64"))
    return of(damaged(whole), False) | of(WRONG_ARRAYS, True)


# .npz -------------------------------------------------------------------------


def archive(members, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as z:
        warnings.simplefilter("ignore")  # Two members of one name.
        for name, content in members:
            z.writestr(name, content)
    return file.getvalue()


def npz_files():
    text = {**CARD, "format": 1, "shape": list(V.shape)}
    names = ["perturbation.npy", "card.npy"]
    good = [npy(V), npy(np.array(json.dumps(text)))]

    def with_member(place, content):
        parts = [content if i == place else good[i] for i in range(2)]
        return archive(zip(names, parts))

    def with_card(key, value):
        card = json.dumps(text | {key: value})
        refused = key == "shape" and value != text[key]
        return with_member(1, npy(np.array(card))), refused

    others = ["../card.npy", "/card.npy", "c.npy", "card.npy/"]
    no_cards = WRONG_ARRAYS | st.sampled_from(
        [npy(np.array("[" * 10**5)), npy(V), b""]
    )
    return st.one_of(
        of(damaged(archive(zip(names, good))), False),
        of(damaged(archive(zip(names, good))), False),
        of(damaged(archive(zip(names, good), zipfile.ZIP_STORED)), False),
        of(
            st.sampled_from([*others, "CARD.npy"]).map(
                lambda name: archive([(names[0], good[0]), (name, good[1])])
            ),
            True,
        ),
        of(WRONG_ARRAYS.map(lambda array: with_member(0, array)), True),
        of(no_cards.map(lambda array: with_member(1, array)), True),
        st.builds(with_card, st.sampled_from([*text, "x"]), JSON),
    )


# .mat -------------------------------------------------------------------------


def mat(members):
    file = io.BytesIO()
    scipy.io.savemat(file, members)
    return file.getvalue()


def mat_files():
    """Sound files of SciPy that hold something else."""
    wrong = [
        {"r": np.array([[1, "a"]], object)},
        {"r": {"a": 1}},
        {"R": V},
        {"r": V.astype(complex)},
        {"r": np.full(models.SHAPE, np.nan)},
        {"r": "text"},
        {"r": np.zeros((2, 2))},
    ]
    return of(st.sampled_from([mat(members) for members in wrong]), True)


# .keras -----------------------------------------------------------------------


def keras_files(folder):
    """`.keras` files: damaged, with other configs, or with other weights."""
    uap = keras_uap.UniversalPerturbation(
        models.linear(activation="softmax"),
        0.05,
        value_range=(0, 1),
        mask=np.eye(8),
    )
    uap.compile("lion")
    uap.fit(models.images(16), verbose=0)
    uap.save(folder / "whole.keras")
    whole = (folder / "whole.keras").read_bytes()
    (folder / "whole.keras").unlink()
    with zipfile.ZipFile(io.BytesIO(whole)) as z:
        members = {name: z.read(name) for name in z.namelist()}

    def with_member(name, case):
        content, refused = case
        return archive({**members, name: content}.items()), refused

    configs = other_configs(json.loads(members["config.json"]))
    weights = other_weights(members["model.weights.h5"])
    return st.one_of(
        of(damaged(whole), False),
        configs.map(lambda case: with_member("config.json", case)),
        weights.map(lambda case: with_member("model.weights.h5", case)),
    )


def paths(tree, path=()):
    """The ways to all values inside a tree of dictionaries and lists."""
    items = enumerate(tree) if isinstance(tree, list) else ()
    for key, value in tree.items() if isinstance(tree, dict) else items:
        yield (*path, key)
        yield from paths(value, (*path, key))


# Code in place of the classifier, or the name of something else.
CODE = [
    {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": {
            "function": {
                "class_name": "__lambda__",
                "config": {"code": "4wAAAA==", "defaults": None},
            }
        },
        "registered_name": None,
    },
    {"module": "os", "class_name": "system", "config": {"a": "false"}},
    {"module": "builtins", "class_name": "eval", "config": "1"},
    {
        "module": "builtins",
        "class_name": "function",
        "config": "exec",
        "registered_name": "function",
    },
]


def other_configs(config):
    def changed(path, value):
        copy = json.loads(json.dumps(config))
        inner = functools.reduce(lambda tree, key: tree[key], path[:-1], copy)
        inner[path[-1]] = value
        return json.dumps(copy).encode()

    own = [("config", key) for key in ("epsilon", "norm", "value_range")]
    own.append(("config", "target"))
    classifier = ("config", "classifier")
    return st.one_of(
        of(st.sampled_from([changed(classifier, code) for code in CODE]), True),
        of(st.builds(changed, st.sampled_from(own), WRONG), False),
        of(st.builds(changed, st.sampled_from([*paths(config)]), WRONG), False),
    )


@st.composite
def other_weights(draw, content):
    file = io.BytesIO(content)
    with h5py.File(file, "r+") as h5:
        names = []

        def note(name, item):
            if isinstance(item, h5py.Dataset):
                names.append(name)

        h5.visititems(note)
        own = [name for name in names if name.startswith("vars/")]
        kind = draw(st.sampled_from(["value", "gone", "huge", "size"]))
        if kind == "value":  # v, the best v: outside the ball or not finite.
            name = draw(st.sampled_from(own[:2]))
            refused = h5[name].shape == models.SHAPE
            if refused:
                h5[name][...] = draw(BAD_FLOATS | st.sampled_from([0.06, -9.0]))
        elif kind == "gone":
            # Older files lack the state of the draws; Keras warns where the
            # optimizer's state is gone.
            name = draw(st.sampled_from(names))
            del h5[name]
            refused = name in own[:3]
        else:
            del h5[own[0]]
            refused = True
            if kind == "huge":  # Gigabytes that are nowhere in the file.
                h5.create_dataset(
                    own[0], (20000, 20000, 3), "f4", chunks=(100, 100, 3)
                )
            else:
                sizes = st.integers(1, 6)
                shape = draw(st.tuples(sizes, sizes, sizes))
                h5[own[0]] = np.zeros(shape, "float32")
    return file.getvalue(), refused


# Trying them ------------------------------------------------------------------


def sound_array(result, count):
    array, card = result
    assert array.dtype == np.float32
    assert array.ndim == 3
    assert np.isfinite(array).all()
    assert lp_norm(array, card["norm"]) <= card["epsilon"]
    assert list(array.shape) == card["shape"]


def sound_npz(result, count):
    sound_array(result, count)
    # Its members have checksums.
    np.testing.assert_array_equal(result[0], V)


def sound_model(model, count):
    if not isinstance(model, keras_uap.UniversalPerturbation):
        count("other Keras objects in .keras files")
    elif model.built:
        assert np.isfinite(model.perturbation).all()
        assert lp_norm(model.perturbation, model.norm) <= model.epsilon


# How many, how they are made, what reads them, what must hold then.
load, convert = interchange.load_perturbation, interchange.import_perturbation
FILES = {
    ".npz": (4000, lambda folder: npz_files(), load, sound_npz),
    ".mat": (100, lambda folder: mat_files(), convert, sound_array),
    ".npy": (2000, lambda folder: npy_files(), convert, sound_array),
    ".keras": (600, keras_files, keras.saving.load_model, sound_model),
}


@pytest.mark.parametrize("kind", FILES)
def test_refused_or_sound(kind, draws, count, tmp_path):
    number, make, read, check_sound = FILES[kind]
    path = tmp_path / f"file{kind}"
    Runs.canary = tmp_path / "canary"

    @draws(number, number // 20)
    @given(make(tmp_path))
    def check(case):
        content, must_be_refused = case
        path.write_bytes(content)
        count("files tried")
        count(f"{kind} files")
        forget_peak()
        before = memory()
        try:
            with time_limit(SECONDS):
                result = read(path)
        except ValueError:
            count("refused with ValueError")
        except Exception:
            # Keras' reader raises what it meets; it is not ours.
            if kind != ".keras":
                raise
            count("refused by Keras with another error")
        else:
            count("read, and sound")
            assert not must_be_refused, "a bad file was read"
            check_sound(result, count)
        assert peak_memory() - before < MOST_MEMORY

    check()
    assert not Runs.canary.exists(), "a file ran code"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
