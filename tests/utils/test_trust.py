"""Backups, loaded files, data sets of another shape or without an end."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import SHAPE, Crash, CrashAt, slow

import keras_uap
from keras_uap.utils import validation


@pytest.fixture
def uap(linear, make_uap):
    uap = make_uap(linear(), mask=np.eye(SHAPE[0]))
    uap.compile("sgd", run_eagerly=True)
    return uap


# Whole files ------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "loss"),
    [
        ("deepfool", "crossentropy"),
        ("decaying_lion", "features+dominant"),
    ],
)
def test_backup_resumes_exactly(
    optimizer, loss, linear, images, held_out, make_uap, tmp_path
):
    folder = tmp_path / "backup"

    def run(seed, *callbacks):
        keras.utils.set_random_seed(seed)
        uap = make_uap(linear())
        uap.compile(optimizer, loss=loss, run_eagerly=True)
        uap.fit(
            images,
            batch_size=6,
            epochs=4,
            validation_data=held_out,
            callbacks=list(callbacks),
            verbose=0,
        )
        return uap

    whole = run(5)
    with pytest.raises(Crash):
        run(5, keras_uap.BackupAndRestore(folder), CrashAt(2))
    assert [path.name for path in folder.iterdir()] == ["epoch_2.weights.h5"]
    # What a kill in the middle of the next write leaves.
    (folder / f".tmp-{'0' * 32}.weights.h5").write_bytes(b"half")
    resumed = run(99, keras_uap.BackupAndRestore(folder))
    assert resumed.history.epoch == [2, 3]
    for name in ("v", "best_v", "best_rate"):
        np.testing.assert_array_equal(
            getattr(resumed, name), getattr(whole, name), err_msg=name
        )
    assert list(folder.iterdir()) == []


def test_backup_of_another_model_can_be_kept(linear, images, tmp_path):
    model = linear()
    model.compile("adam", "mse")
    backup = keras_uap.BackupAndRestore(tmp_path, delete_checkpoint=False)
    labels = np.zeros((len(images), 4))
    model.fit(images, labels, epochs=2, verbose=0, callbacks=[backup])
    weights = model.get_weights()
    again = model.fit(images, labels, epochs=2, verbose=0, callbacks=[backup])
    assert again.epoch == []
    for before, after in zip(weights, model.get_weights()):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("backup_dir", "error"), [("", ValueError), (None, TypeError)]
)
def test_bad_backup_dir(backup_dir, error):
    with pytest.raises(error, match="backup_dir"):
        keras_uap.BackupAndRestore(backup_dir)


def test_backup_of_a_model_that_is_not_built(subclassed, tmp_path):
    callback = keras_uap.BackupAndRestore(tmp_path)
    callback.set_model(subclassed())
    with pytest.raises(ValueError, match="must be built"):
        callback.on_train_begin()


# Loaded files -----------------------------------------------------------------


@pytest.mark.parametrize("value", [0.06, np.nan])
@pytest.mark.parametrize("variable", ["v", "best_v"])
def test_loaded_weights_outside_the_ball_are_refused(
    variable, value, uap, tmp_path
):
    getattr(uap, variable).assign(np.full(SHAPE, value))
    uap.save(tmp_path / "uap.keras")
    with pytest.raises(ValueError, match="outside the ball"):
        keras.saving.load_model(tmp_path / "uap.keras")


@pytest.mark.parametrize("value", [2.0, np.inf])
def test_loaded_weights_of_a_layer_are_refused(value, tmp_path):
    layer = keras_uap.PerturbationLayer(epsilon=1.0)
    model = keras.Sequential([keras.Input(SHAPE), layer])
    layer.perturbations.assign(np.broadcast_to(value, (1, *SHAPE)))
    model.save(tmp_path / "layer.keras")
    with pytest.raises(ValueError, match="outside the ball"):
        keras.saving.load_model(tmp_path / "layer.keras")


@pytest.mark.filterwarnings("ignore:You are saving a model")
@pytest.mark.parametrize("shape", [SHAPE[:2], SHAPE])
def test_mask_is_saved_before_the_size_is_known(
    shape, subclassed, images, make_uap, tmp_path
):
    mask = np.zeros(shape)
    mask[2:5] = 1
    uap = make_uap(subclassed(), mask=mask, from_logits=False)
    assert not uap.built
    uap.save(tmp_path / "uap.keras")
    loaded = keras.saving.load_model(tmp_path / "uap.keras")
    loaded.compile("lion", run_eagerly=True)
    loaded.fit(images[:8], verbose=0)
    assert loaded.perturbation[2:5].any()
    assert not loaded.perturbation[5:].any()
    assert not loaded.perturbation[:2].any()


# Streams ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "eagerly"),
    [
        (lambda x: x[:, :-1], True),
        (lambda x: x[..., :1], True),
        (lambda x: x[0], True),
        slow(lambda x: x[..., :1], False),
    ],
)
def test_batch_of_another_shape_in_a_data_set(bad, eagerly, uap, images):
    def batches():
        for i in range(5):
            x = images[8 * i : 8 * i + 8]
            yield bad(x) if i == 3 else x

    data = tf.data.Dataset.from_generator(
        batches, output_signature=tf.TensorSpec(None, "float32")
    )
    uap.compile("lion", run_eagerly=eagerly)
    with pytest.raises(tf.errors.InvalidArgumentError, match="hape"):
        uap.fit(data, verbose=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="hape"):
        uap.evaluate(data, verbose=0)


class Endless(keras.utils.PyDataset):
    """The same images for ever."""

    def __init__(self, images):
        super().__init__()
        self.images = images

    @property
    def num_batches(self):
        return None

    def __getitem__(self, index):
        return self.images[:8]


def endless(kind, images):
    if kind == "PyDataset":
        return Endless(images)
    return tf.data.Dataset.from_tensors(images[:8]).repeat()


@pytest.mark.parametrize("kind", ["PyDataset", "Dataset"])
def test_endless_data(kind, uap, images):
    data = endless(kind, images)
    with pytest.raises(ValueError, match="Pass steps_per_epoch"):
        uap.fit(data, verbose=0)
    with pytest.raises(ValueError, match="Pass validation_steps"):
        uap.fit(images, validation_data=data, verbose=0)
    with pytest.raises(ValueError, match="Pass steps"):
        uap.evaluate(data, verbose=0)
    uap.fit(
        data,
        steps_per_epoch=2,
        epochs=2,
        callbacks=[keras_uap.StopAtFoolingRate(1.0)],
        verbose=0,
    )
    assert uap.stop_reason is not None


def test_the_perturbation_that_reached_the_rate_is_kept(
    uap, images, held_out, monkeypatch
):
    """Also where an earlier one fooled more of the validation data."""
    found = []

    class Record(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs):
            found.append(self.model.perturbation)
            # Nothing beats the first epoch on the validation data.
            self.model.best_rate.assign(1.0)

    stop = keras_uap.StopAtFoolingRate(0.5, images)
    rates = iter([0.1, 0.9])
    monkeypatch.setattr(stop, "_evaluate", lambda images: next(rates))
    uap.fit(
        images,
        epochs=5,
        validation_data=held_out,
        callbacks=[Record(), stop],
        verbose=0,
    )
    assert len(found) == 2
    assert np.any(found[0] != found[1])
    np.testing.assert_array_equal(uap.perturbation, found[1])


# Arguments --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "arguments"),
    [
        (validation.check_whole, (True, 1)),
        (validation.check_whole, (1.0, 1)),
        (validation.check_whole, (0, 1)),
        (validation.check_number, ("1", 0)),
        (validation.check_number, (True, 0)),
        (validation.check_number, (np.nan, None, 0)),
        (validation.check_flag, (1,)),
        (validation.as_numbers, ("abc",)),
        (validation.as_numbers, (["1.0"],)),
        (validation.as_numbers, (None,)),
        (validation.as_numbers, ([1j],)),
        (validation.as_numbers, ([[1], [1, 2]],)),
        (validation.as_wholes, ("12", 0, 9)),
        (validation.as_wholes, ({1: 2}, 0, 9)),
        (validation.as_wholes, ([], 0, 9)),
        (validation.as_wholes, ([1, 10], 0, 9)),
        (validation.as_wholes, ([True], 0, 9)),
        (validation.as_sizes, ([1.0, np.inf],)),
        (validation.as_sizes, ([0.0],)),
        (validation.as_sizes, (3.0,)),
    ],
)
def test_checks_name_the_argument(check, arguments):
    with pytest.raises((ValueError, TypeError), match=r"^argument must"):
        check("argument", *arguments)


def test_checks_let_good_values_through():
    validation.check_whole("n", np.int64(3), 3)
    validation.check_number("n", np.float32(0.5), below=1)
    validation.check_flag("n", False)
    assert validation.as_wholes("n", np.array([1, 2]), 0, 2) == (1, 2)
    assert validation.as_wholes("n", range(2), 0, 2) == (0, 1)
    assert validation.as_sizes("n", [1, 2.5]) == (1.0, 2.5)
    bfloat16 = tf.constant([1.5], "bfloat16")
    assert validation.as_numbers("n", bfloat16).astype("float32") == 1.5


def test_deepfool_is_not_compiled_by_xla(uap):
    with pytest.raises(ValueError, match="jit_compile=True"):
        uap.compile("deepfool", jit_compile=True)
    uap.compile("deepfool", jit_compile="auto")
    assert not uap.jit_compile


def test_softmax_over_one_output(linear, make_uap):
    with pytest.raises(ValueError, match="at least two classes"):
        make_uap(linear(1, "softmax"))
