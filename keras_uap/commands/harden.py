"""`harden`: adversarial fine-tuning of a classifier.

A `PerturbationLayer(epsilon=...)` in front of the classifier trains a
perturbation against it while `fit` trains the classifier. The statistics of
batch normalization stay as they are: a few hundred pictures would spoil them.
What counts is a *fresh* perturbation, found against the classifier as it was
before and as it is after.
"""

import pathlib

import keras
import numpy as np

import keras_uap
from keras_uap import analysis
from keras_uap.commands import console, inputs
from keras_uap.keras_private import all_layers
from keras_uap.labeller import Labeller
from keras_uap.logits import gives_logits
from keras_uap.saving import atomic_path

# A fresh perturbation sees at least so many pictures, however few there are.
DRAWS = 1000


def run(options):
    keras.utils.set_random_seed(options.seed)
    model = inputs.load_model(options.model)
    if isinstance(model, pathlib.Path):
        raise console.UsageError(
            f"--model {model}: a SavedModel cannot be trained any more. "
            "Expected: a .keras file."
        )
    classifier = inputs.attach(model, options)
    ball = inputs.make_ball(options)
    train, held_out = _load(options, classifier)
    images, labels = train.images, train.labels
    console.say(
        "1/4", f"a perturbation of the model, on {len(images)} pictures"
    )
    before = _fresh_report(options, classifier, images, held_out)
    console.say("2/4", f"fine-tuning, {options.epochs} epochs")
    if labels is None:
        labeller = Labeller(classifier, images.shape[1:])
        labels = labeller.labels(images, batch_size=inputs.BATCH)
    _harden(options, classifier, images, labels, ball)
    console.say("3/4", "a fresh perturbation of the hardened model")
    after = _fresh_report(options, classifier, images, held_out)
    console.say("4/4", f"writing to {options.output.resolve()}")
    with atomic_path(options.output / "hardened.keras") as path:
        model.save(path)
    agreement = float(np.mean(after.clean_labels == before.clean_labels))
    values = {
        "images": len(images),
        "held_out_images": len(held_out.images),
        "norm": ball.norm,
        "epsilon": ball.epsilon,
        "before": _summary(before, 1.0),
        "after": _summary(after, agreement),
    }
    return _table(values), values


def _load(options, classifier):
    """Pictures to train on, and others to measure on."""
    shape = classifier.input_shape[1:]
    train = inputs.load_images(options, "images", shape)
    inputs.check_labels(options, train.class_names, classifier)
    if options.held_out is None:
        # Nothing is chosen here, so two parts do.
        return inputs.in_parts(options, train, (0.75, 0.25))
    held_out = inputs.load_images(options, "held_out", shape)
    inputs.check_labels(options, held_out.class_names, classifier)
    return train, held_out


def _fresh_report(options, classifier, images, held_out):
    """Measures a perturbation that is found anew, always in the same way."""
    keras.utils.set_random_seed(options.seed)
    uap = inputs.make_uap(options, classifier)
    epochs = max(2, -(-DRAWS // len(images)))
    inputs.compile_strongest(uap)
    uap.fit(images, batch_size=inputs.BATCH, epochs=epochs, verbose=0)
    return analysis.fooling_report(
        classifier,
        uap.perturbation,
        held_out.images,
        held_out.labels,
        held_out.groups,
        norm=uap.norm,
        value_range=inputs.PIXELS,
        seed=options.seed,
        verbose=0,
    )


def _harden(options, classifier, images, labels, ball):
    """Trains the classifier in place, and a perturbation against it."""
    layer = keras_uap.PerturbationLayer(
        epsilon=ball.epsilon, norm=ball.norm, seed=options.seed
    )
    training = keras.Sequential(
        [keras.Input(images.shape[1:]), layer, classifier]
    )
    losses = keras.losses
    loss = losses.SparseCategoricalCrossentropy
    if classifier.output_shape[-1] == 1:
        loss = losses.BinaryCrossentropy
    steps = options.epochs * -(-len(images) // inputs.BATCH)
    rate = keras.optimizers.schedules.CosineDecay(options.learning_rate, steps)
    frozen = [
        part
        for part in all_layers(classifier)
        if isinstance(part, keras.layers.BatchNormalization) and part.trainable
    ]
    for part in frozen:
        part.trainable = False
    training.compile(
        keras.optimizers.Adam(rate),
        loss(from_logits=gives_logits(classifier, images[: inputs.BATCH])),
        metrics=["accuracy"],
    )
    training.fit(
        images,
        labels,
        batch_size=inputs.BATCH,
        epochs=options.epochs,
        verbose=0,
        callbacks=[_Progress()],
    )
    for part in frozen:
        part.trainable = True


class _Progress(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        print(
            f"  epoch {epoch + 1} of {self.params['epochs']}: loss "
            f"{logs['loss']:.3f}, {logs['accuracy']:.1%} right under attack",
            flush=True,
        )


def _summary(report, agreement):
    accuracy = report.clean_error_rate
    return {
        "fooling_rate": report.fooling_rate,
        "interval_95": list(report.fooling_interval),
        "random_noise_rate": report.random_rate,
        "clean_accuracy": None if accuracy is None else 1 - accuracy,
        "agreement": agreement,
    }


def _table(values):
    before, after = values["before"], values["after"]
    rows = [
        ("fooled by a fresh perturbation", "fooling_rate"),
        ("by random noise of the same norm", "random_noise_rate"),
        ("right on clean pictures", "clean_accuracy"),
        ("clean answers as before", "agreement"),
    ]
    lines = [
        f"{values['held_out_images']} held-out pictures, {values['norm']} norm "
        f"{values['epsilon']:.4g} of 255",
        "",
        f"{'':<36}{'before':>10}{'after':>10}",
    ]
    lines += [
        f"{text:<36}{before[key]:>10.1%}{after[key]:>10.1%}"
        for text, key in rows
        if before[key] is not None
    ]
    for name, part in (("before", before), ("after", after)):
        low, high = part["interval_95"]
        lines.append(
            f"95 % interval of the first line, {name}: {low:.1%} to {high:.1%}"
        )
    return "\n".join([*lines, "", "file: hardened.keras"])
