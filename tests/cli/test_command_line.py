"""Tests of the command line as a program: what it loads, says and survives."""

import contextlib
import importlib
import io
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

import keras_uap
from keras_uap import __main__ as command_line
from keras_uap import datasets, interchange
from keras_uap.cli import arguments, console, fit
from keras_uap.evaluation import attack_suite

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
@pytest.mark.parametrize(
    "imports",
    ["import keras_uap, keras", "import keras, keras_uap"],
)
def test_file_loads_after_the_import_alone(imports, workplace):
    load = f"keras.saving.load_model({str(workplace / 'uap.keras')!r})"
    done = python("-c", f"{imports}; print(type({load}).__name__)")
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
            ("keras-uap", "import keras_uap.commands.inputs"),
            ("", "pass"),
        ]
    }
    assert len(names) == 1
    assert "keras_uap>UniversalPerturbation" in names.pop()
    # In the command line, too, the names are there for who asks.
    code = code.format("keras-uap", "print(keras_uap.LpBall(1.0).epsilon)")
    assert python("-c", code).stdout.startswith("1.0\n")


@pytest.mark.slow
def test_no_lines_but_ours(workplace):
    words = ["-m", "keras_uap", "report", "--model", workplace / "model.keras"]
    words += ["--perturbation", workplace / "v.npz"]
    words += ["--images", workplace / "photos", "--output", workplace / "page"]
    done = python(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("[1/2] measuring\n[2/2] writing to ")


def test_lines_of_a_failed_import_are_shown(capfd):
    def fail():
        with console._stderr_held_back():
            os.write(2, b"A library is missing.\n")
            raise ImportError("no library")

    with pytest.raises(ImportError, match="no library"):
        fail()
    assert capfd.readouterr().err == "A library is missing.\n"
    with console._stderr_held_back():
        os.write(2, b"I0000 noise\n")
    os.write(2, b"heard\n")
    assert capfd.readouterr().err == "heard\n"


# Progress -------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a test moves on by itself."""
    seconds = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: seconds[0])
    return seconds


def work(clock, seconds, total=100):
    progress = console.Progress("pictures", total)
    for done in range(1, total + 1):
        clock[0] += seconds
        progress.update(done)


def test_progress_in_lines(clock, capsys):
    work(clock, 0.09)
    # Done within ten seconds, it says nothing.
    assert capsys.readouterr().out == ""
    work(clock, 1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  10 of 100 pictures; 2 minutes left"
    assert lines[-1] == "  90 of 100 pictures; 10 s left"
    assert len(lines) == 9
    work(clock, 100)
    # Slow work fills no log: a line for each twentieth of it.
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  5 of 100 pictures; 2.6 hours left"
    assert len(lines) == 19


def test_first_step_says_nothing_of_the_others(clock, capsys):
    progress = console.Progress("batches", 30)
    clock[0] += 500  # It compiles.
    progress.update(1)
    clock[0] += 20
    progress.update(11)
    assert capsys.readouterr().out == "  11 of 30 batches; 38 s left\n"


def test_progress_in_place(clock):
    screen = io.StringIO()
    screen.isatty = lambda: True
    with contextlib.redirect_stdout(screen):
        work(clock, 1, 10)
    text = screen.getvalue()
    assert "\n" not in text
    assert "\r  5 of 10 pictures; 5 s left" in text
    # The line is gone when the work is done.
    *_, blank, last = text.split("\r")
    assert (blank.strip(), last) == ("", "")


def test_progress_of_several_parts(clock, capsys):
    progress = console.Progress("pictures shown", 40)
    for _ in range(2):
        bar = datasets.progress_bar(20, progress)
        for done in (5, 10, 15, 20):
            clock[0] += 6
            bar.update(done)
    assert "  30 of 40 pictures shown; 12 s left" in capsys.readouterr().out
    unknown = console.Progress("pictures loaded").part(None)
    clock[0] += 11
    unknown.update(3)
    assert capsys.readouterr().out == "  3 pictures loaded\n"


@pytest.mark.parametrize("command", ["evaluate", "transfer"])
def test_progress_ends_with_the_work(command, workplace, monkeypatch, tmp_path):
    made = []

    class Look(console.Progress):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(console, "Progress", Look)
    words = [command, "--model", workplace / "model.keras"]
    words += ["--perturbation", workplace / "v.npz", "--batch-size", 4]
    words += ["--images", workplace / "photos"]
    if command == "transfer":
        words += ["--output", tmp_path]
    assert command_line.main([str(word) for word in words]) == 0
    (shown,) = [each for each in made if each._unit == "pictures shown"]
    assert (
        shown._done
        == shown._total
        == 9 * {"evaluate": 7, "transfer": 3}[command]
    )


# Words ----------------------------------------------------------------------


def test_help_says_what_the_code_does(capsys):
    with pytest.raises(SystemExit):
        command_line.main(["fit", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"fewer than {datasets.FEW} are always varied" in text
    assert f"at least as many as make {fit.VIEWS:,} views" in text
    with pytest.raises(SystemExit):
        command_line.main(["audit", "--help"])
    text = capsys.readouterr().out
    assert f"{{{','.join(sorted(attack_suite.BUDGETS))}}}" in text


def test_every_command_has_its_file():
    for name in arguments.COMMANDS:
        module = importlib.import_module(f"keras_uap.commands.{name}")
        assert callable(module.run)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_full_disk_behind_stdout(tmp_path):
    code = """
import sys, types
from keras_uap import __main__ as command_line

command = types.SimpleNamespace(run=lambda given: ("table", {}))
command_line.console.load_tensorflow = lambda: None
command_line.importlib = types.SimpleNamespace(import_module=lambda _: command)
sys.exit(command_line.main(["demo", "--output", sys.argv[1]]))
"""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("No space left on device")
    assert "Exception ignored" not in done.stderr
