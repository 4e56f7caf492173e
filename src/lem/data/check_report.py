"""The data check's report as plain text of at most 80 columns; the command prints it, nothing here does."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from lem.data.findings import KINDS, DataReport, Finding, Lengths

WIDTH = 80
MAX_PER_KIND = 20
_MAX_SHARED = 160
_COLUMNS = ("n", "min", "p10", "median", "mean", "p90", "max")


def render_report(report: DataReport) -> str:
    """Return the whole report: a line per file, lengths in words, findings by kind, one closing sentence."""
    sections = [_files(report), _length_table(report), *_findings(report), _closing(report)]
    return "\n\n".join(sections)


def _files(report: DataReport) -> str:
    names = [_shorten(file.file, 40) for file in report.files]
    width = max(len("file"), *map(len, names))
    lines = [f"{'file':<{width}}  {'rows':>6}  {'bad lines':>9}  {'findings':>8}"]
    for name, file in zip(names, report.files, strict=True):
        count = len(report.of_file(file.file))
        lines.append(f"{name:<{width}}  {file.rows:>6}  {file.bad_lines:>9}  {count:>8}")
    return "\n".join(lines)


def _length_table(report: DataReport) -> str:
    rows = [
        (f"{_shorten(file.file, 27)} {part}", values)
        for file in report.files
        for part, values in (("prompts", file.prompts), ("answers", file.answers))
        if values is not None
    ]
    if not rows:
        return "lengths in words: no valid row"
    title = "lengths in words"
    width = max(len(title), *(len(name) for name, _ in rows))
    lines = [f"{title:<{width}}" + "".join(f"{column:>6}" if column != "median" else "  median" for column in _COLUMNS)]
    return "\n".join(lines + [f"{name:<{width}}{_cells(values)}" for name, values in rows])


def _cells(values: Lengths) -> str:
    return (
        f"{values.n:>6}{values.min:>6}{values.p10:>6.0f}{values.median:>8.0f}"
        f"{values.mean:>6.0f}{values.p90:>6.0f}{values.max:>6}"
    )


def _findings(report: DataReport) -> list[str]:
    sections = []
    for kind, (severity, title, remedy) in KINDS.items():
        found = [finding for finding in report.findings if finding.kind == kind]
        if found:
            heading = _wrap(f"{severity}: {title} ({len(found)}); {remedy}.", "")
            sections.append("\n".join([heading, *_listed(found)]))
    return sections


def _listed(found: Sequence[Finding]) -> list[str]:
    lines = [_wrap(_sentence(finding), "  ") for finding in found[:MAX_PER_KIND]]
    if len(found) > MAX_PER_KIND:
        lines.append(f"  and {len(found) - MAX_PER_KIND} more of this kind; --json lists them all")
    return lines


def _sentence(finding: Finding) -> str:
    shared = finding.shared if len(finding.shared) <= _MAX_SHARED else finding.shared[: _MAX_SHARED - 3] + "..."
    return f"{finding.file} line {finding.line}: {finding.what}" + (f': "{shared}"' if shared else "")


def _closing(report: DataReport) -> str:
    rows = sum(file.rows for file in report.files)
    corpus = f", {_plural(len(report.corpus_files), 'corpus file')}" if report.corpus_files else ""
    checked = (
        f"{_plural(rows, 'row')} in {_plural(len(report.files), 'file')} of {report.directory}"
        f"{corpus} checked against {_plural(report.n_probes, 'probe')}"
    )
    errors = sum(finding.severity == "error" for finding in report.findings)
    warnings = len(report.findings) - errors
    noted = f" ({_plural(warnings, 'warning')})" if warnings else ""
    verdict = f"{_plural(errors, 'error')}{noted}; mend them before training" if errors else f"clean{noted}"
    return _wrap(f"{checked}: {verdict}.", "")


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _shorten(name: str, limit: int) -> str:
    return name if len(name) <= limit else "..." + name[-(limit - 3) :]


def _wrap(text: str, indent: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")
