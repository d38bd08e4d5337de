"""Hardens a classifier between two audits.

1. The images fall into the parts of an audit: fit, select, held out.
2. An audit of the original classifier finds the strongest of several attacks.
3. `AdversarialDistiller` trains the classifier on augmented images of the part
   to fit, in rounds. Its memory starts with the perturbation of the audit. At
   the start of each later round, an attack on the current classifier is added.
4. The same audit of the hardened classifier, on the same images. It also
   evaluates the perturbation of the first audit, and starts an attack from it.

Robust agreement is what a user gets: the share of held-out images on which the
hardened classifier under attack keeps the original clean prediction. A
classifier with one prediction for all images is never fooled, and agrees with
nothing.

Reference:
    - [Zhang et al., 2019](https://arxiv.org/abs/1901.08573)
"""

import contextlib
import dataclasses
import functools
import json
import time
import zlib

import keras
import numpy as np
import tensorflow as tf

from keras_uap.attacks.callbacks import BackupAndRestore
from keras_uap.attacks.fitting import BATCH
from keras_uap.classifiers.adapter import as_adapter
from keras_uap.classifiers.around import classifier_config
from keras_uap.data import augmentation
from keras_uap.data.pictures import without_tuner
from keras_uap.defenses.adversarial_distiller import (
    AdversarialDistiller,
    check_trainable,
)
from keras_uap.defenses.hardening import Hardening, warnings_of
from keras_uap.evaluation import attack_suite, audit
from keras_uap.evaluation.intervals import difference_interval, rate_interval
from keras_uap.perturbations.lp_ball import LpBall
from keras_uap.perturbations.pixels import as_value_range
from keras_uap.utils import progress
from keras_uap.utils.saving import (
    atomic_path,
    delete_unfinished,
    random_state_kept,
)
from keras_uap.utils.validation import (
    as_numbers,
    check_counts,
    check_number,
    explained,
)

__all__ = ["Hardening", "harden"]

# The augmented views that the training draws with `epochs=None`.
DRAWS = 6500
ROUNDS = 3
# The attack at the start of a round, and its share of the training's passes.
ROUND_ATTACK = attack_suite.Attack("coarse to fine", start="coarse")
ROUND_SHARE = 9 / 80
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
    keep=False,
):
    """Hardens a classifier in place, with an audit before and after.

    `result.at(0)` returns the original classifier.

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
        images: As for `keras_uap.audit`: an array `(n, H, W, C)`, a dataset
            or a folder. Six tenths are trained on; the audits use the rest.
        labels: Array `(n,)` of class indices, with `images` an array. `None`
            takes the classifier's own predictions, the better choice if it
            was trained on more images than these.
        groups: Array `(n,)`, the photograph that each image was cut from; for
            a folder, a rule as for `datasets.load`.
        epsilon: Float above 0, the radius of the ball, in pixel units.
        norm: `"linf"` or `"l2"`.
        value_range: Pair of floats, the pixel range that the classifier takes,
            or `None`.
        robustness: Float between 0 and 1, the weight of perturbed images. A
            higher one keeps fewer of the clean predictions. `Hardening.at`
            trades one for the other after the training.
        epochs: Integer, the epochs over the images to fit on. `None` takes
            as many as show 6,500 images. With fewer than three epochs, fewer
            attacks on the current classifier join the memory.
        learning_rate: Float above 0, of Adam, with a cosine decay to 0.
        budget: `"quick"`, at most 25,000 model passes in each of the two
            audits, or `"standard"`, at most 55,000.
        seed: Integer; parts, orders and starts follow from it.
        from_logits: Boolean, whether the classifier returns logits. `None`
            finds out.
        verbose: `"auto"` or 1 for lines with the time left, 0 for none.
        backup_dir: String or path of a folder that keeps the training after
            each epoch, and what each attack of the two audits finds, or
            `None`. After an interruption, the same call on the original
            classifier resumes, with other augmentation. The backup is deleted
            once all is done.
        keep: Boolean, whether a classifier that came out worse stays as it is.
            By default it gets its original weights back if clean predictions
            changed and no gain in robust agreement is shown.

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
    pictures = audit.as_pictures(classifier, images, groups, value_range)
    if labels is not None:
        labels, count = as_numbers("labels", labels), len(pictures.images)
        if labels.shape != (count,) or labels.dtype.kind not in "iu":
            raise ValueError(
                f"labels must be class indices of shape ({count},). Received: "
                f"{labels.dtype} of shape {labels.shape}."
            )
        pictures = pictures._replace(labels=labels)
    parts = [pictures.take(part) for part in pictures.split(seed=seed)]
    if labels is None:
        # Labels of a data set balance the parts, and play no other role.
        parts = [part._replace(labels=None) for part in parts]
    strategy = getattr(classifier, "distribute_strategy", None)
    strategy = strategy or tf.distribute.get_strategy()
    with random_state_kept(), strategy.scope():
        result = harden_pictures(
            classifier,
            parts,
            ball,
            value_range,
            robustness=robustness,
            epochs=epochs,
            learning_rate=learning_rate,
            budget=budget,
            seed=seed,
            from_logits=from_logits,
            verbose=verbose,
            backup_dir=backup_dir,
            keep=keep,
        )
    if backup_dir is not None:
        delete_backup(backup_dir)
    return result


def harden_pictures(
    classifier,
    parts,
    ball,
    value_range,
    *,
    robustness=ROBUSTNESS,
    epochs=None,
    learning_rate=LEARNING_RATE,
    budget="quick",
    seed=0,
    from_logits=None,
    verbose=0,
    backup_dir=None,
    keep=False,
    before=None,
):
    """`harden` of three `Pictures` and an `LpBall`, already checked.

    Args: as for `harden`, and `parts` as for `audit.audit_pictures`. The files
        in `backup_dir` stay, until `delete_backup`. `before` is the audit of
        the original classifier, if it was made already.
    """
    check_number("learning_rate", learning_rate, above=0, below=np.inf)
    check_counts(epochs=epochs)
    audit.check_parts(parts, ball)
    check_trainable(classifier)
    write = print if verbose else progress.silent
    fit, select, held_out = parts
    shape = fit.images.shape[1:]
    epochs = epochs or epochs_for(len(fit.images))
    distiller = _distiller(
        classifier, ball, value_range, robustness, seed, from_logits
    )
    distiller.build((None, *shape))
    for part in parts:
        distiller.check_labels(part.labels)
    settings = _settings(distiller, fit, epochs, learning_rate, budget)
    backup = None
    if backup_dir is not None:
        backup = _Backup(backup_dir)
        backup.claim(settings | _identity(distiller, fit))
    # Its traced functions read the weights as they are in each audit.
    adapter = as_adapter(classifier, shape, from_logits, select.images[:4])
    arguments = adapter, parts, ball, value_range, budget, seed
    audited = functools.partial(
        audit.audit_pictures, *arguments, verbose=verbose, hardened=True
    )
    if before is None:
        write("An audit of the classifier as it is.", flush=True)
        before = audited(backup_dir=backup and backup.before)
    show(distiller, before.perturbation, 0)
    config, original = classifier_config(classifier), classifier.get_weights()
    try:
        history, seconds = _train(
            distiller, adapter, fit, settings, backup, write
        )
        write("The same audit of the hardened classifier.", flush=True)
        after = audited(
            known=before.perturbation, backup_dir=backup and backup.after
        )
    except audit.AuditInterrupted:
        raise  # The training was completed.
    except BaseException:
        classifier.set_weights(original)
        raise
    attack_passes = sum(history["attack_passes"])
    result = compared(
        before,
        after,
        held_out,
        keep=keep,
        ends=(config, original, classifier.get_weights()),
        history=history,
        settings=settings,
        training_passes=passes_of(fit, epochs) + int(attack_passes),
        training_seconds=seconds,
        seconds=before.seconds + seconds + after.seconds,
    )
    if result.restored:
        classifier.set_weights(original)
    return result


def _distiller(classifier, ball, value_range, robustness, seed, from_logits):
    return AdversarialDistiller(
        classifier,
        ball.epsilon,
        ball.norm,
        value_range,
        robustness,
        TEMPERATURE,
        seed=seed,
        from_logits=from_logits,
        pool_size=2,
        memory_size=ROUNDS,
    )


def _settings(distiller, fit, epochs, learning_rate, budget):
    """The settings that a `Hardening` reports, as plain Python numbers."""
    names = ("robustness", "temperature", "step_size")
    names += ("pool_size", "memory_size")
    return {name: getattr(distiller, name) for name in names} | {
        "epochs": int(epochs),
        "learning_rate": float(learning_rate),
        "batch_size": BATCH,
        "labels": fit.labels is not None,
        "budget": budget,
        "seed": int(distiller.seed),
    }


def _identity(distiller, fit):
    """What else must be equal where a training is resumed."""
    names = ("epsilon", "norm", "value_range", "from_logits")
    return {name: getattr(distiller, name) for name in names} | {
        "images": _checksum([fit.images]),
        "labels": fit.labels is not None and _checksum([fit.labels]),
        "weights": _checksum(distiller.classifier.get_weights()),
    }


def _train(distiller, adapter, fit, settings, backup, write):
    """Trains the classifier of a distiller, which has an adapter for attacks.

    Returns:
        The history and the seconds, those before an interruption included.
    """
    count, epochs = len(fit.images), settings["epochs"]
    steps = epochs * -(-count // BATCH)
    plan = f"Training, {epochs} epochs of {count} images, {steps:,} batches."
    write(plan, flush=True)
    data = training_data(fit, distiller.value_range, distiller.seed)
    distiller.compile(falling_adam(settings["learning_rate"], steps))
    attacker = attack_suite.Attacker(
        adapter, fit, distiller.ball, distiller.value_range, None, write
    )
    passes = int(ROUND_SHARE * passes_of(fit, epochs))
    callbacks = [keras.callbacks.TerminateOnNaN(), _Progress(write, steps)]
    callbacks += [Rounds(attacker, passes, write), *filter(None, [backup])]
    begun = time.time()
    # The data set shuffles.
    history = distiller.fit(
        data, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks
    ).history
    seconds = time.time() - begun
    if backup:
        history, seconds = backup.history()
    finite = [*distiller.classifier.get_weights(), history["loss"]]
    if not all(np.isfinite(each).all() for each in finite):
        raise ValueError(
            "The training diverged: its loss or weights are not finite, and "
            "the classifier has its former weights again. Received: "
            f"learning_rate={settings['learning_rate']:g}. Pass a lower one."
        )
    return history, seconds


def epochs_for(count):
    """The number of epochs for `epochs=None` and `count` images."""
    return -(-DRAWS // count)


def delete_backup(backup_dir):
    """Deletes the backup of a hardening, once its result is saved."""
    _Backup(backup_dir).delete()


def passes_of(fit, epochs):
    """The model passes of a training, without its attacks."""
    # A forward and a backward of the clean and of the perturbed image, and a
    # forward of the teacher where there are no labels.
    return (4 + (fit.labels is None)) * epochs * len(fit.images)


def show(distiller, perturbation, turn):
    """Adds a perturbation to the memory, and starts one of the pool from it."""
    if distiller.memory_size:
        distiller.remember(perturbation)
    pool = keras.ops.convert_to_numpy(distiller.v).copy()
    pool[turn] = perturbation
    distiller.v.assign(pool)


def falling_adam(learning_rate, steps, **kwargs):
    """Adam with a cosine decay of the learning rate to 0."""
    falling = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    return keras.optimizers.Adam(falling, **kwargs)


def training_data(fit, value_range, seed, augment=True):
    """Returns a data set of batches of the images to fit on.

    Args:
        fit: `Pictures`; with labels, the batches hold them too.
        value_range: Pair of floats or `None`.
        seed: Integer.
        augment: Boolean, whether images without labels are augmented. An
            augmented view may no longer show what a label says.
    """
    images, labels = fit.images, fit.labels
    if augment and labels is None and images.ndim == 4:
        return augmentation.views(fit, BATCH, value_range, seed)
    columns = images if labels is None else (images, labels)
    data = tf.data.Dataset.from_tensor_slices(columns)
    data = data.shuffle(len(images), seed=seed).batch(BATCH).prefetch(2)
    return without_tuner(data)


class Rounds(keras.callbacks.Callback):
    """Adds an attack on the current classifier to the memory, round by round.

    Args:
        attacker: `Attacker` of the classifier.
        passes: Integer, the model passes of each attack.
        write: Function that prints a line of progress.
    """

    def __init__(self, attacker, passes, write):
        super().__init__()
        self._attacker = attacker
        # Each part of the attack needs a few batches, however short it is.
        self._passes = max(10 * BATCH, passes)
        self._write = write

    def on_epoch_begin(self, epoch, logs=None):
        self._spent, rounds = 0, self.model.memory_size
        starts = {self.params["epochs"] * k // rounds for k in range(1, rounds)}
        if epoch == 0 or epoch not in starts:
            return
        self._write("  An attack on the current classifier.", flush=True)
        seed = self.model.seed + epoch
        (found,) = self._attacker.run(ROUND_ATTACK, self._passes, seed)
        self._spent = found.spent
        show(self.model, found.v, 1)

    def on_epoch_end(self, epoch, logs=None):
        # A backup keeps the history.
        logs["attack_passes"] = self._spent


class _Backup(BackupAndRestore):
    """Keeps the training, the audits and the settings until all is done."""

    def __init__(self, backup_dir):
        super().__init__(backup_dir, delete_checkpoint=False)
        self._settings = self.backup_dir / "settings.json"
        self.before = self.backup_dir / "before"
        self.after = self.backup_dir / "after"

    def claim(self, settings):
        """Writes the settings; raises ValueError if the folder has others."""
        facts = {"folder_made": not self.backup_dir.exists(), "history": []}
        backups = sorted(self._backups().values())
        if self._settings.exists():
            with explained(f"{self._settings} is no file of a hardening"):
                found = self._read()
                facts = {name: found.pop(name) for name in facts}
            # As JSON gives them: lists for tuples.
            if found != json.loads(json.dumps(settings)):
                raise ValueError(
                    f"{self.backup_dir} holds a training with other settings. "
                    f"Received: {settings}. Expected: {found}. Or delete it."
                )
        elif backups:
            raise ValueError(
                f"{self.backup_dir} holds {backups[0].name}, which is not of "
                "this training. Pass a folder for this training alone."
            )
        self.backup_dir.mkdir(parents=True, exist_ok=True)
        self._write(settings | facts)

    def _read(self):
        return json.loads(self._settings.read_text(encoding="utf-8"))

    def _write(self, facts):
        with atomic_path(self._settings) as path:
            path.write_text(json.dumps(facts, indent=1), encoding="utf-8")

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._begun = time.time()

    def on_epoch_end(self, epoch, logs=None):
        begun, self._begun = self._begun, time.time()
        logs = {name: float(value) for name, value in logs.items()}
        logs["seconds"] = self._begun - begun
        facts = self._read()
        # A kill before the weights are written repeats the epoch.
        facts["history"] = [*facts["history"][:epoch], logs]
        self._write(facts)
        super().on_epoch_end(epoch, logs)

    def history(self):
        """The logs and the seconds of all epochs, also before a restart."""
        epochs = self._read()["history"]
        history = {name: [each[name] for each in epochs] for name in epochs[0]}
        return history, sum(history.pop("seconds"))

    def delete(self):
        """Deletes what was written, and the folder if it was made for that."""
        super().delete()
        made = self._settings.exists() and self._read()["folder_made"]
        self._settings.unlink(missing_ok=True)
        for folder in (self.before, self.after):
            for path in folder.glob("run_*.npz"):
                if path.stem.removeprefix("run_").isdecimal():
                    path.unlink()
        for folder in (self.before, self.after, self.backup_dir):
            delete_unfinished(folder)
            if made or folder != self.backup_dir:
                with contextlib.suppress(OSError):  # Other files may be there.
                    folder.rmdir()


def _checksum(arrays):
    total = 0
    for array in arrays:
        total = zlib.crc32(np.ascontiguousarray(array), total)
    return total


class _Progress(keras.callbacks.Callback):
    """Prints about every ten seconds how far the training is."""

    def __init__(self, write, steps):
        super().__init__()
        self._write = write
        self._steps = steps
        self._progress = progress.Progress("batches", steps, write)
        self._last_epoch = 0.0

    def on_train_batch_end(self, batch, logs=None):
        # The optimizer also counts the batches before a resumed training.
        done = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        self._progress.update(done, f"batch {done:,} of {self._steps:,}")

    def on_epoch_end(self, epoch, logs=None):
        # With few images there are hundreds of epochs of a second each.
        now, epochs = time.monotonic(), self.params["epochs"]
        if now - self._last_epoch < progress.SECONDS and epoch + 1 < epochs:
            return
        self._last_epoch = now
        self._write(
            f"  epoch {epoch + 1} of {epochs}: loss "
            f"{logs['loss']:.3f}, {logs['clean_agreement']:.1%} as before, "
            f"{logs['perturbed_agreement']:.1%} under attack",
            flush=True,
        )


def compared(before, after, held_out, keep=True, **training):
    """Compares two audits; returns a `Hardening`.

    Args:
        before, after: `Audit`s on the same parts. The second one evaluated the
            perturbation of the first.
        held_out: `Pictures`, the held-out part.
        keep: Boolean, as for `harden`.
        **training: The fields `history`, `settings`, `training_passes`,
            `training_seconds`, `seconds` and `ends` of the `Hardening`.
    """
    original = before.report.clean_labels
    clean, attacked = after.report.clean_labels, after.report.perturbed_labels
    kept, robust = clean == original, attacked == original
    robust_before = before.report.perturbed_labels == original
    gain = before.report.fooled.astype(float) - after.report.fooled
    robust_gain = difference_interval(
        robust.astype(float) - robust_before, held_out.groups
    )

    def accuracy(predictions):
        labels = held_out.labels
        return None if labels is None else float(np.mean(predictions == labels))

    def largest_rate(names):
        return max(run.fooling_rate for run in after.runs if run.name in names)

    # The attacks that follow gradients of the hardened classifier alone.
    attacks = attack_suite.ATTACKS
    fresh = {each.name for each in attacks if each.start != "transferred"}
    result = Hardening(
        before=before,
        after=after,
        gain_interval=difference_interval(gain, held_out.groups),
        agreement=float(kept.mean()),
        agreement_interval=rate_interval(kept, held_out.groups),
        robust_agreement_before=float(robust_before.mean()),
        robust_agreement=float(robust.mean()),
        robust_agreement_interval=rate_interval(robust, held_out.groups),
        robust_gain_interval=robust_gain,
        transferred_rate=largest_rate({attack_suite.TRANSFERRED}),
        data_free_rate=largest_rate({attack_suite.DATA_FREE}),
        fresh_rate=largest_rate(fresh),
        longer_rate=max(after.runs, key=lambda run: run.passes).fooling_rate,
        accuracy_before=accuracy(original),
        accuracy=accuracy(clean),
        robust_accuracy=accuracy(attacked),
        restored=bool(not keep and not kept.all() and robust_gain[0] <= 0),
        **training,
        warnings=(),
    )
    return dataclasses.replace(result, warnings=tuple(warnings_of(result)))
