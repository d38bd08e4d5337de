"""A number of model passes is spent whatever the number of images is."""

import types

import keras
import models
import numpy as np
import pytest
import tensorflow as tf
from models import slow
from PIL import Image

import keras_uap
from keras_uap import datasets
from keras_uap.attacks import fitting

BALL = keras_uap.LpBall(0.05)


def fit(images, classifier, passes=600, **arguments):
    return fitting.fit_with_passes(
        classifier,
        datasets.Pictures(images),
        BALL,
        passes,
        value_range=(0, 1),
        **arguments,
    )


@pytest.mark.parametrize(
    ("count", "replicas", "kept"),
    [(33, 1, 33), (33, 2, 32), (34, 2, 34), (35, 4, 32), (1, 2, 1)],
)
def test_no_replica_is_without_images(count, replicas, kept, monkeypatch):
    strategy = types.SimpleNamespace(num_replicas_in_sync=replicas)
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: strategy)
    pictures = datasets.Pictures(models.images(count))
    arguments, *_ = fitting._schedule(pictures, 600, 0, False, (0, 1))
    assert len(arguments["x"]) == kept


@pytest.mark.parametrize(
    ("count", "augment"),
    [(3, True), slow(3, False), (17, False)],
)
def test_few_images_get_all_passes(count, augment):
    found = fit(models.images(count), models.linear(), augment=augment)
    assert 0.9 * 600 <= found.passes <= 600


@pytest.mark.parametrize(
    ("count", "augment"),
    [(3, True), (17, False), slow(33, False)],
)
def test_images_without_a_gradient_are_all_counted(count, augment):
    dead = keras.Sequential(
        [
            keras.Input(models.SHAPE),
            keras.layers.Rescaling(1.0, -1000.0),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(4),
        ]
    )
    found = fit(models.images(count), dead, augment=augment)
    assert found.no_gradient == 1.0


def test_views_of_a_dark_folder_keep_its_units(tmp_path):
    """Without a value range, files stay in grey levels of 0 to 255."""
    rng = np.random.default_rng(0)
    for i in range(20):
        pixels = rng.integers(20, 100, (16, 16, 3), dtype="uint8")
        Image.fromarray(pixels).save(tmp_path / f"{chr(97 + i)}.png")
    pictures = datasets.load(tmp_path, (8, 8))
    data, _, _ = fitting._schedule(pictures, 160, 0, True, None)
    batches = [batch.numpy() for batch in data["x"].take(5)]
    assert {len(batch) for batch in batches} == {fitting.BATCH}
    assert abs(np.mean(batches) - pictures.images.mean()) < 8
