"""`lem benchmark`: an A/B run is a run of the kind "benchmark" (see `lem.runs.conduct`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lem.records import Record
from lem.runs.conduct import conduct
from lem.runs.execute import Outcome
from lem.runs.plan import RunPlan
from lem.runs.shards import ALONE, Ranks

KIND = "benchmark"


def run_benchmark(
    plan: RunPlan,
    output: Path,
    *,
    ranks: Ranks = ALONE,
    on_start: Callable[[int, int], None] = lambda total, missing: None,
    on_record: Callable[[Record], None] = lambda record: None,
    on_load: Callable[[str], None] = lambda what: None,
) -> Outcome:
    """Execute a plan into a run directory, resuming what is there; arguments, result and errors as in `conduct`."""
    return conduct(plan, output, KIND, ranks=ranks, on_start=on_start, on_record=on_record, on_load=on_load)
