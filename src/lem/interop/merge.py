"""Join published results of one benchmark, one file per model, into one run whose arms are the models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lem.interop.imported import Answer, Imported, Origin, assemble
from lem.interop.published import STANDARD


def merge_by_benchmark(imported: Sequence[Imported]) -> list[Imported]:
    """Join standard results into one run per benchmark, with one arm per model, paired by probe id.

    Other formats are passed on unchanged, after the merged ones. Benchmarks, arms and probes keep the order in
    which they first appear; nothing given is changed.
    Raises: DataError if two files answer one cell, or give one probe id two different prompts.
    """
    found: dict[str, list[Answer]] = {}
    sources: dict[str, list[dict[str, str]]] = {}
    arms: dict[str, dict[str, Any]] = {}
    for one in imported:
        if one.format != STANDARD:
            continue
        arms.update(one.info.arms)
        for answer in _answers_of(one):
            found.setdefault(answer.domain, []).append(answer)
            known = sources.setdefault(answer.domain, [])
            known.extend(source for source in one.info.data["sources"] if source not in known)
    merged = [
        assemble(Origin(benchmark, STANDARD, sources[benchmark], arms, data={"benchmarks": [benchmark]}), answers)
        for benchmark, answers in found.items()
    ]
    return merged + [one for one in imported if one.format != STANDARD]


def _answers_of(one: Imported) -> list[Answer]:
    probes = {probe["id"]: probe for probe in one.info.probes}
    source = " + ".join(source["path"] for source in one.info.data["sources"])
    answers = []
    for record in one.records:
        probe = probes[record.probe_id]
        answers.append(
            Answer(
                record.arm,
                record.probe_id,
                record.response,
                record.error,
                source=source,
                repeat=record.repeat,
                prompt=probe["prompt"],
                domain=probe["domain"],
                benchmark=probe.get("benchmark", ""),
                ts=record.ts,
            )
        )
    return answers
