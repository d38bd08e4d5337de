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

# Optimizing a graph takes longer than running it does.
options = {"disable_meta_optimizer": True}
tf.config.optimizer.set_experimental_options(options)

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
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err[-3000:]
    return out


def test_two_devices_give_the_perturbation_of_one():
    code = """
    for update, loss in (
        (keras_uap.DeepFool(boundary="nearest"), "crossentropy"),
        ("decaying_lion", "dominant"),
        ("sgd", "features+dominant"),
    ):
        alone, history = run(fit(update, loss))
        with strategy.scope():
            uap = fit(update, loss)
        together, shared = run(uap)
        np.testing.assert_allclose(together, alone, atol=1e-4)
        for name in ("fooling_rate", "val_fooling_rate", "norm"):
            np.testing.assert_allclose(shared[name], history[name], rtol=1e-5)
        print(update, "size", np.abs(alone).max())

    # One image after another cannot be shared out.
    with strategy.scope():
        uap = fit(keras_uap.DeepFool(one_by_one=True))
    try:
        run(uap)
    except ValueError as error:
        print("refused:", error)
    """
    out = _finish(_run(code, TWO_DEVICES))
    lines = out.splitlines()
    sizes = [float(line.split()[-1]) for line in lines if "size" in line]
    assert len(sizes) == 3
    assert min(sizes) > 1
    assert "refused: " in out


def test_two_workers_give_the_perturbation_of_one(tmp_path):
    ports = []
    sockets = [socket.socket() for _ in range(2)]
    for held in sockets:
        held.bind(("127.0.0.1", 0))
        ports.append(held.getsockname()[1])
    for held in sockets:
        held.close()
    code = f"""
    found = []
    for update in ("lion", "deepfool"):
        with strategy.scope():
            uap = fit(update)
        found.append(run(uap)[0])
    task = str(strategy.cluster_resolver.task_id)
    np.save({str(tmp_path)!r} + "/" + task, found)
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
    alone = f"""
    found = [run(fit(update))[0] for update in ("lion", "deepfool")]
    np.save({str(tmp_path / "alone")!r}, found)
    """
    _finish(_run(alone))
    first, second, one = (
        np.load(tmp_path / f"{name}.npy") for name in ("0", "1", "alone")
    )
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, one, atol=1e-4)
    assert np.abs(one).max(axis=(1, 2, 3)).min() > 1


def test_workflows_on_two_devices():
    """Inside the scope, and outside of it with a classifier made inside."""
    tests = str(pathlib.Path(__file__).parents[1])
    code = f"""
    import tempfile

    sys.path.insert(0, {tests!r})
    import models
    from pytest import MonkeyPatch
    from keras_uap.evaluation import audit as audits

    models.shorten_audits(MonkeyPatch(), 32)
    x, y = models.images(64), np.arange(64) % 4
    plain = {{"epsilon": 0.05, "value_range": (0, 1)}}

    def classifier():
        model = models.cnn("softmax")
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    def harden(model, folder):
        result = keras_uap.harden(
            model, x, epochs=2, verbose=0, backup_dir=folder, **plain
        )
        assert len(result.history["loss"]) == 2
        return result.after

    def cut(*args, known=None, **kwargs):
        if known is not None:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    # Cut off inside the scope, after the training; gone on with outside.
    real, folder = audits.audit_pictures, tempfile.mkdtemp()
    with strategy.scope():
        made = classifier()
        weights = made.get_weights()
        audits.audit_pictures = cut
        try:
            harden(made, folder)
        except KeyboardInterrupt:
            made.set_weights(weights)
        audits.audit_pictures = real
    assert np.abs(harden(made, folder).perturbation).max() < 0.0501
    print("hardened")

    def report(model):
        with tempfile.TemporaryDirectory() as folder:
            uap = keras_uap.UniversalPerturbation(model, **plain)
            uap.compile("lion")
            board = keras_uap.PerturbationTensorBoard(folder, x)
            uap.fit(x, verbose=0, callbacks=[board])
        found = keras_uap.analysis.fooling_report(
            model, uap, x, value_range=(0, 1), verbose=0)
        assert found.fooling_rate == uap.evaluate(x, verbose=0)
        keras_uap.deepfool(model, x[:8], verbose=0)
        return uap

    assert 0 < np.abs(report(made).perturbation).max() < 0.0501
    with strategy.scope():
        assert 0 < np.abs(report(made).perturbation).max() < 0.0501
    print("measured")

    def resumed_fit(epochs):
        with strategy.scope():
            model = classifier()
        seen = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: begun.append(epoch))
        backup = keras_uap.BackupAndRestore(folder, False)
        model.fit(x, y, epochs=epochs, verbose=0, callbacks=[backup, seen])

    begun = []
    with tempfile.TemporaryDirectory() as folder:
        resumed_fit(1)
        resumed_fit(2)
    assert begun == [0, 1], begun
    outside = classifier()
    for scope, model in (
        (strategy.scope(), outside), (MonkeyPatch.context(), made)
    ):
        try:
            with scope:
                keras_uap.AdversarialDistiller(model, **plain)
        except ValueError as error:
            assert "outside the scope" in str(error)
            print("refused")
    """
    out = _finish(_run(code, TWO_DEVICES))
    assert out.split()[-4:] == ["hardened", "measured", "refused", "refused"]
