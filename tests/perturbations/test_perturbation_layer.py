"""Tests of `PerturbationLayer`, as attack and as defence."""

import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_uap
from keras_uap.perturbations.lp_ball import lp_norm

SHAPE = (6, 6, 1)
CLASSES = 3
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def make_v(seed=0, count=None, scale=20.0):
    shape = SHAPE if count is None else (count, *SHAPE)
    draws = np.random.default_rng(seed)
    return draws.uniform(-scale, scale, shape).astype("float32")


def make_data(count=48, seed=0):
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, CLASSES, count)
    kinds = draws.uniform(60, 190, (CLASSES, *SHAPE))
    images = kinds[labels] + draws.normal(0, 40, (count, *SHAPE))
    return np.clip(images, 0, 255).astype("float32"), labels


def make_classifier(seed=0, dropout=0.0):
    layers = keras.layers
    initializer = keras.initializers.GlorotUniform(seed)
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(8, activation="tanh", kernel_initializer=initializer),
            layers.Dropout(dropout, seed=seed),
            layers.Dense(CLASSES, kernel_initializer=initializer),
        ]
    )


def in_front(layer, classifier, optimizer="sgd", **kwargs):
    model = keras.Sequential([keras.Input(SHAPE), layer, classifier])
    model.compile(optimizer, LOSS, **kwargs)
    return model


class Wrapped(keras.Model):
    """A subclassed model with the layer inside."""

    def __init__(self, layer, classifier):
        super().__init__()
        self.layer = layer
        self.classifier = classifier

    def call(self, inputs, training=False):
        images = self.layer(inputs, training=training)
        return self.classifier(images, training=training)


def functional(layer, classifier):
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, classifier(layer(inputs)))


def sequential(layer, classifier):
    return keras.Sequential([keras.Input(SHAPE), layer, classifier])


KINDS = [sequential, functional, Wrapped]


def run_child(code):
    """Runs code in a Python process of its own; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


# Adding and clipping ---------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "uint8", "float64"])
def test_adds_and_clips_in_any_model(kind, dtype):
    v = make_v()
    images = make_data(5)[0].astype(dtype)
    classifier = make_classifier()
    model = kind(keras_uap.PerturbationLayer(v), classifier)
    expected = np.clip(images.astype("float32") + v, 0, 255)
    for training in (False, True):
        np.testing.assert_array_equal(
            model(images, training=training),
            classifier(expected, training=training),
        )


@pytest.mark.parametrize("built", [True, False])
def test_maps_over_batches_and_single_images(built):
    v = make_v()
    layer = keras_uap.PerturbationLayer(v if built else None)
    images = make_data(6)[0].astype("uint8")
    data = tf.data.Dataset.from_tensor_slices(images).map(layer)
    if not built:
        layer.perturbation = v
    expected = np.clip(images + v, 0, 255)
    np.testing.assert_array_equal(list(data.as_numpy_iterator()), expected)
    batches = tf.data.Dataset.from_tensor_slices(images).batch(4).map(layer)
    np.testing.assert_array_equal(
        np.concatenate(list(batches.as_numpy_iterator())), expected
    )
    # A later perturbation is seen by what has been traced.
    layer.perturbation = -v
    np.testing.assert_array_equal(
        list(data.as_numpy_iterator()), np.clip(images - v, 0, 255)
    )


def test_without_a_range_nothing_is_clipped():
    v = make_v(scale=500)
    images = make_data(3)[0]
    layer = keras_uap.PerturbationLayer(v, value_range=None)
    np.testing.assert_array_equal(layer(images), images + v)


def test_later_assign_is_seen_by_a_compiled_model():
    layer = keras_uap.PerturbationLayer(np.zeros(SHAPE))
    model = sequential(layer, make_classifier())
    images = make_data(4)[0]
    clean = model.predict(images, verbose=0)
    layer.perturbations.assign(make_v()[np.newaxis])
    assert np.abs(model.predict(images, verbose=0) - clean).max() > 1e-3


# Rate and pool ---------------------------------------------------------------


def test_identity_at_inference_with_a_rate():
    layer = keras_uap.PerturbationLayer(make_v(), rate=1.0)
    images = make_data(4)[0]
    np.testing.assert_array_equal(layer(images), images)
    np.testing.assert_array_equal(layer(images, training=False), images)
    assert np.abs(layer(images, training=True) - images).max() > 5


def test_rate_is_the_share_perturbed_and_the_pool_is_drawn_evenly():
    pool = np.stack([np.full(SHAPE, value) for value in (1, 2, 3, 4)])
    layer = keras_uap.PerturbationLayer(pool, rate=0.4, seed=0)
    images = np.full((4000, *SHAPE), 100.0, "float32")
    added = np.asarray(layer(images, training=True)) - images
    # Each image has one perturbation of the pool, whole, or none.
    assert np.all(added == added[:, :1, :1])
    shares = np.bincount(added[:, 0, 0, 0].astype(int), minlength=5) / 4000
    # Four standard deviations of a share of 4,000 draws.
    np.testing.assert_allclose(shares, [0.6, 0.1, 0.1, 0.1, 0.1], atol=0.032)
    again = np.asarray(layer(images, training=True)) - images
    assert np.any(again != added)


def test_a_seed_repeats_the_draws():
    images = make_data(32)[0]
    outputs = [
        keras_uap.PerturbationLayer(make_v(count=3), rate=0.5, seed=seed)(
            images, training=True
        )
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert np.any(outputs[0] != outputs[2])


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.slow
def test_rate_zero_trains_like_the_plain_model(jit_compile):
    images, labels = make_data()
    weights = []
    for hardened in (False, True):
        keras.utils.set_random_seed(3)
        classifier = make_classifier(dropout=0.3)
        layer = keras_uap.PerturbationLayer(make_v(count=2), rate=0.0)
        model = in_front(layer, classifier) if hardened else classifier
        model.compile("adam", LOSS, jit_compile=jit_compile)
        model.fit(images, labels, batch_size=16, epochs=3, verbose=0)
        weights.append(classifier.get_weights())
    for plain, other in zip(*weights):
        np.testing.assert_array_equal(plain, other)


# Dtypes, compilation, saving -------------------------------------------------


@pytest.fixture
def mixed_float16():
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("mixed_float16")
def test_stays_float32_in_a_mixed_precision_model(kind):
    v = np.full(SHAPE, 0.03, "float32")  # Lost at 200 in float16.
    seen = []

    class Spy(keras.layers.Layer):
        def call(self, inputs):
            seen.append((inputs.dtype, inputs))
            return inputs

    layer = keras_uap.PerturbationLayer(v)
    spy = Spy(dtype="float32")
    model = kind(layer, spy)
    images = np.full((2, *SHAPE), 200.0, "float32")
    seen.clear()
    model(images)
    assert seen[-1][0] == tf.float32
    np.testing.assert_array_equal(seen[-1][1], images + v)


@pytest.mark.usefixtures("mixed_float16")
def test_ascends_under_loss_scaling():
    start = make_v(scale=1.0)
    layer = keras_uap.PerturbationLayer(start, epsilon=99.0, step_size=1.3)
    model = in_front(layer, make_classifier(), keras.optimizers.Adam())
    assert type(model.optimizer).__name__ == "LossScaleOptimizer"
    images, labels = make_data()
    model.fit(images, labels, batch_size=16, epochs=1, verbose=0)
    assert layer.perturbation.dtype == np.float32
    # Three steps, without the rounding of float16.
    steps = (layer.perturbation - start) / 1.3
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-5)
    assert set(np.round(steps).ravel()) <= {-3, -1, 1, 3}


@pytest.mark.parametrize("rate", [None, 0.5])
def test_keras_file_holds_every_bit(tmp_path, rate):
    pool = make_v(count=3)
    layer = keras_uap.PerturbationLayer(pool, (0, 250), rate=rate, seed=4)
    model = in_front(layer, make_classifier())
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")
    same = reloaded.layers[0]
    np.testing.assert_array_equal(same.perturbation, pool)
    assert same.get_config() == layer.get_config()
    assert same.value_range == (0, 250)
    images = make_data(8)[0]
    np.testing.assert_array_equal(
        model(images, training=True), reloaded(images, training=True)
    )


def test_self_training_layer_is_saved_and_goes_on(tmp_path):
    images, labels = make_data()
    layer = keras_uap.PerturbationLayer(
        epsilon=9.0, norm="l2", step_size=0.5, pool_size=2, seed=1
    )
    model = in_front(layer, make_classifier(), "adam")
    fit = {"batch_size": 16, "shuffle": False, "verbose": 0}
    model.fit(images, labels, **fit)
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")
    assert reloaded.layers[0].get_config() == layer.get_config()
    for one in (model, reloaded):
        one.fit(images, labels, **fit)
    np.testing.assert_array_equal(
        reloaded.layers[0].perturbation, layer.perturbation
    )


def test_clones():
    layer = keras_uap.PerturbationLayer(epsilon=9.0, rate=0.5)
    clone = keras.models.clone_model(sequential(layer, make_classifier()))
    assert clone.layers[0].get_config() == layer.get_config()


@pytest.mark.parametrize("rate", [None, 0.5])
def test_exports(tmp_path, rate):
    layer = keras_uap.PerturbationLayer(make_v(), rate=rate)
    model = sequential(layer, make_classifier())
    model.export(tmp_path / "saved", verbose=False)
    images = make_data(4)[0]
    served = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(
        served.serve(images), model(images), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("how", [{"jit_compile": True}, {"run_eagerly": True}])
def test_draws_and_ascends_however_it_is_compiled(how):
    images, labels = make_data()
    layer = keras_uap.PerturbationLayer(
        rate=0.5, pool_size=2, seed=0, epsilon=4.0, step_size=1.0
    )
    model = in_front(layer, make_classifier(), **how)
    model.fit(images, labels, batch_size=16, epochs=2, verbose=0)
    pool = layer.perturbation
    assert np.all(np.abs(pool).max(axis=(1, 2, 3)) > 0)
    assert np.abs(pool).max() <= 4.0
    assert np.any(pool[0] != pool[1])


# Training the perturbation ---------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_step_is_one_step_up_the_loss(norm):
    images, labels = make_data(16)
    classifier = make_classifier()
    start = make_v(scale=2.0)
    layer = keras_uap.PerturbationLayer(
        start, epsilon=100.0, norm=norm, step_size=0.7
    )
    model = in_front(layer, classifier, keras.optimizers.Adam(1e-3))
    x = tf.Variable(start)
    with tf.GradientTape() as tape:
        perturbed = tf.clip_by_value(images + x, 0.0, 255.0)
        loss = LOSS(labels, classifier(perturbed, training=True))
    gradient = tape.gradient(loss, x).numpy()
    model.train_on_batch(images, labels)
    if norm == "linf":
        step = 0.7 * np.sign(gradient)
    else:
        step = 0.7 * gradient / np.linalg.norm(gradient)
    np.testing.assert_allclose(layer.perturbation, start + step, atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("epsilon", [0.3, 7.0])
def test_stays_in_the_ball_exactly(norm, epsilon):
    images, labels = make_data()
    layer = keras_uap.PerturbationLayer(
        epsilon=epsilon, norm=norm, step_size=epsilon * 0.6, pool_size=2
    )
    model = in_front(layer, make_classifier())

    def check(batch, logs):
        for v in layer.perturbation:
            assert lp_norm(v, norm) <= epsilon

    model.fit(
        images,
        labels,
        batch_size=8,
        epochs=3,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=check)],
    )
    assert all(lp_norm(v, norm) > 0.5 * epsilon for v in layer.perturbation)


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.SGD(1e-3, momentum=0.9, nesterov=True),
        keras.optimizers.Adam(1e-3, global_clipnorm=1e-4),
        keras.optimizers.AdamW(1e-3, weight_decay=0.1),
        keras.optimizers.Lion(1e-4),
        keras.optimizers.RMSprop(1e-3, clipvalue=1e-6),
        keras.optimizers.Adagrad(1e-3),
    ],
    ids=lambda optimizer: optimizer.name,
)
def test_has_its_own_step_whatever_the_optimizer(optimizer):
    images, labels = make_data(16)
    layer = keras_uap.PerturbationLayer(epsilon=50.0, step_size=2.0)
    model = in_front(layer, make_classifier(), optimizer)
    model.train_on_batch(images, labels)
    np.testing.assert_allclose(np.abs(layer.perturbation), 2.0, atol=1e-3)


def test_accumulated_gradients_still_ascend():
    images, labels = make_data(16)
    layer = keras_uap.PerturbationLayer(epsilon=50.0, step_size=2.0)
    model = in_front(
        layer,
        make_classifier(),
        keras.optimizers.SGD(0.0, gradient_accumulation_steps=2),
    )
    model.train_on_batch(images, labels)
    once = layer.perturbation
    assert once.min() == -2.0
    assert once.max() == 2.0
    model.train_on_batch(images, labels)
    assert np.abs(layer.perturbation).max() == 4.0


def test_averaged_weights_leave_it_in_the_ball():
    images, labels = make_data()
    layer = keras_uap.PerturbationLayer(epsilon=5.0, step_size=2.0)
    optimizer = keras.optimizers.SGD(
        1e-3, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2
    )
    model = in_front(layer, make_classifier(), optimizer)
    model.fit(images, labels, batch_size=8, epochs=2, verbose=0)
    assert 0 < np.abs(layer.perturbation).max() <= 5.0


def test_without_the_layers_draw_nothing_moves():
    images, labels = make_data(16)
    layer = keras_uap.PerturbationLayer(make_v(scale=1), epsilon=5.0, rate=0.0)
    model = in_front(layer, make_classifier())
    model.train_on_batch(images, labels)
    np.testing.assert_array_equal(layer.perturbation, make_v(scale=1))


def test_frozen_layer_holds_still_and_its_classifier_trains():
    images, labels = make_data(16)
    layer = keras_uap.PerturbationLayer(make_v(scale=1), epsilon=5.0)
    layer.trainable = False
    classifier = make_classifier()
    before = classifier.get_weights()
    in_front(layer, classifier).train_on_batch(images, labels)
    np.testing.assert_array_equal(layer.perturbation, make_v(scale=1))
    assert np.any(classifier.get_weights()[0] != before[0])


def test_measuring_does_not_move_it():
    images, labels = make_data(16)
    layer = keras_uap.PerturbationLayer(make_v(scale=1), epsilon=5.0)
    model = in_front(layer, make_classifier())
    model.evaluate(images, labels, verbose=0)
    model.predict(images, verbose=0)
    model(images, training=True)
    np.testing.assert_array_equal(layer.perturbation, make_v(scale=1))


def test_a_gradient_that_is_not_finite_moves_nothing():
    class Broken(keras.layers.Layer):
        def call(self, inputs):
            @tf.custom_gradient
            def identity(x):
                return tf.identity(x), lambda up: up * np.float32(np.nan)

            return identity(inputs)

    images, labels = make_data(16)
    layer = keras_uap.PerturbationLayer(make_v(scale=1), epsilon=5.0)
    model = keras.Sequential(
        [keras.Input(SHAPE), layer, Broken(), make_classifier()]
    )
    model.compile("sgd", LOSS)
    model.train_on_batch(images, labels)
    np.testing.assert_array_equal(layer.perturbation, make_v(scale=1))


@pytest.mark.slow
def test_hardened_classifier_needs_no_keras_uap(tmp_path):
    images, labels = make_data()
    classifier = make_classifier()
    layer = keras_uap.PerturbationLayer(epsilon=9.0)
    in_front(layer, classifier).fit(images, labels, verbose=0)
    classifier.save(tmp_path / "hardened.keras")
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "scores.npy", classifier(images))
    run_child(f"""
        import sys
        sys.modules["keras_uap"] = None  # Importing it fails.
        import keras, numpy as np
        model = keras.saving.load_model(r"{tmp_path / "hardened.keras"}")
        scores = model(np.load(r"{tmp_path / "images.npy"}"))
        expected = np.load(r"{tmp_path / "scores.npy"}")
        np.testing.assert_allclose(scores, expected, rtol=1e-5)
    """)


@pytest.mark.slow
def test_two_replicas_train_like_one_device():
    printed = run_child("""
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

        def make(optimizer, **layer):
            layer = keras_uap.PerturbationLayer(seed=0, **layer)
            model = keras.Sequential([
                keras.Input((6, 6, 1)),
                layer,
                keras.layers.Rescaling(1 / 255),
                keras.layers.Flatten(),
                keras.layers.Dense(
                    3, kernel_initializer=keras.initializers.GlorotUniform(0)
                ),
            ])
            model.compile(
                optimizer,
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            )
            return model, layer

        def fit(model):
            model.fit(
                x, y, batch_size=8, epochs=2, shuffle=False, verbose=0
            )

        for norm in ("linf", "l2"):
            ball = {"epsilon": 10.0, "norm": norm, "step_size": 3.0}
            with strategy.scope():
                model, layer = make("adam", **ball)
            fit(model)
            single, same = make("adam", **ball)
            fit(single)
            replicas = [v.numpy() for v in layer.perturbations.value.values]
            assert len(replicas) == 2
            assert np.array_equal(*replicas)
            assert np.abs(replicas[0]).max() > 0.5
            np.testing.assert_allclose(
                layer.perturbation, same.perturbation, atol=1e-3
            )
            images = draws.uniform(0, 255, (4, 6, 6, 1)).astype("float32")
            np.testing.assert_allclose(
                model(images), single(images), atol=1e-4
            )

        pool = draws.uniform(-9, 9, (3, 6, 6, 1))
        with strategy.scope():
            model, layer = make("adam", perturbation=pool, rate=0.5)
        fit(model)

        outside = keras_uap.PerturbationLayer(pool, rate=0.5)
        try:
            with strategy.scope():
                model = keras.Sequential(
                    [keras.Input((6, 6, 1)), outside, keras.layers.Flatten()]
                )
                model.compile("sgd", "mse")
            model.fit(x, x.reshape(32, -1), verbose=0)
        except ValueError as error:
            assert "strategy.scope()" in str(error), error
            print("explained")
    """)
    assert "explained" in printed


# What it refuses -------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 1.5}, "rate must be a number between 0 and 1"),
        ({"pool_size": 0}, "pool_size must be a whole number"),
        ({"pool_size": 2, "perturbation": np.ones(SHAPE)}, "as many as"),
        ({"perturbation": np.ones(6)}, "must have shape"),
        ({"perturbation": np.full(SHAPE, np.nan)}, "must be finite"),
        ({"value_range": (1, 0)}, "value_range must be a pair"),
        ({"epsilon": 0}, "epsilon must be finite and above 0"),
        ({"epsilon": 1.0, "norm": "l1"}, "Unknown norm"),
        (
            {"epsilon": 1.0, "step_size": 0.0},
            "step_size must be a number above 0",
        ),
        ({"step_size": 1.0}, "without epsilon"),
        ({"epsilon": 1.0, "perturbation": np.full(SHAPE, 2)}, "outside the"),
    ],
)
def test_says_what_is_wrong_with_an_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_uap.PerturbationLayer(**arguments)


def test_says_what_is_wrong_with_images():
    layer = keras_uap.PerturbationLayer(np.zeros(SHAPE))
    with pytest.raises(ValueError, match="do not have the perturbation's"):
        layer(np.zeros((2, 5, 6, 1), "float32"))
    with pytest.raises(ValueError, match="do not have the perturbation's"):
        layer(keras.Input((5, 6, 1)))
    with pytest.raises(ValueError, match="Resize them first"):
        keras_uap.PerturbationLayer()(keras.Input((None, None, 3)))
    with pytest.raises(ValueError, match="takes images"):
        keras_uap.PerturbationLayer()(np.zeros((2, 5), "float32"))


def test_setter_keeps_shape_and_ball():
    layer = keras_uap.PerturbationLayer(np.zeros(SHAPE), epsilon=3.0)
    layer.perturbation = np.full(SHAPE, 3.0)
    with pytest.raises(ValueError, match="outside the ball"):
        layer.perturbation = np.full(SHAPE, 3.1)
    with pytest.raises(ValueError, match="does not fit"):
        layer.perturbation = np.zeros((5, 6, 1))
    assert np.all(layer.perturbation == 3.0)


def test_signals():
    """Perturbations of `(T, C)`: one, a pool, and one that is trained."""
    signals = np.random.default_rng(0).uniform(0, 255, (5, 9, 2))
    signals = signals.astype("float32")
    pool = np.stack([np.full((9, 2), 3.0), np.full((9, 2), -3.0)])
    layer = keras_uap.PerturbationLayer(pool[0])
    expected = np.clip(signals + 3, 0, 255)
    np.testing.assert_allclose(layer(signals), expected, rtol=1e-6)
    np.testing.assert_allclose(layer(signals[0]), expected[0], rtol=1e-6)
    data = tf.data.Dataset.from_tensor_slices(signals).map(layer)
    np.testing.assert_allclose(np.stack(list(data)), expected, rtol=1e-6)

    layer = keras_uap.PerturbationLayer(pool, None, rate=0.5, pool_size=2)
    assert layer.perturbation.shape == (2, 9, 2)
    moved = np.asarray(layer(signals, training=True)) - signals
    assert set(np.round(np.unique(moved))) <= {-3.0, 0.0, 3.0}
    layer.perturbation = 2 * pool
    np.testing.assert_array_equal(layer.perturbation, 2 * pool)

    training = keras.Sequential(
        [
            keras.Input((9, 2)),
            keras_uap.PerturbationLayer(epsilon=4.0, norm="l2", step_size=1.0),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    training.compile("sgd", "mse")
    training.fit(signals / 255, np.ones(5), verbose=0)
    v = training.layers[0].perturbation
    assert v.shape == (9, 2)
    assert 0 < np.linalg.norm(v) <= 4
    with pytest.raises(ValueError, match="resize_perturbation"):
        keras_uap.PerturbationLayer(pool[0])(signals[:, :4])


@pytest.mark.parametrize("count", [70, 64])
def test_signals_in_a_subclassed_model(count):
    # Where the batches fill the data, Keras states their size.
    layer = keras_uap.PerturbationLayer(epsilon=1.0, value_range=(0, 1))
    head = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
    model = Wrapped(layer, head)
    model.compile("sgd", "mse")
    signals = np.full((count, 20, 2), 0.5, "float32")
    model.fit(signals, np.ones(count), batch_size=32, verbose=0)
    assert layer.perturbation.shape == (20, 2)
    # Nothing tells a model of layers in a row; what it takes for one image
    # does not train in silence.
    layer = keras_uap.PerturbationLayer(epsilon=1.0, value_range=(0, 1))
    model = keras.Sequential([layer, head])
    model.compile("sgd", "mse")
    if count == 64:
        with pytest.raises(ValueError, match="trains on batches"):
            model.fit(signals, np.ones(count), batch_size=32, verbose=0)
    else:
        model.fit(signals, np.ones(count), batch_size=32, verbose=0)
        assert layer.perturbation.shape == (20, 2)
    # A layer by itself takes three axes for one image, as ever.
    alone = keras_uap.PerturbationLayer(epsilon=1.0)
    alone(signals[:, :, :, np.newaxis][0])
    assert alone.perturbation.shape == (20, 2, 1)


def test_no_perturbation_before_the_size_is_known():
    layer = keras_uap.PerturbationLayer()
    with pytest.raises(ValueError, match="no perturbation yet"):
        _ = layer.perturbation
    assert not hasattr(layer, "perturbation")
    layer.perturbation = make_v()
    np.testing.assert_array_equal(layer.perturbation, make_v())
