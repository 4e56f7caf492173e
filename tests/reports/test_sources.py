"""Rephrased probes: every mean and count is over source probes, tables say so, and plain runs keep their numbers."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console, RenderableType
from small_run import ARMS, DOMAINS, FAILED, MISSING, UNSCORED, SmallRun, keys, value_of

from lem.records import RunContents, RunInfo
from lem.records.cells import domains_of, join_cells, sources_of, variants_each
from lem.reports import DomainMean, LeaderboardRow, domain_means, leaderboard, tables
from lem.reports.leaderboard import probe_values
from lem.reports.page import render_page
from lem.stats import headline, paired_difference

CAPTION = "n counts source probes; 2 variants each"


def rephrased(info: RunInfo, n_sources: int = 6) -> RunInfo:
    """The same run with its 12 probes as variants of fewer sources, S00 to S05 for 6; a source stays in one domain."""
    probes = [{**probe, "source": f"S{i % n_sources:02d}"} for i, probe in enumerate(info.probes)]
    return dataclasses.replace(info, probes=probes)


def longhand(arm: str) -> dict[str, dict[str, float]]:
    """source -> variant -> mean over its scored repeats, from the fixture's rules."""
    found: dict[str, dict[str, list[float]]] = {}
    for key in keys():
        if key.arm == arm and key not in {FAILED, UNSCORED, *MISSING}:
            source = f"S{int(key.probe_id[1:]) % 6:02d}"
            found.setdefault(source, {}).setdefault(key.probe_id, []).append(value_of(key))
    return {s: {p: float(np.mean(v)) for p, v in variants.items()} for s, variants in found.items()}


def tables_of(run: SmallRun, info: RunInfo) -> tuple[list[LeaderboardRow], list[DomainMean]]:
    scores = run.scores["v2"]
    return leaderboard(info, run.records, scores), domain_means(info, run.records, scores)


def printed(renderable: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(renderable)
    return " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]


def renderings(rows: list[LeaderboardRow], means: list[DomainMean]) -> list[str]:
    return [
        printed(tables.leaderboard_rich(rows)), printed(tables.domains_rich(means)),
        tables.leaderboard_markdown(rows), tables.domains_markdown(means),
        tables.leaderboard_csv(rows), tables.domains_csv(means),
        tables.leaderboard_json(rows), tables.domains_json(means),
    ]  # fmt: skip


def test_a_probe_is_its_own_source_unless_it_names_one(run: SmallRun) -> None:
    probes = [{"id": "P1", "domain": "work"}, {"id": "P2~urgency", "domain": "work", "source": "P2"}]
    assert sources_of(dataclasses.replace(run.info, probes=probes)) == {"P1": "P1", "P2~urgency": "P2"}


def test_means_and_changes_are_over_sources(run: SmallRun) -> None:
    rows = {row.arm: row for row in tables_of(run, rephrased(run.info))[0]}
    base = longhand("base")
    for arm in ARMS:
        values = longhand(arm)
        expected = [float(np.mean(list(values[source].values()))) for source in sorted(values)]
        domains = [DOMAINS[int(source[1:]) % 3] for source in sorted(values)]
        wanted = headline(expected, domains)
        assert rows[arm].n == rows[arm].mean.n == 6
        assert rows[arm].mean.n_unscored == 0, "S05 has one variant left in arm trained"
        assert rows[arm].mean.n_clusters == 3
        found = rows[arm].mean
        assert (found.value, found.low, found.high) == pytest.approx((wanted.value, wanted.low, wanted.high))
        delta = rows[arm].delta
        if delta is None:
            assert arm == "base"
            continue
        differences = np.array(
            [np.mean([v - base[source][p] for p, v in values[source].items() if p in base[source]]) for source in base]
        )
        assert delta.difference.n == 6
        assert delta.difference.value == pytest.approx(differences.mean())
        assert (delta.improved, delta.regressed) == ((differences > 0.5).sum(), (differences < -0.5).sum())
        assert delta.improved + delta.regressed + delta.unchanged == 6
        assert delta.n_missing == (1 if arm == "trained" else 0), "a variant is missing, its source is not"


def test_a_source_without_any_variant_left_is_out_of_n(run: SmallRun) -> None:
    scores = [score for score in run.scores["v2"] if (score.arm, score.probe_id) != ("trained", "P05")]
    rows = {row.arm: row for row in leaderboard(rephrased(run.info), run.records, scores)}
    assert (rows["trained"].n, rows["trained"].mean.n_unscored, rows["trained"].n_unscored) == (5, 1, 2)
    delta = rows["trained"].delta
    assert delta is not None
    assert (delta.difference.n, delta.difference.n_unscored, delta.n_missing) == (5, 1, 2)


def test_words_are_averaged_per_source(run: SmallRun) -> None:
    row = next(row for row in tables_of(run, rephrased(run.info))[0] if row.arm == "trained")
    words: dict[str, dict[str, list[int]]] = {}
    for record in run.records:
        if record.arm == "trained" and record.response is not None:
            source = f"S{int(record.probe_id[1:]) % 6:02d}"
            words.setdefault(source, {}).setdefault(record.probe_id, []).append(len(record.response.split()))
    means = [np.mean([np.mean(counts) for counts in variants.values()]) for variants in words.values()]
    assert row.mean_words == pytest.approx(np.mean(means))


def test_domain_means_are_over_sources(run: SmallRun) -> None:
    means = {(mean.domain, mean.arm): mean for mean in tables_of(run, rephrased(run.info))[1]}
    assert len(means) == len(DOMAINS) * len(ARMS)
    for arm in ARMS:
        values = longhand(arm)
        for index, domain in enumerate(DOMAINS):
            inside = [np.mean(list(v.values())) for source, v in values.items() if int(source[1:]) % 3 == index]
            assert means[domain, arm].n == means[domain, arm].mean.n == len(inside) == 2
            assert means[domain, arm].mean.value == pytest.approx(np.mean(inside))


def test_every_rendering_says_that_sources_were_merged(run: SmallRun, tmp_path: Path) -> None:
    info = rephrased(run.info)
    for text in renderings(*tables_of(run, info)):
        assert CAPTION in text
    page = render_page(RunContents(info, run.records, run.scores), run=tmp_path)
    assert page.count(CAPTION) == 2, "under the leaderboard and under the table by domain"
    rows = tables_of(run, info)[0]
    assert {line["variants"] for line in csv.DictReader(io.StringIO(tables.leaderboard_csv(rows)))} == {"2"}
    assert {row["variants"] for row in json.loads(tables.leaderboard_json(rows))["rows"]} == {"2"}


@pytest.mark.parametrize(("n_sources", "variants"), [(12, ""), (6, "2"), (3, "4"), (9, "1 to 2")])
def test_the_number_of_variants_is_told_when_there_is_more_than_one(
    run: SmallRun, n_sources: int, variants: str
) -> None:
    assert variants_each(rephrased(run.info, n_sources)) == variants


def test_plain_runs_have_the_numbers_of_the_estimates_over_probes_to_the_bit(
    run: SmallRun, complete_run: SmallRun
) -> None:
    """The definition without sources, written out: sorted probes, their domains as clusters."""
    for each in (run, complete_run):
        rows, means = tables_of(each, each.info)
        domains = domains_of(each.info)
        cells = join_cells(each.info, each.records, each.scores["v2"])
        values = {row.arm: probe_values([cell for cell in cells if cell.key.arm == row.arm]) for row in rows}
        for row in rows:
            probes = sorted(values[row.arm])
            lost = 12 - len(probes)
            expected = headline([values[row.arm][p] for p in probes], [domains[p] for p in probes], n_unscored=lost)
            assert repr(row.mean) == repr(expected)
            if row.delta is not None:
                assert repr(row.delta) == repr(paired_difference(values[row.arm], values["base"], domains))
        for mean in means:
            inside = [value for probe, value in values[mean.arm].items() if domains[probe] == mean.domain]
            assert repr(mean.mean) == repr(headline(inside, n_unscored=4 - len(inside)))
        assert not any("source probes" in text for text in renderings(rows, means))
        assert "source probes" not in render_page(RunContents(each.info, each.records, each.scores), run=each.path)


def test_one_variant_a_source_merges_nothing(run: SmallRun) -> None:
    """A file of one kind: S00 to S11 stand for P00 to P11 in the same order, and no figure moves."""
    plain, single = tables_of(run, run.info), tables_of(run, rephrased(run.info, 12))
    assert repr(plain) == repr(single)
