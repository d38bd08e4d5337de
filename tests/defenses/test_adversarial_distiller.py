"""Tests of the model that trains a classifier to keep its answers."""

import json
import subprocess
import sys

import keras
import models
import numpy as np
import pytest

import keras_uap
from keras_uap import AdversarialDistiller, samples

EPSILON = 0.05


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def make(classifier, rate=0.01, **changes):
    """A defence for pixels in 0 to 1, compiled."""
    arguments = {"epsilon": EPSILON, "value_range": (0, 1)} | changes
    defence = AdversarialDistiller(classifier, **arguments)
    defence.compile(keras.optimizers.Adam(rate))
    return defence


def fit(defence, images, *labels, epochs=2, **kwargs):
    return defence.fit(
        images, *labels, epochs=epochs, batch_size=16, verbose=0, **kwargs
    ).history


def normalized(activation=None):
    """A classifier with batch normalization and dropout."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(models.SHAPE),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(models.CLASSES, activation),
        ]
    )


def arrays(model):
    return [np.array(w) for w in model.get_weights()]


def same(some, others):
    return all(np.array_equal(a, b) for a, b in zip(some, others))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_perturbation_is_in_its_ball_after_every_batch(
    norm, images, each_batch
):
    defence = make(models.cnn(), norm=norm, step_size=0.04)
    ball = keras_uap.LpBall(EPSILON, norm)
    check = each_batch(lambda model: ball.refuse_outside(model.perturbation))
    fit(defence, images, callbacks=[check])
    assert check.calls == 6
    assert ball.norm_of(defence.perturbation) > 0.5 * EPSILON


def test_what_is_trained_and_what_is_not(images):
    classifier = normalized()
    classifier.compile("sgd", "mse")
    optimizer = classifier.optimizer
    before, statistics = arrays(classifier), None
    defence = make(classifier)
    statistics = [w.numpy() for w in classifier.non_trainable_weights]
    fit(defence, images)
    assert same(arrays(defence.teacher), before)
    assert same(classifier.non_trainable_weights, statistics)
    assert not same(arrays(classifier), before)
    # All of the caller's switches are where they were.
    assert all(layer.trainable for layer in classifier.layers)
    assert classifier.optimizer is optimizer
    assert not any(v is defence.v for v in defence.trainable_variables)


def test_frozen_layers_stay(images):
    classifier = models.cnn()
    classifier.layers[1].trainable = False
    kernel = classifier.layers[1].kernel.numpy()
    fit(make(classifier), images)
    np.testing.assert_array_equal(classifier.layers[1].kernel, kernel)


def test_nothing_to_train(images):
    classifier = models.cnn()
    classifier.trainable = False
    with pytest.raises(ValueError, match="no trainable weights"):
        fit(make(classifier), images)


def test_clean_images_alone_teach_nothing_new(images):
    """With its own answers as targets, a classifier is where it is to be."""
    classifier = models.linear()
    before = arrays(classifier)
    defence = AdversarialDistiller(
        classifier, EPSILON, value_range=(0, 1), robustness=0
    )
    defence.compile(keras.optimizers.SGD(0.1))
    history = fit(defence, images, epochs=1)
    for weight, old in zip(arrays(classifier), before):
        np.testing.assert_allclose(weight, old, atol=1e-5)
    assert history["clean_agreement"] == [1]
    # The first step is random, and later ones have no gradient.
    assert np.abs(defence.perturbation).max() == pytest.approx(0.01)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_loss_is_a_divergence(temperature, images):
    robustness, v = 0.3, 0.04
    defence = make(
        models.linear(scale=0.2), robustness=robustness, temperature=temperature
    )
    defence.v.assign(np.full((1, *models.SHAPE), v))
    # It has learned something else by now.
    kernel, bias = arrays(defence.classifier)
    defence.classifier.set_weights([1.1 * kernel, bias])

    def answers(x, factor):
        logits = x.reshape(len(x), -1).astype("float64") @ (factor * kernel)
        p = np.exp((logits + bias) / temperature)
        return p / p.sum(axis=-1, keepdims=True)

    soft = answers(images, 1.0)

    def divergence(x):
        logs = np.log(soft) - np.log(answers(x, 1.1))
        return temperature**2 * np.mean(np.sum(soft * logs, axis=-1))

    expected = robustness * divergence(np.clip(images + v, 0, 1))
    expected += (1 - robustness) * divergence(images)
    found = defence.evaluate(images, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(expected, rel=1e-4)


def test_small_logits_are_no_probabilities(images):
    """Three logits between 0 and 1 are trained as logits."""
    model = models.linear(3, scale=0.0)
    model.layers[-1].bias.assign([0.1, 0.5, 0.9])
    labels = np.arange(len(images)) % 3
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    expected = float(loss(labels, model.predict(images, verbose=0)))
    for y in (labels, labels[:, None], np.eye(3)[labels]):
        found = make(model).evaluate(images, y, verbose=0, return_dict=True)
        assert found["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", slow("l2")])
def test_own_answers_have_no_slope_at_zero(norm, images):
    """The first step is random, and the seed decides it."""
    found = []
    for seed in (0, 0, 1):
        classifier = models.cnn()
        before = arrays(classifier)
        defence = make(classifier, norm=norm, step_size=0.04, seed=seed)
        fit(defence, images, epochs=1, shuffle=False)
        assert not same(arrays(classifier), before)
        found.append(defence.perturbation)
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 1e-3


def test_perturbations_take_turns(images, each_batch):
    """A batch moves one, from where it was; the others wait."""
    start = np.stack([np.full(models.SHAPE, x) for x in (0.04, 0.0, -0.04)])
    defence = make(models.cnn(), perturbation=start, step_size=0.01)
    np.testing.assert_allclose(defence.perturbation, start, rtol=1e-6)
    seen = [start]
    check = each_batch(lambda model: seen.append(model.perturbation))
    fit(defence, images, callbacks=[check], epochs=1)
    moved = np.abs(np.diff(seen, axis=0)).max(axis=(2, 3, 4)) > 1e-3
    np.testing.assert_array_equal(moved[:3], np.eye(3, dtype=bool))


def test_pool_and_memory_survive_saving(images, tmp_path):
    defence = make(models.cnn(), pool_size=2, memory_size=2)
    defence.remember(np.full(models.SHAPE, 0.02))
    fit(defence, images)
    defence.save(tmp_path / "defence.keras")
    loaded = keras.saving.load_model(tmp_path / "defence.keras")
    assert loaded.pool_size == 2
    assert loaded.memory_count == 1
    np.testing.assert_array_equal(loaded.memory, defence.memory)
    np.testing.assert_array_equal(loaded.perturbation, defence.perturbation)


def test_every_second_image_has_one_of_the_memory(images):
    """v ascends as it would on the other images alone."""
    start = np.full(models.SHAPE, 0.01, "float32")
    frozen = [start + 0.02, start - 0.03]
    found = []
    for size, batch in ((3, images), (0, images[::2])):
        defence = make(models.linear(), perturbation=start, memory_size=size)
        if size:
            np.testing.assert_array_equal(
                defence._with_memory(defence.v, images) - start, 0 * images
            )
            for v in frozen:
                defence.remember(v)
            each = defence._with_memory(defence.v, images).numpy()
            assert (each[::2] == start).all()
            drawn = {float(v[0, 0, 0]) for v in each[1::2]}
            assert drawn == {float(v[0, 0, 0]) for v in frozen}
        defence.fit(batch, epochs=1, batch_size=40, shuffle=False, verbose=0)
        found.append(defence)
    np.testing.assert_array_equal(*[each.perturbation for each in found])
    assert np.abs(found[0].perturbation - start).max() > 0.009
    np.testing.assert_array_equal(found[0].memory[:2], frozen)
    assert found[0].memory_count == 2


def test_wrong_memories():
    defence = make(models.linear(), memory_size=1)
    v = np.zeros(models.SHAPE)
    with pytest.raises(ValueError, match="outside the ball"):
        defence.remember(v + 1)
    with pytest.raises(ValueError, match="perturbation's shape"):
        defence.remember(v[1:])
    defence.remember(v)
    unknown = make(models.Subclassed(), memory_size=1)
    unknown.remember(v)  # Its shape is known from here on.
    assert unknown.memory_count == 1
    for full in (defence, make(models.linear())):
        with pytest.raises(ValueError, match="memory is full"):
            full.remember(v)


@pytest.mark.parametrize("activation", [slow(None), "softmax", slow("sigmoid")])
def test_heads(activation, images):
    keras.utils.set_random_seed(0)
    classes = 1 if activation == "sigmoid" else models.CLASSES
    classifier = models.linear(classes, activation, scale=0.3)
    defence = make(classifier)
    history = fit(defence, images, epochs=12)
    assert history["loss"][-1] < max(history["loss"])
    # A saturated head is no reason to be NaN.
    assert np.isfinite(arrays(classifier)[0]).all()


def test_it_hardens():
    """One pixel decides by little, or all of them together by much."""
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    images = rng.uniform(0.45, 0.55, (64, *models.SHAPE)).astype("float32")
    images[:, 0, 0, 0] = np.where(labels, 0.9, 0.1)
    classifier = models.linear(2, scale=0.0)
    kernel = np.zeros((8, 8, 3, 2), "float32")
    kernel[..., 1] = 0.6 * rng.choice([-1, 1], models.SHAPE)
    kernel[0, 0, 0, 1] = 10
    bias = -0.5 * kernel[..., 1].sum()
    classifier.set_weights([kernel.reshape(-1, 2), np.array([0, bias])])

    def worst_rate():
        """Of a linear classifier the worst perturbations are known."""
        clean = classifier.predict(images, verbose=0).argmax(axis=-1)
        slope = np.diff(classifier.get_weights()[0]).reshape(models.SHAPE)
        return max(
            np.mean(classifier(images + v).numpy().argmax(axis=-1) != clean)
            for v in (0.1 * np.sign(slope), -0.1 * np.sign(slope))
        )

    before = worst_rate()
    defence = make(classifier, rate=0.02, epsilon=0.1, robustness=0.7)
    history = fit(defence, images, epochs=40)
    assert before == 0.5
    assert worst_rate() == 0
    assert history["clean_agreement"][-1] == 1


@pytest.mark.slow
@pytest.mark.usefixtures("optimized_graphs")
def test_embedded_classifier():
    """Predictions are kept, and the perturbation of the memory fools less.

    The notebook `harden.ipynb` calls `harden`, with its audits.
    """
    classifier = samples.load_classifier()
    images = samples.load_photos("fit")[::3].astype("float32")
    v, _ = samples.load_perturbation("linf")

    def labels(x):
        return classifier.predict(x, verbose=0).argmax(-1)

    clean, perturbed = labels(images), np.clip(images + v, 0, 255)
    before = np.mean(labels(perturbed) != clean)
    defence = AdversarialDistiller(classifier, epsilon=10.0, memory_size=1)
    defence.remember(v)
    defence.compile(keras.optimizers.Adam(1e-4))
    fit(defence, images, epochs=3)
    assert np.mean(labels(images) == clean) > 0.5
    assert np.mean(labels(perturbed) != clean) < before - 0.1


def test_same_seed_same_result(images):
    results = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        classifier = models.cnn(dropout=0.5)
        defence = make(classifier)
        fit(defence, images, shuffle=False)
        results.append([*arrays(classifier), defence.perturbation])
    assert same(*results)


def test_random_state_is_the_callers(images):
    import random

    random.seed(5)
    expected = random.random()
    classifier = models.cnn(dropout=0.5)
    random.seed(5)
    make(classifier)
    assert random.random() == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "backup",
    [slow(keras.callbacks.BackupAndRestore), keras_uap.BackupAndRestore],
)
def test_resumed_after_a_kill(backup, images, tmp_path):
    def run(*callbacks):
        keras.utils.set_random_seed(0)
        classifier = models.cnn()
        defence = make(classifier, memory_size=2)

        def remember(epoch, logs):
            if epoch == 1:
                defence.remember(defence.perturbation)

        remember = keras.callbacks.LambdaCallback(on_epoch_begin=remember)
        try:
            fit(
                defence,
                images,
                epochs=4,
                shuffle=False,
                callbacks=[backup(tmp_path), remember, *callbacks],
            )
        except models.Crash:
            return None
        return [
            *arrays(classifier),
            *arrays(defence.teacher),
            defence.perturbation,
            defence.memory,
        ]

    whole = run()
    assert run(models.CrashAt(2)) is None
    assert same(run(), whole)


def test_saved_defence_goes_on(images, tmp_path):
    defence = make(models.cnn(), robustness=0.7, temperature=2.0)
    fit(defence, images)
    defence.save(tmp_path / "defence.keras")
    loaded = keras.saving.load_model(tmp_path / "defence.keras")
    assert loaded.get_config() == defence.get_config()
    for each in (defence, loaded):
        fit(each, images, epochs=1, shuffle=False)
    assert same(arrays(loaded), arrays(defence))
    np.testing.assert_array_equal(loaded.perturbation, defence.perturbation)


@pytest.mark.slow
def test_hardened_classifier_is_a_plain_model(images, tmp_path):
    classifier = normalized("softmax")
    fit(make(classifier), images)
    path = tmp_path / "hardened.keras"
    classifier.save(path)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import json, keras, numpy as np, sys\n"
        f"model = keras.saving.load_model({str(path)!r})\n"
        f"images = np.load({str(tmp_path / 'images.npy')!r})\n"
        "scores = model.predict(images, verbose=0).tolist()\n"
        "print(json.dumps([scores, 'keras_uap' in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    scores, loaded = json.loads(done.stdout.splitlines()[-1])
    assert not loaded
    np.testing.assert_allclose(
        scores, classifier.predict(images, verbose=0), atol=1e-6
    )


def test_callbacks_see_validation(images, tmp_path):
    defence = make(models.cnn())
    path = tmp_path / "best.weights.h5"
    history = fit(
        defence,
        images,
        validation_data=(images[:8],),
        callbacks=[
            keras.callbacks.EarlyStopping("val_perturbed_agreement"),
            keras.callbacks.ModelCheckpoint(
                path,
                "val_clean_agreement",
                save_best_only=True,
                save_weights_only=True,
            ),
        ],
    )
    assert path.exists()
    names = ("loss", "clean_agreement", "perturbed_agreement")
    assert {*names, *(f"val_{name}" for name in names)} == set(history)


def test_classifier_of_unknown_size(images, subclassed):
    defence = make(subclassed())
    with pytest.raises(ValueError, match=r"distiller\.build\("):
        fit(defence, images)
    defence.build((None, *models.SHAPE))
    fit(defence, images)


class Unsaved(keras.Model):
    """A model that needs what it does not say that it needs."""

    def __init__(self, needed):
        super().__init__()


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"classifier": "model"}, TypeError, "classifier must be a Keras"),
        ({"classifier": Unsaved(1)}, TypeError, "cannot be copied"),
        ({"epsilon": "ten"}, TypeError, "epsilon"),
        ({"epsilon": 0}, ValueError, "epsilon"),
        ({"norm": "l3"}, ValueError, "norm='l3'"),
        ({"value_range": (1, 0)}, ValueError, "value_range"),
        ({"robustness": 1.5}, ValueError, "robustness"),
        ({"robustness": None}, ValueError, "robustness"),
        ({"temperature": 0}, ValueError, "temperature"),
        ({"temperature": np.inf}, ValueError, "temperature"),
        ({"step_size": 0}, ValueError, "step_size"),
        ({"seed": -1}, ValueError, "seed"),
        ({"pool_size": 0}, ValueError, "pool_size"),
        ({"memory_size": -1}, ValueError, "memory_size"),
        (
            {"perturbation": np.ones(models.SHAPE)},
            ValueError,
            "outside the ball",
        ),
    ],
)
def test_wrong_arguments(changes, error, says):
    arguments = {"classifier": models.cnn(), "epsilon": EPSILON} | changes
    with pytest.raises(error, match=says):
        AdversarialDistiller(**arguments)


def test_wrong_data(images):
    defence = make(models.cnn())
    with pytest.raises(ValueError, match="has loss of its own"):
        defence.compile("adam", loss="mse")
    with pytest.raises(ValueError, match="sample weights"):
        fit(defence, images, np.zeros(40), sample_weight=np.ones(40))
    with pytest.raises(ValueError, match="perturbation's shape"):
        fit(defence, images[:, 1:])
    with pytest.raises(ValueError, match="class index"):
        fit(defence, images, np.zeros((40, 3)))


def test_scores_that_are_not_finite_agree_with_nothing(images):
    """Class 0 is what a bare argmax of NaN gives."""
    classifier = models.linear()
    defence = make(classifier)
    defence.build((None, *models.SHAPE))
    kernel, bias = classifier.get_weights()
    classifier.set_weights([kernel * np.nan, bias])
    found = defence.evaluate(images, verbose=0, return_dict=True)
    assert found["clean_agreement"] == found["perturbed_agreement"] == 0
