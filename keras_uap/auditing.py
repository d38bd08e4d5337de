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
import warnings

import keras
import numpy as np

from keras_uap import analysis, batches, datasets, html_report, visualization
from keras_uap.analysis.report import TOO_FEW, FoolingReport
from keras_uap.analysis.result import PICTURES, Result
from keras_uap.checks import as_groups, check_whole
from keras_uap.data_free import noise_images
from keras_uap.deepfool import DeepFool
from keras_uap.interval import difference_interval, is_wide, rate_interval
from keras_uap.labeller import LabelledImages, stated_shape
from keras_uap.logits import features_function
from keras_uap.lp_ball import LpBall
from keras_uap.pixels import as_value_range, warn_of_other_range
from keras_uap.progress import in_words
from keras_uap.saving import random_state_kept
from keras_uap.universal_perturbation import UniversalPerturbation
from keras_uap.visualization.ink import class_name
from keras_uap.words import interval

__all__ = [
    "Audit",
    "Run",
    "audit",
]

BATCH = 16

# The most pictures of a folder or a TFDS data set: they are kept in memory.
MOST = 2000

DATA_FREE = "data-free"
DATA_FREE_START = "data-free start"
# Of a perturbation that was there before, and of one that starts from it.
KNOWN = "transferred"
KNOWN_START = "transferred start"
# The loss of each run; DeepFool has none.
_RUNS = {
    "dominant": "dominant",
    "features+dominant": "features+dominant",
    "cross-entropy": "crossentropy",
    "DeepFool": None,
    DATA_FREE_START: "dominant",
}
# This share of a run's passes goes to images without content.
_NOISE_SHARE = 0.25

Budget = collections.namedtuple("Budget", ["passes", "runs"])
BUDGETS = {
    "quick": Budget(
        2000,
        [
            ("dominant", 0),
            ("features+dominant", 0),
            ("cross-entropy", 0),
            (DATA_FREE_START, 0),
        ],
    ),
    "standard": Budget(6000, [(name, i) for i in (0, 1) for name in _RUNS]),
}

# A line at least every so many seconds.
SECONDS = 10

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


@dataclasses.dataclass(frozen=True)
class Run:
    """One attack of an audit.

    Attributes:
        name, seed: What was minimised, and the seed.
        passes: Integer, forwards and backwards of one image that it took.
        seconds: Float.
        no_gradient: Float, the share of the images shown that had no usable
            gradient, or that DeepFool did not get over a boundary.
        select_rate: Float, share fooled of the part to select.
        fooling_rate, fooling_interval: Share fooled of the held-out part, and
            its 95 % interval.
    """

    name: str
    seed: int
    passes: int
    seconds: float
    no_gradient: float
    select_rate: float
    fooling_rate: float
    fooling_interval: tuple


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Audit(Result):
    """What `keras_uap.audit` found.

    Attributes:
        fooling_rate, fooling_interval: Share of the held-out images that the
            strongest perturbation fools, and its 95 % interval.
        random_rate: The same for random noise of the same norm.
        larger_rate: The same for the perturbation at twice the norm.
        perturbation: Array `(H, W, C)`, the strongest one, in pixel units.
        strongest: `Run`, the one that found it.
        runs: Tuple of `Run`.
        report: `keras_uap.analysis.FoolingReport` of the strongest on the
            held-out images: classes, labels, confidence.
        budget: String.
        num_fit, num_select, num_images: Integers, the images of each part;
            `num_images` are held out.
        num_groups: Integer, the photographs of the held-out part.
        passes: Integer, forwards and backwards of one image, in all.
        seconds: Float.
        warnings, notes: Tuples of sentences: what smells of hidden gradients
            or stands on too little, and what was done and left out.
        card: Dictionary, for `keras_uap.interchange.save_perturbation`.
    """

    fooling_rate: float
    fooling_interval: tuple
    random_rate: float
    larger_rate: float
    perturbation: np.ndarray = dataclasses.field(metadata=PICTURES)
    strongest: Run
    runs: tuple
    report: FoolingReport
    budget: str
    num_fit: int
    num_select: int
    num_images: int
    num_groups: int
    passes: int
    seconds: float
    warnings: tuple
    notes: tuple
    card: dict

    def to_dict(self):
        """The audit as plain Python values, for JSON, without pictures."""
        values = super().to_dict()
        values["strongest"] = dataclasses.asdict(self.strongest)
        values["runs"] = [dataclasses.asdict(run) for run in self.runs]
        values["report"] = self.report.to_dict()
        return values

    def plot(self, class_names=None):
        """Draws the runs and the perturbation; returns the figure.

        Args:
            class_names: List of strings, one for each class.
        """
        return visualization.plot_audit(self, class_names)

    def save_html(self, path, class_names=None):
        """Writes the audit as one page of HTML that can be handed on.

        The page needs no other file and no network: pictures, style and
        script are inside. A slider shows examples at 0 to 2 times the
        perturbation.

        Args:
            path: String or path of the file; it appears whole or not at all.
            class_names: Sequence of strings, to name labels.
        """
        html_report.write_audit(path, self, class_names)

    def table(self, class_names=None):
        """The audit as a text of at most 80 columns.

        Args:
            class_names: Sequence of strings, to name labels.
        """
        return "\n".join(
            [
                *(
                    f"{name:<34}{value}"
                    for name, value in _summary_rows(self, class_names)
                ),
                "",
                *_run_lines(self),
                "",
                *_words(self),
            ]
        )

    def rows(self, class_names=None):
        """A title, the names of the columns and a row for each quantity."""
        rows = _summary_rows(self, class_names)
        for run in self.runs:
            mark = ", the strongest" if run == self.strongest else ""
            rows.append(
                (
                    f"run {run.name}, seed {run.seed}{mark}",
                    f"{run.fooling_rate:.1%}   (95 % interval "
                    f"{interval(run.fooling_interval)})",
                )
            )
        return "Audit", ("", "value"), rows

    def __repr__(self):
        low, high = self.fooling_interval
        report = self.report
        return (
            f"Audit(fooling_rate={self.fooling_rate:.3f}, "
            f"fooling_interval=({low:.3f}, {high:.3f}), "
            f"random_rate={self.random_rate:.3f}, norm={report.norm!r}, "
            f"epsilon={self.card['epsilon']:g}, budget={self.budget!r}, "
            f"num_images={self.num_images})"
        )


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
        budget: `"quick"`, 4 runs of 2,000 model passes, or `"standard"`, 10
            runs of 6,000.
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
    if budget not in BUDGETS:
        raise ValueError(
            f"Unknown budget. Received: budget={budget!r}. Expected one of "
            f"{sorted(BUDGETS)}."
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
    batch_size=32,
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
        batch_size: Integer, of the forward passes that measure.

    Returns:
        An `Audit`.
    """
    started = time.time()
    warn_of_other_range(pictures.images, value_range, "images", 3)
    if parts is None:
        parts = pictures.split(seed=seed)
    judge = _Judge(
        classifier, pictures, value_range, from_logits, parts, batch_size
    )
    say = print if verbose else silent
    attacker = _Attacker(
        classifier,
        ball,
        value_range,
        from_logits,
        judge.pictures_to_fit,
        known,
        say,
    )
    runs, notes = _runs(classifier, BUDGETS[budget])
    if known is not None:
        runs.insert(0, (KNOWN_START, 0))
    notes += attacker.notes
    passes = BUDGETS[budget].passes
    _say_plan(say, judge, len(runs), passes, notes, ball)
    attacks, begun, finished = [], time.time(), 0
    try:
        for i, (name, offset) in enumerate(runs):
            found = attacker.run(name, seed + offset, passes)
            rate = judge.measure(found[-1])
            attacks, finished = attacks + found, i + 1
            left = (time.time() - begun) / finished * (len(runs) - finished)
            say(
                f"  {finished} of {len(runs)}: {name}, seed {seed + offset}: "
                f"{rate:.1%} of those that choose; {in_words(left)} left",
                flush=True,
            )
    except KeyboardInterrupt as error:
        if not finished:
            raise
        stopped = f"interrupted after {finished} of {len(runs)} runs"
        say(f"\n  {stopped}; measuring what they found", flush=True)
        result = _result(judge, attacks, ball, budget, seed, notes, started)
        warning = f"{stopped.capitalize()}: the others may fool more."
        result = dataclasses.replace(
            result, warnings=(warning, *result.warnings)
        )
        raise AuditInterrupted(stopped, result) from error
    return _result(judge, attacks, ball, budget, seed, notes, started)


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
        self, classifier, pictures, value_range, from_logits, parts, batch_size
    ):
        self.name = classifier.name
        self._classifier = classifier
        self._from_logits = from_logits
        images, groups = pictures.images, pictures.groups
        fit, select, held_out = parts
        self.images_to_fit = images[fit]
        paths = pictures.paths
        self.pictures_to_fit = datasets.Pictures(
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
        )
        self.forwards = len(others)
        self.hits = {}

    def fooled(self, v):
        self.forwards += len(self.labelled.images)
        return self.labelled.fooled(v)

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

    def difference(self, hits, others):
        """The interval of how much more often the first are fooled."""
        return difference_interval(
            hits.astype(float) - others, self.labelled.groups
        )

    def report(self, v, norm, seed):
        report = analysis.fooling_report(
            self._classifier,
            v,
            self.held_out,
            groups=self.groups,
            norm=norm,
            value_range=self.labelled.value_range,
            seed=seed,
            batch_size=self.labelled.batch_size,
            from_logits=self._from_logits,
            verbose=0,
        )
        # Clean, perturbed, rounded, unclipped, three draws of noise.
        self.forwards += 7 * len(self.held_out) + report.examples.labels.size
        return report


_Attack = collections.namedtuple(
    "_Attack", ["name", "seed", "passes", "seconds", "no_gradient", "v"]
)


class _Attacker:
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
        self._varied = len(images) < datasets.FEW and images.ndim == 4
        self.notes = []
        if self._varied:
            self.notes.append(
                f"The {len(images)} images to fit are few and were varied: "
                "crops, light, mirror images."
            )

    def run(self, name, seed, passes):
        """Returns one attack, or two where it starts from another one."""
        if name == KNOWN_START:
            known = _Attack(KNOWN, seed, 0, 0.0, 0.0, self._known)
            return [
                known,
                self._fit(name, seed, passes, initial_perturbation=known.v),
            ]
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
        passes = first.passes + second.passes
        seconds = first.seconds + second.seconds
        return [first, second._replace(passes=passes, seconds=seconds)]

    def _fit(self, name, seed, passes, noise=None, initial_perturbation=None):
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
        loss = _RUNS.get(name, "dominant")
        pictures = self._pictures
        if noise is not None:
            pictures = datasets.Pictures(noise)
        varied = self._varied and noise is None
        each = 3 if "features" in name else 2
        data, clean, steps = _data(
            pictures, passes, each, varied, seed, self._value_range
        )
        if loss is None:
            falling = keras.optimizers.schedules.PolynomialDecay
            uap.compile(DeepFool(step_size=falling(0.8, steps, 0.008)))
        else:
            uap.compile(uap.decaying_lion(steps), loss=loss)
        spending = _Spending(passes - clean, self._say)
        with warnings.catch_warnings():
            # The audit has said it.
            warnings.filterwarnings("ignore", "The pixels of x lie in")
            uap.fit(**data, verbose=0, callbacks=[spending])
        return _Attack(
            DATA_FREE if noise is not None else name,
            seed,
            clean + spending.passes,
            time.time() - started,
            spending.failures / max(1, spending.images),
            uap.perturbation,
        )


def _span(images):
    """A value range for images that are clipped to none."""
    return float(images.min()), float(images.max())


def _data(pictures, passes, each, varied, seed, value_range):
    """What `fit` takes, to spend a number of passes.

    Returns:
        The arguments of `fit`; how many passes go to clean predictions before
        the first batch; and the number of batches that the rest allows, if one
        image takes `each` passes.
    """
    if varied:
        steps = max(1, passes // ((each + 1) * BATCH))
        value_range = value_range or _span(pictures.images)
        views = datasets.views(pictures, BATCH, value_range, seed)
        # DeepFool may take fewer passes: then there are more batches.
        arguments = {"x": views.repeat(), "steps_per_epoch": passes // BATCH}
        return arguments, 0, steps
    images = pictures.images
    # More images than the passes can show once need no clean prediction.
    most = max(1, passes // (each + 1))
    if len(images) > most:
        images = np.random.default_rng(seed).permutation(images)[:most]
    count = len(images)
    views = max(1, (passes - count) // each)
    per_epoch = -(-count // BATCH)
    steps = views // count * per_epoch + -(-(views % count) // BATCH)
    arguments = {"x": images, "batch_size": BATCH, "epochs": passes // count}
    return arguments, count, max(1, steps)


class _Spending(keras.callbacks.Callback):
    """Ends a fit when its passes are spent."""

    def __init__(self, most, say):
        super().__init__()
        self._most = most
        self._say = say
        self._told = time.time()
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
        if time.time() - self._told > SECONDS:
            self._told = time.time()
            self._say(
                f"    {self.passes:,} of {self._most:,} model passes",
                flush=True,
            )
        if self.passes + self._largest > self._most:
            self.model.keep("all passes spent")


def _runs(classifier, budget):
    """The runs of a budget that the classifier allows; what was left out."""
    try:
        features_function(classifier)
    except ValueError as error:
        left_out = (
            "The runs on features were left out: the classifier's head "
            f"cannot be seen. {' '.join(str(error).split())}"
        )
        runs = [run for run in budget.runs if "features" not in run[0]]
        return runs, [left_out]
    return list(budget.runs), []


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
        pictures = datasets.load(
            images, shape[:2], limit=MOST, color_mode=color_mode
        )
        if value_range not in (None, (0.0, 255.0)):
            low, high = value_range
            scaled = pictures.images.astype("float32") * (high - low) / 255
            pictures = pictures._replace(images=scaled + np.float32(low))
        return pictures
    pictures = batches.as_pictures(images, "images", groups)
    if shape is not None and pictures.images.shape[1:] != shape:
        raise ValueError(
            "The images do not have the size that the classifier takes. "
            f"Received: {pictures.images.shape}. Expected: (n, "
            f"{', '.join(map(str, shape))})."
        )
    return pictures


def _result(judge, attacks, ball, budget, seed, notes, started):
    """Chooses the strongest, measures it, and looks for what smells."""
    runs = [judge.row(attack) for attack in attacks]
    best = int(np.argmax([run.select_rate for run in runs]))
    v, strongest = attacks[best].v, runs[best]
    report = judge.report(v, ball.norm, seed)
    larger = judge.fooled(LpBall(2 * ball.epsilon, ball.norm).scaled(v))
    hits = [judge.hits[id(attack)] for attack in attacks]
    found = _smells(judge, runs, hits, hits[best], larger, report)
    if is_wide(report.fooling_interval):
        found.append(" ".join(TOO_FEW.split()))
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


# Words ----------------------------------------------------------------------


def silent(*_, **__):
    """Says nothing."""


def _say_plan(say, judge, runs, passes, notes, ball):
    """Says what comes and how long it will take."""
    if say is silent:
        return
    # The first forwards traced the classifier; these measure its speed.
    rng = np.random.default_rng(0)
    begun = time.time()
    judge.fooled(ball.noise(judge.held_out.shape[1:], rng))
    forward = (time.time() - begun) / len(judge.labelled.images)
    # Half of the passes are backwards, which take about twice as long.
    needed = runs * passes * 1.5 * forward
    say(
        f"{runs} attacks of {passes:,} model passes on "
        f"{len(judge.images_to_fit)} images; {judge.num_select} others choose\n"
        f"the strongest, {len(judge.held_out)} more are measured on. This "
        f"takes about {in_words(needed)}.",
        flush=True,
    )
    for note in notes:
        say(textwrap.fill(note, 78), flush=True)


def _summary_rows(result, class_names):
    report, unit = result.report, ""
    if report.value_range is not None:
        unit = f" of {report.value_range[1] - report.value_range[0]:g}"
    low, high = result.fooling_interval
    held_out = f"{result.num_images}"
    if result.num_groups != result.num_images:
        held_out += f" of {result.num_groups} photographs"
    rows = [
        ("held-out images", held_out),
        ("norm", f"{report.norm}, at most {result.card['epsilon']:.4g}{unit}"),
        (
            "fooled by the strongest",
            f"{result.fooling_rate:.1%}   (95 % interval {low:.1%} to "
            f"{high:.1%})",
        ),
        ("by random noise, same norm", f"{result.random_rate:.1%}"),
        ("by the strongest, twice the norm", f"{result.larger_rate:.1%}"),
        ("confidence, clean", f"{report.clean_confidence:.2f}"),
        ("confidence, where fooled", f"{report.fooled_confidence:.2f}"),
    ]
    for label, share in report.dominant_labels(1):
        name = class_name(label, class_names)
        rows.append((f"to {name}"[:32], f"{share:.1%} of the fooled"))
    for label, (rate, count) in list(report.per_class().items())[:3]:
        name = class_name(label, class_names)
        rows.append((f"of {name}"[:32], f"{rate:.1%} of {count} images fooled"))
    rows.append(
        ("cost", f"{result.passes:,} passes, {in_words(result.seconds)}")
    )
    return rows


def _run_lines(result):
    lines = [
        f"  {'run':<20}{'seed':>5}{'passes':>8}{'select':>9}"
        f"{'held out':>10}{'95 % interval':>18}"
    ]
    for run in result.runs:
        low, high = run.fooling_interval
        mark = "*" if run == result.strongest else " "
        lines.append(
            f"{mark} {run.name:<20}{run.seed:>5}{run.passes:>8}"
            f"{run.select_rate:>9.1%}{run.fooling_rate:>10.1%}"
            f"{f'{low:.1%} to {high:.1%}':>18}"
        )
    return [*lines, "* the strongest, by the part to select alone"]


def _words(result):
    """What the number means, and what to think of it."""
    meaning = (
        f"One and the same perturbation changes the answer on "
        f"{result.fooling_rate:.0%} of images that nothing was fitted on or "
        "chosen by. This is a lower bound: a stronger attack may find more, "
        "none can make it less."
    )
    lines = [textwrap.fill(meaning, 79)]
    lines += [textwrap.fill(note, 79) for note in result.notes]
    lines += [textwrap.fill(f"Warning: {text}", 79) for text in result.warnings]
    return lines
