"""No text of a figure leaves its canvas or lies on another, on hard inputs."""

import itertools

import figures
import models
import numpy as np
import pytest

from keras_uap import analysis, visualization
from keras_uap.evaluation import audit_result

LONG = [f"a very long name of class {i}, of the Latin kind" for i in range(99)]
WIDE = ["W" * 60] * 99


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
            "features+dominant", i, 6000, 9.0, 0.0, rate, rate, (0.9 * rate, 1)
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
        *(100, 30, 200, 60, 1000, 10.0, (), (), {"epsilon": 10.0}),
    )


# What is drawn, by name: functions without arguments.
FIGURES = {
    **{
        f"{name} {flow.__name__}": lambda f=flow, n=names, m=method: getattr(
            f(), m
        )(n)
        for flow in FLOWS
        for name, names, method in (
            ("flow, wide names", WIDE, "plot"),
            ("graph, wide names", WIDE, "plot_graph"),
            ("graph", None, "plot_graph"),
        )
    },
    **{
        f"targets {count} {rate}": lambda c=count, r=rate: targets(c, r).plot(
            WIDE
        )
        for count, rate in ((1, 0.0), (1, 1.0), (2, 0.4), (25, 1.0))
    },
    **{
        f"diversity {count}": lambda c=count: diversity(c).plot()
        for count in (2, 4, 10)
    },
    "diversity of signals": lambda: diversity(3, (20, 2), False).plot(),
    **{
        f"transfer {rows}x{columns} {name}": (
            lambda r=rows, c=columns, n=name: transfer(r, c, n).plot()
        )
        for rows, columns in ((1, 1), (2, 2), (5, 1), (1, 5))
        for name in ("net", "a very long name of a network")
    },
    "curve": lambda: curve((16, 64, 256, 1024), 3).plot(),
    "curve, one value": lambda: curve((16,), 1).plot(),
    "curve, near values": lambda: curve((100, 101, 102, 2000), 2).plot(),
    "curve, many values": lambda: curve(tuple(range(1, 15)), 2).plot(),
    "curve, all fooled": lambda: curve((1, 2, 4), 2, 1.0).plot(),
    "curve, none fooled": lambda: curve((1, 2, 4), 2, 0.0).plot(),
    "curve, kinds": lambda: curve(tuple(LONG[:5]), 2).plot(),
    "curve, wide kinds": lambda: curve(tuple(WIDE[:7]), 2, 1.0).plot(),
    "epsilons": lambda: epsilons((0.1, 0.5, 0.9), 5.0, (4.0, 6.5)).plot(),
    "epsilons, all": lambda: epsilons((1, 1, 1), None, (0.0, 2.0)).plot(),
    "epsilons, none": lambda: epsilons((0, 0, 0), None, (10.0, None)).plot(),
    "epsilons, unsure": lambda: epsilons(
        (0.4, 0.45, 0.49), None, (2.0, None)
    ).plot(),
    "baselines": lambda: baselines(0.5).plot(),
    "baselines, all": lambda: baselines(1.0).plot(),
    "subspace": lambda: subspace(1, 0.3).plot(),
    "subspace, all": lambda: subspace(3, 1.0).plot(),
    "subspace, many": lambda: subspace(9, 0.6).plot(),
    "subspace, none": lambda: subspace(2, 0.0).plot(),
    "spectrum": lambda: spectrum(500).plot(),
    "spectrum of two": lambda: spectrum(2).plot(),
    **{
        f"bands {count} {rate}": lambda c=count, r=rate: bands(c, r).plot()
        for count, rate in ((1, 1.0), (2, 0.0), (5, 0.6), (8, 1.0))
    },
    "survival": lambda: survival(0.6, LONG[:20]).plot(),
    "survival, all": lambda: survival(1.0, WIDE[:3]).plot(),
    "survival, none": lambda: survival(0.0, pictures=False).plot(),
    "normals": lambda: normals(40).plot(),
    "normal": lambda: normals(1).plot(),
    "normals, three": lambda: normals(3).plot(),
    "normals of signals": lambda: normals(5, (9, 2)).plot(),
    "influence": lambda: influence(60, 1.0).plot(),
    "influence of two": lambda: influence(2, 0.1).plot(),
    **{
        f"dominance {share}": lambda s=share: dominance(s).plot(WIDE)
        for share in (0.0, 0.5, 1.0)
    },
    "dominance, one image": lambda: dominance(1.0, 1).plot(),
    **{
        f"history of {fits}, {batches[-1]} batches": (
            lambda f=fits, b=batches, n=names: history(f, b, 0.5).plot(n)
        )
        for fits, batches, names in (
            (1, [1], None),
            (2, [1, 2, 3], WIDE),
            (7, [1, 2, 4, 8, 16, 32, 64, 65], WIDE),
            (3, [2**i for i in range(13)], LONG),
        )
    },
    "history, none fooled": lambda: history(2, [1, 2], 0.0, -1).plot(WIDE),
    "collapse": lambda: collapse(1.0).plot(),
    "collapse, all": lambda: collapse(0.0, ()).plot(),
    **{
        f"report {rate} {classes}": (
            lambda r=rate, c=classes: report(r, c).plot(WIDE)
        )
        for rate, classes in ((0.0, 1), (0.5, 30), (1.0, 30))
    },
    **{
        f"audit {rate} {runs}": lambda a=rate, r=runs: audit(a, r).plot(WIDE)
        for rate, runs in ((0.0, 1), (0.5, 5), (1.0, 11))
    },
}


@pytest.mark.parametrize("name", FIGURES)
def test_texts_stay_on_the_canvas_and_off_each_other(name):
    figure = FIGURES[name]()
    assert not figures.faults_of(figure)
    if "graph" in name:
        assert not figures.arrows_over_texts(figure)


@pytest.mark.parametrize("count", [1, 4, 8])
@pytest.mark.parametrize("shape", [(40, 1), (128, 6), (9, 12)])
def test_texts_of_a_signal(count, shape):
    rng = np.random.default_rng(0)
    figure = visualization.plot_perturbation(
        models.linear(shape=shape),
        rng.normal(size=shape),
        rng.normal(size=(count, *shape)) + 100 * np.arange(shape[1]),
        None,
        WIDE,
        title="Signals",
    )
    assert not figures.faults_of(figure)
    clean, perturbed = figure.axes[1], figure.axes[count + 2]
    assert len(clean.lines) == min(8, shape[1])
    assert len(perturbed.lines) == 2 * len(clean.lines)
    # No channel crosses the next, wherever its values lie.
    ends = [
        (np.min(y), np.max(y)) for y in (x.get_ydata() for x in clean.lines)
    ]
    for (low, _), (_, high) in itertools.pairwise(ends):
        assert low > high


@pytest.mark.parametrize("count", [1, 2, 8])
@pytest.mark.parametrize("names", [None, LONG, WIDE])
def test_texts_of_a_perturbation(count, names):
    v = np.random.default_rng(0).normal(size=models.SHAPE)
    figure = visualization.plot_perturbation(
        models.linear(),
        v,
        models.images(count),
        (0, 1),
        names,
        title="One perturbation, linf norm at most 10: 79% of 200 held-out "
        "images fooled, 38% by random noise of the same norm",
    )
    assert not figures.faults_of(figure)
    texts = [text.get_text() for text in figures.texts_of(figure)]
    assert "clean" in texts
    assert "with v" in texts


def test_the_finder_finds():
    figure = visualization.ink.figure(4, 3)
    axes = figure.subplots()
    axes.text(0.5, 0.5, "one")
    axes.text(0.51, 0.5, "two")
    figure.text(0.9, 0.2, "far away to the right")
    faults = figures.faults_of(figure)
    assert any("lies on 'one'" in fault for fault in faults)
    assert any("leaves the canvas" in fault for fault in faults)


@pytest.fixture
def screen(monkeypatch):
    """Pyplot as it is where its figures come on a screen."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.close("all")
    monkeypatch.setattr(pyplot, "get_backend", lambda: "tkagg")
    yield pyplot
    pyplot.close("all")


def test_pyplot_shows_what_is_plotted(screen):
    figure = baselines(0.5).plot()
    assert figure.number in screen.get_fignums()
    assert screen.gcf() is figure


@pytest.mark.filterwarnings("error")
def test_pyplot_does_not_keep_all_figures(screen, tmp_path):
    own = screen.figure()
    first = baselines(0.5).plot()
    for _ in range(25):
        visualization.ink.figure(1, 1)
    assert len(screen.get_fignums()) == 11
    assert own.number in screen.get_fignums()
    first.savefig(tmp_path / "first.png")


def test_a_notebook_shows_a_figure_once(screen, monkeypatch):
    pytest.importorskip("IPython")
    shown = []
    monkeypatch.setattr(
        "IPython.display.display_png", lambda png, raw: shown.append(png)
    )
    figure = baselines(0.5).plot()
    figure._ipython_display_()
    assert shown[0].startswith(b"\x89PNG")
    assert screen.get_fignums() == []


def test_without_a_screen_pyplot_keeps_nothing():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    if pyplot.get_backend().lower() != "agg":
        pytest.skip("There is a screen.")
    before = pyplot.get_fignums()
    baselines(0.5).plot()
    assert pyplot.get_fignums() == before
