"""How far is one model from another? Both are shown the same tokens and compared at every position.

    reference model --greedy--> 32 tokens a prompt --all models, teacher-forced--> argmax and KL(reference || other)

The reference decides the path, so the positions are those that it would really visit. Its logits wait on the disk,
one file a prompt, so that only one model is in memory at a time. Positions count for the agreement; for the KL one
value a prompt (the mean over its positions), because positions of one prompt resemble each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lem.chat.generate import Completion, GenerationSettings, Request, generate
from lem.chat.load import ChatModel
from lem.chat.render import render
from lem.errors import CheckFailed, LemError, UserError
from lem.stats import Estimate, mean_bca, rate

MAX_TOKENS = 32
PROMPTS_FILE = Path(__file__).with_name("parity_prompts.txt")
_ROWS_AT_ONCE = 8


@dataclass(frozen=True)
class ForcedRow:
    """Tokens every model is shown, and the positions that are compared: `n` of them, the first after `first` + 1."""

    tokens: tuple[int, ...]
    first: int
    n: int
    logits: Path


@dataclass(frozen=True)
class Distance:
    """From the reference: share of positions with the same most probable token, and KL in nats per token."""

    agreement: Estimate
    kl_nats: Estimate


@dataclass(frozen=True)
class Bars:
    """What a model must reach to count as the same; `max_lost` is a ratio to the yardstick's KL.

    KL grows with the square of a small distance, so a quarter of the KL between adapter and base is half the way
    back: beyond it the model is nearer to the base.
    """

    min_agreement: float = 0.99
    max_kl_nats: float = 0.01
    max_lost: float = 0.25


@dataclass(frozen=True)
class Proof:
    """A model against the reference, beside the yardstick: how far the base without its adapter is (None: no base)."""

    candidate: Distance
    yardstick: Distance | None
    bars: Bars

    @property
    def lost(self) -> float:
        """KL(reference || candidate) over KL(reference || base): 0 has the whole adapter, 1 is as far off as the base.

        NaN without a base, or when the adapter changes nothing on these prompts, so that nothing could be lost.
        """
        if self.yardstick is None or self.yardstick.kl_nats.value == 0:
            return math.nan
        return self.candidate.kl_nats.value / self.yardstick.kl_nats.value

    @property
    def faults(self) -> list[str]:
        """What is below its bar, in words with numbers; empty when the proof stands."""
        bars, agreement, kl = self.bars, self.candidate.agreement.value, self.candidate.kl_nats.value
        found = []
        if not agreement >= bars.min_agreement:
            found.append(f"greedy agreement {agreement:.4f} (bar {bars.min_agreement:g})")
        if not kl <= bars.max_kl_nats:
            found.append(f"KL {kl:.3g} nats per token (bar {bars.max_kl_nats:g})")
        if self.lost > bars.max_lost:
            found.append(f"{self.lost:.3g} of the KL of the base alone (bar {bars.max_lost:g})")
        return found

    def to_dict(self) -> dict[str, Any]:
        """All figures, for JSON."""
        return {**asdict(self), "lost": self.lost, "passed": not self.faults}


def read_prompts(n: int, file: Path | None = None) -> list[str]:
    """The first `n` prompts of a text file with one prompt a line; default: the file that comes with the package.

    Raises: UserError if the file is missing, not text, or has fewer prompts.
    """
    path = PROMPTS_FILE if file is None else file
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such prompt file; give --prompt-file a text file with one prompt a line."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable text file ({error}); give one prompt a line in UTF-8.") from None
    prompts = list(dict.fromkeys(line for line in lines if line))
    if not 1 <= n <= len(prompts):
        name = "the built-in prompt file" if file is None else str(file)
        raise UserError(f"--prompts {n}: {name} has {len(prompts)} different prompts; ask for 1 to {len(prompts)}.")
    return prompts[:n]


def record_reference(chat: ChatModel, prompts: Sequence[str], folder: Path) -> list[ForcedRow]:
    """Let the reference answer greedily and keep its logits at every position of its answers as files in `folder`.

    The decision to stop counts as a position. Raises: LemError if an answer fails.
    """
    requests = [Request(number, _tokens(chat, prompt), 0) for number, prompt in enumerate(prompts)]
    answers = _answers(chat, requests, _ROWS_AT_ONCE)
    # Some architectures of mlx-lm cannot decode rows of different lengths together.
    alone = [request for request in requests if answers[request.id].error is not None]
    answers |= _answers(chat, alone, 1)
    rows = []
    for request in requests:
        answer = answers[request.id]
        if answer.error is not None:
            raise LemError(f"{chat.name}: prompt {request.id + 1} could not be answered ({answer.error}).")
        n = min(len(answer.tokens) + 1, MAX_TOKENS)
        tokens = (request.tokens + answer.tokens)[: len(request.tokens) + n - 1]
        row = ForcedRow(tokens, len(request.tokens) - 1, n, folder / f"{request.id}.npy")
        np.save(row.logits, _logits(chat, row))
        rows.append(row)
    return rows


def _answers(chat: ChatModel, requests: Sequence[Request], n_together: int) -> dict[int, Completion]:
    groups = [requests[start : start + n_together] for start in range(0, len(requests), n_together)]
    settings = GenerationSettings(max_tokens=MAX_TOKENS, temperature=0.0)
    return {completion.id: completion for completion in generate(chat, groups, settings)}


def distance(chat: ChatModel, rows: Sequence[ForcedRow]) -> Distance:
    """Measure a model against the reference on the reference's own answers.

    Raises: CheckFailed if the model's logits are not numbers.
    """
    same, kl = 0, []
    for row in rows:
        reference, other = np.load(row.logits), _logits(chat, row)
        same += int((reference.argmax(axis=-1) == other.argmax(axis=-1)).sum())
        kl.append(float(kl_nats(reference, other).mean()))
    return Distance(rate(same, sum(row.n for row in rows)), mean_kl(kl))


def mean_kl(kl: Sequence[float]) -> Estimate:
    """Mean KL with its BCa interval; NaN or infinite, with no interval, where logits were not finite."""
    if all(math.isfinite(value) for value in kl):
        return mean_bca(kl)
    value = math.nan if any(math.isnan(value) for value in kl) else math.inf
    return Estimate(value, math.nan, math.nan, math.nan, 0.95, len(kl), 0, None, "mean (not finite)")


def kl_nats(reference: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """KL(softmax(reference) || softmax(other)) of each row of logits, in nats, computed in float64."""
    log_p, log_q = _log_softmax(reference), _log_softmax(other)
    p = np.exp(log_p)
    with np.errstate(invalid="ignore"):  # tokens that a model rules out have a log-probability of minus infinity
        terms: NDArray[np.float64] = np.where(p > 0, p * (log_p - log_q), 0.0)
    return np.asarray(terms.sum(axis=-1), dtype=np.float64)


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True).astype(np.float64)
    normal: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normal


def _tokens(chat: ChatModel, prompt: str) -> tuple[int, ...]:
    """A prompt as the model is used: through its chat template if it has one, as plain text otherwise."""
    if chat.tokenizer.has_chat_template:
        return render(chat, [{"role": "user", "content": prompt}]).tokens
    return tuple(int(token) for token in chat.tokenizer.encode(prompt))


def _logits(chat: ChatModel, row: ForcedRow) -> NDArray[np.float32]:
    """Logits at the compared positions, [n, vocabulary]."""
    out = chat.model(mx.array([row.tokens]))[0, row.first : row.first + row.n].astype(mx.float32)
    logits: NDArray[np.float32] = np.array(out)
    mx.clear_cache()
    if np.isnan(logits).any():
        raise CheckFailed(f"{chat.name}: its logits are not numbers; the weights are damaged or overflow their type.")
    return logits
