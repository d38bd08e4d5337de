"""What the robustness suite adds to pytest: draws, children and counts.

    pytest tests/robustness -m robustness            # all of it
    pytest tests/robustness -m robustness --quick    # a sample

With `-n 2 --dist loadfile` two files run at a time: the counts of a file come
from one process.

`--seed` gives other random draws. What a test tries it counts with `count`,
and the counts stand in one table at the end. A new part is one more file, or
one more row in a file's table of calls, files, classifiers or modes.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import zlib

import hypothesis
import keras
import numpy as np
import pytest
import tensorflow as tf

HERE = pathlib.Path(__file__).parent
COUNTS = pytest.StashKey[dict]()


def pytest_addoption(parser):
    group = parser.getgroup("robustness")
    group.addoption("--quick", action="store_true", help="only a sample")
    group.addoption("--seed", type=int, default=0, help="of all draws")


def pytest_configure(config):
    config.stash[COUNTS] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("robustness")
            # Here a warning is an answer like any other.
            item.add_marker(pytest.mark.filterwarnings("ignore"))


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # A worker of pytest-xdist.
        counts = json.dumps(session.config.stash[COUNTS], default=float)
        session.config.workeroutput["counts"] = counts


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    counts = json.loads(getattr(node, "workeroutput", {}).get("counts", "{}"))
    node.config.stash[COUNTS].update(counts)


def pytest_terminal_summary(terminalreporter, config):
    for part, counts in config.stash[COUNTS].items():
        terminalreporter.section(f"robustness: {part}", "-")
        for what, number in counts.items():
            terminalreporter.line(f"{number:>10,.6g}  {what}")


@pytest.fixture(scope="session")
def quick(pytestconfig):
    return pytestconfig.getoption("quick", False)


@pytest.fixture(scope="session")
def seed(pytestconfig):
    return pytestconfig.getoption("seed", 0)


@pytest.fixture(scope="session", autouse=True)
def _on_the_processor():
    with contextlib.suppress(RuntimeError):  # A device is in use already.
        tf.config.set_visible_devices([], "GPU")


@pytest.fixture(autouse=True)
def _same_seed(seed):
    keras.utils.set_random_seed(seed)


@pytest.fixture
def rng(request, seed):
    """Random draws that differ from test to test."""
    return np.random.default_rng([seed, zlib.crc32(request.node.name.encode())])


@pytest.fixture(scope="module")
def count(request):
    """Counts what was tried: `count(what, number=1)`, or `how=min`."""
    part = request.path.stem.removeprefix("test_")
    counts = request.config.stash[COUNTS].setdefault(part, {})

    def count(what, number=1, how=lambda old, new: old + new):
        counts[what] = how(counts[what], number) if what in counts else number

    return count


@pytest.fixture
def draws(quick, seed):
    """Decorates a hypothesis check: how many examples it is to draw."""

    def decorator(full, few):
        settings = hypothesis.settings(
            max_examples=few if quick else full,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        return lambda check: settings(hypothesis.seed(seed)(check))

    return decorator


@pytest.fixture(scope="session")
def start_child():
    """Starts `module.function(*arguments)` in a process of its own."""
    path = [HERE, HERE.parent, *os.environ.get("PYTHONPATH", "").split(":")]
    environment = {
        **os.environ,
        "PYTHONPATH": ":".join(str(p) for p in path if str(p)),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "CUDA_VISIBLE_DEVICES": "-1",
    }

    def start(module, function, *arguments):
        # As in the tests' own process; see `tests/conftest.py`.
        code = "import tensorflow as tf; tf.config.optimizer."
        code += "set_experimental_options({'disable_meta_optimizer': True}); "
        code += f"import json, sys, {module}; print(json.dumps("
        code += f"{module}.{function}(*json.loads(sys.argv[1]))))"
        return subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(arguments)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def child(start_child):
    """Runs a function in a process of its own and returns its result."""

    def run(module, function, *arguments):
        process = start_child(module, function, *arguments)
        out, err = process.communicate(timeout=1800)
        assert process.returncode == 0, err[-3000:]
        return json.loads(out.splitlines()[-1])

    return run
