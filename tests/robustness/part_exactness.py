"""What is reported is what is so: rates, reasons to stop, intervals."""

import warnings

import common
import keras
import numpy as np

import keras_uap
from keras_uap.analysis import difference_interval, rate_interval


def run(report, quick, seed):
    warnings.simplefilter("ignore")
    keras.utils.set_random_seed(seed)
    _labels_change_nothing(report)
    for i in range(4 if quick else 20):
        _stops_on_the_exact_rate(report, i)
    _coverage(report, 400 if quick else 4000, seed)


def _uap(update="lion", **kwargs):
    uap = keras_uap.UniversalPerturbation(
        common.linear(), 0.1, value_range=(0, 1), **kwargs
    )
    uap.compile(update, run_eagerly=True)
    return uap


def _recount(uap, images):
    clean = uap.classifier.predict(images, verbose=0).argmax(-1)
    moved = np.clip(images + uap.perturbation, 0, 1)
    return np.mean(uap.classifier.predict(moved, verbose=0).argmax(-1) != clean)


def _labels_change_nothing(report):
    images = common.images(24)
    rng = np.random.default_rng(0)
    for update in ("deepfool", "lion", keras_uap.DeepFool(one_by_one=True)):
        found = []
        for labels in (None, rng.integers(0, 4, 24), np.zeros(24, int)):
            keras.utils.set_random_seed(1)
            uap = _uap(update)
            history = uap.fit(images, labels, epochs=2, verbose=0).history
            measured = uap.evaluate(images, labels, verbose=0, return_dict=True)
            rates = [*history["fooling_rate"], measured["fooling_rate"]]
            found.append((uap.perturbation.tobytes(), rates))
            report.count("rates recounted")
            report.check(
                abs(measured["fooling_rate"] - _recount(uap, images)) < 1e-6,
                f"{update}: {measured} is not {_recount(uap, images)}",
            )
        report.check(
            found[0] == found[1] == found[2],
            f"{update}: labels change the perturbation or its rate",
        )


def _stops_on_the_exact_rate(report, i):
    rng = np.random.default_rng(i)
    images, held_out = common.images(30, seed=i), common.images(20, seed=i + 50)
    rate = float(rng.uniform(0.05, 0.9))
    where = ("images", "validation", "fit")[i % 3]
    stop = keras_uap.StopAtFoolingRate(
        rate, images=held_out if where == "images" else None
    )
    uap = _uap(("deepfool", "lion")[i % 2])
    epochs = 6
    data = {"validation_data": images[:9]} if where == "images" else {}
    if where == "validation":
        data = {"validation_data": held_out}
    history = uap.fit(
        images, epochs=epochs, batch_size=7, callbacks=[stop], verbose=0, **data
    )
    final = _recount(uap, images if where == "fit" else held_out)
    stopped = len(history.epoch) < epochs or "reached" in uap.stop_reason
    text = f"stop at {rate:.3f} on {where}: {uap.stop_reason!r}, has {final}"
    report.count("stops checked")
    report.check(
        not stopped or (final >= rate and "reached" in uap.stop_reason), text
    )
    report.check(stopped or "all epochs done" in uap.stop_reason, text)
    if not stopped and where == "fit":
        report.check(final < rate, text)


# Coverage of the intervals ----------------------------------------------------

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


def _draw(rng, photographs, crops, share, likeness, groups=None):
    """Hits of crops whose photographs have a rate each, beta-distributed."""
    if likeness == 0:
        rates = np.full(photographs, share)
    else:
        size = (1 - likeness) / likeness
        rates = rng.beta(share * size, (1 - share) * size, photographs)
    if groups is None:
        # Photographs do not all give the same number of crops.
        counts = rng.integers(1, 2 * crops, photographs)
        groups = np.repeat(np.arange(photographs), counts)
    return rng.uniform(size=len(groups)) < rates[groups], groups


def _coverage(report, draws, seed):
    """95 % intervals hold the true share about 95 % of the time."""
    rng = np.random.default_rng(seed)
    for case in CASES:
        inside = paired = 0
        for _ in range(draws):
            hits, groups = _draw(rng, *case)
            given = groups if case[1] > 1 else None
            low, high = rate_interval(hits, given)
            inside += low <= case[2] <= high
            other, _ = _draw(rng, *case, groups)
            low, high = difference_interval(hits.astype(float) - other, groups)
            paired += low <= 0 <= high
        report.count("intervals drawn", 2 * draws)
        # Three standard errors of the simulation, and 2.5 points of slack for
        # a dozen photographs.
        least = 0.925 - 3 * (0.95 * 0.05 / draws) ** 0.5
        for what, covered in (("a share", inside), ("a difference", paired)):
            name = f"least coverage of {what}, nominally 95 %"
            least_so_far = report.counts.get(name, 100.0)
            report.counts[name] = min(least_so_far, 100 * covered / draws)
        report.check(
            inside / draws >= least, f"{case}: covers {inside / draws:.3f}"
        )
        report.check(
            paired / draws >= least, f"{case}: pairs {paired / draws:.3f}"
        )
        report.check(
            inside / draws <= 0.995, f"{case}: too wide, {inside / draws:.3f}"
        )
