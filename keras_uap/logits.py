"""Any classifier as a function from images to logits.

DeepFool and the losses need the scores *before* the softmax: a saturated
softmax has no gradient. Where the classifier's head can be read (Functional
and Sequential models), it is rebuilt without its activation on the same
weights, and the result is exact. Elsewhere the logarithm of the probabilities
stands in: its differences equal the differences of the logits.

A model with one output is a two-class classifier. Its logit `z` becomes
`(0, z)`, so that class 1 wins where `z > 0`.

The caller's model is only read. It is always called with `training=False`.
"""

import keras
import numpy as np
import tensorflow as tf


class UndecidedError(ValueError):
    """The classifier must be tried on images to tell what it returns."""


# log(p) for p = 0 must stay finite; this is near float32's smallest number.
_TINY = 1e-37


def logits_function(classifier, from_logits=None, images=None):
    """Returns a function from images to float32 logits.

    Args:
        classifier: Keras model, or any callable layer, that maps images
            `(n, ...)` to class scores `(n, num_classes)` or `(n, 1)`.
        from_logits: Boolean, whether the classifier returns logits (`True`)
            or probabilities (`False`). `None` finds out: from the last
            layer's activation, or else from the scores of `images`.
        images: Array `(n, ...)`, a few images to try an opaque classifier on.
            Needed only where `from_logits` is `None` and the last layer does
            not tell.

    Returns:
        A function from a float tensor `(n, ...)` to a float32 tensor
        `(n, num_classes)`, with `num_classes` of at least 2.

    Raises:
        TypeError: if `classifier` is not a Keras model or layer.
        ValueError: if it does not return class scores, or if it cannot be
            told whether they are logits.
    """
    if not isinstance(classifier, keras.Layer):
        raise TypeError(
            "classifier must be a Keras model that maps images to class "
            f"scores. Received: classifier={classifier!r} of type "
            f"{type(classifier).__name__}."
        )
    if not (from_logits is None or isinstance(from_logits, bool)):
        raise ValueError(
            "from_logits must be None, True or False. "
            f"Received: from_logits={from_logits!r}."
        )
    head = None if from_logits else _rebuilt_head(classifier)
    if head is not None:
        return _checked(head)
    if from_logits is None:
        from_logits = _tell_from_scores(classifier, images)

    def scores(images):
        outputs = classifier(images, training=False)
        check_scores(outputs)
        return tf.cast(outputs, "float32")

    if from_logits:
        return _checked(scores)
    return _checked(lambda images: _probabilities_to_logits(scores(images)))


def compile_logits(logits, image_shape):
    """Compiles a logits function, traced once for all batch sizes.

    Args:
        logits: Function as `logits_function` gives.
        image_shape: Tuple `(H, W, C)`.
    """
    return tf.function(
        logits,
        input_signature=[tf.TensorSpec((None, *image_shape), "float32")],
        autograph=False,
    )


def predict_logits(
    logits, images, transform=None, batch_size=32, verbose=0, unit="image"
):
    """Runs a logits function over an array, batch by batch.

    Args:
        logits: Function from images to logits.
        images: Array `(n, H, W, C)`.
        transform: Function from a float32 batch to a batch, applied first.
        batch_size: Integer.
        verbose: `"auto"`, 0, 1 or 2, as in Keras.
        unit: String, what the progress bar counts.

    Returns:
        Float32 NumPy array `(n, num_classes)`.
    """
    progress = keras.utils.Progbar(
        len(images), verbose=1 if verbose == "auto" else verbose, unit_name=unit
    )
    parts = []
    for start in range(0, len(images), batch_size):
        batch = tf.cast(images[start : start + batch_size], "float32")
        batch = batch if transform is None else transform(batch)
        parts.append(np.asarray(logits(batch)))
        progress.update(start + len(parts[-1]))
    return np.concatenate(parts)


def _checked(function):
    """Wraps a logits function: checks its shape, makes one logit two."""

    def logits(images):
        scores = function(images)
        check_scores(scores)
        if scores.shape[-1] == 1:
            return tf.concat([tf.zeros_like(scores), scores], axis=-1)
        return scores

    return logits


def check_scores(scores):
    """Raises ValueError unless `scores` is one tensor of class scores."""
    if isinstance(scores, (dict, list, tuple)):
        names = list(scores) if isinstance(scores, dict) else len(scores)
        raise ValueError(
            "The classifier must return one tensor of class scores. "
            f"Received: {len(scores)} outputs ({names}). "
            "keras_uap.attach(classifier, output=...) chooses one."
        )
    if len(scores.shape) != 2 or scores.shape[-1] is None:
        raise ValueError(
            "The classifier must return class scores of shape "
            f"(batch, num_classes). Received: shape {tuple(scores.shape)}. A "
            "model without a classification head (include_top=False) has no "
            "class to change."
        )


def _probabilities_to_logits(p):
    if p.shape[-1] == 1:
        return tf.math.log(tf.maximum(p, _TINY)) - tf.math.log(
            tf.maximum(1.0 - p, _TINY)
        )
    return tf.math.log(tf.maximum(p, _TINY))


def _rebuilt_head(model):
    """Returns `model` up to its logits as a function, or None if opaque."""
    tensor = _output_tensor(model)
    if tensor is None:
        return None
    history = tensor._keras_history
    layer = history.operation
    activation = getattr(layer, "activation", None)
    activation_name = getattr(activation, "__name__", None)
    is_softmax = isinstance(layer, keras.layers.Softmax)

    if isinstance(layer, keras.layers.Dense):
        if activation_name == "linear":
            return lambda images: tf.cast(
                model(images, training=False), "float32"
            )
        quantized = getattr(layer, "quantization_mode", None) is not None
        if activation_name not in ("softmax", "sigmoid") or quantized:
            return None
        if activation_name == "softmax" and layer.units == 1:
            raise ValueError(
                "The classifier must have at least two classes. Received: a "
                "softmax over one output, which is always 1. Where it stands "
                "for two classes, its activation is the sigmoid."
            )
        features = _up_to_layer(model, history)

        def dense_logits(images):
            x = tf.cast(features(images, training=False), "float32")
            x = tf.matmul(x, tf.cast(layer.kernel, "float32"))
            if layer.use_bias:
                x = x + tf.cast(layer.bias, "float32")
            return x

        return dense_logits
    if is_softmax or (
        isinstance(layer, keras.layers.Activation)
        and activation_name in ("softmax", "sigmoid")
    ):
        features = _up_to_layer(model, history)
        return lambda images: tf.cast(
            features(images, training=False), "float32"
        )
    if isinstance(layer, keras.Model):  # A model used as the last layer.
        inner = _rebuilt_head(layer)
        if inner is None:
            return None
        features = _up_to_layer(model, history)
        return lambda images: inner(features(images, training=False))
    return None


def has_layer_graph(model):
    """Whether a model is what its layer graph says: `inputs`, `outputs`."""
    # A subclass with a `call` of its own need not follow its layer graph.
    call = getattr(type(model).call, "__qualname__", "")
    graph = call in ("Functional.call", "Sequential.call")
    return graph and bool(getattr(model, "outputs", None))


def _output_tensor(model):
    """The symbolic output of a Functional or Sequential model, or None."""
    if not has_layer_graph(model):
        return None
    outputs = model.outputs
    check_scores(outputs[0] if len(outputs) == 1 else outputs)
    return outputs[0]


def _up_to_layer(model, history):
    """The part of `model` that ends where its last layer begins."""
    node = history.operation._inbound_nodes[history.node_index]
    # Keras warns where one image tensor meets a list of one input.
    inputs = model.inputs if len(model.inputs) > 1 else model.inputs[0]
    # A model as the last layer may take several tensors.
    arguments = node.arguments.args or node.input_tensors
    return keras.Model(inputs, arguments[0])


def _tell_from_scores(classifier, images):
    """Whether an opaque classifier returns logits, told from its scores."""
    if images is None:
        raise UndecidedError(
            "Cannot tell from the classifier's last layer whether it returns "
            "logits or probabilities. Pass from_logits=True or "
            "from_logits=False."
        )
    scores = classifier(images, training=False)
    check_scores(scores)
    scores = np.asarray(tf.cast(scores, "float32"))
    inside = np.all((scores >= 0) & (scores <= 1))
    if scores.shape[-1] == 1 and inside:
        raise ValueError(
            "The classifier has a single output, between 0 and 1 on the first "
            "images: it can be a probability or a logit. Pass "
            "from_logits=True or from_logits=False."
        )
    sums_to_one = np.allclose(scores.sum(axis=-1), 1.0, atol=1e-2)
    return not (inside and sums_to_one)
