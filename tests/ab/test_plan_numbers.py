"""The numbers of a plan against longhand: detectable effects, spreads, design effects, speed, lengths, memory."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize
from scipy import stats as sps

from lem.ab.declared import parse_spreads
from lem.ab.expected import bytes_per_row
from lem.ab.forecast import Size, advice, detect, forecast, in_sds, margin_power, mde_of
from lem.ab.noise import STAND_IN, Noise, mean_domain_size, pilot_noise
from lem.ab.throughput import answer_length, measure_rate
from lem.errors import UserError
from lem.records import RunContents, read_contents
from lem.runs.groups import MAX_GROUP, choose_group_size
from lem.stats import design_effect
from made_runs import made_run
from small_pilot import START, spread_values, write_pilot


def size(n: int = 101, repeats: int = 1, n_tests: int = 1, domain_size: float = 1.0) -> Size:
    return Size(n, repeats, n_arms=2, domain_size=domain_size, n_tests=n_tests)


def noise_of(text: str, *, effect: float = 1.0, repeats: int = 1) -> Noise:
    return parse_spreads([text], ["json"], repeats, effect)[0]


def longhand_mde(sd: float, n: int, alpha: float = 0.05) -> float:
    """The effect at which the noncentral t distribution puts 80% beyond the two-sided limits."""
    limit = sps.t.ppf(1 - alpha / 2, n - 1)

    def missing(effect: float) -> float:
        shift = effect / sd * math.sqrt(n)
        return float(sps.nct.sf(limit, n - 1, shift) + sps.nct.cdf(-limit, n - 1, shift) - 0.8)

    return float(optimize.brentq(missing, 1e-6, 7 * sd / math.sqrt(n)))


@pytest.mark.parametrize(("repeats", "published"), [(1, 0.61), (2, 0.44), (3, 0.37), (5, 0.30), (10, 0.24)])
def test_the_table_of_the_specification(repeats: int, published: float) -> None:
    """SD of the true difference 0.5, SD of an answer's score over repeats 1.5, 101 probes."""
    found = mde_of(noise_of("x=0.5,1.5"), size(repeats=repeats))
    assert found == pytest.approx(published, abs=0.006)
    assert found == pytest.approx(longhand_mde(math.sqrt(0.25 + 2 * 2.25 / repeats), 101), rel=1e-5)


def test_a_given_spread_is_used_as_it_is() -> None:
    assert mde_of(noise_of("x=3.5"), size()) == pytest.approx(0.98, abs=0.01)
    assert in_sds(size()) == pytest.approx(longhand_mde(1.0, 101), rel=1e-5)


def test_more_contrasts_and_clustered_domains_cost_power() -> None:
    assert mde_of(noise_of("x=1"), size(n_tests=12)) == pytest.approx(longhand_mde(1.0, 101, 0.05 / 12), rel=1e-5)
    clustered = mde_of(noise_of("x=1", effect=2.25), size())
    assert clustered == pytest.approx(1.5 * longhand_mde(1.0, 101), rel=1e-5)


def test_the_grid_trades_repeats_for_probes() -> None:
    found = forecast(noise_of("x=0.5,1.5", repeats=5), size(repeats=5), primary=True)
    by_size = {(cell.repeats, cell.n_probes): cell for cell in found.grid}
    assert set(by_size) == {(k, n) for k in (1, 2, 3, 5, 10) for n in (101, 202, 404)}
    for (repeats, n), cell in by_size.items():
        assert cell.answers == 2 * repeats * n
        assert cell.mde == pytest.approx(longhand_mde(math.sqrt(0.25 + 4.5 / repeats), n), rel=1e-5)
    assert found.floor == pytest.approx(longhand_mde(0.5, 101), rel=1e-4)
    assert (found.low, found.high) == (found.mde, found.mde)


def test_the_advice_says_which_buys_more() -> None:
    said = advice(noise_of("x=0.5,1.5", repeats=5), size(repeats=5))
    assert "from 0.30 to 0.24 as 10 repeats, or to 0.21 as 202 probes: probes buy more" in said
    assert "505 probes with one repeat would see 0.27" in said
    assert "no number of repeats sees less than 0.14" in said
    assert "Repeats buy nothing" in advice(noise_of("x=0.5,0"), size())
    assert "not known" in advice(noise_of("x=0.5"), size())
    assert "no spread at all" in advice(replace(noise_of("x=0,1"), sd_within=0.0), size())


def test_probes_for_an_effect_and_power_for_a_margin() -> None:
    noise = noise_of("x=0.5,1.5", repeats=5)
    found = detect(noise, size(repeats=5), 0.2)
    sd = math.sqrt(0.25 + 4.5 / 5)
    assert found.probes is not None
    assert longhand_mde(sd, found.probes) <= 0.2 < longhand_mde(sd, found.probes - 1)
    at_mde = detect(noise, size(repeats=5), longhand_mde(sd, 101))
    assert at_mde.power == pytest.approx(0.8, abs=1e-6)
    # One-sided 0.05: the upper limit of a 90% interval lies above zero by the margin.
    shift = 0.3 / sd * math.sqrt(101)
    one_sided = sps.nct.sf(sps.t.ppf(0.95, 100), 100, shift)
    assert margin_power(noise, size(repeats=5), 0.3) == pytest.approx(one_sided, abs=1e-4)
    with pytest.raises(UserError, match="name a larger effect"):
        detect(noise, size(repeats=5), 1e-9)


def pilot(n: int = 12, repeats: int = 3, domains: int = 3) -> RunContents:
    values = spread_values(n, repeats)
    return made_run(values, scorer="v2", domains=[f"d{i % domains}" for i in range(n)])


def test_the_spread_of_a_pilot() -> None:
    noise = pilot_noise(pilot(), "base", ["json"])[0]
    values = {arm: np.asarray(rows) for arm, rows in spread_values(12, 3).items()}
    differences = values["json"] - values["base"]
    within = differences.var(axis=1, ddof=1).mean()
    total = differences.mean(axis=1).var(ddof=1)
    assert noise.sd_within == pytest.approx(math.sqrt(within))
    assert noise.sd_between == pytest.approx(math.sqrt(max(0.0, total - within / 3)))
    assert noise.sd_pilot == pytest.approx(math.sqrt(total))
    assert (noise.n, noise.repeats) == (12, 3)

    def limits(variance: float, freedom: float) -> list[float]:
        return [variance * freedom / sps.chi2.ppf(q, freedom) for q in (0.975, 0.025)]

    for k in (1, 3, 10):
        between = [max(0.0, part - within / 3) + within / k for part in limits(total, 11)]
        inside = [max(0.0, total - within / 3) + part / k for part in limits(within, 24)]
        low, high = noise.sd_limits(k)
        assert low == pytest.approx(math.sqrt(min(between + inside)))
        assert high == pytest.approx(math.sqrt(max(between + inside)))
        assert low < noise.sd(k) < high


def test_the_design_effect_is_the_pilots_for_a_run_of_its_shape() -> None:
    n = 24
    values = spread_values(n, 3)
    shifted = [[v + 0.9 * (i % 3) for v in row] for i, row in enumerate(values["json"])]
    domains = [f"d{i % 3}" for i in range(n)]
    run = made_run({"base": values["base"], "json": shifted}, scorer="v2", domains=domains)
    noise = pilot_noise(run, "base", ["json"])[0]
    differences = (np.asarray(shifted) - np.asarray(values["base"])).mean(axis=1)
    measured = design_effect(differences.tolist(), domains)
    assert 1.2 < measured < 8
    observed = replace(noise, sd_between=noise.sd_pilot, sd_within=0.0)
    assert observed.design_effect(3, mean_domain_size(domains)) == pytest.approx(measured)
    assert noise.design_effect(3, 1.0) == 1.0
    assert noise.design_effect(3, 8.0) > noise.design_effect(3, 4.0) > 1.0
    by_chance = made_run(values, scorer="v2", domains=domains)
    assert pilot_noise(by_chance, "base", ["json"])[0].domain_variance == 0.0
    assert mean_domain_size(["a", "a", "a", "b"]) == pytest.approx((9 + 1) / 4)


def test_variants_of_a_source_are_one_observation() -> None:
    values = spread_values(12, 2)
    run = made_run(values, scorer="v2", sources=[f"S{i // 2}" for i in range(12)])
    noise = pilot_noise(run, "base", ["json"])[0]
    differences = (np.asarray(values["json"]) - np.asarray(values["base"])).reshape(6, 2, 2).mean(axis=1)
    assert noise.n == 6
    assert noise.sd_pilot == pytest.approx(differences.mean(axis=1).std(ddof=1))


def test_one_repeat_bounds_the_spread_and_does_not_split_it() -> None:
    noise = pilot_noise(pilot(repeats=1), "base", ["json"])[0]
    assert not noise.splits
    found = forecast(noise, size(repeats=5), primary=True)
    assert found.at_most
    assert found.mde == pytest.approx(longhand_mde(noise.sd_pilot, 101), rel=1e-5)
    assert math.isnan(found.floor)
    assert [cell.repeats for cell in found.grid if not math.isnan(cell.mde)] == [1, 1, 1]
    assert "run it with --repeats 3" in found.advice


def test_an_arm_that_the_pilot_lacks_takes_the_widest_spread() -> None:
    values = spread_values(12, 3)
    wide = [[v + (4 if i % 2 else -4) for v in row] for i, row in enumerate(values["json"])]
    run = made_run({**values, "wide": wide}, scorer="v2")
    found = {noise.treatment: noise for noise in pilot_noise(run, "base", ["json", "trained"])}
    assert found["trained"].source == STAND_IN
    assert found["trained"].sd(3) > found["json"].sd(3)


def test_a_pilot_that_cannot_be_used() -> None:
    empty = RunContents(pilot().info, pilot().records)
    with pytest.raises(UserError, match="lem score"):
        pilot_noise(empty, "base", ["json"])
    with pytest.raises(UserError, match="needs the baseline 'other'"):
        pilot_noise(pilot(), "other", ["json"])
    infinite = made_run({"base": [1.0, 2.0, 3.0], "json": [1.0, math.inf, 2.0]}, scorer="v2")
    assert pilot_noise(infinite, "base", ["json"])[0].n == 2
    nan = made_run({"base": [1.0, 2.0, 3.0], "json": [math.nan, 5.0, 3.0]}, scorer="v2")
    assert pilot_noise(nan, "base", ["json"])[0].n == 2


def test_speed_from_the_times_of_the_records(tmp_path: Path) -> None:
    run = read_contents(write_pilot(tmp_path / "pilot", spread_values(12, 3), tokens=10, seconds=2.0))
    rate = measure_rate(run)
    assert rate is not None
    assert (rate.value, rate.low, rate.high) == pytest.approx((60.0, 60.0, 60.0))  # 12 rows x 10 tokens in 2 s
    late = [
        replace(r, ts=(START + timedelta(hours=9, seconds=2 * (3 + r.repeat))).isoformat()) if r.arm == "json" else r
        for r in run.records
    ]
    paused = measure_rate(replace(run, records=late))
    assert paused is not None
    assert paused.value == pytest.approx(60.0)
    assert "1 pause left out" in paused.note


def test_speed_of_a_pilot_with_few_groups_counts_loading(tmp_path: Path) -> None:
    run = read_contents(write_pilot(tmp_path / "pilot", spread_values(6, 1), tokens=10, seconds=3.0))
    rate = measure_rate(run)
    assert rate is not None
    assert rate.value == pytest.approx(2 * 6 * 10 / 6.0)
    assert "loading included" in rate.note
    assert measure_rate(replace(run, records=[replace(r, ts="") for r in run.records])) is None


def test_length_of_an_answer(tmp_path: Path) -> None:
    run = read_contents(write_pilot(tmp_path / "pilot", spread_values(6, 1), tokens=10))
    counts = [10 + int(r.probe_id[1:]) for r in run.records]
    run = replace(run, records=[replace(r, n_tokens=n) for r, n in zip(run.records, counts, strict=True)])
    found = answer_length(run, "base", 13)
    assert found is not None
    assert found.value == pytest.approx(np.mean([10, 11, 12, 13, 13, 13]))
    assert found.low < found.value < found.high
    stranger = answer_length(run, "trained", 100)
    assert stranger is not None
    assert stranger.value == pytest.approx(12.5)
    assert "'trained' is not in the pilot" in stranger.note


def test_memory_of_a_row_is_what_groups_are_chosen_by() -> None:
    config = {"num_hidden_layers": 7, "num_key_value_heads": 3, "head_dim": 20, "vocab_size": 1000}
    row = bytes_per_row(config, 500)
    assert row == 4 * (2 * 7 * 3 * 20 * 500 + 4 * 1000)
    for rows in (1, 5, MAX_GROUP):
        assert choose_group_size(config, 500, 2 * rows * row) == rows
