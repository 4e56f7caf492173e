"""Whether an audit asks as the judge was asked in the run; another manner of asking is another instrument.

A stored verdict says by its version how it was asked for. The manners that options can name are tried in turn on one
answer of each benchmark, so that the note can say which one it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lem.data.items import Item
from lem.judges.audit.plan import PAIR, RATING, AuditSettings
from lem.judges.calls import Asking, PlannedCall, benchmark_of, pair_calls, rating_calls
from lem.judges.protocol import JudgeIdentity
from lem.judges.rubrics import Rubric, rubrics_for
from lem.records import Judgement, RunContents

Rubrics = Mapping[str, Sequence[Rubric]]
Versions = dict[tuple[Any, ...], str]


def manner_notes(
    contents: RunContents, items: Mapping[str, Item], rubrics: Rubrics, settings: AuditSettings, identity: JudgeIdentity
) -> list[str]:
    """A sentence for ratings, and one for comparisons, that the judge was asked for otherwise than in this audit.

    Args:  rubrics: those of each benchmark by which this audit rates.
    """
    mine = [one for one in contents.judgements if one.judge == identity.name and one.version]
    found = []
    if RATING in settings.instruments:
        found += _ratings(contents, items, rubrics, settings.asking, identity, [one for one in mine if not one.order])
    if PAIR in settings.instruments:
        found += _pairs(contents, settings.asking, identity, [one for one in mine if one.order])
    return found


def _ratings(
    contents: RunContents, items: Mapping[str, Item], rubrics: Rubrics, asking: Asking, identity: JudgeIdentity,
    rated: Sequence[Judgement],
) -> list[str]:  # fmt: skip
    sample = _one_of_each_benchmark(contents, rated)
    stored = {(*one.key, one.dimension): one.version for one in rated}
    usual = {benchmark_of(entry): rubrics_for(benchmark_of(entry)) for entry in contents.info.probes}

    def asked(manner: Asking, by: Rubrics) -> Versions:
        return _versions(rating_calls(sample, items, by, manner, identity))

    mine = asked(asking, rubrics)
    other = {key: version for key, version in stored.items() if key in mine and mine[key] != version}
    if not other:
        return []
    for manner in _manners(asking):
        for by in (rubrics, usual):
            versions = asked(manner, by)
            if all(versions.get(key) == version for key, version in other.items()):
                return [_note("ratings", identity, _options(manner, asking))]
    return [_note("ratings", identity, "another rubric or --judge-max-tokens")]


def _pairs(contents: RunContents, asking: Asking, identity: JudgeIdentity, compared: Sequence[Judgement]) -> list[str]:
    if not compared:
        return []
    one = compared[0]
    records = [record for record in contents.records if record.key[1:] == one.key[1:]]
    sample = replace(contents, records=records)

    def asked(manner: Asking) -> set[str]:
        calls = pair_calls(sample, one.against, one.arm, manner, identity)
        return {version for call in calls for version in call.versions}

    if not asked(asking) or one.version in asked(asking):
        return []
    for manner in _manners(asking):
        if not manner.together and one.version in asked(manner):
            return [_note("comparisons", identity, _options(manner, asking))]
    return [_note("comparisons", identity, "another --judge-max-tokens")]


def _one_of_each_benchmark(contents: RunContents, rated: Sequence[Judgement]) -> RunContents:
    benchmarks = {entry["id"]: benchmark_of(entry) for entry in contents.info.probes}
    chosen = {benchmarks.get(one.probe_id, ""): one.key for one in reversed(rated)}
    return replace(contents, records=[one for one in contents.records if one.key in chosen.values()])


def _versions(calls: Sequence[PlannedCall]) -> Versions:
    return {
        (*call.key, dimension): version
        for call in calls
        for dimension, version in zip(call.dimensions, call.versions, strict=True)
    }


def _manners(asking: Asking) -> Iterator[Asking]:
    for max_tokens in dict.fromkeys((asking.max_tokens, Asking().max_tokens)):
        for together in (False, True):
            for rationale in (True, False):
                yield Asking(together, rationale, max_tokens)


def _options(manner: Asking, asking: Asking) -> str:
    options = [
        *(["--together"] if manner.together else []),
        *(["--no-rationale"] if not manner.rationale else []),
        *([f"--judge-max-tokens {manner.max_tokens}"] if manner.max_tokens != asking.max_tokens else []),
    ]
    return " ".join(options) or "none of these options"


def _note(what: str, identity: JudgeIdentity, options: str) -> str:
    return (
        f"the {what} by '{identity.name}' in this run were asked for in another manner ({options}), which makes it "
        "another instrument; audit it in the manner it is used in"
    )
