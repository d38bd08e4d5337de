"""Tests of reading logits off any classifier."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_uap
from keras_uap.logits import compile_logits, predict_logits

layers = keras.layers


def dense_softmax(linear):
    return linear(activation="softmax")


def dense_linear(linear):
    return linear()


def dense_sigmoid(linear):
    return linear(activation="sigmoid")


def activation_layer(linear):
    return keras.Sequential([linear(), layers.Activation("softmax")])


def softmax_layer(linear):
    return keras.Sequential([linear(), layers.Softmax()])


def functional(linear):
    base = linear(activation="softmax")
    inputs = keras.Input(base.input_shape[1:])
    return keras.Model(inputs, base(inputs))


def nested_twice(linear):
    return keras.Sequential(
        [layers.Identity(), keras.Sequential([functional(linear)])]
    )


def shared_head(linear):
    """The head is used twice; the model ends at its second use."""
    base = linear(activation="softmax")
    inputs = keras.Input(base.input_shape[1:])
    flat = base.layers[0](inputs)
    base.layers[1](-flat)
    return keras.Model(inputs, base.layers[1](flat))


HEADS = [
    dense_softmax,
    dense_linear,
    dense_sigmoid,
    activation_layer,
    softmax_layer,
    functional,
    nested_twice,
    shared_head,
]


def exact_logits(model, images):
    """`x W + b` in float64, from the weights of a linear classifier."""
    kernel, bias = (np.asarray(w, "float64") for w in model.get_weights())
    return images.reshape(len(images), -1).astype("float64") @ kernel + bias


def differences(logits):
    return np.asarray(logits) - np.asarray(logits)[:, :1]


@pytest.mark.parametrize("make", HEADS)
def test_head_is_rebuilt_exactly(make, linear, images):
    model = make(linear)
    before = model.predict(images, verbose=0)
    logits = keras_uap.logits_function(model)(images)
    assert logits.dtype == "float32"
    np.testing.assert_allclose(logits, exact_logits(model, images), atol=1e-4)
    np.testing.assert_array_equal(model.predict(images, verbose=0), before)


@pytest.mark.parametrize("make", HEADS[:1] + HEADS[3:])
def test_saturated_softmax_keeps_its_logits_and_gradients(make, linear, images):
    def saturated(**kwargs):
        return linear(scale=300.0, **kwargs)

    model = make(saturated)
    assert np.any(np.sort(model.predict(images, verbose=0))[:, 0] == 0)
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = keras_uap.logits_function(model)(x)
        first = tf.reduce_sum(logits[:, 0])
    np.testing.assert_allclose(logits, exact_logits(model, images), rtol=1e-3)
    gradient = np.reshape(tape.gradient(first, x), (len(images), -1))
    np.testing.assert_allclose(
        gradient[0], model.get_weights()[0][:, 0], rtol=1e-5
    )


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_single_output_becomes_two_classes(activation, linear, images):
    model = linear(1, activation)
    logits = keras_uap.logits_function(model)(images)
    exact = exact_logits(model, images)[:, 0]
    np.testing.assert_array_equal(logits[:, 0], 0.0)
    np.testing.assert_allclose(logits[:, 1], exact, atol=1e-4)
    np.testing.assert_array_equal(np.argmax(logits, -1), exact > 0)


def test_single_probability_of_an_opaque_model(subclassed, images):
    model = subclassed("sigmoid", classes=1)
    logits = keras_uap.logits_function(model, from_logits=False)(images)
    model.dense.activation = None
    np.testing.assert_allclose(logits[:, 1], model(images)[:, 0], atol=1e-4)


@pytest.mark.parametrize("activation", [None, "softmax"])
@pytest.mark.parametrize("told", [False, True])
def test_opaque_model(activation, told, subclassed, images):
    model = subclassed(activation)
    from_logits = (activation is None) if told else None
    some = None if told else images
    logits = keras_uap.logits_function(model, from_logits, some)(images)
    model.dense.activation = None
    np.testing.assert_allclose(
        differences(logits), differences(model(images)), atol=1e-4
    )


def test_zero_probability_stays_finite(subclassed, images):
    model = subclassed("softmax")
    model(images)
    model.set_weights([1e4 * w for w in model.get_weights()])
    logits = keras_uap.logits_function(model, from_logits=False)(images)
    assert np.any(np.asarray(model(images)) == 0)
    assert np.all(np.isfinite(logits))


def test_told_logits_are_believed(linear, images):
    model = linear(activation="softmax")
    logits = keras_uap.logits_function(model, from_logits=True)(images)
    np.testing.assert_allclose(logits, model(images), atol=1e-6)


def test_quantized_head_is_not_rebuilt(linear, images):
    model = linear(activation="softmax", scale=0.1)
    model.layers[-1].quantize("int8")
    logits = keras_uap.logits_function(model, images=images)(images)
    np.testing.assert_allclose(tf.nn.softmax(logits), model(images), atol=1e-5)


def test_subclass_of_functional_with_its_own_call(linear, images):
    class Negative(keras.Model):
        def call(self, inputs):
            return super().call(-inputs)

    base = linear(activation="softmax")
    model = Negative(base.inputs[0], base.outputs[0])
    logits = keras_uap.logits_function(model, images=images)(images)
    np.testing.assert_allclose(
        differences(logits),
        differences(exact_logits(base, -images)),
        atol=1e-3,
    )


def test_head_of_two_inputs_is_not_rebuilt(images):
    inputs = keras.Input((8, 8, 3))
    flat = layers.Flatten()(inputs)
    parts = [keras.Input((192,)), keras.Input((192,))]
    outputs = layers.Dense(3, "softmax")(layers.Add()(parts))
    model = keras.Model(inputs, keras.Model(parts, outputs)([flat, flat]))
    logits = keras_uap.logits_function(model, images=images)(images)
    np.testing.assert_allclose(tf.nn.softmax(logits), model(images), atol=1e-5)


def test_mixed_precision_gives_float32(cnn, images):
    logits = keras_uap.logits_function(cnn(dtype="mixed_float16"))(images)
    assert logits.dtype == "float32"
    full = keras_uap.logits_function(cnn())(images)
    np.testing.assert_allclose(logits, full, atol=0.05)


def test_dropout_is_off_and_its_seed_untouched(cnn, images):
    model = cnn(dropout=0.5)
    seed = model.layers[2].seed_generator.state.numpy()
    logits = keras_uap.logits_function(model)
    np.testing.assert_array_equal(logits(images), logits(images))
    np.testing.assert_array_equal(model.layers[2].seed_generator.state, seed)


def two_outputs():
    inputs = keras.Input((8, 8, 3))
    flat = layers.Flatten()(inputs)
    return keras.Model(inputs, [layers.Dense(2)(flat), layers.Dense(3)(flat)])


def named_outputs():
    model = two_outputs()
    return keras.Model(model.inputs[0], dict(zip("ab", model.outputs)))


def no_head():
    return keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 3)])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (two_outputs, "one tensor of class scores"),
        (named_outputs, "one tensor of class scores"),
        (no_head, "class scores of shape"),
    ],
)
@pytest.mark.parametrize("from_logits", [None, True, False])
def test_models_without_class_scores(make, says, from_logits, images):
    with pytest.raises(ValueError, match=says):
        keras_uap.logits_function(make(), from_logits)(images)


def test_opaque_model_with_two_outputs(images):
    class Two(keras.Model):
        def call(self, inputs):
            return {"a": inputs[:, 0, 0], "b": inputs[:, 0, 0]}

    for from_logits in (None, True, False):
        with pytest.raises(ValueError, match=r"2 outputs \(\['a', 'b'\]\)"):
            keras_uap.logits_function(Two(), from_logits, images)(images)


def test_bad_arguments(subclassed, linear, images):
    with pytest.raises(TypeError, match="classifier="):
        keras_uap.logits_function(lambda x: x)
    with pytest.raises(ValueError, match="from_logits='yes'"):
        keras_uap.logits_function(linear(), from_logits="yes")
    with pytest.raises(ValueError, match="from_logits=True or"):
        keras_uap.logits_function(subclassed())
    with pytest.raises(ValueError, match="single output"):
        keras_uap.logits_function(
            subclassed("sigmoid", classes=1), images=images
        )


@pytest.mark.parametrize("batch_size", [1, 7, 40, 100])
def test_predict_in_batches(batch_size, linear, images):
    model = linear()
    logits = compile_logits(keras_uap.logits_function(model), images.shape[1:])
    scores = predict_logits(
        logits, images, lambda x: 1 - x, batch_size=batch_size
    )
    np.testing.assert_allclose(
        scores, exact_logits(model, 1 - images), atol=1e-4
    )
    assert logits.experimental_get_tracing_count() == 1
