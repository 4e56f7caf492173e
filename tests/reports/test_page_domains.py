"""The page's tables by domain: only what a metric was asked of, and no interval of width zero."""

from __future__ import annotations

from dataclasses import replace

from lem.records import RunContents
from lem.records.metrics import metrics_of
from lem.reports.page_boards import Board, build_board
from made_runs import made_run

DOMAINS = ["sums", "sums", "sums", "harm", "harm", "harm"]
OF_BENCHMARK = {"sums": "gsm8k", "harm": "do_not_answer"}


def run() -> RunContents:
    """Two benchmarks; the scorer of sums has values on its own three items only, all arms alike."""
    contents = made_run(
        {"base": [1, 0, 1, 0, 0, 0], "trained": [1, 0, 1, 0, 0, 0]}, scorer="gsm8k_strict", domains=DOMAINS
    )
    probes = [{**probe, "benchmark": OF_BENCHMARK[probe["domain"]]} for probe in contents.info.probes]
    of_sums = {probe["id"] for probe in probes if probe["domain"] == "sums"}
    scores = {"gsm8k_strict": [one for one in contents.scores["gsm8k_strict"] if one.probe_id in of_sums]}
    return replace(contents, info=replace(contents.info, kind="eval", probes=probes), scores=scores)


def board() -> Board:
    contents = run()
    (metric,) = (one for one in metrics_of(contents) if one.name == "gsm8k_strict")
    return build_board(contents, metric, "base", 0.0, None)


def test_domains_of_other_benchmarks_are_not_listed() -> None:
    found = board()
    assert [domain for domain, _ in found.means] == ["sums"]
    assert [domain for domain, _ in found.changes] == ["sums"]


def test_arms_that_are_alike_on_a_domain_have_no_certain_difference() -> None:
    ((_, [(difference, _)]),) = board().changes
    assert (difference.value, difference.n) == (0.0, 3)
    assert difference.low < 0 < difference.high
