"""A perturbation climbs in the backward pass of the model it stands in.

The weights of the model go down the loss, and in the same step, from the same
backward pass, the perturbation goes up:

    v <- project(v + step_size * direction(d loss / d v))

The direction is that of the ball: signs for l-infinity, the gradient at length
1 for l2. The scale of the loss plays no part.

Reference:
    - [Shafahi et al., 2018](https://arxiv.org/abs/1811.11304)
"""

import tensorflow as tf


def climbing(variable, ball, step_size):
    """Returns a pool of perturbations that its backward pass moves.

    The optimizer is told a gradient of zero. So the perturbations keep a step
    of their own whatever the optimizer does with gradients: Adam makes 1e-3 of
    any of them, some clip them, accumulate or average them.

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
            variable.assign(climbed(variable, gradient, ball, step_size))
            return tf.zeros_like(gradient)

        return tf.identity(pool), backward

    return identity(tf.convert_to_tensor(variable))


def climbed(pool, gradient, ball, step_size):
    """Returns a pool of perturbations one step up a gradient, in its ball.

    Args:
        pool: Tensor or variable `(pool_size, H, W, C)`.
        gradient: Tensor of that shape.
        ball, step_size: As for `climbing`.
    """
    context = tf.distribute.get_replica_context()
    if context is not None and context.num_replicas_in_sync > 1:
        # The sum over the replicas, so that all of them step in one direction:
        # that of the whole batch.
        gradient = context.all_reduce("sum", gradient)
    step = step_size * ball.steepest(gradient)
    return ball.project(tf.convert_to_tensor(pool) + step)
