"""Universal adversarial perturbations for Keras classifiers."""

import importlib
import os
import sys
import typing

from keras_uap.version import __version__

# The command line answers --help and mistakes without TensorFlow, and Python
# imports this file before it. While `python -m` looks for a module, it calls
# the program "-m"; pip names the script, on Windows with a suffix.
_program = os.path.basename((getattr(sys, "argv", None) or [""])[0])
_FOR_COMMANDS = _program.split(".")[0] in ("-m", "keras-uap")

# Elsewhere the classes are imported, and so registered with Keras, at once:
# a saved file loads after `import keras_uap` alone.
if typing.TYPE_CHECKING or not _FOR_COMMANDS:
    from keras_uap.attacks.callbacks import (
        BackupAndRestore,
        PerturbationTensorBoard,
        StopAtFoolingRate,
    )
    from keras_uap.attacks.data_free import noise_images
    from keras_uap.attacks.deepfool import DeepFool, deepfool
    from keras_uap.attacks.metrics import FoolingRate
    from keras_uap.attacks.universal_perturbation import UniversalPerturbation
    from keras_uap.classifiers.attach import attach
    from keras_uap.classifiers.ensemble import Ensemble
    from keras_uap.classifiers.logits import logits_function
    from keras_uap.defenses.adversarial_distiller import AdversarialDistiller
    from keras_uap.defenses.universal_adversarial_training import (
        UniversalAdversarialTraining,
    )
    from keras_uap.perturbations.lp_ball import LpBall, project
    from keras_uap.perturbations.perturbation_layer import PerturbationLayer
    from keras_uap.perturbations.resizing import resize_perturbation

# Imported on first use, because they need libraries that a fit does not.
_LAZY = {
    "AuditFailed": "evaluation.gate",
    "AuditInterrupted": "evaluation.audit",
    "audit": "evaluation.audit",
    "harden": "defenses.harden",
}
_MODULES = (
    "analysis",
    "datasets",
    "interchange",
    "losses",
    "samples",
    "visualization",
)

__all__ = [
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
    *_MODULES,
]


def __getattr__(name):
    if name in _LAZY:
        module = importlib.import_module(f"keras_uap.{_LAZY[name]}")
        return getattr(module, name)
    if name in _MODULES:
        return importlib.import_module(f"keras_uap.{name}")
    raise AttributeError(f"module 'keras_uap' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
