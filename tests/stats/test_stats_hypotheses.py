"""Sign flip and Wilcoxon against enumeration, the sampling distribution and values known from R."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sps

from lem.stats import PValue, sign_flip, wilcoxon_signed_rank


def enumerated(units: list[float]) -> float:
    """Twice the smaller tail of the sum over all sign patterns."""
    observed = sum(units)
    sums = [
        sum(s * u for s, u in zip(signs, units, strict=True)) for signs in itertools.product((1, -1), repeat=len(units))
    ]
    upper = sum(total >= observed - 1e-9 for total in sums)
    lower = sum(total <= observed + 1e-9 for total in sums)
    return min(1.0, 2 * min(upper, lower) / len(sums))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9))
def test_few_differences_are_enumerated(differences: list[int]) -> None:
    found = sign_flip([d / 2 for d in differences])
    assert found.p == pytest.approx(enumerated([d / 2 for d in differences]))
    assert found.statistic == pytest.approx(np.mean(differences) / 2)
    assert (found.n, found.exact) == (len(differences), True)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.sampled_from("abcdef")), min_size=2, max_size=30))
def test_clusters_are_flipped_whole(rows: list[tuple[int, str]]) -> None:
    sums = [float(sum(d for d, c in rows if c == name)) for name in dict.fromkeys(c for _, c in rows)]
    found = sign_flip([d for d, _ in rows], [c for _, c in rows])
    assert found.p == pytest.approx(enumerated(sums))
    assert found.n == len(rows)
    assert found.exact


def test_singletons_as_clusters_change_nothing() -> None:
    differences = [0.3, -0.1, 0.4, 0.4, 0.0, 1.2]
    assert sign_flip(differences, list("abcdef")).p == sign_flip(differences).p


def test_many_differences_are_drawn_with_a_seed() -> None:
    differences = np.random.default_rng(3).normal(0.25, 1, 101)
    found = sign_flip(differences)
    assert not found.exact
    assert found == sign_flip(list(differences))
    assert "9999 sign patterns" in found.note
    # The sum under random signs has variance sum(d^2); at n = 101 it is all but normal.
    z = differences.sum() / math.sqrt((differences**2).sum())
    assert found.p == pytest.approx(2 * sps.norm.sf(abs(z)), abs=0.006)
    assert sign_flip(-differences).p == pytest.approx(found.p, abs=0.006)
    assert sign_flip([2.0] * 101).p == pytest.approx(2 / 10_000), "(0 + 1) / (9999 + 1) on each side"


def test_ten_thousand_differences_are_normal() -> None:
    values = np.random.default_rng(8).normal(0.02, 1, 12_000)
    found = sign_flip(values)
    assert found.p == pytest.approx(sps.ttest_1samp(values, 0).pvalue, rel=0.02)
    assert not found.exact
    assert sign_flip([0.0] * 12_000).p == 1.0


def test_wilcoxon_of_hollander_and_wolfe() -> None:
    """Depression scale, 9 patients; R's wilcox.test(x, y, paired = TRUE): V = 40, p = 0.03906."""
    x = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
    y = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
    found = wilcoxon_signed_rank([a - b for a, b in zip(x, y, strict=True)])
    assert found.p == pytest.approx(0.0390625)
    assert found.statistic == 45 - 40
    assert (found.n, found.exact, found.note) == (9, True, "")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=11))
def test_few_ties_are_enumerated_over_their_midranks(differences: list[int]) -> None:
    moved = [d for d in differences if d]
    ranks = sps.rankdata(np.abs(moved)) if moved else []
    found = wilcoxon_signed_rank(differences)
    assert found.p == pytest.approx(enumerated([math.copysign(r, d) for r, d in zip(ranks, moved, strict=True)]))
    assert found.exact
    assert found.n == len(differences)
    assert found.note == (f"{len(differences) - len(moved)} zero differences dropped" if 0 in differences else "")


def test_many_ties_use_the_variance_that_ties_leave() -> None:
    differences = np.random.default_rng(2).integers(-3, 5, 90)
    moved = differences[differences != 0]
    ranks = sps.rankdata(np.abs(moved))
    n, sizes = len(moved), np.unique(np.abs(moved), return_counts=True)[1]
    spread = math.sqrt(n * (n + 1) * (2 * n + 1) / 24 - (sizes**3 - sizes).sum() / 48)
    z = (ranks[moved > 0].sum() - n * (n + 1) / 4) / spread
    found = wilcoxon_signed_rank(differences)
    assert found.p == pytest.approx(2 * sps.norm.sf(abs(z)))
    assert not found.exact


@pytest.mark.parametrize("test", [sign_flip, wilcoxon_signed_rank])
def test_nothing_to_test(test: type[PValue]) -> None:
    assert math.isnan(test([]).p)
    assert test([]).note == "no probes"
    assert test([2.0]).p == 1.0
    assert test([0.0, 0.0]).p == 1.0
    assert test([1.0, 2.0]).p == 0.5
    with pytest.raises(ValueError, match="NaN"):
        test([1.0, math.nan])


def test_clusters_must_match() -> None:
    with pytest.raises(ValueError, match="length"):
        sign_flip([1.0, 2.0], ["a"])
