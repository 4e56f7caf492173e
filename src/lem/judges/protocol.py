"""What a judge is asked and what comes back: one protocol for services on the network and local models.

A *call* is one question to a judge, a *reply* what it said, word for word. Backends know nothing of rubrics or runs:
they send the two texts, ask for an object of the call's schema, and report how the reply ended. Reading a verdict out
of a reply is `lem.judges.parse`; which calls a run needs is `lem.judges.calls`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol


class Ending(StrEnum):
    """How a reply ended; only COMPLETE ones are parsed, FAILED ones may be asked again."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"  # the judge's own token limit
    BLOCKED = "blocked"  # a safety filter of the service
    REFUSED = "refused"  # the judge declined in so many words that the service says so
    FAILED = "failed"  # no reply: timeout, server error, network


@dataclass(frozen=True)
class Call:
    """One question to a judge.

    `id` is the caller's and comes back with the reply. `schema` is the JSON schema (object, properties in the order in
    which they are to be written, all required) of the verdict. `max_tokens` limits the reply.
    """

    id: Any
    system: str
    user: str
    schema: dict[str, Any]
    max_tokens: int = 512


@dataclass(frozen=True)
class Reply:
    """What came back for one call.

    `text` is the reply as it came ("" when there is none), `error` the reason of a FAILED one. `model` is the version
    that the service says answered. Tokens are None where they are not reported, `cost` where the price is not known;
    it is that of all attempts, where no reply tells at its most.
    """

    id: Any
    ending: Ending
    text: str = ""
    error: str | None = None
    model: str = ""
    n_prompt_tokens: int | None = None
    n_tokens: int | None = None
    cost: float | None = None


@dataclass(frozen=True)
class JudgeIdentity:
    """Who judges: what must be equal for two judgements to be of one judge.

    `name` names files and tables (no path of the machine). `backend` is gemini, openai or mlx. `model` is the model as
    asked for. `settings` holds what shapes a verdict (temperature, method, weights' hash, ...), `lineage` what is known
    of its ancestry: hashes under "sha" (list), names under "names" (list).
    """

    name: str
    backend: str
    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    lineage: dict[str, list[str]] = field(default_factory=dict)


class Judge(Protocol):
    """A model that can be asked."""

    identity: JudgeIdentity

    def replies(self, calls: Sequence[Call], wanted: set[Any]) -> Iterator[Reply]:
        """Yield one reply for each wanted call, as they come; closing the iterator ends what is under way.

        `calls` are all calls of the pass, in an order that does not depend on what is already done: a local judge cuts
        its batches from all of them, so that a resumed pass says what an unbroken one would have said.
        Raises: UserError for what asking again cannot mend (a wrong key, a model that is not there).
        """
        ...
