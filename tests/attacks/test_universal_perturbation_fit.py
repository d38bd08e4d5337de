"""Tests of `UniversalPerturbation`: a fit from its first epoch to its end."""

import csv
import itertools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import SHAPE, UPDATES, Crash, CrashAt, SetRates, slow

import keras_uap


@pytest.mark.parametrize(
    ("update", "labelled"),
    [("deepfool", True), ("lion", True), slow("one_by_one", False)],
)
def test_history(update, labelled, cnn, images, held_out, make_uap):
    uap = make_uap(cnn())
    uap.compile(UPDATES[update]())
    y, val = None, held_out
    if labelled:
        y, val = np.arange(40) % 4, (held_out, np.arange(24) % 4)
    history = uap.fit(images, y, epochs=2, validation_data=val, verbose=0)
    keys = {"fooling_rate", "val_fooling_rate", "norm", "model_passes"}
    keys |= {"loss", "no_gradient"} if update == "lion" else {"not_converged"}
    if labelled:
        keys |= {"accuracy", "val_accuracy"}
    assert history.history.keys() == keys
    assert history.epoch == [0, 1]
    if update == "lion":
        assert history.history["model_passes"] == [80, 80]
    assert uap.stop_reason == "all epochs done"


def test_it_fools_more_than_random_signs(cnn, images, make_uap):
    uap = make_uap(cnn())
    signs = np.random.default_rng(0).choice([-0.05, 0.05], SHAPE)
    uap.perturbation = signs
    random = uap.evaluate(images, verbose=0)
    for update in ("deepfool", "lion"):
        uap.perturbation = np.zeros(SHAPE)
        uap.compile(update)
        uap.fit(images, epochs=5, verbose=0)
        assert uap.evaluate(images, verbose=0) > random + 0.1


# The caller's things ----------------------------------------------------------


def state_of(model):
    values = {v.path: v.numpy() for v in model.variables}
    values |= {v.path: v.numpy() for v in model.optimizer.variables}
    for metric in model.metrics:
        values |= {v.path: v.numpy() for v in metric.variables}
    flags = [layer.trainable for layer in model._flatten_layers()]
    names = [m.name for m in model.metrics]
    trainable = [w.path for w in model.trainable_weights]
    return values, (flags, names, trainable, model.loss, id(model.optimizer))


@pytest.mark.parametrize("update", ["deepfool", "one_by_one", "lion"])
def test_classifier_and_arrays_are_left_as_they_are(
    update, cnn, images, make_uap
):
    classifier = cnn(dropout=0.5)
    classifier.layers[1].trainable = False
    classifier.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    labels = np.arange(40) % 4
    classifier.fit(images, labels, verbose=0)
    values, rest = state_of(classifier)
    copy, label_copy = images.copy(), labels.copy()
    images.flags.writeable = labels.flags.writeable = False

    uap = make_uap(classifier)
    uap.compile(UPDATES[update]())
    uap.fit(images, labels, validation_data=(images, labels), verbose=0)
    uap.evaluate(images, labels, verbose=0)
    uap.perturb(images)

    after, rest_after = state_of(classifier)
    assert rest_after == rest
    assert after.keys() == values.keys()
    for name, value in values.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    np.testing.assert_array_equal(images, copy)
    np.testing.assert_array_equal(labels, label_copy)
    assert not images.flags.writeable
    images.flags.writeable = True
    # And it can still be trained.
    classifier.fit(images, labels, verbose=0)
    assert int(classifier.optimizer.iterations) == 4
    frozen = classifier.layers[1].get_weights()[0]
    np.testing.assert_array_equal(
        frozen, values[classifier.layers[1].kernel.path]
    )


# Same seed, same v; interrupted and resumed -----------------------------------


def lion():
    return keras.optimizers.Lion(0.005, beta_1=0.9)


RESUMED = [keras_uap.DeepFool, lion]


@pytest.mark.parametrize("update", RESUMED)
def test_same_seed_same_perturbation(update, cnn, images, make_uap):
    def run(seed):
        keras.utils.set_random_seed(seed)
        uap = make_uap(cnn())
        uap.compile(update())
        uap.fit(images, batch_size=6, epochs=2, verbose=0)
        return uap.perturbation

    once = run(3)
    np.testing.assert_array_equal(once, run(3))
    assert np.any(once != run(4))  # The order of the images is another.


@pytest.mark.parametrize("update", RESUMED)
def test_resumed_run_equals_the_uninterrupted_one(
    update, cnn, images, held_out, make_uap, tmp_path
):
    classifier = cnn()

    def run(seed, *callbacks):
        keras.utils.set_random_seed(seed)
        uap = make_uap(classifier)
        uap.compile(update())
        uap.fit(
            images,
            batch_size=6,
            epochs=4,
            validation_data=held_out,
            callbacks=list(callbacks),
            verbose=0,
        )
        return uap

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    whole = run(5)
    with pytest.raises(Crash):
        run(5, backup(), CrashAt(2, Crash()))
    resumed = run(99, backup())
    assert resumed.history.epoch == [2, 3]
    for name in ("v", "best_v", "best_rate"):
        np.testing.assert_array_equal(
            getattr(resumed, name), getattr(whole, name), err_msg=name
        )
    for key, values in whole.history.history.items():
        assert resumed.history.history[key] == values[2:], key


# The best perturbation is kept ------------------------------------------------


def rates_of(uap, strengths, images):
    rates = []
    for strength in strengths:
        uap.perturbation = np.full(SHAPE, strength)
        rates.append(uap.evaluate(images, verbose=0))
    return rates


STRENGTHS = [0.01, 0.04, 0.02]


def test_best_perturbation_on_validation_data_is_kept(linear, images, make_uap):
    uap = make_uap(linear())
    uap.compile("sgd")
    rates = rates_of(uap, STRENGTHS, images)
    assert max(rates) == rates[1] > rates[0]
    set_rates = SetRates(iter(STRENGTHS))
    history = uap.fit(
        images,
        batch_size=40,
        epochs=3,
        validation_data=images,
        callbacks=[set_rates],
        verbose=0,
    )
    assert history.history["val_fooling_rate"] == pytest.approx(rates)
    np.testing.assert_array_equal(uap.perturbation, np.float32(STRENGTHS[1]))
    assert float(uap.best_rate) == pytest.approx(rates[1])


@pytest.mark.parametrize("error", [KeyboardInterrupt, Crash])
def test_best_perturbation_is_kept_when_interrupted(
    error, linear, images, make_uap
):
    uap = make_uap(linear())
    uap.compile("sgd")
    with pytest.raises(error):
        uap.fit(
            images,
            batch_size=40,
            epochs=9,
            validation_data=images,
            callbacks=[SetRates(iter(STRENGTHS)), CrashAt(3, error())],
            verbose=0,
        )
    np.testing.assert_array_equal(uap.perturbation, np.float32(STRENGTHS[1]))
    assert uap.stop_reason == f"ended by {error.__name__}"


def test_interrupted_without_validation_data(linear, images, make_uap):
    uap = make_uap(linear())
    uap.compile("sgd")
    with pytest.raises(KeyboardInterrupt):
        uap.fit(
            images,
            epochs=9,
            callbacks=[CrashAt(1, KeyboardInterrupt())],
            verbose=0,
        )
    assert np.any(uap.perturbation != 0)


# Callbacks --------------------------------------------------------------------


@pytest.mark.parametrize("where", ["fit", "validation", "given"])
def test_stop_at_fooling_rate(where, linear, images, held_out, make_uap):
    uap = make_uap(linear())
    uap.compile("sgd")
    measured_on = {"fit": images, "validation": held_out, "given": images[:9]}
    rates = rates_of(uap, STRENGTHS, measured_on[where])
    assert rates[0] < rates[1]
    stop = keras_uap.StopAtFoolingRate(
        rates[1], images=images[:9] if where == "given" else None
    )
    history = uap.fit(
        images,
        batch_size=40,
        epochs=3,
        validation_data=None if where == "fit" else held_out,
        callbacks=[SetRates(iter(STRENGTHS)), stop],
        verbose=0,
    )
    assert history.epoch == [0, 1]
    assert f"fooling_rate {rates[1]:.3f} reached" in uap.stop_reason
    assert "after epoch 2" in uap.stop_reason
    if where == "fit":
        assert history.history["fooling_rate"] == pytest.approx(rates[:2])


def test_stop_at_fooling_rate_of_an_endless_data_set(linear, images, make_uap):
    data = tf.data.Dataset.from_tensor_slices(images).batch(20).repeat()
    uap = make_uap(linear())
    uap.compile("sgd")
    uap.fit(
        data,
        steps_per_epoch=2,
        epochs=2,
        callbacks=[keras_uap.StopAtFoolingRate(1.0)],
        verbose=0,
    )
    assert uap.stop_reason is not None


def test_stop_at_target_rate(linear, images, make_uap):
    uap = make_uap(linear(), 0.5, target=3)
    uap.compile("lion")
    history = uap.fit(
        images,
        epochs=50,
        validation_data=images,
        callbacks=[keras_uap.StopAtFoolingRate(0.9, monitor="target_rate")],
        verbose=0,
    )
    assert len(history.epoch) < 50
    others = linear().predict(images, verbose=0).argmax(-1) != 3
    labels = linear().predict(uap.perturb(images), verbose=0).argmax(-1)
    rate = np.mean(labels[others] == 3)
    assert history.history["val_target_rate"][-1] == pytest.approx(rate)
    assert rate >= 0.9
    assert uap.evaluate(images, verbose=0)[1] == pytest.approx(rate)


def test_keras_callbacks(linear, images, held_out, make_uap, tmp_path):
    uap = make_uap(linear())
    uap.compile("sgd")
    callbacks = keras.callbacks
    history = uap.fit(
        images,
        batch_size=40,
        epochs=4,
        validation_data=held_out,
        callbacks=[
            SetRates(iter([0.03, 0.04, 0.01, 0.01])),
            callbacks.CSVLogger(tmp_path / "log.csv"),
            callbacks.ModelCheckpoint(
                tmp_path / "best.keras",
                monitor="val_fooling_rate",
                mode="max",
                save_best_only=True,
            ),
            callbacks.EarlyStopping(
                "val_fooling_rate",
                mode="max",
                patience=1,
                restore_best_weights=True,
            ),
        ],
        verbose=0,
    )
    assert history.epoch == [0, 1, 2]
    assert uap.stop_reason == "stopped by a callback"
    np.testing.assert_array_equal(uap.perturbation, np.float32(0.04))
    best = keras.saving.load_model(tmp_path / "best.keras")
    np.testing.assert_array_equal(best.perturbation, np.float32(0.04))
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert set(rows[0]) == {"epoch", *history.history}
    assert float(rows[1]["norm"]) == pytest.approx(0.04)


def test_single_callback(linear, images, make_uap):
    csv_like = SetRates(itertools.repeat(0.02))
    uap = make_uap(linear())
    uap.compile("sgd")
    uap.fit(images, callbacks=csv_like, verbose=0)
    np.testing.assert_array_equal(uap.perturbation, np.float32(0.02))


@pytest.mark.parametrize(
    ("update", "verbose"), [("lion", 1), slow("deepfool", 2)]
)
def test_progress_bar_shows_the_rates_and_the_norm(
    update, verbose, images, held_out, linear, make_uap, capsys
):
    uap = make_uap(linear())
    uap.compile(update)
    history = uap.fit(
        images, validation_data=held_out, epochs=1, verbose=verbose
    ).history
    text = capsys.readouterr().out
    shown = set(re.findall(r"- (\w+):", text))
    assert shown == {"fooling_rate", "val_fooling_rate", "norm"}
    # Nothing is lost: the rest stays where a program looks for it.
    own = {"loss", "no_gradient"} if update == "lion" else {"not_converged"}
    assert set(history) == shown | own | {"model_passes"}


def test_progress_bar_of_the_caller_is_the_only_one(
    images, linear, make_uap, capsys
):
    bar = keras.callbacks.ProgbarLogger()
    make_uap(linear()).fit(images, epochs=3, callbacks=bar, verbose=2)
    assert capsys.readouterr().out.count("Epoch 2/3") == 1
