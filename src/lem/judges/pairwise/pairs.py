"""Comparisons of two arms' answers: which are to be made, and what the two orders of each amount to.

A pair is one cell of the treatment with the baseline's answer to the same probe in the same repeat. A judge reads it
twice, the treatment's answer first ("ab") and second ("ba"). Values are the treatment's: 1 won, 0 lost, 0.5 neither,
whatever the order was.

    same verdict in both orders             that verdict
    another verdict in the other order      a tie, counted as swap-inconsistent
    one order without a verdict             no outcome, counted with the reason

Which pairs of a run have an outcome is `lem.judges.pairwise.outcomes`, what they say `lem.judges.pairwise.win_rates`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lem.errors import DataError
from lem.records import Judgement, Key, Outcome, Record, RunContents, text_sha
from lem.records.model import LIKELIHOOD

PREFERENCE = "preference"
AB, BA = "ab", "ba"
ORDERS = (AB, BA)
WIN, TIE, LOSS = 1.0, 0.5, 0.0

ONE_ORDER = "judged in one order only"
STALE = "the stored comparison belongs to an earlier answer"


@dataclass(frozen=True)
class PairOutcome:
    """What a judge made of one pair, both orders joined.

    `value` is None without a verdict in both orders; `reason` then says why. `agreed` tells whether both orders gave
    the same verdict, `first_slot` the share of the two verdicts that the answer read first won (a tie is half of one):
    0.5 wherever they agreed. Both are None where they cannot be known. `answers` says what is wrong with the answers
    themselves: unscored (one was cut off while thinking), failed or missing; None where they can be compared.
    """

    key: Key
    value: float | None
    agreed: bool | None = None
    first_slot: float | None = None
    reason: str | None = None
    answers: Outcome | None = None

    @property
    def outcome(self) -> Outcome:
        """Scored, unscored, failed or missing, as for a cell."""
        return Outcome.SCORED if self.value is not None else self.answers or Outcome.UNSCORED


def pair_plan(contents: RunContents, baseline: str, treatment: str) -> list[tuple[Key, str]]:
    """Every comparison of two arms as (cell of the treatment, order), sorted, both orders of a pair together.

    A pair needs an answer that can be judged on either side. Identical answers are compared too: that they tie is a
    test of the judge.
    """
    return [(ours.key, order) for ours, _ in pairs_of(contents, baseline, treatment) for order in ORDERS]


def pairs_of(contents: RunContents, baseline: str, treatment: str) -> list[tuple[Record, Record]]:
    """The answers that can be compared, (treatment's, baseline's), sorted by probe and repeat."""
    answers = {record.key: record for record in contents.records if has_answer(record)}
    found = []
    for key in sorted(key for key in answers if key.arm == treatment):
        other = answers.get(Key(baseline, key.probe_id, key.repeat))
        if other is not None:
            found.append((answers[key], other))
    return found


def has_answer(record: Record) -> bool:
    """True for a record with an answer that can be judged: not failed, no measured choices, thinking ended."""
    return not no_response(record) and not unfinished(record) and record.finish_reason != LIKELIHOOD


def no_response(record: Record) -> bool:
    """True where the request failed."""
    return record.failed or record.response is None


def unfinished(record: Record) -> bool:
    """True where the answer was cut off while the model was still thinking."""
    return record.thinking is not None and record.response == "" and record.finish_reason == "length"


def pair_sha(treatment: Record, baseline: Record) -> str:
    """Hash of both answers of a pair: the `record_sha` of its judgements, so that either of them made anew is seen."""
    return text_sha(json.dumps([treatment.response, baseline.response]))


def pair_outcomes(judgements: Iterable[Judgement], shas: Mapping[Key, str] | None = None) -> list[PairOutcome]:
    """Join both orders of every pair, in the order in which pairs first appear; ratings are passed over.

    Args:  judgements: one judge's, on one dimension, of one arm against one other.
           shas: hash of the two answers per cell (see `pair_sha`); a judgement of another hash counts for nothing.
    Raises: ValueError if they are of several judges, dimensions or arms; DataError if of several versions.
    """
    compared = [one for one in judgements if one.order in ORDERS]
    if len({(one.judge, one.dimension, one.arm, one.against) for one in compared}) > 1:
        raise ValueError("comparisons by several judges, on several dimensions or of several arms in one table")
    versions = sorted({one.version for one in compared})
    if len(versions) > 1:
        named = ", ".join(version or "(none)" for version in versions)
        raise DataError(
            f"comparisons by '{compared[0].judge}' come from versions {named}, which cannot be compared; judge again "
            "under another name of the judge."
        )
    by_pair: dict[Key, dict[str, Judgement]] = {}
    for one in compared:
        by_pair.setdefault(one.key, {})[one.order] = one
    return [_joined(key, found, (shas or {}).get(key)) for key, found in by_pair.items()]


def _joined(key: Key, found: Mapping[str, Judgement], sha: str | None) -> PairOutcome:
    reason = next((fault for one in found.values() if (fault := _fault(one, sha))), None)
    if reason is not None or len(found) < len(ORDERS):
        return PairOutcome(key, None, reason=reason or ONE_ORDER)
    first, second = found[AB].value, found[BA].value
    assert first is not None
    assert second is not None
    value = first if first == second else TIE
    return PairOutcome(key, value, first == second, (first + 1 - second) / 2)


def _fault(one: Judgement, sha: str | None) -> str | None:
    if sha is not None and one.record_sha not in ("", sha):
        return STALE
    if one.value is None or one.unscored or one.error:
        return one.unscored or one.error or "no value and no reason stored"
    if one.value not in (WIN, TIE, LOSS):
        raise DataError(
            f"the comparison of '{one.arm}' with '{one.against}' by '{one.judge}' on probe {one.probe_id} has the "
            f"value {one.value:g}, which is no win (1), tie (0.5) or loss (0); judge it again."
        )
    return None


def mean_values(outcomes: Sequence[PairOutcome], fill: float | None = None) -> list[tuple[str, float | None]]:
    """(probe, value) of each outcome; one without a value has `fill`."""
    return [(outcome.key.probe_id, fill if outcome.value is None else outcome.value) for outcome in outcomes]
