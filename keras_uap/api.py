"""The public names that need Keras, and through it TensorFlow.

`keras_uap` takes them all from here. Importing them registers what saved Keras
files refer to.
"""

from keras_uap.attacks.callbacks import BackupAndRestore as BackupAndRestore
from keras_uap.attacks.callbacks import (
    PerturbationTensorBoard as PerturbationTensorBoard,
)
from keras_uap.attacks.callbacks import StopAtFoolingRate as StopAtFoolingRate
from keras_uap.attacks.data_free import noise_images as noise_images
from keras_uap.attacks.deepfool import DeepFool as DeepFool
from keras_uap.attacks.deepfool import deepfool as deepfool
from keras_uap.attacks.metrics import FoolingRate as FoolingRate
from keras_uap.attacks.universal_perturbation import (
    UniversalPerturbation as UniversalPerturbation,
)
from keras_uap.classifiers.attach import attach as attach
from keras_uap.classifiers.ensemble import Ensemble as Ensemble
from keras_uap.classifiers.logits import logits_function as logits_function
from keras_uap.defenses.adversarial_distiller import (
    AdversarialDistiller as AdversarialDistiller,
)
from keras_uap.defenses.universal_adversarial_training import (
    UniversalAdversarialTraining as UniversalAdversarialTraining,
)
from keras_uap.perturbations.lp_ball import LpBall as LpBall
from keras_uap.perturbations.lp_ball import project as project
from keras_uap.perturbations.perturbation_layer import (
    PerturbationLayer as PerturbationLayer,
)
from keras_uap.perturbations.resizing import (
    resize_perturbation as resize_perturbation,
)
