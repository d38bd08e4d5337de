"""How things are told: an object in one line, rows as a text or in HTML.

What a notebook shows of a result must fit on a page, whatever arrays it holds,
and what is written in HTML is escaped: names of classes and of files are
anybody's.
"""

import html

import numpy as np

# So wide a table of text may be, and so many values are named in one line.
_COLUMNS = 79
_NAMED = 4


def one_line(name, fields):
    """Returns `Name(field=value, ...)`, with shapes in the place of arrays.

    Args:
        name: String.
        fields: Dictionary from names to values. `None` is left out.
    """
    told = [
        f"{field}={_told(value)}"
        for field, value in fields.items()
        if value is not None
    ]
    return f"{name}({', '.join(told)})"


def _told(value):
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (bool, int)):
        return repr(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        return repr(cut(value, 40))
    if isinstance(value, (tuple, list)):
        plain = all(
            isinstance(part, (int, float, str, np.generic)) for part in value
        )
        if plain and len(value) <= _NAMED:
            return f"({', '.join(_told(part) for part in value)})"
        return f"<{len(value)}>"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        shape = " x ".join(str(size) for size in value.shape)
        return f"<{shape or 'scalar'} {np.dtype(value.dtype).name}>"
    if isinstance(value, dict):
        return f"<{len(value)}>"
    return f"<{type(value).__name__}>"


def cut(text, most):
    """Cuts a text to a number of characters, in one line."""
    text = " ".join(str(text).split())
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def percent(rate):
    return f"{rate:.1%}"


def interval(pair):
    """An interval of shares: "1.0% to 2.0%"."""
    return f"{pair[0]:.1%} to {pair[1]:.1%}"


def text_table(header, rows):
    """Returns rows as a text, the first column to the left.

    Args:
        header: Sequence of strings.
        rows: Sequence of sequences of strings, each as long. Where a line is
            longer than 79 characters, the widest column is cut.
    """
    lines = [[" ".join(str(c).split()) for c in row] for row in [header, *rows]]
    widths = [max(len(cell) for cell in column) for column in zip(*lines)]
    while sum(widths) + 2 * (len(widths) - 1) > _COLUMNS and max(widths) > 4:
        widths[int(np.argmax(widths))] -= 1
    return "\n".join(
        "  ".join(
            cut(cell, width).ljust(width)
            if i == 0
            else cut(cell, width).rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in lines
    )


def html_table(caption, header, rows):
    """Returns rows as an HTML table, all of it escaped.

    Args:
        caption: String.
        header: Sequence of strings, or `None` where each row names itself.
        rows: Sequence of sequences of strings.
    """

    def line(cells, kind):
        first, *others = (html.escape(str(cell)) for cell in cells)
        rest = "".join(
            f'<{kind} style="text-align:right">{cell}</{kind}>'
            for cell in others
        )
        return (
            f'<tr><th scope="row" style="text-align:left">{first}</th>'
            f"{rest}</tr>"
        )

    head = ""
    if header is not None:
        head = f"<thead>{line(header, 'th')}</thead>".replace(
            'scope="row"', 'scope="col"'
        )
    body = "".join(line(row, "td") for row in rows)
    return (
        f"<table><caption>{html.escape(caption)}</caption>{head}"
        f"<tbody>{body}</tbody></table>"
    )


def first_line(error):
    """The first line of an error's message, which may have none."""
    return (str(error).strip().splitlines() or [""])[0]
