"""Fixtures that hand out what `models.py` makes, and TensorFlow's settings."""

import gc
import os

import keras
import models
import numpy as np
import pytest
import tensorflow as tf
from browser import browser as browser

import keras_uap


def _optimize_graphs(wanted):
    """Of a tiny graph, this takes longer than running it does."""
    options = {"disable_meta_optimizer": not wanted}
    tf.config.optimizer.set_experimental_options(options)


@pytest.fixture
def optimized_graphs():
    """For the embedded classifier, which is large enough."""
    _optimize_graphs(True)
    yield
    _optimize_graphs(False)


def pytest_configure(config):
    """Settings for many tiny graphs, and for a process a core."""
    _optimize_graphs(False)
    # Tracing makes many objects; what the imports made is not searched again.
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    if "PYTEST_XDIST_WORKER" in os.environ:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)


@pytest.fixture(autouse=True)
def _same_seed():
    keras.utils.set_random_seed(7)


@pytest.fixture
def images():
    return models.images()


@pytest.fixture
def held_out(images):
    return images[::-1][:24].copy() * np.float32(0.9)


@pytest.fixture
def linear():
    return models.linear


@pytest.fixture
def cnn():
    return models.cnn


@pytest.fixture
def subclassed():
    return models.Subclassed


@pytest.fixture
def broken():
    return models.broken


@pytest.fixture
def make_uap():
    """Makes a `UniversalPerturbation` for pixels in 0 to 1."""

    def make(classifier, epsilon=0.05, **kwargs):
        kwargs.setdefault("value_range", (0, 1))
        return keras_uap.UniversalPerturbation(classifier, epsilon, **kwargs)

    return make


@pytest.fixture
def each_batch():
    return models.EachBatch
