"""Metrics: every series of values a run has, one per scorer and one per judge and dimension, over the same cells.

A metric knows to which cells it applies (those of the benchmarks that it has rows for or was meant for, a judge's of
the arms that it was to rate there), so that an item which it was never meant for is not counted as unscored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from lem.records.cells import STALE, Cell, Outcome, arm_names, join_cells
from lem.records.contents import RunContents
from lem.records.model import Judgement, Key, Score, text_sha
from lem.records.run import RunInfo

BINARY, ORDINAL, CONTINUOUS = "binary", "ordinal", "continuous"
FIRST = "v2"
LOWER_IS_BETTER = frozenset({"over_refusal"})
# Scorers whose values are right (1) or wrong (0), also where all answers of a run are wrong; and shares from 0 to 1.
RIGHT_OR_WRONG = frozenset({"gsm8k", "gsm8k_strict", "gsm8k_flexible", "truthfulqa_mc1"})
SHARES = frozenset({"truthfulqa_mc2", "over_refusal", "unsafe_refusal"})
# Means of several dimensions of one judge that are read as one figure, by name.
COMPOSITES = {"ethics": ("sovereignty", "ethical_depth", "creative_expression", "self_concept")}


PANEL = "panel"  # the judge's name that verdicts of all judges together carry
Benchmarks = Mapping[str, Collection[str]]  # the arms whose answers a metric is for, by benchmark
NOTHING_SAID: Benchmarks = {}
STYLE = ("v1", "v2", "v3")
EVAL = "eval"


@dataclass(frozen=True)
class Metric:
    """One scorer, or one dimension of one judge, over the cells it applies to.

    `kind` is "ordinal" for a judge's ratings, "binary" for a scorer of right and wrong, and for one that gives 0 and 1
    and nothing else, else "continuous".
    `low` and `high` are the ends of the scale (None: not known). `source` is "scorer", or the judge's name.
    """

    name: str
    source: str
    kind: str
    version: str
    low: float | None
    high: float | None
    cells: tuple[Cell, ...]


def metrics_of(contents: RunContents) -> list[Metric]:
    """All metrics of a run: v2, the other scorers by name, then the dimensions of the judges.

    Raises: what `join_cells` raises.
    """
    names = sorted(contents.scores, key=lambda name: (name != FIRST, name))
    metrics = [_metric(contents, name, "scorer", contents.scores[name]) for name in names if contents.scores[name]]
    judged = _by_dimension(contents)
    judges = Counter(dimension for _, dimension in judged)
    for (judge, dimension), judgements in judged.items():
        name = dimension if judges[dimension] == 1 and dimension not in names else f"{dimension} · {judge}"
        rows = [_as_score(judgement, name) for judgement in judgements]
        metric = _metric(contents, name, judge, rows, _to_rate(contents, judge, [dimension]))
        metrics.append(replace(metric, low=judgements[0].low, high=judgements[0].high))
    return [*metrics, *_composites(contents, judged)]


def of_style(info: RunInfo, metric: Metric) -> bool:
    """True for a scorer of style in a run of benchmarks: pooled over sums, refusals and essays it says nothing."""
    return info.kind == EVAL and metric.source == "scorer" and metric.name in STYLE


def _composites(contents: RunContents, judged: Mapping[tuple[str, str], list[Judgement]]) -> list[Metric]:
    """The mean of the dimensions that make up a composite, for each judge that rated them all."""
    found = []
    judges = list(dict.fromkeys(judge for judge, _ in judged))
    for name, parts in COMPOSITES.items():
        whole = [judge for judge in judges if all((judge, part) in judged for part in parts)]
        answers = {one.key: text_sha(one.response) for one in contents.records if whole and one.response is not None}
        for judge in whole:
            shown = name if len(whole) == 1 else f"{name} · {judge}"
            series = [judged[judge, part] for part in parts]
            rows, meant = _mean_rows(series, shown, answers), _to_rate(contents, judge, parts)
            metric = _metric(contents, shown, judge, rows, meant)
            found.append(replace(metric, kind=CONTINUOUS, low=series[0][0].low, high=series[0][0].high))
    return found


def _mean_rows(series: Sequence[Sequence[Judgement]], name: str, answers: Mapping[Key, str]) -> list[Score]:
    """One row per cell: the mean of its ratings, unscored with the first reason where one of them is.

    Args:  answers: hash of each answer; a rating of an earlier answer counts for nothing.
    """
    by_cell: dict[Key, list[Judgement]] = {}
    for judgements in series:
        for judgement in judgements:
            by_cell.setdefault(judgement.key, []).append(judgement)
    rows = []
    for key, ratings in by_cell.items():
        values = [rating.value for rating in ratings if rating.value is not None]
        reason = next((rating.unscored or rating.error for rating in ratings if rating.value is None), None)
        if any(rating.record_sha not in ("", answers.get(key)) for rating in ratings):
            reason = STALE
        if len(ratings) < len(series):
            reason = reason or "not rated on every part"
        value = None if reason else sum(values) / len(values)
        rows.append(Score(*key, name, "mean", value, {}, reason))
    return rows


def _by_dimension(contents: RunContents) -> dict[tuple[str, str], list[Judgement]]:
    """Absolute ratings by (judge, dimension), judges as they first appear; comparisons of two answers are no metric.

    A judge's dimensions are in the order of its manifest's rubrics, because verdicts are stored as they come.
    """
    found: dict[tuple[str, str], list[Judgement]] = {}
    for judgement in contents.judgements:
        if not judgement.order:
            found.setdefault((judgement.judge, judgement.dimension), []).append(judgement)
    judges = list(dict.fromkeys(judge for judge, _ in found))
    rubrics = list(dict.fromkeys(name for one in contents.judges.values() for name in one.get("rubrics", {})))
    place = {name: number for number, name in enumerate(rubrics)}
    order = sorted(found, key=lambda key: (judges.index(key[0]), place.get(key[1], len(place))))
    return {key: found[key] for key in order}


def _as_score(judgement: Judgement, name: str) -> Score:
    unscored = judgement.unscored or judgement.error
    return Score(
        judgement.arm, judgement.probe_id, judgement.repeat, name, judgement.version, judgement.value, {}, unscored,
        judgement.record_sha,
    )  # fmt: skip


def _to_rate(contents: RunContents, judge: str, dimensions: Sequence[str]) -> dict[str, set[str]]:
    """Benchmark -> the arms that a judge was to rate there on each of these dimensions, also where no pass got to."""
    first, *others = (_to_rate_on(contents, judge, one) for one in dimensions)
    return {name: arms.intersection(*(other.get(name, ()) for other in others)) for name, arms in first.items()}


def _to_rate_on(contents: RunContents, judge: str, dimension: str) -> dict[str, set[str]]:
    """The same of one dimension; for a panel what any of the judges was to rate that have a value on it."""
    judges = {judge}
    if judge == PANEL:
        judges = {one.judge for one in contents.judgements if one.dimension == dimension and one.value is not None}
    found: dict[str, set[str]] = {}
    for name in judges:
        for benchmark, arms in contents.judges.get(name, {}).get("rated", {}).get(dimension, {}).items():
            found.setdefault(benchmark, set()).update(arms)
    return found


def _metric(
    contents: RunContents, name: str, source: str, rows: Sequence[Score], meant: Benchmarks = NOTHING_SAID
) -> Metric:
    cells = _applicable(contents, rows, meant)
    values = {cell.value for cell in cells if cell.outcome is Outcome.SCORED}
    if source != "scorer":
        return Metric(name, source, ORDINAL, rows[0].version, None, None, cells)
    binary = (name in RIGHT_OR_WRONG and values <= {0.0, 1.0}) or (values == {0.0, 1.0} and name not in SHARES)
    share = name in SHARES and all(value is not None and 0 <= value <= 1 for value in values)
    low, high = (0.0, 1.0) if binary or share else (None, None)  # an imported score may only have the name
    kind = BINARY if binary else CONTINUOUS
    return Metric(name, source, kind, rows[0].version, low, high, cells)


def _applicable(contents: RunContents, rows: Sequence[Score], meant: Benchmarks) -> tuple[Cell, ...]:
    """The cells of a metric, without those of benchmarks that it was not meant for and has no row of.

    What it was meant for is known by benchmark and arm. Where that says nothing of a benchmark with rows, it is for
    all arms; where it says nothing of an arm, all benchmarks are for it.
    """
    cells = tuple(join_cells(contents.info, contents.records, list(rows)))
    benchmark = {probe["id"]: probe.get("benchmark", "") for probe in contents.info.probes}
    if len(set(benchmark.values())) < 2:
        return cells
    everyone = set(arm_names(contents.info, contents.records))
    unsaid = everyone.difference(*meant.values())
    arms = {name: unsaid.union(said) for name, said in meant.items()}
    for row in rows:
        name = benchmark.get(row.probe_id, "")
        arms.setdefault(name, everyone).add(row.arm)
    return tuple(cell for cell in cells if cell.key.arm in arms.get(benchmark.get(cell.key.probe_id, ""), ()))
