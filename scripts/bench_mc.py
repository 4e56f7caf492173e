"""`scripts/bench.py mc`: log-likelihoods of multiple-choice answers, every choice of TruthfulQA-like questions.

    ours    `choice_loglikelihoods`: the prefix of all prompts once, each prompt once, the choices of many together
    peer    one choice at a time: prompt and choice through the model of `mlx_lm.load` in one pass, log-softmax and the
            most likely token where the choice stands
    mlx-lm  the way of `mlx_lm.evaluate`, by its own functions: each prompt once, then its choices one at a time; only
            without a kernel, and only where lm-eval is installed

Same tokens on both sides, float32, the sides in turn in one process; the script stops if a value differs by more than
0.01 nats. For every figure a second line has processor seconds, which other work on the machine disturbs less.
"""

from __future__ import annotations

import copy
import json
import statistics
from argparse import Namespace
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter, process_time
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
    greedy = (mx.argmax(logits, axis=-1) == mx.array(choice)).all()
    total = mx.take_along_axis(logprobs, mx.array(choice)[:, None], axis=-1).sum()
    mx.eval(total, greedy)
    return cast("float", total.item())


def mlx_lm_evaluate(chat: ChatModel, requests: Sequence[Request]) -> Values:
    """What `mlx_lm.evaluate` does with a question and its choices, without its tokenising."""
    from mlx_lm.evaluate import MLXLM

    peer = MLXLM.__new__(MLXLM)
    peer._model = chat.model
    found = []
    for request in requests:
        logprobs, cache = peer._process_prompt(request.tokens)
        best, values = mx.argmax(logprobs).item(), []
        for choice in request.choices:
            values.append(logprobs[0, choice[0]].item())
            greedy = choice[0] == best
            if len(choice) > 1:
                scores, _, rest = peer._score_fn(mx.array(choice)[None, :], cache=copy.deepcopy(cache))
                values[-1] += mx.sum(scores).item()
                greedy = greedy and bool(mx.all(rest).item())
        found.append(values)
    return found


def bench_mc(options: Namespace) -> None:
    """Measure ours against each peer, in turn, without and with a kernel; print two lines each."""
    chat = load(options.model)
    for name, kernel in KERNELS.items():
        requests = questions(chat, kernel, options.probes or N_QUESTIONS)
        sides: dict[str, Side] = {"": ours, f"mc-{name}": one_by_one}
        if kernel is None and find_spec("lm_eval"):
            sides[f"mc-{name}-evaluate"] = mlx_lm_evaluate
        times: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
        for side in sides.values():
            side(chat, requests[:4])
        for _ in range(options.runs):
            values = []
            for label, side in sides.items():
                start = perf_counter(), process_time()
                values.append(side(chat, requests))
                times[label].append((perf_counter() - start[0], process_time() - start[1]))
            for peer in values[1:]:
                _check(values[0], peer)
        for label in list(sides)[1:]:
            for number, suffix in enumerate(("", "-cpu")):
                mine, peer_s = (statistics.median(pair[number] for pair in times[key]) for key in ("", label))
                print(f"{label}{suffix} ours {mine:.2f} s, peer {peer_s:.2f} s, ratio {peer_s / mine:.2f}x", flush=True)


def _check(mine: Values, peer: Values) -> None:
    pairs = [pair for sides in zip(mine, peer, strict=True) for pair in zip(*sides, strict=True)]
    gap = max(abs(one - other) for one, other in pairs)
    if not gap <= TOLERANCE:
        raise SystemExit(f"the two sides differ by {gap:.4f} nats; the comparison would be unfair")
