"""`demo`: a perturbation of the embedded classifier and photographs."""

import keras

from keras_uap import datasets, samples
from keras_uap.commands import console, fit, inputs
from keras_uap.commands.options import add_ball, add_output

HELP = "Find a perturbation of the embedded ImageNet classifier."
EXAMPLE = "python -m keras_uap demo --output demo"

# About this many varied views of the photographs are fitted on.
DRAWS = 3072


def add_arguments(parser):
    add_ball(parser)
    add_output(parser)


def run(options):
    console.make_folder(options.output)
    keras.utils.set_random_seed(options.seed)
    console.say("1/4", "loading EfficientNet-Lite0 and the photographs")
    classifier = samples.load_classifier()
    photos = samples.load_photos("fit")
    uap = inputs.make_uap(options, classifier)
    console.say(
        "2/4",
        f"fitting one perturbation to {DRAWS} varied views of "
        f"{len(set(samples.photo_groups('fit')))} photographs",
    )
    views = datasets.augmented(photos, inputs.BATCH, seed=options.seed)
    epochs = -(-DRAWS // len(photos))
    inputs.compile_strongest(uap)
    interrupted = fit.fit_or_interrupt(uap, views, epochs=epochs)
    console.say("3/4", "measuring it on photographs that it was not fitted on")
    return fit.finish(
        options,
        uap,
        interrupted,
        images=samples.load_photos("held_out"),
        name=classifier.name,
        groups=samples.photo_groups("held_out"),
        class_names=samples.class_names(),
        step="4/4",
    )
