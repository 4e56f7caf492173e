"""Agreement against Krippendorff's published example, scikit-learn and longhand sums."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata, t
from sklearn.metrics import cohen_kappa_score

from lem.stats import FEWEST_UNITS, krippendorff_alpha, weighted_kappa

N = math.nan
PUBLISHED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
    [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
]


@pytest.mark.parametrize(("measurement", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorffs_own_example(measurement: str, alpha: float) -> None:
    """Computing Krippendorff's Alpha-Reliability (2011), four observers and twelve units, one of them rated once."""
    found = krippendorff_alpha(PUBLISHED, measurement)
    assert found.value == pytest.approx(alpha, abs=0.0006)
    assert found.n == 11
    assert found.low < alpha < found.high <= 1


def test_alpha_of_two_complete_raters_is_one_less_a_ratio_of_distances() -> None:
    """Interval level: 1 - mean squared disagreement inside units over that of all pairs of ratings."""
    rng = np.random.default_rng(2)
    first = rng.integers(1, 11, 30).astype(float)
    second = np.clip(first + rng.integers(-2, 3, 30), 1, 10)
    both = np.concatenate([first, second])
    inside = ((first - second) ** 2).mean()
    anywhere = ((both[:, None] - both[None, :]) ** 2).sum() / (60 * 59)
    assert krippendorff_alpha([first, second], "interval").value == pytest.approx(1 - inside / anywhere)


def alpha_of_two(first: Any, second: Any) -> float:
    """Ordinal: the interval formula over the mid-ranks of all ratings."""
    both = rankdata(np.concatenate([first, second]))
    n, size = len(first), len(both)
    apart = ((both[:n] - both[n:]) ** 2).sum()
    return float(1 - (size - 1) / size * apart / ((both - both.mean()) ** 2).sum())


def test_the_interval_in_longhand() -> None:
    """Student's t on log(1 - alpha), from alpha without each unit in turn; half a unit of chance is added."""
    rng = np.random.default_rng(12)
    first = rng.integers(1, 11, 40)
    second = np.clip(first + rng.integers(-3, 4, 40), 1, 10)
    found = krippendorff_alpha([first, second])
    whole = alpha_of_two(first, second)
    rest = np.array([alpha_of_two(np.delete(first, i), np.delete(second, i)) for i in range(40)])
    logs = np.log((39 * (1 - rest) + 0.5) / 39.5)
    centre, half = math.log((40 * (1 - whole) + 0.5) / 40.5), t.ppf(0.975, 39) * math.sqrt(39 * np.var(logs))
    assert found.value == pytest.approx(whole)
    assert (found.low, found.high) == pytest.approx((1 - math.exp(centre + half), 1 - math.exp(centre - half)))
    assert found.stderr == pytest.approx(math.sqrt(39 * np.var(rest)))


@pytest.mark.parametrize("n", [5, 20, 100])
def test_perfect_agreement_leaves_room_for_what_was_not_seen(n: int) -> None:
    """With two values, half each, alpha loses twice the share of units that differ."""
    first = np.resize([3.0, 8.0], 2 * n)
    for found in (krippendorff_alpha([first, first]), weighted_kappa(first, first)):
        unseen = 1 - 0.025 ** (1 / (2 * n))
        assert (found.value, found.high) == (1, 1)
        assert found.low == pytest.approx(1 - unseen / (2 * n / (4 * n - 1)))


def test_five_equal_labels_prove_nothing_and_a_rare_value_little() -> None:
    few = krippendorff_alpha([[9, 9, 9, 9, 2], [9, 9, 9, 9, 2]])
    assert few.value == 1
    assert few.low < 0
    rare = [9.0] * 39 + [2.0]
    assert krippendorff_alpha([rare, rare]).low < 0, "all of the agreement is in one unit"


def test_copies_of_a_unit_are_one_where_they_are_said_to_be() -> None:
    rng = np.random.default_rng(3)
    first = rng.integers(1, 11, 30)
    second = np.clip(first + rng.integers(-2, 3, 30), 1, 10)
    once = krippendorff_alpha([first, second])
    copied = [np.repeat(first, 4), np.repeat(second, 4)]
    together = krippendorff_alpha(copied, clusters=[str(i // 4) for i in range(120)])
    assert together.width == pytest.approx(once.width, rel=0.1)
    assert (together.n, together.n_clusters, once.n_clusters) == (120, 30, None)
    assert krippendorff_alpha(copied).width < 0.6 * once.width
    kappas = [weighted_kappa(*copied, clusters=within) for within in (None, [i // 4 for i in range(120)])]
    assert kappas[0].width < 0.6 * kappas[1].width
    table = np.vstack([first, second]).astype(float)
    table[1, 4] = N
    assert krippendorff_alpha(table, clusters=range(30)) == replace(
        krippendorff_alpha(np.delete(table, 4, axis=1)), n_clusters=29
    )


def test_many_units_are_left_out_by_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    truth = rng.normal(5, 2, 500)
    table = np.clip(np.round(truth + rng.normal(0, 1, (2, 500))), 1, 10)
    every = krippendorff_alpha(table)
    monkeypatch.setattr("lem.stats.agreement.MOST_GROUPS", 100)
    groups = krippendorff_alpha(table)
    assert groups.width == pytest.approx(every.width, rel=0.2)
    assert groups.width != every.width


@pytest.mark.parametrize(("agreeing", "pool"), [(0.667, (9, 9, 9, 9, 8, 3)), (0.8, tuple(range(1, 11)))])
def test_the_lower_end_errs_as_often_as_it_says_from_the_fewest_units_on(
    agreeing: float, pool: tuple[int, ...]
) -> None:
    """Raters who agree in this share of cases, and else draw from the pool, have this alpha; most is lost by chance."""
    rng = np.random.default_rng(6)
    draws, above = 200, 0
    for _ in range(draws):
        first, other = rng.choice(pool, (2, FEWEST_UNITS))
        second = np.where(rng.random(FEWEST_UNITS) < agreeing, first, other)
        above += krippendorff_alpha([first, second]).low > agreeing
    assert above <= 0.07 * draws + 2 * math.sqrt(0.07 * 0.93 * draws)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=2, max_size=25),
    st.sampled_from(["quadratic", "linear", "none"]),
)
def test_kappa_is_scikit_learns_over_the_whole_scale(rows: list[tuple[int, int]], weights: str) -> None:
    first, second = zip(*rows, strict=True)
    assume(len({*first, *second}) > 1)
    found = weighted_kappa(first, second, weights=weights)
    peer = cohen_kappa_score(first, second, labels=range(1, 8), weights=None if weights == "none" else weights)
    assert found.value == pytest.approx(peer, abs=1e-12)
    assert found.n == len(rows)


def test_the_distance_counts_and_not_the_position_among_ratings_in_use() -> None:
    """1 against 2 and 1 against 10 differ, though 2 and 10 may be neighbours among the ratings that were given."""
    first, second = [1, 1, 2, 10, 10, 2], [2, 1, 2, 10, 10, 1]
    near = weighted_kappa(first, second).value
    moments = np.var(first) + np.var(second) + (np.mean(first) - np.mean(second)) ** 2
    assert near == pytest.approx(1 - np.mean(np.subtract(first, second) ** 2) / moments)
    assert near > 0.95


def test_nothing_to_agree_on() -> None:
    tables = [[[3, 3, 3], [3, 3, 3]], [[1, 2, 3]], np.empty((2, 0)), [[1, N], [N, 2]]]
    pairs: list[tuple[list[float], list[float]]] = [([2, 2], [2, 2]), ([], [])]
    for found in [krippendorff_alpha(table) for table in tables] + [weighted_kappa(*pair) for pair in pairs]:
        assert math.isnan(found.value)
        assert math.isnan(found.low)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="whole"):
        weighted_kappa([1.5], [1.0])
    with pytest.raises(ValueError, match="number of units"):
        weighted_kappa([1.0], [])
    with pytest.raises(ValueError, match="quadratic"):
        weighted_kappa([1.0], [1.0], weights="cubic")
    with pytest.raises(ValueError, match="NaN"):
        weighted_kappa([math.nan], [1.0])
    with pytest.raises(ValueError, match="raters"):
        krippendorff_alpha([1.0, 2.0])
    with pytest.raises(ValueError, match="clusters differ"):
        krippendorff_alpha([[1.0, 2.0], [1.0, 3.0]], clusters=["a"])
    with pytest.raises(ValueError, match="clusters differ"):
        weighted_kappa([1.0, 2.0], [1.0, 3.0], clusters=["a"])
