"""95% intervals hold the truth on the whole grid of benchmarks/intervals.py."""

import pytest
from interval_grid import COUNTS, KINDS, cells, least_coverage
from interval_grid import tolerance as three_errors


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("kind", KINDS)
def test_coverage(kind, n, quick, count, seed):
    draws = 500 if quick else 2000
    some = list(cells([kind], [n]))[:: 5 if quick else 1]
    covered, cell = least_coverage(some, draws, seed)
    count("intervals drawn", draws * len(some))
    count("least coverage, nominally 95%", 100 * covered, how=min)
    assert covered >= 0.92 - three_errors(draws), f"{covered:.1%} at {cell}"
