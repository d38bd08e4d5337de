"""Updates: what one batch of images does to a perturbation.

An update looks at a batch, moves `v`, and says what the classifier made of the
batch before:

    update(model, images, clean) -> Step(predicted, passes)

- `GradientUpdate`: a step of a Keras optimizer down a loss.
- `WholeBatchDeepFool`: a step of fixed length along the sum of the images'
  DeepFool increments.
- `OneByOneDeepFool`: Algorithm 1 of the paper to the letter. Each image's
  increment is added whole, and the next image starts from there.

A new one is a subclass of `Update`, handed to `compile`. It owns its metrics
and says what it can: run on several devices, with XLA, towards a target,
with smoothed steps.
"""

import collections
import functools

import keras
import numpy as np
import tensorflow as tf

from keras_uap.attacks import losses
from keras_uap.attacks.deepfool import DeepFool
from keras_uap.attacks.smoothing import refuse_no_images, smoothed
from keras_uap.classifiers.logits import features_function
from keras_uap.data.pictures import new_seed
from keras_uap.perturbations.pixels import apply_perturbation, clip_to_range
from keras_uap.utils.keras_compat import averages
from keras_uap.utils.validation import check_number

# The labels `(n,)` of the perturbed images before the update, and the forwards
# and backwards of one image that it took.
Step = collections.namedtuple("Step", ["predicted", "passes"])

# A named optimizer's step, as a share of epsilon.
STEP = 0.1

# Their steps are shares of `v` itself or of the steps before, and `v` starts
# from zero.
_SHY = ("adadelta", "adafactor")


class FallingSteps(keras.optimizers.schedules.LearningRateSchedule):
    """Steps that fall in a line to a hundredth, over the fit that runs.

    How long that is, an update says when a fit begins. Variables hold it, as
    the function that a fit runs is traced but once.
    """

    def __init__(self, first=1.0):
        # Every replica is told the same.
        self.first, self._batches = (
            keras.Variable(
                value,
                dtype="float32",
                trainable=False,
                aggregation="only_first_replica",
            )
            for value in (first, 1.0)
        )

    def __call__(self, step):
        share = tf.minimum(tf.cast(step, "float32") / self._batches, 1.0)
        return self.first * (1.0 - 0.99 * share)

    def begin(self, optimizer, epochs, batches):
        """Sets the schedule of an optimizer to where a fit begins."""
        done, last = epochs
        self._batches.assign(last * batches)
        optimizer.iterations.assign(done * batches)

    def get_config(self):
        return {"first": float(keras.ops.convert_to_numpy(self.first))}


class Update:
    """What one batch does to a perturbation. Base of all updates.

    Args:
        optimizer: Keras optimizer that moves `v`. One that moves `v` by itself
            may leave it out.
        falling: `FallingSteps`, the optimizer's learning rate, or `None`.

    Attributes:
        name: String, what errors call it.
        metrics: List of `keras.metrics.Metric`, reported with each batch.
        on_several_devices, with_xla, with_target, with_smoothing: Booleans,
            what it can.
        needs_features: Boolean, whether it wants the features of the clean
            images, too.
        layer: String, the layer that gives them, or `None`.
        smoothing: Float, the standard deviation in pixels of the Gaussian that
            smooths what a step follows; 0 for none.
    """

    on_several_devices = True
    with_xla = True
    with_target = True
    with_smoothing = True
    needs_features = False
    layer = None
    smoothing = 0.0

    def __init__(self, optimizer=None, falling=None):
        if optimizer is None:
            optimizer = keras.optimizers.SGD()
        self.optimizer = optimizer
        self._falling = falling
        self.name = type(self).__name__
        self.metrics = []

    def __call__(self, model, images, clean):
        """Moves `model.v`.

        Args:
            model: `UniversalPerturbation`, with `v`, `ball`, `value_range`,
                `target` and `adapter`.
            images: Float32 tensor `(n, H, W, C)`, clean.
            clean: `batches.Clean`: their clean predictions as `labels`, an
                integer tensor `(n,)`, and `features` if it needs them.

        Returns:
            A `Step`.
        """
        raise NotImplementedError

    def build(self, model):
        """Called when the size of the images, or another mask, is known."""
        refuse_no_images(model.v.shape, self.smoothing)

    def begin(self, model, epochs, count_batches):
        """Called when a fit begins.

        Args:
            model: `UniversalPerturbation`.
            epochs: Pair of integers, the epochs done before and in all.
            count_batches: Function that returns how many batches an epoch has.
                It may have to read the images for that.
        """
        if self._falling is not None:
            self._falling.begin(self.optimizer, epochs, count_batches())

    def config_of(self, optimizer):
        """What goes into a file for what `compile` got."""
        return optimizer

    def refuse(self, target=None, jit_compile=False, replicas=1, batches=None):
        """Raises ValueError for what the update cannot do."""
        hint = "Use a gradient update instead: compile('lion')."
        if target is not None and not self.with_target:
            raise ValueError(
                f"{self.name} leaves a class, it cannot reach a target. "
                f"Received: target={target}. {hint}"
            )
        if jit_compile is True and not self.with_xla:
            raise ValueError(
                f"{self.name} cannot be compiled by XLA. Received: "
                f"jit_compile=True. Pass False. {hint}"
            )
        if self.smoothing and not self.with_smoothing:
            raise ValueError(
                f"{self.name} has no steps of a whole batch to smooth. "
                f"Received: smoothing={self.smoothing:g}. {hint}"
            )
        if replicas > 1 and not self.on_several_devices:
            raise ValueError(
                f"{self.name} cannot run on several devices. Received: "
                f"{replicas} replicas. Use whole batches, or one device."
            )
        inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        steps = inner.gradient_accumulation_steps
        if steps and batches is not None and batches < steps:
            raise ValueError(
                "The optimizer would make no step: it waits for more batches "
                "than the fit has. Received: "
                f"gradient_accumulation_steps={steps}, and {batches} batches. "
                "Make more epochs or smaller batches."
            )

    def apply(self, model, gradient, scale=1.0):
        """A step of the optimizer against `gradient`, then the constraint.

        A mean absolute value of 1 where `v` may live makes learning rates
        pixels, whatever the loss, the classifier and the batch size.
        """
        gradient = smoothed(gradient, self.smoothing)
        if model.mask is not None:
            gradient = gradient * model.mask
        # On several devices the images of all of them make one batch. The
        # optimizer adds the replicas' directions up, so each hands in a share.
        gradient = _over_devices(model, gradient)
        scale = scale / model.distribute_strategy.num_replicas_in_sync
        mean = tf.reduce_sum(tf.abs(gradient))
        mean = mean / model.ball.free_values(model.v.shape)
        gradient = tf.math.divide_no_nan(scale * gradient, mean)
        # What scales losses up divides gradients by as much.
        gradient = model.optimizer.scale_loss(gradient)
        # Keras finds the end of a data set of unknown length by a batch that
        # is not there. Without a gradient, that must not count as a step.
        with tf.control_dependencies([gradient]):
            model.optimizer.apply([gradient], [model.v])
        # Keras takes the average before the constraint, and may put it in the
        # place of `v` at any time.
        for average in averages(model.optimizer):
            average.assign(model.ball.project(average))


class GradientUpdate(Update):
    """A step of a Keras optimizer down a loss.

    Args:
        optimizer: Keras optimizer.
        loss: `keras.losses.Loss`; see `keras_uap.losses`.
        default_step: Boolean, whether the optimizer gets a learning rate of a
            tenth of the ball's pixel step.
        falling: `FallingSteps`, the optimizer's learning rate, or `None`. They
            get a first step of a fifth of the ball's pixel step.
    """

    def __init__(self, optimizer, loss, default_step=False, falling=None):
        super().__init__(optimizer, falling)
        # The learning rate that is not by hand: 0 until the size is known.
        self._own_step = 0.0 if default_step and falling is None else None
        if self._own_step is not None:
            optimizer.learning_rate = 0.0
        self._loss = loss
        if isinstance(loss, losses.BatchLoss):
            self.name = f"The loss {loss.name!r}"
            self.with_target = loss.with_target
            self.needs_features = loss.needs_features
            self.layer = loss.layer
        self._loss_mean = keras.metrics.Mean(name="loss")
        self._no_gradient = keras.metrics.Sum(name="no_gradient")
        self.metrics = [self._loss_mean, self._no_gradient]

    def build(self, model):
        super().build(model)
        if self.needs_features:
            # Here, and not after the clean predictions, it says if it cannot.
            features_function(model.classifier, self.layer)
        step = STEP * model.ball.pixel_step(model.v.shape)
        if self._falling is not None:
            self._falling.first.assign(2 * step)
        if self._own_step is None:
            return
        with tf.init_scope():
            rate = self.optimizer.learning_rate
            if float(rate.numpy()) == self._own_step:
                rate.assign(step)
                self._own_step = float(rate.numpy())

    def begin(self, model, epochs, count_batches):
        super().begin(model, epochs, count_batches)
        if getattr(self._loss, "starts_at_random", False):
            v = model.perturbation
            if not v.any():
                rng = np.random.default_rng(new_seed(model.seed_generator))
                model.v.assign(model.ball.uniform(v.shape, rng))

    def __call__(self, model, images, clean):
        goal = clean.labels
        if model.target is not None:
            goal = tf.fill(tf.shape(goal), np.int64(model.target))
        see = self._see(model, clean.features)
        perturbed = images + model.v
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(perturbed)
            scores, loss = see(
                clip_to_range(perturbed, model.value_range), goal
            )
        gradients = tape.gradient(loss, perturbed)
        if gradients is None:
            raise ValueError(
                "The classifier's scores have no gradient with respect to the "
                f"images. Received: classifier {model.classifier.name!r}. "
                "Something in it cannot be differentiated: a cast to "
                "integers, an argmax, or NumPy code."
            )
        predicted = tf.argmax(scores, axis=-1)

        axes = list(range(1, images.shape.rank))
        finite = tf.reduce_all(tf.math.is_finite(gradients), axis=axes)
        silent = tf.reduce_all(tf.equal(gradients, 0.0), axis=axes)
        # An image whose loss is capped is fooled, and silent on purpose.
        missing = ~finite | (silent & tf.equal(predicted, clean.labels))
        self._no_gradient.update_state(tf.cast(missing, "float32"))
        self._loss_mean.update_state(loss)
        self.apply(model, _sum_where(finite, gradients))
        return Step(predicted, 2 * tf.size(predicted))

    def _see(self, model, clean_features):
        """Returns a function from perturbed images to logits and losses."""
        loss = self._loss
        if not isinstance(loss, losses.BatchLoss):

            def see(perturbed, goal):
                scores = model.adapter.logits(perturbed)
                return scores, loss.call(goal, scores)

            return see
        if self.needs_features:
            look = model.adapter.features_function(self.layer)
        else:

            def look(perturbed):
                return None, model.adapter.logits(perturbed)

        def see_batch(perturbed, goal):
            features, scores = look(perturbed)
            summary = loss.summary(goal, tf.stop_gradient(scores))
            if summary is not None:
                summary = _over_devices(model, summary)
            seen = losses.Seen(features, clean_features, summary)
            return scores, loss.call(goal, scores, seen)

        return see_batch


class _DeepFoolUpdate(Update):
    """Base of the updates that are made of DeepFool.

    Args:
        rule: `keras_uap.DeepFool`.
    """

    # DeepFool's batches become smaller from step to step. XLA pads what is left
    # of them, and the padding would count as images, without an error.
    with_xla = False
    with_target = False

    def __init__(self, rule):
        step_size, falling = rule.step_size, None
        if step_size is None:
            step_size = falling = FallingSteps(rule.FIRST_STEP)
        super().__init__(
            keras.optimizers.SGD(step_size, rule.momentum), falling
        )
        self.name = "One image after another" if rule.one_by_one else "DeepFool"
        self._rule = rule
        self._not_converged = keras.metrics.Sum(name="not_converged")
        self.metrics = [self._not_converged]

    def config_of(self, optimizer):
        return self._rule

    def _minimal_perturbations(self, model, images, v, clean):
        perturbed = apply_perturbation(images, v, model.value_range)
        return self._rule.minimal_perturbations(
            model.adapter.logits,
            perturbed,
            clean,
            functools.partial(_over_devices, model),
        )


class WholeBatchDeepFool(_DeepFoolUpdate):
    """One step along the sum of the batch's DeepFool increments.

    To the dominant class, every increment counts as a direction alone: an
    image far from the boundary, with a flat gradient, would decide for all.
    """

    def __call__(self, model, images, clean):
        batch = self._minimal_perturbations(
            model, images, model.v, clean.labels
        )
        self._not_converged.update_state(tf.cast(~batch.converged, "float32"))
        increments = batch.increments
        if self._rule.boundary == "dominant":
            axes = list(range(1, increments.shape.rank))
            increments = tf.math.l2_normalize(increments, axes)
        self.apply(
            model,
            -_sum_where(batch.converged, increments),
            scale=model.ball.pixel_step(model.v.shape)
            * (1.0 - self._rule.momentum),
        )
        return Step(batch.first_labels, batch.passes)


class OneByOneDeepFool(_DeepFoolUpdate):
    """Algorithm 1 to the letter: every image starts from the last v."""

    on_several_devices = False
    with_smoothing = False

    def __call__(self, model, images, clean):
        def add_increment(i, v, predicted, failed, passes):
            single = self._minimal_perturbations(
                model, images[i : i + 1], v, clean.labels[i : i + 1]
            )
            increment = _sum_where(single.converged, single.increments)
            v = tf.where(
                tf.reduce_any(increment != 0),
                model.ball.project(v + increment),
                v,
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
            tf.convert_to_tensor(model.v),
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
        model.v.assign(v)
        self._not_converged.update_state(failed)
        return Step(predicted.stack(), passes)


def get(optimizer, loss="crossentropy", targeted=False, smoothing=0.0):
    """Returns the update for what `compile` got.

    Args:
        optimizer: `"deepfool"`, a `DeepFool`, a Keras optimizer or its name,
            `"decaying_lion"`, or an `Update`.
        loss: What `keras_uap.losses.get` takes, for gradient updates.
        targeted: Boolean, whether the loss is to reach the class.
        smoothing: Float, see `Update`.

    Raises:
        TypeError: if one of them is of another kind.
        ValueError: for an unknown name, or a `smoothing` out of range.
    """
    check_number("smoothing", smoothing, least=0, below=np.inf)
    update = _get(optimizer, losses.get(loss, targeted))
    update.smoothing = float(smoothing)
    return update


def _get(optimizer, loss):
    if isinstance(optimizer, Update):
        return optimizer
    falling = None
    if isinstance(optimizer, str) and optimizer.lower() == "decaying_lion":
        falling = FallingSteps()
    found = get_optimizer(optimizer, falling)
    if not isinstance(found, DeepFool):
        named = isinstance(optimizer, str)
        return GradientUpdate(found, loss, named, falling)
    if found.one_by_one:
        return OneByOneDeepFool(found)
    return WholeBatchDeepFool(found)


def strongest(ball, target=None, loss=None):
    """Returns the optimizer and the loss, by name, that fool most pictures.

    They do on most of the networks measured, for the same model passes; see
    `benchmarks/fooling.py`. In an l2 ball sign steps waste the norm: they move
    all pixels alike.

    Args:
        ball: `LpBall`.
        target: Integer, the class to send images to, or `None`.
        loss: The loss, where there is a choice no more: DeepFool has none.
    """
    if loss is not None:
        return "decaying_lion", loss
    if target is not None:
        return "decaying_lion", "crossentropy"
    return "deepfool" if ball.norm == "l2" else "decaying_lion", "dominant"


def decaying_lion(step, batches):
    """Sign steps that begin at `step` and fall in a line to a hundredth."""
    return keras.optimizers.Lion(falling(step, batches))


def falling(step, batches):
    """A schedule as of `FallingSteps`, where the number of batches is known."""
    return keras.optimizers.schedules.PolynomialDecay(step, batches, step / 100)


def get_optimizer(optimizer, falling=None):
    """Returns the `DeepFool` or the Keras optimizer that `compile` got.

    Args:
        optimizer: As for `get`.
        falling: `FallingSteps` of `"decaying_lion"`.

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
    if optimizer.lower() in _SHY:
        raise ValueError(
            "This optimizer hardly leaves zero, where a perturbation starts. "
            f"Received: optimizer={optimizer!r}. Pass another name, such as "
            "'lion', or the optimizer itself with a learning rate that you "
            "have chosen for it."
        )
    if optimizer.lower() == "decaying_lion":
        return keras.optimizers.Lion(falling or FallingSteps())
    try:
        return keras.optimizers.get(optimizer)
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"Unknown optimizer. Received: optimizer={optimizer!r}. Expected "
            "'deepfool', 'decaying_lion' or the name of a Keras optimizer, "
            "such as 'lion'."
        ) from None


def _over_devices(model, values):
    """Adds a tensor, or tuple of tensors, up over the devices."""
    if model.distribute_strategy.num_replicas_in_sync == 1:
        return values
    context = tf.distribute.get_replica_context()
    return context.all_reduce("sum", values)


def _sum_where(keep, values):
    """Sums over the batch the entries to keep, whatever the others hold."""
    shape = [-1] + [1] * (values.shape.rank - 1)
    return tf.reduce_sum(tf.where(tf.reshape(keep, shape), values, 0.0), axis=0)
