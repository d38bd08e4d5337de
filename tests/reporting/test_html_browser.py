"""Tests of the page that one can hand on, in a browser."""

import numpy as np
import pytest
import results
from browser import WIDTHS
from pages import CARD, HOSTILE, report_of, signs
from pages import audit as audit
from pages import report as report

from keras_uap import samples

pytestmark = pytest.mark.browser


@pytest.fixture
def page(audit, tmp_path, monkeypatch):
    name = "EfficientNet-Lite0, hardened"
    rows = [results.known(name, rate, 51.0) for rate in (0.9, 0.7, 0.5, 0.3)]
    monkeypatch.setattr(samples, "reference_audits", lambda: rows)
    audit.save_html(tmp_path / "audit.html", HOSTILE)
    return tmp_path / "audit.html"


def shown(browser):
    """The label under each example, and the address of its picture."""
    return [
        (
            part.find_element("tag name", "bdi").text,
            part.find_element("tag name", "img").get_attribute("src"),
        )
        for part in browser.find("figure [data-stop]")
        if part.is_displayed()
    ]


def test_slider_by_keyboard(browser, page, report):
    from selenium.webdriver.common.keys import Keys

    browser.open(page)
    (slider,) = browser.find("#strength")
    assert slider.is_displayed()
    names = [" ".join(name.split()) for name in HOSTILE]
    clean = [
        image.get_attribute("src")
        for image in browser.find(".pair > div:first-child img")
    ]
    seen = []
    # Tab reaches it: the link to the answer comes first.
    browser.find("body")[0].send_keys(Keys.TAB, Keys.TAB)
    assert browser.script("return document.activeElement.id") == "strength"
    slider.send_keys(Keys.HOME)
    for k in range(9):
        labels, pictures = zip(*shown(browser))
        expected = [names[label] for label in report.examples.labels[:, k]]
        assert [" ".join(label.split()) for label in labels] == expected
        seen.append(pictures)
        said = slider.get_attribute("aria-valuetext")
        labels = report.examples.labels
        fooled = int((labels[:, k] != labels[:, 0]).sum())
        assert said == (
            f"Strength {k / 4:g}: norm {k * 0.05:.4g}, {fooled} of 8 fooled"
        )
        slider.send_keys(Keys.ARROW_RIGHT)
    assert list(seen[0]) == clean
    for pictures in zip(*seen):
        assert len(set(pictures)) == 9
    assert browser.console() == []


@pytest.mark.parametrize("width", WIDTHS)
def test_context_effort_and_survival_take_a_screen_each(browser, page, width):
    browser.open(page, width)
    for name in ("effort", "context", "survival"):
        (section,) = browser.find(f"section[aria-labelledby='{name}']")
        assert section.size["height"] <= browser.script("return innerHeight")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_every_width_and_scheme(browser, page, width, dark):
    browser.open(page, width, dark)
    for details in browser.find("details"):
        browser.script("arguments[0].open = true", details)
    assert browser.overflow() == 0
    assert browser.violations() == []
    paper = browser.script(
        "return getComputedStyle(document.body).backgroundColor"
    )
    assert (int(paper.split(",")[1]) < 128) == dark
    assert browser.console() == []
    assert browser.requests() == [page.resolve().as_uri()]


def test_hostile_names_do_nothing(browser, page):
    browser.open(page)
    assert browser.find("section img[src='x']") == []
    assert len(browser.find("script")) == 2
    title = " ".join(browser.driver.title.split())
    assert " ".join(CARD["classifier"].split()) in title
    # A script that came in all the same would not run.
    browser.script(
        "const script = document.createElement('script');"
        "script.textContent = 'window.ran = true';"
        "document.body.append(script);"
    )
    assert browser.script("return window.ran") is None
    assert "Content Security Policy" in browser.console()[0]


def test_without_scripts(browser, page, report):
    browser.open(page, scripts=False)
    assert browser.find("#strength")[0].is_displayed() is False
    assert len(shown(browser)) == 8
    assert "needs JavaScript" in browser.find("noscript")[0].text
    browser.open(page)
    assert browser.find("#strength")[0].is_displayed()


@pytest.mark.parametrize("width", WIDTHS)
def test_signals_and_long_names(browser, tmp_path, width):
    images = np.random.default_rng(0).uniform(size=(20, 16, 2))
    report = report_of(signs((16, 2), 0.3), images)
    path = tmp_path / "report.html"
    names = [f"{k}" + 30 * "Donaudampfschifffahrt" for k in range(4)]
    card = {"classifier": 40 * "long_name_"}
    report.save_html(path, names, card)
    browser.open(path, width)
    assert browser.overflow() == 0
    assert browser.violations() == []
    assert browser.console() == []


def test_print(browser, page):
    browser.open(page)
    browser.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"media": "print"}
    )
    assert browser.find("#strength")[0].is_displayed() is False
    assert len(shown(browser)) == 8
    paper = "return getComputedStyle(document.body).backgroundColor"
    assert browser.script(paper) == "rgb(255, 255, 255)"
