"""The standard evaluation: how fragile is a classifier?

A stronger attack may fool more, and no attack is the strongest on every
classifier. Like AutoAttack, an audit runs a fixed set of attacks that nobody
has to tune:

1. The images fall into three parts by photograph: fit, select, held out.
2. Attacks find perturbations on the part to fit. They differ in what they
   minimise and where they start. They race: short attacks of
   every kind compete, and those that fool most of the part to select go on
   with more model passes (see `race`).
3. The perturbation that fools most of the part to select is the strongest. Its
   rate is that on the held-out part: of one perturbation, never a union.

An attack needs gradients, and a defense can mask them without being any safer.
Four symptoms are reported as warnings: a perturbation found without images
fools more than those found on images; one of twice the norm fools less; many
images have no gradient; random noise fools as much.

Reference:
    - [Croce and Hein, 2020](https://arxiv.org/abs/2003.01690), AutoAttack
    - [Athalye et al., 2018](https://arxiv.org/abs/1802.00420), masked gradients
"""

import dataclasses
import os
import textwrap
import time

import numpy as np

from keras_uap.classifiers.adapter import as_adapter, stated_shape
from keras_uap.classifiers.logits import check_classifier
from keras_uap.data import loading
from keras_uap.data.pictures import as_pictures as read_pictures
from keras_uap.evaluation import attack_suite, intervals
from keras_uap.evaluation.attack_suite import Attacker, attacks_for
from keras_uap.evaluation.audit_result import Audit, Run
from keras_uap.evaluation.changes import survival_in
from keras_uap.evaluation.labelled_images import LabelledImages
from keras_uap.evaluation.race import BUDGETS, for_hardening, race
from keras_uap.evaluation.report import TOO_FEW, report_on
from keras_uap.perturbations.lp_ball import LpBall
from keras_uap.perturbations.pixels import as_value_range, warn_of_other_range
from keras_uap.utils.formatting import percent
from keras_uap.utils.progress import Progress, in_words, silent
from keras_uap.utils.saving import random_state_kept
from keras_uap.utils.validation import check_whole

__all__ = ["Audit", "AuditInterrupted", "Run", "audit"]

# The most images of a folder or a TFDS data set, which are kept in memory. A
# note says where there were more.
MOST = 2000

# The share of its model passes that an audit adds to measure survival.
_SURVIVAL = 0.03

# At this share of images without a gradient, a warning is due.
_MANY = 0.1


class AuditInterrupted(KeyboardInterrupt):
    """Raised for Ctrl-C during an audit, after its first attack.

    Args:
        text: String, how many attacks were finished.
        audit: `Audit` of these attacks.

    Attributes:
        audit: `Audit` of the attacks that were finished.
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
            path, a folder of images or the name of a TFDS dataset. A folder
            in it is a class, and each class has its share of every part. Of
            a folder, at most 2,000 images are taken, from all over it.
        groups: Array `(n,)`, the photograph that each image was cut from. For
            a folder, a rule as for `datasets.load`: `"none"`, `"name"`,
            `"folder"` or a regular expression; `None` reads the names.
        epsilon: Float above 0, the radius of the ball, in pixel units.
        norm: `"linf"` or `"l2"`.
        value_range: Pair of floats, the pixel range that the classifier takes,
            or `None`. Images of a folder are scaled to it.
        budget: `"quick"`, at most 11,000 model passes, or `"standard"`, at most
            55,000. `"quick"` always runs all of its rounds. `"standard"` ends
            before its limit where more work for the best attack gains less
            than one point twice in a row.
        seed: Integer; parts, orders and starts follow from it.
        from_logits: Boolean, whether the classifier returns logits. `None`
            finds out.
        verbose: `"auto"` or 1 for a line on each attack with the time left,
            0 for none.

    Returns:
        An `Audit`.

    Raises:
        TypeError: if `classifier` is not a Keras model, or `images` are none
            of the above.
        ValueError: for arguments out of range, images that are too few, not
            finite or not of the classifier's size.
        AuditInterrupted: a `KeyboardInterrupt` after the first attack;
            `AuditInterrupted.audit` holds what was found until then.

    Reference:
        - [Croce and Hein, 2020](https://arxiv.org/abs/2003.01690)
        - [Jamieson and Talwalkar, 2016](https://arxiv.org/abs/1502.07943)
    """
    ball = LpBall(epsilon, norm)
    value_range = as_value_range(value_range)
    check_arguments(classifier, budget, seed, verbose)
    pictures = as_pictures(classifier, images, groups, value_range)
    parts = [pictures.take(part) for part in pictures.split(seed=seed)]
    with random_state_kept():
        options = budget, seed, from_logits, verbose
        return audit_pictures(classifier, parts, ball, value_range, *options)


def check_arguments(classifier, budget, seed, verbose):
    """Raises TypeError or ValueError for what `audit` does not take."""
    check_whole("seed", seed, 0)
    if budget not in BUDGETS:
        raise ValueError(
            f"Unknown budget. Received: budget={budget!r}. Expected one of "
            f"{sorted(BUDGETS)}."
        )
    if verbose not in ("auto", 0, 1):
        raise ValueError(
            f"verbose must be 'auto', 0 or 1. Received: verbose={verbose!r}."
        )
    check_classifier(classifier)


def audit_pictures(
    classifier,
    parts,
    ball,
    value_range,
    budget,
    seed,
    from_logits=None,
    verbose=0,
    known=None,
    hardened=False,
    batch_size=32,
    backup_dir=None,
):
    """`audit` of three `Pictures` and an `LpBall`, already checked.

    Args:
        classifier: As for `audit`, or its `ClassifierAdapter`.
        parts: Three `Pictures`: to fit on, to select with, held out.
        ball, value_range, budget, seed, from_logits, verbose: As for `audit`.
        known: Array `(H, W, C)`, a perturbation of another classifier. It is
            evaluated, and one attack starts from it. Or `None`.
        hardened: Boolean, whether the audit judges a hardening, which takes
            more work: see `race.for_hardening`.
        batch_size: Integer, of the forward passes that measure.
        backup_dir: Path of a folder that keeps what each attack finds. What is
            there is not found again: it must be of the same audit.

    Returns:
        An `Audit`.
    """
    started = time.time()
    write = print if verbose else silent
    fit, select, held_out = parts
    check_parts(parts, ball)
    warn_of_other_range(fit.images, value_range, "images", 3)
    num_fit, *shape = fit.images.shape
    adapter = as_adapter(classifier, shape, from_logits, select.images[:4])
    evaluation = _Evaluation(
        adapter, select, held_out, value_range, batch_size, write
    )
    attacker = Attacker(adapter, fit, ball, value_range, known, write)
    attacks, notes = attacks_for(adapter, known is not None)
    taken = dict.fromkeys(note for part in parts for note in part.notes)
    notes = [*taken, *notes, *attacker.notes]
    work = BUDGETS[budget]
    if hardened:
        work = for_hardening(work)
    if write is not silent:
        _write_plan(write, evaluation, num_fit, attacks, notes, work)
    contest = _Contest(attacker, evaluation, work.most, seed, backup_dir, write)
    interrupt = None
    try:
        race(attacks, work, contest.go_on)
    except KeyboardInterrupt as error:
        # A backup holds what was found: the same call goes on from there.
        if not evaluation.runs or backup_dir is not None:
            raise
        interrupt = error
        count = len(evaluation.runs)
        stopped = f"interrupted after {count} perturbation{'s' * (count > 1)}"
        write(f"\n  {stopped}; measuring what they do", flush=True)
    seconds = time.time() - started + evaluation.seconds_before
    found = _result(evaluation, num_fit, ball, budget, seed, notes, seconds)
    if interrupt is None:
        return found
    warning = f"{stopped.capitalize()}: more work may fool more."
    found = dataclasses.replace(found, warnings=(warning, *found.warnings))
    raise AuditInterrupted(stopped, found) from interrupt


class _Contest:
    """Runs the attacks of a race, and measures what they find.

    Args:
        attacker: `Attacker`.
        evaluation: `_Evaluation`.
        most: Integer, the model passes of all attacks at most.
        seed: Integer, of the audit.
        backup_dir: Path of the folder of `audit_pictures`, or `None`.
        write: Function that prints a line of progress.
    """

    def __init__(self, attacker, evaluation, most, seed, backup_dir, write):
        self._attacker = attacker
        self._evaluation = evaluation
        self._most = most
        self._seed = seed
        self._backup_dir = backup_dir
        self._write = write
        self._latest = {}
        self._fits = self._spent = 0
        self._seconds = self._timed = 0

    def go_on(self, attack, passes):
        """Continues an attack; returns its rate on the selection set."""
        backup = None
        if self._backup_dir is not None:
            backup = self._backup_dir / f"run_{self._fits}.npz"
        self._fits += 1
        begun, kept = time.time(), backup is not None and backup.exists()
        if kept:
            findings = attack_suite.load(backup)
            self._evaluation.seconds_before += findings[-1].seconds
        else:
            latest = self._latest.get(attack)
            findings = self._attacker.run(attack, passes, self._seed, latest)
            if backup is not None:
                attack_suite.save(backup, findings)
        for finding in findings:
            run = self._evaluation.add(finding)
        self._latest[attack] = findings[-1]
        self._spent += findings[-1].spent
        note = "; from the backup"
        if not kept:
            self._seconds += time.time() - begun
            self._timed += findings[-1].spent
            note = self._time_left()
        self._write(
            f"  {attack.name}, seed {run.seed}, {run.passes:,} passes: "
            f"{run.select_rate:.1%} of the selection set{note}",
            flush=True,
        )
        return run.select_rate

    def _time_left(self):
        left = (self._most - self._spent) * self._seconds / self._timed
        return f"; at most {in_words(left)} left" if left > 0 else ""


class _Evaluation:
    """Findings, and which images they fool of those not fitted on.

    Attributes:
        select, held_out: `LabelledImages`.
        findings: List of `Finding`.
        fooled: List of boolean arrays, which images each finding fools: those
            of the selection set, then those of the held-out set.
        runs: List of `Run`, the row of each finding.
        forwards: Integer, the forward passes so far.
        seconds_before: Float, of findings kept from an interrupted audit.
    """

    def __init__(
        self, adapter, select, held_out, value_range, batch_size, write
    ):
        self._progress = Progress("images classified", write=write)
        options = value_range, batch_size, None, self._progress
        # The selection set may hold one photograph alone.
        alone = select._replace(groups=None)
        self.select = LabelledImages(adapter, alone, *options)
        self.held_out = LabelledImages(adapter, held_out, *options)
        self.num_select = len(select.images)
        # No photograph is in both parts.
        others = self.num_select + _photographs(held_out)
        self._groups = np.concatenate([_photographs(select), others])
        self.forwards = self.num_select + len(held_out.images)
        self.findings, self.fooled, self.runs = [], [], []
        self.seconds_before = 0.0

    def measure(self, v):
        """Boolean array, which images a perturbation fools."""
        self.forwards += self.num_select + len(self.held_out.images)
        select = self.select.fooled(v, self._progress)
        held_out = self.held_out.fooled(v, self._progress)
        return np.concatenate([select, held_out])

    def add(self, finding):
        """Measures a finding; returns its `Run`."""
        fooled = self.measure(finding.v)
        held_out = fooled[self.num_select :]
        names = ("name", "seed", "passes", "seconds", "no_gradient")
        bounds = intervals.rate_interval(held_out, self.held_out.groups)
        run = Run(
            **{name: getattr(finding, name) for name in names},
            select_rate=float(fooled[: self.num_select].mean()),
            fooling_rate=float(held_out.mean()),
            fooling_interval=bounds,
        )
        self.findings.append(finding)
        self.fooled.append(fooled)
        self.runs.append(run)
        return run

    def difference(self, fooled, others, first=0):
        """The interval of how much more often the former are fooled."""
        gain = fooled[first:].astype(float) - others[first:]
        return intervals.difference_interval(gain, self._groups[first:])

    def report(self, v, norm, seed):
        """The `FoolingReport` of a perturbation on the held-out images."""
        report = report_on(
            self.held_out, v, norm=norm, seed=seed, verbose=self._progress
        )
        # Perturbed, rounded, unclipped, three draws of noise.
        self.forwards += 6 * report.num_images + report.examples.labels.size
        return report


def check_parts(parts, ball):
    """Raises ValueError for what would fail after the last attack."""
    numbers = [len(np.unique(_photographs(part))) for part in parts]
    if numbers[-1] < 2:
        raise ValueError(
            f"The images are of {sum(numbers)} photographs, which are too few: "
            f"{numbers[-1]} of them is held out, and an interval needs two. "
            "Add images of other photographs, about seven in all."
        )
    if 2 * ball.epsilon > float(np.finfo("float32").max):
        raise ValueError(
            "epsilon must be a number whose double is finite in float32. "
            f"Received: epsilon={ball.epsilon:g}."
        )


def _photographs(pictures):
    """Integers `(n,)`, the photograph of each image."""
    if pictures.groups is None:
        return np.arange(len(pictures.images))
    return np.unique(pictures.groups, return_inverse=True)[1]


def as_pictures(classifier, images, groups, value_range):
    """Returns what the caller named as `datasets.Pictures`."""
    shape = stated_shape(classifier)
    if isinstance(images, (str, os.PathLike)):
        if shape is None or len(shape) != 3 or shape[-1] not in (1, 3):
            raise ValueError(
                "A folder needs a classifier that states its image shape, "
                f"(height, width, 1 or 3). Received: {shape}. State it with "
                "keras_uap.attach(classifier, image_shape=...)."
            )
        color_mode = "grayscale" if shape[-1] == 1 else "rgb"
        pictures = loading.load(
            images,
            shape[:2],
            limit=MOST,
            color_mode=color_mode,
            groups=groups,
        )
        if value_range not in (None, (0.0, 255.0)):
            low, high = value_range
            scaled = pictures.images.astype("float32") * (high - low) / 255
            pictures = pictures._replace(images=scaled + np.float32(low))
        return pictures
    return read_pictures(images, "images", groups)


def _result(evaluation, num_fit, ball, budget, seed, notes, seconds):
    """Selects the strongest finding and reports it."""
    runs, fooled = evaluation.runs, evaluation.fooled
    findings = evaluation.findings
    best = int(np.argmax([run.select_rate for run in runs]))
    v, strongest = findings[best].v, runs[best]
    report = evaluation.report(v, ball.norm, seed)
    larger = evaluation.measure(LpBall(2 * ball.epsilon, ball.norm).scaled(v))
    warnings = _selection_warnings(evaluation, best)
    warnings += _masking_warnings(evaluation, fooled[best], larger, report)
    if intervals.is_wide(report.fooling_interval):
        warnings.append(TOO_FEW)
    card = {
        "norm": ball.norm,
        "epsilon": ball.epsilon,
        "value_range": evaluation.held_out.value_range,
        "classifier": evaluation.held_out.adapter.classifier.name,
        "seed": strongest.seed,
        "found_by": f"audit, budget {budget}, run {strongest.name}",
        "held_out": report.for_card(),
    }
    passes = sum(each.spent for each in findings) + evaluation.forwards
    survival, more = survival_in(
        evaluation.held_out, v, report.fooled, int(_SURVIVAL * passes)
    )
    effort = _effort(runs, strongest)
    return Audit(
        fooling_rate=report.fooling_rate,
        fooling_interval=report.fooling_interval,
        random_rate=report.random_rate,
        larger_rate=float(larger[evaluation.num_select :].mean()),
        perturbation=v,
        strongest=strongest,
        runs=tuple(runs),
        report=report,
        budget=budget,
        num_fit=num_fit,
        num_select=evaluation.num_select,
        num_images=report.num_images,
        num_groups=report.num_groups,
        effort=effort,
        passes_to_half=_passes_to(0.5, effort),
        passes=passes + more,
        seconds=seconds,
        warnings=tuple(warnings),
        notes=tuple(notes),
        card=card,
        survival=survival,
    )


def _effort(runs, strongest):
    """Pairs of passes and fooling rate of the attack that was the strongest."""
    attack = strongest.name, strongest.seed
    same = [run for run in runs if (run.name, run.seed) == attack]
    return tuple((run.passes, run.fooling_rate) for run in same)


def _passes_to(rate, effort):
    """The passes at which an effort curve reaches a rate, or `None`.

    Between two points, and from no pass to the first one, the curve is a line.
    """
    passes, rates = np.array([(0, 0.0), *effort]).T
    rates = np.maximum.accumulate(rates)
    if rates[-1] < rate:
        return None
    after = int(np.argmax(rates >= rate))
    bounds = slice(max(after - 1, 0), after + 1)
    return round(np.interp(rate, rates[bounds], passes[bounds]))


def _selection_warnings(evaluation, best):
    """Warns of an attack that fools clearly more than the selected one."""
    rates = [run.fooling_rate for run in evaluation.runs]
    top = int(np.argmax(rates))
    fooled, first = evaluation.fooled, evaluation.num_select
    low, _ = evaluation.difference(fooled[top], fooled[best], first)
    if low <= 0:
        return []
    return [
        f"Another perturbation, {evaluation.runs[top].name}, fools "
        f"{percent(rates[top])} of the held-out images, more than the "
        f"{percent(rates[best])} of the one selected: the selection set of "
        f"{evaluation.num_select} images is too small or not alike. The "
        "classifier is more fragile than the rate says. Audit more images."
    ]


def _masking_warnings(evaluation, best, larger, report):
    """Warns of symptoms of masked gradients.

    Args:
        evaluation: `_Evaluation`.
        best, larger: Boolean arrays, which images the strongest perturbation
            fools, and which it fools at twice the norm.
        report: `FoolingReport` of the strongest perturbation.
    """
    warnings = [*evaluation.held_out.warnings]
    runs = evaluation.runs
    data_free = [finding.data_free for finding in evaluation.findings]
    if any(data_free):
        first = evaluation.fooled[data_free.index(True)]
        rates = [run.select_rate for run in runs]
        top = int(np.argmax(np.where(data_free, -1, rates)))
        low, _ = evaluation.difference(first, evaluation.fooled[top])
        if low > 0:
            warnings.append(
                "A perturbation found without images fools more than any "
                "found on images: the gradients may be hidden, and the "
                "classifier more fragile than measured."
            )
    _, high = evaluation.difference(larger, best)
    if high < 0:
        warnings.append(
            "The perturbation fools less at twice the norm: the gradients "
            "may be hidden, and the classifier more fragile than measured."
        )
    missing = max(run.no_gradient for run in runs)
    if missing >= _MANY:
        warnings.append(
            f"Of the images shown to an attack, {missing:.0%} had no usable "
            "gradient: the scores may be saturated or rounded. Pass a "
            "classifier that returns logits, if there is one."
        )
    if report.random_rate >= report.fooling_rate > 0:
        warnings.append(
            "Random noise of the same norm fools as much as the strongest "
            "perturbation: the attacks failed, or the classifier is unsure of "
            "these images as they are."
        )
    return warnings


def _write_plan(write, evaluation, num_fit, attacks, notes, budget):
    """Writes what comes and how long it will take."""
    # The clean predictions traced the classifier; this measures its speed.
    images = evaluation.held_out.images
    begun = time.time()
    evaluation.held_out.fooled(np.zeros(images.shape[1:], "float32"))
    forward = (time.time() - begun) / len(images)
    # Half of the passes are backwards, which take about twice as long.
    needed = budget.most * 1.5 * forward
    plan = (
        f"{len(attacks)} attacks compete on {num_fit} images, and the best go "
        f"on, with at most {budget.most:,} model passes in all. "
        f"{evaluation.num_select} other images select the strongest, "
        f"{len(images)} more are held out. This takes at most about "
        f"{in_words(needed)}."
    )
    for note in (plan, *notes):
        write(textwrap.fill(note, 78), flush=True)
