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

    def on_train_begin(self, logs=None):
        self._begin()
        # Where a run is resumed, BackupAndRestore, which comes later in the
        # list, restores both.
        self.model.stop_reason = None
        self.model.best_rate.assign(-1.0)

    def on_epoch_begin(self, epoch, logs=None):
        self.model.order.renew(self.model.seed_generator)

    def on_epoch_end(self, epoch, logs):
        model = self.model
        logs["norm"] = model.ball.norm_of(model.perturbation)
        name = "fooling_rate" if model.target is None else "target_rate"
        rate = logs.get(f"val_{name}")
        # Of equals, the later one: it has seen more images.
        if rate is not None and rate >= model.best_rate.numpy():
            model.best_rate.assign(rate)
            model.best_v.assign(model.v)

    def on_train_end(self, logs=None):
        self.restore_best()
        if self.model.stop_reason is None:
            self.model.stop_reason = (
                "stopped by a callback"
                if self.model.stop_training
                else "all epochs done"
            )

    def restore_best(self):
        if self.model is not None and self.model.best_rate.numpy() >= 0:
            self.model.v.assign(self.model.best_v)


def with_callbacks(first, callbacks):
    """Returns a list of `first` and the callbacks that `fit` got."""
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
    return [first, *callbacks]
