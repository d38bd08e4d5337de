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
    check_classifier,
    check_predictions,
    compile_logits,
    features_function,
    folded_logits,
    logits_function,
    predict_logits,
)
from keras_uap.perturbations.pixels import shape_hint
from keras_uap.utils.keras_compat import all_layers
from keras_uap.utils.validation import check_axes


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


# How far logits may differ by rounding, as a share of their range. In float32,
# that makes less than 1e-4 in the worst networks; a wrong copy, about 1.
_ROUNDING, _ROUNDING_OF_16_BITS = 1e-3, 3e-2


class ClassifierAdapter:
    """Logits, labels and features of a classifier, each traced once.

    Args:
        classifier: Keras model that maps images to class scores.
        image_shape: Tuple `(H, W, C)`.
        from_logits: Boolean, whether the classifier returns logits; `None`
            finds out.
        images: Array of a few images, to try the classifier on.

    Attributes:
        classifier: The Keras model.
        image_shape: Tuple `(H, W, C)`.
        is_function: Boolean, whether an image has the same scores each time;
            `None` before it was tried.
        logits: Function from a tensor of images to logits, to be
            differentiated or compiled.

    Raises:
        TypeError, ValueError: as `logits_function`, or if the classifier takes
            images of another shape.
    """

    def __init__(self, classifier, image_shape, from_logits=None, images=None):
        check_classifier(classifier)
        check_axes((None, *image_shape))
        self.classifier = classifier
        self.image_shape = tuple(image_shape)
        self._from_logits = from_logits
        stated = stated_shape(classifier)
        if stated not in (None, self.image_shape):
            raise ValueError(
                "The images do not have the size that the classifier takes. "
                f"Received: {self.image_shape}. Expected: {stated}."
                f"{shape_hint(self.image_shape, stated)}"
            )
        dtypes = {layer.compute_dtype for layer in all_layers(classifier)}
        exact = not dtypes & {"float16", "bfloat16"}
        self._rounding = _ROUNDING if exact else _ROUNDING_OF_16_BITS
        self.is_function = None
        self._trace(images)
        if images is not None:
            self._try(tf.cast(images, "float32"))

    def _trace(self, images):
        """Makes all functions of the classifier as it is now."""
        classifier, shape = self.classifier, self.image_shape
        self.logits = logits_function(classifier, self._from_logits, images)
        self._of_scores = getattr(self.logits, "of_scores", None)
        # Traced once, for all batch sizes.
        self.compiled_logits = compile_logits(self.logits, shape)
        self._compiled_features = {}
        self._folding = BatchNormalizationFolding()
        folded = folded_logits(classifier, self._of_scores, self._folding.fold)
        self._attacked = self.compiled_logits
        if self._folding.layers:
            self._attacked = compile_logits(folded, shape)

    def _try(self, images):
        """Warns of a classifier that is not a function of each image alone."""
        # In another batch, a few times each: random draws and the statistics
        # of a batch are other ones there.
        again = self.compiled_logits(np.repeat(images[:2], 16, axis=0))
        expected = np.repeat(self.compiled_logits(images)[:2], 16, axis=0)
        self.is_function = not self._differ(again, expected)
        if not self.is_function:
            warnings.warn(
                "The classifier is random, or its scores depend on the rest of "
                "the batch: an image shown again has others. Rates count that "
                "as fooled. Build it so that training=False turns this off.",
                stacklevel=4,
            )

    def _differ(self, some, others):
        """How far logits differ, 0.0 if rounding explains it."""
        some, others = np.asarray(some), np.asarray(others)
        if some.shape != others.shape:
            return np.inf
        # Logits that are not finite are so in both, and decide nothing.
        finite = np.isfinite(some) & np.isfinite(others)
        some, others = (np.where(finite, z, 0.0) for z in (some, others))
        difference = np.abs(some - others).max()
        most = self._rounding * np.ptp(others)
        return difference if difference > most else 0.0

    @property
    def num_classes(self):
        """The number of classes. The first time, it traces."""
        traced = self.compiled_logits.get_concrete_function()
        return traced.outputs[0].shape[-1]

    def refresh(self, images):
        """Makes everything follow the classifier as it is now.

        A trace holds what is no variable: the statistics of a `Normalization`,
        and which layers there are. If the classifier no longer gives the logits
        of the trace, all is traced again. If the folded copy does not give
        them, attacks use the classifier itself from here on, with a warning.

        Args:
            images: Float32 array of a few images.

        Returns:
            Boolean, whether that changed: functions traced before are stale.
        """
        self._folding.update()
        exact, classifier = self.compiled_logits(images), self.classifier
        if self.is_function is None:
            now = logits_function(classifier, self._from_logits, images)
            self._try(images)
        else:  # Other images must not change what the scores are.
            now = folded_logits(classifier, self._of_scores, lambda x: x)
        if not self.is_function:
            return False
        stale = now is None or bool(self._differ(now(images), exact))
        if stale:
            self._trace(images)
            exact = self.compiled_logits(images)
        difference = self._differ(self._attacked(images), exact)
        if not difference:
            return stale
        warnings.warn(
            f"The copy of {self.classifier.name!r} without batch normalization "
            f"differs from it by up to {difference:.2g} in its "
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
        logits = self.compiled_logits if exact else self._attacked
        return _inside(logits)(images)

    def forward_for(self, images, loss):
        """Features and logits as `forward` gives them.

        Args:
            images: Float32 tensor `(n, H, W, C)`.
            loss: `BatchLoss`. Features are `None` unless it needs them.
        """
        if not loss.needs_features:
            return None, self.forward(images)
        exact = _several_replicas() or not self._folds
        return _inside(self.compiled_features(loss.layer, exact))(images)

    def features_function(self, layer=None):
        """From a tensor of images to features and logits."""
        return self.compiled_features(layer).python_function

    def compiled_features(self, layer=None, exact=True):
        """`features_function`, compiled; traced once, as the logits are."""
        key = layer, exact
        if key not in self._compiled_features:
            fold = None if exact else self._folding.fold
            known = self.classifier, layer, self._of_scores
            plain = features_function(*known, fold)
            compiled = compile_logits(plain, self.image_shape)
            self._compiled_features[key] = compiled
        return self._compiled_features[key]

    def num_features(self, layer=None):
        """How many features an image has; `None` if that is not known."""
        traced = self.compiled_features(layer).get_concrete_function()
        return traced.outputs[0].shape[-1]

    def labels_and_features(self, images, layer=None, verbose=0):
        """Integer labels `(n,)` and features `(n, d)` of an array."""
        function = self.compiled_features(layer, not self._folds)
        features, logits = predict_logits(function, images, verbose=verbose)
        check_predictions(logits)
        return logits.argmax(axis=-1), features

    def predict(self, images, transform=None, batch_size=32, verbose=0):
        """Logits `(n, num_classes)` of an array; see `predict_logits`.

        Raises:
            ValueError: if the scores of an image are not finite.
        """
        options = transform, batch_size, verbose
        logits = predict_logits(self.compiled_logits, images, *options)
        check_predictions(logits)
        return logits

    def confidences(self, logits):
        """The probabilities that the classifier states, from its logits."""
        return np.asarray(self.logits.probabilities(logits))

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
