"""What the data files behind the paper (`paper/data/*.json`) share: ids, numbers and our own verdict sentences.

`reanalysis.json` has every published contrast of the standard benchmarks again, `gsm8k_extraction.json` the published
sums with their numbers read again, `demo.json` the demonstration with lem-nano, `simulation.json` the measured coverage
and errors of the statistics. No answer text is ever in them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lem.ab.contrast import ALPHA, Contrast
from lem.ab.verdict import FALSE_DISCOVERY_RATE, Verdict
from lem.errors import DataError, UserError
from lem.stats import Estimate, PValue
from lem.stats.estimate import N_RESAMPLES

SCHEMA = 1
LEVEL, POWER = 0.95, 0.8
DIGITS = 6  # significant; more than any table shows, fewer than two machines can differ in


def method() -> dict[str, Any]:
    """The constants of the analysis, as the code has them."""
    return {
        "level": LEVEL, "alpha": ALPHA, "false_discovery_rate": FALSE_DISCOVERY_RATE, "resamples": N_RESAMPLES,
        "power": POWER,
    }  # fmt: skip


def item_test(found: Contrast) -> PValue:
    """The test over items alone: McNemar's where answers are right or wrong, else the sign-flip permutation test."""
    return found.mcnemar or found.sign_flip


def contrast_row(found: Contrast, said: Verdict) -> dict[str, Any]:
    """One contrast with its estimates, tests, corrections, verdict and paired differences."""
    test = item_test(found)
    return {
        "metric": found.metric, "kind": found.kind, "treatment": found.treatment, "baseline": found.baseline,
        "n": found.n, "n_missing": found.n_missing,
        "n_domains": len({change.domain for change in found.changes}),
        "baseline_mean": found.baseline_mean.value, "treatment_mean": found.treatment_mean.value,
        "difference": estimate_row(found.difference), "bca": estimate_row(found.bca),
        "sd": spread([change.difference for change in found.changes]),
        "test": test.name, "p_items": test.p, "p_domains": found.cluster_t.p if found.cluster_t else None,
        "p": found.p, "family": found.family, "n_tests": found.n_tests, "p_holm": found.p_holm, "p_bh": found.p_bh,
        "mde": found.mde, "design_effect": found.design_effect,
        "improved": found.improved, "regressed": found.regressed, "unchanged": found.unchanged,
        "at_equal_length": estimate_row(found.length.effect) if found.length else None,
        "verdict": {"code": said.code, "sentence": said.sentence},
        "differences": {change.probe_id: change.difference for change in found.changes},
    }  # fmt: skip


def estimate_row(found: Estimate) -> dict[str, Any]:
    """Value, interval, n and method of an estimate."""
    return {name: getattr(found, name) for name in ("value", "low", "high", "n", "method")}


def spread(differences: Sequence[float]) -> float:
    """Standard deviation over items (n - 1)."""
    mean = math.fsum(differences) / len(differences)
    return math.sqrt(math.fsum((d - mean) ** 2 for d in differences) / (len(differences) - 1))


def simulation(path: Path) -> dict[str, Any]:
    """The tables that `scripts/simulate_stats.py` printed into a file: coverage of intervals, errors of tests, others.

    Raises: DataError if the settings or one of the first two tables are not there.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path.") from None
    head = re.match(r"(\d+) draws, (\d+) resamples, seed (\d+)\n", text)
    tables = {name: rows for block in text.split("\n\n") if (rows := _table(block)) for name in rows[0]}
    if head is None or not {"headline", "verdict p"} <= tables.keys():
        raise DataError(f"{path}: not the output of scripts/simulate_stats.py; run it again into this file.")
    draws, resamples, seed = (int(number) for number in head.groups())
    return {
        "schema": SCHEMA, "kind": "paper data", "title": "simulation", "draws": draws, "resamples": resamples,
        "seed": seed, "coverage": tables["headline"], "errors": tables["verdict p"],
        "others": tables.get("claims", []),
    }  # fmt: skip


def _table(block: str) -> list[dict[str, Any]]:
    """A markdown table as rows; numbers become numbers, empty cells None; [] for anything that is no table."""
    if not block.strip().startswith("|"):
        return []
    lines = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.strip().splitlines()]
    names, rows = lines[0], lines[2:]
    return [dict(zip(names, (_cell(cell) for cell in row), strict=True)) for row in rows]


def _cell(text: str) -> Any:
    if not text:
        return None
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        return text


def rounded(value: Any) -> Any:
    """Floats to six significant digits, NaN to None, whole floats kept; containers walked through."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(entry) for entry in value]
    return value


def as_text(data: Mapping[str, Any]) -> str:
    """A data file as it is written: JSON whose innermost objects stand on one line each."""
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    innermost = re.compile(r"\{\n\s*([^{}\[\]]*?)\n\s*\}")  # a string holds no line break of its own
    return innermost.sub(lambda found: "{" + re.sub(r"\n\s*", " ", found[1]) + "}", text) + "\n"
