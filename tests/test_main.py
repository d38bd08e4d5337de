"""Tests of the command line, in process."""

import json
import re

import keras
import numpy as np
import pytest
from PIL import Image

import keras_uap
from keras_uap import __main__ as command_line
from keras_uap import interchange, samples

SIZE = (8, 8, 3)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with models, 12 pictures and files that are wrong."""
    folder = tmp_path_factory.mktemp("work")
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

    head = [layers.Flatten(), layers.Dense(5, "softmax")]
    save("model", *head)
    save("larger", layers.Flatten(), layers.Dense(5), shape=(9, 9, 3))
    save("grey", layers.Flatten(), layers.Dense(5), shape=(8, 8, 1))
    save("headless", layers.Conv2D(2, 3))
    save("sizeless", layers.GlobalMaxPool2D(), shape=(None, None, 3))
    (folder / "text.keras").write_text("Hello.")
    (folder / "empty").mkdir()
    (folder / "one").mkdir()
    (folder / "damaged").mkdir()
    picture = (folder / "photos" / "00.png").read_bytes()
    (folder / "one" / "a.png").write_bytes(picture)
    (folder / "damaged" / "a.png").write_bytes(picture)
    (folder / "damaged" / "b.png").write_bytes(b"no picture")
    v = rng.uniform(-20, 20, SIZE)
    card = {"epsilon": 20, "norm": "linf", "value_range": (0, 255)}
    interchange.save_perturbation(folder / "v.npz", v, card)
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


FIT = {"--model": "model.keras", "--images": "photos", "--epochs": 2}
EVALUATE = {
    "--model": "model.keras",
    "--images": "photos",
    "--perturbation": "v.npz",
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
    ({"--model": "photos"}, "--model photos"),
    ({"--model": "text.keras"}, "cannot be loaded as a Keras model"),
    ({"--model": "headless.keras"}, "class scores"),
    ({"--model": "sizeless.keras"}, "size of its images"),
    ({"--model": "grey.keras"}, "1 channel"),
    ({"--images": "nowhere"}, "'nowhere' is neither a folder"),
    ({"--images": "empty"}, "No pictures in empty"),
    ({"--images": "one"}, "--images holds 1 picture"),
    ({"--images": "damaged"}, "--images damaged holds a file"),
    ({"--held-out": "damaged"}, "--held-out damaged holds a file"),
    ({"--held-out": "empty"}, "No pictures in empty"),
    ({"--epochs": 0}, "--epochs: must be a whole number"),
    ({"--epochs": "two"}, "--epochs: must be a whole number"),
    ({"--limit": 0}, "--limit: must be a whole number"),
    ({"--limit": -3}, "--limit"),
    ({"--epsilon": 0}, "epsilon"),
    ({"--epsilon": -1}, "epsilon"),
    ({"--epsilon": "nan"}, "epsilon"),
    ({"--epsilon": "ten"}, "--epsilon"),
    ({"--norm": "l3"}, "norm='l3'"),
    ({"--value-range": [1, 0]}, "--value-range must be two numbers"),
    ({"--value-range": ["nan", 1]}, "--value-range must be two numbers"),
    ({"--value-range": [1]}, "--value-range"),
    ({"--update": "nope"}, "optimizer='nope'"),
    ({"--update": "deepfool", "--target": 1}, "target=1"),
    ({"--target": 5}, "target=5"),
    ({"--target": -1}, "target=-1"),
    ({"--target": "cat"}, "--target"),
    ({"--seed": -1}, "Seed must be"),
    ({"--seed": "x"}, "--seed"),
    ({"--output": "text.keras"}, "--output text.keras cannot be made"),
    ({"--colour": 3}, "--colour"),
]
WRONG_EVALUATE = [
    ({"--perturbation": None}, "--perturbation"),
    ({"--perturbation": "none.npz"}, "--perturbation none.npz: there is no"),
    ({"--perturbation": "text.npz"}, "text.npz is not a perturbation"),
    ({"--perturbation": "larger.npz"}, "shape"),
    ({"--model": "larger.keras"}, "shape"),
    ({"--model": "none.keras"}, "--model none.keras"),
    ({"--images": "empty"}, "No pictures in empty"),
    ({"--value-range": [0, 1]}, "--value-range is 0 1"),
]


@pytest.mark.parametrize(
    ("command", "changes", "says"),
    [("fit", *case) for case in WRONG_FIT]
    + [("evaluate", *case) for case in WRONG_EVALUATE]
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
    defaults = {"fit": FIT, "evaluate": EVALUATE}.get(command, {})
    if command == "fit":
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


@pytest.mark.parametrize("command", [None, "demo", "fit", "evaluate"])
def test_help(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        command_line.main([command, "--help"] if command else ["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith("usage: keras-uap")
    if command:
        assert "example:" in text


def check_columns(text):
    plain = re.sub(r"\x1b\[\d+m|\x08", "", text)
    lines = [x for x in plain.splitlines() if "writing to" not in x]
    assert max(map(len, lines)) <= 80, max(lines, key=len)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"--update": "deepfool", "--norm": "l2"},
        {"--augment": [], "--value-range": [-1, 1], "--epsilon": 0.1},
        {"--target": 2, "--held-out": "photos/below", "--limit": 9},
    ],
)
def test_fit_and_evaluate(changes, run, tmp_path):
    output = {"--output": tmp_path / "result"}
    status, out, err = run(*words("fit", FIT, output | changes))
    assert (status, err) == (0, "")
    check_columns(out)
    assert "epoch 2 of 2: " in out
    names = {path.name for path in output["--output"].iterdir()}
    assert names == {"uap.keras", "uap.npz", "uap.png", "report.txt"}
    v, card = interchange.load_perturbation(output["--output"] / "uap.npz")
    uap = keras.saving.load_model(output["--output"] / "uap.keras")
    np.testing.assert_array_equal(uap.perturbation, v)
    assert np.any(v != 0)
    assert card["norm"] == changes.get("--norm", "linf")
    scale = 255 if "--value-range" not in changes else 2
    epsilon = changes.get("--epsilon", 2000 if "--norm" in changes else 10)
    assert card["epsilon"] == epsilon
    low, high = card["value_range"]
    assert high - low == scale
    assert card["target"] == changes.get("--target")
    held_out = card["held_out"]
    report = (output["--output"] / "report.txt").read_text()
    assert f"{held_out['fooling_rate']:.1%}" in report
    assert report.strip() in out
    with Image.open(output["--output"] / "uap.png") as picture:
        assert min(picture.size) > 100

    held_out_folder = "photos/below"
    status, text, err = run(
        "evaluate",
        "--model=model.keras",
        f"--images={held_out_folder}",
        f"--perturbation={output['--output'] / 'uap.npz'}",
        "--json",
    )
    assert (status, err) == (0, "")
    measured = json.loads(text)
    assert measured["num_images"] == 6
    if "--held-out" in changes:
        assert measured["fooling_rate"] == held_out["fooling_rate"]


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


def test_same_seed_same_files(run, tmp_path):
    arrays = []
    for name in ("one", "two"):
        run(*words("fit", FIT, {"--output": tmp_path / name, "--seed": 5}))
        path = tmp_path / name / "uap.npz"
        arrays.append(interchange.load_perturbation(path)[0])
    np.testing.assert_array_equal(*arrays)


def test_interrupted_fit_leaves_its_best(run, tmp_path, monkeypatch):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "_progress", Interrupt)
    status, out, _ = run(*words("fit", FIT, {"--output": tmp_path}))
    assert status == 130
    assert "keeping the best perturbation so far" in out
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

    monkeypatch.setattr(command_line, "_load_model", interrupt)
    status, _, err = run(*words("fit", FIT, {"--output": tmp_path}))
    assert status == 130
    assert "nothing written" in err


@pytest.mark.slow
def test_demo(run, tmp_path, monkeypatch):
    monkeypatch.setattr(command_line, "DEMO_DRAWS", 272)
    status, out, err = run("demo", "--output", tmp_path)
    assert (status, err) == (0, "")
    check_columns(out)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"uap.keras", "uap.npz", "uap.png", "report.txt"}
    v, card = interchange.load_perturbation(tmp_path / "uap.npz")
    assert v.shape == (224, 224, 3)
    measured = card["held_out"]
    assert measured["num_images"] == 54
    assert measured["num_photographs"] == 12
    assert measured["fooling_rate"] > measured["random_noise_rate"] + 0.05
