"""`transfer`: perturbations found on one classifier, measured on others."""

import pathlib

from keras_uap import analysis
from keras_uap.cli import console, loading
from keras_uap.perturbations.lp_ball import lp_norm
from keras_uap.utils.progress import Progress


def run(options):
    console.say("1/3", "loading the models and the images")
    perturbations, norms = {}, set()
    for name, path in zip(_names(options.perturbation), options.perturbation):
        perturbations[name], card = loading.load_perturbation(path)
        norms.add(card["norm"])
    if len(norms) > 1:
        raise console.UsageError(
            "--perturbation must name files of one norm, or their rates "
            f"cannot be compared. Received: {' and '.join(sorted(norms))}."
        )
    classifiers = {}
    for number, name in enumerate(_names(options.model)):
        model = loading.load_model(options.model[number])
        classifiers[name] = loading.attach(model, options, number)
    shape = next(iter(perturbations.values())).shape
    shapes = {model.input_shape[-1] for model in classifiers.values()}
    if shapes != {shape[-1]}:
        raise console.UsageError(
            f"The perturbations have {shape[-1]} channel(s), the models take "
            f"{' and '.join(map(str, sorted(shapes)))}. Expected: the same."
        )
    images = loading.load_images(options, "images", shape)
    count = len(images.images)
    console.say("2/3", f"measuring on {count} images")
    # Clean, with each perturbation, and with noise of each of their norms.
    norm = norms.pop()
    sizes = {round(lp_norm(v, norm), 6) for v in perturbations.values()}
    passes = len(classifiers) * (1 + len(perturbations) + len(sizes))
    matrix = analysis.transfer_matrix(
        classifiers,
        perturbations,
        images,
        norm=norm,
        seed=options.seed,
        batch_size=options.batch_size,
        verbose=Progress("images classified", passes * count),
    )
    console.say("3/3", f"writing to {options.output.resolve()}")
    console.write(options.output / "transfer.png", matrix.plot())
    console.write(options.output / "transfer.json", matrix.to_json())
    files = "files: transfer.png (look at it), transfer.json"
    return f"{matrix.table()}\n\n{files}", matrix.to_dict()


def _names(paths):
    """Short names of files that tell them apart."""
    for parts in (1, 2):
        names = ["/".join(pathlib.Path(p).parts[-parts:]) for p in paths]
        if len(set(names)) == len(names):
            return names
    if len(set(paths)) < len(paths):
        raise console.UsageError(f"A file is named twice: {' '.join(paths)}.")
    return list(paths)
