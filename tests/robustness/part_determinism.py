"""The same seed gives the same bytes, in one process and in another."""

import hashlib
import json
import subprocess
import sys

import common

UPDATES = ["deepfool", "one by one", "lion", "adam"]


def digests():
    """Hashes of what is fitted from one seed, for each update."""
    import keras
    import numpy as np

    import keras_uap

    found = {}
    for update in UPDATES:
        keras.utils.set_random_seed(5)
        layers = keras.layers
        classifier = keras.Sequential(
            [
                keras.Input(common.SHAPE),
                layers.Conv2D(8, 3, activation="relu"),
                layers.MaxPooling2D(),
                layers.Flatten(),
                layers.Dense(common.CLASSES),
            ]
        )
        uap = keras_uap.UniversalPerturbation(
            classifier, 0.1, value_range=(0, 1)
        )
        rule = keras_uap.DeepFool(one_by_one=True)
        uap.compile(rule if update == "one by one" else update)
        history = uap.fit(
            common.images(40),
            epochs=2,
            batch_size=8,
            validation_data=common.images(20, seed=3),
            verbose=0,
        ).history
        content = uap.perturbation.tobytes() + json.dumps(history).encode()
        found[update] = hashlib.sha256(content).hexdigest()
    keras.utils.set_random_seed(5)
    layer = keras_uap.PerturbationLayer(
        epsilon=0.1, value_range=(0, 1), rate=0.5
    )
    model = keras.Sequential(
        [keras.Input(common.SHAPE), layer, common.linear()]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(common.images(40), np.arange(40) % 4, epochs=2, verbose=0)
    found["layer"] = hashlib.sha256(layer.perturbation.tobytes()).hexdigest()
    return found


def _other_process(ops):
    out = subprocess.run(
        [sys.executable, __file__, ops],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    return json.loads(out.splitlines()[-1])


def run(report, quick, seed):
    first = digests()
    again = {"in one process": digests()}
    again["in another process"] = _other_process("")
    if not quick:
        # The ops may differ, so it is compared with itself.
        deterministic = _other_process("deterministic")
        report.count("fits compared", len(deterministic))
        other = _other_process("deterministic")
        report.check(
            deterministic == other,
            "enable_op_determinism: two processes differ",
        )
    for where, found in again.items():
        for name, digest in found.items():
            report.count("fits compared")
            report.check(digest == first[name], f"{name}: differs {where}")


if __name__ == "__main__":
    if sys.argv[1] == "deterministic":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    print(json.dumps(digests()))
