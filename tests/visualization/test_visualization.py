import dataclasses

import numpy as np
import pytest
import results
from models import SHAPE

from keras_uap import analysis, visualization


def test_plot_perturbation(linear, images):
    v = 0.1 * np.sign(np.random.default_rng(0).normal(size=SHAPE))
    figure = visualization.plot_perturbation(
        linear(), v, images[:3], (0, 1), list("abcd"), title="one perturbation"
    )
    assert len(figure.axes) == 8
    assert figure.get_suptitle() == "one perturbation"
    texts = " ".join(axes.get_title() for axes in figure.axes)
    assert "fooled" in texts
    with pytest.raises(ValueError, match="needs a perturbation of shape"):
        visualization.plot_perturbation(linear(), v[..., :2], images)
    with pytest.raises(ValueError, match="perturbation's shape"):
        visualization.plot_perturbation(linear(), v, images[:, :4])


def test_plot_of_a_report_of_nothing():
    figure = results.report(0.0).plot()
    legend = [text.get_text() for text in figure.axes[2].get_legend().texts]
    assert legend[1] == "none is fooled"


@pytest.mark.parametrize(
    ("epsilon", "title"),
    [
        (None, "perturbation, linf norm 10 of 255:"),
        (10.0, "perturbation, linf ball of 10 of 255:"),
        (30.0, "perturbation, linf norm 10 of 255, in a ball of 30 of 255:"),
    ],
)
def test_report_names_the_ball(epsilon, title):
    report = dataclasses.replace(results.report(0.5), ball_epsilon=epsilon)
    assert title in report.plot().get_suptitle()


def test_resized_cells_are_marked():
    title = results.transfer(1, 1, "net").plot().axes[0].get_title()
    assert "* resized" in title


def test_plot_graph():
    axes = results.one_part().plot_graph(list("abc")).axes[0]
    assert axes.get_title() == "2 labels lead to c"
    # Two arrows, three names.
    assert len(axes.patches) == 2
    assert sorted(text.get_text() for text in axes.texts) == list("abc")
    figure = results.one_part().plot_graph(least_share=1.0)
    assert "no edges" in figure.axes[0].get_title()


def test_plot_a_large_graph():
    rng = np.random.default_rng(0)
    before = np.arange(60)
    after = np.where(before < 40, 50, rng.integers(0, 5, 60))
    flow = analysis.LabelFlow(
        before, after, np.unique(after), np.ones(1), np.ones(1), 1.0, 60
    )
    assert "not drawn" in flow.plot_graph().axes[0].get_title()


def test_intervals_of_grouped_bars():
    axes = visualization.style.axes(4, 3)
    both = [("a", "b", [0.2, 0.4], [(0.1, 0.3), (np.nan, np.nan)])]
    places = visualization.style.grouped_bars(axes, ["one", "two"], both)
    assert places.tolist() == [[0, 1]]
    (lines,) = axes.containers[1].lines[2]
    np.testing.assert_allclose(lines.get_segments()[0][:, 1], [0.1, 0.3])
    assert [bar.get_height() for bar in axes.patches] == [0.2, 0.4]
