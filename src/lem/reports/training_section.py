"""The page's training section: per adapter the figures of its training in one line, and the curve drawn in place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from lem.errors import UserError
from lem.paths import display_path
from lem.records import RunInfo
from lem.reports.curves import summarise, training_figure
from lem.reports.formats import number
from lem.reports.svg import inline_svg
from lem.reports.training_log import METRICS_NAME, TrainingSummary, read_training


@dataclass(frozen=True)
class AdapterTraining:
    """An adapter's entry on the page: the arms that use it, where it was, one line about it, its curve if there is."""

    arms: tuple[str, ...]
    adapter: str
    line: str
    sources: str = ""
    curve: Markup | None = None


def trainings(info: RunInfo, run: Path) -> list[AdapterTraining]:
    """One entry for each adapter that an arm of the run was made with, in the order of the arms."""
    arms: dict[str, list[str]] = {}
    for arm, facts in info.arms.items():
        if facts.get("adapter"):
            arms.setdefault(str(facts["adapter"]), []).append(arm)
    return [_training(adapter, tuple(names), info, run) for adapter, names in arms.items()]


def _training(adapter: str, arms: tuple[str, ...], info: RunInfo, run: Path) -> AdapterTraining:
    folder = _find(adapter, run)
    adapter = display_path(Path(adapter).expanduser())
    if folder is None:
        return AdapterTraining(
            arms, adapter, f"The adapter's folder {adapter} is not here any more, so its training is not shown."
        )
    if not (folder / METRICS_NAME).is_file():
        return AdapterTraining(
            arms, adapter, f"{adapter} holds no {METRICS_NAME}, so nothing is known of its training."
        )
    try:
        log = read_training(folder)
    except UserError as error:
        return AdapterTraining(arms, adapter, f"The training cannot be shown: {error}")
    trained_on, made_with = log.config.get("base_model_sha"), info.arms[arms[0]].get("model_sha")
    if trained_on and made_with and trained_on != made_with:
        line = f"{adapter} now holds an adapter of another base than this run's, so its training is not shown."
        return AdapterTraining(arms, adapter, line)
    curve = inline_svg(training_figure(log, compact=True), f"Training curve of {', '.join(arms)}")
    return AdapterTraining(arms, adapter, summary_line(summarise(log)), log.sources, curve)


def _find(adapter: str, run: Path) -> Path | None:
    """The adapter's folder as it was given: from here, else from a folder above the run, where the run was made."""
    path = Path(adapter).expanduser()
    bases = [Path(), *run.resolve().parents]
    return next((base / path for base in bases if (base / path).is_dir()), None)


def summary_line(summary: TrainingSummary) -> str:
    """The figures of a training in one sentence; what the metrics do not hold is left out."""
    parts = []
    if summary.first_valid is not None:
        change = f"{number(summary.first_valid, 3)} to {number(summary.last_valid, 3)} nats per reply token"
        best = f"best {number(summary.best_valid, 3)} at iteration {summary.best_iteration}"
        parts.append(f"Validation loss {change} ({best})")
    parts.append(_count(summary.iterations, "iteration") + (", stopped early" if summary.stopped_early else ""))
    if summary.tokens is not None:
        parts.append(f"{summary.tokens:,} reply tokens")
    if summary.peak_memory_gb is not None:
        parts.append(f"peak memory {number(summary.peak_memory_gb)} GB")
    parts.append(f"{_count(summary.n_skipped, 'skipped step')}, {_count(summary.n_rolled_back, 'roll-back')}")
    return "; ".join(parts) + "."


def _count(n: int, noun: str) -> str:
    return f"{n or 'no'} {noun}{'' if n == 1 else 's'}"
