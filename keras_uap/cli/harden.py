"""`harden`: makes a classifier robust, with an audit before and after."""

import pathlib

from keras_uap.cli import console, loading
from keras_uap.defenses import harden
from keras_uap.utils.saving import atomic_path


def run(options):
    model = loading.load_model(options.model)
    if isinstance(model, pathlib.Path):
        raise console.UsageError(f"{model} cannot be trained: no .keras file.")
    classifier = loading.attach(model, options)
    ball = loading.make_ball(options)
    console.say("1/3", "loading the images")
    class_names = loading.load_class_names(options, classifier)
    parts = loading.load_parts(options, classifier)
    # The same command resumes a run that was cut off.
    backup = options.output / "harden_backup"
    console.say("2/3", "measuring, training, measuring again")
    with console.kept(f"the same command goes on from {backup}"):
        result = harden.harden_pictures(
            classifier,
            parts,
            ball,
            loading.PIXELS,
            robustness=options.robustness,
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            budget=options.budget,
            seed=options.seed,
            verbose=1,
            backup_dir=backup,
            keep=options.keep,
        )
    folder = options.output
    console.say("3/3", f"writing to {folder.resolve()}")
    with atomic_path(folder / "hardened.keras") as path:
        model.save(path)
    console.write(folder / "harden.json", result.to_json())
    console.write(folder / "harden.png", result.plot(class_names))
    result.save_html(folder / "harden.html", class_names)
    harden.delete_backup(backup)
    files = (
        "files: hardened.keras, harden.html (open in a browser), .png, .json"
    )
    return f"{result.table()}\n\n{files}", result.to_dict()
