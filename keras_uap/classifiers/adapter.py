"""A classifier under attack: images in, logits, labels and features out.

An adapter is made once and handed down. It checks the classifier, finds its
logits, and traces each function once for all batch sizes. Wherever the package
takes a classifier, it takes an adapter in its place.

Attacks run on a copy of the classifier whose batch normalization is folded,
which gives the same logits up to rounding for less work. What is reported is
measured on the classifier itself.
"""

import warnings

import numpy as np
import tensorflow as tf

from keras_uap.classifiers.folding import BatchNormalizationFolding
from keras_uap.classifiers.logits import (
    check_predictions,
    compile_logits,
    features_function,
    folded_logits,
    logits_function,
    predict_logits,
    same_labels,
)


def as_adapter(classifier, image_shape, from_logits=None, images=None):
    """Returns the adapter of a classifier, or the adapter that is given.

    Args:
        classifier: Keras model that maps images to class scores, or a
            `ClassifierAdapter`, which is returned as it is.
        image_shape: Tuple `(H, W, C)`.
        from_logits: Boolean or `None`, as for `ClassifierAdapter`.
        images: As for `ClassifierAdapter`.

    Raises:
        TypeError, ValueError: as `ClassifierAdapter`, or if an adapter is for
            images of another shape.
    """
    if not isinstance(classifier, ClassifierAdapter):
        return ClassifierAdapter(classifier, image_shape, from_logits, images)
    if classifier.image_shape != tuple(image_shape):
        raise ValueError(
            f"The classifier was adapted to images {classifier.image_shape}. "
            f"Received: images of shape {tuple(image_shape)}."
        )
    return classifier


# How far the logits of the folded copy may differ, as a share of their range.
# Rounding makes less than 1e-4 in the worst networks; a wrong copy, about 1.
_ROUNDING = 1e-3


class ClassifierAdapter:
    """Logits, labels and features of a classifier, each traced once.

    Args:
        classifier: Keras model that maps images to class scores.
        image_shape: Tuple `(H, W, C)`.
        from_logits: Boolean, whether the classifier returns logits; `None`
            finds out.
        images: Array of a few images, to try an opaque classifier on.

    Attributes:
        classifier: The Keras model.
        image_shape: Tuple `(H, W, C)`.
        logits: Function from a tensor of images to logits, to be
            differentiated or compiled.

    Raises:
        TypeError, ValueError: as `logits_function`.
    """

    def __init__(self, classifier, image_shape, from_logits=None, images=None):
        self.classifier = classifier
        self.image_shape = tuple(image_shape)
        self.logits = logits_function(classifier, from_logits, images)
        self._of_scores = getattr(self.logits, "of_scores", None)
        # Traced once, for all batch sizes.
        self.compiled_logits = compile_logits(self.logits, image_shape)
        self._compiled_features = {}
        self._folding = BatchNormalizationFolding()
        folded = folded_logits(classifier, self._of_scores, self._folding.fold)
        self._attacked = self.compiled_logits
        if self._folding.layers:
            self._attacked = compile_logits(folded, image_shape)

    @property
    def num_classes(self):
        """The number of classes. The first time, it traces."""
        traced = self.compiled_logits.get_concrete_function()
        return traced.outputs[0].shape[-1]

    def agrees(self, images):
        """Whether the labels are those of the classifier.

        Args:
            images: Array of a few images.
        """
        if self._of_scores is not None:
            return True  # They are its own scores.
        images = tf.cast(images, "float32")
        return same_labels(self.compiled_logits, self.classifier, images)

    def refresh(self, images):
        """Makes attacks follow the classifier as it is now.

        If the folded copy does not give the classifier's logits, attacks use
        the classifier itself from here on, with a warning.

        Args:
            images: Float32 array of a few images.

        Returns:
            Boolean, whether that changed: functions traced before are stale.
        """
        if not self._folds:
            return False
        self._folding.update()
        exact = self.compiled_logits(images).numpy()
        difference = np.abs(self._attacked(images).numpy() - exact)
        # Logits that are not finite are so in both, and decide nothing.
        finite = np.nan_to_num(exact, nan=0.0, posinf=0.0, neginf=0.0)
        most = _ROUNDING * np.ptp(finite)
        if not np.any(difference > most):
            return False
        warnings.warn(
            f"The copy of {self.classifier.name!r} without batch normalization "
            f"differs from it by up to {np.nanmax(difference):.2g} in its "
            "logits. Attacks use the classifier itself, which takes longer.",
            stacklevel=2,
        )
        self._attacked = self.compiled_logits
        return True

    @property
    def _folds(self):
        return self._attacked is not self.compiled_logits

    def forward(self, images, exact=False):
        """Logits of a float32 tensor, inside a function that is traced.

        The compiled function is called, so that all attacks share one trace.
        Several replicas and eager debugging need the plain one.

        Args:
            images: Float32 tensor `(n, H, W, C)`.
            exact: Boolean, whether they are reported: attacks take those of
                the folded copy.
        """
        exact = exact or _several_replicas()
        return _inside(self.compiled_logits if exact else self._attacked)(
            images
        )

    def forward_with_features(self, images, layer=None):
        """Features and logits of a float32 tensor, as `forward` gives them."""
        exact = _several_replicas() or not self._folds
        return _inside(self.compiled_features(layer, exact))(images)

    def features_function(self, layer=None):
        """From a tensor of images to features and logits."""
        return self.compiled_features(layer).python_function

    def compiled_features(self, layer=None, exact=True):
        """`features_function`, compiled; traced once, as the logits are."""
        key = layer, exact
        if key not in self._compiled_features:
            plain = features_function(
                self.classifier,
                layer,
                self._of_scores,
                None if exact else self._folding.fold,
            )
            compiled = compile_logits(plain, self.image_shape)
            self._compiled_features[key] = compiled
        return self._compiled_features[key]

    def num_features(self, layer=None):
        """How many features an image has; `None` if that is not known."""
        traced = self.compiled_features(layer).get_concrete_function()
        return traced.outputs[0].shape[-1]

    def labels_and_features(self, images, layer=None, batch_size=32, verbose=0):
        """Integer labels `(n,)` and features `(n, d)` of an array."""
        features, logits = predict_logits(
            self.compiled_features(layer, not self._folds),
            images,
            None,
            batch_size,
            verbose,
        )
        check_predictions(logits)
        return logits.argmax(axis=-1), features

    def predict(self, images, transform=None, batch_size=32, verbose=0):
        """Logits `(n, num_classes)` of an array; see `predict_logits`.

        Raises:
            ValueError: if the scores of an image are not finite.
        """
        logits = predict_logits(
            self.compiled_logits, images, transform, batch_size, verbose
        )
        check_predictions(logits)
        return logits

    def labels(self, images, *args, **kwargs):
        """Integer labels `(n,)` of an array, else as `predict`."""
        return self.predict(images, *args, **kwargs).argmax(axis=-1)


def _several_replicas():
    return tf.distribute.get_strategy().num_replicas_in_sync > 1


def _inside(compiled):
    """What an attack calls in the place of a compiled function."""
    plain = _several_replicas() or tf.executing_eagerly()
    return compiled.python_function if plain else compiled


def stated_shape(classifier):
    """The image shape that a classifier states, or None."""
    shape = getattr(classifier, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) < 2:
        return None
    known = all(isinstance(size, int) for size in shape[1:])
    return shape[1:] if known else None
