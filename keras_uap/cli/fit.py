"""`fit`: a perturbation of a classifier on pictures."""

import pathlib

import keras

from keras_uap import visualization
from keras_uap.cli import console, evaluate, inputs
from keras_uap.data import augmentation, sources
from keras_uap.perturbations.interchange import save_perturbation
from keras_uap.utils.saving import atomic_path

# How often many pictures are shown, and few varied ones in all.
EPOCHS = 5
VIEWS = 2000

# At most so many epochs are told of.
_LINES = 25


def run(options):
    console.say("1/4", "loading the model and the pictures")
    keras.utils.set_random_seed(options.seed)
    classifier = inputs.attach(inputs.load_model(options.model), options)
    class_names = inputs.load_class_names(options, classifier)
    uap = inputs.make_uap(options, classifier, options.target)
    inputs.compile_update(uap, options.update)
    shape = classifier.input_shape[1:]
    pictures = inputs.load_images(options, "images", shape)
    if options.held_out is None:
        train, select, held_out = inputs.in_parts(options, pictures)
    else:
        train, select = inputs.in_parts(options, pictures, (0.8, 0.2))
        held_out = inputs.load_images(options, "held_out", shape)
    count = len(train.images)
    console.say("2/4", f"finding one perturbation on {count} pictures")
    print(
        f"  {len(select.images)} others choose the best epoch, "
        f"{len(held_out.images)} more are measured on",
        flush=True,
    )
    size, epochs = options.batch_size, options.epochs
    batches_each = -(-count // size)
    if options.augment or count < augmentation.FEW:
        images, views = augmentation.views(train, size, seed=options.seed), 1
        if not epochs:
            times = max(EPOCHS, -(-VIEWS // count))
            # Some views of each picture make an epoch: after it comes a look
            # at those that choose, which takes longer than very few pictures.
            views = -(-times // _LINES)
            epochs = -(-times // views)
            images, batches_each = images.repeat(views), views * batches_each
        times = epochs * views
        print(f"  each is varied anew {times} times: crops, light, mirror")
    else:
        images = sources.source(train.images)
    choosing = sources.source(select.images)
    classify(uap, images, choosing)
    interrupted = fit_or_interrupt(
        uap,
        images,
        batches_each,
        epochs=epochs or EPOCHS,
        batch_size=size,
        validation_data=choosing,
    )
    return finish(
        options,
        uap,
        interrupted,
        held_out,
        name=pathlib.Path(options.model).name,
        class_names=class_names,
        steps=4,
    )


def classify(uap, *images):
    """Finds the clean predictions that `fit` needs, and tells the time left.

    Args:
        uap: `UniversalPerturbation`.
        *images: Sources, which keep them, or data sets, which do not.
    """
    arrays = [x for x in images if isinstance(x, sources.ArraySource)]
    count = sum(len(source.images) for source in arrays)
    progress = console.Progress("pictures classified", count)
    for source in arrays:
        uap.build_for_source(source)
        source.batches(1, uap.adapter, verbose=progress)


class Lines(keras.callbacks.Callback):
    """A line for each epoch of a perturbation, and the time left.

    Args:
        batches: Integer, how many an epoch has.
    """

    def __init__(self, batches):
        super().__init__()
        self._batches = batches

    def on_train_begin(self, logs=None):
        total = self.params["epochs"] * self._batches
        self._progress = console.Progress("batches", total)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self._progress.update(
            self._epoch * self._batches + batch + 1,
            f"epoch {self._epoch + 1} of {self.params['epochs']}, batch "
            f"{batch + 1} of {self._batches}",
        )

    def on_epoch_end(self, epoch, logs=None):
        # Of few pictures there are hundreds of epochs.
        if (epoch + 1) % -(-self.params["epochs"] // _LINES):
            return
        name = "target_rate" if "target_rate" in logs else "fooling_rate"
        verb = "to the target" if "target_rate" in logs else "fooled"
        text = f"epoch {epoch + 1} of {self.params['epochs']}: "
        text += f"{logs[name]:.1%} {verb}"
        if f"val_{name}" in logs:
            text += f", {logs[f'val_{name}']:.1%} of the others"
        self._progress.line(text)


def fit_or_interrupt(uap, x, num_batches, **arguments):
    """Fits; returns whether Ctrl-C ended it, with the best v so far kept."""
    try:
        uap.fit(x, **arguments, verbose=0, callbacks=[Lines(num_batches)])
    except KeyboardInterrupt:
        return True
    return False


def finish(
    options,
    uap,
    interrupted,
    held_out,
    name,
    steps,
    class_names=None,
):
    """Writes the files; measures, unless the user is in a hurry."""
    folder = options.output
    card = {
        "norm": uap.norm,
        "epsilon": uap.epsilon,
        "value_range": uap.value_range,
        "classifier": name,
        "target": uap.target,
        "seed": options.seed,
        "stop_reason": uap.stop_reason,
    }
    # First what cannot be had again, then what can be measured again.
    with atomic_path(folder / "uap.keras") as path:
        uap.save(path)
    save_perturbation(folder / "uap.npz", uap.perturbation, card)
    if interrupted:
        raise console.Interrupted(
            "interrupted: keeping the best perturbation so far, in "
            f"{folder / 'uap.keras'} and {folder / 'uap.npz'}"
        )
    images = held_out.images
    console.say(
        f"{steps - 1}/{steps}",
        f"measuring on {len(images)} pictures that had no part in finding it",
    )
    report = evaluate.report_of(
        uap.classifier,
        uap.perturbation,
        held_out,
        options,
        norm=uap.norm,
        epsilon=uap.epsilon,
        target=uap.target,
    )
    card["held_out"] = report.for_card()
    save_perturbation(folder / "uap.npz", uap.perturbation, card)
    console.say(f"{steps}/{steps}", f"writing to {folder.resolve()}")
    text = f"{report.table(class_names)}\n\n{evaluate.meaning(report)}"
    console.write_text(folder / "report.txt", text)
    # Photographs of one scene look alike: show them from all over.
    shown = images[:: max(1, len(images) // 6)][:6]
    figure = visualization.plot_perturbation(
        uap.classifier,
        uap.perturbation,
        shown,
        uap.value_range,
        class_names,
        title=f"One perturbation, {uap.norm} norm at most {uap.epsilon:g}: "
        f"{report.fooling_rate:.0%} of {report.num_images} held-out images "
        f"fooled, {report.random_rate:.0%} by random noise of the same norm",
    )
    console.write_figure(folder / "uap.png", figure)
    report.save_html(folder / "report.html", class_names, card)
    files = (
        "files: report.html (open it in a browser), uap.png, uap.keras,\n"
        "uap.npz, report.txt"
    )
    return f"{text}\n\n{files}", report.to_dict()
