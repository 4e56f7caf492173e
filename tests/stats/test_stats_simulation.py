"""400 draws of every design: the headline covers, the exact methods keep their promise, the naive ones are caught.

The seed is fixed. With 400 draws the Monte Carlo error of a coverage of 95% is 1.1 percentage points; the bands allow
for four of them, since some two hundred figures are held against them.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import pytest

from lem.paths import repository_root

sys.path.insert(0, str(repository_root() / "scripts"))
import simulate_stats as simulation

pytestmark = pytest.mark.slow
SETTINGS = simulation.Settings(draws=400, resamples=199, seed=1)
BAND = 4 * math.sqrt(0.05 * 0.95 / 400)
Shares = dict[tuple[str, int, str], float]


@pytest.fixture(scope="module")
def shares() -> Shares:
    return {(rate.design, rate.n, rate.method): rate.share for rate in simulation.differences(SETTINGS)}


@pytest.fixture(scope="module")
def others() -> Shares:
    return {(rate.method, rate.n, ""): rate.share for rate in simulation.others(replace(SETTINGS, resamples=99))}


def test_the_headline_covers_on_every_design(shares: Shares) -> None:
    covered = {key: share for key, share in shares.items() if key[2] == "headline"}
    assert len(covered) == 2 * len(simulation.DESIGNS)
    low = {key: share for key, share in covered.items() if share < 0.90}
    assert not low
    assert sum(covered.values()) / len(covered) > 0.94
    assert sum(covered.values()) / len(covered) < 0.98, "an interval that always holds is no interval"


def test_what_the_headline_spans_does_not_cover_alone(shares: Shares) -> None:
    """The designs can tell a good interval from a bad one."""
    assert shares["skew of 6", 21, "bca"] < 0.90
    assert shares["skew of 6", 21, "t"] < 0.90
    for design in ("10 domains", "20 uneven domains", "4 domains", "10 domains, skewed"):
        assert shares[design, 101, "t"] < 0.90
        assert shares[design, 101, "bca"] < 0.90
        assert shares[design, 101, "cr2-t"] > 0.95 - BAND
    assert shares["4 domains", 101, "cluster bootstrap"] < 0.90, "too few clusters to resample"


def test_tests_of_arms_that_are_alike_err_at_most_as_often_as_they_say(shares: Shares) -> None:
    clustered = {design for design, _, method in shares if method == "cluster t"}
    assert len(clustered) == 3
    for (design, n, method), share in shares.items():
        if method not in simulation.ERRORS:
            continue
        if design in clustered and method in ("sign flip", "Wilcoxon"):
            assert n < 100 or share > 0.10, "probes of a domain are alike, and these tests do not know"
        else:
            assert share <= 0.05 + BAND, (design, n, method)
    for method in ("sign flip", "Wilcoxon", "verdict p"):
        assert shares["continuous", 101, method] >= 0.05 - BAND, "nor do they sleep"


def test_the_other_intervals_cover(others: Shares) -> None:
    for (method, n, _), share in others.items():
        if "Clopper" in method or "fixed set" in method or "length" in method:
            assert share >= 0.95 - BAND, (method, n)
        elif "Cliff" in method or "alpha" in method or "kappa" in method:
            assert share >= (0.93 if n > 100 else 0.91) - (BAND if "Cliff" in method else 2 * BAND), (method, n)
        elif "corrected share" in method:
            assert share >= 0.95 - BAND, (method, n)
    assert {method for method, _, _ in others if "corrected share" in method} == {
        "corrected share, 50 and 50 labels", "corrected share, 10 and 90 labels",
    }  # fmt: skip


def test_a_new_part_does_not_change_the_figures_of_the_others() -> None:
    assert simulation.PARTS[:7] == ("fixed set", "length", "ranks", "shares", "agreement", "margins", "families")
    assert sorted(simulation.PARTS) == sorted({**simulation.COVERING, **simulation.ERRING})


def test_margins_and_corrections_err_at_most_as_often_as_they_say(others: Shares) -> None:
    for n in simulation.SIZES:
        for method in ("non-inferiority at the margin", "non-inferiority at the margin, skewed"):
            assert others[method, n, ""] <= 0.05 + BAND
        assert others["equivalence (TOST) at the margin", n, ""] <= 0.05 + BAND
        for method in ("Holm", "Benjamini-Hochberg"):
            assert others[f"any of 8 metrics, {method}", n, ""] <= 0.05 + BAND
        assert others["any of 8 metrics, uncorrected", n, ""] > 0.12


def test_the_tables_hold_every_figure() -> None:
    rates = [simulation.Rate("a", 101, "headline", 19, 20, 0.95), simulation.Rate("a", 21, "t", 1, 2, 0.95)]
    assert simulation.table(rates, ("headline", "t")).splitlines()[2:] == [
        "| a | 101 | 95.0 |  |",
        "| a | 21 |  | 50.0 |",
    ]
    listed = [simulation.Rate("", n, "Holm", 1, 40, 0.05) for n in simulation.SIZES]
    assert simulation.list_table(listed).splitlines()[2] == "| Holm | errs at most 5% | 2.5 | 2.5 |"
