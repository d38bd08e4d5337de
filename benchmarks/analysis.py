"""Measures the paper's tables and figures on a folder of photographs.

    python benchmarks/analysis.py PHOTOS --classifiers FOLDER \\
        --fashion-mnist FOLDER --keep FOLDER

runs `notebooks/paper.ipynb` and `notebooks/questions.ipynb` on the folder,
writes them back with their outputs, and prints the figures as a table. PHOTOS
holds 224x224 crops named `<photograph>_<crop>.jpg`, the folder of classifiers
`.keras` files that take them. What is measured stands in the notebooks, so
that the figures and the pictures come from one run.

Each part's result goes to the folder of `--keep`: a run that was interrupted
goes on where it stopped, a later one only draws, and the second notebook takes
what the first has found. A folder is for one set of photographs and one state
of the code; take an empty one for another.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time

NOTEBOOKS = pathlib.Path(__file__).parents[1] / "notebooks"
# Whose share in the span of the normals is in the table.
GEOMETRY = (
    "these normals",
    "as many random vectors",
    "normals at other photographs",
    "v",
    "mean normal towards the dominant label",
    "by chance",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="?", help="folder of 224x224 crops")
    parser.add_argument("--classifiers", help="folder of .keras files")
    parser.add_argument("--fashion-mnist", help="folder of its four files")
    parser.add_argument(
        "--keep", help="folder for the results, to go on from and to draw of"
    )
    parser.add_argument("--only", choices=["paper", "questions"])
    parser.add_argument("--quick", action="store_true", help="a small part")
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=NOTEBOOKS,
        help="folder for the executed notebooks (default: notebooks/)",
    )
    parser.add_argument("--json", help="file to write all figures to")
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
    figures = {}
    for name in ("paper", "questions"):
        if options.only in (None, name):
            figures[name] = execute(name, options.output)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(figures, file)
    if "paper" in figures:
        print(table_of_paper(figures["paper"]))
    if "questions" in figures:
        print(table_of_questions(figures["questions"]))


def execute(name, output):
    """Runs a notebook, saving it after every cell; returns its figures."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
    path = output / f"{name}.ipynb"
    start = time.monotonic()

    def save(cell, cell_index, **_):
        # What libraries say on stderr is of this machine, not a result.
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

    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "figures.json"
        os.environ["KERAS_UAP_FIGURES"] = str(file)
        NotebookClient(
            notebook,
            timeout=None,
            resources={"metadata": {"path": str(NOTEBOOKS)}},
            on_cell_executed=save,
        ).execute()
        save(None, len(notebook.cells) - 1)
        return json.loads(file.read_text(encoding="utf-8"))


def table_of_paper(figures):
    rows = []
    for name, report in figures.items():
        if name.startswith("table 1, "):
            rows.append((name, beside_noise(report), sample(report)))
    transfer = figures["table 2"]
    for i, row in enumerate(transfer["perturbations"]):
        for j, column in enumerate(transfer["classifiers"]):
            if row != column:
                rows.append(
                    (
                        f"transfer, {row} to {column}",
                        rate(
                            transfer["fooling_rates"][i][j],
                            transfer["intervals"][i][j],
                        )
                        + f"; noise {transfer['random_rates'][i][j]:.1%}",
                        sample(transfer),
                    )
                )
    for name, result in figures.items():
        if name.startswith("fig 7, "):
            rows.append(
                (
                    f"{name}: first label, first ten, perturbed (clean)",
                    "; ".join(
                        f"{result['captured'][i]:.1%} "
                        f"({result['clean_captured'][i]:.1%})"
                        for i in (0, -1)
                    ),
                    f"{result['num_images']} crops",
                )
            )
        elif name.startswith("fig 9, "):
            dim = result["dims"][-1]
            for key, shares in result.items():
                if key.split(",")[0] in GEOMETRY:
                    rows.append(
                        (
                            f"{name}: {key}, share in {dim} dimensions",
                            f"{shares[-1]:.2%}",
                            f"{len(result['singular_values'])} normals",
                        )
                    )
        elif name.startswith("section 4, "):
            low, high = result["difference_intervals"][-1]
            rows.append(
                (
                    f"{name}: random vectors in {result['dims'][-1]} "
                    "dimensions, and their difference to the whole space",
                    rate(result["fooling_rates"][-1], result["intervals"][-1])
                    + f"; whole space {result['random_rate']:.1%}; difference "
                    f"{low:+.1%} to {high:+.1%}",
                    sample(result),
                )
            )
        elif name.startswith("subspace perturbation, "):
            rows.append((name, beside_noise(result), sample(result)))
        elif name.startswith("fig 5, "):
            products = result["inner_products"]
            largest = max(
                products[i][j] for i in range(len(products)) for j in range(i)
            )
            rows.append(
                (
                    f"{name}: largest inner product of {len(products)}",
                    f"{largest:.2f}",
                    "",
                )
            )
        elif name.startswith("fig 6, "):
            for size, rates, interval in zip(
                result["values"], result["fooling_rates"], result["intervals"]
            ):
                rows.append(
                    (
                        f"{name}: number of crops {size}, seeds {len(rates)}",
                        rate(sum(rates) / len(rates), interval),
                        sample(result),
                    )
                )
    return markdown(rows)


def table_of_questions(figures):
    rows = []
    for key in ("candidates", "pixels", "kinds", "which"):
        for name, value, interval, noise in figures[key]:
            rows.append(
                (
                    f"{key}: {' '.join(name.split())}",
                    f"{rate(value, interval)}; noise {noise:.1%}",
                    "",
                )
            )
    for name, result in figures.items():
        if name.startswith("targets, "):
            for i, target in enumerate(result["targets"]):
                rows.append(
                    (
                        f"sent to class {target} ({name[9:]})",
                        rate(result["target_rates"][i], result["intervals"][i]),
                        sample(result),
                    )
                )
        elif name.startswith("epsilon, "):
            rows.append(
                (
                    f"{name} that fools half",
                    f"{number(result['half_epsilon'])} ("
                    f"{number(result['half_interval'][0])} to "
                    f"{number(result['half_interval'][1])}); noise "
                    f"{number(result['random_half_epsilon'])}",
                    sample(result),
                )
            )
    return markdown(rows)


def beside_noise(report):
    interval = rate(report["fooling_rate"], report["fooling_interval"])
    return f"{interval}; noise {report['random_rate']:.1%}"


def number(value):
    return "outside" if value is None else f"{value:.2f}"


def rate(value, interval):
    return f"{value:.1%} ({interval[0]:.1%} to {interval[1]:.1%})"


def sample(result):
    return f"{result['num_images']} crops of {result['num_groups']} photographs"


def markdown(rows):
    lines = ["| measured | figure (95 % interval) | on |", "|---|---|---|"]
    return "\n".join(lines + [f"| {a} | {b} | {c} |" for a, b, c in rows])


if __name__ == "__main__":
    main()
