"""Tests of successive halving, with attacks of known strength."""

import itertools
import math

import pytest

from keras_uap.evaluation import race
from keras_uap.evaluation.attack_suite import Attack
from keras_uap.evaluation.race import Budget


def run(budget, ceilings, speed=1000):
    """Races attacks that near a ceiling with their passes.

    Returns:
        A list of pairs of an attack and the passes that it got.
    """
    calls, spent = [], dict.fromkeys(ceilings, 0)

    def go_on(attack, passes):
        name = attack.name
        calls.append((name, passes))
        spent[name] += passes
        return ceilings[name] * (1 - math.exp(-spent[name] / speed))

    race.race([Attack(name) for name in ceilings], budget, go_on)
    return calls


CEILINGS = {"weak": 0.3, "strong": 0.9, "middle": 0.6}


def test_the_better_ones_go_on():
    calls = run(Budget(((3, 100), (2, 200), (1, 400)), 0), CEILINGS)
    assert {name for name, _ in calls[:3]} == set(CEILINGS)
    second = [("strong", 200), ("middle", 200)]
    assert calls[3:] == [*second, ("strong", 400)]


def test_fewer_attacks_than_a_rung_has_places():
    assert len(run(Budget(((8, 100), (5, 100)), 0), CEILINGS)) == 6


def test_the_leader_doubles_until_all_is_spent():
    # An attack that never ceases to gain.
    calls = run(Budget(((3, 100), (1, 100)), 2000), CEILINGS, speed=10_000)
    assert [passes for _, passes in calls[4:]] == [200, 400, 800]
    assert {attack for attack, _ in calls[4:]} == {"strong"}
    # The 200 that are left are too few to gain anything.
    assert sum(passes for _, passes in calls) == 1800


def test_it_ends_where_doubling_gained_little_twice():
    calls = run(Budget(((3, 100), (1, 100)), 10**9), CEILINGS, speed=100)
    gains, spent = [], 100
    for _, passes in calls[3:]:
        before, spent = spent, spent + passes
        gains.append(0.9 * (math.exp(-before / 100) - math.exp(-spent / 100)))
    assert all(gain < 0.01 for gain in gains[-2:])
    assert all(max(pair) >= 0.01 for pair in itertools.pairwise(gains[:-1]))


BUDGETS = [*race.BUDGETS.values(), race.for_hardening(race.BUDGETS["quick"])]


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_budget_leaves_most_work_to_the_leader(budget):
    count = budget.rungs[0][0]
    ceilings = {f"attack {i}": (i + 1) / count for i in range(count)}
    calls = run(budget, ceilings, speed=20_000)
    assert 0.9 * budget.most < sum(passes for _, passes in calls) <= budget.most
    best = f"attack {count - 1}"
    passes = sum(passes for name, passes in calls if name == best)
    assert passes > 0.5 * budget.most


def test_a_hardening_gets_more_work():
    quick, standard = race.BUDGETS.values()
    assert race.for_hardening(standard) == standard
    assert race.for_hardening(quick).most > quick.most


def test_the_best_of_each_kind_goes_on_before_a_second_of_one():
    attacks = [Attack("a"), Attack("b"), Attack("c", start="coarse")]
    rates, calls = {"a": 0.8, "b": 0.9, "c": 0.1}, []

    def go_on(attack, passes):
        calls.append(attack.name)
        return rates[attack.name]

    race.race(attacks, Budget(((3, 1), (2, 1), (1, 1)), 0), go_on)
    assert set(calls[:3]) == {"a", "b", "c"}
    assert calls[3:] == ["b", "c", "b"]
