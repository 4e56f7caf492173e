"""What a run directory says about its judges, beside their judgements: who judged, in kin with whom, and how it ended.

judgements/<judge>.jsonl         one line per judgement
judgements/<judge>.json          the judge's manifest
judgements/<judge>.pairs.json    win rates, derived from the comparisons
audits/<judge>.json              what the audit of the judge found
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lem.errors import DataError

TRUSTWORTHY, UNTRUSTWORTHY, NOT_SHOWN = "trustworthy", "not trustworthy", "not shown"
PAIRS = ".pairs"  # before the ending of the file
_PAIRS_FILE = f"{PAIRS}.json"

Rated = Mapping[str, Mapping[str, Sequence[str]]]  # dimension -> benchmark -> the arms that were to be rated on it


def read_judge_manifests(run: Path) -> dict[str, dict[str, Any]]:
    """The manifests of a run's judges by the judge's name.   Raises: DataError for a file that is none."""
    found = {}
    for file in sorted((run / "judgements").glob("*.json")):
        if not file.name.endswith(_PAIRS_FILE):
            manifest = _read(file)
            if not is_manifest(manifest):
                raise DataError(f"{file}: not the manifest of a judge; restore it from a copy or judge again.")
            found[manifest["judge"]] = manifest
    return found


def read_pair_results(run: Path) -> list[dict[str, Any]]:
    """The win rates that were computed for a run, all judges, in the order of their files.

    Raises: DataError for a file that is none.
    """
    found: list[dict[str, Any]] = []
    for file in sorted((run / "judgements").glob(f"*{_PAIRS_FILE}")):
        results = _read(file)
        if not isinstance(results, list) or not all(type(entry) is dict for entry in results):
            raise DataError(f"{file}: not a list of win rates; run `lem judge pairs` again.")
        found += results
    return found


def read_audits(run: Path) -> dict[str, dict[str, Any]]:
    """What the audits of a run found, by the judge's name.   Raises: DataError for a file that is no audit."""
    found = {}
    for file in sorted((run / "audits").glob("*.json")):
        audit = _read(file)
        if not is_audit(audit):
            raise DataError(f"{file}: not the result of an audit; run `lem judge audit` again.")
        found[audit["judge"]] = audit
    return found


def self_judged(manifest: dict[str, Any]) -> list[str]:
    """The arms that a judge is of one lineage with, by its manifest, each once."""
    return list(dict.fromkeys(kin["arm"] for kin in manifest.get("kin", [])))


def judge_notes(judges: Mapping[str, dict[str, Any]], audits: Mapping[str, dict[str, Any]]) -> list[str]:
    """What must be said beside any verdicts of these judges: kinship, and audits that failed.

    Args:  judges: manifests by the judge's name; audits: likewise, those of further judges count for nothing.
    """
    notes = []
    for judge, manifest in judges.items():
        if arms := self_judged(manifest):
            named = ", ".join(f"'{arm}'" for arm in arms)
            notes.append(f"SELF-JUDGED: the judge '{judge}' is of one lineage with {named}; its ratings rank nothing.")
        if audits.get(judge, {}).get("verdict") == UNTRUSTWORTHY:
            notes.append(f"the audit found the judge '{judge}' not trustworthy.")
    return notes


def joined_judges(parts: Iterable[Mapping[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The manifests of all judges; where several parts have one judge, with what all say of arms: kin, each arm once,
    and what was to be rated and compared.
    """
    found: dict[str, dict[str, Any]] = {}
    for judges in parts:
        for name, manifest in judges.items():
            before = found.get(name, {})
            known = {kin["arm"]: kin for kin in before.get("kin", [])}
            further = [kin for kin in manifest.get("kin", []) if kin["arm"] not in known]
            found[name] = {**manifest, "kin": [*known.values(), *further]}
            if "rated" in {**before, **manifest}:
                found[name]["rated"] = joined_rated(before.get("rated", {}), manifest.get("rated", {}))
            if "compared" in {**before, **manifest}:
                found[name]["compared"] = joined_compared([*before.get("compared", []), *manifest.get("compared", [])])
    return found


def with_arms(manifest: Mapping[str, Any], arms: Collection[str]) -> dict[str, Any]:
    """A manifest whose `rated` is dimension -> benchmark -> arms; a mere list of benchmarks is for all of these arms.

    Args:  arms: those of the run, or of the file, that the manifest is of.
    """
    if "rated" not in manifest:
        return dict(manifest)
    rated = {
        dimension: {name: list(arms) for name in found} if isinstance(found, list) else found
        for dimension, found in manifest["rated"].items()
    }
    return {**manifest, "rated": rated}


def with_arms_renamed(manifest: Mapping[str, Any], new: Mapping[str, str]) -> dict[str, Any]:
    """A manifest that calls arms by their new names wherever it names them; arms that `new` lacks keep theirs."""

    def renamed(entry: Mapping[str, Any], *fields: str) -> dict[str, Any]:
        return {**entry, **{field: new.get(entry[field], entry[field]) for field in fields}}

    found = {**manifest, "kin": [renamed(kin, "arm") for kin in manifest.get("kin", [])]}
    if "rated" in manifest:
        found["rated"] = {
            dimension: {benchmark: [new.get(arm, arm) for arm in arms] for benchmark, arms in benchmarks.items()}
            for dimension, benchmarks in manifest["rated"].items()
        }
    if "compared" in manifest:
        found["compared"] = [renamed(one, "treatment", "baseline") for one in manifest["compared"]]
    return found


def joined_rated(before: Rated, further: Rated) -> dict[str, dict[str, list[str]]]:
    """What either was to rate: dimension -> benchmark -> arms, each once."""
    found: dict[str, dict[str, list[str]]] = {}
    for rated in (before, further):
        for dimension, benchmarks in rated.items():
            for benchmark, arms in benchmarks.items():
                known = found.setdefault(dimension, {}).setdefault(benchmark, [])
                known += [arm for arm in dict.fromkeys(arms) if arm not in known]
    return found


def joined_compared(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each pair of arms that was to be compared, once, with all its tasks."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for one in entries:
        pair = (one["treatment"], one["baseline"])
        known = found.setdefault(pair, {"treatment": pair[0], "baseline": pair[1], "tasks": []})
        known["tasks"] = list(dict.fromkeys([*known["tasks"], *one["tasks"]]))
    return list(found.values())


def joined_audits(parts: Iterable[Mapping[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The audits of all judges; where a judge was audited in several parts, the one that speaks against it most."""
    order = [UNTRUSTWORTHY, NOT_SHOWN, TRUSTWORTHY]
    found: dict[str, dict[str, Any]] = {}
    for audits in parts:
        for name, audit in audits.items():
            found[name] = min(found.get(name, audit), audit, key=lambda one: order.index(one["verdict"]))
    return found


def is_manifest(found: Any) -> bool:
    """Whether an object has what is read of a judge's manifest: its name, kin, what it was to rate and compare."""
    if not isinstance(found, dict) or type(found.get("judge")) is not str:
        return False
    kin, compared, rated = found.get("kin", []), found.get("compared", []), found.get("rated", {})
    return (
        _all_have(kin, "arm")
        and _all_have(compared, "treatment", "baseline")
        and all(_are_texts(entry.get("tasks")) for entry in compared)
        and type(rated) is dict
        and all(
            all(map(_are_texts, found.values())) if type(found) is dict else _are_texts(found)
            for found in rated.values()
        )
    )


def _are_texts(entries: Any) -> bool:
    return type(entries) is list and all(type(entry) is str for entry in entries)


def _all_have(entries: Any, *texts: str) -> bool:
    """Whether these are a list of objects with texts under these names."""
    return type(entries) is list and all(
        type(entry) is dict and all(type(entry.get(name)) is str for name in texts) for entry in entries
    )


def is_audit(found: Any) -> bool:
    """Whether an object has what is read of an audit: the judge's name, and one of the three verdicts."""
    named = isinstance(found, dict) and type(found.get("judge")) is str
    return named and found.get("verdict") in (TRUSTWORTHY, UNTRUSTWORTHY, NOT_SHOWN)


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError) as error:
        raise DataError(f"{file}: not readable ({error}); restore it from a copy or judge again.") from None
