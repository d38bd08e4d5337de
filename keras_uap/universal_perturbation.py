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

import contextlib
import math
import os
import re
import warnings

import keras
import numpy as np
import tensorflow as tf

from keras_uap import losses
from keras_uap.checks import (
    as_numbers,
    check_flag,
    check_number,
    check_whole,
)
from keras_uap.datasets import without_tuner
from keras_uap.deepfool import DeepFool
from keras_uap.interchange import atomic_path, weights_path
from keras_uap.logits import (
    UndecidedError,
    compile_logits,
    logits_function,
    predict_logits,
)
from keras_uap.lp_ball import (
    ROUNDING,
    CallConstraint,
    lp_norm,
    project,
    standardize_epsilon,
    standardize_norm,
)
from keras_uap.metrics import FoolingRate
from keras_uap.perturbation_layer import (
    RESIZE_HINT,
    apply_perturbation,
    clip_to_range,
    standardize_perturbation,
    standardize_value_range,
)

# Images and their clean predictions travel together under these names, so that
# labels of the caller's data set are never taken for clean predictions.
_IMAGES = "keras_uap_images"
_CLEAN = "keras_uap_clean_predictions"

# The names of the state of the draws, and of the mask of a model that does not
# know the size of its images yet, among the model's saved variables.
_DRAWS = "seed_generator_state"
_MASK = "initial_mask"

# A named optimizer's step, as a share of epsilon.
_STEP = 0.1


def get_optimizer(optimizer):
    """Returns the `DeepFool` or the Keras optimizer that `compile` got.

    Raises:
        TypeError: if it is neither, nor the name of one.
        ValueError: for an unknown name.
    """
    if isinstance(optimizer, (DeepFool, keras.optimizers.Optimizer)):
        return optimizer
    if not isinstance(optimizer, str):
        raise TypeError(
            "optimizer must be 'deepfool', a keras_uap.DeepFool, or a "
            f"Keras optimizer or its name. Received: optimizer={optimizer!r}."
        )
    if optimizer.lower() == "deepfool":
        return DeepFool()
    try:
        return keras.optimizers.get(optimizer)
    except (TypeError, ValueError):
        raise ValueError(
            f"Unknown optimizer. Received: optimizer={optimizer!r}. Expected "
            "'deepfool' or the name of a Keras optimizer, such as 'lion'."
        ) from None


@keras.saving.register_keras_serializable(package="keras_uap")
class UniversalPerturbation(keras.Model):
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
            classifier or in another size. `None` starts from zero.
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
        **kwargs,
    ):
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                "keras_uap needs Keras on the TensorFlow backend. Received: "
                f"KERAS_BACKEND={keras.backend.backend()!r}. Set "
                "KERAS_BACKEND=tensorflow before importing keras."
            )
        if not isinstance(classifier, keras.Layer):
            raise TypeError(
                "classifier must be a Keras model that maps images to class "
                f"scores. Received: classifier={classifier!r} of type "
                f"{type(classifier).__name__}."
            )
        # The perturbation stays float32, also around a float16 classifier.
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.classifier = classifier
        self.epsilon = standardize_epsilon(epsilon)
        self.norm = standardize_norm(norm)
        self.value_range = standardize_value_range(value_range)
        self.target = _standardize_target(target)
        self.from_logits = from_logits
        self.stop_reason = None
        self._initial_mask = _standardize_mask(mask)
        self._logits = None
        self.fit_data = None
        self.fit_steps = None
        self._order_seed = None
        self._compiled_logits = None
        self.seed_generator = keras.random.SeedGenerator()
        self._create_metrics()
        self.compile("deepfool" if self.target is None else "lion")

        image_shape = _image_shape(classifier)
        if image_shape is not None:
            self._build_for(image_shape)
        if initial_perturbation is not None:
            self.perturbation = initial_perturbation

    # Building ---------------------------------------------------------------

    def build(self, input_shape):
        self._build_for(input_shape[1:])

    def _build_for(self, image_shape, images=None):
        """Creates the weights for images of this shape; checks all against it.

        Args:
            image_shape: Tuple `(H, W, C)`.
            images: Array of a few images, to try an opaque classifier on.
        """
        image_shape = tuple(image_shape)
        if self.built:
            if image_shape != tuple(self.v.shape):
                raise ValueError(
                    "The images do not have the perturbation's shape. "
                    f"Received: images of shape {image_shape}. Expected: "
                    f"{tuple(self.v.shape)}. {RESIZE_HINT}"
                )
        else:
            mask = self._initial_mask
            mask = _fit_mask(mask, image_shape) if mask is not None else None
            self.v = self.add_weight(
                shape=image_shape,
                initializer="zeros",
                trainable=True,
                constraint=CallConstraint(self._constrain),
                name="perturbation",
            )
            self.best_v = self.add_weight(
                shape=image_shape,
                initializer="zeros",
                trainable=False,
                name="best_perturbation",
            )
            self.best_rate = self.add_weight(
                shape=(),
                initializer=_below_zero,
                trainable=False,
                name="best_rate",
            )
            self.mask = None
            if mask is not None:
                self.mask = self.add_weight(
                    shape=image_shape,
                    initializer=lambda shape, dtype=None: tf.constant(mask),
                    trainable=False,
                    name="mask",
                )
            self.built = True
            self._set_default_step()
        if self._logits is None:
            try:
                logits = logits_function(
                    self.classifier, self.from_logits, images
                )
            except UndecidedError:
                # An opaque classifier is tried on the first images it gets.
                return
            self._compiled_logits = self._check_classes(logits, image_shape)
            self._logits = logits

    def _check_classes(self, logits, image_shape):
        """Traces the classifier once: has it scores, and the target?"""
        compiled = compile_logits(logits, image_shape)
        classes = compiled.get_concrete_function().outputs[0].shape[-1]
        if self.target is not None and self.target >= classes:
            raise ValueError(
                f"target is out of range. Received: target={self.target}. "
                f"Expected: 0 to {classes - 1}, as the classifier has "
                f"{classes} classes."
            )
        return compiled

    def _constrain(self, v):
        if self.mask is not None:
            v = v * self.mask
        return project(tf.convert_to_tensor(v), self.epsilon, self.norm)

    @property
    def _free_values(self):
        """How many values of the perturbation the mask leaves free."""
        if self.mask is None:
            return float(math.prod(self.v.shape))
        return tf.reduce_sum(self.mask)

    @property
    def _pixel_epsilon(self):
        """How far one pixel goes, on average, at the edge of the ball."""
        if self.norm == "linf":
            return self.epsilon
        return self.epsilon / self._free_values**0.5

    # The two things that a Keras model takes for granted: that what is
    # trainable below it is trained, and that metrics below it are its own. Both
    # would touch the caller's classifier.

    @property
    def trainable_variables(self):
        return [self.v] if self.built else []

    @property
    def trainable_weights(self):
        return self.trainable_variables

    @property
    def non_trainable_weights(self):
        return [w for w in self.weights if not self.built or w is not self.v]

    def _create_metrics(self):
        self._fooling_rate = FoolingRate()
        self._target_rate = keras.metrics.Mean(name="target_rate")
        self._loss_mean = keras.metrics.Mean(name="loss")
        self._not_converged = keras.metrics.Sum(name="not_converged")
        self._no_gradient = keras.metrics.Sum(name="no_gradient")
        self._model_passes = keras.metrics.Sum(name="model_passes")
        self._accuracy = keras.metrics.Mean(name="accuracy")
        self._batches = keras.metrics.Sum(name="batches")

    @property
    def metrics(self):
        return [
            self._fooling_rate,
            self._target_rate,
            self._loss_mean,
            self._not_converged,
            self._no_gradient,
            self._model_passes,
            self._accuracy,
            self._batches,
        ]

    # Compiling --------------------------------------------------------------

    def compile(
        self,
        optimizer="deepfool",
        loss="crossentropy",
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile=False,
    ):
        """Chooses the update: what one batch does to the perturbation.

        Args:
            optimizer: `"deepfool"` or a `keras_uap.DeepFool` for the paper's
                update; the name of a Keras optimizer, or a Keras optimizer,
                for gradient steps. Directions come with a mean absolute value
                of 1, so a learning rate is in pixel units. A name gets a
                learning rate of a tenth of `epsilon`.
            loss: `"crossentropy"`, `"margin"` or a `keras.losses.Loss`, what
                gradient steps minimise; DeepFool has none. See
                `keras_uap.losses`.
            run_eagerly: Boolean, as in Keras.
            steps_per_execution: Integer, as in Keras.
            jit_compile: Boolean, as in Keras.

        Raises:
            TypeError: if `optimizer` or `loss` is of another kind.
            ValueError: for an unknown name, or `jit_compile=True` with
                DeepFool.
        """
        check_flag("run_eagerly", run_eagerly)
        check_whole("steps_per_execution", steps_per_execution, 1)
        if jit_compile != "auto":
            check_flag("jit_compile", jit_compile)
        keras_optimizer = get_optimizer(optimizer)
        if isinstance(keras_optimizer, DeepFool):
            optimizer = keras_optimizer
        self._update = optimizer if isinstance(optimizer, DeepFool) else None
        self._step_is_default = isinstance(optimizer, str)
        self._loss = losses.get(loss, targeted=self.target is not None)
        if self._update is not None:
            if self.target is not None:
                raise ValueError(
                    "DeepFool leaves a class, it cannot reach a target. "
                    f"Received: target={self.target} with DeepFool. Use a "
                    "gradient update instead: compile('lion')."
                )
            if jit_compile is True:
                # XLA pads what is left of a batch, and DeepFool would count
                # the padding as images: other results, without an error.
                raise ValueError(
                    "DeepFool's batches become smaller from step to step, "
                    "which XLA cannot do. Received: jit_compile=True. Pass "
                    "False, or take a gradient update: compile('lion')."
                )
            jit_compile = False
            keras_optimizer = keras.optimizers.SGD(
                self._update.step_size, momentum=self._update.momentum
            )
        super().compile(
            optimizer=keras_optimizer,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
        )
        self._compile_arguments = {
            "optimizer": optimizer,
            "loss": loss,
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
        }
        self._set_default_step()

    def decaying_lion(self, batches):
        """The optimizer that measured best: sign steps that become smaller.

        Args:
            batches: Integer, how many batches the fit will run in all.

        Returns:
            A `keras.optimizers.Lion` for `compile`. Its steps begin at 0.2 of
            `epsilon` and fall in a line to a hundredth of that.

        Raises:
            ValueError: if the size of the images is not known yet.
        """
        check_whole("batches", batches, 1)
        if not self.built:
            raise ValueError(
                "The size of the images is not known yet. Build the model "
                "first: uap.build((None, height, width, channels))."
            )
        first = 2 * _STEP * float(self._pixel_epsilon)
        return keras.optimizers.Lion(
            keras.optimizers.schedules.PolynomialDecay(
                first, batches, first / 100
            )
        )

    def _set_default_step(self):
        if self._step_is_default and self.built:
            self.optimizer.learning_rate = _STEP * self._pixel_epsilon

    def get_compile_config(self):
        return keras.saving.serialize_keras_object(self._compile_arguments)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:  # So that the saved momentum finds its place.
            self.optimizer.build(self.trainable_variables)

    # One batch --------------------------------------------------------------

    def call(self, inputs):
        """Class scores of the perturbed images, from the classifier."""
        return self.classifier(
            apply_perturbation(inputs, self.v, self.value_range),
            training=False,
        )

    def train_step(self, data):
        images, clean, labels = self._unpack(data)
        passes = tf.constant(0)
        if clean is None:
            clean = self._predicted(images)
            passes += tf.size(clean)
        if self._update is None:
            predicted = self._gradient_update(images, clean)
            passes += 2 * tf.size(clean)
        elif self._update.one_by_one:
            predicted, spent = self._deepfool_one_by_one(images, clean)
            passes += spent
        else:
            predicted, spent = self._deepfool_batch(images, clean)
            passes += spent
        self._model_passes.update_state(passes)
        logs = self._measure(clean, predicted, labels)
        logs["model_passes"] = self._model_passes.result()
        if self._update is None:
            logs["loss"] = self._loss_mean.result()
            logs["no_gradient"] = self._no_gradient.result()
        else:
            logs["not_converged"] = self._not_converged.result()
        return self._for_reduction(logs)

    def test_step(self, data):
        images, clean, labels = self._unpack(data)
        if clean is None:
            clean = self._predicted(images)
        predicted = self._predicted(
            apply_perturbation(images, self.v, self.value_range)
        )
        return self._for_reduction(self._measure(clean, predicted, labels))

    def _for_reduction(self, logs):
        """Gives logs the shape in which Keras averages them over workers."""
        # Keras 3.15 takes the mean over axis 0 there, which scalars lack.
        if isinstance(
            self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy
        ):
            return {name: value[tf.newaxis] for name, value in logs.items()}
        return logs

    def _unpack(self, data):
        """Returns images, clean predictions or None, and labels or None."""
        x, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        _refuse_weights(sample_weight)
        clean = None
        if isinstance(x, dict) and _IMAGES in x:
            x, clean = x[_IMAGES], x[_CLEAN]
        images = self._of_one_shape(tf.cast(x, "float32"))
        finite = tf.reduce_all(tf.math.is_finite(images))
        tf.debugging.Assert(
            finite, [_NOT_FINITE, tf.cast(self._batches.result(), "int32")]
        )
        self._batches.update_state(1)
        return images, clean, labels

    def _of_one_shape(self, images):
        """Refuses a batch of another shape, which might broadcast with v."""
        expected = self.v.shape
        if not images.shape[1:].is_fully_defined():
            right = tf.cond(
                tf.rank(images) == len(expected) + 1,
                lambda: tf.reduce_all(tf.shape(images)[1:] == expected),
                lambda: False,
            )
        else:
            right = images.shape[1:] == tuple(expected)
        if right is not True:
            batch = tf.cast(self._batches.result(), "int32")
            check = tf.debugging.Assert(right, [_OTHER_SHAPE, batch])
            with tf.control_dependencies([] if check is None else [check]):
                images = tf.ensure_shape(images, (None, *expected))
        return images

    def _predicted(self, images):
        return tf.argmax(self._logits(images), axis=-1)

    def _measure(self, clean, predicted, labels):
        """Updates the metrics that evaluation and training share."""
        self._fooling_rate.update_state(clean, predicted)
        logs = {"fooling_rate": self._fooling_rate.result()}
        if self.target is not None:
            self._target_rate.update_state(
                tf.cast(predicted == self.target, "float32")
            )
            logs["target_rate"] = self._target_rate.result()
        if labels is not None:
            self._accuracy.update_state(
                tf.cast(predicted == _sparse(labels), "float32")
            )
            logs["accuracy"] = self._accuracy.result()
        return logs

    def _gradient_update(self, images, clean):
        """A step of the optimizer down the loss; returns the predictions."""
        perturbed = images + self.v
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(perturbed)
            scores = self._logits(clip_to_range(perturbed, self.value_range))
            goal = clean
            if self.target is not None:
                goal = tf.fill(tf.shape(clean), np.int64(self.target))
            loss = self._loss.call(goal, scores)
        gradients = tape.gradient(loss, perturbed)
        if gradients is None:
            raise ValueError(
                "The classifier's scores have no gradient with respect to the "
                f"images. Received: classifier {self.classifier.name!r}. "
                "Something in it cannot be differentiated: a cast to "
                "integers, an argmax, or NumPy code."
            )
        predicted = tf.argmax(scores, axis=-1)

        axes = list(range(1, images.shape.rank))
        finite = tf.reduce_all(tf.math.is_finite(gradients), axis=axes)
        silent = tf.reduce_all(tf.equal(gradients, 0.0), axis=axes)
        # An image whose loss is capped is fooled, and silent on purpose.
        missing = ~finite | (silent & tf.equal(predicted, clean))
        self._no_gradient.update_state(tf.cast(missing, "float32"))
        self._loss_mean.update_state(loss)
        self._apply(_sum_where(finite, gradients))
        return predicted

    def _deepfool_batch(self, images, clean):
        """One step along the sum of the batch's DeepFool increments."""
        batch = self._update.minimal_perturbations(
            self._logits,
            apply_perturbation(images, self.v, self.value_range),
            clean,
        )
        self._not_converged.update_state(tf.cast(~batch.converged, "float32"))
        self._apply(
            -_sum_where(batch.converged, batch.increments),
            scale=self._pixel_epsilon * (1.0 - self._update.momentum),
        )
        return batch.first_labels, batch.passes

    def _deepfool_one_by_one(self, images, clean):
        """Algorithm 1 to the letter: every image starts from the last v."""

        def add_increment(i, v, predicted, failed, passes):
            single = self._update.minimal_perturbations(
                self._logits,
                apply_perturbation(images[i : i + 1], v, self.value_range),
                clean[i : i + 1],
            )
            increment = _sum_where(single.converged, single.increments)
            v = tf.where(
                tf.reduce_any(increment != 0), self._constrain(v + increment), v
            )
            return (
                i + 1,
                v,
                predicted.write(i, single.first_labels[0]),
                failed + tf.cast(~single.converged[0], "int32"),
                passes + single.passes,
            )

        count = tf.shape(images)[0]
        start = (
            tf.constant(0),
            tf.convert_to_tensor(self.v),
            tf.TensorArray("int64", size=count),
            tf.constant(0),
            tf.constant(0),
        )
        _, v, predicted, failed, passes = tf.while_loop(
            lambda i, *_: i < count,
            add_increment,
            start,
            parallel_iterations=1,
        )
        self.v.assign(v)
        self._not_converged.update_state(failed)
        return predicted.stack(), passes

    def _apply(self, gradient, scale=1.0):
        """A step of the optimizer against `gradient`, then the constraint."""
        if self.mask is not None:
            gradient = gradient * self.mask
        # On several devices the images of all of them make one batch. The
        # optimizer adds the replicas' directions up, so each hands in a share.
        replicas = self.distribute_strategy.num_replicas_in_sync
        if replicas > 1:
            context = tf.distribute.get_replica_context()
            gradient = context.all_reduce("sum", gradient)
            scale = scale / replicas
        mean = tf.reduce_sum(tf.abs(gradient)) / self._free_values
        # A mean absolute value of 1 where v may live makes learning rates
        # pixels, whatever the loss, the classifier and the batch size.
        gradient = tf.math.divide_no_nan(scale * gradient, mean)
        self.optimizer.apply([gradient], [self.v])

    # Fitting and measuring --------------------------------------------------

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

        For arrays the clean predictions are computed once, before the first
        epoch; for a `tf.data.Dataset`, which may change from epoch to epoch
        (augmentation), with every batch, at one more forward pass an image.

        Args:
            x: Images `(n, H, W, C)` as array or tensor, float or integer; a
                `tf.data.Dataset` or `keras.utils.PyDataset` of batches of
                images, or of `(images, labels)`.
            y: Labels `(n,)`, used for `accuracy` only.
            batch_size: Integer, for arrays. Defaults to 16.
            epochs: Integer, passes over the images.
            verbose, callbacks, validation_split, shuffle, initial_epoch,
                steps_per_epoch, validation_steps, validation_batch_size,
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
            `val_fooling_rate` measures the epoch's final `v`. `stop_reason` of
            the model says why the run ended.

        Raises:
            ValueError: if the images are empty, not finite or of the wrong
                shape. A non-finite batch in the middle of a data set ends the
                run; the best perturbation so far is kept.
        """
        replicas = self.distribute_strategy.num_replicas_in_sync
        one_by_one = self._update is not None and self._update.one_by_one
        if one_by_one and replicas > 1:
            raise ValueError(
                "One image after another cannot run on several devices. "
                f"Received: DeepFool(one_by_one=True) with {replicas} "
                "replicas. Use whole batches, or one device."
            )
        batch_size = 16 if batch_size is None else batch_size
        check_whole("batch_size", batch_size, 1)
        check_whole("epochs", epochs, 1)
        check_whole("initial_epoch", initial_epoch, 0)
        for name, value in {
            "steps_per_epoch": steps_per_epoch,
            "validation_steps": validation_steps,
            "validation_batch_size": validation_batch_size,
        }.items():
            if value is not None:
                check_whole(name, value, 1)
        if not isinstance(validation_freq, (list, tuple, set)):
            check_whole("validation_freq", validation_freq, 1)
        if validation_split is not None:
            check_number(
                "validation_split",
                validation_split,
                lambda n: 0 <= n < 1,
                "in [0, 1)",
            )
        x, y = self._check_data(x, y, "x")
        if validation_split and validation_data is None:
            x, y, validation_data = _split(x, y, validation_split)
        # An epoch's worth, where `fit_data` is measured.
        self.fit_steps = None if _is_array(x) else steps_per_epoch
        if validation_data is not None:
            val = _as_pair(validation_data)
            _refuse_endless(
                val[0], "validation_data", "validation_steps", validation_steps
            )
            val = self._check_data(*val, "validation_data")
            validation_data = self._with_clean(*val, verbose)
            if _is_array(val[0]):
                validation_data = self._batches_of(
                    *validation_data, validation_batch_size or 32
                )
        if _is_array(x):
            images, y = self._with_clean(x, y, verbose)
            self.fit_data = images
            x, y = self._batches_of(images, y, batch_size, shuffle), None
        else:
            _refuse_endless(x, "x", "steps_per_epoch", steps_per_epoch)
            self.fit_data = x
        if validation_data is not None:
            self.fit_data = None  # Rates are measured on those.
        monitor = _Monitor()
        try:
            history = super().fit(
                x,
                y,
                epochs=epochs,
                verbose=verbose,
                shuffle=False,
                callbacks=_prepend(monitor, callbacks),
                validation_data=validation_data,
                initial_epoch=initial_epoch,
                steps_per_epoch=steps_per_epoch,
                validation_steps=validation_steps,
                validation_freq=validation_freq,
            )
        except BaseException as error:
            monitor.restore_best()
            self.stop_reason = f"ended by {type(error).__name__}"
            _raise_if_bad_batch(error, "x or validation_data")
            raise
        finally:
            self.fit_data = None
        return history

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
            a list in that order, or a single float.

        Raises:
            ValueError: if the images are empty, not finite or of the wrong
                shape.
        """
        # `fit` has checked its validation data, once for all epochs.
        if not kwargs.get("_use_cached_eval_dataset"):
            x, y = self._check_data(x, y, "x")
            _refuse_endless(x, "x", "steps", kwargs.get("steps"))
        if batch_size is not None:
            check_whole("batch_size", batch_size, 1)
        if kwargs.get("steps") is not None:
            check_whole("steps", kwargs["steps"], 1)
        if _is_array(x):
            x, y = self._batches_of(x, y, batch_size or 32), None
        try:
            return super().evaluate(x, y, **kwargs)
        except tf.errors.InvalidArgumentError as error:
            _raise_if_bad_batch(error, "x")
            raise

    def perturb(self, images):
        """Returns the perturbed images, clipped to `value_range`.

        Args:
            images: Array `(n, H, W, C)` or a single image `(H, W, C)`, float
                or integer.

        Returns:
            NumPy array of the same shape, float32. Rounding to integers
            changes it by up to half a grey level.

        Raises:
            ValueError: if the images have another shape than the perturbation.
        """
        images = as_numbers("images", images)
        v = self.perturbation
        if images.shape[-v.ndim :] != v.shape or images.ndim - v.ndim > 1:
            raise ValueError(
                "The images do not have the perturbation's shape. Received: "
                f"shape {images.shape}. Expected: (n, *{v.shape}) or "
                f"{v.shape}. {RESIZE_HINT}"
            )
        return apply_perturbation(images, v, self.value_range).numpy()

    @property
    def perturbation(self):
        """The perturbation as a NumPy array `(H, W, C)`, in pixel units."""
        if not self.built:
            raise _NoPerturbationError(
                "There is no perturbation yet: the size of the images is not "
                "known. Call fit, or set one."
            )
        return keras.ops.convert_to_numpy(self.v)

    @perturbation.setter
    def perturbation(self, value):
        value = standardize_perturbation(value)
        if self.built and value.shape != tuple(self.v.shape):
            raise ValueError(
                "The perturbation does not have the images' shape. Received: "
                f"{value.shape}. Expected: {tuple(self.v.shape)}. "
                f"{RESIZE_HINT}"
            )
        self._build_for(value.shape)
        self._check_in_ball(value)
        self.v.assign(self._constrain(value))

    def _check_in_ball(self, v):
        norm = lp_norm(v, self.norm)
        if norm > self.epsilon * (1 + ROUNDING):
            raise ValueError(
                "The perturbation is outside the ball. Received: "
                f"{self.norm} norm {norm:.6g}. Expected: at most epsilon = "
                f"{self.epsilon:.6g}. keras_uap.project brings it inside."
            )

    # Data -------------------------------------------------------------------

    def _check_data(self, x, y, name):
        """Checks what can be checked before any work, and builds the model."""
        if x is None:
            raise ValueError(
                f"{name} is missing. Pass images, or a data set of images."
            )
        if isinstance(x, dict) and _IMAGES in x:
            return x, y
        if isinstance(x, tf.data.Dataset):
            x = without_tuner(x)
            first = next(iter(x.take(1)), None)
        elif isinstance(x, keras.utils.PyDataset):
            first = x[0] if x.num_batches != 0 else None
        elif _is_array(x) or isinstance(x, (list, tuple)):
            x = _to_array(x, name)
            first = x if x.size else None
            if y is not None and x.ndim:
                _check_labels(y, len(x))
        else:
            raise TypeError(
                f"{name} must be an array of images, a tf.data.Dataset or a "
                f"keras.utils.PyDataset. Received: {type(x).__name__}."
            )
        if first is None:
            raise ValueError(f"{name} is empty: it holds no images.")
        images, _, sample_weight = keras.utils.unpack_x_y_sample_weight(first)
        _refuse_weights(sample_weight)
        self._check_images(np.asarray(images), name)
        return x, y

    def _check_images(self, images, name):
        if images.dtype.kind not in "fiu":
            raise TypeError(
                f"{name} must hold numbers. Received: dtype {images.dtype}."
            )
        if images.ndim < 2:
            raise ValueError(
                f"{name} must hold batches of images, (n, height, width, "
                f"channels). Received: shape {images.shape}."
            )
        if not np.all(np.isfinite(images)):
            index = np.argwhere(~np.isfinite(images))[0]
            raise ValueError(
                f"{name} must be finite. Received: NaN or infinity in image "
                f"{index[0]}, at position {tuple(index[1:].tolist())}."
            )
        self._build_for(images.shape[1:], images[:4].astype("float32"))
        if self.value_range is None:
            return
        low, high = self.value_range
        seen_low, seen_high = float(images.min()), float(images.max())
        narrow = seen_high - seen_low < 0.05 * (high - low)
        if seen_low < low or seen_high > high or (narrow and seen_high <= 1):
            warnings.warn(
                f"The pixels of {name} lie in [{seen_low:.4g}, "
                f"{seen_high:.4g}], but value_range is ({low:g}, {high:g}). "
                "Pass the value_range that the classifier takes, and epsilon "
                "in the same units.",
                stacklevel=4,
            )

    def _with_clean(self, x, y, verbose):
        """Puts clean predictions beside arrays; data sets stay as they are."""
        if not _is_array(x):
            return (x,) if y is None else (x, y)
        scores = predict_logits(
            self._compiled_logits, x, verbose=verbose, unit="clean prediction"
        )
        return {_IMAGES: x, _CLEAN: np.argmax(scores, axis=-1)}, y

    def _batches_of(self, images, y, batch_size, shuffle=False):
        """A data set of an array's batches, in an order of the epoch's own.

        Keras shuffles arrays too, but a resumed run would begin again with the
        order of the first epoch. Here the order comes from the seed generator,
        whose state is saved and restored with the weights.
        """
        parts = images if y is None else (images, y)
        parts = tf.nest.map_structure(tf.convert_to_tensor, parts)
        count = len(tf.nest.flatten(parts)[0])

        def epoch_order():
            rng = np.random.default_rng(self._order_seed)
            yield rng.permutation(count) if shuffle else np.arange(count)

        @tf.autograph.experimental.do_not_convert
        def gather(index):
            return tf.nest.map_structure(lambda t: tf.gather(t, index), parts)

        data = (
            tf.data.Dataset.from_generator(
                epoch_order,
                output_signature=tf.TensorSpec((count,), "int64"),
            )
            .unbatch()
            .apply(tf.data.experimental.assert_cardinality(count))
            .batch(batch_size)
            .map(gather)
            .prefetch(2)
        )
        # Several workers share each batch: there are no files to share out.
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = (
            tf.data.experimental.AutoShardPolicy.DATA
        )
        return without_tuner(data.with_options(options))

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # The data has been looked at and the model is built. Keras would take
        # a batch and average it over the workers, which fails for a batch of
        # several parts.
        if not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def _get_metrics_result_or_logs(self, logs):
        # Keras reads results off the metrics only if all of them are in the
        # logs. Ours depend on the update, the target and the labels.
        results = {m.name: m.result() for m in self.metrics if m.name in logs}
        return results or logs

    # Saving -----------------------------------------------------------------

    # A kill or a full disk in the middle leaves the old file as it was.

    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        """Saves the model as `keras.Model.save` does, whole or not at all."""
        with _whole(filepath, overwrite, ".keras", atomic_path) as path:
            super().save(path, overwrite=overwrite, zipped=zipped, **kwargs)

    def save_weights(self, filepath, overwrite=True, max_shard_size=None):
        """Saves the weights as Keras does, whole or not at all."""

        def write_to(path):
            return weights_path(path, self)

        with _whole(filepath, overwrite, ".weights.h5", write_to) as path:
            super().save_weights(path, overwrite, max_shard_size)

    # Keras leaves the state of random draws out of its files. A resumed run
    # goes on with the orders of images that an uninterrupted one would draw.

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store[_DRAWS] = keras.ops.convert_to_numpy(self.seed_generator.state)
        if not self.built and self._initial_mask is not None:
            store[_MASK] = self._initial_mask

    def load_own_variables(self, store):
        names = list(store.keys())
        own = {n: store[n] for n in names if n not in (_DRAWS, _MASK)}
        super().load_own_variables(own)
        if _DRAWS in names:
            self.seed_generator.state.assign(store[_DRAWS])
        if _MASK in names:
            self._initial_mask = _standardize_mask(store[_MASK])
        if self.built:
            self._check_loaded()

    def _check_loaded(self):
        """Refuses weights that a fit cannot have left: a file may be forged."""
        for v in (self.v, self.best_v):
            v = keras.ops.convert_to_numpy(v)
            self._check_in_ball(standardize_perturbation(v))
            if self.mask is not None and np.any(
                v[keras.ops.convert_to_numpy(self.mask) == 0]
            ):
                raise ValueError("The perturbation is not zero off the mask.")
        if self.mask is not None and not np.isin(self.mask, (0, 1)).all():
            raise ValueError("The mask must hold zeros and ones.")

    def get_build_config(self):
        return {"image_shape": list(self.v.shape)} if self.built else {}

    def build_from_config(self, config):
        if "image_shape" in config:
            self._build_for(config["image_shape"])

    def get_config(self):
        config = super().get_config()
        mask = self.mask if self.built else self._initial_mask
        config.update(
            {
                "classifier": keras.saving.serialize_keras_object(
                    self.classifier
                ),
                "epsilon": self.epsilon,
                "norm": self.norm,
                "value_range": self.value_range,
                "target": self.target,
                # The mask itself is a weight; here stands only its shape.
                "mask_shape": None if mask is None else list(mask.shape),
                "from_logits": self.from_logits,
            }
        )
        return config

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["classifier"] = keras.saving.deserialize_keras_object(
            config["classifier"]
        )
        mask_shape = config.pop("mask_shape", None)
        if mask_shape is not None:
            config["mask"] = np.ones(mask_shape, "float32")
        return cls(**config)


class _NoPerturbationError(ValueError, AttributeError):
    """Keras reads an attribute before it sets it, and expects the latter."""


class _Monitor(keras.callbacks.Callback):
    """Keeps the best perturbation of a fit; stands before all callbacks."""

    def on_train_begin(self, logs=None):
        # Where a run is resumed, BackupAndRestore, which comes later in the
        # list, restores both.
        self.model.stop_reason = None
        self.model.best_rate.assign(_below_zero(()))

    def on_epoch_begin(self, epoch, logs=None):
        seed = self.model.seed_generator.next()
        self.model._order_seed = keras.ops.convert_to_numpy(seed).tolist()
        self._epoch = epoch

    def on_epoch_end(self, epoch, logs):
        model = self.model
        logs["norm"] = lp_norm(model.perturbation, model.norm)
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


_NOT_FINITE = "keras_uap: NaN or infinity in batch"
_OTHER_SHAPE = "keras_uap: images of another shape in batch"


def _raise_if_bad_batch(error, name):
    """Raises a ValueError that says which batch of a data set is bad."""
    if not isinstance(error, tf.errors.InvalidArgumentError):
        return
    for mark, must in {
        _NOT_FINITE: "be finite",
        _OTHER_SHAPE: "hold images of the perturbation's shape",
    }.items():
        # TensorFlow words it differently in graphs and eagerly.
        found = re.search(rf"{mark}\W+(\d+)", str(error))
        if found:
            raise ValueError(
                f"{name} must {must}. Received: "
                f"{mark.removeprefix('keras_uap: ')} {found.group(1)} of an "
                "epoch, counted from 0."
            ) from None


def _sum_where(keep, values):
    """Sums over the batch the entries to keep, whatever the others hold."""
    shape = [-1] + [1] * (values.shape.rank - 1)
    return tf.reduce_sum(tf.where(tf.reshape(keep, shape), values, 0.0), axis=0)


def _below_zero(shape, dtype=None):
    return tf.fill(shape, -1.0)


def _sparse(labels):
    """Integer labels `(n,)` from integer or one-hot labels."""
    # A function that has seen both kinds knows nothing of their rank.
    rows = tf.reshape(labels, [tf.shape(labels)[0], -1])
    return tf.where(
        tf.shape(rows)[1] == 1,
        tf.cast(rows[:, 0], "int64"),
        tf.argmax(rows, axis=-1),
    )


def _refuse_weights(sample_weight):
    if sample_weight is not None:
        raise ValueError(
            "A perturbation counts every image once: sample_weight is not "
            "supported. Pass images, or (images, labels)."
        )


def _to_array(x, name):
    try:
        return np.asarray(x)
    except ValueError as error:  # Parts of different shapes.
        raise ValueError(
            f"{name} must be one array of images of one size. Labels go to "
            f"`y`. Received: a {type(x).__name__} of {len(x)}. {error}"
        ) from error


def _refuse_endless(x, name, steps_name, steps):
    if steps is not None:
        return
    if isinstance(x, tf.data.Dataset):
        endless = x.cardinality() == tf.data.INFINITE_CARDINALITY
    else:
        endless = isinstance(x, keras.utils.PyDataset) and x.num_batches is None
    if endless:
        raise ValueError(
            f"{name} is a data set without an end. Received: "
            f"{steps_name}=None. Pass {steps_name}, the batches to take."
        )


def _check_labels(y, count):
    labels = as_numbers("y, the labels,", y)
    if labels.ndim == 0 or len(labels) != count:
        raise ValueError(
            f"There must be one label per image. Received: {count} images and "
            f"labels of shape {labels.shape}."
        )


@contextlib.contextmanager
def _whole(filepath, overwrite, suffix, write_to):
    """A path to write to that becomes `filepath` once it is written."""
    # Without `overwrite`, Keras asks before it writes over a file.
    local = isinstance(filepath, (str, os.PathLike)) and "://" not in str(
        filepath
    )
    if overwrite and local and str(filepath).endswith(suffix):
        with write_to(filepath) as temporary:
            yield temporary
    else:
        yield filepath


def _is_array(x):
    return isinstance(x, np.ndarray) or tf.is_tensor(x)


def _as_pair(data):
    """Returns `(x, y)` from validation data in any of Keras' forms."""
    # A longer list is one of images.
    if isinstance(data, (list, tuple)) and 1 <= len(data) <= 3:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        _refuse_weights(sample_weight)
        return x, y
    return data, None


def _split(x, y, share):
    """Splits the last `share` of the arrays off, as Keras does."""
    if not _is_array(x):
        raise ValueError(
            "validation_split needs an array of images. Received: "
            f"{type(x).__name__}. Pass validation_data instead."
        )
    at = math.floor(len(x) * (1 - share)) if 0 < share < 1 else 0
    if not 0 < at < len(x):
        raise ValueError(
            "validation_split must be in (0, 1) and leave images on both "
            f"sides. Received: {share} of {len(x)} images."
        )
    if y is None:
        return x[:at], None, x[at:]
    return x[:at], y[:at], (x[at:], y[at:])


def _prepend(first, callbacks):
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


def _image_shape(classifier):
    """The image shape that a classifier states, or None."""
    shape = getattr(classifier, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) < 2:
        return None
    known = all(isinstance(size, int) for size in shape[1:])
    return shape[1:] if known else None


def _standardize_target(target):
    if target is None:
        return None
    if isinstance(target, bool) or not isinstance(target, (int, np.integer)):
        raise TypeError(
            f"target must be a class index. Received: target={target!r}."
        )
    if target < 0:
        raise ValueError(
            f"target must be at least 0. Received: target={target}."
        )
    return int(target)


def _standardize_mask(mask):
    if mask is None:
        return None
    mask = np.asarray(mask)
    if mask.dtype.kind not in "bfiu":
        raise TypeError(
            f"mask must be an array of numbers. Received: dtype {mask.dtype}."
        )
    mask = (mask != 0).astype("float32")
    if not mask.any():
        raise ValueError(
            "mask is zero everywhere: the perturbation has no place to live."
        )
    return mask


def _fit_mask(mask, image_shape):
    """Spreads a mask `(H, W)` over the channels; checks its shape."""
    if mask.shape == image_shape[:-1]:
        mask = mask[..., np.newaxis]
    elif mask.shape != image_shape:
        raise ValueError(
            "mask must have the shape of an image, with or without channels. "
            f"Received: {mask.shape}. Expected: {image_shape[:-1]} or "
            f"{image_shape}."
        )
    return np.broadcast_to(mask, image_shape).copy()
