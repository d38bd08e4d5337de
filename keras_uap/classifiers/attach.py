"""Preprocessing in front of a classifier, so that it takes images in 0 to 255.

The pixel unit of perturbations is a grey level of RGB images in 0 to 255. Many
classifiers take other values: -1 to 1, BGR minus a mean, channels first, a
dictionary of inputs. `attach` puts the preprocessing in front of such a
classifier and returns a plain Keras model of images in 0 to 255, so that
`epsilon=10` means ten grey levels for all classifiers.

It adds standard Keras layers and operations without weights. The attached
model saves, loads and exports as any other, and loads without keras_uap. The
classifier inside is the caller's, with its own weights.
"""

import collections.abc
import os
import pathlib

import keras
import numpy as np
import tensorflow as tf

from keras_uap.classifiers import logits
from keras_uap.perturbations.pixels import as_value_range
from keras_uap.utils.validation import check_choice, explained, invalid

# The pixel ranges of `preprocess_input` in keras.applications, by its modes,
# and the order of channels, which is also that of the ranges.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_MEAN = (103.939, 116.779, 123.68)
_MODES = {
    "caffe": ([(-mean, 255 - mean) for mean in _CAFFE_MEAN], "bgr"),
    "tf": ((-1, 1), "rgb"),
    "torch": ([(-m / s, (1 - m) / s) for m, s in zip(_MEAN, _STD)], "rgb"),
}


def attach(
    classifier,
    value_range=(0, 255),
    channel_order=None,
    image_shape=None,
    data_format=None,
    input=None,
    other_inputs=None,
    output=None,
):
    """Makes a classifier take RGB images in 0 to 255.

    Example:

    ```python
    resnet = keras.applications.ResNet50()  # BGR minus a mean
    classifier = keras_uap.attach(resnet, "caffe")
    uap = keras_uap.UniversalPerturbation(classifier, epsilon=10.0)
    ```

    Of `keras.applications`, the families that take `"caffe"` are ResNet and
    VGG; `"tf"`: MobileNet and MobileNetV2, ResNetV2, Inception, NASNet and
    Xception; `"torch"`: DenseNet. EfficientNet, EfficientNetV2, MobileNetV3
    and ConvNeXt take 0 to 255 and need no `value_range`.

    Args:
        classifier: Keras model, built or not, or any layer, such as
            `keras.layers.TFSMLayer`; or the path of a `.keras` file or of the
            folder of a SavedModel. It is shared, not copied. One that is not
            built yet gets built.
        value_range: What the classifier takes where the images have 0 and
            255: a pair of floats `(low, high)`; a pair for each channel, in
            the classifier's order of channels; or a mode of
            `keras.applications`: `"caffe"`, `"tf"` or `"torch"`.
        channel_order: `"rgb"` or `"bgr"`, the classifier's order. `None`
            means `"bgr"` for the mode `"caffe"` and `"rgb"` otherwise.
        image_shape: Tuple `(H, W, C)`, or `(T, C)` for signals, of the images
            to come. Needed where the classifier does not state it. Where the
            classifier states another height or width, images are resized to
            it, bilinearly. `None` for C means what the classifier states, or
            else 3.
        data_format: `"channels_last"` or `"channels_first"`, what the
            classifier takes; images have their channels last in any case.
            `None` means channels first where the classifier's images begin
            with 1 or 3 and end with more than 4.
        input: String, the name of the image among several inputs.
        other_inputs: Dictionary from the names of the other inputs to their
            values, without a batch axis: all images get the same.
        output: String or integer, the name or the index of the class scores
            among several outputs.

    Returns:
        A Keras model from images `(n, H, W, C)` to class scores
        `(n, num_classes)`, as the classifier gives them. A model around a
        SavedModel refers to its folder, and loads with `safe_mode=False`.

    Raises:
        TypeError: if `classifier` is not a Keras model, or takes text or
            integers.
        ValueError: for arguments that do not fit the classifier, or one
            without class scores.
    """
    stated = None
    if isinstance(classifier, (str, os.PathLike)):
        classifier, stated = _load(classifier)
    logits.check_classifier(classifier)
    channel_order, ranges = _standardize(value_range, channel_order)
    inputs = None
    if logits.has_layer_graph(classifier):
        classifier, inputs = _shell(classifier, output)
    input = _choose_input(inputs, input, other_inputs)
    if inputs:
        stated = inputs[input].shape[1:]
    stated, channels_first = _channels_last(stated, data_format)
    shape = _image_shape(image_shape, stated)
    image = keras.Input(shape, dtype="float32", name="image")
    x = _resized(image, stated)
    x = _in_range(x, ranges, channel_order)
    if channels_first:
        axes = (len(shape), *range(1, len(shape)))
        x = keras.layers.Permute(axes, dtype="float32")(x)
    x = _with_other_inputs(classifier, inputs, input, x, image, other_inputs)
    scores = classifier(x)
    if inputs is None:
        scores = _choose_output(scores, output)
    logits.check_scores(scores)
    return keras.Model(image, scores, name=f"attached_{classifier.name}")


def _load(path):
    """Loads a classifier; returns it and what a SavedModel states it takes."""
    path = pathlib.Path(path)
    if not path.is_dir():
        return load_model(path), None
    if not (path / "saved_model.pb").is_file():
        raise ValueError(
            f"{path} is not a SavedModel: it holds no saved_model.pb. Write "
            "one with model.export(folder)."
        )
    with _explained(path):
        signatures = tf.saved_model.load(path).signatures
    names = list(signatures)
    endpoint = names[0] if len(names) == 1 else "serving_default"
    arguments = {}
    if endpoint in signatures:
        _, arguments = signatures[endpoint].structured_input_signature
    if len(arguments) != 1:
        raise ValueError(
            f"{path} must have a signature 'serving_default' of one tensor. "
            f"Received: {names}, of {sorted(arguments)}. Use model.export."
        )
    (spec,) = arguments.values()
    _check_dtype(spec.name, spec.dtype.name)
    stated = tuple(spec.shape.as_list()[1:]) if spec.shape.rank else None
    return keras.layers.TFSMLayer(str(path), endpoint), stated


def load_model(path):
    """Loads a Keras file; raises ValueError if that fails."""
    with _explained(path):
        return keras.saving.load_model(path, compile=False)


def _explained(path):
    return explained(
        f"{path} cannot be loaded as a Keras model",
        " Load it in Python and pass the model, or model.export(folder).",
    )


def _standardize(value_range, channel_order):
    """Returns the order of channels, and one pair or a list of pairs."""
    order = "rgb"
    if isinstance(value_range, str) and value_range in _MODES:
        value_range, order = _MODES[value_range]
    if value_range is None or isinstance(value_range, str):
        raise ValueError(
            "value_range must be a pair (low, high), one for each channel, or "
            f"one of {sorted(_MODES)}. Received: value_range={value_range!r}. "
            "Leave it out if the classifier takes the images as they are."
        )
    channel_order = order if channel_order is None else channel_order
    check_choice("channel_order", channel_order, ("rgb", "bgr"))
    pairs = value_range if np.ndim(value_range) == 2 else [value_range]
    return channel_order, [as_value_range(pair) for pair in pairs]


def _shell(classifier, output):
    """Returns a model of the same layers up to the class scores.

    Calling it leaves no trace in the caller's model, and does not keep what is
    attached alive.

    Returns:
        The model, and its inputs by their names.
    """
    sequential = isinstance(classifier, keras.Sequential)
    outputs = None if sequential else classifier.output
    if not isinstance(outputs, dict):
        outputs = list(classifier.outputs)
    # A list of outputs has the names of their layers.
    names = getattr(classifier, "output_names", [])
    scores = _choose_output(outputs, output, names)
    inputs = classifier.inputs[0] if sequential else classifier.input
    model = keras.Model(inputs, scores, name=classifier.name)
    if isinstance(inputs, dict):
        return model, inputs
    return model, {tensor.name: tensor for tensor in model.inputs}


def _choose_output(outputs, output, names=()):
    """The class scores among a dictionary or a list of outputs."""
    if isinstance(outputs, dict):
        names = ()
    else:
        one = not isinstance(outputs, (list, tuple))
        outputs = dict(enumerate([outputs] if one else outputs))
        if list(names).count(output) == 1:
            output = names.index(output)
    if output is None and len(outputs) == 1:
        return next(iter(outputs.values()))
    # Equal by name; True is not the index 1.
    if isinstance(output, bool) or output not in outputs:
        raise ValueError(
            f"output must name the class scores. Received: output={output!r}. "
            f"Expected: one of {list(names or outputs)}."
        )
    return outputs[output]


def _with_other_inputs(classifier, inputs, input, x, image, other_inputs):
    """Returns what the classifier is called with: `x`, or `x` among others."""
    if input is None:
        return x
    by_name = inputs is None or isinstance(classifier.input, dict)
    inputs = inputs or dict.fromkeys((input, *(other_inputs or ())))
    tensors = {
        name: x
        if name == input
        else _constant(image, other_inputs[name], tensor)
        for name, tensor in inputs.items()
    }
    if by_name:
        return tensors
    return list(tensors.values()) if len(tensors) > 1 else x


def _choose_input(inputs, input, other_inputs):
    """The name of the image, or None for a classifier of a single tensor."""
    if not isinstance(other_inputs, (collections.abc.Mapping, type(None))):
        expected = "a dictionary from names of inputs to values"
        raise invalid("other_inputs", expected, other_inputs, error=TypeError)
    others = set(other_inputs or ())
    left = [name for name in inputs or (input,) if name not in others]
    if input is None and len(left) == 1:
        input = left[0]
    known = inputs is None or set(inputs) == {input, *others}
    if left != [input] or not known or (others and input is None):
        raise ValueError(
            "input must name the image, and other_inputs give a value to each "
            f"other input. Received: input={input!r}, other_inputs of "
            f"{sorted(others)}. Expected, together: {list(inputs or ())}."
        )
    if inputs:
        _check_dtype(input, inputs[input].dtype)
    return input


def _check_dtype(name, dtype):
    if not dtype.startswith(("float", "bfloat")):
        raise TypeError(
            f"The classifier must take floats. Received: the input {name!r} of "
            f"dtype {dtype}. Rebuild it on keras.Input(shape, dtype='float32')."
        )


def _channels_last(stated, data_format):
    """Returns the stated shape with channels last, and if they were first."""
    formats = "channels_last", "channels_first", None
    check_choice("data_format", data_format, formats)
    first = data_format == "channels_first"
    if data_format is None and stated is not None and len(stated) == 3:
        first = stated[0] in (1, 3) and (stated[-1] or 0) > 4
    if stated is not None and first:
        stated = (*stated[1:], stated[0])
    return stated, first


def _image_shape(image_shape, stated):
    """Returns the shape of the images to come, as given or as stated."""
    if image_shape is None and None in (stated or (None,)):
        raise ValueError(
            f"The classifier states images of shape {stated}. Pass image_shape="
            "(height, width, channels), or (time, channels) for signals."
        )
    image_shape = tuple(stated if image_shape is None else image_shape)
    if image_shape[-1:] == (None,):
        image_shape = (*image_shape[:-1], (stated and stated[-1]) or 3)
    if len(image_shape) < 2 or (stated and len(stated) != len(image_shape)):
        raise ValueError(
            "Expected images (height, width, channels) or signals (time, "
            f"channels). Received: {image_shape}, for a classifier of {stated}."
        )
    return image_shape


def _resized(image, stated):
    """Resizes images to what the classifier states, where that differs."""
    shape = image.shape[1:]
    if all(want in (None, size) for size, want in zip(shape, stated or ())):
        return image
    if len(stated) != 3 or None in stated or stated[-1] != shape[-1]:
        raise ValueError(
            "image_shape does not fit: only height and width can be resized. "
            f"Received: image_shape={shape}. Expected: {stated}."
        )
    options = {"data_format": "channels_last", "dtype": "float32"}
    return keras.layers.Resizing(*stated[:2], antialias=True, **options)(image)


def _in_range(x, ranges, channel_order):
    """Puts the channels in order and 0 to 255 in the classifier's range."""
    channels = x.shape[-1]
    if len(ranges) not in (1, channels):
        raise ValueError(
            "value_range must be a pair, or a pair for each channel. "
            f"Received: {len(ranges)} pairs for {channels} channels."
        )
    if channel_order == "bgr":
        if channels != 3:
            raise ValueError(f"bgr needs images of 3 channels, not {channels}.")
        x = keras.ops.flip(x, axis=-1)
    if set(ranges) == {(0.0, 255.0)}:
        return x
    low, high = np.transpose(ranges)
    # Keras reads a bare list by the global image_data_format, so the shape has
    # all axes.
    one = len(ranges) == 1
    shape = () if one else (1,) * (len(x.shape) - 2) + (channels,)
    scale = ((high - low) / 255).reshape(shape).tolist()
    offset = low.reshape(shape).tolist()
    return keras.layers.Rescaling(scale, offset, dtype="float32")(x)


def _constant(image, value, tensor=None):
    """A batch of one value, as long as the batch of images."""
    value = np.asarray(value)
    if tensor is not None:
        shape = tensor.shape[1:]
        if not tf.TensorShape(shape).is_compatible_with(value.shape):
            raise ValueError(
                "other_inputs: a value does not fit. Received: shape "
                f"{value.shape} for {tensor.name!r}. Expected: {shape}."
            )
        value = value.astype(tensor.dtype)
    elif value.dtype.kind == "f":
        value = value.astype("float32")
    rows = keras.ops.reshape(image, (-1, int(np.prod(image.shape[1:]))))
    zeros = keras.ops.zeros_like(keras.ops.cast(rows[:, :1], value.dtype.name))
    zeros = keras.ops.reshape(zeros, (-1, *[1] * value.ndim))
    return keras.ops.add(zeros, value)
