"""The length-controlled win rate against Newton's method written out, and on data whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as sps

from lem.judges.pairwise.length import length_controlled_win_rate


def longhand(y: np.ndarray, x: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of the logistic regression and their cluster-robust covariance, statsmodels' small-sample factor."""
    design = np.column_stack([np.ones(len(x)), x])
    beta = np.zeros(2)
    for _ in range(50):
        p = 1 / (1 + np.exp(-design @ beta))
        information = (design * (p * (1 - p))[:, None]).T @ design
        beta = beta + np.linalg.solve(information, design.T @ (y - p))
    bread = np.linalg.inv(information)
    scores = np.array([(design[groups == g] * (y - p)[groups == g, None]).sum(axis=0) for g in np.unique(groups)])
    n, k, n_groups = len(y), 2, len(scores)
    factor = n_groups / (n_groups - 1) * (n - 1) / (n - k)
    return beta, factor * bread @ scores.T @ scores @ bread


def data(n: int, a: float, b: float, seed: int = 3, ties: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes and log ratios: P(win) = logistic(a + b x), some ties; the treatment tends to be longer."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0.4, 0.7, n)
    won = (rng.random(n) < 1 / (1 + np.exp(-(a + b * x)))).astype(float)
    return np.where(rng.random(n) < ties, 0.5, won), x


def test_the_fit_is_newtons() -> None:
    y, x = data(60, 0.4, 1.2)
    found, slope = length_controlled_win_rate(y.tolist(), x.tolist())
    beta, covariance = longhand(y, x / x.std(ddof=1), np.arange(60))
    half = sps.t(58).isf(0.025) * np.sqrt(np.diag(covariance))
    logistic = 1 / (1 + np.exp(-beta[0]))
    assert found.value == pytest.approx(logistic, rel=1e-9)
    assert (found.low, found.high) == pytest.approx([1 / (1 + math.exp(-beta[0] - s * half[0])) for s in (-1, 1)])
    assert found.stderr == pytest.approx(math.sqrt(covariance[0, 0]) * logistic * (1 - logistic))
    assert (slope.value, slope.low, slope.high) == pytest.approx((beta[1], beta[1] - half[1], beta[1] + half[1]))
    assert (found.n, found.n_clusters) == (60, None)


def test_the_wider_interval_of_probes_and_domains_is_taken() -> None:
    rng = np.random.default_rng(8)
    labels = np.repeat(np.arange(6), 15)
    x = rng.normal(0.2, 0.5, 90)
    taste = rng.normal(0, 1.5, 6)[labels]
    y = (rng.random(90) < 1 / (1 + np.exp(-(taste + x)))).astype(float)
    alone, _ = length_controlled_win_rate(y.tolist(), x.tolist())
    found, _ = length_controlled_win_rate(y.tolist(), x.tolist(), labels.tolist())
    beta, covariance = longhand(y, x / x.std(ddof=1), labels)
    half = sps.t(5).isf(0.025) * math.sqrt(covariance[0, 0])
    assert half > sps.t(88).isf(0.025) * math.sqrt(longhand(y, x / x.std(ddof=1), np.arange(90))[1][0, 0])
    assert (found.low, found.high) == pytest.approx([1 / (1 + math.exp(-beta[0] - s * half)) for s in (-1, 1)])
    assert found.value == alone.value
    assert found.width > alone.width
    assert found.n_clusters == 6
    assert "domains" in found.method
    assert "probes" in alone.method


@pytest.mark.parametrize(
    ("a", "b", "raw_is_off"),
    [(0.0, 0.0, False), (0.8, 0.0, False), (0.0, 2.0, True), (0.8, -1.5, True)],
    ids=["nothing", "taste alone", "length alone", "length against taste"],
)
def test_it_finds_the_win_rate_at_equal_length(a: float, b: float, raw_is_off: bool) -> None:
    truth = 1 / (1 + math.exp(-a))
    raw, controlled, covered = [], [], 0
    for seed in range(150):
        y, x = data(80, a, b, seed, ties=0.0)
        found, _ = length_controlled_win_rate(y.tolist(), x.tolist())
        raw.append(y.mean())
        controlled.append(found.value)
        covered += found.low <= truth <= found.high
    noise = float(np.std(controlled) / math.sqrt(150))
    assert abs(np.mean(controlled) - truth) < 4 * noise + 0.003
    assert (abs(np.mean(raw) - truth) > 0.05) == raw_is_off
    assert covered >= 150 * 0.95 - 4 * math.sqrt(150 * 0.95 * 0.05)


def test_turning_the_arms_turns_the_rate() -> None:
    y, x = data(50, 0.4, 1.2)
    ours, slope = length_controlled_win_rate(y.tolist(), x.tolist())
    theirs, turned = length_controlled_win_rate((1 - y).tolist(), (-x).tolist())
    assert (theirs.value, theirs.low, theirs.high) == pytest.approx((1 - ours.value, 1 - ours.high, 1 - ours.low))
    assert turned.value == pytest.approx(slope.value)


def test_the_unit_of_length_does_not_matter() -> None:
    y, x = data(50, 0.4, 1.2)
    one, two = (length_controlled_win_rate(y.tolist(), (k * x).tolist()) for k in (1.0, 3.7))
    assert two[0].low == pytest.approx(one[0].low)
    assert two[1].value == pytest.approx(one[1].value)


@pytest.mark.parametrize(
    ("values", "ratios", "why"),
    [
        ([1.0, 0.0, 1.0, 0.0], [0.3, 0.3, 0.3, 0.3], "lengths do not vary"),
        ([1.0, 0.0, 0.5], [0.1, 0.2, 0.3], "too few probes"),
        ([0.0, 0.0, 1.0, 1.0, 1.0], [-2.0, -1.0, 0.5, 1.0, 2.0], "length separates wins from losses"),
        ([1.0, 1.0, 0.0, 0.0, 0.0], [-2.0, -1.0, 0.5, 1.0, 2.0], "length separates wins from losses"),
        ([0.0, 0.0, 0.5, 1.0, 1.0], [-2.0, -1.0, 0.5, 1.0, 2.0], "length separates wins from losses"),
        ([], [], "too few probes"),
    ],
)
def test_what_cannot_be_fitted_has_no_value(values: list[float], ratios: list[float], why: str) -> None:
    found, slope = length_controlled_win_rate(values, ratios)
    assert math.isnan(found.value)
    assert math.isnan(found.low)
    assert math.isnan(slope.value)
    assert why in found.method


def test_nearly_separated_outcomes_are_fitted() -> None:
    found, _ = length_controlled_win_rate([0.0, 0.0, 1.0, 0.5, 1.0, 1.0], [-2.0, -1.0, -0.5, 0.5, 1.0, 2.0])
    beta, _ = longhand(np.array([0, 0, 1, 0.5, 1, 1]), np.array([-2, -1, -0.5, 0.5, 1, 2.0]), np.arange(6))
    assert found.value == pytest.approx(1 / (1 + math.exp(-beta[0])))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_clean_sweep_is_one_at_any_length_but_has_no_interval(value: float) -> None:
    found, _ = length_controlled_win_rate([value] * 5, [0.1, 0.2, 0.3, -0.1, 0.0])
    assert found.value == value
    assert math.isnan(found.low)


@pytest.mark.parametrize("n", [1, 3, 5, 40])
def test_ties_throughout_are_a_tie_as_surely_as_their_number_says(n: int) -> None:
    """By hand: if more than u = 1 - 0.025^(1/n) were no ties, n ties in a row would be rarer than 2.5%."""
    found, _ = length_controlled_win_rate([0.5] * n, [0.1 * k for k in range(n)])
    u = 1 - 0.025 ** (1 / n)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5 - u / 2, 0.5 + u / 2))


@pytest.mark.parametrize(
    ("values", "ratios"), [([1.2, 0, 1, 0], [1, 2, 3, 4]), ([1, 0, 1, 0], [1, 2, 3, math.nan]), ([1, 0], [1, 2, 3])]
)
def test_impossible_input_is_refused(values: list[float], ratios: list[float]) -> None:
    with pytest.raises(ValueError, match="outcome"):
        length_controlled_win_rate(values, ratios)
