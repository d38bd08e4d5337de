"""Tests of the standard evaluation, on tiny models with known answers."""

import dataclasses
import json
import random
import re

import keras
import models
import numpy as np
import pytest
import results
import tensorflow as tf
from PIL import Image

import keras_uap
from keras_uap import datasets, interchange, samples
from keras_uap.attacks import fitting
from keras_uap.classifiers.adapter import ClassifierAdapter
from keras_uap.data import augmentation
from keras_uap.evaluation import attack_suite
from keras_uap.evaluation import audit as auditing
from keras_uap.utils.formatting import images_of

RANGE = (0, 1)
EVERY = [attack.name for attack in attack_suite.ATTACKS[1:]]
MANY = models.images(120)


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    models.shorten_audits(monkeypatch, 150)
    monkeypatch.setattr(augmentation, "FEW", 0)


@pytest.fixture
def many():
    return MANY


def run(classifier, images, **arguments):
    defaults = {
        "epsilon": 0.08,
        "value_range": RANGE,
        "budget": "quick",
        "verbose": 0,
    }
    return keras_uap.audit(classifier, images, **(defaults | arguments))


GROUPS = np.arange(120) // 3


@pytest.fixture(scope="module")
def audited():
    """A classifier, and its audit with every attack of the quick budget."""
    model = models.linear()
    with pytest.MonkeyPatch.context() as monkeypatch:
        models.shorten_audits(monkeypatch, 300, *EVERY, rungs=((2, 150),))
        monkeypatch.setattr(augmentation, "FEW", 0)
        return model, run(model, MANY, groups=GROUPS)


def recount(audit, classifier, images, groups=None, seed=0):
    """The held-out rate, from the parts and the perturbation alone."""
    part = datasets.split(images, groups, seed=seed)[2]
    clean = classifier.predict(images[part], verbose=0)
    moved = np.clip(images[part] + audit.perturbation, *RANGE)
    moved = classifier.predict(moved, verbose=0)
    if clean.shape[-1] == 1:
        return np.mean((clean > 0.5) != (moved > 0.5))
    return np.mean(clean.argmax(-1) != moved.argmax(-1))


def test_one_perturbation_measured_on_held_out_images(audited):
    model, audit = audited
    assert audit.fooling_rate == pytest.approx(
        recount(audit, model, MANY, GROUPS)
    )
    low, high = audit.fooling_interval
    assert low < audit.fooling_rate < high
    assert audit.random_rate < audit.fooling_rate
    assert np.abs(audit.perturbation).max() <= 0.08
    assert audit.num_fit + audit.num_select + audit.num_images == 120
    names = [run.name for run in audit.runs]
    assert set(names[:-2]) == {*EVERY, "data-free"}
    assert {run.seed for run in audit.runs} == {0}
    # The two that fool most of the selection set went on.
    rates = {run.name: run.select_rate for run in audit.runs[:-2]}
    del rates["data-free"]
    assert names[-2:] == sorted(rates, key=rates.get, reverse=True)[:2]
    # The selection set decides, and no other.
    rates = [run.select_rate for run in audit.runs]
    assert audit.strongest == audit.runs[int(np.argmax(rates))]
    assert audit.fooling_rate == pytest.approx(audit.strongest.fooling_rate)
    first = {run.name: run.passes for run in audit.runs[:-2]}
    assert min(first[name] for name in EVERY) > 0.7 * 300
    assert max(first.values()) <= 300
    for run in audit.runs[-2:]:
        assert first[run.name] + 100 < run.passes <= 450
    name = audit.strongest.name
    curve = [(r.passes, r.fooling_rate) for r in audit.runs if r.name == name]
    assert list(audit.effort) == curve


def test_survival_takes_few_passes(audited):
    _, audit = audited
    names = [each.name for each in audit.survival]
    assert names[:3] == ["no change", "JPEG, quality 90", "JPEG, quality 75"]
    assert len(names) == 6  # A shift by 8 of 8 pixels is none.
    count = audit.survival[0].num_images
    assert 0 < 10 * count <= 0.03 * (audit.passes - 10 * count)
    assert {each.num_images for each in audit.survival} == {count}
    assert audit.survival[0].fooling_rate > audit.random_rate
    assert f"JPEG, quality 75, n = {count} " in str(audit)
    assert "which alone alters at most" in " ".join(str(audit).split())
    first = audit.to_dict()["survival"][0]
    assert first["fooling_interval"] == list(audit.survival[0].fooling_interval)


def attacker(images, transferred=None):
    model = models.linear(2, scale=0.1)
    return attack_suite.Attacker(
        ClassifierAdapter(model, models.SHAPE),
        datasets.Pictures(images),
        keras_uap.LpBall(0.05),
        (0.0, 1.0),
        transferred,
        print,
    )


def test_from_coarse_to_fine_begins_with_coarse_patterns(many, monkeypatch):
    """Neighbouring pixels go the same way more often than the slope does."""
    fits, fit = [], fitting.fit_with_passes

    def spy(*args, **kwargs):
        fits.append((kwargs, fit(*args, **kwargs)))
        return fits[-1][1]

    monkeypatch.setattr(attack_suite, "fit_with_passes", spy)
    attacks = attacker(many)
    (bare,) = attacks.run(models.ATTACKS["dominant"], 300, 0)
    (both,) = attacks.run(models.ATTACKS["coarse to fine"], 900, 0)
    _, (_, coarse), (arguments, fine) = fits
    assert arguments["initial_perturbation"] is coarse.v
    assert (both.v == fine.v).all()
    assert both.passes == coarse.passes + fine.passes <= 900
    alike = [
        np.mean(signs[1:] == signs[:-1])
        for signs in (np.sign(bare.v), np.sign(coarse.v))
    ]
    assert alike[1] > alike[0] + 0.2


@pytest.mark.slow
def test_near_the_best_there_is(linear, many, monkeypatch):
    """Of two classes the best perturbation is known: signs of the weights."""
    models.shorten_audits(monkeypatch, 1200)
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


def test_a_strong_start_is_not_lost(many):
    """A few small steps from the best of one direction, and no way back."""
    kernel = models.linear(2, scale=0.1).get_weights()[0]
    v = 0.05 * np.sign(kernel[:, 0] - kernel[:, 1]).reshape(many.shape[1:])
    attacks = attacker(many, v.astype("float32"))
    known, start = attacks.run(models.ATTACKS["transferred start"], 300, 0)
    assert (known.name, start.name) == ("transferred", "transferred start")
    assert known.passes == 0 < start.passes <= 300
    assert np.mean(np.sign(start.v) == np.sign(v)) > 0.9


def test_an_attack_goes_on_from_what_it_found(many, monkeypatch):
    """Other images, the same loss, and all passes are counted once."""
    fits, fit = [], fitting.fit_with_passes

    def spy(*args, **kwargs):
        fits.append((args, kwargs))
        return fit(*args, **kwargs)

    monkeypatch.setattr(attack_suite, "fit_with_passes", spy)
    attacks, attack = attacker(many), models.ATTACKS["data-free start"]
    noise, first = attacks.run(attack, 200, 0)
    (second,) = attacks.run(attack, 300, 0, first)
    assert (noise.name, noise.spent) == ("data-free", 0)
    assert 0 < noise.passes < first.passes == first.spent <= 200
    assert first.passes < second.passes == first.spent + second.spent <= 500
    _, (_, on_images), (arguments, goes_on) = fits
    assert goes_on["initial_perturbation"] is first.v
    assert arguments[4] == attack.loss
    assert on_images["seed"] != goes_on["seed"]


@pytest.fixture(scope="module")
def adapters():
    """Adapters of classifiers with features, without, and of signals."""
    signals = models.linear(shape=(12, 2))
    return {
        "features": ClassifierAdapter(models.cnn(), models.SHAPE),
        "hidden": ClassifierAdapter(
            models.Subclassed(), models.SHAPE, None, MANY[:4]
        ),
        "signals": ClassifierAdapter(signals, (12, 2)),
    }


@pytest.fixture
def every_attack(monkeypatch):
    monkeypatch.setattr(attack_suite, "ATTACKS", tuple(models.ATTACKS.values()))


@pytest.mark.parametrize(
    ("which", "transferred", "without"),
    [
        ("features", True, set()),
        ("features", False, {"transferred start"}),
        ("signals", True, {"coarse to fine"}),
        ("hidden", True, {"features+dominant"}),
    ],
)
def test_what_a_classifier_does_not_allow_is_left_out(
    which, transferred, without, adapters, every_attack
):
    attacks, notes = attack_suite.attacks_for(adapters[which], transferred)
    left = {attack.name for attack in attacks}
    assert set(models.ATTACKS) - left == without
    assert ["features were left out" in note for note in notes] == (
        [True] if which == "hidden" else []
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"loss": "dominnat"}, "loss must be one of"),
        ({"start": "noize"}, "Unknown start"),
    ],
)
def test_a_misspelt_attack_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        attack_suite.Attack("dominant", **changes)


@pytest.mark.parametrize(("more", "warns"), [(0, 0), (2, 0), (20, 1)])
def test_warns_of_a_run_that_fools_clearly_more(more, warns, monkeypatch):
    """Of 100 held-out images; 20 others selected the first run."""
    chosen = np.arange(120) < 50
    # Whom it fools of the selection set plays no part.
    other = (np.arange(120) >= 20) & (np.arange(120) < 50 + more)
    adapter = ClassifierAdapter(models.linear(), models.SHAPE)
    evaluation = auditing._Evaluation(
        adapter,
        datasets.Pictures(MANY[:20]),
        datasets.Pictures(MANY[20:]),
        RANGE,
        32,
        print,
    )
    hits = iter([chosen, other])
    monkeypatch.setattr(evaluation, "measure", lambda v: next(hits))
    for name in ("dominant", "DeepFool"):
        evaluation.add(attack_suite.Finding(name, 0, 1, 1, 0.0, 0.0, None))
    found = auditing._selection_warnings(evaluation, 0)
    assert len(found) == warns
    if warns:
        assert "Another perturbation, DeepFool, fools 50.0%" in found[0]
        assert "30.0% of the one selected: the selection set of 20" in found[0]


def test_parts_may_know_their_photographs_or_not():
    """Two images of a photograph count once, whatever the other part knows."""
    adapter = ClassifierAdapter(models.linear(), models.SHAPE)
    known = datasets.Pictures(MANY[:40], groups=np.arange(40) // 2)
    unknown = datasets.Pictures(MANY[40:80])
    for select, held_out in ((known, unknown), (unknown, known)):
        evaluation = auditing._Evaluation(
            adapter, select, held_out, RANGE, 32, print
        )
        assert len(np.unique(evaluation._groups)) == 60


class Counted(keras.layers.Layer):
    """The identity, which counts how often it is traced, and its gradient."""

    def __init__(self):
        super().__init__()
        self.counts = {"forward": 0, "gradient": 0}

    def call(self, x):
        @tf.custom_gradient
        def identity(x):
            def gradient(upstream):
                self.count("gradient")
                return upstream

            self.count("forward")
            return tf.identity(x), gradient

        return identity(x)

    def count(self, what):
        self.counts[what] += not tf.executing_eagerly()


def test_standard_makes_one_adapter_and_traces_once(many, monkeypatch):
    """Every attack, every rate and the report take the same functions."""
    made, init = [], ClassifierAdapter.__init__

    def counted(*args, **kwargs):
        made.append(args)
        init(*args, **kwargs)

    monkeypatch.setattr(ClassifierAdapter, "__init__", counted)
    models.shorten_audits(monkeypatch, 64, *EVERY, rungs=((1, 64),))
    layer = Counted()
    model = keras.Sequential(
        [
            keras.Input(models.SHAPE),
            layer,
            keras.layers.Flatten(),
            keras.layers.Dense(models.CLASSES, "softmax"),
        ]
    )
    layer.counts.update({"forward": 0, "gradient": 0})
    audit = run(model, many, budget="standard", norm="l2", epsilon=1, seed=3)
    assert len(made) == 1
    # The logits alone and with the features, and a gradient of each.
    assert layer.counts == {"forward": 2, "gradient": 2}
    assert len(audit.runs) == len(EVERY) + 2
    assert {row.seed for row in audit.runs} == {3}
    assert np.linalg.norm(audit.perturbation) <= 1.0
    assert "DeepFool" in str(audit)


def test_a_seed_repeats_it(linear, many, monkeypatch):
    models.shorten_audits(monkeypatch, 150, "dominant")
    one, two = (run(linear(), many, seed=3).perturbation for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_leaves_the_caller_alone(linear, many):
    model, before = linear(), many.copy()
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


def test_softmax(linear, many, monkeypatch):
    models.shorten_audits(monkeypatch, 150, "dominant")
    model = linear(activation="softmax")
    audit = run(model, many)
    assert audit.fooling_rate == pytest.approx(recount(audit, model, many))


def test_sigmoid_and_data_set(linear, many, monkeypatch):
    models.shorten_audits(monkeypatch, 150, "dominant")
    model = linear(1, "sigmoid")
    data = tf.data.Dataset.from_tensor_slices((many, np.arange(120) % 2))
    audit = run(model, data.batch(50))
    assert audit.fooling_rate > audit.random_rate
    with pytest.raises(ValueError, match="without an end"):
        run(model, data.batch(50).repeat())


def test_a_classifier_with_a_hidden_head(subclassed, many, monkeypatch):
    models.shorten_audits(monkeypatch, 150, "dominant", "features+dominant")
    audit = run(subclassed(), many)
    assert [r.name for r in audit.runs] == ["dominant"]
    assert "features were left out" in " ".join(str(audit).split())


@pytest.mark.slow
def test_few_images_are_varied(linear, many, monkeypatch, capsys):
    monkeypatch.setattr(augmentation, "FEW", 500)
    audit = run(linear(), many[:30], verbose=1)
    assert "were augmented" in str(audit)
    assert "wider than 30 points" in " ".join(str(audit).split())
    out = capsys.readouterr().out
    assert "This takes at most about" in " ".join(out.split())
    assert re.search("data-free start, seed 0, 1.. passes: .* of the sel", out)
    assert max(map(len, out.splitlines())) <= 80
    for row in audit.runs:
        assert row.passes <= 150


def test_result(audited, tmp_path):
    _, audit = audited
    text = str(audit)
    assert max(map(len, text.splitlines())) <= 80
    assert f"{audit.fooling_rate:.1%}" in text
    assert "lower bound" in text
    assert repr(audit).startswith("Audit(fooling_rate=0.")
    assert "\n" not in repr(audit)
    values = json.loads(audit.to_json())
    assert values["fooling_rate"] == audit.fooling_rate
    assert "perturbation" not in values
    assert len(values["runs"]) == len(EVERY) + 3
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

    def interrupt(attacker, attack, *arguments):
        if attack.name != "dominant":
            raise KeyboardInterrupt
        return fit(attacker, attack, *arguments)

    monkeypatch.setattr(attack_suite.Attacker, "run", interrupt)
    with pytest.raises(
        keras_uap.AuditInterrupted, match="after 1 perturbation"
    ) as caught:
        run(linear(), many)
    audit = caught.value.audit
    assert [row.name for row in audit.runs] == ["dominant"]
    assert audit.fooling_rate == recount(audit, linear(), many)
    assert "Interrupted after 1 perturbation:" in str(audit)
    # Before the first run is finished, there is nothing to keep.
    models.shorten_audits(monkeypatch, 150, "data-free start")
    with pytest.raises(KeyboardInterrupt) as caught:
        run(linear(), many)
    assert not isinstance(caught.value, keras_uap.AuditInterrupted)


def test_page(audited, tmp_path):
    _, audit = audited
    audit.save_html(tmp_path / "audit.html", list("abcd"))
    text = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert f"<strong>{audit.fooling_rate:.0%}</strong>" in text
    assert text.count("<figure>") == 8
    assert f"{audit.passes:,} model passes" in text


def test_warns_of_missing_gradients(linear, many):
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


def test_warns_of_a_rate_that_falls_with_the_norm(many):
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


def test_folder(tmp_path, linear, monkeypatch):
    models.shorten_audits(monkeypatch, 150, "dominant")
    rng = np.random.default_rng(0)
    for name in "abc":
        (tmp_path / name).mkdir()
        for i in range(20):
            pixels = rng.integers(0, 256, (9, 9, 3), "uint8")
            path = tmp_path / name / f"p{i // 2}_{i % 2}.png"
            Image.fromarray(pixels).save(path)
    audit = run(linear(), str(tmp_path))
    assert audit.num_fit + audit.num_select + audit.num_images == 60
    assert audit.num_groups == audit.num_images / 2
    # Pictures come in the pixels that the classifier takes.
    assert audit.report.clean_confidence > 0
    assert audit.card["value_range"] == RANGE


@pytest.fixture(scope="module")
def camera(tmp_path_factory):
    """60 photographs of a telephone, named by day and time, of 2 classes."""
    folder, rng = tmp_path_factory.mktemp("camera"), np.random.default_rng(0)
    for i in range(60):
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (8, 8, 3), "uint8")
        name = f"IMG_202405{i // 6 + 1:02}_{100000 + 3607 * i}.png"
        Image.fromarray(pixels).save(folder / "ab"[i % 2] / name)
    return folder


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        (None, ", each its own photograph"),
        ("none", ", each its own photograph"),
        (r"\d{8}", " of 10 photographs"),
    ],
)
def test_groups_of_a_folder(groups, says, camera, monkeypatch, tmp_path):
    models.shorten_audits(monkeypatch, 32, "dominant")
    audit = run(models.linear(), camera, groups=groups)
    audit.save_html(tmp_path / "audit.html")
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    held_out = images_of(audit.num_images, audit.num_groups)
    text = " ".join(str(audit).split())
    assert audit.notes[0] == f"60 images{says}."
    assert audit.notes[0] in text
    assert audit.notes[0] in page
    assert f"n = {held_out}, held out" in text
    assert f"held out: {held_out}; no photograph" in page
    assert f"n = {held_out}" in " ".join(str(audit.report).split())


@pytest.mark.parametrize("call", ["audit", models.slow("harden")])
def test_a_folder_that_is_cut_is_noted(call, camera, monkeypatch):
    models.shorten_audits(monkeypatch, 32)
    monkeypatch.setattr(auditing, "MOST", 40)
    (camera / "ruined.png").write_bytes(b"")
    quiet = {"value_range": RANGE, "budget": "quick", "verbose": 0}
    more = {"epochs": 1} if call == "harden" else {}
    with pytest.warns(UserWarning, match="ruined"):
        found = getattr(keras_uap, call)(
            models.linear(), camera, groups="none", **quiet, **more
        )
    (camera / "ruined.png").unlink()
    audit = found.after if call == "harden" else found
    taken = audit.num_fit + audit.num_select + audit.num_images
    assert taken == 39
    expected = (
        "39 images, each its own photograph, from all over a folder of 61 "
        "files; 1 file(s) left out that cannot be read."
    )
    assert audit.notes[0] == expected
    assert expected in " ".join(str(found).split())


def test_what_it_prints_costs_nothing(many, monkeypatch):
    models.shorten_audits(monkeypatch, 64, "dominant")
    passes = {run(models.linear(), many, verbose=v).passes for v in (0, 1)}
    assert len(passes) == 1


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
        ({"images": "nowhere", "groups": [1]}, "which is no folder"),
        ({"groups": "name"}, "it goes with a folder"),
        ({"groups": [None, *range(119)]}, "photograph of every image"),
        ({"groups": [np.nan, *range(119)]}, "photograph of every image"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    arguments, says, linear, many, monkeypatch
):
    def no_work(*_, **__):
        raise AssertionError("It has begun.")

    monkeypatch.setattr(keras_uap.UniversalPerturbation, "fit", no_work)
    arguments = {"images": many} | arguments
    with pytest.raises(ValueError, match=says):
        run(linear(), **arguments)


def test_no_classifier(many):
    with pytest.raises(TypeError, match="classifier must be a Keras model"):
        run("model", many)


@pytest.mark.slow
@pytest.mark.usefixtures("optimized_graphs")
def test_embedded_classifier(monkeypatch):
    models.shorten_audits(monkeypatch, 1200, "dominant")
    photos = np.concatenate([samples.load_photos(s) for s in samples.SPLITS])
    groups = np.concatenate([samples.photo_groups(s) for s in samples.SPLITS])
    audit = keras_uap.audit(
        samples.load_classifier(), photos, groups, budget="quick", verbose=0
    )
    assert audit.fooling_rate > audit.random_rate + 0.05
    assert not audit.warnings or "30 points" in audit.warnings[0]


@pytest.mark.parametrize("number", [4, 5, 6])
@pytest.mark.parametrize("call", [keras_uap.audit, keras_uap.harden])
def test_few_photographs_are_refused_before_any_work(
    call, number, linear, many, monkeypatch
):
    monkeypatch.setattr(attack_suite.Attacker, "run", None)
    groups = np.arange(8 * number) // 8
    with pytest.raises(ValueError, match=f"of {number} photographs"):
        call(linear(), many[: 8 * number], groups=groups, verbose=0)


@pytest.mark.parametrize("call", [keras_uap.audit, keras_uap.harden])
def test_an_epsilon_without_a_double_is_refused(call, linear, many):
    with pytest.raises(ValueError, match="double is finite"):
        call(linear(), many, epsilon=3e38, value_range=None, verbose=0)


def test_a_frozen_classifier_is_not_audited_first(linear, many, monkeypatch):
    monkeypatch.setattr(attack_suite.Attacker, "run", None)
    model = linear()
    model.trainable = False
    with pytest.raises(ValueError, match="no trainable weights"):
        keras_uap.harden(model, many, value_range=RANGE, verbose=0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"random_rate": 0.75}, "check the value range"),
        ({"fooling_interval": (0.6, 0.95)}, "About 720 more photographs"),
        ({"effort": ((400, 0.7), (1600, 0.8))}, 'budget="standard"'),
        ({}, "consider keras_uap.harden"),
    ],
)
def test_what_to_do_next(changes, says):
    plain = {
        "fooling_interval": (0.75, 0.85),
        "random_rate": 0.2,
        "budget": "quick",
        "effort": ((400, 0.79), (1600, 0.8)),
    }
    audit = dataclasses.replace(results.audit(0.8, 1), **plain | changes)
    (step,) = audit.next_steps()
    assert says in step
    assert step in " ".join(audit.table().split())


@pytest.mark.parametrize(
    ("effort", "half", "text"),
    [
        (((400, 0.7), (1600, 0.8)), 286, "286"),
        (((400, 0.2), (1600, 0.4)), None, "over 1,600"),
        (((0, 0.2),), None, "not reached"),  # It was only transferred.
    ],
)
def test_effort_in_words(effort, half, text):
    changes = {"effort": effort, "passes_to_half": half}
    assert dataclasses.replace(results.audit(0.8, 1), **changes).half() == text


def test_context_is_of_the_same_norm_and_radius(monkeypatch):
    rows = [
        results.known("weak", 0.9, 10 / 255, value_range=(0, 1)),
        results.known("strong", 0.2),
        results.known("another radius", 0.4, 12.0),
        results.known("another norm", 0.4, norm="l2"),
    ]
    monkeypatch.setattr(samples, "reference_audits", lambda: rows)
    audit = results.audit(0.5)
    names = [each["name"] for each in audit.context()]
    assert names == ["weak", None, "strong"]
    text = " ".join(str(audit).split())
    assert "known: weak 90.0% 81.0% to 100.0%" in text
    assert "This classifier is number 2 of 3 by fooling rate" in text
    assert "another" not in text
    *_, known = audit.plot().axes
    shown = [label.get_text() for label in known.get_yticklabels()]
    assert shown == ["weak", "this classifier", "strong"]


@pytest.mark.parametrize("value_range", [None, (0, 1)])
def test_without_known_classifiers_context_is_empty(value_range, monkeypatch):
    rows = [results.known("weak", 0.9)]
    monkeypatch.setattr(samples, "reference_audits", lambda: rows)
    audit = results.audit(0.5)
    report = dataclasses.replace(audit.report, value_range=value_range)
    audit = dataclasses.replace(audit, report=report)
    assert audit.context() == []
    assert "known" not in str(audit)
    assert len(audit.plot().axes) == 3
