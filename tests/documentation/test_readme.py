"""What the README and the pages of the documentation show runs as it stands.

The Python of a page runs in order, in one namespace, in a folder that holds
what the pages name: `photos/`, `classes/`, `classifier.keras` and others. The
commands run there too. Only what sets an environment up is left to `.ci/run`.
The bundled classifier is replaced by a quick one, except in the README.
"""

import pathlib
import re
import shlex
import shutil

import keras
import models
import pytest

from keras_uap import __main__ as command_line
from keras_uap import samples
from keras_uap.cli import parser
from keras_uap.defenses import harden

ROOT = pathlib.Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]


def quick_classifier():
    """A classifier with the pixels and the classes of the bundled one."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((224, 224, 3)),
            layers.Rescaling(1 / 32, -4.0),
            layers.AveragePooling2D(16),
            layers.Flatten(),
            layers.Dense(1000),
        ]
    )


def blocks(page, *languages):
    """The code in a page, by line."""
    text = page.read_text(encoding="utf-8")
    return [
        (text[: block.start(2)].count("\n"), block[2])
        for block in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S)
        if block[1] in languages
    ]


def with_python(page):
    return bool(blocks(page, "python"))


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with photographs, classes, classifiers and perturbations."""
    folder = tmp_path_factory.mktemp("template")
    source = pathlib.Path(samples.__file__).parent
    files = sorted((source / "photos" / "fit").glob("*.jpg"))
    for number, file in enumerate(files[::4]):
        places = ("photos", "other_photos", f"classes/{'ab'[number % 2]}")
        for place in places:
            (folder / place).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / place)
    for name in ("classifier", "released", "one", "two"):
        quick_classifier().save(folder / f"{name}.keras")
    models.linear(2, shape=(224, 224, 3)).save(folder / "two_classes.keras")
    for name in ("one", "two"):
        (folder / name).mkdir()
        file = source / "perturbations" / "efficientnet_lite0_linf.npz"
        shutil.copy(file, folder / name / "uap.npz")
    return folder


@pytest.fixture
def folder(template, tmp_path, monkeypatch):
    """A copy of the template, in which the code of a page runs."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def offline(monkeypatch):
    """No downloads: quick classifiers, and random pictures of TFDS."""
    tfds = pytest.importorskip("tensorflow_datasets")
    for name in ("ResNet50", "MobileNetV2"):
        monkeypatch.setattr(keras.applications, name, quick_classifier)
    with tfds.testing.mock_data(num_examples=8):
        yield


@pytest.fixture
def less_work(monkeypatch):
    """Audits and trainings as on the pages, but shorter."""
    models.shorten_audits(monkeypatch, 96)
    monkeypatch.setattr(harden, "DRAWS", 100)


@pytest.fixture
def run(folder, offline, less_work, monkeypatch):
    """Runs the Python of a page; returns the names that it leaves."""

    def run(page):
        names = {}
        if page != README:
            monkeypatch.setattr(samples, "load_classifier", quick_classifier)
        for line, code in blocks(page, "python"):
            # Tracebacks then name the line of the page.
            code = compile("\n" * line + code, str(page), "exec")
            exec(code, names)
        for name in [name for name in names if name.startswith("test_")]:
            names[name]()
        return names

    return run


@pytest.mark.slow
@pytest.mark.usefixtures("optimized_graphs")
def test_python_of_the_readme_runs(run):
    names = run(README)
    assert names["v"].shape == (224, 224, 3)
    attacked = names["attacked"].predict(names["held_out"], verbose=0)
    clean = names["classifier"].predict(names["held_out"], verbose=0)
    # Random signs fool 12 % of them.
    assert (attacked.argmax(-1) != clean.argmax(-1)).mean() > 0.3


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [*filter(with_python, PAGES[1:])], ids=lambda page: page.name
)
def test_python_of_the_pages_runs(page, run):
    assert run(page)


def test_no_block_is_left_out():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert "<!-- not run:" not in text
    assert text.count("```python") > 20


def commands():
    """The calls of the command line in the pages."""
    for page in PAGES:
        for line, code in blocks(page, "bash"):
            for call in re.split(r"\n|&&", code.replace("\\\n", " ")):
                words = shlex.split(call, comments=True)
                if words[1:3] == ["-m", "keras_uap"]:
                    yield f"{page.name}:{line}", words[3:]
                elif words[:1] and words[0].endswith("keras-uap"):
                    yield f"{page.name}:{line}", words[1:]


COMMANDS = [pytest.param(words, id=place) for place, words in commands()]


@pytest.mark.parametrize("arguments", COMMANDS)
def test_commands_are_understood(arguments):
    parser.make_parser().parse_args(arguments)


def different_commands():
    """One for each set of options; the tests of the commands run `demo`."""
    found = {}
    for param in COMMANDS:
        (words,) = param.values
        options = tuple(word for word in words if word.startswith("--"))
        if words[0] != "demo":
            found.setdefault((words[0], *options), param)
    return found.values()


@pytest.mark.slow
@pytest.mark.parametrize("arguments", different_commands())
def test_commands_run(arguments, folder, less_work, capsys):
    assert command_line.main(arguments) == 0
    out, err = capsys.readouterr()
    assert "%" in out
    assert err == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^):]+)\)", text):
        file, _, place = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        if place:
            headings = target.read_text(encoding="utf-8")
            titles = re.findall(r"^#+ (.+)$|^\((.+)\)=$", headings, re.M)
            places = [
                re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") or mark
                for title, mark in titles
            ]
            assert place in places, link
