"""Tests of reading logits off any classifier."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_uap
from keras_uap.classifiers.adapter import ClassifierAdapter
from keras_uap.classifiers.logits import compile_logits, predict_logits

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


# Heads of one's own ---------------------------------------------------------


class Cosine(layers.Dense):
    """A head of directions, as in CosFace and ArcFace."""

    def call(self, inputs):
        x = tf.linalg.l2_normalize(inputs - 0.5, axis=-1)
        kernel = tf.linalg.l2_normalize(tf.convert_to_tensor(self.kernel), 0)
        return self.activation(8.0 * x @ kernel)


class Reverse(layers.Softmax):
    """Turns the order of the classes round."""

    def call(self, inputs, mask=None):
        return super().call(-inputs)


def softmax(x):
    return tf.nn.softmax(-x)


def sigmoid(x):
    return tf.nn.sigmoid(-x)


def with_head(*parts):
    return keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), *parts])


def by_its_class(linear):
    return with_head(Cosine(4, activation="softmax"))


def by_its_class_without_activation(linear):
    return with_head(Cosine(4))


def own_softmax(linear):
    return with_head(layers.Dense(4, activation=softmax))


def own_sigmoid(linear):
    return with_head(layers.Dense(4, activation=sigmoid))


def own_softmax_layer(linear):
    return keras.Sequential([linear(), Reverse()])


def own_activation_layer(linear):
    return keras.Sequential([linear(), layers.Activation(softmax)])


def own_head_within(linear):
    return keras.Sequential([layers.Identity(), own_softmax(linear)])


def softmax_over_the_batch(linear):
    return keras.Sequential([linear(), layers.Softmax(axis=0)])


OWN_HEADS = [
    by_its_class,
    by_its_class_without_activation,
    own_softmax,
    own_sigmoid,
    own_softmax_layer,
    own_activation_layer,
    own_head_within,
    softmax_over_the_batch,
]


@pytest.mark.parametrize("make", OWN_HEADS)
def test_head_of_ones_own_is_not_rebuilt(make, linear, images):
    model = make(linear)
    answers = model.predict(images, batch_size=40, verbose=0).argmax(-1)
    assert len(np.unique(answers)) > 1
    logits = keras_uap.logits_function(model, images=images)(images)
    np.testing.assert_array_equal(np.argmax(logits, -1), answers)


def test_head_is_rebuilt_after_loading(linear, images, tmp_path):
    """Keras' own activations are known again in a loaded model."""
    for activation in ("softmax", "sigmoid"):
        model = linear(activation=activation, scale=300.0)
        model.save(tmp_path / "model.keras")
        model = keras.saving.load_model(tmp_path / "model.keras")
        logits = keras_uap.logits_function(model, images=images)(images)
        np.testing.assert_allclose(
            logits, exact_logits(model, images), rtol=1e-3
        )


def test_model_that_does_more_than_its_graph(linear, images):
    """What the graph does not show is seen on the first images."""

    class Upside(keras.Sequential):
        def __call__(self, inputs, **kwargs):
            return 1.0 - super().__call__(inputs, **kwargs)

    model = Upside(linear(activation="sigmoid").layers)
    answers = np.argmax(model(images, training=False), -1)
    logits = keras_uap.logits_function(model, images=images)(images)
    np.testing.assert_array_equal(np.argmax(logits, -1), answers)


@pytest.mark.parametrize("dtype", [None, "mixed_float16", "mixed_bfloat16"])
def test_check_on_images_knows_rounding(dtype, cnn, images):
    """A head is not given up for the last digits of a 16-bit model."""
    model = cnn(dtype=dtype)
    logits = keras_uap.logits_function(model, images=images)(images)
    # Logarithms of probabilities sum to one, logits do not.
    assert np.all(np.abs(np.exp(logits).sum(-1) - 1) > 1e-3)


@pytest.mark.parametrize("classes", [1, 3])
def test_linear_head_of_probabilities(classes, images):
    """`from_logits=False` is believed of a Dense layer, too."""
    model = with_head(layers.Dense(classes, kernel_initializer="zeros"))
    model.layers[-1].kernel.assign(
        np.random.default_rng(0).uniform(0, 2 / 192, (192, classes))
    )
    p = np.asarray(model(images))
    assert np.all((p > 0) & (p < 1))
    logits = keras_uap.logits_function(model, from_logits=False)(images)
    expected = np.log(p) - (np.log(1 - p) if classes == 1 else 0)
    if classes == 1:
        assert 0 < np.mean(p > 0.5) < 1
    np.testing.assert_allclose(
        np.asarray(logits)[:, -classes:], expected, atol=1e-4
    )


def test_probabilities_that_are_none(linear, images):
    with pytest.raises(ValueError, match=r"from_logits=False.*from -"):
        keras_uap.logits_function(linear(), False, images)


def test_one_named_output(linear, images):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, {"scores": linear()(inputs)})
    for from_logits in (None, True):
        logits = keras_uap.logits_function(model, from_logits, images)(images)
        np.testing.assert_allclose(
            logits, exact_logits(model, images), atol=1e-4
        )
    inputs = keras.Input((8, 8, 3))
    flat = layers.Flatten()(inputs)
    head = layers.Dense(4, "softmax")
    model = keras.Model(inputs, {"scores": head(flat)})
    logits = keras_uap.logits_function(model)(images)
    np.testing.assert_allclose(logits, exact_logits(model, images), atol=1e-4)


def test_one_output_of_several_of_an_inner_model(linear, images):
    inputs = keras.Input((8, 8, 3))
    flat = layers.Flatten()(inputs)
    heads = [layers.Dense(n, "softmax") for n in (2, 4)]
    inner = keras.Model(inputs, [head(flat) for head in heads])
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, inner(inputs)[1])
    logits = keras_uap.logits_function(model, images=images)(images)
    exact = images.reshape(len(images), -1) @ np.asarray(heads[1].kernel)
    np.testing.assert_allclose(logits, exact, atol=1e-4)


@pytest.mark.filterwarnings("ignore:The classifier ends in several")
@pytest.mark.parametrize(
    "tail",
    [
        [layers.Flatten()],
        [layers.Flatten(), layers.Softmax()],
        [layers.Activation("softmax"), layers.Flatten()],
        [layers.Activation("sigmoid"), layers.GlobalMaxPooling2D()],
    ],
    ids=["logits", "softmax", "softmax inside", "sigmoid inside"],
)
def test_features_of_a_classifier_without_a_dense_layer(tail, images):
    """Of a named layer, beside the logits that DeepFool and losses see."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(6, 4, activation="relu", name="hidden"),
            layers.Conv2D(3, 5),
            *tail,
        ]
    )
    from_logits = len(tail) == 1
    adapter = ClassifierAdapter(model, (8, 8, 3), from_logits, images)
    features, logits = adapter.features_function("hidden")(images)
    np.testing.assert_array_equal(logits, adapter.logits(images))
    np.testing.assert_array_equal(
        features, np.reshape(model.layers[0](images), (len(images), -1))
    )
    with pytest.raises(ValueError, match="Name the layer"):
        adapter.features_function()
