"""Tests of resizing perturbations."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_uap
from keras_uap import analysis, interchange
from keras_uap.perturbations.lp_ball import lp_norm

CARD = {"epsilon": 10.0, "norm": "linf", "value_range": (0, 255), "seed": 3}


@pytest.fixture
def v():
    signs = np.sign(np.random.default_rng(0).normal(size=(8, 6, 3)))
    return (10 * signs).astype("float32")


@pytest.mark.parametrize("size", [(8, 6), (4, 3), (16, 9), 12])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("method", ["bilinear", "bicubic", "nearest"])
def test_never_leaves_the_ball(size, norm, method, v):
    before = v.copy()
    resized = keras_uap.resize_perturbation(v, size, norm=norm, method=method)
    assert resized.shape == (*np.broadcast_to(size, 2), 3)
    assert resized.dtype == np.float32
    assert 0 < lp_norm(resized, norm) <= lp_norm(v, norm)
    np.testing.assert_array_equal(v, before)


def test_known_answers():
    v = np.float32([[1, 3], [5, 7]])[..., np.newaxis]
    larger = keras_uap.resize_perturbation(v, (4, 2), method="nearest")
    np.testing.assert_array_equal(larger[..., 0], np.repeat(v[..., 0], 2, 0))
    # The l2 norm grew by the root of two, and was brought back.
    l2 = keras_uap.resize_perturbation(v, (4, 2), norm="l2", method="nearest")
    np.testing.assert_allclose(l2, larger / np.sqrt(2), rtol=1e-5)
    small = keras_uap.resize_perturbation(v, 1, method="area")
    np.testing.assert_allclose(small, [[[4]]], rtol=1e-6)
    inside = keras_uap.resize_perturbation(v, (4, 2), 5.0, method="nearest")
    np.testing.assert_allclose(inside, np.minimum(larger, 5), rtol=1e-6)
    zero = keras_uap.resize_perturbation(np.zeros((2, 2, 3)), 4)
    np.testing.assert_array_equal(zero, np.zeros((4, 4, 3)))


def test_smaller_is_not_aliased():
    """Stripes of one pixel are grey from afar, not stripes of half a size."""
    v = np.zeros((8, 8, 1), "float32")
    v[:, ::2], v[:, 1::2] = 10, -10
    assert np.abs(keras_uap.resize_perturbation(v, 2)).max() < 1


def test_the_card_says_so(v, tmp_path):
    path = interchange.save_perturbation(tmp_path / "a", v, CARD)
    loaded, card = interchange.load_perturbation(path)
    resized, new = keras_uap.resize_perturbation(
        loaded, 4, method="bicubic", card=card
    )
    path = interchange.save_perturbation(tmp_path / "b", resized, new)
    array, saved = interchange.load_perturbation(path)
    np.testing.assert_array_equal(array, resized)
    assert saved["resized"] == {"from": [8, 6, 3], "method": "bicubic"}
    assert saved["shape"] == [4, 4, 3]
    assert (saved["epsilon"], saved["norm"], saved["seed"]) == (10, "linf", 3)
    assert "resized" not in card
    # The old card would claim rates and a size that are not its own.
    with pytest.raises(ValueError, match=r"has shape.*resize_perturbation"):
        interchange.save_perturbation(tmp_path / "c", resized, card)


def test_the_norm_of_the_card_counts(v):
    card = CARD | {"norm": "l2", "epsilon": 300.0}
    resized, new = keras_uap.resize_perturbation(v, 32, card=card)
    assert lp_norm(resized, "l2") <= 300
    assert lp_norm(resized, "l2") > 250
    assert new["epsilon"] == 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size=0"),
        ({"size": 4.0}, "size=4.0"),
        ({"size": (4, 4, 3)}, r"size=\(4, 4, 3\)"),
        ({"size": 4, "method": "best"}, "'best'"),
        ({"size": 4, "norm": "l1"}, "'l1'"),
        ({"size": 4, "epsilon": 0.0}, "epsilon"),
    ],
)
def test_refuses(arguments, message, v):
    with pytest.raises(ValueError, match=message):
        keras_uap.resize_perturbation(v, **arguments)


def test_refuses_what_has_no_height_and_width(v):
    with pytest.raises(ValueError, match=r"\(2, 8, 6, 3\)"):
        keras_uap.resize_perturbation(np.stack([v, v]), 4)


def test_wrong_size_is_an_error_everywhere(linear, images):
    """Nothing resizes in silence, and every message names the way."""
    classifier = linear()
    small = np.zeros((4, 4, 3), "float32")
    uap = keras_uap.UniversalPerturbation(classifier, 0.1, value_range=(0, 1))
    layer = keras_uap.PerturbationLayer(np.zeros((8, 8, 3)))
    tries = [
        lambda: setattr(uap, "perturbation", small),
        lambda: keras_uap.UniversalPerturbation(
            classifier, 0.1, initial_perturbation=small
        ),
        lambda: uap.perturb(images[:, :4, :4]),
        lambda: uap.fit(images[:, :4, :4], verbose=0),
        lambda: setattr(layer, "perturbation", small),
        lambda: keras_uap.PerturbationLayer(small)(images),
        lambda: keras.Sequential(
            [keras.Input((8, 8, 3)), keras_uap.PerturbationLayer(small)]
        ),
        lambda: analysis.fooling_report(classifier, small, images),
        lambda: analysis.baseline_rates(classifier, small, images, images),
        lambda: analysis.label_flow(classifier, small, images),
    ]
    for attempt in tries:
        with pytest.raises(ValueError, match="resize_perturbation"):
            attempt()


def test_transfer_uses_it(v):
    """In l2, a larger size does not make a larger perturbation."""
    shape, seen = (16, 12, 3), []

    class Watch(keras.layers.Layer):
        def call(self, inputs):
            seen.append(inputs)
            return inputs

    classifier = keras.Sequential(
        [keras.Input(shape), Watch(), keras.layers.Flatten()]
    )
    analysis.transfer_matrix(
        [classifier],
        [v],
        np.full((2, 8, 6, 3), 128.0),
        norm="l2",
        value_range=None,
        from_logits=True,
        verbose=0,
    )
    assert all(tf.TensorShape(x.shape[1:]) == shape for x in seen)
    grown = tf.image.resize(v, shape[:2])
    assert lp_norm(grown, "l2") > lp_norm(v, "l2")
    resized = keras_uap.resize_perturbation(v, shape[:2], norm="l2")
    np.testing.assert_allclose(
        lp_norm(resized, "l2"), lp_norm(v, "l2"), rtol=1e-4
    )
