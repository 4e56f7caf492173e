"""Judging from the command line: open each judge in turn, ask with a progress bar, say what came of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lem.cli.judge_options import JudgeOptions, budget_of, opened
from lem.cli.options import progress
from lem.errors import Incomplete
from lem.paths import display_path

if TYPE_CHECKING:
    from lem.judges.conduct import Pass
    from lem.judges.grade import Graded
    from lem.judges.protocol import Judge
    from lem.records import RunInfo


def check_judges(options: JudgeOptions, info: RunInfo) -> None:
    """Open every judge and close it again, so that what is wrong is found before hours of generating.

    Raises: UserError for a missing key or model, and for kinship with an arm.
    """
    from lem.judges.manifest import check_pedigree

    for spec in options.specs():
        with opened(spec, options) as judge:
            check_pedigree(judge.identity, info, allow_self_judge=options.allow_self_judge)


def with_judges(run: Path, options: JudgeOptions, ask: Callable[[Judge, Pass], Graded]) -> list[Graded]:
    """Let every judge answer, one after the other; each gets what the ones before left of the budget."""
    from lem.judges.conduct import Pass

    specs = options.specs()
    for spec in specs if len(specs) > 1 else ():  # what the last is refused for is found before paying for the first
        with opened(spec, options) as judge:
            ask(judge, Pass(options.asking, options.allow_self_judge, only_check=True))
    done: list[Graded] = []
    spent = 0.0
    for spec in specs:
        budget = budget_of(spec, options, spent)
        currency = budget.price.currency if budget.price else ""
        with opened(spec, options, budget=budget) as judge, call_progress(judge.identity.name) as callbacks:
            how = Pass(options.asking, options.allow_self_judge, ("lem", *sys.argv[1:]), currency, **callbacks)
            done.append(ask(judge, how))
        spent = budget.spent  # also what failed calls may have cost, which no reply tells
        _say(run, spec.name, done[-1])
    return done


def rate_run(
    run: Path, options: JudgeOptions, dimensions: Sequence[str] = (), tasks: Sequence[str] = ()
) -> list[Graded]:
    """Have every judge rate a run; see `lem.judges.conduct.judge_ratings`."""
    from lem.judges.conduct import judge_ratings

    return with_judges(run, options, lambda judge, how: judge_ratings(run, judge, how, dimensions, tasks))


@contextmanager
def call_progress(name: str) -> Iterator[dict[str, Any]]:
    """A progress bar over the calls of one judge, as callbacks.   Raises: Incomplete on Ctrl-C."""
    with progress(name, 0, "calls") as advance:
        try:
            yield {
                "on_start": lambda total, missing: advance(total - missing, total=total),
                "on_reply": lambda planned, reply: advance(1, note=f"{planned.key.arm} {planned.key.probe_id}"),
            }
        except KeyboardInterrupt:
            raise Incomplete(
                "interrupted; every verdict that came is on disk, the same command goes on from there."
            ) from None


def refuse_unjudged(graded: Sequence[Graded]) -> None:
    """Exit 3 when a call failed or was not made.   Raises: Incomplete."""
    failed, missing = sum(one.failed for one in graded), sum(one.missing for one in graded)
    if failed or missing:
        raise Incomplete(
            f"{failed} judge calls failed and {missing} were not made; run the same command again, what is there is "
            "kept."
        )


def _say(run: Path, name: str, graded: Graded) -> None:
    from lem.records.judge_files import read_judge_manifests

    cost = "" if graded.cost is None or not graded.asked else f", cost {graded.cost:.4f}"
    click.echo(
        f"{display_path(run)}: {name} answered {graded.asked - graded.failed} calls, {graded.reused} were there, "
        f"{graded.unscored} unscored, {graded.failed} failed, {graded.missing} missing{cost}",
        err=True,
    )
    stored = read_judge_manifests(run).get(name, {})
    lost = {reason: n for reason, n in stored.get("unscored", {}).items() if not reason.startswith("failed")}
    if lost:
        reasons = ", ".join(f"{n} {reason}" for reason, n in lost.items())
        click.echo(f"{name}: verdicts without a value: {reasons}.", err=True)
    if lost.get("truncated"):
        click.echo(
            f"{name}: replies were cut by its token limit; ask again with a larger --judge-max-tokens under another "
            "name (--judge NAME=SPEC).",
            err=True,
        )
