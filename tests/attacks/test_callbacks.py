"""Tests of the callbacks."""

import contextlib
import itertools
import random
import subprocess
import sys
import textwrap

import keras
import models
import numpy as np
import pytest
import tensorflow as tf
from models import Crash

import keras_uap
from keras_uap import UniversalAdversarialTraining
from keras_uap.perturbations.lp_ball import lp_norm

SHAPE = (6, 6, 1)
CLASSES = 3
EPSILON = 30.0
LOSS = "sparse_categorical_crossentropy"


def make_data(count=60, seed=0):
    draws = np.random.default_rng(seed)
    kinds = np.random.default_rng(9).uniform(80, 170, (CLASSES, *SHAPE))
    labels = draws.integers(0, CLASSES, count)
    images = kinds[labels] + draws.normal(0, 30, (count, *SHAPE))
    return np.clip(images, 0, 255).astype("float32"), labels


IMAGES, LABELS = make_data()
HELD_OUT, _ = make_data(seed=1)


def make_classifier(dropout=0.0):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(8, activation="tanh"),
            layers.Dropout(dropout),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )


def in_front(layer, classifier):
    model = keras.Sequential([keras.Input(SHAPE), layer, classifier])
    # Tracing a step would take longer than its few batches.
    model.compile("adam", LOSS, metrics=["accuracy"], run_eagerly=True)
    return model


def make_defence(**kwargs):
    arguments = {"epochs": 1, "batch_size": 10} | kwargs
    return UniversalAdversarialTraining(IMAGES[:30], EPSILON, **arguments)


def fit(model, *callbacks, epochs=2, **kwargs):
    arguments = {"batch_size": 20, "shuffle": False, "verbose": 0} | kwargs
    return model.fit(
        IMAGES, LABELS, epochs=epochs, callbacks=list(callbacks), **arguments
    )


class Wrapped(keras.Model):
    """A subclassed model, with the layer inside another layer."""

    class Front(keras.layers.Layer):
        def __init__(self, layer):
            super().__init__()
            self.inner = layer

        def call(self, inputs, training=False):
            return self.inner(inputs, training=training)

    def __init__(self, layer, classifier):
        super().__init__()
        self.front = self.Front(layer)
        self.classifier = classifier

    def call(self, inputs, training=False):
        images = self.front(inputs, training=training)
        return self.classifier(images, training=training)


# StopAtFoolingRate -----------------------------------------------------------


@pytest.fixture
def uap():
    return keras_uap.UniversalPerturbation(make_classifier(), EPSILON)


@pytest.mark.parametrize("where", ["images", "validation", "fit"])
def test_stops_at_the_rate_measured_where_it_says(uap, where):
    stop = keras_uap.StopAtFoolingRate(
        0.01, HELD_OUT if where == "images" else None
    )
    history = uap.fit(
        IMAGES,
        epochs=20,
        verbose=0,
        callbacks=[stop],
        validation_data=HELD_OUT if where == "validation" else None,
    )
    place = {
        "images": "the images given",
        "validation": "the validation data",
        "fit": "the images of the fit",
    }[where]
    assert len(history.epoch) < 20
    assert f"reached 0.01 on {place}" in uap.stop_reason
    measured = IMAGES if where == "fit" else HELD_OUT
    rate = uap.evaluate(measured, verbose=0, return_dict=True)["fooling_rate"]
    assert rate >= 0.01
    assert f"fooling_rate {rate:.3f} " in uap.stop_reason


def test_goes_on_below_the_rate(uap):
    classifier = uap.classifier
    classifier.set_weights([np.zeros_like(w) for w in classifier.weights])
    history = uap.fit(
        IMAGES,
        epochs=2,
        verbose=0,
        callbacks=[keras_uap.StopAtFoolingRate(0.5)],
    )
    assert history.history["fooling_rate"] == [0.0, 0.0]
    assert uap.stop_reason == "all epochs done"


def test_epochs_without_validation_do_not_stop(uap):
    history = uap.fit(
        IMAGES,
        epochs=6,
        verbose=0,
        callbacks=[keras_uap.StopAtFoolingRate(0.01)],
        validation_data=HELD_OUT,
        validation_freq=3,
    )
    assert len(history.epoch) % 3 == 0
    assert "the validation data" in uap.stop_reason


@pytest.mark.parametrize("rate", [0, -0.5, 1.5, True])
def test_stop_refuses_a_rate_out_of_range(rate):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        keras_uap.StopAtFoolingRate(rate)


def test_stop_refuses_what_is_not_measured(uap):
    with pytest.raises(ValueError, match="must be 'fooling_rate' or"):
        keras_uap.StopAtFoolingRate(0.5, monitor="accuracy")
    stop = keras_uap.StopAtFoolingRate(0.5, monitor="target_rate")
    with pytest.raises(ValueError, match="needs a perturbation with a target"):
        uap.fit(IMAGES, verbose=0, callbacks=[stop])


# Filling the pool ------------------------------------------------------------


def pool_after_each_epoch(model, layer, defence, epochs):
    pools = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: pools.append(layer.perturbation)
    )
    fit(model, defence, keep, epochs=epochs)
    return pools


@pytest.mark.parametrize("norm", ["linf", models.slow("l2")])
def test_fills_the_pool_with_different_perturbations(norm):
    layer = keras_uap.PerturbationLayer(rate=0.5, pool_size=3)
    fit(in_front(layer, make_classifier()), make_defence(norm=norm), epochs=1)
    pool = layer.perturbation
    for i, v in enumerate(pool):
        assert 0.1 * EPSILON < lp_norm(v, norm) <= EPSILON
        assert all(np.any(v != other) for other in pool[i + 1 :])


@pytest.mark.slow
def test_fills_it_once_or_every_n_epochs():
    for every, changes in [(None, [0, 0]), (2, [0, 1])]:
        layer = keras_uap.PerturbationLayer(rate=0.5, pool_size=2)
        model = in_front(layer, make_classifier())
        defence = make_defence(every=every)
        pools = pool_after_each_epoch(model, layer, defence, 3)
        changed = [np.any(a != b) for a, b in itertools.pairwise(pools)]
        assert changed == [bool(change) for change in changes]


@pytest.mark.slow
def test_perturbations_fool_the_model_as_it_is():
    classifier = make_classifier()
    classifier.compile("adam", LOSS)
    fit(classifier, epochs=30)
    layer = keras_uap.PerturbationLayer(rate=1.0, pool_size=2)
    model = in_front(layer, classifier)
    model.optimizer.learning_rate = 0.0
    fit(model, make_defence(epochs=5), epochs=1)
    clean = np.argmax(classifier.predict(IMAGES, verbose=0), axis=-1)
    noise = EPSILON * np.sign(np.random.default_rng(0).normal(size=SHAPE))

    def fooled(v):
        perturbed = np.clip(IMAGES + v, 0, 255)
        labels = np.argmax(classifier.predict(perturbed, verbose=0), axis=-1)
        return np.mean(labels != clean)

    assert all(fooled(v) > fooled(noise) + 0.1 for v in layer.perturbation)


@pytest.mark.slow
def test_a_second_fit_is_a_second_round():
    layer = keras_uap.PerturbationLayer(rate=0.5, pool_size=2)
    model = in_front(layer, make_classifier())
    model.optimizer.learning_rate = 0.1
    defence = make_defence()
    fit(model, defence)
    first = layer.perturbation
    fit(model, defence, epochs=1)
    assert np.any(layer.perturbation != first)


@pytest.mark.slow
def test_a_later_first_epoch_finds_an_empty_pool():
    layer = keras_uap.PerturbationLayer(rate=0.5, pool_size=2)
    model = in_front(layer, make_classifier())
    fit(model, make_defence(), epochs=3, initial_epoch=2)
    assert np.any(layer.perturbation)


@pytest.mark.parametrize(
    "optimizer",
    [
        models.slow(keras_uap.DeepFool(num_candidates=3)),
        "lion",
    ],
    ids=["DeepFool", "lion"],
)
def test_takes_any_update(optimizer):
    layer = keras_uap.PerturbationLayer(rate=0.5, pool_size=2)
    model = in_front(layer, make_classifier())
    fit(model, make_defence(optimizer=optimizer), epochs=1)
    assert np.all(np.any(layer.perturbation, axis=(1, 2, 3)))


@pytest.mark.slow
def test_a_keras_optimizer_can_be_used_again():
    optimizer = keras.optimizers.Lion(3.0)
    for _ in range(2):
        layer = keras_uap.PerturbationLayer(rate=0.5, pool_size=2)
        model = in_front(layer, make_classifier())
        fit(model, make_defence(optimizer=optimizer, every=1), epochs=2)
        assert np.all(np.any(layer.perturbation, axis=(1, 2, 3)))
    assert not optimizer.built


@pytest.mark.slow
def test_takes_a_data_set():
    data = tf.data.Dataset.from_tensor_slices((IMAGES[:30], LABELS[:30]))
    pools = []
    for images in (IMAGES[:30], data.batch(8)):
        keras.utils.set_random_seed(0)
        layer = keras_uap.PerturbationLayer(rate=0.5, pool_size=2)
        defence = UniversalAdversarialTraining(images, EPSILON, epochs=1)
        fit(in_front(layer, make_classifier()), defence, epochs=1)
        pools.append(layer.perturbation)
    np.testing.assert_array_equal(*pools)


@pytest.mark.slow
def test_uses_the_layers_pixel_range():
    layer = keras_uap.PerturbationLayer(rate=0.5, value_range=(0, 1))
    model = in_front(layer, make_classifier())
    seen = []

    class Spy(UniversalAdversarialTraining):
        def _prepare(self):
            super()._prepare()
            seen.append(self._uap.value_range)

    defence = Spy(IMAGES / 255, 0.1, epochs=1)
    model.fit(IMAGES / 255, LABELS, verbose=0, callbacks=[defence])
    assert seen == [(0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("from_logits", [None, False])
def test_works_in_a_subclassed_model(from_logits):
    layer = keras_uap.PerturbationLayer(rate=0.5, pool_size=2)
    model = Wrapped(layer, make_classifier())
    model.compile("adam", LOSS)
    history = fit(
        model,
        make_defence(validation_images=HELD_OUT, from_logits=from_logits),
    )
    assert np.all(np.any(layer.perturbation, axis=(1, 2, 3)))
    assert len(history.history["fresh_fooling_rate"]) == 2


# Measuring -------------------------------------------------------------------


def test_logs_the_rate_of_a_fresh_perturbation_before_and_after():
    layer = keras_uap.PerturbationLayer(rate=0.5, pool_size=2)
    model = in_front(layer, make_classifier())
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(logs["fresh_fooling_rate"])
    )
    history = fit(
        model, make_defence(validation_images=HELD_OUT), look, epochs=3
    ).history
    before = history["fresh_fooling_rate_before"]
    after = history["fresh_fooling_rate"]
    assert after == seen
    assert before[1:] == after[:-1]
    assert all(0 <= rate <= 1 for rate in before + after)


@pytest.mark.slow
def test_measures_less_often_but_always_first_and_last():
    layer = keras_uap.PerturbationLayer(rate=0.5)
    model = in_front(layer, make_classifier())
    defence = make_defence(validation_images=HELD_OUT, measure_every=2)
    history = fit(model, defence, epochs=3).history
    assert np.isfinite(history["fresh_fooling_rate_before"]).tolist() == [
        True,
        False,
        True,
    ]
    assert np.isfinite(history["fresh_fooling_rate"]).tolist() == [
        False,
        True,
        True,
    ]


def test_without_validation_images_nothing_is_measured():
    model = in_front(keras_uap.PerturbationLayer(rate=0.5), make_classifier())
    history = fit(model, make_defence(), epochs=1).history
    assert set(history) == {"loss", "accuracy"}


@pytest.mark.slow
def test_only_measures_a_layer_that_trains_itself():
    v = []
    for callbacks in ([], [make_defence(validation_images=HELD_OUT)]):
        keras.utils.set_random_seed(0)
        layer = keras_uap.PerturbationLayer(epsilon=EPSILON)
        history = fit(in_front(layer, make_classifier()), *callbacks)
        v.append(layer.perturbation)
    np.testing.assert_array_equal(*v)
    assert len(history.history["fresh_fooling_rate"]) == 2


# Leaving the training as it is -----------------------------------------------


@pytest.mark.slow
def test_rate_zero_with_the_callback_trains_like_the_plain_model():
    runs = []
    for defended in (False, True):
        keras.utils.set_random_seed(3)
        classifier = make_classifier(dropout=0.3)
        layer = keras_uap.PerturbationLayer(rate=0.0, pool_size=2)
        model = in_front(layer, classifier) if defended else classifier
        model.compile("adam", LOSS, metrics=["accuracy"])
        defence = make_defence(every=1, validation_images=HELD_OUT)
        history = fit(
            model,
            *([defence] if defended else []),
            shuffle=True,
            validation_data=(HELD_OUT, np.zeros(len(HELD_OUT))),
        ).history
        runs.append((history, classifier.get_weights(), random.random()))
    plain, other = runs
    for name, values in plain[0].items():
        assert values == other[0][name], name
    for one, two in zip(plain[1], other[1]):
        np.testing.assert_array_equal(one, two)
    assert plain[2] == other[2]


class Stop(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backup_first", "epsilon"), [(True, None), (False, EPSILON)]
)
def test_resumes_exactly(tmp_path, backup_first, epsilon):
    def run(folder, stop_at=None, **kwargs):
        keras.utils.set_random_seed(5)
        layer = keras_uap.PerturbationLayer(
            rate=0.5, pool_size=2, seed=1, epsilon=epsilon
        )
        model = in_front(layer, make_classifier())
        defence = make_defence(every=2, validation_images=HELD_OUT)
        backup = keras.callbacks.BackupAndRestore(folder)
        callbacks = [backup, defence] if backup_first else [defence, backup]

        def interrupt(epoch, logs=None):
            if epoch == stop_at:
                raise Stop

        callbacks.append(
            keras.callbacks.LambdaCallback(on_epoch_begin=interrupt)
        )
        try:
            history = fit(model, *callbacks, epochs=3)
        except Stop:
            return None
        return history.history, model.get_weights(), layer.perturbation

    whole = run(tmp_path / "whole")
    assert run(tmp_path / "parts", stop_at=2) is None
    resumed = run(tmp_path / "parts")
    assert len(resumed[0]["loss"]) == 1
    for name, values in resumed[0].items():
        assert values[0] == whole[0][name][2], name
    for one, two in zip(whole[1], resumed[1]):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(whole[2], resumed[2])


@pytest.mark.slow
def test_two_replicas():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
        import tensorflow as tf
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * 2,
        )
        # Optimizing a graph takes longer than running it does.
        options = {"disable_meta_optimizer": True}
        tf.config.optimizer.set_experimental_options(options)
        import keras, numpy as np, keras_uap
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        draws = np.random.default_rng(0)
        x = draws.uniform(0, 255, (32, 6, 6, 1)).astype("float32")
        y = draws.integers(0, 3, 32)
        with strategy.scope():
            layer = keras_uap.PerturbationLayer(rate=0.5, pool_size=2)
            model = keras.Sequential([
                keras.Input((6, 6, 1)),
                layer,
                keras.layers.Rescaling(1 / 255),
                keras.layers.Flatten(),
                keras.layers.Dense(3, activation="softmax"),
            ])
            model.compile("adam", "sparse_categorical_crossentropy")
        defence = keras_uap.UniversalAdversarialTraining(
            x, 30.0, every=1, epochs=1, validation_images=x
        )
        history = model.fit(
            x, y, batch_size=8, epochs=2, verbose=0, callbacks=[defence]
        )
        assert len(history.history["fresh_fooling_rate"]) == 2
        one, two = layer.perturbations.value.values
        assert np.array_equal(one, two)
        assert np.all(np.any(one.numpy(), axis=(1, 2, 3)))

        defence.set_model(model)
        outside = keras_uap.PerturbationLayer(np.zeros((6, 6, 1)), rate=0.5)
        model._layers = [outside]
        model._flatten_layers = lambda: [outside]
        try:
            defence.on_train_begin()
        except ValueError as error:
            assert "outside the scope" in str(error)
            print("explained")
            """),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "explained" in done.stdout


# What it refuses -------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "needs a PerturbationLayer in the model"),
        ([{}], "has rate=None"),
        ([{"rate": 0.5}, {"rate": 0.5}], "fills one PerturbationLayer"),
    ],
)
def test_explains_a_model_that_it_cannot_harden(layers, message):
    layers = [keras_uap.PerturbationLayer(**kwargs) for kwargs in layers]
    model = keras.Sequential([keras.Input(SHAPE), *layers, make_classifier()])
    model.compile("sgd", LOSS)
    with pytest.raises(ValueError, match=message):
        fit(model, make_defence(), epochs=1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"images": None}, ValueError, "images is missing"),
        ({"epsilon": -1.0}, ValueError, "epsilon must be finite and above"),
        ({"epsilon": "10"}, TypeError, "epsilon must be a number"),
        ({"norm": "l1"}, ValueError, "Unknown norm"),
        ({"value_range": (1, 0)}, ValueError, "value_range must be a pair"),
        ({"every": 0}, ValueError, "every must be a whole number of at"),
        ({"epochs": 1.5}, ValueError, "epochs must be a whole number"),
        ({"measure_every": None}, ValueError, "measure_every must be a whole"),
    ],
)
def test_says_what_is_wrong_with_an_argument(arguments, error, message):
    arguments = {"images": IMAGES, "epsilon": 1.0} | arguments
    with pytest.raises(error, match=message):
        UniversalAdversarialTraining(**arguments)


def test_refuses_a_data_set_without_an_end():
    data = tf.data.Dataset.from_tensor_slices(IMAGES).batch(8).repeat()
    layer = keras_uap.PerturbationLayer(rate=0.5)
    defence = UniversalAdversarialTraining(data, EPSILON)
    with pytest.raises(ValueError, match="without an end"):
        fit(in_front(layer, make_classifier()), defence, epochs=1)


# What Keras' own callbacks rely on --------------------------------------------


MONITORS = {
    "stop": keras.callbacks.EarlyStopping,
    "save": lambda monitor: keras.callbacks.ModelCheckpoint(
        "{epoch}.keras", monitor, save_best_only=True
    ),
    "slow down": keras.callbacks.ReduceLROnPlateau,
}


@pytest.mark.parametrize("name", MONITORS)
def test_the_direction_of_a_rate_is_known(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    uap = keras_uap.UniversalPerturbation(make_classifier(), EPSILON, target=1)
    uap.compile("lion", run_eagerly=True)
    callbacks = [
        MONITORS[name](monitor=monitor)
        for monitor in ("fooling_rate", "val_fooling_rate", "val_target_rate")
    ]
    uap.fit(IMAGES, validation_data=HELD_OUT, callbacks=callbacks, verbose=0)
    for callback in callbacks:
        assert callback.monitor_op is keras.ops.greater
    # What has no good direction is left to the user.
    callback = MONITORS[name](monitor="model_passes")
    with pytest.raises(ValueError, match="maximized or minimized"):
        uap.fit(IMAGES, callbacks=[callback], verbose=0)


def test_early_stopping_keeps_the_best_rate():
    uap = keras_uap.UniversalPerturbation(make_classifier(), EPSILON)
    uap.compile("lion", run_eagerly=True)
    strengths = [0.0, 30.0, 0.0, 0.0, 30.0]
    stop = keras.callbacks.EarlyStopping("val_fooling_rate", patience=2)
    history = uap.fit(
        IMAGES,
        batch_size=60,
        epochs=5,
        validation_data=HELD_OUT,
        callbacks=[models.SetRates(strengths), stop],
        verbose=0,
    )
    assert history.epoch == [0, 1, 2, 3]


@pytest.mark.parametrize("plain", [True, False])
def test_a_resumed_fit_does_not_shorten_the_next(plain, tmp_path):
    model = in_front(keras_uap.PerturbationLayer(), make_classifier())
    if not plain:
        model = keras_uap.UniversalPerturbation(make_classifier(), EPSILON)
        model.compile("lion", run_eagerly=True)
    for last in (False, True):
        backup = keras_uap.BackupAndRestore(tmp_path)
        crash = [] if last else [models.CrashAt(2)]
        expected = contextlib.nullcontext() if last else pytest.raises(Crash)
        with expected:
            assert fit(model, backup, *crash, epochs=3).epoch == [2]
    assert fit(model, epochs=3).epoch == [0, 1, 2]


def test_a_resumed_fit_that_fails_does_not_shorten_the_next(tmp_path):
    model = in_front(keras_uap.PerturbationLayer(), make_classifier())
    for epoch in (2, 2):
        backup = keras_uap.BackupAndRestore(tmp_path)
        with pytest.raises(Crash):
            fit(model, backup, models.CrashAt(epoch), epochs=3)
    assert fit(model, epochs=3).epoch == [0, 1, 2]


@pytest.mark.parametrize("moment", ["set_model", "on_train_begin"])
def test_a_fit_that_does_not_begin_leaves_v(moment):
    uap = keras_uap.UniversalPerturbation(make_classifier(), EPSILON)
    uap.compile("lion", run_eagerly=True)
    fit(uap, validation_data=(HELD_OUT, LABELS))
    by_hand = np.full(SHAPE, 7, "float32")
    uap.perturbation = by_hand

    def fail(*args, **kwargs):
        raise Crash

    callback = keras.callbacks.Callback()
    setattr(callback, moment, fail)
    with pytest.raises(Crash):
        fit(uap, callback)
    np.testing.assert_array_equal(uap.perturbation, by_hand)
    assert uap.stop_reason == "ended by Crash"


def test_a_stop_at_a_rate_needs_a_perturbation():
    classifier = make_classifier()
    classifier.compile("sgd", LOSS)
    stop = keras_uap.StopAtFoolingRate(0.5)
    with pytest.raises(ValueError, match="works in the fit of a Universal"):
        classifier.fit(IMAGES, LABELS, verbose=0, callbacks=[stop])
