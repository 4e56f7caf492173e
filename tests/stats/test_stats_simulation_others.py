"""400 draws for every other interval and correction: exact methods keep their promise, the naive ones are caught.

Apart from the differences between arms, so that two processes can share the draws.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulated import BAND, SETTINGS, Shares, simulation

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def others() -> Shares:
    return {(rate.method, rate.n, ""): rate.share for rate in simulation.others(replace(SETTINGS, resamples=99))}


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
