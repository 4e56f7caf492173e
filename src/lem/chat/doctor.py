"""`lem doctor MODEL`: measure whether a model can be evaluated fairly on this machine.

Each check is a comparison with an independent path: the template against a sentinel, cached logits against a
full forward pass, a batch against its rows alone, repeats against each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from lem.chat.generate import GenerationSettings, Prefix, Request, generate
from lem.chat.load import ChatModel, compute_dtype
from lem.chat.render import conversation, render, supports_system
from lem.chat.sampling import row_seed

TOLERANCE_FLOAT32, TOLERANCE_LOW_PRECISION = 5e-3, 0.25  # nats
LIKELY_NATS = 10.0  # tokens within this distance of the most likely one are compared
_PROBES = (
    "Name three uses for a bucket.",
    "Why does ice float, and what would change if it did not?",
    "Write two sentences about a bridge that is repaired every spring by the people who cross it.",
    "Hello.",
)
_PREAMBLE = "You are keeping the log of a weather station. Write plainly. " * 12


@dataclass(frozen=True)
class Check:
    """One finding: ok is None for a note that is neither good nor bad."""

    name: str
    ok: bool | None
    detail: str


def examine(chat: ChatModel) -> list[Check]:
    """Run every check on a loaded model; a check that breaks is a failed check with the error as its detail."""
    checks: tuple[tuple[str, Callable[[ChatModel], tuple[bool | None, str]]], ...] = (
        ("chat template", _template),
        ("system turn", _system),
        ("stop tokens", _stop_tokens),
        ("thinking", _thinking),
        ("prefix cache", _prefix_cache),
        ("batch = alone", _batch_alone),
        ("repeats differ", _repeats),
    )
    found = []
    for name, check in checks:
        try:
            ok, detail = check(chat)
        except Exception as error:  # a broken model is what the doctor is for
            ok, detail = False, f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"
        found.append(Check(name, ok, detail))
    return found


def _template(chat: ChatModel) -> tuple[bool, str]:
    prompt = render(chat, conversation(_PROBES[0], None, "system"))
    bos = chat.tokenizer.bos_token_id
    n_bos = sum(token == bos for token in prompt.tokens) if bos is not None else 0
    full = [*conversation(_PROBES[0], None, "system"), {"role": "assistant", "content": "A bucket carries water."}]
    whole = [int(token) for token in chat.tokenizer.apply_chat_template(full, tokenize=True)]
    prefix = tuple(whole[: len(prompt.tokens)]) == prompt.tokens
    if _PROBES[0] not in prompt.text or n_bos > 1:
        return False, f"the question is missing from the prompt or it begins with {n_bos} beginning-of-text tokens"
    note = "" if prefix else "; the generation prompt is no prefix of a whole conversation (thinking templates do this)"
    return True, f"{len(prompt.tokens)} tokens for a short question, {n_bos} beginning-of-text token{note}"


def _system(chat: ChatModel) -> tuple[None, str]:
    if supports_system(chat):
        return None, "kept by the template; kernels are injected as a system turn"
    return None, "dropped or refused by the template; kernels go before the user's question"


def _stop_tokens(chat: ChatModel) -> tuple[bool, str]:
    ids = chat.stop_token_ids
    names = ", ".join(repr(chat.tokenizer.decode([token])) for token in ids)
    messages = [*conversation("Hi.", None, "system"), {"role": "assistant", "content": "Hello."}]
    ends = [int(token) for token in chat.tokenizer.apply_chat_template(messages, tokenize=True)][-4:]
    used = any(token in ids for token in ends)
    return bool(ids) and used, f"{names}; {'ends' if used else 'does NOT end'} an assistant turn of the template"


def _thinking(chat: ChatModel) -> tuple[None, str]:
    if chat.tokenizer.has_thinking:
        return None, f"split off between {chat.tokenizer.think_start!r} and {chat.tokenizer.think_end!r}"
    return None, "no thinking block"


def _prompts(chat: ChatModel) -> list[tuple[int, ...]]:
    return [render(chat, conversation(probe, _PREAMBLE, "user")).tokens for probe in _PROBES]


def _prefix_cache(chat: ChatModel) -> tuple[bool, str]:
    """Largest difference of log-probability between a cached prefix and one full forward pass, over likely tokens."""
    tokens = _prompts(chat)[0]
    cut = len(tokens) // 2
    full = _log_softmax(chat.model(mx.array([tokens]))[0, -1])
    cache = make_prompt_cache(chat.model)
    chat.model(mx.array([tokens[:cut]]), cache=cache)
    cached = _log_softmax(chat.model(mx.array([tokens[cut:]]), cache=cache)[0, -1])
    likely = full > mx.max(full) - LIKELY_NATS
    difference: Any = mx.max(mx.where(likely, mx.abs(full - cached), 0.0)).item()
    exact = compute_dtype(chat.config) == "float32" and "quantization" not in chat.config
    tolerance = TOLERANCE_FLOAT32 if exact else TOLERANCE_LOW_PRECISION
    return (
        difference < tolerance,
        f"largest log-probability difference {difference:.1e} nats ({len(tokens)} tokens, cut at {cut})",
    )


def _log_softmax(logits: mx.array) -> mx.array:
    wide: Any = logits.astype(mx.float32)
    normalised: mx.array = wide - mx.logsumexp(wide)
    return normalised


def _batch_alone(chat: ChatModel) -> tuple[bool, str]:
    """Greedy answers of a batch against the same rows alone; near-ties may part ways late, not at the first token."""
    settings = GenerationSettings(max_tokens=32, temperature=0.0)
    rows = [Request(index, tokens, 0) for index, tokens in enumerate(_prompts(chat))]
    together = {done.id: done for done in generate(chat, [rows], settings)}
    alone = {done.id: done for row in rows for done in generate(chat, [[row]], settings, prefix=Prefix(()))}
    errors = [done.error for done in (*together.values(), *alone.values()) if done.error]
    if errors:
        return False, errors[0]
    firsts = [_first_difference(together[row.id].tokens, alone[row.id].tokens) for row in rows]
    parted = [first for first in firsts if first is not None]
    if not parted:
        return True, f"{len(rows)} of {len(rows)} greedy answers equal over 32 tokens"
    equal = len(rows) - len(parted)
    return min(parted) > 0, f"{equal} of {len(rows)} greedy answers equal; first differing token at {min(parted)}"


def _first_difference(left: tuple[int, ...], right: tuple[int, ...]) -> int | None:
    for position, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return position
    return None if len(left) == len(right) else min(len(left), len(right))


def _repeats(chat: ChatModel) -> tuple[bool, str]:
    """Four samples of one prompt at T 0.7 with four keys; then the first key again, which must repeat its answer."""
    settings = GenerationSettings(max_tokens=32, temperature=0.7)
    tokens = _prompts(chat)[1]
    rows = [Request(repeat, tokens, row_seed(0, "doctor", repeat)) for repeat in range(4)]
    first = {done.id: done.tokens for done in generate(chat, [rows], settings)}
    again = {done.id: done.tokens for done in generate(chat, [rows], settings)}
    distinct, same = len(set(first.values())), first == again
    return (
        distinct > 1 and same,
        f"{distinct} of 4 repeats distinct at T 0.7; same seeds {'repeat' if same else 'DIFFER'}",
    )
