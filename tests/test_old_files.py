"""Files that older versions wrote are still read, and continue from there.

Version 0.1.0 before its first release, at commit f31aaad, wrote all that is
in `files/old`, with Keras 3.15.1 and TensorFlow 2.21.0. (The `.keras` archives
were packed anew with compression; what they hold is as it was written.)
`expected.npz` and `expected.json` hold the images, and what that version had
in its hands as it wrote each file and got from one more epoch after it.

Commit d720b20 wrote the `.keras` files in `files/d720b20`, and its own v and
history after one more epoch.
"""

import json
import pathlib

import keras
import numpy as np
import pytest

import keras_uap
from keras_uap import interchange
from keras_uap.perturbations.lp_ball import lp_norm

OLD = pathlib.Path(__file__).parent / "files" / "old"
NOTES = json.loads((OLD / "expected.json").read_text())
SHAPE = (4, 3, 3)
CLASSES = 3


@pytest.fixture(scope="module")
def arrays():
    with np.load(OLD / "expected.npz") as archive:
        return {name: archive[name] for name in archive.files}


def load_uap(name):
    if not name.endswith(".weights.h5"):
        return keras.saving.load_model(OLD / name)
    classifier = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES),
        ]
    )
    note = NOTES[name]
    uap = keras_uap.UniversalPerturbation(
        classifier, note["epsilon"], norm=note["norm"]
    )
    uap.compile(keras.optimizers.Adam(1.0))
    uap.optimizer.build(uap.trainable_variables)
    uap.load_weights(OLD / name)
    return uap


def assert_equal(actual, expected):
    np.testing.assert_array_equal(np.asarray(actual), expected)


def assert_close(actual, expected):
    """Fits are equal to the last bits, which other processors round anew."""
    np.testing.assert_allclose(
        np.asarray(actual), expected, rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize(
    "name",
    [
        "mask_momentum.keras",
        "deepfool.keras",
        "target.keras",
        "fitted.weights.h5",
    ],
)
def test_a_perturbation_is_what_it_was_and_goes_on(name, arrays):
    note = NOTES[name]
    uap = load_uap(name)
    assert_equal(uap.perturbation, arrays[f"{name} v"])
    assert_equal(uap.best_v, arrays[f"{name} best_v"])
    assert float(uap.best_rate) == note["best_rate"]
    assert uap.epsilon == note["epsilon"]
    assert uap.norm == note["norm"]
    assert uap.target == note["target"]
    assert list(uap.value_range) == note["value_range"]
    if name == "mask_momentum.keras":
        assert_equal(uap.mask, arrays[f"{name} mask"])
        assert 0 < np.count_nonzero(uap.perturbation) <= np.sum(uap.mask)
    else:
        assert uap.mask is None

    # The iterations, the learning rate, and then the optimizer's moments.
    assert type(uap.optimizer).__name__ == note["optimizer"]
    assert int(uap.optimizer.iterations) == note["iterations"]
    moments = uap.optimizer.variables[2:]
    assert moments
    for i, moment in enumerate(moments, 2):
        assert_equal(moment, arrays[f"{name} optimizer {i}"])
        assert np.any(moment)
    assert_equal(uap.seed_generator.state, note["draws"])

    images, labels = arrays["images"], arrays["labels"]
    results = uap.evaluate(images, labels, verbose=0, return_dict=True)
    expected = dict(note["evaluate"])
    if uap.target is not None:
        # That version counted images that were of the target when clean.
        clean = uap.classifier.predict(images, verbose=0).argmax(-1)
        others = images[clean != uap.target]
        scores = uap.classifier.predict(uap.perturb(others), verbose=0)
        expected["target_rate"] = np.mean(scores.argmax(-1) == uap.target)
    assert results == pytest.approx(expected)

    history = uap.fit(images, batch_size=8, epochs=1, verbose=0).history
    assert_close(uap.perturbation, arrays[f"{name} resumed"])
    assert lp_norm(uap.perturbation, uap.norm) <= uap.epsilon
    assert list(history) == list(note["resumed"])
    for column, value in note["resumed"].items():
        if column == "target_rate":
            continue
        assert history[column] == pytest.approx([value], rel=1e-4), column


def test_the_update_is_what_was_compiled():
    uap = load_uap("deepfool.keras")
    update = uap.get_compile_config()["optimizer"]["config"]
    assert update["num_candidates"] == 3
    assert update["max_steps"] == 20
    assert update["momentum"] == 0.5
    assert update["one_by_one"] is False
    config = load_uap("mask_momentum.keras").get_compile_config()
    assert config["loss"] == "margin"
    assert config["optimizer"]["config"]["momentum"] == pytest.approx(0.9)
    assert load_uap("target.keras").get_compile_config()["optimizer"] == "lion"


@pytest.mark.parametrize("name", ["layer_pool.keras", "layer_epsilon.keras"])
def test_a_layer_is_what_it_was_and_goes_on(name, arrays):
    note = NOTES[name]
    model = keras.saving.load_model(OLD / name)
    layer, classifier = model.layers
    assert isinstance(layer, keras_uap.PerturbationLayer)
    config = layer.get_config()
    for key in ("rate", "pool_size", "seed", "epsilon", "norm", "step_size"):
        assert config[key] == note[key], key
    assert list(layer.value_range) == note["value_range"]
    assert_equal(layer.perturbations, arrays[f"{name} perturbations"])
    assert_equal(classifier.get_weights()[0], arrays[f"{name} kernel"])
    moments = model.optimizer.variables[2:]
    assert any(np.any(moment) for moment in moments)
    for i, moment in enumerate(moments, 2):
        assert_equal(moment, arrays[f"{name} optimizer {i}"])
    assert_equal(layer.seed_generator.state, note["draws"])

    images, labels = arrays["images"], arrays["labels"]
    loss = model.evaluate(images, labels, verbose=0)
    assert loss == pytest.approx(note["evaluate"], rel=1e-4)
    # Which of them are perturbed, and by which of the pool, is drawn.
    drawn = layer(images[:8], training=True)
    assert_equal(drawn, arrays[f"{name} draws"])

    history = model.fit(
        images, labels, batch_size=8, epochs=1, shuffle=False, verbose=0
    )
    loss = history.history["loss"]
    assert loss == pytest.approx([note["resumed loss"]], rel=1e-4)
    assert_close(layer.perturbations, arrays[f"{name} resumed"])
    assert_close(classifier.get_weights()[0], arrays[f"{name} resumed kernel"])
    if layer.epsilon is not None:
        assert lp_norm(layer.perturbation, layer.norm) <= layer.epsilon
        moved = arrays[f"{name} resumed"] - arrays[f"{name} perturbations"]
        assert np.abs(moved).max() > 1


def test_a_perturbation_file_is_what_it_was(arrays):
    v, card = interchange.load_perturbation(OLD / "perturbation.npz")
    assert_equal(v, arrays["deepfool.keras v"])
    assert card == {
        "epsilon": 10.0,
        "norm": "linf",
        "value_range": [0.0, 255.0],
        "shape": list(SHAPE),
        "format": 1,
        "version": "0.1.0",
        "fooling_rate": NOTES["deepfool.keras"]["evaluate"]["fooling_rate"],
        "classifier": "linear",
    }


@pytest.mark.parametrize(
    "name",
    [
        "features_dominant",
        "l2_one_by_one",
        "mask_deepfool",
        "target",
        "validation",
    ],
)
def test_a_file_of_d720b20_is_what_it_was_and_continues(name):
    folder = OLD.parent / "d720b20"
    notes = json.loads((folder / "expected.json").read_text())
    with np.load(folder / "expected.npz") as archive:
        images, v, resumed = (
            archive[key] for key in ("images", f"{name} v", f"{name} resumed")
        )
    uap = keras.saving.load_model(folder / f"{name}.keras")
    assert_equal(uap.perturbation, v)
    history = uap.fit(images, batch_size=8, epochs=1, verbose=0).history
    np.testing.assert_allclose(uap.perturbation, resumed, atol=1e-5)
    assert list(history) == list(notes[name])
    for column, value in notes[name].items():
        assert history[column] == pytest.approx(value, rel=1e-4), column
