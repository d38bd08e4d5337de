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

import keras_uap

LABELS = np.arange(40) % models.CLASSES
# As much may 50 fits of perturbations grow beyond those of plain models, MiB.
SLACK = 5.0


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


WHAT = {
    name: fit_perturbation(update) for name, update in models.UPDATES.items()
} | {"harden": harden, "deepfool()": single, "target_rates": target_rates}


@pytest.mark.parametrize("classifier", [models.cnn, models.Subclassed])
@pytest.mark.parametrize("what", WHAT)
def test_what_is_deleted_is_gone(what, classifier, count):
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
    """MiB by which the process grows from the 10th fit to the last."""
    classifier, images = models.cnn(), models.images(100)
    for number in range(fits):
        if number == 10:
            before = memory()
        if kind == "perturbation":
            model = keras_uap.UniversalPerturbation(
                classifier, 0.05, value_range=(0, 1)
            )
            model.compile("lion")
            model.fit(images, verbose=0)
        else:
            x = inputs = keras.Input(models.SHAPE)
            x = keras.layers.Rescaling(1.0)(x)
            model = keras.Model(inputs, classifier(x))
            model.compile("sgd", "sparse_categorical_crossentropy")
            model.fit(images, np.arange(100) % models.CLASSES, verbose=0)
        del model
        gc.collect()
    return memory() - before


def test_fits_grow_no_more_than_those_of_plain_models(child, quick, count):
    fits = 20 if quick else 60
    grown = {
        kind: child("test_lifetimes", "soak", kind, fits)
        for kind in ("plain model", "perturbation")
    }
    for kind, number in grown.items():
        count(f"MiB for {fits - 10} fits of a {kind}", round(number, 2))
    assert quick or grown["perturbation"] <= grown["plain model"] + SLACK
