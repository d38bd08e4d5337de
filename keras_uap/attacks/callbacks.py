"""Callbacks for fitting a perturbation: when to stop, backups, TensorBoard."""

import os
import pathlib
import re

import keras
import numpy as np
import tensorflow as tf

from keras_uap.classifiers.adapter import as_adapter
from keras_uap.classifiers.around import AroundClassifier
from keras_uap.data.pictures import as_array
from keras_uap.perturbations.lp_ball import lp_norm
from keras_uap.perturbations.perturbation_layer import PerturbationLayer
from keras_uap.perturbations.pixels import same_shape
from keras_uap.utils import validation
from keras_uap.utils.keras_compat import all_layers, start_at
from keras_uap.utils.saving import atomic_path, delete_unfinished


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
        images: Images or a dataset, as for `evaluate`, to measure on.
        monitor: `"fooling_rate"`, or `"target_rate"` for a targeted
            perturbation.

    Raises:
        ValueError: for a rate or monitor out of range.
    """

    def __init__(self, rate, images=None, monitor="fooling_rate"):
        super().__init__()
        validation.check_number("rate", rate, above=0, most=1)
        rates = "fooling_rate", "target_rate"
        validation.check_choice("monitor", monitor, rates)
        self.rate = rate
        self.images = images
        self.monitor = monitor

    def on_train_begin(self, logs=None):
        if not hasattr(self.model, "keep"):
            raise ValueError(
                "StopAtFoolingRate works in the fit of a "
                f"UniversalPerturbation. Received: model {self.model.name!r}."
            )

    def on_epoch_end(self, epoch, logs):
        source = self.model._fit_source
        if self.images is not None:
            value, where = self._evaluate(self.images), "the images given"
        elif source is not None:
            value = logs[self.monitor] = self._evaluate(source, source.steps)
            where = "the images of the fit"
        else:
            # `validation_freq` leaves epochs without validation.
            value = logs.get(f"val_{self.monitor}", 0.0)
            where = "the validation data"
        if value >= self.rate:
            self.model.keep(
                f"{self.monitor} {value:.3f} reached {self.rate:g} on {where} "
                f"after epoch {epoch + 1}"
            )

    def _evaluate(self, images, steps=None):
        options = {"steps": steps, "verbose": 0, "return_dict": True}
        rates = self.model.evaluate(images, **options)
        if self.monitor not in rates:
            raise ValueError(
                f"monitor={self.monitor!r} needs a perturbation with a target."
            )
        return rates[self.monitor]


class BackupAndRestore(keras.callbacks.Callback):
    """Backs a fit up after each epoch, and goes on where it was cut off.

    It does what `keras.callbacks.BackupAndRestore` does, and survives a kill
    at any moment, also during a backup. Keras overwrites two files in place,
    the weights and the number of the epoch: a kill can leave half a file, or
    the weights of one epoch with the number of another. Here both are one
    file, which replaces the previous one when it is complete.

    Pass the same arguments to the resumed fit; it finds its first epoch.
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
        _check_folder("backup_dir", backup_dir)
        if not str(backup_dir):
            raise ValueError("backup_dir must not be empty.")
        self.backup_dir = pathlib.Path(backup_dir)
        self.delete_checkpoint = delete_checkpoint

    def on_train_begin(self, logs=None):
        if not self.model.built:
            raise ValueError("The model must be built. Call `build` before.")
        delete_unfinished(self.backup_dir)
        backups = self._backups()
        if backups:
            epoch = max(backups)
            optimizer = self.model.optimizer
            if not optimizer.built:
                with self.model.distribute_strategy.scope():
                    optimizer.build(self.model.trainable_variables)
            self.model.load_weights(backups[epoch])
            start_at(self.model, epoch)

    def on_epoch_begin(self, epoch, logs=None):
        start_at(self.model, None)  # The next fit starts at its own epoch.

    def on_epoch_end(self, epoch, logs=None):
        self.backup_dir.mkdir(parents=True, exist_ok=True)
        older = self._backups()
        path = self.backup_dir / f"epoch_{epoch + 1}.weights.h5"
        with atomic_path(path) as temporary:
            self.model.save_weights(temporary)
        for old in {*older.values()} - {path}:
            old.unlink()

    def on_train_end(self, logs=None):
        start_at(self.model, None)  # No epoch ran if none was left.
        if self.delete_checkpoint:
            self.delete()

    def delete(self):
        """Deletes the backups of the folder."""
        for backup in self._backups().values():
            backup.unlink()

    def _backups(self):
        """The paths of the backups by the number of epochs done."""
        # Other files of the user may be there.
        paths = self.backup_dir.glob("epoch_*.weights.h5")
        found = [(re.match(r"epoch_(\d+)\.", p.name), p) for p in paths]
        return {int(match[1]): path for match, path in found if match}


class PerturbationTensorBoard(keras.callbacks.Callback):
    """Shows a perturbation in TensorBoard while it is fitted.

    After an epoch it writes the perturbation as an image (stretched to its
    full range; a signal as lines), the histogram of its values, its norm and,
    with `images`, a plot of some images without and with it, under their
    predictions. When the fit ends, it writes the perturbation that is kept,
    if that is another one.

    It stands beside `keras.callbacks.TensorBoard`, which draws the metrics, and
    writes to a folder of its own below the same `log_dir`. It works in the fit
    of a `UniversalPerturbation`, of an `AdversarialDistiller`, and of a model
    with a `PerturbationLayer` that has an `epsilon` or a `rate`.

    Example:

    ```python
    uap.fit(
        images,
        epochs=5,
        validation_data=held_out,
        callbacks=[
            keras.callbacks.TensorBoard("logs"),
            keras_uap.PerturbationTensorBoard("logs", images=held_out),
        ],
    )
    ```

    Args:
        log_dir: String or path of a folder. It is written to
            `log_dir/perturbation`.
        images: Images `(n, H, W, C)`, as for `UniversalPerturbation.fit`, of
            which the first `num_images` are shown. `None` shows none.
        class_names: Sequence of strings, the names of the classes.
        every: Integer, the epochs from one writing to the next.
        num_images: Integer, from 1 to 8.

    Raises:
        TypeError: if `log_dir` is not a path.
        ValueError: for arguments out of range; at the beginning of `fit`, if
            the model has no perturbation, or several layers with one.
    """

    def __init__(
        self, log_dir, images=None, class_names=None, every=1, num_images=4
    ):
        super().__init__()
        _check_folder("log_dir", log_dir)
        validation.check_whole("every", every, 1)
        validation.check_whole("num_images", num_images, 1)
        self.log_dir = str(log_dir)
        self.class_names = class_names
        self.every = every
        if images is not None:
            images = as_array(images, most=min(num_images, 8)).astype("float32")
        self._images = images

    def on_train_begin(self, logs=None):
        self._holder = self._find_holder()
        folder = os.path.join(self.log_dir, "perturbation")
        self._writer = tf.summary.create_file_writer(folder)
        self._adapter = self._written = None
        self._next = 0

    def on_epoch_end(self, epoch, logs=None):
        self._next = epoch + 1
        if (epoch + 1) % self.every == 0:
            self._write(epoch)

    def on_train_end(self, logs=None):
        # Not those of the last epoch, where an earlier one is kept.
        kept = self._holder.perturbation
        if self._next and not np.array_equal(self._written, kept):
            self._write(self._next)
        self._writer.close()
        # They hold the model, and functions that were traced of it.
        self._writer = self._adapter = self._holder = None

    def _find_holder(self):
        """What has the perturbation: the model or a layer in it."""
        if isinstance(self.model, AroundClassifier):
            return self.model
        layers = [
            layer
            for layer in all_layers(self.model)
            if isinstance(layer, PerturbationLayer) and layer.rate is not None
        ]
        if len(layers) != 1:
            raise ValueError(
                "The model must have one perturbation: a PerturbationLayer "
                "with an epsilon or a rate. Received: model "
                f"{self.model.name!r} with {len(layers)}."
            )
        return layers[0]

    def _write(self, epoch):
        # A library that a fit without this callback does not need.
        from keras_uap.visualization import style

        perturbation = pool = self._holder.perturbation
        if getattr(self._holder, "pool_size", 1) == 1:
            pool = perturbation[np.newaxis]
        with self._writer.as_default(step=epoch):
            if style.is_drawn(pool[0]):
                size, shown = _draw(pool[:8], style)
                _write_images("perturbation", size, shown)
                if self._images is not None:
                    self._write_examples(pool[0], style)
            counts, edges = np.histogram(pool, bins=30)
            buckets = np.stack([edges[:-1], edges[1:], counts], axis=1)
            buckets = tf.constant(buckets, "float64")
            _write("perturbation_values", "histograms", buckets)
            for norm in ("linf", "l2"):
                size = max(lp_norm(v, norm) for v in pool)
                size = tf.constant(size, "float32")
                _write(f"perturbation_{norm}_norm", "scalars", size)
        self._writer.flush()
        self._written = perturbation

    def _write_examples(self, v, style):
        from keras_uap.visualization.perturbation import plot_perturbation

        same_shape(self._images.shape, v.shape)
        if self._adapter is None:
            # The model sees them as they are: at inference the layer in it
            # is the identity. Traced once, it follows the weights.
            known = getattr(self._holder, "classifier", self.model)
            known = getattr(self._holder, "adapter", None) or known
            self._adapter = as_adapter(known, v.shape, images=self._images)
        shown = self._images, self._holder.value_range, self.class_names
        figure = plot_perturbation(self._adapter, v, *shown)
        png = style.as_png(figure)
        _write_images("examples", figure.bbox.size[::-1], [png])


def _draw(pool, style):
    """Returns `(height, width)` and PNG files of perturbations."""
    if style.is_image(pool[0]):
        shown = np.clip([255 * style.stretch(v) for v in pool], 0, 255)
        return pool.shape[1:3], [*map(tf.io.encode_png, shown.astype("uint8"))]
    shown = []
    for v in pool:
        axes = style.axes(6, 3)
        style.show_perturbation(axes, v)
        shown.append(style.as_png(axes.figure))
    return axes.figure.bbox.size[::-1], shown


# Writes the metadata of TensorBoard's plugins directly, so that the tensorboard
# package is not required.


def _write(tag, plugin, tensor):
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = plugin
    tf.summary.write(tag, tensor, metadata=metadata)


def _write_images(tag, size, files):
    """Writes PNG files of images of a size `(height, width)`."""
    height, width = (str(int(side)) for side in size)
    _write(tag, "images", tf.stack([width, height, *files]))


def _check_folder(name, value):
    """Raises TypeError unless `value` is a path."""
    if not isinstance(value, (str, os.PathLike)):
        expected = "the path of a folder"
        raise validation.invalid(name, expected, value, error=TypeError)
