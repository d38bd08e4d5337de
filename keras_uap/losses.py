"""What a gradient update minimises so that images get fooled.

Each loss takes `y_true`, the class to leave (or to reach, if `targeted`), as
integers `(n,)`, and `y_pred`, the logits `(n, num_classes)`, and returns one
value per image. Small is fooled. Both are capped: an image that is already
fooled well no longer pulls on the perturbation that all images share. (Caps
on the cross-entropy are due to Shafahi et al., who show that one image can
otherwise dominate a batch without bound.)

Reference:
    - [Shafahi et al., 2018](https://arxiv.org/abs/1811.11304)
"""

import collections

import keras
import tensorflow as tf

from keras_uap.checks import check_number

# What a `BatchLoss` sees beside labels and logits: the features `(n, d)` of the
# perturbed and of the clean images, or None; and its own `summary`.
Seen = collections.namedtuple("Seen", ["features", "clean_features", "summary"])


class BatchLoss(keras.losses.Loss):
    """Base of losses that see more than the labels and logits of an image.

    Subclasses implement `call(y_true, y_pred, seen)`, with a `Seen`, and
    return one value per image.

    Attributes:
        needs_features: Boolean, whether features are wanted: the inputs of
            the classifier's head. The clean ones cost a forward an image.
        layer: String, the layer whose output is taken for the features, or
            `None` for the head's inputs.
    """

    needs_features = False
    layer = None

    def summary(self, y_true, y_pred):
        """What the loss must know of the whole batch, or None.

        Args:
            y_true, y_pred: As in `call`, of the images of one device.

        Returns:
            A tensor that is added up over the devices. It is given back in
            `seen` and has no gradient.
        """
        return None


@keras.saving.register_keras_serializable(package="keras_uap")
class ClippedCrossentropy(keras.losses.Loss):
    """The negative cross-entropy of the clean prediction, capped.

    With `targeted=True`, the cross-entropy of the target class, whose floor
    of 0 is its own cap.

    Args:
        cap: Float above 0, in nats: cross-entropy above it no longer counts.
        targeted: Boolean, whether `y_true` is the class to reach.
    """

    def __init__(
        self, cap=9.0, targeted=False, name="clipped_crossentropy", **kwargs
    ):
        super().__init__(name=name, **kwargs)
        check_number("cap", cap, above=0)
        self.cap = float(cap)
        self.targeted = bool(targeted)

    def call(self, y_true, y_pred):
        crossentropy = tf.nn.sparse_softmax_cross_entropy_with_logits(
            tf.cast(y_true, "int64"), tf.cast(y_pred, "float32")
        )
        if self.targeted:
            return crossentropy
        return -tf.minimum(crossentropy, self.cap)

    def get_config(self):
        config = super().get_config()
        config.update({"cap": self.cap, "targeted": self.targeted})
        return config


@keras.saving.register_keras_serializable(package="keras_uap")
class Margin(keras.losses.Loss):
    """The lead of the clean prediction's logit over the best other logit.

    Below zero the image is fooled; past `-cap` it no longer counts. With
    `targeted=True`, the lead of the best other logit over the target's.

    Args:
        cap: Float above 0, in logits.
        targeted: Boolean, whether `y_true` is the class to reach.
    """

    def __init__(self, cap=5.0, targeted=False, name="margin", **kwargs):
        super().__init__(name=name, **kwargs)
        check_number("cap", cap, above=0)
        self.cap = float(cap)
        self.targeted = bool(targeted)

    def call(self, y_true, y_pred):
        y_pred = tf.cast(y_pred, "float32")
        chosen = tf.one_hot(tf.cast(y_true, "int64"), y_pred.shape[-1])
        own = tf.reduce_sum(y_pred * chosen, axis=-1)
        other = tf.reduce_max(
            tf.where(chosen > 0, y_pred.dtype.min, y_pred), axis=-1
        )
        lead = other - own if self.targeted else own - other
        return tf.maximum(lead, -self.cap)

    def get_config(self):
        config = super().get_config()
        config.update({"cap": self.cap, "targeted": self.targeted})
        return config


_LOSSES = {"crossentropy": ClippedCrossentropy, "margin": Margin}


def get(loss, targeted=False):
    """Returns the loss for a name; a `keras.losses.Loss` passes through.

    Args:
        loss: `"crossentropy"`, `"margin"` or a `keras.losses.Loss` whose
            `call` returns one value per image, small where fooled.
        targeted: Boolean, whether a named loss is to reach the class.

    Raises:
        ValueError: for an unknown name, or one of Keras' own losses, which
            are small where the classifier is right.
        TypeError: if `loss` is neither a name nor a `keras.losses.Loss`.
    """
    if isinstance(loss, keras.losses.Loss):
        _refuse_other_aim(loss, targeted)
        return loss
    if not isinstance(loss, str):
        raise TypeError(
            "loss must be a name or a keras.losses.Loss. "
            f"Received: loss={loss!r} of type {type(loss).__name__}."
        )
    if loss not in _LOSSES:
        raise ValueError(
            f"Unknown loss. Received: loss={loss!r}. Expected one of "
            f"{sorted(_LOSSES)} or a keras.losses.Loss."
        )
    return _LOSSES[loss](targeted=targeted)


def _refuse_other_aim(loss, targeted):
    """Refuses Keras' own losses, but for one that reaches a target."""
    if not type(loss).__module__.startswith("keras."):
        return
    # With a target in the place of the label, this one is right.
    reaches = isinstance(loss, keras.losses.SparseCategoricalCrossentropy)
    if targeted and reaches and loss.get_config()["from_logits"]:
        return
    raise ValueError(
        "Keras' own losses are small where the classifier is right, and a "
        "perturbation is to make it wrong. Received: "
        f"loss={type(loss).__name__}. Pass 'crossentropy', which is the "
        "cross-entropy turned round, 'margin', or a loss of your own that is "
        "small where an image is fooled."
    )
