"""Results of every kind, made up without a classifier."""

import itertools

import numpy as np

from keras_uap import analysis
from keras_uap.defenses.hardening import Hardening
from keras_uap.evaluation import audit_result
from keras_uap.evaluation.changes import Survived

LONG = [f"a very long name of class {i}, of the Latin kind" for i in range(99)]
WIDE = ["W" * 60] * 99
CARD = {
    "classifier": "tiny.keras",
    "norm": "linf",
    "epsilon": 10.0,
    "value_range": (0.0, 255.0),
    "seed": 3,
}


def flow_of(before, after):
    labels, captured = analysis.labels.captured_by(after)
    return analysis.LabelFlow(
        before,
        after,
        labels,
        captured,
        analysis.labels.captured_by(before)[1],
        float(np.mean(before != after)),
        len(before),
    )


def one_part():
    before = np.repeat(np.arange(3), 5)
    return flow_of(before, np.where(before < 2, 2, before))


def pair():
    before = np.repeat(np.arange(3), 5)
    return flow_of(before, np.where(before < 1, 2, before))


def many_parts():
    before = np.repeat(np.arange(60), 3)
    return flow_of(before, before % 6 + 60)


def large_part():
    rng = np.random.default_rng(0)
    before = np.arange(90)
    after = np.where(before < 40, 50, rng.integers(0, 40, 90))
    return flow_of(before, after)


def chain():
    before = np.arange(8)
    return flow_of(before, np.minimum(before + 1, 7))


def cycle():
    before = np.arange(8)
    return flow_of(before, (before + 1) % 8)


def nothing():
    return flow_of(np.arange(4), np.arange(4))


FLOWS = [one_part, pair, many_parts, large_part, chain, cycle, nothing]


def targets(count, rates):
    rates = np.resize(rates, count).astype(float)
    return analysis.TargetRates(
        targets=tuple(range(count)),
        target_rates=rates,
        intervals=np.stack([rates * 0.9, np.minimum(1, rates + 0.1)], 1),
        num_others=np.full(count, 90),
        clean_rates=np.zeros(count),
        fooling_rates=np.maximum(rates, 0.5),
        epsilon=10.0,
        norm="linf",
        num_images=100,
        num_groups=10,
        perturbations=np.zeros((count, 4, 4, 3)),
    )


def diversity(count, shape=(8, 8, 3), rates=True):
    products = np.full((count, count), -0.12)
    np.fill_diagonal(products, 1)
    return analysis.Diversity(
        products,
        np.ones(count) if rates else None,
        tuple(range(1000, 1000 + count)),
        200 if rates else 0,
        np.random.default_rng(0).normal(size=(count, *shape)),
    )


def transfer(rows, columns, name):
    shape = (rows, columns)
    rates = np.linspace(0, 1, rows * columns).reshape(shape)
    return analysis.TransferMatrix(
        tuple(f"{name} {i}" for i in range(rows)),
        tuple(f"{name} {i}" for i in range(columns)),
        rates,
        np.stack([rates, rates], -1),
        rates,
        np.ones(shape, bool),
        "linf",
        np.full(rows, 10.0),
        1000,
        100,
    )


def curve(values, seeds, rate=None):
    count = len(values)
    rates = np.linspace(0.2, 1, count * seeds).reshape(count, seeds)
    if rate is not None:
        rates[:] = rate
    means = rates.mean(1)
    return analysis.FoolingCurve(
        "number of images",
        values,
        rates,
        np.stack([means - 0.1, np.minimum(1, means + 0.1)], 1),
        means / 3,
        "linf",
        200,
        50,
    )


def epsilons(rates, half, interval):
    means = np.asarray(rates)
    return analysis.EpsilonCurve(
        "epsilon, pixel units",
        (2.0, 5.0, 10.0),
        means[:, None],
        np.stack([np.maximum(0, means - 0.1), np.minimum(1, means + 0.1)], 1),
        means / 3,
        "linf",
        200,
        50,
        half,
        interval,
        None,
    )


def baselines(rate):
    names = ("universal", "sum of adversarial", "one image's adversarial")
    rates = np.full((5, 4), rate)
    return analysis.Baselines(
        (*names, "mean image", "random noise"),
        np.array([500.0, 1000, 2000, 4000]),
        rates,
        np.stack([rates, rates], -1),
        "l2",
        200,
        200,
    )


def subspace(count, rate):
    rates = np.full(count, rate)
    pairs = np.stack([rates * 0.9, np.minimum(1, rates * 1.1)], 1)
    return analysis.SubspaceFooling(
        tuple(range(10, 10 * count + 10, 10)),
        rates,
        pairs,
        rates,
        rate / 2,
        (0.0, rate),
        pairs - rate / 2,
        2000.0,
        "l2",
        5,
        200,
        50,
    )


def spectrum(count):
    values = np.linspace(3, 0.1, count)
    return analysis.NormalSpectrum(
        values, np.ones(count), count, 150528, np.zeros((1, 4, 4, 3))
    )


def bands(count, rate):
    """A `PerturbationSpectrum` of as many bands and a part of no power."""
    top = 1.5 * 4.0**count
    edges = np.array([0, *(4.0 ** np.arange(1, count)), top])
    frequencies = np.arange(int(top) + 1)
    power = 1 / (1 + frequencies)
    white = frequencies + 1.0
    rates = np.full(count + 1, rate)
    rates[1] = 0
    pairs = np.stack([rates * 0.9, np.minimum(1, rates + 0.1)], 1)
    return analysis.PerturbationSpectrum(
        frequencies,
        power / power.sum(),
        white / white.sum(),
        np.array([(0, top), *itertools.pairwise(edges)]),
        np.full(count + 1, 1 / count),
        rates,
        pairs,
        rates / 2,
        pairs / 2,
        rates,
        rates,
        10.0,
        "linf",
        3,
        200,
        50,
    )


def survival(rate, names=(), pictures=True):
    names = ("as it is", "v shifted by 8", "JPEG, quality 75", *names)
    rates = np.full(len(names), rate)
    return analysis.Survival(
        names,
        np.array([pictures and i > 1 for i in range(len(names))]),
        rates,
        np.stack([rates * 0.9, np.minimum(1, rates + 0.1)], 1),
        rates / 2,
        rates,
        rates / 3,
        rates,
        "linf",
        200,
        50,
    )


def normals(count, shape=(8, 8, 3)):
    rng = np.random.default_rng(0)
    return analysis.BoundaryNormals(
        rng.uniform(1, 9, count),
        np.arange(count) * 1000,
        count + 3,
        rng.normal(size=(count, *shape)).astype("float32"),
    )


def influence(count, rate):
    rng = np.random.default_rng(0)
    shape = (4, count)
    pairs = np.tile([0.9 * rate, rate], (4, 1))
    return analysis.MutualInfluence(
        ("universal", "random noise", "image's own", "image's own, minimal"),
        rng.uniform(-rate, rate, shape),
        rng.uniform(-rate, rate, shape),
        np.zeros(shape),
        pairs,
        pairs,
        np.full(4, rate),
        pairs,
        np.full(4, rate),
        pairs,
        np.full(shape, 1234.567),
        "linf",
        *(127.5, count, count // 2),
    )


def dominance(share, count=200):
    rng = np.random.default_rng(0)
    return analysis.Dominance(
        ("clean", "perturbed", "random noise"),
        rng.integers(0, 9, (3, count)),
        (1, 3, 5),
        np.full((3, 3), share),
        np.tile([0.9 * share, share], (3, 3, 1)),
        np.tile(np.arange(5), (3, 1)),
        np.full((3, 5), share / 5),
        999,
        share,
        share / 2,
        *((0.0, 1.0), (0.0, 1.0), 127.5, 10.0, "linf", count, 30),
    )


def history(fits, batches, share, label=0):
    shape = (fits, len(batches))
    labels = np.full(shape, label)
    labels[:, : len(batches) // 2] = 1
    return analysis.DominanceHistory(
        tuple(range(1000, 1000 + fits)),
        np.array(batches),
        labels,
        np.full(shape, share),
        np.full(shape, share),
        np.zeros((fits, 2)),
        *(3, share, share, (0.0, 1.0), 16, "features_and_dominant", True),
        *(10.0, "linf", 1000, 300, np.zeros((fits, 4, 4, 3))),
    )


def collapse(share, pairs=("one photograph", "one class", "two classes")):
    shape = (3, len(pairs) + 1)
    both = np.stack([np.full(shape, share), np.full(shape, 1.4)], -1)
    return analysis.FeatureCollapse(
        ("clean", "perturbed", "random noise"),
        (*pairs, "all"),
        np.full(shape[1], 1234567),
        np.full(shape, share),
        np.full(shape, share),
        both,
        np.full(shape, -share),
        both - 1.4,
        np.ones(3),
        *(share, share, (0.0, 1.0), (0.0, 1.0), 1280, 100, 10.0, "linf"),
        *(1000, 300),
    )


def report(rate, classes=30, target=None):
    """A `FoolingReport` of a rate, with as many classes."""
    rng = np.random.default_rng(0)
    before = rng.integers(0, classes, 200)
    fooled = np.arange(200) < rate * 200
    after = np.where(fooled, (before + 1 + before % 3) % (classes + 3), before)
    return analysis.FoolingReport(
        num_images=200,
        num_groups=60,
        norm="linf",
        epsilon=10.0,
        value_range=(0, 255),
        fooling_rate=rate,
        fooling_interval=(max(0, rate - 0.1), min(1, rate + 0.1)),
        random_rate=rate / 2,
        random_interval=(0.0, rate),
        rounded_rate=rate,
        unclipped_rate=rate,
        clean_confidence=0.7,
        perturbed_confidence=0.5,
        fooled_confidence=0.4,
        share_changed=1.0,
        share_at_bound=0.9,
        clean_labels=before,
        perturbed_labels=after,
        clean_confidences=rng.uniform(size=200),
        perturbed_confidences=rng.uniform(size=200),
        clean_error_rate=None,
        error_rate=None,
        target=target,
    )


def audit(rate, runs=11):
    runs = tuple(
        audit_result.Run(
            *(f"features+dominant {i % 7}", 0, 2000 * (i // 7 + 1)),
            *(9.0, 0.0, rate, rate, (0.9 * rate, 1)),
        )
        for i in range(runs)
    )
    return audit_result.Audit(
        rate,
        (0.9 * rate, 1.0),
        rate / 2,
        rate,
        np.random.default_rng(0).normal(size=(8, 8, 3)),
        runs[0],
        runs,
        report(rate),
        "standard",
        *(100, 30, 200, 60, ((2000, rate),), 1200, 1000, 10.0),
        *((), (), CARD),
        survival=tuple(
            Survived(name, rate, (0.5 * rate, 1.0), 0.05, 30, 12)
            for name in ("no change", "JPEG, quality 90", "v shifted by 8")
        ),
    )


def known(name, rate, epsilon=10.0, norm="linf", value_range=(0.0, 255.0)):
    """A row of `samples.reference_audits`, as far as it is read."""
    return {
        "name": name,
        "norm": norm,
        "epsilon": epsilon,
        "value_range": list(value_range),
        "fooling_rate": rate,
        "fooling_interval": [0.9 * rate, 1.0],
        "random_rate": 0.1,
    }


def hardening(before, after):
    """A `Hardening` that moves the fooling rate."""
    return Hardening(
        audit(before, 3),
        audit(after, 3),
        (before - after - 0.1, before - after + 0.1),
        *(0.8, (0.7, 0.9), 1 - before, 1 - after, (0.0, 1.0)),
        (before - after - 0.1, before - after + 0.1),
        *(after, after, after, after, 0.9, 0.8, 0.7),
        *({"loss": [1.0, 0.5]}, {"epochs": 2}, 1000, 60.0, 100.0),
        ("The classifier lost predictions. Train longer.",),
    )


def one_of_each():
    """One result of each kind."""
    return [
        *(audit(0.5), report(0.5), hardening(0.9, 0.4)),
        *(
            many_parts(),
            targets(2, 0.4),
            diversity(3),
            diversity(3, rates=False),
        ),
        *(transfer(2, 2, "net"), curve((1, 2, 4), 2), baselines(0.5)),
        epsilons((0.1, 0.5, 0.9), 5.0, (4.0, 6.5)),
        *(subspace(2, 0.3), spectrum(9), bands(2, 0.6), survival(0.6)),
        *(normals(5), influence(9, 0.5), dominance(0.5), collapse(0.5)),
        history(2, [1, 2, 3], 0.5),
    ]
