"""Tests of the limits that end a build."""

import dataclasses
import json
from xml.etree import ElementTree

import pytest
import results

import keras_uap
from keras_uap.evaluation import gate


def audit(rate, low, high, **card):
    made = results.audit(rate, 1)
    card = {"norm": "linf", "epsilon": 10.0, "value_range": (0.0, 1.0)} | card
    bounds = (low, high)
    return dataclasses.replace(made, fooling_interval=bounds, card=card)


def test_a_limit():
    found = audit(0.6, 0.5, 0.7)
    found.check(fail_above=0.6)
    with pytest.raises(
        keras_uap.AuditFailed,
        match=r"60.0% \(50.0% to 70.0%\) of the .* at most 59.0%",
    ):
        found.check(fail_above=0.59)


# The difference of .6 and .5 with bounds .1 away: .1 - sqrt(.02) is below 0.
@pytest.mark.parametrize(
    ("before", "half", "tolerance", "fails"),
    [
        (0.5, 0.1, 0.05, False),
        (0.5, 0.05, 0.05, True),
        (0.5, 0.05, 0.11, False),
        (0.6, 0.05, 0.0, False),
        (0.9, 0.05, 0.0, False),
        (0.4, 0.1, 0.05, True),
    ],
)
def test_a_baseline(before, half, tolerance, fails, tmp_path):
    found = audit(0.6, 0.6 - half, 0.6 + half)
    baseline = audit(before, before - half, before + half)
    path = tmp_path / "audit.json"
    path.write_text(baseline.to_json())
    earlier = baseline.to_dict()
    del earlier["survival"]  # A field that earlier versions did not write.
    for given in (baseline, earlier, path, str(path)):
        (rule,) = gate.rules(found, baseline=given, tolerance=tolerance)
        assert rule.failed == fails
        limit = f"the limit is a rise of {100 * tolerance:g} points, with "
        assert limit in rule.text


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"fail_above": 1.1}, "fail_above"),
        ({"tolerance": -0.1}, "tolerance"),
        ({"baseline": {"fooling_rate": 0.1}}, "must be an audit"),
        ({"baseline": audit(0.5, 0.4, 0.6, epsilon=8.0)}, "another epsilon"),
        ({"baseline": audit(0.5, 0.4, 0.6, norm="l2")}, "another norm"),
        (
            {"baseline": audit(0.5, 0.4, 0.6, value_range=(0.0, 255.0))},
            r"value_range: \[0.0, 255.0\]. Expected: \(0.0, 1.0\)",
        ),
        (
            {"baseline": audit(0.5, 0.4, 0.6, value_range=None)},
            "another value_range: None",
        ),
    ],
)
def test_limits_that_cannot_be_compared(limits, says):
    with pytest.raises(ValueError, match=says):
        audit(0.6, 0.5, 0.7).check(**limits)


def test_ranges_that_a_baseline_does_not_hold_are_not_compared():
    found = audit(0.6, 0.5, 0.7)
    old = found.to_dict()
    del old["card"]["value_range"]
    found.check(baseline=old)
    # A command's baseline, for Python, which does not know this one.
    found.check(baseline=audit(0.5, 0.4, 0.6, classifier_range="tf"))
    command = found.card | {"classifier_range": (0.0, 1.0)}
    gate.check_limits(None, found, 0.05, command)
    other = audit(0.5, 0.4, 0.6, classifier_range=[0.0, 255.0])
    with pytest.raises(ValueError, match="another classifier_range"):
        gate.check_limits(None, other, 0.05, command)


def test_a_baseline_that_is_no_json(tmp_path):
    path = tmp_path / "audit.json"
    path.write_text("<html>")
    with pytest.raises(ValueError, match="no JSON"):
        audit(0.6, 0.5, 0.7).check(baseline=path)


def test_junit(tmp_path):
    """A suite of a test case for each limit, as JUnit's schema has it."""
    found = audit(0.6, 0.55, 0.65)
    rules = gate.rules(found, fail_above=0.5, baseline=found)
    gate.write_junit(tmp_path / "junit.xml", rules, 12.5)
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert root.tag == "testsuites"
    (suite,) = root
    assert suite.tag == "testsuite"
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    failed, passed = suite
    assert [case.get("name") for case in suite] == ["fail_above", "baseline"]
    assert [child.tag for child in failed] == ["failure"]
    assert failed[0].get("message") == rules[0].text
    assert list(passed) == []
    assert json.loads(found.to_json())["fooling_rate"] == 0.6
