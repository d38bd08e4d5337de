"""Hardening a classifier, and what that was worth.

1. The pictures fall into the parts of an audit: fit, select, held out.
2. An audit of the classifier as it is: the strongest of several attacks, with
   as much work as afterwards.
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

import contextlib
import dataclasses
import json
import time
import zlib

import keras
import numpy as np
import tensorflow as tf

from keras_uap.attacks.callbacks import BackupAndRestore
from keras_uap.data import augmentation
from keras_uap.data.pictures import Pictures, without_tuner
from keras_uap.defenses.adversarial_distiller import AdversarialDistiller
from keras_uap.defenses.hardening import Hardening, warnings_of
from keras_uap.evaluation import attack_suite, audit
from keras_uap.evaluation.attack_suite import BATCH
from keras_uap.evaluation.intervals import difference_interval, rate_interval
from keras_uap.perturbations.lp_ball import LpBall
from keras_uap.perturbations.pixels import as_value_range
from keras_uap.utils import progress
from keras_uap.utils.saving import TEMPORARY, atomic_path, random_state_kept
from keras_uap.utils.validation import as_numbers, check_number, check_whole

__all__ = ["Hardening", "harden"]

# How many views of the pictures the training draws, if nothing else is said.
DRAWS = 8000
LEARNING_RATE = 2e-4
ROBUSTNESS = 0.5
TEMPERATURE = 4.0


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
    backup_dir=None,
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
            as many as draw 8,000 images.
        learning_rate: Float above 0, of Adam, falling to 0.
        budget: `"quick"` or `"standard"`, as for `keras_uap.audit`, of the
            two audits.
        seed: Integer; parts, orders and starts follow from it.
        from_logits: Boolean, whether the classifier returns logits. `None`
            finds out.
        verbose: `"auto"` or 1 for lines with the time left, 0 for none.
        backup_dir: String or path of a folder that keeps the training after
            each epoch, and what each attack of the two audits finds, or
            `None`. Where it was cut off, the same call on the classifier of
            before goes on from there, with other draws of the pictures. What
            is kept is deleted once all is done.

    Returns:
        A `Hardening`.

    Raises:
        TypeError: if `classifier` is not a Keras model, or one that cannot be
            copied, or `images` are none of the above.
        ValueError: for arguments out of range, images that are too few, not
            finite or not of the classifier's size, labels that are not
            theirs, or a `backup_dir` of another training.
    """
    ball = LpBall(epsilon, norm)
    value_range = as_value_range(value_range)
    audit.check_arguments(classifier, budget, seed, verbose)
    _check_training(robustness, epochs, learning_rate)
    pictures = audit.as_pictures(classifier, images, groups, value_range)
    if labels is not None:
        labels = _as_labels(labels, len(pictures.images))
        pictures = pictures._replace(labels=labels)
    # Also what a data set holds beside its images makes fair parts.
    parts = pictures.split(seed=seed)
    with random_state_kept():
        result = harden_pictures(
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
            backup_dir,
        )
    if backup_dir is not None:
        delete_backup(backup_dir)
    return result


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
    backup_dir=None,
    before=None,
):
    """`harden` of `datasets.Pictures` and an `LpBall`, already checked.

    Args: as for `harden`, and `parts` as for `auditing.audit_pictures`. What is
        kept in `backup_dir` stays, until `delete_backup`. `before` is the audit
        of the classifier as it is, if it was made already.
    """
    _check_training(robustness, epochs, learning_rate)
    started = time.time()
    say = print if verbose else progress.silent
    if parts is None:
        parts = pictures.split(seed=seed)
    if epochs is None:
        epochs = epochs_for(len(parts[0]))
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
    backup = None
    if backup_dir is not None:
        backup = _Backup(backup_dir)
        backup.claim(
            settings
            | {
                "epsilon": ball.epsilon,
                "norm": ball.norm,
                "value_range": value_range,
                "from_logits": from_logits,
                "images": _sum([pictures.images[parts[0]]]),
                "labels": pictures.labels is not None
                and _sum([pictures.labels[parts[0]]]),
                "weights": _sum(classifier.get_weights()),
            }
        )
    if before is None:
        say("An audit of the classifier as it is.", flush=True)
        before = audit.audit_pictures(
            classifier,
            pictures,
            *shared,
            more_work=True,
            backup_dir=backup and backup.before,
        )
    say(
        f"Training, {epochs} epochs of {len(parts[0])} pictures, "
        f"{steps:,} batches.",
        flush=True,
    )
    begun = time.time()
    data = training_data(pictures, parts[0], value_range, seed)
    callbacks = [_Progress(say, steps), *([backup] if backup else [])]
    start_from(distiller, before.perturbation)
    distiller.compile(falling_adam(learning_rate, steps))
    history = distiller.fit(
        data,
        epochs=epochs,
        shuffle=False,  # The data set does it.
        verbose=0,
        callbacks=callbacks,
    ).history
    training_seconds = time.time() - begun
    say("The same audit of the hardened classifier.", flush=True)
    after = audit.audit_pictures(
        classifier,
        pictures,
        *shared,
        known=before.perturbation,
        more_work=True,
        backup_dir=backup and backup.after,
    )
    result = compared(
        before,
        after,
        pictures,
        parts[2],
        history=history,
        settings=settings,
        # Of an image: one of the teacher, and clean and perturbed there and
        # back.
        training_passes=5 * epochs * len(parts[0]),
        training_seconds=training_seconds,
        seconds=time.time() - started,
    )
    return result


def epochs_for(count):
    """How many epochs of so many pictures `harden` trains by itself."""
    return -(-DRAWS // count)


def delete_backup(backup_dir):
    """Deletes what a hardening keeps, once its outcome is safe."""
    _Backup(backup_dir).delete()


def start_from(distiller, known):
    """One starts from the strongest of before, any others from zero."""
    # The classifier must not leave it to whoever kept it.
    start = np.zeros(distiller.v.shape, "float32")
    start[0] = known
    distiller.v.assign(start)


def falling_adam(learning_rate, steps, **kwargs):
    """Adam with a learning rate that falls to 0 in so many steps."""
    falling = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    return keras.optimizers.Adam(falling, **kwargs)


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


def training_data(pictures, fit, value_range, seed, varied=True):
    """A data set of batches of the pictures to fit, varied if it may be."""
    images, labels = pictures.images[fit], pictures.labels
    low, high = value_range or (float(images.min()), float(images.max()))
    if varied and labels is None and images.ndim == 4:
        paths = None if pictures.paths is None else pictures.paths[fit]
        # The answer to a view is that of the view, however it was varied.
        return augmentation.views(
            Pictures(images, paths=paths), BATCH, (low, high), seed
        )
    # A view may no longer show what the label of the picture says.
    columns = images if labels is None else (images, labels[fit])
    data = tf.data.Dataset.from_tensor_slices(columns)
    data = data.shuffle(len(images), seed=seed).batch(BATCH).prefetch(2)
    return without_tuner(data)


class _Backup(BackupAndRestore):
    """Keeps training and audits until all is done, with the settings beside."""

    def __init__(self, backup_dir):
        super().__init__(backup_dir, delete_checkpoint=False)
        self._settings = self.backup_dir / "settings.json"
        self.before = self.backup_dir / "before"
        self.after = self.backup_dir / "after"

    def claim(self, settings):
        """Writes the settings; ValueError where the folder has others."""
        text = json.dumps(settings, indent=1)
        if self._settings.exists():
            found = self._settings.read_text(encoding="utf-8")
            if found != text:
                raise ValueError(
                    f"{self.backup_dir} holds a training with other settings. "
                    f"Received: {text}. Found there: {found}. Repeat that call "
                    "to go on with it, or delete the folder."
                )
        self.backup_dir.mkdir(parents=True, exist_ok=True)
        with atomic_path(self._settings) as path:
            path.write_text(text, encoding="utf-8")

    def delete(self):
        super().delete()
        self._settings.unlink(missing_ok=True)
        for folder in (self.before, self.after, self.backup_dir):
            for pattern in ("run_*.npz", TEMPORARY + "*"):
                for path in folder.glob(pattern):
                    path.unlink()
            with contextlib.suppress(OSError):  # There may be files of others.
                folder.rmdir()


def _sum(arrays):
    """A number that tells arrays from others."""
    total = 0
    for array in arrays:
        total = zlib.crc32(np.ascontiguousarray(array), total)
    return total


class _Progress(keras.callbacks.Callback):
    """Prints about every ten seconds how far the training is."""

    def __init__(self, say, steps):
        super().__init__()
        self._say = say
        self._steps = steps
        self._progress = progress.Progress("batches", steps, say)
        self._last_epoch = 0.0

    def on_train_batch_end(self, batch, logs=None):
        # The optimizer also counts the batches before a resumed training.
        done = int(self.model.optimizer.iterations)
        self._progress.update(done, f"batch {done:,} of {self._steps:,}")

    def on_epoch_end(self, epoch, logs=None):
        # With few images there are hundreds of epochs of a second each.
        now, epochs = time.monotonic(), self.params["epochs"]
        if now - self._last_epoch < progress.SECONDS and epoch + 1 < epochs:
            return
        self._last_epoch = now
        self._say(
            f"  epoch {epoch + 1} of {epochs}: loss "
            f"{logs['loss']:.3f}, {logs['clean_agreement']:.1%} as before, "
            f"{logs['perturbed_agreement']:.1%} under attack",
            flush=True,
        )


def compared(before, after, pictures, held_out, **training):
    """Returns what a training was worth, a `Hardening`.

    Args:
        before, after: `Audit`s, with the same parts of the pictures; that of
            after tried the perturbation of before.
        pictures: `datasets.Pictures`.
        held_out: Integer array, the indices of those measured on.
        **training: What a `Hardening` says of it: `history`, `settings`,
            `training_passes`, `training_seconds` and `seconds`.
    """
    groups = None if pictures.groups is None else pictures.groups[held_out]
    answers = before.report.clean_labels
    kept = after.report.clean_labels == answers
    robust = after.report.perturbed_labels == answers
    gain = before.report.fooled.astype(float) - after.report.fooled
    labels = None if pictures.labels is None else pictures.labels[held_out]

    def accuracy(answers):
        return None if labels is None else float(np.mean(answers == labels))

    def rate(*names):
        return max(run.fooling_rate for run in after.runs if run.name in names)

    # What comes from gradients of the hardened classifier alone. Compared on
    # the same pictures with those that do not, it is not chosen on others.
    others = (
        attack_suite.KNOWN,
        attack_suite.KNOWN_START,
        attack_suite.DATA_FREE,
    )
    fresh = max(
        run.fooling_rate for run in after.runs if run.name not in others
    )
    result = Hardening(
        before=before,
        after=after,
        gain_interval=difference_interval(gain, groups),
        agreement=float(kept.mean()),
        agreement_interval=rate_interval(kept, groups),
        robust_agreement_before=float(
            np.mean(before.report.perturbed_labels == answers)
        ),
        robust_agreement=float(robust.mean()),
        robust_agreement_interval=rate_interval(robust, groups),
        transferred_rate=rate(attack_suite.KNOWN),
        data_free_rate=rate(attack_suite.DATA_FREE),
        fresh_rate=fresh,
        longer_rate=rate(*attack_suite.MORE_WORK),
        accuracy_before=accuracy(answers),
        accuracy=accuracy(after.report.clean_labels),
        robust_accuracy=accuracy(after.report.perturbed_labels),
        **training,
        warnings=(),
    )
    return dataclasses.replace(result, warnings=tuple(warnings_of(result)))
