"""The page's tables by domain: only what a metric was asked of, and no interval of width zero."""

from __future__ import annotations

import math
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


def board(contents: RunContents, name: str = "gsm8k_strict") -> Board:
    (metric,) = (one for one in metrics_of(contents) if one.name == name)
    return build_board(contents, metric, "base", 0.0, None)


def test_domains_of_other_benchmarks_are_not_listed() -> None:
    found = board(run())
    assert [domain for domain, _ in found.means] == ["sums"]
    assert [domain for domain, _ in found.changes] == ["sums"]


def test_arms_that_are_alike_on_a_domain_have_no_certain_difference() -> None:
    ((_, [(difference, _)]),) = board(run()).changes
    assert (difference.value, difference.n) == (0.0, 3)
    assert difference.low < 0 < difference.high


def test_where_no_scale_has_ends_equal_values_have_no_interval() -> None:
    found = board(made_run({"base": [1, 1, 2], "trained": [2, 2, 3]}, domains=["one", "one", "two"]), "v3")
    change, mean = found.changes[0][1][0][0], found.means[0][1][0][0].mean
    assert (change.value, change.n, mean.value, mean.n) == (1.0, 2, 1.0, 2)
    assert all(math.isnan(end) for end in (change.low, change.high, mean.low, mean.high))
