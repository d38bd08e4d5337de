"""The robustness suite: tries hard to break keras_uap, and counts.

    python tests/robustness/run.py            # all of it, about 10 minutes
    python tests/robustness/run.py --quick    # a sample, under 3 minutes
    python tests/robustness/run.py --only files,kill
    python tests/robustness/run.py --only soak --epochs 200

Each part runs in a process of its own. The exit status is 0 only if nothing
failed. `--seed` gives other random draws.
"""

import argparse
import concurrent.futures
import importlib
import json
import subprocess
import sys
import time

from common import Report

PARTS = {
    "files": "hostile files for every loader",
    "arguments": "bad arguments of every public function",
    "kill": "SIGKILL and resume; a full disk",
    "invariants": "norm, mask, clipping, counts in all modes",
    "data": "hostile images and classifiers",
    "exactness": "rates, reasons to stop, coverage of intervals",
    "determinism": "same seed, same bytes",
    "soak": "memory, traces and open files of a long fit",
}
_MARK = "robustness: "


def run_part(name, quick, seed, epochs):
    """Runs one part in this process and prints its report for the parent."""
    report = Report()
    module = importlib.import_module(f"part_{name}")
    options = {"epochs": epochs} if name == "soak" else {}
    module.run(report, quick=quick, seed=seed, **options)
    print(_MARK + json.dumps([report.counts, report.failures]), flush=True)


def start_part(name, options):
    """Runs one part in a child; returns its counts, failures and time."""
    command = [sys.executable, __file__, "--part", name]
    command += ["--seed", str(options.seed), "--epochs", str(options.epochs)]
    command += ["--quick"] if options.quick else []
    start = time.monotonic()
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    seconds = time.monotonic() - start
    lines = [line for line in child.stdout.splitlines() if _MARK in line]
    if child.returncode != 0 or not lines:
        print(child.stdout[-3000:])
        return {}, [f"{name} crashed with {child.returncode}"], seconds
    counts, failures = json.loads(lines[-1].split(_MARK, 1)[1])
    return counts, failures, seconds


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default=",".join(p for p in PARTS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        run_part(options.part, options.quick, options.seed, options.epochs)
        return 0
    names = options.only.split(",")
    if unknown := set(names) - set(PARTS):
        parser.error(f"unknown parts {sorted(unknown)}; there are {[*PARTS]}")

    all_failures = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        tasks = {pool.submit(start_part, n, options): n for n in names}
        for task in concurrent.futures.as_completed(tasks):
            counts, failures, seconds = task.result()
            name = tasks[task]
            print(f"\n{name}: {PARTS[name]} ({seconds:.0f} s)")
            for what, number in counts.items():
                print(f"  {number:>8,.6g}  {what}")
            print(f"  {len(failures):>8}  failures", flush=True)
            all_failures += [f"{name}: {text}" for text in failures]
    print(f"\n{len(all_failures)} failures in all")
    for text in all_failures:
        print(f"  {text}")
    return 1 if all_failures else 0


if __name__ == "__main__":
    sys.exit(main())
