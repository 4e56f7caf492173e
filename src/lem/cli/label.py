"""`lem label`: a person labels answers of a run, blind, in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lem.cli.options import existing_path, seed_option
from lem.errors import UserError
from lem.paths import display_path

if TYPE_CHECKING:
    from lem.cli.label_screen import Terminal
    from lem.judges.labelling import Labelling, LabelTask
    from lem.records import RunContents

_KEYS = "s cannot tell  u undo  ? help  q quit"
_VERDICTS = {"a": "A", "b": "B", "t": "tie"}


@click.command("label")
@click.argument("run", metavar="RUN")
@click.option(
    "--dimension", "dimensions", multiple=True, metavar="NAME",
    help="Rubric, by name or file; repeatable.  [default: those of each benchmark]",
)  # fmt: skip
@click.option("--pairs", is_flag=True, help="Compare the answers of two arms instead of rating single ones.")
@click.option("--baseline", metavar="ARM", help="One arm of the pairs.  [default: base]")
@click.option("--treatment", metavar="ARM", help="The other.  [default: the other of two arms]")
@click.option(
    "--n", "n", type=click.IntRange(min=1), default=100, show_default=True, metavar="N", help="Answers or pairs."
)
@click.option(
    "--labeller", default="labeller-1", show_default=True, metavar="NAME", help="Who labels; names the file of labels."
)
@seed_option
def label(
    run: str, dimensions: tuple[str, ...], pairs: bool, baseline: str | None, treatment: str | None, n: int,
    labeller: str, seed: int | None,
) -> None:  # fmt: skip
    """Rate answers of RUN, or compare two arms, without seeing which model wrote what.

    Each label is written at once to labels/NAME.jsonl; the same command goes on where it stopped. Two labellers with
    names of their own share three answers in ten.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("labelling needs a terminal for its keys and its screen; run it in one, over SSH too (ssh -t).")
    from lem.config import load_config
    from lem.judges.labelling import Labelling
    from lem.records import read_contents

    path = existing_path(run)
    contents = read_contents(path)
    seed = load_config().seed if seed is None else seed
    if pairs:
        if dimensions:
            raise UserError("--pairs and --dimension contradict each other; leave out one of them.")
        tasks = _pairs(path, contents, baseline, treatment, n, seed, labeller)
    else:
        if baseline or treatment:
            raise UserError("--baseline and --treatment belong to --pairs; add it or leave them out.")
        tasks = _ratings(path, contents, dimensions, n, seed, labeller)
    if not tasks:
        raise UserError(f"{display_path(path)} holds nothing to label: no usable answers, or only equal ones.")
    with Labelling(path, labeller, tasks) as work:
        before = work.done
        _work(work)
        left = len(work.tasks) - work.done
        click.echo(
            f"{work.done - before} labels in this session, {work.done} of {len(work.tasks)} in all, {left} to go: "
            f"{display_path(work.path)}"
        )


def _ratings(
    run: Path, contents: RunContents, dimensions: Sequence[str], n: int, seed: int, labeller: str
) -> list[LabelTask]:
    from lem.data.items import read_run_items
    from lem.judges.calls import rubrics_of
    from lem.judges.labelling import rating_tasks
    from lem.judges.rubrics import read_rubric

    rubrics = rubrics_of(contents, [read_rubric(name) for name in dimensions])
    wide = next((one for group in rubrics.values() for one in group if one.low < 1 or one.high > 10), None)
    if wide is not None:
        raise UserError(
            f"the scale of '{wide.dimension}' has more steps than the keys 1 to 10; label another dimension."
        )

    return rating_tasks(contents, read_run_items(run), rubrics, n, seed, labeller)


def _pairs(
    run: Path, contents: RunContents, baseline: str | None, treatment: str | None, n: int, seed: int, labeller: str
) -> list[LabelTask]:
    from lem.data.items import read_run_items
    from lem.judges.labelling import pair_tasks

    arms = list(contents.info.arms)
    first = baseline or ("base" if "base" in arms else arms[0])
    others = [arm for arm in arms if arm != first]
    if treatment is None and len(others) != 1:
        raise UserError(f"name the arm to compare with '{first}': --treatment, one of {', '.join(others) or 'none'}.")
    second = treatment or others[0]
    if first == second:
        raise UserError(f"--baseline and --treatment both name '{first}'; name two arms.")
    return pair_tasks(contents, read_run_items(run), first, second, n, seed, labeller)


def _work(work: Labelling) -> None:
    """Show one task after another until none is left or the person quits."""
    from lem.cli.label_screen import terminal

    with terminal() as screen:
        try:
            while (task := work.current) is not None and _one(screen, work, task):
                pass
        except KeyboardInterrupt:
            return


def _one(place: Terminal, work: Labelling, task: LabelTask) -> bool:
    """One task until it has a label or is left by undoing; False when the person quits."""
    from lem.cli.label_screen import ENDED

    head = f" {work.done + 1} of {len(work.tasks)}  {task.dimension}"
    while (key := _decision(place, task, head)) not in ("q", ENDED):
        verdict = verdict_of(key, task)
        if verdict is not None:
            work.give(verdict)
        elif key == "s":
            work.skip()
        if verdict is not None or key == "s" or (key == "u" and work.undo()):
            return True
    return False


def _decision(place: Terminal, task: LabelTask, head: str) -> str:
    """Show the task, let the person scroll and read the help, and return the first key that is about neither."""
    from lem.cli.label_screen import HELP, screen, task_lines, wrapped

    offset, help_shown, drawn = 0, False, None
    while True:
        size = place.size()
        if drawn != (size, offset, help_shown):
            body = wrapped(HELP, size[0]) if help_shown else task_lines(task, size[0])
            lines, offset = screen(body, head, task.asks, f"{scale_keys(task)}  {_KEYS}", size, offset)
            place.show(lines)
            drawn = (size, offset, help_shown)
        key = place.key()
        moved = None if key is None else _moved(key, offset, size[1])
        if moved is not None:
            offset = moved
        elif key == "?" or (key is not None and help_shown):
            offset, help_shown = 0, not help_shown
        elif key is not None:
            return key


def scale_keys(task: LabelTask) -> str:
    """What the keys of a verdict are on a task."""
    if task.order:
        return "a first, b second, t neither"
    return f"{task.low:g}-9, 0 for 10" if task.high == 10 else f"{task.low:g}-{task.high:g}"


def _moved(key: str, offset: int, height: int) -> int | None:
    """Where scrolling leads; None for a key that does not scroll."""
    from lem.cli.label_screen import DOWN, PAGE_DOWN, PAGE_UP, UP

    page = max(1, height - 8)
    steps = {" ": page, PAGE_DOWN: page, PAGE_UP: -page, "j": 1, DOWN: 1, "k": -1, UP: -1}
    return max(0, offset + steps[key]) if key in steps else None


def verdict_of(key: str, task: LabelTask) -> float | str | None:
    """What a key says on a task; None if nothing: a digit on the scale (0 is 10), or a, b, t."""
    if task.order:
        return _VERDICTS.get(key)
    if len(key) != 1 or key not in "0123456789":
        return None
    value = float(key) or 10.0
    return value if task.low <= value <= task.high else None
