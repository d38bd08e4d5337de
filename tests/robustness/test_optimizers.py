"""Optimizers that average, scale, accumulate or decay, wrapped or not.

Random draws. After every batch and every fit `v` is in the ball, whatever the
optimizer puts in its place, and what is saved then can be loaded.
"""

import keras
import models
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import keras_uap
from keras_uap.perturbations.lp_ball import lp_norm

KINDS = {
    "sgd": lambda rate, **kwargs: keras.optimizers.SGD(rate, 0.9, **kwargs),
    "lion": keras.optimizers.Lion,
    "adam": keras.optimizers.Adam,
    "adadelta": keras.optimizers.Adadelta,
    "muon": keras.optimizers.Muon,
    "schedule free": keras.optimizers.ScheduleFreeAdamW,
}


@st.composite
def cases(draw):
    kind = draw(st.sampled_from([*KINDS]))
    averages = kind != "schedule free" and draw(st.booleans())
    arguments = {}
    if averages:
        arguments["use_ema"] = True
        arguments["ema_momentum"] = draw(st.floats(0, 1))
        arguments["ema_overwrite_frequency"] = draw(
            st.none() | st.integers(1, 4)
        )
    if draw(st.booleans()):
        arguments["gradient_accumulation_steps"] = draw(st.integers(2, 5))
    if draw(st.booleans()):
        arguments["weight_decay"] = draw(st.floats(0, 0.1))
    wrapped = draw(st.booleans())
    if not wrapped and draw(st.booleans()):
        arguments["loss_scale_factor"] = 2.0 ** draw(st.integers(0, 15))
    return {
        "kind": kind,
        "rate": 10.0 ** draw(st.floats(-3, 3)),
        "arguments": arguments,
        "wrapped": wrapped,
        "swap": draw(st.sampled_from([None, True, False]))
        if averages
        else None,
        "norm": draw(st.sampled_from(["linf", "l2"])),
        "masked": draw(st.booleans()),
        "validated": draw(st.booleans()),
        "epsilon": 10.0 ** draw(st.floats(-3, 1)),
        "eager": draw(st.sampled_from([True, True, False])),
    }


def test_every_optimizer_keeps_to_the_ball(draws, seed, count, tmp_path):
    images = models.images(20)
    classifier = models.cnn()

    @draws(60, 4)
    @given(cases())
    def check(case):
        keras.utils.set_random_seed(seed)
        optimizer = KINDS[case["kind"]](case["rate"], **case["arguments"])
        if case["wrapped"]:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        mask = np.ones(models.SHAPE)
        mask[:, ::2] = not case["masked"]
        uap = keras_uap.UniversalPerturbation(
            classifier,
            case["epsilon"],
            case["norm"],
            value_range=(0, 1),
            mask=mask if case["masked"] else None,
        )
        uap.compile(optimizer, run_eagerly=case["eager"])

        class Norm(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                within(uap.perturbation)

            def on_epoch_end(self, epoch, logs=None):
                # An average is swapped in by sums, which round.
                within(uap.perturbation, 1 + 1e-6)

        def within(v, slack=1):
            count("invariants checked", 3)
            assert np.isfinite(v).all()
            assert lp_norm(v, case["norm"]) <= case["epsilon"] * slack
            assert not v[mask == 0].any()

        callbacks = [Norm()]
        if case["swap"] is not None:
            callbacks.insert(0, keras.callbacks.SwapEMAWeights(case["swap"]))
        uap.fit(
            images,
            batch_size=7,
            epochs=2,
            validation_data=images[:8] if case["validated"] else None,
            callbacks=callbacks,
            verbose=0,
        )
        within(uap.perturbation)
        count("fits")
        uap.save(tmp_path / "uap.keras")
        loaded = keras.saving.load_model(tmp_path / "uap.keras")
        count("loaded")
        np.testing.assert_array_equal(loaded.perturbation, uap.perturbation)

    check()
