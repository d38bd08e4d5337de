"""The attacks of an audit: one perturbation each, for a number of passes.

They differ in what they minimise, in where they start, and in their seed. Few
pictures are varied, of many only as many are shown as the passes allow. A
data-free start spends a quarter of its passes on images without content, and
goes on from what they gave. From coarse to fine, a third of the passes follow
smoothed gradients, and the rest go on from there along gradients as they are.
"""

import collections
import json
import time
import warnings

import keras
import numpy as np

from keras_uap.attacks import updates
from keras_uap.attacks.data_free import noise_images
from keras_uap.attacks.deepfool import DeepFool
from keras_uap.attacks.smoothing import coarse
from keras_uap.attacks.universal_perturbation import UniversalPerturbation
from keras_uap.classifiers.logits import features_function
from keras_uap.data import augmentation
from keras_uap.data.pictures import Pictures
from keras_uap.utils import progress
from keras_uap.utils.saving import atomic_path

BATCH = 16
DATA_FREE = "data-free"
DATA_FREE_START = "data-free start"
# Of a perturbation that was there before, and of one that starts from it.
KNOWN = "transferred"
KNOWN_START = "transferred start"
# More work tells whether the others had enough. A hardened classifier hides
# what it is open to: of one, 2,000 and 6,000 passes fooled 33 and 36 %, 18,000
# fooled 65 %.
LONGER = "dominant, longer"
# With more work this objective leads, where features can be seen.
LONGER_FEATURES = "features+dominant, longer"
# Hardened classifiers are open to coarse patterns, and from there to fine ones.
COARSE = "coarse to fine"
COARSE_LONGER = "coarse to fine, longer"
# The loss of each run; DeepFool has none.
LOSSES = {
    "dominant": "dominant",
    "features+dominant": "features+dominant",
    "cross-entropy": "crossentropy",
    "DeepFool": None,
    DATA_FREE_START: "dominant",
}
_LONGER = {
    LONGER: "dominant",
    LONGER_FEATURES: "features+dominant",
    COARSE_LONGER: "dominant",
}
# What a hardening is measured with, before and after, whatever the budget.
MORE_WORK = (LONGER, COARSE_LONGER)
# The first steps from a perturbation of before, as a share of epsilon: longer
# ones lose it before they get anywhere.
_KNOWN_STEP = 0.02
# This share of a run's passes goes to images without content.
_NOISE_SHARE = 0.25
# This one to coarse patterns, by cross-entropy, which found more of them than
# the dominant label.
_COARSE_SHARE = 1 / 3

# The longer runs take so many times the passes, and that from coarse to fine
# twice as many: with a half it had not ended.
Budget = collections.namedtuple(
    "Budget", ["passes", "runs", "longer"], defaults=[3]
)
BUDGETS = {
    "quick": Budget(
        2000,
        [
            ("dominant", 0),
            ("features+dominant", 0),
            ("DeepFool", 0),
            (COARSE, 0),
            (DATA_FREE_START, 0),
        ],
        longer=9,
    ),
    "standard": Budget(
        6000,
        [
            *((name, i) for i in (0, 1) for name in LOSSES),
            (COARSE, 0),
            (LONGER, 0),
            (LONGER_FEATURES, 0),
        ],
    ),
}

Attack = collections.namedtuple(
    "Attack", ["name", "seed", "passes", "seconds", "no_gradient", "v"]
)


def save(path, found):
    """Keeps what a run found, a list of `Attack`s, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = [attack._replace(v=None)._asdict() for attack in found]
    with atomic_path(path) as temporary:
        np.savez(
            temporary, v=[attack.v for attack in found], facts=json.dumps(facts)
        )


def load(path):
    """Returns what `save` kept."""
    with np.load(path) as kept:
        facts = json.loads(str(kept["facts"]))
        return [Attack(**(f | {"v": v})) for f, v in zip(facts, kept["v"])]


def passes_of(name, budget):
    """How many model passes a run takes."""
    times = budget.longer if name in _LONGER else 1
    return budget.passes * times * (2 if name == COARSE_LONGER else 1)


class Attacker:
    """Runs with a fixed number of passes, on images that are varied if few."""

    def __init__(
        self, classifier, ball, value_range, from_logits, pictures, known, say
    ):
        images = pictures.images
        self._known = known
        self._say = say
        self._pictures = pictures
        self._classifier = classifier
        self._ball = ball
        self._value_range = value_range
        self._from_logits = from_logits
        self._images = images
        self._varied = len(images) < augmentation.FEW and images.ndim == 4
        self.notes = []
        if self._varied:
            self.notes.append(
                f"The {len(images)} images to fit are few and were varied: "
                "crops, light, mirror images."
            )

    def run(self, name, seed, passes):
        """Returns one attack, or two where it starts from another one."""
        if name == KNOWN_START:
            known = Attack(KNOWN, seed, 0, 0.0, 0.0, self._known)
            return [
                known,
                self._fit(
                    name,
                    seed,
                    passes,
                    initial_perturbation=known.v,
                    step=_KNOWN_STEP,
                ),
            ]
        if name in (COARSE, COARSE_LONGER):
            return [self._coarse_to_fine(name, seed, passes)]
        if name != DATA_FREE_START:
            return [self._fit(name, seed, passes)]
        low, high = self._value_range or _span(self._images)
        share = int(_NOISE_SHARE * passes)
        noise = noise_images(
            max(BATCH, min(512, share // 3)),
            self._images.shape[1:],
            seed=seed,
            value_range=(low, high),
        )
        first = self._fit(DATA_FREE, seed, share, noise)
        second = self._fit(
            name, seed, passes - first.passes, initial_perturbation=first.v
        )
        return [first, _both(first, second)]

    def _coarse_to_fine(self, name, seed, passes):
        first = self._fit(
            "cross-entropy",
            seed,
            int(_COARSE_SHARE * passes),
            smoothing=coarse(self._images.shape[1:]),
        )
        second = self._fit(
            name,
            seed ^ 1,  # Another order.
            passes - first.passes,
            initial_perturbation=first.v,
        )
        return _both(first, second)._replace(seed=seed)

    def _fit(
        self,
        name,
        seed,
        passes,
        noise=None,
        initial_perturbation=None,
        smoothing=0.0,
        step=2 * updates.STEP,
    ):
        started = time.time()
        uap = UniversalPerturbation(
            self._classifier,
            self._ball.epsilon,
            self._ball.norm,
            value_range=self._value_range,
            from_logits=self._from_logits,
            initial_perturbation=initial_perturbation,
        )
        if not uap.built:
            uap.build((None, *self._images.shape[1:]))
        # The order comes from this generator alone; the global state stays.
        uap.seed_generator.state.assign([seed, 0])
        # Those that start from another one, and those without data.
        loss = (LOSSES | _LONGER).get(name, "dominant")
        pictures = self._pictures
        if noise is not None:
            pictures = Pictures(noise)
        varied = self._varied and noise is None
        data, clean, steps = _data(
            pictures, passes, varied, seed, self._value_range
        )
        if loss is None:
            step_size = updates.falling(DeepFool.FIRST_STEP, steps)
            uap.compile(DeepFool(step_size=step_size))
        else:
            uap.compile(
                uap.decaying_lion(steps, step), loss=loss, smoothing=smoothing
            )
        spending = _Spending(passes - clean, self._say)
        with warnings.catch_warnings():
            # The audit has said it.
            warnings.filterwarnings("ignore", "The pixels of x lie in")
            uap.fit(**data, verbose=0, callbacks=[spending])
        return Attack(
            DATA_FREE if noise is not None else name,
            seed,
            clean + spending.passes,
            time.time() - started,
            spending.failures / max(1, spending.images),
            uap.perturbation,
        )


def _both(first, second):
    """The attack that the second one ended, with the work of both."""
    passes = first.passes + second.passes
    seconds = first.seconds + second.seconds
    return second._replace(passes=passes, seconds=seconds)


def _span(images):
    """A value range for images that are clipped to none."""
    return float(images.min()), float(images.max())


def _data(pictures, passes, varied, seed, value_range):
    """What `fit` takes, to spend a number of passes.

    Returns:
        The arguments of `fit`; how many passes go to clean predictions before
        the first batch; and the number of batches that the rest allows, if one
        image takes two passes.
    """
    if varied:
        steps = max(1, passes // (3 * BATCH))
        value_range = value_range or _span(pictures.images)
        views = augmentation.views(pictures, BATCH, value_range, seed)
        # DeepFool may take fewer passes: then there are more batches.
        arguments = {"x": views.repeat(), "steps_per_epoch": passes // BATCH}
        return arguments, 0, steps
    images = pictures.images
    # More images than the passes can show once need no clean prediction.
    most = max(1, passes // 3)
    if len(images) > most:
        images = np.random.default_rng(seed).permutation(images)[:most]
    count = len(images)
    views = max(1, (passes - count) // 2)
    per_epoch = -(-count // BATCH)
    steps = views // count * per_epoch + -(-(views % count) // BATCH)
    arguments = {"x": images, "batch_size": BATCH, "epochs": passes // count}
    return arguments, count, max(1, steps)


class _Spending(keras.callbacks.Callback):
    """Ends a fit when its passes are spent."""

    def __init__(self, most, say):
        super().__init__()
        self._most = most
        self._lines = progress.Progress("model passes", most, say)
        self._largest = 0
        self.passes = self.failures = self.images = 0

    def on_epoch_begin(self, epoch, logs=None):
        # Keras' metrics start anew with each epoch.
        self._before = self.passes, self.failures

    def on_train_batch_end(self, batch, logs=None):
        passes, failures = self._before
        passes += int(logs["model_passes"])
        self._largest = max(self._largest, passes - self.passes)
        self.passes = passes
        failed = logs.get("no_gradient", logs.get("not_converged", 0))
        self.failures = failures + int(failed)
        self.images += BATCH
        self._lines.update(passes)
        if self.passes + self._largest > self._most:
            self.model.keep("all passes spent")


def possible_runs(classifier, budget, known, more_work, image_shape):
    """The runs that a classifier and its images allow; what was left out.

    Args:
        classifier: Keras model.
        budget: `Budget`.
        known: Boolean, whether there is a perturbation of before.
        more_work: Boolean, whether those of `MORE_WORK` are among them.
        image_shape: Tuple `(H, W, C)`; signals have no height.

    Returns:
        A list of pairs `(name, offset of the seed)`, and one of sentences.
    """
    runs, left_out = list(budget.runs), []
    if known:
        runs.insert(0, (KNOWN_START, 0))
    if more_work:
        more = [(name, 0) for name in MORE_WORK]
        runs += [run for run in more if run not in runs]
    if len(image_shape) != 3:
        runs = [run for run in runs if "coarse" not in run[0]]
    try:
        features_function(classifier)
    except ValueError as error:
        # Without what `layer=` would mend: an audit has nothing to tune.
        why = str(error).split(". ")[0]
        left_out = [f"The runs on features were left out. {why}."]
        runs = [run for run in runs if "features" not in run[0]]
    return runs, left_out
