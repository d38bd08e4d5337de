import dataclasses
import json

import numpy as np
import pytest
from models import SHAPE
from scipy import special

from keras_uap import analysis
from keras_uap.analysis import difference_interval, rate_interval


@pytest.fixture
def small_noise():
    signs = np.sign(np.random.default_rng(3).normal(size=SHAPE))
    v = (0.08 * signs).astype("float32")
    v[0] = 0.0
    v[1] *= 0.5
    return v


def recount(model, images, v, clip=(0, 1), rounded=False):
    """Logits and labels of the perturbed images, in NumPy."""
    kernel, bias = model.layers[-1].get_weights()
    x = images.astype("float64") + v
    if clip:
        x = np.clip(x, *clip)
    if rounded:
        x = np.round(x * 255) / 255
    return x.reshape(len(x), -1) @ kernel + bias


def test_against_numpy(linear, images, small_noise):
    model = linear()
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 4, 40), np.arange(40) // 4
    report = analysis.fooling_report(
        model,
        small_noise,
        images,
        labels=labels,
        groups=groups,
        value_range=(0, 1),
        verbose=0,
    )
    clean = recount(model, images, 0.0)
    perturbed = recount(model, images, small_noise)
    rounded = recount(model, images, small_noise, rounded=True)
    unclipped = recount(model, images, small_noise, clip=None)
    before, after = clean.argmax(1), perturbed.argmax(1)
    fooled = before != after
    assert 0 < fooled.mean() < 1
    np.testing.assert_array_equal(report.clean_labels, before)
    np.testing.assert_array_equal(report.perturbed_labels, after)
    assert report.fooling_rate == pytest.approx(fooled.mean())
    assert report.fooling_interval == rate_interval(fooled, groups)
    assert report.rounded_rate == pytest.approx(
        (rounded.argmax(1) != before).mean()
    )
    assert report.unclipped_rate == pytest.approx(
        (unclipped.argmax(1) != before).mean()
    )
    assert report.error_rate == pytest.approx((after != labels).mean())
    assert report.clean_error_rate == pytest.approx((before != labels).mean())
    sure = special.softmax(clean, axis=1).max(1)
    unsure = special.softmax(perturbed, axis=1).max(1)
    np.testing.assert_allclose(report.clean_confidences, sure, rtol=1e-4)
    assert report.clean_confidence == pytest.approx(sure.mean(), rel=1e-4)
    assert report.perturbed_confidence == pytest.approx(unsure.mean(), rel=1e-4)
    assert report.fooled_confidence == pytest.approx(
        unsure[fooled].mean(), rel=1e-4
    )
    assert report.share_changed == pytest.approx(7 / 8)
    assert report.share_at_bound == pytest.approx(6 / 8)
    assert report.epsilon == pytest.approx(0.08)
    assert (report.num_images, report.num_groups) == (40, 10)
    for c, (rate, count) in report.per_class().items():
        assert count == (before == c).sum()
        assert rate == pytest.approx(fooled[before == c].mean())
    sent = after[fooled]
    for c, share in report.dominant_labels():
        assert share == pytest.approx((sent == c).mean())


def test_labels_change_no_fooling_rate(linear, images, small_noise):
    arguments = {"value_range": (0, 1), "verbose": 0}
    with_labels = analysis.fooling_report(
        linear(), small_noise, images, labels=np.zeros(40, int), **arguments
    )
    without = analysis.fooling_report(
        linear(), small_noise, images, **arguments
    )
    assert with_labels.fooling_rate == without.fooling_rate
    assert without.error_rate is None


def test_random_noise_has_the_norm(linear, images, small_noise):
    model = linear()
    for norm in ("linf", "l2"):
        report = analysis.fooling_report(
            model,
            100 * small_noise,
            images,
            norm=norm,
            value_range=None,
            verbose=0,
        )
        # Noise of a hundred times the contrast turns every boundary over.
        assert report.random_rate > 0.5
        assert report.norm == norm


def test_grey_levels_follow_the_range(linear, images):
    # A step of 0.4 grey levels is rounded away in any range.
    levels = np.round(images * 255)
    for high, data in ((1, levels / 255), (255, levels)):
        v = np.full(SHAPE, 0.4 * high / 255)
        report = analysis.fooling_report(
            linear(scale=500 / high),
            v,
            data,
            value_range=(0, high),
            verbose=0,
        )
        assert report.rounded_rate == 0.0


def test_json_and_table(linear, images, small_noise):
    report = analysis.fooling_report(
        linear(),
        small_noise,
        images,
        labels=np.zeros(40, int),
        groups=np.arange(40) // 4,
        value_range=(0, 1),
        verbose=0,
    )
    values = json.loads(report.to_json())
    assert values["fooling_rate"] == report.fooling_rate
    assert values["clean_labels"] == report.clean_labels.tolist()
    assert len(values["perturbed_confidences"]) == 40
    table = report.table()
    assert str(report) == table
    assert max(map(len, table.splitlines())) <= 80
    assert "linf norm 0.08 of 1, n = 40 images of 10 photographs" in table
    assert "error rate, perturbed" in table
    names = report.table(class_names=["cat", "dog", "hen", "owl"])
    assert "class" not in names


def test_nothing_fooled(linear, images):
    report = analysis.fooling_report(
        linear(), np.zeros(SHAPE), images, value_range=(0, 1), verbose=0
    )
    assert report.fooling_rate == report.random_rate == 0.0
    assert report.fooled_confidence == 0.0
    assert report.dominant_labels() == []
    assert ("confidence, where fooled", "-", "") in report.rows()[2]
    json.loads(report.to_json())


def test_a_norm_far_inside_the_ball(linear, images, small_noise):
    report = analysis.fooling_report(
        linear(),
        small_noise,
        images,
        value_range=(0, 1),
        epsilon=0.2,
        verbose=0,
    )
    assert "linf norm 0.08 of 1, in a ball of 0.2 of 1" in report.table()
    reached = dataclasses.replace(report, ball_epsilon=0.08)
    assert "linf ball of 0.08 of 1," in reached.table()


def test_target(linear, images, small_noise):
    model, v = linear(), 5 * small_noise
    before = recount(model, images, 0.0).argmax(1)
    after = recount(model, images, v).argmax(1)
    target = int(np.bincount(after).argmax())
    others = before != target
    report = analysis.fooling_report(
        model, v, images, value_range=(0, 1), target=target, verbose=0
    )
    rate = np.mean(after[others] == target)
    assert np.any(before == target)
    assert report.target_rate == pytest.approx(rate)
    low, high = report.target_interval
    assert low < rate < high
    assert 0 <= report.target_random_rate <= 1
    table = report.table()
    assert f"sent to class {target}, of {others.sum()} others" in table
    assert f"{rate:.1%}" in table
    assert json.loads(report.to_json())["target_rate"] == report.target_rate


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"perturbation": np.zeros((8, 8, 1))}, "perturbation's shape"),
        ({"images": np.zeros((0, *SHAPE))}, "at least one image"),
        ({"images": np.full((3, *SHAPE), np.nan)}, "finite"),
        ({"groups": [1, 2]}, "one group per image"),
        ({"groups": np.zeros(40)}, "at least two photographs"),
        ({"num_random": 0}, "num_random"),
        ({"norm": "l1"}, "Unknown norm"),
        ({"value_range": (1, 0)}, "value_range"),
    ],
)
def test_refuses_before_any_work(linear, images, small_noise, change, message):
    arguments = {"perturbation": small_noise, "images": images, **change}
    model = linear()
    model.call = None  # Any work would fail.
    with pytest.raises(ValueError, match=message):
        analysis.fooling_report(model, **arguments)


# Intervals ------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.15, 0.5, 0.85])
def test_coverage_with_crops_of_photographs(share):
    """Draws photographs whose crops agree; counts intervals that hold."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(25), 6)
    covered = naive = 0
    draws = 400
    for _ in range(draws):
        # Beta with mean `share`: crops of one photograph are alike.
        chance = rng.beta(share, 1 - share, 25)
        hits = rng.random(150) < chance[groups]
        low, high = rate_interval(hits, groups)
        covered += low <= share <= high
        low, high = rate_interval(hits)
        naive += low <= share <= high
    assert 0.92 <= covered / draws <= 0.995
    assert naive / draws < 0.8


def test_coverage_with_independent_images():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        low, high = rate_interval(rng.random(200) < 0.3)
        covered += low <= 0.3 <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_interval_edges():
    groups = np.repeat(np.arange(10), 5)
    low, high = rate_interval(np.ones(50), groups)
    assert high == 1.0
    assert 0.5 < low < 0.9  # Ten photographs, not fifty crops.
    assert rate_interval(np.zeros(50), groups)[0] == 0.0
    with pytest.raises(ValueError, match="two photographs"):
        rate_interval(np.ones(5), np.zeros(5))
    with pytest.raises(ValueError, match="level"):
        rate_interval(np.ones(5), level=95)
    with pytest.raises(ValueError, match="one-dimensional"):
        rate_interval([])
    with pytest.raises(ValueError, match="one group per image"):
        rate_interval(np.ones(5), [1, 2])


def test_coverage_of_differences_with_crops_of_photographs():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(25), 6)
    covered = 0
    for _ in range(400):
        shift = rng.normal(0.1, 0.2, 25)[groups]
        differences = shift + rng.uniform(-0.2, 0.2, 150)
        low, high = difference_interval(np.clip(differences, -1, 1), groups)
        covered += low <= 0.1 <= high
    assert covered / 400 >= 0.92


def test_difference_refuses():
    with pytest.raises(ValueError, match="two photographs"):
        difference_interval([1.0, 0.0], [1, 1])
    with pytest.raises(ValueError, match="level"):
        difference_interval([1.0, 0.0], level=0)
    with pytest.raises(ValueError, match="one-dimensional"):
        difference_interval([])


def test_without_a_value_range_there_are_no_grey_levels(linear, images):
    v = np.zeros(images.shape[1:], "float32")
    report = analysis.fooling_report(linear(), v, images, value_range=None)
    assert report.rounded_rate is None
    scaled = analysis.fooling_report(linear(), v, images, value_range=(0, 1))
    assert scaled.rounded_rate is not None
