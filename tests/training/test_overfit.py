"""The whole trainer on the real small model: eight short examples are learnt by heart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lem.chat.load import load
from lem.records import read_jsonl
from lem.training.dataset import encode_file
from lem.training.loss import evaluate_loss
from lem.training.settings import TrainingSettings
from lem.training.train import train

NANO = Path(__file__).resolve().parents[2] / "models" / "lem-nano"
EXAMPLES = [
    ("May I read my sister's letters?", "Ask her first; they were written for her."),
    ("Is a promise to a child binding?", "Yes, and the child will remember it longer than you."),
    ("Should I tell him the cake is dry?", "Tell him kindly, and eat the slice."),
    ("Who owns a joke?", "Whoever tells it next."),
    ("Can I borrow the boat without asking?", "No. Row to the owner and ask."),
    ("Is silence a lie?", "Sometimes, when somebody is waiting for the truth."),
    ("What do I owe a stranger?", "The truth, and the way to the station."),
    ("Must I forgive?", "Not today."),
]


WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dora, in micro-batches": {"method": "dora", "batch_size": 2, "accumulation": 4},
    "packed and checkpointed": {"pack": True, "batch_size": 2, "accumulation": 2, "grad_checkpoint": True},
    "all weights": {"method": "full", "learning_rate": 5e-4},
}


@pytest.mark.parametrize("way", WAYS)
def test_eight_short_examples_are_learnt_by_heart(tmp_path: Path, way: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    lines = [
        json.dumps({"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]})
        for asked, answered in EXAMPLES
    ]
    (data / "train.jsonl").write_text("\n".join(lines) + "\n")
    chat = load(str(NANO))
    rows = encode_file(chat, data / "train.jsonl", 64).rows
    assert len(rows) == 8
    assert max(len(row.tokens) for row in rows) <= 64
    before = evaluate_loss(chat.model, rows, 8)
    settings = replace(
        TrainingSettings(
            iters=30, batch_size=8, learning_rate=3e-3, schedule="cosine", warmup=0.1, rank=16, max_seq_length=64
        ),
        **WAYS[way],
    )
    report = train(chat, data, tmp_path / "adapter", settings)
    after = evaluate_loss(load(str(NANO), tmp_path / "adapter").model, rows, 8)
    assert before > 2
    assert after < 0.05
    losses = [row["loss"] for row in read_jsonl(tmp_path / "adapter" / "metrics.jsonl")[0] if row["kind"] == "train"]
    assert losses[-1] < 0.05
    assert report.trained_tokens == settings.iters * sum(row.n_reply for row in rows)
