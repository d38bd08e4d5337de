"""The language of the README and the site, as far as a program can see it.

Rules: one word for one thing, at most 25 words and two numbers in a sentence,
at most 750 words on a page. Numbers beyond that belong in a table.
"""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]

# What not to write, and what to write in its place.
WORDS = {
    r"pictures?|crops": "image",
    r"(?<!augmented )views?": "augmented view",
    r"draws?|showings?": "augmented view, or image",
    r"networks?": "classifier",
    r"answers?|what it says": "prediction",
    r"of before|of the moment|anew|by now|an earlier run": "original, current",
    r"tells?|told|in words|smells?": "reports, warns, prints",
    r"varied": "augmented",
    r"random signs": "random noise",
    r"defends?|defences?|defended|undefended": "harden",
    r"figures": "results",
    r"(?<!model )(?<!model-)passes": "model passes, epochs",
    r"xi|kappa|eps": "epsilon, confidence",
    r"(?-i:l-infinity|linf)": "L-infinity",
    r"data sets?": "dataset",
    r"mend|leave away|in earnest|trials?": "fix, omit, for real use",
}

# What a page may say all the same, and why. At most twenty.
EXCEPTIONS = {
    ("paper.md", "xi"): "The paper's name, in a table of names.",
    ("results.md", "passes"): "A row that begins with model passes.",
}


def read(page):
    return page.read_text(encoding="utf-8")


def prose(text):
    """A page without its code, pictures, addresses, comments and marks."""
    text = re.sub(r"^(```+|:::+).*?^\1$", "", text, flags=re.M | re.S)
    text = re.sub(r"<!--.*?-->|<[^>]+>|^\(.*\)=$", "", text, flags=re.M | re.S)
    text = re.sub(r"!\[.*?\]\(.*?\)", "", text, flags=re.S)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    text = re.sub(r"\{[\w:]+\}", "", text)
    return re.sub(r"`[^`]*`", "CODE", text)


def sentences(text):
    """The sentences of the paragraphs and lists, without tables."""
    lines = [
        # A heading or a row of a table ends a paragraph, a list begins one.
        "" if re.match(r"[#|]", line) else re.sub(r"^ *(-|\d\.) ", "\n", line)
        for line in prose(text).splitlines()
    ]
    for block in re.split(r"\n\s*\n", "\n".join(lines)):
        for sentence in re.split(r"(?<=[.!?:;])[*_]*\s+", block.strip()):
            if sentence:
                yield " ".join(sentence.split())


def numbers(sentence):
    """The numbers of a sentence; years and the level of an interval are not."""
    sentence = re.sub(r"\b(19|20)\d\d\b|95% interval", "", sentence)
    return re.findall(r"(?<![\w.-])\d[\d,.]*\d|(?<![\w.-])\d", sentence)


each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@each_page
def test_no_line_is_lost(page):
    # A line that begins with % is a comment to MyST.
    assert not re.findall(r"^\s*%.*", read(page), re.M)


@each_page
def test_a_percent_sign_cannot_leave_its_number(page):
    assert not re.findall(r"\d\s%.*", read(page))


@each_page
def test_sentences_are_short(page):
    found = list(sentences(read(page)))
    assert [text for text in found if len(text.split()) > 25] == []


@each_page
def test_numbers_are_in_tables(page):
    found = list(sentences(read(page)))
    assert [text for text in found if len(numbers(text)) > 2] == []


@each_page
def test_one_word_for_one_thing(page):
    text = " ".join(prose(read(page)).split())
    found = []
    for words, better in WORDS.items():
        for match in re.finditer(rf"\b(?:{words})\b", text, re.I):
            if (page.name, match[0].lower()) not in EXCEPTIONS:
                place = text[max(0, match.start() - 30) : match.end() + 20]
                found.append(f"{place!r}: write {better}")
    assert found == []


def test_exceptions_are_few_and_used():
    assert len(EXCEPTIONS) <= 20
    for name, word in EXCEPTIONS:
        (page,) = [page for page in PAGES if page.name == name]
        assert re.search(rf"\b{word}\b", prose(read(page)), re.I)


@each_page
def test_pages_are_short(page):
    words = re.findall(r"\S*\w\S*", read(page))
    assert len(words) <= (700 if page == README else 750)
    if page == README:
        assert len(read(page).splitlines()) <= 160
