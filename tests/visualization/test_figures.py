"""No text of a figure leaves its canvas or lies on another, on hard inputs."""

import itertools

import figures
import models
import numpy as np
import pytest
import results

from keras_uap import visualization

# What is drawn, by name: functions without arguments.
FIGURES = {
    **{
        f"{name} {flow.__name__}": lambda f=flow, n=names, m=method: getattr(
            f(), m
        )(n)
        for flow in results.FLOWS
        for name, names, method in (
            ("flow, wide names", results.WIDE, "plot"),
            ("graph, wide names", results.WIDE, "plot_graph"),
        )
    },
    **{
        f"targets {count} {rate}": lambda c=count, r=rate: results.targets(
            c, r
        ).plot(results.WIDE)
        for count, rate in ((1, 0.0), (25, 1.0))
    },
    **{
        f"diversity {count}": lambda c=count: results.diversity(c).plot()
        for count in (2, 10)
    },
    "diversity of signals": lambda: results.diversity(3, (20, 2), False).plot(),
    **{
        f"transfer {rows}x{columns} {name}": (
            lambda r=rows, c=columns, n=name: results.transfer(r, c, n).plot()
        )
        for rows, columns, name in (
            (1, 1, "net"),
            (5, 1, "a very long name of a network"),
            (1, 5, "a very long name of a network"),
        )
    },
    "curve": lambda: results.curve((16, 64, 256, 1024), 3).plot(),
    "curve, one value": lambda: results.curve((16,), 1).plot(),
    "curve, near values": lambda: results.curve(
        (100, 101, 102, 2000), 2
    ).plot(),
    "curve, many values": lambda: results.curve(tuple(range(1, 15)), 2).plot(),
    "curve, all fooled": lambda: results.curve((1, 2, 4), 2, 1.0).plot(),
    "curve, none fooled": lambda: results.curve((1, 2, 4), 2, 0.0).plot(),
    "curve, wide kinds": lambda: results.curve(
        tuple(results.WIDE[:7]), 2, 1.0
    ).plot(),
    "epsilons": lambda: results.epsilons(
        (0.1, 0.5, 0.9), 5.0, (4.0, 6.5)
    ).plot(),
    "epsilons, all": lambda: results.epsilons(
        (1, 1, 1), None, (0.0, 2.0)
    ).plot(),
    "epsilons, none": lambda: results.epsilons(
        (0, 0, 0), None, (10.0, None)
    ).plot(),
    "epsilons, unsure": lambda: results.epsilons(
        (0.4, 0.45, 0.49), None, (2.0, None)
    ).plot(),
    "baselines": lambda: results.baselines(0.5).plot(),
    "baselines, all": lambda: results.baselines(1.0).plot(),
    "subspace": lambda: results.subspace(1, 0.3).plot(),
    "subspace, all": lambda: results.subspace(3, 1.0).plot(),
    "subspace, many": lambda: results.subspace(9, 0.6).plot(),
    "subspace, none": lambda: results.subspace(2, 0.0).plot(),
    "spectrum": lambda: results.spectrum(500).plot(),
    "spectrum of two": lambda: results.spectrum(2).plot(),
    **{
        f"bands {count} {rate}": lambda c=count, r=rate: results.bands(
            c, r
        ).plot()
        for count, rate in ((1, 1.0), (8, 0.0))
    },
    "survival": lambda: results.survival(0.6, results.LONG[:20]).plot(),
    "survival, all": lambda: results.survival(1.0, results.WIDE[:3]).plot(),
    "survival, none": lambda: results.survival(0.0, pictures=False).plot(),
    "normals": lambda: results.normals(40).plot(),
    "normal": lambda: results.normals(1).plot(),
    "normals of signals": lambda: results.normals(5, (9, 2)).plot(),
    "influence": lambda: results.influence(60, 1.0).plot(),
    "influence of two": lambda: results.influence(2, 0.1).plot(),
    **{
        f"dominance {share}": lambda s=share: results.dominance(s).plot(
            results.WIDE
        )
        for share in (0.0, 1.0)
    },
    "dominance, one image": lambda: results.dominance(1.0, 1).plot(),
    **{
        f"history of {fits}, {batches[-1]} batches": (
            lambda f=fits, b=batches, n=names: results.history(f, b, 0.5).plot(
                n
            )
        )
        for fits, batches, names in (
            (1, [1], None),
            (7, [1, 2, 4, 8, 16, 32, 64, 65], results.WIDE),
            (3, [2**i for i in range(13)], results.LONG),
        )
    },
    "history, none fooled": lambda: results.history(2, [1, 2], 0.0, -1).plot(
        results.WIDE
    ),
    "collapse": lambda: results.collapse(1.0).plot(),
    "collapse, all": lambda: results.collapse(0.0, ()).plot(),
    **{
        f"report {rate} {classes}": (
            lambda r=rate, c=classes: results.report(r, c).plot(results.WIDE)
        )
        for rate, classes in ((0.0, 1), (1.0, 30))
    },
    **{
        f"audit {rate} {runs}": lambda a=rate, r=runs: results.audit(a, r).plot(
            results.WIDE
        )
        for rate, runs in ((0.0, 1), (1.0, 11))
    },
}


def first_of_each_kind():
    """The names of the figures, all but the first of each kind slow."""
    kinds = set()
    for name in FIGURES:
        kind = name.split()[0].strip(",")
        marks = [pytest.mark.slow] if kind in kinds else []
        kinds.add(kind)
        yield pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", list(first_of_each_kind()))
def test_texts_stay_on_the_canvas_and_off_each_other(name):
    assert not figures.faults_of(FIGURES[name]())


@pytest.mark.parametrize(
    ("count", "shape"),
    [
        (1, (40, 1)),
        (2, (9, 12)),
        pytest.param(8, (128, 6), marks=pytest.mark.slow),
    ],
)
def test_texts_of_a_signal(count, shape):
    rng = np.random.default_rng(0)
    figure = visualization.plot_perturbation(
        models.linear(shape=shape),
        rng.normal(size=shape),
        rng.normal(size=(count, *shape)) + 100 * np.arange(shape[1]),
        None,
        results.WIDE,
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


@pytest.mark.parametrize(
    ("count", "names"),
    [
        (1, None),
        (2, results.WIDE),
        pytest.param(8, results.WIDE, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "title",
    [
        None,
        "One perturbation, linf norm at most 10: 79% of 200 held-out images "
        "fooled, 38% by random noise of the same norm",
    ],
    ids=["no title", "title"],
)
def test_texts_of_a_perturbation(count, names, title):
    v = np.random.default_rng(0).normal(size=models.SHAPE)
    figure = visualization.plot_perturbation(
        models.linear(),
        v,
        models.images(count),
        (0, 1),
        names,
        title=title,
    )
    assert not figures.faults_of(figure)
    texts = [text.get_text() for text in figures.texts_of(figure)]
    assert "clean" in texts
    assert "with v" in texts


def test_the_finder_finds():
    figure = visualization.style.figure(4, 3)
    axes = figure.subplots()
    axes.text(0.5, 0.5, "one")
    axes.text(0.51, 0.5, "two")
    figure.text(0.9, 0.2, "far away to the right")
    faults = figures.faults_of(figure)
    assert any("lies on 'one'" in fault for fault in faults)
    assert any("leaves the canvas" in fault for fault in faults)


def test_a_notebook_shows_a_figure_without_pyplot():
    display = pytest.importorskip("IPython.core.formatters")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    figure = results.baselines(0.5).plot()
    shown, _ = display.DisplayFormatter().format(figure)
    assert shown["image/png"].startswith(b"\x89PNG")
    assert pyplot.get_fignums() == before
