"""`fit`: a perturbation of a classifier on images."""

import pathlib

import keras

from keras_uap.cli import console, evaluate, loading
from keras_uap.data import augmentation
from keras_uap.perturbations.interchange import save_perturbation
from keras_uap.utils.progress import Progress
from keras_uap.utils.saving import atomic_path

# Epochs without augmentation, and augmented views in all.
EPOCHS = 5
VIEWS = 2000

# The most epochs that print a line.
_LINES = 25


def run(options):
    console.say("1/4", "loading the model and the images")
    keras.utils.set_random_seed(options.seed)
    classifier = loading.attach(loading.load_model(options.model), options)
    class_names = loading.load_class_names(options, classifier)
    uap = loading.make_uap(options, classifier, options.target, options.update)
    train, select, held_out = loading.load_parts(options, classifier)
    count = len(train.images)
    console.say("2/4", f"fitting one perturbation to {count} images")
    console.note(
        f"{len(select.images)} other images select the best epoch, "
        f"{len(held_out.images)} are held out to measure on"
    )
    x, epochs = train.images, options.epochs or EPOCHS
    batches = -(-count // options.batch_size)
    if options.augment or count < augmentation.FEW:
        x, epochs, batches = _augment(options, train, batches)
    interrupted = fit_or_interrupt(
        uap,
        x,
        batches,
        epochs=epochs,
        batch_size=options.batch_size,
        validation_data=select.images,
    )
    name = pathlib.Path(options.model).name
    return finish(options, uap, interrupted, held_out, name, class_names)


def _augment(options, train, batches):
    """Returns augmented images, the epochs, and the batches of an epoch."""
    x = augmentation.views(train, options.batch_size, seed=options.seed)
    epochs, repeats = options.epochs, 1
    if epochs is None:
        # An epoch has several views of each image, because it ends with a
        # validation, which takes longer than very few images.
        epochs = max(EPOCHS, -(-VIEWS // len(train.images)))
        repeats = -(-epochs // _LINES)
        epochs = -(-epochs // repeats)
    console.note(
        f"{epochs * repeats} augmented views of each image: random crops, "
        "light and mirroring"
    )
    return x.repeat(repeats), epochs, repeats * batches


class EpochLines(keras.callbacks.Callback):
    """Prints a line for each of at most 25 epochs, with the time left.

    Args:
        batches: Integer, the number of batches of an epoch.
    """

    def __init__(self, batches):
        super().__init__()
        self._batches = batches

    def on_train_begin(self, logs=None):
        total = self.params["epochs"] * self._batches
        self._progress = Progress("batches", total)

    def on_train_batch_end(self, batch, logs=None):
        self._progress.add(1)

    def on_epoch_end(self, epoch, logs=None):
        epochs = self.params["epochs"]
        if (epoch + 1) % -(-epochs // _LINES):
            return
        name = "target_rate" if "target_rate" in logs else "fooling_rate"
        verb = "sent to the target" if name == "target_rate" else "fooled"
        text = f"epoch {epoch + 1} of {epochs}: {logs[name]:.1%} {verb}"
        if f"val_{name}" in logs:
            text += f", {logs[f'val_{name}']:.1%} of the selection set"
        console.note(f"{text}{self._progress.left()}")


def fit_or_interrupt(uap, x, batches, **arguments):
    """Fits; returns whether Ctrl-C ended it, with the best v so far kept."""
    try:
        uap.fit(x, **arguments, verbose=0, callbacks=[EpochLines(batches)])
    except KeyboardInterrupt:
        return True
    return False


def finish(options, uap, interrupted, held_out, name, class_names=None):
    """Writes the files, and measures the perturbation unless interrupted."""
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
    # The perturbation is written first, because measuring can be repeated.
    with atomic_path(folder / "uap.keras") as path:
        uap.save(path)
    save_perturbation(folder / "uap.npz", uap.perturbation, card)
    files = f"{folder / 'uap.keras'} and {folder / 'uap.npz'}"
    if interrupted:
        raise console.Interrupted(
            f"interrupted: keeping the best perturbation so far, in {files}"
        )
    with console.kept(f"the perturbation is in {files}"):
        return _measure(options, uap, held_out, card, class_names)


def _measure(options, uap, held_out, card, class_names):
    """Measures the perturbation on held-out images and writes the report."""
    folder = options.output
    console.say("3/4", f"measuring on {len(held_out.images)} held-out images")
    found = uap.classifier, uap.perturbation, card
    report = evaluate.report_of(*found, held_out, options)
    card["held_out"] = report.for_card()
    save_perturbation(folder / "uap.npz", uap.perturbation, card)
    console.say("4/4", f"writing to {folder.resolve()}")
    text = evaluate.text_of(report, class_names)
    console.write(folder / "report.txt", text)
    images = held_out.images
    figure = uap.plot(
        # Neighbours are often alike, so the images shown are spread out.
        images[:: max(1, len(images) // 6)][:6],
        class_names,
        f"One perturbation, {uap.norm} norm at most {uap.epsilon:g}: "
        f"{report.fooling_rate:.0%} of {report.num_images} held-out images "
        f"fooled, {report.random_rate:.0%} by random noise of the same norm",
    )
    console.write(folder / "uap.png", figure)
    report.save_html(folder / "report.html", class_names, card)
    files = (
        "files: report.html (open in a browser), uap.png, uap.keras,\n"
        "uap.npz, report.txt"
    )
    return f"{text}\n\n{files}", report.to_dict()
