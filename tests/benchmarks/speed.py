"""How fast keras_uap is, side by side with its peers, in one run.

    pip install -e . -r tests/benchmarks/requirements.txt
    python tests/benchmarks/speed.py --photos FOLDER --output DIR

runs all parts in one process (children only for peak memory) on the embedded
EfficientNet-Lite0, l-infinity norm, epsilon 10, pixels 0 to 255, and writes
speed.json and speed.md to DIR, anew after every part. FOLDER holds 224x224
crops named `<photograph>_<crop>.jpg`; without it the embedded photographs are
used. The whole run takes over an hour on two cores; `--parts` chooses, and
`--quick` only checks that everything runs: its figures mean nothing.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
import time
import traceback

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import parts
import tensorflow as tf
from measure import peak_memory, say

import keras_uap


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", help="folder of 224x224 crops")
    parser.add_argument("--output", type=pathlib.Path, default=".")
    parser.add_argument(
        "--parts",
        default=",".join(parts.PARTS),
        help="some of %(default)s, with commas",
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--limit",
        type=float,
        nargs=2,
        default=(100.0, 30.0),
        metavar=("ART", "LOOP"),
        help="multiples of our time at which ART and the authors' loop are "
        "ended (default: 100 30)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to check that it runs"
    )
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        parts.memory_of_fit(options.photos, options.memory_of)
        return
    unknown = set(options.parts.split(",")) - set(parts.PARTS)
    if unknown:
        parser.error(f"no such parts: {', '.join(sorted(unknown))}")

    options.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    setup = parts.Setup(
        photos=options.photos,
        repeats=options.repeats,
        limits=dict(zip(("art", "authors"), options.limit)),
        quick=options.quick,
    )
    report = {"about": about(options, setup), "parts": {}}
    for name in options.parts.split(","):
        say(name)
        load, start = os.getloadavg()[0], time.perf_counter()
        try:
            title, text, rows = parts.PARTS[name](setup)
        except Exception as error:  # The other parts are still worth having.
            traceback.print_exc()
            title, text, rows = name, f"Failed: {error!r}", []
        report["parts"][name] = {
            "title": title,
            "text": text,
            "rows": rows,
            "seconds": time.perf_counter() - start,
            "load before and after": [load, os.getloadavg()[0]],
        }
        report["about"]["peak memory of the run, MiB"] = peak_memory()
        write(report, options.output)
    say(f"wrote {options.output / 'speed.json'} and speed.md")


def about(options, setup):
    """The conditions of the run."""
    packages = {
        "keras_uap": keras_uap.__version__,
        "python": platform.python_version(),
    }
    for package in (
        "tensorflow",
        "keras",
        "numpy",
        "adversarial-robustness-toolbox",
        "foolbox",
    ):
        try:
            packages[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            packages[package] = "not installed"
    return {
        # Paths are nobody's business.
        "command": " ".join(
            ["python", "tests/benchmarks/speed.py"]
            + [pathlib.Path(word).name for word in sys.argv[1:]]
        ),
        "quick check, figures mean nothing": options.quick,
        "date": datetime.date.today().isoformat(),
        "versions": packages,
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "accelerators": [
            d.name for d in tf.config.list_physical_devices("GPU")
        ],
        "system": platform.platform(),
        "model": "EfficientNet-Lite0, 224x224, 1,000 logits",
        "data": f"{'--photos' if options.photos else 'embedded photographs'}: "
        f"{len(setup.images)} crops to fit, {len(setup.held_out)} held-out "
        f"crops of {len(set(setup.groups))} other photographs",
        "norm": "linf",
        "epsilon": parts.EPSILON,
        "pixels": "0 to 255",
        "repeats": options.repeats,
    }


def processor():
    """The name of the processor."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def write(report, folder):
    """Writes speed.json and speed.md."""
    (folder / "speed.json").write_text(
        json.dumps(report, indent=2) + "\n", encoding="utf-8"
    )
    lines = ["# Speed", ""]
    for key, value in report["about"].items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        lines.append(f"- {key}: {cell(key, value)}")
    for part in report["parts"].values():
        load = " and ".join(f"{x:.1f}" for x in part["load before and after"])
        lines += [
            "",
            f"## {part['title']}",
            "",
            part["text"],
            "",
            f"(Part of {part['seconds']:.0f} s; load of the machine before "
            f"and after: {load}.)",
            "",
            *table(part["rows"]),
        ]
    (folder / "speed.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def table(rows):
    """Rows as the lines of a Markdown table."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if not columns:
        return []
    return [
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *(
            "| "
            + " | ".join(cell(key, row.get(key, "")) for key in columns)
            + " |"
            for row in rows
        ),
    ]


def cell(column, value):
    if not isinstance(value, float):
        return str(value)
    if "rate" in column:
        return f"{value:.1%}"
    if value >= 1000:
        return f"{value:,.0f}"
    # Ratios near 1 are told apart by their third decimal.
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


if __name__ == "__main__":
    main()
