"""`UniversalPerturbation`: a perturbation that is fitted like a Keras model.

The algorithm (Algorithm 1 of the paper, read per batch):

1. The classifier's own prediction on the clean image is the label to leave.
2. The images, perturbed by the current `v` and clipped to the pixel range, are
   classified. Those with another label are fooled already.
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
import numpy as np
import tensorflow as tf

from keras_uap.attacks import updates
from keras_uap.attacks.fit_lifecycle import FitLifecycle, all_callbacks
from keras_uap.attacks.metrics import Rates
from keras_uap.attacks.schedules import linear_decay
from keras_uap.classifiers import logits
from keras_uap.classifiers.adapter import ClassifierAdapter, stated_shape
from keras_uap.classifiers.around import AroundClassifier, read_classifier
from keras_uap.data import sources
from keras_uap.perturbations import pixels
from keras_uap.perturbations.interchange import read_perturbation
from keras_uap.perturbations.lp_ball import LpBall, MaskedBall
from keras_uap.utils import keras_compat, validation
from keras_uap.utils.formatting import one_line
from keras_uap.utils.saving import SavedSeed, WholeFiles


@keras.saving.register_keras_serializable(package="keras_uap")
class UniversalPerturbation(
    WholeFiles, SavedSeed, AroundClassifier, keras.Model
):
    """One small image that, added to almost any image, fools a classifier.

    Example:

    ```python
    uap = keras_uap.UniversalPerturbation(classifier, epsilon=10.0)
    uap.compile("decaying_lion", loss="dominant")
    uap.fit(images, epochs=5, validation_data=held_out)
    uap.evaluate(held_out, return_dict=True)  # {"fooling_rate": ...}
    v = uap.perturbation                      # (H, W, C), in pixel units
    ```

    Args:
        classifier: Keras model that maps images `(n, H, W, C)`, or signals
            `(n, T, C)`, to class scores `(n, num_classes)` or to a single
            logit or probability `(n, 1)`. It is left exactly as it is. See
            `keras_uap.attach` for one that takes anything else.
        epsilon: Float above 0, the radius of the ball that holds the
            perturbation, in the pixel units of `value_range`.
        norm: `"linf"`, `"l2"`, `np.inf` or `2`, the norm of the ball.
        value_range: Pair of floats `(low, high)`, the pixel range that the
            classifier takes. Perturbed images are clipped to it. `None` means
            no clipping.
        target: Integer, the class to which images shall be sent. `None` for
            any class but the clean prediction.
        mask: Array `(H, W)` or `(H, W, C)`, zero where the perturbation must
            be zero.
        from_logits: Boolean, whether the classifier returns logits. `None`
            finds out.
        initial_perturbation: Array `(H, W, C)` inside the ball, in pixel
            units, where a fit starts: found on noise, on another classifier
            or in another size; also a `UniversalPerturbation`, or
            the path of an `.npz` or `.keras` file of one. `None` starts from
            zero.
        seed: Integer, the seed of the order of the images and of a random
            start. `None` draws one.
        **kwargs: `name` and the like, as for any Keras model.

    Attributes:
        v: Weight `(H, W, C)`, the perturbation, in pixel units.
        best_v, best_rate: Weights, the best perturbation of a fit and its
            rate on held-out images; -1 before there is one.
        ball: `LpBall` that holds `v`, with the mask in it.
        adapter: `ClassifierAdapter`, or `None` before the first images of an
            opaque classifier.
        stop_reason: String, why the last fit ended.

    Raises:
        TypeError, ValueError: for arguments of another kind or out of range,
            a classifier without class scores, or an initial perturbation
            outside the ball or of another shape than the images.

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
        keras_compat.check_backend()
        adapter = None
        if isinstance(classifier, ClassifierAdapter):
            adapter, classifier = classifier, classifier.classifier
        logits.check_classifier(classifier)
        # The perturbation stays float32, also around a float16 classifier.
        kwargs.setdefault("dtype", "float32")
        super().__init__(autocast=False, **kwargs)
        self.classifier = classifier
        self.adapter = adapter
        self.ball = LpBall(epsilon, norm)
        self.value_range = pixels.as_value_range(value_range)
        self.target = validation.as_class("target", target)
        self.from_logits = from_logits
        self.mask = None
        self._initial_mask = None if mask is None else pixels.as_mask(mask)
        if seed is not None:
            validation.check_whole("seed", seed, 0)
        self.seed = None if seed is None else int(seed)
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.stop_reason = None
        self._order = sources.Order()
        self._fit_source = None
        self._rates = Rates(self.target)
        self._model_passes = keras.metrics.Sum(name="model_passes")
        self.compile("deepfool" if self.target is None else "lion")

        shape = adapter.image_shape if adapter else stated_shape(classifier)
        if shape is not None:
            self._build_for(shape)
        if initial_perturbation is not None:
            # As an array: Keras would take a model for a part of this one.
            start = read_perturbation(initial_perturbation, self.value_range)
            self.perturbation = start

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
            optimizer: `"deepfool"` or a `keras_uap.DeepFool`; for gradient
                steps, a Keras optimizer or its name. Directions have a mean
                absolute value of 1, so a learning rate is in pixel units. A
                name gets a learning rate of a tenth of `epsilon`.
                `"decaying_lion"` is `decaying_lion` over each fit's batches.
            loss: `"crossentropy"`, `"dominant"`, `"features"`,
                `"features+dominant"`, `"margin"` or a `keras.losses.Loss`,
                what gradient steps minimise; DeepFool has none. See
                `keras_uap.losses`.
            run_eagerly, steps_per_execution, jit_compile: as in Keras.
            smoothing: Float, the standard deviation in pixels of a Gaussian
                that smooths each step's direction; 0 for none. Hardened
                classifiers are often open to coarse patterns that bare
                gradients miss; others are fooled less by them.

        Raises:
            TypeError: if `optimizer` or `loss` is of another kind.
            ValueError: for an unknown name, a negative `smoothing`, or
                `jit_compile=True` with DeepFool.
        """
        validation.check_number("smoothing", smoothing, least=0, below=np.inf)
        with self.distribute_strategy.scope():
            update = updates.get(optimizer, loss, self.target is not None)
        update.refuse(self.target, jit_compile, smoothing)
        self.smoothing = float(smoothing)
        if self.built:
            update.build(self)
        self._update = update
        arguments = {
            "optimizer": update.optimizer,
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile if update.with_xla else False,
        }
        super().compile(**arguments)
        self._compile_arguments = arguments | {
            "optimizer": update.rule or optimizer,
            "loss": loss,
            "smoothing": self.smoothing,
        }
        if self.built:
            self._build_optimizer()

    def decaying_lion(self, batches, step=2 * updates.STEP):
        """The optimizer that measured best: sign steps with linear decay.

        Args:
            batches: Integer, how many batches the fit will run in all.
            step: Float above 0, the first steps as a share of `epsilon`. Less
                than 0.2 refines an `initial_perturbation` that is strong.

        Returns:
            A `keras.optimizers.Lion` for `compile`, whose steps fall to a
            hundredth and stay there: compile again before another fit.

        """
        validation.check_whole("batches", batches, 1)
        validation.check_number("step", step, above=0, below=np.inf)
        shape = self.perturbation.shape
        step = step * float(self.ball.pixel_step(shape))
        return keras.optimizers.Lion(linear_decay(step, batches))

    # Algorithm 1 ------------------------------------------------------------

    def train_step(self, data):
        images, clean, labels = sources.unpack(data, self.v.shape)
        passes = tf.constant(0)
        loss = self._update.loss
        if clean is None or (loss.needs_features and clean.features is None):
            features, scores = self.adapter.forward_for(images, loss)
            clean = sources.Clean(logits.labels_of(scores), features)
            passes += tf.size(clean.labels)
        known = clean._replace(labels=tf.maximum(clean.labels, 0))
        step = self._update(self, images, known)
        self._model_passes.update_state(passes + step.passes)
        # A perturbed image without a prediction is not fooled.
        predicted = tf.where(step.predicted < 0, clean.labels, step.predicted)
        logs = self._counted(clean, predicted, labels, images)
        for metric in (self._model_passes, *self._update.metrics):
            logs[metric.name] = metric.result()
        return self._for_workers(logs)

    def test_step(self, data):
        images, clean, labels = sources.unpack(data, self.v.shape)
        if clean is None:
            clean = sources.Clean(self._measured(images))
        predicted = self._measured(self.perturbed(images))
        logs = self._counted(clean, predicted, labels, images)
        return self._for_workers(logs)

    def _counted(self, clean, predicted, labels, images):
        """Adds a batch to the rates; returns them by name."""
        if labels is not None:
            labels = logits.class_indices(labels, self.adapter.num_classes)
        return self._rates.update(clean.labels, predicted, labels, images)

    def _measured(self, images):
        return logits.labels_of(self.adapter.forward(images, exact=True))

    @property
    def metrics(self):
        # What `evaluate` returns comes first, in its order.
        return [
            *self._rates.metrics,
            *self._update.metrics,
            self._model_passes,
            keras_compat.monitored(self._rates.monitored),
        ]

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

        For arrays the clean predictions, and the features if a loss needs
        them, are computed once; for a dataset, which may change from epoch to
        epoch (augmentation), with every batch, at one more forward an image.

        Linear decay (`"decaying_lion"`, `"deepfool"`) starts again with each
        fit. A dataset of unknown length is read once more to count its
        batches; `steps_per_epoch` spares it.

        Args:
            x: Images `(n, H, W, C)` as array or tensor, float or integer; a
                `tf.data.Dataset` or `keras.utils.PyDataset` of batches of
                images, or of `(images, labels)`; or the result of
                `datasets.load`. A dataset must begin again each epoch.
            y: Labels `(n,)`, used for `accuracy` only.
            batch_size: Integer, for arrays. Defaults to 16.
            callbacks: as in `keras.Model.fit`. They may monitor the rates:
                `"val_fooling_rate"`, or `"val_target_rate"` with a target.
            epochs, verbose, validation_split, shuffle: as in `keras.Model.fit`.
            initial_epoch, steps_per_epoch: as in `keras.Model.fit`.
            validation_steps, validation_batch_size: as in `keras.Model.fit`.
            validation_freq: as in `keras.Model.fit`.
            validation_data: Images, or `(images, labels)`, or a dataset, not
                among those of `x`.

        Returns:
            The Keras `History`. Per epoch, `fooling_rate` is the share of the
            images that `v` fooled when their turn came, before their own
            update; `norm` is the norm of `v` at its end; `model_passes` counts
            each forward or backward pass of one image; `not_converged` counts
            images that DeepFool did not get over a boundary (or `no_gradient`
            those without a usable gradient); `val_fooling_rate` measures the
            epoch's final `v`. `stop_reason` names why the fit ended.

        Raises:
            ValueError: if the images are empty, not finite or of the wrong
                shape. A non-finite image in the middle of a dataset ends the
                fit; the best perturbation so far is kept.
        """
        batch_size = 16 if batch_size is None else batch_size
        validation.check_counts(
            batch_size=batch_size,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
        )
        train = sources.source(x, y, "x", steps_per_epoch)
        self._prepare(train)
        held_out = None
        if validation_data is not None:
            held_out = sources.for_validation(validation_data, validation_steps)
            self._prepare(held_out)
        elif validation_split not in (None, 0):
            train, held_out = train.split(validation_split)
        steps = steps_per_epoch or train.num_batches(batch_size)
        replicas = self.distribute_strategy.num_replicas_in_sync
        self._update.refuse_fit(replicas, steps and steps * epochs)
        validation_data = held_out and held_out.batches(
            validation_batch_size or 32, self.adapter, verbose=verbose
        )
        # Callbacks measure on the training images if there are no others.
        self._fit_source = train if held_out is None else None
        lifecycle = FitLifecycle(
            (initial_epoch, epochs),
            lambda: steps_per_epoch or train.count_batches(batch_size),
        )
        hidden = [m.name for m in (self._model_passes, *self._update.metrics)]
        callbacks = all_callbacks(lifecycle, callbacks, verbose and hidden)
        order = self._order if shuffle else None
        loss = self._update.loss
        try:
            return super().fit(
                train.batches(batch_size, self.adapter, order, verbose, loss),
                epochs=epochs,
                verbose=verbose,
                shuffle=False,
                callbacks=callbacks,
                validation_data=validation_data,
                initial_epoch=initial_epoch,
                steps_per_epoch=steps_per_epoch,
                validation_steps=validation_steps,
                validation_freq=validation_freq,
            )
        except BaseException as error:
            lifecycle.restore_best()
            self.stop_reason = f"ended by {type(error).__name__}"
            raise
        finally:
            self._fit_source = None

    def keep(self, reason):
        """Ends a fit with the current perturbation, for callbacks.

        Args:
            reason: String, the `stop_reason`.
        """
        self.stop_training = True
        # The current one is kept, even if validation data prefer another.
        self.best_v.assign(self.v)
        self.stop_reason = reason

    # Evaluating and applying ------------------------------------------------

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
            `fooling_rate`, and `target_rate` and `accuracy` with a target and
            labels: a dictionary with `return_dict=True`, else a list in that
            order, or one float. `target_rate` is the share of the images not
            already of the target that are sent there.

        Raises:
            ValueError: if the images are empty, not finite or of the wrong
                shape.
        """
        steps = kwargs.get("steps")
        validation.check_counts(batch_size=batch_size, steps=steps)
        name = "validation_data" if keras_compat.is_validation(kwargs) else "x"
        # `fit` has checked its validation data, once for all epochs.
        if name == "x":
            images = sources.source(x, y, name, steps, "steps")
            self._prepare(images)
            x, y = images.batches(batch_size or 32), None
        measured = super().evaluate(x, y, **kwargs)
        self._rates.check(name)
        return measured

    def call(self, inputs):
        """Class scores of the perturbed images, from the classifier."""
        pixels.same_shape(inputs.shape, self.v.shape)
        # If the shape is not known yet, nothing may broadcast either.
        inputs = tf.ensure_shape(inputs, (None, *self.v.shape))
        return self.classifier(self.perturbed(inputs), training=False)

    def perturbed(self, images):
        """Perturbed images as a float32 tensor, clipped to `value_range`.

        Args:
            images: Array or tensor `(n, H, W, C)`.
        """
        return pixels.apply_perturbation(images, self.v, self.value_range)

    def perturb(self, images):
        """Returns the perturbed images, clipped to `value_range`.

        Args:
            images: Array `(n, H, W, C)` or a single image `(H, W, C)`.

        Returns:
            Float32 NumPy array of the same shape.
        """
        images = validation.as_numbers("images", images)
        v = self.perturbation
        pixels.same_shape(images.shape, v.shape)
        return pixels.apply_perturbation(images, v, self.value_range).numpy()

    def plot(self, images, class_names=None, title=None):
        """Draws the perturbation, and images without and with it.

        Args:
            images: Images or signals, as for `fit`; the first eight.
            class_names: Sequence of strings, the names of the classes.
            title: String, over the whole figure.

        Returns:
            A `matplotlib.figure.Figure`.

        """
        shown = self.perturbation, images, self.value_range, class_names
        # A library that a fit does not need.
        from keras_uap import visualization

        return visualization.plot_perturbation(
            self.classifier, *shown, self.from_logits, title
        )

    @property
    def perturbation(self):
        """The perturbation as a NumPy array `(H, W, C)`, in pixel units."""
        if not self.built:
            raise pixels.NoPerturbationError("Call build or fit, or set one.")
        return keras.ops.convert_to_numpy(self.v)

    @perturbation.setter
    def perturbation(self, value):
        value = pixels.as_perturbation(value)
        self._build_for(value.shape)
        self.ball.refuse_outside(value)
        self.v.assign(self.ball.project(value))

    def __repr__(self):
        names = ("epsilon", "norm", "value_range", "target")
        shown = {"classifier": self.classifier.name}
        shown |= {name: getattr(self, name) for name in names}
        shown["perturbation"] = self.v if self.built else None
        return one_line(type(self).__name__, shown)

    # Building ---------------------------------------------------------------

    def build(self, input_shape):
        self._build_for(input_shape[1:])

    def _before_batch(self, x, y, sample_weight):
        self._prepare(sources.source(x, y))

    def _prepare(self, source):
        """Builds for the images of a source; checks their range and labels."""
        images = source.first
        self._build_for(images.shape[1:], images[:4].astype("float32"))
        classes = self.adapter.num_classes
        logits.as_labels("y, the labels,", source.labels, len(images), classes)
        pixels.warn_of_other_range(images, self.value_range, source.name, 4)

    def _build_for(self, image_shape, images=None):
        """Creates the weights for images of this shape, or checks it."""
        image_shape = tuple(image_shape)
        if self.built:
            pixels.same_shape(image_shape, self.v.shape)
            self._adapt(images)
            return
        self._add_weights(image_shape)
        self.built = True
        self._adapt(images)
        self._update.build(self)
        self._build_optimizer()

    def _adapt(self, images):
        """Makes the adapter, or one that is of the classifier as it is now."""
        if self.adapter is None:
            try:
                known = self.v.shape, self.from_logits, images
                self.adapter = ClassifierAdapter(self.classifier, *known)
            except logits.UndecidedError:
                # An opaque classifier is tried on the first images it gets.
                return
        elif images is not None and self.adapter.refresh(images):
            self.make_train_function(force=True)
            self.make_test_function(force=True)
            self.make_predict_function(force=True)
        validation.as_class("target", self.target, self.adapter.num_classes)

    def _add_weights(self, shape):
        def add(name, value, trainable=False):
            return self.add_weight(
                np.shape(value),
                lambda shape, dtype=None: tf.constant(value, "float32"),
                # It stays float32 in mixed precision.
                dtype="float32",
                autocast=False,
                trainable=trainable,
                name=name,
            )

        self.v = add("perturbation", np.zeros(shape), trainable=True)
        self.best_v = add("best_perturbation", np.zeros(shape))
        self.best_rate = add("best_rate", -1.0)
        if self._initial_mask is not None:
            mask = pixels.spread_mask(self._initial_mask, shape)
            self.mask = add("mask", mask)
            self.ball = MaskedBall(self.ball, self.mask)
        self.v.constraint = self.ball

    @property
    def trainable_variables(self):
        # Keras would train the caller's classifier, too.
        return [self.v] if self.built else []

    # Saving -----------------------------------------------------------------

    def export(self, filepath, *args, input_signature=None, **kwargs):
        """Exports the model as `keras.Model.export` does."""
        if input_signature is None and self.built:
            # Keras would need a call first.
            shape = (None, *self.v.shape)
            input_signature = [keras.InputSpec(shape=shape, dtype="float32")]
        kwargs["input_signature"] = input_signature
        super().export(filepath, *args, **kwargs)

    def load_own_variables(self, store):
        super().load_own_variables(store)
        self.stop_reason = None  # That of another fit.
        if self.built:
            for v in (self.v, self.best_v):
                self.ball.refuse_outside(v)
            self._update.build(self)  # The step depends on the loaded mask.

    def get_build_config(self):
        return {"image_shape": list(self.v.shape)} if self.built else {}

    def build_from_config(self, config):
        if "image_shape" in config:
            self._build_for(config["image_shape"])

    def get_config(self):
        mask = self.mask if self.built else self._initial_mask
        config = {"target": self.target, **pixels.mask_to_config(mask)}
        return super().get_config() | config

    @classmethod
    def from_config(cls, config):
        config = pixels.mask_from_config(config)
        config["classifier"] = read_classifier(config["classifier"])
        return cls(**config)
