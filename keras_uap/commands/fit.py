"""`fit`: a perturbation of a classifier on pictures."""

import pathlib

import keras

from keras_uap import analysis, datasets, visualization
from keras_uap.commands import _tools
from keras_uap.interchange import atomic_path, save_perturbation

HELP = "Find a perturbation of your own classifier on your own pictures."
EXAMPLE = """\
python -m keras_uap fit --model classifier.keras --images photos/ \\
      --value-range -1 1 --epsilon 10 --output result"""


def add_arguments(parser):
    _tools.add_model(parser)
    _tools.add_images(parser)
    _tools.add_held_out(parser)
    _tools.add_ball(parser)
    parser.add_argument(
        "--update",
        default="lion",
        metavar="NAME",
        help="'deepfool' or a Keras optimizer (default: lion)",
    )
    parser.add_argument(
        "--epochs",
        type=_tools.whole,
        default=5,
        metavar="N",
        help="passes over the pictures (default: 5)",
    )
    parser.add_argument(
        "--target",
        type=int,
        metavar="CLASS",
        help="class index to send pictures to (default: any other)",
    )
    parser.add_argument(
        "--augment",
        action="store_true",
        help="vary the pictures: better from few, a third slower",
    )
    _tools.add_class_names(parser)
    _tools.add_output(parser)


def run(options):
    _tools.make_folder(options.output)
    keras.utils.set_random_seed(options.seed)
    classifier = _tools.attach(_tools.load_model(options.model), options)
    class_names = _tools.load_class_names(options, classifier)
    uap = _tools.make_uap(options, classifier, options.target)
    uap.compile(options.update)
    shape = classifier.input_shape[1:]
    images, _, _ = _tools.load_images(options, "images", shape)
    if options.held_out is None:
        (images, _), (held_out, _) = _tools.split_off(images)
    else:
        held_out, _, _ = _tools.load_images(options, "held_out", shape)
    _tools.say(
        "1/3",
        f"finding one perturbation on {len(images)} pictures, "
        f"measuring on {len(held_out)} others",
    )
    if options.update == "lion":
        batches = -(-len(images) // _tools.BATCH)
        uap.compile(uap.decaying_lion(batches * options.epochs))
    data = {"x": images, "batch_size": _tools.BATCH}
    if options.augment:
        views = datasets.augmented(images, _tools.BATCH, seed=options.seed)
        data = {"x": views}
    interrupted = fit_or_interrupt(
        uap, **data, epochs=options.epochs, validation_data=held_out
    )
    _tools.say("2/3", "measuring")
    return finish(
        options,
        uap,
        interrupted,
        images=held_out,
        name=pathlib.Path(options.model).name,
        class_names=class_names,
        step="3/3",
    )


def fit_or_interrupt(uap, x, **arguments):
    """Fits; returns whether Ctrl-C ended it, with the best v so far kept."""
    try:
        uap.fit(x, **arguments, verbose=0, callbacks=[_tools.Progress()])
    except KeyboardInterrupt:
        return True
    return False


def finish(
    options,
    uap,
    interrupted,
    images,
    name,
    step,
    groups=None,
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
        raise _tools.Interrupted(
            "interrupted: keeping the best perturbation so far, in "
            f"{folder / 'uap.keras'} and {folder / 'uap.npz'}"
        )
    report = analysis.fooling_report(
        uap.classifier,
        uap.perturbation,
        images,
        groups=groups,
        norm=uap.norm,
        value_range=uap.value_range,
        seed=options.seed,
        verbose=0,
        epsilon=uap.epsilon,
        target=uap.target,
    )
    card["held_out"] = {
        "fooling_rate": report.fooling_rate,
        "interval_95": report.fooling_interval,
        "random_noise_rate": report.random_rate,
        "num_images": report.num_images,
        "num_photographs": report.num_groups,
    }
    if report.target_rate is not None:
        card["held_out"] |= {
            "target_rate": report.target_rate,
            "target_interval_95": report.target_interval,
            "target_random_noise_rate": report.target_random_rate,
        }
    save_perturbation(folder / "uap.npz", uap.perturbation, card)
    _tools.say(step, f"writing to {folder.resolve()}")
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
    files = "files: uap.png (look at it), uap.keras, uap.npz, report.txt"
    return f"{text}\n\n{files}", report.to_dict()
