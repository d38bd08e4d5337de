"""Gradient ascent for a perturbation in the backward pass of a model.

The weights of the model descend the loss, and the same backward pass moves the
perturbation up the loss:

    v <- project(v + step_size * direction(d loss / d v))

The direction depends on the ball: signs for L-infinity, the gradient at length
1 for l2. The scale of the loss has no effect.

Reference:
    - [Shafahi et al., 2018](https://arxiv.org/abs/1811.11304)
"""

import tensorflow as tf


def with_ascent(variable, ball, step_size):
    """Returns a pool of perturbations that its backward pass moves.

    The optimizer receives a gradient of zero, so that the perturbations have a
    step of their own: Adam would make 1e-3 of any gradient, and other
    optimizers clip, accumulate or average them.

    Args:
        variable: Keras variable `(pool_size, H, W, C)`.
        ball: `PoolBall` that the pool stays in.
        step_size: Float, how far one step goes, in the ball's norm.

    Returns:
        A tensor of the variable's value.
    """

    @tf.custom_gradient
    def identity(pool):
        def backward(gradient):
            variable.assign(ascend(variable, gradient, ball, step_size))
            return tf.zeros_like(gradient)

        return tf.identity(pool), backward

    return identity(tf.convert_to_tensor(variable))


def ascend(pool, gradient, ball, step_size):
    """Returns a pool of perturbations one step up a gradient, in its ball.

    Args:
        pool: Tensor or variable `(pool_size, H, W, C)`.
        gradient: Tensor of that shape.
        ball, step_size: As for `with_ascent`.
    """
    context = tf.distribute.get_replica_context()
    if context is not None and context.num_replicas_in_sync > 1:
        # All replicas step in the direction of the whole batch.
        gradient = context.all_reduce("sum", gradient)
    step = step_size * ball.steepest(gradient)
    return ball.project(tf.convert_to_tensor(pool) + step)
