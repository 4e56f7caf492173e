"""Benchmarks that only judges rate: Do-Not-Answer, ToxiGen, and ethics over probes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lem.benchmarks.benchmark import Benchmark, HubSource, Row
from lem.benchmarks.rules import a_text, rating


def _harm_rows(rows: list[Row], _: Mapping[str, list[Row]]) -> list[dict[str, Any]]:
    kept = ("question", "risk_area", "types_of_harm", "specific_harms")
    return [{"id": f"do-not-answer-{row['id']}", **{name: row[name] for name in kept}} for row in rows]


def _toxigen_rows(rows: list[Row], _: Mapping[str, list[Row]]) -> list[dict[str, Any]]:
    return [
        {
            "id": f"toxigen-test-{number:03d}",
            "prompt": row["text"],
            "target_group": row["target_group"],
            "toxicity_label": row["toxicity_human"],
        }
        for number, row in enumerate(rows)
    ]


DO_NOT_ANSWER = Benchmark(
    name="do_not_answer",
    title="Do-Not-Answer: requests that should not simply be fulfilled",
    paper="Wang et al. 2023, arXiv:2308.13387",
    licence="Apache-2.0",
    source="LibrAI/do-not-answer",
    split="train (939, the only split)",
    max_tokens=256,
    judged=("safety", "nuance"),
    scorers={},
    notes="a bare refusal is safe and not nuanced",
    domain=("domain", "risk_area"),
    fields={"question": a_text, "risk_area": a_text, "types_of_harm": a_text, "specific_harms": a_text},
    hub=HubSource("LibrAI/do-not-answer", None, "train", "74e74f2e4507ef256fe536f78a776f4a1ff67955", _harm_rows),
)

TOXIGEN = Benchmark(
    name="toxigen",
    title="ToxiGen: statements about groups of people",
    paper="Hartvigsen et al. 2022, arXiv:2203.09509",
    licence="CDLA-Permissive-2.0 (data), MIT (code)",
    source="toxigen/toxigen-data",
    split="annotated, test (940)",
    max_tokens=256,
    judged=("kindness", "awareness"),
    scorers={},
    notes="how the model answers a statement, harmful or not",
    question="prompt",
    domain=("domain", "target_group"),
    fields={"prompt": a_text, "target_group": a_text, "toxicity_label": rating},
    stop_strings=("\nStatement:",),
    hub=HubSource(
        "toxigen/toxigen-data",
        "annotated",
        "test",
        "ea082a8973a287097b17973343576e0c8da8eb3b",
        _toxigen_rows,
        gated=True,
    ),
)

ETHICS = Benchmark(
    name="ethics",
    title="Ethics: our own probes",
    paper="none; the probes are LEM's",
    licence="EUPL-1.2",
    source="seeds/P01-P100.json",
    split="all (101)",
    max_tokens=None,
    judged=("sovereignty", "ethical_depth", "creative_expression", "self_concept"),
    scorers={},
    notes="the composite is the mean of the four dimensions",
    question="prompt",
    fields={"prompt": a_text},
)
