"""Hardening a classifier, and what that was worth.

1. The pictures fall into the parts of an audit: fit, select, held out.
2. An audit of the classifier as it is: the strongest of several attacks.
3. `AdversarialDistiller` trains the classifier on the part to fit, varied.
4. The same audit of the hardened classifier, on the same pictures. The
   perturbation of before is tried too, as it is and as a start.

Robust agreement is what a user gets: the share of held-out pictures on which
the hardened classifier under attack says what the original said without one. A
classifier that always says the same is never fooled, and agrees with nothing.

The module is not called `harden`: `keras_uap.harden` is the function.

Reference:
    - [Zhang et al., 2019](https://arxiv.org/abs/1901.08573)
"""

import dataclasses
import textwrap
import time

import keras
import numpy as np
import tensorflow as tf

from keras_uap import auditing, datasets, visualization
from keras_uap.adversarial_distiller import AdversarialDistiller
from keras_uap.analysis.result import Result
from keras_uap.auditing import BATCH, Audit
from keras_uap.checks import as_numbers, check_number, check_whole
from keras_uap.interval import rate_interval
from keras_uap.lp_ball import LpBall
from keras_uap.pixels import as_value_range
from keras_uap.progress import in_words
from keras_uap.saving import random_state_kept
from keras_uap.words import percent

__all__ = ["Hardening", "harden"]

# How many views of the pictures the training draws, if nothing else is said.
DRAWS = 4000
LEARNING_RATE = 2e-4
ROBUSTNESS = 0.5
TEMPERATURE = 4.0

# By so much may a perturbation that needs no gradients of the hardened
# classifier beat those that use them.
_MARGIN = 0.03
# From this share of answers on clean pictures lost, it is said.
_LOST = 0.1


@dataclasses.dataclass(frozen=True, eq=False)
class Hardening(Result):
    """What `keras_uap.harden` did, and what it was worth.

    All rates are of the held-out pictures.

    Attributes:
        before, after: `Audit`s of the classifier and of the hardened one.
        agreement, agreement_interval: Share of clean pictures that get the
            label of before, and its 95 % interval.
        robust_agreement_before, robust_agreement, robust_agreement_interval:
            Share of pictures that get, under the strongest attack, the label
            that the original gave without one; and the 95 % interval of the
            latter.
        transferred_rate: Share fooled of the hardened classifier by the
            perturbation of before.
        data_free_rate: The same for one that was found without pictures.
        fresh_rate: The same for the strongest that was found on pictures,
            against the hardened classifier.
        accuracy_before, accuracy, robust_accuracy: Shares that get the label
            given: without attack before and after, and under the strongest
            attack after. `None` without labels.
        history: Dictionary of lists, of the training's epochs.
        settings: Dictionary, how it was trained.
        training_passes: Integer, forwards and backwards of one image.
        training_seconds, seconds: Floats, of the training and of all.
        warnings: Tuple of sentences.
    """

    before: Audit
    after: Audit
    agreement: float
    agreement_interval: tuple
    robust_agreement_before: float
    robust_agreement: float
    robust_agreement_interval: tuple
    transferred_rate: float
    data_free_rate: float
    fresh_rate: float
    accuracy_before: float | None
    accuracy: float | None
    robust_accuracy: float | None
    history: dict
    settings: dict
    training_passes: int
    training_seconds: float
    seconds: float
    warnings: tuple

    def to_dict(self):
        """The result as plain Python values, for JSON, without pictures."""
        after = {
            "agreement": self.agreement,
            "agreement_interval_95": list(self.agreement_interval),
            "robust_agreement": self.robust_agreement,
            "robust_agreement_interval_95": list(
                self.robust_agreement_interval
            ),
            "transferred_rate": self.transferred_rate,
            "data_free_rate": self.data_free_rate,
            "fresh_rate": self.fresh_rate,
            "clean_accuracy": self.accuracy,
            "robust_accuracy": self.robust_accuracy,
        }
        before = {
            "agreement": 1.0,
            "robust_agreement": self.robust_agreement_before,
            "clean_accuracy": self.accuracy_before,
        }
        audits = {"before": self.before, "after": self.after}
        rates = {"before": before, "after": after}
        return {
            "images": self.before.num_fit,
            "held_out_images": self.before.num_images,
            "held_out_photographs": self.before.num_groups,
            "norm": self.before.report.norm,
            "epsilon": self.before.card["epsilon"],
            **{
                name: {
                    "fooling_rate": audit.fooling_rate,
                    "interval_95": list(audit.fooling_interval),
                    "strongest": audit.strongest.name,
                    "random_noise_rate": audit.random_rate,
                    **rates[name],
                    "audit": audit.to_dict(),
                }
                for name, audit in audits.items()
            },
            "settings": self.settings,
            "history": self.history,
            "training_passes": self.training_passes,
            "training_seconds": self.training_seconds,
            "seconds": self.seconds,
            "warnings": list(self.warnings),
        }

    def plot(self, class_names=None):
        """Draws before and after; returns the matplotlib figure.

        Args:
            class_names: List of strings, one for each class.
        """
        return visualization.plot_hardening(self, class_names)

    def rows(self, class_names=None):
        """A title, the names of the columns and a row for each quantity."""
        before, after = self.before, self.after
        rates = [
            (
                "fooled by the strongest",
                before.fooling_rate,
                after.fooling_rate,
            ),
            (
                "by random noise, same norm",
                before.random_rate,
                after.random_rate,
            ),
            (
                "by the perturbation of before",
                before.fooling_rate,
                self.transferred_rate,
            ),
            ("clean answers kept", 1.0, self.agreement),
            (
                "robust agreement",
                self.robust_agreement_before,
                self.robust_agreement,
            ),
        ]
        if self.accuracy is not None:
            rates.append(("right, clean", self.accuracy_before, self.accuracy))
        rows = [(name, percent(a), percent(b)) for name, a, b in rates]
        return "Hardening", ("", "before", "after"), rows

    def table(self, class_names=None):
        """The result as a text of at most 80 columns.

        Args:
            class_names: Not needed: no class is named.
        """
        before, after = self.before, self.after
        held_out = f"{before.num_images} held-out pictures"
        if before.num_groups != before.num_images:
            held_out += f" of {before.num_groups} photographs"
        epsilon = before.card["epsilon"]
        _, header, rows = self.rows()
        lines = [
            held_out,
            f"{before.report.norm} norm at most {epsilon:.4g}; trained on "
            f"{before.num_fit} pictures",
            "",
        ]
        lines += [f"{name:<36}{a:>10}{b:>10}" for name, a, b in (header, *rows)]
        for name, bounds in (
            ("fooled, before", before.fooling_interval),
            ("fooled, after", after.fooling_interval),
            ("clean answers kept", self.agreement_interval),
            ("robust agreement", self.robust_agreement_interval),
        ):
            low, high = map(percent, bounds)
            lines.append(f"95 % interval, {name + ':':<21}{low:>8} to {high}")
        lines += [
            "",
            textwrap.fill(
                "Robust agreement: on so many pictures, attacked, the hardened "
                "classifier says what the original said of them clean. "
                f"The strongest attack after: {after.strongest.name}.",
                79,
            ),
        ]
        lines += [textwrap.fill(f"Warning: {x}", 79) for x in self.warnings]
        return "\n".join(lines)


def harden(
    classifier,
    images,
    labels=None,
    groups=None,
    epsilon=10.0,
    norm="linf",
    value_range=(0, 255),
    robustness=ROBUSTNESS,
    epochs=None,
    learning_rate=LEARNING_RATE,
    budget="quick",
    seed=0,
    from_logits=None,
    verbose="auto",
):
    """Hardens a classifier in place, and measures what that was worth.

    Example:

    ```python
    result = keras_uap.harden(classifier, "photos/")
    print(result)
    classifier.save("hardened.keras")  # Loads without keras_uap.
    ```

    Args:
        classifier: Keras model that maps images to class scores: logits,
            softmax or a sigmoid. Its trainable weights are trained; the
            statistics of batch normalization stay.
        images: As for `keras_uap.audit`: an array `(n, H, W, C)`, a data set
            or a folder. Six tenths are trained on; the rest judges.
        labels: Array `(n,)` of class indices, with `images` an array. `None`
            takes the classifier's own answers, which is what one wants where
            it was trained on more pictures than these.
        groups: Array `(n,)`, the photograph that each image was cut from.
        epsilon: Float above 0, the radius of the ball, in pixel units.
        norm: `"linf"` or `"l2"`.
        value_range: Pair of floats, the pixel range that the classifier takes,
            or `None`.
        robustness: Float between 0 and 1, how much robustness to buy with
            clean answers.
        epochs: Integer, the passes over the images trained on. `None` takes
            as many as draw 4,000 images.
        learning_rate: Float above 0, of Adam, falling to 0.
        budget: `"quick"` or `"standard"`, as for `keras_uap.audit`, of the
            two audits.
        seed: Integer; parts, orders and starts follow from it.
        from_logits: Boolean, whether the classifier returns logits. `None`
            finds out.
        verbose: `"auto"` or 1 for lines with the time left, 0 for none.

    Returns:
        A `Hardening`.

    Raises:
        TypeError: if `classifier` is not a Keras model, or one that cannot be
            copied, or `images` are none of the above.
        ValueError: for arguments out of range, images that are too few, not
            finite or not of the classifier's size, or labels that are not
            theirs.
    """
    ball = LpBall(epsilon, norm)
    value_range = as_value_range(value_range)
    auditing.check_arguments(classifier, budget, seed, verbose)
    _check_training(robustness, epochs, learning_rate)
    pictures = auditing.as_pictures(classifier, images, groups, value_range)
    if labels is not None:
        labels = _as_labels(labels, len(pictures.images))
        pictures = pictures._replace(labels=labels)
    # Also what a data set holds beside its images makes fair parts.
    parts = pictures.split(seed=seed)
    with random_state_kept():
        return harden_pictures(
            classifier,
            pictures._replace(labels=labels),
            ball,
            value_range,
            robustness,
            epochs,
            learning_rate,
            budget,
            seed,
            from_logits,
            parts,
            verbose,
        )


def harden_pictures(
    classifier,
    pictures,
    ball,
    value_range,
    robustness=ROBUSTNESS,
    epochs=None,
    learning_rate=LEARNING_RATE,
    budget="quick",
    seed=0,
    from_logits=None,
    parts=None,
    verbose=0,
):
    """`harden` of `datasets.Pictures` and an `LpBall`, already checked.

    Args: as for `harden`, and `parts` as for `auditing.audit_pictures`.
    """
    _check_training(robustness, epochs, learning_rate)
    started = time.time()
    say = print if verbose else auditing.silent
    if parts is None:
        parts = pictures.split(seed=seed)
    if epochs is None:
        epochs = -(-DRAWS // len(parts[0]))
    distiller = AdversarialDistiller(
        classifier,
        ball.epsilon,
        ball.norm,
        value_range,
        robustness,
        TEMPERATURE,
        seed=seed,
        from_logits=from_logits,
        pool_size=2,
    )
    if not distiller.built:
        distiller.build((None, *pictures.images.shape[1:]))
    distiller.check_labels(pictures.labels)
    shared = (ball, value_range, budget, seed, from_logits, verbose, parts)
    steps = epochs * -(-len(parts[0]) // BATCH)
    say("An audit of the classifier as it is.", flush=True)
    before = auditing.audit_pictures(classifier, pictures, *shared)
    say(
        f"Training, {epochs} epochs of {len(parts[0])} pictures, "
        f"{steps:,} batches.",
        flush=True,
    )
    # One starts from the strongest of before, which the classifier must not
    # leave to whoever kept it; the other goes its own way.
    v = before.perturbation
    distiller.v.assign(np.stack([v, np.zeros_like(v)]))
    distiller.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        )
    )
    begun = time.time()
    history = distiller.fit(
        _data(pictures, parts[0], value_range, seed),
        epochs=epochs,
        shuffle=False,  # The data set does it.
        verbose=0,
        callbacks=[_Progress(say, steps)],
    ).history
    training_seconds = time.time() - begun
    say("The same audit of the hardened classifier.", flush=True)
    after = auditing.audit_pictures(
        classifier, pictures, *shared, known=before.perturbation
    )
    settings = {
        "robustness": robustness,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "temperature": TEMPERATURE,
        "step_size": distiller.step_size,
        "pool_size": distiller.pool_size,
        "restart_every": distiller.restart_every,
        "batch_size": BATCH,
        "labels": pictures.labels is not None,
        "budget": budget,
        "seed": seed,
    }
    return _result(
        before,
        after,
        pictures,
        parts[2],
        history,
        settings,
        distiller,
        training_seconds,
        started,
    )


def _check_training(robustness, epochs, learning_rate):
    check_number("robustness", robustness, least=0, most=1)
    check_number("learning_rate", learning_rate, above=0, below=np.inf)
    if epochs is not None:
        check_whole("epochs", epochs, 1)


def _as_labels(labels, count):
    labels = as_numbers("labels", labels)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(
            "labels must be class indices, one for each image. Received: "
            f"{labels.dtype} of shape {labels.shape}. Expected: integers of "
            f"shape ({count},)."
        )
    return labels


def _data(pictures, fit, value_range, seed):
    """A data set of varied batches of the pictures to fit."""
    images, labels = pictures.images[fit], pictures.labels
    low, high = value_range or (float(images.min()), float(images.max()))
    if labels is None and images.ndim == 4:
        paths = None if pictures.paths is None else pictures.paths[fit]
        # The answer to a view is that of the view, however it was varied.
        return datasets.views(
            datasets.Pictures(images, paths=paths), BATCH, (low, high), seed
        )
    # A view may no longer show what the label of the picture says.
    columns = images if labels is None else (images, labels[fit])
    data = tf.data.Dataset.from_tensor_slices(columns)
    data = data.shuffle(len(images), seed=seed).batch(BATCH).prefetch(2)
    return datasets.without_tuner(data)


class _Progress(keras.callbacks.Callback):
    """Says every ten seconds how far the training is, and what is left."""

    def __init__(self, say, steps):
        super().__init__()
        self._say = say
        self._steps = steps
        self._done = 0
        self._told = time.time()
        self._first = None

    def on_train_batch_end(self, batch, logs=None):
        self._done += 1
        now = time.time()
        if self._first is None:
            # It traced and compiled, and says nothing of the others.
            self._first = now
        elif now - self._told > auditing.SECONDS:
            each = (now - self._first) / (self._done - 1)
            left = in_words(each * (self._steps - self._done))
            self._say(
                f"    batch {self._done:,} of {self._steps:,}; {left} left",
                flush=True,
            )
            self._told = now

    def on_epoch_end(self, epoch, logs=None):
        self._say(
            f"  epoch {epoch + 1} of {self.params['epochs']}: loss "
            f"{logs['loss']:.3f}, {logs['clean_agreement']:.1%} as before, "
            f"{logs['perturbed_agreement']:.1%} under attack",
            flush=True,
        )


def _result(
    before,
    after,
    pictures,
    held_out,
    history,
    settings,
    distiller,
    training_seconds,
    started,
):
    groups = None if pictures.groups is None else pictures.groups[held_out]
    answers = before.report.clean_labels
    kept = after.report.clean_labels == answers
    robust = after.report.perturbed_labels == answers
    labels = None if pictures.labels is None else pictures.labels[held_out]

    def accuracy(answers):
        return None if labels is None else float(np.mean(answers == labels))

    def rate(name):
        return max(run.fooling_rate for run in after.runs if run.name == name)

    passive = (auditing.KNOWN, auditing.DATA_FREE)
    # As in the audits: the part that chooses is another one.
    fresh = max(
        (run for run in after.runs if run.name not in passive),
        key=lambda run: run.select_rate,
    )
    result = Hardening(
        before=before,
        after=after,
        agreement=float(kept.mean()),
        agreement_interval=rate_interval(kept, groups),
        robust_agreement_before=float(
            np.mean(before.report.perturbed_labels == answers)
        ),
        robust_agreement=float(robust.mean()),
        robust_agreement_interval=rate_interval(robust, groups),
        transferred_rate=rate(auditing.KNOWN),
        data_free_rate=rate(auditing.DATA_FREE),
        fresh_rate=fresh.fooling_rate,
        accuracy_before=accuracy(answers),
        accuracy=accuracy(after.report.clean_labels),
        robust_accuracy=accuracy(after.report.perturbed_labels),
        history=history,
        settings=settings,
        # Of an image: one of the teacher, and clean and perturbed there and
        # back.
        training_passes=5 * settings["epochs"] * before.num_fit,
        training_seconds=training_seconds,
        seconds=time.time() - started,
        warnings=(),
    )
    return dataclasses.replace(result, warnings=tuple(_words(result)))


def _words(result):
    """Sentences on what was not gained, what was lost, and what smells."""
    before, after = result.before, result.after
    found = []
    if before.fooling_rate <= after.fooling_rate:
        found.append(
            "Nothing was gained: the hardened classifier is fooled as often "
            "as before."
        )
    elif before.fooling_interval[0] <= after.fooling_interval[1]:
        found.append(
            "The intervals before and after overlap: with so few pictures it "
            "is not shown that anything was gained."
        )
    if 1 - result.agreement >= _LOST:
        found.append(
            f"On {1 - result.agreement:.0%} of the clean pictures the answer "
            "is another one than before. Less robustness keeps more; so do "
            "more pictures and more epochs."
        )
    for rate, what in (
        (result.transferred_rate, "The perturbation of before"),
        (result.data_free_rate, "A perturbation found without pictures"),
    ):
        if rate > result.fresh_rate + _MARGIN:
            found.append(
                f"{what} fools {rate:.0%}, more than the "
                f"{result.fresh_rate:.0%} of those found on pictures against "
                "the hardened classifier: its gradients lead attacks astray, "
                "and it is more fragile than measured."
            )
    return (
        found
        + [f"Before: {text}" for text in before.warnings]
        + [f"After: {text}" for text in after.warnings]
    )
