"""What is deleted is gone: models, classifiers and their layers.

TensorFlow keeps functions of its own for ever, with all that they close over.
"""

import gc
import weakref

import keras
import models
import numpy as np
import pytest
from limits import memory
from tensorflow.python.framework.func_graph import FuncGraph

import keras_uap

LABELS = np.arange(40) % models.CLASSES


def fit_perturbation(update):
    def make(classifier, images):
        uap = keras_uap.UniversalPerturbation(
            classifier, 0.05, value_range=(0, 1)
        )
        uap.compile(update())
        uap.fit(images, validation_data=images[:8], verbose=0)
        uap.evaluate(images, verbose=0)
        uap.predict(images, verbose=0)
        return [uap, uap.optimizer, uap.v]

    return make


def harden(classifier, images):
    layer = keras_uap.PerturbationLayer(
        value_range=(0, 1), rate=0.5, pool_size=2
    )
    model = keras.Sequential([keras.Input(models.SHAPE), layer, classifier])
    model.compile("sgd", "sparse_categorical_crossentropy")
    callback = keras_uap.UniversalAdversarialTraining(images, epsilon=0.05)
    model.fit(images, LABELS, callbacks=[callback], verbose=0)
    return [model, layer, callback]


def single(classifier, images):
    keras_uap.deepfool(classifier, images, verbose=0)
    return []


def target_rates(classifier, images):
    keras_uap.analysis.target_rates(
        classifier,
        images,
        images,
        targets=[0, 1],
        epsilon=0.05,
        value_range=(0, 1),
        draws=40,
        verbose=0,
    )
    return []


def audit(classifier, images):
    images = np.concatenate([images, images])
    keras_uap.audit(
        classifier, images, epsilon=0.05, value_range=(0, 1), verbose=0
    )
    return []


@pytest.fixture(autouse=True)
def _short_audits(monkeypatch):
    models.shorten_audits(monkeypatch, 64, "dominant", "DeepFool")


WHAT = {
    name: fit_perturbation(update) for name, update in models.UPDATES.items()
} | {
    "harden": harden,
    "deepfool()": single,
    "target_rates": target_rates,
    "audit": audit,
}


@pytest.mark.parametrize("classifier", [models.cnn, models.Subclassed])
@pytest.mark.parametrize("what", WHAT)
def test_what_is_deleted_is_gone(what, classifier, quick, count):
    turn = [*WHAT].index(what) % 2
    if quick and classifier is (models.cnn, models.Subclassed)[turn]:
        pytest.skip("not in the sample")
    alive = []
    for _ in range(2):
        made = classifier()
        images = models.images()
        made(images[:1])
        things = [*WHAT[what](made, images), *made._flatten_layers()]
        things += [*made.variables]
        alive += [weakref.ref(thing) for thing in things]
        del made, things
    gc.collect()
    count("objects deleted", len(alive))
    left = [ref() for ref in alive if ref() is not None]
    count("objects alive after that", len(left))
    assert left == []


def soak(kind, fits):
    """What the fits after the tenth leave: MiB, and graphs of TensorFlow."""
    classifier, images = models.cnn(), models.images(100)
    for number in range(fits):
        if number == 10:
            before = memory(), graphs_alive()
        if kind == "perturbation":
            model = keras_uap.UniversalPerturbation(
                classifier, 0.05, value_range=(0, 1)
            )
            model.compile("lion")
            model.fit(images, verbose=0)
        else:
            inputs = keras.Input(models.SHAPE)
            outputs = classifier(keras.layers.Rescaling(1.0)(inputs))
            model = keras.Model(inputs, outputs)
            model.compile(
                "sgd" if kind == "bare" else "adam",
                "sparse_categorical_crossentropy",
                metrics=[] if kind == "bare" else ["accuracy"],
            )
            model.fit(images, np.arange(100) % models.CLASSES, verbose=0)
        del model
        gc.collect()
    return memory() - before[0], graphs_alive() - before[1]


def graphs_alive():
    return sum(isinstance(each, FuncGraph) for each in gc.get_objects())


def test_fits_leave_no_more_than_those_of_plain_models(child, quick, count):
    """TensorFlow keeps the graph of each training step that it has traced.

    A model without metrics leaves one graph for each fit, and a perturbation
    leaves three: its step calls the classifier's logits and their gradient as
    functions. A model with Adam and accuracy leaves more of both.
    """
    if quick:
        pytest.skip("not in the sample")
    fits = 60
    left = {
        kind: child("test_lifetimes", "soak", kind, fits)
        for kind in ("bare", "plain", "perturbation")
    }
    for kind, (mebibytes, graphs) in left.items():
        count(f"MiB left by {fits - 10} fits: {kind}", round(mebibytes, 2))
        count(f"graphs left by {fits - 10} fits: {kind}", graphs)
    assert left["perturbation"][1] <= 3 * left["bare"][1]
    assert left["perturbation"][0] <= left["plain"][0]


def loop(kind, loops):
    """MiB that each fit of a loop over new classifiers leaves."""
    patch, images, fits = pytest.MonkeyPatch(), models.images(80), []
    models.shorten_audits(patch, 64)
    fit = keras.Model.fit
    patch.setattr(
        keras.Model, "fit", lambda *a, **k: fits.append(1) or fit(*a, **k)
    )
    arguments = {"epsilon": 0.05, "value_range": (0, 1), "verbose": 0}
    for number in range(loops):
        if number == loops // 3:
            before = memory(), len(fits)
        classifier = models.cnn()
        if kind == "audit":
            keras_uap.audit(classifier, images, **arguments)
        elif kind == "harden":
            keras_uap.harden(classifier, images, epochs=1, **arguments)
        else:
            classifier.compile(
                "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
            )
            labels = np.arange(80) % models.CLASSES
            classifier.fit(images, labels, verbose=0)
        del classifier
        gc.collect()
    return (memory() - before[0]) / (len(fits) - before[1])


def test_audits_leave_no_more_than_fits_of_plain_models(child, quick, count):
    """Each of their fits, beside that of a new Keras model."""
    if quick:
        pytest.skip("not in the sample")
    left = {
        kind: child("test_lifetimes", "loop", kind, loops)
        for kind, loops in (("plain", 24), ("audit", 9), ("harden", 6))
    }
    for kind, mebibytes in left.items():
        count(f"MiB left by a fit in a loop: {kind}", round(mebibytes, 2))
    assert left["audit"] <= left["plain"]
    assert left["harden"] <= left["plain"]
