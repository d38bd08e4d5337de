"""Tests of `UniversalPerturbation`: what `compile` takes."""

import keras
import numpy as np
import pytest


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("optimizer", "lionn", ValueError),
        ("optimizer", "MultiOptimizer", ValueError),
        ("optimizer", 3, TypeError),
        ("optimizer", keras.optimizers.Lion, TypeError),
        ("loss", "mse", ValueError),
        ("loss", keras.losses.mean_squared_error, TypeError),
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
