"""`transfer`: perturbations found on one classifier, measured on others."""

import json
import pathlib

from keras_uap import analysis
from keras_uap.cli import console, inputs
from keras_uap.perturbations.lp_ball import lp_norm

# Columns of the table that fit 80 characters beside a name.
_COLUMNS = 4


def run(options):
    console.say("1/3", "loading the models and the pictures")
    perturbations, norms = {}, set()
    for name, path in zip(_names(options.perturbation), options.perturbation):
        perturbations[name], card = inputs.load_perturbation(path)
        norms.add(card["norm"])
    if len(norms) > 1:
        raise console.UsageError(
            "--perturbation must name files of one norm, or their rates "
            f"cannot be compared. Received: {' and '.join(sorted(norms))}."
        )
    classifiers = {
        name: inputs.attach(inputs.load_model(path), options, number)
        for number, (name, path) in enumerate(
            zip(_names(options.model), options.model)
        )
    }
    shape = next(iter(perturbations.values())).shape
    shapes = {model.input_shape[-1] for model in classifiers.values()}
    if shapes != {shape[-1]}:
        raise console.UsageError(
            f"The perturbations have {shape[-1]} channel(s), the models take "
            f"{' and '.join(map(str, sorted(shapes)))}. Expected: the same."
        )
    pictures = inputs.load_images(options, "images", shape)
    count = len(pictures.images)
    console.say("2/3", f"measuring on {count} pictures")
    # Clean, with each perturbation, and with noise of each of their norms.
    norm = norms.pop()
    sizes = {round(lp_norm(v, norm), 6) for v in perturbations.values()}
    passes = len(classifiers) * (1 + len(perturbations) + len(sizes))
    progress = console.Progress("pictures shown", passes * count)
    matrix = analysis.transfer_matrix(
        classifiers,
        perturbations,
        pictures.images,
        pictures.groups,
        norm=norm,
        value_range=inputs.PIXELS,
        seed=options.seed,
        batch_size=options.batch_size,
        verbose=progress,
    )
    progress.clear()
    console.say("3/3", f"writing to {options.output.resolve()}")
    console.write_figure(options.output / "transfer.png", matrix.plot())
    text = json.dumps(matrix.to_dict(), indent=2)
    console.write_text(options.output / "transfer.json", text)
    return _table(matrix), matrix.to_dict()


def _names(paths):
    """Short names of files that tell them apart."""
    for parts in (1, 2):
        names = ["/".join(pathlib.Path(p).parts[-parts:]) for p in paths]
        if len(set(names)) == len(names):
            return names
    if len(set(paths)) < len(paths):
        raise console.UsageError(
            f"A file is named twice. Received: {' '.join(paths)}."
        )
    return list(paths)


def _table(matrix):
    """The matrix as a text, classifiers numbered, four beside each other."""
    lines = [
        f"fooled, of {matrix.num_images} pictures (in brackets: by random "
        "noise of the same norm)",
        "",
    ]
    numbers = range(len(matrix.classifiers))
    for start in numbers[::_COLUMNS]:
        block = numbers[start : start + _COLUMNS]
        lines.append(
            " " * 24 + "".join(f"{f'model {i + 1}':>14}" for i in block)
        )
        for row, name in enumerate(matrix.perturbations):
            cells = [
                f"{matrix.fooling_rates[row, i]:.1%}"
                f"{'*' if matrix.resized[row, i] else ''}"
                f" ({matrix.random_rates[row, i]:.0%})"
                for i in block
            ]
            lines.append(
                f"{console.short(name, 23):<24}"
                + "".join(f"{cell:>14}" for cell in cells)
            )
        lines.append("")
    lines += [
        f"model {i + 1}: {console.short(name, 70)}"
        for i, name in enumerate(matrix.classifiers)
    ]
    if matrix.resized.any():
        lines.append("* pictures or perturbation resized to the model's size")
    lines += ["", "files: transfer.png (look at it), transfer.json"]
    return "\n".join(lines)
