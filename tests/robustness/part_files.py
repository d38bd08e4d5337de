"""Hostile files: refused with a ValueError, or read as what they say.

Nothing in a file may run code, hang, or take memory that the file does not
hold. A file that is damaged where nothing looks (a date in an archive) may be
read, if what is read is sound.
"""

import io
import json
import pathlib
import shutil
import sys
import tempfile
import warnings
import zipfile

import common
import h5py
import keras
import numpy as np
import scipy.io

import keras_uap
from keras_uap import interchange

# The most that reading one small file may add to the peak, in MiB.
MOST_MEMORY = 700
SECONDS = 20

V = np.random.default_rng(0).uniform(-1, 1, common.SHAPE).astype("float32")
CARD = {"epsilon": 1.0, "norm": "linf", "value_range": [0, 1], "note": "a"}


class Runs:
    """Makes a file when it is unpickled."""

    canary = None

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


def npy(array, allow_pickle=False):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def header(text, body=b"", version=1):
    text = text.encode("latin1") + b"\n"
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + body


def archive(members, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as z:
        warnings.simplefilter("ignore")  # Two members of one name.
        for name, content in members:
            z.writestr(name, content)
    return file.getvalue()


def damaged(rng, content):
    """A file cut short, flipped, shortened or stretched inside, or doubled."""
    content = bytearray(content)
    kind = rng.integers(0, 6)
    at = int(rng.integers(0, len(content)))
    if kind == 0:
        return bytes(content[:at])
    if kind == 1:
        for _ in range(int(rng.integers(1, 9))):
            content[int(rng.integers(0, len(content)))] ^= 1 << int(
                rng.integers(0, 8)
            )
        return bytes(content)
    if kind == 2:
        return bytes(content[:at] + rng.bytes(int(rng.integers(1, 64))))
    if kind == 3:
        del content[at : at + int(rng.integers(1, 64))]
        return bytes(content)
    if kind == 4:
        return bytes(content[:at]) + rng.bytes(8) + bytes(content[at:])
    end = at + int(rng.integers(1, 16))
    content[at:end] = b"\xff" * (end - at)
    return bytes(content)


def wrong_value(rng, depth=0):
    """Any value that JSON can hold."""
    choices = [
        None,
        True,
        float("nan"),
        float("inf"),
        -1,
        0,
        10**400,
        1e-320,
        "",
        "linf\0",
        "../../etc/passwd",
        "A" * 1000,
        [],
        {},
    ]
    kind = int(rng.integers(0, len(choices) + 2))
    if depth < 3 and kind >= len(choices):
        return [wrong_value(rng, depth + 1) for _ in range(3)]
    return choices[kind % len(choices)]


def wrong_array(rng):
    """The `.npy` bytes of an array that is no perturbation."""
    kind = int(rng.integers(0, 12))
    shape = [int(n) for n in rng.integers(0, 5, rng.integers(0, 7))]
    broken = V.copy()
    broken.flat[int(rng.integers(0, V.size))] = rng.choice(
        [np.nan, np.inf, -np.inf]
    )
    if kind == 0:
        return npy(np.array([Runs()], object), allow_pickle=True)
    if kind == 1:
        return npy(broken)
    if kind == 2:
        return npy(np.zeros([*shape, 0], "float32"))
    if kind == 3:
        return npy(np.zeros((2, 2), rng.choice(["S3", "U9", "M8[s]", "c16"])))
    if kind == 4:
        many = int(10 ** rng.uniform(6, 18))
        text = f"{{'descr':'<f4','fortran_order':False,'shape':({many},2,3)}}"
        return header(text, V.tobytes(), int(rng.integers(1, 3)))
    if kind == 5:
        return header(
            f"{{'descr':'<f4','fortran_order':0,'shape':(-{shape or 1},1,1)}}"
        )
    if kind == 6:
        return header("__import__('os').system('false')", V.tobytes())
    if kind == 7:
        return header("(" * int(rng.integers(9, 9000)), V.tobytes())
    if kind == 8:
        text = "{'descr':'|O','fortran_order':False,'shape':(1,1,1)}"
        return header(text, rng.bytes(40))
    if kind == 9:
        return npy(np.zeros(3, [("a", "f4"), ("b", "i4")]))
    if kind == 10:
        return rng.bytes(int(rng.integers(0, 300)))
    return npy(np.zeros([1] * int(rng.choice([0, 1, 2, 5, 6, 30]))))


def npz_files(rng, count):
    """Pairs of bytes and whether they must be refused."""
    text = json.dumps({**CARD, "format": 1, "shape": list(V.shape)})
    card, good = npy(np.array(text)), npy(V)
    members = [("perturbation.npy", good), ("card.npy", card)]
    whole = archive(members)
    names = [
        "../card.npy",
        "/card.npy",
        "card",
        "c.npy",
        "card.npy/",
        "CARD.npy",
    ]
    for _ in range(count):
        kind = int(rng.integers(0, 8))
        if kind <= 2:
            base = whole if kind else archive(members, zipfile.ZIP_STORED)
            yield damaged(rng, base), False
        elif kind == 3:
            name = str(rng.choice(names))
            yield archive([("perturbation.npy", good), (name, card)]), True
        elif kind == 4:
            array = wrong_array(rng)
            yield archive([("perturbation.npy", array), members[1]]), True
        elif kind == 5:
            key = str(rng.choice([*CARD, "format", "shape", "x"]))
            changed = json.loads(text) | {key: wrong_value(rng)}
            array = npy(np.array(json.dumps(changed)))
            must = key == "shape"
            yield archive([members[0], ("card.npy", array)]), must
        elif kind == 6:
            array = [wrong_array(rng), npy(np.array("[" * 10**5)), b""]
            chosen = array[int(rng.integers(0, 3))]
            yield archive([members[0], ("card.npy", chosen)]), True
        else:
            # Few bytes that unfold into hundreds of megabytes.
            method = int(rng.choice([zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 8]))
            name = str(rng.choice(["perturbation.npy", "card.npy"]))
            yield BOMBS[method, name], True


def _bombs():
    """Archives of a member that declares, or hides, more than is allowed."""
    bombs = {}
    zeros = bytes(2**20)
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        for name in ("perturbation.npy", "card.npy"):
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w", method, compresslevel=1) as z:
                for other in {"perturbation.npy", "card.npy"} - {name}:
                    z.writestr(other, npy(V))
                with z.open(name, "w", force_zip64=True) as member:
                    for _ in range(300):
                        member.write(zeros)
            bombs[method, name] = file.getvalue()
    return bombs


BOMBS = {}


def mat_files(rng, count):
    wholes = []
    for compressed in (False, True):
        file = io.BytesIO()
        scipy.io.savemat(
            file, {"q": np.eye(2), "r": V}, do_compression=compressed
        )
        wholes.append(file.getvalue())
    for _ in range(count):
        kind = int(rng.integers(0, 10))
        if kind < 8:
            yield damaged(rng, wholes[kind % 2]), False
        elif kind == 8:
            wrong = [
                {"r": np.array([[1, "a"]], object)},
                {"r": {"a": 1}},
                {"R": V},
                {"r": V.astype(complex)},
                {"r": np.full(common.SHAPE, np.nan)},
                {"r": "text"},
                {"r": np.zeros((2, 2))},
            ]
            file = io.BytesIO()
            scipy.io.savemat(file, wrong[int(rng.integers(0, len(wrong)))])
            yield file.getvalue(), True
        else:
            sizes = rng.integers(0, 2**32, 40, dtype="uint32").tobytes()
            yield wholes[0][:128] + sizes, True


def npy_files(rng, count):
    whole = npy(V[np.newaxis].astype("float64"))
    for _ in range(count):
        if rng.integers(0, 2):
            yield damaged(rng, whole), False
        else:
            yield wrong_array(rng), True


def keras_files(rng, count):
    """`.keras` files: damaged, with other configs, or with other weights."""
    uap = keras_uap.UniversalPerturbation(
        common.linear(), 0.05, value_range=(0, 1), mask=np.eye(8)
    )
    uap.compile("lion")
    uap.fit(common.images(16), verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "uap.keras"
        uap.save(path)
        whole = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(whole)) as z:
        members = {name: z.read(name) for name in z.namelist()}
    config = json.loads(members["config.json"])
    for _ in range(count):
        kind = int(rng.integers(0, 6))
        if kind <= 1:
            yield damaged(rng, whole), False
        elif kind <= 3:
            changed = json.loads(json.dumps(config))
            must = _change_config(rng, changed)
            content = json.dumps(changed).encode()
            yield archive({**members, "config.json": content}.items()), must
        else:
            content, must = _change_weights(rng, members["model.weights.h5"])
            yield (
                archive({**members, "model.weights.h5": content}.items()),
                must,
            )


def _paths(tree, path=()):
    items = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    for key, value in items:
        yield (*path, key)
        yield from _paths(value, (*path, key))


def _change_config(rng, config):
    """Changes one value; says whether the file must be refused."""
    kind = int(rng.integers(0, 3))
    inner = config["config"]
    if kind == 0:  # Code in the classifier, or a name of something else.
        code = [
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
        inner["classifier"] = code[int(rng.integers(0, len(code)))]
        return True
    if kind == 1:
        key = str(rng.choice(["epsilon", "norm", "value_range", "target"]))
        inner[key] = wrong_value(rng)
        return False
    paths = list(_paths(config))
    path = paths[int(rng.integers(0, len(paths)))]
    for key in path[:-1]:
        config = config[key]
    config[path[-1]] = wrong_value(rng)
    return False


def _change_weights(rng, content):
    file = io.BytesIO(content)
    with h5py.File(file, "r+") as h5:
        names = []
        h5.visititems(
            lambda name, item: (
                names.append(name) if isinstance(item, h5py.Dataset) else None
            )
        )
        own = [name for name in names if name.startswith("vars/")]
        kind = int(rng.integers(0, 4))
        if kind == 0:  # v, the best v: outside the ball or not finite.
            v = own[int(rng.integers(0, 2))]
            if h5[v].shape == common.SHAPE:
                h5[v][...] = rng.choice([np.nan, np.inf, 0.06, -9.0])
            must = h5[v].shape == common.SHAPE
        elif kind == 1:
            # Older files lack the state of the draws; Keras warns where the
            # optimizer's state is gone.
            name = names[int(rng.integers(0, len(names)))]
            del h5[name]
            must = name in own[:3]
        elif kind == 2:  # Gigabytes that are nowhere in the file.
            name = own[0]
            del h5[name]
            h5.create_dataset(
                name, (20000, 20000, 3), "f4", chunks=(100, 100, 3)
            )
            must = True
        else:
            name = own[0]
            del h5[name]
            shape = [int(n) for n in rng.integers(1, 7, 3)]
            h5[name] = np.zeros(shape, "float32")
            must = True
    return file.getvalue(), must


# Trying them ------------------------------------------------------------------


def sound_array(report, kind, result):
    array, card = result
    good = (
        array.dtype == np.float32
        and array.ndim == 3
        and np.isfinite(array).all()
        and keras_uap.lp_ball.lp_norm(array, card["norm"]) <= card["epsilon"]
        and list(array.shape) == card["shape"]
    )
    if kind == ".npz":  # Its members have checksums.
        good = good and np.array_equal(array, V)
    report.check(good, f"{kind}: read something unsound")


def sound_model(report, kind, model):
    if not isinstance(model, keras_uap.UniversalPerturbation):
        return report.count("other Keras objects in .keras files")
    if model.built:
        v = model.perturbation
        report.check(
            np.isfinite(v).all()
            and keras_uap.lp_ball.lp_norm(v, model.norm) <= model.epsilon,
            f"{kind}: a perturbation outside the ball",
        )


def run(report, quick, seed):
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(seed)
    BOMBS.update(_bombs())
    share = 0.1 if quick else 1
    kinds = [
        (".npz", npz_files, 4000, interchange.load_perturbation, sound_array),
        (".mat", mat_files, 3000, interchange.import_perturbation, sound_array),
        (".npy", npy_files, 2000, interchange.import_perturbation, sound_array),
        (".keras", keras_files, 600, keras.saving.load_model, sound_model),
    ]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        Runs.canary = folder / "canary"
        for kind, make, count, load, check in kinds:
            path = folder / f"file{kind}"
            # Once to warm up: the first call of a kind loads libraries.
            for content, must in make(rng, int(count * share)):
                path.write_bytes(content)
                _try(report, kind, path, load, check, must)
        report.check(not Runs.canary.exists(), "a file ran code")
        left = sorted(p.name for p in folder.iterdir())
        report.check(
            left == [f"file{k}" for k in sorted(k[0] for k in kinds)],
            f"files were left behind: {left}",
        )


def _try(report, kind, path, load, check, must):
    report.count("files tried")
    report.count(f"{kind} files")
    before = common.peak_memory()
    try:
        with common.time_limit(SECONDS):
            result = load(path)
    except ValueError:
        report.count("refused with ValueError")
    except Exception as error:
        # Keras' reader raises what it meets; it is not ours.
        if report.check(
            kind == ".keras", f"{kind}: {type(error).__name__}: {error}"
        ):
            report.count("refused by Keras with another error")
    except common.Hang:
        report.check(False, f"{kind}: hangs")
    else:
        report.count("read, and sound")
        if not report.check(not must, f"{kind}: a bad file was read"):
            kept = tempfile.mkdtemp(prefix="robustness-")
            print("kept", shutil.copy(path, kept), file=sys.stderr)
        check(report, kind, result)
    grown = common.peak_memory() - before
    report.check(grown < MOST_MEMORY, f"{kind}: took {grown:.0f} MiB")
