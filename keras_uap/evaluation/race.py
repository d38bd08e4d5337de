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
            on before a second one of the same kind.
    """

    rungs: tuple
    most: int
    all_kinds: bool = False


BUDGETS = {
    "quick": Budget(((6, 600), (2, 1500)), 11_000),
    "standard": Budget(((12, 1000), (3, 2000), (2, 4000)), 55_000),
}


# A hardened classifier hides from short attacks, so that these rank the kinds
# of attacks wrongly: there the longer rungs have several kinds.
_HARDENED = Budget(((7, 600), (3, 1500), (2, 3000)), 30_000, all_kinds=True)


def for_hardening(budget):
    """The `Budget` of the audits before and after a hardening."""
    most = max(budget.most, _HARDENED.most)
    return dataclasses.replace(_HARDENED, most=most)


def race(attacks, budget, go_on):
    """Gives the most work to the attack that fools most.

    Args:
        attacks: List of `Attack`.
        budget: `Budget`.
        go_on: Function of an attack and a number of model passes. It continues
            the attack, and returns the fooling rate on the selection set.
    """
    rates, spent = {}, dict.fromkeys(attacks, 0)

    def attack_with(attack, passes):
        rates[attack] = go_on(attack, passes)
        spent[attack] += passes

    standing = list(attacks)
    for count, passes in budget.rungs:
        standing.sort(key=lambda attack: -rates.get(attack, 0))
        if budget.all_kinds:
            best = {attack.start: attack for attack in reversed(standing)}
            # Sorting is stable: the best of each kind, then the others.
            standing.sort(key=lambda attack: best[attack.start] != attack)
        standing = standing[:count]
        for attack in standing:
            attack_with(attack, passes)
    leader = max(standing, key=rates.get)
    least, stalled = budget.rungs[-1][1], 0
    while stalled < _PATIENCE:
        passes = min(spent[leader], budget.most - sum(spent.values()))
        if passes < least:
            return  # So little work would show nothing.
        before = rates[leader]
        attack_with(leader, passes)
        stalled = 0 if rates[leader] - before >= _GAIN else stalled + 1
