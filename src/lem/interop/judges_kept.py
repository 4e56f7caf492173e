"""What a format keeps of what stands against the values of a run, and reads back.

    contaminated      the items that an adapter of the run was trained on
    judges, audits    manifest and audit of each judge by its name, as in judgements/ and audits/ of a run
    judged            of a format that knows scores alone: the metrics that are verdicts, and whose
    watermark         what must be said beside a judge's verdicts, in one text

A file of one arm names the kin that it holds answers of, so that files joined again name the kin of the run. Of a run
with nothing of the kind nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lem.errors import DataError
from lem.paths import slug
from lem.records import Metric, RunContents
from lem.records.contaminated import joined_contaminated
from lem.records.judge_files import PAIRS, is_audit, is_manifest, judge_notes, with_arms

PANEL = "panel"  # the judge's name that verdicts of all judges together carry

Entries = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Verdict:
    """Whose verdicts a metric holds: judge, dimension, and the ends of the scale (None: not known)."""

    judge: str
    dimension: str
    low: float | None
    high: float | None


def judges_of_arm(contents: RunContents, arm: str) -> dict[str, Entries]:
    """`judges` and `audits` for a file of one arm; {} without judges.

    Kin is limited to the arm and its opponents, what was to be rated and compared to the arm.
    """
    held = {arm, *(one.against for one in contents.judgements if one.arm == arm)}
    judges = {}
    for name, manifest in contents.judges.items():
        judges[name] = {**manifest, "kin": [kin for kin in manifest.get("kin", []) if kin["arm"] in held]}
        if "rated" in manifest:
            judges[name]["rated"] = {
                dimension: {benchmark: [arm] for benchmark, arms in benchmarks.items() if arm in arms}
                for dimension, benchmarks in manifest["rated"].items()
            }
        if "compared" in manifest:
            judges[name]["compared"] = [one for one in manifest["compared"] if one["treatment"] == arm]
    found = {"judges": judges, "audits": dict(contents.audits)}
    return {name: entries for name, entries in found.items() if entries}


def contaminated_kept(contents: RunContents) -> dict[str, Any]:
    """`contaminated` for a file: the items that an adapter of the run was trained on; {} where none is known."""
    return joined_contaminated([contents.info.data])


def read_contaminated(path: Path, kept: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The field of a manifest that exports of ours kept.   Raises: DataError if it is damaged."""
    try:
        return joined_contaminated(kept)
    except ValueError:
        raise DataError(
            f"{path}: its field 'contaminated' does not say which items were trained on; export the run again."
        ) from None


def read_judges(path: Path, kept: Mapping[str, Any], arm: str) -> tuple[Entries, Entries]:
    """The manifests and audits that an export of ours kept in a file of this arm.

    Raises: DataError for entries that are none, because a judge would then stand there with nothing against it.
    """
    judges = _entries(path, kept, "judges", is_manifest)
    judges = {name: with_arms(manifest, [arm]) for name, manifest in judges.items()}
    return judges, _entries(path, kept, "audits", is_audit)


def _entries(path: Path, kept: Mapping[str, Any], field: str, is_sound: Callable[[Any], bool]) -> Entries:
    found = kept.get(field, {})
    if not (isinstance(found, dict) and all(is_sound(one) and one["judge"] == name for name, one in found.items())):
        raise _damaged(path, field)
    return dict(found)


def judged_metrics(contents: RunContents, metrics: Iterable[Metric]) -> dict[str, Verdict | None]:
    """Whose verdicts each judged metric of a run with judges holds; None for a mean of dimensions, made anew later."""
    rated = {(one.judge, one.dimension) for one in contents.judgements if not one.order}
    found: dict[str, Verdict | None] = {}
    for metric in metrics if contents.judges else ():
        if metric.source != "scorer":
            dimension = metric.name.removesuffix(f" · {metric.source}")
            verdict = Verdict(metric.source, dimension, metric.low, metric.high)
            found[metric.name] = verdict if (metric.source, dimension) in rated else None
    return found


def read_judged(path: Path, kept: Mapping[str, Any]) -> dict[str, Verdict | None]:
    """Whose verdicts the metrics of a file are.   Raises: DataError for entries that do not say it."""
    found = kept.get("judged", {})
    if not isinstance(found, dict) or not all(one is None or _is_verdict(one) for one in found.values()):
        raise _damaged(path, "judged")
    return {name: None if one is None else Verdict(**one) for name, one in found.items()}


def _is_verdict(found: Any) -> bool:
    if not isinstance(found, dict) or found.keys() != {"judge", "dimension", "low", "high"}:
        return False
    named = all(type(found[name]) is str for name in ("judge", "dimension"))
    return named and all(found[end] is None or type(found[end]) in (int, float) for end in ("low", "high"))


def _damaged(path: Path, field: str) -> DataError:
    return DataError(f"{path}: its field '{field}' does not say what the judges are; export the run again.")


def watermark(contents: RunContents, sources: Iterable[str]) -> str | None:
    """What stands against verdicts of these judges, of all judges for a panel's; None where nothing does."""
    named = set(sources)
    judges = {name: one for name, one in contents.judges.items() if name in named or PANEL in named}
    return " ".join(judge_notes(judges, contents.audits)) or None


def judge_file_names(judges: Iterable[str]) -> dict[str, str]:
    """A file name without its ending for each judge, none of them alike on a file system without capitals."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for judge in judges:
        name = slug(judge)
        while name.casefold() in taken or name.endswith(PAIRS):  # win rates have files that end so
            name += "-2"
        found[judge] = name
        taken.add(name.casefold())
    return found
