"""Rules that end a build: is a classifier more fragile than it may be?

An audit of the same classifier with another seed gives another rate. A baseline
therefore counts as exceeded only where the difference of the two rates is above
a tolerance, and the interval of that difference lies above zero.

Reference:
    - Newcombe, 1998, "Interval estimation for the difference between
      independent proportions", method 10
"""

import dataclasses
import json
import math
import os
import pathlib
from xml.etree import ElementTree

import numpy as np

from keras_uap.utils.formatting import interval, percent
from keras_uap.utils.saving import atomic_path
from keras_uap.utils.validation import check_number, explained


class AuditFailed(AssertionError):
    """Raised by `Audit.check` where a rule is broken."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule, and whether an audit keeps it.

    Attributes:
        name: String, such as `"fail_above"`.
        text: String, a sentence with the rate, its interval and the limit.
        failed: Boolean.
    """

    name: str
    text: str
    failed: bool


def check_limits(fail_above, baseline, tolerance, threat):
    """Raises ValueError for limits that an audit cannot be held against.

    Args:
        fail_above, baseline, tolerance: As for `Audit.check`.
        threat: Dictionary with the `norm`, `epsilon`, `value_range` and
            `classifier_range` of the audit; what is not known is left out.

    Returns:
        The baseline as a dictionary, or `None`.
    """
    if fail_above is not None:
        check_number("fail_above", fail_above, least=0, most=1)
    check_number("tolerance", tolerance, least=0, most=1)
    if baseline is None:
        return None
    if isinstance(baseline, (str, os.PathLike)):
        text = pathlib.Path(baseline).read_text(encoding="utf-8")
        expected = "The baseline must be an audit.json. Received"
        with explained(f"{expected}: {baseline}, which is no JSON"):
            baseline = json.loads(text)
    elif not isinstance(baseline, dict):
        baseline = baseline.to_dict()
    keys = {"fooling_rate", "fooling_interval", "card"}
    if not isinstance(baseline, dict) or not keys <= baseline.keys():
        raise ValueError(
            "The baseline must be an audit: an Audit, its to_dict() or the "
            f"path of an audit.json. Received: {type(baseline).__name__} "
            f"without {sorted(keys)}."
        )
    # Only a command knows what its classifier takes.
    for key in ("norm", "epsilon", "value_range", "classifier_range"):
        own = threat.get(key)
        its = baseline["card"].get(key, own)
        if key in threat and not np.array_equal(its, own):
            raise ValueError(
                f"The baseline has another {key}: {its!r}. Expected: {own!r}."
            )
    return baseline


def rules(audit, fail_above=None, baseline=None, tolerance=0.05):
    """Returns a list of `Rule`s; see `Audit.check`."""
    baseline = check_limits(fail_above, baseline, tolerance, audit.card)
    rate, bounds = audit.fooling_rate, audit.fooling_interval
    found = f"{percent(rate)} ({interval(bounds)}) of the images are fooled"
    result = []
    if fail_above is not None:
        text = f"{found}; at most {percent(fail_above)} may be."
        result.append(Rule("fail_above", text, rate > fail_above))
    if baseline is None:
        return result
    before, (_, high) = baseline["fooling_rate"], baseline["fooling_interval"]
    difference = rate - before
    least = difference - math.hypot(rate - bounds[0], high - before)
    limit = f"a rise of {100 * tolerance:g} points, with an interval above 0"
    text = (
        f"{found}, {percent(before)} "
        f"({interval(baseline['fooling_interval'])}) in the baseline; the "
        f"limit is {limit}."
    )
    failed = difference > tolerance and least > 0
    return [*result, Rule("baseline", text, failed)]


def check(results):
    """Raises `AuditFailed` for the `Rule`s that failed."""
    if broken := [rule.text for rule in results if rule.failed]:
        raise AuditFailed(" ".join(broken))


def write_junit(path, results, seconds):
    """Writes rules as JUnit XML, a test case each.

    Args:
        path: Path of the file; it appears whole or not at all.
        results: List of `Rule`s.
        seconds: Float, the time of the audit.
    """
    counts = {
        "tests": str(len(results)),
        "failures": str(sum(rule.failed for rule in results)),
        "errors": "0",
        "time": f"{seconds:.3f}",
    }
    suites = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(
        suites, "testsuite", {"name": "keras_uap.audit"} | counts
    )
    for rule in results:
        names = {"classname": "keras_uap.audit", "name": rule.name}
        case = ElementTree.SubElement(suite, "testcase", names | {"time": "0"})
        if rule.failed:
            failure = {"message": rule.text, "type": "AuditFailed"}
            ElementTree.SubElement(case, "failure", failure).text = rule.text
    ElementTree.indent(suites)
    with atomic_path(pathlib.Path(path)) as unfinished:
        ElementTree.ElementTree(suites).write(
            unfinished, encoding="utf-8", xml_declaration=True
        )
