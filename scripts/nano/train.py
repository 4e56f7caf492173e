"""Training lem-nano: fixed order, fixed seeds, one checkpoint file, resumable."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from . import network
from .tokenizer import BEGIN, END, MAX_CONTEXT, PAD

Encoded = tuple[list[int], list[float]]


@dataclass(frozen=True)
class Schedule:
    """How to train; tokens_per_step counts padding.

    Rows from `rough_from_row` on are roughened, a share `rough_share` of them; from `whole_from_row` on without
    copied words of several tokens (see rough.py). The rate falls to zero at `steps`, which is where training ends.
    """

    seed: int = 7
    steps: int = 5892
    rough_from_row: int = 33_792
    rough_share: float = 0.5
    whole_from_row: int = 40_704
    tokens_per_step: int = 2048
    peak_rate: float = 3e-3
    warmup_steps: int = 150
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    window_rows: int = 768
    save_every: int = 400


@dataclass(frozen=True)
class Batch:
    """Right-padded tokens (rows, length) and the weights of the next-token targets (rows, length - 1)."""

    tokens: np.ndarray
    weights: np.ndarray


def padded_length(n: int) -> int:
    """Lengths are rounded up so that few distinct shapes get compiled."""
    step = 32 if n <= 384 else 64 if n <= 768 else 256
    return -(-n // step) * step


def batches(rows: list[Encoded], schedule: Schedule) -> Iterator[Batch]:
    """Rows in corpus order by windows; inside a window sorted by length, cut, and shuffled as batches."""
    for start in range(0, len(rows), schedule.window_rows):
        window = sorted(rows[start : start + schedule.window_rows], key=lambda row: len(row[0]))
        found: list[Batch] = []
        index = len(window)
        while index > 0:
            length = padded_length(len(window[index - 1][0]) - 1) + 1
            count = max(1, schedule.tokens_per_step // (length - 1))
            found.append(_pad(window[max(0, index - count) : index], count, length))
            index -= count
        Random(f"{schedule.seed}/{start}").shuffle(found)
        yield from found


def _pad(rows: list[Encoded], count: int, length: int) -> Batch:
    tokens = np.full((count, length), PAD, dtype=np.int32)
    weights = np.zeros((count, length), dtype=np.float32)
    for place, (ids, weight) in enumerate(rows):
        tokens[place, : len(ids)] = ids
        weights[place, : len(ids)] = weight
    return Batch(tokens, weights[:, 1:])


def rate(step: int, total: int, schedule: Schedule) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < schedule.warmup_steps:
        return schedule.peak_rate * (step + 1) / schedule.warmup_steps
    done = (step - schedule.warmup_steps) / max(1, total - schedule.warmup_steps)
    return schedule.peak_rate * 0.5 * (1 + math.cos(math.pi * done))


def batch_loss(model: Any, tokens: mx.array, weights: mx.array) -> mx.array:
    """Weighted mean cross-entropy of a batch, in nats."""
    hidden = network.hidden_states(model, tokens[:, :-1])
    flat = weights.reshape(-1)
    loss = network.make_loss(tokens[:, 1:].reshape(-1), flat)
    total: mx.array = loss(hidden.reshape(-1, hidden.shape[-1]), model.model.embed_tokens.weight)
    mean: mx.array = total / mx.maximum(flat.sum(), 1.0)
    return mean


def fit(rows: list[Encoded], held_out: list[Encoded], vocab_size: int, work: Path, schedule: Schedule) -> Any:
    """Trains from `work/state.safetensors` if it is there, else from scratch; returns the model."""
    plan = list(batches(rows, schedule))[: schedule.steps]
    model = network.build(vocab_size, schedule.seed)
    optimizer = optim.AdamW(learning_rate=0.0, betas=[0.9, 0.98], weight_decay=schedule.weight_decay)
    optimizer.init(model.trainable_parameters())
    first = _restore(model, optimizer, work)
    state = [model.state, optimizer.state]
    gradient = nn.value_and_grad(model, batch_loss)

    @partial(mx.compile, inputs=state, outputs=state)
    def step(tokens: mx.array, weights: mx.array) -> mx.array:
        loss: mx.array
        loss, grads = gradient(model, tokens, weights)
        grads, _ = optim.clip_grad_norm(grads, schedule.clip_norm)
        optimizer.update(model, grads)
        return loss

    began, seen, recent = time.time(), 0, []
    for index in range(first, len(plan)):
        batch = plan[index]
        optimizer.learning_rate = mx.array(rate(index, schedule.steps, schedule))
        loss = step(mx.array(batch.tokens), mx.array(batch.weights))
        mx.eval(loss, state)
        recent.append(loss.item())
        seen += int(batch.weights.size)
        done = index + 1
        if done % 50 == 0:
            note = {
                "step": done,
                "of": len(plan),
                "loss": round(float(np.mean(recent)), 4),
                "tokens_per_s": round(seen / (time.time() - began)),
                "s": round(time.time() - began),
            }
            recent = []
            print(json.dumps(note), flush=True)
        if done % schedule.save_every == 0 or done == len(plan):
            _store(model, optimizer, done, work)
            print(json.dumps({"step": done, "held_out": round(evaluate(model, held_out[:60]), 4)}), flush=True)
    return model


def evaluate(model: Any, rows: list[Encoded]) -> float:
    """Mean cross-entropy of answer tokens over the rows, in nats, with the plain forward pass."""
    total = count = 0.0
    for ids, weights in rows:
        losses = token_losses(model, ids)
        picked = np.array(weights[1:]) == 1.0
        total += float(losses[picked].sum())
        count += int(picked.sum())
    return total / count


def token_losses(model: Any, ids: list[int]) -> np.ndarray:
    """Cross-entropy of every token after the first, by the model as mlx-lm runs it."""
    tokens = mx.array([ids])
    logits = model(tokens[:, :-1])
    return np.array(nn.losses.cross_entropy(logits, tokens[:, 1:], reduction="none")[0])


def _store(model: Any, optimizer: Any, done: int, work: Path) -> None:
    arrays = network.named_arrays({"model": model.parameters(), "optimizer": optimizer.state})
    mx.save_safetensors(str(work / "next.safetensors"), arrays, metadata={"done": str(done)})
    (work / "next.safetensors").replace(work / "state.safetensors")


def _restore(model: Any, optimizer: Any, work: Path) -> int:
    path = work / "state.safetensors"
    if not path.exists():
        return 0
    arrays, metadata = network.load_arrays(path)
    model.update(network.nested(arrays, "model"))
    optimizer.state = network.nested(arrays, "optimizer")
    mx.eval(model.parameters(), optimizer.state)
    return int(metadata["done"])


def load_weights(model: Any, path: Path) -> None:
    """Puts the weights of a checkpoint into a model."""
    model.update(network.nested(network.load_arrays(path)[0], "model"))
    mx.eval(model.parameters())


def export(model: Any, vocab_size: int, folder: Path) -> None:
    """Writes config.json, generation_config.json and float32 model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        **network.SHAPE,
        "vocab_size": vocab_size,
        "max_position_embeddings": MAX_CONTEXT,
        "bos_token_id": BEGIN,
        "eos_token_id": END,
        "pad_token_id": PAD,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    generation = {
        "bos_token_id": BEGIN,
        "eos_token_id": END,
        "pad_token_id": PAD,
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.95,
    }
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    weights = network.named_arrays(model.parameters())
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
