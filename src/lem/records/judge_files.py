"""What a run directory says about its judges, beside their judgements: who judged, in kin with whom, and how it ended.

judgements/<judge>.jsonl         one line per judgement
judgements/<judge>.json          the judge's manifest
judgements/<judge>.pairs.json    win rates, derived from the comparisons
audits/<judge>.json              what the audit of the judge found
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lem.errors import DataError

TRUSTWORTHY, UNTRUSTWORTHY, NOT_SHOWN = "trustworthy", "not trustworthy", "not shown"
PAIRS = ".pairs"  # before the ending of the file
_PAIRS_FILE = f"{PAIRS}.json"


def read_judge_manifests(run: Path) -> dict[str, dict[str, Any]]:
    """The manifests of a run's judges by the judge's name.   Raises: DataError for a file that is none."""
    found = {}
    for file in sorted((run / "judgements").glob("*.json")):
        if not file.name.endswith(_PAIRS_FILE):
            manifest = _read(file)
            if not isinstance(manifest, dict) or type(manifest.get("judge")) is not str or not _sound(manifest):
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
        sound = isinstance(audit, dict) and type(audit.get("judge")) is str
        if not sound or audit.get("verdict") not in (TRUSTWORTHY, UNTRUSTWORTHY, NOT_SHOWN):
            raise DataError(f"{file}: not the result of an audit; run `lem judge audit` again.")
        found[audit["judge"]] = audit
    return found


def self_judged(manifest: dict[str, Any]) -> list[str]:
    """The arms that a judge is of one lineage with, by its manifest."""
    return [kin["arm"] for kin in manifest.get("kin", [])]


def _sound(manifest: dict[str, Any]) -> bool:
    kin = manifest.get("kin", [])
    return type(kin) is list and all(type(entry) is dict and type(entry.get("arm")) is str for entry in kin)


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError) as error:
        raise DataError(f"{file}: not readable ({error}); restore it from a copy or judge again.") from None
