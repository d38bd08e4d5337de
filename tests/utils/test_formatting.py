"""What a notebook shows of an object: one line, a table, HTML."""

import dataclasses
import html.parser
import inspect
import json

import models
import pytest
import results

import keras_uap
from keras_uap import analysis
from keras_uap.defenses.hardening import Hardening
from keras_uap.evaluation import audit_result
from keras_uap.reporting.result import Result
from keras_uap.utils import formatting

HOSTILE = '<script>alert("&")</script>'


class Parser(html.parser.HTMLParser):
    """Collects the tags and the texts, and finds tags that do not match."""

    def __init__(self):
        super().__init__()
        self.tags, self.texts, self.open = set(), [], []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def all_results():
    return [
        *results.one_of_each(),
        results.transfer(2, 2, HOSTILE),
        results.curve((HOSTILE, "b" * 90), 1),
    ]


def test_there_is_one_of_each(all_results):
    kinds = {
        value
        for value in (*vars(analysis).values(), audit_result.Audit, Hardening)
        if inspect.isclass(value) and issubclass(value, Result)
    }
    assert kinds == {type(result) for result in all_results}


def test_a_line_a_table_and_html(all_results):
    for result in all_results:
        line = repr(result)
        assert "\n" not in line
        assert len(line) < 1000
        assert "array(" not in line
        assert line.startswith(type(result).__name__ + "(")

        table = result.table()
        assert str(result) == table
        assert max(map(len, table.splitlines())) <= 80
        assert len(table.splitlines()) > 2

        parser = Parser()
        parser.feed(result._repr_html_())
        assert not parser.open
        assert parser.tags <= {
            *("table", "caption", "thead", "tbody", "tr", "th", "td", "p"),
        }
        _, header, rows = result.rows()
        assert all(len(row) == len(header) for row in rows)
        found = " ".join(parser.texts)
        assert all(str(cell) in found for row in rows for cell in row)


def test_names_of_classes_are_named_and_escaped(all_results):
    names = [HOSTILE, *["a very long name of a class" * 5] * 99]
    for result in all_results:
        if "class_names" not in inspect.signature(result.plot).parameters:
            continue
        table = result.table(names)
        assert max(map(len, table.splitlines())) <= 80
        page = formatting.html_table(*result.rows(names))
        assert "<script>" not in page


def test_remarks_stand_below_the_table(all_results):
    for result in all_results[:3]:
        text, page = " ".join(result.table().split()), result._repr_html_()
        for remark in result._remarks():
            assert remark in text
            assert f"<p>{html.escape(remark)}</p>" in page
    assert "Warning: The classifier lost predictions." in text


def test_to_dict_has_the_names_of_the_attributes(all_results):
    for result in all_results:
        values = json.loads(result.to_json())
        for name, value in values.items():
            plain = getattr(result, name)
            if isinstance(plain, (int, float, str)):
                assert value == plain
    values = results.hardening(0.9, 0.4).to_dict()
    assert values["before"]["report"]["fooling_rate"] == 0.9
    assert values["after"]["runs"][0]["fooling_rate"] == 0.4
    assert "perturbation" not in values["after"]


def test_the_fields_of_results_are_frozen(all_results):
    for result in all_results:
        field = dataclasses.fields(result)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, field, 0)


def test_one_line_of_what_is_not_a_result():
    x = models.images(12)
    uap = keras_uap.UniversalPerturbation(
        models.linear(), 0.05, value_range=(0, 1), name="uap"
    )
    uap.fit(x, validation_data=x, verbose=0)
    layer = keras_uap.PerturbationLayer(uap, value_range=(0, 1), rate=0.5)
    lines = {
        "UniversalPerturbation": (uap, ["epsilon=0.05", "norm='linf'"]),
        "PerturbationLayer": (layer, ["rate=0.5", "<1 x 8 x 8 x 3 float32>"]),
        "DeepFool": (keras_uap.DeepFool(), ["boundary='dominant'"]),
        "LpBall": (keras_uap.LpBall(3, 2), ["epsilon=3", "norm='l2'"]),
        "DeepFoolResult": (
            keras_uap.deepfool(models.linear(), x, verbose=0),
            ["perturbations=<12 x 8 x 8 x 3 float32>"],
        ),
        "Pictures": (keras_uap.datasets.Pictures(x), ["<12 x 8 x 8 x 3"]),
    }
    for name, (thing, parts) in lines.items():
        line = repr(thing)
        assert line.startswith(name + "(")
        assert "\n" not in line
        assert len(line) < 400
        for part in parts:
            assert part in line
    unbuilt = keras_uap.UniversalPerturbation(
        models.Subclassed(), 0.05, value_range=(0, 1), from_logits=False
    )
    assert "perturbation=" not in repr(unbuilt)
    assert "perturbations" not in repr(keras_uap.PerturbationLayer())


def test_plot_of_a_perturbation():
    uap = keras_uap.UniversalPerturbation(
        models.linear(), 0.05, value_range=(0, 1)
    )
    figure = uap.plot(models.images(3), ["a", "b", "c", "d"], title="mine")
    assert figure.get_suptitle() == "mine"
    assert len(figure.axes) == 8


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ((60, 60), "60 images, each its own photograph"),
        ((60, 10), "60 images of 10 photographs"),
        ((2100, 1050), "2,100 images of 1,050 photographs"),
    ],
)
def test_images_and_photographs(counts, text):
    assert formatting.images_of(*counts) == text
