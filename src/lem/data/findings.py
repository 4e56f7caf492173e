"""What a data check reports: findings with a place and a remedy, lengths, and the report that holds them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]

# kind -> (severity, title in the report, remedy)
KINDS: dict[str, tuple[Severity, str, str]] = {
    "schema": ("error", "not a chat example", "write one {'messages': [{'role', 'content'}, ...]} object a line"),
    "roles": ("error", "wrong roles", "after an optional system turn, alternate user and assistant, assistant last"),
    "empty": ("error", "empty text", "write the missing text or delete the line"),
    "duplicate-row": ("error", "duplicate row", "delete one of the two"),
    "duplicate-prompt": ("error", "prompt used twice in a file", "delete one or ask something else"),
    "shared-prompt": ("error", "prompt shared between splits", "keep it in one split only"),
    "near-prompt": ("error", "near-duplicate prompts", "rewrite one of them from another situation"),
    "near-answer": ("error", "near-duplicate answers", "rewrite one of them in other words"),
    "placebo-prompt": ("error", "prompts differ from the parent's", "give both files the same prompts"),
    "placebo-order": ("warning", "prompts in another order", "sort both alike, so that runs see the same batches"),
    "placebo-parent": ("warning", "no parent file to compare with", "put the matching file one folder up"),
    "probe-words": ("error", "words of a probe in training", "rewrite the passage; a probe may never be trained on"),
    "near-probe": ("error", "prompt too near to a probe", "replace it; a probe may never be trained on"),
    "corpus-words": ("error", "words of protected text in a corpus", "rewrite or drop the passage"),
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: where (`file`, `line` from 1), what, and what it collides with.

    `other` names the other side (a file and line, or a probe id and its file); `shared` the words in common.
    """

    kind: str
    file: str
    line: int
    what: str
    other: str = ""
    shared: str = ""

    @property
    def severity(self) -> Severity:
        """`error` stops the check from being clean; `warning` does not."""
        return KINDS[self.kind][0]

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return KINDS[self.kind][2]

    def to_dict(self) -> dict[str, Any]:
        """The finding as plain JSON values, severity and remedy included."""
        return {**asdict(self), "severity": self.severity, "remedy": self.remedy}


@dataclass(frozen=True)
class Lengths:
    """Lengths in words: count, smallest, 10th percentile, median, mean, 90th percentile, largest."""

    n: int
    min: int
    p10: float
    median: float
    mean: float
    p90: float
    max: int


def lengths(counts: Sequence[int]) -> Lengths | None:
    """Summarise word counts (percentiles interpolate linearly between order statistics); None for no text at all."""
    if not counts:
        return None
    deciles = statistics.quantiles(counts, n=10, method="inclusive") if len(counts) > 1 else [float(counts[0])] * 9
    median, mean = statistics.median(counts), statistics.fmean(counts)
    return Lengths(len(counts), min(counts), deciles[0], median, mean, deciles[8], max(counts))


@dataclass(frozen=True)
class FileSummary:
    """One checked file: its valid rows, the lines that are none, and the lengths of its prompts and answers."""

    file: str
    rows: int
    bad_lines: int
    prompts: Lengths | None
    answers: Lengths | None


@dataclass(frozen=True)
class DataReport:
    """The outcome of a data check; file names are relative to `directory`."""

    directory: str
    files: tuple[FileSummary, ...]
    n_probes: int
    probe_files: tuple[str, ...]
    corpus_files: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """True if no finding is an error."""
        return not any(finding.severity == "error" for finding in self.findings)

    def of_file(self, file: str) -> tuple[Finding, ...]:
        """The findings placed in one file."""
        return tuple(finding for finding in self.findings if finding.file == file)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "directory": self.directory,
            "clean": self.clean,
            "files": [asdict(file) for file in self.files],
            "n_probes": self.n_probes,
            "probe_files": list(self.probe_files),
            "corpus_files": list(self.corpus_files),
            "findings": [finding.to_dict() for finding in self.findings],
        }
