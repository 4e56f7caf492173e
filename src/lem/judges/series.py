"""What verdicts have in common that can be compared: the dimension, the opponent, the scale and the rubric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from lem.records import Judgement

Rubrics = Mapping[str, Mapping[str, str]]  # judge -> dimension -> start of the hash of its rubric


class Series(NamedTuple):
    """Ratings of one dimension by one rubric, or comparisons with the arm `against`, which have none ("").

    Only verdicts of equal series measure the same. The rubric is the start of its hash, "" where it is not known; the
    ends of the scale are None where they are not.
    """

    dimension: str
    against: str
    low: float | None
    high: float | None
    rubric: str

    @property
    def topic(self) -> tuple[str, str]:
        """What it is about, whatever the scale."""
        return self.dimension, self.against

    @property
    def instrument(self) -> str:
        """Scale and rubric in words."""
        ends = (
            "a scale that is not known" if self.low is None or self.high is None else f"{self.low:g} to {self.high:g}"
        )
        return ends + ("" if self.against else f" (rubric {self.rubric or 'not known'})")


def label_series(label: Judgement) -> Series:
    """The series of a person's label, whose version is that of its rubric."""
    return Series(label.dimension, label.against, label.low, label.high, label.version)


def judged_series(judgement: Judgement, rubrics: Rubrics) -> Series:
    """The series of a judge's verdict, whose own version says more than the rubric."""
    rubric = "" if judgement.against else rubrics.get(judgement.judge, {}).get(judgement.dimension, "")
    return Series(judgement.dimension, judgement.against, judgement.low, judgement.high, rubric)


def judged_by_series(judgements: Iterable[Judgement], rubrics: Rubrics) -> dict[Series, list[Judgement]]:
    """Verdicts by their series, in the order in which these first appear."""
    found: dict[Series, list[Judgement]] = {}
    for one in judgements:
        found.setdefault(judged_series(one, rubrics), []).append(one)
    return found


def rubric_hashes(manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """By which rubrics judges rated, from their manifests, where each stands as "version hash"."""
    return {
        judge: {dimension: str(named).rpartition(" ")[2] for dimension, named in manifest.get("rubrics", {}).items()}
        for judge, manifest in manifests.items()
    }
