"""What every measurement returns: a small frozen result.

Its `to_dict` gives what JSON can hold; arrays of pictures, which would make it
hundreds of megabytes, are left out, and stay under their field names. `table`
is a text, which notebooks show in HTML, and `plot` a picture.
"""

import dataclasses
import json

import numpy as np

from keras_uap.perturbations.lp_ball import LpBall
from keras_uap.utils.formatting import html_table, one_line, text_table
from keras_uap.utils.progress import progress_bar as progress_bar

# Metadata of a dataclass field of pictures: left out of `to_dict`.
PICTURES = {"keras_uap_pictures": True}


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

    def table(self, class_names=None):
        """The result as a text of at most 80 columns.

        Args:
            class_names: Sequence of strings, to name labels, if there are any.
        """
        title, header, rows = self.rows(class_names)
        return f"{title}\n{text_table(header, rows)}"

    def to_dict(self):
        """The result as plain Python values, for JSON, without pictures."""
        return {
            field.name: _plain(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if not field.metadata
        }

    def to_json(self):
        """The result as a JSON text, without pictures."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self):
        return self.table()

    def __repr__(self):
        fields = dataclasses.fields(self)
        return one_line(
            type(self).__name__,
            {field.name: getattr(self, field.name) for field in fields},
        )

    def _repr_html_(self):
        return html_table(*self.rows())


def _plain(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value


def random_noise(shape, size, norm, rng):
    """Returns `LpBall(size, norm).noise(shape, rng)`, zeros for a size of 0."""
    if size == 0:
        return np.zeros(shape, "float32")
    return LpBall(size, norm).noise(shape, rng)
