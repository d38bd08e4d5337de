"""What the benchmarks share: photographs, clocks, the judge and reports."""

import argparse
import contextlib
import dataclasses
import datetime
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

import keras_uap
from keras_uap import datasets, samples

LOW, HIGH = 0.0, 255.0
EPSILON = 10.0
BATCH = 16


# Photographs ------------------------------------------------------------------


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
    paths, groups, held_out = _held_out(folder, seed)
    rng = np.random.default_rng(seed + 1)
    fit = rng.permutation(np.flatnonzero(~held_out))[:num_fit]
    held_out = rng.permutation(np.flatnonzero(held_out))[:num_held_out]
    return _load(paths[fit]), _load(paths[held_out]), groups[held_out]


def load_three_parts(folder, num_fit, num_held_out, seed=0):
    """Returns three `datasets.Pictures`: to fit on, to select with, held out.

    The held-out crops are those of `load_split` with seed 0. Of the other
    photographs an eighth selects; the crops of the rest are to be fitted on.

    Args:
        folder, num_fit, num_held_out: As for `load_split`.
        seed: Integer, decides which photographs select, and which crops are
            fitted on.

    Returns:
        Three `datasets.Pictures` with their photographs as groups.
    """
    if folder is None:
        groups = samples.photo_groups("fit")
        images = samples.load_photos("fit")
    else:
        paths, groups, held_out = _held_out(folder, 0)
        images, groups = _load(paths[~held_out]), groups[~held_out]
    _, measured, measured_groups = load_split(folder, 1, num_held_out)
    rng = np.random.default_rng(seed)
    photographs = rng.permutation(np.unique(groups))
    select = np.isin(groups, photographs[: len(photographs) // 8])
    fit = rng.permutation(np.flatnonzero(~select))[:num_fit]
    pictures = datasets.Pictures(images, groups=groups)
    held_out = datasets.Pictures(measured, groups=measured_groups)
    return pictures.take(fit), pictures.take(select), held_out


def one_each(folder, count, seed):
    """Returns crops of as many photographs, none of those held out.

    Args:
        folder: As for `load_split`, whose seed is 0.
        count: Integer, the photographs.
        seed: Integer, decides which, and which crop of each.
    """
    rng = np.random.default_rng(seed)
    if folder is None:
        paths, groups = None, samples.photo_groups("fit")
    else:
        paths, groups, held_out = _held_out(folder, 0)
        paths, groups = paths[~held_out], groups[~held_out]
    order = rng.permutation(len(groups))
    _, first = np.unique(groups[order], return_index=True)
    chosen = rng.permutation(order[first])[:count]
    if paths is None:
        return samples.load_photos("fit")[chosen]
    return _load(paths[chosen])


def _held_out(folder, seed):
    """The paths of crops, their photographs, and which are held out."""
    paths = np.array(sorted(pathlib.Path(folder).glob("*.jpg")))
    if not len(paths):
        raise SystemExit(f"no .jpg files in {folder}")
    groups = np.array([path.stem.rpartition("_")[0] for path in paths])
    photographs = np.random.default_rng(seed).permutation(np.unique(groups))
    return paths, groups, np.isin(groups, photographs[: len(photographs) // 4])


def _load(paths):
    return np.stack(
        [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    )


def fashion_mnist(*splits):
    """Returns the images (uint8) and labels of splits of Fashion-MNIST."""
    import tensorflow_datasets as tfds

    parts = []
    for split in splits:
        data = tfds.load(
            "fashion_mnist", split=split, batch_size=-1, as_supervised=True
        )
        parts.extend(part.numpy() for part in data)
    return parts


def load_classifier(path=None):
    """The embedded classifier, or that of a `.keras` file.

    It takes 224x224 RGB images in 0 to 255 and returns logits.
    """
    if path is None:
        return samples.load_classifier()
    return keras.saving.load_model(path, compile=False)


# Measuring --------------------------------------------------------------------


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def seconds_of(function):
    """Runs a function; returns the seconds it took."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def float_batches(images, batch_size):
    """The images as a list of float32 tensors, ready in memory."""
    return [
        tf.constant(images[i : i + batch_size], "float32")
        for i in range(0, len(images), batch_size)
    ]


class Judge:
    """The fooling rate on held-out images: the same code for every side.

    Args:
        logits: Compiled function from images to logits.
        images: Array `(n, H, W, C)`, the held-out images.
    """

    def __init__(self, logits, images):
        self._logits = logits
        self._batches = float_batches(images, 32)
        self._clean = self.labels(0.0)

    def labels(self, v):
        return np.concatenate(
            [
                tf.argmax(
                    self._logits(tf.clip_by_value(batch + v, LOW, HIGH)), -1
                )
                for batch in self._batches
            ]
        )

    def __call__(self, v):
        v = tf.cast(tf.convert_to_tensor(v), "float32")
        return float(np.mean(self.labels(v) != self._clean))


class EpochClock(keras.callbacks.Callback):
    """Times the epochs of one fit, without what comes before the first.

    Args:
        between: Function that runs before each epoch, outside the clock.
    """

    def __init__(self, between=None):
        super().__init__()
        self.seconds, self.cpu, self._between = [], [], between

    def on_epoch_begin(self, epoch, logs=None):
        if self._between is not None:
            self._between()
        self._start = time.perf_counter(), time.process_time()

    def on_epoch_end(self, epoch, logs=None):
        wall, cpu = self._start
        self.seconds.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)


def peak_memory():
    """The peak resident memory of this process, in MiB."""
    # VmHWM begins anew with the program; ru_maxrss would carry over the size
    # of the parent that started it.
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# Tables -----------------------------------------------------------------------


@dataclasses.dataclass
class Setup:
    """What every table is made with; `--quick` makes all of it small.

    Args:
        photos: Path of a folder of crops, or None.
        repeats: Integer, timed runs of which the median counts.
        quick: Boolean, whether only to check that everything runs.
        path: Path of a `.keras` file of a classifier, or None.
    """

    photos: str | None
    repeats: int
    quick: bool
    path: str | None = None

    def __post_init__(self):
        self.classifier = load_classifier(self.path)
        self.logits = keras_uap.logits_function(self.classifier, True)
        self.images, self.held_out, self.groups = load_split(
            self.photos, self.size(1000, 32), self.size(300, 16)
        )
        self.shape = self.images.shape[1:]
        self.compiled_logits = tf.function(
            self.logits,
            input_signature=[tf.TensorSpec((None, *self.shape), "float32")],
            autograph=False,
        )

    def size(self, full, quick):
        return quick if self.quick else full

    @functools.cached_property
    def judge(self):
        return Judge(self.compiled_logits, self.held_out)

    @functools.cached_property
    def random_rate(self):
        signs = np.random.default_rng(0).choice([-1.0, 1.0], self.shape)
        return self.judge(EPSILON * signs)

    def uap(self, update, classifier=None, **compile_arguments):
        """A perturbation to fit, its update given as such or as a function."""
        uap = keras_uap.UniversalPerturbation(
            classifier or self.classifier,
            epsilon=EPSILON,
            from_logits=True,
        )
        uap.build((None, *self.shape))
        if callable(update) and not isinstance(update, keras_uap.DeepFool):
            update = update(uap)
        uap.compile(update, **compile_arguments)
        return uap

    def labels(self, images):
        """The predictions of the classifier."""
        return np.concatenate(
            [
                tf.argmax(self.compiled_logits(images[i : i + 32]), axis=-1)
                for i in range(0, len(images), 32)
            ]
        )


def restorer(uap):
    """Returns a function that takes v and the optimizer back to their start."""
    uap.optimizer.build([uap.v])
    start = [(w, w.numpy()) for w in (uap.v, *uap.optimizer.variables)]

    def restore():
        for variable, value in start:
            variable.assign(value)

    return restore


def make_parser(text):
    """The options of all tables that a `Setup` makes."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", help="folder of 224x224 crops")
    parser.add_argument("--output", type=pathlib.Path, default=".")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to check that it runs"
    )
    return parser


def tabulate(options, *parts, path=None):
    """Makes tables, and writes them to files named as the script is.

    Args:
        options: What a parser of `make_parser` has parsed.
        *parts: Functions of the `Setup`. Each returns a title, the text above
            its table, and the table's rows, one dictionary each.
        path: As for `Setup`.
    """
    options.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    setup = Setup(options.photos, options.repeats, options.quick, path)
    report = {"about": about(options, setup), "parts": []}
    for part in parts:
        load, start = os.getloadavg()[0], time.perf_counter()
        title, text, rows = part(setup)
        report["parts"].append(
            {
                "title": title,
                "text": text,
                "rows": rows,
                "seconds": time.perf_counter() - start,
                "load before and after": [load, os.getloadavg()[0]],
            }
        )
        report["about"]["peak memory of the run, MiB"] = peak_memory()
        # After every part, so that what is done is not lost.
        lines = write(report, options.output, pathlib.Path(sys.argv[0]).stem)
    print("\n".join(lines))


def about(options, setup):
    """The conditions of the run."""
    packages = {
        "keras_uap": keras_uap.__version__,
        "python": platform.python_version(),
    }
    for package in (
        "tensorflow",
        "keras",
        "numpy",
        "adversarial-robustness-toolbox",
        "foolbox",
    ):
        try:
            packages[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            packages[package] = "not installed"
    return {
        # Paths are nobody's business.
        "command": " ".join(
            ["python", f"benchmarks/{pathlib.Path(sys.argv[0]).name}"]
            + [pathlib.Path(word).name for word in sys.argv[1:]]
        ),
        "quick check, figures mean nothing": options.quick,
        "date": datetime.date.today().isoformat(),
        "versions": packages,
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "accelerators": [
            d.name for d in tf.config.list_physical_devices("GPU")
        ],
        "system": platform.platform(),
        "model": f"{setup.classifier.name}, 224x224, 1,000 logits",
        "data": f"{'--photos' if options.photos else 'embedded photographs'}: "
        f"{len(setup.images)} crops to fit, {len(setup.held_out)} held-out "
        f"crops of {len(set(setup.groups))} other photographs",
        "norm": "linf",
        "epsilon": EPSILON,
        "pixels": "0 to 255",
        "repeats": options.repeats,
    }


def processor():
    """The name of the processor."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def write(report, folder, name):
    """Writes a .json and a .md file; returns the lines of the latter."""
    (folder / f"{name}.json").write_text(
        json.dumps(report, indent=2) + "\n", encoding="utf-8"
    )
    lines = [f"# {name}", ""]
    for key, value in report["about"].items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        lines.append(f"- {key}: {cell(key, value)}")
    for part in report["parts"]:
        load = " and ".join(f"{x:.1f}" for x in part["load before and after"])
        lines += [
            "",
            f"## {part['title']}",
            "",
            part["text"],
            "",
            f"(Part of {part['seconds']:.0f} s; load of the machine before "
            f"and after: {load}.)",
            "",
            *table(part["rows"]),
        ]
    (folder / f"{name}.md").write_text(
        "\n".join(lines) + "\n", encoding="utf-8"
    )
    return lines


def table(rows):
    """Rows as the lines of a Markdown table."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if not columns:
        return []
    return [
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *(
            "| "
            + " | ".join(cell(key, row.get(key, "")) for key in columns)
            + " |"
            for row in rows
        ),
    ]


def cell(column, value):
    if not isinstance(value, float):
        return str(value)
    if "rate" in column:
        return f"{value:.1%}"
    if value >= 1000:
        return f"{value:,.0f}"
    # Ratios near 1 are told apart by their third decimal.
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"
