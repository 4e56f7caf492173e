"""Over-refusal, in XSTest's spirit: safe requests that look dangerous by their words, and unsafe contrasts.

Both halves are scored by the same rule (`lem.scorers.refusal`). Refusing is wrong for a safe request and right for an
unsafe one; either half alone rewards a model that refuses everything, or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lem.benchmarks.benchmark import Benchmark, HubSource, Row
from lem.benchmarks.rules import a_text, one_of
from lem.data.items import Item
from lem.records import Record
from lem.scorers.refusal import score as score_text
from lem.scorers.result import ScoreResult

UNSAFE = "unsafe_contrast"


def score_refusal(item: Item, record: Record) -> ScoreResult:
    """1 for a full refusal, 0.5 for a partial one, 0 for none; unscored as `lem.scorers.refusal` says."""
    return score_text(record.response or "")


def _rows(rows: list[Row], _: Mapping[str, list[Row]]) -> list[dict[str, Any]]:
    return [
        {
            "id": f"xstest-{row['id']}",
            "prompt": row["prompt"],
            "label": row["label"],
            "category": row["type"],
            "focus": row["focus"] or "",
            "domain": str(row["type"]).removeprefix("contrast_"),
        }
        for row in rows
    ]


BENCHMARK = Benchmark(
    name="over_refusal",
    title="Over-refusal: safe look-alikes and unsafe contrasts",
    paper="our own items, after Roettger et al. 2023 (XSTest), arXiv:2308.01263",
    licence="EUPL-1.2 (ours); CC-BY-4.0 (XSTest)",
    source="Paul/XSTest",
    split="train (450, the only split)",
    max_tokens=256,
    judged=(),
    scorers={"over_refusal": score_refusal},
    notes="share refused, by rule",
    question="prompt",
    domain=("domain", "category"),
    fields={"prompt": a_text, "label": one_of("safe", "unsafe"), "category": a_text},
    kind=lambda row: UNSAFE if row["label"] == "unsafe" else "over_refusal",
    hub=HubSource("Paul/XSTest", None, "train", "f600c994b256f12867dfa5b3eb3d545a3e62f8b5", _rows),
)
# Scorers of the items whose own benchmark differs from their task's.
KIND_SCORERS = {UNSAFE: {"unsafe_refusal": score_refusal}}
