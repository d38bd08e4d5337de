"""Feature collapse: features that are known, and pairs counted one by one."""

import itertools

import keras
import models
import numpy as np
import pytest
from scipy import stats

from keras_uap import analysis
from keras_uap.perturbations.lp_ball import LpBall

QUIET = {"value_range": (0, 1), "verbose": 0}


def features_model(kernel, activation=None):
    """Features of five pixels, and a head that tells the largest of three."""
    model = keras.Sequential(
        [
            keras.Input((5, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation, name="features"),
            keras.layers.Dense(3, "softmax"),
        ]
    )
    model.set_weights([kernel, np.zeros(4), np.eye(4, 3), np.zeros(3)])
    return model


@pytest.fixture
def images():
    """Signals whose last value is 0; the largest of the others is clear."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0.1, 0.4, (24, 5, 1)).astype("float32")
    x[np.arange(24), np.arange(24) // 2 % 3] = 0.6
    x[:, 4] = 0.0
    return x


@pytest.fixture
def last():
    v = np.zeros((5, 1))
    v[4] = 1.0
    return v


def test_features_that_collapse(images, last):
    """The last value turns all features off, and its own one on."""
    kernel = np.zeros((5, 4))
    kernel[:3, :3] = np.eye(3)
    kernel[4] = [-9, -9, -9, 5]
    result = analysis.feature_collapse(
        features_model(kernel, "relu"),
        last,
        images,
        groups=np.arange(24) // 2,
        **QUIET,
    )
    assert result.pairs == ("one photograph", "one class", "two classes", "all")
    # 12 photographs of 2 images, 4 to each class.
    np.testing.assert_array_equal(
        result.num_pairs, [12, 3 * 6 * 4, 3 * 16 * 4, 24 * 23 / 2]
    )
    np.testing.assert_allclose(result.relative_distances[1], 0, atol=1e-6)
    np.testing.assert_allclose(result.relative_intervals[1], 0, atol=1e-6)
    np.testing.assert_allclose(result.cosines[1], 1)
    np.testing.assert_allclose(result.cosine_intervals[1], 1)
    np.testing.assert_allclose(result.own_cosines[:2], [1, 0])
    assert result.num_features == 4
    assert result.num_classes == 3
    # Clean ones are further apart, and across classes most.
    assert np.all(result.cosines[0] < 1)
    assert result.distances[0, 2] > result.distances[0, 1] > 0
    np.testing.assert_allclose(result.relative_distances[0], 1)


def test_a_shift_of_all_features_is_no_collapse(images, last):
    """Linear features move together: as far apart, but in one direction."""
    kernel = np.zeros((5, 4))
    kernel[:3, :3] = np.eye(3)
    kernel[4] = 9
    result = analysis.feature_collapse(
        features_model(kernel), last, images, **QUIET
    )
    np.testing.assert_allclose(result.relative_distances[1], 1, rtol=1e-5)
    assert np.all(result.cosines[1] > 0.99)
    assert result.fooling_rate == 0.0
    # Without photographs there are no pairs of one.
    assert result.pairs == ("one class", "two classes", "all")
    assert result.num_groups == result.num_images == 24


@pytest.mark.parametrize(
    "norm", ["linf", pytest.param("l2", marks=pytest.mark.slow)]
)
def test_pairs_are_counted_one_by_one(norm):
    model, x = models.cnn(), models.images(21)
    v = np.random.default_rng(4).uniform(-0.2, 0.2, models.SHAPE)
    v = LpBall(0.2, norm).scaled(v)
    groups = np.random.default_rng(5).permutation(np.arange(21) // 3)
    result = analysis.feature_collapse(
        model, v, x, groups=groups, norm=norm, seed=6, **QUIET
    )
    noise = LpBall(0.2, norm).noise(v.shape, np.random.default_rng(6))
    body = keras.Model(model.inputs, model.layers[-1].input)
    clean = model.predict(x, verbose=0).argmax(-1)
    features = [
        body.predict(np.clip(x + added, 0, 1), verbose=0).astype("float64")
        for added in (0, v, noise)
    ]
    kinds = {
        "one photograph": lambda i, j: groups[i] == groups[j],
        "one class": lambda i, j: (
            groups[i] != groups[j] and clean[i] == clean[j]
        ),
        "two classes": lambda i, j: (
            groups[i] != groups[j] and clean[i] != clean[j]
        ),
        "all": lambda i, j: True,
    }
    for p, kind in enumerate(result.pairs):

        def measure(f, without=None, kind=kind):
            pairs = [
                (f[i], f[j])
                for i, j in itertools.combinations(range(21), 2)
                if kinds[kind](i, j) and without not in (groups[i], groups[j])
            ]
            squares = [np.square(a - b).sum() for a, b in pairs]
            cosines = [
                a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs
            ]
            return len(pairs), np.sqrt(np.mean(squares)), np.mean(cosines)

        def jackknife(values):
            spread = 6 / 7 * np.square(values - np.mean(values)).sum()
            return stats.t.ppf(0.975, 6) * np.sqrt(spread)

        for i, f in enumerate(features):
            count, distance, cosine = measure(f)
            assert result.num_pairs[p] == count
            assert result.distances[i, p] == pytest.approx(distance, rel=1e-5)
            assert result.cosines[i, p] == pytest.approx(cosine, abs=1e-5)
            left = [
                (measure(f, without), measure(features[0], without))
                for without in range(7)
            ]
            low, high = result.cosine_intervals[i, p]
            half = jackknife([own[2] for own, _ in left])
            assert low == pytest.approx(max(-1, cosine - half), abs=1e-4)
            assert high == pytest.approx(min(1, cosine + half), abs=1e-4)
            relative = distance / result.distances[0, p]
            half = jackknife([own[1] / base[1] for own, base in left])
            low, high = result.relative_intervals[i, p]
            assert low == pytest.approx(max(0, relative - half), abs=1e-4)
            assert high == pytest.approx(relative + half, abs=1e-4)
    assert "one photograph" in result.pairs
    assert result.num_groups == 7


def test_a_layer_by_name(images, last):
    model = features_model(np.eye(5, 4), "relu")
    by_name = analysis.feature_collapse(
        model, last, images, layer="features", **QUIET
    )
    head = analysis.feature_collapse(model, last, images, **QUIET)
    np.testing.assert_array_equal(by_name.cosines, head.cosines)
    other = analysis.feature_collapse(
        model, last, images, layer=model.layers[0].name, **QUIET
    )
    assert other.num_features == 5
    for bad in ([], 3, len):
        with pytest.raises(TypeError, match="layer must be a layer's name"):
            analysis.feature_collapse(model, last, images, layer=bad, **QUIET)
    with pytest.raises(ValueError, match="no layer 'nowhere'"):
        analysis.feature_collapse(model, last, images, layer="nowhere", **QUIET)


def test_kinds_with_too_few_pairs_are_left_out(images, last):
    # Class 2 has two photographs, the others one each: without one of these,
    # there is no pair of one class.
    x = images[[0, 1, 2, 4, 5, 10]]
    result = analysis.feature_collapse(
        features_model(np.eye(5, 4)),
        last,
        x,
        groups=[0, 0, 1, 2, 2, 3],
        **QUIET,
    )
    assert result.pairs == ("one photograph", "two classes", "all")
    assert result.table().count("\n") == 10


def test_what_is_refused(images, last):
    model = features_model(np.eye(5, 4))
    with pytest.raises(ValueError, match="at least three photographs"):
        analysis.feature_collapse(model, last, images[:2], **QUIET)
    with pytest.raises(ValueError, match="at least three photographs"):
        analysis.feature_collapse(
            model, last, images, groups=np.arange(24) % 2, **QUIET
        )
    with pytest.raises(ValueError, match="do not differ"):
        analysis.feature_collapse(model, last, images[:1].repeat(5, 0), **QUIET)
    with pytest.raises(ValueError, match="layers cannot be seen"):
        analysis.feature_collapse(
            models.Subclassed(),
            np.zeros(models.SHAPE),
            models.images(5),
            **QUIET,
        )
    no_dense = keras.Sequential(
        [
            keras.Input(models.SHAPE),
            keras.layers.Conv2D(4, 8),
            keras.layers.Flatten(),
            keras.layers.Softmax(),
        ]
    )
    with pytest.raises(ValueError, match="no dense layer at its end"):
        analysis.feature_collapse(
            no_dense, np.zeros(models.SHAPE), models.images(5), **QUIET
        )
    named = analysis.feature_collapse(
        no_dense,
        np.zeros(models.SHAPE),
        models.images(5),
        layer=no_dense.layers[0].name,
        **QUIET,
    )
    assert named.num_features == 4
    assert named.fooling_rate == 0
    with pytest.raises(TypeError, match="Keras model"):
        analysis.feature_collapse(len, last, images, **QUIET)
