import keras
import numpy as np
import pytest

from keras_uap import analysis

SHAPE = (2, 2, 1)


@pytest.fixture
def switch():
    """A classifier of 5 classes whose first pixel turns on class 4.

    Classes 0 to 3 are the brightest of the four pixels. Class 4 wins where the
    first pixel is above 0.9: a perturbation of it dominates.
    """
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(5),
        ]
    )
    kernel = np.zeros((4, 5))
    kernel[:, :4] = np.eye(4)
    kernel[0, 4] = 10.0
    model.set_weights([kernel, np.array([0, 0, 0, 0, -8.5])])
    return model


@pytest.fixture
def pixels():
    """Six images of class 3, four of 2, two of 1; the first pixel is 0."""
    images = np.zeros((12, *SHAPE), "float32")
    for i, label in enumerate([3] * 6 + [2] * 4 + [1] * 2):
        images[i].flat[label] = 0.5
    return images


def test_one_label_dominates(switch, pixels):
    v = np.zeros(SHAPE)
    v.flat[0] = 1.0
    flow = analysis.label_flow(switch, v, pixels, (0, 1), verbose=0)
    assert flow.fooling_rate == 1.0
    assert flow.labels.tolist() == [4]
    np.testing.assert_allclose(flow.captured, [1.0])
    np.testing.assert_allclose(flow.clean_captured, [6 / 12, 10 / 12, 1.0])
    assert flow.edges() == [(3, 4, 6, 6), (2, 4, 4, 4), (1, 4, 2, 2)]
    assert flow.edges(least_images=4) == [(3, 4, 6, 6), (2, 4, 4, 4)]
    graph = flow.graph()
    assert sorted(graph.edges) == [(1, 4), (2, 4), (3, 4)]
    assert graph[3][4] == {"images": 6, "of": 6}
    assert flow.components() == [([1, 2, 3, 4], 4)]


def flow_of(before, after):
    before, after = np.array(before), np.array(after)
    return analysis.LabelFlow(
        clean_labels=before,
        perturbed_labels=after,
        labels=np.unique(after),
        captured=np.array([]),
        clean_captured=np.array([]),
        fooling_rate=float(np.mean(before != after)),
        num_images=len(before),
    )


def test_a_majority_makes_an_edge():
    flow = flow_of([0, 0, 0, 1, 1, 1, 1, 2], [5, 5, 0, 5, 5, 3, 1, 2])
    assert flow.edges() == [(0, 5, 2, 3)]
    assert flow.edges(least_share=0.4) == [(0, 5, 2, 3), (1, 5, 2, 4)]
    with pytest.raises(ValueError, match="least_share"):
        flow.edges(least_share=2)


def test_parts_have_their_own_dominant_label():
    flow = flow_of([0, 1, 2, 3, 4, 7], [9, 9, 9, 8, 8, 7])
    assert flow.components() == [([0, 1, 2, 9], 9), ([3, 4, 8], 8)]


def test_no_perturbation_no_edges(switch, pixels):
    flow = analysis.label_flow(
        switch, np.zeros(SHAPE), pixels, (0, 1), verbose=0
    )
    assert flow.fooling_rate == 0.0
    assert flow.edges() == flow.components() == []
    assert flow.to_dict()["num_images"] == 12


def test_targets(switch, pixels):
    result = analysis.target_rates(
        switch,
        pixels,
        pixels,
        [4, 2],
        groups=np.arange(12) // 2,
        epsilon=1.0,
        value_range=(0, 1),
        draws=240,
        verbose=0,
    )
    np.testing.assert_allclose(result.target_rates, [1.0, 1.0])
    np.testing.assert_allclose(result.clean_rates, [0.0, 4 / 12])
    np.testing.assert_allclose(result.fooling_rates, [1.0, 8 / 12])
    np.testing.assert_array_equal(result.num_others, [12, 8])
    assert result.to_dict()["num_others"] == [12, 8]
    assert result.num_groups == 6
    assert result.perturbations.shape == (2, *SHAPE)
    table = result.table()
    assert max(map(len, table.splitlines())) <= 80
    assert "class 4" in table
    with pytest.raises(ValueError, match="targets must be one of the 5"):
        analysis.target_rates(
            switch, pixels, pixels, [5], value_range=(0, 1), verbose=0
        )
    with pytest.raises(ValueError, match="targets must be whole numbers"):
        analysis.target_rates(switch, pixels, pixels, [])


def test_who_is_there_already_is_not_sent_there(switch, pixels):
    """A perturbation of no size sends nobody, whatever label they have."""
    arguments = {
        "groups": np.arange(12) // 2,
        "epsilon": 1e-6,
        "value_range": (0, 1),
        "draws": 12,
        "verbose": 0,
    }
    result = analysis.target_rates(switch, pixels, pixels, [3], **arguments)
    np.testing.assert_allclose(result.clean_rates, [0.5])
    np.testing.assert_allclose(result.target_rates, [0.0])
    assert result.intervals[0, 0] == 0.0
    assert result.rows()[2][0][:3] == ("class 3", "0.0%", "6")
    # All that is left is of one photograph: no interval can be had.
    result = analysis.target_rates(
        switch,
        pixels,
        pixels[[0, 1, 2, 11]],
        [3],
        **arguments | {"groups": [0, 0, 1, 1]},
    )
    np.testing.assert_array_equal(result.num_others, [1])
    np.testing.assert_array_equal(result.intervals, [[0.0, 1.0]])
    with pytest.raises(ValueError, match="target 3, and 6 held-out images"):
        analysis.target_rates(
            switch,
            pixels,
            pixels[:6],
            [3],
            **arguments | {"groups": None},
        )
