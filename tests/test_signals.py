"""Signals `(n, length, channels)` wherever images are taken, or a refusal.

What is particular to one part has its test in that part's file: layers of
signals, pages and event files.
"""

import keras
import models
import numpy as np
import pytest

import keras_uap
from keras_uap import analysis, datasets, visualization

SHAPE = (12, 2)
EPSILON = 0.3


@pytest.fixture(scope="module")
def signals():
    rng = np.random.default_rng(0)
    return rng.normal(0.5, 0.5, (64, *SHAPE)).astype("float32")


@pytest.fixture(scope="module")
def classifier():
    return models.linear(shape=SHAPE, scale=0.5)


@pytest.fixture(scope="module")
def v():
    rng = np.random.default_rng(1)
    return EPSILON * np.sign(rng.normal(size=SHAPE)).astype("float32")


@pytest.fixture(scope="module")
def spectrum(classifier, signals):
    normals = analysis.boundary_normals(classifier, signals, verbose=0)
    return analysis.normal_spectrum(normals)


# What needs no perturbation is fitted with little work.
LITTLE = {"epsilon": EPSILON, "draws": 32}
PLAIN = {"value_range": None, "verbose": 0}
MEASURES = {
    "report": lambda c, v, x, s: analysis.fooling_report(c, v, x, **PLAIN),
    "baselines": lambda c, v, x, s: analysis.baseline_rates(
        c, v, x, x, **PLAIN
    ),
    "flow": lambda c, v, x, s: analysis.label_flow(c, v, x, **PLAIN),
    "transfer": lambda c, v, x, s: analysis.transfer_matrix(
        {"a": c, "b": models.linear(shape=SHAPE, seed=1)}, {"v": v}, x, **PLAIN
    ),
    "diversity": lambda c, v, x, s: analysis.perturbation_diversity(
        c, x, x, 2, **LITTLE, **PLAIN
    ),
    "targets": lambda c, v, x, s: analysis.target_rates(
        c, x, x, [1], **LITTLE, **PLAIN
    ),
    "sizes": lambda c, v, x, s: analysis.sample_size_curve(
        c, x, x, (16,), 1, **LITTLE, **PLAIN
    ),
    "kinds": lambda c, v, x, s: analysis.image_kinds(
        c, {"clean": x, "noise": x[::-1]}, x, **LITTLE, **PLAIN
    ),
    "epsilons": lambda c, v, x, s: analysis.epsilon_curve(
        c, x, x, (0.1, 0.3), draws=32, **PLAIN
    ),
    "normals": lambda c, v, x, s: analysis.boundary_normals(c, x, verbose=0),
    "spectrum": lambda c, v, x, s: s,
    "subspace": lambda c, v, x, s: analysis.subspace_fooling(
        c, s, x, (3,), epsilon=1.0, **PLAIN
    ),
}


FAST = ("report", "transfer", "normals")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in FAST else pytest.mark.slow)
        for name in MEASURES
    ],
)
def test_every_measurement(name, classifier, v, signals, spectrum):
    result = MEASURES[name](classifier, v, signals, spectrum)
    assert len(result.table()) > 40
    assert result.to_json()
    assert "<table" in result._repr_html_()
    figure = result.plot()
    assert figure.axes
    if name in ("diversity", "normals"):
        # Perturbations and normals: a line for each channel, and for zero.
        lines = [len(axes.lines) for axes in figure.axes]
        assert lines.count(4) == {"diversity": 2, "normals": 4}[name]


def test_perturbations_of_a_subspace_and_of_one_image(
    classifier, signals, spectrum
):
    found = analysis.subspace_perturbation(
        classifier, spectrum, signals, 3, 1.0, steps=2, **PLAIN
    )
    assert found.shape == SHAPE
    found = keras_uap.deepfool(classifier, signals, verbose=0)
    assert found.perturbations.shape == signals.shape


def test_rates_are_those_of_the_logits(classifier, v, signals):
    report = analysis.fooling_report(classifier, v, signals, **PLAIN)
    clean = classifier.predict(signals, verbose=0).argmax(-1)
    perturbed = classifier.predict(signals + v, verbose=0).argmax(-1)
    assert report.fooling_rate == np.mean(clean != perturbed) > 0
    # A signal has no grey levels to round to.
    assert report.rounded_rate is None
    text = report.table() + report._repr_html_()
    assert "grey" not in text
    assert "images of" not in text
    assert "n = 64 signals, each its own recording" in text
    assert report.to_dict()["rounded_rate"] is None


@pytest.mark.slow
def test_audit_and_harden(classifier, signals, monkeypatch, tmp_path):
    models.shorten_audits(monkeypatch, 96)
    copy = keras.models.clone_model(classifier)
    copy.set_weights(classifier.get_weights())
    result = keras_uap.harden(
        copy,
        signals,
        groups=np.arange(64) // 4,
        epsilon=EPSILON,
        budget="quick",
        epochs=2,  # Attacks join the memory in the second.
        **PLAIN,
    )
    audit = result.before
    assert audit.perturbation.shape == SHAPE
    assert np.abs(audit.perturbation).max() <= EPSILON
    assert {"audit", "grey"}.isdisjoint(audit.table().split())
    assert not audit.notes  # Signals are not augmented as images are.
    lines = [len(axes.lines) for axes in audit.plot().axes]
    assert lines[1] == 4
    lines = [len(axes.lines) for axes in result.plot().axes]
    assert lines[1:] == [4, 4]
    audit.save_html(tmp_path / "audit.html")
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "data:image/svg+xml" in page
    assert "grey levels" not in page
    assert "signals of" in audit.table()
    assert "signals of" in page


def test_attach_distill_and_plot(classifier, v, signals):
    attached = keras_uap.attach(classifier)
    np.testing.assert_array_equal(attached(signals), classifier(signals))
    copy = keras.models.clone_model(classifier)
    distiller = keras_uap.AdversarialDistiller(copy, 0.1, value_range=None)
    distiller.compile("adam")
    distiller.fit(signals, epochs=1, verbose=0)
    assert distiller.v.shape[-2:] == SHAPE
    uap = keras_uap.UniversalPerturbation(
        classifier, EPSILON, value_range=None, initial_perturbation=v
    )
    figure = uap.plot(signals[:3])
    clean, perturbed = figure.axes[1], figure.axes[5]
    for c in range(2):
        drawn = clean.lines[c].get_ydata()
        np.testing.assert_allclose(
            drawn - drawn[0],
            signals[0, :, c] - signals[0, 0, c],
            rtol=0,
            atol=1e-5,
        )
        # In front of the clean one, and away from it by v.
        moved = perturbed.lines[2 + c].get_ydata()
        moved = moved - perturbed.lines[c].get_ydata()
        np.testing.assert_allclose(moved, v[:, c], rtol=0, atol=1e-5)


def other_length(seed=0):
    return models.linear(shape=(9, 2), seed=seed)


REFUSED = {
    "augmented": (
        lambda c, v, x: datasets.augmented(x, value_range=(0, 1)),
        r"Only batches of images .* \(64, 12, 2\)",
    ),
    "augmentation": (
        lambda c, v, x: datasets.augmentation((0, 1))(x),
        "Only batches of images",
    ),
    "views": (
        lambda c, v, x: datasets.views(datasets.Pictures(x)),
        "Only batches of images",
    ),
    "resize": (
        lambda c, v, x: keras_uap.resize_perturbation(v, 24),
        "fit another perturbation",
    ),
    "transfer to another length": (
        lambda c, v, x: analysis.transfer_matrix(
            {"a": c, "b": other_length()}, [v, v], x, **PLAIN
        ),
        r"only images can be resized.*'b' of shape \(9, 2\)",
    ),
    "transfer of another length": (
        lambda c, v, x: analysis.transfer_matrix([c], {"w": v[:9]}, x, **PLAIN),
        r"only images can be resized.*'w' of shape \(9, 2\)",
    ),
    "noise": (
        lambda c, v, x: keras_uap.noise_images(2, SHAPE, value_range=None),
        "Pass the least and the largest value",
    ),
    "attach, no range": (
        lambda c, v, x: keras_uap.attach(c, value_range=None),
        "Leave it out if the classifier takes the images as they are",
    ),
    "attach, any length": (
        lambda c, v, x: keras_uap.attach(models.Subclassed()),
        r"image_shape=.*\(time, channels\) for signals",
    ),
    "attach, a mode of RGB": (
        lambda c, v, x: keras_uap.attach(c, "caffe"),
        "3 pairs for 2 channels",
    ),
    "attach, another length": (
        lambda c, v, x: keras_uap.attach(c, image_shape=(24, 2)),
        "only height and width can be resized",
    ),
    "plot, another length": (
        lambda c, v, x: visualization.plot_perturbation(c, v, x[:, :9], None),
        "do not have the perturbation's shape",
    ),
    "a folder": (
        lambda c, v, x: keras_uap.audit(c, "photos", value_range=None),
        "A folder needs a classifier",
    ),
    "audit of another length": (
        lambda c, v, x: keras_uap.audit(other_length(), x, value_range=None),
        "do not have the size that the classifier takes",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_for_images_alone_says_so(name, classifier, v, signals):
    call, message = REFUSED[name]
    with pytest.raises((ValueError, TypeError), match=f"(?s){message}"):
        call(classifier, v, signals)
