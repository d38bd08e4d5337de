"""Epochs of the updates and the layer against the bare model passes.

    pip install -e . -r benchmarks/requirements.txt
    python benchmarks/bare_passes.py --photos FOLDER --output DIR

The embedded EfficientNet-Lite0, or another one with --classifier FILE.keras;
L-infinity norm, epsilon 10, pixels 0 to 255. `--only gradient` leaves out the
tables of DeepFool and of the layer.
FOLDER holds 224x224 crops named `<photograph>_<crop>.jpg`; without it the
embedded photographs are used. Writes bare_passes.json and .md to DIR.
`--quick` only checks that everything runs: its figures mean nothing.
"""

import time
from statistics import median

import keras
import numpy as np
import tensorflow as tf
from common import (
    BATCH,
    EpochClock,
    float_batches,
    load_classifier,
    make_parser,
    restorer,
    say,
    seconds_of,
    tabulate,
)

import keras_uap
from keras_uap import datasets


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


def gradient_epoch(setup):
    images = setup.images[: setup.size(256, 32)]
    bare = BarePasses(setup.logits, images, BATCH)
    rows = []
    data = {
        "arrays": {"x": images, "batch_size": BATCH},
        "tf.data": {
            "x": tf.data.Dataset.from_tensor_slices(images)
            .batch(BATCH)
            .prefetch(2)
        },
    }
    for name, x in data.items():
        bare_seconds, bare_cpu = [], []

        # Bound now: the loop goes on to other lists.
        def measure_bare(times=bare_seconds, cpu=bare_cpu):
            before = time.process_time()
            times.append(bare.forward_and_backward())
            cpu.append(time.process_time() - before)

        clock = EpochClock(measure_bare)
        uap = setup.uap("lion")
        start = time.perf_counter()
        uap.fit(**x, epochs=setup.repeats + 1, verbose=0, callbacks=[clock])
        whole = time.perf_counter() - start
        ours, bare_seconds = clock.seconds[1:], bare_seconds[1:]
        rows.append(
            {
                "data": name,
                "epoch, seconds": median(ours),
                "bare loop, seconds": median(bare_seconds),
                "ratio": median(a / b for a, b in zip(ours, bare_seconds)),
                "processor time, ratio": median(
                    a / b for a, b in zip(clock.cpu[1:], bare_cpu[1:])
                ),
                "passes an image": 2 if name == "arrays" else 3,
                "outside the epochs, seconds": whole
                - sum(clock.seconds)
                - sum(bare_seconds),
            }
        )
        say(f"  {rows[-1]}")
    return (
        "One epoch of the gradient update against the bare passes",
        f"{len(images)} images, batches of {BATCH}, `compile('lion')`; the "
        "bare loop is one compiled function, forward and input-backward, on "
        "float32 batches ready in memory. Epochs and bare loops alternate "
        f"({setup.repeats} of each after one to trace). For arrays the clean "
        "predictions are computed once, before the first epoch, and stand in "
        "the last column with the building of the graph; for tf.data each "
        "batch's clean prediction is one more forward, inside the epoch.",
        rows,
    )


def deepfool_epoch(setup):
    images = setup.images[: setup.size(96, 16)]
    rows = []
    for candidates, batch_size in ((2, 16), (2, 32), (3, 16), (3, 32)):
        rows.append(_deepfool_row(setup, images, candidates, batch_size))
        say(f"  {rows[-1]}")
    return (
        "One epoch of whole-batch DeepFool against the passes that it reports",
        f"{len(images)} images, every epoch from v = 0. Forwards and backwards "
        "are counted inside the classifier, in a fit of their own, and priced "
        "at the bare cost of one image in a whole batch, measured between the "
        "epochs. DeepFool's batches shrink as images get over the boundary, "
        "and a pass in a small batch costs more.",
        rows,
    )


def _deepfool_row(setup, images, candidates, batch_size):
    bare = BarePasses(setup.logits, images, batch_size)
    counted = CountedClassifier(setup.logits)
    costs, counts = [], []

    def fit(between, classifier=None):
        """Epochs from v = 0, in the same orders whoever is fitted."""
        keras.utils.set_random_seed(0)
        uap = setup.uap(
            keras_uap.DeepFool(candidates, boundary="nearest"), classifier
        )
        restore = restorer(uap)
        clock = EpochClock(lambda: (restore(), between()))
        history = uap.fit(
            images,
            batch_size=batch_size,
            epochs=setup.repeats + 1,
            verbose=0,
            callbacks=[clock],
        ).history
        return clock.seconds, history["model_passes"]

    def count():
        counts.append(counted.take_counts())

    def price():
        forward = bare.forward() / len(images)
        both = bare.forward_and_backward() / len(images)
        costs.append((forward, both - forward))

    # Counting slows the passes down, so it has a fit of its own.
    _, counted_reported = fit(count, counted)
    count()
    seconds, reported = fit(price)
    if counted_reported != reported:
        raise RuntimeError("The two fits went different ways.")
    # The first counts are those of the clean predictions.
    floors = [
        forwards * forward + backwards * backward
        for (forwards, backwards), (forward, backward) in zip(counts[1:], costs)
    ]
    return {
        "candidates": candidates,
        "batch": batch_size,
        "epoch, seconds": median(seconds[1:]),
        "its bare passes, seconds": median(floors[1:]),
        "ratio": median(a / b for a, b in zip(seconds[1:], floors[1:])),
        "model passes reported": median(reported[1:]),
        "model passes counted": median(sum(c) for c in counts[2:]),
        "forward, ms": 1000 * median(f for f, _ in costs),
        "backward, ms": 1000 * median(b for _, b in costs),
    }


def layer_overhead(setup):
    images = setup.images[: setup.size(64, 16)].astype("float32")
    labels = setup.labels(images)
    data = (
        tf.data.Dataset.from_tensor_slices((images, labels))
        .batch(BATCH)
        .cache()
        .prefetch(2)
    )
    data = datasets.without_tuner(data)
    pool = np.zeros((10, *setup.shape), "float32")
    layers = {
        "without": [],
        "PerturbationLayer, one v, always": [
            keras_uap.PerturbationLayer(pool[0])
        ],
        "PerturbationLayer, rate 0.5, pool of 10": [
            keras_uap.PerturbationLayer(pool, rate=0.5)
        ],
    }
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    models, clocks = {}, {}
    for name, before in layers.items():
        # A classifier of its own for each: training moves its statistics.
        models[name] = keras.Sequential(
            [keras.Input(setup.shape), *before, load_classifier(setup.path)]
        )
        models[name].compile(keras.optimizers.SGD(0.0), loss)
        clocks[name] = EpochClock()
    names = list(models)
    for turn in range(setup.size(2 * setup.repeats, 1) + 1):
        # Whoever comes first in a turn is a little faster.
        for name in np.roll(names, turn):
            models[name].fit(data, verbose=0, callbacks=[clocks[name]])
        say(f"  {[round(c.seconds[-1], 2) for c in clocks.values()]} s")
    bare = clocks["without"].seconds[1:]
    rows = [
        {
            "layer": name,
            "epoch, seconds": median(clock.seconds[1:]),
            "ratio": median(a / b for a, b in zip(clock.seconds[1:], bare)),
        }
        for name, clock in clocks.items()
    ]
    return (
        "PerturbationLayer in a training epoch",
        f"`fit` of the classifier with all weights trainable, {len(images)} "
        f"images, batches of {BATCH}, epochs in changing turns, {len(bare)} of "
        "each after one to trace; the ratio is the median over the turns.",
        rows,
    )


PARTS = {
    "gradient": gradient_epoch,
    "deepfool": deepfool_epoch,
    "layer": layer_overhead,
}


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--classifier", help="a .keras file")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS])
    options = parser.parse_args()
    parts = [PARTS[name] for name in options.only]
    tabulate(options, *parts, path=options.classifier)
