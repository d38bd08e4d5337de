"""A long fit: memory, traces and open files do not grow."""

import gc
import os

import keras
import models
import numpy as np
import pytest
from limits import memory

import keras_uap

# More growth than this is a leak, in MiB for 100 epochs.
MOST_GROWTH = 5.0


class Watch(keras.callbacks.Callback):
    """Notes the memory, open files and traces after every epoch."""

    def __init__(self, model):
        super().__init__()
        self.rows, self.traces = [], 0
        step = model.train_step

        def traced(data):  # Its Python runs once for each trace.
            self.traces += 1
            return step(data)

        model.train_step = traced

    def on_epoch_end(self, epoch, logs=None):
        gc.collect()
        files = len(os.listdir("/proc/self/fd"))
        self.rows.append((epoch, memory(), files, self.traces))


def soak(update, epochs, seed):
    """Returns what was watched, one row an epoch."""
    keras.utils.set_random_seed(seed)
    uap = keras_uap.UniversalPerturbation(
        models.linear(activation="softmax"), 0.1, value_range=(0, 1)
    )
    uap.compile(update)
    watch = Watch(uap)
    uap.fit(
        models.images(100),  # A ragged last batch.
        epochs=epochs,
        batch_size=16,
        validation_data=models.images(30),
        callbacks=[watch],
        verbose=0,
    )
    return watch.rows


@pytest.mark.parametrize("update", ["lion", "deepfool"])
def test_nothing_grows(update, child, quick, seed, count):
    epochs = 20 if quick else 200
    rows = child("test_soak", "soak", update, epochs, seed)
    # The first epochs trace functions and fill caches.
    number, used, files, traces = np.array(rows[10:], "float64").T
    slope = 100 * np.polyfit(number, used, 1)[0]
    count(f"epochs of {update}", epochs)
    count(f"MiB per 100 epochs of {update}", round(slope, 3))
    count(f"traces of {update}", int(traces[-1]))
    count(f"open files of {update}", int(files[-1]))
    assert len(rows) == epochs
    assert quick or slope < MOST_GROWTH
    assert np.ptp(files) == 0
    assert traces[0] > 0
    assert np.ptp(traces) == 0
