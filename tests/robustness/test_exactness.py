"""What is reported is what is so: rates and reasons to stop."""

import keras
import models
import numpy as np
import pytest

import keras_uap


def make_uap(update):
    classifier = models.linear(activation="softmax")
    uap = keras_uap.UniversalPerturbation(classifier, 0.1, value_range=(0, 1))
    uap.compile(models.UPDATES[update](), run_eagerly=True)
    return uap


def recount(uap, images):
    clean = uap.classifier.predict(images, verbose=0).argmax(-1)
    moved = np.clip(images + uap.perturbation, 0, 1)
    return np.mean(uap.classifier.predict(moved, verbose=0).argmax(-1) != clean)


@pytest.mark.parametrize("update", ["deepfool", "lion", "one_by_one"])
def test_labels_change_nothing(update, rng, count):
    images = models.images(24)
    found = []
    for labels in (None, rng.integers(0, 4, 24), np.zeros(24, int)):
        keras.utils.set_random_seed(1)
        uap = make_uap(update)
        history = uap.fit(images, labels, epochs=2, verbose=0).history
        measured = uap.evaluate(images, labels, verbose=0, return_dict=True)
        rates = [*history["fooling_rate"], measured["fooling_rate"]]
        found.append((uap.perturbation.tobytes(), rates))
        count("rates recounted")
        assert abs(rates[-1] - recount(uap, images)) < 1e-6
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("draw", range(20))
def test_stops_on_the_exact_rate(draw, quick, rng, count):
    if quick and draw >= 4:
        pytest.skip("not in the sample")
    images = models.images(30, seed=draw)
    held_out = models.images(20, seed=draw + 50)
    rate = float(rng.uniform(0.05, 0.9))
    where = ("images", "validation", "fit")[draw % 3]
    stop = keras_uap.StopAtFoolingRate(
        rate, images=held_out if where == "images" else None
    )
    # Elsewhere than where the rate is measured.
    data = {"images": images[:9], "validation": held_out, "fit": None}
    uap = make_uap(("deepfool", "lion")[draw % 2])
    history = uap.fit(
        images,
        epochs=6,
        batch_size=7,
        callbacks=[stop],
        validation_data=data[where],
        verbose=0,
    )
    count("stops checked")
    final = recount(uap, images if where == "fit" else held_out)
    if len(history.epoch) < 6 or "reached" in uap.stop_reason:
        assert final >= rate
        assert "reached" in uap.stop_reason
    else:
        assert "all epochs done" in uap.stop_reason
        assert where != "fit" or final < rate
