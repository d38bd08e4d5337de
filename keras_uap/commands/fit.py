"""`fit`: a perturbation of a classifier on pictures."""

import pathlib

import keras

from keras_uap import analysis, datasets, visualization
from keras_uap.commands import console, inputs
from keras_uap.commands.options import (
    add_ball,
    add_class_names,
    add_held_out,
    add_images,
    add_model,
    add_output,
    whole,
)
from keras_uap.interchange import save_perturbation
from keras_uap.saving import atomic_path

HELP = "Find a perturbation of your own classifier on your own pictures."
EXAMPLE = """\
python -m keras_uap fit --model classifier.keras --images photos/ \\
      --value-range -1 1 --epsilon 10 --output result"""

# How often many pictures are shown, and few varied ones in all.
EPOCHS = 5
VIEWS = 2000


def add_arguments(parser):
    add_model(parser)
    add_images(parser)
    add_held_out(parser)
    add_ball(parser)
    parser.add_argument(
        "--update",
        default="lion",
        metavar="NAME",
        help="'deepfool' or a Keras optimizer (default: lion)",
    )
    parser.add_argument(
        "--epochs",
        type=whole,
        metavar="N",
        help="passes over the pictures (default: 5; more where they are few)",
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
        help="vary the pictures, also where there are "
        f"{datasets.FEW} or more (fewer always are)",
    )
    add_class_names(parser)
    add_output(parser)


def run(options):
    console.make_folder(options.output)
    keras.utils.set_random_seed(options.seed)
    classifier = inputs.attach(inputs.load_model(options.model), options)
    class_names = inputs.load_class_names(options, classifier)
    uap = inputs.make_uap(options, classifier, options.target)
    if options.update == "lion":
        inputs.compile_strongest(uap)
    else:
        uap.compile(options.update)
    shape = classifier.input_shape[1:]
    pictures = inputs.load_images(options, "images", shape)
    if options.held_out is None:
        train, select, held_out = inputs.in_parts(options, pictures)
    else:
        train, select = inputs.in_parts(options, pictures, (0.8, 0.2))
        held_out = inputs.load_images(options, "held_out", shape)
    images = train.images
    console.say("1/3", f"finding one perturbation on {len(images)} pictures")
    print(
        f"  {len(select.images)} others choose the best epoch, "
        f"{len(held_out.images)} more are measured on"
    )
    data = {"x": images, "batch_size": inputs.BATCH}
    epochs = options.epochs
    if options.augment or len(images) < datasets.FEW:
        data = {"x": datasets.views(train, inputs.BATCH, seed=options.seed)}
        epochs = epochs or max(EPOCHS, -(-VIEWS // len(images)))
        print(f"  each is varied anew {epochs} times: crops, light, mirror")
    epochs = epochs or EPOCHS
    interrupted = fit_or_interrupt(
        uap, **data, epochs=epochs, validation_data=select.images
    )
    console.say("2/3", "measuring")
    return finish(
        options,
        uap,
        interrupted,
        images=held_out.images,
        groups=held_out.groups,
        name=pathlib.Path(options.model).name,
        class_names=class_names,
        step="3/3",
    )


def fit_or_interrupt(uap, x, **arguments):
    """Fits; returns whether Ctrl-C ended it, with the best v so far kept."""
    try:
        uap.fit(x, **arguments, verbose=0, callbacks=[console.Progress()])
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
        raise console.Interrupted(
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
    console.say(step, f"writing to {folder.resolve()}")
    text = report.table(class_names)
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
