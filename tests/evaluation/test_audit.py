"""Tests of the standard evaluation, on tiny models with known answers."""

import functools
import json
import random
import types

import keras
import models
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_uap
from keras_uap import datasets, interchange, samples
from keras_uap.evaluation import attack_suite
from keras_uap.evaluation import audit as auditing

RANGE = (0, 1)


# Each run is traced anew, which takes most of the time: two where two do.
TWO = [("dominant", 0), ("data-free start", 0)]
BUDGETS = dict(attack_suite.BUDGETS)
ALL = {name: budget.runs for name, budget in BUDGETS.items()}


@pytest.fixture(autouse=True)
def tiny_budgets(monkeypatch):
    budgets = {"quick": attack_suite.Budget(300, TWO)}
    budgets["standard"] = attack_suite.Budget(300, ALL["standard"])
    monkeypatch.setattr(attack_suite, "BUDGETS", budgets)
    monkeypatch.setattr(datasets, "FEW", 0)


@pytest.fixture
def all_runs(tiny_budgets, monkeypatch):
    budget = attack_suite.Budget(300, ALL["quick"])
    monkeypatch.setattr(attack_suite, "BUDGETS", {"quick": budget})


@pytest.fixture
def many():
    return models.images(120)


def run(classifier, images, **arguments):
    defaults = {
        "epsilon": 0.08,
        "value_range": RANGE,
        "budget": "quick",
        "verbose": 0,
    }
    return keras_uap.audit(classifier, images, **(defaults | arguments))


def recount(audit, classifier, images, groups=None, seed=0):
    """The held-out rate, from the parts and the perturbation alone."""
    part = datasets.split(images, groups, seed=seed)[2]
    clean = classifier.predict(images[part], verbose=0)
    moved = np.clip(images[part] + audit.perturbation, *RANGE)
    moved = classifier.predict(moved, verbose=0)
    if clean.shape[-1] == 1:
        return np.mean((clean > 0.5) != (moved > 0.5))
    return np.mean(clean.argmax(-1) != moved.argmax(-1))


def test_one_perturbation_measured_on_what_nobody_saw(linear, many, all_runs):
    model = linear()
    groups = np.arange(120) // 3
    audit = run(model, many, groups=groups)
    assert audit.fooling_rate == pytest.approx(
        recount(audit, model, many, groups)
    )
    low, high = audit.fooling_interval
    assert low < audit.fooling_rate < high
    assert audit.random_rate < audit.fooling_rate
    assert np.abs(audit.perturbation).max() <= 0.08
    assert audit.num_fit + audit.num_select + audit.num_images == 120
    names = [(run.name, run.seed) for run in audit.runs]
    assert names == [
        ("dominant", 0),
        ("features+dominant", 0),
        ("DeepFool", 0),
        ("coarse to fine", 0),
        ("data-free", 0),
        ("data-free start", 0),
    ]
    # What chose is the part to select, and no other.
    rates = [run.select_rate for run in audit.runs]
    assert audit.strongest == audit.runs[int(np.argmax(rates))]
    assert audit.fooling_rate == pytest.approx(audit.strongest.fooling_rate)
    for row in audit.runs:
        assert 0 < row.passes <= 300
    assert sum(r.passes for r in audit.runs) > 5 * 300 * 0.7


def test_from_coarse_to_fine_begins_with_coarse_patterns(many, monkeypatch):
    """Neighbouring pixels go the same way more often than the slope does."""
    fits, fit = [], attack_suite.Attacker._fit

    def spy(*args, **kwargs):
        fits.append((kwargs, fit(*args, **kwargs)))
        return fits[-1][1]

    monkeypatch.setattr(attack_suite.Attacker, "_fit", spy)
    attacker = attack_suite.Attacker(
        models.linear(2, scale=0.1),
        keras_uap.LpBall(0.05),
        (0.0, 1.0),
        None,
        datasets.Pictures(many),
        None,
        print,
    )
    (bare,) = attacker.run("dominant", 0, 300)
    (both,) = attacker.run(attack_suite.COARSE, 0, 900)
    _, (_, coarse), (arguments, fine) = fits
    assert arguments["initial_perturbation"] is coarse.v
    assert (both.v == fine.v).all()
    assert both.passes == coarse.passes + fine.passes <= 900
    alike = [
        np.mean(signs[1:] == signs[:-1])
        for signs in (np.sign(bare.v), np.sign(coarse.v))
    ]
    assert alike[1] > alike[0] + 0.2


def test_near_the_best_there_is(linear, many, monkeypatch):
    """Of two classes the best perturbation is known: signs of the weights."""
    budget = attack_suite.Budget(1200, ALL["quick"])
    monkeypatch.setattr(attack_suite, "BUDGETS", {"quick": budget})
    model = linear(classes=2)
    audit = run(model, many, epsilon=0.05)
    kernel = model.get_weights()[0]
    v = 0.05 * np.sign(kernel[:, 0] - kernel[:, 1]).reshape(many.shape[1:])
    part = datasets.split(many)[2]
    clean = model.predict(many[part], verbose=0).argmax(-1)
    best = max(
        np.mean(
            model.predict(np.clip(many[part] + s * v, 0, 1), verbose=0).argmax(
                -1
            )
            != clean
        )
        for s in (1, -1)
    )
    assert audit.fooling_rate >= best - 0.05


def test_a_strong_start_is_not_lost(linear, many):
    """Ten small steps from the best of one direction, and no way back."""
    model = linear(classes=2)
    kernel = model.get_weights()[0]
    v = 0.05 * np.sign(kernel[:, 0] - kernel[:, 1]).reshape(many.shape[1:])
    audit = auditing.audit_pictures(
        model,
        datasets.Pictures(many),
        keras_uap.LpBall(0.05),
        (0.0, 1.0),
        "quick",
        0,
        known=v.astype("float32"),
        more_work=True,
    )
    known, start = audit.runs[:2]
    assert (known.name, start.name) == ("transferred", "transferred start")
    assert (known.passes, known.fooling_rate > 0.2) == (0, True)
    assert start.fooling_rate >= known.fooling_rate
    assert [r.name for r in audit.runs[-2:]] == list(attack_suite.MORE_WORK)
    # Of 300 passes.
    assert 800 < audit.runs[-2].passes <= 900
    assert 1700 < audit.runs[-1].passes <= 1800


@pytest.mark.parametrize("own", [[], [(attack_suite.LONGER, 0)]])
def test_more_work_brings_each_longer_run_once(own, linear, many, monkeypatch):
    budget = attack_suite.Budget(100, [("dominant", 0), *own])
    monkeypatch.setattr(attack_suite, "BUDGETS", {"quick": budget})
    audit = auditing.audit_pictures(
        linear(),
        datasets.Pictures(many),
        keras_uap.LpBall(0.05),
        (0.0, 1.0),
        "quick",
        0,
        known=np.zeros(many.shape[1:], "float32"),
        more_work=True,
    )
    names = [run.name for run in audit.runs]
    assert names == [
        *("transferred", "transferred start", "dominant"),
        *attack_suite.MORE_WORK,
    ]


def test_the_longest_runs_are_as_long_with_every_budget():
    for each in BUDGETS.values():
        assert attack_suite.passes_of(attack_suite.LONGER, each) == 18_000
        assert (
            attack_suite.passes_of(attack_suite.LONGER_FEATURES, each) == 18_000
        )
        assert (
            attack_suite.passes_of(attack_suite.COARSE_LONGER, each) == 36_000
        )


@pytest.mark.parametrize(("more", "told"), [(0, False), (2, False), (20, True)])
def test_a_run_that_fools_clearly_more_is_told(more, told):
    """Of 100 held-out images; 20 others chose the first run."""
    judge = types.SimpleNamespace(
        num_select=20, labelled=types.SimpleNamespace(groups=None)
    )
    judge.difference = functools.partial(auditing._Judge.difference, judge)
    chosen = np.arange(120) < 50
    # What it fools of those that choose plays no part.
    other = (np.arange(120) >= 20) & (np.arange(120) < 50 + more)
    runs = [
        types.SimpleNamespace(name=name, fooling_rate=hits[20:].mean())
        for name, hits in (("dominant", chosen), ("DeepFool", other))
    ]
    found = auditing._others(judge, runs, [chosen, other], 0)
    assert len(found) == told
    if told:
        assert "Another run, DeepFool, fools 50.0%" in found[0]
        assert "30.0% of the one that the 20 others chose" in found[0]


def test_standard_has_two_seeds_and_longer_runs(cnn, many):
    audit = run(cnn(), many, budget="standard", norm="l2", epsilon=1, seed=3)
    assert [r.seed for r in audit.runs] == [3] * 6 + [4] * 6 + [3] * 3
    longer = [attack_suite.LONGER, attack_suite.LONGER_FEATURES]
    assert [r.name for r in audit.runs[-2:]] == longer
    for each in audit.runs[-2:]:  # Of 300 passes.
        assert 800 < each.passes <= 900
    assert {r.name for r in audit.runs} >= {
        *("DeepFool", "data-free", attack_suite.COARSE)
    }
    assert np.linalg.norm(audit.perturbation) <= 1.0
    assert "DeepFool" in str(audit)


def test_a_seed_repeats_it(cnn, many):
    one, two = (run(cnn(), many, seed=3).perturbation for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_leaves_the_caller_alone(cnn, many):
    model, before = cnn(), many.copy()
    weights = [w.numpy() for w in model.weights]
    draws = []
    for audited in (False, True):
        keras.utils.set_random_seed(5)
        if audited:
            run(model, many)
        draws.append((random.random(), keras.random.uniform(()).numpy()))
    assert draws[0] == draws[1]
    np.testing.assert_array_equal(many, before)
    for old, new in zip(weights, model.weights):
        np.testing.assert_array_equal(old, new.numpy())


def test_softmax(cnn, many):
    model = cnn("softmax")
    audit = run(model, many)
    assert audit.fooling_rate == pytest.approx(recount(audit, model, many))


def test_sigmoid_and_data_set(cnn, many):
    model = cnn("sigmoid", classes=1)
    data = tf.data.Dataset.from_tensor_slices((many, np.arange(120) % 2))
    audit = run(model, data.batch(50))
    assert audit.fooling_rate > audit.random_rate
    with pytest.raises(ValueError, match="without an end"):
        run(model, data.batch(50).repeat())


def test_hidden_head_leaves_the_features_out(subclassed, many, monkeypatch):
    budget = attack_suite.Budget(
        300, [("dominant", 0), ("features+dominant", 0)]
    )
    monkeypatch.setattr(attack_suite, "BUDGETS", {"quick": budget})
    audit = run(subclassed(), many)
    assert [r.name for r in audit.runs] == ["dominant"]
    assert "features were left out" in " ".join(audit.notes)
    assert "features were left out" in " ".join(str(audit).split())


def test_few_images_are_varied(cnn, many, monkeypatch, capsys):
    monkeypatch.setattr(datasets, "FEW", 500)
    audit = run(cnn(), many[:30], verbose=1)
    assert "were varied" in str(audit)
    assert "wider than 30 points" in " ".join(str(audit).split())
    out = capsys.readouterr().out
    assert "This takes about" in " ".join(out.split())
    assert "2 of 2: data-free start" in out
    assert max(map(len, out.splitlines())) <= 80
    for row in audit.runs:
        assert row.passes <= 300


def test_result(linear, many, tmp_path):
    audit = run(linear(), many)
    text = str(audit)
    assert max(map(len, text.splitlines())) <= 80
    assert f"{audit.fooling_rate:.1%}" in text
    assert "lower bound" in text
    assert repr(audit).startswith("Audit(fooling_rate=0.")
    assert "\n" not in repr(audit)
    values = json.loads(audit.to_json())
    assert values["fooling_rate"] == audit.fooling_rate
    assert "perturbation" not in values
    assert len(values["runs"]) == 3
    with pytest.raises(AttributeError):
        audit.fooling_rate = 1.0
    assert len(audit.plot(list("abcd")).axes) == 3
    path = interchange.save_perturbation(
        tmp_path / "v", audit.perturbation, audit.card
    )
    v, card = interchange.load_perturbation(path)
    np.testing.assert_array_equal(v, audit.perturbation)
    assert card["held_out"]["fooling_rate"] == audit.fooling_rate


def test_interrupted_after_a_run(linear, many, monkeypatch):
    fit = attack_suite.Attacker.run

    def interrupt(attacker, name, *arguments):
        if name != "dominant":
            raise KeyboardInterrupt
        return fit(attacker, name, *arguments)

    monkeypatch.setattr(attack_suite.Attacker, "run", interrupt)
    with pytest.raises(KeyboardInterrupt, match="after 1 of 2 runs") as caught:
        run(linear(), many)
    audit = caught.value.audit
    assert [row.name for row in audit.runs] == ["dominant"]
    assert audit.fooling_rate == recount(audit, linear(), many)
    assert "Interrupted after 1 of 2 runs" in str(audit)
    # Before the first run is finished, there is nothing to keep.
    budget = attack_suite.Budget(300, TWO[1:])
    monkeypatch.setattr(attack_suite, "BUDGETS", {"quick": budget})
    with pytest.raises(KeyboardInterrupt) as caught:
        run(linear(), many)
    assert not isinstance(caught.value, auditing.AuditInterrupted)


def test_page(linear, many, tmp_path):
    audit = run(linear(), many)
    audit.save_html(tmp_path / "audit.html", list("abcd"))
    text = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert f"<strong>{audit.fooling_rate:.0%}</strong>" in text
    assert text.count("<figure>") == 8
    assert f"{audit.passes:,} model passes" in text


def test_no_gradient_is_told(linear, many, all_runs):
    """Rounded scores have no gradient: the attacks find next to nothing."""
    model = keras.Sequential(
        [
            keras.Input(many.shape[1:]),
            keras.layers.Rescaling(1.0),
            linear(scale=200.0),
            # By itself TensorFlow's softmax ends just below 1 or at it, as it
            # was built and with what processor.
            keras.layers.Lambda(
                lambda x: tf.minimum(tf.nn.softmax(x), 1 - 1e-6)
            ),
        ]
    )
    audit = run(model, many)
    assert "no usable gradient" in " ".join(audit.warnings)


def test_a_rate_that_falls_with_the_norm_is_told(many):
    """Beyond 0.1 this classifier gives its clean answers again."""
    masked = keras.Sequential(
        [keras.Input(many.shape[1:]), Forgets(), keras.layers.Dense(2)]
    )
    masked.layers[-1].set_weights(
        [np.eye(2, dtype="float32") * 50, np.zeros(2, "float32")]
    )
    images = np.full((120, 8, 8, 3), 0.5, "float32")
    images += np.random.default_rng(0).uniform(-0.01, 0.01, images.shape)
    images[:, 0, 0] = (0, 1, 0.5)
    audit = run(masked, images.astype("float32"), epsilon=0.06)
    assert audit.larger_rate < audit.fooling_rate
    assert "twice the norm" in " ".join(audit.warnings)


@keras.saving.register_keras_serializable(package="keras_uap_tests")
class Forgets(keras.layers.Layer):
    """Scores of the mean pixel, if it is near the middle."""

    def call(self, x):
        mean = tf.reduce_mean(x, axis=(1, 2, 3)) - 0.5
        near = tf.cast(tf.abs(mean) < 0.09, "float32")
        score = 0.03 - near * tf.abs(mean)
        return tf.stack([score, -score], axis=-1)


def test_folder(tmp_path, cnn):
    rng = np.random.default_rng(0)
    for name in "abc":
        (tmp_path / name).mkdir()
        for i in range(20):
            pixels = rng.integers(0, 256, (9, 9, 3), "uint8")
            Image.fromarray(pixels).save(tmp_path / name / f"p{i // 2}_{i}.png")
    audit = run(cnn(), str(tmp_path))
    assert audit.num_fit + audit.num_select + audit.num_images == 60
    assert audit.num_groups == audit.num_images / 2
    # Pictures come in the pixels that the classifier takes.
    assert audit.report.clean_confidence > 0
    assert audit.card["value_range"] == RANGE


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"epsilon": 0}, "epsilon"),
        ({"norm": "l3"}, "norm"),
        ({"value_range": (1, 0)}, "value_range"),
        ({"budget": "huge"}, "Unknown budget"),
        ({"seed": -1}, "seed"),
        ({"verbose": 3}, "verbose"),
        ({"groups": np.zeros(120)}, "two photographs"),
        ({"groups": np.zeros(3)}, "one group per image"),
        ({"images": np.zeros((2, 8, 8, 3))}, "too few images"),
        ({"images": np.zeros((40, 9, 9, 3))}, "size that the classifier"),
        ({"images": np.full((40, 8, 8, 3), np.nan)}, "finite"),
        ({"images": "nowhere"}, "neither a folder"),
        ({"images": "nowhere", "groups": [1]}, "groups go with an array"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    arguments, says, cnn, many, monkeypatch
):
    def no_work(*_, **__):
        raise AssertionError("It has begun.")

    monkeypatch.setattr(attack_suite.UniversalPerturbation, "fit", no_work)
    arguments = {"images": many} | arguments
    with pytest.raises(ValueError, match=says):
        run(cnn(), **arguments)


def test_no_classifier(many):
    with pytest.raises(TypeError, match="classifier must be a Keras model"):
        run("model", many)


@pytest.mark.slow
def test_embedded_classifier(monkeypatch):
    quick = attack_suite.Budget(480, ALL["quick"])
    monkeypatch.setattr(attack_suite, "BUDGETS", {"quick": quick})
    photos = np.concatenate([samples.load_photos(s) for s in samples.SPLITS])
    groups = np.concatenate([samples.photo_groups(s) for s in samples.SPLITS])
    audit = keras_uap.audit(
        samples.load_classifier(), photos, groups, budget="quick", verbose=0
    )
    assert audit.fooling_rate > audit.random_rate + 0.05
    assert not audit.warnings or "30 points" in audit.warnings[0]
