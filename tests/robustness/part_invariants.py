"""What must hold in every mode, checked after every batch.

Random draws of updates, norms, masks, targets, batch sizes, precisions and
pixel ranges. After every batch `v` is finite, inside the ball and zero off the
mask. After the run the metrics equal a recount by NumPy, and what the caller
handed in is as it was.
"""

import warnings

import common
import keras
import numpy as np
import tensorflow as tf

import keras_uap
from keras_uap.lp_ball import lp_norm

UPDATES = ["deepfool", "one by one", "lion", "sgd", "adam", "momentum"]


def _optimizer(name, rng):
    if name == "one by one":
        return keras_uap.DeepFool(one_by_one=True, num_candidates=3)
    if name == "deepfool":
        return keras_uap.DeepFool(
            num_candidates=int(rng.integers(2, 6)),
            step_size=float(rng.uniform(0.1, 5)),
            momentum=float(rng.uniform(0, 0.99)),
        )
    if name == "momentum":
        return keras.optimizers.SGD(float(10 ** rng.uniform(-4, 30)), 0.9)
    return name


def _classifier(rng, dtype):
    activation = rng.choice(["softmax", "linear", "sigmoid"])
    classes = 1 if activation == "sigmoid" else int(rng.integers(2, 6))
    if dtype == "float32" and rng.integers(0, 2):
        return common.linear(classes, str(activation), int(rng.integers(99)))
    seed = int(rng.integers(99))
    return keras.Sequential(
        [
            keras.Input(common.SHAPE, dtype="float32"),
            keras.layers.Conv2D(
                4,
                3,
                activation="tanh",
                dtype=dtype,
                kernel_initializer=keras.initializers.RandomNormal(seed=seed),
            ),
            keras.layers.Dropout(0.5, dtype=dtype),
            keras.layers.Flatten(dtype=dtype),
            keras.layers.Dense(
                classes,
                activation=str(activation),
                dtype=dtype,
                kernel_initializer=keras.initializers.RandomNormal(
                    stddev=0.3, seed=seed + 1
                ),
            ),
        ]
    )


def _mask(rng):
    kind = int(rng.integers(0, 3))
    if kind == 0:
        return None
    shape = common.SHAPE[:2] if kind == 1 else common.SHAPE
    mask = (rng.uniform(size=shape) < rng.uniform(0.02, 1)).astype("float32")
    mask.flat[0] = 1
    return mask


class EachBatch(keras.callbacks.Callback):
    def __init__(self, check):
        super().__init__()
        self.check = check

    def on_train_batch_end(self, batch, logs=None):
        self.check(self.model)

    def on_epoch_end(self, epoch, logs=None):
        self.check(self.model)


def _labels(classifier, images):
    scores = np.asarray(classifier.predict(images, verbose=0), "float64")
    if scores.shape[-1] == 1:
        return (scores[:, 0] > 0.5).astype(int)
    return scores.argmax(-1)


def _one(report, rng, strategy=None):
    update = str(rng.choice(UPDATES[2:] if strategy else UPDATES))
    if strategy and rng.integers(0, 2):
        update = "deepfool"
    dtype = "float32" if rng.integers(0, 3) else "mixed_float16"
    low, high = [(0, 1), (-1, 1), (0, 255)][int(rng.integers(0, 3))]
    count = int(rng.integers(3, 25))
    images = common.images(count, int(rng.integers(999)))
    images = images * np.float32(high - low) + np.float32(low)
    if high == 255 and rng.integers(0, 2):
        images = images.astype("uint8")
    epsilon = float((high - low) * 10 ** rng.uniform(-3, -0.3))
    norm = str(rng.choice(["linf", "l2"]))
    if norm == "l2":
        epsilon *= 10
    mask = _mask(rng)
    classifier = _classifier(rng, dtype)
    classes = max(classifier.output_shape[-1], 2)
    target = None
    if "one" not in update and update != "deepfool" and rng.integers(0, 3) == 0:
        target = int(rng.integers(0, classes))
    clips = bool(rng.integers(0, 5))
    uap = keras_uap.UniversalPerturbation(
        classifier,
        epsilon,
        norm,
        value_range=(low, high) if clips else None,
        mask=mask,
        target=target,
    )
    eager = not strategy and bool(rng.integers(0, 4))
    uap.compile(
        _optimizer(update, rng),
        loss=str(rng.choice(["crossentropy", "margin"])),
        run_eagerly=eager,
    )
    weights = [w.copy() for w in classifier.get_weights()]
    flags = [layer.trainable for layer in classifier.layers]
    copy, free = images.copy(), np.ones(common.SHAPE)
    if mask is not None:
        mask_copy = mask.copy()
        free = free * mask.reshape(*mask.shape, *[1] * (3 - mask.ndim))
    text = (
        f"{update} {norm} {dtype} eps={epsilon:.4g} target={target} "
        f"mask={mask is not None} n={count} range={(low, high)} eager={eager}"
    )

    def check(model):
        v = np.asarray(model.v)
        report.count("invariants checked", 3)
        report.check(np.isfinite(v).all(), f"{text}: v is not finite")
        report.check(
            lp_norm(v, norm) <= epsilon,
            f"{text}: norm {lp_norm(v, norm)!r} above {epsilon!r}",
        )
        report.check(not v[free == 0].any(), f"{text}: v off the mask")

    history = uap.fit(
        images,
        batch_size=int(rng.choice([1, 2, 5, 7, 16, 64]))
        * (2 if strategy else 1),
        epochs=2,
        validation_data=images[: max(2, count // 2)],
        callbacks=[EachBatch(check)],
        verbose=0,
    ).history
    check(uap)
    perturbed = uap.perturb(images)
    clean = images.astype("float32")
    expected = clean + uap.perturbation
    if clips:
        expected = np.clip(expected, low, high)
    before, after = _labels(classifier, clean), _labels(classifier, expected)
    measured = uap.evaluate(images, verbose=0, return_dict=True)
    recount = float(np.mean(before != after))
    # In float16 an image may lie between two labels that tie.
    slack = 1e-6 if dtype == "float32" else 1.5 / count
    facts = {
        "perturbed images are not clipped": np.array_equal(perturbed, expected),
        f"fooling rate {measured} is not {recount}": abs(
            measured["fooling_rate"] - recount
        )
        <= slack,
        "images changed": np.array_equal(images, copy),
        "mask changed": mask is None or np.array_equal(mask, mask_copy),
        "classifier changed": all(
            np.array_equal(a, b)
            for a, b in zip(weights, classifier.get_weights())
        ),
        "trainable flags changed": flags
        == [layer.trainable for layer in classifier.layers],
        "history is not finite": all(
            np.isfinite(values).all()
            for key, values in history.items()
            if "loss" not in key
        ),
    }
    if target is not None:
        rate = float(np.mean(after == target))
        facts[f"target rate is not {rate}"] = (
            abs(measured["target_rate"] - rate) <= slack
        )
    report.count("invariants checked", len(facts))
    for fact, holds in facts.items():
        report.check(holds, f"{text}: {fact}")
    report.count("runs")
    report.count(f"runs of {update}")


def _layer(report, rng):
    """A layer that trains its perturbation along with a classifier."""
    norm = str(rng.choice(["linf", "l2"]))
    epsilon = float(10 ** rng.uniform(-3, 0.5))
    layer = keras_uap.PerturbationLayer(
        value_range=(0, 1),
        epsilon=epsilon,
        norm=norm,
        pool_size=int(rng.integers(1, 4)),
        rate=float(rng.uniform(0, 1)),
    )
    model = keras.Sequential(
        [keras.Input(common.SHAPE), layer, common.linear()]
    )
    name = str(rng.choice(["adam", "sgd", "rmsprop", "lion"]))
    model.compile(name, "sparse_categorical_crossentropy", run_eagerly=True)
    images = common.images(20)

    def check(_):
        report.count("invariants checked", 2)
        for v in np.asarray(layer.perturbations):
            report.check(np.isfinite(v).all(), f"layer {name}: not finite")
            report.check(
                lp_norm(v, norm) <= epsilon,
                f"layer {name} {norm}: norm {lp_norm(v, norm)} > {epsilon}",
            )

    model.fit(
        images,
        np.arange(20) % 4,
        batch_size=int(rng.choice([1, 3, 8])),
        callbacks=[EachBatch(check)],
        verbose=0,
    )
    report.count("runs")
    report.count("runs of a layer that trains")


def run(report, quick, seed):
    warnings.simplefilter("ignore")
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for i in range(12 if quick else 150):
        keras.utils.set_random_seed(seed * 1000 + i)
        rng = np.random.default_rng([seed, i])
        _one(report, rng)
        if i % 6 == 0:
            _layer(report, rng)
        if i % 12 == 0:
            with strategy.scope():
                _one(report, rng, strategy)
            report.count("runs on two devices")
