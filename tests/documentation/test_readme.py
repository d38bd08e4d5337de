"""What the README and the pages of the documentation show runs as it stands.

The Python of a page runs in order, in one namespace, in a folder that holds
what the pages name: `photos/`, `classes/`, `classifier.keras` and others. The
commands run there too. Only what sets an environment up is left to `.ci/run`.
"""

import functools
import pathlib
import re
import shlex
import shutil

import keras
import models
import pytest

from keras_uap import __main__ as command_line
from keras_uap import samples
from keras_uap.cli import demo, parser
from keras_uap.defenses import harden

ROOT = pathlib.Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]

# Pages whose `classifier.keras` is a small one here: they train or attack it.
SMALL = (
    *("audit.md", "ci.md", "harden.md", "harden_fit.md", "index.md"),
    *("own_defense.md", "publish.md"),
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


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with photographs, classes, classifiers and perturbations."""
    source = pathlib.Path(samples.__file__).parent
    files = sorted((source / "photos" / "fit").glob("*.jpg"))
    for number, file in enumerate(files[::4]):
        places = ("photos", "other_photos", f"classes/{'ab'[number % 2]}")
        for place in places:
            (tmp_path / place).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, tmp_path / place)
    for name in ("classifier", "released", "one", "two"):
        shutil.copy(
            source / "efficientnet_lite0.keras", tmp_path / f"{name}.keras"
        )
    models.linear(2, shape=(224, 224, 3)).save(tmp_path / "two_classes.keras")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        file = source / "perturbations" / "efficientnet_lite0_linf.npz"
        shutil.copy(file, tmp_path / name / "uap.npz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def offline(monkeypatch):
    """No downloads: random weights, and random pictures of TFDS."""
    tfds = pytest.importorskip("tensorflow_datasets")
    for name in ("ResNet50", "MobileNetV2"):
        network = functools.partial(
            getattr(keras.applications, name), weights=None
        )
        monkeypatch.setattr(keras.applications, name, network)
    with tfds.testing.mock_data(num_examples=8):
        yield


@pytest.fixture
def less_work(monkeypatch):
    """Audits, trainings and the demo as on the pages, but shorter."""
    models.shorten_audits(monkeypatch, 150)
    monkeypatch.setattr(harden, "DRAWS", 100)
    monkeypatch.setattr(demo, "VIEWS", 272)


@pytest.fixture
def run(folder, offline, less_work):
    """Runs the Python of a page; returns the names that it leaves."""

    def run(page):
        names = {}
        if page.name in SMALL:
            classifier = models.cnn(shape=(224, 224, 3), value_range=(0, 255))
            for name in ("classifier", "released"):
                classifier.save(f"{name}.keras")
        for line, code in blocks(page, "python"):
            # Tracebacks then name the line of the page.
            code = compile("\n" * line + code, str(page), "exec")
            exec(code, names)
        for name in [name for name in names if name.startswith("test_")]:
            names[name]()
        return names

    return run


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("arguments", COMMANDS)
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
