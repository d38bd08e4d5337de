"""Intervals of photographs with unequal numbers of crops hold the truth."""

import pytest
from evaluation.test_intervals import LIKENESSES, SHARES, SIZES, coverage


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("name", SIZES)
def test_coverage(name, paired, quick, count):
    draws = 150 if quick else 1000
    found = {
        (share, likeness): coverage(
            SIZES[name], share, likeness, draws, paired=paired
        )[0]
        for share in ((0.3, 0.85) if quick else SHARES)
        for likeness in ((0.1, 0.6) if quick else LIKENESSES)
    }
    count("intervals of unequal groups", draws * len(found))
    (share, likeness), covered = min(found.items(), key=lambda item: item[1])
    # Three standard errors of the simulation below 93 %.
    least = 0.93 - 3 * (0.93 * 0.07 / draws) ** 0.5
    assert covered >= least, f"{covered:.1%} at {share}, {likeness}"
