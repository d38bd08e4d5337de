"""Universal adversarial perturbations for Keras classifiers."""

import importlib
import os
import sys
import typing

from keras_uap.version import __version__

# The command line answers --help and mistakes before TensorFlow is there, and
# Python imports this file before it. While `python -m` looks for a module, it
# calls the program "-m"; pip names the script, on Windows with a suffix.
_program = os.path.basename((getattr(sys, "argv", None) or [""])[0])
_FOR_COMMANDS = _program.split(".")[0] in ("-m", "keras-uap")

# Everywhere else the classes are there, and registered, from the beginning: a
# saved file may be the first that anyone asks for.
if typing.TYPE_CHECKING or not _FOR_COMMANDS:
    from keras_uap.api import (
        AdversarialDistiller,
        BackupAndRestore,
        DeepFool,
        Ensemble,
        FoolingRate,
        LpBall,
        PerturbationLayer,
        PerturbationTensorBoard,
        StopAtFoolingRate,
        UniversalAdversarialTraining,
        UniversalPerturbation,
        attach,
        deepfool,
        logits_function,
        noise_images,
        project,
        resize_perturbation,
    )

# Modules of their own names, imported on first use: pictures and measurements
# need libraries that a fit does not.
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
    if name == "audit":  # It measures, too.
        return importlib.import_module("keras_uap.evaluation.audit").audit
    if name == "harden":  # It audits.
        return importlib.import_module("keras_uap.defenses.harden").harden
    if name in _MODULES:
        return importlib.import_module(f"keras_uap.{name}")
    if _FOR_COMMANDS and name in __all__:
        return getattr(importlib.import_module("keras_uap.api"), name)
    raise AttributeError(f"module 'keras_uap' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
