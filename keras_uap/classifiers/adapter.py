"""Images in, logits and labels out.

`Labeller` is a classifier as the package uses it: traced once, run batch by
batch over arrays. `LabelledImages` are images whose clean labels are known, so
that a perturbation can be measured on them.
"""

import tensorflow as tf

from keras_uap.classifiers.logits import (
    compile_logits,
    features_function,
    logits_function,
    predict_logits,
    same_labels,
)


class Labeller:
    """Logits and labels from a classifier.

    Args:
        classifier: Keras model that maps images to class scores.
        image_shape: Tuple `(H, W, C)`.
        from_logits: Boolean, whether the classifier returns logits; `None`
            finds out.
        images: Array of a few images, to try an opaque classifier on.

    Raises:
        TypeError, ValueError: as `logits_function`.
    """

    def __init__(self, classifier, image_shape, from_logits=None, images=None):
        self._classifier = classifier
        self._features_functions = {}
        self._compiled_features = {}
        self._image_shape = image_shape
        # From a tensor of images to logits, to be differentiated or compiled.
        self.logits = logits_function(classifier, from_logits, images)
        self._compiled = compile_logits(self.logits, image_shape)

    @property
    def num_classes(self):
        """Of how many classes there are scores. The first time, it traces."""
        return self._compiled.get_concrete_function().outputs[0].shape[-1]

    def agrees(self, images):
        """Whether the labels are those of the classifier.

        Args:
            images: Array of a few images.
        """
        if not getattr(self.logits, "is_rebuilt", False):
            return True  # They are its own scores.
        images = tf.cast(images, "float32")
        return same_labels(self._compiled, self._classifier, images)

    def features_function(self, layer=None):
        """From a tensor of images to features and logits."""
        if layer not in self._features_functions:
            self._features_functions[layer] = features_function(
                self._classifier,
                layer,
                getattr(self.logits, "of_scores", None),
            )
        return self._features_functions[layer]

    def num_features(self, layer=None):
        """How many features an image has; `None` if that is not known."""
        traced = self._features(layer).get_concrete_function()
        return traced.outputs[0].shape[-1]

    def _features(self, layer):
        """`features_function`, compiled; traced once, as the logits are."""
        if layer not in self._compiled_features:
            self._compiled_features[layer] = compile_logits(
                self.features_function(layer), self._image_shape
            )
        return self._compiled_features[layer]

    def labels_and_features(self, images, layer=None, batch_size=32, verbose=0):
        """Integer labels `(n,)` and features `(n, d)` of an array."""
        features, logits = predict_logits(
            self._features(layer), images, None, batch_size, verbose
        )
        return logits.argmax(axis=-1), features

    def predict(self, images, transform=None, batch_size=32, verbose=0):
        """Logits `(n, num_classes)` of an array; see `predict_logits`."""
        return predict_logits(
            self._compiled, images, transform, batch_size, verbose
        )

    def labels(self, images, *args, **kwargs):
        """Integer labels `(n,)` of an array, else as `predict`."""
        return self.predict(images, *args, **kwargs).argmax(axis=-1)


def stated_shape(classifier):
    """The image shape that a classifier states, or None."""
    shape = getattr(classifier, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) < 2:
        return None
    known = all(isinstance(size, int) for size in shape[1:])
    return shape[1:] if known else None
