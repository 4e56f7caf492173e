"""Runs whose pairs were compared: every verdict is given, nothing is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lem.judges.pairwise.pairs import PREFERENCE, pair_sha, pairs_of
from lem.records import Judgement, Key, Record, RunContents, RunInfo

TREATMENT, BASELINE = "trained", "base"
# A judge's two verdicts, in order "ab" then "ba", as the slot that it preferred: A is what it read first.
Verdicts = str | None
_VALUES = {"A": (1.0, 0.0), "B": (0.0, 1.0), "t": (0.5, 0.5)}


def made_pairs(
    n: int, *, repeats: int = 1, lengths: Mapping[str, Sequence[int]] | None = None,
    domains: Sequence[str] | None = None, sources: Sequence[str] | None = None,
) -> RunContents:  # fmt: skip
    """Two arms over n probes with whole answers; lengths are in tokens and in characters alike."""
    probes = [
        {"id": f"P{i:03d}", "domain": domains[i] if domains else "", "prompt": f"q {i}"}
        | ({"source": sources[i]} if sources else {})
        for i in range(n)
    ]
    records = [
        Record("made", arm, probe["id"], repeat, (letter * 9999)[: (lengths[arm][i] if lengths else 9)],
               finish_reason="stop", n_tokens=lengths[arm][i] if lengths else 9)
        for arm, letter in ((BASELINE, "b"), (TREATMENT, "t"))
        for i, probe in enumerate(probes)
        for repeat in range(repeats)
    ]  # fmt: skip
    arms = {BASELINE: {"model_sha": "a"}, TREATMENT: {"model_sha": "a"}}
    return RunContents(RunInfo("made", "eval", "done", arms, {"repeats": repeats}, probes=probes), records)


def compared(run: RunContents, verdicts: Sequence[Verdicts], judge: str = "j", repeat: int = 0) -> RunContents:
    """The run with one judge's verdicts on every probe: "AB" preferred the first in "ab" and the second in "ba".

    "t" is a tie, "-" an unscored verdict, "." a missing one, None no verdicts at all.
    """
    found = {ours.key: pair_sha(ours, other) for ours, other in pairs_of(run, BASELINE, TREATMENT)}
    rows = []
    for probe, both in zip(run.info.probes, verdicts, strict=True):
        key = Key(TREATMENT, probe["id"], repeat)
        for side, letter in enumerate(both or ".."):
            if letter == ".":
                continue
            value = None if letter == "-" else _VALUES[letter][side]
            rows.append(
                Judgement(
                    *key, judge, PREFERENCE, value, order=("ab", "ba")[side], against=BASELINE, low=0.0, high=1.0,
                    unscored="unparsable" if value is None else None, record_sha=found[key],
                )
            )  # fmt: skip
    return replace(run, judgements=[*run.judgements, *rows])
