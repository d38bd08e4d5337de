"""A perturbation that can be measured: rates, and the images they are of.

What `UniversalPerturbation` needs to be evaluated, whatever found it: the
clean predictions, the labels of the perturbed images, and what is bad in a
batch.
"""

import keras
import tensorflow as tf

from keras_uap import batches
from keras_uap.checks import check_counts
from keras_uap.keras_private import higher_is_better, is_validation, monitored
from keras_uap.metrics import FoolingRate, sparse_labels
from keras_uap.perturbation_model import PerturbationModel
from keras_uap.pixels import warn_of_other_range


class MeasuredPerturbation(PerturbationModel):
    """A `PerturbationModel` with `evaluate` and its metrics."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
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

    def test_step(self, data):
        images, clean, labels = self._unpack(data)
        if clean is None:
            clean = self._predicted(images)
        predicted = self._predicted(self.perturbed(images))
        return self.for_workers(self._measure(clean, predicted, labels))

    def _unpack(self, data):
        """Returns images, clean predictions or None, and labels or None."""
        images, clean, labels = batches.unpack(data)
        number = self._batches.result()
        images, finite = batches.checked(images, self.v.shape, number)
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
            raise batches.not_finite(name, place - 1)

    def on_one_batch(self, x, y, sample_weight):
        self.build_for_source(batches.source(x, y))

    def _predicted(self, images):
        return tf.argmax(self.labeller.logits(images), axis=-1)

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
            images = batches.source(x, y, "x", kwargs.get("steps"), "steps")
            self.build_for_source(images)
            x, y = images.batches(batch_size or 32), None
        try:
            measured = super().evaluate(x, y, **kwargs)
            self.refuse_bad_batch()
            return measured
        except tf.errors.InvalidArgumentError as error:
            batches.raise_if_bad_batch(error, "x")
            raise

    def predict(self, x, *args, **kwargs):
        """Class scores of the perturbed images, as `keras.Model.predict`."""
        try:
            return super().predict(x, *args, **kwargs)
        except tf.errors.InvalidArgumentError as error:
            batches.raise_if_bad_batch(error, "x")
            raise

    def build_for_source(self, source):
        """Builds for the images of a source, and looks at their range."""
        images = source.first
        self._build_for(images.shape[1:], images[:4].astype("float32"))
        warn_of_other_range(images, self.value_range, source.name, 4)
