"""Several devices and several workers, in child processes.

A process can split its CPU into logical devices, or become a worker, only
before TensorFlow starts.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import textwrap

import numpy as np
import pytest

pytestmark = pytest.mark.slow

COMMON = """
import sys
import keras
import numpy as np
import tensorflow as tf
STRATEGY
import keras_uap

images = np.random.default_rng(0).uniform(0, 255, (50, 8, 8, 3))
images = images.astype("float32")

def fit(update, loss="crossentropy"):
    keras.utils.set_random_seed(3)
    classifier = keras.Sequential([
        keras.Input((8, 8, 3)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(5, activation="softmax"),
    ])
    uap = keras_uap.UniversalPerturbation(classifier, epsilon=20.0)
    uap.compile(update, loss=loss)
    return uap

def run(uap):
    keras.utils.set_random_seed(7)
    history = uap.fit(images, epochs=2, batch_size=16, verbose=0,
                      validation_data=images[:20]).history
    return uap.perturbation, history
"""


TWO_DEVICES = """
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
"""


def _run(code, strategy="", **environment):
    code = COMMON.replace("STRATEGY", strategy) + textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-3000:]
    return out


def test_two_devices_give_the_perturbation_of_one():
    code = """
    cross, both = "crossentropy", "features+dominant"
    for update, loss in (
        ("sgd", cross), ("lion", cross), ("deepfool", cross),
        (keras_uap.DeepFool(boundary="nearest"), cross),
        (keras_uap.DeepFool(max_steps=3), cross),
        ("sgd", "dominant"), ("decaying_lion", "dominant"), ("sgd", both),
    ):
        alone, history = run(fit(update, loss))
        with strategy.scope():
            uap = fit(update, loss)
        together, shared = run(uap)
        np.testing.assert_allclose(together, alone, atol=1e-4)
        for name in ("fooling_rate", "val_fooling_rate", "norm"):
            np.testing.assert_allclose(shared[name], history[name], rtol=1e-5)
        print(update, "size", np.abs(alone).max())
    """
    lines = _finish(_run(code, TWO_DEVICES)).splitlines()
    sizes = [float(line.split()[-1]) for line in lines if "size" in line]
    assert len(sizes) == 8
    assert min(sizes) > 1


def test_one_by_one_refuses_several_devices():
    code = """
    with strategy.scope():
        uap = fit(keras_uap.DeepFool(one_by_one=True))
    try:
        run(uap)
    except ValueError as error:
        print("refused:", error)
    """
    assert "refused: " in _finish(_run(code, TWO_DEVICES))


@pytest.mark.parametrize("update", ["lion", "deepfool"])
def test_two_workers_give_the_perturbation_of_one(update, tmp_path):
    ports = []
    sockets = [socket.socket() for _ in range(2)]
    for held in sockets:
        held.bind(("127.0.0.1", 0))
        ports.append(held.getsockname()[1])
    for held in sockets:
        held.close()
    code = f"""
    with strategy.scope():
        uap = fit({update!r})
    v, history = run(uap)
    task = str(strategy.cluster_resolver.task_id)
    np.save({str(tmp_path)!r} + "/" + task, v)
    """
    strategy = "strategy = tf.distribute.MultiWorkerMirroredStrategy()"
    workers = [f"127.0.0.1:{port}" for port in ports]
    processes = [
        _run(
            code,
            strategy,
            TF_CONFIG=json.dumps(
                {
                    "cluster": {"worker": workers},
                    "task": {"type": "worker", "index": index},
                }
            ),
        )
        for index in range(2)
    ]
    for process in processes:
        _finish(process)
    alone = f"np.save({str(tmp_path / 'alone')!r}, run(fit({update!r}))[0])"
    _finish(_run(alone))
    first, second, one = (
        np.load(tmp_path / f"{name}.npy") for name in ("0", "1", "alone")
    )
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, one, atol=1e-4)
    assert np.abs(one).max() > 1


EVERYTHING = """
import sys
sys.path.insert(0, {tests!r})
import models

class Patch:
    def setitem(self, where, name, value):
        where[name] = value

    def setattr(self, where, name, value):
        setattr(where, name, value)

models.shorten_audits(Patch(), 64)
x = models.images(64)
y = np.arange(64) % 4
plain = {{"epsilon": 0.05, "value_range": (0, 1)}}

def classifier():
    model = models.cnn("softmax")
    model.compile("adam", "sparse_categorical_crossentropy")
    return model

def audit(model):
    return keras_uap.audit(model, x, verbose=0, budget="quick", **plain)

def harden(model):
    result = keras_uap.harden(model, x, epochs=2, verbose=1, **plain)
    assert len(result.history["loss"]) == 2
    return result.after

def resumed(model):
    weights = model.get_weights()
    folder = tempfile.mkdtemp()
    real, cut = audits.audit_pictures, []
    def once(*args, known=None, **kwargs):
        if known is not None and not cut:
            cut.append(True)
            raise KeyboardInterrupt
        return real(*args, known=known, **kwargs)
    audits.audit_pictures = once
    arguments = dict(epochs=2, verbose=0, backup_dir=folder + "/backup")
    try:
        keras_uap.harden(model, x, **arguments, **plain)
    except KeyboardInterrupt:
        model.set_weights(weights)
    audits.audit_pictures = real
    result = keras_uap.harden(model, x, **arguments, **plain)
    assert len(result.history["loss"]) == 2
    return result.after

def distiller(model):
    made = keras_uap.AdversarialDistiller(model, pool_size=2, **plain)
    made.compile("adam")
    made.fit(x, y, epochs=2, verbose=0, callbacks=[
        keras_uap.BackupAndRestore(tempfile.mkdtemp())])
    made.evaluate(x, y, verbose=0)
    return audit(model)

def plain_model(model):
    folder, seen = tempfile.mkdtemp(), []
    def fit(model, epochs, *more):
        backup = keras_uap.BackupAndRestore(folder, delete_checkpoint=False)
        model.fit(x, y, epochs=epochs, verbose=0, callbacks=[backup, *more])
    fit(model, 1)
    with strategy.scope():
        again = classifier()
    fit(again, 2, keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: seen.append(epoch)))
    assert seen == [1]
    return perturbation(again)

def adversarial_training(model):
    layer = keras_uap.PerturbationLayer(
        value_range=(0, 1), rate=0.5, pool_size=2)
    training = keras.Sequential([keras.Input(models.SHAPE), layer, model])
    training.compile("adam", "sparse_categorical_crossentropy")
    callback = keras_uap.UniversalAdversarialTraining(
        x, epsilon=0.05, validation_images=x[:16], epochs=1)
    training.fit(x, y, verbose=0, callbacks=[callback])
    return layer

def trained_layer(model):
    layer = keras_uap.PerturbationLayer(value_range=(0, 1), epsilon=0.05)
    training = keras.Sequential([keras.Input(models.SHAPE), layer, model])
    training.compile("adam", "sparse_categorical_crossentropy")
    training.fit(x, y, verbose=0)
    return layer

def perturbation(model):
    uap = keras_uap.UniversalPerturbation(model, **plain)
    uap.compile("lion")
    uap.fit(x, validation_data=x[:16], verbose=0, callbacks=[
        keras_uap.StopAtFoolingRate(0.99),
        keras_uap.BackupAndRestore(tempfile.mkdtemp()),
        keras_uap.PerturbationTensorBoard(tempfile.mkdtemp(), x)])
    uap.evaluate(x, verbose=0)
    path = tempfile.mkdtemp() + "/uap.keras"
    uap.save(path)
    keras.saving.load_model(path)
    return uap

def report(model):
    v = np.full(models.SHAPE, 0.05, "float32")
    found = keras_uap.analysis.fooling_report(
        model, v, x, value_range=(0, 1), verbose=0)
    plain_rate = np.mean(
        model.predict(np.clip(x + v, 0, 1), verbose=0).argmax(-1)
        != model.predict(x, verbose=0).argmax(-1))
    assert found.fooling_rate == plain_rate
    keras_uap.deepfool(model, x[:8], value_range=(0, 1), verbose=0)
    return perturbation(model)

import tempfile
from keras_uap.evaluation import audit as audits
for where in ("inside", "outside"):
    with strategy.scope():
        made = classifier()
        if where == "inside":
            found = {name}(made)
    if where == "outside":
        found = {name}(made)
    assert np.any(found.perturbation), where
    assert np.abs(found.perturbation).max() < 0.0501
    print(where, "works")
"""


@pytest.mark.parametrize(
    "name",
    [
        *("audit", "harden", "resumed", "distiller", "adversarial_training"),
        *("trained_layer", "perturbation", "report", "plain_model"),
    ],
)
def test_every_workflow_on_two_devices(name):
    """Inside the scope, and outside with a classifier of it."""
    tests = str(pathlib.Path(__file__).parents[1])
    code = EVERYTHING.format(tests=tests, name=name)
    out = _finish(_run(code, TWO_DEVICES))
    assert "inside works" in out
    assert "outside works" in out
