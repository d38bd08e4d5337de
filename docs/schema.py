"""Makes the JSON schema of the results: of `to_dict` and the `.json` files.

A field has the type of its annotation, and its line in the docstring. Numbers
that are not finite are null. Fields with a default are optional: files of
earlier versions do not have them.
"""

import dataclasses
import inspect
import json
import types
import typing

import reference

from keras_uap import analysis
from keras_uap.defenses.hardening import Hardening
from keras_uap.evaluation.audit_result import Audit, Run
from keras_uap.evaluation.changes import Survived
from keras_uap.reporting import card
from keras_uap.reporting.result import Result

PARTS = {"runs": Run, "survival": Survived}
RESULTS = [
    Audit,
    Hardening,
    *(
        value
        for value in vars(analysis).values()
        if inspect.isclass(value) and issubclass(value, Result)
    ),
]
_TYPES = {
    bool: {"type": "boolean"},
    dict: {"type": "object"},
    float: {"type": ["number", "null"]},
    int: {"type": "integer"},
    str: {"type": "string"},
}
_RATE = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
_PAIR = {
    "type": "array",
    "items": _TYPES[float],
    "minItems": 2,
    "maxItems": 2,
}
_OWN = {
    "classifier": ({"type": "string"}, "Name of the classifier."),
    "seed": ({"type": "integer"}, "Seed of the audit."),
    "threat_model": ({"type": "string"}, "Who can do what, in a sentence."),
    "command": ({"type": "string"}, "The call that repeats the audit."),
    "versions": ({"type": "object"}, "From the software to its version."),
    "date": ({"type": "string"}, "The day on which the card was written."),
}


def schema():
    """Returns the schema of all results; each is in `$defs`."""
    definitions = {
        cls.__name__: _object(cls) for cls in (*RESULTS, Run, Survived)
    }
    definitions["card"] = _card(definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Results of keras_uap",
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in definitions],
        "$defs": definitions,
    }


def text():
    return json.dumps(schema(), indent=1) + "\n"


def _object(cls):
    hints, texts = typing.get_type_hints(cls), _texts(cls)
    fields = [each for each in dataclasses.fields(cls) if not each.metadata]
    return {
        "type": "object",
        "properties": {
            each.name: {"description": texts[each.name]}
            | _value(each.name, hints[each.name])
            for each in fields
        },
        "required": [
            each.name for each in fields if each.default is dataclasses.MISSING
        ],
    }


def _texts(cls):
    """The description of each attribute, in one line."""
    return {
        name: " ".join(item.description.split())
        for section in reference.sections(cls)
        if section.kind.value == "parameters"
        for item in section.value
        for name in reference.item_names(item)
    }


def _value(name, hint):
    if name in PARTS:
        items = {"$ref": f"#/$defs/{PARTS[name].__name__}"}
        return {"type": "array", "items": items}
    if isinstance(hint, types.UnionType):
        kinds = [each for each in hint.__args__ if each is not type(None)]
        options = [_value(name, each) for each in kinds]
        return {"anyOf": [*options, {"type": "null"}]}
    if dataclasses.is_dataclass(hint):
        return {"$ref": f"#/$defs/{hint.__name__}"}
    if hint is float and name.endswith("_rate"):
        return _RATE
    if name.endswith("_interval"):
        return _PAIR
    return _TYPES.get(hint, {"type": "array"})


def _card(definitions):
    audit, report = (
        definitions[name]["properties"] for name in ("Audit", "FoolingReport")
    )
    properties = {
        name: {"description": text} | kind
        for name, (kind, text) in _OWN.items()
    }
    properties |= {
        name: report[name] for name in ("norm", "epsilon", "value_range")
    }
    properties |= {name: audit[name] for name in card.FIELDS}
    return {
        "type": "object",
        "description": "What `Audit.save_card` writes as JSON.",
        "properties": properties,
        "required": list(properties),
    }
