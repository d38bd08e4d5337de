"""The lp ball that bounds a perturbation: the one place that knows norms.

`LpBall.project` is the operator P of Algorithm 1 in the paper: the point of
the ball of radius `epsilon` that is nearest to `v`. For L-infinity that is
clipping each value, for l2 it is scaling the whole array.

Reference:
    - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401)
"""

import contextlib
import math

import keras
import numpy as np
import tensorflow as tf

from keras_uap.utils.validation import as_numbers, invalid, is_whole

_NORMS = {"linf": "linf", np.inf: "linf", "l2": "l2", 2: "l2"}

# The norm of a scaled array is off by rounding, either way. Scaling to just
# inside the ball keeps `norm(v) <= epsilon` true however the norm is summed.
# As far above epsilon can a norm of exactly epsilon come out in float32: such
# an array is taken for one inside the ball, and projected.
_ROUNDING = 1e-6


def as_norm(norm):
    """Returns `"linf"` or `"l2"` for any accepted spelling of the norm.

    Args:
        norm: `"linf"`, `"l2"`, `np.inf` or `2`.

    Raises:
        ValueError: if `norm` is anything else.
    """
    try:
        return _NORMS[norm]
    except (KeyError, TypeError):  # What cannot be hashed is no norm.
        raise ValueError(
            f"Unknown norm. Received: norm={norm!r}. Expected 'linf' (or "
            "np.inf) or 'l2' (or 2)."
        ) from None


def as_epsilon(epsilon):
    """Returns `epsilon` as a float.

    Raises:
        TypeError: if `epsilon` is not a number.
        ValueError: if `epsilon` is not finite and above 0.
    """
    units = "in the pixel units of value_range"
    if not is_whole(epsilon) and not isinstance(epsilon, (float, np.floating)):
        raise invalid("epsilon", f"a number, {units}", epsilon, error=TypeError)
    # A whole number may be beyond all floats.
    with contextlib.suppress(OverflowError):
        if 0 < float(epsilon) < np.inf:
            return float(epsilon)
    raise invalid("epsilon", f"finite and above 0, {units}", epsilon)


def lp_norm(perturbation, norm="linf"):
    """Returns the norm of a perturbation as a Python float.

    Args:
        perturbation: Array of any shape, in pixel units.
        norm: `"linf"`, `"l2"`, `np.inf` or `2`.
    """
    norm = as_norm(norm)
    values = as_numbers("perturbation", perturbation).astype("float64")
    if norm == "linf":
        return float(np.max(np.abs(values), initial=0.0))
    return float(np.sqrt(np.sum(np.square(values))))


def project(perturbation, epsilon, norm="linf"):
    """Projects a perturbation on the ball of radius `epsilon` around zero.

    Args:
        perturbation: NumPy array or tensor of any shape, in pixel units.
        epsilon: Float above 0, the radius, in pixel units.
        norm: `"linf"`, `"l2"`, `np.inf` or `2`.

    Returns:
        The nearest point of the ball, float32, as NumPy array for a NumPy
        array and as tensor otherwise. A perturbation inside the ball comes
        back unchanged. Its norm is at most `epsilon`, also after rounding.
    """
    return LpBall(epsilon, norm).project(perturbation)


@keras.saving.register_keras_serializable(package="keras_uap")
class LpBall(keras.constraints.Constraint):
    """The lp ball around zero, and the Keras constraint that keeps in it.

    Args:
        epsilon: Float above 0, the radius, in the units of what it bounds.
        norm: `"linf"`, `"l2"`, `np.inf` or `2`.

    Raises:
        TypeError: if `epsilon` is not a number.
        ValueError: if `epsilon` is not finite and above 0, or for an unknown
            norm.
    """

    def __init__(self, epsilon, norm="linf"):
        self.epsilon = as_epsilon(epsilon)
        self.norm = as_norm(norm)

    def __call__(self, w):
        return self.project(keras.ops.convert_to_tensor(w))

    def project(self, perturbation):
        """Returns the nearest point of the ball; see `keras_uap.project`.

        Args:
            perturbation: NumPy array or tensor, in the units of epsilon.
        """
        if not keras.ops.is_tensor(perturbation):
            as_numbers("perturbation", perturbation)
        value = tf.cast(tf.convert_to_tensor(perturbation), "float32")
        projected = self._project(value)
        is_array = isinstance(perturbation, np.ndarray)
        return projected.numpy() if is_array else projected

    def _project(self, value):
        if self.norm == "linf":
            limit = np.float32(self.epsilon)
            # Where float32 rounded up, step back inside the ball. (NumPy would
            # compare a float32 with a Python float in float32.)
            if float(limit) > self.epsilon:
                limit = np.nextafter(limit, np.float32(0))
            return tf.clip_by_value(value, -limit, limit)
        # Summed in float64: 150,000 float32 squares lose the last digits.
        exact = tf.cast(value, "float64")
        length = tf.sqrt(tf.reduce_sum(tf.square(exact)))
        scale = self.epsilon * (1 - _ROUNDING)
        scale = scale / tf.maximum(length, self.epsilon)
        scaled = tf.cast(exact * scale, "float32")
        return tf.where(length <= self.epsilon, value, scaled)

    def norm_of(self, perturbation):
        """Returns the ball's norm of a perturbation, a Python float.

        Args:
            perturbation: Array of any shape, in the units of epsilon.
        """
        return lp_norm(perturbation, self.norm)

    def refuse_outside(self, perturbation):
        """Raises ValueError if a perturbation is outside the ball.

        Args:
            perturbation: Array of any shape, in the units of epsilon.
        """
        norm = self.norm_of(perturbation)
        if not norm <= self.epsilon * (1 + _ROUNDING):  # Nor NaN.
            raise ValueError(
                f"The perturbation is outside the ball: its {self.norm} norm "
                f"is {norm:.6g}, more than epsilon = {self.epsilon:.6g}. "
                "keras_uap.project brings it inside."
            )

    def noise(self, shape, rng):
        """Returns random noise of the norm epsilon, float32.

        Args:
            shape: Tuple of integers.
            rng: `numpy.random.Generator`. Signs for L-infinity,
                Gaussian noise for l2.
        """
        noise = rng.standard_normal(shape)
        if self.norm == "linf":
            return (self.epsilon * np.sign(noise)).astype("float32")
        return (self.epsilon * noise / np.linalg.norm(noise)).astype("float32")

    def uniform(self, shape, rng):
        """Returns a random point of the ball, uniform in it, float32.

        Args:
            shape: Tuple of integers.
            rng: `numpy.random.Generator`.
        """
        if self.norm == "linf":
            inside = rng.uniform(-self.epsilon, self.epsilon, shape)
            return self.project(inside.astype("float32"))
        # In that many dimensions the volume of an l2 ball is at its edge.
        return self.scaled(self.project(self.noise(shape, rng)))

    def scaled(self, perturbation):
        """Returns a perturbation at the norm epsilon; zero stays zero.

        Args:
            perturbation: Array of any shape.
        """
        length = self.norm_of(perturbation)
        if length == 0:
            return np.asarray(perturbation, "float32")
        # Just inside, so that rounding to float32 does not leave the ball.
        factor = self.epsilon * (1 - _ROUNDING) / length
        return (np.asarray(perturbation, "float64") * factor).astype("float32")

    def free_values(self, shape):
        """How many values of a perturbation of this shape are free to move.

        Args:
            shape: Tuple of integers.
        """
        return float(math.prod(shape))

    def pixel_step(self, shape):
        """How far one pixel goes, on average, at the edge of the ball.

        Args:
            shape: Tuple of integers.
        """
        if self.norm == "linf":
            return self.epsilon
        return self.epsilon / self.free_values(shape) ** 0.5

    def steepest(self, gradient):
        """The direction of norm 1 that goes up a gradient fastest.

        Args:
            gradient: Tensor `(n, ...)`, one gradient for each of `n`
                perturbations. One with NaN or infinity gives no direction.
        """
        each = {"axis": list(range(1, gradient.shape.rank)), "keepdims": True}
        finite = tf.reduce_all(tf.math.is_finite(gradient), **each)
        gradient = tf.where(finite, gradient, 0.0)
        if self.norm == "linf":
            return tf.sign(gradient)
        # Divided by the largest value first: squares could leave float32.
        largest = tf.reduce_max(tf.abs(gradient), **each)
        gradient = tf.math.divide_no_nan(gradient, largest)
        length = tf.sqrt(tf.reduce_sum(tf.square(gradient), **each))
        return tf.math.divide_no_nan(gradient, length)

    def __repr__(self):
        name = type(self).__name__
        return f"{name}(epsilon={self.epsilon:g}, norm={self.norm!r})"

    def get_config(self):
        return {"epsilon": self.epsilon, "norm": self.norm}


class MaskedBall(LpBall):
    """The part of a ball where only the values of a mask differ from zero.

    Args:
        ball: `LpBall`.
        mask: Variable of zeros and ones, of the perturbation's shape.
    """

    def __init__(self, ball, mask):
        super().__init__(ball.epsilon, ball.norm)
        self.mask = mask

    def _project(self, value):
        return super()._project(value * self.mask)

    def free_values(self, shape):
        return tf.reduce_sum(self.mask)


class PoolBall(LpBall):
    """A ball for each perturbation of a pool `(n, H, W, C)`."""

    def _project(self, value):
        if self.norm == "linf":
            return super()._project(value)
        members = [super(PoolBall, self)._project(v) for v in tf.unstack(value)]
        return tf.stack(members)

    def norm_of(self, perturbation):
        return max(super(PoolBall, self).norm_of(v) for v in perturbation)
