"""Any classifier as a function from images to logits.

DeepFool and the losses need the scores *before* the softmax: a saturated
softmax has no gradient. Where the classifier's head can be read (Functional
and Sequential models), it is rebuilt without its activation on the same
weights, and the result is exact. Only a head of Keras' own is rebuilt: a
subclass of `Dense`, or an activation of one's own, may do anything. Elsewhere
the logarithm of the probabilities stands in: its differences equal the
differences of the logits.

A model with one output is a two-class classifier. Its logit `z` becomes
`(0, z)`, so that class 1 wins where `z > 0`.

The caller's model is only read. It is always called with `training=False`.
"""

import warnings

import keras
import numpy as np
import tensorflow as tf

from keras_uap.utils.formatting import cut
from keras_uap.utils.keras_compat import all_layers, graph_nodes, last_operation
from keras_uap.utils.progress import progress_bar
from keras_uap.utils.validation import as_numbers, invalid


class UndecidedError(ValueError):
    """Only images can show whether the classifier returns logits."""


# log(p) for p = 0 must stay finite; this is near float32's smallest number.
_TINY = 1e-37


def check_classifier(classifier):
    """Raises an error for what cannot be attacked as a classifier.

    Raises:
        TypeError: if it is not a Keras model or layer.
        ValueError: if it keeps a state from batch to batch.
    """
    if not isinstance(classifier, keras.Layer):
        expected = "a Keras model or layer, of Keras 3"
        fix = "Attach a folder of tf.saved_model.save; rebuild others in Keras."
        raise invalid("classifier", expected, classifier, fix, TypeError)
    for layer in all_layers(classifier):
        if getattr(layer, "stateful", False):
            raise ValueError(
                "The classifier must keep no state from batch to batch. "
                f"Received: {layer.name!r}. Rebuild it with stateful=False."
            )


def logits_function(classifier, from_logits=None, images=None):
    """Returns a function from images to float32 logits.

    Args:
        classifier: Keras model, or any callable layer, that maps images
            `(n, ...)` to class scores `(n, num_classes)` or `(n, 1)`.
        from_logits: Boolean, whether the classifier returns logits (`True`)
            or probabilities (`False`). `None` finds out: from the last
            layer's activation, or else from the scores of `images`.
        images: Array `(n, ...)`, a few images to try the classifier on.
            Needed where `from_logits` is `None` and the last layer is opaque.
            If given, a rebuilt head whose labels differ from those of the
            classifier is not used.

    Returns:
        A function from a float tensor `(n, ...)` to a float32 tensor
        `(n, num_classes)`, with `num_classes` of at least 2. Its attribute
        `probabilities` is the function from logits to the probabilities that
        the classifier states: `tf.nn.softmax`, or `tf.nn.sigmoid` for several
        sigmoids.

    Raises:
        TypeError: if `classifier` is not a Keras model or layer.
        ValueError: if it cannot be attacked, if it does not return class
            scores, if it is unknown whether they are logits, or if they are no
            probabilities on `images` for `from_logits=False`.
    """
    check_classifier(classifier)
    if not (from_logits is None or isinstance(from_logits, bool)):
        raise invalid("from_logits", "None, True or False", from_logits)

    if images is not None:
        images = tf.cast(images, "float32")
    activation, head = (None, None) if from_logits else _head(classifier)
    logits = head and _checked(head)
    # The classifier's own labels decide, whatever its layers look like.
    if logits and (images is None or same_labels(logits, classifier, images)):
        several = activation is keras.activations.sigmoid
        several = several and classifier.outputs[0].shape[1] > 1
    else:
        if from_logits is None:
            is_linear = activation is keras.activations.linear
            from_logits = is_linear or _returns_logits(classifier, images)
        several = False
        of_scores = keras.activations.linear  # They are logits already.
        if not from_logits:
            of_scores = _probabilities_to_logits
            if images is not None:
                several = _are_sigmoids(_scores(classifier, images))
                of_scores = _log_odds if several else of_scores
        logits = _checked(lambda x: of_scores(_scores(classifier, x)))
        logits.of_scores = of_scores
    logits.probabilities = tf.nn.sigmoid if several else tf.nn.softmax
    if several:
        warnings.warn(
            "The classifier ends in several sigmoids. Only the highest counts, "
            "however many are above 0.5. For logits, pass from_logits=True.",
            stacklevel=2,
        )
    return logits


def folded_logits(classifier, of_scores, fold):
    """Returns what `logits_function` does, with the classifier folded.

    Args:
        classifier: Keras model, for which `logits_function` returned a
            function.
        of_scores: The attribute of that function, or `None` if it has none.
        fold: Function from a model to its copy, as
            `BatchNormalizationFolding.fold`.

    Returns:
        A function from images to logits, or `None` if the classifier no longer
        has a head that is rebuilt.
    """
    if of_scores is None:
        head = _head(classifier, fold)[1]
        return head and _checked(head)
    model = fold(classifier)
    return _checked(lambda images: of_scores(_scores(model, images)))


def features_function(classifier, layer=None, of_scores=None, fold=None):
    """Returns a function from images to features and logits, in one forward.

    The features of an image are what the classifier's head, its last dense
    layer, is given.

    Args:
        classifier: Functional or Sequential Keras model.
        layer: String, the layer whose output is taken instead, the last one
            if the classifier calls it several times.
        of_scores: Function from the classifier's scores to logits, where
            `logits_function` does not rebuild the head and states it.
        fold: Function from a model to a copy that is used in its place, or
            `None`.

    Returns:
        A function from a float tensor `(n, ...)` to a pair of float32 tensors:
        features `(n, d)` and logits `(n, num_classes)`.

    Raises:
        ValueError: if the layers of the classifier cannot be seen, no dense
            layer is at its end and none is named, or there is no such layer.
    """
    path = _path(classifier)
    if not path:
        raise ValueError(
            "Features need a Functional or Sequential model. Received: "
            f"{classifier!r}, whose layers cannot be seen."
        )
    *outer, (model, output) = path
    rebuilds = not of_scores and _head(model)[1] is not None
    before = [_part(each, _input_of(tensor), fold) for each, tensor in outer]
    layers = {each.name: each for each in model.layers}
    if layer is None:
        features = _input_of_dense(output)
        if features is None:
            raise ValueError(
                "The classifier has no dense layer at its end. Name the layer "
                f"whose output is taken: layer=, one of {[*layers][-8:]}."
            )
    elif layer in layers:
        # The layer may also stand in other models, and in several places.
        calls = [n for n in graph_nodes(model) if n.operation is layers[layer]]
        features = calls[-1].outputs[0]
    else:
        last = [*layers][-8:]
        raise ValueError(f"There is no layer {layer!r}. The last are {last}.")
    # The logits as a tensor of the model, or its dense layer's input.
    scores = _input_of(output) if rebuilds else output
    both = _part(model, [features, scores], fold)
    dense = last_operation(output)[0]
    is_dense = rebuilds and hasattr(dense, "kernel")

    def features_and_logits(images):
        features, scores = both(_run(before, images), training=False)
        scores = tf.cast(scores, "float32")
        if is_dense:
            scores = _dense(dense, scores)
        if of_scores is not None:
            scores = of_scores(scores)
        features = tf.cast(features, "float32")
        count = features.shape[1:].num_elements() or -1
        features = tf.reshape(features, (tf.shape(features)[0], count))
        return features, _two_classes(scores)

    return features_and_logits


def labels_of(logits):
    """Integer labels `(n,)` of logits, -1 for images without a prediction.

    NaN and plus infinity are no scores. Minus infinity is the score of a class
    that is switched off, unless all classes have it.
    """
    scores = tf.reduce_all(logits < np.inf, axis=-1)
    scores &= tf.reduce_any(tf.math.is_finite(logits), axis=-1)
    return tf.where(scores, tf.argmax(logits, axis=-1), -1)


def class_indices(labels, num_classes):
    """Class indices `(n,)` of a tensor of labels, -1 for what is no class.

    Args:
        labels: Tensor of class indices `(n,)` or `(n, 1)`, or of one
            probability for each class, `(n, num_classes)`.
        num_classes: Integer.
    """
    rows = tf.reshape(labels, [tf.shape(labels)[0], -1])
    rows = tf.cast(rows, "float64")
    # The rank of the labels may be unknown.
    width, best = tf.shape(rows)[1], tf.argmax(rows, axis=-1)
    index = tf.where(width == 1, rows[:, 0], tf.cast(best, "float64"))
    finite = tf.reduce_all(tf.math.is_finite(rows), axis=-1)
    known = finite & ((width == 1) | (width == num_classes))
    known &= (index >= 0) & (index < num_classes) & (index == tf.floor(index))
    return tf.cast(tf.where(known, index, -1.0), "int64")


def as_labels(name, labels, count, num_classes):
    """Returns the labels of images as class indices `(n,)`, or `None`.

    Args:
        name: String, the argument.
        labels: Array, as for `class_indices`, or `None`.
        count: Integer, the images.
        num_classes: Integer.

    Raises:
        TypeError: if they are not numbers.
        ValueError: if there is not one per image, or one is no class.
    """
    if labels is None:
        return None
    labels = np.atleast_1d(as_numbers(name, labels))
    fit = labels.shape[:1] == (count,) and labels.size
    found = class_indices(labels, num_classes).numpy() if fit else [-1]
    first = int(np.argmin(found))
    if found[first] < 0:
        raise ValueError(
            f"{name} must hold one label per image, a class index from 0 to "
            f"{num_classes - 1}. Received, for {count} images: labels of shape "
            f"{labels.shape}, from place {first} on {cut(labels[first:], 60)}."
        )
    return found


def check_gradient(gradient):
    """Returns a gradient of the scores; raises ValueError if there is none."""
    if gradient is None:
        raise ValueError(
            "The scores have no gradient with respect to the images. Remove "
            "what breaks it: casts to integers, argmax, NumPy code."
        )
    return gradient


def check_predictions(logits):
    """Raises ValueError if an image of an array has no prediction."""
    missing = np.flatnonzero(labels_of(logits).numpy() < 0)
    if len(missing):
        raise ValueError(
            "The classifier must return finite scores. Received: NaN or "
            f"infinity for {len(missing)} of {len(logits)} images, first for "
            f"image {missing[0]}. Leave them out, or fix the classifier."
        )


def compile_logits(logits, image_shape):
    """Compiles a logits function, traced once for all batch sizes.

    Args:
        logits: Function as `logits_function` gives.
        image_shape: Tuple `(H, W, C)`.
    """
    signature = [tf.TensorSpec((None, *image_shape), "float32")]
    return tf.function(logits, input_signature=signature, autograph=False)


def predict_logits(logits, images, transform=None, batch_size=32, verbose=0):
    """Runs a logits function over an array, batch by batch.

    Args:
        logits: Function from images to logits, or to a tuple with them.
        images: Array `(n, H, W, C)`.
        transform: Function from a float32 batch to a batch, applied first.
        batch_size: Integer.
        verbose: As for `progress_bar`.

    Returns:
        Float32 NumPy array `(n, num_classes)`, or such a tuple of arrays.
    """
    progress = progress_bar(len(images), verbose)
    parts = []
    for start in range(0, len(images), batch_size):
        batch = tf.cast(images[start : start + batch_size], "float32")
        batch = batch if transform is None else transform(batch)
        parts.append(tf.nest.map_structure(np.asarray, logits(batch)))
        progress.update(start + len(batch))
    return tf.nest.map_structure(lambda *part: np.concatenate(part), *parts)


def _checked(function):
    """Wraps a logits function: checks its shape, makes one logit two."""

    def logits(images):
        return _two_classes(function(images))

    return logits


def _two_classes(scores):
    check_scores(scores)
    if scores.shape[-1] == 1:
        return tf.concat([tf.zeros_like(scores), scores], axis=-1)
    return scores


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
            "The classifier must return class scores of shape (batch, "
            f"num_classes). Received: shape {tuple(scores.shape)}. A model "
            "without a classification head (include_top=False) has no classes."
        )


def _log(p):
    return tf.math.log(tf.maximum(p, _TINY))


def _log_odds(p):
    return _log(p) - _log(1.0 - p)


def _probabilities_to_logits(p):
    return _log_odds(p) if p.shape[-1] == 1 else _log(p)


def _scores(classifier, images):
    """The scores as float32, also if they are alone in a list or dictionary."""
    outputs = classifier(images, training=False)
    if isinstance(outputs, (dict, list, tuple)) and len(outputs) == 1:
        (outputs,) = keras.tree.flatten(outputs)
    check_scores(outputs)
    return tf.cast(outputs, "float32")


def has_layer_graph(model):
    """Whether a model is what its layer graph says: `inputs`, `outputs`."""
    # A subclass with a `call` of its own need not follow its layer graph.
    call = getattr(type(model).call, "__qualname__", "")
    graph = call in ("Functional.call", "Sequential.call")
    return graph and bool(getattr(model, "outputs", None))


def _head(model, fold=None):
    """Reads the last layer of a Functional or Sequential model.

    Args:
        model: Keras model.
        fold: As for `features_function`.

    Returns:
        Its activation, and the model without that activation as a function
        from images to scores. Known Keras heads return both, a linear head
        only the activation, unknown heads `(None, None)`.
    """
    if not has_layer_graph(model):
        return None, None
    outputs = model.outputs
    check_scores(outputs[0] if len(outputs) == 1 else outputs)
    path = _path(model)
    layer = last_operation(path[-1][1])[0]
    linear, softmax = keras.activations.linear, keras.activations.softmax
    if type(layer) is keras.layers.Softmax and layer.axis in (-1, 1):
        return softmax, _features(path, fold)
    if type(layer) not in (keras.layers.Dense, keras.layers.Activation):
        return None, None
    # Not by its name: a function of one's own may be called `softmax`.
    known = layer.activation in (linear, softmax, keras.activations.sigmoid)
    activation = layer.activation if known else None
    is_dense = type(layer) is keras.layers.Dense
    if activation in (None, linear):
        return activation if is_dense else None, None
    if not is_dense:
        return activation, _features(path, fold)
    if getattr(layer, "quantization_mode", None) is not None:
        return None, None
    if activation is softmax and layer.units == 1:
        raise ValueError(
            "The classifier must have at least two classes. Received: a "
            "softmax over one output. Use a sigmoid for two classes."
        )
    features = _features(path, fold)
    return activation, lambda images: _dense(layer, features(images))


def _dense(layer, x):
    """What a dense layer makes of its input before its activation."""
    x = tf.matmul(x, tf.cast(layer.kernel, "float32"))
    if layer.use_bias:
        x = x + tf.cast(layer.bias, "float32")
    return x


def _input_of_dense(tensor):
    """The input of the last dense layer before an output, or None."""
    layers = keras.layers
    # What may follow a dense layer without being a layer of its own.
    passed = (layers.Activation, layers.Softmax, layers.Dropout)
    while isinstance(last_operation(tensor)[0], passed):
        tensor = _input_of(tensor)
    is_dense = isinstance(last_operation(tensor)[0], layers.Dense)
    return _input_of(tensor) if is_dense else None


def _path(model):
    """The models that are each the last layer of the one before.

    Returns:
        List of pairs of a model and its output tensor.
    """
    path, index = [], 0
    while has_layer_graph(model):
        tensor = model.outputs[index]
        path.append((model, tensor))
        model, _, index = last_operation(tensor)
    return path


def _features(path, fold):
    """The function from images to the input of the last layer."""
    parts = [_part(model, _input_of(tensor), fold) for model, tensor in path]
    return lambda images: tf.cast(_run(parts, images), "float32")


def _run(parts, x):
    """What the last of some models returns, each called on the one before."""
    for part in parts:
        x = part(x, training=False)
    return x


def _input_of(tensor):
    """The tensor that the layer of an output tensor takes."""
    node = last_operation(tensor)[1]
    # A model as the last layer may take several tensors.
    return (node.arguments.args or node.input_tensors)[0]


def _part(model, outputs, fold):
    """The part of `model` that ends at some of its tensors, folded."""
    # Keras warns where one image tensor meets a list of one input.
    inputs = model.inputs if len(model.inputs) > 1 else model.inputs[0]
    # An automatic name would shift the numbers of the caller's models.
    part = keras.Model(inputs, outputs, name=model.name)
    return part if fold is None else fold(part)


def same_labels(logits, classifier, images):
    """Whether a logits function gives the labels of its classifier.

    Args:
        logits: Function from images to logits.
        classifier: Keras model.
        images: Float32 tensor of a few images.
    """
    given = np.asarray(_scores(classifier, images))
    # Two labels may be equally good: where an activation is saturated, and
    # where their logits differ by less than the rounding of a 16-bit model.
    least = 0.999 if classifier.outputs[0].dtype == "float32" else 0.9
    if given.shape[-1] == 1:
        given = np.concatenate([1 - given, given], axis=-1)
    labels = np.argmax(logits(images), axis=-1)
    chosen = given[np.arange(len(given)), labels]
    # Scores that are not finite compare as False, and decide nothing.
    return not np.any(chosen < least * given.max(axis=-1))


def _returns_logits(classifier, images):
    """Whether an opaque classifier returns logits: scores that sum to no 1."""
    if images is None:
        raise UndecidedError(
            "The classifier's last layer does not show whether it returns "
            "logits. Pass from_logits=True or from_logits=False."
        )
    scores = np.asarray(_scores(classifier, images))
    inside = np.all((scores >= 0) & (scores <= 1))
    if scores.shape[-1] == 1 and inside:
        raise ValueError(
            "The classifier has a single output, between 0 and 1: it can be a "
            "probability or a logit. Pass from_logits=True or False."
        )
    return not inside


def _are_sigmoids(scores):
    """Whether probabilities are of several sigmoids; checks that they are."""
    low, high = np.min(scores), np.max(scores)
    # Rounding in 16 bits may go a little above one.
    if low < -1e-2 or high > 1 + 1e-2:
        raise ValueError(
            "from_logits=False needs probabilities. Received: scores from "
            f"{low:.4g} to {high:.4g}. Pass from_logits=True for logits."
        )
    sums = np.sum(scores, axis=-1)
    return scores.shape[-1] > 1 and not np.allclose(sums, 1.0, atol=1e-2)
