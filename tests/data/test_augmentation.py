"""Augmentation depends on its arguments, and on no setting of Keras."""

import keras
import numpy as np
import pytest
from PIL import Image

import keras_uap
from keras_uap import datasets


@pytest.fixture
def blue():
    """Images whose red equals their green everywhere."""
    images = np.full((16, 12, 12, 3), 60, "float32")
    images[..., 2] = 200
    return images


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_the_data_format_of_keras_plays_no_part(blue, data_format):
    before = keras.config.image_data_format()
    keras.config.set_image_data_format(data_format)
    try:
        batch = next(iter(datasets.augmented(blue, 16, seed=1))).numpy()
    finally:
        keras.config.set_image_data_format(before)
    np.testing.assert_allclose(batch[..., 0], batch[..., 1], atol=1e-3)
    assert np.all(batch[..., 2] >= batch[..., 0])


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16", "float64"])
def test_the_dtype_policy_of_keras_plays_no_part(blue, policy):
    expected = next(iter(datasets.augmented(blue, 16, seed=1))).numpy()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        batch = next(iter(datasets.augmented(blue, 16, seed=1))).numpy()
    finally:
        keras.config.set_dtype_policy(before)
    assert batch.dtype == "float32"
    np.testing.assert_array_equal(batch, expected)


def test_numpy_seeds_are_seeds(blue):
    expected = next(iter(datasets.augmented(blue, 16, seed=3))).numpy()
    batch = next(iter(datasets.augmented(blue, 16, seed=np.int64(3)))).numpy()
    np.testing.assert_array_equal(batch, expected)


@pytest.mark.parametrize(
    "shape", [(6, 3, 20, 30), (6, 1, 28, 28), (6, 2, 9, 9), (6, 12, 16, 16)]
)
def test_channels_first_is_refused_everywhere(shape, linear):
    images = np.zeros(shape, "float32")
    model = linear(shape=shape[1:])
    for call in (
        lambda: datasets.augmented(images),
        lambda: keras_uap.audit(model, images, verbose=0),
        lambda: keras_uap.harden(model, images, verbose=0),
        lambda: keras_uap.UniversalPerturbation(model, 10.0),
        lambda: keras_uap.analysis.fooling_report(model, images[0], images),
    ):
        with pytest.raises(ValueError, match=r"channels last.*data_format"):
            call()


@pytest.mark.parametrize(
    "shape", [(6, 3, 3, 3), (6, 3, 4, 7), (6, 4, 9, 1), (6, 9, 5, 5)]
)
def test_small_images_are_not_taken_for_channels_first(shape):
    batch = next(iter(datasets.augmented(np.ones(shape, "float32"), 6)))
    assert batch.shape == shape


def test_views_keep_the_units_of_the_files(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):
        pixels = rng.integers(40, 60, (16, 16, 3), dtype="uint8")
        Image.fromarray(pixels).save(tmp_path / f"{chr(97 + i)}.png")
    pictures = datasets.load(tmp_path, (8, 8))
    none, pixels = (
        np.mean([b.numpy() for b in datasets.views(pictures, 12, span, 0)])
        for span in (None, (0, 255))
    )
    assert none == pixels
    # Brightness moves images by up to a fifth of 255, so 40 to 60 varies.
    scaled = next(iter(datasets.views(pictures, 12, (0, 1), 0))).numpy()
    np.testing.assert_allclose(scaled.mean() * 255, pixels, rtol=1e-3)


def test_constant_images_have_a_range():
    images = np.full((4, 6, 6, 3), 7, "float32")
    batch = next(iter(datasets.augmented(images, 4, value_range=None)))
    assert np.all((batch >= 7) & (batch <= 8))


def test_nearly_black_images_are_reported(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(3):
        levels = rng.integers(0, 4096, (8, 8)).astype("uint16")
        Image.fromarray(levels).save(tmp_path / f"scan{chr(97 + i)}.tif")
    with pytest.warns(UserWarning, match=r"nearly black.*15 of 255"):
        datasets.load(tmp_path, (8, 8), color_mode="grayscale")


@pytest.mark.parametrize(
    "bad", [np.zeros((0, 8, 8, 3)), np.full((2, 8, 8, 3), np.nan)]
)
def test_images_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match="images must be"):
        datasets.augmented(bad)
