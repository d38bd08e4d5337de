"""`harden`: makes a classifier robust, and says what that cost.

The classifier is trained to keep its own soft answers, on clean pictures and
under a perturbation that climbs along: see `keras_uap.hardening`. What counts
is the strongest perturbation of an audit, found against the classifier as it
was before and as it is after.
"""

import pathlib

from keras_uap.cli import console, inputs
from keras_uap.defenses import harden
from keras_uap.evaluation import audit
from keras_uap.utils.saving import atomic_path


def run(options):
    model = inputs.load_model(options.model)
    if isinstance(model, pathlib.Path):
        raise console.UsageError(
            f"--model {model}: a SavedModel cannot be trained any more. "
            "Expected: a .keras file."
        )
    classifier = inputs.attach(model, options)
    ball = inputs.make_ball(options)
    console.say("1/3", "loading the pictures")
    class_names = inputs.load_class_names(options, classifier)
    pictures, parts = _load(options, classifier)
    # One that is cut off goes on when the same command is given again.
    backup = options.output / "harden_backup"
    console.say("2/3", "measuring, training, measuring again")
    result = harden.harden_pictures(
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
        backup_dir=backup,
    )
    folder = options.output
    console.say("3/3", f"writing to {folder.resolve()}")
    with atomic_path(folder / "hardened.keras") as path:
        model.save(path)
    console.write_text(folder / "harden.json", result.to_json())
    console.write_figure(folder / "harden.png", result.plot(class_names))
    result.save_html(folder / "harden.html", class_names)
    harden.delete_backup(backup)
    files = (
        "files: hardened.keras, harden.html (open it in a browser),\n"
        "harden.png, harden.json"
    )
    return f"{result.table()}\n\n{files}", result.to_dict()


def _load(options, classifier):
    """The pictures, and which are trained on, choose and are measured on."""
    shape = classifier.input_shape[1:]
    train = inputs.load_images(options, "images", shape)
    inputs.check_labels(options, train.class_names, classifier)
    if options.held_out is None:
        return train, inputs.split(options, train)
    held_out = inputs.load_images(options, "held_out", shape)
    inputs.check_labels(options, held_out.class_names, classifier)
    parts = inputs.split(options, train, (0.8, 0.2))
    return audit.with_held_out(train, held_out, parts)
