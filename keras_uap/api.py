"""The public names that need Keras, and through it TensorFlow.

`keras_uap` takes them all from here. Importing them registers what saved Keras
files refer to.
"""

from keras_uap.adversarial_distiller import (
    AdversarialDistiller as AdversarialDistiller,
)
from keras_uap.attach import attach as attach
from keras_uap.callbacks import BackupAndRestore as BackupAndRestore
from keras_uap.callbacks import (
    PerturbationTensorBoard as PerturbationTensorBoard,
)
from keras_uap.callbacks import StopAtFoolingRate as StopAtFoolingRate
from keras_uap.data_free import noise_images as noise_images
from keras_uap.deepfool import DeepFool as DeepFool
from keras_uap.deepfool import deepfool as deepfool
from keras_uap.ensemble import Ensemble as Ensemble
from keras_uap.logits import logits_function as logits_function
from keras_uap.lp_ball import LpBall as LpBall
from keras_uap.lp_ball import project as project
from keras_uap.metrics import FoolingRate as FoolingRate
from keras_uap.perturbation_layer import PerturbationLayer as PerturbationLayer
from keras_uap.resizing import resize_perturbation as resize_perturbation
from keras_uap.universal_adversarial_training import (
    UniversalAdversarialTraining as UniversalAdversarialTraining,
)
from keras_uap.universal_perturbation import (
    UniversalPerturbation as UniversalPerturbation,
)
