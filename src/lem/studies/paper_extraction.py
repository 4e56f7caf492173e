"""The published GSM8K answers, scored again by how their numbers are read: `paper/data/gsm8k_extraction.json`.

Three rules side by side: the verdicts as published, and the strict and the flexible rule of `lem.benchmarks.gsm8k`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lem.benchmarks import read_items, score_item
from lem.benchmarks.gsm8k import MARKER
from lem.data.items import Item
from lem.errors import DataError
from lem.interop import Imported, read_answers_file
from lem.interop.lines import file_sha
from lem.stats import headline, mcnemar, rate
from lem.studies.paper_data import LEVEL, SCHEMA, estimate_row, rounded
from lem.studies.reproduce import specification

TASK = "gsm8k"
PUBLISHED, STRICT, FLEXIBLE = "published", "strict", "flexible"
RULES = (PUBLISHED, STRICT, FLEXIBLE)

Verdicts = dict[str, dict[str, dict[str, float]]]
"""arm -> rule -> item -> 1.0 for right, 0.0 for wrong."""


def extraction(folder: Path) -> dict[str, Any]:
    """Accuracy of every arm by each rule, and the contrasts with the instruction-tuned model by two of them.

    Accuracies have the exact interval, contrasts the headline one over items, which have no domains. p-values are
    McNemar's, exact and not corrected. `shift` is the difference by the flexible rule minus the one by the published
    verdicts, item by item. The strict rule finds too few numbers in these answers for a contrast.
    Raises: UserError or DataError if the folder lacks items, answers or published verdicts.
    """
    spec = specification()["variants"]
    items_file = folder / f"{TASK}.jsonl"
    items = {item.id: item for item in read_items(TASK, items_file)}
    imported = read_answers_file(folder)
    verdicts, counts = _verdicts(imported, items)
    baseline, treatments = spec["baseline"], [arm for arm in spec["arms"] if arm != spec["baseline"]]
    arms = [baseline, *treatments, *sorted(set(verdicts) - set(spec["arms"]))]
    asked = {probe["id"] for probe in imported.info.probes if probe.get("benchmark") == TASK}
    if asked != set(items):
        raise DataError(f"{items_file}: {len(asked - set(items))} answered items are not in it; restore the file.")
    _check(folder, verdicts, arms, len(items))
    data: dict[str, Any] = rounded({
        "schema": SCHEMA, "kind": "paper data", "title": "published GSM8K answers, numbers read again",
        "source": {"format": imported.format, "sha256": {
            path.relative_to(folder).as_posix(): file_sha(path) for path in _files(folder)}},
        "baseline": baseline, "treatments": treatments, "level": LEVEL, "n": len(items),
        "n_answers": len(arms) * len(items), **counts,
        "n_gained": sum(_count(verdicts[arm], 0.0, 1.0) for arm in arms),
        "n_lost": sum(_count(verdicts[arm], 1.0, 0.0) for arm in arms),
        "arms": {arm: {rule: _accuracy(verdicts[arm][rule]) for rule in RULES} for arm in arms},
        "contrasts": [_contrast(verdicts, arm, baseline) for arm in treatments],
    })  # fmt: skip
    return data


def _files(folder: Path) -> Iterator[Path]:
    yield folder / f"{TASK}.jsonl"
    yield from sorted((folder / "results").glob(f"{TASK}*.jsonl"))
    yield folder / "standard_scores.json"


def _verdicts(imported: Imported, items: Mapping[str, Item]) -> tuple[Verdicts, dict[str, int]]:
    """Verdicts of all answers, with counts over them.

    `n_marked` have the marker, `n_numbered` a number right behind it; for `n_reproduced` the published rule as we wrote
    it out gives the published verdict.
    """
    stored = {(score.arm, score.probe_id): score.value for score in imported.scores.get(TASK, [])}
    found: Verdicts = {}
    counts = dict.fromkeys(("n_marked", "n_numbered", "n_reproduced"), 0)
    for record in imported.records:
        if record.probe_id not in items or record.response is None:
            continue
        item = items[record.probe_id]
        strict, flexible = (score_item(f"{TASK}_{rule}", item, record) for rule in (STRICT, FLEXIBLE))
        published = stored.get((record.arm, item.id))
        for rule, value in zip(RULES, (published, strict.value, flexible.value), strict=True):
            if value is not None:
                found.setdefault(record.arm, {}).setdefault(rule, {})[item.id] = value
        counts["n_marked"] += MARKER in record.response
        counts["n_numbered"] += strict.signals.get("extracted") == 1.0
        counts["n_reproduced"] += flexible.signals.get("published") == published
    return found, counts


def _check(folder: Path, verdicts: Verdicts, arms: list[str], n_items: int) -> None:
    """Every arm has a verdict on every item.   Raises: DataError naming the arm."""
    for arm in arms:
        for rule in RULES:
            n = len(verdicts.get(arm, {}).get(rule, {}))
            if n != n_items:
                raise DataError(
                    f"{folder}: {n} of {n_items} {TASK} items have a verdict by the {rule} rule for '{arm}'; "
                    "put all published answers and standard_scores.json there."
                )


def _count(of_arm: Mapping[str, Mapping[str, float]], published: float, flexible: float) -> int:
    """How many verdicts of an arm are `published` as published and `flexible` by the flexible rule."""
    return sum((of_arm[PUBLISHED][item], value) == (published, flexible) for item, value in of_arm[FLEXIBLE].items())


def _accuracy(verdicts: Mapping[str, float]) -> dict[str, Any]:
    """Right answers and their share, with the verdict on every item."""
    items = sorted(verdicts)
    right = int(sum(verdicts.values()))
    share = rate(right, len(items), level=LEVEL)
    return {
        "right": right, "share": estimate_row(share), "verdicts": {item: int(verdicts[item]) for item in items}
    }  # fmt: skip


def _contrast(verdicts: Verdicts, treatment: str, baseline: str) -> dict[str, Any]:
    """Treatment minus baseline as published and by the flexible rule, and what that rule changes in it."""
    items = sorted(verdicts[baseline][PUBLISHED])
    found: dict[str, Any] = {"treatment": treatment, "baseline": baseline}
    differences = {}
    for rule in (PUBLISHED, FLEXIBLE):
        treated, base = ([verdicts[arm][rule][item] for item in items] for arm in (treatment, baseline))
        differences[rule] = [one - other for one, other in zip(treated, base, strict=True)]
        found[rule] = {
            "difference": estimate_row(headline(differences[rule], level=LEVEL)), "p": mcnemar(treated, base).p,
            "gained": differences[rule].count(1.0), "lost": differences[rule].count(-1.0),
        }  # fmt: skip
    shift = [ours - theirs for ours, theirs in zip(differences[FLEXIBLE], differences[PUBLISHED], strict=True)]
    return {**found, "shift": estimate_row(headline(shift, level=LEVEL))}
