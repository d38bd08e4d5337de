"""Dominant labels: what they take, what v alone is seen as, when it settles."""

import keras
import numpy as np
import pytest

from keras_uap import analysis
from keras_uap.perturbations.lp_ball import LpBall

SHAPE = (2, 3, 1)
CLASSES = 6


def switches(bias):
    """A classifier whose first pixel turns on class 4, whose second class 5.

    Classes 0 to 3 are the brightest of the other pixels.
    """
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES),
        ]
    )
    kernel = np.zeros((6, CLASSES))
    kernel[2:, :4] = np.eye(4)
    kernel[0, 4] = kernel[1, 5] = 10.0
    model.set_weights([kernel, np.array([0, 0, 0, 0, bias, bias])])
    return model


@pytest.fixture
def switch():
    return switches(-6.0)


@pytest.fixture
def nearly_on():
    """The same, and the two classes come second everywhere."""
    return switches(0.3)


@pytest.fixture
def pixels():
    """Six images of class 3, four of 2, two of 1; all else is 0."""
    images = np.zeros((12, *SHAPE), "float32")
    for i, label in enumerate([3] * 6 + [2] * 4 + [1] * 2):
        images[i].flat[2 + label] = 0.5
    return images


def first_pixel():
    v = np.zeros(SHAPE)
    v.flat[0] = 1.0
    return v


def test_one_label_takes_all(switch, pixels):
    result = analysis.label_dominance(
        switch,
        first_pixel(),
        pixels,
        groups=np.arange(12) // 2,
        value_range=(0, 1),
        verbose=0,
    )
    assert result.names == ("clean", "perturbed", "random noise")
    assert result.tops == (1, 3, 5)
    np.testing.assert_allclose(result.shares[0], [6 / 12, 1, 1])
    np.testing.assert_allclose(result.shares[1], [1, 1, 1])
    assert result.intervals[1, 0, 0] < 1 == result.intervals[1, 0, 1]
    assert result.fooling_rate == 1.0
    assert result.dominant_label == 4
    # On grey, class 4 has 4 logits with v, and -1 without; classes 0 to 3
    # have half a logit.
    assert result.alone_labels[1, 0] == 4
    assert result.alone_labels[0, 0] == 0
    assert result.alone_rank == 1
    scores = np.exp([4, 0.5, 0.5, 0.5, 0.5, -1])
    np.testing.assert_allclose(
        result.alone_probabilities[1], scores[:5] / scores.sum(), rtol=1e-5
    )
    assert result.grey == 0.5
    assert result.num_groups == 6
    assert "class 4" in result.table()
    assert "p = 0.64" not in result.table()
    assert "of a kind" in result.table(["of a kind"] * CLASSES)


def test_random_noise_has_the_same_norm(switch, pixels):
    v = 0.1 * first_pixel()
    result = analysis.label_dominance(
        switch, v, pixels, value_range=(0, 1), verbose=0
    )
    # No noise of 0.1 turns anything on, and what it adds changes no order.
    np.testing.assert_array_equal(result.labels[2], result.labels[0])
    assert result.random_rate == result.fooling_rate == 0.0
    assert result.epsilon == pytest.approx(0.1)
    # Of classes 1 to 3, the first in order is the most common.
    assert result.dominant_label == 3
    assert result.alone_rank == 4


def test_without_a_range_grey_is_zero(switch, pixels):
    result = analysis.label_dominance(
        switch, first_pixel(), pixels, value_range=None, verbose=0
    )
    assert result.grey == 0.0
    scores = np.exp([4, 0, 0, 0, 0, -6])
    np.testing.assert_allclose(
        result.alone_probabilities[1], scores[:5] / scores.sum(), rtol=1e-5
    )


FIT = {
    "epsilon": 1.0,
    "value_range": None,
    "draws": 96,
    "fit_batch_size": 4,
    "verbose": 0,
}


def test_history_of_a_fit(nearly_on, pixels):
    result = analysis.dominance_history(
        nearly_on, pixels, pixels, 2, groups=np.arange(12) // 2, seed=3, **FIT
    )
    assert result.seeds == (3, 4)
    # Eight epochs of three batches.
    np.testing.assert_array_equal(result.batches, [1, 2, 4, 8, 16, 24])
    assert result.labels.shape == result.shares.shape == (2, 6)
    for v, labels, shares, rates in zip(
        result.perturbations,
        result.labels,
        result.shares,
        result.fooling_rates,
    ):
        flow = analysis.label_flow(nearly_on, v, pixels, None, verbose=0)
        assert labels[-1] in (4, 5)
        assert flow.labels[0] == labels[-1]
        assert shares[-1] == flow.captured[0] == 1.0
        assert rates[-1] == flow.fooling_rate == 1.0
    assert result.intervals[0, 0] < 1 == result.intervals[0, 1]
    assert result.loss == "dominant"
    assert result.num_groups == 6
    assert "perturbations" not in result.to_dict()
    noise = LpBall(1.0).noise(SHAPE, np.random.default_rng(3))
    flow = analysis.label_flow(nearly_on, noise, pixels, None, verbose=0)
    assert result.random_label == flow.labels[0]
    assert result.random_rate == flow.fooling_rate


@pytest.mark.slow
def test_another_start_gives_another_label(nearly_on, pixels):
    """Two labels are as good as each other: the start chooses."""
    result = analysis.dominance_history(
        nearly_on, pixels, pixels, 2, random_start=True, seed=4, **FIT
    )
    expected = {}
    for place, seed in enumerate(result.seeds):
        start = LpBall(1.0).uniform(SHAPE, np.random.default_rng(seed))
        first, second = start.flat[:2]
        assert max(first, second) > 0.3
        expected[place] = 4 if first > second else 5
    assert set(expected.values()) == {4, 5}
    for place, label in expected.items():
        assert result.labels[place, -1] == label
    assert result.random_start


def test_a_loss_is_passed_on(switch, pixels):
    result = analysis.dominance_history(
        switch, pixels, pixels, 1, loss="crossentropy", **FIT
    )
    assert result.loss == "crossentropy"
    assert "loss crossentropy" in result.table()


def history_of(labels):
    labels = np.array(labels)
    fits, looks = labels.shape
    return analysis.DominanceHistory(
        seeds=tuple(range(fits)),
        batches=2 ** np.arange(looks),
        labels=labels,
        shares=np.zeros(labels.shape),
        fooling_rates=np.zeros(labels.shape),
        intervals=np.zeros((fits, 2)),
        random_label=-1,
        random_share=0.0,
        random_rate=0.0,
        random_interval=(0.0, 0.1),
        batch_size=16,
        loss="dominant",
        random_start=False,
        epsilon=10.0,
        norm="linf",
        num_images=9,
        num_groups=9,
        perturbations=np.zeros((fits, *SHAPE)),
    )


def test_settled_is_since_when_it_stayed():
    result = history_of(
        [[4, 4, 4, 4], [1, 4, 4, 4], [4, 1, 1, 4], [4, 1, 4, 4], [-1, -1, 2, 3]]
    )
    np.testing.assert_array_equal(result.settled, [1, 2, 8, 4, 8])
    assert "none" in history_of([[-1, -1]]).table()


def test_what_is_refused(switch, pixels):
    with pytest.raises(ValueError, match="perturbation's shape"):
        analysis.label_dominance(switch, np.zeros((3, 3, 1)), pixels)
    with pytest.raises(ValueError, match="seed"):
        analysis.label_dominance(switch, first_pixel(), pixels, seed=-1)
    for name, value in (
        ("num_seeds", 0),
        ("random_start", "yes"),
        ("fit_batch_size", 0),
        ("loss", "mse"),
        ("epsilon", 0),
    ):
        with pytest.raises(ValueError, match=name):
            analysis.dominance_history(
                switch, pixels, pixels, **{**FIT, name: value}
            )
    with pytest.raises(ValueError, match="held-out images"):
        analysis.dominance_history(switch, pixels, pixels[:, :1], **FIT)
