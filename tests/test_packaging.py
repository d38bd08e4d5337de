"""Tests that the files around the package agree with it."""

import configparser
import pathlib
import re

import pytest

import keras_uap

ROOT = pathlib.Path(keras_uap.__file__).parents[1]

pytestmark = pytest.mark.skipif(
    not (ROOT / "setup.cfg").is_file(), reason="not in a checkout"
)


@pytest.fixture
def options():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_every_package_is_shipped(options):
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "keras_uap").rglob("__init__.py")
    }
    assert set(options["options"]["packages"].split()) == found


def test_every_data_file_is_shipped(options):
    shipped = {
        path
        for package, patterns in options["options.package_data"].items()
        for pattern in patterns.split()
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    found = {
        path
        for path in (ROOT / "keras_uap").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert len(found) > 190
    assert shipped == found


def test_one_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    version = re.search(r"^version: (.+)$", text, re.MULTILINE)[1]
    assert version == keras_uap.__version__


def test_readme_names_every_command():
    from keras_uap.cli.parser import COMMANDS

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(COMMANDS) == 7
    for name in COMMANDS:
        assert f"`{name}`" in readme


def test_the_documentation_prints_the_help_of_every_command():
    from keras_uap.cli.parser import COMMANDS

    page = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f"{{program-output}} python -m keras_uap {name} --help" in page


def test_every_page_is_in_the_contents():
    docs = ROOT / "docs"
    contents = (docs / "index.md").read_text(encoding="utf-8").splitlines()
    for page in docs.glob("*.md"):
        assert page.stem == "index" or page.stem in contents
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"notebooks/{notebook.stem}" in contents
