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
import subprocess
import sys
import tempfile
import time

import common
import numpy as np

EPOCHS = 12


def child(folder):
    """What is killed: a fit that is backed up into `folder`."""
    import keras

    import keras_uap

    keras.utils.set_random_seed(3)
    layers = keras.layers
    classifier = keras.Sequential(
        [
            keras.Input(common.SHAPE),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Flatten(),
            # Large, so that a backup takes a while to write.
            layers.Dense(4000, activation="relu"),
            layers.Dense(common.CLASSES),
        ]
    )
    uap = keras_uap.UniversalPerturbation(
        classifier, 0.05, value_range=(0, 1), mask=np.tri(8)
    )
    uap.compile("lion" if "lion" in folder else "deepfool")
    folder = pathlib.Path(folder)

    class Tell(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            (folder / "started").touch()

    uap.fit(
        common.images(32),
        epochs=EPOCHS,
        batch_size=8,
        validation_data=common.images(16, seed=2),
        callbacks=[keras_uap.BackupAndRestore(folder / "backup"), Tell()],
        verbose=0,
    )
    np.save(folder / "v.npy.tmp", uap.perturbation)
    os.replace(folder / "v.npy.tmp.npy", folder / "v.npy")


def _start(folder):
    return subprocess.Popen(
        [sys.executable, __file__, str(folder)],
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(report, folder):
    process = _start(folder)
    _, err = process.communicate(timeout=300)
    report.check(process.returncode == 0, f"a resumed fit failed: {err[-400:]}")


def _kill(rng, folder, in_a_write):
    """Starts a fit and kills it; says whether it was still running."""
    (folder / "started").unlink(missing_ok=True)
    process = _start(folder)
    end = time.monotonic() + 120
    while not (folder / "started").exists() and process.poll() is None:
        if time.monotonic() > end:
            break
        time.sleep(0.01)
    if in_a_write:
        # The backup that is not whole yet has a name of its own. Skip some.
        writes, last = int(rng.integers(0, EPOCHS - 3)), None
        while process.poll() is None and time.monotonic() < end:
            halves = sorted((folder / "backup").glob(".tmp-*"))
            if halves and halves != last:
                last, writes = halves, writes - 1
                if writes < 0:
                    break
    else:
        time.sleep(float(rng.uniform(0, 1.5)))
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return running


def run(report, quick, seed):
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        _disk_full(report, folder)
        wanted = 3 if quick else 20
        updates = ["lion"] if quick else ["lion", "deepfool"]
        expected = {}
        for update in updates:
            (folder / f"whole_{update}").mkdir()
            _finish(report, folder / f"whole_{update}")
            expected[update] = np.load(folder / f"whole_{update}" / "v.npy")
        tries = 0
        while report.counts.get("kills", 0) < wanted and tries < 2 * wanted:
            update = updates[tries % len(updates)]
            place = folder / f"run{tries}_{update}"
            place.mkdir()
            tries += 1
            # Several kills of one fit, then to its end.
            for i in range(min(3, wanted - report.counts.get("kills", 0))):
                in_a_write = i % 2 == 0
                if _kill(rng, place, in_a_write):
                    report.count("kills")
                    halves = list((place / "backup").glob(".tmp-*"))
                    report.count("half-written files after a kill", len(halves))
            _finish(report, place)
            same = np.array_equal(np.load(place / "v.npy"), expected[update])
            report.check(same, f"{place.name}: another perturbation")
            report.count("resumed fits equal bit for bit", int(same))
            left = list((place / "backup").iterdir())
            report.check(not left, f"{place.name}: left {left}")


def _disk_full(report, folder):
    """Writing stops somewhere; the good file stays, and the error says so."""
    import keras

    import keras_uap
    from keras_uap import interchange

    uap = keras_uap.UniversalPerturbation(
        common.linear(), 0.05, value_range=(0, 1)
    )
    uap.fit(common.images(16), verbose=0)
    noise = np.random.default_rng(0).uniform(-1, 1, (32, 32, 3))
    card = {"epsilon": 1.0, "norm": "linf", "value_range": None}

    def backup(path):
        callback = keras_uap.BackupAndRestore(path.parent)
        callback.set_model(uap)
        callback.on_epoch_end(0)

    ways = {
        "uap.keras": uap.save,
        "uap.weights.h5": uap.save_weights,
        "epoch_1.weights.h5": backup,
        "uap.npz": lambda path: interchange.save_perturbation(
            path, noise, card
        ),
    }
    # A write beyond the limit fails instead of ending the process.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for name, save in ways.items():
        place = folder / f"full_{name}"
        place.mkdir()
        path = place / name
        save(path)
        before = path.read_bytes()
        for share in (0.0, 0.1, 0.5, 0.9, 0.999):
            report.count("saves on a full disk")
            limit = max(int(share * len(before)), 1)
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)
            )
            error = None
            try:
                save(path)
            except Exception as caught:
                error = caught
            finally:
                resource.setrlimit(
                    resource.RLIMIT_FSIZE,
                    (resource.RLIM_INFINITY, resource.RLIM_INFINITY),
                )
            clear = isinstance(error, OSError) and (
                error.errno == errno.EFBIG
                or os.strerror(errno.EFBIG) in str(error)
                or "write" in str(error)
            )
            report.check(
                clear, f"{name}: a full disk gave {type(error)}: {error}"
            )
            report.check(
                path.read_bytes() == before, f"{name}: the good file is broken"
            )
            left = [p.name for p in place.iterdir() if p != path]
            report.check(not left, f"{name}: left {left} behind")
    keras.backend.clear_session()


if __name__ == "__main__":
    child(sys.argv[1])
