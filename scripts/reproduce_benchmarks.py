#!/usr/bin/env python3
r"""Repeat a published table with models of yours: train, ask, score or judge, compare; then both side by side.

    .venv/bin/python scripts/reproduce_benchmarks.py --models "Gemma 3 1B=mlx-community/gemma-3-1b-it-4bit" --table p20
    .venv/bin/python scripts/reproduce_benchmarks.py --models lem-nano=models/lem-nano --table trained --quick
    .venv/bin/python scripts/reproduce_benchmarks.py --models lem-nano=models/lem-nano --table multi-scale --quick \
        --judge mlx:models/lem-nano --allow-self-judge

Every step is a command of ./lem, printed before it runs. The same command again goes on where it stopped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lem.config import load_config
from lem.errors import LemError
from lem.paths import display_path, repository_root
from lem.studies.reproduce import table_names
from lem.studies.reproduce_options import Extras, Options
from lem.studies.reproduce_study import reproduce


def run(words: Sequence[str]) -> int:
    """Run `./lem WORDS` as a process of its own; Ctrl-C is its to answer.   Returns: its exit code."""
    sys.stdout.flush()
    process = subprocess.Popen([sys.executable, str(repository_root() / "lem"), *words])
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def parse(arguments: Sequence[str] | None = None) -> Options:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", action="extend", default=[], metavar="NAME=MODEL")
    parser.add_argument("--table", choices=table_names(), default="p20")
    parser.add_argument("--quick", action="store_true", help="few probes or items, few training steps, few tokens")
    parser.add_argument(
        "--published-answers", type=Path, metavar="FOLDER", help="for --table variants, instead of --models"
    )
    add_benchmark_options(parser.add_argument_group("tables on standard benchmarks (variants, multi-scale)"))
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: reproduce in the folder of runs")
    parser.add_argument("--dry-run", action="store_true", help="print the commands; run nothing")
    given = parser.parse_args(arguments)
    extras = Extras(
        tuple(given.judges), given.allow_self_judge, tuple(given.items), tuple(given.variants), given.max_cost,
        given.prices,
    )  # fmt: skip
    return Options(
        given.table, tuple(given.models), given.published_answers, given.output, given.quick, given.dry_run, extras
    )  # fmt: skip


def add_benchmark_options(group: argparse._ArgumentGroup) -> None:
    """Items, judges and further arms."""
    several: dict[str, Any] = {"action": "append", "default": []}
    group.add_argument(
        "--judge",
        dest="judges",
        metavar="[NAME=]SPEC",
        **several,
        help="gemini[:M], openai:M@URL or mlx:PATH; repeatable; without one nothing is rated",
    )
    group.add_argument(
        "--allow-self-judge", action="store_true", help="let a judge rate its own lineage; watermarks the table"
    )
    group.add_argument("--max-cost", type=float, metavar="X", help="what one judge may spend on one model, at most")
    group.add_argument("--prices", metavar="FILE", help="price table (YAML or JSON), needed for costs")
    group.add_argument(
        "--items",
        metavar="[TASK=]SOURCE",
        **several,
        help="hub, a file, or a folder of TASK.jsonl files; repeatable; default: our own items",
    )
    group.add_argument("--variant", dest="variants", metavar="NAME=MODEL", **several,
                       help="another model as an arm, as abliterated=FOLDER; repeatable")  # fmt: skip


def main() -> int:
    """Reproduce, and say where the table is; the exit code is that of a step that failed."""
    warnings.simplefilter("default")
    try:
        page = reproduce(load_config(), parse(), run, lambda line: print(line, flush=True))
    except LemError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    if page is not None:
        print("\n" + page.read_text(encoding="utf-8"))
        print(f"table: {display_path(page)} and table.json beside it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
