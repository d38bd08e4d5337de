"""What every measurement returns: a small frozen result.

Its `to_dict` gives what JSON can hold; arrays of pictures, which would make it
hundreds of megabytes, are left out, and stay under their field names.
"""

import dataclasses

import numpy as np

from keras_uap.lp_ball import LpBall
from keras_uap.progress import progress_bar as progress_bar

# Metadata of a dataclass field of pictures: left out of `to_dict`.
PICTURES = {"keras_uap_pictures": True}


class Result:
    """Base of the results: `to_dict` from the fields of the dataclass."""

    def to_dict(self):
        """The result as plain Python values, for JSON, without pictures."""
        return {
            field.name: _plain(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if not field.metadata
        }


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
