"""The parts of `speed.py`: each measures one thing and returns its table.

A part is a function of the `Setup`. It returns a title, the text above its
table, and the table's rows, one dictionary each.
"""

import dataclasses
import functools
import json
import os
import subprocess
import sys
import time
from statistics import median

import keras
import numpy as np
import peers
import tensorflow as tf
from measure import (
    HIGH,
    BarePasses,
    CountedClassifier,
    EpochClock,
    Judge,
    Race,
    peak_memory,
    say,
)
from photos import load_split

import keras_uap
from keras_uap import datasets, samples

EPSILON = 10.0
BATCH = 16
GOAL = 0.6


@dataclasses.dataclass
class Setup:
    """What every part works with; `--quick` makes all of it small.

    Args:
        photos: Path of a folder of crops, or None.
        repeats: Integer, timed runs of which the median counts.
        limits: Dictionary, the multiples of our time at which peers end.
        quick: Boolean, whether only to check that everything runs.
    """

    photos: str | None
    repeats: int
    limits: dict
    quick: bool

    def __post_init__(self):
        self.classifier = samples.load_classifier()
        self.logits = keras_uap.logits_function(self.classifier)
        self.images, self.held_out, self.groups = load_split(
            self.photos, self.size(1000, 32), self.size(300, 16)
        )
        self.shape = self.images.shape[1:]
        self.compiled_logits = tf.function(
            self.logits,
            input_signature=[tf.TensorSpec((None, *self.shape), "float32")],
            autograph=False,
        )

    def size(self, full, quick):
        return quick if self.quick else full

    @functools.cached_property
    def judge(self):
        return Judge(self.compiled_logits, self.held_out)

    @functools.cached_property
    def random_rate(self):
        signs = np.random.default_rng(0).choice([-1.0, 1.0], self.shape)
        return self.judge(EPSILON * signs)

    def uap(self, update, classifier=None, **compile_arguments):
        """A perturbation to fit, its update given as such or as a function."""
        uap = keras_uap.UniversalPerturbation(
            classifier or self.classifier,
            epsilon=EPSILON,
            from_logits=None if classifier is None else True,
        )
        uap.build((None, *self.shape))
        if callable(update) and not isinstance(update, keras_uap.DeepFool):
            update = update(uap)
        uap.compile(update, **compile_arguments)
        return uap


def _restorer(uap):
    """Returns a function that takes v and the optimizer back to their start."""
    uap.optimizer.build([uap.v])
    start = [(w, w.numpy()) for w in (uap.v, *uap.optimizer.variables)]

    def restore():
        for variable, value in start:
            variable.assign(value)

    return restore


# 1 --------------------------------------------------------------------------


class _LookEvery(keras.callbacks.Callback):
    """Shows v to the race after every few batches, and ends the fit with it."""

    def __init__(self, race, batches):
        super().__init__()
        self.race, self.batches, self.seen = race, batches, 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen % self.batches == 0 and self.race.look(self.model.v):
            self.model.stop_training = True


def _our_race(setup, update, images, race):
    uap = setup.uap(update)
    restore = _restorer(uap)
    uap.fit(images[:BATCH], batch_size=BATCH, verbose=0)  # Traces.
    restore()
    look = _LookEvery(race, batches=2)
    race.start()
    uap.fit(
        images,
        batch_size=BATCH,
        epochs=setup.size(20, 2),
        verbose=0,
        callbacks=[look],
    )
    race.passes = len(images) + 2 * BATCH * look.seen


def fooling_time(setup):
    images = setup.images[: setup.size(256, 16)]

    def row(name, races, base=None):
        reached = all(race.reached for race in races)
        seconds = median(race.time for race in races)
        result = {
            "side": name,
            "reached": "yes" if reached else "not reached",
            "seconds": seconds,
            "ratio": seconds / (base or seconds),
            "fooling rate by then": median(race.rate for race in races),
            "model passes": median(race.passes for race in races),
            "runs": len(races),
        }
        say(f"  {name}: {result}")
        return result

    ours = {
        "keras_uap, lion": "lion",
        "keras_uap, decaying_lion over two epochs": lambda uap: (
            uap.decaying_lion(2 * -(-len(images) // BATCH))
        ),
    }
    rows = []
    for name, update in ours.items():
        races = []
        for seed in range(setup.repeats):
            keras.utils.set_random_seed(seed)
            races.append(Race(setup.judge, GOAL))
            _our_race(setup, update, images, races[-1])
        rows.append(row(name, races, rows[0]["seconds"] if rows else None))
    base = rows[0]["seconds"]
    sides = {
        "authors' loop, TensorFlow 2": ("authors", peers.authors_loop, {}),
        "ART, pixels 0 to 255": ("art", peers.art_universal, {}),
        "ART, pixels 0 to 1": ("art", peers.art_universal, {"scale": HIGH}),
    }
    for name, (limit, run, options) in sides.items():
        limit = setup.limits[limit] * base
        race = Race(setup.judge, GOAL, limit, every=limit / 25)
        run(setup.logits, images, EPSILON, race, **options)
        rows.append(row(name, [race], base))
    return (
        f"Time to {GOAL:.0%} held-out fooling",
        f"{len(images)} crops to fit, {len(setup.held_out)} held-out crops; "
        f"random signs fool {setup.random_rate:.1%}. Clocks run from the call, "
        "clean predictions included, and stand still for tracing before it "
        "and for every look at the held-out crops (ours after every two "
        "batches, the peers after every 25th of their limit). A peer is ended "
        f"at {setup.limits['art']:g} times (ART) or "
        f"{setup.limits['authors']:g} times (authors' loop) the time of the "
        "first row. ART gets a compiled function as its model. Its DeepFool "
        "fits pixels in 0 to 1 and makes steps 255 times as long for pixels "
        "in 0 to 255, so it runs both ways.",
        rows,
    )


# 2 --------------------------------------------------------------------------


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
        bare_seconds = []
        clock = EpochClock(
            # Bound now: the loop goes on to another list.
            lambda times=bare_seconds: times.append(bare.forward_and_backward())
        )
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


# 3 --------------------------------------------------------------------------


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
        uap = setup.uap(keras_uap.DeepFool(candidates), classifier)
        restore = _restorer(uap)
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


# 4 --------------------------------------------------------------------------


def deepfool_throughput(setup):
    images = setup.held_out[: setup.size(64, 2)].astype("float32")
    labels = _labels(setup, images)

    def ours(x):
        result = keras_uap.deepfool(
            setup.classifier, x, num_candidates=10, verbose=0
        )
        return x + result.perturbations

    sides = {
        "keras_uap.deepfool": lambda: ours,
        "foolbox L2DeepFoolAttack": lambda: peers.foolbox_deepfool(
            setup.logits
        ),
        "ART DeepFool, pixels 0 to 255": lambda: peers.art_deepfool(
            setup.logits, images
        ),
        "ART DeepFool, pixels 0 to 1": lambda: peers.art_deepfool(
            setup.logits, images, HIGH
        ),
    }
    rows = []
    for name, make in sides.items():
        # ART needs seconds for an image, so it gets some of them only.
        some = images[: setup.size(2, 2)] if "ART" in name else images
        try:
            run = make()
            # Traces with the batch that it will see. One image at a time
            # needs but one to warm up.
            run(some[:1] if "ART" in name else some)
            start = time.perf_counter()
            found = run(some)
            seconds = time.perf_counter() - start
        except Exception as error:  # A peer that fails is a finding.
            say(f"  {name}: {type(error).__name__}: {error}")
            rows.append({"side": name, "images a second": "does not run"})
            continue
        converged = _labels(setup, found) != labels[: len(some)]
        norms = np.linalg.norm((found - some).reshape(len(some), -1), axis=1)
        if not rows:
            our_norms, our_speed = norms, len(some) / seconds
        rows.append(
            {
                "side": name,
                "images": len(some),
                "images a second": len(some) / seconds,
                "ours is faster by": our_speed * seconds / len(some),
                "median l2 norm": float(np.median(norms[converged]))
                if converged.any()
                else float("nan"),
                "ours on these images": float(
                    np.median(our_norms[: len(some)][converged])
                )
                if converged.any()
                else float("nan"),
                "converged, rate": float(np.mean(converged)),
            }
        )
        say(f"  {rows[-1]}")
    return (
        "DeepFool on single images",
        f"{len(images)} images, 10 candidates, at most 50 steps, overshoot "
        "0.02; the second call is timed, norms are those of the images that "
        "converged. ART, which takes one image at a time, gets the first "
        f"{setup.size(2, 2)} of them. ART and foolbox clip to the pixel range "
        "and get a compiled function as their model; ART's steps fit pixels "
        "in 0 to 1 only.",
        rows,
    )


def _labels(setup, images):
    return np.concatenate(
        [
            tf.argmax(setup.compiled_logits(images[i : i + 32]), axis=-1)
            for i in range(0, len(images), 32)
        ]
    )


# 5 --------------------------------------------------------------------------


class _JudgeAt(keras.callbacks.Callback):
    """Judges v after certain numbers of batches; the last ends the fit."""

    def __init__(self, batches, judge):
        super().__init__()
        self.batches, self.judge = batches, judge
        self.seen, self.rates = 0, []

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen in self.batches:
            self.rates.append(self.judge(self.model.v))
        if self.seen >= max(self.batches):
            self.model.stop_training = True


def quality(setup):
    images, budgets = setup.images, setup.size((2000, 8000), (64, 128))
    seeds = range(setup.size(3, 1))
    labels = _labels(setup, images.astype("float32"))
    results = {}  # (setting, budget): rates

    def ours(name, update, budgets, passes, batch_size, data=None):
        at = [budget // (passes * batch_size) for budget in budgets]
        for seed in seeds:
            keras.utils.set_random_seed(seed)
            uap = setup.uap(lambda uap: update(uap, max(at)))
            judge = _JudgeAt(at, setup.judge)
            x = {"x": images, "batch_size": batch_size}
            if data is not None:
                x = {"x": data(images, batch_size, seed=seed)}
            uap.fit(**x, epochs=max(at), verbose=0, callbacks=[judge])
            note(name, budgets, judge.rates)

    def reference(name, run, cap):
        gradient = peers.clipped_gradient(setup.logits, setup.shape, cap)
        for seed in seeds:
            rng = np.random.default_rng(seed)
            rates, best = [], np.zeros(setup.shape)
            steps = run(gradient, images, labels, EPSILON, rng)
            for passes, v in steps:
                while len(rates) < len(budgets) and (
                    passes > budgets[len(rates)]
                ):
                    rates.append(setup.judge(best))
                if len(rates) == len(budgets):
                    break
                best = v
            note(name, budgets, rates)

    def note(name, budgets, rates):
        for budget, rate in zip(budgets, rates, strict=True):
            say(f"  {name}, {budget} passes: {rate:.1%}")
            results.setdefault((name, budget), []).append(rate)

    ours("keras_uap, lion", lambda uap, batches: "lion", budgets, 2, BATCH)
    for budget in budgets:  # Its steps depend on the length of the run.
        for name, passes, data in (
            ("keras_uap, decaying_lion", 2, None),
            ("keras_uap, decaying_lion, augmented", 3, datasets.augmented),
        ):
            ours(
                name,
                lambda uap, batches: uap.decaying_lion(batches),
                [budget],
                passes,
                BATCH,
                data,
            )
    sign_sgd, sga = peers.sign_sgd, peers.sga
    for name, run, cap in (
        (
            "sign-SGD, step 0.8 of epsilon (Co et al.)",
            functools.partial(sign_sgd, step=0.8 * EPSILON),
            12.0,
        ),
        (
            "sign-SGD, step 0.1 of epsilon",
            functools.partial(sign_sgd, step=0.1 * EPSILON),
            9.0,
        ),
        (
            "SGA, large batches of 250, 4 rounds (Liu et al.)",
            functools.partial(sga, step=0.1 * EPSILON),
            9.0,
        ),
        (
            "SGA for few passes, large batches of 50, 1 round",
            functools.partial(sga, step=0.1 * EPSILON, batch_size=50, rounds=1),
            9.0,
        ),
    ):
        reference(name, run, cap)
    rows = []
    for name in dict.fromkeys(name for name, _ in results):
        row = {"setting": name}
        for budget in budgets:
            rates = results[name, budget]
            row[f"fooling rate, {budget} passes"] = float(np.mean(rates))
            row[f"range, {budget} passes"] = (
                f"{min(rates):.1%} to {max(rates):.1%}"
            )
        rows.append(row)
    return (
        "Fooling rate at equal model passes",
        f"{len(images)} crops to fit, {len(setup.held_out)} held-out crops "
        f"(random signs fool {setup.random_rate:.1%}); mean and range of "
        f"{len(seeds)} seeds. Clean predictions of arrays, one pass an image, "
        "are counted for no side; those of augmented images, made with every "
        "batch, are counted. The references follow their papers' step sizes "
        "and caps; SGA's own setting makes one step of v per 2,000 passes, so "
        "a second one suits these budgets.",
        rows,
    )


# 6 --------------------------------------------------------------------------


def memory(setup):
    few = setup.size(100, 16)
    rows = []
    for count in (few, setup.size(10 * few, 2 * few)):
        command = [sys.executable, sys.argv[0], "--memory-of", str(count)]
        if setup.photos:
            command += ["--photos", setup.photos]
        output = subprocess.run(
            command, check=True, capture_output=True, text=True
        ).stdout
        rows.append({"images": count, **json.loads(output.splitlines()[-1])})
        rows[-1]["ratio"] = (
            rows[-1]["peak memory, MiB"] / rows[0]["peak memory, MiB"]
        )
        say(f"  {rows[-1]}")
    return (
        "Peak memory of a fit from tf.data",
        "Each fit runs in a process of its own, one epoch of `lion` over JPEG "
        "files read, decoded and batched by tf.data; few files are repeated.",
        rows,
    )


def memory_of_fit(photos, count):
    """Runs in a child process: prints the peak memory of one fit."""
    folder = photos or os.path.join(os.path.dirname(samples.__file__), "photos")
    paths = tf.io.gfile.glob(
        [os.path.join(folder, "*.jpg"), os.path.join(folder, "fit", "*.jpg")]
    )

    def read(path):
        return tf.io.decode_jpeg(tf.io.read_file(path), channels=3)

    data = (
        tf.data.Dataset.from_tensor_slices(sorted(paths))
        .repeat()
        .take(count)
        .map(read)
        .batch(BATCH, drop_remainder=True)
        .prefetch(2)
    )
    uap = keras_uap.UniversalPerturbation(samples.load_classifier(), EPSILON)
    uap.compile("lion")
    before = peak_memory()
    uap.fit(data, verbose=0)
    print(
        json.dumps(
            {"peak memory, MiB": peak_memory(), "before the fit, MiB": before}
        )
    )


# 7 --------------------------------------------------------------------------


def layer_overhead(setup):
    images = setup.images[: setup.size(64, 16)].astype("float32")
    labels = _labels(setup, images)
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
            [keras.Input(setup.shape), *before, samples.load_classifier()]
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


# 8 --------------------------------------------------------------------------


def modes(setup):
    images = setup.images[: setup.size(64, 32)]
    settings = {
        "default": {},
        "steps_per_execution=4": {"steps_per_execution": 4},
        "jit_compile=True": {"jit_compile": True},
        "mixed_float16 classifier": {"policy": "mixed_float16"},
        "mixed_bfloat16 classifier": {"policy": "mixed_bfloat16"},
    }
    rows = []
    for name, arguments in settings.items():
        policy = arguments.pop("policy", None)
        clock = EpochClock()
        uap = setup.uap(
            "lion",
            _with_policy(policy) if policy else setup.classifier,
            **arguments,
        )
        try:
            uap.fit(
                images,
                batch_size=BATCH,
                epochs=setup.size(setup.repeats, 1) + 1,
                verbose=0,
                callbacks=[clock],
            )
        except Exception as error:  # What does not compile is a finding.
            say(f"  {name}: {type(error).__name__}: {error}")
            rows.append({"mode": name, "epoch, seconds": "does not run"})
            continue
        seconds = median(clock.seconds[1:])
        rows.append(
            {
                "mode": name,
                "epoch, seconds": seconds,
                "ratio": seconds / rows[0]["epoch, seconds"] if rows else 1.0,
                "first epoch, seconds": clock.seconds[0],
            }
        )
        say(f"  {rows[-1]}")
    return (
        "Modes of Keras",
        f"One epoch of `lion` on {len(images)} images, batches of {BATCH}; "
        "the first epoch traces and compiles. v stays float32 throughout.",
        rows,
    )


def _with_policy(name):
    """A fresh classifier whose layers compute in another precision."""
    classifier = samples.load_classifier()
    for layer in classifier._flatten_layers():
        layer.dtype_policy = keras.DTypePolicy(name)
    return classifier


PARTS = {
    "fooling_time": fooling_time,
    "gradient_epoch": gradient_epoch,
    "deepfool_epoch": deepfool_epoch,
    "deepfool": deepfool_throughput,
    "quality": quality,
    "memory": memory,
    "layer": layer_overhead,
    "modes": modes,
}
