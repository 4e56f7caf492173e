"""Score checkpoints without leaving the training: the probes are answered by the model as it is at that step.

The LoRA layers stay in place, nothing is saved or loaded, and what training goes on with - train or eval mode, MLX's
random state - is as before, so that a training with and without scoring ends in the same adapter. Probes are asked
freeflow, in groups fixed at the start, each row with its own random stream: two checkpoints differ by their weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx

from lem.chat.device import free_memory_bytes
from lem.chat.generate import Completion, GenerationSettings, Prefix, Request, generate, prefix_of
from lem.chat.load import ChatModel
from lem.chat.render import conversation, render
from lem.chat.sampling import row_seed
from lem.data import Probe
from lem.errors import UserError
from lem.records import Key, Record, write_atomic
from lem.runs.groups import Row, choose_group_size, cut_groups
from lem.runs.workers import one_blas_thread
from lem.scorers.passes import score_records
from lem.stats import Estimate
from lem.studies.measures import HEADLINE_SCORERS, measure

_ARM = "checkpoint"
_MAX_GROUP = 32  # training holds its own memory beside it


def probe_evaluator(
    chat: ChatModel, probes: Sequence[Probe], settings: GenerationSettings, seed: int, output: Path | None
) -> Callable[[int], dict[str, Any]]:
    """Make the function that a trainer calls with the iteration and that returns a "probe" row of the metrics.

    Args:  chat: the model in training; its module is used as it is at each call.  seed: of the answers, as in a run.
           output: adapter directory, where `probes/0000050.jsonl` keeps the answers of iteration 50; None keeps none.
    The row has n (answered probes), n_unscored (without a value of v2 or v3), n_failed, mean v2 and v3 with their
    95% intervals (`_low`, `_high`), mean words, and the shares of degenerate and truncated answers; None is no value.
    Raises: UserError if there are no probes, or if a prompt cannot be rendered.
    """
    if not probes:
        raise UserError("there are no probes to score checkpoints with; give a probe file or turn --eval-every off.")
    requests = _requests(chat, probes, seed)
    size = min(_MAX_GROUP, _group_size(chat, requests, settings))
    rows = [Row(Key(_ARM, request.id, 0), len(request.tokens)) for request in requests]
    by_id = {request.id: request for request in requests}
    groups = [[by_id[name] for name in group["probes"]] for group in cut_groups(rows, {}, size).values()]
    prefix = prefix_of([request.tokens for request in requests]) if len(requests) > 1 else ()
    domains = {probe.id: probe.domain for probe in probes}

    def evaluate(iteration: int) -> dict[str, Any]:
        with _as_it_was(chat.model), one_blas_thread():
            # A prefix keeps keys and values of the weights of its time, so each call needs its own.
            answers = {done.id: done for done in generate(chat, groups, settings, prefix=Prefix(prefix))}
        records = [_record(probe, answers[probe.id]) for probe in probes]
        if output is not None:
            _write_answers(output / "probes" / f"{iteration:07d}.jsonl", probes, records)
        return {"kind": "probe", "iteration": iteration, **_fields(records, domains)}

    return evaluate


def _requests(chat: ChatModel, probes: Sequence[Probe], seed: int) -> list[Request]:
    prompts = [render(chat, conversation(probe.prompt, None, "user")) for probe in probes]
    return [
        Request(probe.id, prompt.tokens, row_seed(seed, probe.id, 0))
        for probe, prompt in zip(probes, prompts, strict=True)
    ]


def _group_size(chat: ChatModel, requests: Sequence[Request], settings: GenerationSettings) -> int:
    longest = max(len(request.tokens) for request in requests) + settings.max_tokens
    return choose_group_size(chat.config, longest, free_memory_bytes() // 2)


@contextmanager
def _as_it_was(model: Any) -> Iterator[None]:
    """Eval mode inside; the mode of every module and MLX's random state restored after."""
    training = [(module, module.training) for module in model.modules()]
    state: Any = mx.random.state
    high, low = state[0].tolist()
    model.eval()
    try:
        yield
    finally:
        for module, was_training in training:
            module._training = was_training
        mx.random.seed(high << 32 | low)  # the seed whose key is the state's


def _record(probe: Probe, done: Completion) -> Record:
    return Record(
        run_id="",
        arm=_ARM,
        probe_id=probe.id,
        repeat=0,
        messages=({"role": "user", "content": probe.prompt},),
        response=done.response,
        thinking=done.thinking,
        finish_reason=done.finish_reason,
        n_prompt_tokens=done.n_prompt_tokens,
        n_tokens=None if done.error else len(done.tokens),
        error=done.error,
    )


def _fields(records: Sequence[Record], domains: dict[str, str]) -> dict[str, Any]:
    measures = measure(records)
    values = measures.values
    both = set(values["v2"]) & set(values["v3"])
    row: dict[str, Any] = {
        "n": measures.n_answers,
        "n_unscored": measures.n_answers - len(both),
        "n_failed": measures.n_failed,
    }
    for name in HEADLINE_SCORERS:
        mean = measures.mean(name, domains)
        row |= {name: _number(mean.value), f"{name}_low": _number(mean.low), f"{name}_high": _number(mean.high)}
    shares: dict[str, Estimate] = {"degenerate": measures.degenerate, "truncated": measures.truncated}
    return row | {"words": _number(measures.words)} | {name: _number(share.value) for name, share in shares.items()}


def _number(value: float) -> float | None:
    return None if value != value else value


def _write_answers(path: Path, probes: Sequence[Probe], records: Sequence[Record]) -> None:
    """One line a probe with its answer and scores, the whole file moved into place."""
    scores = {name: {row.probe_id: row for row in score_records(records, name)} for name in HEADLINE_SCORERS}
    lines = []
    for probe, record in zip(probes, records, strict=True):
        row: dict[str, Any] = {"probe_id": probe.id, "domain": probe.domain, "prompt": probe.prompt}
        row |= {"response": record.response, "finish_reason": record.finish_reason, "n_tokens": record.n_tokens}
        row |= {"error": record.error}
        for name, rows in scores.items():
            score = rows.get(probe.id)
            row |= {name: score and score.value, f"{name}_unscored": score and score.unscored}
        lines.append(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
    write_atomic(path, "".join(lines))
