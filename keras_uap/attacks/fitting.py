"""Fits a perturbation with a given number of model passes.

A model pass is one forward or backward pass of one image. Attacks are compared
at equal numbers of them. Few images are augmented; of many images only as many
are shown as the passes allow.
"""

import collections
import warnings

import keras
import numpy as np
import tensorflow as tf

from keras_uap.attacks import schedules, updates
from keras_uap.attacks.deepfool import DeepFool
from keras_uap.attacks.universal_perturbation import UniversalPerturbation
from keras_uap.data import augmentation
from keras_uap.utils.progress import Progress, silent

BATCH = 16

# v is an array `(H, W, C)`, `no_gradient` the share of the images shown that
# had no usable gradient.
Fitted = collections.namedtuple("Fitted", ["v", "passes", "no_gradient"])


def fit_with_passes(
    classifier,
    pictures,
    ball,
    passes,
    loss="dominant",
    value_range=(0, 255),
    from_logits=None,
    seed=0,
    initial_perturbation=None,
    smoothing=0.0,
    first_step=2 * updates.STEP,
    augment=False,
    write=silent,
):
    """Finds a perturbation with at most a number of model passes.

    Args:
        classifier: Keras model that maps images to class scores, or its
            `ClassifierAdapter`.
        pictures: `Pictures` to fit on.
        ball: `LpBall`.
        passes: Integer, the model passes, clean predictions included.
        loss: What `UniversalPerturbation.compile` takes, minimised with
            decaying steps. `None` for DeepFool.
        value_range, from_logits, initial_perturbation: As for
            `UniversalPerturbation`.
        seed: Integer; the order of the images and their augmentation.
        smoothing: Float, as for `UniversalPerturbation.compile`.
        first_step: Float, the first step as a share of `epsilon`.
        augment: Boolean, whether the images are augmented.
        write: Function that prints a line of progress.

    Returns:
        A `Fitted`.
    """
    uap = UniversalPerturbation(
        classifier,
        ball.epsilon,
        ball.norm,
        value_range=value_range,
        from_logits=from_logits,
        initial_perturbation=initial_perturbation,
        seed=seed,
    )
    if not uap.built:
        uap.build((None, *pictures.images.shape[1:]))
    data, clean, steps = _schedule(pictures, passes, seed, augment, value_range)
    if loss is None:
        step_size = schedules.linear_decay(DeepFool.FIRST_STEP, steps)
        uap.compile(DeepFool(step_size=step_size))
    else:
        optimizer = uap.decaying_lion(steps, first_step)
        uap.compile(optimizer, loss=loss, smoothing=smoothing)
    # Without a clean prediction before, each batch is full.
    limit = _PassLimit(passes - clean, clean or None, write)
    with warnings.catch_warnings():
        # Whoever calls has warned of the range of the images.
        warnings.filterwarnings("ignore", "The pixels of x lie in")
        uap.fit(**data, verbose=0, callbacks=[limit])
    no_gradient = limit.failures / max(1, limit.images)
    return Fitted(uap.perturbation, clean + limit.passes, no_gradient)


def some_of(images, most, seed):
    """Returns the images, or `most` of them in a random order."""
    if len(images) <= most:
        return images
    order = np.random.default_rng(seed).permutation(len(images))
    return images[order[:most]]


def _schedule(pictures, passes, seed, augment, value_range):
    """Returns what `fit` takes to spend a number of passes.

    Returns:
        The arguments of `fit`; the passes of the clean predictions before the
        first batch; and the number of batches that the rest allows, if one
        image takes two passes.
    """
    if augment:
        steps = max(1, passes // (3 * BATCH))
        views = augmentation.views(pictures, BATCH, value_range, seed)
        # Full batches, however few images there are.
        views = views.unbatch().repeat().batch(BATCH)
        # DeepFool may take fewer passes; then there are more batches.
        arguments = {"x": views, "steps_per_epoch": passes // BATCH}
        return arguments, 0, steps
    # Images that the passes cannot show need no clean prediction.
    images = some_of(pictures.images, max(1, passes // 3), seed)
    # A replica without images fails with oneDNN, in any fit of Keras.
    if len(images) % BATCH < tf.distribute.get_strategy().num_replicas_in_sync:
        images = images[: len(images) // BATCH * BATCH or None]
    count = len(images)
    shown = max(1, (passes - count) // 2)
    per_epoch = -(-count // BATCH)
    steps = shown // count * per_epoch + -(-(shown % count) // BATCH)
    arguments = {"x": images, "batch_size": BATCH, "epochs": passes // count}
    return arguments, count, max(1, steps)


class _PassLimit(keras.callbacks.Callback):
    """Ends a fit when its model passes are spent.

    Args:
        most: Integer, the model passes.
        count: Integer, the images of an epoch, or `None` if all batches are
            full.
        write: Function that prints a line of progress.
    """

    def __init__(self, most, count, write):
        super().__init__()
        self._most = most
        self._count = count
        self._progress = Progress("model passes", most, write)
        self._largest = 0
        self.passes = self.failures = self.images = 0

    def on_epoch_begin(self, epoch, logs=None):
        # Keras resets the metrics with each epoch.
        self._before = self.passes, self.failures

    def on_train_batch_end(self, batch, logs=None):
        passes, failures = self._before
        passes += int(logs["model_passes"])
        self._largest = max(self._largest, passes - self.passes)
        self.passes = passes
        failed = logs.get("no_gradient", logs.get("not_converged", 0))
        self.failures = failures + int(failed)
        left = BATCH if self._count is None else self._count - batch * BATCH
        self.images += min(BATCH, left)
        self._progress.update(passes)
        if self.passes + self._largest > self._most:
            self.model.keep("all passes spent")
