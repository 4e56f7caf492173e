"""Gates: verdicts against intervals computed by another library, exact cases, and what cannot be decided."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats as sps

from lem.stats import headline
from lem.studies import gates
from lem.studies.gates import GateResult

PROBES = [f"P{number:02d}" for number in range(12)]
# Every probe its own domain: the cluster-robust interval is then the textbook t interval, wider than the bootstrap's.
ALONE = {probe: probe for probe in PROBES}


def made(seed: int, mean: float) -> dict[str, float]:
    return dict(zip(PROBES, np.random.default_rng(seed).normal(mean, 2.0, len(PROBES)).tolist(), strict=True))


def shifted(scores: dict[str, float], by: float) -> dict[str, float]:
    return {probe: value + by for probe, value in scores.items()}


def limits(values: list[float]) -> tuple[float, float]:
    """Of the headline interval (tests/stats has its own definition); a gate must hold exactly to these."""
    found = headline(values)
    student = sps.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert found.low <= student.low + 1e-9 < student.high <= found.high + 1e-9
    return found.low, found.high


def differences(left: dict[str, float], right: dict[str, float]) -> list[float]:
    return [left[probe] - right[probe] for probe in PROBES]


@pytest.mark.parametrize("rule", ["point", "lower"])
def test_the_target_is_reached_by_its_point_or_by_its_lower_limit(rule: gates.Rule) -> None:
    scores = made(1, 20.0)
    low, _ = limits(list(scores.values()))
    edge = float(np.mean(list(scores.values()))) if rule == "point" else low
    for value, passed in ((edge - 1e-9, True), (edge + 1e-9, False)):
        result = gates.target(scores, ALONE, scorer="v2", value=value, rule=rule)
        assert result.passed is passed
        assert result.estimate.low == pytest.approx(low, abs=1e-9)


@pytest.mark.parametrize("gap", [0.0, -0.6, -1.5, -4.0])
def test_not_worse_fails_only_when_the_whole_interval_is_below_the_margin(gap: float) -> None:
    before = made(2, 15.0)
    after = shifted(made(3, 15.0), gap)
    _, high = limits(differences(after, before))
    for margin in (abs(high) + 1e-9, max(0.0, -high - 1e-9)):
        result = gates.not_worse(after, before, ALONE, scorer="v2", margin=margin, against="base")
        assert result.passed is (high >= -margin)
        assert result.estimate.high == pytest.approx(high, abs=1e-9)


def test_improves_needs_the_whole_interval_above() -> None:
    before = made(4, 15.0)
    after = shifted(made(5, 15.0), 3.0)
    low, _ = limits(differences(after, before))
    verdicts = [
        gates.improves(after, before, ALONE, scorer="v2", by=by, against="base").passed
        for by in (low - 1e-9, low + 1e-9)
    ]
    assert verdicts == [True, False]


def test_the_biting_point_compares_freeflow_with_the_sandwich_of_the_earlier_phase() -> None:
    sandwich, freeflow = made(6, 19.0), shifted(made(7, 19.0), -3.0)
    _, high = limits(differences(freeflow, sandwich))
    assert high < -0.1  # the case is one in which the order of the two matters
    reach = gates.biting_point(freeflow, sandwich, ALONE, scorer="v2", margin=0.0, against="phase 2.1")
    turned = gates.biting_point(sandwich, freeflow, ALONE, scorer="v2", margin=0.0, against="phase 2.1")
    loose = gates.biting_point(freeflow, sandwich, ALONE, scorer="v2", margin=-high + 1e-9, against="phase 2.1")
    assert (reach.passed, turned.passed, loose.passed) == (False, True, True)
    assert "phase 2.1" in reach.sentence


def test_the_creative_lock_looks_at_its_domain_alone() -> None:
    domains = {probe: "creative" if index % 3 == 0 else "work" for index, probe in enumerate(PROBES)}
    locked = made(8, 15.0)
    others_fall = {probe: value - 9.0 * (domains[probe] == "work") for probe, value in locked.items()}
    creative_falls = {probe: value - 2.0 * (domains[probe] == "creative") for probe, value in locked.items()}

    def lock(current: dict[str, float], margin: float) -> GateResult:
        return gates.creative_lock(
            current, locked, domains, scorer="v2", domain="creative", margin=margin, against="base"
        )

    assert lock(others_fall, 0.0).passed
    assert lock(others_fall, 0.0).estimate.n == 4
    assert not lock(creative_falls, 1.999).passed  # every probe falls by exactly 2: the interval has no width
    assert lock(creative_falls, 2.001).passed
    assert lock(creative_falls, 2.001).estimate.value == pytest.approx(-2.0)


def test_degeneration_counts_answers_and_shows_the_exact_binomial_interval() -> None:
    assert gates.degeneration(2, 20, at_most=0.1).passed
    result = gates.degeneration(3, 20, at_most=0.1)
    assert not result.passed
    exact = sps.beta.ppf([0.025, 0.975], [3, 4], [18, 17])
    assert [result.estimate.low, result.estimate.high] == pytest.approx(exact.tolist())


def test_what_has_no_interval_has_not_passed_and_says_so() -> None:
    one = {"P00": 20.0}
    checks: list[Callable[[], GateResult]] = [
        lambda: gates.target(one, ALONE, scorer="v2", value=1.0, rule="lower"),
        lambda: gates.target({}, ALONE, scorer="v2", value=1.0, rule="point"),
        lambda: gates.not_worse(one, one, ALONE, scorer="v2", margin=5.0, against="base"),
        lambda: gates.improves(shifted(one, 9.0), one, ALONE, scorer="v2", by=0.0, against="base"),
        lambda: gates.biting_point(one, one, ALONE, scorer="v2", margin=5.0, against="phase 2.1"),
        lambda: gates.creative_lock(
            made(1, 9.0), made(1, 9.0), {"P00": "creative"}, scorer="v2", domain="creative", margin=5.0, against="base"
        ),
        lambda: gates.degeneration(0, 0, at_most=1.0),
    ]
    for check in checks:
        result = check()
        assert not result.passed
        assert "cannot be decided" in result.sentence
    assert gates.target(one, ALONE, scorer="v2", value=20.0, rule="point").passed  # a point needs no interval


def test_a_probe_that_one_side_lacks_is_left_out_of_the_pairing() -> None:
    before = made(2, 15.0)
    after = {probe: value for probe, value in shifted(before, 1.0).items() if probe != "P05"}
    result = gates.not_worse(after, before, ALONE, scorer="v2", margin=0.0, against="base")
    assert result.estimate.n == len(PROBES) - 1
    assert result.estimate.value == pytest.approx(1.0)


def test_the_first_fall_is_found_against_the_phase_before_it_not_against_the_base() -> None:
    base = made(9, 15.0)
    rises, falls, lower = shifted(base, 6.0), shifted(base, 3.0), shifted(base, -9.0)
    path = [(-1, base), (0, rises), (1, falls), (2, lower)]
    found = gates.first_diverged(path, ALONE, margin=1.0)
    assert found is not None
    assert found[0] == 1  # still above the base, but fallen by 3
    assert found[1].value == pytest.approx(-3.0)
    wider = gates.first_diverged(path, ALONE, margin=3.5)
    assert wider is not None
    assert wider[0] == 2
    assert gates.first_diverged(path[:3], ALONE, margin=3.5) is None
    noisy = {probe: value + (8 if index % 2 else -12) for index, (probe, value) in enumerate(base.items())}
    assert gates.first_diverged([(-1, base), (0, noisy)], ALONE, margin=1.0) is None  # -2 on average, wide interval


def test_sentences_carry_the_numbers() -> None:
    result = gates.target({"P00": 17.0, "P01": 19.0}, {}, scorer="v2", value=18.5, rule="point")
    assert f"{result.estimate.value:.2f} [{result.estimate.low:.2f}, {result.estimate.high:.2f}]" in result.sentence
    assert "18.5" in result.sentence
    assert not math.isnan(result.estimate.low)
