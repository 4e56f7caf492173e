"""Were items trained on? Questions are looked for in training files, as evaluation probes are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from lem.data import Probe, read_chat_examples
from lem.data.contamination import ProbeSource, check_probes
from lem.data.findings import Finding
from lem.data.items import Item
from lem.data.short_texts import too_short


def contaminated(items: Sequence[Item], training: Iterable[Path]) -> dict[str, list[Finding]]:
    """The findings of each item whose question was met in a training file; {} when there are none.

    A prompt or an answer of the training data meets a question if both share eight words in a row, or if it holds the
    whole of a question of four to seven words; a prompt also if its 3-gram Jaccard with the question is above 0.3.
    A question that is `too_short` is found by the last only.
    Raises: UserError or DataError for a training file that is missing or malformed.
    """
    examples = [(path.name, example) for path in training for example in read_chat_examples(path)]
    sources = [ProbeSource(Probe(item.id, item.domain, item.question), item.benchmark) for item in items]
    owners = {source.label: source.probe.id for source in sources}
    found: dict[str, list[Finding]] = {}
    for finding in check_probes(examples, sources):
        found.setdefault(owners[finding.other], []).append(finding)
    return found


def too_short_items(items: Sequence[Item]) -> list[str]:
    """The ids of items whose questions have too few words to be looked for inside a training text."""
    return [item.id for item in items if too_short(item.question)]
