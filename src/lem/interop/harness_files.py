"""Which files lm-eval wrote for one model: `results_<time>.json` with `samples_<task>_<time>.jsonl` beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lem.errors import DataError, UserError
from lem.interop.judges_kept import Entries, Verdict, read_contaminated, read_judged, read_judges
from lem.interop.lines import read_object
from lem.records.contaminated import joined_contaminated
from lem.records.judge_files import joined_audits, joined_judges

SAMPLES = re.compile(r"samples_(?P<task>.+)_(?P<time>\d{4}-\d\d-\d\dT[^_]*)\.jsonl")
RESULTS = re.compile(r"results_(?P<time>\d{4}-\d\d-\d\dT[^_]*)\.json")
WITHOUT_SAMPLES = "run lm-eval with --log_samples to have the answers written"


@dataclass(frozen=True)
class SampleFile:
    """One task's samples: the file, its task, and the results written with it ({} when there are none)."""

    path: Path
    task: str
    results: dict[str, Any]


def sample_files(path: Path) -> tuple[list[SampleFile], list[str]]:
    """The sample files that `path` stands for, and notes on what was left out.

    `path` is a samples file, a results file (its samples lie beside it), or an output folder of lm-eval, of which the
    latest samples of each task and model are taken.
    Raises: UserError if there is nothing; DataError if no samples were logged, or for unreadable results.
    """
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; give samples, results or an output folder of lm-eval.")
    named = RESULTS.fullmatch(path.name)
    if path.suffix == ".json":
        beside = [one for one in path.parent.glob("samples_*.jsonl") if named and _time(one) == named["time"]]
        if not beside:
            raise DataError(f"{path}: no samples of this evaluation lie beside it; {WITHOUT_SAMPLES}.")
        return [_sample_file(one) for one in sorted(beside)], []
    return [_sample_file(path)], []


def _of_folder(folder: Path) -> tuple[list[SampleFile], list[str]]:
    found = sorted([*folder.glob("samples_*.jsonl"), *folder.glob("*/samples_*.jsonl")])
    if not found:
        raise DataError(f"{folder} holds no samples of lm-eval; {WITHOUT_SAMPLES}.")
    latest: dict[tuple[Path, str], Path] = {}
    for file in found:
        place = (file.parent, _task(file))
        if place not in latest or _time(file) > _time(latest[place]):
            latest[place] = file
    older = len(found) - len(latest)
    notes = [f"{older} older samples files of {folder} were left out; name a file to import it."] if older else []
    return [_sample_file(file) for file in latest.values()], notes


def _task(file: Path) -> str:
    named = SAMPLES.fullmatch(file.name)
    return named["task"] if named else file.stem.removeprefix("samples_")


def _time(file: Path) -> str:
    named = SAMPLES.fullmatch(file.name)
    return named["time"] if named else ""


def _results_beside(file: Path) -> Path:
    return file.with_name(f"results_{_time(file)}.json")


def _sample_file(file: Path) -> SampleFile:
    results = _results_beside(file)
    return SampleFile(file, _task(file), read_object(results, "results of lm-eval") if results.is_file() else {})


def arm_of(file: SampleFile) -> str:
    """The arm of a sample file: as an export of ours names it, else the model, else the folder's name."""
    ours = file.results.get("lem")
    name = ours.get("arm") if isinstance(ours, dict) else None
    return str(name or file.results.get("model_name") or file.path.absolute().parent.name or "model")


def facts_of(files: Iterable[SampleFile]) -> dict[str, Any]:
    """What the results say about one arm's model and how its prompts were built."""
    facts: dict[str, Any] = {"model": None}
    for file in files:
        ours = file.results.get("lem")
        facts["model"] = facts["model"] or file.results.get("model_name")
        for name in ("model_source", "system_instruction", "chat_template_sha", "lm_eval_version"):
            if file.results.get(name):
                facts[name] = file.results[name]
        if isinstance(ours, dict) and isinstance(ours.get("facts"), dict):
            facts |= ours["facts"]
    return facts


def judges_of(files: Iterable[SampleFile]) -> tuple[Entries, Entries]:
    """The manifests and audits of the judges that exports of ours name.   Raises: DataError if they are damaged."""
    found = [
        read_judges(_results_beside(file.path), ours, arm_of(file))
        for file in files
        if isinstance(ours := file.results.get("lem"), dict)
    ]
    return joined_judges(judges for judges, _ in found), joined_audits(audits for _, audits in found)


def contaminated_of(files: Iterable[SampleFile]) -> dict[str, Any]:
    """The field `contaminated` of exports of ours, joined; {} without one.   Raises: DataError if one is damaged."""
    found = [
        read_contaminated(_results_beside(file.path), [ours])
        for file in files
        if isinstance(ours := file.results.get("lem"), dict)
    ]
    return joined_contaminated(found)


def judged_of(file: SampleFile) -> dict[str, Verdict | None]:
    """The metrics of an export of ours that are verdicts of a judge, with whose they are; None: a mean of others.

    Raises: DataError if they are damaged.
    """
    ours = file.results.get("lem")
    return read_judged(_results_beside(file.path), ours) if isinstance(ours, dict) else {}


def about_task(file: SampleFile, table: str) -> Any:
    """One table's entry for this file's task (`versions`, `n-shot`, `configs`), None where there is none."""
    found = file.results.get(table)
    return found.get(file.task) if isinstance(found, dict) else None
