"""How an audit shares out its work: successive halving.

No attack is the strongest on every classifier, and equal work for all of them
wastes most of it.

1. Short attacks of every kind compete. The selection set ranks them.
2. Rung by rung fewer attacks go on, each from the perturbation that it found,
   with more model passes.
3. The leader goes on alone. Each time its work doubles, until that gains less
   than a point of its fooling rate twice in a row, or all passes are spent.

Reference:
    - [Jamieson and Talwalkar, 2016](https://arxiv.org/abs/1502.07943)
"""

import dataclasses

# More work must gain this much of the fooling rate on the selection set.
_GAIN = 0.01
# How often in a row it may gain less before an audit ends.
_PATIENCE = 2


@dataclasses.dataclass(frozen=True)
class Budget:
    """The work of an audit.

    Attributes:
        rungs: Tuple of pairs of integers: how many attacks go on, and the
            model passes that each of them gets.
        most: Integer, the model passes of all attacks together.
        all_kinds: Boolean, whether the best attack of each kind of start goes
            on before a second one of the same kind. Short attacks rank the
            kinds wrongly where a classifier was hardened: it hides from those
            that start from zero, and not from coarse patterns.
    """

    rungs: tuple
    most: int
    all_kinds: bool = True


BUDGETS = {
    "quick": Budget(((6, 400), (3, 1200), (1, 5000)), 11_000, False),
    "standard": Budget(((6, 800), (4, 1600), (2, 4000), (1, 8000)), 55_000),
}
# A hardened classifier hides from short attacks.
_HARDENED = Budget(((7, 400), (3, 1000), (2, 2000)), 25_000)


def for_hardening(budget):
    """The `Budget` of the audits before and after a hardening."""
    return max(budget, _HARDENED, key=lambda each: each.most)


def race(attacks, budget, go_on):
    """Gives the most work to the attack that fools most.

    Args:
        attacks: List of `Attack`.
        budget: `Budget`.
        go_on: Function of an attack and a number of model passes. It continues
            the attack, and returns the fooling rate on the selection set.
    """
    rates, spent, stalled = {}, dict.fromkeys(attacks, 0), {}

    def attack_with(attack, passes):
        before = rates.get(attack, -1.0)
        rates[attack] = go_on(attack, passes)
        spent[attack] += passes
        gains = rates[attack] - before >= _GAIN
        stalled[attack] = 0 if gains else stalled[attack] + 1

    standing = attacks
    for count, passes in budget.rungs:
        standing = _ranked(standing, rates, budget.all_kinds)[:count]
        for attack in standing:
            attack_with(attack, passes)
    leader = max(standing, key=rates.get)
    while stalled[leader] < _PATIENCE:
        passes = min(spent[leader], budget.most - sum(spent.values()))
        if passes < spent[leader] // 4:
            return  # So little work gains nothing.
        attack_with(leader, passes)


def _ranked(attacks, rates, all_kinds):
    """Attacks by their rates; perhaps the best of each kind comes first."""
    ranked = sorted(attacks, key=lambda attack: -rates.get(attack, 0.0))
    if not all_kinds:
        return ranked
    best = {attack.start: attack for attack in reversed(ranked)}
    # Sorting is stable.
    return sorted(ranked, key=lambda attack: best[attack.start] != attack)
