"""Tests of images from folders and TFDS, and of their variation."""

import builtins
import time

import numpy as np
import pytest
from PIL import Image

from keras_uap import datasets


@pytest.fixture
def folder(tmp_path):
    """Five pictures of one colour each, of several sizes and kinds."""
    (tmp_path / "below").mkdir()
    names = ["a.png", "b.JPG", "c.bmp", "below/d.jpeg", "below/e.gif"]
    for i, name in enumerate(names):
        image = Image.new("RGB", (10 + i, 20 - i), (50 * i, 10, 200))
        image.save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("No picture.")
    return tmp_path


def reds(data):
    return sorted(float(i[..., 0].mean()) for b in data for i in b.numpy())


def test_folder(folder):
    data = datasets.images(folder, size=(8, 6), batch_size=2)
    batches = [batch.numpy() for batch in data]
    assert [b.shape for b in batches] == [(2, 8, 6, 3)] * 2 + [(1, 8, 6, 3)]
    assert all(b.dtype == np.float32 for b in batches)
    np.testing.assert_allclose(reds(data), [0, 50, 100, 150, 200], atol=3)


def test_limit_takes_the_first_in_order(folder):
    two = datasets.images(folder, (8, 8), limit=2, batch_size=9)
    assert len(reds(two)) == 2
    assert reds(two) == reds(datasets.images(folder, (8, 8), limit=2))


def test_picture_is_cut_to_its_middle(tmp_path):
    pixels = np.zeros((8, 24, 3), "uint8")
    pixels[:, 8:16] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    batch = next(iter(datasets.images(tmp_path, (8, 8))))
    np.testing.assert_array_equal(batch, 200.0)


def test_bad_sources(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="No pictures in"):
        datasets.images(tmp_path / "empty")
    with pytest.raises(ValueError, match="limit"):
        datasets.images(folder, limit=0)


def test_unknown_name():
    with pytest.raises(ValueError, match="neither a folder nor"):
        datasets.images("no_such_data_set")


def test_without_tfds(monkeypatch):
    real = builtins.__import__

    def no_tfds(name, *rest):
        if name == "tensorflow_datasets":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_tfds)
    with pytest.raises(ImportError, match="pip install tensorflow-datasets"):
        datasets.images("mnist")


def test_tfds_name():
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=5):
        data = datasets.images("mnist", (12, 12), "test", limit=3)
        batch = next(iter(data)).numpy()
    assert batch.shape == (3, 12, 12, 3)
    assert batch.dtype == np.float32
    assert 0 <= batch.min() < batch.max() <= 255
    # Grey pictures get three equal channels.
    np.testing.assert_array_equal(batch[..., 0], batch[..., 2])


@pytest.mark.parametrize("value_range", [(0, 255), (0, 1)])
def test_augmentation(value_range):
    high = value_range[1]
    rng = np.random.default_rng(0)
    x = rng.uniform(0, high, (6, 16, 16, 3)).astype("float32")
    augment = datasets.augmentation(value_range, seed=3)
    one, two = augment(x).numpy(), augment(x).numpy()
    assert one.shape == x.shape
    assert one.dtype == np.float32
    assert min(one.min(), two.min()) >= 0
    assert max(one.max(), two.max()) <= high
    assert np.abs(one - x).mean() > 0.02 * high
    assert np.abs(one - two).mean() > 0.02 * high
    again = datasets.augmentation(value_range, seed=3)
    np.testing.assert_array_equal(again(x), one)


def test_augmented_array():
    x = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), "uint8")

    def passes(seed):
        data = datasets.augmented(x, batch_size=4, seed=seed)
        assert len(data) == 3
        return [np.concatenate(list(data.as_numpy_iterator())) for _ in "ab"]

    first, second = passes(1)
    assert first.shape == x.shape
    assert np.any(first != second)
    np.testing.assert_array_equal(passes(1), [first, second])
    assert np.any(passes(2)[0] != first)
    assert first.dtype == np.float32


def test_a_look_at_one_batch_moves_the_draws_by_one():
    """Or else how far would depend on how fast the machine is."""
    images = np.random.default_rng(0).uniform(0, 255, (40, 6, 6, 3))

    def after_a_look(wait):
        data = datasets.augmented(images, batch_size=4, seed=1)
        look = iter(data.take(1))
        next(look)
        time.sleep(wait)
        del look
        return np.concatenate([batch.numpy() for batch in data])

    np.testing.assert_array_equal(after_a_look(0.0), after_a_look(0.5))
