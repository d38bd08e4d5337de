"""Metrics of a perturbation.

The *fooling rate* is the share of images whose predicted label differs from
the classifier's own prediction on the clean image. Labels of a dataset play
no part in it: an image that the classifier got wrong from the start is not
fooled until its prediction changes. (The rate that compares with given labels
is the error rate; some tools call it by this name.)

Reference:
    - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401)
"""

import keras
import numpy as np
import tensorflow as tf

from keras_uap.classifiers.logits import labels_of
from keras_uap.utils.keras_compat import higher_is_better


@keras.saving.register_keras_serializable(package="keras_uap")
class FoolingRate(keras.metrics.Mean):
    """Share of images whose label differs from the clean prediction.

    `update_state(clean, perturbed)` takes the predictions of the same images
    without and with the perturbation, each as integer labels `(n,)` or as
    scores `(n, num_classes)`. The result is in [0, 1], or NaN if scores are
    not finite.

    Example:

    ```python
    rate = keras_uap.FoolingRate()
    rate.update_state(model.predict(images), model.predict(images + v))
    rate.result()
    ```
    """

    def __init__(self, name="fooling_rate", dtype=None):
        super().__init__(name=name, dtype=dtype)
        higher_is_better(self)

    def update_state(self, clean, perturbed, sample_weight=None):
        (clean, known), (perturbed, also) = _labels(clean), _labels(perturbed)
        fooled = tf.cast(tf.not_equal(clean, perturbed), "float32")
        # Scores that are not finite are no prediction, and show as NaN.
        fooled = tf.where(known & also, fooled, np.nan)
        return super().update_state(fooled, sample_weight=sample_weight)


def _labels(predictions):
    """Integer labels `(n,)` from labels or scores, and which are known."""
    predictions = tf.convert_to_tensor(predictions)
    shape = tuple(predictions.shape)
    if len(shape) == 2 and shape[-1] != 1:
        if not predictions.dtype.is_floating:
            predictions = tf.cast(predictions, "float32")
        labels = labels_of(predictions)
        return labels, labels >= 0
    if len(shape) != 1:
        raise ValueError(
            "Expected integer labels of shape (n,) or scores of shape "
            "(n, num_classes). A single output is ambiguous (logit or "
            f"probability): pass labels. Received: shape {shape}."
        )
    return tf.cast(predictions, "int64"), True


class Rates:
    """The metrics that training and evaluation of a perturbation share.

    Args:
        target: Integer, the class to send images to, or `None`.

    Attributes:
        metrics: List of `keras.metrics.Metric`, in the order of `evaluate`.
        monitored: List of those that callbacks may monitor.
    """

    def __init__(self, target):
        self._target = target
        self.fooling = FoolingRate()
        target_rate = keras.metrics.Mean(name="target_rate")
        self._target_rate = higher_is_better(target_rate)
        self._accuracy = keras.metrics.Mean(name="accuracy")
        self.monitored = [self.fooling]
        if target is not None:
            self.monitored.append(self._target_rate)
        self.metrics = [*self.monitored, self._accuracy]

    def update(self, clean, predicted, labels, images):
        """Counts a batch; returns the results by name.

        Args:
            clean, predicted: Integer tensors `(n,)`, the predictions without
                and with the perturbation; -1 where there is none.
            labels: Integer tensor `(n,)`, -1 where one is no class, which
                makes the accuracy NaN; or `None`.
            images: Tensor `(n, ...)`. One that is not finite, or that has no
                prediction, makes the fooling rate NaN.
        """
        axes = list(range(1, images.shape.rank))
        finite = tf.reduce_all(tf.math.is_finite(images), axis=axes)
        finite &= (clean >= 0) & (predicted >= 0)
        weights = tf.where(finite, 1.0, np.nan)
        self.fooling.update_state(clean, predicted, weights)
        updated = [*self.monitored]
        if self._target is not None:
            # An image that is there already cannot be sent there.
            self._target_rate.update_state(
                tf.cast(predicted == self._target, "float32"),
                tf.cast(clean != self._target, "float32"),
            )
        if labels is not None:
            self._accuracy.update_state(
                tf.cast(predicted == labels, "float32"),
                tf.where(labels >= 0, 1.0, np.nan),
            )
            updated.append(self._accuracy)
        return {metric.name: metric.result() for metric in updated}

    def check(self, name):
        """Raises ValueError for no image, NaN, or labels that are no class.

        Args:
            name: String, the argument that held the images.
        """
        if self.fooling.count.value.numpy() == 0:
            raise ValueError(f"{name} is empty when it is read again.")
        if np.isnan(self.fooling.result()):
            raise ValueError(
                f"{name} must be finite, as the classifier's scores. Received: "
                "NaN or infinity. Remove such images, or fix the classifier."
            )
        if np.isnan(self._accuracy.result()):
            raise ValueError(
                f"{name} must hold labels that are classes of the classifier, "
                "from 0. Received: others. Leave them out, or mend them."
            )
