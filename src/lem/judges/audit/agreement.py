"""How far the judges of a run agree with each other, by Krippendorff's alpha and his convention for conclusions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lem.judges.human import judged_values
from lem.judges.panel import PANEL
from lem.records import Judgement
from lem.stats import Estimate, krippendorff_alpha

CONCLUDE, TENTATIVE = 0.8, 0.667


@dataclass(frozen=True)
class JudgeAgreement:
    """Alpha (ordinal) of all judges of one rated dimension, or of one comparison of two arms.

    `conclusion` goes by the lower end of the interval: conclude from 0.80, tentative from 0.667, else no headline.
    """

    dimension: str
    against: str
    judges: tuple[str, ...]
    alpha: Estimate
    conclusion: str


def judge_agreement(judgements: Sequence[Judgement]) -> list[JudgeAgreement]:
    """One entry for each series that two or more judges have values of; the panel is no judge beside its members."""
    found = []
    for dimension, against in dict.fromkeys((one.dimension, one.against) for one in judgements):
        mine = [one for one in judgements if (one.dimension, one.against) == (dimension, against)]
        everybody = sorted({one.judge for one in mine} - {PANEL})
        found_by = {judge: judged_values(one for one in mine if one.judge == judge) for judge in everybody}
        values = {judge: by_cell for judge, by_cell in found_by.items() if by_cell}
        judges = tuple(values)
        if len(judges) < 2:
            continue
        cells = sorted({key for by_cell in values.values() for key in by_cell})
        table = [[values[judge].get(key, (math.nan, ""))[0] for key in cells] for judge in judges]
        alpha = krippendorff_alpha(table, "ordinal")
        found.append(JudgeAgreement(dimension, against, judges, alpha, conclusion(alpha)))
    return found


def conclusion(alpha: Estimate) -> str:
    """What an alpha allows, by the lower end of its interval."""
    if math.isnan(alpha.value) or math.isnan(alpha.low):
        return "not known"
    return "conclude" if alpha.low >= CONCLUDE else "tentative" if alpha.low >= TENTATIVE else "no headline"
