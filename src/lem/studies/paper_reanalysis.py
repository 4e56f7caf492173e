"""The published contrasts of the standard benchmarks, analysed again: the object of `paper/data/reanalysis.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lem.ab.compare import Comparison, Options, compare
from lem.ab.contrast import ALPHA
from lem.data.published_figures import PublishedFigure
from lem.interop import read_answers_file
from lem.records import RunContents
from lem.stats import benjamini_hochberg, holm, minimum_detectable_effect, probes_needed
from lem.studies.paper_data import POWER, SCHEMA, contrast_row, item_test, method, rounded, spread
from lem.studies.reproduce import specification

TRAINED = "lem_ethics"  # the published label of the model trained on the kernel set alone


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
    p_items = [item_test(found).p for found in contrasts]
    planning = _planning(comparison, spec["planning_effects"])
    corrected = zip(contrasts, comparison.verdicts, holm(p_items), benjamini_hochberg(p_items), strict=True)
    benchmarks = {probe["id"]: probe.get("benchmark", "") for probe in contents.info.probes}
    data: dict[str, Any] = rounded({
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
            {**contrast_row(found, said), "p_items_holm": p_holm, "p_items_bh": p_bh,
             "benchmark": benchmarks[found.changes[0].probe_id]}
            for found, said, p_holm, p_bh in corrected
        ],
        "planning": planning, "multi_scale": _multi_scale(planning, published),
        "objections": [found.sentence for found in comparison.objections],
        "notes": list(imported.notes),
    })  # fmt: skip
    return data


def _sources(contents: RunContents, folder: Path) -> dict[str, str]:
    """Hash of every file that was read, by its path in the folder."""
    files = contents.info.data["sources"]
    return {Path(file["path"]).resolve().relative_to(folder.resolve()).as_posix(): file["sha256"] for file in files}


def _planning(comparison: Comparison, effects: Mapping[str, float]) -> list[dict[str, Any]]:
    """Items a benchmark would need to see a set effect with the spread found for each metric under training.

    `alone` for one contrast, `as_one_of_all` at the first step of Holm over all; independent items, one answer each.
    """
    n_all = len(comparison.contrasts)
    found = []
    for one in comparison.contrasts:
        if one.treatment == TRAINED:
            sd = spread([change.difference for change in one.changes])
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
