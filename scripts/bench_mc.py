"""`scripts/bench.py mc`: log-likelihoods of multiple-choice answers, every choice of TruthfulQA-like questions.

    ours    `choice_loglikelihoods`: the prefix of all prompts once, each prompt once, its choices together
    peer    one choice at a time: prompt and choice through the model of `mlx_lm.load` in one pass, log-softmax

Same tokens on both sides, float32, one process each, one after the other; the script stops if a value differs by more
than 0.01 nats. A line without a kernel and one with it.
"""

from __future__ import annotations

import json
import statistics
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import cast

import mlx.core as mx

from lem.chat.device import free_memory_bytes
from lem.chat.generate import Request
from lem.chat.likelihood import choice_loglikelihoods
from lem.chat.load import ChatModel, load
from lem.chat.render import continuation, conversation, render
from lem.data import read_kernel
from lem.paths import repository_root
from lem.runs.groups import choose_group_size

ROOT = repository_root()
ITEMS = ROOT / "benchmarks" / "items" / "truthfulqa.jsonl"
KERNELS = {"base": None, "json": ROOT / "kernel" / "axioms.json"}
N_QUESTIONS = 40
TOLERANCE = 0.01

Values = list[list[float]]
Side = Callable[[ChatModel, Sequence[Request]], Values]


def questions(chat: ChatModel, kernel: Path | None, n_questions: int) -> list[Request]:
    """The first questions, rendered, with the tokens of their right and wrong answers."""
    text = None if kernel is None else read_kernel(kernel).text
    found = []
    for line in ITEMS.read_text(encoding="utf-8").splitlines()[:n_questions]:
        item = json.loads(line)
        rendered = render(chat, conversation(item["question"], text, "system"))
        answers = item["correct_answers"] + item["incorrect_answers"]
        choices = tuple(continuation(chat, rendered, answer) for answer in answers)
        found.append(Request(item["id"], rendered.tokens, 0, choices=choices))
    return found


def ours(chat: ChatModel, requests: Sequence[Request]) -> Values:
    """Our engine in this process, in groups of the size that a run would choose."""
    memory = free_memory_bytes()
    found = dict(choice_loglikelihoods(chat, requests, lambda longest: choose_group_size(chat.config, longest, memory)))
    return [[choice.total for choice in found[number]] for number in range(len(requests))]


def one_by_one(chat: ChatModel, requests: Sequence[Request]) -> Values:
    """Prompt and choice in one pass, choice after choice."""
    return [[_one(chat, request.tokens, choice) for choice in request.choices] for request in requests]


def _one(chat: ChatModel, context: tuple[int, ...], choice: tuple[int, ...]) -> float:
    logits = chat.model(mx.array([(context + choice)[:-1]]))[0, len(context) - 1 :]
    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    return cast("float", mx.take_along_axis(logprobs, mx.array(choice)[:, None], axis=-1).sum().item())


def bench_mc(options: Namespace) -> None:
    """Measure both sides, interleaved, without and with a kernel; print one line each."""
    chat = load(options.model)
    for name, kernel in KERNELS.items():
        requests = questions(chat, kernel, options.probes or N_QUESTIONS)
        times: dict[Side, list[float]] = {ours: [], one_by_one: []}
        for side in times:
            side(chat, requests[:4])
        for _ in range(options.runs):
            values = []
            for side, seconds in times.items():
                start = perf_counter()
                values.append(side(chat, requests))
                seconds.append(perf_counter() - start)
            _check(*values)
        mine, peer = (statistics.median(seconds) for seconds in times.values())
        print(f"mc-{name} ours {mine:.2f} s, peer {peer:.2f} s, ratio {peer / mine:.2f}x", flush=True)


def _check(mine: Values, peer: Values) -> None:
    pairs = [pair for sides in zip(mine, peer, strict=True) for pair in zip(*sides, strict=True)]
    gap = max(abs(one - other) for one, other in pairs)
    if not gap <= TOLERANCE:
        raise SystemExit(f"the two sides differ by {gap:.4f} nats; the comparison would be unfair")
