"""Tests of `UniversalPerturbation`: what `compile` takes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import slow


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("optimizer", "lionn", ValueError),
        ("optimizer", "MultiOptimizer", ValueError),
        ("optimizer", 3, TypeError),
        ("optimizer", keras.optimizers.Lion, TypeError),
        ("loss", "mse", ValueError),
        ("loss", keras.losses.mean_squared_error, TypeError),
        ("smoothing", -1.0, ValueError),
        ("smoothing", float("inf"), ValueError),
        ("smoothing", "2", ValueError),
    ],
)
def test_bad_compile(argument, value, error, linear, make_uap):
    uap = make_uap(linear())
    with pytest.raises(error, match=argument):
        uap.compile(**{argument: value})


def test_deepfool_cannot_reach_a_target(linear, make_uap):
    uap = make_uap(linear(), target=1)
    with pytest.raises(ValueError, match="target=1"):
        uap.compile("deepfool")


def test_decaying_lion(linear, images, make_uap):
    uap = make_uap(linear(), 0.1)
    optimizer = uap.decaying_lion(10)
    rates = [float(optimizer._learning_rate(step)) for step in (0, 5, 10)]
    assert rates == pytest.approx([0.02, 0.0101, 0.0002])
    small = uap.decaying_lion(10, step=0.02)
    assert float(small._learning_rate(0)) == pytest.approx(0.002)
    with pytest.raises(ValueError, match="step must be"):
        uap.decaying_lion(10, step=0)
    uap.compile(optimizer)
    uap.fit(images, verbose=0)


def test_steps_per_execution(cnn, images, make_uap):
    runs = []
    for steps in (1, 2):
        keras.utils.set_random_seed(0)
        uap = make_uap(cnn())
        uap.compile("lion", steps_per_execution=steps)
        uap.fit(images, batch_size=8, epochs=2, verbose=0)
        runs.append(uap.perturbation)
    np.testing.assert_allclose(*runs, atol=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        keras.losses.CategoricalCrossentropy(),
        keras.losses.BinaryFocalCrossentropy(),
        keras.losses.MeanSquaredError(),
    ],
)
@pytest.mark.parametrize("target", [None, 1])
def test_losses_with_the_other_aim(loss, target, linear, make_uap):
    uap = make_uap(linear(), target=target)
    reaches = isinstance(loss, keras.losses.SparseCategoricalCrossentropy)
    if target is not None and reaches:
        uap.compile("lion", loss)
        return
    with pytest.raises(
        ValueError, match=f"loss={type(loss).__name__}. Pass 'crossentropy'"
    ):
        uap.compile("lion", loss)


class Turned(keras.losses.SparseCategoricalCrossentropy):
    """A loss of one's own."""

    def call(self, y_true, y_pred):
        return -super().call(y_true, y_pred)


def test_a_loss_of_ones_own(linear, images, make_uap):
    uap = make_uap(linear())
    uap.compile("lion", Turned(from_logits=True))
    uap.fit(images, epochs=3, verbose=0)
    assert uap.evaluate(images, verbose=0) > 0


class Steps(keras.callbacks.Callback):
    """Keeps the schedule's length of the step that follows each batch."""

    def on_train_begin(self, logs=None):
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(float(self.model.optimizer.learning_rate))


def falling(first, batches, begin=0):
    return np.linspace(first, first / 100, batches + 1)[begin + 1 :]


@pytest.mark.parametrize(
    ("optimizer", "form"),
    [
        ("decaying_lion", "array"),
        ("decaying_lion", "unknown"),
        slow("decaying_lion", "known"),
        slow("deepfool", "steps"),
        slow("decaying_lion", "py"),
    ],
)
def test_steps_fall_over_each_fit(form, optimizer, linear, images, make_uap):
    uap = make_uap(linear(), 0.1)
    uap.compile(optimizer)
    first = 0.02 if optimizer == "decaying_lion" else 0.8
    data = tf.data.Dataset.from_tensor_slices(images).batch(8)
    arguments, batches = {}, 5
    if form == "array":
        data, arguments, batches = images, {"batch_size": 12}, 4
    elif form == "unknown":
        data = data.filter(lambda x: True)
    elif form == "steps":
        data, arguments = data.repeat(), {"steps_per_epoch": 3}
        batches = 3
    elif form == "py":
        data = _Halves(images)
        batches = 2
    steps = Steps()
    for epochs in (2, 3):  # A second fit starts anew.
        uap.fit(data, epochs=epochs, verbose=0, callbacks=steps, **arguments)
        np.testing.assert_allclose(
            steps.seen, falling(first, epochs * batches), rtol=1e-5
        )
    uap.fit(
        data,
        epochs=4,
        initial_epoch=3,
        verbose=0,
        callbacks=steps,
        **arguments,
    )
    np.testing.assert_allclose(
        steps.seen, falling(first, 4 * batches, 3 * batches), rtol=1e-5
    )


class _Halves(keras.utils.PyDataset):
    def __init__(self, images):
        super().__init__()
        self.images = images

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.images[20 * index :][:20]


@pytest.mark.slow
def test_decaying_lion_by_name_is_that_of_counted_batches(
    cnn, images, make_uap
):
    runs = []
    for named in (True, False):
        keras.utils.set_random_seed(0)
        uap = make_uap(cnn())
        uap.compile("decaying_lion" if named else uap.decaying_lion(10))
        uap.fit(images, batch_size=8, epochs=2, verbose=0)
        runs.append(uap.perturbation)
    np.testing.assert_allclose(*runs, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["decaying_lion", slow("deepfool")])
def test_falling_steps_saved_and_loaded(
    optimizer, cnn, images, make_uap, tmp_path
):
    uap = make_uap(cnn())
    uap.compile(optimizer)
    uap.fit(images, batch_size=8, epochs=2, verbose=0)
    uap.save(tmp_path / "uap.keras")
    again = keras.saving.load_model(tmp_path / "uap.keras")
    for each in (uap, again):
        each.fit(images, batch_size=20, epochs=2, verbose=0)
    np.testing.assert_array_equal(uap.perturbation, again.perturbation)
