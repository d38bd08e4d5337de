"""Tests of fair parts, and of photographs told from file names."""

import numpy as np
import pytest

from keras_uap import datasets
from keras_uap.data.splitting import photographs, split


def test_parts_are_all_of_it_once():
    parts = split(np.zeros(200), seed=3)
    assert [len(part) for part in parts] == [120, 30, 50]
    np.testing.assert_array_equal(
        np.sort(np.concatenate(parts)), np.arange(200)
    )
    for part, again in zip(parts, datasets.split(range(200), seed=3)):
        np.testing.assert_array_equal(part, again)
        assert np.all(np.diff(part) > 0)
    assert not np.array_equal(parts[0], split(range(200), seed=4)[0])


@pytest.mark.parametrize("seed", range(5))
def test_photographs_stay_together(seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 30, 300).astype(str)
    parts = split(groups, groups, seed=seed)
    names = [set(groups[part]) for part in parts]
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert not names[1] & names[2]
    shares = [len(part) / 300 for part in parts]
    np.testing.assert_allclose(shares, [0.6, 0.15, 0.25], atol=0.05)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("each", [1, 3, 20])
def test_every_class_has_its_share(seed, each):
    """The last classes, in sorted order, were once the held-out part."""
    classes = np.repeat(np.arange(10), each)
    groups = np.arange(10 * each)
    for part, share in zip(
        split(classes, groups, classes, seed=seed), (0.6, 0.15, 0.25)
    ):
        counts = np.bincount(classes[part], minlength=10)
        assert np.all(np.abs(counts - share * each) <= 1)
        assert abs(len(part) - share * 10 * each) <= 1


def test_single_pictures_of_many_classes():
    held_out = [split(range(100), None, range(100), seed=s)[2] for s in (0, 1)]
    assert len(held_out[0]) == 25
    assert not np.array_equal(*held_out)


def test_no_part_is_empty():
    for seed in range(20):
        groups = np.repeat(["a", "b", "c"], [40, 1, 1])
        assert all(len(part) for part in split(groups, groups, seed=seed))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"images": range(2)}, "too few images for 3 parts"),
        ({"groups": [0, 0, 0, 1, 1, 1]}, "of 2 photographs"),
        ({"groups": [0, 1, 2]}, "one group per image"),
        ({"classes": [0, 1, 2]}, "one class per image"),
        ({"shares": (0.5, 0)}, "shares"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_arguments(arguments, says):
    with pytest.raises(ValueError, match=says):
        split(**({"images": range(6)} | arguments))


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["f/a_0.jpg", "f/a_1.jpg", "f/b_0.jpg"], ["f/a", "f/a", "f/b"]),
        # One name in a folder is that of its class.
        (["dog/dog_0.jpg", "dog/dog_1.jpg", "cat/c_0.jpg"], None),
        (["f/a_0.jpg", "f/a_1.jpg", "f/b.jpg"], None),
        ([f"f/IMG_{i:04}.jpg" for i in range(30)] + ["f/x_1.jpg"], None),
        (["f/a.jpg", "f/b.jpg"], None),
        (["f/a_1.jpg", "f/b_1.jpg"], None),
        # A camera's date and time, ImageNet's names, and class prefixes.
        (
            [
                f"f/IMG_202405{day:02}_{100000 + 3607 * i}.jpg"
                for day in range(1, 11)
                for i in range(6)
            ],
            None,
        ),
        ([f"f/n{i // 5:08}_{1000 + 7 * i}.jpg" for i in range(60)], None),
        (
            [
                f"f/{name}_{i:02}.jpg"
                for name in ("cat", "dog", "bird")
                for i in range(20)
            ],
            None,
        ),
        # A gap, and numbers that begin at 2.
        (["f/a_0.jpg", "f/a_2.jpg", "f/b_0.jpg", "f/b_1.jpg"], None),
        (["f/a_2.jpg", "f/a_3.jpg", "f/b_2.jpg", "f/b_3.jpg"], None),
        # Where the names say "crop", there may be many of one photograph.
        (
            [f"f/a_crop{i:02}.jpg" for i in range(30)] + ["f/b_crop00.jpg"],
            ["f/a"] * 30 + ["f/b"],
        ),
        # The same name elsewhere is another photograph.
        (
            ["f/a_0.jpg", "f/a_1.jpg", "f/b_0.jpg", "g/a_0.jpg"],
            ["f/a", "f/a", "f/b", "g/a_0.jpg"],
        ),
    ],
)
def test_photographs_from_names(paths, expected):
    found = photographs(paths)
    assert (found if found is None else found.tolist()) == expected


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("none", None),
        ("name", ["f/a", "f/a", "g/a"]),
        ("folder", ["f", "f", "g"]),
        (r"_(\d)", ["1", "2", "1"]),
        ("a_1", ["a_1", "f/a_2.jpg", "a_1"]),
    ],
)
def test_photographs_by_a_rule(groups, expected):
    found = photographs(["f/a_1.jpg", "f/a_2.jpg", "g/a_1.jpg"], groups)
    assert (found if found is None else found.tolist()) == expected


@pytest.mark.parametrize(
    ("groups", "says"),
    [("(", "regular"), (3, "regular"), (r"\.jpg", "at least two photographs")],
)
def test_rules_that_group_nothing(groups, says):
    with pytest.raises(ValueError, match=says):
        photographs(["f/a_1.jpg", "f/b_1.jpg"], groups)


@pytest.mark.parametrize("groups", ["zzz", "Folder", "(x?)zzz"])
def test_a_rule_that_fits_no_file_is_refused(groups):
    with pytest.raises(ValueError, match="fits no file"):
        photographs([f"photos/{i}.png" for i in range(9)], groups)


def test_a_file_that_a_rule_does_not_fit_is_its_own():
    paths = ["a/x_1.png", "a/x_2.png", "a/one.png", "a/two.png"]
    found = photographs(paths, "name")
    assert len(set(found)) == 3
    assert found[0] == found[1]
