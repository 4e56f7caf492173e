"""How far the judges of a run agree with each other, by Krippendorff's alpha and his convention for conclusions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lem.judges.human import judged_values, other_scales
from lem.judges.panel import PANEL
from lem.judges.series import Rubrics, judged_by_series
from lem.records import Judgement
from lem.stats import FEWEST_UNITS, Estimate, krippendorff_alpha

CONCLUDE, TENTATIVE = 0.8, 0.667


@dataclass(frozen=True)
class JudgeAgreement:
    """Alpha (ordinal) of all judges of one rated dimension, or of one comparison of two arms.

    `conclusion` goes by the lower end of the interval: conclude from 0.80, tentative from 0.667, else no headline; it
    is not shown with fewer than `FEWEST_UNITS` answers.
    """

    dimension: str
    against: str
    judges: tuple[str, ...]
    alpha: Estimate
    conclusion: str


def judge_agreement(judgements: Sequence[Judgement], rubrics: Rubrics) -> list[JudgeAgreement]:
    """One entry for each series that two or more judges have values of; the panel is no judge beside its members.

    Judges that rated a dimension by another scale or rubric are in another series (see `not_compared`).
    """
    found = []
    for series, mine in judged_by_series((one for one in judgements if one.judge != PANEL), rubrics).items():
        everybody = sorted({one.judge for one in mine})
        found_by = {judge: judged_values(one for one in mine if one.judge == judge) for judge in everybody}
        values = {judge: by_cell for judge, by_cell in found_by.items() if by_cell}
        judges = tuple(values)
        if len(judges) < 2:
            continue
        cells = sorted({key for by_cell in values.values() for key in by_cell})
        table = [[values[judge].get(key, (math.nan, ""))[0] for key in cells] for judge in judges]
        alpha = krippendorff_alpha(table, "ordinal", clusters=[key.probe_id for key in cells])
        found.append(JudgeAgreement(series.dimension, series.against, judges, alpha, conclusion(alpha)))
    return found


def not_compared(
    labels: Sequence[Judgement], judgements: Sequence[Judgement], judge: str, rubrics: Rubrics
) -> list[str]:
    """Which labels and which other judges stand apart from a judge, by another scale or rubric of a dimension."""
    own = [one for one in judgements if one.judge == judge]
    by_series = judged_by_series((one for one in judgements if one.judge not in (PANEL, judge)), rubrics)
    notes = other_scales(labels, own, rubrics)
    for mine in judged_by_series(own, rubrics):
        for other, rows in by_series.items():
            if other != mine and other.topic == mine.topic:
                named = ", ".join(f"'{name}'" for name in sorted({one.judge for one in rows}))
                notes.append(
                    f"{mine.dimension} was judged on {mine.instrument} by '{judge}' and on {other.instrument} by "
                    f"{named}, which are not compared"
                )
    return notes


def conclusion(alpha: Estimate) -> str:
    """What an alpha allows, by the lower end of its interval."""
    if alpha.n and alpha.n < FEWEST_UNITS:
        return "not shown"
    if math.isnan(alpha.value) or math.isnan(alpha.low):
        return "not known"
    return "conclude" if alpha.low >= CONCLUDE else "tentative" if alpha.low >= TENTATIVE else "no headline"
