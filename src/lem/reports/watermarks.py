"""What must be said wherever values are shown: a judge is kin of an arm or failed its audit, items were trained on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lem.records import Metric, RunContents, RunInfo
from lem.records.contaminated import contaminated_items
from lem.records.judge_files import UNTRUSTWORTHY, self_judged

PANEL = "panel"  # what several judges together are called


@dataclass(frozen=True)
class Watermark:
    """A word for a title and the sentence behind it."""

    word: str
    sentence: str


def watermarks(
    contents: RunContents, judge: str, manifests: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[Watermark, ...]:
    """The watermarks of a judge's verdicts; () for a scorer, and for a judge with nothing against it.

    A panel has those of all judges of the run.

    Args:  manifests: the judges' manifests by name, where they are not those of `contents`.
    """
    known = contents.judges if manifests is None else manifests
    if judge == PANEL and judge not in known:
        return tuple(mark for member in sorted(known) for mark in watermarks(contents, member, known))
    found = []
    arms = self_judged(dict(known.get(judge, {})))
    if arms:
        named = f"{'arm' if len(arms) == 1 else 'arms'} {', '.join(arms)}"
        sentence = f"the judge {judge} is of one lineage with {named}; do not rank arms by its verdicts."
        found.append(Watermark("SELF-JUDGED", f"SELF-JUDGED: {sentence}"))
    if contents.audits.get(judge, {}).get("verdict") == UNTRUSTWORTHY:
        sentence = f"the audit found the judge {judge} not trustworthy; its verdicts show nothing."
        found.append(Watermark("UNTRUSTWORTHY", f"UNTRUSTWORTHY: {sentence}"))
    return tuple(found)


def metric_watermarks(
    contents: RunContents, metric: Metric, manifests: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[Watermark, ...]:
    """The watermarks of a metric: those of its judge, and that weights of the run were trained on its items."""
    met = contamination(contents.info, {cell.key.probe_id for cell in metric.cells}, metric.name)
    return (*watermarks(contents, metric.source, manifests), *met)


def contamination(info: RunInfo, probes: Collection[str], what: str) -> tuple[Watermark, ...]:
    """That weights of a run were trained on some of these probes; () where none is known to be."""
    n_met = len(set(probes) & contaminated_items(info.data).keys())
    if not n_met:
        return ()
    sentence = f"weights of this run were trained on {n_met} of the {len(set(probes))} items of {what}"
    return (Watermark("CONTAMINATED", f"CONTAMINATED: {sentence}; its values on them show nothing."),)


def words_of(marks: Iterable[Watermark]) -> str:
    """The words of some watermarks as they stand behind a name, " (SELF-JUDGED)"; "" without any."""
    words = dict.fromkeys(mark.word for mark in marks)
    return f" ({', '.join(words)})" if words else ""


def sentences_of(marks: Iterable[Watermark]) -> list[str]:
    """The sentences of some watermarks, each once."""
    return list(dict.fromkeys(mark.sentence for mark in marks))
