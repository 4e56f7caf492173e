"""`lem plan`: what a run will take and what it can see, and what is declared before it."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import click

from lem.cli.benchmark import benchmark, make_plan
from lem.cli.options import existing_path, json_option, print_json
from lem.errors import UserError
from lem.paths import display_path


@click.command("plan")
@click.option("--pilot", metavar="RUN", help="Run directory with repeats and scores to foretell from.")
@click.option("--sd", "spreads", multiple=True, metavar="METRIC=X[,WITHIN]", help="Spread of a metric; repeatable.")
@click.option("--design-effect", type=float, metavar="D", help="Of the domains, for metrics of --sd.  [default: 1]")
@click.option("--tokens-per-answer", type=float, metavar="N", help="Mean new tokens.  [default: the pilot's]")
@click.option("--tokens-per-second", type=float, metavar="N", help="New tokens a second.  [default: the pilot's]")
@click.option("--baseline", metavar="ARM", help="Arm to compare with.  [default: base, or the first of two]")
@click.option("--primary", multiple=True, metavar="METRIC:ARM", help="Declare a primary contrast; repeatable.")
@click.option("--margin", "margins", multiple=True, metavar="METRIC=M", help="'No worse by more than M'; repeatable.")
@click.option("--exclude", "exclusions", multiple=True, metavar="PROBE=REASON", help="Leave a probe out; repeatable.")
@click.option("--detect", multiple=True, metavar="METRIC=X", help="Probes needed to see this effect; repeatable.")
@click.option("--judge", "judges", multiple=True, metavar="NAME", help="A judge of every answer; repeatable.")
@click.option("--judge-calls", type=click.IntRange(min=1), help="Calls per answer.  [default: the pilot's, or 1]")
@click.option("--judge-tokens", metavar="IN,OUT", help="Tokens of a call: read beside the answer, written.")
@click.option("--prices", metavar="FILE", help="Your price table, YAML or JSON: judge -> price per million tokens.")
@click.option("--output", metavar="FILE", default="plan.json", show_default=True, help="Where the plan goes.")
@click.option("--dry-run", is_flag=True, help="Print the forecast; write nothing.")
@json_option
def plan(output: str, dry_run: bool, as_json: bool, pilot: str | None, **options: Any) -> None:
    """Foretell a benchmark and declare what it is for, before it is run.

    Takes the options of `lem benchmark`; `lem benchmark --plan plan.json` then makes the run under this plan.
    """
    from lem.ab.plan import make_plan_document
    from lem.ab.plan_file import write_plan
    from lem.config import load_config

    of_run = {name: options.pop(name) for name in _RUN_OPTIONS}
    declared = _options(**options)
    run_plan = make_plan(load_config(), **of_run)
    document = make_plan_document(run_plan, declared, _read_pilot(pilot))
    target = existing_path(output)
    stored = None if dry_run else write_plan(target, document)
    if as_json:
        print_json(stored or document)
        return
    from rich.console import Console

    from lem.cli.plan_table import plan_rich

    Console(highlight=False).print(plan_rich(stored or document))
    click.echo(_ending(target, stored, document))


def _shared_parameters() -> list[click.Parameter]:
    """The options of `lem benchmark` that decide the run itself, with all their checks."""
    taken = set(inspect.signature(make_plan).parameters) - {"plan_file"}  # a plan is not made under another one
    return [parameter for parameter in benchmark.params if parameter.name in taken]


_RUN_OPTIONS = [str(parameter.name) for parameter in _shared_parameters()]
plan.params[:0] = _shared_parameters()


def _options(
    *, design_effect: float | None, judge_tokens: str | None, prices: str | None, tokens_per_answer: float | None,
    tokens_per_second: float | None, **options: Any,
) -> Any:  # fmt: skip
    """The options that are not of the run, checked, as `lem.ab.plan.Options`."""
    from lem.ab.plan import Options
    from lem.data.prices import read_prices

    for name, value in (("answer", tokens_per_answer), ("second", tokens_per_second)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UserError(f"--tokens-per-{name} must be a finite number above 0 (got {value:g}).")
    if design_effect is not None and not options["spreads"]:
        raise UserError("--design-effect belongs to the spreads of --sd; a pilot's is measured.")
    return Options(
        design_effect=1.0 if design_effect is None else design_effect,
        judge_tokens=_two_numbers(judge_tokens),
        prices=None if prices is None else read_prices(existing_path(prices)),
        tokens_per_answer=tokens_per_answer,
        tokens_per_second=tokens_per_second,
        **options,
    )


def _two_numbers(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        read, written = (float(part) for part in text.split(","))
    except ValueError:
        read = written = math.nan
    if not (0 <= read < math.inf and 0 <= written < math.inf):
        raise UserError(f"--judge-tokens {text}: write IN,OUT, for example 600,80.")
    return read, written


def _read_pilot(pilot: str | None) -> Any:
    from lem.records import read_contents

    return None if pilot is None else read_contents(existing_path(pilot))


def _ending(target: Path, stored: dict[str, Any] | None, document: dict[str, Any]) -> str:
    if stored is None:
        return "\nnothing was written; leave out --dry-run to declare this plan"
    where = display_path(target)
    if stored["created"] != document["created"]:
        return f"\nplan: {where} holds this plan already (made {stored['created']}, hash {stored['sha'][:12]})"
    return f"\nplan: {where} (hash {stored['sha'][:12]})\nnext: ./lem benchmark --plan {where} with the same arms"
