"""Tests of `UniversalPerturbation`: the images and labels that `fit` takes."""

import itertools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import SHAPE, slow

import keras_uap


class Batches(keras.utils.PyDataset):
    def __init__(self, images, labels=None):
        super().__init__()
        self.images = images
        self.labels = labels

    def __len__(self):
        return -(-len(self.images) // 16)

    def __getitem__(self, index):
        part = slice(16 * index, 16 * (index + 1))
        if self.labels is None:
            return (self.images[part],)
        return self.images[part], self.labels[part]


def as_tensor(x, y):
    return tf.constant(x), y


def as_list(x, y):
    return list(x), y


def as_dataset(x, y):
    parts = x if y is None else (x, y)
    return tf.data.Dataset.from_tensor_slices(parts).batch(16), None


def as_py_dataset(x, y):
    return Batches(x, y), None


@pytest.mark.parametrize(
    ("form", "labelled"),
    [
        (as_dataset, True),
        (as_py_dataset, True),
        slow(as_tensor, True),
        slow(as_list, False),
        slow(as_dataset, False),
    ],
)
def test_kinds_of_data_agree(
    form, labelled, linear, images, held_out, make_uap
):
    y = np.arange(40) % 4 if labelled else None

    def run(form):
        uap = make_uap(linear())
        uap.compile("lion")
        val, val_y = form(held_out, None if y is None else y[:24])
        history = uap.fit(
            *form(images, y),
            shuffle=False,
            validation_data=val if val_y is None else (val, val_y),
            verbose=0,
        )
        measured = uap.evaluate(*form(images, y), verbose=0, return_dict=True)
        return uap.perturbation, history.history, measured

    v, history, measured = run(lambda x, y: (x, y))
    other_v, other_history, other_measured = run(form)
    np.testing.assert_allclose(other_v, v, atol=1e-6)
    assert other_measured == pytest.approx(measured)
    # A data set takes one more forward for its clean predictions.
    passes = history.pop("model_passes")[0]
    more = 40 if form in (as_dataset, as_py_dataset) else 0
    assert other_history.pop("model_passes") == [passes + more]
    assert other_history.keys() == history.keys()
    for key, value in history.items():
        assert other_history[key] == pytest.approx(value, abs=1e-5)


def test_uint8_images(cnn, images, make_uap):
    scaled = keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Rescaling(1 / 255), cnn()]
    )
    pixels = np.round(255 * images).astype("uint8")
    runs = []
    for x in (pixels, pixels.astype("float32")):
        keras.utils.set_random_seed(0)
        uap = make_uap(scaled, 10.0, value_range=(0, 255))
        uap.fit(x, validation_data=x, verbose=0)
        runs.append(uap.perturbation)
        moved = uap.perturb(x)
        assert moved.dtype == np.float32
        assert 0 <= moved.min() <= moved.max() <= 255
        np.testing.assert_allclose(uap.perturb(x[0]), moved[0])
    np.testing.assert_array_equal(*runs)


@pytest.mark.parametrize(
    ("kind", "labelled"), [(list, False), (np.asarray, True)]
)
def test_validation_split(kind, labelled, linear, images, make_uap):
    y = np.arange(40) % 4 if labelled else None
    uap, other = make_uap(linear()), make_uap(linear())
    uap.compile("lion")
    other.compile("lion")
    split = uap.fit(
        kind(images), y, validation_split=0.25, shuffle=False, verbose=0
    ).history
    val = images[30:] if y is None else (images[30:], y[30:])
    told = other.fit(
        images[:30],
        y if y is None else y[:30],
        validation_data=val,
        shuffle=False,
        verbose=0,
    ).history
    assert split == told
    np.testing.assert_array_equal(uap.perturbation, other.perturbation)


# Bad data ---------------------------------------------------------------------


def with_nan(images):
    images = images.copy()
    images[3, 1, 2, 0] = np.nan
    return images


def generator(images):
    yield images


DATA = [
    (lambda x: None, TypeError, "NoneType"),
    (lambda x: x[:0], ValueError, "at least one image"),
    (lambda x: [], ValueError, "at least one image"),
    (lambda x: x[0], ValueError, "shape"),
    (lambda x: x[:, :7], ValueError, "shape"),
    (lambda x: x[:, 0, 0, 0], ValueError, "shape"),
    (lambda x: x.astype(str), TypeError, "an array of numbers"),
    (with_nan, ValueError, r"image 3, at position \(1, 2, 0\)"),
    (generator, TypeError, "generator"),
    (lambda x: (x, np.zeros(40)), ValueError, "Labels"),
    (
        lambda x: tf.data.Dataset.from_tensor_slices(x).batch(4).take(0),
        ValueError,
        "empty",
    ),
    (
        lambda x: tf.data.Dataset.from_tensor_slices(x),
        ValueError,
        "shape",
    ),
    (
        lambda x: tf.data.Dataset.from_tensors((x, x[:, 0, 0, 0], x[:, 0])),
        ValueError,
        "sample_weight",
    ),
]


@pytest.mark.parametrize(("make", "error", "says"), DATA)
@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_bad_images(method, make, error, says, linear, images, make_uap):
    uap = make_uap(linear())
    before = uap.perturbation
    with pytest.raises(error, match=says):
        getattr(uap, method)(make(images), verbose=0)
    np.testing.assert_array_equal(uap.perturbation, before)


@pytest.mark.parametrize(("make", "error", "says"), DATA[1:9] + DATA[10:])
def test_bad_validation_data(make, error, says, linear, images, make_uap):
    uap = make_uap(linear())
    with pytest.raises(error, match=says):
        uap.fit(images, validation_data=make(images), verbose=0)
    np.testing.assert_array_equal(uap.perturbation, 0.0)


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("y", np.zeros(3), ValueError),
        ("batch_size", 0, ValueError),
        ("batch_size", 2.5, ValueError),
        ("validation_split", 1.5, ValueError),
        ("validation_split", 0.999, ValueError),
        ("sample_weight", np.ones(40), TypeError),
        ("callbacks", keras.callbacks.CallbackList(), TypeError),
    ],
)
def test_bad_fit_arguments(argument, value, error, linear, images, make_uap):
    uap = make_uap(linear())
    says = "labels" if argument == "y" else argument
    with pytest.raises(error, match=says):
        uap.fit(images, **{argument: value}, verbose=0)
    np.testing.assert_array_equal(uap.perturbation, 0.0)


def test_sample_weights_of_arrays(linear, images, make_uap):
    uap = make_uap(linear())
    weights = np.ones(40)
    with pytest.raises(ValueError, match="sample_weight"):
        uap.fit(images, validation_data=(images, weights, weights), verbose=0)
    with pytest.raises(ValueError, match="sample_weight"):
        uap.evaluate(images, weights, sample_weight=weights, verbose=0)


def test_validation_split_of_a_data_set(linear, images, make_uap):
    data = tf.data.Dataset.from_tensor_slices(images).batch(8)
    with pytest.raises(ValueError, match="validation_split"):
        make_uap(linear()).fit(data, validation_split=0.2, verbose=0)


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_pixels_of_another_range(scale, linear, images):
    uap = keras_uap.UniversalPerturbation(linear(), 10.0)
    with pytest.warns(UserWarning, match=r"\[0, .*\(0, 255\)"):
        uap.fit(scale * images, verbose=0)


def test_no_warning_where_the_range_fits(linear, images, make_uap):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        make_uap(linear()).fit(images, verbose=0)


# In the middle of a stream ----------------------------------------------------


@pytest.mark.parametrize(
    "how", [{}, {"run_eagerly": True}, {"jit_compile": True}]
)
def test_an_image_that_is_not_finite_ends_a_fit(how, linear, images, make_uap):
    bad = images.copy()
    bad[20] = np.inf
    data, good = (
        tf.data.Dataset.from_tensor_slices(x).batch(8) for x in (bad, images)
    )
    uap = make_uap(linear())
    uap.compile("lion", **how)
    with pytest.raises(ValueError, match="x must be finite"):
        uap.fit(data, epochs=2, verbose=0)
    assert uap.stop_reason == "ended by ValueError"
    assert np.isfinite(uap.perturbation).all()
    with pytest.raises(ValueError, match="x must be finite"):
        uap.evaluate(data, verbose=0)
    with pytest.raises(ValueError, match="validation_data must be finite"):
        uap.fit(good, verbose=0, validation_data=data)
    # It is forgotten with the fit.
    uap.fit(good, verbose=0, validation_data=good)
    assert 0 <= uap.evaluate(good, verbose=0) <= 1


def test_the_best_before_a_bad_image_is_kept(linear, images, make_uap):
    uap = make_uap(linear())
    uap.compile("lion")
    reads = itertools.count(-1)  # The first is a check before the fit.

    def batches():
        last = next(reads) == 2
        yield with_nan(images[:8]) if last else images[:8]

    data = tf.data.Dataset.from_generator(
        batches, output_signature=tf.TensorSpec((None, *SHAPE))
    ).apply(tf.data.experimental.assert_cardinality(1))
    best = []
    record = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: best.append(
            (logs["val_fooling_rate"], epoch, uap.perturbation)
        )
    )
    with pytest.raises(ValueError, match="finite"):
        uap.fit(
            data,
            epochs=9,
            validation_data=images,
            callbacks=record,
            verbose=0,
        )
    assert len(best) == 2
    np.testing.assert_array_equal(uap.perturbation, max(best[::-1])[2])


def test_a_data_set_without_images_gives_no_rate(linear, images, make_uap):
    batches = iter([images[:8]])
    data = tf.data.Dataset.from_generator(
        lambda: batches, output_signature=tf.TensorSpec((None, *SHAPE))
    )
    with pytest.raises(ValueError, match="empty"):
        make_uap(linear()).evaluate(data, verbose=0)


# Half precision, one batch, another shape -------------------------------------


@pytest.mark.parametrize("form", ["tensor", slow("data set")])
def test_images_in_bfloat16(form, cnn, images, make_uap):
    found = []
    for half in (False, True):
        keras.utils.set_random_seed(0)
        x = tf.cast(images, "bfloat16")
        x = x if half else tf.cast(x, "float32")
        if form == "data set":
            x = tf.data.Dataset.from_tensor_slices(x).batch(8)
        uap = make_uap(cnn())
        uap.compile("lion")
        uap.fit(x, batch_size=8, validation_data=x, verbose=0)
        found.append((uap.perturbation, uap.evaluate(x, verbose=0)))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_one_batch_builds_the_model(subclassed, images, make_uap):
    uap = make_uap(subclassed())
    uap.compile("lion")
    first = uap.train_on_batch(images[:8], return_dict=True)
    assert first["fooling_rate"] == 0
    assert np.any(uap.perturbation != 0)
    other = make_uap(subclassed())
    assert other.test_on_batch(images[:8], return_dict=True) == {
        "fooling_rate": 0
    }
    with pytest.raises(ValueError, match="shape"):
        uap.train_on_batch(images[:8, :1])


def test_predictions_do_not_broadcast(images, make_uap):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )
    uap = make_uap(model)
    uap.perturbation = np.full(images.shape[1:], 0.01)
    for shape in [(1, 8, 3), (8, 1, 3), (8, 8, 1)]:
        with pytest.raises(ValueError, match="perturbation's shape"):
            uap.predict(np.zeros((4, *shape)), verbose=0)
    # The function that was traced for one shape must not broadcast others.
    assert uap.predict(images, verbose=0).shape == (40, 3)
    for shape in [(1, 8, 3), (8, 1, 3)]:
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
            uap.predict(np.zeros((4, *shape)), verbose=0)


@pytest.mark.parametrize("jit_compile", [slow(False), True])
def test_batch_of_another_shape_however_it_is_compiled(
    jit_compile, images, make_uap
):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )

    def batches():
        yield images[:8]
        yield images[:8, :1]

    data = tf.data.Dataset.from_generator(
        batches, output_signature=tf.TensorSpec((None, None, None, 3))
    )
    uap = make_uap(model)
    uap.compile("lion", jit_compile=jit_compile)
    with pytest.raises(tf.errors.InvalidArgumentError, match="hape"):
        uap.fit(data, verbose=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="hape"):
        uap.evaluate(data, verbose=0)
