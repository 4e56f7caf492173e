"""The length-controlled effect against least squares and sandwich matrices written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as sps

from lem.stats import length_controlled

RNG = np.random.default_rng(41)
WORDS = RNG.normal(40, 60, 70).round()
LABELS = [int(label) for label in np.sort(RNG.integers(0, 9, 70))]
SCORES = 0.02 * WORDS + 0.5 + RNG.normal(0, 0.4, 9)[LABELS] + RNG.normal(0, 1, 70)


def least_squares() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    design = np.column_stack([np.ones(70), WORDS])
    bread = np.linalg.inv(design.T @ design)
    coefficients = bread @ design.T @ SCORES
    return design, bread, coefficients, SCORES - design @ coefficients


def test_probes_alone_have_the_hc3_interval() -> None:
    design, bread, coefficients, residuals = least_squares()
    leverage = np.einsum("ij,jk,ik->i", design, bread, design)
    meat = (design * (residuals / (1 - leverage))[:, None] ** 2).T @ design
    stderr = np.sqrt(np.diag(bread @ meat @ bread))
    found = length_controlled(SCORES, WORDS)
    for k, estimate in enumerate((found.effect, found.slope)):
        half = sps.t(68).isf(0.025) * stderr[k]
        assert (estimate.value, estimate.stderr) == pytest.approx((coefficients[k], stderr[k]))
        assert (estimate.low, estimate.high) == pytest.approx((coefficients[k] - half, coefficients[k] + half))
    assert found.n_clusters is found.effect.n_clusters is None
    assert found.effect.n == 70


def test_clusters_have_bell_and_mccaffreys_interval() -> None:
    design, bread, coefficients, residuals = least_squares()
    hat = design @ bread @ design.T
    meat, columns = np.zeros((2, 2)), []
    for label in range(9):
        rows = np.flatnonzero(np.asarray(LABELS) == label)
        eigenvalues, vectors = np.linalg.eigh(np.eye(len(rows)) - hat[np.ix_(rows, rows)])
        adjust = vectors @ np.diag(eigenvalues**-0.5) @ vectors.T
        score = design[rows].T @ adjust @ residuals[rows]
        meat += np.outer(score, score)
        columns.append((np.eye(70) - hat)[:, rows] @ adjust @ design[rows] @ bread)
    found = length_controlled(SCORES, WORDS, LABELS)
    for k, estimate in enumerate((found.effect, found.slope)):
        g = np.column_stack([column[:, k] for column in columns])
        weights = np.linalg.eigvalsh(g.T @ g)
        freedom = weights.sum() ** 2 / (weights**2).sum()
        stderr = math.sqrt((bread @ meat @ bread)[k, k])
        half = sps.t(freedom).isf(0.025) * stderr
        assert (estimate.value, estimate.stderr) == pytest.approx((coefficients[k], stderr))
        assert (estimate.low, estimate.high) == pytest.approx((coefficients[k] - half, coefficients[k] + half))
    assert found.n_clusters == found.slope.n_clusters == 9


def test_the_unit_of_length_does_not_move_the_effect() -> None:
    words, letters = length_controlled(SCORES, WORDS, LABELS), length_controlled(SCORES, 6.1 * WORDS, LABELS)
    assert letters.effect.low == pytest.approx(words.effect.low)
    assert letters.slope.value == pytest.approx(words.slope.value / 6.1)


def test_an_effect_of_length_alone_is_controlled_away() -> None:
    words = np.asarray([10.0, 20.0, 35.0, 50.0, 80.0])
    found = length_controlled(0.1 * words, words)
    assert found.effect.value == pytest.approx(0.0, abs=1e-9)
    assert found.slope.value == pytest.approx(0.1)


def test_a_cluster_that_alone_decides_a_direction_is_no_crash() -> None:
    found = length_controlled([1.0, 2.0, 0.0, 1.0, 3.0], [0.0, 0.0, 0.0, 0.0, 7.0], list("aabbc"))
    assert found.slope.value == pytest.approx((3.0 - 1.0) / 7)
    assert math.isfinite(found.effect.low)


@pytest.mark.parametrize(
    ("scores", "words", "clusters"),
    [
        ([], [], None), ([1.0, 2.0], [1.0, 5.0], None), ([1.0, 2.0, 3.0], [4.0, 4.0, 4.0], None),
        ([1.0, 2.0, 4.0], [1.0, 5.0, 2.0], ["a", "a", "a"]), ([1.0, 2.0, 4.0], [0.0, 0.0, 0.0], ["a", "b", "c"]),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_nan(scores: list[float], words: list[float], clusters: list[str] | None) -> None:
    found = length_controlled(scores, words, clusters)
    assert math.isnan(found.effect.value)
    assert math.isnan(found.slope.low)
    assert found.effect.n == len(scores)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="length"):
        length_controlled([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="NaN"):
        length_controlled([1.0, 2.0, 3.0], [1.0, math.nan, 2.0])
