"""Labels and targets that are no classes are refused, wherever they go."""

import models
import numpy as np
import pytest
import tensorflow as tf

import keras_uap
from keras_uap import analysis, datasets

X = models.images(24)
Y = np.arange(24) % models.CLASSES
V = np.full(models.SHAPE, 0.03, "float32")
QUIET = {"value_range": (0, 1), "verbose": 0}

WRONG = {
    "from 1": Y + 1,
    "one is too high": np.where(np.arange(24) == 20, 4, Y),
    "-1 for unknown": np.where(Y == 0, -1, Y),
    "100 too high": Y + 100,
    "bytes": (Y + 100).astype("uint8"),
    "no whole numbers": Y + 0.5,
    "NaN": np.where(Y == 0, np.nan, Y),
    "columns": Y[:, np.newaxis] + 1,
    "one-hot of other classes": np.eye(7)[Y],
    "too few": [1, 2],
}
RIGHT = {
    "int8": Y.astype("int8"),
    "float": Y.astype("float32"),
    "columns": Y[:, np.newaxis],
    "one-hot": np.eye(4)[Y],
    "list": Y.tolist(),
}


def batches(labels):
    return tf.data.Dataset.from_tensor_slices((X, labels)).batch(8)


def uap():
    made = keras_uap.UniversalPerturbation(
        models.linear(), 0.05, value_range=(0, 1), seed=1
    )
    made.compile("lion")
    made.perturbation = V
    return made


def distiller():
    made = keras_uap.AdversarialDistiller(
        models.linear(), 0.05, value_range=(0, 1)
    )
    made.compile("sgd")
    return made


def report(images, **kwargs):
    arguments = {"num_random": 1, **QUIET, **kwargs}
    return analysis.fooling_report(models.linear(), V, images, **arguments)


ARRAYS = {
    "report": lambda y: report(X, labels=y),
    "report of pictures": lambda y: report(datasets.Pictures(X, labels=y)),
    "fit": lambda y: uap().fit(X, y, verbose=0),
    "evaluate": lambda y: uap().evaluate(X, y, verbose=0),
    "fit of pictures": lambda y: uap().fit(
        datasets.Pictures(X, labels=y), verbose=0
    ),
    "validation": lambda y: uap().fit(X, validation_data=(X, y), verbose=0),
    "test_on_batch": lambda y: uap().test_on_batch(X, y),
    "distiller": lambda y: distiller().fit(X, y, verbose=0),
    "distiller, evaluate": lambda y: distiller().evaluate(X, y, verbose=0),
    "distiller, one batch": lambda y: distiller().train_on_batch(X, y),
    "harden": lambda y: keras_uap.harden(
        models.linear(), X, y, epsilon=0.05, **QUIET
    ),
}
DATASETS = {
    "fit": lambda data: uap().fit(data, verbose=0),
    "evaluate": lambda data: uap().evaluate(data, verbose=0),
    "validation": lambda data: uap().fit(X, validation_data=data, verbose=0),
    "distiller": lambda data: distiller().fit(data, verbose=0),
    "distiller, evaluate": lambda data: distiller().evaluate(data, verbose=0),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("call", ARRAYS)
def test_arrays_of_wrong_labels_are_refused(call, wrong):
    if call.startswith("harden") and not np.issubdtype(
        np.asarray(WRONG[wrong]).dtype, np.integer
    ):
        return
    with pytest.raises(ValueError, match="label"):
        print(ARRAYS[call](WRONG[wrong]))


@pytest.mark.parametrize("call", DATASETS)
@pytest.mark.parametrize("wrong", ["one is too high", "no whole numbers"])
def test_data_sets_of_wrong_labels_are_refused(call, wrong):
    with pytest.raises(ValueError, match="label"):
        print(DATASETS[call](batches(WRONG[wrong])))


@pytest.mark.parametrize(
    "wrong", ["from 1", "columns", "one-hot of other classes"]
)
def test_a_report_of_a_data_set_checks_its_labels(wrong):
    with pytest.raises(ValueError, match="0 to 3"):
        report(batches(WRONG[wrong]))


def test_the_first_wrong_label_is_shown():
    with pytest.raises(ValueError, match=r"from place 20 on \[4 1 2 3\]"):
        report(X, labels=WRONG["one is too high"])


@pytest.mark.parametrize("call", ["fit", "evaluate", "validation", "distiller"])
def test_data_sets_of_names_of_classes_are_refused(call):
    with pytest.raises(TypeError, match=r"numbers\. Received: string"):
        print(DATASETS[call](batches(np.array(list("abcd"))[Y])))


def test_wrong_labels_do_not_touch_the_classifier():
    made = distiller()
    before = made.classifier.get_weights()
    with pytest.raises(ValueError, match="no class of the classifier"):
        made.fit(batches(Y + 100), verbose=0)
    for one, other in zip(before, made.classifier.get_weights()):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("form", RIGHT)
def test_every_form_of_right_labels_gives_the_same(form):
    labels = np.argmax(models.linear().predict(X + V, verbose=0), axis=-1)
    error = np.mean(labels != Y)
    assert 0 < error < 1
    data = batches(np.asarray(RIGHT[form]))
    found = report(X, labels=RIGHT[form], value_range=None)
    assert found.error_rate == pytest.approx(error)
    assert report(data, value_range=None).error_rate == found.error_rate
    made = uap()
    made.value_range = None
    for arguments in ((X, RIGHT[form]), (data,)):
        measured = made.evaluate(*arguments, verbose=0, return_dict=True)
        assert measured["accuracy"] == pytest.approx(1 - error)


def test_labels_of_two_classes_may_be_booleans():
    model = models.linear(1, "sigmoid")
    y = model.predict(X, verbose=0)[:, 0] > 0.5
    found = analysis.fooling_report(model, 0 * V, X, y, num_random=1, **QUIET)
    assert found.clean_error_rate == 0
    with pytest.raises(ValueError, match="0 to 1"):
        analysis.fooling_report(model, V, X, y + 1, **QUIET)


TARGETS = {
    "report": lambda t: report(X, target=t),
    "fit": lambda t: keras_uap.UniversalPerturbation(
        models.linear(), 0.05, target=t, value_range=(0, 1)
    ),
    "opaque": lambda t: keras_uap.UniversalPerturbation(
        models.Subclassed(), 0.05, target=t, value_range=(0, 1)
    ).fit(X, verbose=0),
    "fit_perturbation": lambda t: analysis.fit_perturbation(
        models.linear(), X, 0.05, target=t, value_range=(0, 1)
    ),
    "target_rates": lambda t: analysis.target_rates(
        models.linear(), X, X, [0, t], epsilon=0.05, **QUIET
    ),
}


@pytest.mark.parametrize("call", TARGETS)
@pytest.mark.parametrize("target", [4, 99, -1, np.int64(4)])
def test_targets_that_are_no_classes_are_refused(call, target):
    with pytest.raises(ValueError, match="target"):
        print(TARGETS[call](target))


def test_a_report_takes_the_target_of_a_two_class_sigmoid():
    arguments = {"target": 1, "num_random": 1, **QUIET}
    model = models.linear(1, "sigmoid")
    assert analysis.fooling_report(model, V, X, **arguments).target == 1
    with pytest.raises(ValueError, match="2 classes, 0 to 1"):
        analysis.fooling_report(model, V, X, **arguments | {"target": 2})
