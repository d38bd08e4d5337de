"""SIGKILL at random moments, and a disk that is full.

A child fits a small model and backs up after each epoch. It is killed, also in
the middle of writing a backup, started again with the same arguments, and
must end with the perturbation of an uninterrupted run, bit for bit.
"""

import errno
import os
import pathlib
import resource
import signal
import time

import keras
import models
import numpy as np
import pytest

import keras_uap
from keras_uap import interchange

EPOCHS = 12
KILLS = 3


def fit_and_back_up(folder, update):
    """What is killed: a fit that is backed up into `folder`."""
    folder = pathlib.Path(folder)
    keras.utils.set_random_seed(3)
    layers = keras.layers
    classifier = keras.Sequential(
        [
            keras.Input(models.SHAPE),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Flatten(),
            # Large, so that a backup takes a while to write.
            layers.Dense(4000, activation="relu"),
            layers.Dense(models.CLASSES),
        ]
    )
    uap = keras_uap.UniversalPerturbation(
        classifier, 0.05, value_range=(0, 1), mask=np.tri(8)
    )
    uap.compile(update)

    class Tell(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            (folder / "started").touch()

    uap.fit(
        models.images(32),
        epochs=EPOCHS,
        batch_size=8,
        validation_data=models.images(16, seed=2),
        callbacks=[keras_uap.BackupAndRestore(folder / "backup"), Tell()],
        verbose=0,
    )
    np.save(folder / "v.npy", uap.perturbation)


@pytest.fixture(scope="module")
def uninterrupted(child, tmp_path_factory):
    """The perturbation of a fit that nobody kills, for each update."""
    found = {}

    def of(update):
        if update not in found:
            folder = tmp_path_factory.mktemp("whole")
            child("test_kill", "fit_and_back_up", str(folder), update)
            found[update] = np.load(folder / "v.npy")
        return found[update]

    return of


@pytest.mark.parametrize("place", range(7))
def test_killed_and_resumed(
    place, uninterrupted, child, start_child, quick, rng, count, tmp_path
):
    if quick and place:
        pytest.skip("not in the sample")
    update = ("lion", "deepfool")[place % 2]
    fit = ("test_kill", "fit_and_back_up", str(tmp_path), update)
    kills, enough = 0, 1 if quick else KILLS
    for i in range(2 * enough):  # Some come too late.
        if kills < enough and kill(
            start_child(*fit), rng, tmp_path, i % 2 == 0
        ):
            kills += 1
            halves = [*(tmp_path / "backup").glob(".tmp-*")]
            count("half-written files after a kill", len(halves))
    count("kills", kills)
    assert kills
    child(*fit)
    v = np.load(tmp_path / "v.npy")
    np.testing.assert_array_equal(v, uninterrupted(update))
    count("resumed fits equal bit for bit")
    assert not [*(tmp_path / "backup").iterdir()]


def kill(process, rng, folder, in_a_write):
    """Kills a fit; says whether it was still running."""
    started = folder / "started"
    end = time.monotonic() + 120

    def waiting():
        return process.poll() is None and time.monotonic() < end

    while waiting() and not started.exists():
        time.sleep(0.01)
    if in_a_write:
        # The backup that is not whole yet has a name of its own. Skip some.
        writes, last = int(rng.integers(0, EPOCHS - 3)), None
        while waiting() and writes >= 0:
            halves = sorted((folder / "backup").glob(".tmp-*"))
            if halves and halves != last:
                last, writes = halves, writes - 1
    else:
        time.sleep(float(rng.uniform(0, 1.5)))
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    started.unlink(missing_ok=True)
    return running


# A full disk ------------------------------------------------------------------


def save_noise(path):
    noise = np.random.default_rng(0).uniform(-1, 1, (32, 32, 3))
    card = {"epsilon": 1.0, "norm": "linf", "value_range": None}
    interchange.save_perturbation(path, noise, card)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_full_disk(share, count, tmp_path):
    """Writing stops somewhere; the good file stays, and the error says so."""
    count("saves on a full disk")
    path = tmp_path / "uap.npz"
    save_noise(path)
    before = path.read_bytes()
    # Python ignores the signal: a write beyond the limit fails.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    most = max(int(share * len(before)), 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            save_noise(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = str(caught.value)
    assert (
        caught.value.errno == errno.EFBIG
        or os.strerror(errno.EFBIG) in said
        or "write" in said
    )
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
