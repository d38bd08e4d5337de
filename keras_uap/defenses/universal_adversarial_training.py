"""The paper's adversarial fine-tuning, as a callback of a plain `fit`."""

import keras
import numpy as np
import tensorflow as tf

from keras_uap.attacks import losses, updates
from keras_uap.attacks.universal_perturbation import UniversalPerturbation
from keras_uap.data.pictures import as_array
from keras_uap.perturbations.lp_ball import LpBall
from keras_uap.perturbations.perturbation_layer import (
    PerturbationLayer,
    refuse_other_scope,
)
from keras_uap.perturbations.pixels import as_value_range
from keras_uap.utils.keras_compat import all_layers
from keras_uap.utils.saving import random_state_kept
from keras_uap.utils.validation import check_counts, check_flag, check_whole


class UniversalAdversarialTraining(keras.callbacks.Callback):
    """Hardens a classifier against universal perturbations during `fit`.

    The model in training holds a `keras_uap.PerturbationLayer` with a `rate`
    in front of its classifier. At the beginning of the first epoch, and of
    every `every`-th after it, this callback finds perturbations of the model
    as it is then and puts them into the layer's pool; the layer draws from
    them for its share of the training samples. That is the paper's
    fine-tuning: 5 epochs, rate 0.5, a pool of 10. Another call of `fit` is
    another round.

    With `validation_images` it also measures what the training achieves: the
    share of those images that a *fresh* perturbation fools, found against the
    current model. (The pool proves little: the model was trained against it.)
    The logs get

    - `fresh_fooling_rate_before`: of the model as the epoch began,
    - `fresh_fooling_rate`: of the model at the end of the epoch.

    A layer with an `epsilon` trains its perturbations itself. Then the
    callback only measures.

    The model is attacked as a whole: at inference such a layer is the
    identity. Its weights, metrics and random draws stay as they are. A resumed
    training needs only the layer's weights and `seed`, so
    `keras_uap.BackupAndRestore` works, in any order, and so does
    `keras.callbacks.BackupAndRestore`.

    Example:

    ```python
    layer = keras_uap.PerturbationLayer(rate=0.5, pool_size=10)
    training = keras.Sequential([keras.Input(shape), layer, classifier])
    training.compile("adam", loss, metrics=["accuracy"])
    defence = keras_uap.UniversalAdversarialTraining(
        images, epsilon=10.0, validation_images=held_out
    )
    training.fit(train, epochs=5, callbacks=[defence])
    classifier.save("hardened.keras")  # Loads without keras_uap.
    ```

    Args:
        images: Images `(n, H, W, C)` to find perturbations with, in the pixel
            units of `value_range`; an array, or a dataset of batches.
        epsilon: Float above 0, the radius of the ball that holds the
            perturbations, in pixel units.
        norm: `"linf"`, `"l2"`, `np.inf` or `2`, the norm of the ball.
        value_range: Pair of floats, the pixel range that the model takes.
            `None` takes over that of the layer.
        validation_images: Images that are not among `images`, to measure on.
            `None` measures nothing.
        every: Integer, the epochs from one filling of the pool to the next.
            `None` fills it in the first epoch only, as the paper does.
        measure_every: Integer, the epochs from one measurement to the next.
            The first epoch's beginning and the last one's end are always
            measured; epochs in between get NaN.
        optimizer: What `UniversalPerturbation.compile` takes, the update that
            finds perturbations. `None` takes `decaying_lion`, the strongest
            measured.
        loss: What `UniversalPerturbation.compile` takes.
        epochs: Integer, the epochs over `images` for each perturbation.
        batch_size: Integer, the batch size of those epochs.
        from_logits: Boolean, whether the model returns logits. `None` finds
            out.
        seed: Integer. The perturbations of a pool differ by the order of the
            images, as in the paper; the orders are drawn from the seed.

    Raises:
        TypeError: if `epsilon` is not a number.
        ValueError: for arguments out of range; at the beginning of `fit`, if
            the model holds no `PerturbationLayer` to fill, or more than one,
            or one that was built outside the strategy's scope.

    Reference:
        - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401)
        - [Shafahi et al., 2018](https://arxiv.org/abs/1811.11304)
    """

    def __init__(
        self,
        images,
        epsilon,
        norm="linf",
        value_range=None,
        validation_images=None,
        every=None,
        measure_every=1,
        optimizer=None,
        loss="crossentropy",
        epochs=5,
        batch_size=32,
        from_logits=None,
        seed=0,
    ):
        super().__init__()
        if images is None:
            raise ValueError(
                "images is missing: callbacks do not see the data of fit. "
                "Pass the images to find perturbations with."
            )
        self.ball = LpBall(epsilon, norm)
        self.value_range = as_value_range(value_range)
        check_counts(every=every)
        check_whole("measure_every", measure_every, 1)
        check_whole("epochs", epochs, 1)
        check_whole("batch_size", batch_size, 1)
        check_whole("seed", seed, 0)
        _check_images(images, "images")
        if validation_images is not None:
            _check_images(validation_images, "validation_images")
        losses.get(loss)
        if optimizer is not None:
            updates.get(optimizer)
        if from_logits is not None:
            check_flag("from_logits", from_logits)
        self.images = images
        self.validation_images = validation_images
        self.every = every
        self.measure_every = measure_every
        self.optimizer = optimizer
        self.loss = loss
        self.epochs = epochs
        self.batch_size = batch_size
        self.from_logits = from_logits
        self.seed = seed

    def on_train_begin(self, logs=None):
        self._layer = self._find_layer()
        self._images = as_array(self.images)
        strategy = self.model.distribute_strategy
        if not self._layer.built:  # In a subclassed model.
            with strategy.scope():
                self.model(self._images[:1].astype("float32"))
        refuse_other_scope(self._layer, strategy)
        self._uap = self._rate = None

    # Perturbations are found when the epoch begins, because BackupAndRestore
    # has restored the model by then, whichever callback comes first.
    def on_epoch_begin(self, epoch, logs=None):
        if self._rate is None and self.validation_images is not None:
            self._rate = self._fresh_fooling_rate()
        due = epoch == 0 if self.every is None else epoch % self.every == 0
        # A fit may begin at a later epoch.
        empty = not np.any(self._layer.perturbation)
        if self._layer.epsilon is None and (due or empty):
            self._fill_pool(epoch)

    def on_epoch_end(self, epoch, logs):
        if self.validation_images is None:
            return
        logs["fresh_fooling_rate_before"] = self._rate
        last = epoch + 1 == self.params.get("epochs")
        due = last or (epoch + 1) % self.measure_every == 0
        self._rate = self._fresh_fooling_rate() if due else float("nan")
        logs["fresh_fooling_rate"] = self._rate

    def on_train_end(self, logs=None):
        # These hold the model, compiled functions and a copy of the images.
        self._uap = self._images = None

    def _find_layer(self):
        every = all_layers(self.model)
        layers = [each for each in every if isinstance(each, PerturbationLayer)]
        found = [layer for layer in layers if layer.rate is not None]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(repr(layer.name) for layer in found)
            raise ValueError(
                "UniversalAdversarialTraining fills one PerturbationLayer. "
                f"Received: a model with {len(found)} of them, {names}."
            )
        if layers:
            raise ValueError(
                f"PerturbationLayer {layers[0].name!r} has rate=None: it "
                "perturbs at inference too. Pass a rate, such as rate=0.5."
            )
        raise ValueError(
            "UniversalAdversarialTraining needs a PerturbationLayer in the "
            f"model. Received: {self.model.name!r} without one. Put one in "
            "front of the classifier: keras_uap.PerturbationLayer(rate=0.5)."
        )

    def _fill_pool(self, epoch):
        members = range(self._layer.pool_size)
        seeds = [(self.seed, 1 + epoch, member) for member in members]
        pool = [self._find_perturbation(seed) for seed in seeds]
        self._layer.perturbation = np.stack(pool)

    def _fresh_fooling_rate(self):
        """The share of the validation images that a fresh attack fools."""
        # With the same draws, a resumed training finds the same.
        self._find_perturbation([self.seed, 0])
        return self._uap.evaluate(
            self.validation_images, verbose=0, return_dict=True
        )["fooling_rate"]

    def _find_perturbation(self, entropy):
        """Fits a perturbation to the current model.

        Args:
            entropy: Integers, the seed of the order of the images.

        Returns:
            NumPy array `(H, W, C)`.
        """
        if self._uap is None:
            self._prepare()
        uap = self._uap
        order = np.random.default_rng(entropy).integers(2**31)
        # A random start would be worse: negative values at black pixels are
        # clipped, have no gradient and stay.
        uap.perturbation = np.zeros(uap.v.shape)
        uap.seed_generator.state.assign([order, 0])
        for variable, value in zip(uap.optimizer.variables, self._fresh):
            variable.assign(value)
        images, size = self._images, self.batch_size
        uap.fit(images, epochs=self.epochs, batch_size=size, verbose=0)
        return uap.perturbation

    def _prepare(self):
        """Makes the model of all perturbations, which is traced once."""
        with random_state_kept():
            uap = UniversalPerturbation(
                self.model,
                self.ball.epsilon,
                self.ball.norm,
                self.value_range or self._layer.value_range,
                from_logits=self.from_logits,
            )
            uap.build((None, *self._images.shape[1:]))
            uap.compile(self._new_optimizer(uap), loss=self.loss)
        self._fresh = [v.numpy() for v in uap.optimizer.variables]
        self._uap = uap

    def _new_optimizer(self, uap):
        if self.optimizer is None:
            count = -(-len(self._images) // self.batch_size)
            return uap.decaying_lion(count * self.epochs)
        if isinstance(self.optimizer, keras.optimizers.Optimizer):
            # A built optimizer belongs to the weights it was built for.
            return self.optimizer.from_config(self.optimizer.get_config())
        return self.optimizer


def _check_images(images, name):
    """Checks an array; datasets are read when a fit begins."""
    if not isinstance(images, (tf.data.Dataset, keras.utils.PyDataset)):
        as_array(images, name)
