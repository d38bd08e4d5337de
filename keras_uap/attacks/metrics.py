"""Metrics of a perturbation.

The *fooling rate* is the share of images whose predicted label differs from
the classifier's own prediction on the clean image. Labels of a data set play
no part in it: an image that the classifier got wrong from the start is not
fooled until its answer changes. (What compares with given labels is the error
rate, and other tools sometimes call that by this name.)

Reference:
    - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401)
"""

import keras
import tensorflow as tf

from keras_uap.utils.keras_compat import higher_is_better


@keras.saving.register_keras_serializable(package="keras_uap")
class FoolingRate(keras.metrics.Mean):
    """Share of images whose label differs from the clean prediction.

    `update_state(clean, perturbed)` takes the predictions of the same images
    without and with the perturbation, each as integer labels `(n,)` or as
    scores `(n, num_classes)`. The result is in [0, 1].

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
        fooled = tf.not_equal(_labels(clean), _labels(perturbed))
        return super().update_state(
            tf.cast(fooled, "float32"), sample_weight=sample_weight
        )


def _labels(predictions):
    """Integer labels `(n,)` from labels or scores."""
    predictions = tf.convert_to_tensor(predictions)
    if len(predictions.shape) == 2:
        if predictions.shape[-1] == 1:
            raise ValueError(
                "Scores of a single output are ambiguous (logit or "
                "probability). Pass integer labels of shape (n,) instead. "
                f"Received: shape {tuple(predictions.shape)}."
            )
        return tf.argmax(predictions, axis=-1)
    if len(predictions.shape) != 1:
        raise ValueError(
            "Expected integer labels of shape (n,) or scores of shape "
            f"(n, num_classes). Received: shape {tuple(predictions.shape)}."
        )
    return tf.cast(predictions, "int64")


def sparse_labels(labels):
    """Integer labels `(n,)` from integer or one-hot labels."""
    # A function that has seen both kinds knows nothing of their rank.
    rows = tf.reshape(labels, [tf.shape(labels)[0], -1])
    return tf.where(
        tf.shape(rows)[1] == 1,
        tf.cast(rows[:, 0], "int64"),
        tf.argmax(rows, axis=-1),
    )
