"""The fixed-set difference and the noise components against longhand sums and known truths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as sps

from lem.stats import NoiseComponents, fixed_set_difference, noise_components, sd_of_difference

RNG = np.random.default_rng(53)


def run(n: int, repeats: int, between: float, within: float) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    base, effects = RNG.normal(14, 3, n), RNG.normal(0.5, between, n)
    half = within / math.sqrt(2)
    arms = [
        {f"P{i:04d}": list(mean + RNG.normal(0, half, repeats)) for i, mean in enumerate(means)}
        for means in (base + effects, base)
    ]
    return arms[0], arms[1]


def test_repeats_are_paired_where_both_arms_have_as_many() -> None:
    treatment, baseline = run(21, 5, 1.0, 2.0)
    rows = np.asarray([np.asarray(treatment[p]) - np.asarray(baseline[p]) for p in sorted(treatment)])
    variances = rows.var(axis=1, ddof=1) / 5 / 21**2
    stderr = math.sqrt(variances.sum())
    half = sps.t(variances.sum() ** 2 / (variances**2 / 4).sum()).isf(0.025) * stderr
    found = fixed_set_difference(treatment, baseline)
    assert (found.value, found.stderr) == pytest.approx((rows.mean(), stderr))
    assert (found.low, found.high) == pytest.approx((rows.mean() - half, rows.mean() + half))
    assert (found.n, found.method) == (21, "fixed set t")


def test_unlike_counts_are_two_samples() -> None:
    treatment, baseline = {"a": [1.0, 2.0, 4.0], "gone": [1.0]}, {"a": [0.0, 3.0], "other": [2.0], "gone": []}
    found = fixed_set_difference(treatment, baseline)
    peer = sps.ttest_ind([1.0, 2.0, 4.0], [0.0, 3.0], equal_var=False)
    interval = peer.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.n == 1


def test_the_same_noise_in_both_arms_cancels() -> None:
    """Arms that share their random streams answer alike: then nothing is uncertain about these probes."""
    _, baseline = run(9, 3, 0.0, 2.0)
    found = fixed_set_difference({p: [v + 1 for v in values] for p, values in baseline.items()}, baseline)
    assert (found.value, found.width) == pytest.approx((1.0, 0.0), abs=1e-9)


def test_variants_share_the_weight_of_their_source() -> None:
    treatment = {"a~x": [2.0, 4.0], "a~y": [6.0, 6.0], "b": [1.0, 1.5]}
    baseline = {probe: [0.0, 0.0] for probe in treatment}
    sources = {"a~x": "a", "a~y": "a"}
    found = fixed_set_difference(treatment, baseline, sources=sources)
    assert found.value == pytest.approx(((3 + 6) / 2 + 1.25) / 2)
    assert found.stderr == pytest.approx(math.sqrt((2 / 2) / 16 + (0.125 / 2) / 4))


def test_a_lone_repeat_borrows_the_noise_of_the_others() -> None:
    treatment = {"a": [1.0, 3.0], "b": [2.0]}
    baseline = {"a": [0.0, 0.0], "b": [0.0]}
    found = fixed_set_difference(treatment, baseline)
    assert found.stderr == pytest.approx(math.sqrt(2.0 / 2 / 4 + 2.0 / 4))
    half = sps.t((0.25 + 0.5) ** 2 / 0.25**2).isf(0.025) * found.stderr
    assert found.high - found.value == pytest.approx(half)


def test_single_repeats_have_no_interval() -> None:
    found = fixed_set_difference({"a": [1.0], "b": [2.0]}, {"a": [0.0], "b": [0.0]})
    assert found.value == 1.5
    assert math.isnan(found.low)
    assert "fewer than 2 repeats" in found.method
    empty = fixed_set_difference({}, {"a": [1.0]})
    assert math.isnan(empty.value)
    assert empty.n == 0
    with pytest.raises(ValueError, match="NaN"):
        fixed_set_difference({"a": [math.nan, 1.0]}, {"a": [1.0, 2.0]})


@pytest.mark.parametrize("repeats", [2, 5])
def test_the_components_are_found_again(repeats: int) -> None:
    found = noise_components(*run(6000, repeats, 1.5, 2.0))
    assert found.sd_between == pytest.approx(1.5, rel=0.05)
    assert found.sd_within == pytest.approx(2.0, rel=0.05)
    assert (found.n, found.repeats) == (6000, pytest.approx(repeats))
    more = [
        np.mean(t) - np.mean(b) for t, b in zip(*(arm.values() for arm in run(6000, 8, 1.5, 2.0)), strict=True)
    ]  # fmt: skip
    assert sd_of_difference(found, 8) == pytest.approx(np.std(more, ddof=1), rel=0.05)


def test_components_longhand() -> None:
    treatment = {"a": [1.0, 3.0], "b": [5.0, 6.0], "c": [0.0, 0.0]}
    baseline = {probe: [0.0, 0.0] for probe in treatment}
    found = noise_components(treatment, baseline)
    within = (2.0 + 0.5 + 0.0) / 3
    between = np.var([2.0, 5.5, 0.0], ddof=1) - within / 2
    assert found.sd_within == pytest.approx(math.sqrt(within))
    assert found.sd_between == pytest.approx(math.sqrt(between))
    assert sd_of_difference(found, 4) == pytest.approx(math.sqrt(between + within / 4))


def test_noise_alone_leaves_nothing_between() -> None:
    found = noise_components({"a": [9.0, -9.0], "b": [8.0, -8.0]}, {"a": [0.0, 0.0], "b": [0.0, 0.0]})
    assert found.sd_between == 0.0


def test_components_that_cannot_be_told_apart() -> None:
    single = noise_components({"a": [1.0], "b": [4.0]}, {"a": [0.0], "b": [0.0]})
    assert math.isnan(single.sd_within)
    assert single.sd_between == pytest.approx(np.std([1.0, 4.0], ddof=1))
    assert sd_of_difference(single, 5) == single.sd_between
    assert math.isnan(noise_components({}, {}).sd_between)
    one = noise_components({"a": [1.0, 2.0]}, {"a": [0.0, 0.0]})
    assert math.isnan(one.sd_between)
    assert one.sd_within == pytest.approx(math.sqrt(0.5))
    with pytest.raises(ValueError, match="0 repeats"):
        sd_of_difference(NoiseComponents(1.0, 1.0, 3, 2.0), 0)
