"""The table of a curriculum: one row an arm (base or an attempt, in one form of asking), for terminal and markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lem.reports.formats import ABSENT, INTERVALS, interval, number, percent, toy_notice
from lem.stats import Estimate

CHOSEN_ON = "The gates chose on these probes: report a result on held-out ones."


@dataclass(frozen=True)
class CurriculumRow:
    """One arm: `label` is "base" or phase.attempt, `asked` how the probes were asked, `action` what was decided.

    `change` is this arm minus `previous` per probe, freeflow against freeflow (None in the sandwich and for base).
    `target` is the mean to reach, on the row that it is measured on. `action` stands on an attempt's first row only;
    `accepted`: base, and the attempts that the run went on with in the end.
    """

    label: str
    name: str
    trained: str
    asked: str
    n: int
    n_unscored: int
    n_failed: int
    mean: Estimate
    change: Estimate | None
    previous: str
    target: float | None
    degenerate: Estimate
    words: float
    truncated: Estimate
    action: str
    accepted: bool


@dataclass(frozen=True)
class CurriculumHead:
    """What stands above and below the table: the base model, the probes, how they were answered, whether quick."""

    model: str
    probes: str
    notes: Sequence[str]


def legend() -> str:
    """What the columns mean, in a few short sentences."""
    return (
        f"{INTERVALS}. Under the phase: how it was asked. change: freeflow against the attempt it continued, paired. "
        f"deg: degenerate answers. cut: stopped by the token limit. uns: without a v2 value. {CHOSEN_ON}"
    )


_ROOM = 30  # columns that both intervals may take together before the heading beside them is folded for 80 in all


def curriculum_rich(rows: Sequence[CurriculumRow], head: CurriculumHead) -> RenderableType:
    """The table for a terminal of 80 columns: model above, legend and notices below."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0), header_style="bold")
    table.add_column("phase", overflow="fold", min_width=len("  freeflow"))
    means = max((len(interval(row.mean)) for row in rows), default=0)
    changes = max((len(interval(row.change, signed=True)) for row in rows if row.change), default=0)
    target = "target" if means + changes <= _ROOM else "tar-\nget"
    for name in ("n/uns", "v2 mean\n[low, high]", "change\n[low, high]", target, "deg", "words", "cut"):
        table.add_column(Text(name), justify="right", no_wrap=True)
    table.add_column("decision", justify="right", overflow="fold", min_width=len("finished"))
    above = None
    for row in rows:
        if above not in (None, row.label):
            table.add_section()
        table.add_row(*_cells(row, same=row.label == above))
        above = row.label
    parts: list[RenderableType] = [Text(f"model: {head.model}; {head.probes}", "dim"), table]
    parts += [Text(note, "yellow") for note in head.notes] + [Text(legend(), "dim")]
    notice = toy_notice([head.model])
    return Group(*parts, *([Text(notice, "yellow")] if notice else []))


def _cells(row: CurriculumRow, *, same: bool) -> list[Text]:
    name = Text(f"  {row.asked}", "dim")
    if not same:
        name = Text(row.label, "bold") + Text(f" {row.name}\n") + name
    style = {"go on": "green", "finished": "green", "": ""}.get(row.action, "yellow")
    return [
        name,
        Text(f"{row.n}/{row.n_unscored}"),
        _two_lines(row.mean),
        _two_lines(row.change, signed=True) if row.change else Text(ABSENT),
        Text(ABSENT if row.target is None else f"{row.target:g}"),
        Text(percent(row.degenerate.value)),
        Text(number(row.words, 0)),
        Text(percent(row.truncated.value)),
        Text(row.action, style),
    ]


def _two_lines(estimate: Estimate, *, signed: bool = False) -> Text:
    style = ""
    if signed and estimate.excludes(0.0):
        style = "bold green" if estimate.value > 0 else "bold red"
    value = Text(number(estimate.value, signed=signed), style)
    return value + Text("\n" + interval(estimate, signed=signed), "dim")


def curriculum_markdown(
    rows: Sequence[CurriculumRow], head: CurriculumHead, decisions: Sequence[tuple[str, Sequence[str]]]
) -> str:
    """The table as markdown, followed by every decision with the sentences of its gates."""
    columns = ["phase", "name", "trained", "asked", "n", "unscored", "failed", "v2 mean", "[low, high]", "change",
               "[low, high]", "against", "target", "degenerate", "words", "truncated", "decision"]  # fmt: skip
    lines = [f"# Curriculum of {head.model}", "", head.probes, ""]
    lines += [f"| {' | '.join(line)} |" for line in (columns, ["---"] * 4 + ["---:"] * 7 + ["---"] + ["---:"] * 5)]
    lines += [f"| {' | '.join(_markdown_cells(row))} |" for row in rows]
    lines += ["", legend(), *(f"\n**{note}**" for note in head.notes)]
    notice = toy_notice([head.model])
    lines += ["", f"**{notice}**"] if notice else []
    lines += ["", "## Decisions", ""]
    for sentence, gates in decisions:
        lines += [f"- {sentence}", *(f"  - {gate}" for gate in gates)]
    return "\n".join(lines) + "\n"


def _markdown_cells(row: CurriculumRow) -> list[str]:
    change = row.change
    return [
        row.label, row.name or ABSENT, row.trained or ABSENT, row.asked, str(row.n), str(row.n_unscored),
        str(row.n_failed), number(row.mean.value), interval(row.mean),
        number(change.value, signed=True) if change else ABSENT, interval(change, signed=True) if change else ABSENT,
        row.previous if change else ABSENT, ABSENT if row.target is None else f"{row.target:g}",
        percent(row.degenerate.value), number(row.words, 0), percent(row.truncated.value), row.action or ABSENT,
    ]  # fmt: skip
