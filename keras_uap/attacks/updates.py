"""Updates: what one batch of images does to a perturbation.

An update reads a batch, moves `v`, and returns the labels that the classifier
gave the perturbed images before:

    update(model, images, clean) -> Step(predicted, passes)

- `GradientUpdate`: a step of a Keras optimizer down a loss.
- `WholeBatchDeepFool`: a step of fixed length along the sum of the images'
  DeepFool increments.
- `OneByOneDeepFool`: the loop of Algorithm 1 of the paper. Each image's
  increment is added whole, and the next image starts from there.

A new one is a subclass of `Update`, handed to `compile`. It owns its metrics
and declares what it supports: several devices, XLA, a target, smoothed steps.
"""

import collections
import functools

import keras
import numpy as np
import tensorflow as tf

from keras_uap.attacks import losses
from keras_uap.attacks.deepfool import DeepFool
from keras_uap.attacks.schedules import LinearDecay
from keras_uap.attacks.smoothing import smoothed
from keras_uap.classifiers.logits import check_gradient, labels_of
from keras_uap.data.pictures import new_seed
from keras_uap.perturbations.pixels import apply_perturbation, clip_to_range
from keras_uap.utils.keras_compat import averages
from keras_uap.utils.validation import invalid

# The labels `(n,)` of the perturbed images before the update, and the forwards
# and backwards of one image that it took.
Step = collections.namedtuple("Step", ["predicted", "passes"])

# A named optimizer's step, as a share of epsilon.
STEP = 0.1

# Optimizers whose steps scale with `v` or with past steps: they stall at v = 0.
_STALL_AT_ZERO = ("adadelta", "adafactor")


class Update:
    """What one batch does to a perturbation. Base of all updates.

    Args:
        optimizer: Keras optimizer that moves `v`. One that moves `v` by itself
            may leave it out.
        decay: `LinearDecay`, the optimizer's learning rate, or `None`.

    Attributes:
        name: String, its name in errors.
        loss: `BatchLoss` that is minimised, if there is one; it states whether
            features of the clean images are needed, and of which layer.
        rule: `DeepFool` that a file holds in place of the optimizer, or `None`.
        metrics: List of `keras.metrics.Metric`, reported with each batch.
        on_several_devices, with_xla, with_target, with_smoothing: Booleans,
            what is supported.
    """

    on_several_devices = True
    with_xla = True
    with_target = True
    with_smoothing = True
    loss = losses.BatchLoss()
    rule = None

    def __init__(self, optimizer=None, decay=None):
        self.optimizer = optimizer or keras.optimizers.SGD()
        self._decay = decay
        self.name = type(self).__name__
        self.metrics = []

    def __call__(self, model, images, clean):
        """Moves `model.v`.

        Args:
            model: `UniversalPerturbation`, with `v`, `ball`, `value_range`,
                `target`, `smoothing` and `adapter`.
            images: Float32 tensor `(n, H, W, C)`, clean.
            clean: `sources.Clean`: their clean predictions as `labels`, an
                integer tensor `(n,)`, and `features` if it needs them.

        Returns:
            A `Step`.
        """
        raise NotImplementedError

    def build(self, model):
        """Called when the size of the images, or another mask, is known."""
        shape = tuple(model.v.shape)
        if model.smoothing and len(shape) != 3:
            expected = f"0 for inputs {shape}: no images (H, W, C)"
            raise invalid("smoothing", expected, model.smoothing)

    def begin(self, model, epochs, count_batches):
        """Called when a fit begins.

        Args:
            model: `UniversalPerturbation`.
            epochs: Pair of integers, the epochs done before and in all.
            count_batches: Function that returns how many batches an epoch has.
                It may have to read the images for that.
        """
        if self._decay is not None:
            self._decay.begin(self.optimizer, epochs, count_batches())

    def refuse(self, target=None, jit_compile=False, smoothing=0.0):
        """Raises ValueError for what the update does not support."""
        reason, reaches = None, self.with_target and self.loss.with_target
        if target is not None and not reaches:
            reason = f"cannot reach a target. Received: target={target}"
        elif jit_compile is True and not self.with_xla:
            reason = "cannot be compiled by XLA. Received: jit_compile=True"
        elif smoothing and not self.with_smoothing:
            reason = f"cannot be smoothed. Received: smoothing={smoothing:g}"
        if reason is not None:
            raise ValueError(
                f"{self.name} {reason}. Use a gradient update of the loss "
                "'crossentropy', 'dominant' or 'margin': compile('lion')."
            )

    def refuse_fit(self, replicas, batches):
        """Raises ValueError for a fit in which the update cannot run.

        Args:
            replicas: Integer, the devices that share each batch.
            batches: Integer, the batches of the whole fit; `None` if unknown.
        """
        if replicas > 1 and not self.on_several_devices:
            raise ValueError(
                f"{self.name} cannot run on several devices. Received: "
                f"{replicas} replicas. Use whole batches, or one device."
            )
        inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        steps = inner.gradient_accumulation_steps
        if steps and batches is not None and batches < steps:
            expected = f"at most {batches}, the batches of the fit"
            raise invalid("gradient_accumulation_steps", expected, steps)

    def apply(self, model, gradient, scale=1.0):
        """A step of the optimizer against `gradient`, then the constraint.

        A mean absolute value of 1 where `v` may live makes learning rates
        pixels, whatever the loss, the classifier and the batch size.
        """
        gradient = smoothed(gradient, model.smoothing)
        if model.mask is not None:
            gradient = gradient * model.mask
        # On several devices the images of all of them make one batch. The
        # optimizer sums the replicas' directions, so each passes its share.
        gradient = _over_devices(model, gradient)
        scale = scale / model.distribute_strategy.num_replicas_in_sync
        mean = tf.reduce_sum(tf.abs(gradient))
        mean = mean / model.ball.free_values(model.v.shape)
        gradient = tf.math.divide_no_nan(scale * gradient, mean)
        # Loss-scaling optimizers divide gradients by their scale.
        gradient = model.optimizer.scale_loss(gradient)
        # Keras finds the end of a dataset of unknown length by a missing
        # batch. Without a gradient, that must not count as a step.
        with tf.control_dependencies([gradient]):
            model.optimizer.apply([gradient], [model.v])
        # Keras takes the average before the constraint, and may replace `v`
        # by it at any time.
        for average in averages(model.optimizer):
            average.assign(model.ball.project(average))


class GradientUpdate(Update):
    """A step of a Keras optimizer down a loss.

    Args:
        optimizer: Keras optimizer.
        loss: `keras.losses.Loss`; see `keras_uap.losses`.
        default_step: Boolean, whether the optimizer gets a learning rate of a
            tenth of the ball's pixel step.
        decay: `LinearDecay`, the optimizer's learning rate, or `None`. Its
            first step becomes a fifth of the ball's pixel step.
    """

    def __init__(self, optimizer, loss, default_step=False, decay=None):
        super().__init__(optimizer, decay)
        # The learning rate set by us; 0 until the image size is known.
        self._default_step = 0.0 if default_step else None
        if default_step:
            optimizer.learning_rate = 0.0
        self.loss = losses.as_batch_loss(loss)
        self.name = f"The loss {loss.name!r}"
        self._loss_mean = keras.metrics.Mean(name="loss")
        self._no_gradient = keras.metrics.Sum(name="no_gradient")
        self.metrics = [self._loss_mean, self._no_gradient]

    def build(self, model):
        super().build(model)
        if self.loss.needs_features and model.adapter is not None:
            # Raises before the clean predictions are computed.
            model.adapter.features_function(self.loss.layer)
        step = STEP * model.ball.pixel_step(model.v.shape)
        if self._decay is not None:
            self._decay.first.assign(2 * step)
        if self._default_step is not None:
            with tf.init_scope():
                rate = self.optimizer.learning_rate
                # A mirrored variable has no float of its own.
                if float(rate.numpy()) == self._default_step:
                    rate.assign(step)
                    self._default_step = float(rate.numpy())

    def begin(self, model, epochs, count_batches):
        super().begin(model, epochs, count_batches)
        if self.loss.starts_at_random and not model.perturbation.any():
            rng = np.random.default_rng(new_seed(model.seed_generator))
            model.v.assign(model.ball.uniform(model.v.shape, rng))

    def __call__(self, model, images, clean):
        goal = clean.labels
        if model.target is not None:
            goal = tf.fill(tf.shape(goal), np.int64(model.target))
        perturbed = images + model.v
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(perturbed)
            clipped = clip_to_range(perturbed, model.value_range)
            features, scores = model.adapter.forward_for(clipped, self.loss)
            summary = self.loss.summary(goal, tf.stop_gradient(scores))
            summary = _over_devices(model, summary)
            seen = losses.Seen(features, clean.features, summary)
            loss = self.loss.call(goal, scores, seen)
        gradients = check_gradient(tape.gradient(loss, perturbed))
        predicted = labels_of(scores)

        axes = list(range(1, images.shape.rank))
        finite = tf.reduce_all(tf.math.is_finite(gradients), axis=axes)
        zero = tf.reduce_all(tf.equal(gradients, 0.0), axis=axes)
        # An image whose loss is capped is fooled; its gradient is zero.
        missing = ~finite | (zero & tf.equal(predicted, clean.labels))
        self._no_gradient.update_state(tf.cast(missing, "float32"))
        self._loss_mean.update_state(loss)
        self.apply(model, _sum_where(finite, gradients))
        return Step(predicted, 2 * tf.size(predicted))


class _DeepFoolUpdate(Update):
    """Base of the updates that are made of DeepFool.

    Args:
        rule: `keras_uap.DeepFool`.
    """

    # DeepFool's batches shrink from step to step. XLA pads them, and would
    # count the padding as images without an error.
    with_xla = False
    with_target = False

    def __init__(self, rule):
        step_size, decay = rule.step_size, None
        if step_size is None:
            step_size = decay = LinearDecay(rule.FIRST_STEP)
        super().__init__(keras.optimizers.SGD(step_size, rule.momentum), decay)
        self.name = "One image after another" if rule.one_by_one else "DeepFool"
        self.rule = rule
        self._not_converged = keras.metrics.Sum(name="not_converged")
        self.metrics = [self._not_converged]

    def _run_rule(self, model, images, v, clean):
        perturbed = apply_perturbation(images, v, model.value_range)
        add_up = functools.partial(_over_devices, model)
        forward, run = model.adapter.forward, self.rule.minimal_perturbations
        return run(forward, perturbed, clean, add_up)


class WholeBatchDeepFool(_DeepFoolUpdate):
    """One step along the sum of the batch's DeepFool increments.

    To the dominant class, every increment counts as a direction alone: an
    image far from the boundary, with a flat gradient, would decide for all.
    """

    def __call__(self, model, images, clean):
        batch = self._run_rule(model, images, model.v, clean.labels)
        self._not_converged.update_state(tf.cast(~batch.converged, "float32"))
        increments = batch.increments
        if self.rule.boundary == "dominant":
            axes = list(range(1, increments.shape.rank))
            increments = tf.math.l2_normalize(increments, axes)
        scale = model.ball.pixel_step(model.v.shape)
        scale = scale * (1.0 - self.rule.momentum)
        self.apply(model, -_sum_where(batch.converged, increments), scale)
        return Step(batch.first_labels, batch.passes)


class OneByOneDeepFool(_DeepFoolUpdate):
    """The loop of Algorithm 1: every image starts from the last v."""

    on_several_devices = False
    with_smoothing = False

    def __call__(self, model, images, clean):
        def add_increment(i, v, labels, failed, passes):
            image, own = images[i, tf.newaxis], clean.labels[i, tf.newaxis]
            single = self._run_rule(model, image, v, own)
            increment = _sum_where(single.converged, single.increments)
            moved = tf.reduce_any(increment != 0)
            v = tf.where(moved, model.ball.project(v + increment), v)
            labels = labels.write(i, single.first_labels[0])
            failed += tf.cast(~single.converged[0], "float32")
            return i + 1, v, labels, failed, passes + single.passes

        # `tf.scan` would be shorter, but after an error in the trace of a
        # classifier no strategy's scope can be entered any more.
        count = tf.shape(images)[0]
        labels = tf.TensorArray("int64", count)
        start = 0, tf.convert_to_tensor(model.v), labels, 0.0, 0
        _, v, labels, failed, passes = tf.while_loop(
            lambda i, *_: i < count, add_increment, start, parallel_iterations=1
        )
        model.v.assign(v)
        self._not_converged.update_state(failed)
        return Step(labels.stack(), passes)


def get(optimizer, loss="crossentropy", targeted=False):
    """Returns the update for the arguments of `compile`.

    Args:
        optimizer: `"deepfool"`, a `DeepFool`, a Keras optimizer or its name,
            `"decaying_lion"`, or an `Update`.
        loss: What `keras_uap.losses.get` takes, for gradient updates.
        targeted: Boolean, whether the loss is to reach the class.

    Raises:
        TypeError: if one of them is of another kind.
        ValueError: for an unknown name.
    """
    loss = losses.get(loss, targeted)
    if isinstance(optimizer, Update):
        return optimizer
    if isinstance(optimizer, keras.optimizers.Optimizer):
        return GradientUpdate(optimizer, loss)
    if isinstance(optimizer, DeepFool):
        kind = OneByOneDeepFool if optimizer.one_by_one else WholeBatchDeepFool
        return kind(optimizer)
    if not isinstance(optimizer, str):
        expected = "a keras_uap.DeepFool, or a Keras optimizer, or a name"
        raise invalid("optimizer", expected, optimizer, error=TypeError)
    name = optimizer.lower()
    if name == "deepfool":
        return WholeBatchDeepFool(DeepFool())
    if name == "decaying_lion":
        decay = LinearDecay()
        return GradientUpdate(keras.optimizers.Lion(decay), loss, decay=decay)
    if name in _STALL_AT_ZERO:
        raise ValueError(
            "This optimizer hardly leaves zero, where a perturbation starts. "
            f"Received: {optimizer=}. Pass another, such as 'lion'."
        )
    try:
        named = keras.optimizers.get(optimizer)
    except (KeyError, TypeError, ValueError):
        expected = "a name, such as 'lion', 'deepfool' or 'decaying_lion'"
        raise invalid("optimizer", expected, optimizer) from None
    return GradientUpdate(named, loss, default_step=True)


def strongest(ball, target=None, loss=None):
    """Returns the optimizer and the loss, by name, that fool most images.

    They do on most of the classifiers measured, for the same model passes; see
    `benchmarks/fooling.py`. In an l2 ball sign steps waste the norm, because
    they move all pixels alike.

    Args:
        ball: `LpBall`.
        target: Integer, the class to send images to, or `None`.
        loss: The loss, if it is given: DeepFool has none.
    """
    if loss is not None:
        return "decaying_lion", loss
    if target is not None:
        return "decaying_lion", "crossentropy"
    return "deepfool" if ball.norm == "l2" else "decaying_lion", "dominant"


def _over_devices(model, values):
    """Sums a tensor, a tuple of tensors or nothing over the devices."""
    if values is None or model.distribute_strategy.num_replicas_in_sync == 1:
        return values
    return tf.distribute.get_replica_context().all_reduce("sum", values)


def _sum_where(keep, values):
    """Sums the entries to keep over the batch, whatever the others hold."""
    shape = [-1] + [1] * (values.shape.rank - 1)
    return tf.reduce_sum(tf.where(tf.reshape(keep, shape), values, 0.0), axis=0)
