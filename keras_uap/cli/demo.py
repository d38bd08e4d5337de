"""`demo`: a perturbation of the embedded classifier and photographs."""

import keras

from keras_uap import samples
from keras_uap.cli import console, fit, loading
from keras_uap.data import augmentation
from keras_uap.data.pictures import Pictures

# About this many augmented views of the photographs are fitted on.
VIEWS = 3072


def run(options):
    keras.utils.set_random_seed(options.seed)
    console.say("1/4", "loading EfficientNet-Lite0 and the photographs")
    classifier = samples.load_classifier()
    images, held_out = map(samples.load_photos, samples.SPLITS)
    held_out = Pictures(held_out, groups=samples.photo_groups("held_out"))
    uap = loading.make_uap(options, classifier)
    count = len(set(samples.photo_groups("fit")))
    shown = f"{VIEWS} augmented views of {count} photographs"
    console.say("2/4", f"fitting one perturbation to {shown}")
    interrupted = fit.fit_or_interrupt(
        uap,
        augmentation.augmented(images, options.batch_size, seed=options.seed),
        -(-len(images) // options.batch_size),
        epochs=-(-VIEWS // len(images)),
    )
    named = classifier.name, samples.class_names()
    return fit.finish(options, uap, interrupted, held_out, *named)
