"""DeepFool: the smallest step that takes an image over a decision boundary.

For an image of label `k`, every other class `j` has the linear approximation
of a boundary, `f_j(x) = z_j(x) - z_k(x) = 0`, at l2 distance
`|f_j| / ||grad f_j||`. DeepFool steps to the nearest one among the
`num_candidates` highest classes, looks again, and goes on until the label has
changed. The sum of the steps, a little overshot, is the perturbation. With a
`confidence` it steps further, to where the other class leads by so many logits.

A whole batch takes its steps together, in one `tf.while_loop`. Images whose
label has changed leave the loop: each turn runs on those that are left.

What it costs is counted in *model passes*, a forward or a backward of one
image. One forward gives the label test and, on its tape, the gradients of the
next step. When much of a batch is already over the boundary, it is cheaper to
run those that are left through a forward of their own than to take gradients
of all; `_step` chooses by count.

`deepfool` is this as a function. `DeepFool` is the update rule of
`UniversalPerturbation` that is made of it.

Reference:
    - [DeepFool, Moosavi-Dezfooli et al., 2016](
        https://arxiv.org/abs/1511.04599)
    - [Universal adversarial perturbations, Moosavi-Dezfooli et al., 2017](
        https://arxiv.org/abs/1610.08401)
"""

import collections
import weakref

import keras
import numpy as np
import tensorflow as tf

from keras_uap.attacks.losses import class_masses, dominant_goals
from keras_uap.classifiers.adapter import as_adapter
from keras_uap.data.pictures import as_array
from keras_uap.utils.formatting import one_line
from keras_uap.utils.keras_compat import all_layers
from keras_uap.utils.progress import progress_bar
from keras_uap.utils.validation import check_flag, check_number, check_whole

# Lifts an image that lies exactly on a boundary over it, in logits.
_NUDGE = 1e-5


class DeepFoolResult(
    collections.namedtuple(
        "DeepFoolResult", ["perturbations", "labels", "steps", "converged"]
    )
):
    """What `deepfool` found, arrays under names."""

    __slots__ = ()

    def __repr__(self):
        return one_line("DeepFoolResult", self._asdict())


# Tracing takes seconds, so the graphs that were traced last for a classifier
# are kept while it lives. They hold its variables, but none of its objects.
_graphs = weakref.WeakKeyDictionary()
_MOST_GRAPHS = 4

# What `minimal_perturbations` returns.
_Batch = collections.namedtuple(
    "_Batch",
    ["increments", "labels", "steps", "converged", "first_labels", "passes"],
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
            whose boundaries are looked at, the image's own label among them.
        overshoot: Float of at least 0, the share by which the perturbation is
            made longer than the linear approximation asks.
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
    rule = DeepFool(
        num_candidates=num_candidates,
        overshoot=overshoot,
        max_steps=max_steps,
        boundary="nearest",
        confidence=confidence,
    )
    check_whole("max_steps", max_steps, 1)
    check_whole("batch_size", batch_size, 1)
    images = as_array(images)
    adapter = as_adapter(
        classifier,
        images.shape[1:],
        from_logits,
        images[:4].astype("float32"),
    )
    run = _traced(classifier, from_logits, rule, adapter.logits, images.shape)
    progress = progress_bar(len(images), verbose)
    results = []
    for start in range(0, len(images), batch_size):
        batch = tf.cast(images[start : start + batch_size], "float32")
        results.append([value.numpy() for value in run(batch)[:4]])
        progress.update(min(start + batch_size, len(images)))
    return DeepFoolResult(*(np.concatenate(parts) for parts in zip(*results)))


def _traced(classifier, from_logits, rule, logits, shape):
    """The rule as a graph; one from before, if the classifier is the same."""
    graphs = _graphs.setdefault(classifier, {})
    settings = (
        *(rule.num_candidates, rule.overshoot, rule.max_steps),
        rule.confidence,
    )
    key = (from_logits, settings, tuple(shape[1:]))
    parts = _parts(classifier)
    known, graph = graphs.pop(key, ([], None))
    if len(known) != len(parts) or any(
        reference() is not part for reference, part in zip(known, parts)
    ):
        graph = tf.function(
            lambda batch: rule.minimal_perturbations(logits, batch),
            input_signature=[tf.TensorSpec((None, *shape[1:]), "float32")],
            autograph=False,
        ).get_concrete_function()
    graphs[key] = [_reference(part) for part in parts], graph
    if len(graphs) > _MOST_GRAPHS:
        del graphs[next(iter(graphs))]
    return graph


def _parts(classifier):
    """What a classifier is made of; another part makes another graph.

    Its variables and layers, and the functions and numbers of the layers, such
    as an activation.
    """
    parts = [*classifier.variables]
    for layer in all_layers(classifier):
        parts.append(layer)
        parts += [
            value
            for name, value in vars(layer).items()
            # What is private is Keras' own, such as whether it was called.
            if not name.startswith("_")
            and (callable(value) or isinstance(value, (int, float, str)))
        ]
    return parts


def _reference(part):
    try:
        return weakref.ref(part)
    except TypeError:  # A number or a string.
        return lambda: part


@keras.saving.register_keras_serializable(package="keras_uap")
class DeepFool:
    """The update rule of the paper: v grows by DeepFool increments.

    *One image after another* (`one_by_one=True`) is Algorithm 1 of the paper
    to the letter: each image that `v` does not fool yet takes its minimal step
    over the nearest boundary, the increment is added whole, `v` is projected,
    and the next image starts from there.

    In *whole batches* (the default), the increments of the images are added
    up, and the sum gives the direction of one step. Increments are tiny beside
    `epsilon` on a large network, so the step's length is set by `step_size`,
    not by the increments, and a momentum joins the directions of the batches.
    Steps over the nearest boundaries pull in many directions. So here all
    images go over the boundary of one class, the one that has most
    probability, other than each image's own, over the batch: the dominant
    one. (An image of that class goes to the best of its others.) They take one
    step, to where that class leads by `confidence`, and it is not looked at
    where the step ends. Each counts as a direction alone, whatever its length,
    or images far from the boundary would decide for all. `boundary="nearest"`
    is the paper's step here too.

    Args:
        num_candidates: Integer of at least 2, the number of highest classes
            among which the nearest boundary is sought. Costs
            `num_candidates - 1` backward passes a step.
        overshoot: Float of at least 0, the share added to each increment.
        max_steps: Integer of at least 1, the most steps for one image. `None`
            means 1 for the dominant boundary, 50 for the nearest.
        one_by_one: Boolean, whether images follow one another as in the
            paper, or each batch makes one step.
        step_size: Float above 0, the length of a whole batch's step as a share
            of `epsilon`, or a `keras.optimizers.schedules.LearningRateSchedule`
            of it over the batches. `None` means 0.8 for the nearest boundary.
            For the dominant one, steps begin there and fall in a line to a
            hundredth of it, over the batches of a fit.
        momentum: Float in [0, 1), of the steps of whole batches. `None` means
            0.6 for the dominant boundary, 0.9 for the nearest.
        boundary: `"nearest"` or `"dominant"`, the boundary to step over. `None`
            means the dominant in whole batches, but the nearest for one image
            after another and for more than two candidates.
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
        check_whole("num_candidates", num_candidates, 2)
        check_flag("one_by_one", one_by_one)
        check_number("overshoot", overshoot, least=0, below=np.inf)
        nearest = one_by_one or num_candidates > 2
        if boundary is None:
            boundary = "nearest" if nearest else "dominant"
        if boundary not in ("nearest", "dominant"):
            raise ValueError(
                "boundary must be 'nearest' or 'dominant'. Received: "
                f"boundary={boundary!r}."
            )
        dominant = boundary == "dominant"
        if dominant and nearest:
            raise ValueError(
                "The dominant boundary is one boundary of a whole batch. "
                f"Received: one_by_one={one_by_one}, num_candidates="
                f"{num_candidates}. Pass boundary='nearest'."
            )
        if max_steps is None:
            max_steps = 1 if dominant else 50
        check_whole("max_steps", max_steps, 1)
        if step_size is None and not dominant:
            step_size = self.FIRST_STEP
        if step_size is not None and not isinstance(
            step_size, keras.optimizers.schedules.LearningRateSchedule
        ):
            check_number("step_size", step_size, above=0, below=np.inf)
        if momentum is None:
            momentum = 0.6 if dominant else 0.9
        check_number("momentum", momentum, least=0, below=1)
        if confidence is None:
            confidence = 10.0 if dominant else 0.0
        check_number("confidence", confidence, least=0, below=np.inf)
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
            converged. With the dominant boundary the last step is taken on
            trust, at one pass less: `labels` are those before it, and all that
            took it have converged.
        """
        count = tf.shape(images)[0]
        if labels is not None:
            labels = tf.cast(labels, "int64")
        dominant = self.boundary == "dominant"
        turns = self.max_steps if dominant else self.max_steps + 1

        def more(turn, active, *_):
            return (turn < turns) & (tf.size(active) > 0)

        nothing = tf.zeros((count,), "int64")
        first_turn = tf.constant(0)
        take_step = self._turn(logits, images, labels, add_up, first_turn)
        state = (
            first_turn,
            tf.range(count),
            (nothing, nothing, tf.zeros((count,), "bool")),
            tf.zeros((count, self.num_candidates), "int32"),
            tf.zeros_like(images),
            tf.zeros((count,), "int32"),
            tf.constant(0),
        )
        batch = tf.TensorShape([None])
        shapes = (
            tf.TensorShape([]),
            batch,
            (batch, batch, batch),
            tf.TensorShape([None, None]),
            images.shape,
            batch,
            tf.TensorShape([]),
        )
        if dominant:
            # Devices cannot meet within a loop, so the first turn is taken
            # before it.
            state = take_step(*state)
        if not dominant or turns > 1:
            state = tf.while_loop(
                more, take_step, state, shape_invariants=shapes
            )
        _, active, (first_labels, now, done), _, total, steps, passes = state
        if dominant:
            done = tf.tensor_scatter_nd_update(
                done, active[:, tf.newaxis], tf.fill(tf.shape(active), True)
            )
        return _Batch(
            increments=(1.0 + self.overshoot) * total,
            labels=now,
            steps=steps,
            converged=done,
            first_labels=first_labels,
            passes=passes,
        )

    def _turn(self, logits, images, labels, add_up, first_turn):
        """Returns the function that takes a step from a state to the next."""
        stretch = 1.0 + self.overshoot
        dominant = self.boundary == "dominant"
        no_image = tf.zeros((0,), "int32")

        def first_time(turn, find, found):
            if dominant:
                return find() if turn is first_turn else found
            return tf.cond(turn == 0, find, lambda: found)

        def take_step(turn, active, found, candidates, total, steps, passes):
            points = tf.gather(images, active)
            points += stretch * tf.gather(total, active)
            with tf.GradientTape(
                persistent=True, watch_accessed_variables=False
            ) as tape:
                tape.watch(points)
                scores = logits(points)
            highest = tf.argmax(scores, axis=-1)
            passes += tf.size(active)
            # Every image is active in the first turn, and what is found there
            # holds for all turns.
            first_labels, now, done = found
            first_labels = first_time(turn, lambda: highest, first_labels)
            origin = first_labels if labels is None else labels
            own = tf.gather(origin, active)
            candidates = first_time(
                turn,
                lambda: self._candidates(scores, own, add_up),
                candidates,
            )
            ahead = self._is_done(
                scores, highest, own, tf.gather(candidates, active)
            )
            now, done = (
                tf.tensor_scatter_nd_update(old, active[:, tf.newaxis], new)
                for old, new in ((now, highest), (done, ahead))
            )
            left = tf.where(~ahead)[:, 0]
            left = tf.cast(left, "int32")
            if not dominant:  # There the last turn only looks.
                left = tf.cond(
                    turn < self.max_steps, lambda: left, lambda: no_image
                )
            active = tf.gather(active, left)
            increments, usable, spent = self._step(
                logits,
                tape,
                points,
                scores,
                left,
                tf.gather(candidates, active),
            )
            total = tf.tensor_scatter_nd_add(
                total, active[:, tf.newaxis], increments
            )
            steps = tf.tensor_scatter_nd_add(
                steps, active[:, tf.newaxis], tf.cast(usable, "int32")
            )
            return (
                turn + 1,
                tf.boolean_mask(active, usable),
                (first_labels, now, done),
                candidates,
                total,
                steps,
                passes + spent,
            )

        return take_step

    def _candidates(self, scores, own, add_up):
        """The classes to step from and to, `(n, num_candidates)`.

        Each image's own class stands first, then the highest of the others,
        highest first, or the dominant class alone.
        """
        if self.boundary == "dominant":
            masses = class_masses(own, scores)
            masses = masses if add_up is None else add_up(masses)
            goals = dominant_goals(own, scores, masses)
            return tf.cast(tf.stack([own, goals], axis=-1), "int32")
        k = min(self.num_candidates, scores.shape[-1])
        own = tf.one_hot(own, scores.shape[-1]) > 0
        return tf.math.top_k(tf.where(own, np.inf, scores), k=k).indices

    def _is_done(self, scores, highest, own, candidates):
        """Whether the class that counts leads each image's own by enough."""
        if self.boundary == "dominant":
            other = tf.gather(scores, candidates[:, 1], batch_dims=1)
        else:
            is_own = tf.one_hot(own, scores.shape[-1]) > 0
            other = tf.reduce_max(
                tf.where(is_own, scores.dtype.min, scores), axis=-1
            )
        lead = other - tf.gather(scores, own, batch_dims=1)
        # A score that is not finite does not keep an image in the loop.
        return ~(lead < self.confidence) & tf.not_equal(highest, own)

    def _step(self, logits, tape, points, scores, left, candidates):
        """One step over the nearest boundary for the images `left`.

        Returns the increments, whether each image had a usable gradient, and
        the model passes spent.
        """
        classes = scores.shape[-1]
        turns = min(self.num_candidates, classes) - 1
        all_count, left_count = tf.shape(points)[0], tf.size(left)
        rows = tf.gather(scores, left)

        def leads(j):
            """Which combination of the scores is the j-th boundary's `f`."""
            return tf.one_hot(candidates[:, j], classes) - tf.one_hot(
                candidates[:, 0], classes
            )

        # An image's scores depend on that image alone, so one backward pass
        # of a sum over the batch gives each image its own gradient.
        def gradient_from_all(j):
            weights = tf.scatter_nd(
                left[:, tf.newaxis], leads(j), tf.stack([all_count, classes])
            )
            gradients = tape.gradient(scores, points, output_gradients=weights)
            return tf.gather(gradients, left)

        def from_all():
            increments, usable = self._nearest(gradient_from_all, leads, rows)
            return increments, usable, all_count * turns

        def from_left():
            some = tf.gather(points, left)
            with tf.GradientTape(
                persistent=True, watch_accessed_variables=False
            ) as inner:
                inner.watch(some)
                again = logits(some)
            increments, usable = self._nearest(
                lambda j: inner.gradient(
                    again, some, output_gradients=leads(j)
                ),
                leads,
                rows,
            )
            return increments, usable, left_count * (turns + 1)

        def nothing():
            none = tf.zeros_like(points)[:0]
            return none, tf.zeros((0,), "bool"), tf.constant(0)

        cheaper_alone = left_count * (turns + 1) < all_count * turns
        return tf.cond(
            left_count == 0,
            nothing,
            lambda: tf.cond(cheaper_alone, from_left, from_all),
        )

    def _nearest(self, gradient, leads, scores):
        """The step to the nearest of the candidates' boundaries.

        Args:
            gradient: Function from a candidate's rank to the gradients
                `(n, H, W, C)` of its boundaries.
            leads: Function from a candidate's rank to weights
                `(n, num_classes)` of the scores.
            scores: Float tensor `(n, num_classes)`.
        """
        count = min(self.num_candidates, scores.shape[-1])

        def look(j, best, step):
            slope = gradient(j)
            axes = list(range(1, slope.shape.rank))
            shape = [-1] + [1] * len(axes)
            square = tf.reduce_sum(tf.square(slope), axis=axes)
            lead = tf.reduce_sum(leads(j) * scores, axis=-1)
            gap = self.confidence - lead + _NUDGE
            distance = gap / tf.sqrt(square)
            # A gradient that is zero, not finite, or too large or too small
            # for float32 is never chosen.
            nearer = (
                (distance < best)
                & tf.math.is_finite(square)
                & tf.math.is_finite(gap / square)
            )
            length = tf.where(nearer, gap / square, 0.0)
            step = tf.where(
                tf.reshape(nearer, shape),
                tf.reshape(length, shape) * slope,
                step,
            )
            return j + 1, tf.where(nearer, distance, best), step

        first = look(tf.constant(1), tf.fill(tf.shape(scores)[:1], np.inf), 0.0)
        _, best, step = first
        if count > 2:
            # A loop, not nine copies of the network's backward pass.
            _, best, step = tf.while_loop(
                lambda j, *_: j < count, look, first, parallel_iterations=1
            )
        return step, tf.math.is_finite(best)

    def __repr__(self):
        return one_line("DeepFool", self.get_config())

    def get_config(self):
        return {
            "num_candidates": self.num_candidates,
            "overshoot": self.overshoot,
            "max_steps": self.max_steps,
            "one_by_one": self.one_by_one,
            "step_size": keras.saving.serialize_keras_object(self.step_size),
            "momentum": self.momentum,
            "boundary": self.boundary,
            "confidence": self.confidence,
        }

    @classmethod
    def from_config(cls, config):
        # Files without a boundary are from when there was but the nearest.
        config = {"boundary": "nearest", **config}
        config["step_size"] = keras.saving.deserialize_keras_object(
            config["step_size"]
        )
        return cls(**config)
