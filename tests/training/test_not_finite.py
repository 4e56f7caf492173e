"""Numbers that are none: skipped once, rolled back at the second, given up after two returns, never saved."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from trainings import QUICK, Killed, figures, go, killed_at, outcome, rows

from lem.chat.load import ChatModel, load
from lem.errors import LemError
from lem.training import checkpoint, loop
from lem.training.checkpoint import read_checkpoint
from lem.training.loop import MAX_ROLLBACKS
from lem.training.step import Gradient
from lem.training.train import train

NAN = float("nan")


def poison(monkeypatch: pytest.MonkeyPatch, *calls: int, loss: float = NAN, norm: float = NAN) -> list[int]:
    """Make the gradients of these calls (from 1) not finite; returns a list that grows with every call."""
    real, made = loop.gradient, list[int]()

    def gradient(*args: Any, **kwargs: Any) -> Gradient:
        made.append(len(made) + 1)
        found = real(*args, **kwargs)
        return Gradient(found.values, loss, norm) if made[-1] in calls else found

    monkeypatch.setattr(loop, "gradient", gradient)
    return made


def finite(folder: Path) -> bool:
    """Whether every tensor file of a folder holds numbers only."""
    files = list(folder.glob("*.safetensors"))
    assert files
    return all(np.isfinite(np.array(v)).all() for file in files for v in mx.load(str(file)).values())


@pytest.mark.parametrize(("loss", "norm", "what"), [(NAN, 1.0, "loss"), (2.0, math.inf, "gradient")])
@pytest.mark.parametrize("step", [1, 3, 8])
def test_one_bad_step_is_left_out_and_counted(
    step: int, loss: float, norm: float, what: str, base: Path, data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Also where a report, a checkpoint or the end is due at that very step."""
    poison(monkeypatch, step, loss=loss, norm=norm)
    settings = replace(QUICK, report_every=2)
    report = go(base, data, tmp_path / "a", settings)
    assert (report.n_skipped, report.n_rolled_back, report.iterations) == (1, 0, 8)
    (event,) = rows(tmp_path / "a", "event")
    assert (event["event"], event["iteration"]) == ("skipped", step)
    assert f"the {what} was not finite" in event["note"]
    assert [row["iteration"] for row in rows(tmp_path / "a", "train")] == [2, 4, 6, 8]
    assert [row["iteration"] for row in rows(tmp_path / "a", "valid")] == [0, 4, 8]
    trained = sum(row["n_tokens"] for row in rows(tmp_path / "a", "train"))
    assert trained == report.trained_tokens == rows(tmp_path / "a", "train")[-1]["trained_tokens"]
    left = read_checkpoint(tmp_path / "a")
    assert left is not None
    assert left.progress.step == 8
    assert report.valid_after == rows(tmp_path / "a", "valid")[-1]["loss"]
    monkeypatch.undo()
    assert figures(go(base, data, tmp_path / "a", settings, resume=True)) == figures(report)


def test_a_report_without_a_good_step_is_left_out(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, 2, 5)
    go(base, data, tmp_path / "a")
    assert [row["iteration"] for row in rows(tmp_path / "a", "train")] == [1, 3, 4, 6, 7, 8]


def test_a_skipped_step_moves_nothing(base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, 3)
    go(base, data, tmp_path / "a", replace(QUICK, save_every=1))
    two, three, four = ((tmp_path / "a" / f"000000{step}_adapters.safetensors").read_bytes() for step in (2, 3, 4))
    assert two == three != four


def test_two_bad_steps_in_a_row_lead_back_at_half_the_rate(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, 4, 5)
    report = go(base, data, tmp_path / "a")
    assert (report.n_skipped, report.n_rolled_back, report.iterations) == (2, 1, 8)
    rates = {row["iteration"]: row["learning_rate"] for row in rows(tmp_path / "a", "train")}
    assert rates == {step: 2e-3 if step <= 3 else 1e-3 for step in range(1, 9)}
    assert [row["iteration"] for row in rows(tmp_path / "a", "train")] == list(range(1, 9)), "no step twice"
    (event,) = [row for row in rows(tmp_path / "a", "event") if row["event"] == "rolled-back"]
    assert "at iteration 5" in event["note"]
    assert "iteration 3 " in event["note"]
    assert finite(tmp_path / "a")


def test_after_a_return_it_is_the_training_that_began_there_at_half_the_rate(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the step 0 checkpoint on, a training that rolled back is one with half the learning rate."""
    poison(monkeypatch, 1, 2)
    go(base, data, tmp_path / "a")
    monkeypatch.undo()
    go(base, data, tmp_path / "half", replace(QUICK, learning_rate=1e-3))
    ours, theirs = outcome(tmp_path / "a"), outcome(tmp_path / "half")
    for name in ("adapters.safetensors", "0000008_optimizer.safetensors"):
        assert ours[name] == theirs[name]


@pytest.mark.parametrize("moment", [(4, "train"), (3, "event"), (7, "train")])
def test_the_half_rate_outlives_a_kill(
    moment: tuple[int, str], base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, 4, 5)
    whole = go(base, data, tmp_path / "whole")
    monkeypatch.undo()
    poison(monkeypatch, 4, 5)
    went_back = list[bool]()
    hooks = killed_at(*moment)

    def on_metric(row: dict[str, Any]) -> None:
        went_back.append(row.get("event") == "rolled-back")
        if any(went_back[:-1]) or (moment[1] == "event" and went_back[-1]):
            hooks.on_metric(row)

    with pytest.raises(Killed):
        go(base, data, tmp_path / "a", hooks=replace(hooks, on_metric=on_metric))
    if moment[1] != "event":
        monkeypatch.undo()
    else:  # killed before the return was committed: the bad steps come again
        monkeypatch.undo()
        poison(monkeypatch, 1, 2)
    resumed = go(base, data, tmp_path / "a", resume=True)
    assert figures(resumed) == figures(whole)
    assert outcome(tmp_path / "a") == outcome(tmp_path / "whole")


def test_after_two_returns_it_stops_with_a_sentence_and_a_good_checkpoint(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, *range(4, 100))
    with pytest.raises(LemError, match=r"not finite .*at iteration 5.*0\.0005.*lower --learning-rate") as error:
        go(base, data, tmp_path / "a")
    assert str(error.value).endswith(".")
    assert ". " not in str(error.value)
    assert error.value.exit_code == 2
    left = read_checkpoint(tmp_path / "a")
    assert left is not None
    assert (left.progress.step, left.progress.n_rolled_back) == (3, MAX_ROLLBACKS)
    assert finite(tmp_path / "a")
    assert not (tmp_path / "a" / "adapters.safetensors").exists()


def test_a_validation_loss_that_is_none_leads_back(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, made = loop.evaluate_sum, list[int]()

    def evaluate(*args: Any) -> float:
        made.append(1)
        return NAN if len(made) == 2 else real(*args)

    monkeypatch.setattr(loop, "evaluate_sum", evaluate)
    report = go(base, data, tmp_path / "a")
    assert (report.n_rolled_back, report.iterations) == (1, 8)
    assert [row["iteration"] for row in rows(tmp_path / "a", "valid")] == [0, 4, 8]
    assert all(math.isfinite(row["loss"]) for row in rows(tmp_path / "a", "valid"))


def test_a_best_adapter_of_an_abandoned_branch_is_not_kept(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best loss came after the checkpoint and was rolled back: the weights that go with the report win."""
    real, losses = loop.evaluate_sum, iter([9.0, 5.0, 1.0, 8.0, 8.0, 8.0, 8.0])
    monkeypatch.setattr(loop, "evaluate_sum", lambda *args: next(losses) * real(*args) / real(*args))
    poison(monkeypatch, 5, 6)
    settings = replace(QUICK, iters=6, validate_every=2, save_every=2, patience=9)
    saved = list[Any]()

    def keep(path: Path, tensors: dict[str, mx.array], write: Callable[..., None] = checkpoint.write_tensors) -> None:
        saved.append((path.name, {name: np.array(value) for name, value in tensors.items()}))
        write(path, tensors)

    # validations: 0 -> 9, 2 -> 5, 4 -> 1 and saved; steps 5 and 6 are bad, so 5 comes again from 4
    monkeypatch.setattr(checkpoint, "write_tensors", keep)
    go(base, data, tmp_path / "a", replace(settings, save_every=3))
    final = mx.load(str(tmp_path / "a" / "adapters.safetensors"))
    valid = {row["iteration"]: row["loss"] for row in rows(tmp_path / "a", "valid")}
    best = min(valid, key=lambda step: valid[step])
    left = read_checkpoint(tmp_path / "a")
    assert left is not None
    assert left.progress.best_step == best == 2
    branch = [tensors for name, tensors in saved if name.startswith(f"{best:07d}")][-1]
    for name, value in final.items():
        np.testing.assert_array_equal(np.array(value), branch[name])
    assert not list((tmp_path / "a").glob("0000004_best*"))


@pytest.mark.parametrize("validated", [True, False])
def test_a_model_that_is_no_good_is_not_trained(validated: bool, chat: ChatModel, data: Path, tmp_path: Path) -> None:
    chat.model.layers[0].self_attn.q_proj.weight = mx.full((32, 32), NAN)
    if not validated:
        (data / "valid.jsonl").unlink()
    with pytest.raises(LemError, match="not finite") as error:
        train(chat, data, tmp_path / "a", QUICK)
    if validated:
        assert "before the first step" in str(error.value)
        assert "--learning-rate" not in str(error.value)
    assert not (tmp_path / "a" / "adapters.safetensors").exists()


@pytest.mark.parametrize("settings", [{"learning_rate": 1.0, "scale": 1e4}, {"learning_rate": 1.0, "method": "full"}])
def test_an_absurd_rate_for_real(settings: dict[str, Any], base: Path, data: Path, tmp_path: Path) -> None:
    """Whatever becomes of it, every number in every file is one, and what is said is one sentence."""
    output = tmp_path / "a"
    wild = replace(QUICK, grad_clip=1e6, iters=20, validate_every=1, save_every=1, weight_decay=1.0, **settings)
    said = ""
    try:
        assert go(base, data, output, wild).iterations == 20
    except LemError as error:
        said = str(error)
    assert not said or "not finite" in said
    assert ". " not in said
    assert finite(output)
    text = (output / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert load(str(base)) is not None
    assert json.loads((output / "checkpoint.json").read_text())["schema"] == 1


def test_weights_that_overflow_are_never_saved(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The update itself breaks the weights at step 3, where a checkpoint is due and no validation looks."""
    real, made = loop.apply_gradient, list[int]()

    def apply(model: Any, optimizer: Any, found: Gradient, rate: float) -> None:
        made.append(1)
        real(model, optimizer, found, rate)
        if len(made) == 3:
            model.layers[0].self_attn.q_proj.lora_b = model.layers[0].self_attn.q_proj.lora_b + mx.array(math.inf)

    monkeypatch.setattr(loop, "apply_gradient", apply)
    report = go(base, data, tmp_path / "a")
    assert (report.n_rolled_back, report.iterations) == (1, 8)
    assert finite(tmp_path / "a")
