"""The trainer: it learns, repeats itself to the byte, stops on nonsense, and mlx-lm reads what it writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from mlx.utils import tree_flatten

from lem.chat.load import ChatModel, load
from lem.errors import LemError, UserError
from lem.records import lock_directory, read_jsonl
from lem.training import train as trainer
from lem.training.dataset import encode_file
from lem.training.loss import evaluate_loss
from lem.training.train import TrainingSettings, clamp_layers, step_seed, train

QUICK = TrainingSettings(iters=12, batch_size=2, learning_rate=2e-3, save_every=5, report_every=4, eval_every=6, rank=4)


def logits(model: Any) -> np.ndarray:
    return np.array(model(mx.array([[5, 6, 7, 8]]))[0].astype(mx.float32))


def files(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir() if entry.name != ".lock"}


def test_the_loss_goes_down_and_checkpoints_have_mlx_lms_names(chat: ChatModel, data: Path, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    output = tmp_path / "adapter"
    report = train(chat, data, output, replace(QUICK, iters=60, save_every=25, eval_every=20), seen.append)
    assert report.valid_after < 0.7 * report.valid_before
    assert files(output) == {
        "adapter_config.json", "adapters.safetensors", "metrics.jsonl", "0000025_adapters.safetensors",
        "0000050_adapters.safetensors",
    }  # fmt: skip
    assert read_jsonl(output / "metrics.jsonl")[0] == seen
    assert [m["iteration"] for m in seen if m["kind"] == "valid"] == [0, 20, 40, 60]
    assert [m["iteration"] for m in seen if m["kind"] == "train"] == list(range(4, 61, 4))
    assert (report.n_train, report.n_dropped, report.n_truncated) == (4, 0, 0)
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
    rows = encode_file(ours, data / "valid.jsonl", 2048).rows
    assert evaluate_loss(ours.model, rows, 2) == pytest.approx(report.valid_after, rel=1e-5)


def test_the_adapter_says_where_it_comes_from(base: Path, chat: ChatModel, data: Path, tmp_path: Path) -> None:
    train(chat, data, tmp_path / "adapter", replace(QUICK, iters=1, num_layers=99))
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_sha"] == load(str(base), weights=False).model_sha
    assert (config["fine_tune_type"], config["num_layers"]) == ("lora", 3)
    assert config["lora_parameters"] == {"rank": 4, "scale": 20.0, "dropout": 0.0}
    assert config["training"]["learning_rate"] == QUICK.learning_rate
    assert set(config["data_sha"]) == {"train.jsonl", "valid.jsonl"}


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


@pytest.mark.parametrize(("dropout", "same"), [(0.0, True), (0.3, True)])
def test_the_same_seed_gives_the_same_bytes(base: Path, data: Path, tmp_path: Path, dropout: float, same: bool) -> None:
    settings = replace(QUICK, iters=6, dropout=dropout)
    stored = []
    for name, chosen in (("a", settings), ("b", settings), ("c", replace(settings, seed=43))):
        mx.random.seed(len(name) + len(stored))  # what happened before must not matter
        train(load(str(base)), data, tmp_path / name, chosen)
        stored.append((tmp_path / name / "adapters.safetensors").read_bytes())
    assert (stored[0] == stored[1]) is same
    assert stored[0] != stored[2]


def test_dropout_does_something(base: Path, data: Path, tmp_path: Path) -> None:
    for name, dropout in (("without", 0.0), ("with", 0.5)):
        train(load(str(base)), data, tmp_path / name, replace(QUICK, iters=3, dropout=dropout))
    without, with_ = ((tmp_path / name / "adapters.safetensors").read_bytes() for name in ("without", "with"))
    assert without != with_


def test_the_first_step_is_adams_without_bias_correction(base: Path, data: Path, tmp_path: Path) -> None:
    """m = 0.1 g and v = 0.001 g^2, so every weight with a gradient moves by 0.1 / sqrt(0.001) learning rates."""
    train(load(str(base)), data, tmp_path / "a", replace(QUICK, iters=1, learning_rate=1e-4))
    stored = mx.load(str(tmp_path / "a" / "adapters.safetensors"))
    moved = np.concatenate([np.abs(np.array(w)).ravel() for name, w in stored.items() if name.endswith("lora_b")])
    assert np.median(moved) == pytest.approx(1e-4 * 0.1 / 0.001**0.5, rel=0.02)


@pytest.mark.parametrize("learning_rate", [1e30, 1e38])
def test_a_loss_that_is_no_number_stops_with_a_sentence(
    chat: ChatModel, data: Path, tmp_path: Path, learning_rate: float
) -> None:
    output = tmp_path / "adapter"
    settings = replace(QUICK, learning_rate=learning_rate, grad_clip=1e9, save_every=1)
    with pytest.raises(LemError, match=r"not finite at iteration \d+; lower --learning-rate"):
        train(chat, data, output, settings)
    assert "0000001_adapters.safetensors" in files(output)
    assert "adapters.safetensors" not in files(output)
    for metric in read_jsonl(output / "metrics.jsonl")[0]:
        assert np.isfinite(metric["loss"])


@pytest.mark.parametrize("eval_every", [1, 50])
def test_a_validation_loss_that_is_no_number_stops_too(
    chat: ChatModel, data: Path, tmp_path: Path, eval_every: int
) -> None:
    settings = replace(QUICK, iters=1 if eval_every == 50 else 3, learning_rate=1e38, eval_every=eval_every)
    with pytest.raises(LemError, match=r"not finite.*lower --learning-rate"):
        train(chat, data, tmp_path / "adapter", settings)


def test_a_loss_that_breaks_later_keeps_the_checkpoints_before_it(
    chat: ChatModel, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = trainer.number, []

    def break_at_the_eighth_step(scalar: mx.array) -> float:
        calls.append(1)
        return float("nan") if len(calls) == 3 * 7 + 1 else real(scalar)

    monkeypatch.setattr(trainer, "number", break_at_the_eighth_step)
    output = tmp_path / "adapter"
    with pytest.raises(LemError, match=r"not finite at iteration 8;.*Earlier checkpoints are kept"):
        train(chat, data, output, QUICK)
    assert "0000005_adapters.safetensors" in files(output)
    assert {"adapters.safetensors", "0000010_adapters.safetensors"}.isdisjoint(files(output))


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


def test_a_directory_in_use_is_refused(chat: ChatModel, data: Path, tmp_path: Path) -> None:
    with lock_directory(tmp_path / "adapter"), pytest.raises(UserError, match="in use by another process"):
        train(chat, data, tmp_path / "adapter", QUICK)
    assert files(tmp_path / "adapter") == set()


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
    train(load(str(base)), data, tmp_path / "with", QUICK)
    (data / "valid.jsonl").unlink()
    report = train(load(str(base)), data, tmp_path / "without", QUICK)
    assert (report.valid_before, report.valid_after) == (None, None)
    kinds = {metric["kind"] for metric in read_jsonl(tmp_path / "without" / "metrics.jsonl")[0]}
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
