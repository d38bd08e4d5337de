"""A perturbation that can be measured: rates, and the images they are of.

What `UniversalPerturbation` needs to be evaluated, whatever found it: the
clean predictions, the labels of the perturbed images, and what is bad in a
batch.
"""

import keras
import numpy as np
import tensorflow as tf

from keras_uap.attacks.metrics import FoolingRate, sparse_labels
from keras_uap.attacks.perturbation_model import PerturbationModel
from keras_uap.data import sources
from keras_uap.perturbations.pixels import warn_of_other_range
from keras_uap.utils.formatting import one_line
from keras_uap.utils.keras_compat import (
    higher_is_better,
    is_validation,
    monitored,
)
from keras_uap.utils.validation import check_counts

_FITTED_ON = "fitted_on"


class MeasuredPerturbation(PerturbationModel):
    """A `PerturbationModel` with `evaluate` and its metrics."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fitted_on = None
        self.stop_reason = None
        self._fooling_rate = FoolingRate()
        self._target_rate = higher_is_better(
            keras.metrics.Mean(name="target_rate")
        )
        self._accuracy = keras.metrics.Mean(name="accuracy")
        self._batches = keras.metrics.Sum(name="batches")
        # The place of the first batch that is not finite, counted from 1.
        self._bad_batch = keras.metrics.Sum(name="bad_batch")

    def progress_metrics(self):
        """Metrics of what finds the perturbation."""
        return []

    @property
    def metrics(self):
        rates = [self._fooling_rate]
        if self.target is not None:
            rates.append(self._target_rate)
        # What `evaluate` returns comes first, in its order.
        return [
            *rates,
            self._accuracy,
            *self.progress_metrics(),
            self._batches,
            self._bad_batch,
            monitored(rates),
        ]

    def extra_variables(self):
        extra = super().extra_variables()
        if self.fitted_on:
            text = self.fitted_on.encode("utf-8")
            extra[_FITTED_ON] = np.frombuffer(text, "uint8")
        return extra

    def load_extra_variables(self, arrays):
        super().load_extra_variables(arrays)
        # Older files do not say.
        text = np.asarray(arrays.pop(_FITTED_ON, ()), "uint8")
        self.fitted_on = text.tobytes().decode("utf-8", "replace") or None
        self.stop_reason = None  # That of another fit.

    def test_step(self, data):
        images, clean, labels = self._unpack(data)
        if clean is None:
            clean = self._look(images)
        predicted = self._predicted(self.perturbed(images))
        return self.for_workers(self._measure(clean.labels, predicted, labels))

    def _unpack(self, data):
        """Returns images, `Clean` or None, and labels or None."""
        images, clean, labels = sources.unpack(data)
        number = self._batches.result()
        images, finite = sources.checked(images, self.v.shape, number)
        if self.jit_compile:
            known = finite | (self._bad_batch.result() > 0)
            self._bad_batch.update_state(tf.where(known, 0.0, number + 1))
        self._batches.update_state(1)
        return images, clean, labels

    def refuse_bad_batch(self, name="x"):
        """Raises ValueError for a batch that was not finite, with XLA."""
        # XLA drops the check in the graph.
        place = int(self._bad_batch.result()) if self.jit_compile else 0
        if place:
            raise sources.not_finite(name, place - 1)

    def on_one_batch(self, x, y, sample_weight):
        self.build_for_source(sources.source(x, y))

    def _look(self, images, with_features=False, layer=None):
        """What the classifier makes of clean images, `Clean`: one forward."""
        if not with_features:
            return sources.Clean(self._predicted(images))
        look = self.adapter.features_function(layer)
        features, logits = look(images)
        return sources.Clean(tf.argmax(logits, axis=-1), features)

    def _predicted(self, images):
        return tf.argmax(self.adapter.logits(images), axis=-1)

    def _measure(self, clean, predicted, labels):
        """Updates the metrics that evaluation and training share."""
        self._fooling_rate.update_state(clean, predicted)
        logs = {"fooling_rate": self._fooling_rate.result()}
        if self.target is not None:
            # Who is there already cannot be sent there.
            self._target_rate.update_state(
                tf.cast(predicted == self.target, "float32"),
                tf.cast(clean != self.target, "float32"),
            )
            logs["target_rate"] = self._target_rate.result()
        if labels is not None:
            self._accuracy.update_state(
                tf.cast(predicted == sparse_labels(labels), "float32")
            )
            logs["accuracy"] = self._accuracy.result()
        return logs

    def evaluate(self, x=None, y=None, batch_size=None, **kwargs):
        """Measures the perturbation on images.

        Args:
            x: Images, as for `fit`.
            y: Labels `(n,)`. They add `accuracy` on the perturbed images, and
                change nothing else.
            batch_size: Integer, for arrays. Defaults to 32.
            **kwargs: `verbose`, `steps`, `callbacks`, `return_dict`, as in
                `keras.Model.evaluate`.

        Returns:
            `fooling_rate`, and `target_rate` and `accuracy` where there is a
            target and labels: as a dictionary with `return_dict=True`, else as
            a list in that order, or a single float. `target_rate` is the share
            of the images not already of the target that are sent there.

        Raises:
            ValueError: if the images are empty, not finite or of the wrong
                shape.
        """
        check_counts(batch_size=batch_size, steps=kwargs.get("steps"))
        # `fit` has checked its validation data, once for all epochs.
        if not is_validation(kwargs):
            images = sources.source(x, y, "x", kwargs.get("steps"), "steps")
            self.build_for_source(images)
            x, y = images.batches(batch_size or 32), None
        try:
            measured = super().evaluate(x, y, **kwargs)
            self.refuse_bad_batch()
            return measured
        except tf.errors.InvalidArgumentError as error:
            sources.raise_if_bad_batch(error, "x")
            raise

    def predict(self, x, *args, **kwargs):
        """Class scores of the perturbed images, as `keras.Model.predict`."""
        try:
            return super().predict(x, *args, **kwargs)
        except tf.errors.InvalidArgumentError as error:
            sources.raise_if_bad_batch(error, "x")
            raise

    def plot(self, images, class_names=None, title=None):
        """Draws the perturbation, and images without and with it.

        Args:
            images: Images `(n, H, W, C)` or signals `(n, T, C)`, as for `fit`;
                the first eight.
            class_names: Sequence of strings, the names of the classes.
            title: String, over the whole figure.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ValueError: if there is no perturbation yet, or the images do not
                have its shape.
        """
        # Pictures need a library that a fit does not.
        from keras_uap import visualization

        return visualization.plot_perturbation(
            self.classifier,
            self.perturbation,
            images,
            self.value_range,
            class_names,
            self.from_logits,
            title,
        )

    def summary(self, *args, print_fn=None, **kwargs):
        """Prints what was sought and found, and then Keras' own summary.

        Args:
            *args, **kwargs: As for `keras.Model.summary`.
            print_fn: Function that takes a line of text, instead of `print`.
        """
        for line in self._lines():
            (print_fn or print)(line)
        super().summary(*args, print_fn=print_fn, **kwargs)

    def _lines(self):
        """What was sought, what was found, and on what."""
        aim = (
            "any other label" if self.target is None else f"class {self.target}"
        )
        found = "nothing yet: the size of the images is not known"
        if self.built:
            found = (
                f"{self.norm} norm {self.ball.norm_of(self.perturbation):.4g}, "
                f"shape {tuple(self.v.shape)}"
            )
            if self.mask is not None:
                free = int(self.ball.free_values(self.v.shape))
                found += f", in {free} values of a mask"
        rate = "not measured on others; evaluate does"
        if self.built and self.best_rate.numpy() >= 0:
            name = "fooling rate" if self.target is None else "target rate"
            rate = f"{name} {self.best_rate.numpy():.1%} on validation data"
        fitted = self.fitted_on or "nothing that is known of"
        if self.fitted_on and self.stop_reason:
            fitted += f"; {self.stop_reason}"
        rows = {
            "perturbation of": self.classifier.name,
            "ball": f"{self.norm} norm at most {self.epsilon:.4g}, "
            + (
                "nothing clipped"
                if self.value_range is None
                else f"pixels in {self.value_range}"
            ),
            "sought": aim,
            "found": found,
            "rate": rate,
            "fitted on": fitted,
        }
        return [f"{name:<18}{value}" for name, value in rows.items()]

    def __repr__(self):
        rate = self.best_rate.numpy() if self.built else -1
        return one_line(
            type(self).__name__,
            {
                "classifier": self.classifier.name,
                "epsilon": self.epsilon,
                "norm": self.norm,
                "value_range": self.value_range,
                "target": self.target,
                "perturbation": self.v if self.built else None,
                "best_rate": float(rate) if rate >= 0 else None,
            },
        )

    def build_for_source(self, source):
        """Builds for the images of a source, and looks at their range."""
        images = source.first
        self._build_for(images.shape[1:], images[:4].astype("float32"))
        self.check_adapter(images[:4].astype("float32"))
        warn_of_other_range(images, self.value_range, source.name, 4)
