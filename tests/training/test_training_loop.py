"""The trainer: it learns, repeats itself to the byte, takes no nonsense, and mlx-lm reads what it writes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from mlx.utils import tree_flatten
from trainings import go, rows

from lem.chat.generate import GenerationSettings
from lem.chat.load import ChatModel, load
from lem.data import Probe
from lem.errors import DataError, UserError
from lem.studies.checkpoint_scoring import probe_evaluator
from lem.training.dataset import encode_file
from lem.training.loss import evaluate_loss
from lem.training.methods import clamp_layers
from lem.training.preview import preview
from lem.training.settings import TrainingSettings
from lem.training.step import step_seed
from lem.training.train import Hooks, train

QUICK = TrainingSettings(
    iters=12, batch_size=2, learning_rate=2e-3, save_every=5, report_every=4, validate_every=6, rank=4
)  # fmt: skip


def logits(model: Any) -> np.ndarray:
    return np.array(model(mx.array([[5, 6, 7, 8]]))[0].astype(mx.float32))


def files(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir() if entry.name != ".lock"}


def test_the_loss_goes_down_and_checkpoints_have_mlx_lms_names(chat: ChatModel, data: Path, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    output = tmp_path / "adapter"
    settings = replace(QUICK, iters=60, save_every=25, validate_every=20)
    report = train(chat, data, output, settings, hooks=Hooks(on_metric=seen.append))
    assert report.valid_before is not None
    assert report.valid_after is not None
    assert report.valid_after < 0.7 * report.valid_before
    assert {f"{step:07d}_adapters.safetensors" for step in (25, 50, 60)} < files(output)
    assert rows(output) == seen
    assert [m["iteration"] for m in seen if m["kind"] == "valid"] == [0, 20, 40, 60]
    assert [m["iteration"] for m in seen if m["kind"] == "train"] == list(range(4, 61, 4))
    assert (report.n_train, report.n_dropped, report.n_too_long, report.n_truncated) == (4, 0, 0, 0)
    assert report.valid_before == seen[0]["loss"]
    assert report.valid_after == seen[-1]["loss"]


def test_the_adapter_is_read_by_mlx_lm_and_by_us_to_the_same_logits(
    base: Path, chat: ChatModel, data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "adapter"
    report = train(chat, data, output, replace(QUICK, num_layers=2))
    assert report.num_layers == 2
    ours = load(str(base), output)
    peer, _ = mlx_lm.load(str(base), adapter_path=str(output))
    trained = logits(chat.model)
    np.testing.assert_allclose(logits(ours.model), trained, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(logits(peer), trained, rtol=1e-5, atol=1e-5)
    assert np.abs(logits(load(str(base)).model) - trained).max() > 1e-2
    valid = encode_file(ours, data / "valid.jsonl", 2048).rows
    assert evaluate_loss(ours.model, valid, 2) == pytest.approx(report.valid_after, rel=1e-5)


def test_the_adapter_says_where_it_comes_from(base: Path, chat: ChatModel, data: Path, tmp_path: Path) -> None:
    train(chat, data, tmp_path / "adapter", replace(QUICK, iters=1, num_layers=99))
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_sha"] == load(str(base), weights=False).model_sha
    assert (config["fine_tune_type"], config["num_layers"]) == ("lora", 3)
    assert config["lora_parameters"] == {"rank": 4, "scale": 20.0, "dropout": 0.0}
    assert config["training"]["learning_rate"] == QUICK.learning_rate
    assert (config["seed"], config["parent_adapter_sha"]) == (QUICK.seed, None)
    for name, sha in config["data_sha"].items():
        assert sha == hashlib.sha256((data / name).read_bytes()).hexdigest()
    assert set(config["data_sha"]) == {"train.jsonl", "valid.jsonl"}
    template = json.loads((base / "tokenizer_config.json").read_text())["chat_template"]
    assert config["template_sha"] == hashlib.sha256(template.encode()).hexdigest()


def test_only_the_adapter_is_trained_and_only_in_the_named_layers(chat: ChatModel, data: Path, tmp_path: Path) -> None:
    before = {name: np.array(w) for name, w in tree_flatten(chat.model.parameters())}
    report = train(chat, data, tmp_path / "adapter", replace(QUICK, iters=3, num_layers=1))
    stored = mx.load(str(tmp_path / "adapter" / "adapters.safetensors"))
    assert stored
    assert all(name.startswith("model.layers.2.") and name.endswith(("lora_a", "lora_b")) for name in stored)
    assert report.n_trainable == sum(w.size for w in stored.values())
    for name, w in tree_flatten(chat.model.parameters()):
        original = before.get(name.replace(".linear.", "."))
        if original is not None:
            assert (np.array(w) == original).all(), name


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_same_seed_gives_the_same_bytes(base: Path, data: Path, tmp_path: Path, dropout: float) -> None:
    settings = replace(QUICK, iters=6, dropout=dropout)
    stored = []
    for name, chosen in (("a", settings), ("b", settings), ("c", replace(settings, seed=43))):
        mx.random.seed(len(name) + len(stored))  # what happened before must not matter
        go(base, data, tmp_path / name, chosen)
        stored.append((tmp_path / name / "adapters.safetensors").read_bytes())
    assert stored[0] == stored[1] != stored[2]


def test_dropout_does_something(base: Path, data: Path, tmp_path: Path) -> None:
    for name, dropout in (("without", 0.0), ("with", 0.5)):
        go(base, data, tmp_path / name, replace(QUICK, iters=3, dropout=dropout))
    without, with_ = ((tmp_path / name / "adapters.safetensors").read_bytes() for name in ("without", "with"))
    assert without != with_


@pytest.mark.parametrize(("bias_correction", "moved"), [(False, 0.1 / 0.001**0.5), (True, 1.0)])
def test_the_first_step_is_adams(bias_correction: bool, moved: float, base: Path, data: Path, tmp_path: Path) -> None:
    """m = 0.1 g and v = 0.001 g^2, or both divided by those: so far every weight with a gradient moves, in rates."""
    settings = replace(QUICK, iters=1, learning_rate=1e-4, bias_correction=bias_correction)
    go(base, data, tmp_path / "a", settings)
    stored = mx.load(str(tmp_path / "a" / "adapters.safetensors"))
    steps = np.concatenate([np.abs(np.array(w)).ravel() for name, w in stored.items() if name.endswith("lora_b")])
    assert np.median(steps) == pytest.approx(1e-4 * moved, rel=0.02)


def test_what_is_reported_is_the_mean_over_the_tokens_since(base: Path, data: Path, tmp_path: Path) -> None:
    """Reports of every step, weighted by their tokens, add up to the reports of every fourth."""
    go(base, data, tmp_path / "each", replace(QUICK, report_every=1))
    go(base, data, tmp_path / "fourth", QUICK)
    each = rows(tmp_path / "each", "train")
    for number, row in enumerate(rows(tmp_path / "fourth", "train")):
        four = each[4 * number : 4 * number + 4]
        n_tokens = sum(step["n_tokens"] for step in four)
        assert row["n_tokens"] == n_tokens
        assert row["trained_tokens"] == four[-1]["trained_tokens"]
        assert row["loss"] == pytest.approx(sum(s["loss"] * s["n_tokens"] for s in four) / n_tokens, rel=1e-12)
        assert (row["grad_norm"], row["learning_rate"]) == (four[-1]["grad_norm"], four[-1]["learning_rate"])
    counted = encode_file(load(str(base)), data / "train.jsonl", 2048).rows
    assert each[1]["trained_tokens"] == sum(row.n_reply for row in counted), "two steps of two are one epoch"


def drawing(step: int) -> dict[str, Any]:
    """A scorer that leaves the random state of its own behind."""
    mx.random.seed(step)
    return {"n": 2, "v2": float(mx.random.uniform().item()), "v3": float("nan")}


@pytest.mark.parametrize("scorer", ["drawing", "probes"])
def test_scoring_on_the_way_changes_no_bit(scorer: str, base: Path, data: Path, tmp_path: Path) -> None:
    settings = replace(QUICK, iters=5, dropout=0.3, eval_every=2)
    go(base, data, tmp_path / "without", replace(settings, eval_every=0))
    chat, seen = load(str(base)), list[bool]()
    probes = [Probe("A1", "a", "What is ice?"), Probe("B2", "b", "Who are you?")]
    answer = GenerationSettings(max_tokens=8, temperature=0.8)
    score = drawing if scorer == "drawing" else probe_evaluator(chat, probes, answer, 1, tmp_path / "with")

    def evaluate(step: int) -> dict[str, Any]:
        seen.append(chat.model.training)
        return score(step)

    train(chat, data, tmp_path / "with", settings, resume=True, hooks=Hooks(on_evaluate=evaluate))
    found = rows(tmp_path / "with", "probe")
    assert [row["iteration"] for row in found] == [0, 2, 4, 5]
    assert not any(seen), "asked in evaluation mode"
    if scorer == "drawing":
        assert [list(row) for row in found] == [["kind", "iteration", "n", "v2", "v3"]] * 4
        assert found[0]["v3"] is None
    with_, without = ((tmp_path / name / "adapters.safetensors").read_bytes() for name in ("with", "without"))
    assert with_ == without


def test_where_it_starts_is_told_once(base: Path, data: Path, tmp_path: Path) -> None:
    told: list[Any] = []
    hooks = Hooks(on_start=lambda *a: told.append(a), on_resume=lambda step: told.append(step))
    go(base, data, tmp_path / "a", replace(QUICK, iters=1, epochs=3), hooks=hooks)
    go(base, data, tmp_path / "a", replace(QUICK, iters=6), hooks=hooks, resume=True)
    assert told == [(0, 6), 6, (6, 6)], "three epochs of two steps"


def test_a_preview_says_what_would_happen_and_writes_nothing(
    base: Path, chat: ChatModel, data: Path, tmp_path: Path
) -> None:
    before = sorted(data.iterdir())
    found = preview(chat, data, replace(QUICK, epochs=3), None)
    report = go(base, data, tmp_path / "a", replace(QUICK, epochs=3))
    assert (found["iterations"], found["trainable"]) == (report.iterations, report.n_trainable)
    assert found["trained_tokens"] * 3 == report.trained_tokens
    assert (found["rows"], found["valid_rows"], found["steps_per_epoch"]) == (4, 4, 2)
    assert found["memory_gb"] > 0
    assert sorted(data.iterdir()) == before


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("prompt", r"valid\.jsonl line 5 shares .* P1 of P\.json"),
        ("system", r"valid\.jsonl line 5 shares .* P1 of P\.json"),
        ("id", r"valid\.jsonl line 5: id 'p1' is that of evaluation probe P1"),
    ],
)
def test_a_probe_in_the_data_is_refused_before_anything_is_written(
    base: Path, data: Path, tmp_path: Path, line: Any, where: str, message: str
) -> None:
    probe = "Tell me now, in nine short words, why rain falls"
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    (seeds / "P.json").write_text(json.dumps([{"id": "P1", "domain": "sky", "prompt": probe}]))
    rows_of = {
        "prompt": line(probe + "?", "Because."),
        "system": line("Why?", "Because.", system=probe),
        "id": json.dumps({"id": "p1", **json.loads(line("Why?", "Because."))}) + "\n",
    }
    with (data / "valid.jsonl").open("a") as file:
        file.write(rows_of[where])
    with pytest.raises(DataError, match=message):
        go(base, data, tmp_path / "a", seeds=[seeds])
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("occupant", ["adapters.safetensors", "notes.txt", "deep/er.txt"])
def test_an_occupied_directory_is_refused_untouched(chat: ChatModel, data: Path, tmp_path: Path, occupant: str) -> None:
    output = tmp_path / "adapter"
    (output / occupant).parent.mkdir(parents=True)
    (output / occupant).write_text("mine")
    with pytest.raises(
        UserError, match="is not empty; choose another --adapter-path or remove it, nothing was touched"
    ):
        train(chat, data, output, QUICK)
    assert (output / occupant).read_text() == "mine"
    assert [p for p in output.rglob("*") if p.is_file()] == [output / occupant]


def test_a_file_in_the_place_of_the_directory_is_refused(chat: ChatModel, data: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter").write_text("mine")
    with pytest.raises(UserError, match="nothing was touched"):
        train(chat, data, tmp_path / "adapter", QUICK)
    assert (tmp_path / "adapter").read_text() == "mine"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [("train.jsonl", None, "no such training file"), ("valid.jsonl", "{", "line 1: not valid JSON")],
)
def test_unusable_data_leave_no_directory(
    chat: ChatModel, data: Path, tmp_path: Path, file: str, content: str | None, message: str
) -> None:
    (data / file).unlink()
    if content is not None:
        (data / file).write_text(content)
    with pytest.raises(UserError, match=rf"{file}.*{message}"):
        train(chat, data, tmp_path / "adapter", QUICK)
    assert not (tmp_path / "adapter").exists()


def test_without_validation_data_the_same_adapter_is_trained(base: Path, data: Path, tmp_path: Path) -> None:
    go(base, data, tmp_path / "with", QUICK)
    (data / "valid.jsonl").unlink()
    report = go(base, data, tmp_path / "without", QUICK)
    assert (report.valid_before, report.valid_after) == (None, None)
    kinds = {metric["kind"] for metric in rows(tmp_path / "without")}
    assert kinds == {"train"}
    with_, without = ((tmp_path / name / "adapters.safetensors").read_bytes() for name in ("with", "without"))
    assert with_ == without


def test_layers_are_counted_from_the_top_and_clamped() -> None:
    assert [clamp_layers(wanted, 6) for wanted in (-1, 1, 6, 16)] == [6, 1, 6, 6]
    for wanted in (0, -2):
        with pytest.raises(UserError, match=r"--num-layers must be -1 \(all\) or at least 1"):
            clamp_layers(wanted, 6)


def test_every_step_has_a_seed_of_its_own() -> None:
    seeds = {step_seed(seed, step) for seed in range(20) for step in range(100)}
    assert len(seeds) == 2000
    assert all(0 <= seed < 2**63 for seed in seeds)
