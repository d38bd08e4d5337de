"""Universal adversarial perturbations for Keras classifiers."""

import importlib

from keras_uap.attach import attach
from keras_uap.callbacks import (
    BackupAndRestore,
    PerturbationTensorBoard,
    StopAtFoolingRate,
)
from keras_uap.data_free import noise_images
from keras_uap.deepfool import DeepFool, deepfool
from keras_uap.ensemble import Ensemble
from keras_uap.logits import logits_function
from keras_uap.lp_ball import LpBall, project
from keras_uap.metrics import FoolingRate
from keras_uap.perturbation_layer import PerturbationLayer
from keras_uap.resizing import resize_perturbation
from keras_uap.universal_adversarial_training import (
    UniversalAdversarialTraining,
)
from keras_uap.universal_perturbation import UniversalPerturbation
from keras_uap.version import __version__

# Modules of their own names, imported on first use: pictures and measurements
# need libraries that a fit does not.
_MODULES = ("analysis", "datasets", "interchange", "samples", "visualization")

__all__ = [
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
    "logits_function",
    "noise_images",
    "project",
    "resize_perturbation",
    *_MODULES,
]


def __getattr__(name):
    if name == "audit":  # It measures, too.
        return importlib.import_module("keras_uap.auditing").audit
    if name in _MODULES:
        return importlib.import_module(f"keras_uap.{name}")
    raise AttributeError(f"module 'keras_uap' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
