"""The best perturbation of a fit is the one that is kept."""

import keras


class KeepBest(keras.callbacks.Callback):
    """Keeps the best perturbation of a fit; stands before all callbacks.

    Args:
        begin: Function of no arguments, called when the fit begins.
    """

    def __init__(self, begin):
        super().__init__()
        self._begin = begin
        self._began = False

    def on_train_begin(self, logs=None):
        self._begin()
        self._began = True
        # Where a run is resumed, BackupAndRestore, which comes later in the
        # list, restores both.
        self.model.stop_reason = None
        self.model.best_rate.assign(-1.0)

    def on_epoch_begin(self, epoch, logs=None):
        self.model.order.renew(self.model.seed_generator)

    def on_train_batch_end(self, batch, logs=None):
        self.model.refuse_bad_batch("x or validation_data")

    def on_test_end(self, logs=None):
        # A callback that comes later may put an average in the place of `v`
        # for as long as it is measured.
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
        # A callback that ended the fit has named what is to be kept.
        self.restore_best(kept=self.model.stop_reason is not None)
        if self.model.stop_reason is None:
            self.model.stop_reason = (
                "stopped by a callback"
                if self.model.stop_training
                else "all epochs done"
            )

    def restore_best(self, kept=False):
        # Before it began, the best is that of the fit before.
        if not self._began:
            return
        model = self.model
        if kept or model.best_rate.numpy() >= 0:
            model.v.assign(model.best_v)
        # Keras has ended the fit with an average, or two sums' difference.
        model.v.assign(model.ball.project(model.v))


def with_callbacks(first, callbacks, bar=None):
    """Returns a list of `first` and the callbacks that `fit` got.

    Args:
        first: Callback that stands before all others.
        callbacks: What `fit` got.
        bar: `keras.callbacks.ProgbarLogger` that stands behind them, unless
            one of them is another; or `None`.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        raise TypeError(
            "callbacks must be a callback or a list of callbacks. Received: a "
            "CallbackList."
        )
    if callbacks is None:
        callbacks = []
    elif not isinstance(callbacks, (list, tuple)):
        callbacks = [callbacks]
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            raise TypeError(
                "callbacks must be a callback or a list of callbacks. "
                f"Received: {callback!r}."
            )
    logger = keras.callbacks.ProgbarLogger
    if bar is None or any(isinstance(each, logger) for each in callbacks):
        return [first, *callbacks]
    return [first, *callbacks, bar]
