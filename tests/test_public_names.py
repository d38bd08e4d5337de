"""Tests of what `import keras_uap` gives, and of what it costs."""

import json
import subprocess
import sys

import pytest

import keras_uap

MODULES = {
    "analysis",
    "datasets",
    "interchange",
    "losses",
    "samples",
    "visualization",
}
NAMES = {
    "AdversarialDistiller",
    "AuditFailed",
    "AuditInterrupted",
    "BackupAndRestore",
    "DeepFool",
    "Ensemble",
    "FoolingRate",
    "LpBall",
    "PerturbationLayer",
    "PerturbationTensorBoard",
    "StopAtFoolingRate",
    "UniversalAdversarialTraining",
    "UniversalPerturbation",
    "__version__",
    "attach",
    "audit",
    "deepfool",
    "harden",
    "logits_function",
    "noise_images",
    "project",
    "resize_perturbation",
}


def loaded_by(*statements):
    """The modules that a fresh Python has after each of the statements."""
    code = "import json, sys\nresult = []\n"
    for statement in statements:
        code += f"{statement}\nresult.append(list(sys.modules))\n"
    code += "print(json.dumps(result))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return [set(names) for names in json.loads(done.stdout.splitlines()[-1])]


def test_dir_shows_the_public_names_alone():
    assert set(dir(keras_uap)) == NAMES | MODULES
    assert dir(keras_uap) == sorted(dir(keras_uap))


@pytest.mark.parametrize("name", sorted(NAMES | MODULES))
def test_every_name_is_there(name):
    assert getattr(keras_uap, name) is not None


def test_star_import():
    names = {}
    exec("from keras_uap import *", names)
    assert set(names) >= NAMES | MODULES
    # A function of the same name as its module.
    assert callable(names["attach"])
    assert callable(names["deepfool"])
    assert callable(names["audit"])
    assert callable(names["harden"])


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'analyses'"):
        _ = keras_uap.analyses


@pytest.mark.slow
def test_modules_come_on_first_use():
    keras_alone, with_keras_uap, after_use = loaded_by(
        "import keras, tensorflow",
        "import keras_uap",
        "keras_uap.analysis.rate_interval; keras_uap.samples.SPLITS",
    )
    libraries = ("matplotlib", "scipy", "tensorflow_datasets", "networkx")
    added = {
        name
        for name in with_keras_uap - keras_alone
        if name.partition(".")[0] in libraries
    }
    assert not added
    lazy = {f"keras_uap.{name}" for name in ("analysis", "samples")}
    assert not lazy & with_keras_uap
    assert lazy <= after_use
    assert "keras_uap.visualization" not in with_keras_uap
    assert "matplotlib.figure" not in after_use - keras_alone
