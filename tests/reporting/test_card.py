"""Tests of the block for a model card."""

import dataclasses
import json

import pytest
import results
from pages import HOSTILE

from keras_uap.reporting import card


def audit(name="tiny.keras", warnings=()):
    known = results.CARD | {"classifier": name}
    made = results.audit(0.5, 2)
    return dataclasses.replace(made, card=known, warnings=warnings)


def test_markdown_and_json_have_the_same_results(tmp_path):
    audit().save_card(tmp_path / "card.md")
    text = (tmp_path / "card.md").read_text(encoding="utf-8")
    for row in (
        "changes the prediction on **50.0%** of the held-out images",
        "| Classifier | tiny.keras |",
        "| Norm | linf, at most 10 of 255 |",
        "held out: 200 images of 60 photographs |",
        "| Fooled: JPEG, quality 90 | 50.0% (25.0% to 100.0%), 30 images of "
        "12 photographs; by the change alone 5.0% |",
        "| Effort | budget standard, 1,000 model passes |",
        "| Seed | 3 |",
        "keras_uap 0.",
        "keras_uap.audit(classifier, images, epsilon=10, norm='linf', "
        "value_range=[0.0, 255.0], budget='standard', seed=3)",
    ):
        assert row in text, row
    values = json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))
    assert values["fooling_rate"] == 0.5
    assert values["survival"] == audit().to_dict()["survival"]
    assert f"Keras {values['versions']['Keras']}" in text


@pytest.mark.parametrize(
    "name",
    [
        *HOSTILE,
        "a | b \\| c",
        "[x](javascript:alert(1)) ![y](http://z)",
        "`code` **bold** <https://a.b> &lt; $x$ @who #1",
        "```\n# heading\n- item\ud800",
    ],
)
def test_hostile_names_are_text(name, tmp_path):
    markdown_it = pytest.importorskip("markdown_it")
    audit(name, (name,)).save_card(tmp_path / "card.md", f"keras-uap {name}")
    text = (tmp_path / "card.md").read_text(encoding="utf-8")
    parser = markdown_it.MarkdownIt("commonmark").enable("table")
    tokens = parser.parse(text)
    kinds = [token.type for token in tokens]
    assert kinds.count("tr_open") == 1 + 12
    assert kinds.count("heading_open") == kinds.count("fence") == 1
    inline = [t for token in tokens for t in token.children or []]
    expected = {"text", "strong_open", "strong_close"}
    assert {each.type for each in inline} - {"text_special"} <= expected
    cells = [token.content for token in tokens if token.type == "inline"]
    row = cells[cells.index("Classifier") + 1]
    (shown,) = parser.parseInline(row)
    assert "".join(t.content for t in shown.children) == card.shown(name)


def test_only_markdown(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.md"):
        audit().save_card(tmp_path / "card.json")
