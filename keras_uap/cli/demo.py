"""`demo`: a perturbation of the embedded classifier and photographs."""

import keras

from keras_uap import samples
from keras_uap.cli import console, fit, inputs
from keras_uap.data import augmentation
from keras_uap.data.pictures import Pictures

# About this many varied views of the photographs are fitted on.
DRAWS = 3072


def run(options):
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
    views = augmentation.augmented(
        photos, options.batch_size, seed=options.seed
    )
    epochs = -(-DRAWS // len(photos))
    inputs.compile_update(uap)
    interrupted = fit.fit_or_interrupt(
        uap, views, -(-len(photos) // options.batch_size), epochs=epochs
    )
    return fit.finish(
        options,
        uap,
        interrupted,
        Pictures(
            samples.load_photos("held_out"),
            groups=samples.photo_groups("held_out"),
        ),
        name=classifier.name,
        class_names=samples.class_names(),
        steps=4,
    )
