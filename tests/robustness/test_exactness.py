"""What is reported is what is so: rates, reasons to stop, intervals."""

import keras
import models
import numpy as np
import pytest

import keras_uap
from keras_uap.analysis import difference_interval, rate_interval


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


# Photographs, crops of each, share that is fooled, likeness of the crops.
CASES = [
    (100, 1, 0.5, 0.0),
    (100, 1, 0.9, 0.0),
    (12, 5, 0.12, 0.3),
    (12, 5, 0.75, 0.3),
    (57, 9, 0.85, 0.3),
    (57, 9, 0.4, 0.1),
    (30, 4, 0.6, 0.9),
]


def draw_hits(rng, photographs, crops, share, likeness, groups=None):
    """Hits of crops whose photographs have a rate each, beta-distributed."""
    rates = np.full(photographs, share)
    if likeness:
        size = (1 - likeness) / likeness
        rates = rng.beta(share * size, (1 - share) * size, photographs)
    if groups is None:
        # Photographs do not all give the same number of crops.
        counts = rng.integers(1, 2 * crops, photographs)
        groups = np.repeat(np.arange(photographs), counts)
    return rng.uniform(size=len(groups)) < rates[groups], groups


@pytest.mark.parametrize("case", CASES)
def test_coverage(case, quick, rng, count):
    """95 % intervals hold the true share about 95 % of the time."""
    draws = 400 if quick else 4000
    inside = {"a share": 0, "a difference": 0}
    for _ in range(draws):
        hits, groups = draw_hits(rng, *case)
        low, high = rate_interval(hits, groups if case[1] > 1 else None)
        inside["a share"] += low <= case[2] <= high
        other, _ = draw_hits(rng, *case, groups)
        low, high = difference_interval(hits.astype(float) - other, groups)
        inside["a difference"] += low <= 0 <= high
    count("intervals drawn", 2 * draws)
    # Three standard errors of the simulation, and 2.5 points of slack for a
    # dozen photographs.
    least = 0.925 - 3 * (0.95 * 0.05 / draws) ** 0.5
    for what, covered in inside.items():
        name = f"least coverage of {what}, nominally 95 %"
        count(name, 100 * covered / draws, how=min)
        assert covered / draws >= least, what
    assert inside["a share"] / draws <= 0.995
