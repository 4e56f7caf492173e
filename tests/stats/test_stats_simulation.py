"""400 draws of every design: the headline covers, and what it spans does not cover alone."""

from __future__ import annotations

import pytest
from simulated import BAND, SETTINGS, Shares, simulation

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shares() -> Shares:
    return {(rate.design, rate.n, rate.method): rate.share for rate in simulation.differences(SETTINGS)}


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


def test_the_tables_hold_every_figure() -> None:
    rates = [simulation.Rate("a", 101, "headline", 19, 20, 0.95), simulation.Rate("a", 21, "t", 1, 2, 0.95)]
    assert simulation.table(rates, ("headline", "t")).splitlines()[2:] == [
        "| a | 101 | 95.0 |  |",
        "| a | 21 |  | 50.0 |",
    ]
    listed = [simulation.Rate("", n, "Holm", 1, 40, 0.05) for n in simulation.SIZES]
    assert simulation.list_table(listed).splitlines()[2] == "| Holm | errs at most 5% | 2.5 | 2.5 |"
