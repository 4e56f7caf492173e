"""Scores by rule of a run's answers: one file of scores per scorer, made anew each time from records and items."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from lem.benchmarks.table import scorers_of
from lem.data.items import Item, read_run_items
from lem.errors import DataError, UserError
from lem.records import Record, Score, read_run, text_sha, write_atomic
from lem.scorers import refusal
from lem.scorers.passes import TRUNCATED
from lem.scorers.result import ScoreResult

# Version of each rule: raised with every change that can change a value, so that no table mixes two rules.
VERSIONS = {
    "gsm8k_strict": "1.1",
    "gsm8k_flexible": "1.1",
    "truthfulqa_mc1": "1.0",
    "truthfulqa_mc2": "1.1",
    "over_refusal": refusal.VERSION,
    "unsafe_refusal": refusal.VERSION,
}


def score_item(scorer: str, item: Item, record: Record) -> ScoreResult:
    """Score one answer by one of the scorers of its item's benchmark.

    An answer cut off by the token limit before its thinking ended is unscored, as for every other scorer.
    Raises: UserError for a scorer that this benchmark does not have; ValueError for a failed record.
    """
    known = scorers_of(item.benchmark)
    if scorer not in known:
        raise UserError(f"{item.benchmark} has no scorer '{scorer}'; it has {', '.join(known) or 'none'}.")
    if record.response is None:
        raise ValueError(f"record {tuple(record.key)} has no answer to score")
    if record.thinking is not None and record.response == "" and record.finish_reason == "length":
        return ScoreResult(None, {}, TRUNCATED)
    return known[scorer](item, record)


def score_records(records: Iterable[Record], items: dict[str, Item]) -> dict[str, list[Score]]:
    """The scores of all answered records by scorer, in the order of the records; failed ones have none.

    Raises: DataError for a record whose item is not among the items.
    """
    scored: dict[str, list[Score]] = {}
    for record in records:
        item = items.get(record.probe_id)
        if item is None:
            raise DataError(f"no item '{record.probe_id}' beside its answer; restore items.jsonl from a copy.")
        if record.response is None:
            continue
        for name in scorers_of(item.benchmark):
            result = score_item(name, item, record)
            scored.setdefault(name, []).append(_row(name, record, record.response, result))
    return scored


def score_benchmarks(run: Path) -> dict[str, list[Score]]:
    """Score a run by the rules of its benchmarks and replace `scores/<scorer>.jsonl`, in one step each.

    Raises: DataError for an unreadable run, or for answers without their items.
    """
    _, records = read_run(run)
    scored = score_records(records, read_run_items(run))
    for name, scores in scored.items():
        lines = [json.dumps(score.to_row(), ensure_ascii=False, allow_nan=False) + "\n" for score in scores]
        write_atomic(run / "scores" / f"{name}.jsonl", "".join(lines))
    return scored


def _row(scorer: str, record: Record, response: str, result: ScoreResult) -> Score:
    return Score(
        arm=record.arm,
        probe_id=record.probe_id,
        repeat=record.repeat,
        scorer=scorer,
        version=VERSIONS[scorer],
        value=result.value,
        signals=result.signals,
        unscored=result.unscored,
        record_sha=text_sha(response),
    )
