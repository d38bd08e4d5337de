"""How often 95% intervals hold the truth, and how wide they are.

    python benchmarks/intervals.py --output DIR

Draws samples of images on the grid of tests/interval_grid.py: 15 to
1,000 images, rates of 0.5 to 99.5%, paired differences that are rare, of one
sign and common, with and without groups, equal and unequal, and correlations
within groups of 0 to 0.5 (Dirichlet-multinomial and probit-normal). Writes
intervals.json and .md to DIR. `--quick` only checks that it runs.
"""

import argparse
import datetime
import importlib.metadata
import itertools
import os
import pathlib
import platform
import sys
import time

import numpy as np
from common import processor, say, write
from scipy import stats

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))

import interval_grid as grid  # noqa: E402


def coverage(draws):
    """The least coverage of each kind and layout."""
    rng = np.random.default_rng(0)
    rows, total = [], 0
    for kind in grid.KINDS:
        for layout in grid.LAYOUTS:
            some = [cell for cell in grid.cells([kind]) if cell[1] == layout]
            found = [
                (grid.measure(*cell[:5], draws, rng, cell[5])[0], cell)
                for cell in some
            ]
            least, (_, _, n, shares, correlation, model) = min(found)
            total += len(some)
            rows.append(
                {
                    "interval of": kind,
                    "groups": layout,
                    "cells": len(some),
                    "least coverage rate": least,
                    "median coverage rate": float(
                        np.median([covered for covered, _ in found])
                    ),
                    "at": f"n {n}, {shares[0]:g} and {shares[1]:g}, "
                    f"correlation {correlation:g} ({model})",
                }
            )
        worst = min(
            row["least coverage rate"]
            for row in rows
            if row["interval of"] == kind
        )
        say(f"{kind}: least coverage {worst:.1%}")
    text = (
        f"{draws:,} samples in each of {total:,} cells. The standard error of "
        f"a coverage of 95% is {(0.95 * 0.05 / draws) ** 0.5:.2%}; the least "
        "of many cells lies about three of them below its true value."
    )
    return "Coverage of nominal 95% intervals", text, rows


def widths(draws):
    """Median widths beside Wilson's interval for independent images."""
    rng = np.random.default_rng(1)
    rows = []
    for layout, n, rate in itertools.product(
        grid.LAYOUTS, (20, 54, 150, 500), (0.05, 0.3, 0.5)
    ):
        wilson = stats.binomtest(round(rate * n), n).proportion_ci(
            method="wilson"
        )
        row = {
            "groups": layout,
            "images": n,
            "share": f"{rate:g}",
            "Wilson": wilson.high - wilson.low,
        }
        for correlation in (0.0, 0.1, 0.3):
            if correlation == 0 or layout != "no groups":
                cell = ("rate", layout, n, (rate, 0), correlation)
                row[f"correlation {correlation:g}"] = grid.measure(
                    *cell, draws, rng
                )[1]
        rows.append(row)
    return "Widths of rate_interval", "Medians of the samples.", rows


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=pathlib.Path, default=".")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="few samples, to check that it runs",
    )
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    draws = 50 if options.quick else 2000
    report = {
        "about": {
            "command": "python benchmarks/intervals.py",
            "quick check, results mean nothing": options.quick,
            "date": datetime.date.today().isoformat(),
            "versions": {
                "python": platform.python_version(),
                **{
                    package: importlib.metadata.version(package)
                    for package in ("numpy", "scipy")
                },
            },
            "processor": processor(),
        },
        "parts": [],
    }
    for part in (coverage, widths):
        load, start = os.getloadavg()[0], time.perf_counter()
        title, text, rows = part(draws)
        report["parts"].append(
            {
                "title": title,
                "text": text,
                "rows": rows,
                "seconds": time.perf_counter() - start,
                "load before and after": [load, os.getloadavg()[0]],
            }
        )
    print("\n".join(write(report, options.output, "intervals")))


if __name__ == "__main__":
    main()
