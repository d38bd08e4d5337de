"""The lp ball that bounds a perturbation, and the projection on it.

`project` is the operator P of Algorithm 1 in the paper: the point of the ball
of radius `epsilon` that is nearest to `v`. For l-infinity that is clipping
each value, for l2 it is scaling the whole array.

Reference:
    - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401)
"""

import math

import keras
import numpy as np
import tensorflow as tf

from keras_uap.checks import as_numbers

NORMS = ("linf", "l2")

# The norm of a scaled array is off by rounding, either way. Scaling to just
# inside the ball keeps `norm(v) <= epsilon` true however the norm is summed.
_L2_MARGIN = 1e-6

# How far, as a share, a norm of exactly epsilon can come out above it in
# float32: such an array is taken for one inside the ball, and projected.
ROUNDING = 1e-6


def standardize_norm(norm):
    """Returns `"linf"` or `"l2"` for any accepted spelling of the norm.

    Args:
        norm: `"linf"`, `"l2"`, `np.inf` or `2`.

    Raises:
        ValueError: if `norm` is anything else.
    """
    if isinstance(norm, str) and norm in NORMS:
        return norm
    if isinstance(norm, (int, float)) and not isinstance(norm, bool):
        if norm == np.inf:
            return "linf"
        if norm == 2:
            return "l2"
    raise ValueError(
        f"Unknown norm. Received: norm={norm!r}. Expected 'linf' (or np.inf) "
        "or 'l2' (or 2)."
    )


def standardize_epsilon(epsilon):
    """Returns `epsilon` as a float.

    Raises:
        TypeError: if `epsilon` is not a number.
        ValueError: if `epsilon` is not finite and above 0.
    """
    if isinstance(epsilon, bool) or not isinstance(
        epsilon, (int, float, np.integer, np.floating)
    ):
        raise TypeError(
            "epsilon must be a number, the radius of the ball in the pixel "
            f"units of value_range. Received: epsilon={epsilon!r}."
        )
    try:
        good = math.isfinite(epsilon) and epsilon > 0
    except OverflowError:  # A whole number beyond all floats.
        good = False
    if not good:
        raise ValueError(
            "epsilon must be finite and above 0, the radius of the ball in "
            f"the pixel units of value_range. Received: epsilon={epsilon!r}."
        )
    return float(epsilon)


def lp_norm(perturbation, norm="linf"):
    """Returns the norm of a perturbation as a Python float.

    Args:
        perturbation: Array of any shape, in pixel units.
        norm: `"linf"`, `"l2"`, `np.inf` or `2`.
    """
    norm = standardize_norm(norm)
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
    norm = standardize_norm(norm)
    epsilon = standardize_epsilon(epsilon)
    if not (tf.is_tensor(perturbation) or keras.ops.is_tensor(perturbation)):
        as_numbers("perturbation", perturbation)
    value = tf.cast(tf.convert_to_tensor(perturbation), "float32")
    if norm == "linf":
        limit = np.float32(epsilon)
        # Where float32 rounded up, step back inside the ball. (NumPy would
        # compare a float32 with a Python float in float32.)
        if float(limit) > epsilon:
            limit = np.nextafter(limit, np.float32(0))
        projected = tf.clip_by_value(value, -limit, limit)
    else:
        # Summed in float64: 150,000 float32 squares lose the last digits.
        exact = tf.cast(value, "float64")
        length = tf.sqrt(tf.reduce_sum(tf.square(exact)))
        scale = epsilon * (1 - _L2_MARGIN) / tf.maximum(length, epsilon)
        projected = tf.where(
            length <= epsilon, value, tf.cast(exact * scale, "float32")
        )
    if isinstance(perturbation, np.ndarray):
        return projected.numpy()
    return projected


@keras.saving.register_keras_serializable(package="keras_uap")
class LpBall(keras.constraints.Constraint):
    """Keras constraint that keeps a weight inside an lp ball around zero.

    Args:
        epsilon: Float above 0, the radius, in the units of the weight.
        norm: `"linf"`, `"l2"`, `np.inf` or `2`.

    Raises:
        TypeError: if `epsilon` is not a number.
        ValueError: if `epsilon` is not finite and above 0, or for an unknown
            norm.
    """

    def __init__(self, epsilon, norm="linf"):
        self.epsilon = standardize_epsilon(epsilon)
        self.norm = standardize_norm(norm)

    def __call__(self, w):
        return project(keras.ops.convert_to_tensor(w), self.epsilon, self.norm)

    def get_config(self):
        return {"epsilon": self.epsilon, "norm": self.norm}


class CallConstraint(keras.constraints.Constraint):
    """Makes a constraint of a function, as Keras before 3.15 demands."""

    def __init__(self, function):
        self.function = function

    def __call__(self, w):
        return self.function(w)
