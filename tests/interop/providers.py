"""What the tests of both providers need: small models, a longhand log-likelihood, answers of our own engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np

from lem.chat.generate import Completion, GenerationSettings, Request, generate
from lem.chat.load import ChatModel

ROOT = Path(__file__).resolve().parents[2]
NANO = str(ROOT / "models" / "lem-nano")


def longhand(chat: ChatModel, context: Sequence[int], continuation: Sequence[int]) -> tuple[float, bool]:
    """Log-probability and greediness from the definition: one row, no cache, log-softmax in float64."""
    tokens = [*context, *continuation]
    logits = np.array(chat.model(mx.array([tokens[:-1]]))[0].astype(mx.float32), dtype=np.float64)
    total, greedy = 0.0, True
    for position in range(len(context), len(tokens)):
        row = logits[position - 1]
        total += row[tokens[position]] - row.max() - np.log(np.exp(row - row.max()).sum())
        greedy = greedy and int(row.argmax()) == tokens[position]
    return total, greedy


def own_answers(
    chat: ChatModel, prompts: Sequence[Sequence[int]], settings: GenerationSettings, seeds: Sequence[int] | None = None
) -> list[Completion]:
    """What our engine answers, one row at a time."""
    keys = seeds or [0] * len(prompts)
    rows = [Request(index, tuple(prompt), key) for index, (prompt, key) in enumerate(zip(prompts, keys, strict=True))]
    return [done for row in rows for done in generate(chat, [[row]], settings)]
