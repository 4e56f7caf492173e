"""Pairwise judging from the command line: ask in both orders, print the win rates that are written to the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lem.cli.judge_options import JudgeOptions
from lem.cli.options import print_json

if TYPE_CHECKING:
    from lem.judges.grade import Graded


def compare_arms(
    run: Path, options: JudgeOptions, baseline: str, treatments: Sequence[str], tasks: Sequence[str] = ()
) -> list[Graded]:
    """Have every judge compare the baseline with each treatment, and write the win rates."""
    from lem.cli.judging import with_judges
    from lem.judges.conduct import judge_pairs
    from lem.judges.pairwise.results import write_pair_results

    try:
        return with_judges(run, options, lambda judge, how: judge_pairs(run, judge, how, baseline, treatments, tasks))
    finally:
        write_pair_results(run)


def print_win_rates(run: Path, as_json: bool) -> None:
    """Print the stored win rates of a run."""
    from rich.console import Console

    from lem.records.contents import read_contents
    from lem.records.judge_files import read_pair_results
    from lem.reports.watermarks import contamination, sentences_of, watermarks
    from lem.reports.win_rate_table import win_rates_rich

    rates, contents = read_pair_results(run), read_contents(run)
    judges = dict.fromkeys(str(rate["judge"]) for rate in rates)
    found = [mark for judge in judges for mark in watermarks(contents, judge)]
    compared = {one.probe_id for one in contents.judgements if one.order}
    marks = sentences_of([*found, *contamination(contents.info, compared, "the comparisons")])
    if as_json:
        print_json({"watermarks": marks, "win_rates": rates})
        return
    Console().print(win_rates_rich(rates, marks))
