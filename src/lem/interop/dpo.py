"""Preference pairs for DPO from a scored run: one JSON object a line, in the conversational form that trainers read.

    {"prompt": [user message], "chosen": [assistant message], "rejected": [assistant message], "metric", "margin",
     "arms": [chosen's, rejected's], "repeats", "values", "run", "probe_id", "evaluation_probe"}

and "watermark" where something stands against the judge behind the metric. The prompt is the probe alone, without a
kernel that an arm put before it: the pair teaches to answer so unprompted.
A pair is made only of two answers that are both scored, whole, and apart by at least the margin; of a judge's
comparisons only where every judge gave the same verdict in both orders. A model that was trained on evaluation probes
can no longer be evaluated with them, so a run over probes is refused unless the caller insists, and then every row
says so.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lem.errors import UserError
from lem.interop.judges_kept import watermark
from lem.records import Judgement, Key, Metric, Record, RunContents, metrics_of, write_atomic
from lem.records.model import LIKELIHOOD

# Runs of these kinds answer training prompts; every other run answers probes, or items that may be some.
TRAINING_KINDS = ("distill",)
WIN, LOSS = 1.0, 0.0
_NOT_WHOLE = ("length", LIKELIHOOD)  # measured choices are no answer

UNSCORED = "not both scored"
CLOSE = "closer than the margin"
REVERSED = "the rejected arm was better"
INCONSISTENT = "not the same verdict in both orders"
UNUSABLE = "truncated, empty, identical or not valid text"
NO_PROMPT = "the prompt is not known"


@dataclass(frozen=True)
class PairCounts:
    """How many pairs were written, and how many candidates were left out for which reason."""

    written: int
    left_out: Mapping[str, int]


@dataclass(frozen=True)
class _Pair:
    """Two answers in order of preference with their values (None for a comparison)."""

    chosen: Record
    rejected: Record
    values: tuple[float, float] | None


def write_pairs(
    contents: RunContents,
    output: Path,
    *,
    metric: str,
    margin: float | None = None,
    chosen: str | None = None,
    rejected: str | None = None,
    lower_is_better: bool = False,
    allow_probes: bool = False,
) -> PairCounts:
    """Write the pairs of a run into a new file.

    Args:  metric: a scorer, a judged dimension, or the dimension of a judge's comparisons.
           margin: least difference of the two values, more than 0; None only for comparisons.
           chosen, rejected: arms, paired by probe and repeat; without them the best and the worst repeat of each
           probe within each arm are paired. A comparison is stored under one arm, and its value says whether that
           arm's answer won (1), lost (0) or neither, whatever the order was: give that arm and the other as
           `chosen` and `rejected`; either may win a pair.
    Raises: UserError if the run answers evaluation probes and `allow_probes` is not set, for an unknown metric or
    arm, an impossible margin, an existing `output`, or when no pair is left; nothing is written then.
    """
    probes = contents.info.kind not in TRAINING_KINDS
    _refuse(contents, output, probes and not allow_probes)
    arms = _arms(contents, chosen, rejected)
    left_out: Counter[str] = Counter()
    metrics = {one.name: one for one in metrics_of(contents)}
    pairs = _pairs(contents, metrics, metric, margin, arms, -1 if lower_is_better else 1, left_out)
    marked = _watermark(contents, metrics, metric)
    prompts = {probe["id"]: probe.get("prompt", "") for probe in contents.info.probes}
    lines = []
    for pair in pairs:
        prompt = prompts.get(pair.chosen.probe_id, "")
        reason = _fault(pair, prompt)
        if reason:
            left_out[reason] += 1
            continue
        row = {**_row(pair, prompt, metric, probes), **marked}
        lines.append(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
    if not lines:
        shown = "; ".join(f"{n} {reason}" for reason, n in left_out.items()) or "nothing was judged"
        raise UserError(f"no pair of the run {contents.info.run_id} qualifies by '{metric}' ({shown}).")
    write_atomic(output, "".join(lines))
    return PairCounts(len(lines), dict(left_out))


def _watermark(contents: RunContents, metrics: Mapping[str, Metric], metric: str) -> dict[str, str]:
    """What stands against the judges behind a metric, as a field; {} where nothing does."""
    sources = [metrics[metric].source] if metric in metrics else []
    if not sources:
        sources = [one.judge for one in contents.judgements if one.order and one.dimension == metric]
    against = watermark(contents, sources)
    return {"watermark": against} if against else {}


def _refuse(contents: RunContents, output: Path, on_probes: bool) -> None:
    if output.exists():
        raise UserError(f"{output} exists; choose a new --output, nothing was touched.")
    if on_probes:
        raise UserError(
            f"the run {contents.info.run_id} answers evaluation probes, and a model that was trained on them can no "
            "longer be evaluated with them; make pairs from answers to training prompts, or allow probes explicitly, "
            "which every row will say."
        )


def _arms(contents: RunContents, chosen: str | None, rejected: str | None) -> tuple[str, str] | None:
    if chosen is None and rejected is None:
        return None
    if chosen is None or rejected is None or chosen == rejected:
        raise UserError("pairs between arms need two different arms, one chosen and one rejected; or give neither.")
    for arm in (chosen, rejected):
        if arm not in contents.info.arms:
            known = ", ".join(contents.info.arms)
            raise UserError(f"the run {contents.info.run_id} has no arm '{arm}'; it has {known}.")
    return chosen, rejected


def _pairs(
    contents: RunContents,
    found: Mapping[str, Metric],
    metric: str,
    margin: float | None,
    arms: tuple[str, str] | None,
    sign: int,
    left_out: Counter[str],
) -> Iterator[_Pair]:
    compared = sorted({one.dimension for one in contents.judgements if one.order})
    if metric in found:
        if margin is None or not math.isfinite(margin) or margin <= 0:
            raise UserError(f"'{metric}' needs a margin of more than 0, the least difference that makes a pair.")
        cells = found[metric].cells
        values = {cell.key: cell.value * sign for cell in cells if cell.value is not None}
        records = {cell.key: cell.record for cell in cells if cell.record is not None}
        planned = list(dict.fromkeys(cell.key for cell in cells))
        if arms:
            return _between_arms(planned, records, values, margin, arms, sign, left_out)
        return _between_repeats(planned, records, values, margin, sign, left_out)
    if metric not in compared:
        known = ", ".join([*found, *compared]) or "none: score or judge it first"
        raise UserError(f"the run {contents.info.run_id} has no metric '{metric}'; it has {known}.")
    if margin is not None or arms is None:
        raise UserError(f"'{metric}' is judged by comparison: give the two arms, and no margin.")
    comparisons = [one for one in contents.judgements if one.order and one.dimension == metric]
    return _from_comparisons(comparisons, {record.key: record for record in contents.records}, arms, left_out)


def _between_arms(
    planned: Iterable[Key],
    records: Mapping[Key, Record],
    values: Mapping[Key, float],
    margin: float,
    arms: tuple[str, str],
    sign: int,
    left_out: Counter[str],
) -> Iterator[_Pair]:
    for cell in dict.fromkeys((key.probe_id, key.repeat) for key in planned if key.arm in arms):
        better, worse = (Key(arm, *cell) for arm in arms)
        if better not in values or worse not in values:
            left_out[UNSCORED] += 1
        elif values[better] - values[worse] <= -margin:
            left_out[REVERSED] += 1
        elif values[better] - values[worse] < margin:
            left_out[CLOSE] += 1
        else:
            yield _Pair(records[better], records[worse], (sign * values[better], sign * values[worse]))


def _between_repeats(
    planned: Iterable[Key],
    records: Mapping[Key, Record],
    values: Mapping[Key, float],
    margin: float,
    sign: int,
    left_out: Counter[str],
) -> Iterator[_Pair]:
    groups: dict[tuple[str, str], list[Key]] = {}
    for key in planned:
        groups.setdefault((key.arm, key.probe_id), []).append(key)
    for keys in groups.values():
        scored = [key for key in keys if key in values]
        if len(scored) < 2:
            left_out[UNSCORED] += 1
            continue
        better, worse = max(scored, key=lambda key: values[key]), min(scored, key=lambda key: values[key])
        if values[better] - values[worse] < margin:
            left_out[CLOSE] += 1
            continue
        yield _Pair(records[better], records[worse], (sign * values[better], sign * values[worse]))


def _from_comparisons(
    comparisons: Iterable[Judgement], records: Mapping[Key, Record], arms: tuple[str, str], left_out: Counter[str]
) -> Iterator[_Pair]:
    by_cell: dict[Key, list[Judgement]] = {}
    for one in comparisons:
        if one.arm in arms and one.against in ("", *arms):  # foreign comparisons may not name the opponent
            by_cell.setdefault(one.key, []).append(one)
    for key, judgements in by_cell.items():
        other = Key(arms[1] if key.arm == arms[0] else arms[0], key.probe_id, key.repeat)
        values = {None if one.unscored or one.error else one.value for one in judgements}
        if None in values or key not in records or other not in records:
            left_out[UNSCORED] += 1
        elif not _both_orders(judgements) or values not in ({WIN}, {LOSS}):
            left_out[INCONSISTENT] += 1
        else:
            better, worse = (key, other) if values == {WIN} else (other, key)
            yield _Pair(records[better], records[worse], None)


def _both_orders(judgements: Iterable[Judgement]) -> bool:
    orders: dict[str, set[str]] = {}
    for one in judgements:
        orders.setdefault(one.judge, set()).add(one.order)
    return all(found == {"ab", "ba"} for found in orders.values())


def _fault(pair: _Pair, prompt: str) -> str:
    """Why a pair cannot be trained on; "" if it can."""
    if not prompt.strip():
        return NO_PROMPT
    texts = [record.response or "" for record in (pair.chosen, pair.rejected)]
    cut = any(record.failed or record.finish_reason in _NOT_WHOLE for record in (pair.chosen, pair.rejected))
    whole = all(text.strip() for text in texts) and _encodable(prompt, *texts)
    return UNUSABLE if cut or not whole or texts[0] == texts[1] else ""


def _encodable(*texts: str) -> bool:
    """Whether texts are free of half surrogate pairs, which no tokenizer takes."""
    try:
        "".join(texts).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _row(pair: _Pair, prompt: str, metric: str, probes: bool) -> dict[str, Any]:
    answers = (pair.chosen, pair.rejected)
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": pair.chosen.response}],
        "rejected": [{"role": "assistant", "content": pair.rejected.response}],
        "metric": metric,
        "margin": None if pair.values is None else abs(pair.values[0] - pair.values[1]),
        "arms": [record.arm for record in answers],
        "repeats": [record.repeat for record in answers],
        "values": None if pair.values is None else list(pair.values),
        "run": pair.chosen.run_id,
        "probe_id": pair.chosen.probe_id,
        "evaluation_probe": probes,
    }
