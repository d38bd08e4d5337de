"""Tests of `keras_uap.harden`: what it trains on, and what it says."""

import contextlib
import dataclasses
import io
import json
import time
import types

import keras
import models
import numpy as np
import pytest

import keras_uap
from keras_uap import datasets
from keras_uap.defenses import harden as hardening
from keras_uap.defenses import hardening as hardening_result
from keras_uap.evaluation import attack_suite
from keras_uap.evaluation import audit as auditing
from keras_uap.utils import progress

EPSILON = 0.05
IMAGES = models.images(80)


@pytest.fixture(scope="module", autouse=True)
def _small():
    with pytest.MonkeyPatch.context() as monkeypatch:
        models.shorten_audits(monkeypatch, 100, rungs=((1, 150),))
        yield


def harden(classifier, images=IMAGES, **changes):
    arguments = {
        "epsilon": EPSILON,
        "value_range": (0, 1),
        "epochs": 2,
        "learning_rate": 3e-3,
        "verbose": 0,
        "keep": True,
    }
    return keras_uap.harden(classifier, images, **arguments | changes)


# NumPy's numbers are as good as Python's.
SETTINGS = {
    "epochs": np.int64(2),
    "robustness": np.float32(0.5),
    "learning_rate": np.float64(3e-3),
    "seed": np.int32(0),
}


@pytest.fixture(scope="module")
def original():
    return models.linear()


@pytest.fixture(scope="module")
def hardened():
    """A classifier, its `Hardening`, the labels, and what was printed."""
    classifier, text = models.linear(), io.StringIO()
    labels = np.arange(len(IMAGES)) % models.CLASSES
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(progress, "SECONDS", -1)
        with contextlib.redirect_stdout(text):
            result = harden(classifier, labels=labels, verbose=1, **SETTINGS)
    return classifier, result, labels, text.getvalue()


def test_before_is_measured_with_as_much_work_as_after(hardened):
    _, result, _, _ = hardened
    before, after = (
        [(run.name, run.passes) for run in audit.runs]
        for audit in (result.before, result.after)
    )
    assert [name for name, _ in after[:2]] == [
        "transferred",
        "transferred start",
    ]
    first = ["dominant", "data-free", "data-free start"]
    assert [name for name, _ in before[:-1]] == first
    assert [name for name, _ in after[2:-1]] == first
    # The best of them went on, with as many passes before as after.
    assert before[-1][1] > 200 < after[-1][1]


def test_rates_are_a_recount(original, hardened):
    classifier, result, labels, _ = hardened
    _, _, held_out = datasets.split(IMAGES, classes=labels, seed=0)
    images = IMAGES[held_out]

    def answers(model, v=0.0):
        scores = model.predict(np.clip(images + v, 0, 1), verbose=0)
        return scores.argmax(axis=-1)

    before, after = answers(original), answers(classifier)
    attacked = answers(classifier, result.after.perturbation)
    transferred = answers(classifier, result.before.perturbation)
    fooled_before = answers(original, result.before.perturbation) != before
    gain = fooled_before.mean() - (attacked != after).mean()
    low, high = result.gain_interval
    assert low < gain < high
    assert result.before.num_images == len(images)
    for rate, hits in (
        (result.agreement, after == before),
        (result.after.fooling_rate, attacked != after),
        (result.robust_agreement, attacked == before),
        (result.transferred_rate, transferred != after),
        (result.accuracy_before, before == labels[held_out]),
        (result.accuracy, after == labels[held_out]),
        (result.robust_accuracy, attacked == labels[held_out]),
    ):
        assert rate == pytest.approx(hits.mean())


def test_judged_on_what_was_not_trained_on(monkeypatch):
    """The same parts before and after, and only the first is trained on."""
    seen, calls = [], []

    class _Done(Exception):
        pass

    def data(fit, *rest):
        seen.append(fit)
        return real_data(fit, *rest)

    def audit_pictures(adapter, parts, *arguments, known=None, **kwargs):
        calls.append((adapter, parts))
        if known is not None:
            raise _Done
        return types.SimpleNamespace(perturbation=np.zeros(models.SHAPE))

    real_data = hardening.training_data
    monkeypatch.setattr(hardening, "training_data", data)
    monkeypatch.setattr(auditing, "audit_pictures", audit_pictures)
    groups = np.arange(len(IMAGES)) // 4
    with pytest.raises(_Done):
        harden(models.linear(), groups=groups)
    (adapter, before), (same, after) = calls
    assert before is after
    assert adapter is same
    assert seen == [before[0]]
    counts = [len(part.images) for part in before]
    assert sum(counts) == len(IMAGES)
    photographs = [set(part.groups) for part in before]
    assert not photographs[0] & photographs[2]


def test_with_labels_no_teacher_is_asked(hardened):
    """A forward and a backward, clean and perturbed, of 48 images twice."""
    result = hardened[1]
    # The attack of the second round has at most 160 passes.
    none, attack = result.history["attack_passes"]
    assert none == 0 < attack <= 160
    assert result.training_passes == 4 * 2 * 48 + attack


def test_memory_grows_round_by_round():
    """After a third and two thirds of the epochs, by an attack of then."""
    calls = []

    class _Attacker:
        def run(self, attack, passes, seed):
            calls.append((epoch, attack.name, passes, seed))
            v = np.full(models.SHAPE, EPSILON / (1 + epoch), "float32")
            return [types.SimpleNamespace(v=v, spent=passes - 1)]

    distiller = keras_uap.AdversarialDistiller(
        *(models.linear(), EPSILON),
        value_range=(0, 1),
        pool_size=2,
        memory_size=3,
        seed=7,
    )
    hardening.show(distiller, np.full(models.SHAPE, EPSILON), 0)
    rounds = hardening.Rounds(_Attacker(), 200, progress.silent)
    rounds.set_model(distiller)
    rounds.set_params({"epochs": 6})
    spent = []
    for epoch in range(6):
        logs = {}
        rounds.on_epoch_begin(epoch)
        rounds.on_epoch_end(epoch, logs)
        spent.append(logs["attack_passes"])
    name = "coarse to fine"
    assert calls == [(2, name, 200, 7 + 2), (4, name, 200, 7 + 4)]
    assert spent == [0, 0, 199, 0, 199, 0]
    shown = EPSILON / np.array([1, 3, 5])
    np.testing.assert_allclose(distiller.memory[:, 0, 0, 0], shown)
    # The last attack has replaced the one before it in the pool.
    np.testing.assert_allclose(distiller.v[:, 0, 0, 0], shown[[0, 2]])


@pytest.fixture
def quickly(hardened, monkeypatch):
    """A function that hardens without audits; `gained` is what they find."""
    _, found, labels, _ = hardened
    original = found.before.report.clean_labels

    def run(gained, interrupt=None, **changes):
        # One clean prediction is lost.
        lost = np.where(np.arange(len(original)) == 0, -1, original)
        attacked = original if gained else found.before.report.perturbed_labels
        report = dataclasses.replace(
            found.after.report, clean_labels=lost, perturbed_labels=attacked
        )
        after = dataclasses.replace(found.after, report=report)
        audits = iter([found.before, after])
        monkeypatch.setattr(
            auditing, "audit_pictures", lambda *_, **__: next(audits)
        )

        def train(distiller, *_):
            kernel, bias = distiller.classifier.get_weights()
            distiller.classifier.set_weights([-kernel, bias + 1])
            if interrupt:
                raise interrupt
            return found.history, 1.0

        monkeypatch.setattr(hardening, "_train", train)
        classifier = models.linear()
        with contextlib.suppress(KeyboardInterrupt):
            return classifier, harden(classifier, labels=labels, **changes)
        return classifier, None

    return run


@pytest.mark.parametrize(
    ("gained", "keep", "restored"),
    [(False, False, True), (False, True, False), (True, False, False)],
)
def test_original_weights_unless_something_was_gained(
    gained, keep, restored, quickly, original
):
    classifier, result = quickly(gained, keep=keep)
    assert result.restored is result.to_dict()["restored"] is restored
    low, _ = result.robust_gain_interval
    assert (low > 0) is gained
    assert ("original weights again" in str(result)) is restored
    expected = original.get_weights()
    if not restored:
        expected = [-expected[0], expected[1] + 1]
    for weight, its in zip(classifier.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(weight, its)


def test_ctrl_c_in_the_training_gives_the_weights_back(quickly, original):
    classifier, _ = quickly(True, interrupt=KeyboardInterrupt)
    for weight, its in zip(classifier.get_weights(), original.get_weights()):
        np.testing.assert_array_equal(weight, its)


def test_classifiers_between_the_ends(quickly, original, images):
    classifier, result = quickly(True)
    for share, model in ((0, original), (1, classifier)):
        np.testing.assert_array_equal(result.at(share)(images), model(images))
    half = result.at(0.5)
    kernel, bias = original.get_weights()
    assert type(half) is keras.Sequential
    np.testing.assert_array_equal(half.get_weights()[0], 0 * kernel)
    np.testing.assert_allclose(half.get_weights()[1], bias + 0.5, rtol=1e-6)
    assert "ends" not in result.to_dict()
    for share in (-0.1, 1.1, "half"):
        with pytest.raises(ValueError, match="share must be"):
            result.at(share)
    with pytest.raises(ValueError, match="no weights to mix"):
        dataclasses.replace(result, ends=None).at(0.5)


def test_a_resumed_training_tells_of_all_its_epochs(tmp_path):
    """Cut off in its third epoch, and once more after the last one."""
    logs = {"loss": 1.0, "clean_agreement": 0.5}
    folder, settings = tmp_path / "backup", {"epochs": 3}
    for start, end in ((0, 3), (2, 3)):
        backup = hardening._Backup(folder)
        backup.claim(settings)
        backup.set_model(models.linear())
        backup._begun = time.time() - 10
        for epoch in range(start, end):
            backup.on_epoch_end(epoch, logs | {"loss": 1.0 - epoch})
    hardening._Backup(folder).claim(settings)
    history, seconds = hardening._Backup(folder).history()
    assert history == {
        "loss": [1.0, 0.0, -1.0],
        "clean_agreement": [0.5, 0.5, 0.5],
    }
    assert 20 <= seconds < 25


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("settings.json", "{}", "no file of a hardening"),
        ("settings.json", "mine", "no file of a hardening"),
        ("epoch_3.weights.h5", "mine", "holds epoch_3.weights.h5"),
    ],
)
def test_a_folder_of_the_user_is_no_backup(name, text, says, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=says):
        hardening._Backup(tmp_path).claim({"seed": 1})
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == text


def test_table_and_dictionary(hardened):
    _, result, _, _ = hardened
    text = str(result)
    assert max(map(len, text.splitlines())) <= 80
    values = json.loads(result.to_json())
    assert values == json.loads(json.dumps(result.to_dict()))
    for part in ("before", "after"):
        assert f"{values[part]['fooling_rate']:.1%}" in text
    assert values["settings"]["epochs"] == 2
    assert len(values["history"]["loss"]) == 2
    assert values["gain_interval"] == list(result.gain_interval)
    for name in (
        *("agreement", "robust_agreement", "accuracy"),
        *("fresh_rate", "longer_rate", "data_free_rate"),
    ):
        assert f"{values[name]:.1%}" in text
    assert len(repr(result)) < 1000
    assert result.plot().axes
    # What a notebook shows.
    page = result._repr_html_()
    for rate in (result.agreement, result.robust_agreement):
        assert f"{rate:.1%}" in page


@pytest.mark.parametrize(
    ("before", "after", "changes", "says"),
    [
        ((0.5, (0.4, 0.6)), (0.5, (0.4, 0.6)), {}, "Nothing was gained"),
        (
            (0.5, (0.4, 0.6)),
            (0.4, (0.3, 0.5)),
            {"gain_interval": (-0.01, 0.21)},
            "do not show",
        ),
        (
            (0.5, (0.4, 0.6)),
            (0.4, (0.3, 0.5)),
            {"gain_interval": (0.05, 0.15)},
            "still fooled less often, by 5.0% to 15.0%",
        ),
        ((0.9, (0.8, 1.0)), (0.4, (0.3, 0.5)), {}, None),
        (
            (0.9, (0.8, 1.0)),
            (0.4, (0.3, 0.5)),
            {"agreement": 0.8},
            "changed on 20% of the clean images",
        ),
        (
            (0.9, (0.8, 1.0)),
            (0.4, (0.3, 0.5)),
            {"transferred_rate": 0.44},
            "The transferred perturbation fools 44%, more than the 40%",
        ),
        (
            (0.9, (0.8, 1.0)),
            (0.4, (0.3, 0.5)),
            {"data_free_rate": 0.5},
            "found without images fools 50%",
        ),
    ],
)
def test_words(before, after, changes, says, hardened):
    def changed(audit, figures):
        rate, interval = figures
        return dataclasses.replace(
            audit, fooling_rate=rate, fooling_interval=interval, warnings=()
        )

    result = hardened[1]
    rates = {
        "gain_interval": (0.3, 0.6),
        "agreement": 0.95,
        "fresh_rate": 0.4,
        "transferred_rate": 0.42,
        "data_free_rate": 0.2,
    }
    result = dataclasses.replace(
        result,
        before=changed(result.before, before),
        after=changed(result.after, after),
        **rates | changes,
    )
    words = hardening_result.warnings_of(result)
    assert len(words) == (says is not None)
    if says:
        assert says in words[0]


def test_it_prints_how_far_it_is(hardened):
    text = hardened[-1]
    assert "takes at most about" in " ".join(text.split())
    assert " model passes; " in text
    # So do the clean answers, and what comes after the last attack.
    before = text.split("Training, ")[0]
    assert before.index("classified") < before.index("attacks compete")
    assert before.rindex("classified") > before.rindex("of the selection set")
    assert "epoch 2 of 2: loss" in text
    assert max(map(len, text.splitlines())) <= 80


class _Stopped(Exception):
    pass


@pytest.mark.slow
def test_goes_on_where_it_was_cut_off(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "backup"
    real = attack_suite.Attacker.run
    crash = models.CrashAt(1, _Stopped)

    def run(**changes):
        classifier = models.linear()
        arguments = {"epochs": 3, "verbose": 1, "backup_dir": folder}
        result = harden(classifier, **arguments | changes)
        return classifier, result, capsys.readouterr().out

    def cut_off_at(name):
        def stopped(attacker, attack, passes, seed, previous=None):
            if name == (attack.name, previous is not None):
                raise _Stopped
            return real(attacker, attack, passes, seed, previous)

        with monkeypatch.context() as patch:
            patch.setattr(attack_suite.Attacker, "run", stopped)
            if name is None:
                patch.setattr(hardening, "_Progress", lambda *_: crash)
            with pytest.raises(_Stopped):
                run()
        return capsys.readouterr().out

    _, expected, text = run(backup_dir=None)
    runs = len(expected.before.runs) - 1  # One of them has two rows.
    assert "from the backup" not in text
    assert "from the backup" not in cut_off_at(("data-free start", False))
    with pytest.raises(ValueError, match="a training with other settings"):
        run(robustness=0.9)
    capsys.readouterr()
    assert cut_off_at(None).count("from the backup") == runs - 2
    text = cut_off_at(("transferred start", False))
    assert text.count("from the backup") == runs
    assert "epoch 1 of 3" not in text
    assert "epoch 3 of 3" in text
    text = cut_off_at(("dominant", False))
    assert text.count("from the backup") == runs
    assert "epoch" not in text.replace("3 epochs", "")
    classifier, result, text = run()
    # Of the audit after, the attack before the one that was cut off is kept.
    assert text.count("from the backup") == runs + 1
    # What was done before counts.
    assert result.history.keys() == expected.history.keys()
    assert {len(values) for values in result.history.values()} == {3}
    assert result.training_passes == expected.training_passes
    assert result.training_seconds > 0.2 * expected.training_seconds
    assert result.before.seconds > 0.2 * expected.before.seconds
    assert result.before.passes == expected.before.passes
    total = result.before.seconds + result.after.seconds
    assert result.seconds == total + result.training_seconds
    assert not folder.exists()
    start = models.linear().get_weights()
    assert any(np.any(a != b) for a, b in zip(classifier.get_weights(), start))
    mine, its = result.before, expected.before
    np.testing.assert_array_equal(mine.perturbation, its.perturbation)
    for row, same in zip(mine.runs, its.runs, strict=True):
        assert row == dataclasses.replace(same, seconds=row.seconds)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"robustness": 2}, ValueError, "robustness"),
        ({"epochs": 0}, ValueError, "epochs"),
        ({"learning_rate": 0}, ValueError, "learning_rate"),
        ({"budget": "huge"}, ValueError, "budget='huge'"),
        ({"seed": -1}, ValueError, "seed"),
        ({"verbose": 3}, ValueError, "verbose"),
        ({"labels": np.zeros(80)}, ValueError, "labels must be class indices"),
        ({"labels": [0, 1]}, ValueError, "labels must be class indices"),
        ({"labels": np.full(80, 4)}, ValueError, "from 0 to 3"),
        ({"images": IMAGES[:2]}, ValueError, "2"),
        ({"classifier": "model"}, TypeError, "classifier must be a Keras"),
    ],
)
def test_wrong_arguments(changes, error, says, monkeypatch):
    monkeypatch.setattr(auditing, "Attacker", None)  # Before long work.
    with pytest.raises(error, match=says):
        harden(**{"classifier": models.linear()} | changes)


def test_a_training_that_diverges_gives_the_weights_back(hardened, monkeypatch):
    monkeypatch.setattr(
        auditing, "audit_pictures", lambda *_, **__: hardened[1].before
    )
    classifier = models.linear()
    before = classifier.get_weights()
    with pytest.raises(ValueError, match="diverged"):
        harden(classifier, learning_rate=1e38)
    for weight, old in zip(classifier.get_weights(), before):
        np.testing.assert_array_equal(weight, old)


def test_files_of_the_user_stay(tmp_path):
    """Only what was written is deleted, and only a folder that was made."""
    mine = ["run_best.npz", "run_17.npz", "before/run_a.npz", ".tmp-mine"]
    mine += ["notes.txt", "epoch_best.weights.h5"]
    given = tmp_path / "given"
    (given / "before").mkdir(parents=True)
    for name in mine:
        (given / name).write_text("mine")
    empty, made = tmp_path / "empty", tmp_path / "made"
    empty.mkdir()
    for folder in (given, empty, made):
        backup = hardening._Backup(folder)
        backup.claim({"seed": 1, "value_range": (0.0, 1.0)})
        # A resumed run finds its settings.
        hardening._Backup(folder).claim({"seed": 1, "value_range": (0.0, 1.0)})
        backup.before.mkdir(exist_ok=True)
        (backup.before / "run_3.npz").write_text("ours")
        (folder / "epoch_2.weights.h5").write_text("ours")
        hardening.delete_backup(folder)
    left = {
        str(path.relative_to(given))
        for path in given.rglob("*")
        if path.is_file()
    }
    assert left == set(mine)
    assert list(empty.iterdir()) == []
    assert not made.exists()


def test_numpy_numbers_are_settings(hardened):
    _, result, _, _ = hardened
    settings = json.loads(result.to_json())["settings"]
    assert {name: settings[name] for name in SETTINGS} == SETTINGS
