"""Tests of the JSON schema: it takes every result, and no broken one."""

import copy
import json
import pathlib
import sys

import pytest
import results

from keras_uap.reporting import card

DOCS = pathlib.Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS))

import schema  # noqa: E402

jsonschema = pytest.importorskip("jsonschema")

WHOLE = schema.schema()
EACH = [(type(each).__name__, each) for each in results.one_of_each()]


def errors(name, values):
    one = {"$ref": f"#/$defs/{name}", "$defs": WHOLE["$defs"]}
    found = jsonschema.Draft202012Validator(one).iter_errors(values)
    return [error.json_path for error in found]


def test_schema_is_one_and_every_field_is_described():
    jsonschema.Draft202012Validator.check_schema(WHOLE)
    assert json.loads(schema.text()) == WHOLE
    for definition in WHOLE["$defs"].values():
        for field in definition["properties"].values():
            assert field["description"]


def test_schema_has_every_result():
    assert {cls.__name__ for cls in schema.RESULTS} == {n for n, _ in EACH}


@pytest.mark.parametrize(("name", "result"), EACH)
def test_result_is_as_the_schema_says(name, result):
    values = json.loads(result.to_json())
    assert errors(name, values) == []
    for field in WHOLE["$defs"][name]["required"]:
        broken = copy.copy(values)
        del broken[field]
        assert errors(name, broken) == ["$"]


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"fooling_rate": 1.5}, "$.fooling_rate"),
        ({"fooling_interval": [0.1]}, "$.fooling_interval"),
        ({"runs": [{}]}, "$.runs[0]"),
        ({"num_fit": "many"}, "$.num_fit"),
    ],
)
def test_broken_audit_is_refused(changes, place):
    found = errors("Audit", results.audit(0.5).to_dict() | changes)
    assert {each.partition("][")[0] for each in found} == {place}


def test_audit_of_an_earlier_version_is_taken():
    values = results.audit(0.5).to_dict()
    del values["survival"]
    assert errors("Audit", values) == []


def test_card_is_as_the_schema_says():
    values = json.loads(json.dumps(card.card_of(results.audit(0.5))))
    assert errors("card", values) == []
    assert values.keys() == WHOLE["$defs"]["card"]["properties"].keys()
