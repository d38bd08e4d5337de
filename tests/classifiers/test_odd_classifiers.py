"""Classifiers that attacks do not expect: handled, or refused in words."""

import warnings

import keras
import models
import numpy as np
import pytest
import tensorflow as tf

import keras_uap
from keras_uap import analysis
from keras_uap.classifiers.adapter import ClassifierAdapter
from keras_uap.classifiers.logits import logits_function
from keras_uap.visualization.perturbation import plot_perturbation

# Odd corners: what a contributor needs after each change is elsewhere.
pytestmark = pytest.mark.slow

layers = keras.layers
X = models.images(40)
V = np.full(models.SHAPE, 0.03, "float32")
QUIET = {"value_range": (0, 1), "verbose": 0}


# Not a function of an image --------------------------------------------------


class AlwaysDropout(layers.Dropout):
    """Monte Carlo dropout."""

    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


class AlwaysFlip(layers.RandomFlip):
    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


class AlwaysNormalized(layers.BatchNormalization):
    """The statistics of the batch, at inference too."""

    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training=True, mask=mask)


def with_layer(layer):
    keras.utils.set_random_seed(0)
    parts = [layer, layers.Flatten(), layers.Dense(4)]
    return keras.Sequential([keras.Input(models.SHAPE), *parts])


RANDOM = {
    "dropout": lambda: with_layer(AlwaysDropout(0.5)),
    "noise": lambda: with_layer(
        layers.Lambda(lambda x: x + tf.random.normal(tf.shape(x), 0, 0.5))
    ),
    "flips": lambda: with_layer(AlwaysFlip("horizontal")),
    "one draw a batch": lambda: with_layer(
        layers.Lambda(lambda x: x * tf.random.normal((1, 8, 8, 3)))
    ),
    "statistics of the batch": lambda: with_layer(AlwaysNormalized()),
}


def uap(model):
    made = keras_uap.UniversalPerturbation(model, 0.05, value_range=(0, 1))
    made.compile("lion")
    return made


@pytest.mark.parametrize("kind", RANDOM)
def test_a_random_classifier_is_noticed(kind):
    data = tf.data.Dataset.from_tensor_slices(X).batch(8)
    with pytest.warns(UserWarning, match="is random"):
        uap(RANDOM[kind]()).evaluate(data, verbose=0)


def test_a_random_classifier_is_noticed_by_all():
    with pytest.warns(UserWarning, match="is random"):
        uap(RANDOM["dropout"]()).fit(X, verbose=0)
    with pytest.warns(UserWarning, match="is random"):
        keras_uap.deepfool(RANDOM["noise"](), X, verbose=0, max_steps=2)


def test_a_report_says_how_many_labels_a_random_classifier_changes():
    with pytest.warns(UserWarning, match="is random") as caught:
        report = analysis.fooling_report(
            RANDOM["dropout"](), 0 * V, X, num_random=1, **QUIET
        )
    texts = [str(each.message) for each in caught]
    (share,) = [t for t in texts if "another label when shown" in t]
    share = float(share.split("random: ")[1].split("%")[0]) / 100
    # Without a perturbation, each rate is that share but for the draws.
    assert share > 0.2
    assert abs(report.fooling_rate - share) < 0.3


@pytest.mark.slow
def test_an_audit_reports_a_random_classifier(monkeypatch):
    models.shorten_audits(monkeypatch, 120)
    with pytest.warns(UserWarning, match="is random"):
        audit = keras_uap.audit(RANDOM["dropout"](), X, epsilon=0.05, **QUIET)
    assert "The classifier is random" in audit.warnings[0]
    assert "The classifier is random" in str(audit)


@pytest.mark.parametrize(
    "make",
    [
        models.linear,
        lambda: models.cnn(dropout=0.5),
        lambda: models.cnn(dtype="mixed_float16"),
        lambda: models.cnn(dtype="mixed_bfloat16"),
        lambda: models.linear(activation="softmax", scale=1e4),
        lambda: models.linear(scale=0.0),
        lambda: with_layer(layers.BatchNormalization()),
    ],
)
def test_a_function_is_not_called_random(make):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "The classifier is random")
        warnings.filterwarnings("error", "The copy of")
        made = uap(make())
        made.evaluate(X, verbose=0)
    assert made.adapter.is_function


# Several sigmoids ------------------------------------------------------------


class Opaque(keras.Model):
    """A classifier that shows nothing of its head."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def call(self, inputs):
        return self.model(inputs)


def sigmoids(activation="sigmoid"):
    return models.linear(activation=activation, scale=0.1)


SIGMOIDS = {
    "dense": (sigmoids, None),
    "layer": (
        lambda: keras.Sequential(
            [*sigmoids(None).layers, layers.Activation("sigmoid")]
        ),
        None,
    ),
    "own activation": (lambda: sigmoids(keras.ops.hard_sigmoid), False),
    "own activation, not told": (
        lambda: sigmoids(keras.ops.hard_sigmoid),
        None,
    ),
    "opaque": (lambda: Opaque(sigmoids()), False),
    "opaque, not told": (lambda: Opaque(sigmoids()), None),
}


@pytest.mark.filterwarnings("ignore:The classifier ends in several")
@pytest.mark.parametrize("kind", SIGMOIDS)
def test_confidences_are_those_that_the_classifier_states(kind):
    make, from_logits = SIGMOIDS[kind]
    model = make()
    clean = np.asarray(model(X)).max(-1)
    moved = np.asarray(model(np.clip(X + V, 0, 1))).max(-1)
    report = analysis.fooling_report(
        model, V, X, num_random=1, from_logits=from_logits, **QUIET
    )
    np.testing.assert_allclose(report.clean_confidences, clean, atol=1e-5)
    np.testing.assert_allclose(report.perturbed_confidences, moved, atol=1e-5)
    assert report.clean_confidence == pytest.approx(clean.mean(), abs=1e-5)
    examples = report.examples
    np.testing.assert_allclose(
        examples.confidences[:, 0], clean[examples.places], atol=1e-5
    )
    if kind not in ("dense", "opaque"):
        return
    figure = plot_perturbation(model, V, X[:1], (0, 1), None, from_logits)
    assert f"confidence {clean[0]:.0%}" in figure.axes[1].get_title()
    seen = analysis.label_dominance(
        model, V, X, from_logits=from_logits, **QUIET
    )
    grey = np.full((1, *models.SHAPE), 0.5, "float32")
    expected = np.sort(np.asarray(model(grey))[0])[::-1]
    np.testing.assert_allclose(seen.alone_probabilities[0], expected, atol=1e-5)


@pytest.mark.parametrize("activation", ["softmax", None])
def test_other_confidences_are_those_of_the_softmax(activation):
    model = models.linear(activation=activation, scale=0.1)
    adapter = ClassifierAdapter(model, models.SHAPE, images=X[:4])
    found = adapter.confidences(adapter.predict(X))
    expected = np.asarray(model(X))
    if activation is None:
        expected = np.asarray(tf.nn.softmax(expected))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_single_sigmoid_states_two_probabilities():
    model = models.linear(1, "sigmoid", scale=0.1)
    adapter = ClassifierAdapter(model, models.SHAPE, images=X[:4])
    found = adapter.confidences(adapter.predict(X))
    np.testing.assert_allclose(found[:, 1:], model(X), atol=1e-5)


def test_several_sigmoids_are_warned_of():
    with pytest.warns(UserWarning, match="ends in several sigmoids"):
        logits_function(sigmoids())
    with pytest.warns(UserWarning, match="ends in several sigmoids"):
        analysis.fooling_report(sigmoids(), V, X, num_random=1, **QUIET)
    with pytest.warns(UserWarning, match="ends in several sigmoids"):
        keras_uap.AdversarialDistiller(sigmoids(), 0.05, value_range=(0, 1))


def test_opaque_logits_between_0_and_1_keep_their_labels():
    """They may leave that range on other images: the order stays."""
    model = Opaque(models.linear(3, scale=0.003))
    model.model.layers[-1].bias.assign_add([0.5] * 3)
    few, many = X[:4], 20 * X
    assert np.ptp(np.clip(model(few), 0, 1) - model(few)) == 0
    assert np.min(model(many)) < 0
    assert np.max(model(many)) > 1
    labels = np.argmax(logits_function(model, images=few)(many), axis=-1)
    np.testing.assert_array_equal(labels, np.argmax(model(many), axis=-1))


@pytest.mark.filterwarnings("ignore:The classifier ends in several")
def test_a_distiller_keeps_each_of_several_sigmoids():
    model = sigmoids()
    distiller = keras_uap.AdversarialDistiller(
        model, 0.05, value_range=(0, 1), robustness=0.0
    )
    distiller.compile("sgd")
    assert distiller.evaluate(X, verbose=0)[0] == pytest.approx(0, abs=1e-5)
    # The bias of all classes: the softmax does not see it, sigmoids do.
    model.layers[-1].bias.assign_add([1.0] * 4)
    p, q = np.asarray(distiller.teacher(X)), np.asarray(model(X))
    p, q = p.astype("float64"), q.astype("float64")
    each = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    expected = each.sum(-1).mean()
    found = distiller.evaluate(X, verbose=0)[0]
    assert found == pytest.approx(expected, rel=1e-3)


# Classes that are switched off -----------------------------------------------


def switched_off(count=2, classes=5):
    """A linear classifier, the last of whose classes are never given."""
    base = models.linear(classes)
    mask = np.zeros(classes, "float32")
    mask[classes - count :] = -np.inf
    return keras.Model(base.inputs[0], base.outputs[0] + mask)


@pytest.mark.parametrize("num_candidates", [5, models.slow(2)])
def test_deepfool_passes_by_classes_that_are_switched_off(num_candidates):
    model = switched_off()
    found = keras_uap.deepfool(model, X, num_candidates, verbose=0)
    # The same without those classes.
    base = keras.Model(model.inputs[0], model.outputs[0][:, :3])
    expected = keras_uap.deepfool(base, X, num_candidates, verbose=0)
    assert found.converged.all()
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(
        found.perturbations, expected.perturbations, atol=1e-6
    )


@pytest.mark.parametrize(
    ("update", "loss"),
    [
        ("deepfool", "crossentropy"),
        ("lion", "margin"),
        models.slow("nearest", "crossentropy"),
        models.slow("one_by_one", "crossentropy"),
        models.slow("lion", "dominant"),
        models.slow("adam", "crossentropy"),
    ],
)
def test_fits_pass_by_classes_that_are_switched_off(update, loss):
    model = switched_off()
    made = keras_uap.UniversalPerturbation(model, 0.1, value_range=None, seed=1)
    made.compile(models.UPDATES[update](), loss=loss)
    history = made.fit(X, epochs=2, verbose=0).history
    assert made.perturbation.any()
    failed = history.get("not_converged", history.get("no_gradient"))
    assert failed[-1] == 0
    assert made.evaluate(X, verbose=0) > 0.2


def test_measurements_pass_by_classes_that_are_switched_off():
    model = switched_off()
    report = analysis.fooling_report(model, V, X, num_random=1, **QUIET)
    assert np.isfinite(report.clean_confidence)
    found = analysis.mutual_influence(model, V, X, **QUIET)
    base = keras.Model(model.inputs[0], model.outputs[0][:, :3])
    expected = analysis.mutual_influence(base, V, X, **QUIET)
    np.testing.assert_allclose(found.with_image, expected.with_image, atol=1e-5)


def test_a_distiller_keeps_classes_that_are_switched_off():
    base = models.linear(5)
    mask = np.float32([0, 0, 0, -np.inf, -np.inf])
    model = keras.Model(base.inputs[0], base.outputs[0] + mask)
    distiller = keras_uap.AdversarialDistiller(model, 0.05, value_range=(0, 1))
    distiller.compile("sgd")
    history = distiller.fit(X, verbose=0).history
    assert np.isfinite(history["loss"][0])
    assert all(np.isfinite(w).all() for w in model.get_weights())


# Axes and dtypes -------------------------------------------------------------


def first_axes(shape=(3, 8, 8)):
    return keras.Sequential(
        [keras.Input(shape), layers.Flatten(), layers.Dense(4)]
    )


def test_channels_first_are_refused_everywhere():
    x = np.transpose(X, (0, 3, 1, 2))
    data = tf.data.Dataset.from_tensor_slices(x).batch(8)
    model, v = first_axes(), np.transpose(V, (2, 0, 1))
    calls = [
        lambda: uap(model),
        lambda: keras_uap.AdversarialDistiller(model, 0.05),
        lambda: uap(Opaque(model)).fit(x, verbose=0),
        lambda: uap(Opaque(model)).evaluate(data, verbose=0),
        lambda: keras_uap.deepfool(model, data, verbose=0),
        lambda: keras_uap.audit(model, x, **QUIET),
        lambda: keras_uap.harden(model, data, **QUIET),
        lambda: analysis.fooling_report(model, v, x, **QUIET),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="data_format='channels_first'"):
            print(call())


def test_vectors_are_refused_everywhere():
    x = X.reshape(len(X), -1)
    data = tf.data.Dataset.from_tensor_slices(x).batch(8)
    model, v = first_axes((192,)), V.reshape(-1)
    calls = [
        lambda: uap(model),
        lambda: keras_uap.AdversarialDistiller(model, 0.05),
        lambda: uap(Opaque(model)).fit(x, verbose=0),
        lambda: uap(Opaque(model)).fit(data, verbose=0),
        lambda: keras_uap.deepfool(model, data, verbose=0),
        lambda: keras_uap.audit(model, x, **QUIET),
        lambda: keras_uap.harden(model, x, **QUIET),
        lambda: analysis.fooling_report(model, v, x, **QUIET),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"Flatten\(\) in front"):
            print(call())
    # What the message says to do.
    wrapped = keras.Sequential(
        [keras.Input(models.SHAPE), layers.Flatten(), model]
    )
    uap(wrapped).fit(X, verbose=0)


def test_images_of_any_numbers_give_what_floats_give():
    x = X > 0.5
    data = tf.data.Dataset.from_tensor_slices
    kinds = [x.astype("float32"), x, x.astype("int64")]
    kinds += [data(x.astype(t)).batch(8) for t in ("uint8", "float64")]
    model = models.linear()
    found = []
    for images in kinds:
        made = keras_uap.UniversalPerturbation(
            model, 0.05, value_range=(0, 1), seed=2
        )
        made.compile("lion")
        made.fit(images, shuffle=False, batch_size=8, verbose=0)
        report = analysis.fooling_report(
            model, made.perturbation, images, num_random=1, **QUIET
        )
        steps = keras_uap.deepfool(model, images, verbose=0)
        measured = made.evaluate(images, verbose=0), report.fooling_rate
        found.append((made.perturbation, *measured, steps.perturbations))
    for other in found[1:]:
        for one, another in zip(found[0], other):
            np.testing.assert_allclose(one, another, atol=1e-6)


def test_complex_images_are_refused_in_a_line():
    x = X.astype("complex64")
    distiller = keras_uap.AdversarialDistiller(models.linear(), 0.05)
    distiller.compile("sgd")
    data = tf.data.Dataset.from_tensor_slices(x).batch(8)
    for call in (
        lambda: keras_uap.deepfool(models.linear(), x, verbose=0),
        lambda: uap(models.linear()).fit(data, verbose=0),
        lambda: distiller.fit(x, verbose=0),
    ):
        with pytest.raises(TypeError, match="array of numbers") as caught:
            call()
        assert len(str(caught.value)) < 300


# Without a gradient, or with a state -----------------------------------------


def without_gradient():
    image = keras.Input(models.SHAPE)
    x = keras.ops.cast(keras.ops.cast(8 * image, "int32"), "float32")
    return keras.Model(image, layers.Dense(4)(layers.Flatten()(x)))


def test_no_gradient_is_said_by_all():
    model = without_gradient()

    def fit(update):
        made = uap(model)
        made.compile(update)
        made.fit(X, verbose=0)

    def distill():
        made = keras_uap.AdversarialDistiller(model, 0.05, value_range=(0, 1))
        made.compile("sgd")
        made.fit(X, verbose=0)

    calls = [
        lambda: keras_uap.deepfool(model, X, verbose=0),
        lambda: keras_uap.deepfool(model, X, num_candidates=2, verbose=0),
        lambda: fit("deepfool"),
        lambda: fit("lion"),
        lambda: fit(keras_uap.DeepFool(one_by_one=True)),
        distill,
        lambda: analysis.boundary_normals(model, X, verbose=0),
        lambda: analysis.subspace_perturbation(
            model,
            analysis.normal_spectrum(X[:8]),
            X,
            dim=4,
            steps=2,
            **QUIET,
        ),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="no gradient with respect"):
            call()


def recurrent(stateful, batch_size=None):
    return keras.Sequential(
        [
            keras.Input(batch_shape=(batch_size, 16, 2)),
            layers.LSTM(4, stateful=stateful),
            layers.Dense(3),
        ]
    )


def test_stateful_classifiers_are_refused_at_once():
    model = recurrent(True, 20)
    x = np.random.default_rng(0).normal(size=(40, 16, 2)).astype("float32")
    calls = [
        lambda: keras_uap.attach(model),
        lambda: keras_uap.UniversalPerturbation(model, 0.1),
        lambda: keras_uap.AdversarialDistiller(model, 0.1),
        lambda: keras_uap.deepfool(model, x, verbose=0),
        lambda: keras_uap.audit(model, x, **QUIET),
        lambda: logits_function(model),
        lambda: keras_uap.Ensemble([model, model]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="keep no state"):
            call()
    # What the message says to do.
    rebuilt = recurrent(False)
    rebuilt.set_weights(model.get_weights()[: len(rebuilt.weights)])
    keras_uap.UniversalPerturbation(rebuilt, 0.1, value_range=None).fit(
        x, verbose=0
    )


def test_a_sequential_model_built_by_a_batch_is_taken():
    model = keras.Sequential([layers.Flatten(), layers.Dense(4)])
    model(X[:5])
    keras_uap.UniversalPerturbation(model, 0.1, value_range=(0, 1)).fit(
        X, verbose=0
    )


def test_deepfool_refuses_scores_that_are_not_finite():
    model = models.linear()
    model.layers[-1].bias.assign([np.nan, 0, 0, 0])
    with pytest.raises(ValueError, match="finite scores"):
        keras_uap.deepfool(model, X, verbose=0)


# Names of classes ------------------------------------------------------------


def test_classes_without_a_name_have_a_number(tmp_path):
    model = models.linear()
    report = analysis.fooling_report(
        model, 3 * V, X, num_random=1, target=3, **QUIET
    )
    flow = analysis.label_flow(model, 3 * V, X, **QUIET)
    for names in (["cat"], [], None):
        for text in (report.table(names), report._repr_html_()):
            assert "class 3" in text
        report.plot(names)
        report.save_html(tmp_path / "page.html", names)
        plot_perturbation(model, V, X, (0, 1), names)
        flow.table(names), flow.plot(names), flow.plot_graph(names)
    board = keras_uap.PerturbationTensorBoard(tmp_path, X, ["cat"])
    uap(model).fit(X, epochs=2, verbose=0, callbacks=[board])
