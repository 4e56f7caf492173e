"""What must be said wherever verdicts of a judge are shown: it is of one lineage with an arm, or failed its audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lem.records import RunContents
from lem.records.judge_files import UNTRUSTWORTHY, self_judged


@dataclass(frozen=True)
class Watermark:
    """A word for a title and the sentence behind it."""

    word: str
    sentence: str


def watermarks(
    contents: RunContents, judge: str, manifests: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[Watermark, ...]:
    """The watermarks of a judge's verdicts; () for a scorer, and for a judge with nothing against it.

    Args:  manifests: the judges' manifests by name, where they are not those of `contents`.
    """
    known = contents.judges if manifests is None else manifests
    found = []
    arms = self_judged(dict(known.get(judge, {})))
    if arms:
        noun = "arm" if len(arms) == 1 else "arms"
        sentence = (
            f"the judge {judge} is of one lineage with {noun} {', '.join(arms)}; do not rank arms by its verdicts."
        )
        found.append(Watermark("SELF-JUDGED", f"SELF-JUDGED: {sentence}"))
    if contents.audits.get(judge, {}).get("verdict") == UNTRUSTWORTHY:
        sentence = f"the audit found the judge {judge} not trustworthy; its verdicts show nothing."
        found.append(Watermark("UNTRUSTWORTHY", f"UNTRUSTWORTHY: {sentence}"))
    return tuple(found)
