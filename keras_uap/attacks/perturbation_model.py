"""A Keras model whose one trainable weight is a perturbation.

What `UniversalPerturbation` is apart from its algorithm: the ball, `v` and the
other weights, the classifier that is only read, and what goes into a file.
"""

import base64
import math

import keras
import numpy as np
import tensorflow as tf

from keras_uap.classifiers.adapter import (
    ClassifierAdapter,
    as_adapter,
    stated_shape,
)
from keras_uap.classifiers.logits import UndecidedError
from keras_uap.perturbations.lp_ball import LpBall, MaskedBall
from keras_uap.perturbations.pixels import (
    NoPerturbationError,
    apply_perturbation,
    as_mask,
    as_perturbation,
    as_value_range,
    same_shape,
    spread_mask,
)
from keras_uap.utils.keras_compat import TrainerHooks
from keras_uap.utils.saving import SavedDraws, WholeFiles, not_compiled
from keras_uap.utils.validation import as_class, as_numbers, check_whole

# The name of the mask of a model that does not know the size of its images
# yet, among the model's saved variables.
_MASK = "initial_mask"


class PerturbationModel(WholeFiles, SavedDraws, TrainerHooks, keras.Model):
    """Holds a perturbation `v` in its ball, and the classifier it is for.

    Args: as for `keras_uap.UniversalPerturbation`.

    Attributes:
        v: Weight `(H, W, C)`, the perturbation, in pixel units.
        best_v, best_rate: Weights, the best perturbation of a fit and its
            rate on held-out images; -1 before there is one.
        ball: `LpBall` that holds `v`, with the mask in it.
        adapter: `ClassifierAdapter` of the classifier, or `None` before the
            first images that an opaque classifier gets.
    """

    def __init__(
        self,
        classifier,
        epsilon,
        norm,
        value_range,
        target,
        mask,
        from_logits,
        seed=None,
        **kwargs,
    ):
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                "keras_uap needs Keras on the TensorFlow backend. Received: "
                f"KERAS_BACKEND={keras.backend.backend()!r}. Set "
                "KERAS_BACKEND=tensorflow before importing keras."
            )
        adapter = None
        if isinstance(classifier, ClassifierAdapter):
            adapter, classifier = classifier, classifier.classifier
        if not isinstance(classifier, keras.Layer):
            raise TypeError(
                "classifier must be a Keras model that maps images to class "
                f"scores. Received: classifier={classifier!r} of type "
                f"{type(classifier).__name__}."
            )
        # The perturbation and its steps stay float32, also around a float16
        # classifier and where another dtype is asked for.
        kwargs.setdefault("dtype", "float32")
        super().__init__(autocast=False, **kwargs)
        self.classifier = classifier
        self.ball = LpBall(epsilon, norm)
        self.value_range = as_value_range(value_range)
        self.target = None if target is None else as_class("target", target)
        self.from_logits = from_logits
        self.adapter = None
        self._given_adapter = adapter
        self._adapter_tried = False
        self.mask = None
        self._initial_mask = None if mask is None else as_mask(mask)
        if seed is not None:
            check_whole("seed", seed, 0)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    @property
    def epsilon(self):
        """The radius of the ball, in the pixel units of `value_range`."""
        return self.ball.epsilon

    @property
    def norm(self):
        """The norm of the ball, `"linf"` or `"l2"`."""
        return self.ball.norm

    # Building ---------------------------------------------------------------

    def on_build(self):
        """Called when the size of the images is known."""

    def build_if_stated(self):
        """Builds where the classifier says what images it takes."""
        shape = stated_shape(self.classifier)
        if self._given_adapter is not None:
            shape = self._given_adapter.image_shape
        if shape is not None:
            self._build_for(shape)

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
            same_shape(image_shape, self.v.shape)
        else:
            self._add_weights(image_shape)
            self.built = True
            self.on_build()
        if self.adapter is None:
            try:
                adapter = as_adapter(
                    self._given_adapter or self.classifier,
                    image_shape,
                    self.from_logits,
                    images,
                )
            except UndecidedError:
                # An opaque classifier is tried on the first images it gets.
                return
            classes = adapter.num_classes
            if self.target is not None and self.target >= classes:
                raise ValueError(
                    "target is out of range. Received: target="
                    f"{self.target}. Expected: 0 to {classes - 1}, as the "
                    f"classifier has {classes} classes."
                )
            self.adapter = adapter
            # Who makes an adapter tries it on images.
            given = adapter is self._given_adapter
            self._adapter_tried = given or images is not None

    def check_adapter(self, images):
        """Looks once whether the rebuilt head gives the classifier's labels.

        Args:
            images: Array of a few images, the first that are seen.
        """
        if not self._adapter_tried and not self.adapter.agrees(images):
            # Given images, it finds another way to the logits.
            self.adapter = ClassifierAdapter(
                self.classifier, self.v.shape, self.from_logits, images
            )
        self._adapter_tried = True

    def _add_weights(self, shape):
        mask = self._initial_mask
        mask = None if mask is None else spread_mask(mask, shape)

        def add(name, shape, initializer, trainable=False):
            return self.add_weight(
                shape,
                initializer,
                # Of no other dtype, nor read as one in mixed precision.
                dtype="float32",
                autocast=False,
                trainable=trainable,
                name=name,
            )

        self.v = add("perturbation", shape, "zeros", trainable=True)
        self.best_v = add("best_perturbation", shape, "zeros")
        self.best_rate = add(
            "best_rate", (), lambda shape, dtype=None: tf.fill(shape, -1.0)
        )
        if mask is not None:
            self.mask = add(
                "mask", shape, lambda shape, dtype=None: tf.constant(mask)
            )
            self.ball = MaskedBall(self.ball, self.mask)
        self.v.constraint = self.ball

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

    # Applying ---------------------------------------------------------------

    def call(self, inputs):
        """Class scores of the perturbed images, from the classifier."""
        same_shape(inputs.shape, self.v.shape)
        # Also where the shape is not known yet: nothing may broadcast.
        inputs = tf.ensure_shape(inputs, (None, *self.v.shape))
        return self.classifier(self.perturbed(inputs), training=False)

    def perturbed(self, images):
        """Perturbed images as a float32 tensor, clipped to `value_range`.

        Args:
            images: Array or tensor `(n, H, W, C)`.
        """
        return apply_perturbation(images, self.v, self.value_range)

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
        same_shape(images.shape, v.shape)
        return apply_perturbation(images, v, self.value_range).numpy()

    @property
    def perturbation(self):
        """The perturbation as a NumPy array `(H, W, C)`, in pixel units."""
        if not self.built:
            raise NoPerturbationError("Call fit, or set one.")
        return keras.ops.convert_to_numpy(self.v)

    @perturbation.setter
    def perturbation(self, value):
        value = as_perturbation(value)
        self._build_for(value.shape)
        self.ball.refuse_outside(value)
        self.v.assign(self.ball.project(value))

    # Saving -----------------------------------------------------------------

    def export(self, filepath, *args, input_signature=None, **kwargs):
        """Exports the model as `keras.Model.export` does."""
        if input_signature is None and self.built:
            # Keras would want a call first.
            shape = (None, *self.v.shape)
            input_signature = [keras.InputSpec(shape=shape, dtype="float32")]
        super().export(
            filepath, *args, input_signature=input_signature, **kwargs
        )

    def extra_variables(self):
        if self.built or self._initial_mask is None:
            return {}
        return {_MASK: self._initial_mask}

    def load_extra_variables(self, arrays):
        if _MASK in arrays:
            self._initial_mask = as_mask(arrays.pop(_MASK))

    def check_loaded(self):
        """Refuses weights that a fit cannot have left: a file may be forged."""
        for v in (self.v, self.best_v):
            v = as_perturbation(keras.ops.convert_to_numpy(v))
            self.ball.refuse_outside(v)
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
                "classifier": not_compiled(
                    keras.saving.serialize_keras_object(self.classifier)
                ),
                "epsilon": self.epsilon,
                "norm": self.norm,
                "value_range": self.value_range,
                "target": self.target,
                # Bits, for a mask as JSON would take megabytes.
                "mask_shape": None if mask is None else list(mask.shape),
                "mask_bits": None if mask is None else _as_text(mask),
                "from_logits": self.from_logits,
                "seed": self.seed,
            }
        )
        return config

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["classifier"] = keras.saving.deserialize_keras_object(
            not_compiled(config["classifier"])  # Older files say how.
        )
        shape = config.pop("mask_shape", None)
        bits = config.pop("mask_bits", None)
        if bits is not None:
            config["mask"] = _as_bits(bits, shape)
        elif shape is not None:
            # An older file: the weights that are loaded next hold the mask.
            config["mask"] = np.ones(shape, "float32")
        return cls(**config)


def _as_text(mask):
    bits = np.packbits(keras.ops.convert_to_numpy(mask) != 0)
    return base64.b64encode(bits).decode("ascii")


def _as_bits(text, shape):
    """The mask of this shape that `_as_text` wrote; a file may be forged."""
    bits = np.frombuffer(base64.b64decode(text), "uint8")
    size = math.prod(shape)
    if len(bits) != -(-size // 8):
        raise ValueError(
            f"The mask does not have its shape. Received: {len(bits)} bytes. "
            f"Expected: the bits of {tuple(shape)}."
        )
    return np.unpackbits(bits, count=size).reshape(shape)
