"""A long fit: memory, traces and open files do not grow."""

import gc
import os

import common
import keras
import numpy as np

import keras_uap

# More growth than this is a leak, in MiB for 100 epochs.
MOST_GROWTH = 5.0


class Watch(keras.callbacks.Callback):
    def __init__(self, model):
        super().__init__()
        self.rows, self.traces = [], []
        step = model.train_step

        def traced(data):  # Its Python runs once for each trace.
            self.traces.append(data)
            return step(data)

        model.train_step = traced

    def on_epoch_end(self, epoch, logs=None):
        gc.collect()
        files = len(os.listdir("/proc/self/fd"))
        self.rows.append((epoch, common.memory(), files, len(self.traces)))


def run(report, quick, seed, epochs=200):
    keras.utils.set_random_seed(seed)
    for update in ("lion", "deepfool"):
        uap = keras_uap.UniversalPerturbation(
            common.linear(), 0.1, value_range=(0, 1)
        )
        uap.compile(update)
        watch = Watch(uap)
        uap.fit(
            common.images(100),  # A ragged last batch.
            epochs=epochs,
            batch_size=16,
            validation_data=common.images(30),
            callbacks=[watch],
            verbose=0,
        )
        rows = np.array(watch.rows, "float64")
        # The first epochs trace functions and fill caches.
        rows = rows[min(10, len(rows) // 2) :]
        slope = 100 * np.polyfit(rows[:, 0], rows[:, 1], 1)[0]
        report.count(f"epochs of {update}", epochs)
        report.count(f"MiB per 100 epochs of {update}", round(slope, 3))
        report.count(f"traces of {update}", int(rows[-1, 3]))
        report.count(f"open files of {update}", int(rows[-1, 2]))
        if epochs >= 100:
            report.check(slope < MOST_GROWTH, f"{update}: {slope:.2f} MiB")
        report.check(
            np.ptp(rows[:, 2]) == 0, f"{update}: open files {rows[:, 2]}"
        )
        report.check(rows[0, 3] > 0, f"{update}: no trace was seen")
        report.check(np.ptp(rows[:, 3]) == 0, f"{update}: traces {rows[:, 3]}")
