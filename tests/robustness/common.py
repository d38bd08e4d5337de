"""What the parts of the robustness suite share: counting and tiny models."""

import contextlib
import os
import pathlib
import resource
import signal
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

HERE = pathlib.Path(__file__).resolve().parent
SHAPE = (8, 8, 3)
CLASSES = 4


class Report:
    """Counts what was tried, and keeps what went wrong."""

    def __init__(self):
        self.counts = {}
        self.failures = []

    def count(self, what, number=1):
        self.counts[what] = self.counts.get(what, 0) + number

    def check(self, holds, text):
        """Records a failure unless `holds`; says whether it did."""
        if not holds:
            self.failures.append(str(text)[:500])
            print(f"FAILED {text}", file=sys.stderr, flush=True)
        return bool(holds)


class Hang(BaseException):
    """Something ran longer than it may. No `except Exception` catches it."""


@contextlib.contextmanager
def time_limit(seconds):
    def too_long(*_):
        raise Hang(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def peak_memory():
    """The most memory that the process has held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory():
    """The memory that the process holds now, in MiB."""
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize() / 2**20


def images(count=40, seed=1):
    """Images `(count, 8, 8, 3)` of 4 overlapping kinds, in 0 to 1."""
    import numpy as np

    rng = np.random.default_rng(seed)
    kinds = rng.uniform(0.2, 0.8, (CLASSES, *SHAPE))
    noise = rng.normal(0, 0.25, (count, *SHAPE))
    kinds = kinds[rng.integers(0, CLASSES, count)]
    return np.clip(kinds + noise, 0, 1).astype("float32")


def linear(classes=CLASSES, activation="softmax", seed=0, scale=1.0):
    """A linear classifier with weights of a normal distribution."""
    import keras
    import numpy as np

    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, activation=activation),
        ]
    )
    size = int(np.prod(SHAPE))
    kernel = scale * np.random.default_rng(seed).normal(size=(size, classes))
    model.set_weights([kernel, -0.5 * kernel.sum(axis=0)])
    return model
