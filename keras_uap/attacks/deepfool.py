"""DeepFool: the smallest step that takes an image over a decision boundary.

For an image of label `k`, every other class `j` has the linear approximation
of a boundary, `f_j(x) = z_j(x) - z_k(x) = 0`, at l2 distance
`|f_j| / ||grad f_j||`. DeepFool steps to the nearest one among the
`num_candidates` highest classes, and repeats until the label has changed. The
sum of the steps, a little overshot, is the perturbation. With a `confidence`
it steps further, to where the other class leads by so many logits.

A whole batch takes its steps together, in one `tf.while_loop`. Images whose
label has changed leave the loop: each turn runs on the remaining ones.

The cost is counted in *model passes*, one forward or backward pass of one
image.
One forward gives the label test and, on its tape, the gradients of the next
step. When much of a batch is already over the boundary, it is cheaper to run
the remaining images through a forward of their own than to compute gradients
of all; `_step` chooses by count.

`deepfool` is this as a function. `DeepFool` is the update rule of
`UniversalPerturbation` that is made of it; its default boundary is that of the
dominant class.

Reference:
    - [DeepFool, Moosavi-Dezfooli et al., 2016](
        https://arxiv.org/abs/1511.04599)
    - [Universal adversarial perturbations, Moosavi-Dezfooli et al., 2017](
        https://arxiv.org/abs/1610.08401)
"""

import collections
import typing

import keras
import numpy as np
import tensorflow as tf

from keras_uap.attacks import losses
from keras_uap.classifiers.adapter import as_adapter
from keras_uap.classifiers.logits import check_gradient, labels_of
from keras_uap.data.pictures import as_array
from keras_uap.utils import validation
from keras_uap.utils.formatting import one_line
from keras_uap.utils.progress import progress_bar

# Moves an image that lies exactly on a boundary over it, in logits.
_NUDGE = 1e-5


class DeepFoolResult(typing.NamedTuple):
    """The results of `deepfool` as arrays."""

    perturbations: np.ndarray
    labels: np.ndarray
    steps: np.ndarray
    converged: np.ndarray

    def __repr__(self):
        return one_line("DeepFoolResult", self._asdict())


# A batch under way: the first four as `DeepFoolResult` has them; the labels
# before any step; the model passes; the indices of the images that still move.
_State = collections.namedtuple(
    "_State", "increments labels steps converged first_labels passes active"
)


def deepfool(
    classifier,
    images,
    num_candidates=10,
    overshoot=0.02,
    max_steps=50,
    batch_size=32,
    from_logits=None,
    verbose="auto",
    confidence=0.0,
):
    """Finds minimal l2 perturbations, one for each image.

    Args:
        classifier: Keras model that maps images to class scores.
        images: Images `(n, H, W, C)` in the classifier's own pixel range, in
            any form that `UniversalPerturbation.fit` takes. The perturbed
            images are not clipped to it.
        num_candidates: Integer of at least 2, the number of highest classes
            whose boundaries are candidates, the image's own label among them.
        overshoot: Float of at least 0, the share by which the perturbation is
            made longer than in the linear approximation.
        max_steps: Integer of at least 1, the most steps for one image.
        batch_size: Integer, images that take their steps together.
        from_logits: Boolean, whether the classifier returns logits; `None`
            finds out.
        verbose: `"auto"`, 0 or 1, whether to show a progress bar.
        confidence: Float of at least 0, by how many logits another class must
            lead before an image counts as done.

    Returns:
        A named tuple of NumPy arrays: `perturbations` `(n, H, W, C)` in pixel
        units, `labels` `(n,)` of the perturbed images, `steps` `(n,)` taken,
        and `converged` `(n,)`, whether the label changed, with `confidence`.

    Raises:
        TypeError: if `classifier` is not a Keras model, or the images do not
            hold numbers.
        ValueError: for arguments out of range, or images that are empty, not
            finite or of the wrong shape.

    Reference:
        - [Moosavi-Dezfooli et al., 2016](https://arxiv.org/abs/1511.04599)
    """
    paper = {"boundary": "nearest", "confidence": confidence}
    rule = DeepFool(num_candidates, overshoot, max_steps, **paper)
    validation.check_whole("max_steps", max_steps, 1)
    validation.check_whole("batch_size", batch_size, 1)
    images = as_array(images)
    shape, first = images.shape[1:], images[:4].astype("float32")
    adapter = as_adapter(classifier, shape, from_logits, first)
    adapter.refresh(first)
    run = tf.function(
        lambda batch: rule.minimal_perturbations(adapter.forward, batch),
        input_signature=[tf.TensorSpec((None, *shape), "float32")],
        autograph=False,
    )
    progress = progress_bar(len(images), verbose)
    results = []
    for start in range(0, len(images), batch_size):
        batch = tf.cast(images[start : start + batch_size], "float32")
        results.append([value.numpy() for value in run(batch)[:4]])
        progress.update(min(start + batch_size, len(images)))
    found = DeepFoolResult(*(np.concatenate(parts) for parts in zip(*results)))
    if np.any(found.labels < 0):
        adapter.predict(images)  # Raises an error that counts the images.
    return found


@keras.saving.register_keras_serializable(package="keras_uap")
class DeepFool:
    """The update rule that moves `v` by DeepFool increments.

    *One image after another* (`one_by_one=True`) is the loop of Algorithm 1:
    each image that `v` does not fool yet takes its minimal step over the
    nearest boundary, the increment is added whole, `v` is projected, and the
    next image starts from there. It is the paper's algorithm exactly with
    `num_candidates=10` and a `UniversalPerturbation` of `value_range=None`,
    which does not clip. The default of 2 candidates costs less and steps
    towards the runner-up alone.

    In *whole batches* (the default), the sum of the images' increments gives
    the direction of one step. Increments are tiny beside `epsilon` on a large
    classifier, so `step_size` sets the length of the step, and a momentum joins
    the directions of the batches.

    Steps over the nearest boundaries pull in many directions. By default, all
    images of a batch step over the boundary of one class instead, the dominant
    one: the class with the most probability over the batch, apart from each
    image's own. (An image of that class goes to the best of its others.) They
    take one step, to where that class leads by `confidence`. Where the step
    ends is not checked. Each image counts as a direction of length 1, or those
    far from the boundary would decide for all. `boundary="nearest"` is the
    paper's step in whole batches.

    Args:
        num_candidates: Integer of at least 2, the number of highest classes
            among which the nearest boundary is sought. Costs
            `num_candidates - 1` backwards a step.
        overshoot: Float of at least 0, the share added to each increment.
        max_steps: Integer of at least 1, the most steps for one image. `None`
            means 1 for the dominant boundary, 50 for the nearest.
        one_by_one: Boolean, whether images follow one another as in the
            paper, or each batch makes one step.
        step_size: Float above 0, the length of a whole batch's step as a share
            of `epsilon`, or a `keras.optimizers.schedules.LearningRateSchedule`
            of it over the batches. `None` means 0.8 for the nearest boundary.
            For the dominant one, steps start there, with linear decay to a
            hundredth of it over the batches of a fit.
        momentum: Float in [0, 1), of the steps of whole batches. `None` means
            0.6 for the dominant boundary, 0.9 for the nearest.
        boundary: `"nearest"` or `"dominant"`, the boundary to step over. `None`
            means the nearest for one image after another and for more than two
            candidates, else the dominant.
        confidence: Float of at least 0, by how many logits another class (the
            dominant one) must lead before an image counts as done. `None`
            means 10 for the dominant boundary, 0 for the nearest.

    Raises:
        ValueError: for arguments out of range, or a dominant boundary with
            one image after another or several candidates.
    """

    FIRST_STEP = 0.8

    def __init__(
        self,
        num_candidates=2,
        overshoot=0.02,
        max_steps=None,
        one_by_one=False,
        step_size=None,
        momentum=None,
        boundary=None,
        confidence=None,
    ):
        validation.check_whole("num_candidates", num_candidates, 2)
        validation.check_flag("one_by_one", one_by_one)
        validation.check_number("overshoot", overshoot, least=0, below=np.inf)
        nearest = one_by_one or num_candidates > 2
        if boundary is None:
            boundary = "nearest" if nearest else "dominant"
        validation.check_choice("boundary", boundary, ("nearest", "dominant"))
        dominant = boundary == "dominant"
        if dominant and nearest:
            raise ValueError(
                "The dominant boundary is one boundary of a whole batch. "
                f"Received: one_by_one={one_by_one}, num_candidates="
                f"{num_candidates}. Pass boundary='nearest'."
            )

        if max_steps is None:
            max_steps = 1 if dominant else 50
        if step_size is None and not dominant:
            step_size = self.FIRST_STEP
        if momentum is None:
            momentum = 0.6 if dominant else 0.9
        if confidence is None:
            confidence = 10.0 if dominant else 0.0
        validation.check_whole("max_steps", max_steps, 1)
        schedule = keras.optimizers.schedules.LearningRateSchedule
        if step_size is not None and not isinstance(step_size, schedule):
            validation.check_number(
                "step_size", step_size, above=0, below=np.inf
            )
        validation.check_number("momentum", momentum, least=0, below=1)
        validation.check_number("confidence", confidence, least=0, below=np.inf)
        self.num_candidates = num_candidates
        self.overshoot = overshoot
        self.max_steps = max_steps
        self.one_by_one = one_by_one
        self.step_size = step_size
        self.momentum = momentum
        self.boundary = boundary
        self.confidence = confidence

    def minimal_perturbations(self, logits, images, labels=None, add_up=None):
        """Runs DeepFool on a batch, as TensorFlow ops.

        Args:
            logits: Function from images to logits, as `logits_function` gives.
            images: Float32 tensor `(n, H, W, C)`.
            labels: Integer tensor `(n,)`, the labels to leave; an image that
                has another label from the start, with `confidence`, needs no
                step. `None` means the labels of `images`.
            add_up: Function that adds a tensor up over the devices that share
                the batch. `None` means there is one.

        Returns:
            A named tuple of tensors: `increments` `(n, H, W, C)`, `labels`
            `(n,)` of the images with them, `steps` `(n,)` taken, `converged`
            `(n,)`, whether the label changed with `confidence`, `first_labels`
            `(n,)` before any step, and `passes`, the number of model passes.
            An image without a usable gradient leaves the loop and has not
            converged. With the dominant boundary, where the last step ends is
            not checked, which saves a pass: `labels` are those before it, and
            all images that took it have converged.
        """
        several = self.num_candidates > 2
        recorded = _forward(logits, images, several)
        scores = recorded[-1]
        first_labels = labels_of(scores)
        own = tf.maximum(first_labels, 0)
        own = own if labels is None else tf.cast(labels, "int64")
        dominant = self.boundary == "dominant"
        if dominant:
            masses = losses.class_masses(own, scores)
            masses = masses if add_up is None else add_up(masses)
            goals = losses.dominant_goals(own, scores, masses)
            candidates = tf.cast(tf.stack([own, goals], axis=-1), "int32")
        else:
            # Each image's own class first, the others by their scores.
            k = min(self.num_candidates, scores.shape[-1])
            mine = tf.one_hot(own, scores.shape[-1]) > 0
            ranks = tf.where(mine, np.inf, scores)
            candidates = tf.math.top_k(ranks, k).indices

        def turn(number, state, recorded):
            scores = recorded[-1]
            mine = tf.gather(own, state.active)
            if dominant:
                goal = tf.gather(goals, state.active)
                other = tf.gather(scores, goal, batch_dims=1)
            else:
                others = losses.other_scores(mine, scores)
                other = tf.reduce_max(others, axis=-1)
            lead = other - tf.gather(scores, mine, batch_dims=1)
            changed = tf.not_equal(tf.argmax(scores, axis=-1), mine)
            # A score that is not finite does not keep an image in the loop.
            done = ~(lead < self.confidence) & changed
            left = ~done & (number < self.max_steps)
            state = self._move(logits, recorded, state, done, left, candidates)
            return number + 1, state

        def next_turn(number, state):
            points = tf.gather(images, state.active)
            moved = tf.gather(state.increments, state.active)
            points += (1.0 + self.overshoot) * moved
            return turn(number, state, _forward(logits, points, several))

        active = tf.range(tf.shape(images)[0])
        nothing = tf.zeros_like(active)
        state = _State(
            increments=tf.zeros_like(images),
            labels=first_labels,
            steps=nothing,
            converged=tf.cast(nothing, "bool"),
            first_labels=first_labels,
            passes=tf.constant(0),
            active=active,
        )
        # Devices cannot meet within a loop: the first turn comes before it.
        _, state = turn(tf.constant(0), state, recorded)
        # To the nearest boundary, a last turn only tests the labels.
        turns = self.max_steps + (not dominant)
        if turns > 1:
            _, state = tf.while_loop(
                lambda i, state: (i < turns) & (tf.size(state.active) > 0),
                next_turn,
                (tf.constant(1), state),
            )
        converged = state.converged
        if dominant:
            # Where the last step ends is not checked.
            took = tf.ones_like(state.active) > 0
            converged = _put(converged, state.active, took)
        increments = (1.0 + self.overshoot) * state.increments
        return state._replace(increments=increments, converged=converged)

    def _move(self, logits, recorded, state, done, left, candidates):
        """Notes the labels of the active images; those `left` take a step."""
        found = labels_of(recorded[-1])
        left = tf.cast(tf.where(left)[:, 0], "int32")
        active = tf.gather(state.active, left)
        chosen = tf.gather(candidates, active)
        increments, usable, spent = self._step(logits, recorded, left, chosen)
        index = active[:, tf.newaxis]
        took = tf.cast(usable, "int32")
        return state._replace(
            increments=tf.tensor_scatter_nd_add(
                state.increments, index, increments
            ),
            labels=_put(state.labels, state.active, found),
            steps=tf.tensor_scatter_nd_add(state.steps, index, took),
            converged=_put(state.converged, state.active, done),
            passes=state.passes + tf.size(state.active) + spent,
            active=tf.boolean_mask(active, usable),
        )

    def _step(self, logits, recorded, left, candidates):
        """One step over the nearest boundary for the images `left`.

        Returns the increments, whether each image had a usable gradient, and
        the model passes spent.
        """
        points, _, scores = recorded
        turns = min(self.num_candidates, scores.shape[-1]) - 1
        all_count, left_count = tf.shape(points)[0], tf.size(left)
        rows = tf.gather(scores, left)

        def from_all():
            found = self._nearest(recorded, left, rows, candidates)
            return *found, all_count * turns

        def from_left():
            some = tf.gather(points, left)
            again = _forward(logits, some, self.num_candidates > 2)
            places = tf.range(left_count)
            found = self._nearest(again, places, rows, candidates)
            return *found, left_count * (turns + 1)

        def nothing():
            none = tf.zeros_like(points)[:0]
            return none, tf.zeros((0,), "bool"), tf.constant(0)

        cheaper_alone = left_count * (turns + 1) < all_count * turns
        return tf.cond(
            left_count == 0,
            nothing,
            lambda: tf.cond(cheaper_alone, from_left, from_all),
        )

    def _nearest(self, recorded, places, rows, candidates):
        """The step to the nearest of the candidates' boundaries.

        Args:
            recorded: What `_forward` returned.
            places: Integer tensor `(n,)`, which images of it take the step.
            rows: Float tensor `(n, num_classes)`, their scores.
            candidates: Integer tensor `(n, num_candidates)`, their candidates,
                the own class first.
        """
        points, tape, scores = recorded
        classes = scores.shape[-1]
        count = min(self.num_candidates, classes)
        own = tf.one_hot(candidates[:, 0], classes)

        def compare(j, best, step):
            weights = tf.one_hot(candidates[:, j], classes) - own
            # An image's scores depend on that image alone, so one backward
            # pass of a sum over the batch gives each image its own gradient.
            index = places[:, tf.newaxis]
            spread = tf.scatter_nd(index, weights, tf.shape(scores))
            slope = check_gradient(tape.gradient(scores, points, spread))
            slope = tf.gather(slope, places)
            axes = list(range(1, slope.shape.rank))
            shape = [-1] + [1] * len(axes)
            square = tf.reduce_sum(tf.square(slope), axis=axes)
            # The score of a class that is switched off is minus infinity.
            lead = tf.math.multiply_no_nan(rows, weights)
            lead = tf.reduce_sum(lead, axis=-1)
            gap = self.confidence - lead + _NUDGE
            distance = gap / tf.sqrt(square)
            # A gradient that is zero, not finite, or too large or too small
            # for float32 is never chosen.
            length = gap / square
            finite = tf.math.is_finite(square) & tf.math.is_finite(length)
            nearer = (distance < best) & finite
            length = tf.where(nearer, length, 0.0)
            move = tf.reshape(length, shape) * slope
            step = tf.where(tf.reshape(nearer, shape), move, step)
            return j + 1, tf.where(nearer, distance, best), step

        farthest = tf.fill(tf.shape(rows)[:1], np.inf)
        first = compare(tf.constant(1), farthest, 0.0)
        _, best, step = first
        if count > 2:
            # A loop, not nine copies of the classifier's backward pass.
            _, best, step = tf.while_loop(
                lambda j, *_: j < count, compare, first, parallel_iterations=1
            )
        return step, tf.math.is_finite(best)

    def __repr__(self):
        return one_line("DeepFool", self.get_config())

    def get_config(self):
        step_size = keras.saving.serialize_keras_object(self.step_size)
        return vars(self) | {"step_size": step_size}

    @classmethod
    def from_config(cls, config):
        # Files written before `boundary` existed used the nearest boundary.
        step_size = keras.saving.deserialize_keras_object(config["step_size"])
        config = {"boundary": "nearest"} | config | {"step_size": step_size}
        return cls(**config)


def _forward(logits, points, persistent):
    """Returns points, a tape that has seen their forward, and the scores.

    A tape that is asked once shares the gradient function of all other attacks.
    """
    with tf.GradientTape(persistent, watch_accessed_variables=False) as tape:
        tape.watch(points)
        scores = logits(points)
    return points, tape, scores


def _put(values, active, new):
    """Values of all images with new ones for the active images."""
    return tf.tensor_scatter_nd_update(values, active[:, tf.newaxis], new)
