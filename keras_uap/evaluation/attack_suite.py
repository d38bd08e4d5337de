"""The attacks of an audit, one row each.

Attacks differ in the loss and in where they start:

- `start=None`: from zero.
- `"noise"`: a quarter of the passes on images without content, then on from
  what they gave. The perturbation of that quarter has a row of its own.
- `"coarse"`: a third of the passes along smoothed gradients of the
  cross-entropy, then on along the gradients themselves.
- `"transferred"`: from a perturbation of another classifier, which has a row
  of its own. This attack is left out where no perturbation is given.

`race` decides how many model passes each of them gets.
"""

import dataclasses
import functools
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
        loss: String, what is minimised; `None` for DeepFool.
        start: `None`, `"noise"`, `"coarse"` or `"transferred"`.
    """

    name: str
    loss: str | None = "dominant"
    start: str | None = None

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


ATTACKS = (
    Attack("transferred start", start="transferred"),
    Attack("dominant"),
    Attack("features+dominant", "features+dominant"),
    Attack("DeepFool", None),
    Attack("cross-entropy", "crossentropy"),
    Attack("coarse to fine", start="coarse"),
    Attack("data-free start", start="noise"),
)


def attacks_for(adapter, transferred):
    """Returns the attacks that a classifier allows, and notes on the others.

    Args:
        adapter: `ClassifierAdapter`.
        transferred: Boolean, whether a perturbation is given to start from.

    Returns:
        A list of `Attack`, and a list of sentences.
    """
    attacks, notes = list(ATTACKS), []
    if not transferred:
        attacks = [each for each in attacks if each.start != "transferred"]
    if len(adapter.image_shape) != 3:  # Signals are not smoothed.
        attacks = [each for each in attacks if each.start != "coarse"]
    try:
        adapter.features_function()
    except ValueError as error:
        # Without the advice to pass layer=: an audit has nothing to tune.
        why = str(error).split(". ")[0]
        notes = [f"The attacks on features were left out. {why}."]
        attacks = [each for each in attacks if not each.needs_features]
    return attacks, notes


@dataclasses.dataclass(frozen=True, eq=False)
class Finding:
    """A perturbation that an attack found, and the work that it took.

    Attributes:
        name, seed: Of its row.
        passes: Integer, the model passes that led to it.
        spent: Integer, those of them that no other finding has spent.
        seconds: Float, of these.
        no_gradient: Float, the share of the images shown that had no usable
            gradient.
        v: Array `(H, W, C)`.
    """

    name: str
    seed: int
    passes: int
    spent: int
    seconds: float
    no_gradient: float
    v: np.ndarray

    @property
    def data_free(self):
        """Boolean, whether it was found without images."""
        return self.name == DATA_FREE


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
                f"The {len(images)} images to fit are few and were augmented "
                "with random crops, light and mirroring."
            )

    def run(self, attack, passes, seed, previous=None):
        """Starts an attack, or goes on with it.

        Args:
            attack: `Attack`.
            passes: Integer, the model passes.
            seed: Integer, the seed of the audit.
            previous: `Finding` of this attack to go on from, or `None`.

        Returns:
            A list of `Finding`s; the last one is the attack's own.
        """
        fit = functools.partial(self._fit, attack.name, seed)
        if previous is not None:
            return [fit(passes, attack.loss, previous)]
        if attack.start is None:
            return [fit(passes, attack.loss)]
        if attack.start == "transferred":
            v, step = self._transferred, _TRANSFERRED_STEP
            first = Finding(TRANSFERRED, seed, 0, 0, 0.0, 0.0, v)
            return [first, fit(passes, attack.loss, first, first_step=step)]
        if attack.start == "noise":
            first = self._fit_on_noise(
                seed, int(_NOISE_SHARE * passes), attack.loss
            )
        else:
            # Cross-entropy found more coarse patterns than the dominant label.
            sigma = coarse(self._adapter.image_shape)
            few = int(_COARSE_SHARE * passes)
            first = fit(few, "crossentropy", smoothing=sigma)
        found = fit(passes - first.spent, attack.loss, first)
        found = dataclasses.replace(
            found,
            spent=first.spent + found.spent,
            seconds=first.seconds + found.seconds,
        )
        if attack.start == "noise":
            # The attack that starts from it has spent its work.
            return [dataclasses.replace(first, spent=0), found]
        return [found]

    def _fit_on_noise(self, seed, passes, loss):
        count = max(BATCH, min(512, passes // 3))
        shape, images = self._adapter.image_shape, self._pictures.images
        value_range = self._value_range or pixel_range(images)
        noise = noise_images(count, shape, seed=seed, value_range=value_range)
        return self._fit(DATA_FREE, seed, passes, loss, noise=noise)

    def _fit(
        self, name, seed, passes, loss, previous=None, noise=None, **arguments
    ):
        """Returns a `Finding`, from zero or from the previous one."""
        started, before = time.time(), 0
        if previous is not None:
            before = previous.passes
            arguments["initial_perturbation"] = previous.v
        v, spent, no_gradient = fit_with_passes(
            self._adapter,
            self._pictures if noise is None else Pictures(noise),
            self._ball,
            passes,
            loss,
            self._value_range,
            seed=seed + before,  # Another order of the images.
            augment=self._augment and noise is None,
            write=self._write,
            **arguments,
        )
        seconds = time.time() - started
        return Finding(
            name, seed, before + spent, spent, seconds, no_gradient, v
        )


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
