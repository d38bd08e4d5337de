"""`UniversalPerturbation`: a perturbation that is fitted like a Keras model.

The algorithm (Algorithm 1 of the paper, read per batch):

1. The classifier's own prediction on the clean image is the label to leave.
2. The images, perturbed by the `v` of the moment and clipped to the pixel
   range, are classified. Those with another label are fooled already.
3. An *update* finds a direction for `v` from the others: the sum of their
   DeepFool increments, or the gradient of a loss with respect to the pixels.
4. A Keras optimizer makes a step in that direction, and the constraint on `v`
   projects it back on the ball of radius `epsilon`.

`v` is the one trainable weight. The classifier is only read: it is called with
`training=False`, and neither its weights nor its `trainable` flags nor its
compile state are touched.

Reference:
    - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401)
    - [Shafahi et al., 2018](https://arxiv.org/abs/1811.11304)
"""

import keras
import tensorflow as tf

from keras_uap.attacks import updates
from keras_uap.attacks.keep_best import KeepBest, with_callbacks
from keras_uap.attacks.measured_perturbation import MeasuredPerturbation
from keras_uap.attacks.rates_bar import RatesBar
from keras_uap.data import sources
from keras_uap.perturbations.interchange import read_perturbation
from keras_uap.utils.validation import (
    check_counts,
    check_flag,
    check_number,
    check_whole,
)


@keras.saving.register_keras_serializable(package="keras_uap")
class UniversalPerturbation(MeasuredPerturbation):
    """One small image that, added to almost any image, fools a classifier.

    Example:

    ```python
    uap = keras_uap.UniversalPerturbation(classifier, epsilon=10.0)
    uap.compile("lion")
    uap.fit(images, epochs=5, validation_data=held_out)
    uap.evaluate(held_out, return_dict=True)  # {"fooling_rate": ...}
    v = uap.perturbation                      # (H, W, C), in pixel units
    ```

    Args:
        classifier: Keras model that maps images `(n, H, W, C)`, or signals
            `(n, T, C)`, to class scores `(n, num_classes)` or to a single
            logit or probability `(n, 1)`. It is left exactly as it is. For
            one that takes anything else, see `keras_uap.attach`.
        epsilon: Float above 0, the radius of the ball that holds the
            perturbation, in the pixel units of `value_range`.
        norm: `"linf"`, `"l2"`, `np.inf` or `2`, the norm of the ball.
        value_range: Pair of floats `(low, high)`, the pixel range that the
            classifier takes. Perturbed images are clipped to it. `None` means
            no clipping.
        target: Integer, the class to which images shall be sent. `None` for
            any class but the clean prediction.
        mask: Array `(H, W)` or `(H, W, C)`, non-zero where the perturbation
            may live.
        from_logits: Boolean, whether the classifier returns logits. `None`
            finds out.
        initial_perturbation: Array `(H, W, C)` inside the ball, in pixel
            units, where a fit starts: one found on noise, on another
            classifier or in another size; also a `UniversalPerturbation`, or
            the path of an `.npz` or `.keras` file of one. `None` starts from
            zero.
        seed: Integer of at least 0, the seed of all random draws: the order of
            the images and a random start. `None` draws a seed.
        **kwargs: `name` and the like, as for any Keras model.

    Raises:
        TypeError: if `classifier` is not a Keras model or `epsilon` is not a
            number.
        ValueError: for arguments out of range, a classifier without class
            scores, or an initial perturbation outside the ball or of another
            shape than the images.

    Reference:
        - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401)
    """

    def __init__(
        self,
        classifier,
        epsilon,
        norm="linf",
        value_range=(0, 255),
        target=None,
        mask=None,
        from_logits=None,
        initial_perturbation=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(
            classifier,
            epsilon,
            norm,
            value_range,
            target,
            mask,
            from_logits,
            seed,
            **kwargs,
        )
        self.order = sources.Order()
        self._fit_source = None
        self._model_passes = keras.metrics.Sum(name="model_passes")
        self.compile("deepfool" if self.target is None else "lion")

        self.build_if_stated()
        if initial_perturbation is not None:
            # As an array: Keras would take a model for a part of this one.
            self.perturbation = read_perturbation(
                initial_perturbation, self.value_range
            )

    def progress_metrics(self):
        return [*self._update.metrics, self._model_passes]

    # Compiling --------------------------------------------------------------

    def compile(
        self,
        optimizer="deepfool",
        loss="crossentropy",
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile=False,
        smoothing=0.0,
    ):
        """Chooses the update: what one batch does to the perturbation.

        Args:
            optimizer: `"deepfool"` or a `keras_uap.DeepFool` for the paper's
                update; the name of a Keras optimizer, or a Keras optimizer,
                for gradient steps. Directions come with a mean absolute value
                of 1, so a learning rate is in pixel units. A name gets a
                learning rate of a tenth of `epsilon`. `"decaying_lion"` is
                `decaying_lion` over the batches of each fit.
            loss: `"crossentropy"`, `"dominant"`, `"features"`,
                `"features+dominant"`, `"margin"` or a `keras.losses.Loss`,
                what gradient steps minimise; DeepFool has none. See
                `keras_uap.losses`.
            run_eagerly: Boolean, as in Keras.
            steps_per_execution: Integer, as in Keras.
            jit_compile: Boolean, as in Keras.
            smoothing: Float, the standard deviation in pixels of a Gaussian
                over height and width that smooths what each step follows; 0
                for none. A hardened classifier is often open to coarse
                patterns that steps along its bare gradients do not find; an
                ordinary one is fooled less by them.

        Raises:
            TypeError: if `optimizer` or `loss` is of another kind.
            ValueError: for an unknown name, a negative `smoothing`, or
                `jit_compile=True` with DeepFool.
        """
        check_flag("run_eagerly", run_eagerly)
        check_whole("steps_per_execution", steps_per_execution, 1)
        if jit_compile != "auto":
            check_flag("jit_compile", jit_compile)
        with self.distribute_strategy.scope():
            update = updates.get(
                optimizer, loss, self.target is not None, smoothing
            )
        update.refuse(self.target, jit_compile)
        if self.built:
            update.build(self)
        self._update = update
        super().compile(
            optimizer=update.optimizer,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile if update.with_xla else False,
        )
        self._compile_arguments = {
            "optimizer": update.config_of(optimizer),
            "loss": loss,
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile if update.with_xla else False,
            "smoothing": update.smoothing,
        }
        if self.built:
            self.build_optimizer()

    def on_build(self):
        self._update.build(self)
        self.build_optimizer()

    def check_loaded(self):
        super().check_loaded()
        self._update.build(self)  # A step for the mask that was loaded.

    def decaying_lion(self, batches, step=2 * updates.STEP):
        """The optimizer that measured best: sign steps that become smaller.

        Args:
            batches: Integer, how many batches the fit will run in all.
            step: Float above 0, the first steps as a share of `epsilon`. Less
                than 0.2 refines an `initial_perturbation` that is strong.

        Returns:
            A `keras.optimizers.Lion` for `compile`. Its steps fall in a line
            from the first to a hundredth of that. There they stay: compile
            with a new one before another fit.

        Raises:
            ValueError: if the size of the images is not known yet.
        """
        check_whole("batches", batches, 1)
        check_number("step", step, above=0, below=float("inf"))
        if not self.built:
            raise ValueError(
                "The size of the images is not known yet. Build the model "
                "first: uap.build((None, height, width, channels))."
            )
        pixel_step = float(self.ball.pixel_step(self.v.shape))
        return updates.decaying_lion(step * pixel_step, batches)

    def get_compile_config(self):
        return keras.saving.serialize_keras_object(self._compile_arguments)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))

    # One batch --------------------------------------------------------------

    def train_step(self, data):
        images, clean, labels = self._unpack(data)
        passes = tf.constant(0)
        wanted = self._update.needs_features
        if clean is None or (wanted and clean.features is None):
            clean = self._look(images, wanted, self._update.layer)
            passes += tf.size(clean.labels)
        step = self._update(self, images, clean)
        self._model_passes.update_state(passes + step.passes)
        logs = self._measure(clean.labels, step.predicted, labels)
        for metric in (self._model_passes, *self._update.metrics):
            logs[metric.name] = metric.result()
        return self.for_workers(logs)

    # Fitting ----------------------------------------------------------------

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        initial_epoch=0,
        steps_per_epoch=None,
        validation_steps=None,
        validation_batch_size=None,
        validation_freq=1,
    ):
        """Fits the perturbation to images.

        With `validation_data`, the perturbation of the epoch that fooled most
        of it (or sent most of it to the target) is the one that is kept.

        For arrays the clean predictions (and the features, for a loss that
        needs them) are computed once, before the first epoch; for a
        `tf.data.Dataset`, which may change from epoch to epoch (augmentation),
        with every batch, at one more forward pass an image.

        Steps that fall (`"decaying_lion"`, `"deepfool"`) begin anew with each
        fit. A data set of unknown length is read once more for that, to count
        its batches; `steps_per_epoch` spares it.

        Args:
            x: Images `(n, H, W, C)` as array or tensor, float or integer; a
                `tf.data.Dataset` or `keras.utils.PyDataset` of batches of
                images, or of `(images, labels)`; or what `datasets.load`
                gives. A data set must begin anew each epoch.
            y: Labels `(n,)`, used for `accuracy` only.
            batch_size: Integer, for arrays. Defaults to 16.
            epochs: Integer, passes over the images.
            callbacks: as in `keras.Model.fit`. There is no loss to monitor;
                the rates are: `"val_fooling_rate"`, or `"val_target_rate"`
                for a targeted perturbation.
            verbose, validation_split, shuffle: as in `keras.Model.fit`.
            initial_epoch, steps_per_epoch: as in `keras.Model.fit`.
            validation_steps, validation_batch_size: as in `keras.Model.fit`.
            validation_freq: as in `keras.Model.fit`.
            validation_data: Images, or `(images, labels)`, or a data set, not
                among those of `x`.

        Returns:
            The Keras `History`. Per epoch, `fooling_rate` is the share of the
            images that `v` fooled when their turn came, before their own
            update; `norm` is the norm of `v` at its end; `model_passes` counts
            the forwards and backwards of one image that the updates took;
            `not_converged` counts images that DeepFool did not get over a
            boundary (or `no_gradient` those without a usable gradient);
            `val_fooling_rate` measures the epoch's final `v`. The progress bar
            shows the rates and the norm of these. `stop_reason` of the model
            says why the run ended.

        Raises:
            ValueError: if the images are empty, not finite or of the wrong
                shape. A non-finite batch in the middle of a data set ends the
                run; the best perturbation so far is kept.
        """
        batch_size = 16 if batch_size is None else batch_size
        check_whole("epochs", epochs, 1)
        check_whole("initial_epoch", initial_epoch, 0)
        check_counts(
            batch_size=batch_size,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
        )
        if not isinstance(validation_freq, (list, tuple, set)):
            check_whole("validation_freq", validation_freq, 1)
        if validation_split is not None:
            check_number("validation_split", validation_split, 0, below=1)

        train = sources.source(x, y, "x", steps_per_epoch)
        self.build_for_source(train)
        held_out = None
        if validation_data is not None:
            held_out = sources.pair_source(
                validation_data,
                "validation_data",
                validation_steps,
                "validation_steps",
            )
            self.build_for_source(held_out)
        elif validation_split:
            train, held_out = train.split(validation_split)
        steps = steps_per_epoch or train.num_batches(batch_size)
        self._update.refuse(
            replicas=self.distribute_strategy.num_replicas_in_sync,
            batches=steps and steps * epochs,
        )
        validation_data = held_out and held_out.batches(
            validation_batch_size or 32, self.adapter, verbose=verbose
        )
        # Where there are others, rates are measured on those.
        self._fit_source = train if held_out is None else None
        self.fitted_on = train.told()
        keep_best = KeepBest(
            lambda: self._update.begin(
                self,
                (initial_epoch, epochs),
                lambda: steps_per_epoch or train.count_batches(batch_size),
            )
        )
        try:
            return super().fit(
                train.batches(
                    batch_size,
                    self.adapter,
                    self.order if shuffle else None,
                    verbose,
                    self._update.needs_features,
                    self._update.layer,
                ),
                epochs=epochs,
                verbose=verbose,
                shuffle=False,
                callbacks=with_callbacks(
                    keep_best, callbacks, RatesBar() if verbose != 0 else None
                ),
                validation_data=validation_data,
                initial_epoch=initial_epoch,
                steps_per_epoch=steps_per_epoch,
                validation_steps=validation_steps,
                validation_freq=validation_freq,
            )
        except BaseException as error:
            keep_best.restore_best()
            self.stop_reason = f"ended by {type(error).__name__}"
            sources.raise_if_bad_batch(error, "x or validation_data")
            raise
        finally:
            self._fit_source = None

    def keep(self, reason):
        """Ends a fit with the perturbation of the moment, for callbacks.

        Args:
            reason: String, what `stop_reason` will be.
        """
        self.stop_training = True
        # That one is kept, also where validation data say otherwise.
        self.best_v.assign(self.v)
        self.stop_reason = reason

    def evaluate_on_fit(self):
        """Measures `v` on the images of the fit that runs, for callbacks.

        Returns:
            A dictionary, as `evaluate` gives it; `None` where the fit has
            images of its own to measure on.
        """
        if self._fit_source is None:
            return None
        return self.evaluate(
            self._fit_source,
            steps=self._fit_source.steps,
            verbose=0,
            return_dict=True,
        )
