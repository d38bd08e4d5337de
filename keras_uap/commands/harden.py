"""`harden`: makes a classifier robust, and says what that cost.

The classifier is trained to keep its own soft answers, on clean pictures and
under a perturbation that climbs along: see `keras_uap.hardening`. What counts
is the strongest perturbation of an audit, found against the classifier as it
was before and as it is after.
"""

import pathlib

from keras_uap.commands import console
from keras_uap.commands.options import (
    add_ball,
    add_held_out,
    add_images,
    add_model,
    add_output,
    whole,
)

HELP = "Fine-tune a classifier so that perturbations fool it less."
EXAMPLE = """\
python -m keras_uap harden --model classifier.keras --images photos/ \\
      --output hardened"""


def add_arguments(parser):
    add_model(parser)
    add_images(
        parser,
        labels="the classes of the pictures are those of the model (a folder "
        "for each, in sorted order); default: the model's own answers on clean "
        "pictures",
    )
    add_held_out(parser)
    add_ball(parser)
    parser.add_argument(
        "--robustness",
        type=float,
        default=0.5,
        metavar="R",
        help="how much robustness to buy with clean answers, 0 to 1 (default: "
        "0.5)",
    )
    parser.add_argument(
        "--epochs",
        type=whole,
        metavar="N",
        help="passes of the fine-tuning (default: as many as draw 8,000 "
        "pictures)",
    )
    parser.add_argument(
        "--learning-rate",
        type=float,
        default=2e-4,
        metavar="RATE",
        help="of Adam, falling to 0 (default: 0.0002)",
    )
    parser.add_argument(
        "--budget",
        choices=("quick", "standard"),
        default="quick",
        help="of the audits before and after, as for audit (default: quick)",
    )
    add_output(parser)


def run(options):
    # They take seconds to import, and --help needs none of them.
    from keras_uap import hardening
    from keras_uap.commands import inputs
    from keras_uap.saving import atomic_path

    console.make_folder(options.output)
    if not options.learning_rate > 0:
        raise console.UsageError(
            "--learning-rate must be above 0. Received: "
            f"{options.learning_rate}."
        )
    if not 0 <= options.robustness <= 1:
        raise console.UsageError(
            "--robustness must be between 0 and 1. Received: "
            f"{options.robustness}."
        )
    if options.seed < 0:
        raise console.UsageError(
            f"--seed must be at least 0. Received: {options.seed}."
        )
    model = inputs.load_model(options.model)
    if isinstance(model, pathlib.Path):
        raise console.UsageError(
            f"--model {model}: a SavedModel cannot be trained any more. "
            "Expected: a .keras file."
        )
    classifier = inputs.attach(model, options)
    ball = inputs.make_ball(options)
    console.say("1/3", "loading the pictures")
    pictures, parts = _load(options, classifier)
    console.say("2/3", "measuring, training, measuring again")
    result = hardening.harden_pictures(
        classifier,
        pictures,
        ball,
        inputs.PIXELS,
        options.robustness,
        options.epochs,
        options.learning_rate,
        options.budget,
        options.seed,
        parts=parts,
        verbose=1,
    )
    folder = options.output
    console.say("3/3", f"writing to {folder.resolve()}")
    with atomic_path(folder / "hardened.keras") as path:
        model.save(path)
    console.write_text(folder / "harden.json", result.to_json())
    console.write_figure(folder / "harden.png", result.plot())
    files = "files: hardened.keras, harden.png (look at it), harden.json"
    return f"{result.table()}\n\n{files}", result.to_dict()


def _load(options, classifier):
    """The pictures, and which are trained on, choose and are measured on."""
    from keras_uap import auditing
    from keras_uap.commands import inputs

    shape = classifier.input_shape[1:]
    train = inputs.load_images(options, "images", shape)
    inputs.check_labels(options, train.class_names, classifier)
    if options.held_out is None:
        # Refuses too few, in the command's own words.
        inputs.in_parts(options, train)
        return train, auditing.parts_of(train, options.seed)
    held_out = inputs.load_images(options, "held_out", shape)
    inputs.check_labels(options, held_out.class_names, classifier)
    inputs.in_parts(options, train, (0.8, 0.2))
    return auditing.with_held_out(train, held_out, options.seed)
