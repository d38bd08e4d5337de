"""Tests of the command line, in process."""

import argparse
import json
import re

import keras
import models
import numpy as np
import pytest
from PIL import Image

import keras_uap
from keras_uap import __main__ as command_line
from keras_uap import analysis, interchange, samples
from keras_uap.cli import console, demo, evaluate, fit, loading
from keras_uap.evaluation import attack_suite
from keras_uap.evaluation import audit as auditing

SIZE = (8, 8, 3)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with models, 12 pictures and files that are wrong."""
    folder = tmp_path_factory.mktemp("work")
    # The layers draw their seeds when they are made, before `save`.
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    (folder / "photos" / "below").mkdir(parents=True)
    for i in range(12):
        pixels = rng.integers(0, 256, (9, 12, 3), "uint8")
        place = folder / "photos" / ("below" if i > 5 else ".")
        Image.fromarray(pixels).save(place / f"{i:02}.png")
    layers = keras.layers

    def save(name, *rest, shape=SIZE):
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [keras.Input(shape), layers.Rescaling(2 / 255, -1.0), *rest],
            name="tiny",
        )
        model.save(folder / f"{name}.keras")

    def head():
        return layers.Flatten(), layers.Dense(5, "softmax")

    save("model", *head())
    save("larger", layers.Flatten(), layers.Dense(5), shape=(9, 9, 3))
    save("grey", *head(), shape=(8, 8, 1))
    save("signal", *head(), shape=(8, 3))
    save("headless", layers.Conv2D(2, 3))
    save("sizeless", layers.GlobalMaxPool2D(), shape=(None, None, 3))
    save("three", layers.Flatten(), layers.Dense(3))
    keras.saving.load_model(folder / "model.keras").export(
        folder / "exported", verbose=False
    )
    keras.saving.load_model(folder / "grey.keras").export(
        folder / "exported_grey", verbose=False
    )
    for i, name in enumerate(("a", "b", "c")):
        (folder / "classes" / name).mkdir(parents=True)
        for j in range(7):
            pixels = rng.integers(80 * i, 80 * i + 90, (8, 8, 3), "uint8")
            Image.fromarray(pixels).save(folder / "classes" / name / f"{j}.png")
    (folder / "names.txt").write_text("\n".join("abcde"))
    (folder / "text.keras").write_text("Hello.")
    (folder / "empty").mkdir()
    (folder / "one").mkdir()
    (folder / "damaged").mkdir()
    (folder / "ruined").mkdir()
    (folder / "ruined" / "a.png").write_bytes(b"no picture")
    picture = (folder / "photos" / "00.png").read_bytes()
    (folder / "one" / "a.png").write_bytes(picture)
    (folder / "damaged" / "a.png").write_bytes(picture)
    (folder / "damaged" / "b.png").write_bytes(b"no picture")
    v = rng.uniform(-20, 20, SIZE)
    card = {"epsilon": 20, "norm": "linf", "value_range": (0, 255)}
    interchange.save_perturbation(folder / "v.npz", v, card)
    l2 = {"epsilon": 900, "norm": "l2", "value_range": (0, 255)}
    interchange.save_perturbation(folder / "l2.npz", v, l2)
    no_range = {"epsilon": 20, "norm": "linf", "value_range": None}
    interchange.save_perturbation(folder / "no_range.npz", v, no_range)
    unit = {"epsilon": 20 / 255, "norm": "linf", "value_range": (0, 1)}
    interchange.save_perturbation(folder / "unit.npz", v / 255, unit)
    interchange.save_perturbation(
        folder / "larger.npz", np.zeros((9, 9, 3)), card
    )
    (folder / "text.npz").write_text("Hello.")
    return folder


@pytest.fixture
def run(workplace, monkeypatch, capsys, tmp_path):
    """Runs a command in the workplace; gives status, stdout and stderr."""
    monkeypatch.chdir(workplace)

    def run_command(*arguments):
        capsys.readouterr()
        status = command_line.main([str(word) for word in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run_command


@pytest.fixture
def short_audits(monkeypatch):
    models.shorten_audits(monkeypatch, 100)


FIT = {"--model": "model.keras", "--images": "photos", "--epochs": 2}
EVALUATE = {
    "--model": "model.keras",
    "--images": "photos",
    "--perturbation": "v.npz",
}


AUDIT = {
    "--model": "model.keras",
    "--images": "photos",
    "--budget": "quick",
}


DEFAULTS = {
    "fit": FIT,
    "evaluate": EVALUATE,
    "report": EVALUATE,
    "transfer": EVALUATE,
    "harden": FIT,
    "audit": AUDIT,
}


def words(command, defaults, changes):
    """The command's words; None leaves an option out, lists are spread."""
    result = [command]
    for name, value in (defaults | changes).items():
        if value is not None:
            values = value if isinstance(value, list) else [value]
            result += [name, *values]
    return result


WRONG_FIT = [
    ({"--model": None}, "--model"),
    ({"--images": None}, "--images"),
    ({"--model": "none.keras"}, "--model none.keras: there is no such file"),
    ({"--model": "photos"}, "photos is not a SavedModel"),
    ({"--model": "text.keras"}, "cannot be loaded as a Keras model"),
    ({"--model": "headless.keras"}, "class scores"),
    ({"--model": "sizeless.keras"}, "--size sets image_shape"),
    ({"--size": [8, 0]}, "--size: must be a whole number"),
    ({"--class-names": "none.txt"}, "none.txt"),
    ({"--class-names": "text.keras"}, "has 1 lines, the model has 5 classes"),
    ({"--model": "signal.keras"}, "use the Python interface"),
    ({"--model": "empty"}, "empty is not a SavedModel"),
    ({"--images": "nowhere"}, "'nowhere' is neither a folder"),
    ({"--images": "./nowhere"}, "--images ./nowhere: there is no such folder"),
    ({"--images": "v.npz"}, "--images v.npz is a file"),
    ({"--class-names": "photos"}, "--class-names photos cannot be read"),
    ({"--class-names": "v.npz"}, "--class-names v.npz cannot be read"),
    ({"--batch-size": 0}, "--batch-size: must be a whole number"),
    ({"--value-range": [0, "inf"]}, "--value-range must be two numbers"),
    ({"--model-output": "x"}, "--model-output sets output"),
    ({"--seed": 2**31}, "--seed: must be a whole number"),
    ({"--images": "empty"}, "No images in empty"),
    ({"--images": "one"}, "Add images or pass --held-out."),
    ({"--images": "one", "--held-out": "photos"}, "photographs. Add images."),
    ({"--held-out": "empty"}, "No images in empty"),
    ({"--epochs": 0}, "--epochs: must be a whole number"),
    ({"--limit": 0}, "--limit: must be a whole number"),
    ({"--epsilon": 0}, "epsilon"),
    ({"--epsilon": -1}, "epsilon"),
    ({"--epsilon": "nan"}, "epsilon"),
    ({"--norm": "l3"}, "--norm: invalid choice: 'l3'"),
    ({"--value-range": [1, 0]}, "--value-range must be two numbers"),
    ({"--value-range": [1]}, "--value-range"),
    ({"--value-range": "pytorch"}, "or caffe, tf or torch"),
    ({"--channel-order": "grb"}, "--channel-order"),
    ({"--update": "nope"}, "optimizer='nope'"),
    ({"--update": "deepfool", "--target": 1}, "target=1"),
    ({"--target": 5}, "target=5"),
    ({"--target": "cat"}, "--target"),
    ({"--seed": -1}, "--seed: must be a whole number of at least 0"),
    ({"--output": "text.keras"}, "--output text.keras cannot be written to"),
    ({"--colour": 3}, "--colour"),
]
WRONG_EVALUATE = [
    ({"--perturbation": None}, "--perturbation"),
    ({"--perturbation": "none.npz"}, "--perturbation none.npz: there is no"),
    ({"--perturbation": "text.npz"}, "text.npz is not a perturbation"),
    ({"--perturbation": "larger.npz"}, "has shape (9, 9, 3)"),
    ({"--perturbation": ["v.npz", "larger.npz"]}, "has shape (9, 9, 3)"),
    ({"--perturbation": "no_range.npz"}, "names no value_range"),
    ({"--model": "larger.keras"}, "has shape (8, 8, 3)"),
    ({"--model": "none.keras"}, "--model none.keras"),
    ({"--images": "empty"}, "No images in empty"),
    ({"--images": "empty", "--json": []}, "No images in empty"),
    ({"--images": "one", "--labels": []}, "one has no labels"),
    ({"--images": "classes", "--labels": []}, "3 classes, the model has 5"),
]
WRONG_TRANSFER = [
    ({"--model": ["model.keras", "none.keras"]}, "none.keras: there is no"),
    ({"--perturbation": ["v.npz", "none.npz"]}, "none.npz: there is no"),
    ({"--perturbation": ["v.npz", "v.npz"]}, "named twice"),
    ({"--perturbation": ["v.npz", "l2.npz"]}, "of one norm"),
    ({"--perturbation": ["v.npz", "no_range.npz"]}, "names no value_range"),
    ({"--model": "grey.keras"}, "3 channel(s), the models take 1"),
    ({"--value-range": [0, 1, "--value-range", 0, 1]}, "2 for 1 model(s)"),
    ({"--images": "empty"}, "No images in empty"),
]
WRONG_AUDIT = [
    # `audit` has no --held-out.
    ({"--images": "one"}, "of other photographs. Add images."),
    ({"--budget": "huge"}, "--budget"),
]
WRONG_HARDEN = [
    ({"--model": "exported"}, "cannot be trained"),
    ({"--learning-rate": 0}, "--learning-rate: must be a number above 0"),
    ({"--robustness": 1.5}, "--robustness: must be a number from 0 to 1"),
    ({"--images": "classes", "--labels": []}, "3 classes, the model has 5"),
]


@pytest.mark.parametrize(
    ("command", "changes", "says"),
    [("fit", *case) for case in WRONG_FIT]
    + [("evaluate", *case) for case in WRONG_EVALUATE]
    + [("report", *case) for case in WRONG_EVALUATE[:3]]
    + [("transfer", *case) for case in WRONG_TRANSFER]
    + [("harden", *case) for case in WRONG_HARDEN]
    + [("audit", *case) for case in WRONG_AUDIT]
    + [
        ("demo", {"--epsilon": -1}, "epsilon"),
        ("demo", {"--norm": "l3"}, "norm"),
        ("demo", {"--output": "text.keras"}, "--output"),
        ("demos", {}, "demos"),
    ],
)
def test_wrong_argument_is_one_sentence(
    command, changes, says, run, monkeypatch, cnn, tmp_path
):
    monkeypatch.setattr(samples, "load_classifier", cnn)
    defaults = DEFAULTS.get(command, {})
    if command in ("audit", "fit", "harden", "report", "transfer"):
        defaults = defaults | {"--output": tmp_path}
    status, out, err = run(*words(command, defaults, changes))
    assert status == 2
    assert err.startswith("keras-uap: error: ")
    assert err.count("\n") == 1
    assert says in err
    assert "Traceback" not in out + err
    assert list(tmp_path.iterdir()) == []


def test_no_command(run):
    status, _, err = run()
    assert status == 2
    assert "command" in err


@pytest.mark.parametrize("command", [None, "demo", *DEFAULTS])
def test_help(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        command_line.main([command, "--help"] if command else ["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith("usage: keras-uap")
    if command:
        assert f"example:\n  python -m keras_uap {command} --" in text


def check_columns(text):
    plain = re.sub(r"\x1b\[\d+m|\x08", "", text)
    lines = [x for x in plain.splitlines() if "writing to" not in x]
    assert max(map(len, lines)) <= 80, max(lines, key=len)


@pytest.mark.slow
def test_few_pictures_make_few_long_epochs(run, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "VIEWS", 200)
    few = {name: value for name, value in FIT.items() if name != "--epochs"}
    few |= {"--output": tmp_path / "result", "--limit": 3}
    status, out, err = run(*words("fit", few, {}))
    assert (status, err) == (0, "")
    # One picture is fitted on: 200 views of it.
    assert "200 augmented views of each image" in out
    assert "epoch 25 of 25: " in out


@pytest.mark.parametrize(
    ("norm", "update", "optimizer"),
    [
        ("l2", None, keras.optimizers.SGD),  # DeepFool's.
        ("l2", "decaying_lion", keras.optimizers.Lion),
        ("linf", None, keras.optimizers.Lion),
        ("linf", "deepfool", keras.optimizers.SGD),
        ("l2", "adam", keras.optimizers.Adam),
    ],
)
def test_the_update_that_is_named_is_taken(norm, update, optimizer, linear):
    options = argparse.Namespace(epsilon=1.0, norm=norm)
    uap = loading.make_uap(options, linear(), update=update)
    assert type(uap.optimizer) is optimizer


def test_a_name_is_the_same_update_as_in_python(linear):
    options = argparse.Namespace(epsilon=1.0, norm="linf")
    for name in ("lion", "decaying_lion"):
        uap = loading.make_uap(options, linear(), update=name)
        same = loading.make_uap(options, linear())
        same.compile(name, loss=uap._compile_arguments["loss"])
        one, other = (each.optimizer.get_config() for each in (uap, same))
        assert one["learning_rate"] == other["learning_rate"]
    constant = loading.make_uap(options, linear(), update="lion")
    assert constant._compile_arguments["loss"] == "crossentropy"


@pytest.mark.parametrize(
    "changes",
    [
        {"--target": 2, "--held-out": "photos/below", "--limit": 9},
        *(
            pytest.param(changes, marks=pytest.mark.slow)
            for changes in (
                {
                    **{"--update": "deepfool", "--norm": "l2"},
                    **{"--class-names": "names.txt", "--model": "grey.keras"},
                },
                {"--augment": [], "--value-range": [-1, 1], "--epsilon": 20},
                {"--model": "sizeless.keras", "--size": [7, 9]},
                {"--model": "exported", "--value-range": "caffe"},
            )
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:The classifier ends in several")
def test_fit_and_evaluate(changes, run, tmp_path):
    output = {"--output": tmp_path / "result"}
    status, out, err = run(*words("fit", FIT, output | changes))
    assert (status, err) == (0, "")
    check_columns(out)
    assert "epoch 2 of 2: " in out
    names = {path.name for path in output["--output"].iterdir()}
    pages = {"report.html", "report.txt"}
    assert names == pages | {"uap.keras", "uap.npz", "uap.png"}
    v, card = interchange.load_perturbation(output["--output"] / "uap.npz")
    # A model around a SavedModel refers to a folder, which can be exchanged.
    safe = changes.get("--model") != "exported"
    uap = keras.saving.load_model(
        output["--output"] / "uap.keras", safe_mode=safe
    )
    np.testing.assert_array_equal(uap.perturbation, v)
    assert np.any(v != 0)
    assert card["norm"] == changes.get("--norm", "linf")
    epsilon = changes.get("--epsilon", 2000 if "--norm" in changes else 10)
    assert card["epsilon"] == epsilon
    # Grey levels, whatever the classifier takes.
    assert card["value_range"] == [0, 255]
    assert card["target"] == changes.get("--target")
    assert ("target_rate" in card["held_out"]) == ("--target" in changes)
    assert ("sent to class 2" in out) == ("--target" in changes)
    held_out = card["held_out"]
    report = (output["--output"] / "report.txt").read_text()
    assert f"{held_out['fooling_rate']:.1%}" in report
    assert report.strip() in out
    assert ("to class" not in report) or "--class-names" not in changes
    with Image.open(output["--output"] / "uap.png") as picture:
        assert min(picture.size) > 100

    again = {
        name: changes[name]
        for name in ("--model", "--size", "--value-range")
        if name in changes
    } | {
        "--images": "photos/below",
        "--perturbation": output["--output"] / "uap.npz",
        "--json": [],
    }
    status, text, _ = run(*words("evaluate", EVALUATE, again))
    assert status == 0
    measured = json.loads(text)
    assert measured["num_images"] == 6
    if "--held-out" in changes:
        assert measured["fooling_rate"] == held_out["fooling_rate"]


def test_value_range_reaches_the_model(run, workplace):
    """A model of -1 to 1 is the same model behind --value-range -1 1."""
    inner = keras.saving.load_model(workplace / "model.keras").layers[1:]
    model = keras.Sequential([keras.Input(SIZE), *inner], name="raw")
    model.save(workplace / "raw.keras")
    rates = []
    for changes in (
        {},
        {"--model": "raw.keras", "--value-range": [-1, 1]},
        {"--perturbation": "unit.npz"},
    ):
        changes = changes | {"--json": []}
        status, text, _ = run(*words("evaluate", EVALUATE, changes))
        assert status == 0
        rates.append(json.loads(text)["fooling_rate"])
    assert rates[0] > 0
    assert rates == [rates[0]] * 3


def test_report(run, tmp_path):
    output = {"--output": tmp_path / "page", "--class-names": "names.txt"}
    status, out, err = run(*words("report", EVALUATE, output))
    assert (status, err) == (0, "")
    check_columns(out)
    folder = output["--output"]
    names = {path.name for path in folder.iterdir()}
    assert names == {"report.html", "report.png", "report.txt", "report.json"}
    page = (folder / "report.html").read_text(encoding="utf-8")
    # Named by the file that was passed, whatever the card says.
    assert "<h1><bdi>model.keras</bdi></h1>" in page
    assert (folder / "report.txt").read_text().strip() in out
    assert json.loads((folder / "report.json").read_text())["num_images"] == 12
    with Image.open(folder / "report.png") as picture:
        assert min(picture.size) > 400


def test_audit(run, tmp_path, monkeypatch):
    models.shorten_audits(monkeypatch, 100, "dominant")
    output = {"--output": tmp_path / "out", "--class-names": "names.txt"}
    output["--card"] = tmp_path / "card" / "a card.md"
    status, out, err = run(*words("audit", AUDIT, output))
    assert (status, err) == (0, "")
    check_columns(out)
    assert "1 attacks compete on" in " ".join(out.split())
    folder = output["--output"]
    names = {path.name for path in folder.iterdir()}
    texts = {"audit.html", "audit.json", "audit.txt"}
    assert names == texts | {"uap.npz", "audit.png"}
    page = (folder / "audit.html").read_text(encoding="utf-8")
    assert "<h1><bdi>model.keras</bdi></h1>" in page
    values = json.loads((folder / "audit.json").read_text())
    assert f"{values['fooling_rate']:.1%}" in out
    v, card = interchange.load_perturbation(folder / "uap.npz")
    assert card["classifier"] == "model.keras"
    assert card["held_out"]["fooling_rate"] == values["fooling_rate"]
    assert np.abs(v).max() <= 10
    call = f"'{output['--card']}'"
    assert call in output["--card"].read_text(encoding="utf-8")
    card = json.loads((tmp_path / "card" / "a card.json").read_text())
    assert card["command"].startswith("keras-uap audit --model model.keras")
    assert card["fooling_rate"] == values["fooling_rate"]


def test_a_limit_ends_an_audit_with_status_3(run, tmp_path, monkeypatch):
    models.shorten_audits(monkeypatch, 100, "dominant")
    output = {"--output": tmp_path, "--junit": tmp_path / "junit.xml"}
    limits = {"--fail-above": 0, "--json": []}
    status, out, err = run(*words("audit", AUDIT, output | limits))
    assert status == 3
    assert err.splitlines()[-1].endswith("at most 0.0% may be.")
    assert json.loads(out)["fooling_rate"] > 0
    assert 'failures="1"' in (tmp_path / "junit.xml").read_text()
    baseline = {"--baseline": tmp_path / "audit.json", "--output": tmp_path}
    status, out, err = run(*words("audit", AUDIT, baseline))
    assert (status, err) == (0, "")
    # A forgotten range would compare two other classifiers.
    other = baseline | {"--value-range": [0, 3]}
    status, out, err = run(*words("audit", AUDIT, other))
    assert status == 2
    assert "another classifier_range" in err


def test_interrupted_audit_leaves_what_is_finished(run, tmp_path, monkeypatch):
    names = ["dominant", "cross-entropy", "DeepFool"]
    models.shorten_audits(monkeypatch, 200, *names)
    fit = attack_suite.Attacker.run

    def interrupt(attacker, attack, *arguments):
        if attack.name == "DeepFool":
            raise KeyboardInterrupt
        return fit(attacker, attack, *arguments)

    monkeypatch.setattr(attack_suite.Attacker, "run", interrupt)
    status, _, err = run(*words("audit", AUDIT, {"--output": tmp_path}))
    assert status == 130
    assert "interrupted after 2 perturbations" in err
    assert str(tmp_path / "audit.html") in err
    values = json.loads((tmp_path / "audit.json").read_text())
    assert [run["name"] for run in values["runs"]] == names[:2]
    assert "2 perturbations: more work may fool more" in values["warnings"][0]
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "Interrupted after 2 perturbations" in page
    assert (tmp_path / "uap.npz").exists()


@pytest.mark.slow
def test_class_folders_share_every_part(run, workplace, tmp_path, monkeypatch):
    """In sorted order, the held-out part was once the last classes."""
    seen = []
    measure = analysis.fooling_report

    def look(classifier, v, images, *rest, **named):
        seen.append(images)
        return measure(classifier, v, images, *rest, **named)

    monkeypatch.setattr(analysis, "fooling_report", look)
    changes = {"--images": "classes", "--output": tmp_path}
    assert run(*words("fit", FIT, changes))[0] == 0
    # The classes are dark, middling and light.
    kinds = seen[0].images.mean(axis=(1, 2, 3)) // 85
    assert set(kinds.astype(int).tolist()) == {0, 1, 2}
    assert len(kinds) == 5


def test_labels_give_error_rates(run, workplace):
    changes = {"--model": "three.keras", "--images": "classes", "--labels": []}
    status, out, _ = run(*words("evaluate", EVALUATE, changes))
    assert status == 0
    model = keras.saving.load_model(workplace / "three.keras")
    data = keras_uap.datasets.images("classes", (8, 8), labels=True)
    wrong = [model(x).numpy().argmax(-1) != y.numpy() for x, y in data]
    (line,) = [x for x in out.splitlines() if "error rate, clean" in x]
    assert line.split()[-1] == f"{np.mean(wrong):.1%}"


def test_transfer(run, tmp_path):
    changes = {
        "--model": ["model.keras", "larger.keras", "exported"],
        "--perturbation": ["v.npz", "larger.npz"],
        "--output": tmp_path,
    }
    status, out, err = run(*words("transfer", EVALUATE, changes))
    assert (status, err) == (0, "")
    check_columns(out)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"transfer.png", "transfer.json"}
    matrix = json.loads((tmp_path / "transfer.json").read_text())
    rates = np.array(matrix["fooling_rates"])
    assert rates.shape == (2, 3)
    # Zeros fool nobody; the exported model is the model.
    np.testing.assert_array_equal(rates[1], 0)
    assert rates[0, 0] == rates[0, 2] > 0
    np.testing.assert_array_equal(
        matrix["resized"], [[False, True, False], [True, True, True]]
    )
    _, text, _ = run(*words("evaluate", EVALUATE, {"--json": []}))
    assert json.loads(text)["fooling_rate"] == rates[0, 0]
    rows = [line for line in out.splitlines() if line.startswith("v.npz")]
    assert f" {rates[0, 0]:.1%} " in rows[0]
    assert rows[1].endswith("yes")


@pytest.mark.slow
def test_harden(run, tmp_path, workplace, short_audits):
    output = {"--output": tmp_path / "out", "--epsilon": 30, "--keep": []}
    changes = {
        **{"--model": "three.keras", "--images": "classes", "--labels": []},
        **{"--held-out": "classes", "--norm": "l2", "--value-range": [-1, 1]},
        **{"--learning-rate": 0.01, "--json": []},
    }
    before = (workplace / "three.keras").read_bytes()
    # With --json, what would go to stdout goes to stderr.
    status, text, out = run(*words("harden", FIT, output | changes))
    assert status == 0
    check_columns(out)
    assert "epoch 2 of 2: loss" in out
    assert (workplace / "three.keras").read_bytes() == before
    names = {path.name for path in output["--output"].iterdir()}
    assert names == {
        "hardened.keras",
        "harden.html",
        "harden.json",
        "harden.png",
    }
    hardened = keras.saving.load_model(output["--output"] / "hardened.keras")
    # A plain model, with nothing of this package around it.
    assert "keras_uap" not in hardened.to_json()
    old = keras.saving.load_model(workplace / "three.keras")
    assert [w.shape for w in hardened.weights] == [w.shape for w in old.weights]
    assert any(
        np.any(a.numpy() != b.numpy())
        for a, b in zip(hardened.weights, old.weights)
    )
    values = json.loads(text)
    assert values == json.loads(
        (output["--output"] / "harden.json").read_text()
    )
    assert values["before"]["card"]["epsilon"] == 30
    assert values["accuracy"] is not None


@pytest.mark.slow
def test_harden_goes_on_where_it_was_cut_off(
    run, tmp_path, monkeypatch, short_audits
):
    output = tmp_path / "out"
    command = words("harden", FIT, {"--output": output, "--epsilon": 30})
    write = console.write

    def full(*_):
        raise OSError("No space left on device")

    # Trained and measured, and then no room for what was found.
    monkeypatch.setattr(console, "write", full)
    assert run(*command)[0] != 0
    assert (output / "harden_backup").exists()
    monkeypatch.setattr(console, "write", write)
    status, out, err = run(*command)
    assert (status, err) == (0, "")
    assert "epoch 2 of 2: loss" not in out
    assert (output / "harden.png").exists()
    assert not (output / "harden_backup").exists()


@pytest.mark.slow
def test_hardening_helps(run, tmp_path, workplace):
    """One pixel decides, by 20 grey levels of noise or by 200 of signal."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "two"
    for label in range(2):
        (folder / str(label)).mkdir(parents=True)
        for i in range(60):
            pixels = rng.integers(100, 156, SIZE, "uint8")
            pixels[0, 0] = 30 if label else 225
            pixels[1:] = pixels[1:] // 16 * 16 + 8 * label
            Image.fromarray(pixels).save(folder / str(label) / f"{i}.png")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(SIZE),
            layers.Rescaling(1 / 64, -2.0),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    data = keras_uap.datasets.images(folder, SIZE[:2], labels=True)
    x, y = next(data.unbatch().batch(120).as_numpy_iterator())
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(x, y, epochs=40, verbose=0)
    model.save(tmp_path / "model.keras")
    status, text, _ = run(
        "harden",
        f"--model={tmp_path / 'model.keras'}",
        f"--images={folder}",
        "--labels",
        "--learning-rate=0.02",
        "--epochs=15",
        f"--output={tmp_path}",
        "--json",
    )
    assert status == 0
    values = json.loads(text)
    before, after = values["before"], values["after"]
    assert values["accuracy_before"] == 1
    assert before["fooling_rate"] > 0.3
    assert after["fooling_rate"] < before["fooling_rate"] - 0.2
    assert values["accuracy"] == 1


def test_evaluate_is_a_recount(run, workplace):
    status, out, err = run(*words("evaluate", EVALUATE, {}))
    assert (status, err) == (0, "")
    check_columns(out)
    _, text, _ = run(*words("evaluate", EVALUATE, {"--json": []}))
    model = keras.saving.load_model(workplace / "model.keras")
    v, _ = interchange.load_perturbation(workplace / "v.npz")
    images = np.concatenate(
        list(keras_uap.datasets.images("photos", (8, 8)).as_numpy_iterator())
    ).round()
    clean = model.predict(images, verbose=0).argmax(-1)
    moved = model.predict(np.clip(images + v, 0, 255), verbose=0).argmax(-1)
    rate = np.mean(clean != moved)
    assert json.loads(text)["fooling_rate"] == pytest.approx(rate)
    assert f"{rate:.1%}" in out


def test_evaluate_prints_a_row_for_each_perturbation(run):
    files = ["v.npz", "l2.npz"]
    several = {"--perturbation": files}
    status, out, err = run(*words("evaluate", EVALUATE, several))
    assert (status, err) == (0, "")
    check_columns(out)
    rows = [line.split() for line in out.splitlines()]
    assert [row[:2] for row in rows if row[:1] and row[0] in files] == [
        ["v.npz", "linf"],
        ["l2.npz", "l2"],
    ]
    _, text, _ = run(*words("evaluate", EVALUATE, several | {"--json": []}))
    _, alone, _ = run(*words("evaluate", EVALUATE, {"--json": []}))
    first, second = json.loads(text)["reports"]
    assert first == {"perturbation": "v.npz"} | json.loads(alone)
    assert second["norm"] == "l2"


@pytest.mark.slow
def test_same_seed_same_files(run, tmp_path):
    arrays = []
    for name in ("one", "two"):
        run(*words("fit", FIT, {"--output": tmp_path / name, "--seed": 5}))
        path = tmp_path / name / "uap.npz"
        arrays.append(interchange.load_perturbation(path)[0])
    np.testing.assert_array_equal(*arrays)


def test_interrupted_fit_leaves_its_best(run, tmp_path, monkeypatch):
    class Interrupt(fit.EpochLines):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            if epoch == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(fit, "EpochLines", Interrupt)
    status, _, err = run(*words("fit", FIT, {"--output": tmp_path}))
    assert status == 130
    assert "keeping the best perturbation so far" in err
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"uap.keras", "uap.npz"}
    v, card = interchange.load_perturbation(tmp_path / "uap.npz")
    assert np.any(v != 0)
    assert card["stop_reason"] == "ended by KeyboardInterrupt"
    uap = keras.saving.load_model(tmp_path / "uap.keras")
    np.testing.assert_array_equal(uap.perturbation, v)


def test_interrupted_before_the_fit(run, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loading, "load_model", interrupt)
    status, _, err = run(*words("fit", FIT, {"--output": tmp_path}))
    assert (status, err) == (130, "\nkeras-uap: interrupted.\n")


def test_interrupted_while_measuring_the_perturbation(
    run, tmp_path, monkeypatch
):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "report_of", interrupt)
    status, _, err = run(*words("fit", FIT, {"--output": tmp_path}))
    assert status == 130
    assert f"the perturbation is in {tmp_path / 'uap.keras'}" in err
    assert (tmp_path / "uap.npz").exists()


def test_interrupted_harden_says_what_goes_on(
    run, tmp_path, monkeypatch, short_audits
):
    """In the second attack; nothing is measured that is thrown away."""
    attack, calls = attack_suite.Attacker.run, []

    def interrupt(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return attack(*arguments)

    monkeypatch.setattr(attack_suite.Attacker, "run", interrupt)
    monkeypatch.setattr(auditing, "_result", None)
    backup = tmp_path / "harden_backup"
    status, _, err = run(*words("harden", FIT, {"--output": tmp_path}))
    assert status == 130
    assert f"interrupted: the same command goes on from {backup}" in err
    assert (backup / "before" / "run_0.npz").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("optimized_graphs")
def test_demo(run, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "VIEWS", 272)
    status, out, err = run("demo", "--output", tmp_path)
    assert (status, err) == (0, "")
    check_columns(out)
    names = {path.name for path in tmp_path.iterdir()}
    pages = {"report.html", "report.txt"}
    assert names == pages | {"uap.keras", "uap.npz", "uap.png"}
    v, card = interchange.load_perturbation(tmp_path / "uap.npz")
    assert v.shape == (224, 224, 3)
    measured = card["held_out"]
    assert measured["num_images"] == 54
    assert measured["num_photographs"] == 12
    assert measured["fooling_rate"] > measured["random_noise_rate"] + 0.05


@pytest.mark.filterwarnings("always:Left out")
def test_bad_pictures_are_named_and_left_out(run):
    status, out, err = run(
        *words("evaluate", EVALUATE, {"--images": "damaged"})
    )
    assert status == 0
    assert "warning: Left out: damaged/b.png cannot be read" in err
    assert "images: 1 images, each its own photograph; 1 file(s) left" in out


@pytest.mark.filterwarnings("always:Left out")
@pytest.mark.parametrize("name", ["--images", "--held-out"])
def test_no_picture_that_can_be_read(name, run, tmp_path):
    changes = {name: "ruined", "--output": tmp_path}
    status, _, err = run(*words("fit", FIT, changes))
    assert status == 2
    warning, error = err.splitlines()
    assert "warning: Left out: ruined/a.png cannot be read" in warning
    assert "error: ruined holds no image that can be read" in error


@pytest.mark.slow
def test_perturbation_of_a_saved_model(run, tmp_path, workplace):
    """What `fit` writes as a model and as an array is one perturbation."""
    status, _, err = run(*words("fit", FIT, {"--output": tmp_path}))
    assert (status, err) == (0, "")
    results = []
    for name in ("uap.npz", "uap.keras"):
        changes = {"--perturbation": tmp_path / name, "--json": []}
        status, text, _ = run(*words("evaluate", EVALUATE, changes))
        assert status == 0
        results.append(json.loads(text))
    assert results[0] == results[1]
    for name, says in (
        ("model.keras", "holds a Sequential"),
        ("text.keras", "is not a perturbation saved by"),
        ("none.keras", "there is no such file"),
    ):
        changes = {"--perturbation": workplace / name}
        status, _, err = run(*words("evaluate", EVALUATE, changes))
        assert status == 2
        assert says in err


@pytest.mark.slow
def test_grey_saved_model_with_a_size(run, tmp_path):
    size = [12, 12]
    changes = {
        "--model": "exported_grey",
        "--size": size,
        "--output": tmp_path,
    }
    status, _, err = run(*words("fit", FIT, changes))
    assert (status, err) == (0, "")
    v, _ = interchange.load_perturbation(tmp_path / "uap.npz")
    assert v.shape == (*size, 1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"--baseline": "none.json"}, "none.json: there is no such file"),
        ({"--baseline": "other.json"}, "another epsilon"),
        ({"--fail-above": 2}, "--fail-above: must be a number from 0 to 1"),
        ({"--tolerance": -1}, "--tolerance: must be a number from 0 to 1"),
        ({"--junit": "model.keras/junit.xml"}, "--junit model.keras"),
        ({"--card": "model.keras/card.md"}, "--card model.keras"),
        ({"--card": "photos"}, "--card photos is a folder"),
        ({"--card": "card.txt"}, "--card card.txt must end in .md"),
    ],
)
def test_limits_are_checked_before_the_audit(
    changes, says, run, workplace, tmp_path, monkeypatch
):
    monkeypatch.setattr(attack_suite.Attacker, "run", None)
    card = {"norm": "linf", "epsilon": 3.0}
    values = {"fooling_rate": 0.5, "fooling_interval": [0.4, 0.6], "card": card}
    (workplace / "other.json").write_text(json.dumps(values))
    output = {"--output": tmp_path / "out"}
    status, _, err = run(*words("audit", AUDIT, output | changes))
    assert status == 2
    assert says in err
