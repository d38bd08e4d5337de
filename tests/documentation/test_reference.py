"""Tests that the reference has every public name, with its arguments."""

import dataclasses
import importlib
import inspect
import pathlib
import re
import sys

import keras
import pytest
from prose import wrong_words

import keras_uap
from keras_uap.analysis import FoolingReport, TransferMatrix
from keras_uap.defenses.hardening import Hardening
from keras_uap.evaluation.audit_result import Audit, Run
from keras_uap.evaluation.changes import Survived
from keras_uap.evaluation.race import BUDGETS, for_hardening

DOCS = pathlib.Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS))

import reference  # noqa: E402


@pytest.fixture(scope="module")
def pages():
    return reference.pages()


def keras_own(path, value):
    """Arguments that Keras describes: of every object, of its own methods."""
    if inspect.isclass(value):
        return {"name", "dtype", "reduction", "**kwargs"}
    cls, _, name = path.removeprefix("keras_uap.").partition(".")
    owner = getattr(keras_uap, cls, None)
    own = getattr(keras.Model, name, None)
    model = inspect.isclass(owner) and issubclass(owner, keras.Model)
    if own is None or not model:
        return set()
    names = {"inputs", "training", "zipped", *inspect.signature(own).parameters}
    return names | {"input_signature", "*args", "**kwargs"}


def names_in(page):
    found = re.findall(r"^`+\{py:(?:class|function|data)\} (\w+)", page, re.M)
    assert len(found) == len(set(found))
    return set(found)


def documented():
    """Public functions, classes, methods and properties, by their path."""
    names = [
        (module, name, getattr(module, name))
        for module in map(importlib.import_module, reference.MODULES)
        for name in reference.public_names(module)
    ]
    for module, name, value in [*names, *reference.returned()]:
        path = f"{module.__name__}.{name}"
        if callable(value):
            yield path, value
        if inspect.isclass(value):
            for member, function in reference.public_members(value).items():
                yield f"{path}.{member}", function


def test_every_public_name_has_its_place(pages):
    missing = set(dir(keras_uap)) - names_in(pages["keras_uap.md"])
    modules = {name for name in missing if not name.startswith("__")}
    assert missing - modules == {"__version__"}
    assert {f"keras_uap.{name}" for name in modules} < set(reference.MODULES)
    for path in reference.MODULES[1:]:
        module = importlib.import_module(path)
        here = {
            name
            for name in getattr(module, "__all__", dir(module))
            if not name.startswith("_")
            and not inspect.ismodule(getattr(module, name))
        }
        assert here
        assert names_in(pages[f"{path.rpartition('.')[2]}.md"]) == here


def test_the_contents_name_them_all(pages):
    for path in reference.MODULES:
        for name in reference.public_names(importlib.import_module(path)):
            row = f"{{py:obj}}`{path}.{name}`"
            assert pages["index.md"].count(row) == 1
    for module, name, _ in reference.returned():
        row = f"{{py:obj}}`{module.__name__}.{name}`"
        assert pages["index.md"].count(row) == 1


def test_results_of_functions_have_their_place(pages):
    """Each class that a docstring says a function returns is described."""
    described = set()
    for page in pages.values():
        described |= set(re.findall(r"^`+\{py:class\} (\w+)", page, re.M))
    named = set()
    for _, value in documented():
        for section in reference.sections(value):
            if section.kind.value == "returns":
                text = str([vars(item) for item in section.value])
                named |= set(re.findall(r"`(?:\w+\.)*([A-Z][a-z]\w+)`", text))
    others = {"None", "Dataset", "DiGraph", "Figure", "History", "Lion"}
    assert named - others <= described
    page = pages["results.md"]
    methods = ("check", "save_card", "save_html", "table", "to_json", "at")
    for method in methods:
        assert f"{{py:method}} {method}(" in page
    assert "{py:method} half" not in page


@pytest.mark.parametrize(
    ("path", "value"),
    [pytest.param(*each, id=each[0]) for each in documented()],
)
def test_every_argument_is_described(path, value):
    assert inspect.getdoc(value), f"{path} has no docstring"
    if isinstance(value, property):
        return
    described = set()
    for section in reference.sections(value):
        if section.kind.value == "parameters":
            names = [
                name
                for item in section.value
                for name in reference.item_names(item)
            ]
            assert len(set(names)) == len(names)
            described |= set(names)
    function = getattr(value, "__func__", value)
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # An exception.
        return
    stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}
    expected = {
        stars.get(parameter.kind.name, "") + parameter.name
        for parameter in parameters
        if parameter.name not in ("self", "cls")
    }
    # Those of every Keras object are described by Keras, and so are the
    # methods that do what Keras' own do.
    assert expected - described - keras_own(path, value) == set()
    assert "" not in described


def test_markdown_is_kept(pages):
    page = pages["keras_uap.md"]
    assert ":param epsilon: Float above 0, the radius of the ball" in page
    assert ":raises TypeError:" in page
    assert "```python" in page
    assert "(https://arxiv.org/abs/1610.08401)" in page
    assert not re.search(r"^ *(Args|Returns|Raises|Attributes):$", page, re.M)


def test_a_section_that_is_a_list_begins_on_its_own_line(pages):
    text = "".join(pages.values())
    assert re.search(r"^ *:Reference: *\n +- \[", text, re.M)
    assert not re.search(r"^ *:\w+: - ", text, re.M)


def test_fields_of_json_are_those_of_the_results():
    results = {
        "audit": (Audit, Run, Survived),
        "report": (FoolingReport,),
        "transfer": (TransferMatrix,),
        "harden": (Hardening,),
    }
    page = (DOCS / "command_line.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (`\w+`.*)$", page, re.M)
    assert {command for command, _ in rows} == set(results)
    for command, cells in rows:
        fields = {
            field.name
            for result in results[command]
            for field in dataclasses.fields(result)
        }
        assert set(re.findall(r"`(\w+)`", cells)) <= fields


def test_files_of_the_commands_are_those_of_the_code():
    page = (DOCS / "command_line.md").read_text(encoding="utf-8")
    commands = (DOCS.parent / "keras_uap" / "cli").glob("*.py")
    code = "".join(path.read_text(encoding="utf-8") for path in commands)
    ends = "html|json|txt|png|npz|keras"
    named = set(re.findall(rf"`(\w+\.(?:{ends}))`", page))
    written = set(re.findall(rf'folder / "(\w+\.(?:{ends}))"', code))
    written |= set(re.findall(rf'output / "(\w+\.(?:{ends}))"', code))
    assert named == written


@pytest.mark.parametrize(
    ("path", "value"),
    [pytest.param(*each, id=each[0]) for each in documented()],
)
def test_one_word_for_one_thing(path, value):
    # Without the names of arguments.
    text = re.sub(r"^ *[\w*, ]+:", "", inspect.getdoc(value), flags=re.M)
    assert [found for _, found in wrong_words(text)] == []


def test_work_of_an_audit_is_that_of_the_code():
    page = (DOCS / "audit_method.md").read_text(encoding="utf-8")
    guide = (DOCS / "audit.md").read_text(encoding="utf-8")
    hardened = {"harden": for_hardening(BUDGETS["quick"])}
    for name, budget in (BUDGETS | hardened).items():
        rungs = [f"{count} of {passes:,}" for count, passes in budget.rungs]
        work = rf"{', '.join(rungs)}.* \| {budget.most:,} \|"
        assert re.search(rf"^\| .*{name}.* \| {work}$", page, re.M)
        if name in BUDGETS:
            assert f'`"{name}"` | at most {budget.most:,} model' in guide
