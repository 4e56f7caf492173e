"""Running the steps of a reproduction: each is shown before it runs, and what is done is not done again.

`steps.json` in the folder of a model holds the commands that ended well. A folder whose commands were other ones is
refused, because its figures would belong to neither.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from lem.errors import DataError, LemError, ResumeMismatch
from lem.paths import display_path
from lem.records import write_atomic
from lem.studies.reproduce import Step

STATE_NAME = "steps.json"
Runner = Callable[[Sequence[str]], int]
Say = Callable[[str], None]


class StepFailed(LemError):
    """A step of a reproduction ended with a code other than 0, which is the exit code of the whole."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def command_line(step: Step) -> str:
    """The step as a person types it in the repository."""
    return "./lem " + shlex.join(step.words)


def run_steps(steps: Sequence[Step], folder: Path, run: Runner, say: Say) -> int:
    """Run what is not done yet, in order; everything after a step that ran is run again.

    Args:  run: takes the words after `lem` and returns the exit code.   Returns: how many steps ran.
    Raises: ResumeMismatch if the folder holds other commands; StepFailed with the exit code of the step that failed.
    """
    done = read_done(folder)
    planned = {step.name: list(step.words) for step in steps}
    for name, words in done.items():
        if planned.get(name) != words:
            raise ResumeMismatch(
                f"{display_path(folder)} was made by other commands (step '{name}'); give another --output, nothing "
                "was touched."
            )
    n_run = 0
    for step in steps:
        say(f"\n$ {command_line(step)}")
        if step.name in done and not n_run:
            say("(done before)")
            continue
        n_run += 1
        code = run(step.words)
        if code != 0:
            raise StepFailed(
                f"the step '{step.name}' ended with exit code {code}; mend what it says and give the same command "
                "again: it goes on from there.",
                code,
            )
        done[step.name] = list(step.words)
        write_atomic(folder / STATE_NAME, json.dumps({"schema": 1, "done": done}, indent=1) + "\n")
    return n_run


def read_done(folder: Path) -> dict[str, list[str]]:
    """The steps that ended well, by name, with their words.   Raises: DataError for a damaged list."""
    path = folder / STATE_NAME
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["done"]
        return {str(name): [str(word) for word in words] for name, words in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(
            f"{display_path(path)}: not a list of finished steps; remove it, and every step is asked for again."
        ) from None
