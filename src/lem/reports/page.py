"""`write_report`: one self-contained HTML page about a run, readable from disk with no network.

Tables and drawings are made here (autoescaped); the answers are drawn in the browser from compressed parts, and every
text is put in place as text, so that what a model wrote is shown and never run. A content security policy allows
nothing but the page's own script, by its hash. Texts beyond a few megabytes lie in script files beside the page.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lem.data.items import read_run_items
from lem.errors import UserError
from lem.paths import display_path
from lem.records import Metric, RunContents, metrics_of, read_contents, write_atomic
from lem.records.cells import arm_names, variants_each
from lem.reports import formats, page_facts, page_findings, parts
from lem.reports.answers import pack_answers
from lem.reports.comparison_file import ComparisonView, read_comparison
from lem.reports.judge_views import judge_views, share
from lem.reports.leaderboard import choose_baseline
from lem.reports.page_axes import drawn_axes
from lem.reports.page_boards import build_board, change_threshold, lower_is_better, withheld_arms
from lem.reports.training_section import trainings
from lem.reports.viewer import Highlights, ViewedMetric
from lem.reports.watermarks import metric_watermarks, words_of

REPORT_NAME = "report.html"
_TEMPLATES = Path(__file__).parent / "templates"
_SCRIPTS = ("start.js", "unpack.js", "marks.js", "cards.js", "filters.js", "list.js", "keys.js", "end.js")
_MARK = '<meta name="generator" content="lem report">'
_OLDER_MARK = "- LEM report</title>"


def write_report(
    run: Path,
    output: Path | None = None,
    *,
    baseline: str | None = None,
    threshold: float = 0.5,
    highlights: Highlights | None = None,
) -> Path:
    """Write the page of a run and return where it is: `output`, else `report.html` in the run directory.

    The page is replaced in one step, after the files beside it that hold a large run's texts. An unfinished or
    unscored run is reported as it is. `comparison.json` in the run is shown if it is there. `highlights` are the
    patterns to mark in the answers: scorer -> signal -> patterns of `source` and `flags`.
    Raises: DataError for an unreadable run, score or comparison file; UserError for an unknown baseline, an output
    directory, or a file in the way that is no report of ours.
    """
    target = output if output is not None else run / REPORT_NAME
    _refuse_foreign_page(target)
    parts.refuse_foreign(target)
    contents, comparison = read_contents(run), read_comparison(run)
    page = render_page(
        contents, run=run, target=target, comparison=comparison, baseline=baseline, threshold=threshold,
        highlights=highlights or {},
    )  # fmt: skip
    write_atomic(target, page.encode("utf-8", "replace").decode("utf-8"))
    return target


def _refuse_foreign_page(target: Path) -> None:
    if target.is_dir():
        raise UserError(f"{target} is a directory; give --output a file name, for example {target / REPORT_NAME}.")
    if target.exists():
        with target.open("rb") as file:
            opening = file.read(4096).decode("utf-8", "replace")
        if _MARK not in opening and _OLDER_MARK not in opening:
            raise UserError(f"{display_path(target)} is no report of ours; choose another --output.")


def render_page(
    contents: RunContents,
    *,
    run: Path,
    target: Path | None = None,
    comparison: ComparisonView | None = None,
    baseline: str | None = None,
    threshold: float = 0.5,
    highlights: Highlights | None = None,
) -> str:
    """The page as a string; what a large run's page needs beside it is written beside `target`."""
    names = arm_names(contents.info, contents.records)
    against = choose_baseline(names, baseline or _compared(comparison, names))
    metrics = metrics_of(contents)
    viewed = [
        ViewedMetric(
            metric,
            change_threshold(metric, threshold),
            lower_is_better(comparison, metric),
            tuple(withheld_arms(comparison, metric.name, names, against)),
            words_of(metric_watermarks(contents, metric)),
        )
        for metric in metrics
    ]
    facts = _facts(contents, metrics, comparison, run) | {
        "axes": drawn_axes(contents, metrics),
        "judges": judge_views(contents, run, against),
        "boards": [build_board(contents, metric, against, threshold, comparison) for metric in metrics],
        "answers": pack_answers(
            contents, viewed, against, highlights or {}, target or run / REPORT_NAME, read_run_items(run)
        ),
        "findings": page_findings.findings(comparison) if comparison else [],
    }
    return _rendered(facts)


def _facts(
    contents: RunContents, metrics: Sequence[Metric], comparison: ComparisonView | None, run: Path
) -> dict[str, Any]:
    """What the page says in words, by the names that its templates use."""
    info, counts = contents.info, page_facts.counts_of(contents)
    return {
        "info": info,
        "where": shlex.quote(display_path(run)),
        "counts": counts,
        "comparison": comparison,
        "plan": page_findings.plan_facts(comparison) if comparison else [],
        "notices": page_facts.notices(contents, metrics, comparison, counts, run),
        "facts": page_facts.facts_of(info, counts),
        "arm_facts": page_facts.arm_facts(info),
        "commands": page_facts.commands(info, comparison, run),
        "trainings": trainings(info, run),
        "errors": Counter(record.error for record in contents.records if record.failed).most_common(),
        "models": formats.models_line((name, str(facts.get("model", ""))) for name, facts in info.arms.items()),
        "intervals": formats.INTERVALS,
        "counted": formats.counted(variants_each(info)),
        "domain_legend": formats.domain_legend(variants_each(info)),
    }


def _rendered(facts: Mapping[str, Any]) -> str:
    script = "".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    style = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    policy = _policy(script, bool(facts["answers"].folder))
    template = _environment().get_template("report.html.j2")
    return template.render(facts, mark=Markup(_MARK), script=Markup(script), policy=policy, style=Markup(style))


def _compared(comparison: ComparisonView | None, names: Sequence[str]) -> str | None:
    """The baseline of the comparison, so that every section of the page speaks of the same one."""
    return comparison.baseline if comparison and comparison.baseline in names else None


def _policy(script: str, paged: bool) -> str:
    """Only this script may run; one that it adds itself may where texts lie in files beside the page."""
    sha = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    own = f"'sha256-{sha}'" + (" 'strict-dynamic'" if paged else "")
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src {own}; base-uri 'none'; form-action 'none'"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    filters: Mapping[str, Any] = {
        "number": formats.number, "interval": formats.interval, "percent": formats.percent,
        "share": share, "sentence_case": page_facts.sentence_case,
        "verdict": lambda code: page_findings.CODES.get(code, code), "tally": page_findings.tally,
    }  # fmt: skip
    environment.filters |= filters
    return environment
