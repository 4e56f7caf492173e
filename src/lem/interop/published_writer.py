"""Write a run in the published A/B format, so that tools made for published results can read ours."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lem.errors import DataError
from lem.records import Key, Record, RunInfo, Score, write_atomic

BASE = "base"
PUBLISHED_BASE = "baseline"
# A probe counts as improved or regressed when its v2 score moves by more than this, as in the published runs.
CHANGE = 0.5


@dataclass(frozen=True)
class _Table:
    """A run as the A/B format sees it: repeat 0 only, cells by (arm, probe), arms with the base first."""

    info: RunInfo
    arms: list[str]
    cells: dict[tuple[str, str], Record]
    scores: dict[tuple[str, str], Score]

    def value(self, arm: str, probe_id: str) -> float | None:
        score = self.scores.get((arm, probe_id))
        return None if score is None or score.value is None or math.isnan(score.value) else score.value

    def values(self, arm: str, probe_ids: Sequence[str]) -> list[float]:
        found = (self.value(arm, probe_id) for probe_id in probe_ids)
        return [value for value in found if value is not None]


def write_ab(path: Path, info: RunInfo, records: Sequence[Record], scores_by_key: Mapping[Key, Score]) -> None:
    """Write a run in the published A/B format, in one step: a line per probe in probe order, then the summary.

    The format has one response per probe and condition: of a run with several repeats it holds repeat 0, and the
    summary's `repeats` says how many there were. Arm 'base' is written as 'baseline'. A failed row has response
    null and its error; an unscored one has lek_score null and the reason under `unscored`. Probes without any
    record have no line, while `total_probes` counts all of the plan. `time_s` is null, because rows are decoded
    together; `duration` is the time from the first record to the last. `delta_vs_baseline` is the mean difference
    over probes scored in both arms. `finish_reason` and `thinking` are added where a record has them. Lone
    surrogates become JSON escapes, so that the file is valid UTF-8.

    Args:  scores_by_key: v2 scores; a record without one is written unscored.
    Raises: DataError if an arm is named 'baseline'; ValueError for a score of another scorer, or a record of a
    probe that the run does not have.
    """
    known = {probe["id"] for probe in info.probes}
    strangers = sorted({record.probe_id for record in records} - known)
    if strangers:
        raise ValueError(f"records of probes that the run does not have: {', '.join(strangers[:5])}")
    others = {score.scorer for score in scores_by_key.values()} - {"v2"}
    if others:
        raise ValueError(f"the published format holds v2 scores, not {', '.join(sorted(others))}")
    order = dict.fromkeys([BASE, *info.arms, *(record.arm for record in records)])
    if PUBLISHED_BASE in order:
        raise DataError(
            f"{path}: the published format calls the arm '{BASE}' '{PUBLISHED_BASE}', and this run has an arm named "
            f"'{PUBLISHED_BASE}'; give that arm another name."
        )
    cells = {(record.arm, record.probe_id): record for record in records if record.repeat == 0}
    scores = {(key.arm, key.probe_id): score for key, score in scores_by_key.items() if key.repeat == 0}
    table = _Table(info, [arm for arm in order if any(cell[0] == arm for cell in cells)], cells, scores)
    rows = [_probe_row(table, probe) for probe in info.probes]
    lines = [_dump(row) for row in [*(row for row in rows if row["conditions"]), _summary(table, records)]]
    write_atomic(path, "".join(lines))


def _dump(row: dict[str, Any]) -> str:
    line = json.dumps(row, ensure_ascii=False, allow_nan=False)
    if any("\ud800" <= character <= "\udfff" for character in line):
        line = json.dumps(row, ensure_ascii=True, allow_nan=False)
    return line + "\n"


def _published_name(arm: str) -> str:
    return PUBLISHED_BASE if arm == BASE else arm


def _probe_row(table: _Table, probe: dict[str, str]) -> dict[str, Any]:
    found = [(arm, table.cells[arm, probe["id"]]) for arm in table.arms if (arm, probe["id"]) in table.cells]
    conditions = {
        _published_name(arm): _cell(record, table.scores.get((arm, probe["id"])), table.value(arm, probe["id"]))
        for arm, record in found
    }
    return {
        "type": "probe",
        "id": probe["id"],
        "category": probe["domain"],
        "prompt": probe["prompt"],
        **({"source": probe["source"]} if probe.get("source") else {}),
        "conditions": conditions,
        "ts": max((record.ts for _, record in found), default=""),
    }


def _cell(record: Record, score: Score | None, value: float | None) -> dict[str, Any]:
    if record.failed or record.response is None:
        empty: dict[str, Any] = {"response": None, "lek_score": None, "heuristic": {}, "chars": None, "time_s": None}
        return {**empty, "error": record.error or "no response was stored"}
    cell: dict[str, Any] = {
        "response": record.response,
        "lek_score": value,
        "heuristic": {**score.signals, "lek_score": value} if score and value is not None else {},
        "chars": len(record.response),
        "time_s": None,
    }
    optional = {"finish_reason": record.finish_reason, "thinking": record.thinking}
    cell.update({name: text for name, text in optional.items() if text is not None})
    if value is None:
        cell["unscored"] = (score.unscored if score else None) or "not scored"
    return cell


def _summary(table: _Table, records: Sequence[Record]) -> dict[str, Any]:
    info = table.info
    by_domain: dict[str, list[str]] = {}
    for probe in info.probes:
        by_domain.setdefault(probe["domain"], []).append(probe["id"])
    categories = {
        domain: {_published_name(arm): _mean(table.values(arm, probe_ids)) for arm in table.arms}
        for domain, probe_ids in by_domain.items()
    }
    first = table.arms[0] if table.arms else BASE
    return {
        "type": "summary",
        "model": info.arms.get(first, {}).get("model"),
        "total_probes": len(info.probes),
        "conditions": [_condition(table, arm) for arm in table.arms],
        "categories": categories,
        "duration": _duration([record.ts for record in records]),
        "max_tokens": info.settings.get("max_tokens"),
        "repeats": 1 + max((record.repeat for record in records), default=0),
        "ts": max((record.ts for record in records), default=""),
    }


def _condition(table: _Table, arm: str) -> dict[str, Any]:
    probe_ids = [probe["id"] for probe in table.info.probes]
    changes = []
    for probe_id in probe_ids:
        treated, base = table.value(arm, probe_id), table.value(BASE, probe_id)
        if arm != BASE and treated is not None and base is not None:
            changes.append(treated - base)
    improved, regressed = sum(change > CHANGE for change in changes), sum(change < -CHANGE for change in changes)
    records = [table.cells[arm, probe_id] for probe_id in probe_ids if (arm, probe_id) in table.cells]
    n_failed, n_scored = sum(record.failed for record in records), len(table.values(arm, probe_ids))
    return {
        "name": _published_name(arm),
        "model": table.info.arms.get(arm, {}).get("model"),
        "avg_lek": _mean(table.values(arm, probe_ids)),
        "delta_vs_baseline": 0.0 if arm == BASE else _mean(changes),
        "improved": improved,
        "regressed": regressed,
        "unchanged": len(changes) - improved - regressed,
        "n_scored": n_scored,
        "n_unscored": len(records) - n_failed - n_scored,
        "n_failed": n_failed,
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 2) if values else None


def _duration(stamps: Sequence[str]) -> str | None:
    try:
        times = [datetime.fromisoformat(stamp) for stamp in stamps]
        return f"{(max(times) - min(times)).total_seconds():.0f}s"
    except (ValueError, TypeError):  # no records, a record without a time, or times with and without a zone
        return None
