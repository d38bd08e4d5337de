"""Measures the paper's tables and figures on a folder of photographs.

    python benchmarks/analysis.py PHOTOS --second classifier.keras

runs `notebooks/paper.ipynb` and `notebooks/questions.ipynb` on the folder,
writes them back with their outputs, and prints the figures as a table. PHOTOS
holds 224x224 crops named `<photograph>_<crop>.jpg`. What is measured stands in
the notebooks, so that the figures and the pictures come from one run. An hour
on two cores.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time

NOTEBOOKS = pathlib.Path(__file__).parents[1] / "notebooks"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="?", help="folder of 224x224 crops")
    parser.add_argument("--second", help="a second classifier, .keras")
    parser.add_argument("--fashion-mnist", help="folder of its four files")
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

    for name, value in (
        ("KERAS_UAP_PHOTOS", options.photos),
        ("KERAS_UAP_SECOND", options.second),
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
            rows.append(
                (
                    name[9:],
                    rate(report["fooling_rate"], report["fooling_interval"])
                    + f"; noise {report['random_rate']:.1%}",
                    sample(report),
                )
            )
    transfer = figures["table 2"]
    for i, row in enumerate(transfer["perturbations"]):
        for j, column in enumerate(transfer["classifiers"]):
            if row != column:
                rows.append(
                    (
                        f"transfer {row} to {column}",
                        rate(
                            transfer["fooling_rates"][i][j],
                            transfer["intervals"][i][j],
                        )
                        + f"; noise {transfer['random_rates'][i][j]:.1%}",
                        sample(transfer),
                    )
                )
    flow = figures["fig 7"]
    rows.append(
        (
            "images in the top 10 labels, perturbed (clean)",
            f"{flow['captured'][:10][-1]:.1%} "
            f"({flow['clean_captured'][:10][-1]:.1%})",
            f"{flow['num_images']} crops",
        )
    )
    spectrum = figures["fig 9"]
    shares = []
    for key in ("singular_values", "random_singular_values"):
        squares = [value**2 for value in spectrum[key]]
        shares.append(sum(squares[:100]) / sum(squares))
    rows.append(
        (
            "normals' squared length in 100 dimensions (random vectors)",
            f"{shares[0]:.1%} ({shares[1]:.1%})",
            f"{spectrum['num_normals']} normals",
        )
    )
    span = figures["section 4"]
    for dim, value, interval in zip(
        span["dims"], span["fooling_rates"], span["intervals"]
    ):
        rows.append(
            (
                f"random vectors in {dim} dimensions, l2 {span['epsilon']:g}",
                rate(value, interval),
                sample(span),
            )
        )
    rows.append(
        (
            f"random vectors of the whole space, l2 {span['epsilon']:g}",
            rate(span["random_rate"], span["random_interval"]),
            sample(span),
        )
    )
    low, high = span["difference_intervals"][-1]
    rows.append(
        (
            f"span of {span['dims'][-1]} minus whole space, paired",
            f"{span['fooling_rates'][-1] - span['random_rate']:+.1%} "
            f"({low:+.1%} to {high:+.1%})",
            sample(span),
        )
    )
    products = figures["fig 5"]["inner_products"]
    largest = max(
        products[i][j] for i in range(len(products)) for j in range(i)
    )
    rows.append(
        (
            f"largest inner product of {len(products)} perturbations",
            f"{largest:.2f}",
            "",
        )
    )
    curve = figures["fig 6"]
    for size, rates in zip(curve["values"], curve["fooling_rates"]):
        rows.append(
            (
                f"fitted on {size} crops, {len(rates)} seeds",
                f"{sum(rates) / len(rates):.1%} "
                f"({min(rates):.1%} to {max(rates):.1%} over seeds)",
                sample(curve),
            )
        )
    return markdown(rows)


def table_of_questions(figures):
    rows = []
    for key, text in (
        ("target, dominant", "dominant label"),
        ("target, dominant, same work", "dominant, work as the random ones"),
        ("targets, random", "random label"),
    ):
        targets = figures[key]
        for i, target in enumerate(targets["targets"]):
            rows.append(
                (
                    f"sent to class {target} ({text})",
                    rate(targets["target_rates"][i], targets["intervals"][i]),
                    sample(targets),
                )
            )
    return markdown(rows)


def rate(value, interval):
    return f"{value:.1%} ({interval[0]:.1%} to {interval[1]:.1%})"


def sample(result):
    return f"{result['num_images']} crops of {result['num_groups']} photographs"


def markdown(rows):
    lines = ["| measured | figure (95 % interval) | on |", "|---|---|---|"]
    return "\n".join(lines + [f"| {a} | {b} | {c} |" for a, b, c in rows])


if __name__ == "__main__":
    main()
