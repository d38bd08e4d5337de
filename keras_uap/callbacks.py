"""Callbacks for fitting a perturbation and for hardening a classifier."""

import keras


class StopAtFoolingRate(keras.callbacks.Callback):
    """Ends a fit once the perturbation fools a share of the images.

    The rate is that of the perturbation at the end of an epoch, measured, not
    the running one of the progress bar. It is measured on `images`, or else
    on the validation data, or else on the images of the fit. In the last case
    it costs an evaluation of them after each epoch, as in the paper's
    Algorithm 1, and replaces the running rate in the logs.

    Args:
        rate: Float in (0, 1], the share of images to fool: the paper's
            `1 - delta`.
        images: Images or a data set, as for `evaluate`, to measure on.
        monitor: `"fooling_rate"`, or `"target_rate"` for a targeted
            perturbation.

    Raises:
        ValueError: for a rate or monitor out of range.
    """

    def __init__(self, rate, images=None, monitor="fooling_rate"):
        super().__init__()
        if isinstance(rate, bool) or not 0 < rate <= 1:
            raise ValueError(
                "rate must be above 0 and at most 1, the share of images to "
                f"fool. Received: rate={rate!r}."
            )
        if monitor not in ("fooling_rate", "target_rate"):
            raise ValueError(
                "monitor must be 'fooling_rate' or 'target_rate'. Received: "
                f"monitor={monitor!r}."
            )
        self.rate = rate
        self.images = images
        self.monitor = monitor

    def on_epoch_end(self, epoch, logs):
        value, where = self._measured(logs)
        if value >= self.rate:
            self.model.stop_training = True
            self.model.stop_reason = (
                f"{self.monitor} {value:.3f} reached {self.rate:g} on {where} "
                f"after epoch {epoch + 1}"
            )

    def _measured(self, logs):
        if self.images is not None:
            return self._evaluate(self.images), "the images given"
        if f"val_{self.monitor}" in logs:
            return logs[f"val_{self.monitor}"], "the validation data"
        logs[self.monitor] = self._evaluate(self.model.fit_data)
        return logs[self.monitor], "the images of the fit"

    def _evaluate(self, images):
        results = self.model.evaluate(images, verbose=0, return_dict=True)
        if self.monitor not in results:
            raise ValueError(
                f"monitor={self.monitor!r} needs a perturbation with a target."
            )
        return results[self.monitor]
