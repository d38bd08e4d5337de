"""Formatting: objects in one line, rates, tables as text and as HTML.

A notebook shows a result on one page, whatever arrays it holds. HTML is
escaped, because names of classes and of files may hold anything.
"""

import html

import numpy as np


def one_line(name, fields):
    """Returns `Name(field=value, ...)`, with shapes in the place of arrays.

    Args:
        name: String.
        fields: Dictionary from names to values. `None` is left out.
    """
    known = {key: value for key, value in fields.items() if value is not None}
    texts = [f"{key}={_short(value)}" for key, value in known.items()]
    return f"{name}({', '.join(texts)})"


def _short(value):
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (int, float)):
        return repr(value) if isinstance(value, int) else f"{value:.4g}"
    if isinstance(value, str):
        return repr(cut(value, 40))
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        shape = " x ".join(map(str, value.shape))
        return f"<{shape or 'scalar'} {np.dtype(value.dtype).name}>"
    if not isinstance(value, (tuple, list, dict)):
        return f"<{type(value).__name__}>"
    plain = all(isinstance(v, (int, float, str, np.generic)) for v in value)
    if isinstance(value, dict) or len(value) > 4 or not plain:
        return f"<{len(value)}>"
    return f"({', '.join(map(_short, value))})"


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
    widths = [max(map(len, column)) for column in zip(*lines)]
    while sum(widths) + 2 * (len(widths) - 1) > 79 and max(widths) > 4:
        widths[int(np.argmax(widths))] -= 1

    def line(row):
        first, *others = map(cut, row, widths)
        cells = [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]
        return "  ".join(cells).rstrip()

    return "\n".join(map(line, lines))


def html_table(caption, header, rows, remarks=()):
    """Returns rows as an HTML table, all of it escaped.

    Args:
        caption: String.
        header: Sequence of strings.
        rows: Sequence of sequences of strings.
        remarks: Sequence of strings, paragraphs below the table.
    """

    def line(cells, kind, scope):
        first, *others = (html.escape(str(cell)) for cell in cells)
        right = 'style="text-align:right"'
        rest = [f"<{kind} {right}>{cell}</{kind}>" for cell in others]
        name = f'<th scope="{scope}" style="text-align:left">{first}</th>'
        return f"<tr>{name}{''.join(rest)}</tr>"

    body = "".join(line(row, "td", "row") for row in rows)
    below = "".join(f"<p>{html.escape(each)}</p>" for each in remarks)
    return (
        f"<table><caption>{html.escape(caption)}</caption>"
        f"<thead>{line(header, 'th', 'col')}</thead>"
        f"<tbody>{body}</tbody></table>{below}"
    )


def images_of(count, photographs, words=("images", "photograph")):
    """A number of images, and of the photographs that they were cut from."""
    images, photograph = words
    if photographs == count:
        return f"{count:,} {images}, each its own {photograph}"
    return f"{count:,} {images} of {photographs:,} {photograph}s"


def measured_on(result):
    """What was measured on: "54 images of 12 photographs"."""
    example = getattr(result, "examples", None) or result
    is_signal = np.ndim(getattr(example, "perturbation", None)) == 2
    words = [("signals", "recording")] if is_signal else []
    return images_of(result.num_images, result.num_groups, *words)


def sample(result):
    """What was measured on, as "n = ..."."""
    return f"n = {measured_on(result)}"
