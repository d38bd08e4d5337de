"""Who decides: on a linear network correlations are known in closed form."""

import keras
import models
import numpy as np
import pytest

from keras_uap import analysis
from keras_uap.perturbations.lp_ball import LpBall, lp_norm

SHAPE = (2, 2, 1)
# The logits of the first and of the second pixel: perpendicular, of mean zero.
OF_X, OF_V = np.array([1.0, -1, 0, 0]), np.array([0, 0, 1.0, -1])


def split(bias=0.0):
    """A linear classifier whose first two pixels have logits of their own."""
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(4),
        ]
    )
    kernel = np.stack([OF_X, OF_V, np.zeros(4), np.zeros(4)])
    model.set_weights([kernel, bias * np.arange(4.0)])
    return model


def pixel(index, *values):
    images = np.zeros((len(values), *SHAPE), "float32")
    images.reshape(len(values), -1)[:, index] = values
    return images


X = pixel(0, 1.0, 2.0, 3.0, 4.0)
INCREMENTS = pixel(0, -2.0, -4.0, -6.0, -8.0)


def measure(v, model=None, images=X, **kwargs):
    kwargs = {
        "norm": "l2",
        "increments": INCREMENTS,
        "value_range": None,
        "verbose": 0,
        **kwargs,
    }
    return analysis.mutual_influence(model or split(), v, images, **kwargs)


def test_a_linear_network_splits_into_its_parts():
    result = measure(pixel(1, 1.5)[0])
    sizes = np.array([1.0, 2.0, 3.0, 4.0])
    both = np.hypot(sizes, 1.5)
    np.testing.assert_allclose(
        result.with_perturbation[0], 1.5 / both, rtol=1e-6
    )
    np.testing.assert_allclose(result.with_image[0], sizes / both, rtol=1e-6)
    np.testing.assert_allclose(result.unrelated[0], 0, atol=1e-7)
    # The perturbation decides where it is the larger part.
    assert result.decided[0] == 0.25
    assert result.fooling_rates[0] == 0.25
    low, high = result.decided_intervals[0]
    assert 0 < low < 0.25 < high < 1
    low, high = result.perturbation_intervals[0]
    assert low < result.with_perturbation[0].mean() < high
    assert result.grey == 0.0
    np.testing.assert_allclose(result.norms[0], 1.5, rtol=1e-6)


def test_what_is_made_for_single_images():
    result = measure(pixel(1, 2.5)[0])
    names = result.names
    own, minimal = (
        names.index("image's own"),
        names.index("image's own, minimal"),
    )
    # The smallest ones turn each image round: the answer is the opposite.
    np.testing.assert_allclose(result.with_image[minimal], -1, rtol=1e-6)
    np.testing.assert_allclose(result.with_perturbation[minimal], 1, rtol=1e-6)
    np.testing.assert_allclose(result.norms[minimal], [2, 4, 6, 8])
    # At the norm 2.5, only images smaller than that are turned round.
    np.testing.assert_allclose(result.norms[own], 2.5, rtol=1e-5)
    np.testing.assert_allclose(
        result.with_image[own], [-1, -1, 1, 1], rtol=1e-6
    )
    np.testing.assert_allclose(result.fooling_rates[[own, minimal]], [0.5, 1])


def test_in_linf_a_single_image_has_signs():
    increments = pixel(0, -2.0, -4.0, -6.0, 0.0)
    result = measure(pixel(1, 2.5)[0], norm="linf", increments=increments)
    own = result.names.index("image's own")
    # One of zeros, where there is no direction, stays.
    np.testing.assert_allclose(result.norms[own], [2.5, 2.5, 2.5, 0], rtol=1e-5)


def test_random_noise_of_the_same_norm_stands_beside():
    rng = np.random.default_rng(2)
    v = 0.3 * np.sign(rng.normal(size=models.SHAPE))
    model, images = models.linear(), models.images(20)
    result = analysis.mutual_influence(
        model,
        v,
        images,
        groups=np.arange(20) // 2,
        increments=np.zeros_like(images),
        value_range=(0, 1),
        seed=5,
        verbose=0,
    )
    noise = LpBall(lp_norm(v), "linf").noise(v.shape, np.random.default_rng(5))
    kernel, bias = model.get_weights()

    def z(x):
        return np.clip(x, 0, 1).reshape(-1, 192) @ kernel + bias

    for i, added in enumerate((v, noise)):
        both, clean, alone = z(images + added), z(images), z(0.5 + added)
        for j in range(20):
            expected = np.corrcoef([both[j], clean[j], alone[0]])
            found = (
                result.with_image[i, j],
                result.with_perturbation[i, j],
                result.unrelated[i, j],
            )
            np.testing.assert_allclose(
                found, expected[[0, 0, 1], [1, 2, 2]], atol=1e-4
            )
    assert result.names[1] == "random noise"
    np.testing.assert_allclose(result.norms[1], 0.3, rtol=1e-6)
    assert result.grey == 0.5
    assert result.num_groups == 10


def test_deepfool_finds_the_increments():
    images = models.images(8)
    v = np.full(models.SHAPE, 0.1)
    result = analysis.mutual_influence(
        models.linear(activation="softmax"),
        v,
        images,
        value_range=(0, 1),
        verbose=0,
    )
    minimal = result.names.index("image's own, minimal")
    assert result.fooling_rates[minimal] == 1.0
    assert 0 < result.norms[minimal].max() < 0.1
    assert result.with_image[minimal].mean() > result.with_image[0].mean()


@pytest.mark.slow
def test_signals_are_shown_on_silence():
    signals = np.random.default_rng(0).normal(size=(9, 20, 2))
    classifier = models.linear(shape=(20, 2))
    v = np.random.default_rng(1).normal(size=(20, 2))
    quiet = {"norm": "l2", "value_range": None, "verbose": 0}
    result = analysis.mutual_influence(classifier, v, signals, **quiet)
    assert result.grey == 0.0
    alone = classifier.predict(v[np.newaxis], verbose=0)[0]
    both = classifier.predict(signals + v, verbose=0)
    for i in range(9):
        assert result.with_perturbation[0, i] == pytest.approx(
            np.corrcoef(both[i], alone)[0, 1], abs=1e-5
        )
    seen = analysis.label_dominance(classifier, v, signals, **quiet)
    assert seen.alone_labels[1, 0] == alone.argmax()


def test_equal_logits_correlate_with_nothing():
    result = measure(np.zeros(SHAPE))
    np.testing.assert_array_equal(result.with_perturbation[:2], 0)
    np.testing.assert_allclose(result.with_image[:2], 1)
    assert np.isfinite(result.perturbation_intervals).all()


def test_what_is_refused():
    v = pixel(1, 1.0)[0]
    with pytest.raises(ValueError, match="two classes is always 1 or -1"):
        analysis.mutual_influence(
            models.linear(2), np.zeros(models.SHAPE), models.images(4)
        )
    with pytest.raises(ValueError, match="at least two"):
        measure(v, images=X[:1], increments=None)
    with pytest.raises(ValueError, match="one perturbation per image"):
        measure(v, increments=INCREMENTS[:2])
    with pytest.raises(ValueError, match="num_candidates"):
        measure(v, num_candidates=1)
    with pytest.raises(ValueError, match="perturbation's shape"):
        measure(np.zeros((3, 3, 1)))
    with pytest.raises(TypeError, match="Keras model"):
        measure(v, model=len)
