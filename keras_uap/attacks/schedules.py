"""Learning rates that fall in a line to a hundredth, over one fit."""

import keras
import tensorflow as tf

# How much smaller than the first step the last one is.
_FALL = 100


class LinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear decay of the step size to 1 % over the fit that runs.

    The length is set when a fit begins. Variables hold it, because the train
    function is traced once for all fits.

    Args:
        first: Float, the first step.
    """

    def __init__(self, first=1.0):
        # Every replica assigns the same value.
        options = {"trainable": False, "aggregation": "only_first_replica"}
        self.first = keras.Variable(first, dtype="float32", **options)
        self._batches = keras.Variable(1.0, dtype="float32", **options)

    def __call__(self, step):
        share = tf.minimum(tf.cast(step, "float32") / self._batches, 1.0)
        return self.first * (1.0 - (1.0 - 1.0 / _FALL) * share)

    def begin(self, optimizer, epochs, batches):
        """Sets an optimizer with this schedule to the beginning of a fit.

        Args:
            optimizer: Keras optimizer.
            epochs: Pair of integers, the epochs done before and in all.
            batches: Integer, the batches of an epoch.
        """
        done, last = epochs
        self._batches.assign(last * batches)
        optimizer.iterations.assign(done * batches)

    def get_config(self):
        return {"first": float(keras.ops.convert_to_numpy(self.first))}


def linear_decay(first, batches):
    """The schedule of `LinearDecay` for a known number of batches.

    It is a schedule of Keras' own, so that saved files hold nothing else.
    """
    decay = keras.optimizers.schedules.PolynomialDecay
    return decay(first, batches, first / _FALL)
