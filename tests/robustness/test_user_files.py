"""Files of the user in the folder of a backup: none is changed or deleted."""

import models
import numpy as np
import pytest

import keras_uap
from keras_uap.defenses import harden

# Some are almost ours.
NAMES = [
    *("run_best.npz", "run_1.npz", "before/run_a.npz", "before/notes.txt"),
    *(".tmp-mine", ".tmp-0123", "after/run_2.npz.bak", "mine/run_0.npz"),
    *("epoch_best.weights.h5", "epoch_1.keras", "epoch_.weights.h5"),
    *("epoch_1_best.weights.h5", "settings.json.bak", "history.json"),
]


def put(folder, rng):
    """Puts some of the files into a folder; returns their contents."""
    files = {}
    for name in rng.choice(NAMES, rng.integers(1, 9), replace=False):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files.setdefault(path, rng.bytes(30)))
    return files


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_backups_of_fits(quick, rng, count, tmp_path):
    uap = keras_uap.UniversalPerturbation(
        models.linear(), 0.05, value_range=(0, 1)
    )
    uap.compile("lion")
    for number in range(2 if quick else 12):
        folder = tmp_path / str(number)
        folder.mkdir()
        files = put(folder, rng)
        backup = keras_uap.BackupAndRestore(folder)
        crash = models.CrashAt(1)
        fit = {"epochs": 3, "verbose": 0}
        with pytest.raises(models.Crash):
            uap.fit(models.images(8), callbacks=[backup, crash], **fit)
        assert (folder / "epoch_1.weights.h5").exists()
        uap.fit(models.images(8), callbacks=[backup], **fit)
        count("files of the user", len(files))
        assert contents(folder) == files


def test_backups_of_hardenings(quick, rng, count, tmp_path):
    settings = {"seed": 1, "value_range": (0.0, 1.0)}
    model = models.linear()
    for number in range(12 if quick else 200):
        folder = tmp_path / str(number)
        files = put(folder, rng) if number % 4 else {}
        if number % 4 == 1:
            folder.mkdir(exist_ok=True)
        backup = harden._Backup(folder)
        backup.claim(settings)
        backup.set_model(model)
        backup._begun = 0.0
        for epoch in range(2):
            backup.on_epoch_end(epoch, {"loss": np.float32(1)})
        for part in (backup.before, backup.after):
            part.mkdir(exist_ok=True)
            (part / "run_0.npz").write_bytes(b"ours")
            (part / f".tmp-{32 * 'a'}.npz").write_bytes(b"ours")
        harden.delete_backup(folder)
        count("files of the user", len(files))
        assert contents(folder) == files
        assert folder.exists() == bool(number % 4)


def test_a_hardening(quick, rng, count, tmp_path, monkeypatch):
    if quick:
        pytest.skip("not in the sample")
    models.shorten_audits(monkeypatch, 64)
    files = put(tmp_path, rng)
    keras_uap.harden(
        models.linear(),
        models.images(64),
        epsilon=0.05,
        value_range=(0, 1),
        epochs=1,
        verbose=0,
        backup_dir=tmp_path,
    )
    count("files of the user", len(files))
    assert contents(tmp_path) == files
