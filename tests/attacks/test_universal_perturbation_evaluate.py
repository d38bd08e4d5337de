"""Tests of `UniversalPerturbation`: rates, predictions and perturbed images."""

import numpy as np
import pytest
import tensorflow as tf
from models import SHAPE, UPDATES, slow


@pytest.mark.parametrize("update", ["one_by_one", slow("lion")])
def test_rates_equal_a_recount(update, cnn, images, held_out, make_uap):
    classifier = cnn()

    def label(x):
        return classifier.predict(x, verbose=0).argmax(-1)

    uap = make_uap(classifier)
    uap.compile(UPDATES[update]())
    labels = np.arange(24) % 4
    history = uap.fit(images, validation_data=(held_out, labels), verbose=0)
    moved = np.clip(held_out + uap.perturbation, 0, 1)
    np.testing.assert_allclose(uap.perturb(held_out), moved, atol=1e-7)
    rate = np.mean(label(moved) != label(held_out))
    assert history.history["val_fooling_rate"] == [pytest.approx(rate)]
    accuracy = np.mean(label(moved) == labels)
    assert history.history["val_accuracy"] == [pytest.approx(accuracy)]
    assert uap.evaluate(held_out, verbose=0) == pytest.approx(rate)
    assert uap.evaluate(held_out, labels, verbose=0) == pytest.approx(
        [rate, accuracy]
    )


@pytest.mark.slow
def test_labels_never_change_the_fooling_rate(cnn, images, make_uap):
    uap = make_uap(cnn())
    uap.fit(images, verbose=0)
    plain = uap.evaluate(images, verbose=0, return_dict=True)
    for y in (np.zeros(40), np.arange(40) % 4, np.eye(4)[np.arange(40) % 4]):
        for data in (
            (images, y),
            (tf.data.Dataset.from_tensor_slices((images, y)).batch(9), None),
        ):
            result = uap.evaluate(*data, verbose=0, return_dict=True)
            assert result["fooling_rate"] == plain["fooling_rate"]
            assert "accuracy" in result


def test_it_predicts_perturbed_images(cnn, images, make_uap):
    classifier = cnn()
    uap = make_uap(classifier)
    uap.fit(images, verbose=0)
    np.testing.assert_allclose(
        uap.predict(images, verbose=0),
        classifier.predict(uap.perturb(images), verbose=0),
        atol=1e-5,
    )


def test_perturb_checks_the_shape(linear, make_uap):
    uap = make_uap(linear())
    for shape in [(2, 7, 8, 3), (7, 8, 3), (1, 1, *SHAPE), (3,)]:
        with pytest.raises(ValueError, match="shape"):
            uap.perturb(np.zeros(shape))


@pytest.mark.parametrize("epsilon", [1e-6, 0.5])
def test_target_rate_is_of_images_not_of_the_target(
    epsilon, linear, images, make_uap
):
    clean = linear().predict(images, verbose=0).argmax(-1)
    uap = make_uap(linear(), epsilon, target=3)
    history = uap.fit(images, epochs=5, verbose=0, validation_data=images)
    moved = linear().predict(uap.perturb(images), verbose=0).argmax(-1)
    assert np.any(clean == 3)
    rate = np.mean(moved[clean != 3] == 3)
    measured = uap.evaluate(images, verbose=0, return_dict=True)
    assert measured["target_rate"] == pytest.approx(rate)
    assert max(history.history["val_target_rate"]) == pytest.approx(rate)
    assert (rate == 0) == (epsilon < 0.1)
    # Where there are none, none are sent.
    assert uap.evaluate(images[clean == 3], verbose=0)[1] == 0


@pytest.mark.parametrize("target", [None, 1])
@pytest.mark.parametrize("labelled", [False, True])
def test_names_of_metrics_are_in_the_order_of_the_values(
    target, labelled, linear, images, make_uap
):
    uap = make_uap(linear(), target=target)
    labels = np.arange(40) % 4 if labelled else None
    uap.compile("lion")
    uap.fit(images, labels, verbose=0)
    values = np.atleast_1d(uap.evaluate(images, labels, verbose=0))
    named = uap.evaluate(images, labels, verbose=0, return_dict=True)
    assert dict(zip(uap.metrics_names, values)) == pytest.approx(named)
