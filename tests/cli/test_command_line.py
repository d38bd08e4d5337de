"""Tests of the command line as a program: what it loads, says and survives."""

import importlib
import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

import keras_uap
from keras_uap import __main__ as command_line
from keras_uap import datasets, interchange
from keras_uap.cli import evaluate, fit, parser, transfer
from keras_uap.evaluation import race
from keras_uap.utils.progress import Progress

HEAVY = {"tensorflow", "keras", "matplotlib", "scipy", "PIL"}


def python(*words, **environment):
    """Runs Python; gives what it ended with."""
    known = {k: v for k, v in os.environ.items() if k[:6] != "TF_CPP"}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        env=known | environment,
    )


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--help"], 0, "usage: keras-uap"),
        (["--version"], 0, f"keras-uap {keras_uap.__version__}"),
        (["audit", "--help"], 0, "usage: keras-uap audit"),
        ([], 2, "required: command"),
        (["frob"], 2, "invalid choice: 'frob'"),
        (["demo", "--epsilon", "nan"], 2, "--epsilon: must be a number above"),
        (["fit", "--model", "none", "--images", "."], 2, "no such file"),
        (["fit", "--model", ".", "--images", "./none"], 2, "no such folder"),
    ],
)
def test_answers_without_tensorflow(words, status, says):
    done = python("-X", "importtime", "-m", "keras_uap", *words)
    lines = done.stderr.splitlines()
    loaded = {
        line.rpartition("|")[2].strip().partition(".")[0]
        for line in lines
        if line.startswith("import time:")
    }
    assert "keras_uap" in loaded
    assert not loaded & HEAVY
    assert done.returncode == status
    rest = [line for line in lines if not line.startswith("import time:")]
    assert says in done.stdout + "\n".join(rest)
    assert len(rest) == (status == 2)


def test_script_of_pip_is_as_quick():
    done = python(
        "-c",
        "import sys; sys.argv = ['/bin/keras-uap.exe', '--version']\n"
        "try:\n    from keras_uap.__main__ import main; main()\n"
        f"finally:\n    print({HEAVY!r} & set(sys.modules))",
    )
    assert done.stdout.split("\n")[1] == "set()"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with a classifier, a perturbation of it, and pictures."""
    folder = tmp_path_factory.mktemp("work")
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    model.save(folder / "model.keras")
    uap = keras_uap.UniversalPerturbation(model, 10.0)
    uap.perturbation = np.full((8, 8, 3), 10.0)
    uap.save(folder / "uap.keras")
    card = {"epsilon": 10, "norm": "linf", "value_range": (0, 255)}
    interchange.save_perturbation(folder / "v.npz", uap.perturbation, card)
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(9):
        pixels = rng.integers(0, 256, (9, 9, 3), "uint8")
        Image.fromarray(pixels).save(folder / "photos" / f"{i}.png")
    return folder


@pytest.mark.slow
def test_file_loads_after_the_import_alone(workplace):
    load = f"keras.saving.load_model({str(workplace / 'uap.keras')!r})"
    code = f"import keras_uap, keras; print(type({load}).__name__)"
    done = python("-c", code)
    assert done.stdout.split() == ["UniversalPerturbation"]


@pytest.mark.slow
def test_commands_register_all_classes():
    code = (
        "import sys; sys.argv = [{!r}]; import keras_uap\n"
        "{}; import keras\n"
        "print(sorted(keras.saving.get_custom_objects()))"
    )
    names = {
        python("-c", code.format(*each)).stdout
        for each in [
            ("keras-uap", "import keras_uap.cli.loading"),
            ("", "pass"),
        ]
    }
    assert len(names) == 1
    assert "keras_uap>UniversalPerturbation" in names.pop()


@pytest.mark.slow
def test_no_lines_but_ours(workplace):
    words = ["-m", "keras_uap", "report", "--model", workplace / "model.keras"]
    words += ["--perturbation", workplace / "v.npz"]
    words += ["--images", workplace / "photos", "--output", workplace / "page"]
    done = python(*words)
    assert done.returncode == 0
    # What TensorFlow writes before it reads TF_CPP_MIN_LOG_LEVEL.
    assert "WARNING: All log" in done.stderr or done.stderr == ""
    assert done.stdout.startswith("[1/2] measuring\n")
    assert "\n[2/2] writing to " in done.stdout


@pytest.mark.parametrize("command", ["evaluate", "transfer"])
def test_progress_ends_with_the_work(command, workplace, monkeypatch, tmp_path):
    made = []

    class Look(Progress):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

    for module in (evaluate, transfer):
        monkeypatch.setattr(module, "Progress", Look)
    words = [command, "--model", workplace / "model.keras"]
    words += ["--perturbation", workplace / "v.npz", "--batch-size", 4]
    words += ["--images", workplace / "photos"]
    if command == "transfer":
        words += ["--output", tmp_path]
    assert command_line.main([str(word) for word in words]) == 0
    (shown,) = made
    count = 9 * {"evaluate": 7, "transfer": 3}[command]
    assert shown._done == shown._total == count


# Words ----------------------------------------------------------------------


def test_help_says_what_the_code_does(capsys):
    with pytest.raises(SystemExit):
        command_line.main(["fit", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"Fewer than {datasets.FEW} images are always augmented" in text
    assert f"at least as many as make {fit.VIEWS:,} augmented views" in text
    budgets = race.BUDGETS
    hardened = {name: race.for_hardening(budgets[name]) for name in budgets}
    for command, works in ("audit", budgets), ("harden", hardened):
        with pytest.raises(SystemExit):
            command_line.main([command, "--help"])
        text = " ".join(capsys.readouterr().out.split())
        assert f"{{{','.join(sorted(budgets))}}}" in text
        for name, work in works.items():
            assert re.search(rf"{name}: at most {work.most:,}\b", text)


def test_every_command_has_its_file():
    for name in parser.COMMANDS:
        module = importlib.import_module(f"keras_uap.cli.{name}")
        assert callable(module.run)
