"""Tests of attaching: every kind of classifier, and what cannot be one."""

import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import slow

import keras_uap

SHAPE = (6, 6, 3)
layers = keras.layers


def head(x, units=4, activation="softmax", name=None, dtype=None):
    """A convolution and class scores whose labels a few grey levels change."""
    normal = keras.initializers.RandomNormal
    conv = layers.Conv1D if len(x.shape) == 3 else layers.Conv2D
    x = conv(5, 3, kernel_initializer=normal(0, 0.1, seed=1), dtype=dtype)(x)
    x = layers.Flatten(dtype=dtype)(x)
    dense = layers.Dense(
        units,
        activation,
        kernel_initializer=normal(0, 0.003, seed=2),
        name=name,
        dtype=dtype,
    )
    return dense(x)


def functional(shape=SHAPE, **kwargs):
    image = keras.Input(shape, name="picture", dtype="float32")
    return keras.Model(image, head(image, **kwargs))


def sequential(built):
    parts = [layers.Conv2D(5, 3), layers.Flatten(), layers.Dense(4)]
    return keras.Sequential([keras.Input(SHAPE), *parts] if built else parts)


def several(structure):
    """A classifier of two inputs and two outputs."""
    image = keras.Input(SHAPE, name="image")
    age = keras.Input((2,), name="age")
    x = layers.Concatenate()([layers.Flatten()(image), age])
    kind = layers.Dense(4, "softmax", name="kind")(x)
    box = layers.Dense(3, name="box")(x)
    if structure is dict:
        return keras.Model(
            {"image": image, "age": age}, {"boxes": box, "kinds": kind}
        )
    return keras.Model([image, age], [box, kind])


@keras.saving.register_keras_serializable(package="keras_uap_tests")
class ChannelsFirst(keras.Model):
    """Takes `(n, 3, H, W)`; returns a dictionary, as some classifiers do."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(5, 3)
        self.dense = layers.Dense(4)

    def call(self, inputs):
        # On some processors TensorFlow has no convolution of channels first.
        x = self.conv(keras.ops.moveaxis(inputs["pixels"], 1, -1))
        x = keras.ops.max(x, axis=(1, 2))
        return {"features": x, "logits": self.dense(x)}


def channels_first():
    image = keras.Input((3, 8, 8))
    x = layers.Conv2D(5, 3)(layers.Permute((2, 3, 1))(image))
    return keras.Model(image, layers.Dense(4)(layers.Flatten()(x)))


def caffe(x):
    return x[..., ::-1] - np.array([103.939, 116.779, 123.68])


# name: (classifier, arguments of attach, shape of the images, what the
# classifier is to get for images x, how to find its scores)
OTHERS = {"other_inputs": {"age": [0.5, 2.0]}}
AGES = np.tile(np.float32([[0.5, 2.0]]), (6, 1))
KINDS = {
    "softmax": (functional, {}, SHAPE, lambda x: x),
    "sigmoid": (
        lambda: functional(activation="sigmoid"),
        {"value_range": (0, 1)},
        SHAPE,
        lambda x: x / 255,
    ),
    "single probability": (
        lambda: functional(units=1, activation="sigmoid"),
        {"value_range": "tf"},
        SHAPE,
        lambda x: x / 127.5 - 1,
    ),
    "single logit": (
        lambda: functional(units=1, activation=None),
        {"value_range": "caffe"},
        SHAPE,
        caffe,
    ),
    "mixed precision": (
        lambda: functional(dtype="mixed_float16"),
        {"value_range": "torch"},
        SHAPE,
        lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    ),
    "sequential": (
        lambda: sequential(True),
        {"channel_order": "bgr"},
        SHAPE,
        lambda x: x[..., ::-1],
    ),
    "sequential, not built": (
        lambda: sequential(False),
        {"image_shape": SHAPE, "value_range": [(0, 1), (0, 2), (-1, 1)]},
        SHAPE,
        lambda x: x / 255 * [1, 2, 2] - [0, 0, 1],
    ),
    "dictionaries": (
        lambda: several(dict),
        {"output": "kinds", **OTHERS},
        SHAPE,
        lambda x: {"image": x, "age": AGES},
        lambda y: y["kinds"],
    ),
    "lists": (
        lambda: several(list),
        {"output": "kind", "input": "image", **OTHERS},
        SHAPE,
        lambda x: [x, AGES],
        lambda y: y[1],
    ),
    "channels first": (
        channels_first,
        {"value_range": "caffe"},
        (8, 8, 3),
        lambda x: np.moveaxis(caffe(x), -1, 1),
    ),
    "subclassed, channels first": (
        ChannelsFirst,
        {
            "image_shape": SHAPE,
            "data_format": "channels_first",
            "input": "pixels",
            "output": "logits",
        },
        SHAPE,
        lambda x: {"pixels": np.moveaxis(x, -1, 1)},
        lambda y: y["logits"],
    ),
    "grey, any size": (
        lambda: keras.Sequential(
            [
                keras.Input((None, None, 1)),
                layers.Conv2D(4, 3),
                layers.GlobalMaxPooling2D(),
            ]
        ),
        {"image_shape": (9, 7, 1), "value_range": (-1, 1)},
        (9, 7, 1),
        lambda x: x / 127.5 - 1,
    ),
    "spectrogram": (
        lambda: functional((5, 20, 1)),
        {},
        (5, 20, 1),
        lambda x: x,
    ),
    "signal": (
        lambda: functional((16, 2)),
        {"value_range": [(-1, 1), (0, 1)]},
        (16, 2),
        lambda x: x / 255 * [2, 1] - [1, 0],
    ),
    "another size": (
        functional,
        {"image_shape": (12, 12, 3)},
        (12, 12, 3),
        lambda x: tf.image.resize(x, (6, 6), antialias=True),
    ),
}


def draw(shape):
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (6, *shape)).astype("float32")


def goes_all_the_way(classifier, images, path, safe_mode=True):
    """Fit, evaluate, layer, save, load."""
    uap = keras_uap.UniversalPerturbation(classifier, 10.0)
    uap.compile("lion")
    # An odd number of batches: sign steps to and fro do not cancel out.
    uap.fit(images, batch_size=2, verbose=0)
    v = uap.perturbation
    assert v.shape == images.shape[1:]
    assert 0 < np.abs(v).max() <= 10
    rate = uap.evaluate(images, verbose=0, return_dict=True)["fooling_rate"]

    layer = keras_uap.PerturbationLayer(v)
    attacked = keras.Sequential([keras.Input(v.shape), layer, classifier])
    scores = attacked(images)
    np.testing.assert_allclose(scores, uap(images), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        layer(images[0]), uap.perturb(images)[0], rtol=1e-6
    )
    uap.save(path)
    loaded = keras.saving.load_model(path, safe_mode=safe_mode)
    np.testing.assert_array_equal(loaded.perturbation, v)
    assert loaded.evaluate(images, verbose=0) == pytest.approx(rate)
    np.testing.assert_allclose(loaded(images), scores, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_kind_of_classifier(kind):
    make, arguments, shape, given, *find = KINDS[kind]
    classifier = make()
    attached = keras_uap.attach(classifier, **arguments)
    images = draw(shape)
    assert attached.input_shape == (None, *shape)
    expected = classifier(given(images))
    expected = find[0](expected) if find else expected
    tolerance = 2e-3 if kind == "mixed precision" else 1e-5
    np.testing.assert_allclose(
        attached(images), expected, rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize(
    "kind",
    [
        "dictionaries",
        slow("single probability"),
        slow("mixed precision"),
        slow("sequential, not built"),
        slow("subclassed, channels first"),
        slow("signal"),
        slow("another size"),
    ],
)
@pytest.mark.filterwarnings("ignore:The classifier ends in several")
def test_fit_behind_what_is_attached(kind, tmp_path):
    make, arguments, shape, *_ = KINDS[kind]
    attached = keras_uap.attach(make(), **arguments)
    goes_all_the_way(attached, draw(shape), tmp_path / "uap.keras")


@pytest.fixture(scope="module")
def saved_models(tmp_path_factory):
    """Folders that Keras, and plain TensorFlow, wrote."""
    classifier = functional()
    folder = tmp_path_factory.mktemp("saved")
    classifier.export(folder / "keras", verbose=False)
    tf.saved_model.save(classifier, folder / "tensorflow")
    tf.saved_model.save(tf.Module(), folder / "empty")
    text = keras.Sequential(
        [keras.Input((), dtype="string"), layers.TextVectorization(10)]
    )
    text.layers[0].adapt(["a b"])
    tf.saved_model.save(text, folder / "text")
    classifier.save(folder / "classifier.keras")
    return classifier, folder


@pytest.mark.parametrize(
    "writer", [pytest.param("keras", marks=pytest.mark.slow), "tensorflow"]
)
def test_saved_model(writer, saved_models, tmp_path):
    classifier, folder = saved_models
    attached = keras_uap.attach(folder / writer, (-1, 1))
    images = draw(SHAPE)
    np.testing.assert_allclose(
        attached(images), classifier(images / 127.5 - 1), rtol=1e-4, atol=1e-6
    )
    # Keras loads a layer around foreign code on explicit trust only.
    goes_all_the_way(attached, images, tmp_path / "uap.keras", safe_mode=False)


def test_path_of_a_keras_file(saved_models):
    classifier, folder = saved_models
    images = draw(SHAPE)
    attached = keras_uap.attach(folder / "classifier.keras")
    np.testing.assert_allclose(attached(images), classifier(images), rtol=1e-5)


def test_weights_are_shared_and_nothing_else_changes():
    classifier = functional()
    classifier.trainable = False
    before = classifier.get_weights()
    attached = keras_uap.attach(classifier, "caffe")
    assert [w.path for w in attached.weights] == [
        w.path for w in classifier.weights
    ]
    for old, new in zip(before, classifier.get_weights()):
        np.testing.assert_array_equal(old, new)
    assert not classifier.trainable
    assert not classifier.compiled
    classifier.set_weights([2 * w for w in before])
    images = draw(SHAPE)
    np.testing.assert_allclose(
        attached(images), classifier(caffe(images)), rtol=1e-5, atol=1e-6
    )


def test_what_it_adds_loads_without_keras_uap(tmp_path):
    attached = keras_uap.attach(
        several(dict),
        "caffe",
        image_shape=(12, 12, 3),
        output="kinds",
        **OTHERS,
    )
    assert "keras_uap" not in attached.to_json()
    attached.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras", safe_mode=True)
    images = draw((12, 12, 3))
    np.testing.assert_allclose(loaded(images), attached(images), rtol=1e-5)


@pytest.mark.parametrize("kind", ["softmax", "lists"])
def test_saturated_softmax_keeps_its_gradient(kind):
    """The head behind what was attached is rebuilt, not its logarithm."""
    make, arguments, *_ = KINDS[kind]
    classifier = make()
    classifier.set_weights([3000 * w for w in classifier.get_weights()])
    attached = keras_uap.attach(classifier, **arguments)
    images = tf.constant(draw(SHAPE))
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = keras_uap.logits_function(attached)(images)
        lowest = tf.reduce_sum(tf.reduce_min(logits, axis=-1))
    assert np.abs(attached(images)).max() == 1
    assert tf.reduce_all(tf.reduce_any(tape.gradient(lowest, images) != 0, 1))


def test_global_image_data_format_plays_no_part():
    classifier, images = functional(), draw(SHAPE)
    expected = keras_uap.attach(classifier, "torch")(images)
    keras.config.set_image_data_format("channels_first")
    try:
        np.testing.assert_allclose(
            keras_uap.attach(classifier, "torch")(images), expected, rtol=1e-6
        )
    finally:
        keras.config.set_image_data_format("channels_last")


def test_global_mixed_precision_does_not_round_the_pixels():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        flatten = layers.Flatten(dtype="float32")
        attached = keras_uap.attach(flatten, (0, 510), image_shape=(4, 4))
    finally:
        keras.config.set_dtype_policy("float32")
    image = np.full((1, 4, 4), 200.01, "float32")
    np.testing.assert_allclose(
        attached(image), 2 * image.reshape(1, 16), rtol=1e-6
    )


class Plain(tf.Module):
    @tf.function
    def call(self, x):
        return x


@keras.saving.register_keras_serializable(package="keras_uap_tests")
class Unbuilt(keras.Model):
    def call(self, inputs):
        return keras.ops.max(inputs, axis=(1, 2))


def text():
    words = keras.Input((), dtype="string", name="words")
    x = layers.TextVectorization(vocabulary=["a"])(words)
    return keras.Model(words, x)


def integers():
    image = keras.Input(SHAPE, dtype="uint8", name="picture")
    return keras.Model(image, head(layers.Rescaling(1.0)(image)))


def backbone():
    image = keras.Input(SHAPE)
    return keras.Model(image, layers.Conv2D(4, 3)(image))


REFUSED = {
    "several outputs": (
        lambda: several(dict),
        OTHERS,
        r"output=None.*one of \['boxes', 'kinds'\]",
    ),
    "unknown output": (
        lambda: several(list),
        {"output": "kid", **OTHERS},
        r"'kid'.*\['box', 'kind'\]",
    ),
    "output out of range": (
        lambda: several(list),
        {"output": 2, **OTHERS},
        r"output=2",
    ),
    "another output of the only one": (
        lambda: keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                keras.layers.Flatten(),
                keras.layers.Dense(3),
            ]
        ),
        {"output": "kinds"},
        "name the class scores.*output='kinds'",
    ),
    "several inputs": (
        lambda: several(dict),
        {"output": "kinds"},
        r"input=None.*together: \['image', 'age'\]",
    ),
    "no value for an input": (
        lambda: several(dict),
        {"output": "kinds", "input": "image"},
        "other_inputs give a value to each other",
    ),
    "value of the wrong shape": (
        lambda: several(dict),
        {"output": "kinds", "other_inputs": {"age": [1, 2, 3]}},
        r"\(3,\) for 'age'. Expected: \(2,\)",
    ),
    "values without the image": (
        Unbuilt,
        {"image_shape": SHAPE, "other_inputs": {"age": 1}},
        "input must name the image",
    ),
    "no classification head": (backbone, {}, "include_top=False"),
    "no size": (Unbuilt, {}, r"Pass image_shape=\(height, width, channels\)"),
    "not built": (lambda: sequential(False), {}, "Pass image_shape="),
    "other channels": (
        functional,
        {"image_shape": (6, 6, 1)},
        "only height and width can be resized",
    ),
    "other rank": (functional, {"image_shape": (6, 6)}, "unknown|signals"),
    "flat": (
        lambda: keras.Sequential([keras.Input((5,)), layers.Dense(2)]),
        {},
        r"Received: \(5,\)",
    ),
    "unknown mode": (functional, {"value_range": "pytorch"}, "one of .*torch"),
    "no range": (functional, {"value_range": None}, "value_range=None"),
    "wrong way round": (functional, {"value_range": (1, 0)}, "low < high"),
    "two pairs": (
        functional,
        {"value_range": [(0, 1), (0, 1)]},
        "2 pairs for 3 channels",
    ),
    "bgr of grey": (
        lambda: functional((6, 6, 1)),
        {"channel_order": "bgr"},
        "images of 3 channels",
    ),
    "order of channels": (functional, {"channel_order": "gbr"}, "'gbr'"),
    "data format": (functional, {"data_format": "NCHW"}, "'NCHW'"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refuses(kind):
    make, arguments, message = REFUSED[kind]
    with pytest.raises(ValueError, match=message):
        keras_uap.attach(make(), **arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Plain, "tf.saved_model.save"),
        (lambda: len, "rebuild others in Keras"),
        (text, "'words' of dtype string"),
        (integers, "'picture' of dtype uint8"),
    ],
)
def test_refuses_what_has_no_gradient(make, message):
    with pytest.raises(TypeError, match=message):
        keras_uap.attach(make())


def test_refuses_saved_models(saved_models, tmp_path):
    _, folder = saved_models
    with pytest.raises(ValueError, match="must have a signature"):
        keras_uap.attach(folder / "empty")
    with pytest.raises(TypeError, match="string"):
        keras_uap.attach(folder / "text")
    with pytest.raises(ValueError, match=r"no saved_model\.pb"):
        keras_uap.attach(tmp_path)


@pytest.fixture(scope="module")
def unloadable(tmp_path_factory):
    """Files that Keras 3 cannot load, by name: path and what is said."""
    folder = tmp_path_factory.mktemp("unloadable")

    class Own(layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    def saved(name, layer):
        path = folder / name
        keras.Sequential(
            [keras.Input(SHAPE), layer, layers.Flatten(), layers.Dense(2)]
        ).save(path)
        return path

    # As tf_keras writes it.
    config = {"module": "keras.src.engine.functional", "class_name": "Fun"}
    of_keras_2 = folder / "keras_2.keras"
    with zipfile.ZipFile(of_keras_2, "w") as file:
        text = {**config, "config": {"name": "a" * 5000}}
        file.writestr("config.json", json.dumps(text))
        file.writestr("metadata.json", '{"keras_version": "2.15.0"}')
        file.writestr("model.weights.h5", b"")
    # As Keras 2 writes it: with the slots of an optimizer.
    module, slot = tf.Module(), tf.Variable([1.0])
    module.v = tf.Variable([1.0])

    class Optimizer(tf.Module):
        def get_slot_names(self):
            return ["momentum"]

        def get_slot(self, variable, name):
            return slot if variable is module.v else None

        def _create_or_restore_slot_variable(self, *args, **kwargs):
            raise NotImplementedError

    module.optimizer = Optimizer()
    module.call = tf.function(
        lambda x: x * module.v, [tf.TensorSpec((None, 4, 4, 3))]
    )
    tf.saved_model.save(module, folder / "slots", module.call)
    tflite = folder / "model.tflite"
    tflite.write_bytes(b"TFL3")
    broken = folder / "broken.keras"
    broken.write_bytes(b"no zip")
    return {
        "own layer": (saved("own.keras", Own()), "Own, which"),
        "own layer, HDF5": (
            saved("own.h5", Own()),
            "Own, which",
        ),
        "lambda": (
            saved("lambda.keras", layers.Lambda(lambda x: x)),
            "a Lambda layer.*safe_mode=False",
        ),
        "keras 2": (of_keras_2, "layers of Keras 2"),
        "slots": (folder / "slots", "state of an optimizer of Keras 2"),
        "tflite": (tflite, "no .keras or .h5 file"),
        "broken": (broken, "File not found"),
        "missing": (folder / "missing.keras", "File not found"),
    }


KINDS_UNLOADABLE = ["own layer", "own layer, HDF5", "lambda", "keras 2"]
KINDS_UNLOADABLE += ["slots", "tflite", "broken", "missing"]


@pytest.mark.parametrize("kind", KINDS_UNLOADABLE)
def test_what_cannot_be_loaded_is_said_in_a_sentence(kind, unloadable):
    path, says = unloadable[kind]
    with pytest.raises(ValueError, match=says) as caught:
        keras_uap.attach(path)
    text = str(caught.value)
    assert str(path) in text
    assert "model.export(folder)" in text
    assert len(text) < 600
    assert "\n" not in text
    assert "TFSMLayer(" not in text


def test_no_gradient_is_said_by_fit():
    image = keras.Input(SHAPE)
    x = keras.ops.cast(keras.ops.cast(image, "int32"), "float32")
    uap = keras_uap.UniversalPerturbation(keras.Model(image, head(x)), 10.0)
    uap.compile("lion")
    with pytest.raises(ValueError, match="no gradient with respect"):
        uap.fit(draw(SHAPE), verbose=0)


# The zoo --------------------------------------------------------------------

FAMILIES = {
    "caffe": ("resnet", "vgg16", "vgg19"),
    "tf": (
        *("mobilenet", "mobilenet_v2", "resnet_v2", "inception_v3"),
        *("inception_resnet_v2", "nasnet", "xception"),
    ),
    "torch": ("densenet",),
    (0, 255): ("convnext", "efficientnet", "efficientnet_v2", "mobilenet_v3"),
}


@pytest.mark.parametrize("mode", FAMILIES)
def test_pixel_ranges_are_those_of_the_zoo(mode):
    images = draw(SHAPE)
    pixels = images
    for operation in keras_uap.attach(functional(), mode).operations[1:-1]:
        pixels = operation(pixels)
    for family in FAMILIES[mode]:
        prepare = getattr(keras.applications, family).preprocess_input
        np.testing.assert_allclose(
            pixels, prepare(images.copy()), rtol=1e-4, atol=1e-4
        )


# One with each kind of preparation, in front or inside.
ZOO = [
    ("MobileNetV2", "mobilenet_v2", "tf"),
    ("MobileNetV3Small", "mobilenet_v3", (0, 255)),
    ("EfficientNetB0", "efficientnet", (0, 255)),
    ("ConvNeXtTiny", "convnext", (0, 255)),
    ("ResNet50", "resnet", "caffe"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "module", "mode"), ZOO)
def test_ten_grey_levels_in_the_zoo(name, module, mode):
    size, applications = 32, keras.applications
    network = getattr(applications, name)(
        weights=None, input_shape=(size, size, 3), classes=10
    )
    attached = keras_uap.attach(network, mode)
    shape = (size, size, 3)
    images = draw(shape)[:2]
    own = getattr(applications, module).preprocess_input(images.copy())
    np.testing.assert_allclose(
        attached(images), network(own), rtol=1e-3, atol=1e-5
    )
    # ConvNeXt's first convolution is in a Sequential of its own.
    convs = (layers.Conv2D, keras.Sequential)
    is_conv = [isinstance(layer, convs) for layer in network.layers]
    before = network.layers[is_conv.index(True) - 1]
    until_conv = keras.Model(network.inputs[0], before.output)

    def reaches(pixels):
        """What the first convolution gets for images in 0 to 255."""
        for operation in attached.operations[1:-1]:
            pixels = operation(pixels)
        return np.asarray(until_conv(pixels), "float64")

    # Random weights hide differences in the scores, not in the pixels.
    np.testing.assert_allclose(
        reaches(images), until_conv(own), rtol=1e-4, atol=1e-4
    )
    black = reaches(np.zeros((1, *shape), "float32"))
    white = reaches(np.full((1, *shape), 255, "float32"))
    signs = np.sign(np.random.default_rng(1).normal(size=shape))
    v = (10 * signs).astype("float32")
    inside = np.clip(images, 10, 245)
    moved = reaches(inside + v) - reaches(inside)
    flipped = mode == "caffe"
    signs = signs[..., ::-1] if flipped else signs
    inner = white[0, ..., 0] != black[0, ..., 0]  # Without zero padding.
    assert inner.sum() == size * size
    np.testing.assert_allclose(
        (255 * moved / np.where(inner[..., None], white - black, 1))[:, inner],
        np.broadcast_to((10 * signs).reshape(-1, 3), (2, size * size, 3)),
        atol=1e-2,
    )


@pytest.mark.slow
def test_zoo_goes_all_the_way(tmp_path):
    network = keras.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3), classes=10
    )
    attached = keras_uap.attach(network, "tf")
    goes_all_the_way(attached, draw((32, 32, 3)), tmp_path / "uap.keras")


@pytest.mark.parametrize("make", [functional, lambda: sequential(True)])
def test_leaves_no_trace_in_the_model(make):
    classifier = make()
    x = draw(SHAPE)
    before = classifier.predict(x, verbose=0)
    nodes = len(classifier._inbound_nodes)
    attached = [keras_uap.attach(classifier) for _ in range(3)]
    assert len(classifier._inbound_nodes) == nodes
    np.testing.assert_array_equal(attached[0].predict(x, verbose=0), before)
    # The weights are shared all the same.
    classifier.set_weights([0 * w for w in classifier.get_weights()])
    assert np.ptp(attached[0].predict(x, verbose=0)) == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_are_what_the_classifier_states(channels, tmp_path):
    """Of a model and of a SavedModel, and images are resized to either."""
    classifier = functional((*SHAPE[:2], channels))
    classifier.export(tmp_path, verbose=False)
    for model in (classifier, tmp_path):
        attached = keras_uap.attach(model, image_shape=(9, 9, None))
        assert attached.input_shape == (None, 9, 9, channels)
        assert attached(np.zeros((2, 9, 9, channels))).shape == (2, 4)
        with pytest.raises(ValueError, match="image_shape does not fit"):
            keras_uap.attach(model, image_shape=(*SHAPE[:2], 4 - channels))
