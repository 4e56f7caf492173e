"""`lem judge audit`: how far can a judge be trusted? Canaries, slot bias, retest, agreement with judges and people."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lem.cli.judge_options import JudgeOptions, budget_of, judge_options, opened, take_judge_options
from lem.cli.options import existing_path, json_option, print_json, progress
from lem.errors import CheckFailed, Incomplete
from lem.paths import display_path

if TYPE_CHECKING:
    from lem.judges.audit.run import Audit
    from lem.judges.spec import JudgeSpec
    from lem.records import RunContents

INSTRUMENTS = {"both": ("rating", "pair"), "rating": ("rating",), "pairs": ("pair",)}


@click.command("audit")
@click.argument("run", metavar="RUN")
@click.option(
    "--dimension", "dimensions", multiple=True, metavar="NAME",
    help="Rubric, by name or file; repeatable.  [default: those of each benchmark]",
)  # fmt: skip
@click.option(
    "--instrument", type=click.Choice(list(INSTRUMENTS)), default="both", show_default=True,
    help="What is audited: ratings, comparisons of two answers, or both.",
)  # fmt: skip
@click.option(
    "--n", "n", type=click.IntRange(min=1), default=26, show_default=True, metavar="N",
    help="Answers that canaries are made of, and as many real pairs.",
)  # fmt: skip
@click.option("--seed", type=int, default=42, show_default=True, help="Chooses the answers.")
@judge_options
@json_option
def audit(
    run: str, dimensions: tuple[str, ...], instrument: str, n: int, seed: int, as_json: bool, **options: Any
) -> None:
    """Try every --judge on answers of RUN whose worth is known: copies that say no more, less, or give orders.

    Replies go to audits/<judge>.jsonl, findings to audits/<judge>.json. Ends with 1 if a judge is not trustworthy.
    Resumes where it stopped. What an earlier audit found stands until the same is asked again as widely.
    """
    from lem.judges.audit.plan import AuditSettings
    from lem.judges.audit.run import audit_run
    from lem.judges.manifest import check_pedigree, reported_models
    from lem.judges.rubrics import read_rubric
    from lem.records.contents import read_contents

    path, judging = existing_path(run), take_judge_options(options)
    rubrics = [read_rubric(name) for name in dimensions]
    contents = read_contents(path)
    settings = AuditSettings(n, seed, INSTRUMENTS[instrument], judging.asking)
    found: list[Audit] = []
    kin: dict[str, list[str]] = {}
    spent = 0.0
    specs = judging.specs()
    if len(specs) > 1:
        _check(specs, judging, contents, path)
    for spec in specs:
        budget = budget_of(spec, judging, spent)
        with opened(spec, judging, budget=budget) as judge:
            pedigree = check_pedigree(
                judge.identity, contents.info, allow_self_judge=judging.allow_self_judge,
                reported=reported_models(path, judge.identity.name),
            )  # fmt: skip
            kin[judge.identity.name] = list(dict.fromkeys(one.arm for one in pedigree.kin))
            notes = [*pedigree.notes, *(f"of one lineage with arm '{one.arm}': {one.why}" for one in pedigree.kin)]
            facts = {
                "kin": list(pedigree.kin),
                "currency": budget.price.currency if budget.price else "",
                "command": ["lem", *sys.argv[1:]],
            }
            with _asking(judge.identity.name) as callbacks:
                found.append(audit_run(path, judge, settings, rubrics=rubrics, notes=notes, facts=facts, **callbacks))
        spent = budget.spent  # also what failed calls may have cost, which no reply tells
    _print(found, kin, as_json)
    _conclude(found)


def _check(specs: Sequence[JudgeSpec], judging: JudgeOptions, contents: RunContents, run: Path) -> None:
    """Find what is wrong with the last judge before the first one is paid for."""
    from lem.judges.audit.history import refuse_other_judge
    from lem.judges.manifest import check_pedigree, reported_models

    for spec in specs:
        with opened(spec, judging) as judge:
            check_pedigree(
                judge.identity, contents.info, allow_self_judge=judging.allow_self_judge,
                reported=reported_models(run, judge.identity.name),
            )  # fmt: skip
            refuse_other_judge(run, judge.identity, contents.audits.get(judge.identity.name))


@contextmanager
def _asking(name: str) -> Iterator[dict[str, Any]]:
    """A progress bar over the calls, as the callbacks of `audit_run`.   Raises: Incomplete on Ctrl-C."""
    with progress(f"audit of {name}", 0, "calls") as advance:

        def on_reply(reply: Any) -> None:
            advance(1, note=str(reply.id).rpartition("|")[0])

        def on_start(total: int, missing: int) -> None:
            advance(total - missing, total=total)
            click.echo(f"audit of {name}: {total} calls, {missing} still to ask", err=True)

        try:
            yield {"on_start": on_start, "on_reply": on_reply}
        except KeyboardInterrupt:
            raise Incomplete(
                "interrupted; every reply that came is on disk, the same command goes on from there."
            ) from None


def _print(found: Sequence[Audit], kin: dict[str, list[str]], as_json: bool) -> None:
    if as_json:
        import json

        print_json([json.loads(one.path.read_text(encoding="utf-8")) for one in found])
        return
    from rich.console import Console

    from lem.cli.judge_audit_table import audit_rich

    console = Console(highlight=False)
    for one in found:
        console.print(audit_rich(one, kin[one.judge]))
        if one.verdict != "not trustworthy":  # which is said as the error that ends the command
            console.print(one.sentence, markup=False)
        click.echo(f"\naudit: {display_path(Path(one.path))}")


def _conclude(found: Sequence[Audit]) -> None:
    """Raises: CheckFailed when a judge is not trustworthy, Incomplete when calls are missing."""
    from lem.judges.audit.verdict import Trust

    bad = [one for one in found if one.verdict is Trust.NOT_TRUSTWORTHY]
    if bad:
        raise CheckFailed(" ".join(one.sentence for one in bad))
    lost = sum(one.failed + one.missing for one in found)
    if lost:
        raise Incomplete(f"{lost} calls of the audit failed or were not made; run the same command again.")
