"""A run as three tidy tables in Parquet, with a dataset card that `datasets.load_dataset` reads.

    FOLDER/generations.parquet   one row per planned cell: answered, failed or missing
           scores.parquet        one row per cell and scorer: scored, unscored, failed or missing
           judgements.parquet    one row per cell, judge and dimension (and order, for comparisons)
           README.md             the card, with the counts and what the columns mean

Of a run with judges the card begins with what stands against them, and the judgements have it in a further column.
A table without rows is left out, because `datasets` reads no empty one. Half surrogate pairs, which Parquet's UTF-8
cannot hold, are written as backslash escapes, and the card counts them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from string import Template
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lem.interop.judges_kept import watermark
from lem.records import Judgement, Metric, Outcome, Record, RunContents, join_cells, metrics_of
from lem.records.contaminated import contaminated_items
from lem.records.judge_files import judge_notes
from lem.records.staged import staged_folder

TABLES = ("generations", "scores", "judgements")
ANSWERED = "answered"
_ROWS_AT_ONCE = 5_000
_WATERMARK = pa.field("watermark", pa.string())
_CONTAMINATED = pa.field("contaminated", pa.list_(pa.string()))
_CARD = Path(__file__).parent / "templates" / "dataset_card.md"

_WATERMARK_ROW = "| | `watermark` | what stands against the judge, and must be said beside its verdicts |\n"

_CONTAMINATED_ROW = (
    "| | `contaminated` | the adapters and models whose training data hold the item; null: none is known to |\n"
)

_CELL = [("run", pa.string()), ("arm", pa.string()), ("probe_id", pa.string()), ("repeat", pa.int64())]
_SIGNALS = pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))
SCHEMAS = {
    "generations": pa.schema(
        [
            *_CELL,
            ("outcome", pa.string()),
            *((name, pa.string()) for name in ("model", "adapter", "domain", "benchmark", "source")),
            *((name, pa.string()) for name in ("prompt", "response", "thinking", "finish_reason")),
            ("n_prompt_tokens", pa.int64()),
            ("n_tokens", pa.int64()),
            *((name, pa.string()) for name in ("seed", "error", "fingerprint", "ts")),
        ]
    ),
    "scores": pa.schema(
        [
            *_CELL,
            ("scorer", pa.string()),
            ("version", pa.string()),
            ("outcome", pa.string()),
            ("value", pa.float64()),
            ("reason", pa.string()),
            ("signals", _SIGNALS),
        ]
    ),
    "judgements": pa.schema(
        [
            *_CELL,
            *(
                (name, pa.string())
                for name in ("judge", "model", "version", "dimension", "order", "against", "outcome")
            ),
            ("value", pa.float64()),
            ("low", pa.float64()),
            ("high", pa.float64()),
            ("n_prompt_tokens", pa.int64()),
            ("n_tokens", pa.int64()),
            ("cost", pa.float64()),
            *((name, pa.string()) for name in ("prompt_sha", "reason", "raw", "error", "ts")),
        ]
    ),
}


def write_parquet(contents: RunContents, output: Path) -> dict[str, int]:
    """Write a run's three tables and their card into a new folder, in one step.

    Returns: the number of rows per table.
    Raises: UserError if `output` is occupied or cannot be written; what `metrics_of` raises.
    """
    metrics = metrics_of(contents)
    rows = {
        "generations": _generations(contents),
        "scores": _scores(contents, metrics),
        "judgements": _judgements(contents, metrics),
    }
    with staged_folder(output) as work:
        outcomes, escaped = {}, 0
        for table in TABLES:
            file = work / f"{table}.parquet"
            outcomes[table], found = _write_table(file, _schema(contents, table), rows[table])
            escaped += found
            if not outcomes[table]:
                file.unlink()
        card = _card(contents, outcomes, escaped)
        (work / "README.md").write_text(card, encoding="utf-8", errors="backslashreplace")
    return {table: counts.total() for table, counts in outcomes.items()}


def _schema(contents: RunContents, table: str) -> pa.Schema:
    if table == "judgements" and contents.judges:
        return SCHEMAS[table].append(_WATERMARK)
    if table == "generations" and contaminated_items(contents.info.data):
        return SCHEMAS[table].append(_CONTAMINATED)
    return SCHEMAS[table]


def _write_table(path: Path, schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> tuple[Counter[str], int]:
    """Write rows in batches; returns the counts of their outcomes, and how many texts had to be escaped."""
    outcomes: Counter[str] = Counter()
    escaped = 0
    left = iter(rows)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch := list(islice(left, _ROWS_AT_ONCE)):
            escaped += sum(_escape(row) for row in batch)
            outcomes.update(row["outcome"] for row in batch)
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
    return outcomes, escaped


def _escape(row: dict[str, Any]) -> int:
    """Make every text of a row valid UTF-8; returns how many were not."""
    broken = []
    for name, value in row.items():
        if isinstance(value, str):
            try:
                value.encode("utf-8")
            except UnicodeEncodeError:
                broken.append(name)
    for name in broken:
        row[name] = row[name].encode("utf-8", "backslashreplace").decode("utf-8")
    return len(broken)


def _generations(contents: RunContents) -> Iterator[dict[str, Any]]:
    """A row per cell with the adapters that met its item, which the schema of a run without such items drops."""
    info, met = contents.info, contaminated_items(contents.info.data)
    probes = {probe["id"]: probe for probe in info.probes}
    for cell in join_cells(info, contents.records, []):
        record, probe = cell.record, probes.get(cell.key.probe_id, {})
        arm = info.arms.get(cell.key.arm, {})
        answered = cell.outcome not in (Outcome.FAILED, Outcome.MISSING)
        yield {
            **_place(info.run_id, cell.key),
            "outcome": ANSWERED if answered else str(cell.outcome),
            **{name: _text(arm.get(name)) for name in ("model", "adapter")},
            **{name: probe.get(name) or None for name in ("domain", "benchmark", "source", "prompt")},
            **_answer(record),
            _CONTAMINATED.name: met.get(cell.key.probe_id),
        }


def _answer(record: Record | None) -> dict[str, Any]:
    names = ("response", "thinking", "finish_reason", "n_prompt_tokens", "n_tokens", "error")
    found = {name: getattr(record, name) if record else None for name in names}
    blank = {name: (getattr(record, name) if record else None) or None for name in ("seed", "fingerprint", "ts")}
    return {**found, **blank}


def _text(value: Any) -> str | None:
    return None if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _place(run_id: str, key: tuple[str, str, int]) -> dict[str, Any]:
    return {"run": run_id, "arm": key[0], "probe_id": key[1], "repeat": key[2]}


def _scores(contents: RunContents, metrics: Iterable[Metric]) -> Iterator[dict[str, Any]]:
    for metric in metrics:
        if metric.source != "scorer":
            continue
        for cell in metric.cells:
            signals = cell.score.signals if cell.score else {}
            yield {
                **_place(contents.info.run_id, cell.key),
                "scorer": metric.name,
                "version": metric.version,
                "outcome": str(cell.outcome),
                "value": cell.value,
                "reason": cell.reason,
                "signals": [{"name": name, "value": value} for name, value in signals.items()],
            }


def _judgements(contents: RunContents, metrics: Iterable[Metric]) -> Iterator[dict[str, Any]]:
    """A row per verdict with its judge's watermark, which the schema of a run without judges drops."""
    marks = {judge: watermark(contents, [judge]) for judge in dict.fromkeys(one.judge for one in contents.judgements)}
    for row in _verdicts(contents, metrics):
        yield {**row, _WATERMARK.name: marks[row["judge"]]}


def _verdicts(contents: RunContents, metrics: Iterable[Metric]) -> Iterator[dict[str, Any]]:
    rated = {(j.key, j.judge, j.dimension): j for j in contents.judgements if not j.order}
    for metric in metrics:
        if metric.source == "scorer":
            continue
        dimension = metric.name.removesuffix(f" · {metric.source}")
        for cell in metric.cells:
            said = _said(rated.get((cell.key, metric.source, dimension)))
            outcome = Outcome.FAILED if said["error"] else cell.outcome
            verdict = {"outcome": str(outcome), "value": cell.value, "reason": cell.reason}
            scale = {"low": metric.low, "high": metric.high, "version": metric.version}
            rating = {"judge": metric.source, "dimension": dimension, "order": "", "against": ""}
            yield {**_place(contents.info.run_id, cell.key), **rating, **scale, **verdict, **said}
    for judgement in contents.judgements:
        if judgement.order:
            yield _comparison(contents.info.run_id, judgement)


def _said(judgement: Judgement | None) -> dict[str, Any]:
    texts = ("raw", "error", "ts", "model", "prompt_sha")
    found: dict[str, Any] = {name: (getattr(judgement, name) if judgement else None) or None for name in texts}
    return found | {name: getattr(judgement, name, None) for name in ("n_prompt_tokens", "n_tokens", "cost")}


def _comparison(run_id: str, judgement: Judgement) -> dict[str, Any]:
    reason = judgement.unscored or judgement.error
    scored = reason is None and judgement.value is not None
    return {
        **_place(run_id, judgement.key),
        **{
            name: getattr(judgement, name)
            for name in ("judge", "version", "dimension", "order", "against", "low", "high")
        },
        "outcome": str(Outcome.SCORED if scored else Outcome.FAILED if judgement.error else Outcome.UNSCORED),
        "value": judgement.value if scored else None,
        "reason": None if scored else reason or "no value and no reason stored",
        **_said(judgement),
    }


def _contamination(contents: RunContents) -> list[str]:
    held = {probe["id"] for probe in contents.info.probes} & contaminated_items(contents.info.data).keys()
    if not held:
        return []
    return [f"CONTAMINATED: weights of this run were trained on {len(held)} of its items; see `contaminated`."]


def _card(contents: RunContents, outcomes: dict[str, Counter[str]], escaped: int) -> str:
    info = contents.info
    lines = ["| table | rows | outcomes |", "|---|---|---|"]
    for table, counts in outcomes.items():
        shown = ", ".join(f"{n:,} {outcome}" for outcome, n in sorted(counts.items())) or "none"
        lines.append(f"| {table} | {counts.total():,} | {shown} |")
    arms = [f"- `{arm}`: {_text(facts.get('model')) or 'model not known'}" for arm, facts in info.arms.items()]
    notes, judges = list(contents.notes), judge_notes(contents.judges, contents.audits)
    if escaped:
        notes.append(f"{escaped} texts hold half surrogate pairs; they are written as backslash escapes.")
    listed = "\n".join(["", "## Notes", "", *(f"- {note}" for note in notes)]) if notes else ""
    title = f"LEM run {info.run_id}"
    configs = [f"- config_name: {t}\n  data_files: {t}.parquet" for t, counts in outcomes.items() if counts]
    return Template(_CARD.read_text(encoding="utf-8")).substitute(
        pretty_name=json.dumps(title),
        configs="\n".join(configs),
        title=title,
        watermarks="".join(f"\n**{note}**\n" for note in (*_contamination(contents), *judges)),
        contaminated_column=_CONTAMINATED_ROW if contaminated_items(info.data) else "",
        watermark_column=_WATERMARK_ROW if contents.judges else "",
        counts="\n".join(lines),
        arms="\n".join(arms),
        notes=listed,
    )
