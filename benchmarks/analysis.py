"""Runs the notebooks on the paper and its questions on a folder of photographs.

    python benchmarks/analysis.py PHOTOS --classifiers FOLDER \\
        --fashion-mnist FOLDER --keep FOLDER

`notebooks/paper.ipynb` and `notebooks/questions.ipynb` are written back with
their outputs, which hold the results. PHOTOS holds 224x224 images named
`<photograph>_<crop>.jpg`, the folder of classifiers `.keras` files that take
them.

Each measurement goes to the folder of `--keep`: a run that was interrupted goes
on where it stopped, a later one only draws, and the second notebook takes what
the first has found. A folder is for one set of photographs and one state of
the code; take an empty one for another.
"""

import argparse
import os
import pathlib
import sys
import time

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = pathlib.Path(__file__).parents[1] / "notebooks"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="?", help="folder of 224x224 images")
    parser.add_argument("--classifiers", help="folder of .keras files")
    parser.add_argument("--fashion-mnist", help="folder of its four files")
    parser.add_argument("--keep", help="folder to store the measurements in")
    parser.add_argument("--only", choices=["paper", "questions"])
    parser.add_argument("--quick", action="store_true", help="a small part")
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=NOTEBOOKS,
        help="folder for the executed notebooks (default: notebooks/)",
    )
    options = parser.parse_args()
    if options.keep is not None:
        pathlib.Path(options.keep).mkdir(parents=True, exist_ok=True)
    for name, value in (
        ("KERAS_UAP_KEEP", options.keep),
        ("KERAS_UAP_PHOTOS", options.photos),
        ("KERAS_UAP_CLASSIFIERS", options.classifiers),
        ("KERAS_UAP_FASHION_MNIST", options.fashion_mnist),
    ):
        if value is not None:
            path = pathlib.Path(value).resolve()
            if not path.exists():
                parser.error(f"{value} does not exist")
            os.environ[name] = str(path)
    if options.quick:
        os.environ["KERAS_UAP_QUICK"] = "1"
    for name in ("paper", "questions"):
        if options.only in (None, name):
            execute(name, options.output)


def execute(name, output):
    """Runs a notebook, saving it after every cell."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
    path = output / f"{name}.ipynb"
    start = time.monotonic()

    def save(cell, cell_index, **_):
        # What libraries print on stderr is of this machine, not a result.
        for each in notebook.cells:
            each.metadata.pop("execution", None)
            if each.cell_type == "code":
                each.outputs = [
                    o for o in each.outputs if o.get("name") != "stderr"
                ]
        nbformat.write(notebook, path)
        seconds = time.monotonic() - start
        print(
            f"{name}: cell {cell_index + 1} of {len(notebook.cells)}, "
            f"{seconds:.0f} s",
            file=sys.stderr,
        )

    NotebookClient(
        notebook,
        timeout=None,
        resources={"metadata": {"path": str(NOTEBOOKS)}},
        on_cell_executed=save,
    ).execute()
    save(None, len(notebook.cells) - 1)


if __name__ == "__main__":
    main()
