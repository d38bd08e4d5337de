"""Tests of `UniversalPerturbation`: saved, loaded, and gone on with."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import SHAPE, UPDATES, slow

import keras_uap
from keras_uap.perturbations.lp_ball import lp_norm


def sequential(cnn, subclassed):
    return cnn()


def functional(cnn, subclassed):
    model = cnn()
    return keras.Model(model.inputs[0], model.outputs[0])


def opaque(cnn, subclassed):
    return subclassed()


@pytest.mark.parametrize(
    ("kind", "update"),
    [
        slow(sequential, "deepfool"),
        (functional, "lion"),
        slow(opaque, "sgd"),
    ],
)
def test_save_and_load(
    kind, update, cnn, subclassed, images, held_out, make_uap, tmp_path
):
    mask = np.zeros(SHAPE[:2])
    mask[:, ::2] = 1
    target = None if update == "deepfool" else 1
    uap = make_uap(
        kind(cnn, subclassed), 0.09, norm="l2", mask=mask, target=target
    )
    if update == "deepfool":
        schedule = keras.optimizers.schedules.PolynomialDecay(0.5, 9, 0.1)
        rule = keras_uap.DeepFool(3, 0.03, 20, step_size=schedule)
        uap.compile(rule, steps_per_execution=2)
    else:
        uap.compile(UPDATES[update](), loss="margin", steps_per_execution=2)
    uap.fit(images, epochs=2, validation_data=held_out, verbose=0)
    measured = uap.evaluate(held_out, verbose=0, return_dict=True)
    uap.save(tmp_path / "uap.keras")
    loaded = keras.saving.load_model(tmp_path / "uap.keras")

    assert type(loaded) is keras_uap.UniversalPerturbation
    np.testing.assert_array_equal(loaded.perturbation, uap.perturbation)
    np.testing.assert_array_equal(loaded.mask, uap.mask)
    assert loaded.mask.numpy().sum() == 8 * 4 * 3
    for name in ("epsilon", "norm", "value_range", "target", "name"):
        assert getattr(loaded, name) == getattr(uap, name), name
    assert loaded.get_compile_config() == uap.get_compile_config()
    assert loaded.steps_per_execution == 2
    assert len(uap.optimizer.variables) == len(loaded.optimizer.variables) > 1
    for one, other in zip(uap.optimizer.variables, loaded.optimizer.variables):
        np.testing.assert_array_equal(one, other)
    again = loaded.evaluate(held_out, verbose=0, return_dict=True)
    assert again == measured
    np.testing.assert_array_equal(
        loaded.seed_generator.state, uap.seed_generator.state
    )
    # Both go on from the same place in the same way.
    for model in (uap, loaded):
        model.fit(images, epochs=1, verbose=0)
    np.testing.assert_array_equal(loaded.perturbation, uap.perturbation)


def test_save_and_load_around_float16(cnn, images, make_uap, tmp_path):
    uap = make_uap(cnn(dtype="mixed_float16"), 0.0301)
    uap.compile("lion")
    uap.fit(images, verbose=0)
    uap.save(tmp_path / "uap.keras")
    loaded = keras.saving.load_model(tmp_path / "uap.keras")
    np.testing.assert_array_equal(loaded.perturbation, uap.perturbation)
    assert lp_norm(loaded.perturbation) <= 0.0301
    assert loaded.perturbation.dtype == np.float32


def test_learning_rate_of_the_user_survives(cnn, images, make_uap, tmp_path):
    uap = make_uap(cnn())
    uap.compile("lion")
    assert float(uap.optimizer.learning_rate) == pytest.approx(0.005)
    uap.optimizer.learning_rate = 0.001
    uap.fit(images, verbose=0)
    uap.save(tmp_path / "uap.keras")
    loaded = keras.saving.load_model(tmp_path / "uap.keras")
    assert float(loaded.optimizer.learning_rate) == pytest.approx(0.001)


def test_rate_set_before_the_size_is_known(subclassed, images, make_uap):
    uap = make_uap(subclassed())
    uap.compile("sgd")
    uap.optimizer.learning_rate = 0.01  # What Keras gives it, too.
    uap.fit(images, verbose=0)
    assert float(uap.optimizer.learning_rate) == pytest.approx(0.01)
    uap = make_uap(subclassed())
    uap.compile("sgd")
    uap.fit(images, verbose=0)
    assert float(uap.optimizer.learning_rate) == pytest.approx(0.005)


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("by_hand", [True, False])
def test_rate_saved_before_a_fit(
    by_hand, built, cnn, subclassed, images, make_uap, tmp_path
):
    uap = make_uap(cnn() if built else subclassed())
    uap.compile("lion")
    if by_hand:
        uap.optimizer.learning_rate = 0.001
    if not built:  # A classifier is saved with its weights.
        uap.classifier(images[:1])
    uap.save(tmp_path / "uap.keras")
    loaded = keras.saving.load_model(tmp_path / "uap.keras")
    loaded.fit(images, verbose=0)
    expected = 0.001 if by_hand else 0.005
    assert float(loaded.optimizer.learning_rate) == pytest.approx(expected)


@pytest.mark.parametrize("optimizer_too", [True, False])
def test_rate_with_a_mask(optimizer_too, cnn, make_uap, tmp_path):
    mask = np.zeros(SHAPE[:2])
    mask[:1] = 1
    uap = make_uap(cnn(), 10.0, norm="l2", mask=mask)
    uap.compile("lion")
    uap.save(tmp_path / "uap.keras", include_optimizer=optimizer_too)
    loaded = keras.saving.load_model(tmp_path / "uap.keras")
    if not optimizer_too:
        loaded.compile("lion")
    for model in (uap, loaded):
        rate = float(model.optimizer.learning_rate)
        assert rate == pytest.approx(1 / np.sqrt(24))


@pytest.mark.parametrize(
    "copy",
    [
        keras.models.clone_model,
        lambda uap: type(uap).from_config(uap.get_config()),
    ],
)
@pytest.mark.parametrize("kind", ["linear", "subclassed"])
def test_a_copy_has_the_mask(kind, copy, linear, subclassed, make_uap):
    mask = np.random.default_rng(0).integers(0, 2, SHAPE)
    uap = make_uap(linear() if kind == "linear" else subclassed(), mask=mask)
    assert len(str(uap.get_config()["mask_bits"])) < mask.size / 5
    copied = copy(uap)
    if not copied.built:
        copied.build((None, *SHAPE))
    np.testing.assert_array_equal(copied.mask, mask)


def test_a_mask_of_another_length_is_refused(linear, make_uap):
    config = make_uap(linear(), mask=np.ones(SHAPE[:2])).get_config()
    config["mask_shape"] = [800, 800, 3]
    with pytest.raises(ValueError, match="mask in the file is damaged"):
        keras_uap.UniversalPerturbation.from_config(config)


# Not registered, so that a file that names them cannot be read.


class OwnLoss(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean((y_true - y_pred) ** 2, axis=-1)


def own_loss(y_true, y_pred):
    return OwnLoss().call(y_true, y_pred)


@pytest.mark.parametrize(
    ("loss", "nested"), [(OwnLoss(), True), slow(own_loss, False)]
)
def test_how_the_classifier_was_compiled_is_not_saved(
    loss, nested, linear, images, make_uap, tmp_path
):
    classifier = compiled = linear()
    compiled.compile("adam", loss)
    compiled.fit(images, np.zeros((len(images), 4)), verbose=0)
    if nested:
        classifier = keras.Sequential([keras.Input(SHAPE), compiled])
    uap = make_uap(classifier)
    uap.compile("lion")
    uap.fit(images, verbose=0)
    uap.save(tmp_path / "uap.keras")
    assert compiled.compiled
    assert compiled.optimizer.iterations.numpy() == 2
    loaded = keras.saving.load_model(tmp_path / "uap.keras")
    np.testing.assert_array_equal(
        loaded.predict(images, verbose=0), uap.predict(images, verbose=0)
    )
    assert loaded.get_compile_config()["optimizer"] == "lion"


def test_an_older_file_with_a_loss_of_its_own_loads(linear, make_uap):
    classifier = linear()
    classifier.compile("adam", OwnLoss())
    config = make_uap(classifier).get_config()
    # Older files say how the classifier was compiled.
    config["classifier"] = keras.saving.serialize_keras_object(classifier)
    assert "OwnLoss" in str(config["classifier"])
    loaded = keras_uap.UniversalPerturbation.from_config(config)
    assert not loaded.classifier.compiled


def test_export_right_after_fit(cnn, images, make_uap, tmp_path):
    uap = make_uap(cnn())
    uap.fit(images, verbose=0)
    uap.export(tmp_path / "uap", verbose=False)
    served = tf.saved_model.load(tmp_path / "uap")
    np.testing.assert_allclose(
        served.serve(images), uap.predict(images, verbose=0), atol=1e-6
    )
