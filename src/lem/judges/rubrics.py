"""Rubrics: what a judge rates an answer on, as files with a question, an anchored scale and what does not count.

The ten that come with the package stand in `rubrics/DIMENSION.toml`. A rubric of the user's own is a file of the same
form for one of the same dimensions, so that tables and reports know what its numbers are about.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from lem.errors import DataError, UserError
from lem.records import text_sha

RUBRICS = Path(__file__).with_name("rubrics")
DIMENSIONS = (
    "truthfulness", "informativeness", "safety", "nuance", "kindness", "awareness", "sovereignty", "ethical_depth",
    "creative_expression", "self_concept",
)  # fmt: skip
MIN_ANCHORS = 3

_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_Anchor = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]?)$")]


@dataclass(frozen=True)
class Rubric:
    """One dimension and its scale of whole numbers from `low` to `high`.

    `anchors` describe what is seen in an answer of that number; both ends have one. `considerations` say what counts
    and what does not. `uses_references` says whether reference answers are shown. `sha` is the hash of all of this.
    """

    dimension: str
    version: str
    question: str
    benchmarks: tuple[str, ...]
    anchors: dict[int, str]
    considerations: tuple[str, ...]
    uses_references: bool
    low: int
    high: int
    sha: str


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    dimension: str
    version: _Text
    question: _Text
    benchmarks: list[_Text] = Field(min_length=1)
    uses_references: bool
    low: int = Field(1, ge=0)
    high: int = Field(10, le=99)
    considerations: list[_Text] = Field(min_length=1)
    anchors: dict[_Anchor, _Text] = Field(min_length=MIN_ANCHORS)

    @model_validator(mode="after")
    def _is_a_scale(self) -> Self:
        if self.low >= self.high:
            raise ValueError("low must be below high")
        numbers = sorted(int(number) for number in self.anchors)
        if (numbers[0], numbers[-1]) != (self.low, self.high):
            raise ValueError(f"the first and last anchors must be those of {self.low} and {self.high}")
        if len(set(self.anchors.values())) < len(numbers):
            raise ValueError("two anchors have the same text")
        return self


def known_dimensions() -> tuple[str, ...]:
    """The dimensions that can be judged, in the order of tables."""
    return DIMENSIONS


def rubrics_for(benchmark: str) -> list[Rubric]:
    """The rubrics on which a benchmark is judged, in the order of `known_dimensions`; none for one that is not."""
    return [rubric for rubric in map(read_rubric, DIMENSIONS) if benchmark in rubric.benchmarks]


def read_rubric(name: str | Path) -> Rubric:
    """The rubric of a dimension, or of a file (named with a folder or the ending .toml).

    Raises: UserError for a dimension that is not known; DataError for a file that is no rubric.
    """
    path = Path(name)
    if path.suffix == ".toml" or len(path.parts) > 1:
        return _read(path)
    if str(name) not in DIMENSIONS:
        raise UserError(f"'{name}' is no dimension; name one of {', '.join(DIMENSIONS)}, or a rubric file (.toml).")
    return _packaged(str(name))


@cache
def _packaged(dimension: str) -> Rubric:
    return _read(RUBRICS / f"{dimension}.toml")


def _read(path: Path) -> Rubric:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); name a rubric file or a dimension.") from None
    except ValueError as error:  # not UTF-8, or not TOML
        raise DataError(f"{path}: not a TOML file ({str(error).splitlines()[0]}); see docs/JUDGES.md.") from None
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "rubric"
        raise DataError(f"{path}: {where}: {_said(first['msg'])}; docs/JUDGES.md has the form of a rubric.") from None
    if file.dimension not in DIMENSIONS:
        known = ", ".join(DIMENSIONS)
        raise UserError(f"{path}: '{file.dimension}' is no dimension that is known here; name one of {known}.")
    return Rubric(
        dimension=file.dimension,
        version=file.version,
        question=file.question,
        benchmarks=tuple(file.benchmarks),
        anchors={int(number): text for number, text in sorted(file.anchors.items(), key=lambda pair: int(pair[0]))},
        considerations=tuple(file.considerations),
        uses_references=file.uses_references,
        low=file.low,
        high=file.high,
        sha=text_sha(json.dumps(file.model_dump(), sort_keys=True, ensure_ascii=True)),
    )


def _said(message: str) -> str:
    """A validation message as part of a sentence."""
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
