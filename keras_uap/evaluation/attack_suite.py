"""The attacks of an audit, one row each.

An attack finds one perturbation with a fixed number of model passes. Attacks
differ in the loss, in where they start, and in their seed:

- `start=None`: from zero.
- `"noise"`: a quarter of the passes on images without content, then on from
  what they gave. The perturbation of that quarter has a row of its own.
- `"coarse"`: a third of the passes along smoothed gradients of the
  cross-entropy, then on along the gradients themselves.
- `"transferred"`: from a perturbation of another classifier, which has a row
  of its own. This attack is left out where no perturbation is given.
"""

import dataclasses
import json
import time

import numpy as np

from keras_uap.attacks import losses
from keras_uap.attacks.data_free import noise_images
from keras_uap.attacks.fitting import BATCH, fit_with_passes
from keras_uap.attacks.smoothing import coarse
from keras_uap.data import augmentation
from keras_uap.data.pictures import Pictures, pixel_range
from keras_uap.utils.saving import atomic_path

# The rows of perturbations that other attacks start from.
DATA_FREE = "data-free"
TRANSFERRED = "transferred"

_STARTS = (None, "noise", "coarse", "transferred")
_NOISE_SHARE = 0.25
_COARSE_SHARE = 1 / 3
# Longer first steps lose a transferred perturbation before they improve it.
_TRANSFERRED_STEP = 0.02


@dataclasses.dataclass(frozen=True)
class Attack:
    """How one perturbation is found.

    Attributes:
        name: String, what tables call it.
        passes: Integer, the model passes.
        loss: String, what is minimised; `None` for DeepFool.
        start: `None`, `"noise"`, `"coarse"` or `"transferred"`.
        seed: Integer, added to the seed of the audit.
    """

    name: str
    passes: int
    loss: str | None = "dominant"
    start: str | None = None
    seed: int = 0

    def __post_init__(self):
        if self.start not in _STARTS:
            raise ValueError(
                f"Unknown start. Received: start={self.start!r}. Expected one "
                f"of {_STARTS}."
            )
        if self.loss is not None:
            losses.get(self.loss)

    @property
    def needs_features(self):
        """Boolean, whether the loss takes features of the classifier."""
        loss = None if self.loss is None else losses.get(self.loss)
        return getattr(loss, "needs_features", False)


def _short(passes, seed=0):
    """One short attack of each kind."""
    return (
        Attack("dominant", passes, seed=seed),
        Attack("features+dominant", passes, "features+dominant", seed=seed),
        Attack("cross-entropy", passes, "crossentropy", seed=seed),
        Attack("DeepFool", passes, None, seed=seed),
        Attack("data-free start", passes, start="noise", seed=seed),
    )


# More work reveals whether the short attacks had enough. A hardened classifier
# hides from those: 2,000 and 6,000 passes fooled 33 and 36 % of one, 18,000
# fooled 65 %.
MORE_WORK = (
    Attack("dominant, longer", 18_000),
    # Twice the work, because with half of it this attack had not converged.
    Attack("coarse to fine, longer", 36_000, start="coarse"),
)

BUDGETS = {
    "quick": (
        Attack("transferred start", 2000, start="transferred"),
        Attack("dominant", 2000),
        Attack("features+dominant", 2000, "features+dominant"),
        Attack("DeepFool", 2000, None),
        Attack("coarse to fine", 2000, start="coarse"),
        Attack("data-free start", 2000, start="noise"),
    ),
    "standard": (
        Attack("transferred start", 6000, start="transferred"),
        *_short(6000),
        *_short(6000, seed=1),
        Attack("coarse to fine", 6000, start="coarse"),
        MORE_WORK[0],
        # With more work this loss leads, where features can be seen.
        Attack("features+dominant, longer", 18_000, "features+dominant"),
    ),
}


def attacks_for(adapter, budget, transferred, more_work):
    """Returns the attacks that a classifier allows, and notes on the others.

    Args:
        adapter: `ClassifierAdapter`.
        budget: String, one of `BUDGETS`.
        transferred: Boolean, whether a perturbation is given to start from.
        more_work: Boolean, whether those of `MORE_WORK` are among them.

    Returns:
        A list of `Attack`, and a list of sentences.
    """
    attacks, notes = list(BUDGETS[budget]), []
    if more_work:
        attacks += [each for each in MORE_WORK if each not in attacks]
    if not transferred:
        attacks = [each for each in attacks if each.start != "transferred"]
    if len(adapter.image_shape) != 3:  # Signals are not smoothed.
        attacks = [each for each in attacks if each.start != "coarse"]
    try:
        adapter.features_function()
    except ValueError as error:
        # Without the advice to pass layer=: an audit has nothing to tune.
        why = str(error).split(". ")[0]
        notes = [f"The runs on features were left out. {why}."]
        attacks = [each for each in attacks if not each.needs_features]
    return attacks, notes


@dataclasses.dataclass(frozen=True, eq=False)
class Finding:
    """A perturbation that an attack found, and the work that it took.

    Attributes:
        name, seed: Of its row.
        passes: Integer, the model passes.
        seconds: Float.
        no_gradient: Float, the share of the images shown that had no usable
            gradient.
        v: Array `(H, W, C)`.
        data_free: Boolean, whether it was found without images. Its work is
            also counted in the attack that starts from it.
    """

    name: str
    seed: int
    passes: int
    seconds: float
    no_gradient: float
    v: np.ndarray
    data_free: bool = False


class Attacker:
    """Runs attacks on one classifier and one set of images.

    Args:
        adapter: `ClassifierAdapter`.
        pictures: `Pictures` to fit on.
        ball: `LpBall`.
        value_range: Pair of floats or `None`.
        transferred: Array `(H, W, C)` that a transferred start begins with, or
            `None`.
        write: Function that prints a line of progress.
    """

    def __init__(
        self, adapter, pictures, ball, value_range, transferred, write
    ):
        self._adapter = adapter
        self._pictures = pictures
        self._ball = ball
        self._value_range = value_range
        self._transferred = transferred
        self._write = write
        images = pictures.images
        self._augment = len(images) < augmentation.FEW and images.ndim == 4
        self.notes = []
        if self._augment:
            self.notes.append(
                f"The {len(images)} images to fit are few and were varied: "
                "crops, light, mirror images."
            )

    def run(self, attack, seed):
        """Returns a list of `Finding`s; the last one is the attack's own.

        Args:
            attack: `Attack`.
            seed: Integer, the seed of the audit.
        """
        seed += attack.seed
        passes, loss = attack.passes, attack.loss
        if attack.start is None:
            return [self._fit(attack.name, seed, passes, loss)]
        if attack.start == "transferred":
            v = self._transferred
            start = {"initial_perturbation": v, "first_step": _TRANSFERRED_STEP}
            found = self._fit(attack.name, seed, passes, loss, **start)
            return [Finding(TRANSFERRED, seed, 0, 0.0, 0.0, v), found]
        if attack.start == "noise":
            first = self._fit_on_noise(seed, int(_NOISE_SHARE * passes), loss)
            second_seed = seed
        else:
            few = int(_COARSE_SHARE * passes)
            sigma = coarse(self._adapter.image_shape)
            # Cross-entropy found more coarse patterns than the dominant label.
            first = self._fit(
                attack.name, seed, few, "crossentropy", smoothing=sigma
            )
            second_seed = seed ^ 1  # Another order of the images.
        left, v = passes - first.passes, first.v
        second = self._fit(
            attack.name, second_seed, left, loss, initial_perturbation=v
        )
        both = dataclasses.replace(
            second,
            seed=seed,
            passes=first.passes + second.passes,
            seconds=first.seconds + second.seconds,
        )
        return [first, both] if first.data_free else [both]

    def _fit_on_noise(self, seed, passes, loss):
        count = max(BATCH, min(512, passes // 3))
        shape, images = self._adapter.image_shape, self._pictures.images
        value_range = self._value_range or pixel_range(images)
        noise = noise_images(count, shape, seed=seed, value_range=value_range)
        return self._fit(DATA_FREE, seed, passes, loss, Pictures(noise))

    def _fit(self, name, seed, passes, loss, noise=None, **arguments):
        started = time.time()
        v, passes, no_gradient = fit_with_passes(
            self._adapter,
            self._pictures if noise is None else noise,
            self._ball,
            passes,
            loss,
            self._value_range,
            seed=seed,
            augment=self._augment and noise is None,
            write=self._write,
            **arguments,
        )
        seconds, data_free = time.time() - started, noise is not None
        return Finding(name, seed, passes, seconds, no_gradient, v, data_free)


def save(path, findings):
    """Writes the `Finding`s of an attack to a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = [dataclasses.asdict(each) for each in findings]
    v = [each.pop("v") for each in facts]
    with atomic_path(path) as temporary:
        np.savez(temporary, v=v, facts=json.dumps(facts))


def load(path):
    """Returns the `Finding`s that `save` wrote."""
    with np.load(path) as kept:
        facts = json.loads(str(kept["facts"]))
        return [Finding(**f, v=v) for f, v in zip(facts, kept["v"])]
