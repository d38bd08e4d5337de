"""Results of measurements: small frozen dataclasses with a table and a plot.

`Result.rows` is the one source of the text, of the HTML of a notebook and of
what commands print. `to_dict` gives plain values for JSON under the names of
the attributes. Arrays of images or weights would make it hundreds of megabytes
large and are left out.
"""

import dataclasses
import json
import math
import textwrap

import numpy as np

from keras_uap.utils.formatting import html_table, one_line, text_table

# Metadata of a dataclass field of large arrays: left out of `to_dict`.
LEFT_OUT = {"keras_uap_left_out": True}


class Result:
    """Base of the results: a line, a table and plain values of each.

    A subclass is a frozen dataclass (`eq=False, repr=False`) with `plot` and
    with `rows`.
    """

    def rows(self, class_names=None):
        """What `table` shows.

        Args:
            class_names: Sequence of strings, to name labels, if there are any.

        Returns:
            A title, the names of the columns, and a list of rows of strings.
        """
        raise NotImplementedError

    def _remarks(self):
        """Sentences below the table: explanations, notes and warnings."""
        return []

    def table(self, class_names=None):
        """The result as a text of at most 80 columns.

        Args:
            class_names: Sequence of strings, to name labels, if there are any.
        """
        title, header, rows = self.rows(class_names)
        lines = [textwrap.fill(line, 79) for line in title.split("\n")]
        lines.append(text_table(header, rows))
        remarks = [textwrap.fill(each, 79) for each in self._remarks()]
        return "\n".join([*lines, "", *remarks] if remarks else lines)

    def to_dict(self):
        """The result as plain Python values, for JSON, without images."""
        return _plain_fields(self)

    def to_json(self):
        """The result as a JSON text, without images."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __str__(self):
        return self.table()

    def __repr__(self):
        return one_line(type(self).__name__, vars(self))

    def _repr_html_(self):
        return html_table(*self.rows(), self._remarks())


def in_columns(title, *columns):
    """What `Result.rows` returns, of columns.

    Args:
        title: String.
        *columns: Tuples of the name of a column, the function that makes a
            string of a value, and the values.
    """
    names, formats, values = zip(*columns)
    return title, names, list(zip(*map(map, formats, values)))


def _plain_fields(value):
    return {
        field.name: _plain(getattr(value, field.name))
        for field in dataclasses.fields(value)
        if not field.metadata
    }


def _plain(value):
    if isinstance(value, Result):
        return value.to_dict()
    if dataclasses.is_dataclass(value):
        return _plain_fields(value)
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no NaN.
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value
