import dataclasses
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from models import SHAPE

from keras_uap import analysis, visualization

NAMES = ["cat", "dog", "hen", "a label with a very long name indeed"]


def check(figure):
    """Draws it, which raises what is wrong; looks for a title."""
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    titles = [axes.get_title() for axes in figure.axes]
    assert any(titles) or figure.get_suptitle()
    return figure


@pytest.fixture
def report(linear, images):
    v = 0.1 * np.sign(np.random.default_rng(0).normal(size=SHAPE))
    return analysis.fooling_report(
        linear(), v, images, value_range=(0, 1), verbose=0
    )


def test_plot_perturbation(linear, images):
    v = 0.1 * np.sign(np.random.default_rng(0).normal(size=SHAPE))
    figure = check(
        visualization.plot_perturbation(
            linear(), v, images[:3], (0, 1), NAMES, title="one perturbation"
        )
    )
    assert len(figure.axes) == 8
    texts = " ".join(axes.get_title() for axes in figure.axes)
    assert "fooled" in texts
    with pytest.raises(ValueError, match="needs a perturbation of shape"):
        visualization.plot_perturbation(linear(), v[..., :2], images)
    with pytest.raises(ValueError, match="perturbation's shape"):
        visualization.plot_perturbation(linear(), v, images[:, :4])


def test_plot_report(report):
    check(report.plot())
    check(report.plot(NAMES))


def test_plot_of_a_report_of_nothing(linear, images):
    nothing = analysis.fooling_report(
        linear(), np.zeros(SHAPE), images, value_range=(0, 1), verbose=0
    )
    figure = check(nothing.plot())
    legend = [text.get_text() for text in figure.axes[2].get_legend().texts]
    assert legend[1] == "none is fooled"


@pytest.mark.parametrize(
    ("epsilon", "says"),
    [
        (None, "perturbation, linf norm 0.1 of 1:"),
        (0.1, "perturbation, linf ball of 0.1 of 1:"),
        (0.3, "perturbation, linf norm 0.1 of 1, in a ball of 0.3 of 1:"),
    ],
)
def test_report_names_the_ball(epsilon, says, report):
    report = dataclasses.replace(report, ball_epsilon=epsilon)
    assert says in report.plot().get_suptitle()


def test_plot_transfer(linear, images):
    result = analysis.transfer_matrix(
        {"one": linear(), "two": linear(seed=1, shape=(6, 6, 3))},
        {"v": np.full(SHAPE, 0.1), "w": np.full(SHAPE, -0.1)},
        images,
        value_range=(0, 1),
        verbose=0,
    )
    figure = check(result.plot())
    assert "resized" in figure.axes[0].get_title()


def test_plot_diversity(linear, images, held_out):
    def fit(images, epsilon, seed):
        return np.random.default_rng(seed).normal(size=SHAPE)

    for data in (held_out, None):
        check(
            analysis.perturbation_diversity(
                linear(), images, data, count=3, fit=fit, verbose=0
            ).plot()
        )


def test_plot_curves(linear, images, held_out):
    def fit(images, epsilon, seed):
        return np.full(SHAPE, epsilon)

    model = linear()
    arguments = {"fit": fit, "value_range": (0, 1), "verbose": 0}
    check(
        analysis.sample_size_curve(
            model, images, held_out, (1, 4, 40), 2, **arguments
        ).plot()
    )
    check(
        analysis.image_kinds(
            model, {"a": images, "b": images}, held_out, **arguments
        ).plot()
    )
    check(
        analysis.epsilon_curve(
            model, images, held_out, (0.1, 0.2), **arguments
        ).plot()
    )


def test_plot_labels(linear, images):
    v = 0.3 * np.sign(np.random.default_rng(0).normal(size=SHAPE))
    flow = analysis.label_flow(linear(), v, images, (0, 1), verbose=0)
    check(flow.plot())
    check(flow.plot(NAMES))
    check(flow.plot_graph(NAMES))
    check(flow.plot_graph(least_share=1.0))


def test_plot_a_large_graph():
    rng = np.random.default_rng(0)
    before = np.arange(60)
    after = np.where(before < 40, 50, rng.integers(0, 5, 60))
    flow = analysis.LabelFlow(
        before, after, np.unique(after), np.ones(1), np.ones(1), 1.0, 60
    )
    figure = check(flow.plot_graph())
    assert "not drawn" in figure.axes[0].get_title()


def test_plot_geometry(linear, images):
    model = linear()
    spectrum = analysis.normal_spectrum(
        analysis.boundary_normals(model, images, verbose=0)
    )
    check(spectrum.plot())
    check(
        analysis.subspace_fooling(
            model,
            spectrum,
            images,
            (1, 3),
            epsilon=1.0,
            value_range=(0, 1),
            verbose=0,
        ).plot()
    )


def test_plot_targets_and_baselines(linear, images, held_out):
    model = linear()
    result = analysis.target_rates(
        model,
        images,
        held_out,
        [0, 3],
        epsilon=0.1,
        value_range=(0, 1),
        draws=40,
        verbose=0,
    )
    check(result.plot(NAMES))
    check(
        analysis.baseline_rates(
            model,
            result.perturbations[0],
            images,
            held_out,
            value_range=(0, 1),
            verbose=0,
        ).plot()
    )


def test_matplotlib_is_asked_for_by_name(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        report.plot()
