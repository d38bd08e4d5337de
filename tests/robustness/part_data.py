"""Hostile data: bad batches in the middle of a stream, odd classifiers."""

import warnings

import common
import keras
import numpy as np
import tensorflow as tf

import keras_uap

UPDATES = ["deepfool", "lion", keras_uap.DeepFool(one_by_one=True)]


def _stream(images, bad_batch, bad_epoch, bad):
    """A data set whose batch `bad_batch` is bad from the `bad_epoch`-th run."""
    runs = iter(range(10**6))

    def batches():
        epoch = next(runs)
        for i in range(5):
            x = images[8 * i : 8 * i + 8].copy()
            yield bad(x) if epoch >= bad_epoch and i == bad_batch else x

    return tf.data.Dataset.from_generator(
        batches, output_signature=tf.TensorSpec(None, "float32")
    )


def _pixel(value):
    def bad(x):
        x[3, 2, 1, 0] = value
        return x

    return bad


BAD_BATCHES = {
    "NaN": _pixel(np.nan),
    "infinity": _pixel(np.inf),
    "minus infinity": _pixel(-np.inf),
    "another height": lambda x: x[:, :-1],
    "other channels": lambda x: x[..., :1],
    "no batch": lambda x: x[0],
}


def _streams(report, quick):
    images = common.images(40)
    for update in UPDATES[:1] if quick else UPDATES:
        for name, bad in BAD_BATCHES.items():
            report.count("bad streams tried")
            uap = keras_uap.UniversalPerturbation(
                common.linear(), 0.05, value_range=(0, 1)
            )
            uap.compile(update)
            seen = []

            class Record(keras.callbacks.Callback):
                def on_epoch_end(self, epoch, logs, seen=seen):
                    seen.append(
                        (logs["val_fooling_rate"], self.model.perturbation)
                    )

            error = None
            try:
                uap.fit(
                    _stream(images, 3, 4, bad),
                    epochs=20,
                    validation_data=images,
                    callbacks=[Record()],
                    verbose=0,
                )
            except Exception as caught:
                error = caught
            text = f"{update}, {name} in a stream"
            report.check(
                isinstance(error, ValueError) and "batch 3" in str(error),
                f"{text}: {type(error).__name__} {str(error)[:200]}",
            )
            report.check(1 <= len(seen) < 20, f"{text}: {len(seen)} epochs")
            if seen:
                best = max(rate for rate, _ in seen)
                v = [v for rate, v in seen if rate == best][-1]
                report.check(
                    np.array_equal(uap.perturbation, v),
                    f"{text}: the best perturbation is lost",
                )
            report.check(
                "ended by" in str(uap.stop_reason),
                f"{text}: stop_reason {uap.stop_reason!r}",
            )


@keras.saving.register_keras_serializable(package="robustness")
class Gradient(keras.layers.Layer):
    """Hands its input on; the gradient of bright images becomes `value`."""

    def __init__(self, value, above=0.5, **kwargs):
        super().__init__(**kwargs)
        self.value, self.above = value, above

    def call(self, inputs):
        @tf.custom_gradient
        def replace(x):
            rows = tf.reshape(x[:, 0, 0, 0] > self.above, (-1, 1, 1, 1))
            return x, lambda upstream: tf.where(rows, self.value, upstream)

        return replace(inputs)


def _constant(classes):
    model = common.linear(classes, None)
    model.set_weights([0 * w for w in model.get_weights()])
    return model


def _behind(value, above):
    return keras.Sequential(
        [keras.Input(common.SHAPE), Gradient(value, above), common.linear()]
    )


CLASSIFIERS = {
    "usual": common.linear,
    "two classes": lambda: common.linear(2),
    "single logit": lambda: common.linear(1, None),
    "single probability": lambda: common.linear(1, "sigmoid"),
    "saturated softmax": lambda: common.linear(scale=1e4),
    "saturated sigmoid": lambda: common.linear(1, "sigmoid", scale=1e4),
    "all scores equal": lambda: _constant(4),
    "no gradient": lambda: _behind(0.0, -1.0),
    "NaN gradients of some": lambda: _behind(np.nan, 0.5),
    "NaN gradients of all": lambda: _behind(np.nan, -1.0),
    "infinite gradients of some": lambda: _behind(np.inf, 0.5),
}


def _pictures():
    images = common.images(12)
    return {
        "usual": images,
        "one image": images[:1],
        "all black": 0 * images,
        "all white": 0 * images + 1,
        "constant": 0 * images + np.linspace(0, 1, 12).reshape(-1, 1, 1, 1),
        "all alike": images[:1].repeat(12, axis=0),
    }


def _odd(report, quick):
    pictures = _pictures()
    if quick:
        pictures = {k: pictures[k] for k in ("usual", "all black")}
    for what, make in CLASSIFIERS.items():
        for update in UPDATES:
            uap = keras_uap.UniversalPerturbation(
                make(), 0.05, value_range=(0, 1)
            )
            uap.compile(update, run_eagerly=quick)
            for name, images in pictures.items():
                report.count("odd classifiers and images tried")
                uap.perturbation = np.zeros(common.SHAPE)
                text = f"{what}, {name}, {update}"
                with common.time_limit(120):
                    logs = uap.fit(
                        images.astype("float32"),
                        epochs=2,
                        batch_size=5,
                        verbose=0,
                    ).history
                v = uap.perturbation
                report.check(
                    np.isfinite(v).all() and np.abs(v).max() <= 0.05,
                    f"{text}: v is broken",
                )
                silent = what in (
                    "all scores equal",
                    "no gradient",
                    "NaN gradients of all",
                )
                if silent:
                    lost = logs.get("no_gradient", logs.get("not_converged"))
                    report.check(
                        not v.any() and lost[-1] == len(images),
                        f"{text}: silence is not counted, {lost}",
                    )


def _one_class(report):
    """A classifier with nothing to choose is refused."""
    for activation in ("softmax", None):
        model = keras.Sequential(
            [
                keras.Input(common.SHAPE),
                keras.layers.Flatten(),
                keras.layers.Dense(1, activation=activation),
            ]
        )
        report.count("odd classifiers and images tried")
        error = None
        try:
            uap = keras_uap.UniversalPerturbation(
                model, 0.05, value_range=(0, 1)
            )
            uap.fit(common.images(8), verbose=0)
        except ValueError as caught:
            error = caught
        if activation == "softmax":
            report.check(
                error is not None, "a softmax of one class was accepted"
            )
        else:
            report.check(error is None, f"a single logit: {error}")


def run(report, quick, seed):
    warnings.simplefilter("ignore")
    keras.utils.set_random_seed(seed)
    _streams(report, quick)
    _one_class(report)
    _odd(report, quick)
