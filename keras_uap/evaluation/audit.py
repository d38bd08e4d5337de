"""The standard evaluation: how fragile is a classifier?

A fooling rate is a lower bound, and no attack is the strongest on every
classifier. In the way of AutoAttack, the answer comes from a fixed set of
attacks that nobody has to tune:

1. The images fall into three parts by photograph: fit, select, held out.
2. Each run finds one perturbation on the part to fit, with a fixed number of
   model passes. Runs differ in what they minimise, where they start, and in
   their seed.
3. The one that fools most of the part to select is the strongest. Its rate is
   that on the held-out part: of one perturbation, never a union over runs.

An attack needs gradients, and a defence can hide them without being any
safer. Three signs of that are looked for and told in words: a perturbation
found without images beats those found on images; one of twice the norm fools
less; many images have no gradient.

The module is not called `audit`: `keras_uap.audit` is the function, found when
it is first used, and importing a module of that name would put the module in
its place.

Reference:
    - [Croce and Hein, 2020](https://arxiv.org/abs/2003.01690), AutoAttack
    - [Athalye et al., 2018](https://arxiv.org/abs/1802.00420), hidden gradients
"""

import collections
import dataclasses
import os
import textwrap
import time

import keras
import numpy as np

from keras_uap.classifiers.adapter import stated_shape
from keras_uap.data import loading
from keras_uap.data.pictures import Pictures
from keras_uap.data.pictures import as_pictures as read_pictures
from keras_uap.evaluation import attack_suite
from keras_uap.evaluation.attack_suite import (
    DATA_FREE,
    Attacker,
    passes_of,
    possible_runs,
)
from keras_uap.evaluation.audit_result import Audit, Run
from keras_uap.evaluation.intervals import (
    difference_interval,
    is_wide,
    rate_interval,
)
from keras_uap.evaluation.labelled_images import LabelledImages
from keras_uap.evaluation.report import TOO_FEW, fooling_report
from keras_uap.perturbations.lp_ball import LpBall
from keras_uap.perturbations.pixels import as_value_range, warn_of_other_range
from keras_uap.utils.formatting import percent
from keras_uap.utils.progress import Progress, in_words, silent
from keras_uap.utils.saving import random_state_kept
from keras_uap.utils.validation import as_groups, check_whole

__all__ = ["Audit", "Run", "audit"]

# The most pictures of a folder or a TFDS data set: they are kept in memory.
MOST = 2000

# From this share of images without a gradient on, a rate is not to be trusted.
_MANY = 0.1


class AuditInterrupted(KeyboardInterrupt):
    """Ctrl-C during an audit, after the first run.

    Attributes:
        audit: `Audit` of the runs that were finished.
    """

    def __init__(self, text, audit):
        super().__init__(text)
        self.audit = audit


def audit(
    classifier,
    images,
    groups=None,
    epsilon=10.0,
    norm="linf",
    value_range=(0, 255),
    budget="standard",
    seed=0,
    from_logits=None,
    verbose="auto",
):
    """Finds out how fragile a classifier is, with nothing to tune.

    Example:

    ```python
    audit = keras_uap.audit(classifier, "photos/")
    print(audit)
    audit.fooling_rate, audit.fooling_interval
    ```

    Args:
        classifier: Keras model that maps images to class scores: logits,
            softmax or a sigmoid. It is left exactly as it is.
        images: Array `(n, H, W, C)`; a `tf.data.Dataset` or
            `keras.utils.PyDataset` of batches of images or of
            `(images, labels)`; what `datasets.load` gives; or a string or
            path, a folder of pictures or the name of a TFDS data set. A folder
            in it is a class, and each class has its share of every part.
        groups: Array `(n,)`, the photograph that each image was cut from. Of
            a folder, names such as `<photograph>_<crop>` tell.
        epsilon: Float above 0, the radius of the ball, in pixel units.
        norm: `"linf"` or `"l2"`.
        value_range: Pair of floats, the pixel range that the classifier takes,
            or `None`. Pictures of a folder are brought to it.
        budget: `"quick"`, 5 runs of 2,000 model passes, or `"standard"`, 11
            runs of 6,000 and two of 18,000.
        seed: Integer; parts, orders and starts follow from it.
        from_logits: Boolean, whether the classifier returns logits. `None`
            finds out.
        verbose: `"auto"` or 1 for a line on each run with the time left, 0
            for none.

    Returns:
        An `Audit`.

    Raises:
        TypeError: if `classifier` is not a Keras model, or `images` are none
            of the above.
        ValueError: for arguments out of range, images that are too few, not
            finite or not of the classifier's size.
        AuditInterrupted: a `KeyboardInterrupt` after the first run; its
            `audit` holds what was found until then.

    Reference:
        - [Croce and Hein, 2020](https://arxiv.org/abs/2003.01690)
    """
    ball = LpBall(epsilon, norm)
    value_range = as_value_range(value_range)
    check_arguments(classifier, budget, seed, verbose)
    pictures = as_pictures(classifier, images, groups, value_range)
    with random_state_kept():
        return audit_pictures(
            classifier,
            pictures,
            ball,
            value_range,
            budget,
            seed,
            from_logits,
            verbose,
        )


def check_arguments(classifier, budget, seed, verbose):
    """Raises TypeError or ValueError for what `audit` does not take."""
    check_whole("seed", seed, 0)
    if budget not in attack_suite.BUDGETS:
        raise ValueError(
            f"Unknown budget. Received: budget={budget!r}. Expected one of "
            f"{sorted(attack_suite.BUDGETS)}."
        )
    if verbose not in ("auto", 0, 1):
        raise ValueError(
            f"verbose must be 'auto', 0 or 1. Received: verbose={verbose!r}."
        )
    if not isinstance(classifier, keras.Layer):
        raise TypeError(
            "classifier must be a Keras model that maps images to class "
            f"scores. Received: {classifier!r}."
        )


def audit_pictures(
    classifier,
    pictures,
    ball,
    value_range,
    budget,
    seed,
    from_logits=None,
    verbose=0,
    parts=None,
    known=None,
    more_work=False,
    batch_size=32,
    backup_dir=None,
):
    """`audit` of `datasets.Pictures` and an `LpBall`, already checked.

    Args:
        classifier, ball, value_range, budget, seed, from_logits, verbose: As
            for `audit`.
        pictures: `datasets.Pictures`.
        parts: Three integer arrays, the indices of the pictures to fit, to
            select and to measure on. `None` splits them.
        known: Array `(H, W, C)`, a perturbation found before, of another
            classifier, which is tried too, and started from. Or `None`.
        more_work: Boolean, whether the runs of 18,000 and 36,000 passes that
            judge a hardening belong to it, whatever the budget.
        batch_size: Integer, of the forward passes that measure.
        backup_dir: Path of a folder that keeps what each run finds. What is
            there is not looked for again: it must be of the same audit.

    Returns:
        An `Audit`.
    """
    started = time.time()
    warn_of_other_range(pictures.images, value_range, "images", 3)
    if parts is None:
        parts = pictures.split(seed=seed)
    say = print if verbose else silent
    judge = _Judge(
        classifier, pictures, value_range, from_logits, parts, batch_size, say
    )
    attacker = Attacker(
        classifier,
        ball,
        value_range,
        from_logits,
        judge.pictures_to_fit,
        known,
        say,
    )
    allowed = attack_suite.BUDGETS[budget]
    shape = pictures.images.shape[1:]
    runs, notes = possible_runs(
        classifier, allowed, known is not None, more_work, shape
    )
    notes += attacker.notes
    passes = [passes_of(name, allowed) for name, _ in runs]
    _say_plan(say, judge, passes, notes, ball)
    tried, begun, finished, spent = [], time.time(), 0, 0
    try:
        for i, (name, offset) in enumerate(runs):
            backup = backup_dir and backup_dir / f"run_{i}.npz"
            if backup and backup.exists():
                found, left = attack_suite.load(backup), "; kept from before"
            else:
                found = attacker.run(name, seed + offset, passes[i])
                if backup:
                    attack_suite.save(backup, found)
                spent += passes[i]
                each = (time.time() - begun) / spent
                left = each * sum(passes[i + 1 :])
                left = f"; {in_words(left)} left" if left else ""
            rate = judge.measure(found[-1])
            tried, finished = tried + found, i + 1
            say(
                f"  {finished} of {len(runs)}: {name}, seed {seed + offset}: "
                f"{rate:.1%} of those that choose{left}",
                flush=True,
            )
    except KeyboardInterrupt as error:
        if not finished:
            raise
        stopped = f"interrupted after {finished} of {len(runs)} runs"
        say(f"\n  {stopped}; measuring what they found", flush=True)
        result = _result(judge, tried, ball, budget, seed, notes, started)
        warning = f"{stopped.capitalize()}: the others may fool more."
        result = dataclasses.replace(
            result, warnings=(warning, *result.warnings)
        )
        raise AuditInterrupted(stopped, result) from error
    return _result(judge, tried, ball, budget, seed, notes, started)


def with_held_out(pictures, held_out, parts):
    """Puts pictures and others, which alone are measured on, together.

    Args:
        pictures, held_out: `datasets.Pictures`.
        parts: Two integer arrays, the indices of `pictures` to fit and to
            select.

    Returns:
        `datasets.Pictures` and the indices of its three parts.
    """
    both = (pictures, held_out)

    def joined(name):
        columns = [getattr(each, name) for each in both]
        if any(column is None for column in columns):
            return None
        return np.concatenate(columns)

    groups = [
        # A picture of no known photograph is one of its own.
        [f"{i} {name}" for name in groups]
        for i, groups in enumerate(
            range(len(each.images)) if each.groups is None else each.groups
            for each in both
        )
    ]
    together = pictures._replace(
        images=joined("images"),
        labels=joined("labels"),
        paths=joined("paths"),
        groups=np.concatenate(groups),
        folders=None,
    )
    start = len(pictures.images)
    return together, (*parts, start + np.arange(len(held_out.images)))


class _Judge:
    """The images in their parts, and the rates on those not fitted on."""

    def __init__(
        self,
        classifier,
        pictures,
        value_range,
        from_logits,
        parts,
        batch_size,
        say,
    ):
        self.name = classifier.name
        self._classifier = classifier
        self._from_logits = from_logits
        self._lines = Progress("images classified", write=say)
        images, groups = pictures.images, pictures.groups
        fit, select, held_out = parts
        self.images_to_fit = images[fit]
        paths = pictures.paths
        self.pictures_to_fit = Pictures(
            self.images_to_fit, paths=None if paths is None else paths[fit]
        )
        self.num_select = len(select)
        others = np.concatenate([select, held_out])
        self.held_out = images[held_out]
        self.groups = None if groups is None else groups[held_out]
        as_groups(self.groups, self.held_out)
        self.labelled = LabelledImages(
            classifier,
            images[others],
            value_range,
            None if groups is None else groups[others],
            batch_size,
            from_logits,
            self._lines,
        )
        self.forwards = len(others)
        self.hits = {}

    def fooled(self, v):
        self.forwards += len(self.labelled.images)
        return self.labelled.fooled(v, self._lines)

    def measure(self, attack):
        """Remembers whom an attack fools; returns the rate that chooses."""
        hits = self.hits[id(attack)] = self.fooled(attack.v)
        return float(hits[: self.num_select].mean())

    def row(self, attack):
        if id(attack) not in self.hits:
            self.measure(attack)
        hits = self.hits[id(attack)]
        held_out = hits[self.num_select :]
        return Run(
            attack.name,
            attack.seed,
            attack.passes,
            attack.seconds,
            attack.no_gradient,
            float(hits[: self.num_select].mean()),
            float(held_out.mean()),
            rate_interval(held_out, self.groups),
        )

    def difference(self, hits, others, first=0):
        """The interval of how much more often the first are fooled."""
        groups = self.labelled.groups
        return difference_interval(
            hits[first:].astype(float) - others[first:],
            None if groups is None else groups[first:],
        )

    def report(self, v, norm, seed):
        report = fooling_report(
            self._classifier,
            v,
            self.held_out,
            groups=self.groups,
            norm=norm,
            value_range=self.labelled.value_range,
            seed=seed,
            batch_size=self.labelled.batch_size,
            from_logits=self._from_logits,
            verbose=self._lines,
        )
        # Clean, perturbed, rounded, unclipped, three draws of noise.
        self.forwards += 7 * len(self.held_out) + report.examples.labels.size
        return report


def as_pictures(classifier, images, groups, value_range):
    """Returns what the caller named as `datasets.Pictures`."""
    shape = stated_shape(classifier)
    if isinstance(images, (str, os.PathLike)):
        if groups is not None:
            raise ValueError(
                "groups go with an array of images. Received: groups, and "
                f"images={images!r}."
            )
        if shape is None or len(shape) != 3 or shape[-1] not in (1, 3):
            raise ValueError(
                "Pictures of a folder can be read for a classifier that "
                "states their size, (height, width, 1 or 3). Received: "
                f"{shape}. Pass an array of images, or state the size with "
                "keras_uap.attach(classifier, image_shape=...)."
            )
        color_mode = "grayscale" if shape[-1] == 1 else "rgb"
        pictures = loading.load(
            images, shape[:2], limit=MOST, color_mode=color_mode
        )
        if value_range not in (None, (0.0, 255.0)):
            low, high = value_range
            scaled = pictures.images.astype("float32") * (high - low) / 255
            pictures = pictures._replace(images=scaled + np.float32(low))
        return pictures
    pictures = read_pictures(images, "images", groups)
    if shape is not None and pictures.images.shape[1:] != shape:
        raise ValueError(
            "The images do not have the size that the classifier takes. "
            f"Received: {pictures.images.shape}. Expected: (n, "
            f"{', '.join(map(str, shape))})."
        )
    return pictures


def _result(judge, tried, ball, budget, seed, notes, started):
    """Chooses the strongest, measures it, and looks for what smells."""
    runs = [judge.row(attack) for attack in tried]
    best = int(np.argmax([run.select_rate for run in runs]))
    v, strongest = tried[best].v, runs[best]
    report = judge.report(v, ball.norm, seed)
    larger = judge.fooled(LpBall(2 * ball.epsilon, ball.norm).scaled(v))
    hits = [judge.hits[id(attack)] for attack in tried]
    found = _others(judge, runs, hits, best)
    found += _smells(judge, runs, hits, hits[best], larger, report)
    if is_wide(report.fooling_interval):
        found.append(TOO_FEW)
    card = {
        "norm": ball.norm,
        "epsilon": ball.epsilon,
        "value_range": judge.labelled.value_range,
        "classifier": judge.name,
        "seed": strongest.seed,
        "found_by": f"audit, budget {budget}, run {strongest.name}",
        "held_out": report.for_card(),
    }
    # The passes of a data-free start are those of the data-free one too.
    attacking = sum(run.passes for run in runs if run.name != DATA_FREE)
    return Audit(
        fooling_rate=report.fooling_rate,
        fooling_interval=report.fooling_interval,
        random_rate=report.random_rate,
        larger_rate=float(larger[judge.num_select :].mean()),
        perturbation=v,
        strongest=strongest,
        runs=tuple(runs),
        report=report,
        budget=budget,
        num_fit=len(judge.images_to_fit),
        num_select=judge.num_select,
        num_images=report.num_images,
        num_groups=report.num_groups,
        passes=attacking + judge.forwards,
        seconds=time.time() - started,
        warnings=tuple(found),
        notes=tuple(notes),
        card=card,
    )


def _others(judge, runs, hits, best):
    """A sentence on a run that fools clearly more than the one chosen."""
    rates = [run.fooling_rate for run in runs]
    top = int(np.argmax(rates))
    if rates[top] <= rates[best]:
        return []
    low, _ = judge.difference(hits[top], hits[best], judge.num_select)
    if low <= 0:
        return []
    return [
        f"Another run, {runs[top].name}, fools {percent(rates[top])} of the "
        f"held-out images, more than the {percent(rates[best])} of the one "
        f"that the {judge.num_select} others chose: they are too few, or not "
        "alike. The classifier is more fragile than the rate says."
    ]


def _smells(judge, runs, hits, best, larger, report):
    """Sentences on signs of gradients that are hidden."""
    found = []
    with_data = [i for i, run in enumerate(runs) if run.name != DATA_FREE]
    top = max(with_data, key=lambda i: runs[i].select_rate)
    for i, run in enumerate(runs):
        if run.name == DATA_FREE:
            low, _ = judge.difference(hits[i], hits[top])
            if low > 0:
                found.append(
                    "A perturbation found without images fools more than any "
                    "found on images: the gradients may be hidden, and the "
                    "classifier more fragile than measured."
                )
                break
    _, high = judge.difference(larger, best)
    if high < 0:
        found.append(
            "The perturbation fools less at twice the norm: the gradients "
            "may be hidden, and the classifier more fragile than measured."
        )
    missing = max(run.no_gradient for run in runs)
    if missing >= _MANY:
        found.append(
            f"Of the images shown to a run, {missing:.0%} had no usable "
            "gradient: the scores may be saturated or rounded. Pass a "
            "classifier that returns logits, if there is one."
        )
    if report.random_rate >= report.fooling_rate > 0:
        found.append(
            "Random noise of the same norm fools as much as the strongest "
            "perturbation: the attacks failed, or the classifier is unsure of "
            "these images as they are."
        )
    return found


def _say_plan(say, judge, passes, notes, ball):
    """Says what comes and how long it will take."""
    if say is silent:
        return
    # The first forwards traced the classifier; these measure its speed.
    rng = np.random.default_rng(0)
    begun = time.time()
    judge.fooled(ball.noise(judge.held_out.shape[1:], rng))
    forward = (time.time() - begun) / len(judge.labelled.images)
    # Half of the passes are backwards, which take about twice as long.
    needed = sum(passes) * 1.5 * forward
    counts = sorted(collections.Counter(passes).items())
    each = [f"{count} of {most:,}" for most, count in counts]
    if len(counts) == 1:
        each = f" of {passes[0]:,} model passes"
    else:
        each = f", {', '.join(each[:-1])} and {each[-1]} model passes,"
    plan = (
        f"{len(passes)} attacks{each} on "
        f"{len(judge.images_to_fit)} images; {judge.num_select} others choose "
        f"the strongest, {len(judge.held_out)} more are measured on. This "
        f"takes about {in_words(needed)}."
    )
    for note in (plan, *notes):
        say(textwrap.fill(note, 78), flush=True)
