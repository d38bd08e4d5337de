"""The command line: `python -m keras_uap`, or `keras-uap` once installed.

`demo` finds a perturbation of the embedded classifier on the embedded
photographs. `fit` does the same for a model and pictures of your own.
`evaluate` measures a saved perturbation.
"""

import argparse
import pathlib
import sys
import warnings

DESCRIPTION = """\
Find and measure universal adversarial perturbations of image classifiers: one
small image that, added to almost any picture, changes the classifier's answer.
For testing and hardening your own models."""

DEMO_EXAMPLE = """\
example:
  python -m keras_uap demo --output demo"""

FIT_EXAMPLE = """\
example:
  python -m keras_uap fit --model classifier.keras --images photos/ \\
      --value-range 0 255 --epsilon 10 --output result"""

EVALUATE_EXAMPLE = """\
example:
  python -m keras_uap evaluate --model classifier.keras \\
      --perturbation result/uap.npz --images other_photos/"""

# The demo fits on about this many varied views of the photographs.
DEMO_DRAWS = 1600
BATCH = 16


class UsageError(Exception):
    """A mistake in the arguments that the user can mend."""


class _Parser(argparse.ArgumentParser):
    """Mistakes in the arguments are told in one line, as all others are."""

    def error(self, message):
        raise UsageError(f"{message}. See {self.prog} --help.")


def main(arguments=None):
    """Runs the command line; returns the exit status."""
    shown = warnings.showwarning
    warnings.showwarning = _show_warning
    try:
        options = _parser().parse_args(arguments)
        return options.command(options)
    except (UsageError, ValueError, TypeError, OSError, ImportError) as error:
        text = " ".join(str(error).split())
        print(f"keras-uap: error: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nkeras-uap: interrupted, nothing written.", file=sys.stderr)
        return 130
    finally:
        warnings.showwarning = shown


def _parser():
    parser = _Parser(prog="keras-uap", description=DESCRIPTION)
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name, function, example, text):
        made = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(command=function)
        return made

    demo = command(
        "demo",
        _demo,
        DEMO_EXAMPLE,
        "Find a perturbation of the embedded ImageNet classifier.",
    )
    _add_ball(demo)
    _add_output(demo)

    fit = command(
        "fit",
        _fit,
        FIT_EXAMPLE,
        "Find a perturbation of your own classifier on your own pictures.",
    )
    _add_data(fit, "0 255")
    _add_ball(fit)
    fit.add_argument(
        "--held-out",
        metavar="FOLDER_OR_TFDS_NAME",
        help="pictures to measure on (default: the last fifth of --images)",
    )
    fit.add_argument(
        "--update",
        default="lion",
        metavar="NAME",
        help="'deepfool' or a Keras optimizer (default: lion)",
    )
    fit.add_argument(
        "--epochs",
        type=_whole,
        default=5,
        metavar="N",
        help="passes over the pictures (default: 5)",
    )
    fit.add_argument(
        "--target",
        type=int,
        metavar="CLASS",
        help="class index to send pictures to (default: any other)",
    )
    fit.add_argument(
        "--augment",
        action="store_true",
        help="vary the pictures: better from few, a third slower",
    )
    _add_output(fit)

    evaluate = command(
        "evaluate",
        _evaluate,
        EVALUATE_EXAMPLE,
        "Measure a saved perturbation.",
    )
    _add_data(evaluate, "that of the perturbation")
    evaluate.add_argument(
        "--perturbation",
        required=True,
        metavar="UAP.npz",
        help="a file that demo or fit wrote",
    )
    evaluate.add_argument(
        "--json", action="store_true", help="print JSON instead of a table"
    )
    return parser


def _add_data(parser, value_range):
    parser.add_argument(
        "--model",
        required=True,
        metavar="M.keras",
        help="the classifier, a saved Keras model",
    )
    parser.add_argument(
        "--images",
        required=True,
        metavar="FOLDER_OR_TFDS_NAME",
        help="a folder of pictures, or the name of a TFDS data set",
    )
    parser.add_argument(
        "--split",
        default="train",
        metavar="SPLIT",
        help="split of a TFDS data set (default: train)",
    )
    parser.add_argument(
        "--limit",
        type=_whole,
        default=1000,
        metavar="N",
        help="the most pictures to take (default: 1000)",
    )
    parser.add_argument(
        "--value-range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="the pixel range that the classifier takes (default: "
        f"{value_range})",
    )


def _add_ball(parser):
    parser.add_argument(
        "--epsilon",
        type=float,
        default=None,
        metavar="E",
        help="radius of the ball, in the units of the pixel range (default: "
        "10 of 255 for linf, 2000 of 255 for l2)",
    )
    parser.add_argument(
        "--norm",
        default="linf",
        metavar="NORM",
        help="linf or l2 (default: linf)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="(default: 0)"
    )


def _add_output(parser):
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("."),
        metavar="FOLDER",
        help="where files are written (default: here)",
    )


def _whole(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least 1, not {text!r}"
        )
    return int(text)


def _show_warning(message, category, *_, **__):
    # Deprecations are for developers of the libraries below.
    if issubclass(category, UserWarning):
        print(f"keras-uap: warning: {message}", file=sys.stderr)


# Commands -------------------------------------------------------------------


def _demo(options):
    import keras

    import keras_uap
    from keras_uap import datasets, samples

    _make_folder(options.output)
    keras.utils.set_random_seed(options.seed)
    _say("1/4", "loading EfficientNet-Lite0 and the photographs")
    classifier = samples.load_classifier()
    photos = samples.load_photos("fit")
    uap = keras_uap.UniversalPerturbation(
        classifier, _epsilon(options, (0, 255)), options.norm
    )
    _say(
        "2/4",
        f"fitting one perturbation to {DEMO_DRAWS} varied views of "
        f"{_count_groups('fit')} photographs",
    )
    views = datasets.augmented(photos, BATCH, seed=options.seed)
    epochs = -(-DEMO_DRAWS // len(photos))
    uap.compile(uap.decaying_lion(epochs * len(views)))
    interrupted = _fit_or_interrupt(uap, views, epochs=epochs)
    _say("3/4", "measuring it on photographs that it was not fitted on")
    return _finish(
        options,
        uap,
        interrupted,
        images=samples.load_photos("held_out"),
        groups=samples.photo_groups("held_out"),
        class_names=samples.class_names(),
        step="4/4",
    )


def _fit(options):
    import keras

    import keras_uap
    from keras_uap import datasets

    _make_folder(options.output)
    keras.utils.set_random_seed(options.seed)
    value_range = _value_range(options, (0.0, 255.0))
    classifier = _load_model(options.model)
    uap = keras_uap.UniversalPerturbation(
        classifier,
        _epsilon(options, value_range),
        options.norm,
        value_range=value_range,
        target=options.target,
    )
    uap.compile(options.update)
    images = _load_images(options, "images", classifier, value_range)
    if options.held_out is None:
        at = int(len(images) * 0.8)
        if at < 1 or at == len(images):
            raise UsageError(
                f"--images holds {len(images)} picture(s), too few to hold a "
                "fifth of them out. Add pictures, or pass --held-out."
            )
        images, held_out = images[:at], images[at:]
    else:
        held_out = _load_images(options, "held_out", classifier, value_range)
    _say(
        "1/3",
        f"finding one perturbation on {len(images)} pictures, "
        f"measuring on {len(held_out)} others",
    )
    batches = -(-len(images) // BATCH)
    if options.update == "lion":
        uap.compile(uap.decaying_lion(batches * options.epochs))
    data = {"x": images, "batch_size": BATCH}
    if options.augment:
        data = {
            "x": datasets.augmented(images, BATCH, value_range, options.seed)
        }
    interrupted = _fit_or_interrupt(
        uap, **data, epochs=options.epochs, validation_data=held_out
    )
    _say("2/3", "measuring")
    return _finish(options, uap, interrupted, images=held_out, step="3/3")


def _evaluate(options):
    from keras_uap import analysis, interchange

    try:
        perturbation, card = interchange.load_perturbation(options.perturbation)
    except FileNotFoundError:
        raise UsageError(
            f"--perturbation {options.perturbation}: there is no such file."
        ) from None
    made_for = tuple(card["value_range"] or (0.0, 255.0))
    value_range = _value_range(options, made_for)
    if value_range != made_for:
        raise UsageError(
            f"--value-range is {_pair(value_range)}, but the perturbation is "
            f"in the units of {_pair(made_for)}."
        )
    classifier = _load_model(options.model)
    report = analysis.fooling_report(
        classifier,
        perturbation,
        _load_images(options, "images", classifier, value_range),
        norm=card["norm"],
        value_range=card["value_range"],
        verbose=0 if options.json else 1,
    )
    print(report.to_json() if options.json else f"\n{report.table()}")
    return 0


# Parts of commands ----------------------------------------------------------


def _say(step, text):
    print(f"[{step}] {text}", flush=True)


def _count_groups(split):
    from keras_uap import samples

    return len(set(samples.photo_groups(split)))


def _value_range(options, default):
    low, high = options.value_range or default
    if not low < high:
        raise UsageError(
            f"--value-range must be two numbers, the lower one first. "
            f"Received: {_pair((low, high))}."
        )
    return low, high


def _pair(value_range):
    return f"{value_range[0]:g} {value_range[1]:g}"


def _epsilon(options, value_range):
    if options.epsilon is not None:
        return options.epsilon
    # The paper's values, for pixels in 0 to 255.
    paper = 10.0 if options.norm == "linf" else 2000.0
    return paper * (value_range[1] - value_range[0]) / 255.0


def _make_folder(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--output {folder} cannot be made: {error.strerror}."
        ) from error


def _load_model(path):
    import keras

    from keras_uap.datasets import first_line

    if not pathlib.Path(path).is_file():
        raise UsageError(f"--model {path}: there is no such file.")
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:
        raise UsageError(
            f"--model {path} cannot be loaded as a Keras model. "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error


def _load_images(options, name, classifier, value_range):
    """Loads the pictures of `--images` or `--held-out` for a classifier."""
    import numpy as np
    import tensorflow as tf

    from keras_uap import datasets

    source = getattr(options, name)

    shape = getattr(classifier, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:]:
        raise UsageError(
            "The model must state the size of its images, (batch, height, "
            f"width, channels). Received: {shape}."
        )
    if shape[-1] != 3:
        raise UsageError(
            "The command line takes models of colour pictures. This model "
            f"takes {shape[-1]} channel(s); use the Python interface."
        )
    data = datasets.images(source, shape[1:3], options.split, options.limit)
    # uint8 keeps a thousand pictures at 150 MB.
    try:
        pictures = np.concatenate(
            [batch.numpy().round().astype("uint8") for batch in data]
        )
    except tf.errors.InvalidArgumentError as error:
        raise UsageError(
            f"--{name.replace('_', '-')} {source} holds a file that is no "
            f"picture, or is damaged. {datasets.first_line(error)}"
        ) from error
    low, high = value_range
    if (low, high) == (0, 255):
        return pictures
    return (low + pictures.astype("float32") * ((high - low) / 255.0)).astype(
        "float32"
    )


def _fit_or_interrupt(uap, x, **arguments):
    """Fits; returns whether Ctrl-C ended it, with the best v so far kept."""
    try:
        uap.fit(x, **arguments, verbose=0, callbacks=_progress())
    except KeyboardInterrupt:
        print("\ninterrupted: keeping the best perturbation so far", flush=True)
        return True
    return False


def _progress():
    """A callback that tells of each epoch in 80 columns."""
    import keras

    class Progress(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs):
            name = "target_rate" if "target_rate" in logs else "fooling_rate"
            verb = "sent to the target" if "target_rate" in logs else "fooled"
            text = f"  epoch {epoch + 1} of {self.params['epochs']}: "
            text += f"{logs[name]:.1%} {verb}"
            if f"val_{name}" in logs:
                text += f", {logs[f'val_{name}']:.1%} of the held-out pictures"
            print(text, flush=True)

    return Progress()


def _finish(
    options, uap, interrupted, images, step, groups=None, class_names=None
):
    """Writes the files; measures, unless the user is in a hurry."""
    from keras_uap import analysis, visualization
    from keras_uap.interchange import atomic_path, save_perturbation

    folder = options.output
    card = {
        "norm": uap.norm,
        "epsilon": uap.epsilon,
        "value_range": uap.value_range,
        "classifier": uap.classifier.name,
        "target": uap.target,
        "seed": options.seed,
        "stop_reason": uap.stop_reason,
    }
    # First what cannot be had again, then what can be measured again.
    with atomic_path(folder / "uap.keras") as path:
        uap.save(path)
    save_perturbation(folder / "uap.npz", uap.perturbation, card)
    if interrupted:
        print(f"wrote {folder / 'uap.keras'} and {folder / 'uap.npz'}")
        return 130
    report = analysis.fooling_report(
        uap.classifier,
        uap.perturbation,
        images,
        groups=groups,
        norm=uap.norm,
        value_range=uap.value_range,
        seed=options.seed,
        verbose=0,
    )
    card["held_out"] = {
        "fooling_rate": report.fooling_rate,
        "interval_95": report.fooling_interval,
        "random_noise_rate": report.random_rate,
        "num_images": report.num_images,
        "num_photographs": report.num_groups,
    }
    save_perturbation(folder / "uap.npz", uap.perturbation, card)
    _say(step, f"writing to {folder.resolve()}")
    text = report.table(class_names)
    with atomic_path(folder / "report.txt") as path:
        path.write_text(text + "\n", encoding="utf-8")
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
    with atomic_path(folder / "uap.png") as path:
        figure.savefig(path)
    print(f"\n{text}\n")
    print("files: uap.png (look at it), uap.keras, uap.npz, report.txt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
