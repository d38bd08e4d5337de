"""Golden files: what fits, an audit and a hardening give for fixed seeds.

    python benchmarks/freeze.py --write FOLDER
    python benchmarks/freeze.py --compare FOLDER

For whoever restructures the package: write the golden files before the
change, compare after it. Every mode of a fit is there on a tiny classifier:
optimizers, both kinds of DeepFool, both norms, a mask, a target, every kind of
data, validation, eager execution, several steps an execution and two logical
devices. Compared are, bit for bit, perturbations, histories and what saved
files hold. Golden files hold for one machine and one version of TensorFlow.
"""

import argparse
import io
import json
import os
import pathlib
import sys
import tempfile
import zipfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import h5py
import keras
import numpy as np
import tensorflow as tf

import keras_uap

SHAPE = (8, 8, 3)
CLASSES = 4


def make_images(count=40, seed=1):
    rng = np.random.default_rng(seed)
    kinds = rng.uniform(0.2, 0.8, (CLASSES, *SHAPE))
    noise = rng.normal(0, 0.25, (count, *SHAPE))
    images = kinds[rng.integers(0, CLASSES, count)] + noise
    return np.clip(images, 0, 1).astype("float32")


def make_classifier(seed=3):
    layers = keras.layers

    def normal(stddev, seed):
        return keras.initializers.RandomNormal(stddev=stddev, seed=seed)

    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Rescaling(2.0, -1.0, name="rescaling"),
            layers.Conv2D(
                6,
                3,
                activation="tanh",
                kernel_initializer=normal(1.0, seed),
                name="conv",
            ),
            layers.BatchNormalization(name="norm"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(
                CLASSES,
                activation="softmax",
                kernel_initializer=normal(3.0, seed + 1),
                name="head",
            ),
        ],
        name="tiny",
    )


class Batches(keras.utils.PyDataset):
    """Images as a `keras.utils.PyDataset`."""

    def __init__(self, images):
        super().__init__()
        self.images = images

    @property
    def num_batches(self):
        return len(self.images) // 8

    def __getitem__(self, index):
        return self.images[8 * index : 8 * index + 8]


def mask():
    mask = np.zeros(SHAPE[:2])
    mask[2:6, 1:7] = 1
    return mask


def modes(images):
    """Each mode of a fit: the constructor's, `compile`'s and `fit`'s part."""
    dataset = tf.data.Dataset.from_tensor_slices(images).batch(8)
    labels = np.arange(len(images)) % CLASSES
    held_out = images[::-1][:20] * np.float32(0.9)
    deepfool = keras_uap.DeepFool
    l2 = {"norm": "l2", "epsilon": 0.6}
    adam = {"optimizer": keras.optimizers.Adam(0.02)}
    sgd = {"optimizer": keras.optimizers.SGD(0.02, momentum=0.9)}
    falling = {"optimizer": "decaying_lion", "loss": "dominant"}
    features = falling | {"loss": "features+dominant"}
    smoothed = falling | {"smoothing": 1.0}
    nearest = {"optimizer": deepfool(boundary="nearest")}
    candidates = {"optimizer": deepfool(num_candidates=3)}
    one_by_one = {"optimizer": deepfool(one_by_one=True)}
    lion = {"optimizer": "lion"}
    yield "default", {}, None, {}
    yield "lion", {}, lion, {}
    yield "adam", {}, adam, {}
    yield "sgd", {}, sgd, {}
    yield "decaying_lion", {}, falling, {}
    yield "margin", {}, lion | {"loss": "margin"}, {}
    yield "features", {}, lion | {"loss": "features"}, {}
    yield "features_dominant", {}, features, {}
    yield "smoothed", {}, smoothed, {}
    yield "deepfool", {}, {"optimizer": "deepfool"}, {}
    yield "nearest", {}, nearest, {}
    yield "candidates", {}, candidates, {}
    yield "one_by_one", {}, one_by_one, {}
    yield "l2", l2, lion, {}
    yield "l2_deepfool", l2, {"optimizer": "deepfool"}, {}
    yield "l2_one_by_one", l2, one_by_one, {}
    yield "mask", {"mask": mask()}, falling, {}
    yield "mask_deepfool", {"mask": mask()}, nearest, {}
    yield "target", {"target": 1}, lion, {}
    yield "labels", {}, lion, {"y": labels}
    yield "dataset", {}, falling, {"x": dataset}
    yield "pydataset", {}, lion, {"x": Batches(images)}
    yield "validation", {}, lion, {"validation_data": held_out}
    yield "split", {}, falling, {"validation_split": 0.25}
    yield "eager", {}, lion | {"run_eagerly": True}, {}
    yield "eager_deepfool", {}, nearest | {"run_eagerly": True}, {}
    yield "steps", {}, falling | {"steps_per_execution": 2}, {}
    yield "xla", {}, lion | {"jit_compile": True}, {}


def fit_all(folder):
    images = make_images()
    for name, what, how, data in modes(images):
        keras.utils.set_random_seed(7)
        uap = keras_uap.UniversalPerturbation(
            make_classifier(), **{"epsilon": 0.1, "value_range": (0, 1)} | what
        )
        fit(uap, how, {"x": images} | data, folder, name)
    devices = [f"CPU:{i}" for i in range(2)]
    strategy = tf.distribute.MirroredStrategy(devices)
    keras.utils.set_random_seed(7)
    with strategy.scope():
        uap = keras_uap.UniversalPerturbation(
            make_classifier(), 0.1, value_range=(0, 1)
        )
    how = {"optimizer": "decaying_lion", "loss": "dominant"}
    fit(uap, how, {"x": images}, folder, "two_devices")


def fit(uap, how, data, folder, name):
    if how is not None:
        uap.compile(**how)
    history = uap.fit(**data, batch_size=8, epochs=3, verbose=0).history
    np.save(folder / f"{name}.npy", uap.perturbation)
    record = {"history": history, "stop_reason": uap.stop_reason}
    held_out = make_images(24, 2)
    record["evaluate"] = uap.evaluate(held_out, verbose=0, return_dict=True)
    write_json(folder / f"{name}.json", record)
    uap.save(folder / f"{name}.keras")
    uap.save_weights(folder / f"{name}.weights.h5")


def audit_and_harden(folder):
    images = make_images(120, 4)
    keras.utils.set_random_seed(7)
    # Pixels of 0 to 255, as for photographs.
    pixels = np.round(255 * images).astype("uint8")
    classifier = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Rescaling(1 / 255),
            make_classifier(),
        ]
    )
    options = {"epsilon": 20.0, "verbose": 0}
    audit = keras_uap.audit(classifier, pixels, budget="quick", **options)
    keep(folder, "audit", audit, audit.perturbation)
    result = keras_uap.harden(classifier, pixels, epochs=3, **options)
    keep(folder, "harden", result, result.after.perturbation)
    for i, weight in enumerate(classifier.get_weights()):
        np.save(folder / f"hardened_{i}.npy", weight)


def keep(folder, name, result, perturbation):
    np.save(folder / f"{name}.npy", perturbation)
    write_json(folder / f"{name}.json", _without_times(result.to_dict()))
    text = [
        line
        for line in str(result).splitlines()
        if not line.lower().startswith(("cost", "training"))
    ]
    (folder / f"{name}.txt").write_text("\n".join(text), encoding="utf-8")


def _without_times(value):
    if isinstance(value, dict):
        return {
            key: _without_times(part)
            for key, part in value.items()
            if not key.endswith("seconds")
        }
    if isinstance(value, (list, tuple)):
        return [_without_times(part) for part in value]
    return value


def write_json(path, value):
    text = json.dumps(value, indent=1, sort_keys=True, default=float)
    path.write_text(text, encoding="utf-8")


def content(path):
    """What a golden file holds, without dates."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        metadata = json.loads(parts.pop("metadata.json"))
        metadata.pop("date_saved")
        config = json.loads(parts.pop("config.json"))
        found = {"metadata": metadata, "config": _portable(config)}
        for name, data in parts.items():
            found[name] = _arrays(io.BytesIO(data))
        return found
    if path.suffix == ".h5":
        return _arrays(path)
    return path.read_bytes()


def _portable(config):
    """A configuration without what Keras does not read when it loads a file.

    Registered classes are found by name wherever they are; numbers of shared
    objects are addresses.
    """
    if isinstance(config, dict):
        return {
            key: _portable(value)
            for key, value in config.items()
            if key not in ("module", "shared_object_id")
        }
    if isinstance(config, list):
        return [_portable(value) for value in config]
    return config


def _arrays(file):
    found = {}
    with h5py.File(file) as archive:

        def visit(name, item):
            if isinstance(item, h5py.Dataset):
                data = np.asarray(item)
                found[name] = (str(data.dtype), data.shape, data.tobytes())

        archive.visititems(visit)
    return found


def write(folder):
    folder.mkdir(parents=True, exist_ok=True)
    fit_all(folder)
    audit_and_harden(folder)


def compare(golden):
    """Prints what differs; returns how many files do."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        write(folder)
        names = {path.name for path in golden.iterdir()}
        names |= {path.name for path in folder.iterdir()}
        others = 0
        for name in sorted(names):
            if not (folder / name).exists() or not (golden / name).exists():
                print(f"{name}: only on one side")
            elif content(folder / name) != content(golden / name):
                print(f"{name}: differs", _difference(golden, folder, name))
            else:
                continue
            others += 1
    print(f"{len(names) - others} of {len(names)} golden files are equal.")
    return others


def _difference(golden, folder, name):
    if name.endswith(".npy"):
        old, new = np.load(golden / name), np.load(folder / name)
        if old.shape == new.shape:
            return f"by up to {np.abs(old - new).max():.3g}"
    if name.endswith((".json", ".txt")):
        old, new = (
            (place / name).read_text(encoding="utf-8").splitlines()
            for place in (golden, folder)
        )
        lines = [pair for pair in zip(old, new) if pair[0] != pair[1]]
        return f"first {lines[:1]}, {len(lines)} lines"
    old, new = content(golden / name), content(folder / name)
    keys = [key for key in old if old[key] != new.get(key)]
    keys += [key for key in new if key not in old]
    return f"in {keys}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--write", type=pathlib.Path, metavar="FOLDER")
    group.add_argument("--compare", type=pathlib.Path, metavar="FOLDER")
    arguments = parser.parse_args()
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    if arguments.write is not None:
        write(arguments.write)
    else:
        sys.exit(compare(arguments.compare) > 0)
