"""Bad picture files: a damaged file is named, and costs no other."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from keras_uap import datasets

FORMATS = ("jpeg", "png", "webp", "tiff", "gif", "bmp")


def encode(form, rng):
    size = rng.integers(4, 40, 2)
    pixels = rng.integers(0, 256, (*size, 3)).astype("uint8")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def damage(content, rng):
    kind = rng.integers(0, 4)
    if kind == 0:
        return b""
    if kind == 1:
        return content[: rng.integers(1, len(content))]
    if kind == 2:
        return bytes(rng.integers(0, 256, rng.integers(1, 300)).astype("uint8"))
    content = bytearray(content)
    for place in rng.integers(0, len(content), 1 + len(content) // 50):
        content[place] = rng.integers(0, 256)
    return bytes(content)


@pytest.mark.parametrize("form", FORMATS)
def test_the_others_are_read(form, quick, seed, count, tmp_path):
    rng = np.random.default_rng([seed, FORMATS.index(form)])
    suffix = {"jpeg": "jpg", "tiff": "tif"}.get(form, form)
    for i in range(2 if quick else 25):
        folder = tmp_path / str(i)
        folder.mkdir()
        good = []
        for j in range(12):
            path, content = folder / f"{j:02}.{suffix}", encode(form, rng)
            if j % 3 == 1:
                content = damage(content, rng)
                count("damaged files")
            else:
                good.append(str(path))
            path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pictures = datasets.load(folder, (8, 8))
        assert set(good) <= set(pictures.paths)
        assert len(pictures.paths) + len(pictures.left_out) == 12
        assert len(pictures.images) == len(pictures.paths)
        count("left out and named", len(pictures.left_out))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            some = datasets.load(folder, (8, 8), limit=9)
        places = np.isin(pictures.paths, some.paths)
        np.testing.assert_array_equal(some.images, pictures.images[places])
