"""What a gradient update minimises so that images are fooled.

Each loss takes `y_true`, the class to leave (or to reach, if `targeted`), as
integers `(n,)`, and `y_pred`, the logits `(n, num_classes)`, and returns one
value per image, small where the image is fooled. Losses of logits are capped:
an image that is already fooled well no longer moves the shared perturbation.
(Caps on the cross-entropy are due to Shafahi et al., who show that one image
can otherwise dominate a batch without bound.)

- `"crossentropy"`, `"margin"`: away from each image's own class.
- `"dominant"`: all images of a batch go to one class, the dominant one.
- `"features"`: away from the clean features, the inputs of the head.
- `"features+dominant"`: both.

Reference:
    - [Shafahi et al., 2018](https://arxiv.org/abs/1811.11304)
    - [FG-UAP, Ye, Cheng and Huang, 2022](https://arxiv.org/abs/2209.13113)
"""

import collections

import keras
import tensorflow as tf

from keras_uap.utils.validation import check_number, invalid


class Seen(collections.namedtuple("Seen", "features clean_features summary")):
    """What a `BatchLoss` sees beside labels and logits.

    Attributes:
        features: Float tensor `(n, d)`, of the perturbed images, or `None`.
        clean_features: Float tensor `(n, d)`, of the clean images, or `None`.
        summary: The value that the loss' `summary` returned.
    """


class BatchLoss(keras.losses.Loss):
    """Base of losses that see more than the labels and logits of an image.

    Subclasses implement `call(y_true, y_pred, seen)`, with a `Seen`, and
    return one value per image.

    Attributes:
        needs_features: Boolean, whether features are wanted: the inputs of
            the classifier's head. The clean ones come with the clean
            predictions, from one forward.
        layer: String, the layer whose output is taken for the features, or
            `None` for the head's inputs.
        with_target: Boolean, whether it can reach a class, or only leave one.
        starts_at_random: Boolean, whether a perturbation of zero is replaced
            by a random one of the ball when a fit begins.
    """

    needs_features = False
    layer = None
    with_target = True
    starts_at_random = False

    def summary(self, y_true, y_pred):
        """What the loss needs from the whole batch, or `None`.

        Args:
            y_true, y_pred: As in `call`, of the images of one device.

        Returns:
            A tensor, or tuple of tensors, that is summed over the devices.
            `seen` holds it, without a gradient.
        """
        return None


class _OfLogits(BatchLoss):
    """A `keras.losses.Loss` that sees labels and logits alone."""

    def __init__(self, loss):
        super().__init__(name=loss.name)
        self._loss = loss

    def call(self, y_true, y_pred, seen):
        return self._loss.call(y_true, y_pred)


def as_batch_loss(loss):
    """Returns a `keras.losses.Loss` as a `BatchLoss`."""
    return loss if isinstance(loss, BatchLoss) else _OfLogits(loss)


class _Capped:
    """Mixin for losses that no longer count past a cap."""

    def __init__(self, cap, targeted, **kwargs):
        super().__init__(**kwargs)
        check_number("cap", cap, above=0)
        self.cap = float(cap)
        self.targeted = bool(targeted)

    def get_config(self):
        config = {"cap": self.cap, "targeted": self.targeted}
        return super().get_config() | config


@keras.saving.register_keras_serializable(package="keras_uap")
class ClippedCrossentropy(_Capped, keras.losses.Loss):
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
        super().__init__(cap, targeted, name=name, **kwargs)

    def call(self, y_true, y_pred):
        crossentropy = tf.nn.sparse_softmax_cross_entropy_with_logits(
            tf.cast(y_true, "int64"), tf.cast(y_pred, "float32")
        )
        if self.targeted:
            return crossentropy
        return -tf.minimum(crossentropy, self.cap)


@keras.saving.register_keras_serializable(package="keras_uap")
class Margin(_Capped, keras.losses.Loss):
    """The lead of the clean prediction's logit over the best other logit.

    Below zero the image is fooled; past `-cap` it no longer counts. With
    `targeted=True`, the lead of the best other logit over the target's.

    Args:
        cap: Float above 0, in logits.
        targeted: Boolean, whether `y_true` is the class to reach.
    """

    def __init__(self, cap=5.0, targeted=False, name="margin", **kwargs):
        super().__init__(cap, targeted, name=name, **kwargs)

    def call(self, y_true, y_pred):
        y_true = tf.cast(y_true, "int64")
        y_pred = tf.cast(y_pred, "float32")
        own = tf.gather(y_pred, y_true, batch_dims=1)
        other = tf.reduce_max(other_scores(y_true, y_pred), axis=-1)
        lead = other - own if self.targeted else own - other
        return tf.maximum(lead, -self.cap)


def other_scores(labels, scores):
    """Scores `(n, num_classes)`, with the least float for the own classes."""
    own = tf.one_hot(labels, scores.shape[-1]) > 0
    return tf.where(own, scores.dtype.min, scores)


def dominant_goals(y_true, y_pred, summary):
    """The class that each image of a batch is to be sent to.

    Args:
        y_true: Integer tensor `(n,)`, the classes to leave.
        y_pred: Float tensor `(n, num_classes)`, the logits.
        summary: Float tensor `(num_classes,)`, `class_masses` of the whole
            batch.

    Returns:
        Integer tensor `(n,)`: the class of most mass, and for the images
        whose own class it is, the best of the others.
    """
    dominant = tf.argmax(summary, axis=-1)
    other = tf.argmax(other_scores(y_true, y_pred), axis=-1)
    return tf.where(tf.equal(y_true, dominant), other, dominant)


def class_masses(y_true, y_pred):
    """Softmax probability by class, without that of each image's own class.

    Args:
        y_true: Integer tensor `(n,)`, the images' own classes.
        y_pred: Float tensor `(n, num_classes)`, the logits.

    Returns:
        Float tensor `(num_classes,)`, the sum over the images.
    """
    own = tf.one_hot(y_true, y_pred.shape[-1])
    others = tf.nn.softmax(y_pred) * (1.0 - own)
    # One image that is not finite must not decide for all.
    others = tf.where(tf.math.is_finite(others), others, 0.0)
    return tf.reduce_sum(others, axis=0)


@keras.saving.register_keras_serializable(package="keras_uap")
class Dominant(_Capped, BatchLoss):
    """The lead of the clean prediction's logit over the dominant class's.

    The dominant class J is the one that has most probability, other than each
    image's own, over the batch. Most images can be sent there by one
    perturbation, so all are: they no longer pull in different directions. An
    image whose own class is J takes the best of its other classes. Past
    `-cap` an image no longer counts.

    With `targeted=True` the target stands in for J, and the loss is that of
    `Margin`: the lead of the best other logit over the target's.

    Args:
        cap: Float above 0, in logits.
        targeted: Boolean, whether `y_true` is the class to reach.
    """

    def __init__(self, cap=10.0, targeted=False, name="dominant", **kwargs):
        super().__init__(cap, targeted, name=name, **kwargs)

    def summary(self, y_true, y_pred):
        if self.targeted:
            return None
        y_pred = tf.cast(y_pred, "float32")
        return class_masses(tf.cast(y_true, "int64"), y_pred)

    def call(self, y_true, y_pred, seen):
        if self.targeted:
            return Margin(self.cap, targeted=True).call(y_true, y_pred)
        y_true = tf.cast(y_true, "int64")
        y_pred = tf.cast(y_pred, "float32")
        goal = dominant_goals(y_true, y_pred, seen.summary)
        own = tf.gather(y_pred, y_true, batch_dims=1)
        lead = own - tf.gather(y_pred, goal, batch_dims=1)
        return tf.maximum(lead, -self.cap)


@keras.saving.register_keras_serializable(package="keras_uap")
class Features(BatchLoss):
    """The cosine between the features of a clean and of its perturbed image.

    The features are the inputs of the classification head. At v = 0 the cosine
    is 1 and has no gradient, so a fit from zero starts at a random point.

    Args:
        layer: String, the layer whose output is taken instead. `None` takes
            the head's inputs.

    Reference:
        - [Ye, Cheng and Huang, 2022](https://arxiv.org/abs/2209.13113)
    """

    needs_features = True
    with_target = False
    starts_at_random = True

    def __init__(self, layer=None, name="features", **kwargs):
        super().__init__(name=name, **kwargs)
        if not (layer is None or isinstance(layer, str)):
            expected = "a layer's name, or None"
            raise invalid("layer", expected, layer, error=TypeError)
        self.layer = layer

    def call(self, y_true, y_pred, seen):
        features = tf.math.l2_normalize(seen.features, axis=-1)
        clean = tf.math.l2_normalize(seen.clean_features, axis=-1)
        return tf.reduce_sum(features * clean, axis=-1)

    def get_config(self):
        return super().get_config() | {"layer": self.layer}


@keras.saving.register_keras_serializable(package="keras_uap")
class WeightedSum(BatchLoss):
    """A sum of losses: `"features+dominant"` is one.

    Example:

    ```python
    loss = WeightedSum([Features(), Dominant()], [10.0, 1.0])
    ```

    Args:
        losses: List of `keras.losses.Loss`, or names.
        weights: List of as many finite floats. `None` means 1 each.

    Raises:
        ValueError: for another number of weights, or for losses that want the
            features of two layers.
    """

    def __init__(self, losses, weights=None, name="weighted_sum", **kwargs):
        super().__init__(name=name, **kwargs)
        self.losses = [get(loss) for loss in losses]
        self._parts = parts = [as_batch_loss(loss) for loss in self.losses]
        weights = [1.0] * len(parts) if weights is None else weights
        for weight in weights:
            check_number("weights", weight, above=0, below=float("inf"))
        self.weights = [float(weight) for weight in weights]
        layers = {each.layer for each in parts if each.needs_features}
        if not 0 < len(parts) == len(self.weights) or len(layers) > 1:
            raise ValueError(
                "WeightedSum needs a weight for each of its losses, and losses "
                f"that take the features of one layer. Received: {losses} and "
                f"weights={weights}."
            )
        self.needs_features = bool(layers)
        self.layer = next(iter(layers), None)
        self.with_target = all(each.with_target for each in parts)
        self.starts_at_random = any(each.starts_at_random for each in parts)

    def summary(self, y_true, y_pred):
        found = [each.summary(y_true, y_pred) for each in self._parts]
        return tuple(() if each is None else each for each in found)

    def call(self, y_true, y_pred, seen):
        parts = zip(self._parts, self.weights, seen.summary)
        return sum(
            weight * each.call(y_true, y_pred, seen._replace(summary=summary))
            for each, weight, summary in parts
        )

    def get_config(self):
        losses = keras.saving.serialize_keras_object(self.losses)
        config = {"losses": losses, "weights": self.weights}
        return super().get_config() | config

    @classmethod
    def from_config(cls, config):
        losses = keras.saving.deserialize_keras_object(config["losses"])
        return cls(**config | {"losses": losses})


_LOSSES = {
    "crossentropy": ClippedCrossentropy,
    "dominant": Dominant,
    "features": lambda targeted: Features(),
    "features+dominant": lambda targeted: WeightedSum(
        [Features(), Dominant()], [10.0, 1.0], name="features_and_dominant"
    ),
    "margin": Margin,
}


def get(loss, targeted=False):
    """Returns the loss for a name; a `keras.losses.Loss` passes through.

    Args:
        loss: `"crossentropy"`, `"dominant"`, `"features"`,
            `"features+dominant"`, `"margin"` or a `keras.losses.Loss` whose
            `call` returns one value per image, small where fooled.
        targeted: Boolean, whether a named loss is to reach the class.

    Raises:
        ValueError: for an unknown name, or one of Keras' own losses, which
            are small where the classifier is right.
        TypeError: if `loss` is neither a name nor a `keras.losses.Loss`.
    """
    if isinstance(loss, keras.losses.Loss):
        # With a target in the place of the label, this one is right.
        sparse = keras.losses.SparseCategoricalCrossentropy
        right = isinstance(loss, sparse) and loss.get_config()["from_logits"]
        own = type(loss).__module__.startswith("keras.")
        if own and not (targeted and right):
            raise ValueError(
                "Keras' own losses are small where the classifier is right. "
                f"Received: loss={type(loss).__name__}. Pass 'crossentropy', "
                "or another loss that is small where an image is fooled."
            )
        return loss
    if not isinstance(loss, str):
        expected = "a name or a keras.losses.Loss"
        raise invalid("loss", expected, loss, error=TypeError)
    if loss not in _LOSSES:
        expected = f"one of {sorted(_LOSSES)} or a keras.losses.Loss"
        raise invalid("loss", expected, loss)
    return _LOSSES[loss](targeted=targeted)
