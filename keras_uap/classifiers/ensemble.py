"""Several classifiers as one, to fit a perturbation against all of them.

A perturbation that fools several classifiers at once is less specific to each
and transfers better to others. The scores of the ensemble are the mean of the
log-probabilities of its members, so that the scale of their logits plays no
part.
"""

import keras
import tensorflow as tf

from keras_uap.classifiers import logits


@keras.saving.register_keras_serializable(package="keras_uap")
class Ensemble(keras.Model):
    """The mean of the log-probabilities of several classifiers.

    Example:

    ```python
    both = keras_uap.Ensemble(
        [keras_uap.attach(mobilenet, "tf"), keras_uap.attach(resnet, "caffe")]
    )
    uap = keras_uap.UniversalPerturbation(both, epsilon=10.0)
    ```

    Args:
        classifiers: Sequence of Keras models that take the same images and
            know the same classes. They are shared, not copied, and called
            with `training=False`. Those that take images of another size or
            range: see `keras_uap.attach`.
        from_logits: Boolean, whether the classifiers return logits, or a list
            with one for each, or `None` to find out from their last layers.
        **kwargs: `name` and the like, as for any Keras model.

    Input shape:
        `(batch, H, W, C)`.

    Output shape:
        `(batch, num_classes)`, float32.

    Raises:
        TypeError: if a classifier is not a Keras model.
        ValueError: without classifiers, or if they do not take the same
            images or do not have the same number of classes, or if it is
            unknown whether one returns logits.
    """

    def __init__(self, classifiers, from_logits=None, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.classifiers = list(classifiers)
        if not self.classifiers:
            raise ValueError("classifiers must hold at least one. Received: []")
        if not isinstance(from_logits, (list, tuple)):
            from_logits = [from_logits] * len(self.classifiers)
        if len(from_logits) != len(self.classifiers):
            raise ValueError(
                "from_logits must be one value, or one for each. Received: "
                f"{len(from_logits)} for {len(self.classifiers)} classifiers."
            )
        self.from_logits = list(from_logits)
        count = len(self.classifiers)
        self._functions = [self._logits_of(i) for i in range(count)]
        shapes = [getattr(c, "input_shape", None) for c in self.classifiers]
        shapes = {shape for shape in shapes if isinstance(shape, tuple)}
        if len(shapes) > 1:
            raise ValueError(
                "The classifiers must take images of one shape. Received: "
                f"{sorted(shapes, key=str)}. keras_uap.attach resizes images."
            )
        # Functional models have this attribute too. None if it is unknown.
        self.input_shape = next(iter(shapes), None)
        if self.input_shape is not None:
            self.build(self.input_shape)

    def _logits_of(self, i):
        classifier, from_logits = self.classifiers[i], self.from_logits[i]
        try:
            return logits.logits_function(classifier, from_logits)
        except logits.UndecidedError as error:
            raise ValueError(
                f"It is unknown whether classifiers[{i}], {classifier.name!r}, "
                "returns logits. Pass from_logits=[...], a value for each."
            ) from error

    def build(self, input_shape):
        # Tracing finds members that do not agree.
        if not self.built:
            traced = logits.compile_logits(self.call, input_shape[1:])
            traced.get_concrete_function()
            self.built = True

    def call(self, inputs, training=False):
        # The members always run in inference mode.
        scores = [function(inputs) for function in self._functions]
        classes = [score.shape[-1] for score in scores]
        if len(set(classes)) > 1:
            raise ValueError(f"Members must have the same classes: {classes}.")
        return tf.add_n([tf.nn.log_softmax(s) for s in scores]) / len(scores)

    def get_config(self):
        classifiers = keras.saving.serialize_keras_object(self.classifiers)
        own = {"classifiers": classifiers, "from_logits": self.from_logits}
        return super().get_config() | own

    @classmethod
    def from_config(cls, config):
        deserialize = keras.saving.deserialize_keras_object
        classifiers = deserialize(config["classifiers"])
        return cls(**config | {"classifiers": classifiers})
