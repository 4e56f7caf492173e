"""The four renderings: 80 columns hold, machine formats parse back to the same numbers, notices are everywhere."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math

import pytest
from rich.console import Console, RenderableType
from small_run import SmallRun

from lem.reports import domain_means, formats, leaderboard, tables
from lem.reports.formats import TOY_NOTICE
from lem.reports.leaderboard import LeaderboardRow
from lem.stats import Estimate


def rows_of(run: SmallRun) -> list[LeaderboardRow]:
    return leaderboard(run.info, run.records, run.scores["v2"])


def printed(renderable: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def wide_rows(run: SmallRun) -> list[LeaderboardRow]:
    """The widest plausible numbers: five-digit counts, two-digit negative scores, long arm names."""
    wide = []
    for row in rows_of(run):
        mean = dataclasses.replace(row.mean, value=-12.34, low=-15.55, high=-11.11)
        delta = row.delta and dataclasses.replace(row.delta, improved=101, regressed=100, unchanged=999)
        wide.append(dataclasses.replace(row, n=88000, n_unscored=12, n_failed=101, mean=mean, delta=delta,
                                        mean_words=1024.4, arm=f"placebo-json-{row.arm}"))  # fmt: skip
    return wide


@pytest.mark.parametrize("wide", [False, True])
def test_leaderboard_fits_80_columns_uncut(run: SmallRun, wide: bool) -> None:
    rows = wide_rows(run) if wide else rows_of(run)
    text = printed(tables.leaderboard_rich(rows))
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "…" not in text
    for row in rows:
        assert formats.interval(row.mean) in text
        if row.delta:
            assert formats.interval(row.delta.difference, signed=True) in text
            assert formats.number(row.delta.difference.value, signed=True) in text
            changes = (row.delta.improved, row.delta.regressed, row.delta.unchanged)
            assert all(str(change) in text for change in changes)
        assert str(row.n) in text
    assert text.count("[low, high]") == 2
    assert text.startswith("model: models/lem-nano")


def test_brackets_in_names_are_text_and_not_markup(run: SmallRun) -> None:
    rows = [dataclasses.replace(row, arm="[red]x") for row in rows_of(run)]
    means = domain_means(run.info, run.records, run.scores["v2"])
    means = [dataclasses.replace(mean, arm="[red]x", domain="[bold]") for mean in means]
    assert "[red]x" in printed(tables.leaderboard_rich(rows))
    assert "[bold]" in printed(tables.domains_rich(means))
    assert "[red]x" in printed(tables.domains_rich(means))


def test_leaderboard_shows_all_counts_and_the_legend(run: SmallRun) -> None:
    flat = " ".join(printed(tables.leaderboard_rich(rows_of(run))).split())
    assert "1/0/0" in flat
    assert "0/1/0" in flat
    assert "0/0/2" in flat
    assert "span t, BCa and bootstrap-t over probes and CR2 t over domains" in flat
    assert "n counts probes" in flat


def test_domain_table_fits_80_columns(run: SmallRun) -> None:
    means = domain_means(run.info, run.records, run.scores["v2"])
    text = printed(tables.domains_rich(means))
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert all(formats.interval(mean.mean) in text for mean in means)


def test_every_rendering_of_a_lem_nano_run_carries_the_notice(run: SmallRun) -> None:
    rows, means = rows_of(run), domain_means(run.info, run.records, run.scores["v2"])
    renderings = [
        printed(tables.leaderboard_rich(rows), 120), printed(tables.domains_rich(means), 120),
        tables.leaderboard_markdown(rows), tables.domains_markdown(means),
        tables.leaderboard_csv(rows), tables.domains_csv(means),
        tables.leaderboard_json(rows), tables.domains_json(means),
    ]  # fmt: skip
    assert all(TOY_NOTICE in text for text in renderings)


def test_other_models_carry_no_toy_notice(complete_run: SmallRun) -> None:
    rows = rows_of(complete_run)
    assert TOY_NOTICE not in tables.leaderboard_markdown(rows) + tables.leaderboard_json(rows)
    assert "model: big-model" in printed(tables.leaderboard_rich(rows))


def test_models_are_named_per_arm_when_they_differ() -> None:
    assert formats.models_line([("base", "a"), ("json", "a"), ("t", "b")]) == "models: a (base, json); b (t)"


def test_markdown_parses_back(run: SmallRun) -> None:
    rows = rows_of(run)
    lines = [line for line in tables.leaderboard_markdown(rows).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {len(line) for line in cells} == {15}
    for row, line in zip(rows, cells[2:], strict=True):
        assert line[0].split(" ")[0] == row.arm
        assert [int(cell) for cell in line[2:6]] == [row.n, row.n_unscored, row.n_failed, row.n_missing]
        assert float(line[6]) == pytest.approx(row.mean.value, abs=0.005)


def test_markdown_escapes_pipes(run: SmallRun) -> None:
    rows = [dataclasses.replace(row, arm="a|b") for row in rows_of(run)]
    assert "a\\|b" in tables.leaderboard_markdown(rows)


def test_csv_parses_back_at_full_precision(run: SmallRun) -> None:
    rows = rows_of(run)
    parsed = list(csv.DictReader(io.StringIO(tables.leaderboard_csv(rows))))
    for row, line in zip(rows, parsed, strict=True):
        assert (line["arm"], line["model"], int(line["n_missing"])) == (row.arm, row.model, row.n_missing)
        assert float(line["mean"]) == row.mean.value
        assert float(line["mean_low"]) == row.mean.low
        if row.delta:
            assert float(line["delta_high"]) == row.delta.difference.high
            assert int(line["improved"]) == row.delta.improved
        else:
            assert line["delta"] == line["improved"] == ""


def test_json_is_strict_and_keeps_estimates_as_objects(run: SmallRun) -> None:
    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    text = tables.leaderboard_json(leaderboard(run.info, run.records, []))
    assert json.loads(text, parse_constant=refuse)["rows"][0]["mean"]["value"] is None
    rows = rows_of(run)
    parsed = json.loads(tables.leaderboard_json(rows), parse_constant=refuse)
    for row, entry in zip(rows, parsed["rows"], strict=True):
        assert Estimate(**entry["mean"]) == row.mean
        assert entry["arm"] == row.arm
        assert (entry["delta"] is None) == (row.delta is None)
        if row.delta:
            assert Estimate(**entry["delta"]["difference"]) == row.delta.difference


def test_empty_tables_render() -> None:
    for text in (
        printed(tables.leaderboard_rich([])), tables.leaderboard_markdown([]), tables.leaderboard_csv([]),
        tables.leaderboard_json([]), tables.domains_markdown([]), tables.domains_csv([]),
    ):  # fmt: skip
        assert text


def test_number_formats() -> None:
    assert formats.number(-0.001) == "0.00"
    assert formats.number(0.5, signed=True) == "+0.50"
    assert formats.number(0.001, signed=True) == "0.00"
    assert formats.number(math.nan) == formats.number(None) == "-"
    assert [formats.percent(share) for share in (0, 0.001, 0.5, 0.999, 1, math.nan)] == [
        "0%", "<1%", "50%", ">99%", "100%", "-",
    ]  # fmt: skip
