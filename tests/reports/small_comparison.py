"""A comparison.json made by hand from a run: the shape of the real file, verdicts that a test chooses."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lem.records import Metric, RunContents, metrics_of, read_contents, write_atomic
from lem.stats import Estimate, headline, per_probe

DECODING = "'base' and 'trained' were decoded differently (temperature 0.7 and 0)."
NO_PLACEBO = "'json' has no placebo arm beside it, so a change says that the answers differ."
DECLARED = {
    "primary": [["v2", "json"], ["v2", "trained"]],
    "margins": {"v2": 1.0},
    "exclusions": {"P99": "written after the training data"},
    "plan_sha": "ab" * 32,
}
DEVIATION = "The plan asked for 3 repeats and the run has 2."


def objections(refused: str | None) -> list[dict[str, Any]]:
    found = [{"code": "no-placebo", "severity": "watermark", "sentence": NO_PLACEBO, "arms": ["json"]}]
    if refused:
        found.append({"code": "decoding", "severity": "refusal", "sentence": DECODING, "arms": [refused]})
    return found


def make_comparison(
    run: Path,
    *,
    refused: str | None = "trained",
    declared: Mapping[str, Any] | None = DECLARED,
    codes: Mapping[str, str] | None = None,
    created: str = "2999-01-01T00:00:00+00:00",
) -> dict[str, Any]:
    """The object of the file: every arm against base under every metric; `codes` are verdicts by treatment."""
    contents = read_contents(run)
    contrasts = [
        _contrast(contents, metric, arm, refused, declared, (codes or {}).get(arm, "undetected"))
        for metric in metrics_of(contents)
        for arm in contents.info.arms
        if arm != "base"
    ]
    n_primary = sum(contrast["family"] == "primary" for contrast in contrasts)
    return {
        "schema": 1, "kind": "comparison", "created": created, "command": ["./lem", "compare", run.name],
        "runs": [{"name": run.name, "path": run.name}], "baseline": "base", "level": 0.95, "declared": declared,
        "deviations": [DEVIATION] if declared else [], "n_primary": n_primary,
        "n_exploratory": len(contrasts) - n_primary, "objections": objections(refused), "arms": [],
        "contrasts": contrasts,
    }  # fmt: skip


def write_comparison(run: Path, **options: Any) -> dict[str, Any]:
    """Write comparison.json into the run and return its object."""
    document = make_comparison(run, **options)
    write_atomic(run / "comparison.json", json.dumps(document, allow_nan=False))
    return document


def _contrast(
    contents: RunContents, metric: Metric, arm: str, refused: str | None, declared: Mapping[str, Any] | None, code: str
) -> dict[str, Any]:
    sides = [
        per_probe((cell.key.probe_id, cell.value) for cell in metric.cells if cell.key.arm == name)
        for name in (arm, "base")
    ]
    words = [
        per_probe((r.probe_id, float(len((r.response or "").split()))) for r in contents.records if r.arm == name)
        for name in (arm, "base")
    ]
    shared = sorted(set(sides[0]) & set(sides[1]))
    differences = {probe: sides[0][probe] - sides[1][probe] for probe in shared}
    domains = {probe["id"]: probe["domain"] for probe in contents.info.probes}
    ordered = sorted(shared, key=differences.__getitem__)
    estimate = headline(list(differences.values()))
    primary = declared is None or [metric.name, arm] in declared["primary"]
    code = "refused" if arm == refused else code
    return {
        "metric": metric.name, "source": metric.source, "kind": metric.kind, "version": metric.version,
        "treatment": arm, "baseline": "base", "family": "primary" if primary else "exploratory", "n": len(shared),
        "n_missing": len(set(sides[0]) ^ set(sides[1])),
        "counts": {name: {"scored": 20, "unscored": 1, "failed": 0, "missing": 2, "wrong": None}
                   for name in (arm, "base")},
        "baseline_mean": _json(headline([sides[1][p] for p in shared])),
        "treatment_mean": _json(headline([sides[0][p] for p in shared])), "difference": _json(estimate),
        "bca": _json(estimate), "cluster": None, "fixed_set": None,
        "sign_flip": {"name": "sign flip", "statistic": 1.0, "p": 0.02, "n": len(shared), "exact": True, "note": ""},
        "wilcoxon": None, "cliffs_delta": None, "mcnemar": None, "p": 0.0004, "p_adjusted": 0.04,
        "correction": "Holm" if primary else "Benjamini-Hochberg", "n_tests": 2, "length_controlled": _json(estimate),
        "length_slope": _json(dataclasses.replace(estimate, value=0.01)), "design_effect": 1.2, "mde": 0.9,
        "margin": 1.0 if declared and metric.name == "v2" else None, "non_inferiority": None, "equivalence": None,
        "bounds": [-1.5, 2.5], "improved": sum(d > 0.5 for d in differences.values()),
        "regressed": sum(d < -0.5 for d in differences.values()),
        "unchanged": sum(abs(d) <= 0.5 for d in differences.values()),
        "worst": _moved([p for p in ordered if differences[p] < 0][:10], differences, domains),
        "best": _moved([p for p in ordered[::-1] if differences[p] > 0][:10], differences, domains),
        "differences": differences, "word_differences": {p: words[0][p] - words[1][p] for p in shared},
        "verdict": {"code": code, "sentence": _sentence(metric.name, arm, code, estimate)},
    }  # fmt: skip


def _sentence(metric: str, arm: str, code: str, estimate: Estimate) -> str:
    name = f"{metric}, {arm} against base"
    if code == "refused":
        return f"{name}: cannot be compared: {DECODING}"
    effect = f"{estimate.value:+.2f} [{estimate.low:+.2f}, {estimate.high:+.2f}]"
    return f"{name}: {code} by {effect} over {estimate.n} probes."


def _moved(probes: Sequence[str], differences: Mapping[str, float], domains: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"probe_id": probe, "domain": domains[probe], "difference": differences[probe]} for probe in probes]


def _json(estimate: Estimate) -> dict[str, Any]:
    row = dataclasses.asdict(estimate)
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
