"""Tests of the page that one can hand on, as a text."""

import base64
import dataclasses
import hashlib
import html.parser
import io
import json
import xml.etree.ElementTree

import models
import numpy as np
import pytest
import results
from pages import CARD, HOSTILE, report_of, signs
from pages import audit as audit
from pages import report as report
from PIL import Image

from keras_uap import samples
from keras_uap.defenses import hardening


class Page(html.parser.HTMLParser):
    """The elements of a page: `(tag, attributes, text)`, in their order."""

    VOID = {"meta", "img", "input", "link", "br", "rect", "path"}

    def __init__(self, path):
        super().__init__()
        self.elements, self._open = [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), []))
        if tag not in self.VOID:
            self._open.append((tag, self.elements[-1][2]))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self._open.pop()[0] == tag
            if tag in ("td", "th", "dt", "dd"):
                self.handle_data(" ")

    def handle_data(self, data):
        for _, text in self._open:
            text.append(data)

    def all(self, *tags, **attributes):
        """Pairs of attributes and text of some elements."""
        return [
            (found, " ".join("".join(text).split()))
            for tag, found, text in self.elements
            if tag in tags
            and all(found.get(k) == v for k, v in attributes.items())
        ]

    @property
    def text(self):
        return self.all("body")[0][1]


@pytest.fixture
def audit_page(audit, tmp_path):
    audit.save_html(tmp_path / "audit.html", HOSTILE)
    return Page(tmp_path / "audit.html")


@pytest.fixture
def save(tmp_path):
    def write(report, *args, **kwargs):
        report.save_html(tmp_path / "report.html", *args, **kwargs)
        return Page(tmp_path / "report.html")

    return write


def pixels(address):
    """The pixels behind a `data:` address."""
    assert address.startswith("data:image/png;base64,")
    file = io.BytesIO(base64.b64decode(address.partition(",")[2]))
    return np.asarray(Image.open(file))


# What stands on it -----------------------------------------------------------


def test_the_answer_and_all_its_parts(audit, report, audit_page):
    text = audit_page.text
    low, high = report.fooling_interval
    assert f"changes the prediction on {report.fooling_rate:.0%}" in text
    assert f"The 95% interval is {low:.1%} to {high:.1%}" in text
    assert f"changes it on {report.random_rate:.0%}" in text
    assert "of at most 0.2 of 1 in each value" in text
    assert "Measured on 40 images of 10 photographs" in text
    assert "Warning. Beware of <b>bold</b> claims." in text
    assert "A note on" in text
    assert "lower bound" in text
    headings = [text for _, text in audit_page.all("h2")]
    assert headings == [
        "Fooling rates",
        "Examples",
        "The perturbation",
        "Effort",
        "After a change",
        "Each attack of the audit",
        "Labels",
        "How it was measured",
        "What the number means",
    ]
    rows = [text for _, text in audit_page.all("tr")]
    assert "The perturbation at twice the norm 87.5%" in rows
    assert sum("strongest" in row for row in rows) == 1
    assert "the held-out set: 10 images of 9 photographs" in text
    changed = "JPEG, quality 75 40.0%20.0% to 70.0% 20.0% to 70.0% 10.0%"
    assert changed in rows
    for word in ("1,234 model passes", "5 minutes", "0, 1", "keras_uap 0."):
        assert word in text


def test_context_and_its_noise(audit, tmp_path, monkeypatch):
    rows = [results.known("known", 0.7, 51.0)]
    monkeypatch.setattr(samples, "reference_audits", lambda: rows)
    audit.save_html(tmp_path / "audit.html")
    page = Page(tmp_path / "audit.html")
    assert "Among known classifiers" in [text for _, text in page.all("h2")]
    (row,) = [text for _, text in page.all("tr") if text.startswith("known")]
    assert row == "known 70.0%63.0% to 100.0% 63.0% to 100.0% 10.0%"
    assert any(t.startswith("This classifier") for _, t in page.all("tr"))
    assert "The images differ" in page.text


def test_json_inside_is_the_result(audit, audit_page):
    ((_, text),) = audit_page.all("script", id="result")
    assert json.loads(text) == json.loads(audit.to_json())
    assert json.loads(text)["card"]["classifier"] == CARD["classifier"]
    assert "\u2028" not in text


def test_report_without_a_card(report, save):
    page = save(report)
    assert "the classifier" in page.all("h1")[0][1]
    assert "class 0" in page.text
    assert "Each run" not in page.text
    ((_, text),) = page.all("script", id="result")
    assert json.loads(text) == json.loads(report.to_json())


def test_card(report, save):
    card = {"classifier": "x.keras", "seed": 7, "stop_reason": "all done"}
    text = save(report, card=card).text
    assert "x.keras" in text
    assert "Seed of the attack 7" in text
    assert "all done" in text


def test_target_is_the_answer(save):
    label = int(report_of().dominant_labels(1)[0][0])
    report = report_of(target=label)
    text = save(report, list("abcd")).text
    rate = f"{report.target_rate:.0%}"
    assert f"sends {rate} of the images to “{'abcd'[label]}”" in text


def test_nothing_fooled(save):
    report = report_of(v=np.zeros(models.SHAPE))
    text = save(report).text
    assert "changes the prediction on 0% of the images" in text
    assert "No image is fooled." in text


def test_a_rate_that_stands_on_too_little_is_told(save):
    assert (
        "wider than 30 points" in save(report_of(images=models.images(6))).text
    )
    assert "wider than" not in save(report_of(images=models.images(200))).text


def test_more_classes_are_folded_away(save, report):
    many = dataclasses.replace(
        report,
        clean_labels=np.arange(40),
        perturbed_labels=np.arange(40) + np.arange(40) % 2,
    )
    page = save(dataclasses.replace(many, examples=None))
    assert "28 more clean labels" in page.text
    assert "class 39" in page.text
    # A report of before has no examples.
    assert page.all("img") == []
    assert page.all("input") == []


# Examples --------------------------------------------------------------------


def test_examples_against_numpy(report):
    examples = report.examples
    model = models.linear()
    kernel, bias = model.layers[-1].get_weights()
    images = models.images()
    # One of each of 8 of the 10 photographs.
    assert len(set(examples.places // 4)) == 8
    np.testing.assert_array_equal(examples.images, images[examples.places])
    v = signs(models.SHAPE, 0.2)
    for j, strength in enumerate(np.arange(9) / 4):
        x = np.clip(images[examples.places] + strength * v, 0, 1)
        logits = x.reshape(8, -1) @ kernel + bias
        np.testing.assert_array_equal(examples.labels[:, j], logits.argmax(-1))
        odds = np.exp(logits - logits.max(-1, keepdims=True))
        np.testing.assert_allclose(
            examples.confidences[:, j],
            (odds / odds.sum(-1, keepdims=True)).max(-1),
            rtol=1e-3,
        )
    after = report.perturbed_labels[examples.places]
    np.testing.assert_array_equal(examples.labels[:, 4], after)


def test_examples_of_few_photographs():
    report = report_of(groups=np.arange(40) // 20)
    assert len(report.examples.places) == 8
    assert len(report_of(images=models.images(3)).examples.places) == 3


@pytest.mark.parametrize(
    ("channels", "value_range"), [(1, (-1, 1)), (3, (0, 255))]
)
def test_pictures_are_what_the_classifier_saw(channels, value_range, save):
    low, high = value_range
    images = models.images(12)[..., :channels] * (high - low) + low
    v = signs(images.shape[1:], 0.1 * (high - low))
    report = report_of(v, images, value_range=value_range)
    page = save(report)
    shown = page.all("img")
    # Clean and nine strengths of eight examples, and the perturbation.
    assert len(shown) == 8 * 10 + 1
    place = report.examples.places[2]
    for k in range(9):
        x = np.clip(images[place] + k / 4 * v, low, high)
        expected = np.squeeze(255 * (x - low) / (high - low))
        found = pixels(shown[20 + 1 + k][0]["src"])
        np.testing.assert_allclose(found, expected, atol=0.51)
    np.testing.assert_allclose(
        pixels(shown[-1][0]["src"]), np.squeeze(127.5 + 127.5 * np.sign(v))
    )


@pytest.mark.parametrize("shape", [(16, 8, 2)])
def test_what_is_no_picture_has_labels_all_the_same(shape, save):
    images = np.random.default_rng(0).uniform(size=(20, *shape))
    page = save(report_of(images=images, value_range=None))
    assert page.all("img") == []
    assert "cannot be drawn" in page.text
    assert len(page.all("figure")) == 8
    assert "none: nothing is clipped" in page.text


@pytest.mark.parametrize(
    "shape",
    [(16, 1), (16, 2), pytest.param((2000, 12), marks=pytest.mark.slow)],
)
def test_signals_are_lines(shape, save):
    images = np.random.default_rng(0).normal(size=(20, *shape))
    report = report_of(images=images, value_range=None)
    page = save(report)
    shown = page.all("img")
    # As of pictures: clean and nine strengths of each, and the perturbation.
    # There is room for fewer of the long ones.
    examples = (len(shown) - 1) // 10
    assert len(shown) == 10 * examples + 1
    assert examples == 8 if shape[0] == 16 else 3 <= examples < 8
    assert "cannot be drawn" not in page.text
    assert "grey" not in page.text
    drawn = min(shape[1], 8)
    for k, (attributes, _) in enumerate(shown):
        root = svg(attributes["src"])
        lines = [element.get("points").split() for element in root]
        # The clean one stands behind one that differs, zero behind v.
        behind = k % 10 > 1 or k == 10 * examples
        assert len(lines) == drawn * (1 + behind)
        assert all(len(line) <= 300 for line in lines)
        places = np.array([p.split(",") for line in lines for p in line], float)
        assert places.min() >= 0
        assert places[:, 0].max() == 300
        assert places[:, 1].max() <= float(root.get("height"))
    if shape == (16, 1):
        # The highest value stands highest, and v is where it is largest.
        line = svg(shown[0][0]["src"])[0].get("points").split()
        heights = [float(point.split(",")[1]) for point in line]
        first = report.examples.images[0]
        assert np.argmin(heights) == np.argmax(first)
        assert np.argmax(heights) == np.argmin(first)
    assert len(page.source) < 4_500_000


def svg(address):
    """The picture behind an address, as XML."""
    kind, text = address.split(",", 1)
    assert kind == "data:image/svg+xml;base64"
    return xml.etree.ElementTree.fromstring(base64.b64decode(text))


def test_large_pictures_leave_a_small_page(report, save):
    # The worst to compress, and more pixels than a screen shows.
    rng = np.random.default_rng(0)
    examples = dataclasses.replace(
        report.examples,
        images=rng.integers(0, 256, (8, 700, 600, 3)).astype("uint8"),
        perturbation=signs((700, 600, 3), 10),
    )
    page = save(
        dataclasses.replace(report, examples=examples, value_range=(0, 255))
    )
    assert len(page.source) < 5e6
    assert 1 <= len(page.all("figure")) - 1 < 8


# What it must not do ---------------------------------------------------------


def test_asks_for_nothing_from_outside(audit_page):
    for tag, attributes, _ in audit_page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert attributes.get("src", "data:").startswith("data:")
        assert not {"srcset", "poster", "action"} & attributes.keys()
        if "href" in attributes:
            href = attributes["href"]
            assert tag == "a"
            assert href.startswith(("#", "https://arxiv.org/"))
    style = audit_page.all("style")[0][1]
    assert "url(" not in style
    assert "@import" not in style


def test_policy_allows_its_own_style_and_script_alone(audit_page):
    ((policy, _),) = audit_page.all(
        "meta", **{"http-equiv": "Content-Security-Policy"}
    )
    assert policy["content"].startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        ((attributes, parts),) = [
            (found, parts)
            for name, found, parts in audit_page.elements
            if name == tag and "type" not in found
        ]
        assert attributes == {}
        digest = hashlib.sha256("".join(parts).encode()).digest()
        text = base64.b64encode(digest).decode()
        assert f"{tag}-src 'sha256-{text}'" in policy["content"]


def test_names_are_text(audit_page):
    tags = {tag for tag, _, _ in audit_page.elements}
    assert "b" not in tags
    assert len(audit_page.all("script")) == 2
    assert all(
        not name.startswith("on")
        for _, attributes, _ in audit_page.elements
        for name in attributes
    )
    for name in HOSTILE:
        assert " ".join(name.split()) in audit_page.text
    assert "49" not in audit_page.all("h1")[0][1]
    assert " ".join(CARD["classifier"].split()) in audit_page.all("title")[0][1]


def test_name_that_is_no_text(report, save):
    # What Python makes of the bytes of a file name that are no UTF-8.
    page = save(report, card={"classifier": "caf\udce9.keras"})
    assert r"caf\udce9.keras" in page.text


# For everybody ---------------------------------------------------------------


def test_structure(audit_page):
    ((attributes, _),) = audit_page.all("html")
    assert attributes["lang"] == "en"
    for landmark in ("header", "main", "footer", "h1", "title"):
        assert len(audit_page.all(landmark)) == 1
    tables = len(audit_page.all("table"))
    assert tables >= 5
    assert len([t for _, t in audit_page.all("caption") if t]) == tables
    for attributes, _ in audit_page.all("th"):
        assert attributes["scope"] in ("row", "col")
    for attributes, _ in audit_page.all("img"):
        assert attributes["alt"]
    ids = [a["id"] for _, a, _ in audit_page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes, _ in audit_page.elements:
        for name in ("for", "aria-labelledby"):
            assert attributes.get(name, ids[0]) in ids


def test_without_scripts_all_but_the_slider_is_there(audit_page):
    ((_, text),) = audit_page.all("noscript")
    assert "needs JavaScript" in text
    control = next(
        a for _, a, _ in audit_page.elements if a.get("class") == "control"
    )
    assert "hidden" in control
    # Of each example the strength 1 is shown, and no other.
    shown = [
        a["data-stop"]
        for _, a, _ in audit_page.elements
        if "data-stop" in a and "hidden" not in a
    ]
    assert shown == ["4"] * 9


def test_hardening_is_before_and_after(audit, tmp_path):
    interval = audit.fooling_interval
    found = hardening.Hardening(
        before=dataclasses.replace(audit, fooling_rate=0.91),
        after=audit,
        agreement=0.733,
        agreement_interval=interval,
        robust_agreement_before=0.123,
        robust_agreement=0.517,
        robust_agreement_interval=interval,
        robust_gain_interval=interval,
        gain_interval=interval,
        transferred_rate=0.31,
        data_free_rate=0.2,
        fresh_rate=0.4,
        longer_rate=0.37,
        accuracy_before=None,
        accuracy=None,
        robust_accuracy=None,
        history={},
        settings={"epochs": 4, "robustness": 0.5, "learning_rate": 2e-4},
        training_passes=1600,
        training_seconds=60.0,
        seconds=100.0,
        warnings=("Answers were lost.",),
    )
    path = tmp_path / "harden.html"
    found.save_html(path, HOSTILE)
    page = Page(path)
    text = page.text
    for words in (
        "Hardening against universal adversarial perturbations",
        "Before and after",
        "fooled by the strongest attack",
        "91.0%",
        "73.3%",
        "51.7%",
        "12.3%",
        "changed the prediction on 91% of the images before",
        "keeps 73% of the clean predictions",
        "4 epochs of 80 images, robustness 0.5",
        "1,600 model passes in 60 s",
        "Answers were lost.",
    ):
        assert words in text, words
    (warning,) = page.all("p", **{"class": "warning"})
    assert warning[1] == "Warning. Answers were lost."
