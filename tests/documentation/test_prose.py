"""The language of the README and the site, as far as a program can see it."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def read(page):
    return page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_line_is_lost(page):
    # A line that begins with % is a comment to MyST.
    assert not re.findall(r"^\s*%.*", read(page), re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_percent_sign_cannot_leave_its_number(page):
    assert not re.findall(r"\d\s%.*", read(page))
