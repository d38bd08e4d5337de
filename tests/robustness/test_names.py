"""Names of files: crops are told from photographs by what the names say."""

import pathlib

import pytest
from PIL import Image

from keras_uap import datasets
from keras_uap.data.splitting import photographs

WORDS = ("garden", "IMG", "x_1", "cat", "2024", "frame", "a-b", "DSC_0")


def camera(rng, number):
    days = rng.integers(1, 28, number)
    return [f"IMG_202405{d:02}_{100000 + 37 * i}" for i, d in enumerate(days)]


def counter(rng, number):
    start = int(rng.integers(0, 9000))
    return [f"{rng.choice(WORDS)}_{start + i:04}" for i in range(number)]


def one_prefix(rng, number):
    return [f"frame_{i:03}" for i in range(number)]


def classes(rng, number):
    """As many files of each of a few classes, numbered from 0 or 1."""
    names = WORDS[: rng.integers(2, 5)]
    start, most = rng.integers(0, 2), max(number, len(names) ** 2 + 1)
    return [
        f"{names[i % len(names)]}_{start + i // len(names)}"
        for i in range(most)
    ]


def imagenet(rng, number):
    return [f"n{1440764 + i // 5:08}_{1000 + 7 * i}" for i in range(number)]


def with_gaps(rng, number):
    return [f"p{i // 3:02}_{2 * (i % 3)}" for i in range(number)]


def hashes(rng, number):
    return [rng.bytes(8).hex() for _ in range(number)]


ALONE = [camera, counter, one_prefix, classes, imagenet, with_gaps, hashes]


def paths_of(names, rng):
    return [f"photos/{name}.jpg" for name in rng.permutation(names)]


@pytest.mark.parametrize("kind", ALONE)
def test_photographs_of_their_own(kind, quick, rng, count):
    for _ in range(20 if quick else 300):
        names = kind(rng, int(rng.integers(12, 90)))
        found = photographs(paths_of(sorted(set(names)), rng))
        count("folders of photographs, each its own")
        assert found is None, names


def crops(rng, say_crop):
    """Names of crops, and the photograph of each."""
    number = int(rng.integers(2, 30))
    sizes = rng.integers(1, 1 + (40 if say_crop else number), number)
    sizes[0] = max(2, sizes[0])
    start, width = rng.integers(0, 2), int(rng.integers(1, 4))
    word = "crop" if say_crop else ""
    return {
        f"{WORDS[i % len(WORDS)]}{i}_{word}{start + j:0{width}}": i
        for i, size in enumerate(sizes)
        for j in range(size)
    }


@pytest.mark.parametrize("say_crop", [False, True])
def test_crops_of_photographs(say_crop, quick, rng, count):
    for _ in range(50 if quick else 500):
        names = crops(rng, say_crop)
        paths = paths_of([*names], rng)
        found = photographs(paths)
        count("folders of crops")
        expected = [names[path[7:-4]] for path in paths]
        pairs = set(zip(found.tolist(), expected))
        assert len(pairs) == len(set(found)) == len(set(expected))


@pytest.mark.parametrize("say_crop", [False, True])
def test_a_limit_changes_no_photograph(say_crop, quick, rng, count, tmp_path):
    """All names of a folder decide, and the rules of the caller before them."""
    for number in range(1 if quick else 8):
        folder = tmp_path / str(number)
        folder.mkdir()
        names = crops(rng, say_crop)
        for name in names:
            Image.new("L", (2, 2)).save(folder / f"{name}.png")
        limit = int(rng.integers(2, len(names) + 1))
        taken = datasets.load(folder, (2, 2), limit=limit)
        expected = [names[pathlib.Path(path).stem] for path in taken.paths]
        assert len(set(taken.paths)) == len(taken.images) == limit
        assert taken.num_groups == len(set(expected))
        alone = datasets.load(folder, (2, 2), limit=limit, groups="none")
        assert alone.num_groups == limit
        cut = f"from all over a folder of {len(names)} files"
        assert (cut in taken.notes[0]) == (limit < len(names))
        count("folders read with a limit")
