"""What the page says of each judge of a run: who it is, what it took, what it left unscored, and how it was audited."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lem.records import Judgement, RunContents
from lem.records.judge_files import read_pair_results
from lem.reports.audit_file import AuditView, audit_view
from lem.reports.benchmark_rows import BenchmarkRow, benchmark_table
from lem.reports.benchmark_table import by_metric, title, uneven_sentences
from lem.reports.comparison_file import estimate_of
from lem.reports.formats import ABSENT, percent
from lem.reports.watermarks import PANEL, Watermark, watermarks
from lem.stats import Estimate

REASONS = ("unparsable", "blocked", "truncated", "refused", "failed")


@dataclass(frozen=True)
class JudgedMetric:
    """One dimension by one judge: a row per arm, with a column for every reason that something is unscored."""

    title: str
    rows: list[BenchmarkRow]
    reasons: list[str]
    flags: list[str]


@dataclass(frozen=True)
class WinRateView:
    """One comparison of two arms by one judge; estimates are shares, None where there is none.

    `counts` are of pairs: won, tied and lost; `lost` those unscored, failed and missing, of which `unscored` has the
    reasons.
    """

    title: str
    rate: Estimate | None
    controlled: Estimate | None
    consistency: Estimate | None
    first_slot: Estimate | None
    bounds: tuple[float, float] | None
    counts: str
    lost: list[str]
    unscored: str


@dataclass(frozen=True)
class JudgeView:
    """Everything the page shows of one judge; `audit` is None when there was none.

    `imported` ratings have no manifest: others made them, and how is not known. A `panel` is several judges as one.
    """

    name: str
    anchor: str
    facts: list[tuple[str, str]]
    watermarks: tuple[Watermark, ...]
    kin: list[tuple[str, str]]
    notes: list[str]
    metrics: list[JudgedMetric]
    pairs: list[WinRateView]
    audit: AuditView | None
    imported: bool
    panel: bool


def judge_views(contents: RunContents, run: Path, baseline: str | None) -> list[JudgeView]:
    """One view for each judge, as they first appear.   Raises: DataError for a file of a judge that is not readable."""
    pairs = read_pair_results(run)
    listed = [
        *(one.judge for one in contents.judgements),
        *contents.judges,
        *(str(entry.get("judge")) for entry in pairs),
    ]
    names = list(dict.fromkeys(listed))
    if not names:
        return []
    rows = benchmark_table(contents, baseline=baseline, only=names)
    return [
        JudgeView(
            name=name,
            anchor=f"judge-{number}",
            facts=_facts(contents.judges.get(name), [one for one in contents.judgements if one.judge == name]),
            watermarks=watermarks(contents, name),
            kin=[(kin["arm"], str(kin.get("why", ""))) for kin in contents.judges.get(name, {}).get("kin", [])],
            notes=[str(note) for note in contents.judges.get(name, {}).get("notes", [])],
            metrics=[_metric(found) for found in by_metric([row for row in rows if row.source == name])],
            pairs=[_win_rate(entry) for entry in pairs if entry.get("judge") == name],
            audit=audit_view(name, contents.audits[name]) if name in contents.audits else None,
            imported=name not in contents.judges and name != PANEL,
            panel=name == PANEL and name not in contents.judges,
        )
        for number, name in enumerate(names, start=1)
    ]


def _facts(manifest: Mapping[str, Any] | None, judgements: Sequence[Judgement]) -> list[tuple[str, str]]:
    """Who judged and what it took, as (name, text); without a manifest what the judgements themselves say."""
    known = dict(manifest or {})
    reported = known.get("reported_models") or sorted({one.model for one in judgements if one.model})
    cost = known.get("cost")
    rubrics: Mapping[str, Any] = known.get("rubrics") or {}
    settings: Mapping[str, Any] = known.get("settings") or {}
    facts = [
        ("backend", known.get("backend")),
        ("model asked for", known.get("model")),
        ("model reported", ", ".join(reported)),
        ("rubrics", "; ".join(f"{name} {version}" for name, version in rubrics.items())),
        ("settings", "; ".join(f"{name} {value}" for name, value in settings.items() if value is not None)),
        ("verdicts", f"{len(judgements):,}"),
        ("calls", _count(known.get("calls"))),
        ("tokens read", _count(known.get("n_prompt_tokens"))),
        ("tokens written", _count(known.get("n_tokens"))),
        ("cost", "not known" if cost is None else f"{cost:.4f} {known.get('currency', '')}".strip()),
    ]
    return [(name, str(text)) for name, text in facts if text]


def _count(value: int | None) -> str:
    return "not known" if value is None else f"{value:,}"


def _metric(rows: list[BenchmarkRow]) -> JudgedMetric:
    others = dict.fromkeys(reason for row in rows for reason in row.reasons if reason not in REASONS)
    return JudgedMetric(title(rows[0]), rows, [*REASONS, *others], list(uneven_sentences(rows)))


def _win_rate(entry: Mapping[str, Any]) -> WinRateView:
    controlled: Mapping[str, Any] = entry.get("controlled") or {}
    unscored: Mapping[str, int] = entry.get("unscored") or {}
    bounds = entry.get("bounds")
    told = [f"{entry.get(name, ABSENT)} {name}" for name in ("wins", "ties", "losses")]
    inconsistent = f"{entry.get('inconsistent', 0)} of the ties changed with the order"
    if entry.get("dependent"):
        inconsistent += f"; hangs on {', '.join(entry['dependent'])} alone"
    return WinRateView(
        title=f"{entry.get('treatment')} against {entry.get('baseline')}",
        rate=estimate_of(entry.get("estimate")),
        controlled=estimate_of(controlled.get("estimate")),
        consistency=estimate_of(entry.get("consistency")),
        first_slot=estimate_of(entry.get("first_slot")),
        bounds=(float(bounds[0]), float(bounds[1])) if bounds else None,
        counts=f"{', '.join(told)}; {inconsistent}",
        lost=[str(n) for n in (sum(unscored.values()), entry.get("n_failed", ABSENT), entry.get("n_missing", ABSENT))],
        unscored=", ".join(f"{n} {reason}" for reason, n in sorted(Counter(unscored).items())),
    )


def share(estimate: Estimate | None) -> str:
    """A share with its interval in percent."""
    if estimate is None or estimate.value != estimate.value:
        return ABSENT
    ends = "" if estimate.low != estimate.low else f" [{percent(estimate.low)}, {percent(estimate.high)}]"
    return f"{percent(estimate.value)}{ends}"
