"""Every benchmark by the name that a user types: one explicit table."""

from __future__ import annotations

from collections.abc import Mapping

from lem.benchmarks import gsm8k, over_refusal, statements, truthfulqa
from lem.benchmarks.benchmark import Benchmark, ItemScorer
from lem.errors import UserError

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        gsm8k.BENCHMARK,
        truthfulqa.GENERATION,
        truthfulqa.MULTIPLE_CHOICE,
        statements.DO_NOT_ANSWER,
        statements.TOXIGEN,
        statements.ETHICS,
        over_refusal.BENCHMARK,
    )
}
# A single item's benchmark -> the task that it belongs to, where the names differ.
TASK_OF_KIND = {over_refusal.UNSAFE: "over_refusal"}


def find(name: str) -> Benchmark:
    """The benchmark of that name, or that a single item's benchmark belongs to.   Raises: UserError with the list."""
    task = TASK_OF_KIND.get(name, name)
    if task not in BENCHMARKS:
        raise UserError(f"unknown benchmark '{name}'; known are {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[task]


def scorers_of(kind: str) -> Mapping[str, ItemScorer]:
    """The scorers by rule of an item's benchmark.   Raises: UserError for an unknown one."""
    return over_refusal.KIND_SCORERS.get(kind) or find(kind).scorers
