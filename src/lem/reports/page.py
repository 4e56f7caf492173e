"""`write_report`: one self-contained HTML page about a run, readable from disk with no network.

The tables are rendered here (autoescaped); the viewer is drawn in the browser from JSON in a script element, and
puts every text in place as text, so that what a model wrote is shown and never run. A content security policy
allows nothing but the page's own script, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lem.errors import UserError
from lem.paths import display_path
from lem.records import Record, RunInfo, Score, read_run, write_atomic
from lem.records.cells import Outcome, arm_names, domains_of, join_cells, read_scores, variants_each
from lem.reports import formats
from lem.reports.domains import DomainMean, domain_means
from lem.reports.leaderboard import LeaderboardRow, choose_baseline, leaderboard
from lem.reports.training_section import trainings
from lem.reports.viewer import embed, viewer_data
from lem.stats import Estimate

REPORT_NAME = "report.html"
_TEMPLATES = Path(__file__).parent / "templates"


def write_report(run: Path, output: Path | None = None, *, baseline: str | None = None, threshold: float = 0.5) -> Path:
    """Write the page of a run and return where it is: `output`, else `report.html` in the run directory.

    The file is replaced in one step. An unfinished or unscored run is reported as it is.
    Raises: DataError for an unreadable run or score file; UserError for an unknown baseline or an output directory.
    """
    target = output if output is not None else run / REPORT_NAME
    if target.is_dir():
        raise UserError(f"{target} is a directory; give --output a file name, for example {target / REPORT_NAME}.")
    # Scores are read first: a run that is still growing may then have more records than scores, never fewer.
    scores = read_scores(run)
    info, records = read_run(run)
    page = render_page(info, records, scores, run=run, baseline=baseline, threshold=threshold)
    write_atomic(target, page.encode("utf-8", "replace").decode("utf-8"))
    return target


def render_page(
    info: RunInfo,
    records: Sequence[Record],
    scores: Mapping[str, Sequence[Score]],
    *,
    run: Path,
    baseline: str | None = None,
    threshold: float = 0.5,
) -> str:
    """The page as a string; see `write_report`."""
    against = choose_baseline(arm_names(info, records), baseline)
    boards = [_board(info, records, list(rows), name, against, threshold) for name, rows in scores.items()]
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"number": formats.number, "interval": formats.interval, "percent": formats.percent}
    return environment.get_template("report.html.j2").render(
        info=info,
        boards=boards,
        notices=_notices(info, records, scores, run),
        facts=_facts(info, records),
        arm_facts=_arm_facts(info),
        trainings=trainings(info, run),
        errors=Counter(record.error for record in records if record.failed).most_common(),
        models=formats.models_line((name, str(facts.get("model", ""))) for name, facts in info.arms.items()),
        counts=_counts(info, records),
        intervals=formats.INTERVALS,
        threshold=f"{threshold:g}",
        counted=formats.counted(variants_each(info)),
        domain_legend=formats.domain_legend(variants_each(info)),
        command=[shlex.quote(part) for part in info.command],
        script=Markup(script),
        script_sha=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        data=Markup(embed(viewer_data(info, records, scores, against))),
    )


def _board(
    info: RunInfo, records: Sequence[Record], scores: list[Score], scorer: str, baseline: str | None, threshold: float
) -> dict[str, Any]:
    """One scorer's leaderboard and per-domain table, with the scales that their bars and tints are drawn on."""
    rows = leaderboard(info, records, scores, baseline=baseline, threshold=threshold)
    means = domain_means(info, records, scores)
    deltas = [row.delta.difference for row in rows if row.delta]
    return {
        "scorer": scorer,
        "version": scores[0].version if scores else "",
        "rows": [_drawn(row, _scale([r.mean for r in rows]), _scale(deltas, zero=True)) for row in rows],
        "baseline": next((row.baseline for row in rows if row.baseline), None),
        "arms": arm_names(info, records),
        "domains": _matrix(means),
    }


def _drawn(row: LeaderboardRow, means: tuple[float, float], deltas: tuple[float, float]) -> dict[str, Any]:
    difference = row.delta.difference if row.delta else None
    clear = difference is not None and difference.excludes(0.0)
    direction = "" if difference is None or not clear else ("better" if difference.value > 0 else "worse")
    return {
        "row": row,
        "difference": difference,
        "direction": direction,
        "mean_bar": _bar(row.mean, means),
        "delta_bar": _bar(difference, deltas) if difference else None,
    }


def _scale(estimates: Sequence[Estimate], *, zero: bool = False) -> tuple[float, float]:
    """The smallest range that holds all limits and values (and zero), a little widened; never empty."""
    points = [p for e in estimates for p in (e.value, e.low, e.high) if not math.isnan(p)]
    points += [0.0] if zero or not points else []
    low, high = min(points), max(points)
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin


def _bar(estimate: Estimate, scale: tuple[float, float]) -> dict[str, float] | None:
    """Positions on the scale in percent; None when there is no value to draw."""
    if math.isnan(estimate.value):
        return None
    low, high = scale

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    ends = (estimate.value, estimate.value) if math.isnan(estimate.low) else (estimate.low, estimate.high)
    return {"mid": place(estimate.value), "low": place(ends[0]), "high": place(ends[1]), "zero": place(0.0)}


def _matrix(means: Sequence[DomainMean]) -> list[tuple[str, list[tuple[DomainMean, float]]]]:
    """Rows of the per-domain table: domain, then each arm's mean with its tint in 0 .. 1 over the whole table."""
    values = [mean.mean.value for mean in means if not math.isnan(mean.mean.value)]
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    table: dict[str, list[tuple[DomainMean, float]]] = {}
    for mean in means:
        value = mean.mean.value
        tint = 0.0 if math.isnan(value) or high == low else (value - low) / (high - low)
        table.setdefault(mean.domain, []).append((mean, round(tint, 3)))
    return list(table.items())


def _counts(info: RunInfo, records: Sequence[Record]) -> dict[str, int]:
    cells = join_cells(info, records, [])
    outcomes = Counter(cell.outcome for cell in cells)
    return {
        "planned": len(cells),
        "answered": outcomes[Outcome.UNSCORED],
        "failed": outcomes[Outcome.FAILED],
        "missing": outcomes[Outcome.MISSING],
        "truncated": sum(record.finish_reason == "length" and not record.failed for record in records),
        "duplicates": duplicate_repeats(records),
        "arms": len(arm_names(info, records)),
        "probes": len({cell.key.probe_id for cell in cells}),
        "repeats": len({cell.key.repeat for cell in cells}),
        "domains": len(set(domains_of(info).values())),
    }


def duplicate_repeats(records: Sequence[Record]) -> int:
    """Answers that equal, word for word, an earlier repeat of the same arm and probe."""
    texts = Counter((r.arm, r.probe_id, r.response) for r in records if r.response is not None and not r.failed)
    return sum(count - 1 for count in texts.values())


def _notices(
    info: RunInfo, records: Sequence[Record], scores: Mapping[str, Sequence[Score]], run: Path
) -> list[tuple[str, str]]:
    """What a reader must know before any number, as (kind, sentence)."""
    counts, found = _counts(info, records), []
    toy = formats.toy_notice(str(facts.get("model", "")) for facts in info.arms.values())
    if toy:
        found.append(("toy", toy))
    if counts["missing"] or counts["failed"] or info.status != "done":
        found.append(("incomplete", _incomplete(info.status, counts)))
    where = shlex.quote(display_path(run))
    if not scores:
        found.append(("unscored", f"This run has not been scored. Make scores with: ./lem score {where}"))
    for name, rows in scores.items():
        behind = sum(
            cell.outcome is Outcome.UNSCORED and cell.score is None for cell in join_cells(info, records, rows)
        )
        if behind:
            noun = "answer has" if behind == 1 else "answers have"
            found.append(("unscored", f"{behind} {noun} no current {name} score. Renew them with: ./lem score {where}"))
    return found


def _incomplete(status: str, counts: Mapping[str, int]) -> str:
    return (
        f"This run is not complete (status '{status}'): of {counts['planned']} planned answers {counts['answered']} "
        f"are stored, {counts['failed']} failed and {counts['missing']} are missing. Running the same command again "
        "resumes it; until then every figure below covers only what is there."
    )


def _facts(info: RunInfo, records: Sequence[Record]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of (name, value) for the run facts, straight from `run.json`, plus the counts."""
    counts = _counts(info, records)
    run = {"run": info.run_id, "kind": info.kind, "status": info.status, "created": info.created,
           "updated": info.updated, "group size": info.group_size}  # fmt: skip
    stored = {
        "planned answers": counts["planned"],
        "answered": counts["answered"],
        "failed": counts["failed"],
        "missing": counts["missing"],
        "truncated": counts["truncated"],
        "duplicates among repeats": counts["duplicates"] if counts["repeats"] > 1 else "one repeat only",
    }
    groups: list[tuple[str, Mapping[str, Any]]] = [
        ("Run", run), ("Answers", stored), ("Settings", info.settings), ("Data", info.data),
        ("Device", info.device), ("Versions", info.versions),
    ]  # fmt: skip
    return [
        (title, [(name.replace("_", " "), _shown(value)) for name, value in group.items()]) for title, group in groups
    ]


def _arm_facts(info: RunInfo) -> list[tuple[str, list[tuple[str, str]]]]:
    return [
        (name, [(fact.replace("_", " "), _shown(value)) for fact, value in facts.items() if value is not None])
        for name, facts in info.arms.items()
    ]


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
