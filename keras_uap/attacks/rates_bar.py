"""The progress bar of a fit: the rates and the norm, which people know."""

import keras


class RatesBar(keras.callbacks.ProgbarLogger):
    """Keras' progress bar without what only the update understands.

    Its losses and counts (`loss`, `model_passes`, `no_gradient`,
    `not_converged`) are in the `History`, as all the rest.
    """

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, self._shown(logs))

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, self._shown(logs))

    def _shown(self, logs):
        hidden = {metric.name for metric in self.model.progress_metrics()}
        return {k: v for k, v in (logs or {}).items() if k not in hidden}
