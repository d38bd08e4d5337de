"""What is kept of a classifier is of the classifier as it is now."""

import keras
import models
import numpy as np
import pytest
import tensorflow as tf

import keras_uap
from keras_uap import analysis
from keras_uap.classifiers.adapter import ClassifierAdapter
from keras_uap.classifiers.logits import features_function

layers = keras.layers
X = models.images(24)
OTHER = (0.2 + 0.1 * models.images(5, seed=9)).astype("float32")


def normalizing(activation=None):
    first = layers.Normalization()
    first.adapt(X)
    body = [layers.Flatten(), layers.Dense(8, "tanh")]
    parts = [first, *body, layers.Dense(4, activation)]
    return keras.Sequential([keras.Input(models.SHAPE), *parts])


def rescaling(scale, offset=0.0):
    body = [layers.Flatten(), layers.Dense(8, "tanh"), layers.Dense(4)]
    first = layers.Rescaling(scale, offset)
    return keras.Sequential([keras.Input(models.SHAPE), first, *body])


def _set(layer, **values):
    for name, value in values.items():
        setattr(layer, name, value)


def _add(model):
    model.add(layers.Rescaling(-1.0))


# A classifier, and a change of what is no weight in it.
CHANGES = {
    "adapt": (normalizing, lambda m: m.layers[0].adapt(OTHER)),
    "adapt, softmax": (
        lambda: normalizing("softmax"),
        lambda m: m.layers[0].adapt(OTHER),
    ),
    "a list": (
        lambda: rescaling([4.0, 4.0, 4.0]),
        lambda m: _set(m.layers[0], scale=[0.3, 9.0, -3.0]),
    ),
    "an array": (
        lambda: rescaling(4.0, np.zeros(3, "float32")),
        lambda m: _set(m.layers[0], offset=np.float32([3, -2, 1])),
    ),
    "a number": (
        lambda: rescaling(4.0),
        lambda m: _set(m.layers[0], scale=-2.0),
    ),
    "an activation": (
        lambda: rescaling(4.0),
        lambda m: _set(m.layers[-2], activation=keras.activations.relu),
    ),
    "a head": (
        lambda: rescaling(4.0),
        lambda m: _set(m.layers[-1], activation=keras.activations.softmax),
    ),
    "one more layer": (lambda: rescaling(4.0), _add),
}


def labels_now(model, images):
    """The labels of a classifier, without any function that was traced."""
    return np.argmax(model(tf.constant(images), training=False), axis=-1)


SOME_CHANGES = ["adapt, softmax"]
SOME_CHANGES += [models.slow(c) for c in CHANGES if c not in SOME_CHANGES]


@pytest.mark.slow
@pytest.mark.parametrize("change", SOME_CHANGES)
def test_deepfool_is_of_the_classifier_as_it_is(change):
    make, alter = CHANGES[change]
    model = make()
    keras_uap.deepfool(model, X, verbose=0)
    alter(model)
    found = keras_uap.deepfool(model, X, verbose=0)
    after = labels_now(model, X + found.perturbations)
    np.testing.assert_array_equal(found.labels, after)
    changed = labels_now(model, X) != after
    np.testing.assert_array_equal(found.converged, changed)


@pytest.mark.parametrize(
    ("change", "update"),
    [
        ("adapt, softmax", "lion"),
        models.slow("an array", "lion"),
        models.slow("a head", "deepfool"),
        models.slow("one more layer", "lion"),
    ],
)
def test_fits_and_evaluations_are_of_the_classifier_as_it_is(change, update):
    make, alter = CHANGES[change]
    model = make()

    def new():
        uap = keras_uap.UniversalPerturbation(
            model, 0.1, value_range=None, seed=3
        )
        uap.compile(update)
        return uap

    kept = new()
    kept.fit(X, verbose=0)
    v = np.full(models.SHAPE, 0.1, "float32") * np.sign(X[0] - 0.5)
    kept.perturbation = v
    kept.evaluate(X, verbose=0)
    alter(model)
    expected = np.mean(labels_now(model, X) != labels_now(model, X + v))
    assert kept.evaluate(X, verbose=0) == pytest.approx(expected)
    data = tf.data.Dataset.from_tensor_slices(X).batch(5)
    assert kept.evaluate(data, verbose=0) == pytest.approx(expected)
    fresh = new()
    found = []
    for uap in (kept, fresh):
        uap.perturbation = 0 * v
        uap.seed_generator.state.assign([1, 0])
        uap.compile(update)
        uap.fit(X, epochs=2, verbose=0)
        found.append(uap.perturbation)
    np.testing.assert_allclose(*found, atol=1e-6)


def test_training_step_by_step_is_of_the_classifier_as_it_is():
    model = normalizing()
    uap = keras_uap.UniversalPerturbation(model, 0.1, value_range=None, seed=3)
    uap.compile("lion")
    uap.train_on_batch(X[:8])
    model.layers[0].adapt(OTHER)
    found = uap.test_on_batch(X[:8], return_dict=True)["fooling_rate"]
    moved = labels_now(model, X[:8] + uap.perturbation)
    assert found == pytest.approx(np.mean(moved != labels_now(model, X[:8])))


def test_the_same_adapter_follows_with_its_features():
    model = normalizing("softmax")
    adapter = ClassifierAdapter(model, models.SHAPE, images=X[:4])
    adapter.labels_and_features(X)
    traced = adapter.compiled_logits
    assert not adapter.refresh(X[:4])
    assert adapter.compiled_logits is traced
    model.layers[0].adapt(OTHER)
    assert adapter.refresh(X[:4])
    labels, features = adapter.labels_and_features(X)
    np.testing.assert_array_equal(labels, labels_now(model, X))
    part = keras.Sequential(model.layers[:-1])
    np.testing.assert_allclose(features, part(X), atol=1e-5)
    assert not adapter.refresh(X[:4])


# Layers in several places ----------------------------------------------------


def transferred():
    """The layers of one model, applied again in another."""
    base = keras.Sequential(
        [
            keras.Input(models.SHAPE),
            layers.Conv2D(4, 3, name="conv"),
            layers.GlobalAveragePooling2D(name="pooling"),
        ]
    )
    image = keras.Input(models.SHAPE)
    x = layers.Rescaling(2.0)(image)
    for layer in base.layers:
        x = layer(x)
    return keras.Model(image, layers.Dense(4)(x))


def twice():
    shared = layers.Dense(192, name="shared")
    image = keras.Input(models.SHAPE)
    x = shared(layers.ReLU()(shared(layers.Flatten()(image))))
    return keras.Model(image, layers.Dense(4)(x))


def nested():
    """A model as a layer, after whose layers a head stands."""
    image = keras.Input(models.SHAPE)
    return keras.Model(image, keras.Sequential([transferred()])(image))


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (transferred, "pooling"),
        models.slow(twice, "shared"),
        models.slow(nested, "pooling"),
    ],
)
def test_a_layer_is_taken_where_it_stands_in_this_model(make, layer):
    model = make()
    features, logits = features_function(model, layer)(X)
    np.testing.assert_allclose(logits, model(X), atol=1e-4)
    own, _ = features_function(model)(X)
    np.testing.assert_allclose(features, own, atol=1e-5)
    uap = keras_uap.UniversalPerturbation(model, 0.05, value_range=(0, 1))
    uap.compile("lion", loss=keras_uap.losses.Features(layer=layer))
    uap.fit(X, verbose=0)
    found = analysis.feature_collapse(
        model, uap.perturbation, X, layer=layer, value_range=(0, 1), verbose=0
    )
    assert found.num_features == features.shape[1]


def test_a_layer_before_the_one_that_is_used_twice():
    model = transferred()
    features, _ = features_function(model, "conv")(X)
    conv = model.get_layer("conv")
    np.testing.assert_allclose(
        features, tf.reshape(conv(2.0 * X), (len(X), -1)), atol=1e-5
    )


def test_no_number_of_the_users_models_is_spent():
    model = models.cnn("softmax")
    image = keras.Input((2,))
    before = keras.Model(image, image).name
    adapter = ClassifierAdapter(model, models.SHAPE, images=X[:4])
    adapter.refresh(X[:4])
    after = keras.Model(image, image).name
    assert after == f"functional_{int(before.split('_')[1]) + 1}"
