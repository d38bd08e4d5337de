"""Opens the pages of the documentation in Chromium.

They are built first: `sphinx-build -W -n docs docs/_build/html`.
"""

import pathlib

import pytest
from browser import WIDTHS

BUILT = pathlib.Path(__file__).parents[2] / "docs" / "_build" / "html"
PAGES = [
    path
    for path in sorted(BUILT.rglob("*.html"))
    # The sources, as Sphinx colours them, and a page of an audit.
    if path.relative_to(BUILT).parts[0] not in ("_modules", "_static")
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not PAGES, reason="the documentation is not built"),
]


def name(page):
    return str(page.relative_to(BUILT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_page_can_be_read(browser, page):
    shades = []
    for dark in (False, True):
        for width in WIDTHS:
            browser.open(page, width, dark)
            assert not browser.console()
            assert browser.overflow() <= 0, f"{width} px"
            assert not sticking_out(browser), f"{width} px"
            assert not broken_words(browser), f"{width} px"
        shades.append(brightness(browser))
    assert shades[0] > 200, "light"
    assert shades[1] < 60, "dark"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(
    "page",
    ["index", "comparison", "reference/keras_uap", "notebooks/quickstart"],
)
def test_text_stands_out(browser, page, dark):
    browser.open(BUILT / f"{page}.html", WIDTHS[1], dark)
    # By the rule of 4.5 to 1. (The theme's own landmarks and captions break
    # other rules.)
    assert not [
        found
        for found in browser.violations()
        if found.startswith("color-contrast:")
    ]


def test_pictures_are_there(browser):
    browser.open(BUILT / "index.html")
    sizes = browser.script(
        "return [...document.images].map(image => image.naturalWidth)"
    )
    assert sizes
    assert min(sizes) > 0


def test_commands_do_not_link_to_functions(browser):
    browser.open(BUILT / "command_line.html")
    links = browser.find("article a[href*='#keras_uap.']")
    assert [link.text for link in links] == []
    assert "audit" in browser.find("article")[0].text


def test_wide_tables_scroll_inside_themselves(browser):
    browser.open(BUILT / "comparison.html", WIDTHS[0])
    wide = browser.script(
        "return [...document.querySelectorAll('.table-wrapper')].filter("
        "box => box.scrollWidth > box.clientWidth).length"
    )
    assert wide > 0
    assert not sticking_out(browser)
    browser.script(
        "const box = document.createElement('p');"
        "box.style.width = '3000px';"
        "document.querySelector('article').append(box);"
    )
    assert sticking_out(browser)


def test_nothing_is_fetched_from_outside(browser):
    browser.open(BUILT / "index.html")
    addresses = browser.requests()
    assert addresses
    assert all(address.startswith("file:") for address in addresses)


def test_search_finds_a_name(browser):
    browser.open(BUILT / "search.html")
    found = browser.driver.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "Search.performSearch('UniversalPerturbation');"
        "let turns = 0;"
        "const timer = setInterval(() => {"
        "  const links = document.querySelectorAll('#search-results li a');"
        "  if (links.length || ++turns > 100) {"
        "    clearInterval(timer);"
        "    done([...links].map(link => link.textContent));"
        "  }"
        "}, 100);"
    )
    assert any("UniversalPerturbation" in text for text in found)


def sticking_out(browser):
    """What is wider than the window, and in no box that scrolls itself.

    The theme cuts the page off at the window, so its own width says nothing.
    """
    return browser.script(
        "const scrolls = box => /auto|scroll/.test("
        "  getComputedStyle(box).overflowX);"
        "const article = document.querySelector('article');"
        "return [...article.querySelectorAll('*')].filter(element => {"
        "  const box = element.getBoundingClientRect();"
        "  if (!box.width || box.right <= innerWidth + 1) return false;"
        "  let outer = element.parentElement;"
        "  while (outer !== article && !scrolls(outer))"
        "    outer = outer.parentElement;"
        "  return outer === article;"
        "}).map(element => element.outerHTML.slice(0, 200));"
    )


def broken_words(browser):
    """The words of tables that are broken over two lines, and rates too."""
    return browser.script(
        "const broken = [];"
        "for (const cell of document.querySelectorAll("
        "'table.docutils :is(td, th)')) {"
        "  const walk = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);"
        "  while (walk.nextNode()) {"
        "    for (const word of walk.currentNode.data.matchAll("
        "        /[\\w.%]+( %)?/g)) {"
        "      const range = document.createRange();"
        "      range.setStart(walk.currentNode, word.index);"
        "      range.setEnd(walk.currentNode, word.index + word[0].length);"
        "      const tops = [...range.getClientRects()].map(box => box.top);"
        "      if (new Set(tops).size > 1) broken.push(word[0]);"
        "    }"
        "  }"
        "}"
        "return broken;"
    )


def brightness(browser):
    """The mean of the background's red, green and blue, 0 to 255."""
    return browser.script(
        "const color = getComputedStyle(document.body).backgroundColor;"
        "const [r, g, b] = color.match(/[0-9.]+/g).map(Number);"
        "return (r + g + b) / 3;"
    )
