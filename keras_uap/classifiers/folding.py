"""Folds batch normalization into the layers before it.

At inference, batch normalization is a scale and a shift of each channel:

    scale = gamma / sqrt(moving_variance + epsilon)
    shift = beta - moving_mean * scale
    BN(W * x + b) = (scale W) * x + (scale b + shift)

A linear layer `W * x + b` whose output goes to one batch normalization and
nowhere else can therefore do the work of both, with other weights. The outputs
agree up to rounding, and both the forward and the backward pass are cheaper.

```python
folding = BatchNormalizationFolding()
model = folding.fold(classifier)  # The classifier itself if nothing folds.
logits = model(images, training=False)
classifier.fit(...)
folding.update()  # The copy follows the classifier without a new trace.
```

A folded copy runs the layer graph of its model and replaces single operations
in it. All other layers are shared, so only folded layers have weights of their
own. Nothing is added to the caller's layers: Keras records a node in a layer
that is called on a symbolic tensor, and a copy calls them on real ones.
"""

from collections import Counter

import keras
import tensorflow as tf
from keras import layers

from keras_uap.classifiers.logits import has_layer_graph
from keras_uap.utils.keras_compat import ReplacingModel, graph_nodes

# Only classes of Keras' own: a subclass may do anything in its `call`.
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_TRANSPOSED = (
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
)
_PLAIN = (layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.Dense)
_FOLDABLE = _PLAIN + _SEPARABLE + _DEPTHWISE + _TRANSPOSED


class BatchNormalizationFolding:
    """Folded copies of models, which share their folded layers.

    Several parts of one classifier, such as the models that end at its
    features and at its logits, can be folded with one object. A layer that
    occurs in several of them is then folded once, and has one copy of its
    weights.

    The copies share the layers of their models, so they must not be trained or
    saved, and `trainable` must not be set on them.

    Attributes:
        layers: List of the folded layers, empty if nothing could be folded.
    """

    def __init__(self):
        self._folded = {}

    @property
    def layers(self):
        return list(self._folded.values())

    def fold(self, model):
        """Returns a copy of a model with its batch normalization folded.

        A convolution (transposed, depthwise and separable ones too) or dense
        layer is folded with the batch normalization that it feeds. These are
        left as they are:

        - layers with an activation, and layers whose output is used elsewhere
          or is an output of the model;
        - layers that the model calls several times;
        - batch normalization before its layer, or over another axis than the
          last, or with a mask;
        - subclasses of Keras' layers, and of models with their own `call`;
        - other dtypes than float32, quantized layers, LoRA weights, and
          channels-first layers;
        - layers inside layers that are not models, such as `TimeDistributed`.

        Args:
            model: Keras model. Functional and Sequential models are folded,
                with those inside them.

        Returns:
            A Functional model with the same inputs and outputs, for inference
            only, or `model` itself if nothing can be folded.
        """
        if not (has_layer_graph(model) and _is_float32(model)):
            return model
        replaced = {}
        nodes = graph_nodes(model)
        for conv, normalization in _pairs(nodes, model.outputs):
            # The folded layer keeps both alive, so their ids stay theirs.
            key = id(conv), id(normalization)
            if key not in self._folded:
                self._folded[key] = _FoldedLayer(conv, normalization)
            replaced[id(conv)] = self._folded[key]
            replaced[id(normalization)] = _PassThrough(dtype="float32")
        for operation in {id(n): n.operation for n in nodes}.values():
            if isinstance(operation, keras.Model):
                inner = self.fold(operation)
                if inner is not operation:
                    replaced[id(operation)] = inner
        return ReplacingModel(model, replaced) if replaced else model

    def update(self):
        """Computes the folded weights from the present weights of the models.

        Call it after a model was trained: until then, the copy has new weights
        in the layers that it shares and old ones in the folded layers.
        """
        for layer in self._folded.values():
            layer.update()


class _FoldedLayer(keras.Layer):
    """A layer and the batch normalization after it, as one.

    Args:
        conv: Layer of one of the classes in `_FOLDABLE`.
        normalization: `BatchNormalization` layer.
    """

    def __init__(self, conv, normalization):
        super().__init__(name=conv.name, dtype="float32", trainable=False)
        self.conv = conv
        self.normalization = normalization
        self.supports_masking = conv.supports_masking
        self.kernel = self.add_weight(_kernel(conv).shape, "zeros")
        self.bias = self.add_weight(normalization.moving_mean.shape, "zeros")
        self.built = True
        self.update()

    def update(self):
        """Computes the weights from those of both layers."""
        conv, normalization = self.conv, self.normalization
        variance = normalization.moving_variance.value
        scale = tf.math.rsqrt(variance + normalization.epsilon)
        if normalization.scale:
            scale *= normalization.gamma.value
        bias = -normalization.moving_mean.value * scale
        if normalization.center:
            bias += normalization.beta.value
        if conv.use_bias:
            bias += conv.bias.value * scale
        self.bias.assign(bias)
        scale = tf.reshape(scale, _scale_shape(conv))
        self.kernel.assign(_kernel(conv).value * scale)

    def call(self, inputs):
        conv = self.conv
        weights = [(_kernel(conv), self.kernel.value)]
        if conv.use_bias:
            weights.append((conv.bias, self.bias.value))
        # Within the scope, the layer reads these values in place of its own.
        with keras.StatelessScope(state_mapping=weights):
            outputs = conv(inputs)
        if conv.use_bias:
            return outputs
        return tf.nn.bias_add(outputs, self.bias.value)


class _PassThrough(layers.Identity):
    """Takes the place of a batch normalization that was folded."""

    # A mask, or None, is part of each call of a batch normalization.
    def call(self, inputs, mask=None):
        return inputs

    def compute_output_spec(self, inputs, mask=None):
        return super().compute_output_spec(inputs)


def _pairs(nodes, outputs):
    """Yields each layer that can be folded and its batch normalization."""
    made_by = {id(x): node.operation for node in nodes for x in node.outputs}
    calls = Counter(id(node.operation) for node in nodes)
    uses = Counter(id(x) for node in nodes for x in node.input_tensors)
    uses.update(id(x) for x in outputs)
    for node in nodes:
        normalization = node.operation
        if type(normalization) is not layers.BatchNormalization:
            continue
        x = node.input_tensors[0]
        layer = made_by.get(id(x))
        if (
            _is_foldable(layer)
            and _is_float32(normalization)
            and normalization.axis in (-1, len(x.shape) - 1)
            and calls[id(layer)] == calls[id(normalization)] == 1
            and uses[id(x)] == len(node.input_tensors) == 1
        ):
            yield layer, normalization


def _is_foldable(layer):
    """Whether a layer is linear and has a plain kernel, channels last."""
    return (
        type(layer) in _FOLDABLE
        and layer.activation in (None, keras.activations.linear)
        and _is_float32(layer)
        # With channels first, Keras adds a bias along the width of images
        # that are as wide as they have channels.
        and getattr(layer, "data_format", None) != "channels_first"
        and getattr(layer, "quantization_mode", None) is None
        # With LoRA weights, the kernel is a computed tensor.
        and isinstance(_kernel(layer), keras.Variable)
    )


def _is_float32(layer):
    return layer.compute_dtype == layer.variable_dtype == "float32"


def _kernel(layer):
    """The kernel that holds the output channels."""
    if type(layer) in _SEPARABLE:
        return layer.pointwise_kernel
    return layer.kernel


def _scale_shape(layer):
    """The shape in which one scale a channel multiplies the kernel."""
    if type(layer) in _TRANSPOSED:
        return (-1, 1)
    if type(layer) in _DEPTHWISE:
        return (-1, layer.depth_multiplier)
    return (-1,)
