"""What happens around the steps of a fit: its beginning, its end, its bar."""

import keras

from keras_uap.data.pictures import new_seed
from keras_uap.utils.validation import invalid


class FitLifecycle(keras.callbacks.Callback):
    """The life cycle of a fit; stands before all other callbacks.

    It begins the update, draws the order of each epoch, refuses images that
    are not finite, keeps the best perturbation and names the stop reason.

    Args:
        epochs: Pair of integers, the epochs done before and in all.
        count_batches: Function that returns how many batches an epoch has.
    """

    def __init__(self, epochs, count_batches):
        super().__init__()
        self._epochs = epochs
        self._count_batches = count_batches
        self._began = False

    def on_train_begin(self, logs=None):
        self.model._update.begin(self.model, self._epochs, self._count_batches)
        self._began = True
        # BackupAndRestore, which comes later in the list, restores both where
        # it resumes a fit.
        self.model.stop_reason = None
        self.model.best_rate.assign(-1.0)

    def on_epoch_begin(self, epoch, logs=None):
        self.model._order.seed = new_seed(self.model.seed_generator)

    def on_train_batch_end(self, batch, logs=None):
        self.model._rates.check("x")

    def on_test_end(self, logs=None):
        # A later callback may replace `v` by an average while it is measured.
        self._measured = self.model.perturbation

    def on_epoch_end(self, epoch, logs):
        model = self.model
        logs["norm"] = model.ball.norm_of(model.perturbation)
        name = "fooling_rate" if model.target is None else "target_rate"
        rate = logs.get(f"val_{name}")
        # Of equals, the later one: it has seen more images.
        if rate is not None and rate >= model.best_rate.numpy():
            model.best_rate.assign(rate)
            model.best_v.assign(self._measured)

    def on_train_end(self, logs=None):
        # A callback that ended the fit has named what is kept.
        self.restore_best(kept=self.model.stop_reason is not None)
        reason = "all epochs done"
        if self.model.stop_training:
            reason = "stopped by a callback"
        self.model.stop_reason = self.model.stop_reason or reason

    def restore_best(self, kept=False):
        """Sets `v` to the best perturbation, inside its ball.

        Args:
            kept: Boolean, whether `best_v` was set by `keep`.
        """
        # Before the fit began, the best is that of the fit before.
        if not self._began:
            return
        model = self.model
        if kept or model.best_rate.numpy() >= 0:
            model.v.assign(model.best_v)
        # Keras may end the fit with an average, rounded to outside the ball.
        model.v.assign(model.ball.project(model.v))


class RatesBar(keras.callbacks.ProgbarLogger):
    """Keras' progress bar with the rates and the norm alone.

    Args:
        hidden: Sequence of strings, the metrics that only the `History` shows.
    """

    def __init__(self, hidden):
        super().__init__()
        self._hidden = hidden

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, self._shown(logs))

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, self._shown(logs))

    def _shown(self, logs):
        return {k: v for k, v in (logs or {}).items() if k not in self._hidden}


def all_callbacks(lifecycle, callbacks, hidden):
    """Returns a list with the callbacks of a fit in their order.

    Args:
        lifecycle: `FitLifecycle`.
        callbacks: What `fit` received.
        hidden: What `RatesBar` hides; nothing for no progress bar.
    """
    callbacks = keras.tree.flatten(callbacks or [])
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback) or isinstance(
            callback, keras.callbacks.CallbackList
        ):
            expected = "a callback or a list of callbacks"
            raise invalid("callbacks", expected, callback, error=TypeError)
    bar = keras.callbacks.ProgbarLogger
    if hidden and not any(isinstance(c, bar) for c in callbacks):
        callbacks.append(RatesBar(hidden))
    return [lifecycle, *callbacks]
