"""Callbacks for fitting a perturbation: when to stop, and backups."""

import os
import pathlib

import keras

from keras_uap.checks import check_number
from keras_uap.keras_private import start_at
from keras_uap.saving import TEMPORARY, weights_path


class StopAtFoolingRate(keras.callbacks.Callback):
    """Ends a fit once the perturbation fools a share of the images.

    The rate is that of the perturbation at the end of an epoch, measured, not
    the running one of the progress bar. It is measured on `images`, or else
    on the validation data, or else on the images of the fit. In the last case
    it costs an evaluation of them after each epoch, as in the paper's
    Algorithm 1, and replaces the running rate in the logs. The perturbation
    that reached the rate is the one that the fit keeps.

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
        check_number("rate", rate, above=0, most=1)
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
        if value is not None and value >= self.rate:
            self.model.keep(
                f"{self.monitor} {value:.3f} reached {self.rate:g} on {where} "
                f"after epoch {epoch + 1}"
            )

    def _measured(self, logs):
        if self.images is not None:
            return self._evaluate(self.images), "the images given"
        if f"val_{self.monitor}" in logs:
            return logs[f"val_{self.monitor}"], "the validation data"
        rates = self.model.evaluate_on_fit()
        if rates is None:
            # An epoch without validation, by `validation_freq`.
            return None, None
        logs[self.monitor] = self._monitored(rates)
        return logs[self.monitor], "the images of the fit"

    def _evaluate(self, images):
        return self._monitored(
            self.model.evaluate(images, verbose=0, return_dict=True)
        )

    def _monitored(self, rates):
        if self.monitor not in rates:
            raise ValueError(
                f"monitor={self.monitor!r} needs a perturbation with a target."
            )
        return rates[self.monitor]


class BackupAndRestore(keras.callbacks.Callback):
    """Backs a fit up after each epoch, and goes on where it was cut off.

    It does what `keras.callbacks.BackupAndRestore` does, and holds out against
    a kill at any moment, also in the middle of a backup: Keras' own writes the
    weights and the number of the epoch to two files in place, so that a kill
    can leave half a file, or weights of one epoch with the number of another.
    Here both are one file, which is moved to its place when it is whole.

    The resumed fit is given the same arguments; `initial_epoch` is found out.
    It works for a `UniversalPerturbation`, which ends with the perturbation of
    the uninterrupted fit, bit for bit, and for any other Keras model.

    Args:
        backup_dir: String or path of a folder for this fit alone.
        delete_checkpoint: Boolean, whether to delete the backup once the fit
            has ended.

    Raises:
        TypeError: if `backup_dir` is not a path.
        ValueError: if it is empty; at the beginning of `fit`, if the model is
            not built.
    """

    def __init__(self, backup_dir, delete_checkpoint=True):
        super().__init__()
        if not isinstance(backup_dir, (str, os.PathLike)):
            raise TypeError(
                "backup_dir must be the path of a folder. Received: "
                f"backup_dir={backup_dir!r}."
            )
        if not str(backup_dir):
            raise ValueError("backup_dir must not be empty.")
        self.backup_dir = pathlib.Path(backup_dir)
        self.delete_checkpoint = delete_checkpoint

    def on_train_begin(self, logs=None):
        if not self.model.built:
            raise ValueError(
                "A model must be built before it can be backed up. Call "
                "`build`, or the model on a batch."
            )
        for half in self.backup_dir.glob(TEMPORARY + "*"):
            half.unlink()
        backups = self._backups()
        if backups:
            epoch = max(backups)
            optimizer = self.model.optimizer
            if not optimizer.built:
                optimizer.build(self.model.trainable_variables)
            self.model.load_weights(backups[epoch])
            start_at(self.model, epoch)

    def on_epoch_begin(self, epoch, logs=None):
        start_at(self.model, None)  # This fit is on its way; not the next.

    def on_epoch_end(self, epoch, logs=None):
        self.backup_dir.mkdir(parents=True, exist_ok=True)
        older = self._backups()
        path = self.backup_dir / f"epoch_{epoch + 1}.weights.h5"
        with weights_path(path, self.model) as temporary:
            self.model.save_weights(temporary)
        for number, old in older.items():
            if number != epoch + 1:
                old.unlink()

    def on_train_end(self, logs=None):
        start_at(self.model, None)  # Where no epoch was left.
        if self.delete_checkpoint:
            for backup in self._backups().values():
                backup.unlink()

    def _backups(self):
        """The paths of the backups by the number of epochs done."""
        return {
            int(path.name.split(".")[0].removeprefix("epoch_")): path
            for path in self.backup_dir.glob("epoch_*.weights.h5")
        }
