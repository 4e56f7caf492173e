"""The page's facts: counts of the run, notices to read before any number, settings, versions and commands."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lem.paths import display_path
from lem.records import Metric, Outcome, Record, RunContents, RunInfo
from lem.records.cells import arm_names, domains_of, planned_keys
from lem.reports import formats
from lem.reports.comparison_file import REFUSAL, ComparisonView
from lem.reports.watermarks import watermarks


def counts_of(contents: RunContents) -> dict[str, int]:
    """Planned, answered, failed, missing and truncated answers, copies among repeats, and the size of the design."""
    info, records = contents.info, contents.records
    by_key = {record.key: record for record in records}
    cells = dict.fromkeys([*planned_keys(info), *by_key])
    failed = sum(record.failed or record.response is None for record in by_key.values())
    return {
        "planned": len(cells),
        "answered": len(by_key) - failed,
        "failed": failed,
        "missing": len(cells) - len(by_key),
        "truncated": sum(record.finish_reason == "length" and not record.failed for record in records),
        "duplicates": duplicate_repeats(records),
        "arms": len(arm_names(info, records)),
        "probes": len({key.probe_id for key in cells}),
        "repeats": len({key.repeat for key in cells}),
        "domains": len(set(domains_of(info).values())),
    }


def duplicate_repeats(records: Sequence[Record]) -> int:
    """Answers that equal, word for word, an earlier repeat of the same arm and probe."""
    texts = Counter((r.arm, r.probe_id, r.response) for r in records if r.response is not None and not r.failed)
    return sum(count - 1 for count in texts.values())


def notices(
    contents: RunContents,
    metrics: Sequence[Metric],
    comparison: ComparisonView | None,
    counts: Mapping[str, int],
    run: Path,
) -> list[tuple[str, str, str]]:
    """What a reader must know before any number, as (kind, label, sentence)."""
    info, found = contents.info, []
    toy = formats.toy_notice(str(facts.get("model", "")) for facts in info.arms.values())
    if toy:
        found.append(("toy", "", toy))
    if counts["missing"] or counts["failed"] or info.status != "done":
        found.append(("incomplete", "", _incomplete(info.status, counts)))
    where = shlex.quote(display_path(run))
    if not metrics:
        found.append(("unscored", "", f"This run has not been scored. Make scores with: ./lem score {where}"))
    for metric in metrics:
        behind = sum(cell.outcome is Outcome.UNSCORED and cell.score is None for cell in metric.cells)
        if behind and metric.source == "scorer":
            noun = "answer has" if behind == 1 else "answers have"
            sentence = f"{behind} {noun} no current {metric.name} score. Renew them with: ./lem score {where}"
            found.append(("unscored", "", sentence))
    for judge in sorted(contents.judges.keys() | contents.audits.keys()):
        found += [("refusal", "Judge", mark.sentence) for mark in watermarks(contents, judge)]
    if comparison is not None:
        if comparison.created and comparison.created < info.updated:
            sentence = f"The comparison is older than the run. Renew it with: ./lem compare {where}"
            found.append(("stale", "", sentence))
        for objection in comparison.objections:
            if objection.code in _SAID_OF_JUDGES:
                continue
            label = "Withheld" if objection.severity == REFUSAL else "Watermark"
            found.append((objection.severity, label, sentence_case(objection.sentence)))
    return found


# Objections that the notices on the judges themselves say already.
_SAID_OF_JUDGES = ("self-judged", "judge-untrustworthy")


def sentence_case(sentence: str) -> str:
    """The sentence with a capital at its start."""
    return sentence[:1].upper() + sentence[1:]


def _incomplete(status: str, counts: Mapping[str, int]) -> str:
    return (
        f"This run is not complete (status '{status}'): of {counts['planned']} planned answers {counts['answered']} "
        f"are stored, {counts['failed']} failed and {counts['missing']} are missing. Running the same command again "
        "resumes it; until then every figure below covers only what is there."
    )


def facts_of(info: RunInfo, counts: Mapping[str, int]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of (name, value) for the run facts, straight from `run.json`, plus the counts."""
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


def arm_facts(info: RunInfo) -> list[tuple[str, list[tuple[str, str]]]]:
    """What `run.json` says of each arm."""
    return [
        (name, [(fact.replace("_", " "), _shown(value)) for fact, value in facts.items() if value is not None])
        for name, facts in info.arms.items()
    ]


def commands(info: RunInfo, comparison: ComparisonView | None, run: Path) -> list[tuple[str, list[str]]]:
    """The commands that made the answers, the comparison and this page, each as quoted words."""
    made = [("the answers", list(info.command)), ("the comparison", list(comparison.command) if comparison else [])]
    page = ("this page", ["./lem", "report", display_path(run)])
    return [(what, [shlex.quote(part) for part in words]) for what, words in (*made, page) if words]


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
