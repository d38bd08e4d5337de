"""Steps along smoothed gradients."""

import keras
import models
import numpy as np
import pytest
import scipy.ndimage

import keras_uap
from keras_uap.attacks.smoothing import smoothed

RNG = np.random.default_rng(0)


def gaussian(array, sigma):
    """SciPy's, over height and width, with nothing beyond the edges."""
    sigmas = (sigma, sigma, 0)
    return scipy.ndimage.gaussian_filter(
        array, sigmas, mode="constant", truncate=3.0
    )


def slope(classifier):
    """The gradient of the second logit over the first: a linear one's."""
    kernel, _ = classifier.get_weights()
    return (kernel[:, 1] - kernel[:, 0]).reshape(models.SHAPE)


@pytest.mark.parametrize("sigma", [0, 1.0, 2.0])
def test_as_scipy_does(sigma):
    gradients = RNG.normal(size=(20, 30, 3)).astype("float32")
    found = np.array(smoothed(gradients, sigma))
    expected = gaussian(gradients, sigma) if sigma else gradients
    np.testing.assert_allclose(found, expected, atol=1e-6)
    pool = np.array(smoothed(np.stack([gradients] * 2), sigma))
    np.testing.assert_allclose(pool, [expected] * 2, atol=1e-6)


def test_a_gaussian_wider_than_the_image_is_its_mean():
    gradients = RNG.normal(size=(8, 8, 3)).astype("float32")
    found = np.array(smoothed(gradients, 1e6))
    # Cut off far outside: every place sees all, alike.
    shares = found / gradients.sum(axis=(0, 1))
    np.testing.assert_allclose(shares, shares.flat[0], rtol=1e-3)


@pytest.mark.parametrize("sigma", [0.0, 1.5])
@pytest.mark.parametrize("optimizer", ["lion", "deepfool"])
def test_a_step_follows_the_smoothed_slope(sigma, optimizer, images, make_uap):
    classifier = models.linear(2, scale=0.1)
    uap = make_uap(classifier, 0.05)
    uap.compile(optimizer, smoothing=sigma)
    # All of one class, so that all gradients point one way.
    labels = classifier.predict(images, verbose=0).argmax(-1)
    same = images[labels == 0]
    uap.fit(same, epochs=1, batch_size=len(same), verbose=0)
    v = uap.perturbation
    goal = slope(classifier)
    goal = gaussian(goal, sigma) if sigma else goal
    clear = np.abs(goal) > 1e-5
    np.testing.assert_array_equal(np.sign(v)[clear], np.sign(goal)[clear])
    assert uap.ball.norm_of(v) <= 0.05


def test_a_step_stays_in_the_mask(images, make_uap):
    mask = np.zeros(models.SHAPE[:2])
    mask[2:5, 2:5] = 1
    uap = make_uap(models.linear(2), 0.05, mask=mask)
    uap.compile("lion", smoothing=2.0)
    uap.fit(images, epochs=1, verbose=0)
    assert uap.perturbation[mask == 1].any()
    assert not uap.perturbation[mask == 0].any()


@pytest.mark.slow
def test_a_file_says_how_steps_are_smoothed(images, make_uap, tmp_path):
    uap = make_uap(models.linear(), 0.05)
    uap.compile("lion", smoothing=1.5)
    uap.fit(images, epochs=1, verbose=0)
    uap.save(tmp_path / "uap.keras")
    loaded = keras.saving.load_model(tmp_path / "uap.keras")
    for each in (uap, loaded):
        each.fit(images, epochs=2, initial_epoch=1, verbose=0)
    np.testing.assert_array_equal(uap.perturbation, loaded.perturbation)
    assert loaded.get_compile_config() == uap.get_compile_config()


def test_one_image_after_another_cannot_smooth(make_uap):
    uap = make_uap(models.linear())
    with pytest.raises(ValueError, match="One image after another"):
        uap.compile(keras_uap.DeepFool(one_by_one=True), smoothing=1.0)


def test_signals_have_no_height(make_uap):
    uap = make_uap(models.linear(shape=(16, 2)))
    with pytest.raises(ValueError, match=r"images \(H, W, C\)"):
        uap.compile("lion", smoothing=1.0)
