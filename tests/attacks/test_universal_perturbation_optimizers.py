"""Tests of `UniversalPerturbation`: what optimizers of all kinds make of it."""

import keras
import numpy as np
import pytest
from models import slow

import keras_uap
from keras_uap.perturbations.lp_ball import lp_norm

# Averaging --------------------------------------------------------------------


def averaging(kind, **kwargs):
    kwargs = {"use_ema": True, "ema_momentum": 0.9} | kwargs
    if kind == "lion":
        return keras.optimizers.Lion(0.3, **kwargs)
    sgd = keras.optimizers.SGD(0.3, **kwargs)
    return keras.optimizers.LossScaleOptimizer(sgd) if kind == "scaled" else sgd


@pytest.mark.parametrize(
    ("kind", "norm", "swap"),
    [
        ("sgd", "linf", True),
        slow("lion", "l2", False),
        slow("scaled", "l2", True),
    ],
)
def test_averages_stay_in_the_ball(
    kind, norm, swap, cnn, images, held_out, make_uap, each_batch, tmp_path
):
    uap = make_uap(cnn(), 0.5, norm=norm)
    uap.compile(averaging(kind))
    callbacks = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] * swap

    def check(model):
        # Swapping by sums and differences rounds.
        assert lp_norm(model.perturbation, norm) <= 0.5 * (1 + 1e-6)

    def check_batch(model):
        assert lp_norm(model.perturbation, norm) <= 0.5

    for validation_data in (None, held_out):
        uap.fit(
            images,
            batch_size=8,
            epochs=3,
            validation_data=validation_data,
            callbacks=[*callbacks, each_batch(check)],
            verbose=0,
        )
        check_batch(uap)
    assert np.any(uap.perturbation != 0)
    uap.save(tmp_path / "uap.keras")
    loaded = keras.saving.load_model(tmp_path / "uap.keras")
    np.testing.assert_array_equal(loaded.perturbation, uap.perturbation)


def test_average_that_overwrites(cnn, images, make_uap, each_batch):
    uap = make_uap(cnn(), 0.5, norm="l2")
    uap.compile(averaging("sgd", ema_overwrite_frequency=2))
    check = each_batch(lambda m: m.ball.refuse_outside(m.perturbation))
    uap.fit(images, batch_size=8, epochs=2, callbacks=check, verbose=0)
    assert lp_norm(uap.perturbation, "l2") <= 0.5


def test_the_average_is_kept_that_was_measured(cnn, images, held_out, make_uap):
    """While `SwapEMAWeights` measures, `v` is the average."""
    uap = make_uap(cnn(), 0.1)
    uap.compile(averaging("lion"))
    history = uap.fit(
        images,
        batch_size=8,
        epochs=3,
        validation_data=held_out,
        callbacks=[keras.callbacks.SwapEMAWeights()],
        verbose=0,
    ).history
    assert uap.evaluate(held_out, verbose=0) == pytest.approx(
        max(history["val_fooling_rate"])
    )


def test_what_reached_the_rate_is_kept_and_not_an_average(
    cnn, images, make_uap
):
    uap = make_uap(cnn(), 0.3)
    uap.compile(averaging("lion", ema_momentum=0.999))
    history = uap.fit(
        images,
        epochs=5,
        callbacks=[keras_uap.StopAtFoolingRate(0.2)],
        verbose=0,
    ).history
    assert uap.stop_reason.startswith("fooling_rate")
    assert uap.evaluate(images, verbose=0) == pytest.approx(
        history["fooling_rate"][-1]
    )


# Scaled, accumulated, in half precision ---------------------------------------


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("factor", None),
        slow("wrapped", "mixed_float16"),
        slow("plain", "bfloat16"),
    ],
)
def test_steps_are_in_pixels_whatever_the_precision(
    kind, dtype, cnn, images, make_uap, tmp_path
):
    found = []
    for other in (False, True):
        keras.utils.set_random_seed(0)
        sgd = keras.optimizers.SGD(0.005)
        if other and kind == "wrapped":
            sgd = keras.optimizers.LossScaleOptimizer(sgd)
        elif other and kind == "factor":
            sgd = keras.optimizers.SGD(0.005, loss_scale_factor=1024.0)
        more = {"dtype": dtype} if other and dtype else {}
        uap = make_uap(cnn(), **more)
        uap.compile(sgd)
        uap.fit(images, batch_size=8, epochs=2, verbose=0)
        found.append((uap.perturbation, uap.predict(images, verbose=0)))
        assert uap.perturbation.dtype == np.float32
    (one, scores), (two, scores_too) = found
    assert np.abs(one).max() > 0.01
    np.testing.assert_allclose(one, two, atol=1e-6)
    np.testing.assert_allclose(scores, scores_too, atol=1e-4)
    uap.save(tmp_path / "uap.keras")
    loaded = keras.saving.load_model(tmp_path / "uap.keras")
    np.testing.assert_array_equal(loaded.perturbation, two)
    loaded.fit(images, verbose=0)


def test_accumulating_over_more_batches_than_there_are(cnn, images, make_uap):
    uap = make_uap(cnn())
    optimizer = keras.optimizers.SGD(0.01, gradient_accumulation_steps=11)
    optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    uap.compile(optimizer)
    with pytest.raises(ValueError, match="gradient_accumulation_steps=11"):
        uap.fit(images, batch_size=8, epochs=2, verbose=0)
    uap.fit(images, batch_size=8, epochs=3, verbose=0)
    assert np.any(uap.perturbation != 0)


@pytest.mark.parametrize("name", ["adadelta", "Adafactor"])
def test_optimizers_that_hardly_leave_zero_are_refused_by_name(
    name, linear, make_uap
):
    uap = make_uap(linear())
    with pytest.raises(ValueError, match=f"optimizer='{name}'.*'lion'"):
        uap.compile(name)
    # Whoever makes one chooses its learning rate.
    uap.compile(keras.optimizers.get({"class_name": name, "config": {}}))


@pytest.mark.parametrize(
    "name",
    [
        slow("adagrad"),
        "adam",
        slow("adamax"),
        slow("adamw"),
        slow("ftrl"),
        "lion",
        slow("muon"),
        slow("nadam"),
        slow("rmsprop"),
        "sgd",
    ],
)
def test_named_optimizers_come_near_the_edge(name, linear, images, make_uap):
    uap = make_uap(linear())
    uap.compile(name, run_eagerly=True)
    uap.fit(images, batch_size=8, epochs=5, verbose=0)
    assert lp_norm(uap.perturbation) > 0.8 * uap.epsilon
