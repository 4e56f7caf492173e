"""The leaderboard's numbers against longhand numpy, and its counts against what the fixture put where."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats as sps
from small_run import ARMS, DOMAINS, FAILED, MISSING, N_PROBES, TRUNCATED, UNSCORED, SmallRun, keys, probe_id, value_of

from lem.errors import DataError, UserError
from lem.records import Score
from lem.records.cells import NOT_SCORED, STALE, Outcome, join_cells
from lem.reports import LeaderboardRow, domain_means, leaderboard
from lem.stats import headline


def longhand(arm: str) -> dict[str, float]:
    """Mean over scored repeats per probe, from the fixture's rules and not from the store."""
    out = {FAILED, UNSCORED, *MISSING}
    found: dict[str, list[float]] = {}
    for key in keys():
        if key.arm == arm and key not in out:
            found.setdefault(key.probe_id, []).append(value_of(key))
    return {probe: float(np.mean(values)) for probe, values in found.items()}


def rows_of(run: SmallRun, **options: object) -> dict[str, LeaderboardRow]:
    return {row.arm: row for row in leaderboard(run.info, run.records, run.scores["v2"], **options)}  # type: ignore[arg-type]


def test_means_average_repeats_per_probe_first(run: SmallRun) -> None:
    rows = rows_of(run)
    for arm in ARMS:
        values = np.array(list(longhand(arm).values()))
        assert rows[arm].mean.value == pytest.approx(values.mean())
        assert rows[arm].n == rows[arm].mean.n == len(values)
        assert rows[arm].n_repeats == 2
    assert rows["trained"].n == N_PROBES - 1
    assert rows["trained"].mean.n_unscored == 1


def test_intervals_take_the_domains_as_clusters(run: SmallRun) -> None:
    values = longhand("json")
    domains = [DOMAINS[int(probe[1:]) % 3] for probe in values]
    row = rows_of(run)["json"]
    expected = headline(list(values.values()), domains)
    assert (row.mean.method, row.mean.n_clusters) == (expected.method, 3)
    assert row.mean.low == pytest.approx(expected.low)
    assert row.mean.high == pytest.approx(expected.high)
    # CR2 by hand: residual sums per domain, inflated by 1 / (1 - share of the domain), t with G - 1 = 2.
    array, labels = np.array(list(values.values())), np.array(domains)
    residual = array - array.mean()
    variance = sum(residual[labels == d].sum() ** 2 / (1 - np.mean(labels == d)) for d in DOMAINS) / len(array) ** 2
    half = sps.t.ppf(0.975, 2) * math.sqrt(variance)
    assert row.mean.high - row.mean.low >= 2 * half - 1e-9


def test_delta_is_paired_per_probe(run: SmallRun) -> None:
    rows = rows_of(run)
    base = longhand("base")
    for arm in ("json", "trained"):
        treated = longhand(arm)
        shared = [probe for probe in base if probe in treated]
        differences = np.array([treated[probe] - base[probe] for probe in shared])
        delta = rows[arm].delta
        assert delta is not None
        assert delta.difference.value == pytest.approx(differences.mean())
        assert delta.difference.n == len(shared)
        assert delta.improved == int((differences > 0.5).sum())
        assert delta.regressed == int((differences < -0.5).sum())
        assert delta.improved + delta.regressed + delta.unchanged == len(shared)
        assert rows[arm].baseline == "base"
    assert rows["base"].delta is None
    assert rows["base"].baseline is None
    trained = rows["trained"].delta
    assert trained is not None
    assert trained.n_missing == 1


def test_threshold_moves_probes_between_changed_and_unchanged(run: SmallRun) -> None:
    strict, loose = rows_of(run, threshold=0.0)["json"].delta, rows_of(run, threshold=100.0)["json"].delta
    assert strict is not None
    assert loose is not None
    assert strict.improved > 0
    assert (loose.improved, loose.regressed, loose.unchanged) == (0, 0, N_PROBES)


def test_unscored_failed_and_missing_never_merge(run: SmallRun) -> None:
    rows = rows_of(run)
    counts = {arm: (row.n_unscored, row.n_failed, row.n_missing) for arm, row in rows.items()}
    assert counts == {"base": (1, 0, 0), "json": (0, 1, 0), "trained": (0, 0, 2)}


def test_truncated_share_and_words_cover_answers_only(run: SmallRun) -> None:
    rows = rows_of(run)
    assert rows["json"].truncated.n == 2 * N_PROBES - 1
    assert rows["json"].truncated.value == pytest.approx(1 / (2 * N_PROBES - 1))
    assert rows["base"].truncated.value == 0
    words: dict[str, list[int]] = {}
    for record in run.records:
        if record.arm == TRUNCATED.arm and record.response is not None:
            words.setdefault(record.probe_id, []).append(len(record.response.split()))
    expected = np.mean([np.mean(counts) for counts in words.values()])
    assert rows["json"].mean_words == pytest.approx(expected)


def test_unknown_endings_are_not_counted_as_complete(run: SmallRun) -> None:
    imported = [dataclasses.replace(record, finish_reason=None) for record in run.records]
    rows = leaderboard(run.info, imported, run.scores["v2"])
    assert all(math.isnan(row.truncated.value) and row.truncated.n == 0 for row in rows)


def test_rows_come_best_first_and_empty_arms_last(run: SmallRun) -> None:
    rows = leaderboard(run.info, run.records, [s for s in run.scores["v2"] if s.arm != "json"])
    assert [row.arm for row in rows] == ["base", "trained", "json"]
    assert math.isnan(rows[-1].mean.value)
    assert rows[-1].n == 0
    assert rows[-1].n_unscored == 2 * N_PROBES - 1
    assert rows[-1].n_failed == 1


def test_named_baseline_and_no_baseline(run: SmallRun) -> None:
    assert rows_of(run, baseline="json")["base"].baseline == "json"
    assert rows_of(run, baseline="json")["json"].delta is None
    info = dataclasses.replace(run.info, arms={arm: run.info.arms[arm] for arm in ("json", "trained")}, groups={})
    records = [record for record in run.records if record.arm != "base"]
    rows = leaderboard(info, records, [score for score in run.scores["v2"] if score.arm != "base"])
    assert [row.delta for row in rows] == [None, None]


def test_unknown_baseline_lists_the_arms(run: SmallRun) -> None:
    with pytest.raises(UserError, match=r"nobase.*base, json, trained"):
        leaderboard(run.info, run.records, run.scores["v2"], baseline="nobase")


def test_other_weights_are_flagged_and_still_paired(run: SmallRun) -> None:
    rows = rows_of(run)
    assert (rows["trained"].note, rows["json"].note, rows["base"].note) == ("other weights", "", "")
    assert rows["trained"].delta is not None


def test_no_scores_gives_rows_without_values(run: SmallRun) -> None:
    rows = leaderboard(run.info, run.records, [])
    assert all(math.isnan(row.mean.value) for row in rows)
    assert {row.arm: row.n_failed for row in rows}["json"] == 1


def test_an_answer_that_changed_since_scoring_is_unscored(run: SmallRun) -> None:
    changed = dataclasses.replace(run.records[0], response="Another answer.")
    cells = join_cells(run.info, [changed, *run.records[1:]], run.scores["v2"])
    cell = next(cell for cell in cells if cell.key == changed.key)
    assert (cell.outcome, cell.reason, cell.value) == (Outcome.UNSCORED, STALE, None)


def test_an_answer_without_a_score_is_unscored(run: SmallRun) -> None:
    first = run.scores["v2"][0]
    cells = join_cells(run.info, run.records, run.scores["v2"][1:])
    cell = next(cell for cell in cells if cell.key == first.key)
    assert (cell.outcome, cell.reason) == (Outcome.UNSCORED, NOT_SCORED)


def test_groups_decide_what_was_planned(run: SmallRun) -> None:
    groups = {"base/r0/g000": {"arm": "base", "repeat": 0, "probes": [probe_id(0), "P99"]}}
    cells = join_cells(dataclasses.replace(run.info, groups=groups), run.records, [])
    assert [cell.key.probe_id for cell in cells if cell.outcome is Outcome.MISSING] == ["P99"]


def test_scores_of_strangers_or_two_versions_are_refused(run: SmallRun) -> None:
    stranger = Score("json", "P77", 0, "v2", "v2.1", 1.0, {})
    with pytest.raises(DataError, match=r"P77.*lem score"):
        leaderboard(run.info, run.records, [*run.scores["v2"], stranger])
    mixed = [dataclasses.replace(run.scores["v2"][0], version="v2.0"), *run.scores["v2"][1:]]
    with pytest.raises(DataError, match=r"v2\.0, v2\.1"):
        leaderboard(run.info, run.records, mixed)
    with pytest.raises(ValueError, match="more than one scorer"):
        leaderboard(run.info, run.records, [*run.scores["v2"], *run.scores["v3"]])


def test_domain_means_against_numpy(run: SmallRun) -> None:
    means = {(mean.domain, mean.arm): mean for mean in domain_means(run.info, run.records, run.scores["v2"])}
    assert len(means) == len(DOMAINS) * len(ARMS)
    for arm in ARMS:
        values = longhand(arm)
        for index, domain in enumerate(DOMAINS):
            inside = [value for probe, value in values.items() if int(probe[1:]) % 3 == index]
            assert means[domain, arm].n == len(inside)
            assert means[domain, arm].mean.value == pytest.approx(np.mean(inside))
            assert means[domain, arm].mean.low < np.mean(inside) < means[domain, arm].mean.high
