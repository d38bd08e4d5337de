"""The event files that `PerturbationTensorBoard` writes, read back."""

import gc
import glob
import weakref

import keras
import models
import numpy as np
import pytest
import tensorflow as tf

import keras_uap
from keras_uap.visualization import style


def events(folder):
    """Tensors by tag and step."""
    found = {}
    for path in sorted(glob.glob(f"{folder}/perturbation/events*")):
        for event in tf.compat.v1.train.summary_iterator(path):
            for value in event.summary.value:
                name = value.metadata.plugin_data.plugin_name
                tensor = tf.make_ndarray(value.tensor)
                found[value.tag, event.step] = name, tensor
    return found


def fit_uap(folder, epochs=2, **arguments):
    x = models.images(12)
    uap = keras_uap.UniversalPerturbation(
        models.cnn(), 0.05, value_range=(0, 1)
    )
    uap.compile("lion")
    board = keras_uap.PerturbationTensorBoard(folder, **arguments)
    uap.fit(x, epochs=epochs, verbose=0, callbacks=[board])
    return uap


def test_a_fit_of_a_perturbation(tmp_path):
    names = ["cat", "dog", "hen", "a label with a very long name"]
    x = tf.data.Dataset.from_tensor_slices(models.images(12)).batch(5)
    uap = fit_uap(tmp_path, images=x, class_names=names)
    found = events(tmp_path)
    assert {step for _, step in found} == {0, 1}
    for step in (0, 1):
        plugin, (width, height, png) = found["perturbation", step]
        assert plugin == "images"
        assert (int(width), int(height)) == (8, 8)
        picture = tf.io.decode_png(png).numpy()
        assert picture.shape == models.SHAPE
    expected = np.clip(255 * style.stretch(uap.perturbation), 0, 255)
    np.testing.assert_array_equal(picture, expected.astype("uint8"))

    plugin, buckets = found["perturbation_values", 1]
    assert plugin == "histograms"
    assert buckets.shape == (30, 3)
    assert buckets[:, 2].sum() == np.prod(models.SHAPE)

    plugin, norm = found["perturbation_linf_norm", 1]
    assert plugin == "scalars"
    assert norm == pytest.approx(np.abs(uap.perturbation).max())

    plugin, (width, height, png) = found["examples", 1]
    assert plugin == "images"
    shape = tf.io.decode_png(png).shape
    assert (int(height), int(width)) == tuple(shape[:2])


@pytest.mark.slow
def test_a_kept_perturbation_is_a_step_of_its_own(tmp_path):
    x = models.images(12)
    uap = keras_uap.UniversalPerturbation(
        models.cnn(), 0.05, value_range=(0, 1)
    )
    board = keras_uap.PerturbationTensorBoard(tmp_path, every=2)
    zero = models.SetRates([1.0, 0.0, 0.0])
    uap.compile("lion")
    uap.fit(
        x,
        epochs=3,
        batch_size=12,
        validation_data=x,
        verbose=0,
        callbacks=[zero, board],
    )
    steps = {step for _, step in events(tmp_path)}
    kept = uap.perturbation.any()
    assert steps == ({1, 3} if kept else {1})


@pytest.mark.slow
def test_a_fit_of_a_model_with_a_layer(tmp_path):
    x = models.images(12)
    layer = keras_uap.PerturbationLayer(
        value_range=(0, 1), rate=0.5, pool_size=3
    )
    training = keras.Sequential(
        [keras.Input(models.SHAPE), layer, models.cnn()]
    )
    training.compile("adam", "sparse_categorical_crossentropy")
    board = keras_uap.PerturbationTensorBoard(tmp_path, images=x)
    training.fit(x, np.arange(12) % 4, epochs=2, verbose=0, callbacks=[board])
    found = events(tmp_path)
    _, pictures = found["perturbation", 1]
    assert len(pictures) == 2 + layer.pool_size
    assert ("examples", 1) in found
    assert ("perturbation_l2_norm", 1) in found


def test_a_fit_of_a_distiller(tmp_path):
    x = models.images(12)
    distiller = keras_uap.AdversarialDistiller(
        models.linear(), 0.05, value_range=(0, 1), pool_size=3
    )
    distiller.compile()
    board = keras_uap.PerturbationTensorBoard(tmp_path, images=x)
    distiller.fit(x, verbose=0, callbacks=[board])
    found = events(tmp_path)
    _, pictures = found["perturbation", 0]
    assert len(pictures) == 2 + 3
    _, norm = found["perturbation_linf_norm", 0]
    assert norm == pytest.approx(np.abs(distiller.perturbation).max())
    assert ("examples", 0) in found


@pytest.mark.slow
def test_it_changes_nothing_and_keeps_nothing(tmp_path):
    plain = fit_uap(tmp_path / "a")
    keras.utils.set_random_seed(7)
    board = keras_uap.PerturbationTensorBoard(
        tmp_path / "b", images=models.images(3)
    )
    x = models.images(12)
    uap = keras_uap.UniversalPerturbation(
        models.cnn(), 0.05, value_range=(0, 1)
    )
    uap.compile("lion")
    uap.fit(x, epochs=2, verbose=0, callbacks=[board])
    np.testing.assert_array_equal(uap.perturbation, plain.perturbation)
    reference = weakref.ref(uap)
    board.set_model(None)
    del uap, plain
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("shape", [(9, 2), (9, 4, 2)])
def test_signals_are_lines_and_what_is_no_picture_a_histogram(tmp_path, shape):
    x = np.random.default_rng(0).normal(size=(8, *shape)).astype("float32")
    uap = keras_uap.UniversalPerturbation(
        models.linear(shape=shape), 0.1, value_range=None
    )
    board = keras_uap.PerturbationTensorBoard(tmp_path, images=x)
    uap.fit(x, verbose=0, callbacks=[board])
    found = events(tmp_path)
    tags = {tag for tag, _ in found}
    assert "perturbation_values" in tags
    if len(shape) == 3:
        assert "examples" not in tags
        return
    for tag in ("perturbation", "examples"):
        plugin, (width, height, png) = found[tag, 0]
        assert plugin == "images"
        drawn = tf.io.decode_png(png).numpy()
        assert drawn.shape[:2] == (int(height), int(width))
        assert drawn.std() > 5


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(TypeError, match="path of a folder"):
        keras_uap.PerturbationTensorBoard(3)
    with pytest.raises(ValueError, match="every must be"):
        keras_uap.PerturbationTensorBoard(tmp_path, every=0)
    model = models.cnn()
    model.compile("adam", "sparse_categorical_crossentropy")
    board = keras_uap.PerturbationTensorBoard(tmp_path)
    with pytest.raises(ValueError, match=r"Received: model .* with 0"):
        model.fit(models.images(4), np.zeros(4), verbose=0, callbacks=[board])
