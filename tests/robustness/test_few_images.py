"""Few images: all of the passes are spent, or the call is refused at once."""

import keras
import models
import numpy as np
import pytest

import keras_uap
from keras_uap import datasets
from keras_uap.attacks import fitting
from keras_uap.evaluation import attack_suite

PASSES = 400


class PassLimit(fitting._PassLimit):
    """Notes the step of every batch, too."""

    steps = []

    def on_train_batch_begin(self, batch, logs=None):
        self.steps.append(float(self.model.optimizer.learning_rate))


def dead():
    """A classifier whose images have no gradient."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(models.SHAPE),
            layers.Rescaling(1.0, -1000.0),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(models.CLASSES),
        ]
    )


@pytest.mark.parametrize("kind", ["dominant", "DeepFool", "no gradient"])
def test_passes_are_spent(kind, quick, rng, count, monkeypatch):
    monkeypatch.setattr(fitting, "_PassLimit", PassLimit)
    for _ in range(1 if quick else 6):
        number = int(rng.integers(3, 41))
        classifier = dead() if kind == "no gradient" else models.linear()
        PassLimit.steps.clear()
        found = fitting.fit_with_passes(
            classifier,
            datasets.Pictures(models.images(number)),
            keras_uap.LpBall(0.05),
            PASSES,
            None if kind == "DeepFool" else "dominant",
            value_range=(0, 1),
            augment=True,
            seed=number,
        )
        count("attacks on 3 to 40 images")
        count("least share of the passes spent", found.passes / PASSES, how=min)
        assert 0.85 * PASSES <= found.passes <= PASSES
        assert found.no_gradient == (kind == "no gradient")
        # A tenth of the first step or less, where steps fall in a line.
        small = np.mean(np.array(PassLimit.steps) <= 0.1 * PassLimit.steps[0])
        count("largest share of batches with small steps", small, how=max)
        assert kind == "DeepFool" or small <= 0.25


@pytest.mark.parametrize("call", ["audit", "harden"])
def test_too_few_photographs(call, quick, rng, count, monkeypatch):
    """Refused before the first attack, by their number, or measured."""

    def begun(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(attack_suite.Attacker, "run", begun)
    for number in range(1, 5 if quick else 9):
        each = int(rng.integers(1, 9))
        images = models.images(each * number)
        groups = np.arange(len(images)) // each
        with pytest.raises((ValueError, KeyboardInterrupt)) as caught:
            getattr(keras_uap, call)(
                models.linear(),
                images,
                groups=groups,
                epsilon=0.05,
                value_range=(0, 1),
                verbose=0,
            )
        count("calls with few photographs")
        if caught.type is ValueError:
            count("calls with few photographs, refused")
            said = str(caught.value)
            assert f"of {number} photographs" in said or number == 1
        assert number < 7 or caught.type is KeyboardInterrupt
