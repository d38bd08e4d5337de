"""Adversarial distillation: a classifier keeps its predictions under attack.

    for each batch of images x:
        t <- probabilities of the original classifier for x
        u <- v; for every second image, one drawn from the memory
        train on:   robustness * distance(t, classifier(clip(x + u)))
                    + (1 - robustness) * distance(t, classifier(x))
        update v:   v <- project(v + step_size * direction(d loss / d v))

The distance is the Kullback-Leibler divergence of probabilities at a
temperature, as in distillation. A thousand probabilities hold more than a
label, so a few images suffice and no labels are needed. The second term keeps
the predictions on clean images. Both terms come from one forward and one
backward pass.

A classifier can memorize one path of v, and forget a v of earlier batches. The
memory holds perturbations that do not change; it may be empty. Only a fresh
attack measures the robustness: see `keras_uap.harden`.

The classifier runs as at inference: nothing is dropped, and the statistics of
batch normalization stay, which a few hundred images would spoil.

Reference:
    - [Hinton et al., 2015](https://arxiv.org/abs/1503.02531), distillation
    - [Zhang et al., 2019](https://arxiv.org/abs/1901.08573), the two terms
    - [Shafahi et al., 2018](https://arxiv.org/abs/1811.11304), one ascent step
      with each batch
    - [Perolat et al., 2018](https://arxiv.org/abs/1809.07802), training on all
      past perturbations
"""

import collections
import functools

import keras
import numpy as np
import tensorflow as tf

from keras_uap.classifiers.adapter import stated_shape
from keras_uap.classifiers.around import (
    AroundClassifier,
    classifier_config,
    read_classifier,
)
from keras_uap.classifiers.logits import (
    as_labels,
    check_classifier,
    check_gradient,
    class_indices,
    labels_of,
    logits_function,
)
from keras_uap.data.pictures import unpack_batch
from keras_uap.perturbations import pixels
from keras_uap.perturbations.ascent import ascend
from keras_uap.perturbations.lp_ball import LpBall
from keras_uap.perturbations.perturbation_layer import refuse_other_scope
from keras_uap.utils.keras_compat import higher_is_better, monitored
from keras_uap.utils.saving import random_state_kept
from keras_uap.utils.validation import (
    check_axes,
    check_counts,
    check_number,
    check_whole,
    reason_of,
)

_NO_CLASS = (
    "A batch holds a label that is no class of the classifier, which count "
    "from 0. Leave such images out, or pass no labels."
)

# The goal of a batch: probabilities `(n, num_classes)` at a temperature, and
# labels `(n,)`.
Targets = collections.namedtuple("Targets", "probabilities labels temperature")

# Arguments in the files of versions before the first release.
_FORMER = ("objective", "restart_every", "class_wise", "smoothing")

# A step of v as a share of epsilon. Longer steps jump between corners of the
# ball, and a classifier that was trained on those is fooled in between.
STEP = 0.2


def _with_labels(method):
    """Makes `fit` or `evaluate` refuse labels that are no classes."""

    @functools.wraps(method)
    def checked(self, x=None, y=None, *args, **kwargs):
        self.check_labels(y, x)
        try:
            return method(self, x, y, *args, **kwargs)
        except tf.errors.InvalidArgumentError as error:
            if _NO_CLASS not in str(error):
                raise
            raise ValueError(_NO_CLASS) from error

    return checked


@keras.saving.register_keras_serializable(package="keras_uap")
class AdversarialDistiller(AroundClassifier, keras.Model):
    """Trains a classifier to keep its predictions under a perturbation.

    The classifier is trained in place, in a plain `fit` with callbacks,
    `validation_data` and saving. A copy of the original classifier gives the
    probabilities to keep, on clean images and on perturbed ones. Each batch
    also updates the perturbation. `classifier` is then the hardened one, and
    `teacher` the original.

    Example:

    ```python
    distiller = keras_uap.AdversarialDistiller(classifier, epsilon=10.0)
    rate = keras.optimizers.schedules.CosineDecay(2e-4, decay_steps=steps)
    distiller.compile(keras.optimizers.Adam(rate))
    distiller.fit(images, epochs=5)  # Or (images, labels).
    classifier.save("hardened.keras")  # Loads without keras_uap.
    ```

    `fit` and `evaluate` report the shares of images with the original clean
    prediction (or the label that is passed): `clean_agreement`, and
    `perturbed_agreement` under the perturbations shown. A *fresh*
    perturbation fools more: `keras_uap.audit` measures the defense.

    Args:
        classifier: Keras model that maps images to class scores: logits,
            softmax or a sigmoid. Its trainable weights are trained.
        epsilon: Float above 0, the radius of the ball that holds the
            perturbation, in the pixel units of `value_range`.
        norm: `"linf"`, `"l2"`, `np.inf` or `2`, the norm of the ball.
        value_range: Pair of floats, the pixel range that the classifier
            takes, or `None` for no clipping.
        robustness: Float between 0 and 1, the weight of the perturbed images.
            The clean ones have the rest.
        temperature: Float above 0, by which logits are divided before the
            softmax. At a high one the classifier learns all of its logits, at
            1 the probabilities. Labels that are passed have none.
        step_size: Float above 0, how far one step moves the perturbation, in
            pixel units (each value for L-infinity, the norm for l2). `None`
            takes a fifth of `epsilon`.
        seed: Integer, the seed of the random first step.
        from_logits: Boolean, whether the classifier returns logits. `None`
            finds out.
        perturbation: Array `(H, W, C)`, or a pool `(pool_size, H, W, C)`,
            where the perturbation starts. `None` starts from zero.
        pool_size: Integer, the number of perturbations. They take turns, a
            batch each: with a single one, the classifier memorizes it.
        memory_size: Integer, how many perturbations `remember` can add to the
            memory.
        **kwargs: `name`, as for any Keras model.

    Attributes:
        classifier: The model in training.
        teacher: The copy of the original classifier.
        v: Weight `(pool_size, H, W, C)`, the perturbations, in pixel units.
        pool_size: Integer.
        memory: Weight `(memory_size, H, W, C)`, the perturbations that do not
            change. The first `memory_count` are in use.

    Raises:
        TypeError: if `classifier` is not a Keras model, or one that cannot be
            copied, or `epsilon` not a number.
        ValueError: for arguments out of range.

    Reference:
        - [Zhang et al., 2019](https://arxiv.org/abs/1901.08573)
        - [Shafahi et al., 2018](https://arxiv.org/abs/1811.11304)
    """

    def __init__(
        self,
        classifier,
        epsilon,
        norm="linf",
        value_range=(0, 255),
        robustness=0.5,
        temperature=1.0,
        step_size=None,
        seed=0,
        from_logits=None,
        perturbation=None,
        pool_size=None,
        memory_size=0,
        **kwargs,
    ):
        check_classifier(classifier)
        ball = LpBall(epsilon, norm)
        check_number("robustness", robustness, least=0, most=1)
        check_number("temperature", temperature, above=0, below=np.inf)
        step_size = STEP * ball.epsilon if step_size is None else step_size
        check_number("step_size", step_size, above=0, below=np.inf)
        check_counts(pool_size=pool_size)
        check_whole("seed", seed, 0)
        check_whole("memory_size", memory_size, 0)
        initial = None
        if perturbation is not None:
            initial = pixels.as_pool(perturbation, pool_size)
            for one in initial:
                ball.refuse_outside(one)
            pool_size = len(initial)
        kwargs.setdefault("dtype", "float32")
        super().__init__(autocast=False, **kwargs)
        self.ball = ball
        self.value_range = pixels.as_value_range(value_range)
        self.robustness = float(robustness)
        self.temperature = float(temperature)
        self.step_size = float(step_size)
        self.seed = seed
        self.from_logits = from_logits
        self.pool_size = pool_size or 1
        self.memory_size = memory_size
        self._initial = initial
        self.classifier = classifier
        self.teacher = _copy(classifier)
        self._mean_loss = keras.metrics.Mean("loss")
        self._agreements = [
            higher_is_better(keras.metrics.Mean(name))
            for name in ("clean_agreement", "perturbed_agreement")
        ]
        shape = stated_shape(classifier)
        if shape is not None:
            self.build((None, *shape))

    # Building ---------------------------------------------------------------

    def build(self, input_shape):
        if self.built:
            return
        shape = tuple(input_shape[1:])
        check_axes((None, *shape))
        some = np.zeros((1, *shape), "float32")
        for model in (self.classifier, self.teacher):
            if not model.built:
                model(some, training=False)
        refuse_other_scope(self.classifier, self.distribute_strategy)
        # A model that was not built before has its weights now.
        self.teacher.set_weights(self.classifier.get_weights())
        self._logits = logits_function(self.classifier, self.from_logits, some)
        self._teacher_logits = logits_function(
            self.teacher, self.from_logits, some
        )
        self._num_classes = self._logits(some).shape[-1]
        start = np.zeros((self.pool_size, *shape), "float32")
        if self._initial is not None:
            pixels.same_shape(self._initial.shape, shape)
            start[:] = self._initial
        self.v = self._add_weight("perturbation", start)
        if self.memory_size:
            memory = np.zeros((self.memory_size, *shape), "float32")
            self.memory = self._add_weight("memory", memory)
            self.memory_count = self._add_weight("memory_count", np.int32(0))
        self.built = True

    def _add_weight(self, name, start):
        """Returns a weight that the optimizer does not update."""
        return self.add_weight(
            start.shape,
            lambda shape, dtype: tf.constant(start, dtype),
            trainable=False,
            aggregation="only_first_replica",
            dtype=start.dtype.name,
            autocast=False,
            name=name,
        )

    # Keras would train all that is trainable below, the teacher too.

    @property
    def trainable_variables(self):
        return self.classifier.trainable_variables

    @property
    def metrics(self):
        agreements = self._agreements
        return [self._mean_loss, *agreements, monitored(agreements)]

    def compile(self, optimizer="adam", **kwargs):
        """Compiles the training, as `keras.Model.compile` does.

        Args:
            optimizer: Keras optimizer or its name. The learning rate is that
                of fine-tuning: 2e-4, falling to 0, where Adam's own is 1e-3.
            **kwargs: What else `keras.Model.compile` takes, but for `loss` and
                `metrics`: the model has its own.
        """
        for name in ("loss", "metrics"):
            if kwargs.pop(name, None) is not None:
                raise ValueError(
                    f"AdversarialDistiller has {name} of its own. Received: "
                    f"compile({name}=...). Leave it out."
                )
        super().compile(optimizer=optimizer, loss=None, **kwargs)
        self._compile_arguments = {"optimizer": self.optimizer, **kwargs}

    def compile_from_config(self, config):
        super().compile_from_config(config)
        if self.built:
            # A file may hold its variables.
            self._build_optimizer()

    def _build_optimizer(self):
        """Gives the optimizer its variables; `fit` calls it first of all."""
        if not self.built:
            raise ValueError(
                "The size of the images is not known. Build the model first: "
                "distiller.build((None, height, width, channels))."
            )
        super()._build_optimizer()

    def check_labels(self, labels, images=None):
        """Raises ValueError for labels that are no classes of the classifier.

        Args:
            labels: Array, as `fit` takes it for `y`, or `None`.
            images: Array of the images that they belong to, or `None`.
        """
        if labels is not None and self.built:
            count = len(labels if images is None else images)
            as_labels("labels", labels, count, self._num_classes)

    fit = _with_labels(keras.Model.fit)
    evaluate = _with_labels(keras.Model.evaluate)

    def _before_batch(self, x, y, sample_weight):
        self.check_labels(y, x)

    # One batch --------------------------------------------------------------

    def call(self, inputs, training=False):
        """Class scores of images, from the classifier.

        Args:
            inputs: Images `(n, H, W, C)`, in the pixel units of `value_range`.
            training: Boolean, of no effect: the classifier runs as at
                inference.
        """
        return self.classifier(inputs, training=False)

    def train_step(self, data):
        images, targets = self._unpack(data)
        check_trainable(self.classifier)
        variables = self.trainable_variables
        turn = tf.cast(self.optimizer.iterations, "int32") % self.pool_size
        v = self._start(self.v[turn : turn + 1], turn)
        with tf.GradientTape() as tape:
            tape.watch(v)
            each = self._with_memory(v, images)
            logits, loss = self._forward(images, each, targets)
            scaled = self.optimizer.scale_loss(loss)
        # One backward pass: the scale of the ascent does not matter.
        *gradients, ascent = tape.gradient(scaled, [*variables, v])
        self.optimizer.apply(gradients, variables)
        v = ascend(v, check_gradient(ascent), self.ball, self.step_size)
        pool = tf.convert_to_tensor(self.v)
        self.v.assign(tf.tensor_scatter_nd_update(pool, [[turn]], v))
        return self._measured(targets, logits, loss)

    def _start(self, v, turn):
        """The perturbation before this batch.

        At v = 0 and the original weights, the loss has no gradient, so the
        first step is random. It follows from the seed, also in a resumed fit.
        """
        seed = self.seed, -1 - turn
        drawn = tf.random.stateless_uniform(tf.shape(v), seed, -1.0, 1.0)
        step = self.step_size * self.ball.steepest(drawn)
        return tf.where(tf.reduce_all(v == 0.0), self.ball.project(step), v)

    def _with_memory(self, v, images):
        """The perturbation of each image: v, or one drawn from the memory."""
        if not self.memory_size:
            return v
        shape = tf.shape(images)
        seed = self.seed, tf.cast(self.optimizer.iterations, "int32")
        count = tf.convert_to_tensor(self.memory_count)
        drawn = tf.random.stateless_uniform(
            shape[:1], seed, 0, tf.maximum(count, 1), "int32"
        )
        remembered = tf.gather(self.memory, drawn)
        every_second = (tf.range(shape[0]) % 2 == 1) & (count > 0)
        ones = [1] * (len(images.shape) - 1)
        return tf.where(tf.reshape(every_second, [-1, *ones]), remembered, v)

    def test_step(self, data):
        images, targets = self._unpack(data)
        logits, loss = self._forward(images, self.v[:1], targets)
        return self._measured(targets, logits, loss)

    def _unpack(self, data):
        """Returns the images and the `Targets` of a batch."""
        x, y, sample_weight = unpack_batch(data, "x")
        if sample_weight is not None:
            raise ValueError(
                "AdversarialDistiller takes no sample weights. Pass images, or "
                "images and labels."
            )
        images = tf.cast(x, "float32")
        pixels.same_shape(images.shape[1:], self.v.shape[1:])
        if y is not None:
            return images, self._targets_of(y)
        logits = self._teacher_logits(images)
        stated = self._teacher_logits.probabilities
        probabilities = stated(logits / self.temperature)
        labels = labels_of(logits)
        return images, Targets(probabilities, labels, self.temperature)

    def _targets_of(self, y):
        """`Targets` of class indices `(n,)`, or of probabilities."""
        classes, y = self._num_classes, tf.convert_to_tensor(y)
        several = y.shape.rank == 2 and y.shape[-1] == classes
        if y.shape.rank != 1 and not several and y.shape[1:] != [1]:
            raise ValueError(
                "Labels must be class indices (n,), or probabilities (n, "
                f"{classes}). Received: shape {y.shape}."
            )
        labels = class_indices(y, classes)
        checked = tf.debugging.assert_non_negative(labels, _NO_CLASS)
        with tf.control_dependencies([checked]):
            labels = tf.identity(labels)
        y = tf.cast(y, "float32") if several else tf.one_hot(labels, classes)
        return Targets(y, labels, 1.0)

    def _forward(self, images, v, targets):
        """The logits of clean and of perturbed images, and the loss."""
        perturbed = pixels.apply_perturbation(images, v, self.value_range)
        logits = self._logits(tf.concat([images, perturbed], axis=0))
        clean, perturbed = tf.split(logits, 2)
        several = self._logits.probabilities is tf.nn.sigmoid
        loss = self.robustness * _divergence(targets, perturbed, several)
        loss += (1 - self.robustness) * _divergence(targets, clean, several)
        return (clean, perturbed), loss + sum(self.classifier.losses)

    def _measured(self, targets, logits, loss):
        count = tf.shape(targets.labels)[0]
        # XLA drops assertions.
        loss = tf.where(tf.reduce_all(targets.labels >= 0), loss, np.nan)
        self._mean_loss.update_state(loss, sample_weight=count)
        for metric, each in zip(self._agreements, logits):
            metric.update_state(labels_of(each) == targets.labels)
        return {metric.name: metric.result() for metric in self.metrics[:3]}

    def remember(self, perturbation):
        """Adds a perturbation to the memory, between two batches or epochs.

        Args:
            perturbation: Array `(H, W, C)` in the ball.

        Raises:
            ValueError: if the memory is full, or the perturbation is outside
                of the ball or of another shape.
        """
        v = pixels.as_perturbation(perturbation)
        self.build((None, *v.shape))
        pixels.same_shape(v.shape, self.v.shape[1:])
        self.ball.refuse_outside(v)
        count, read = 0, keras.ops.convert_to_numpy
        if self.memory_size:
            count = int(read(self.memory_count))
        if count == self.memory_size:
            raise ValueError(
                f"The memory is full. Received: memory_size={count}, and "
                "another perturbation. Pass a larger memory_size."
            )
        memory = read(self.memory).copy()
        memory[count] = v
        self.memory.assign(memory)
        self.memory_count.assign(count + 1)

    # Results and files ------------------------------------------------------

    @property
    def perturbation(self):
        """The perturbation as a NumPy array `(H, W, C)`, in pixel units.

        With a pool, an array `(pool_size, H, W, C)`.
        """
        if not self.built:
            raise pixels.NoPerturbationError("Call fit.")
        pool = keras.ops.convert_to_numpy(self.v)
        return pool if self.pool_size > 1 else pool[0]

    def get_build_config(self):
        return {"image_shape": list(self.v.shape[1:])} if self.built else {}

    def build_from_config(self, config):
        if "image_shape" in config:
            self.build((None, *config["image_shape"]))

    def get_config(self):
        # The teacher is a copy of the classifier; its weights are in the file.
        config = super().get_config()
        names = ("robustness", "temperature", "step_size")
        names += ("pool_size", "memory_size")
        return config | {name: getattr(self, name) for name in names}

    @classmethod
    def from_config(cls, config):
        config = {k: v for k, v in config.items() if k not in _FORMER}
        classifier = read_classifier(config["classifier"])
        return cls(**config | {"classifier": classifier})


def _divergence(targets, logits, several):
    """The mean Kullback-Leibler divergence from the probabilities.

    Args:
        targets: `Targets`.
        logits: Float tensor `(n, num_classes)`.
        several: Boolean, whether each class has a sigmoid of its own.
    """
    p, scale = targets.probabilities, targets.temperature
    # Minus infinity, of a class that is switched off, times 0 is NaN.
    logits = tf.maximum(logits / scale, -1e30)
    log_odds = tf.math.xlogy(p, p)
    if several:
        log_odds += tf.math.xlogy(1 - p, 1 - p)
        crossentropy = tf.nn.sigmoid_cross_entropy_with_logits(p, logits)
        crossentropy = tf.reduce_sum(crossentropy, axis=-1)
    else:
        crossentropy = tf.nn.softmax_cross_entropy_with_logits(p, logits)
    divergence = crossentropy + tf.reduce_sum(log_odds, axis=-1)
    # The square keeps its scale at any temperature, as in Hinton et al.
    return scale**2 * tf.reduce_mean(divergence)


def check_trainable(classifier):
    """Raises ValueError for a classifier with nothing to train."""
    if not classifier.trainable_variables:
        raise ValueError(
            "The classifier has no trainable weights. Set "
            "classifier.trainable = True."
        )


def _copy(classifier):
    """A frozen copy of a model, with weights of its own."""
    try:
        with random_state_kept():
            copy = read_classifier(classifier_config(classifier), False)
    except Exception as error:
        raise TypeError(
            "The classifier cannot be copied. Expected: one that keras.saving "
            f"saves and loads. Received: {classifier.name!r}. "
            f"{reason_of(error)} keras.saving.register_keras_serializable "
            "registers a class."
        ) from error
    copy.trainable = False
    return copy
