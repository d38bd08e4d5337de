"""The language of the README and the site, as far as a program can see it.

Rules: one word for one thing, at most 25 words and two numbers in a sentence,
at most 750 words on a page. Numbers beyond that belong in a table.
"""

import json
import pathlib
import re

import pytest
from prose import numbers, prose, sentences, wrong_words

ROOT = pathlib.Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# What a page may say all the same, and why. At most twenty.
EXCEPTIONS = {
    ("paper.md", "xi"): "The paper's name, in a table of names.",
    ("paper.ipynb", "figures"): "The paper's own, which it shows again.",
}


def read(page):
    """The text of a page, or of a notebook without code and outputs."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        return text
    return "\n\n".join(
        "".join(cell["source"])
        for cell in json.loads(text)["cells"]
        if cell["cell_type"] == "markdown"
    )


def name(page):
    return page.name


each_page = pytest.mark.parametrize("page", PAGES, ids=name)
each_text = pytest.mark.parametrize("page", PAGES + NOTEBOOKS, ids=name)


@each_text
def test_no_line_is_lost(page):
    # A line that begins with % is a comment to MyST.
    assert not re.findall(r"^\s*%.*", read(page), re.M)


@each_text
def test_a_percent_sign_cannot_leave_its_number(page):
    assert not re.findall(r"\d\s%.*", read(page))


@each_text
def test_sentences_are_short(page):
    found = list(sentences(read(page)))
    assert [text for text in found if len(text.split()) > 25] == []


@each_page
def test_numbers_are_in_tables(page):
    found = list(sentences(read(page)))
    assert [text for text in found if len(numbers(text)) > 2] == []


@each_text
def test_one_word_for_one_thing(page):
    assert [
        found
        for word, found in wrong_words(read(page))
        if (page.name, word) not in EXCEPTIONS
    ] == []


def test_exceptions_are_few_and_used():
    assert len(EXCEPTIONS) <= 20
    for name, word in EXCEPTIONS:
        (page,) = [page for page in PAGES + NOTEBOOKS if page.name == name]
        assert re.search(rf"\b{word}\b", prose(read(page)), re.I)


@each_page
def test_pages_are_short(page):
    words = re.findall(r"\S*\w\S*", read(page))
    assert len(words) <= (700 if page == README else 750)
    if page == README:
        assert len(read(page).splitlines()) <= 160
