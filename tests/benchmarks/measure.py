"""Clocks, counters and the judge that all parts of `speed.py` share."""

import contextlib
import sys
import time

import keras
import numpy as np
import tensorflow as tf

LOW, HIGH = 0.0, 255.0


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def seconds_of(function):
    """Runs a function; returns the seconds it took."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def float_batches(images, batch_size):
    """The images as a list of float32 tensors, ready in memory."""
    return [
        tf.constant(images[i : i + batch_size], "float32")
        for i in range(0, len(images), batch_size)
    ]


class Judge:
    """The fooling rate on held-out images: the same code for every side.

    Args:
        logits: Compiled function from images to logits.
        images: Array `(n, H, W, C)`, the held-out images.
    """

    def __init__(self, logits, images):
        self._logits = logits
        self._batches = float_batches(images, 32)
        self._clean = self.labels(0.0)

    def labels(self, v):
        return np.concatenate(
            [
                tf.argmax(
                    self._logits(tf.clip_by_value(batch + v, LOW, HIGH)), -1
                )
                for batch in self._batches
            ]
        )

    def __call__(self, v):
        v = tf.cast(tf.convert_to_tensor(v), "float32")
        return float(np.mean(self.labels(v) != self._clean))


class RaceOver(Exception):
    """Raised inside a peer that has no way of its own to be stopped."""


class Race:
    """A clock that stands still while the perturbation is judged.

    Args:
        judge: Function from a perturbation to its fooling rate.
        goal: Float, the fooling rate that ends the race.
        limit: Float, seconds after which the race ends anyway.
        every: Float, seconds between two looks at the perturbation.
    """

    def __init__(self, judge, goal, limit=np.inf, every=0.0):
        self.judge, self.goal, self.limit = judge, goal, limit
        self.every, self.passes = every, 0
        self.reached = self.over = False
        self.time, self.rate = 0.0, 0.0
        self._start, self._judged, self._next = None, 0.0, every

    def start(self):
        self._start = time.perf_counter()

    @property
    def seconds(self):
        return time.perf_counter() - self._start - self._judged

    def look(self, v):
        """Judges v if it is time to; returns whether the race is over."""
        seconds = self.seconds
        if seconds >= min(self._next, self.limit):
            self._judged += seconds_of(lambda: self._judge(v))
            self.time, self._next = seconds, seconds + self.every
            self.reached = self.rate >= self.goal
            self.over = self.reached or seconds >= self.limit
        return self.over

    def _judge(self, v):
        self.rate = self.judge(v)

    def look_or_stop(self, v):
        if self.look(v):
            raise RaceOver


class EpochClock(keras.callbacks.Callback):
    """Times the epochs of one fit, without what comes before the first.

    Args:
        between: Function that runs before each epoch, outside the clock.
    """

    def __init__(self, between=None):
        super().__init__()
        self.seconds, self._between = [], between

    def on_epoch_begin(self, epoch, logs=None):
        if self._between is not None:
            self._between()
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self._start)


class BarePasses:
    """The model passes alone, compiled once: the floor of any update.

    Args:
        logits: Function from images to logits.
        images: Array, cut into batches of `batch_size`.
    """

    def __init__(self, logits, images, batch_size=16):
        self._batches = float_batches(images, batch_size)
        signature = [tf.TensorSpec((None, *images.shape[1:]), "float32")]

        @tf.function(input_signature=signature, autograph=False)
        def forward(batch):
            return logits(batch)

        @tf.function(input_signature=signature, autograph=False)
        def forward_and_backward(batch):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(batch)
                scores = logits(batch)
                loss = tf.nn.sparse_softmax_cross_entropy_with_logits(
                    tf.argmax(scores, axis=-1), scores
                )
            return tape.gradient(loss, batch)

        self._forward, self._both = forward, forward_and_backward
        self._run(self._forward, self._batches[:1])
        self._run(self._both, self._batches[:1])

    def forward(self):
        """Seconds of one epoch of forwards."""
        return seconds_of(lambda: self._run(self._forward, self._batches))

    def forward_and_backward(self):
        """Seconds of one epoch of forwards with their input-backwards."""
        return seconds_of(lambda: self._run(self._both, self._batches))

    def _run(self, function, batches):
        for batch in batches:
            result = function(batch)
        result.numpy()  # Waits for an accelerator to be done.


@keras.saving.register_keras_serializable(package="keras_uap_benchmarks")
class CountedClassifier(keras.layers.Layer):
    """A classifier that counts the images of its forwards and backwards."""

    def __init__(self, logits, **kwargs):
        super().__init__(**kwargs)
        self._logits = logits
        self.forwards = tf.Variable(0, trainable=False)
        self.backwards = tf.Variable(0, trainable=False)

    def call(self, images):
        @tf.custom_gradient
        def counted(x):
            def backward(upstream):
                self.backwards.assign_add(tf.shape(upstream)[0])
                return upstream

            return tf.identity(x), backward

        self.forwards.assign_add(tf.shape(images)[0])
        return self._logits(counted(images))

    def take_counts(self):
        """Returns the forwards and backwards since the last call."""
        counts = int(self.forwards), int(self.backwards)
        self.forwards.assign(0)
        self.backwards.assign(0)
        return counts


def peak_memory():
    """The peak resident memory of this process, in MiB."""
    # VmHWM begins anew with the program; ru_maxrss would carry over the size
    # of the parent that started it.
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
