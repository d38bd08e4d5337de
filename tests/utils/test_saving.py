"""Errors of files name the file that was asked for, not a temporary one."""

import models
import numpy as np
import pytest

import keras_uap
from keras_uap.utils.saving import TEMPORARY, atomic_path

CARD = {"epsilon": 1.0, "norm": "linf", "value_range": None}


def npz(path):
    v = np.ones(models.SHAPE, "float32")
    keras_uap.interchange.save_perturbation(path, v, CARD)


def model(path):
    uap = keras_uap.UniversalPerturbation(models.linear(), 0.05)
    uap.save(path)


def page(path):
    report = keras_uap.analysis.fooling_report(
        models.linear(),
        np.zeros(models.SHAPE),
        models.images(8),
        value_range=(0, 1),
        verbose=0,
    )
    report.save_html(path)


SAVES = {"v.npz": npz, "uap.keras": model, "report.html": page}


@pytest.mark.parametrize("name", SAVES)
def test_a_folder_that_is_not_there(name, tmp_path):
    path = tmp_path / "missing" / name
    with pytest.raises(FileNotFoundError, match="no such folder") as caught:
        SAVES[name](path)
    assert str(path.parent) in str(caught.value)
    assert TEMPORARY not in str(caught.value)


@pytest.mark.parametrize("name", SAVES)
def test_a_folder_in_the_place_of_the_file(name, tmp_path):
    path = tmp_path / name
    path.mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        SAVES[name](path)
    assert str(path) in str(caught.value)
    assert TEMPORARY not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_errors_of_libraries(tmp_path):
    """h5py puts the name into its text, and may give no number."""
    path = tmp_path / "a.h5"
    with (
        pytest.raises(OSError, match=r"a\.h5") as caught,
        atomic_path(path) as temporary,
    ):
        raise OSError(f"Unable to create file (name = '{temporary}')")
    assert TEMPORARY not in str(caught.value)
