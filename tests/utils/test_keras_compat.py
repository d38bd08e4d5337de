"""Each private name of Keras that the package leans on still does its work.

A release of Keras that renames one fails here, and says which.
"""

import ast
import inspect
import pathlib

import keras
import numpy as np
import pytest
from keras.src.callbacks import backup_and_restore

import keras_uap
from keras_uap.utils import keras_compat

FOLDER = pathlib.Path(keras_uap.__file__).parent


@pytest.mark.parametrize(
    "name", ["_maybe_symbolic_build", "_get_metrics_result_or_logs"]
)
def test_keras_still_calls_the_override(name, linear, images, monkeypatch):
    calls = []
    override = getattr(keras_compat.TrainerHooks, name)

    def counted(self, *args, **kwargs):
        calls.append(name)
        return override(self, *args, **kwargs)

    monkeypatch.setattr(keras_compat.TrainerHooks, name, counted)
    uap = keras_uap.UniversalPerturbation(linear(), 0.05, value_range=(0, 1))
    uap.compile("lion", run_eagerly=True)
    uap.fit(images, verbose=0)
    assert calls, f"Keras no longer calls Model.{name}"
    assert hasattr(keras.Model, name), f"Keras no longer has Model.{name}"


def test_keras_still_marks_validation(linear, images, monkeypatch):
    asked = []
    is_validation = keras_compat.is_validation
    monkeypatch.setattr(
        "keras_uap.utils.keras_compat.is_validation",
        lambda kwargs: asked.append(is_validation(kwargs)) or asked[-1],
    )
    uap = keras_uap.UniversalPerturbation(linear(), 0.05, value_range=(0, 1))
    uap.compile("lion", run_eagerly=True)
    uap.fit(images, validation_data=images[:8], verbose=0)
    assert asked == [True], "fit no longer passes _use_cached_eval_dataset"
    uap.evaluate(images, verbose=0)
    assert asked == [True, False]


def test_fit_still_begins_at_the_initial_epoch(linear, images):
    class Later(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            keras_compat.start_at(self.model, 2)

    model = linear()
    model.compile("sgd", "mse")
    labels = np.zeros((len(images), 4))
    history = model.fit(
        images, labels, epochs=3, verbose=0, callbacks=[Later()]
    )
    assert history.epoch == [2], "fit no longer reads Model._initial_epoch"
    assert "_initial_epoch" in inspect.getsource(backup_and_restore)


def test_a_layer_still_knows_whether_a_model_calls_it():
    class Asks(keras.layers.Layer):
        def build(self, input_shape):
            self.inside = keras_compat.is_called_by_another(self)

        def call(self, inputs):
            return inputs

    class Around(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = Asks()

        def call(self, inputs):
            return self.inner(inputs)

    class Built(Around):
        def build(self, input_shape):
            self.built = True

    alone, built, around = Asks(), Built(), Around()
    for layer in (built, around, alone):
        layer(np.zeros((2, 3, 1), "float32"))
    assert built.inner.inside, "_get_call_context has changed"
    assert around.inner.inside, "in_symbolic_scope has changed"
    assert not alone.inside


def test_callbacks_still_look_for_the_direction_of_a_metric(linear):
    up = keras_compat.higher_is_better(keras.metrics.Mean(name="up"))

    class Holds(keras.Model):
        metrics = [up, keras_compat.monitored([up])]

    stop = keras.callbacks.EarlyStopping("val_up")
    stop.set_model(Holds())
    stop.on_train_begin()
    stop.on_epoch_end(0, {"val_up": 1.0})
    assert stop.monitor_op is keras.ops.greater


def test_layers_are_still_found(linear):
    inner = linear()
    outer = keras.Sequential([keras.Input(inner.input_shape[1:]), inner])
    found = list(keras_compat.all_layers(outer))
    assert inner in found, "_flatten_layers no longer gives nested models"
    assert inner.layers[-1] in found


def test_the_maker_of_a_tensor_is_still_known(linear):
    model = linear()
    operation, node, index = keras_compat.last_operation(model.outputs[0])
    assert operation is model.layers[-1], "_keras_history has changed"
    assert index == 0
    assert node.input_tensors[0] is model.layers[-1].input


def test_private_names_stand_in_one_file():
    """Attributes with one leading underscore, of something but `self`."""
    found = {}
    for path in FOLDER.rglob("*.py"):
        if path.name == "keras_compat.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            private = (
                isinstance(node, ast.Attribute)
                and node.attr.startswith("_")
                and not node.attr.startswith("__")
                and not (
                    isinstance(node.value, ast.Name)
                    and node.value.id in ("self", "cls")
                )
                # `super()._project` is the class's own.
                and not isinstance(node.value, ast.Call)
            )
            if private and hasattr(keras.Model, node.attr):
                found[f"{path.name}:{node.lineno}"] = node.attr
    overridden = {
        f"{path.name}:{node.lineno}": node.name
        for path in FOLDER.rglob("*.py")
        if path.name != "keras_compat.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("_")
        and not node.name.startswith("__")
        and hasattr(keras.Model, node.name)
    }
    assert found == {}
    assert overridden == {}


def test_averages_are_those_of_the_optimizer():
    variable = keras.Variable([3.0])
    sgd = keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.5)
    wrapped = keras.optimizers.LossScaleOptimizer(sgd)
    wrapped.build([variable])
    for optimizer in (sgd, wrapped):
        (average,) = keras_compat.averages(optimizer)
        average.assign([7.0])
        optimizer.finalize_variable_values([variable])
        assert float(variable[0]) == 7
    assert keras_compat.averages(keras.optimizers.Lion()) == []
