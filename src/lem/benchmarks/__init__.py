"""Standard benchmarks: their items, what is sent for an item, and the scores that a program can give.

A benchmark is items, a prompt, and scorers by rule; what needs judgement is rated by a judge on the benchmark's
dimensions. `docs/BENCHMARKS.md` has paper, licence, split, extraction rule and deviations of each.
"""

from lem.benchmarks.ask import ask, choices, probe, stop_strings
from lem.benchmarks.benchmark import Benchmark
from lem.benchmarks.contamination import contaminated
from lem.benchmarks.items import read_items, source_facts
from lem.benchmarks.scoring import score_benchmarks, score_item
from lem.benchmarks.table import BENCHMARKS, find

__all__ = [
    "BENCHMARKS",
    "Benchmark",
    "ask",
    "choices",
    "contaminated",
    "find",
    "probe",
    "read_items",
    "score_benchmarks",
    "score_item",
    "source_facts",
    "stop_strings",
]
