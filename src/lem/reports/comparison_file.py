"""`comparison.json` as the page needs it: contrasts with their estimates and verdicts, and what stands against them.

The file is written by `lem compare`; here it is read and checked, and nothing is computed anew. What an objection
withholds keeps its sentence and loses its numbers: `Effect.refused` tells every table and drawing to leave them out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lem.errors import DataError
from lem.stats import Estimate

COMPARISON_NAME = "comparison.json"
COMPARISON_SCHEMA = 1
REFUSAL = "refusal"
REFUSED = "refused"
DECLARED_LATE = "declared-late"


@dataclass(frozen=True)
class Objection:
    """A reason not to take a comparison at its word; `arms` and `metrics` are those it concerns, none means all."""

    code: str
    severity: str
    sentence: str
    arms: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True)
class Moved:
    """A probe and by how much it changed."""

    probe_id: str
    domain: str
    difference: float


@dataclass(frozen=True)
class Effect:
    """One contrast: a treatment against a baseline under one metric; `code` and `sentence` are its verdict.

    `watermarks` are the sentences of objections that go with its numbers. `raw` holds the whole entry of the file.
    """

    metric: str
    treatment: str
    baseline: str
    family: str
    code: str
    sentence: str
    n: int
    difference: Estimate
    raw: Mapping[str, Any] = field(repr=False)
    watermarks: tuple[str, ...] = ()

    @property
    def refused(self) -> bool:
        """True when the verdict is withheld, and with it every number."""
        return self.code == REFUSED

    @property
    def primary(self) -> bool:
        """True when it is corrected together with the declared (or all) contrasts."""
        return self.family == "primary"

    def estimate(self, name: str) -> Estimate | None:
        """Another estimate of the entry, for example `length_controlled`; None when it has none."""
        return estimate_of(self.raw.get(name))

    def number(self, name: str) -> float:
        """A number of the entry; NaN for null."""
        return _number(self.raw.get(name))

    def moved(self, name: str) -> list[Moved]:
        """The probes listed under `worst` or `best`."""
        return [
            Moved(str(row["probe_id"]), str(row.get("domain", "")), float(row["difference"]))
            for row in self.raw.get(name, [])
        ]


@dataclass(frozen=True)
class ComparisonView:
    """A comparison: its effects in the order of the file, the objections, the plan and what departed from it."""

    baseline: str
    effects: tuple[Effect, ...]
    objections: tuple[Objection, ...]
    deviations: tuple[str, ...]
    declared: Mapping[str, Any] | None
    command: tuple[str, ...]
    created: str
    n_primary: int
    n_exploratory: int

    @property
    def metrics(self) -> list[str]:
        """Metrics in the order in which they first appear."""
        return list(dict.fromkeys(effect.metric for effect in self.effects))

    @property
    def declared_before(self) -> bool:
        """True when what is primary was fixed before there were answers."""
        return bool(self.declared) and not any(found.code == DECLARED_LATE for found in self.objections)

    def of(self, metric: str) -> list[Effect]:
        """The effects under one metric."""
        return [effect for effect in self.effects if effect.metric == metric]

    def refused(self, metric: str, treatment: str, baseline: str) -> str | None:
        """Why the numbers of a contrast are withheld; None when they are not."""
        for effect in self.effects:
            if (effect.metric, effect.treatment, effect.baseline) == (metric, treatment, baseline) and effect.refused:
                return effect.sentence
        return None


def read_comparison(run: Path) -> ComparisonView | None:
    """Read the comparison of a run directory; None when there is none.

    Raises: DataError for a file that is no comparison, or of a newer schema.
    """
    file = run / COMPARISON_NAME
    if not file.is_file():
        return None
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(raw, dict) or raw.get("kind") != "comparison":
            raise DataError(f"{file}: not a comparison; remove it, or make one with `./lem compare`.")
        if int(raw.get("schema", 0)) > COMPARISON_SCHEMA:
            raise DataError(
                f"{file}: schema {raw['schema']} is newer than this version reads ({COMPARISON_SCHEMA}); update LEM."
            )
        return _view(raw)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: not readable ({error!r}); make it again with `./lem compare`.") from None


def _view(raw: Mapping[str, Any]) -> ComparisonView:
    against = tuple(
        Objection(
            str(o.get("code", "")),
            o["severity"],
            o["sentence"],
            tuple(o.get("arms") or ()),
            tuple(o.get("metrics") or ()),
        )
        for o in raw.get("objections", [])
    )
    return ComparisonView(
        baseline=raw["baseline"],
        effects=tuple(_effect(contrast, against) for contrast in raw["contrasts"]),
        objections=tuple(sorted(against, key=lambda found: found.severity != REFUSAL)),
        deviations=tuple(str(sentence) for sentence in raw.get("deviations") or ()),
        declared=raw.get("declared"),
        command=tuple(str(part) for part in raw.get("command") or ()),
        created=str(raw.get("created", "")),
        n_primary=int(raw["n_primary"]),
        n_exploratory=int(raw["n_exploratory"]),
    )


def _effect(raw: Mapping[str, Any], against: Sequence[Objection]) -> Effect:
    pair = {raw["treatment"], raw["baseline"]}
    concerned = [
        o.sentence
        for o in against
        if o.severity != REFUSAL and set(o.arms) <= pair and (not o.metrics or raw["metric"] in o.metrics)
    ]
    difference = estimate_of(raw["difference"])
    if difference is None:
        raise ValueError("a contrast without a difference")
    return Effect(
        metric=raw["metric"], treatment=raw["treatment"], baseline=raw["baseline"], family=raw["family"],
        code=raw["verdict"]["code"], sentence=raw["verdict"]["sentence"], n=int(raw["n"]),
        difference=difference, raw=raw, watermarks=tuple(concerned),
    )  # fmt: skip


def estimate_of(raw: Any) -> Estimate | None:
    """An Estimate from its JSON object, null numbers as NaN; None from null. A withheld one has no count either."""
    if raw is None:
        return None
    return Estimate(
        value=_number(raw["value"]), stderr=_number(raw.get("stderr")), low=_number(raw["low"]),
        high=_number(raw["high"]), level=_number(raw.get("level")), n=int(raw["n"] or 0),
        n_unscored=int(raw.get("n_unscored") or 0), n_clusters=raw.get("n_clusters"), method=str(raw.get("method", "")),
    )  # fmt: skip


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
