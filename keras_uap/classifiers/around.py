"""A Keras model around a classifier that is only read, or trained by itself.

Keras trains what is trainable below a model. Both models that hold a
perturbation and a classifier need something else.
"""

import keras

from keras_uap.utils.keras_compat import TrainerHooks
from keras_uap.utils.saving import not_compiled


class AroundClassifier(TrainerHooks):
    """Mixin for a `keras.Model` with a `classifier` and a `ball` for its `v`.

    A subclass states what it trains in `trainable_variables`.
    """

    @property
    def epsilon(self):
        """The radius of the ball, in the pixel units of `value_range`."""
        return self.ball.epsilon

    @property
    def norm(self):
        """The norm of the ball, `"linf"` or `"l2"`."""
        return self.ball.norm

    @property
    def trainable_weights(self):
        return self.trainable_variables

    @property
    def non_trainable_weights(self):
        trained = {id(weight) for weight in self.trainable_variables}
        return [weight for weight in self.weights if id(weight) not in trained]

    def get_compile_config(self):
        return keras.saving.serialize_keras_object(self._compile_arguments)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))

    def get_config(self):
        config = super().get_config()
        names = ("epsilon", "norm", "value_range", "from_logits", "seed")
        config.update({name: getattr(self, name) for name in names})
        return config | {"classifier": classifier_config(self.classifier)}


def classifier_config(classifier):
    """A classifier as plain values, without its weights and how it compiled."""
    return not_compiled(keras.saving.serialize_keras_object(classifier))


def read_classifier(config, safe_mode=True):
    """The classifier of a config, without how older files compiled it.

    Args:
        config: Dictionary.
        safe_mode: Boolean, whether code of a Lambda layer is refused, which a
            file may bring. A config of the caller's own classifier is safe.
    """
    config = not_compiled(config)
    return keras.saving.deserialize_keras_object(config, safe_mode=safe_mode)
