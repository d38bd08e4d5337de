"""A folded copy computes what its model does, and leaves that model alone."""

import gc
import random
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from keras_uap.classifiers.folding import BatchNormalizationFolding


class DoubledDense(layers.Dense):
    def call(self, inputs, training=None):
        return 2 * super().call(inputs)


class OffsetBatchNormalization(layers.BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        return 1 + super().call(inputs, training=training, mask=mask)


class DoubledModel(keras.Model):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


def randomize(model):
    """Gives all weights random values, variances positive ones."""
    rng = np.random.default_rng(3)
    for weight in model.weights:
        value = rng.normal(size=weight.shape)
        if "variance" in weight.path:
            value = rng.uniform(0.3, 2, weight.shape)
        elif "kernel" in weight.path:
            value = value / np.sqrt(np.prod(weight.shape[:-1]))
        weight.assign(value)
    return model


def model_of(*stack, shape=(8, 6, 3)):
    return randomize(keras.Sequential([keras.Input(shape), *stack]))


def inputs_of(model):
    rng = np.random.default_rng(4)
    return [
        tf.constant(rng.normal(size=(4, *x.shape[1:])), "float32")
        for x in model.inputs
    ]


def outputs_of(model, inputs):
    if len(inputs) == 1:
        inputs = inputs[0]
    elif isinstance(model.input, dict):
        inputs = dict(zip(model.input, inputs))
    return tf.nest.flatten(model(inputs, training=False))


def check_same(model, folded, rtol=2e-6):
    """Outputs agree up to the rounding of float32."""
    inputs = inputs_of(model)
    expected = outputs_of(model, inputs)
    for x, y in zip(expected, outputs_of(folded, inputs), strict=True):
        atol = rtol * float(tf.reduce_max(tf.abs(x)))
        np.testing.assert_allclose(y, x, rtol=0, atol=atol)


def check_folds(model, count):
    """Folds a model, and returns the copy after a comparison."""
    folding = BatchNormalizationFolding()
    folded = folding.fold(model)
    assert len(folding.layers) == count
    assert (folded is model) == (count == 0)
    check_same(model, folded)
    return folding, folded


def block(x, filters=4, **kwargs):
    x = layers.Conv2D(filters, 3, padding="same", **kwargs)(x)
    return layers.BatchNormalization()(x)


KINDS = {
    "Conv1D": (lambda **k: layers.Conv1D(4, 3, **k), (9, 3)),
    "Conv1D, causal": (
        lambda **k: layers.Conv1D(4, 3, padding="causal", **k),
        (9, 3),
    ),
    "Conv2D": (lambda **k: layers.Conv2D(4, 3, strides=2, **k), (8, 6, 3)),
    "Conv2D, groups": (
        lambda **k: layers.Conv2D(6, 3, groups=3, **k),
        (8, 6, 3),
    ),
    "Conv3D": (lambda **k: layers.Conv3D(4, 2, **k), (4, 5, 4, 3)),
    "Conv1DTranspose": (lambda **k: layers.Conv1DTranspose(4, 3, **k), (9, 3)),
    "Conv2DTranspose": (
        lambda **k: layers.Conv2DTranspose(4, 3, strides=2, **k),
        (5, 4, 3),
    ),
    "Conv3DTranspose": (
        lambda **k: layers.Conv3DTranspose(4, 2, **k),
        (3, 4, 3, 2),
    ),
    "DepthwiseConv1D": (
        lambda **k: layers.DepthwiseConv1D(3, depth_multiplier=2, **k),
        (9, 3),
    ),
    "DepthwiseConv2D": (
        lambda **k: layers.DepthwiseConv2D(3, depth_multiplier=2, **k),
        (8, 6, 3),
    ),
    "SeparableConv1D": (
        lambda **k: layers.SeparableConv1D(4, 3, depth_multiplier=2, **k),
        (9, 3),
    ),
    "SeparableConv2D": (
        lambda **k: layers.SeparableConv2D(4, 3, depth_multiplier=2, **k),
        (8, 6, 3),
    ),
    "Dense": (lambda **k: layers.Dense(4, **k), (5,)),
    "Dense over an image": (lambda **k: layers.Dense(4, **k), (8, 6, 3)),
}


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_layer(kind, use_bias):
    make, shape = KINDS[kind]
    model = model_of(
        make(use_bias=use_bias), layers.BatchNormalization(), shape=shape
    )
    check_folds(model, 1)


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("scale", [False, True])
def test_each_kind_of_batch_normalization(center, scale, use_bias):
    normalization = layers.BatchNormalization(
        center=center, scale=scale, epsilon=0.1, axis=3
    )
    check_folds(
        model_of(layers.Conv2D(4, 3, use_bias=use_bias), normalization), 1
    )


def lora():
    dense = layers.Dense(4)
    dense.build((None, 3))
    dense.enable_lora(2)
    return dense


def quantized():
    dense = layers.Dense(4)
    dense.build((None, 3))
    dense.quantize("int8")
    return dense


@pytest.mark.parametrize(
    "make",
    [
        lambda: [layers.Conv2D(4, 3, activation="relu")],
        lambda: [DoubledDense(4)],
        lambda: [],
        lambda: [layers.Conv2D(4, 3), layers.ReLU()],
        lambda: [layers.Conv2D(4, 3, dtype="mixed_float16")],
        lambda: [layers.Conv2D(4, 3, dtype="float64")],
        lambda: [
            layers.Conv2D(4, 3),
            OffsetBatchNormalization(),
            layers.ReLU(),
        ],
        lambda: [layers.Conv2D(4, 3), layers.BatchNormalization(axis=1)],
        lambda: [layers.TimeDistributed(layers.Dense(4))],
        lambda: [lora()],
        lambda: [quantized()],
    ],
    ids=[
        "activation",
        "subclass",
        "nothing before",
        "not next to each other",
        "float16",
        "float64",
        "subclassed normalization",
        "other axis",
        "wrapped",
        "lora",
        "quantized",
    ],
)
def test_what_cannot_be_folded(make):
    model = keras.Sequential(
        [keras.Input((8, 6, 3)), *make(), layers.BatchNormalization()]
    )
    assert BatchNormalizationFolding().fold(model) is model


def test_channels_first_is_left():
    model = model_of(
        layers.Conv2D(4, 3, data_format="channels_first"),
        layers.BatchNormalization(axis=1),
        shape=(3, 8, 6),
    )
    check_folds(model, 0)
    # Also where the axis of the normalization looks like the right one.
    model = model_of(
        layers.Conv2D(4, 3, use_bias=False, data_format="channels_first"),
        layers.BatchNormalization(),
        shape=(3, 8, 6),
    )
    check_folds(model, 0)


def test_normalization_of_another_dtype_is_left():
    model = model_of(
        layers.Conv2D(4, 3), layers.BatchNormalization(dtype="mixed_float16")
    )
    check_folds(model, 0)


def test_part_of_a_model_folds_and_the_rest_is_exact():
    model = model_of(
        layers.Rescaling(0.1),
        layers.Conv2D(4, 3, activation="relu"),
        layers.BatchNormalization(),
        layers.Conv2D(4, 3),
        layers.BatchNormalization(),
        layers.ReLU(6.0),
        layers.Dropout(0.5),
        layers.GlobalAveragePooling2D(),
        layers.Dense(5, activation="softmax"),
    )
    check_folds(model, 1)


def test_an_output_that_is_used_elsewhere_is_left():
    x = inputs = keras.Input((8, 6, 3))
    twice = layers.Conv2D(3, 3, padding="same")(x)
    x = layers.add([layers.BatchNormalization()(twice), twice, block(x, 3)])
    model = randomize(keras.Model(inputs, x))
    check_folds(model, 1)


def test_an_output_of_two_normalizations_is_left():
    x = inputs = keras.Input((8, 6, 3))
    x = layers.Conv2D(3, 3)(x)
    x = layers.BatchNormalization()(x) + layers.BatchNormalization()(x)
    check_folds(randomize(keras.Model(inputs, x)), 0)


def test_an_output_of_the_model_is_left():
    inputs = keras.Input((8, 6, 3))
    features = layers.Conv2D(4, 3)(inputs)
    x = layers.BatchNormalization()(features)
    check_folds(randomize(keras.Model(inputs, [features, x])), 0)
    # The same layers in a model that does not need the features.
    check_folds(randomize(keras.Model(inputs, x)), 1)


@pytest.mark.parametrize("shared", ["layer", "normalization", "both"])
def test_shared_layers_are_left(shared):
    inputs = keras.Input((8, 6, 3))
    conv = [layers.Conv2D(3, 3, padding="same") for _ in range(2)]
    normalization = [layers.BatchNormalization() for _ in range(2)]
    if shared in ("layer", "both"):
        conv[1] = conv[0]
    if shared in ("normalization", "both"):
        normalization[1] = normalization[0]
    x = normalization[0](conv[0](inputs))
    x = normalization[1](conv[1](ops.relu(x)))
    check_folds(randomize(keras.Model(inputs, x)), 0)


def test_layers_of_another_model_too_are_folded():
    """Other uses of a layer, outside of the model, do not matter."""
    inputs = keras.Input((8, 6, 3))
    conv = layers.Conv2D(4, 3)
    features = conv(inputs)
    keras.Model(inputs, layers.ReLU()(features))
    conv(keras.Input((8, 6, 3)))
    x = layers.BatchNormalization()(features)
    check_folds(randomize(keras.Model(inputs, x)), 1)


def test_models_inside_models():
    small = keras.Input((8, 6, 3))
    inner = keras.Model(small, layers.ReLU()(block(block(small), 3)))
    plain = keras.Sequential([keras.Input((8, 6, 3)), layers.Rescaling(0.1)])
    model = model_of(
        plain,
        keras.Sequential([keras.Input((8, 6, 3)), layers.Rescaling(2), inner]),
        layers.Conv2D(2, 3, use_bias=False),
        layers.BatchNormalization(),
    )
    check_folds(model, 3)


def test_a_model_that_is_called_twice_inside_another():
    small = keras.Input((8, 6, 3))
    inner = keras.Model(small, block(small, 3))
    inputs = keras.Input((8, 6, 3))
    model = randomize(keras.Model(inputs, inner(ops.relu(inner(inputs)))))
    check_folds(model, 1)


def test_subclasses_of_model():
    inputs = keras.Input((8, 6, 3))
    doubled = randomize(DoubledModel(inputs, block(inputs)))
    check_folds(doubled, 0)
    # Inside of another model, it is called as it is.
    outer = keras.Input((8, 6, 3))
    check_folds(keras.Model(outer, randomize(doubled)(outer)), 0)

    class Opaque(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = model_of(layers.Dense(3), layers.BatchNormalization())

        def call(self, inputs, training=None):
            return self.inner(inputs, training=training)

    opaque = Opaque()
    opaque(np.zeros((1, 8, 6, 3), "float32"))
    assert BatchNormalizationFolding().fold(opaque) is opaque
    unbuilt = keras.Sequential([layers.Dense(3), layers.BatchNormalization()])
    assert BatchNormalizationFolding().fold(unbuilt) is unbuilt


def test_several_inputs_and_outputs():
    a, b = keras.Input((8, 6, 3), name="a"), keras.Input((8, 6, 2), name="b")
    x, y = block(a), block(b)
    model = randomize(keras.Model({"a": a, "b": b}, {"sum": x + y, "x": x}))
    _, folded = check_folds(model, 2)
    assert set(folded.output) == {"sum", "x"}


@pytest.mark.filterwarnings("ignore:.*destroy the mask")
def test_masks_reach_later_layers():
    small = keras.Input((7, 3))
    x = layers.Dense(4, use_bias=False)(small)
    x = layers.BatchNormalization()(x)
    inner = keras.Model(small, layers.GlobalAveragePooling1D()(x))
    x = inputs = keras.Input((7, 3))
    model = randomize(keras.Model(inputs, inner(layers.Masking()(x))))
    _, folded = check_folds(model, 1)
    masked = np.ones((2, 7, 3), "float32")
    masked[:, 4:] = 0
    expected = model(masked, training=False)
    # Without the mask, the zeros would count.
    assert np.abs(inner(masked, training=False) - expected).max() > 0.1
    np.testing.assert_allclose(
        folded(masked, training=False), expected, rtol=1e-5, atol=1e-6
    )


def test_a_normalization_with_a_mask_in_the_graph_is_left():
    x = inputs = keras.Input((7, 3))
    x = layers.Dense(4)(layers.Masking()(x))
    x = layers.BatchNormalization()(x)
    check_folds(randomize(keras.Model(inputs, x)), 0)


def test_pre_activation_order():
    model = model_of(
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(4, 3),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(4, 3),
    )
    folding, _ = check_folds(model, 1)
    assert folding.layers[0].conv is model.layers[2]


@pytest.mark.parametrize("training", [False, True, None])
def test_always_inference(training):
    x = inputs = keras.Input((8, 6, 3))
    x = layers.Dense(4)(x, training=training)
    x = layers.BatchNormalization()(x, training=training)
    x = layers.BatchNormalization()(ops.relu(x))
    model = randomize(keras.Model(inputs, layers.Dropout(0.9)(x)))
    _, folded = check_folds(model, 1)
    images = inputs_of(model)[0]
    before = [np.array(each) for each in model.get_weights()]
    expected = model(images, training=False)
    for kwargs in ({}, {"training": True}):
        outputs = folded(images, **kwargs)
        np.testing.assert_allclose(outputs, expected, atol=1e-5)
    np.testing.assert_equal(model.get_weights(), before)


def test_input_gradients():
    model = model_of(
        layers.Conv2D(4, 3),
        layers.BatchNormalization(),
        layers.Activation("swish"),
        layers.DepthwiseConv2D(3, use_bias=False),
        layers.BatchNormalization(),
        layers.GlobalAveragePooling2D(),
        layers.Dense(5),
    )
    _, folded = check_folds(model, 2)
    (images,) = inputs_of(model)

    def gradient(model):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            loss = tf.reduce_sum(model(images, training=False)[:, 1] ** 2)
        return tape.gradient(loss, images)

    expected = gradient(model)
    largest = float(tf.reduce_max(tf.abs(expected)))
    np.testing.assert_allclose(
        gradient(folded), expected, rtol=0, atol=1e-5 * largest
    )


def test_update_follows_a_trained_classifier_without_a_new_trace():
    model = model_of(
        layers.Conv2D(4, 3),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.SeparableConv2D(4, 3, use_bias=False),
        layers.BatchNormalization(),
        layers.GlobalAveragePooling2D(),
        layers.Dense(2),
    )
    folding = BatchNormalizationFolding()
    folded = folding.fold(model)
    traces = []

    @tf.function
    def compiled(x):
        traces.append(x)
        return folded(x, training=False)

    images = inputs_of(model)[0]
    first = compiled(images)
    model.compile("sgd", "mse")
    model.fit(images, np.ones((4, 2), "float32"), epochs=3, verbose=0)
    expected = model(images, training=False)
    assert np.abs(expected - first).max() > 0.05
    assert np.abs(compiled(images) - expected).max() > 0.05
    folding.update()
    np.testing.assert_allclose(compiled(images), expected, atol=1e-5)
    assert len(traces) == 1


def test_parts_of_a_model_share_their_folded_layers():
    x = inputs = keras.Input((8, 6, 3))
    features = layers.GlobalAveragePooling2D()(block(ops.relu(block(x))))
    model = randomize(keras.Model(inputs, layers.Dense(5)(features)))
    folding = BatchNormalizationFolding()
    both = keras.Model(inputs, [features, model.output])
    parts = [folding.fold(both), folding.fold(keras.Model(inputs, features))]
    assert len(folding.layers) == 2
    randomize(model)
    folding.update()
    check_same(both, parts[0])
    check_same(keras.Model(inputs, features), parts[1])


def all_layers(model):
    found = [model]
    for layer in model.layers:
        is_model = isinstance(layer, keras.Model)
        found += all_layers(layer) if is_model else [layer]
    return found


def state_of(model):
    """All that the layers of a model hold, by identity."""
    return [
        {
            name: list(map(id, value)) if isinstance(value, list) else id(value)
            for name, value in vars(layer).items()
        }
        for layer in all_layers(model)
    ]


def number_of(model):
    return int(model.name.rsplit("_")[-1])


def squares(kernel):
    return 0.1 * ops.sum(kernel**2)


def nested_model():
    small = keras.Input((8, 6, 3))
    inner = keras.Model(small, block(ops.relu(block(small)), 3))
    model = model_of(
        inner,
        layers.Conv2D(2, 3, kernel_regularizer=squares),
        layers.BatchNormalization(),
        layers.GlobalAveragePooling2D(),
        layers.Dense(2),
    )
    inner.layers[1].trainable = False
    return model


def test_the_model_is_untouched(tmp_path):
    model = nested_model()
    model.compile("sgd", "mse")
    images = inputs_of(model)[0]
    model(images, training=False)
    state, weights = state_of(model), model.get_weights()
    config, random_state = model.to_json(), random.getstate()
    number = number_of(keras.Sequential())
    folding = BatchNormalizationFolding()
    folded = folding.fold(model)
    assert len(folding.layers) == 3
    folding.update()
    folded(images, training=False)
    tf.function(folded)(images, training=False)
    # Keras numbers the next model as if there were no copy.
    assert number_of(keras.Sequential()) == number + 1
    assert random.getstate() == random_state
    assert state_of(model) == state
    assert model.to_json() == config
    np.testing.assert_equal(model.get_weights(), weights)
    path = str(tmp_path / "model.weights.h5")
    model.save_weights(path)
    model.load_weights(path)
    model.fit(images, np.ones((4, 2), "float32"), verbose=0)


def test_the_model_saves_after_folding(tmp_path):
    model = model_of(layers.Conv2D(2, 3), layers.BatchNormalization())
    _, folded = check_folds(model, 1)
    model.save(tmp_path / "model.keras")
    check_same(keras.saving.load_model(tmp_path / "model.keras"), folded)


def test_nothing_is_kept_alive():
    model = nested_model()
    inner = weakref.ref(model.layers[0])
    folding = BatchNormalizationFolding()
    folded = folding.fold(model)
    outputs_of(folded, inputs_of(model))
    alive = [weakref.ref(each) for each in (folding, folded, folding.layers[0])]
    del folding, folded
    gc.collect()
    assert [each() for each in alive] == [None] * 3
    assert inner() is model.layers[0]
    alive = [weakref.ref(each) for each in (model, model.layers[1])]
    del model
    gc.collect()
    assert [each() for each in [*alive, inner]] == [None] * 3


def test_memory_is_that_of_the_folded_layers():
    model = nested_model()
    folding, folded = check_folds(model, 3)
    sizes = [each.kernel.shape for each in folding.layers]
    convs = [x for x in all_layers(model) if isinstance(x, layers.Conv2D)]
    assert sorted(map(tuple, sizes)) == sorted(
        tuple(each.kernel.shape) for each in convs
    )
    # What Keras tracks, it would save and train.
    assert {id(w) for w in folded.weights} == {id(w) for w in model.weights}
    assert all(each.trainable_weights == [] for each in folding.layers)


def test_a_global_dtype_policy_changes_nothing():
    model = model_of(
        layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU()
    )
    keras.config.set_dtype_policy("mixed_float16")
    try:
        _, folded = check_folds(model, 1)
    finally:
        keras.config.set_dtype_policy("float32")
    assert folded.compute_dtype == "float32"


def test_a_mixed_precision_model_is_left():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.Sequential(
            [
                keras.Input((8, 6, 3)),
                layers.Dense(4, dtype="float32"),
                layers.BatchNormalization(dtype="float32"),
            ]
        )
    finally:
        keras.config.set_dtype_policy("float32")
    check_folds(model, 0)


def test_symbolic_calls():
    model = nested_model()
    folded = BatchNormalizationFolding().fold(model)
    inputs = keras.Input((8, 6, 3))
    outer = keras.Model(inputs, ops.softmax(folded(inputs, training=False)))
    expected = ops.softmax(model(inputs_of(model)[0], training=False))
    np.testing.assert_allclose(outer(inputs_of(model)[0]), expected, atol=1e-6)
