"""The data files behind the paper (`paper/data/*.json`): ids, numbers and our own verdict sentences, made from runs.

`reanalysis.json` every published contrast of the standard benchmarks again; `demo.json` the demonstration with
lem-nano; `simulation.json` the measured coverage and errors of the statistics. No answer text is ever in them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lem.ab.compare import Comparison, Declared, Options, compare
from lem.ab.contrast import ALPHA, Contrast
from lem.ab.plan_deviations import deviations
from lem.ab.verdict import FALSE_DISCOVERY_RATE, Verdict
from lem.data.published_figures import PublishedFigure
from lem.errors import DataError, UserError
from lem.interop import read_answers_file
from lem.paths import display_path
from lem.records import RunContents, read_contents
from lem.stats import Estimate, PValue, benjamini_hochberg, holm, minimum_detectable_effect, probes_needed
from lem.stats.estimate import N_RESAMPLES
from lem.studies.reproduce import specification

SCHEMA = 1
LEVEL, POWER = 0.95, 0.8
TRAINED = "lem_ethics"  # the published label of the model trained on the kernel set alone
DIGITS = 6  # significant; more than any table shows, fewer than two machines can differ in


def reanalyse(folder: Path, published: Sequence[PublishedFigure]) -> dict[str, Any]:
    """Compare every published treatment with the instruction-tuned model under every metric; the whole is one family.

    `p` is the p-value of the verdict (the larger of the test over items and the one over domains), `p_items` that of
    the test over items alone (McNemar's for right or wrong, else the sign-flip permutation test), each corrected over
    all contrasts.   Raises: UserError or DataError if the folder holds no published answers with scores.
    """
    spec = specification()["variants"]
    imported = read_answers_file(folder)
    contents = imported.contents
    treatments = tuple(arm for arm in spec["arms"] if arm != spec["baseline"])
    comparison = compare(contents, Options(baseline=spec["baseline"], treatments=treatments))
    contrasts = comparison.contrasts
    p_items = [_item_test(found).p for found in contrasts]
    planning = _planning(comparison, spec["planning_effects"])
    corrected = zip(contrasts, comparison.verdicts, holm(p_items), benjamini_hochberg(p_items), strict=True)
    benchmarks = {probe["id"]: probe.get("benchmark", "") for probe in contents.info.probes}
    return rounded({
        "schema": SCHEMA, "kind": "paper data", "title": "published contrasts, analysed again",
        "source": {"format": imported.format, "sha256": _sources(contents, folder)},
        "baseline": spec["baseline"], "treatments": list(treatments), "published_names": spec["arms"],
        "method": method(), "n_contrasts": len(contrasts),
        "scale": {"low": min(j.low for j in contents.judgements if j.low is not None),
                  "high": max(j.high for j in contents.judgements if j.high is not None)},
        "judges": sorted({judgement.judge for judgement in contents.judgements}),
        "arms": {arm.name: {"answers": arm.answered, "mean_words": arm.mean_words.value,
                            "degenerate": arm.degenerate.value} for arm in comparison.arms},
        "contrasts": [
            {**_contrast(found, said), "p_items_holm": p_holm, "p_items_bh": p_bh,
             "benchmark": benchmarks[found.changes[0].probe_id]}
            for found, said, p_holm, p_bh in corrected
        ],
        "planning": planning, "multi_scale": _multi_scale(planning, published),
        "objections": [found.sentence for found in comparison.objections],
        "notes": list(imported.notes),
    })  # fmt: skip


def _sources(contents: RunContents, folder: Path) -> dict[str, str]:
    """Hash of every file that was read, by its path in the folder."""
    files = contents.info.data["sources"]
    return {Path(file["path"]).resolve().relative_to(folder.resolve()).as_posix(): file["sha256"] for file in files}


def method() -> dict[str, Any]:
    """The constants of the analysis, as the code has them."""
    return {
        "level": LEVEL, "alpha": ALPHA, "false_discovery_rate": FALSE_DISCOVERY_RATE, "resamples": N_RESAMPLES,
        "power": POWER,
    }  # fmt: skip


def _item_test(found: Contrast) -> PValue:
    return found.mcnemar or found.sign_flip


def _contrast(found: Contrast, said: Verdict) -> dict[str, Any]:
    test = _item_test(found)
    return {
        "metric": found.metric, "kind": found.kind, "treatment": found.treatment, "baseline": found.baseline,
        "n": found.n, "n_missing": found.n_missing,
        "n_domains": len({change.domain for change in found.changes}),
        "baseline_mean": found.baseline_mean.value, "treatment_mean": found.treatment_mean.value,
        "difference": _estimate(found.difference), "bca": _estimate(found.bca),
        "sd": _sd([change.difference for change in found.changes]),
        "test": test.name, "p_items": test.p, "p_domains": found.cluster_t.p if found.cluster_t else None,
        "p": found.p, "family": found.family, "n_tests": found.n_tests, "p_holm": found.p_holm, "p_bh": found.p_bh,
        "mde": found.mde, "design_effect": found.design_effect,
        "improved": found.improved, "regressed": found.regressed, "unchanged": found.unchanged,
        "at_equal_length": _estimate(found.length.effect) if found.length else None,
        "verdict": {"code": said.code, "sentence": said.sentence},
        "differences": {change.probe_id: change.difference for change in found.changes},
    }  # fmt: skip


def _estimate(found: Estimate) -> dict[str, Any]:
    return {name: getattr(found, name) for name in ("value", "low", "high", "n", "method")}


def _sd(differences: Sequence[float]) -> float:
    mean = math.fsum(differences) / len(differences)
    return math.sqrt(math.fsum((d - mean) ** 2 for d in differences) / (len(differences) - 1))


def _planning(comparison: Comparison, effects: Mapping[str, float]) -> list[dict[str, Any]]:
    """Items a benchmark would need to see a set effect with the spread found for each metric under training.

    `alone` for one contrast, `as_one_of_all` at the first step of Holm over all; independent items, one answer each.
    """
    n_all = len(comparison.contrasts)
    found = []
    for one in comparison.contrasts:
        if one.treatment == TRAINED:
            sd = _sd([change.difference for change in one.changes])
            items = [_items(effects[one.metric], sd, n_tests) for n_tests in (1, n_all)]
            seen = minimum_detectable_effect(sd, one.n, alpha=ALPHA, power=POWER)
            found.append({
                "metric": one.metric, "sd": sd, "effect": effects[one.metric], "alone": items[0],
                "as_one_of_all": items[1], "seen_alone": seen,
            })  # fmt: skip
    return found


def _multi_scale(planning: Sequence[Mapping[str, Any]], figures: Sequence[PublishedFigure]) -> list[dict[str, Any]]:
    """Items it would take to see each published change by training, if it were true and as noisy as at the one scale.

    None where the published change is zero.
    """
    spread = {row["metric"]: row["sd"] for row in planning}
    return [
        {"model": figure.model, "metric": figure.metric, "published": figure.shown,
         "items": _items(figure.value, spread[figure.metric], 1) if figure.value else None}
        for figure in figures if figure.table == "multi_scale"
    ]  # fmt: skip


def _items(effect: float, sd: float, n_tests: int) -> int:
    return probes_needed(effect, sd, alpha=ALPHA, power=POWER, n_tests=n_tests)


def demonstration(run: Path) -> dict[str, Any]:
    """What a finished demo run shows: set-up, its contrasts with verdicts, held-out loss of its adapter.

    Raises: UserError if the run is not finished or has no trained arm.
    """
    from lem.studies.demo import held_out_loss

    contents = read_contents(run)
    info = contents.info
    if info.status != "done" or "trained" not in info.arms or not contents.scores:
        raise UserError(f"{display_path(run)}: not a finished demo run; make one with `./lem demo`, and score it.")
    declared, departures = _declared(contents)
    comparison = compare(contents, Options(baseline="base"), declared, departures)
    adapter = Path(str(info.arms["trained"]["adapter"]))
    configuration = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    data = Path(configuration["data"])
    loss = held_out_loss(str(info.arms["trained"]["model"]), adapter, data / "test.jsonl")
    pairs = zip(comparison.contrasts, comparison.verdicts, strict=True)
    return rounded({
        "schema": SCHEMA, "kind": "paper data", "title": "demonstration",
        "model": Path(str(info.arms["base"]["model"])).name,
        "settings": {name: info.settings[name] for name in ("max_tokens", "temperature", "top_p", "seed", "repeats")
                     if name in info.settings},
        "probe_sha": info.data["probe_sha"],
        "n_probes": len(info.probes), "n_domains": len({probe["domain"] for probe in info.probes}),
        "training": {
            "examples": _rows(data / "train.jsonl"), "held_out": _rows(data / "test.jsonl"),
            **{name: configuration["training"][name] for name in ("iters", "batch_size", "learning_rate")},
        },
        "held_out_loss": {"base": _estimate(loss.base), "trained": _estimate(loss.trained),
                          "change": _estimate(loss.change.difference)},
        "arms": {arm.name: {"answers": arm.answered, "truncated": arm.truncated.value,
                            "mean_words": arm.mean_words.value} for arm in comparison.arms},
        "method": method(),
        "contrasts": [
            {name: value for name, value in _contrast(found, said).items() if name != "differences"}
            for found, said in pairs
        ],
        "n_primary": comparison.n_primary, "n_exploratory": comparison.n_exploratory,
        "objections": [found.sentence for found in comparison.objections],
        "deviations": list(comparison.deviations),
    })  # fmt: skip


def _rows(path: Path) -> int:
    return sum(1 for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


def _declared(contents: RunContents) -> tuple[Declared | None, list[str]]:
    """What the plan of a run declared, and where the run departs from it; (None, []) for a run without a plan."""
    plan = contents.info.plan
    if not plan:
        return None, []
    exclusions = {entry["probe_id"]: entry["reason"] for entry in plan["exclusions"]}
    pairs = tuple((str(metric), str(arm)) for metric, arm in plan["primary"])
    return Declared(pairs, dict(plan["margins"]), exclusions, str(plan["sha"])), deviations(plan, contents)


def simulation(path: Path) -> dict[str, Any]:
    """The tables that `scripts/simulate_stats.py` printed into a file.   Raises: DataError if they are not all there."""
    text = path.read_text(encoding="utf-8")
    head = re.match(r"(\d+) draws, (\d+) resamples, seed (\d+)\n", text)
    tables = [_table(block) for block in text.split("\n\n") if block.strip().startswith("|")]
    if head is None or len(tables) != 3 or not all(tables):
        raise DataError(f"{path}: not the whole output of scripts/simulate_stats.py; run it again into this file.")
    draws, resamples, seed = (int(number) for number in head.groups())
    coverage, errors, others = tables
    return {
        "schema": SCHEMA, "kind": "paper data", "title": "simulation", "draws": draws, "resamples": resamples,
        "seed": seed, "coverage": coverage, "errors": errors, "others": others,
    }  # fmt: skip


def _table(block: str) -> list[dict[str, Any]]:
    """A markdown table as rows; numbers become numbers, empty cells None."""
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
    """A data file as it is written: one number or short list a line would be too long, so objects of numbers are inline."""
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    # innermost objects on one line each: fifty differences are read as one thing
    return re.sub(r"\{\s+([^{}\[\]]*?)\s+\}", lambda found: "{" + re.sub(r"\s*\n\s*", " ", found[1]) + "}", text) + "\n"
