"""Labels by people, and how far a judge agrees with them.

Labels are judgements by "human:<labeller>" and lie in `labels/<labeller>.jsonl`, apart from `judgements/`, so that no
reader of judgements takes a person for a judge. Several labels of one answer are averaged. For a pair, the label and
the judge's joined outcome are compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from lem.errors import DataError
from lem.judges.pairwise.pairs import pair_outcomes
from lem.judges.panel import PANEL
from lem.judges.series import Rubrics, Series, judged_by_series, label_series
from lem.paths import slug
from lem.records import Judgement, Key
from lem.records.model import field_kinds, misfit
from lem.records.run import nth_line, reading
from lem.records.store import read_jsonl
from lem.stats import (
    CorrectedRate,
    Estimate,
    corrected_rate,
    design_effect,
    krippendorff_alpha,
    rate,
    weighted_kappa,
)

HUMAN = "human:"
UNDONE = "undone"
CANNOT_TELL = "cannot tell"
_KINDS = field_kinds(Judgement)


@dataclass(frozen=True)
class HumanAgreement:
    """One judge beside the labels of one series: of one dimension, scale and rubric, or one comparison of two arms.

    `raw` is the share of answers with exactly the same value, `alpha` Krippendorff's (ordinal), `kappa` Cohen's with
    quadratic weights over rounded labels, where answers to one probe are no independent ones. `prevalence` is the share
    of labels, `judged` that of the judge's values on the same answers, that are positive: above the middle of the
    scale. `among_humans` is alpha between labellers. `corrected` has for each arm the judge's share of positive values,
    corrected by its errors on the labelled answers.
    """

    judge: str
    dimension: str
    against: str
    n: int
    labellers: tuple[str, ...]
    raw: Estimate
    alpha: Estimate
    kappa: Estimate
    prevalence: Estimate
    judged: Estimate
    among_humans: Estimate
    corrected: dict[str, CorrectedRate]


def label_file(run: Path, labeller: str) -> Path:
    """Where the labels of a person lie."""
    return run / "labels" / f"{slug(labeller)}.jsonl"


def read_labels(run: Path, *, with_undone: bool = False) -> list[Judgement]:
    """Every label of a run in the order given, without those that were taken back.

    Of several by one person on one cell and series the last one counts, whatever the answer was when it was given.
    Raises: DataError naming the line that is no label.
    """
    found: dict[tuple[object, ...], Judgement] = {}
    for file in sorted((run / "labels").glob("*.jsonl")):
        with reading(file):
            rows = read_jsonl(file)[0]
        for number, row in enumerate(rows):
            try:
                label = Judgement(**row)
                fault = misfit(row, _KINDS) or _label_fault(label)
            except TypeError as error:
                fault = str(error)
            if fault is not None:
                raise DataError(f"{nth_line(file, number)}: not a label ({fault}); restore it or remove that line.")
            key = (*label.key, label.judge, label_series(label))
            found.pop(key, None)  # so that it stands where it was given last
            found[key] = label
    return [label for label in found.values() if with_undone or label.unscored != UNDONE]


def _label_fault(label: Judgement) -> str | None:
    if not label.judge.startswith(HUMAN):
        return f"it is by '{label.judge}', which is no person"
    if label.low is None or label.high is None or not label.low < label.high:
        return "its scale is missing"
    if label.value is not None and not label.low <= label.value <= label.high:
        return f"the value {label.value:g} is outside its scale"
    return None


def human_agreement(
    labels: Sequence[Judgement], judgements: Sequence[Judgement], rubrics: Rubrics
) -> list[HumanAgreement]:
    """Every judge beside the labels, one entry for each judge and series that they share.

    Args:  rubrics: by which the judges rated (see `rubric_hashes`).
    Labels without a value ("cannot tell") and judgements of another answer than the labelled one count for nothing.
    The panel is left out: its ratings are on no scale that people label by.
    """
    theirs = {judge: judged_by_series(judged, rubrics) for judge, judged in _by_judge(judgements).items()}
    found = []
    for series, mine in _labelled(labels).items():
        for judge, judged in theirs.items():
            values = judged_values(judged.get(series, ()))
            if any(label.key in values for label in mine):
                found.append(_agreement(judge, series, mine, values))
    return found


def other_scales(labels: Sequence[Judgement], judgements: Sequence[Judgement], rubrics: Rubrics) -> list[str]:
    """Which labels are not compared with a judge, because it rated the same dimension by another scale or rubric."""
    notes = []
    for judge, judged in _by_judge(judgements).items():
        theirs = list(judged_by_series(judged, rubrics))
        for series, mine in _labelled(labels).items():
            others = [one.instrument for one in theirs if one.topic == series.topic]
            if others and series not in theirs:
                notes.append(
                    f"{len(mine)} labels of {series.dimension} on {series.instrument} are not compared with '{judge}', "
                    f"which judged it on {' and on '.join(others)}"
                )
    return notes


def _labelled(labels: Iterable[Judgement]) -> dict[Series, list[Judgement]]:
    found: dict[Series, list[Judgement]] = {}
    for label in labels:
        if label.value is not None:
            found.setdefault(label_series(label), []).append(label)
    return found


def _by_judge(judgements: Sequence[Judgement]) -> dict[str, list[Judgement]]:
    judges = sorted({one.judge for one in judgements} - {PANEL})
    return {judge: [one for one in judgements if one.judge == judge] for judge in judges}


def judged_values(judgements: Iterable[Judgement]) -> dict[Key, tuple[float, str]]:
    """A judge's value and the hash of the judged answer, by cell; both orders of a comparison are joined."""
    rated: dict[Key, tuple[float, str]] = {}
    compared: dict[str, list[Judgement]] = {}
    for one in judgements:
        if one.order:
            compared.setdefault(one.arm, []).append(one)
        elif one.value is not None and one.unscored is None:
            rated[one.key] = (one.value, one.record_sha)
    for rows in compared.values():
        shas = {row.key: row.record_sha for row in rows}
        rated |= {
            outcome.key: (outcome.value, shas[outcome.key])
            for outcome in pair_outcomes(rows)
            if outcome.value is not None
        }
    return rated


def _agreement(
    judge: str, series: Series, labels: Sequence[Judgement], values: Mapping[Key, tuple[float, str]]
) -> HumanAgreement:
    by_cell: dict[Key, list[float]] = {}
    for label in labels:
        if label.key in values and label.record_sha in ("", values[label.key][1]) and label.value is not None:
            by_cell.setdefault(label.key, []).append(label.value)
    human = {key: fmean(given) for key, given in by_cell.items()}
    pairs = [(human[key], values[key][0]) for key in human]
    probes = [key.probe_id for key in human]
    middle = _middle(series)
    steps = 2.0 if series.against else 1.0  # comparisons have halves
    # A tie is no win: left out of the labels it would be missing from the errors and still count in what is corrected.
    positive = [(one > middle, other > middle) for one, other in pairs]
    return HumanAgreement(
        judge=judge,
        dimension=series.dimension,
        against=series.against,
        n=len(pairs),
        labellers=tuple(sorted({label.judge.removeprefix(HUMAN) for label in labels})),
        raw=rate(sum(one == other for one, other in pairs), len(pairs)),
        alpha=krippendorff_alpha(np.array(pairs, dtype=float).reshape(-1, 2).T, "ordinal", clusters=probes),
        kappa=weighted_kappa(
            [math.floor(one * steps + 0.5) for one, _ in pairs],
            [math.floor(other * steps + 0.5) for _, other in pairs],
            clusters=probes,
        ),
        prevalence=rate(sum(one for one, _ in positive), len(positive)),
        judged=rate(sum(other for _, other in positive), len(positive)),
        among_humans=_among_humans(labels),
        corrected=_corrected(positive, values, middle),
    )


def _middle(series: Series) -> float:
    assert series.low is not None  # labels have a scale
    assert series.high is not None
    return (series.low + series.high) / 2


def _among_humans(labels: Sequence[Judgement]) -> Estimate:
    people = sorted({label.judge for label in labels})
    cells = sorted({label.key for label in labels})
    given = {(label.judge, label.key): label.value for label in labels if label.value is not None}
    table = [[given.get((person, cell), math.nan) for cell in cells] for person in people]
    return krippendorff_alpha(table, "ordinal", clusters=[cell.probe_id for cell in cells])


def _corrected(
    positive: Sequence[tuple[bool, bool]], values: Mapping[Key, tuple[float, str]], middle: float
) -> dict[str, CorrectedRate]:
    """Per arm; the errors are taken to be the same in every arm, since a labelled sample is too small to tell."""
    yes = [other for one, other in positive if one]
    no = [other for one, other in positive if not one]
    found = {}
    for arm in sorted({key.arm for key in values}):
        cells = [(key.probe_id, value > middle) for key, (value, _) in values.items() if key.arm == arm]
        probes, outcomes = [probe for probe, _ in cells], [float(outcome) for _, outcome in cells]
        effect = design_effect(outcomes, probes) if 1 < len(set(probes)) < len(probes) else 1.0
        found[arm] = corrected_rate(
            int(sum(outcomes)), len(outcomes), sum(yes), len(yes), len(no) - sum(no), len(no),
            design_effect=1.0 if math.isnan(effect) else effect,
        )  # fmt: skip
    return found
