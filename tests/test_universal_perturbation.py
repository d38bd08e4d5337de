"""Tests of `UniversalPerturbation`: the algorithm, and that it is a model."""

import csv
import itertools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import keras_uap
from keras_uap.lp_ball import lp_norm

SHAPE = (8, 8, 3)
UPDATES = {
    "deepfool": lambda: keras_uap.DeepFool(),
    "one_by_one": lambda: keras_uap.DeepFool(one_by_one=True),
    "lion": lambda: "lion",
    "adam": lambda: keras.optimizers.Adam(0.02),
    "sgd": lambda: keras.optimizers.SGD(0.02, momentum=0.9),
}


# Algorithm 1 ------------------------------------------------------------------


def algorithm_1(
    images, scores, jacobian, epsilon, norm, value_range, rule
):  # fmt: skip
    """One pass of the paper's Algorithm 1 in NumPy, float64."""

    def label(x):
        return np.argmax(scores(x))

    def deepfool(x, own):
        classes = np.argsort(-scores(x))[: rule.num_candidates]
        total = np.zeros_like(x)
        for _ in range(rule.max_steps):
            point = x + (1 + rule.overshoot) * total
            if label(point) != own:
                break
            f, w = scores(point), jacobian(point)
            steps = [
                (f[own] - f[k]) * (w[k] - w[own]) / np.sum((w[k] - w[own]) ** 2)
                for k in classes[1:]
            ]
            total = total + min(steps, key=np.linalg.norm)
        increment = (1 + rule.overshoot) * total
        return increment if label(x + increment) != own else 0.0 * total

    v = np.zeros(images.shape[1:])
    for x in images.astype("float64"):
        own = label(x)
        moved = x + v if value_range is None else np.clip(x + v, *value_range)
        if label(moved) == own:
            v = v + deepfool(moved, own)
            if norm == "linf":
                v = np.clip(v, -epsilon, epsilon)
            else:
                v = v * min(1.0, epsilon / np.linalg.norm(v))
    return v


def linear_by_hand(model):
    kernel, bias = (np.asarray(w, "float64") for w in model.get_weights())
    rows = kernel.T.reshape(-1, *SHAPE)
    return (lambda x: x.reshape(-1) @ kernel + bias), (lambda x: rows)


def cnn_by_tape(model):
    logits = keras.Model(model.inputs[0], model.layers[-1].output)

    def scores(x):
        return np.asarray(logits(x[np.newaxis].astype("float32")))[0]

    def jacobian(x):
        point = tf.constant(x[np.newaxis], "float32")
        with tf.GradientTape() as tape:
            tape.watch(point)
            outputs = logits(point)
        return np.asarray(tape.jacobian(outputs, point), "float64")[0, :, 0]

    return scores, jacobian


@pytest.mark.parametrize(
    ("kind", "num_candidates", "norm", "value_range"),
    [
        ("linear", 2, "linf", None),
        ("linear", 2, "l2", (0, 1)),
        ("linear", 4, "l2", None),
        ("linear", 4, "linf", (0, 1)),
        ("cnn", 2, "linf", (0, 1)),
        ("cnn", 4, "l2", None),
    ],
)
def test_one_by_one_is_algorithm_1(
    kind, num_candidates, norm, value_range, linear, cnn, images, make_uap
):
    epsilon = 0.03 if norm == "linf" else 0.25
    if kind == "linear":
        classifier = linear(activation="softmax")
        by_hand = linear_by_hand(classifier)
    else:
        classifier = cnn(activation=None)
        by_hand = cnn_by_tape(classifier)
        images = images[:16]
    rule = keras_uap.DeepFool(num_candidates, one_by_one=True)
    uap = make_uap(classifier, epsilon, norm=norm, value_range=value_range)
    uap.compile(rule)
    uap.fit(images, batch_size=7, shuffle=False, verbose=0)
    expected = algorithm_1(images, *by_hand, epsilon, norm, value_range, rule)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(uap.perturbation, expected, atol=1e-4)


def test_batch_step_is_the_normed_sum_of_increments(linear, images, make_uap):
    """One batch from v = 0: a step of step_size * epsilon, on average."""
    model = linear()
    uap = make_uap(model, 100.0, value_range=None)
    uap.compile(keras_uap.DeepFool(step_size=0.04, momentum=0.0))
    uap.fit(images, batch_size=40, verbose=0)
    increments = keras_uap.deepfool(model, images, 2, verbose=0).perturbations
    total = increments.sum(axis=0)
    np.testing.assert_allclose(
        uap.perturbation, 4.0 * total / np.abs(total).mean(), rtol=1e-3
    )


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("target", [None, 2])
def test_gradient_step_is_down_the_loss(
    masked, target, linear, images, make_uap
):
    """SGD with learning rate 1: a step of 1 on average, where v may live."""
    model = linear()
    mask = np.zeros(SHAPE[:2])
    mask[2:5, 3:6] = 1
    uap = make_uap(
        model,
        100.0,
        value_range=None,
        target=target,
        mask=mask if masked else None,
    )
    uap.compile(keras.optimizers.SGD(1.0))
    uap.fit(images, batch_size=40, verbose=0)

    kernel, bias = (np.asarray(w, "float64") for w in model.get_weights())
    scores = images.reshape(40, -1) @ kernel + bias
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    clean = scores.argmax(-1)
    goal = clean if target is None else np.full(40, target)
    # Cross-entropy's gradient by the logits is p - onehot. (Its cap of 9 is
    # out of reach of a clean prediction.)
    by_logits = p - np.eye(4)[goal]
    gradient = (by_logits @ kernel.T).reshape(images.shape).sum(axis=0)
    direction = gradient if target is None else -gradient
    place = np.ones(SHAPE) * (mask[..., np.newaxis] if masked else 1)
    direction = direction * place
    expected = direction / (np.abs(direction).sum() / place.sum())
    np.testing.assert_allclose(uap.perturbation, expected, atol=1e-3)


# Bounds -----------------------------------------------------------------------


def in_bounds(mask):
    def check(model):
        v = model.perturbation
        assert np.isfinite(v).all()
        assert lp_norm(v, model.norm) <= model.epsilon
        if mask is not None:
            assert np.all(v[mask == 0] == 0)

    return check


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    update=st.sampled_from(sorted(UPDATES)),
    norm=st.sampled_from(["linf", "l2"]),
    epsilon=st.floats(1e-3, 3.0),
    masked=st.booleans(),
    target=st.none() | st.integers(0, 3),
    dtype=st.sampled_from(["float32", "mixed_float16"]),
    value_range=st.sampled_from([None, (0, 1)]),
)
def test_always_in_the_ball(
    update,
    norm,
    epsilon,
    masked,
    target,
    dtype,
    value_range,
    cnn,
    images,
    make_uap,
    each_batch,
):
    if update in ("deepfool", "one_by_one"):
        target = None
    mask = None
    if masked:
        mask = np.random.default_rng(0).integers(0, 2, SHAPE)
    uap = make_uap(
        cnn(dtype=dtype),
        epsilon,
        norm=norm,
        mask=mask,
        target=target,
        value_range=value_range,
    )
    uap.compile(UPDATES[update](), run_eagerly=True)
    check = each_batch(in_bounds(mask))
    uap.fit(images[:12], batch_size=5, verbose=0, callbacks=check)
    assert check.calls == 3


@pytest.mark.parametrize(
    ("update", "norm"), zip(UPDATES, itertools.cycle(["l2", "linf"]))
)
def test_in_the_ball_when_compiled(
    update, norm, cnn, images, make_uap, each_batch
):
    epsilon = 0.0501 if norm == "linf" else 0.701
    uap = make_uap(cnn(dtype="mixed_float16"), epsilon, norm=norm)
    uap.compile(UPDATES[update]())
    check = each_batch(in_bounds(None))
    history = uap.fit(images, verbose=0, epochs=2, callbacks=check).history
    assert check.calls == 6
    assert history["norm"][-1] == lp_norm(uap.perturbation, norm)
    assert np.any(uap.perturbation != 0)


@pytest.mark.parametrize(
    ("update", "value"),
    [
        ("deepfool", 0.0),
        ("deepfool", np.inf),
        ("one_by_one", np.nan),
        ("lion", 0.0),
        ("lion", np.nan),
    ],
)
def test_images_without_a_gradient_do_not_count(
    update, value, broken, linear, images, make_uap
):
    """They are counted, and v is what the other images alone make of it."""
    images = images[:16]
    lost = np.arange(16) % 2 == 0
    images[:, 0, 0, 0] = np.where(lost, 0.9, 0.1)
    runs = []
    for model, some in (
        (broken(value, 0.5), images),
        (linear(), images[~lost]),
    ):
        uap = make_uap(model, value_range=None)
        uap.compile(UPDATES[update](), run_eagerly=True)
        history = uap.fit(some, batch_size=len(some), shuffle=False, verbose=0)
        runs.append((uap.perturbation, history.history))
    assert np.isfinite(runs[0][0]).all()
    np.testing.assert_allclose(runs[0][0], runs[1][0], atol=1e-5)
    key = "no_gradient" if update == "lion" else "not_converged"
    assert runs[1][1][key] == [0]
    if update == "one_by_one":  # Some are fooled when their turn comes.
        assert 1 <= runs[0][1][key][0] <= 8
    else:
        assert runs[0][1][key] == [8]


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


class Crash(Exception):
    """Stands in for a machine that is switched off."""


class CrashAt(keras.callbacks.Callback):
    def __init__(self, epoch, error):
        super().__init__()
        self.epoch = epoch
        self.error = error

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise self.error


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


# Saving -----------------------------------------------------------------------


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
        (sequential, "deepfool"),
        (functional, "lion"),
        (opaque, "sgd"),
        (opaque, "deepfool"),
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


# A Keras model ----------------------------------------------------------------


@pytest.mark.parametrize("update", ["deepfool", "one_by_one", "lion"])
@pytest.mark.parametrize("labelled", [False, True])
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


@pytest.mark.parametrize("update", ["deepfool", "one_by_one", "lion"])
def test_rates_equal_a_recount(update, cnn, images, held_out, make_uap):
    classifier = cnn()

    def label(x):
        return classifier.predict(x, verbose=0).argmax(-1)

    uap = make_uap(classifier)
    uap.compile(UPDATES[update]())
    labels = np.arange(24) % 4
    history = uap.fit(images, validation_data=(held_out, labels), verbose=0)
    moved = np.clip(held_out + uap.perturbation, 0, 1)
    np.testing.assert_allclose(uap.perturb(held_out), moved, atol=1e-7)
    rate = np.mean(label(moved) != label(held_out))
    assert history.history["val_fooling_rate"] == [pytest.approx(rate)]
    accuracy = np.mean(label(moved) == labels)
    assert history.history["val_accuracy"] == [pytest.approx(accuracy)]
    assert uap.evaluate(held_out, verbose=0) == pytest.approx(rate)
    assert uap.evaluate(held_out, labels, verbose=0) == pytest.approx(
        [rate, accuracy]
    )


def test_running_rate_is_before_the_own_update(cnn, images, make_uap):
    """In one batch from v = 0 no image is fooled yet."""
    uap = make_uap(cnn())
    for update in ("deepfool", "lion"):
        uap.perturbation = np.zeros(SHAPE)
        uap.compile(update)
        history = uap.fit(images, batch_size=40, verbose=0)
        assert history.history["fooling_rate"] == [0.0]


@pytest.mark.parametrize("form", ["array", "dataset"])
@pytest.mark.parametrize("update", ["deepfool", "one_by_one", "lion"])
def test_model_passes_are_those_that_were_made(
    update, form, cnn, images, make_uap
):
    """Counted by a layer in front of the classifier."""

    class Counter(keras.layers.Layer):
        passes = 0

        def call(self, inputs):
            @tf.custom_gradient
            def count(x):
                def backward(upstream):
                    Counter.passes += len(upstream)
                    return upstream

                Counter.passes += len(x) if hasattr(x, "numpy") else 0
                return x, backward

            return count(inputs)

    images = images[:12]
    classifier = keras.Sequential([keras.Input(SHAPE), Counter(), cnn()])
    uap = make_uap(classifier)
    uap.compile(UPDATES[update](), run_eagerly=True)
    data = images
    if form == "dataset":
        data = tf.data.Dataset.from_tensor_slices(images).batch(8)
    history = uap.fit(data, batch_size=8, verbose=0)
    # The clean predictions of an array come from a compiled function, in
    # which the counter counts nothing: they are no part of the update.
    assert history.history["model_passes"] == [Counter.passes]


def test_labels_never_change_the_fooling_rate(cnn, images, make_uap):
    uap = make_uap(cnn())
    uap.fit(images, verbose=0)
    plain = uap.evaluate(images, verbose=0, return_dict=True)
    for y in (np.zeros(40), np.arange(40) % 4, np.eye(4)[np.arange(40) % 4]):
        for data in (
            (images, y),
            (tf.data.Dataset.from_tensor_slices((images, y)).batch(9), None),
        ):
            result = uap.evaluate(*data, verbose=0, return_dict=True)
            assert result["fooling_rate"] == plain["fooling_rate"]
            assert "accuracy" in result


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


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize(
    "form", [as_tensor, as_list, as_dataset, as_py_dataset]
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


class SetRates(keras.callbacks.Callback):
    """Puts v to one of given strengths at the end of each epoch's batches."""

    def __init__(self, strengths):
        super().__init__()
        self.strengths = strengths

    def on_train_batch_end(self, batch, logs=None):
        self.model.v.assign(self.model.v * 0 + next(self.strengths))


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
    labels = linear().predict(uap.perturb(images), verbose=0).argmax(-1)
    rate = np.mean(labels == 3)
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


def test_it_predicts_perturbed_images(cnn, images, make_uap):
    classifier = cnn()
    uap = make_uap(classifier)
    uap.fit(images, verbose=0)
    np.testing.assert_allclose(
        uap.predict(images, verbose=0),
        classifier.predict(uap.perturb(images), verbose=0),
        atol=1e-5,
    )


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


def test_decaying_lion(linear, images, make_uap):
    uap = make_uap(linear(), 0.1)
    optimizer = uap.decaying_lion(10)
    rates = [float(optimizer._learning_rate(step)) for step in (0, 5, 10)]
    assert rates == pytest.approx([0.02, 0.0101, 0.0002])
    uap.compile(optimizer)
    uap.fit(images, verbose=0)


# An opaque classifier, or one without a size ----------------------------------


def without_a_size():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.Conv2D(4, 3),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, "softmax"),
        ]
    )


def not_built_yet():
    return keras.Sequential(
        [keras.layers.Flatten(), keras.layers.Dense(3, "softmax")]
    )


@pytest.mark.parametrize("make", [without_a_size, not_built_yet])
def test_size_comes_from_the_images(make, images, make_uap):
    uap = make_uap(make())
    with pytest.raises(ValueError, match="no perturbation yet"):
        _ = uap.perturbation
    with pytest.raises(ValueError, match="build"):
        uap.decaying_lion(3)
    uap.compile("lion")
    uap.fit(images, verbose=0)
    assert uap.perturbation.shape == SHAPE
    # "lion" by name steps a tenth of epsilon, also when v is built later.
    assert float(uap.optimizer.learning_rate) == pytest.approx(0.005)


def test_target_of_an_opaque_classifier_is_checked_each_time(
    subclassed, images, make_uap
):
    uap = make_uap(subclassed(), target=4)
    for _ in range(2):
        with pytest.raises(ValueError, match="target=4"):
            uap.fit(images, verbose=0)


# Bad input --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("classifier", len, TypeError),
        ("classifier", "resnet", TypeError),
        ("epsilon", 0, ValueError),
        ("epsilon", -3.0, ValueError),
        ("epsilon", np.nan, ValueError),
        ("epsilon", "10", TypeError),
        ("norm", "l1", ValueError),
        ("value_range", (1, 0), ValueError),
        ("value_range", 255, ValueError),
        ("value_range", (0, np.nan), ValueError),
        ("target", 4, ValueError),
        ("target", -1, ValueError),
        ("target", 1.0, TypeError),
        ("target", True, TypeError),
        ("mask", np.zeros(SHAPE), ValueError),
        ("mask", np.ones((7, 8)), ValueError),
        ("mask", np.full(SHAPE, "a"), TypeError),
        ("from_logits", "yes", ValueError),
    ],
)
def test_bad_arguments(argument, value, error, linear):
    arguments = {"classifier": linear(), "epsilon": 0.1, argument: value}
    with pytest.raises(error, match=argument):
        keras_uap.UniversalPerturbation(**arguments)


def test_classifier_without_class_scores(make_uap):
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(2, 3)])
    with pytest.raises(ValueError, match="class scores"):
        make_uap(model)


def test_other_backend(linear, make_uap, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow"):
        make_uap(linear())


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("optimizer", "lionn", ValueError),
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


def with_nan(images):
    images = images.copy()
    images[3, 1, 2, 0] = np.nan
    return images


def generator(images):
    yield images


DATA = [
    (lambda x: None, ValueError, "missing"),
    (lambda x: x[:0], ValueError, "empty"),
    (lambda x: [], ValueError, "empty"),
    (lambda x: x[0], ValueError, "shape"),
    (lambda x: x[:, :7], ValueError, "shape"),
    (lambda x: x[:, 0, 0, 0], ValueError, "shape"),
    (lambda x: x.astype(str), TypeError, "dtype"),
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


@pytest.mark.parametrize("eagerly", [False, True])
def test_nan_in_the_middle_of_a_data_set(eagerly, linear, images, make_uap):
    """It is named by its batch, and the best v so far is kept."""
    epochs = itertools.count()
    # `fit` looks at the first batch once, before the first epoch.
    next(epochs)

    def batches():
        epoch = next(epochs)
        for i in range(5):
            x = images[8 * i : 8 * i + 8]
            yield with_nan(x) if epoch == 4 and i == 3 else x

    data = tf.data.Dataset.from_generator(
        batches, output_signature=tf.TensorSpec((None, *SHAPE))
    )
    next(epochs)
    uap = make_uap(linear())
    uap.compile("lion", run_eagerly=eagerly)
    best = []

    class Record(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs):
            best.append((logs["val_fooling_rate"], self.model.perturbation))

    with pytest.raises(ValueError, match="NaN or infinity in batch 3"):
        uap.fit(
            data,
            epochs=9,
            validation_data=images,
            callbacks=[Record()],
            verbose=0,
        )
    assert 1 <= len(best) < 9
    rates = [rate for rate, _ in best]
    np.testing.assert_array_equal(
        uap.perturbation, best[int(np.argmax(rates))][1]
    )
    assert uap.stop_reason == "ended by InvalidArgumentError"


def test_nan_in_a_data_set_to_evaluate(linear, images, make_uap):
    images[9] = np.nan
    data = tf.data.Dataset.from_tensor_slices(images).batch(8)
    with pytest.raises(ValueError, match="NaN or infinity in batch 1"):
        make_uap(linear()).evaluate(data, verbose=0)


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (np.full(SHAPE, 0.06), ValueError, "outside the ball"),
        (np.full(SHAPE, np.nan), ValueError, "finite"),
        (np.zeros((7, 8, 3)), ValueError, "shape"),
        ("zeros", TypeError, "array of numbers"),
    ],
)
def test_bad_perturbation(value, error, says, linear, make_uap):
    uap = make_uap(linear())
    with pytest.raises(error, match=says):
        uap.perturbation = value
    np.testing.assert_array_equal(uap.perturbation, 0.0)


def test_perturb_checks_the_shape(linear, make_uap):
    uap = make_uap(linear())
    for shape in [(2, 7, 8, 3), (7, 8, 3), (1, 1, *SHAPE), (3,)]:
        with pytest.raises(ValueError, match="shape"):
            uap.perturb(np.zeros(shape))
