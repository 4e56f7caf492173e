"""Interrupted anywhere and resumed, a training ends in the bits of an undisturbed one - or is refused untouched."""

from __future__ import annotations

import json
import signal
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from trainings import QUICK, Killed, figures, go, killed_at, outcome, rows

from lem.chat.load import ChatModel, load
from lem.errors import DataError, Incomplete, LemError, ResumeMismatch, UserError
from lem.training import prepare
from lem.training.dataset import Sandwich
from lem.training.settings import TrainingSettings
from lem.training.train import Hooks, train
from small_plan import bytes_of
from tiny import make_model

SANDWICH = Sandwich("Be kind.", "So be it.")
RECIPES: dict[str, dict[str, Any]] = {
    "LoRA with dropout": {"dropout": 0.3},
    "DoRA, cosine after a warm-up": {"method": "dora", "schedule": "cosine", "warmup": 0.3},
    "in full, linear, with weight decay": {"method": "full", "schedule": "linear", "weight_decay": 0.01},
    "accumulation, checkpointing, dropout": {
        "batch_size": 1, "accumulation": 2, "grad_checkpoint": True, "dropout": 0.1
    },
    "packing": {"pack": True, "max_seq_length": 160, "batch_size": 1, "dropout": 0.1},
    "one projection of the top layer": {"num_layers": 1, "targets": ("q_proj",)},
    "reports that span a checkpoint": {"report_every": 4, "bias_correction": False},
    "sandwich": {"format": "sandwich"},
}  # fmt: skip


@pytest.fixture
def killed(base: Path, data: Path, tmp_path: Path) -> Path:
    """The folder of a training that was killed behind its checkpoint of step 3."""
    with pytest.raises(Killed):
        go(base, data, tmp_path / "killed", hooks=killed_at(5))
    return tmp_path / "killed"


@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_twice_it_ends_in_the_same_bits(recipe: str, base: Path, data: Path, tmp_path: Path, line: Any) -> None:
    with (data / "train.jsonl").open("a") as file:
        file.write(line("Five?", "A last batch of one."))
    settings = replace(QUICK, **RECIPES[recipe])
    options = {"sandwich": SANDWICH} if settings.format == "sandwich" else {}
    whole = go(base, data, tmp_path / "whole", settings, **options)
    every = settings.report_every
    for step in (4, 8) if every == 4 else (5, 7):
        resume = (tmp_path / "killed").exists()
        with pytest.raises(Killed):
            go(base, data, tmp_path / "killed", settings, resume=resume, hooks=killed_at(step), **options)
    resumed = go(base, data, tmp_path / "killed", settings, resume=True, **options)
    assert figures(resumed) == figures(whole)
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
    assert set(bytes_of(tmp_path / "killed")) == set(bytes_of(tmp_path / "whole"))


def test_begun_from_another_adapter_it_ends_in_the_same_bits(base: Path, data: Path, tmp_path: Path) -> None:
    go(base, data, tmp_path / "parent", replace(QUICK, iters=2, seed=7))
    parent = tmp_path / "parent"
    whole = go(base, data, tmp_path / "whole", from_adapter=parent)
    assert whole.valid_before == rows(parent, "valid")[-1]["loss"], "the first loss is the parent's last"
    with pytest.raises(Killed):
        go(base, data, tmp_path / "killed", from_adapter=parent, hooks=killed_at(5))
    resumed = go(base, data, tmp_path / "killed", from_adapter=parent, resume=True)
    assert figures(resumed) == figures(whole)
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


def stopping(data: Path, line: Any) -> TrainingSettings:
    """Settings, and validation data that contradict the training data, so that patience runs out."""
    (data / "valid.jsonl").write_text(line("One?", "No, zzz!") + line("Four?", "QQQQ XX."))
    return replace(QUICK, iters=40, validate_every=2, patience=3, save_every=5)


@pytest.mark.parametrize("moment", [("train", 4), ("valid", 4), ("event", None)])
def test_early_stopping_resumes_to_the_same_end(
    moment: tuple[str, int | None], base: Path, data: Path, tmp_path: Path, line: Any
) -> None:
    settings = stopping(data, line)
    whole = go(base, data, tmp_path / "whole", settings)
    assert whole.stopped_early
    kind, step = moment
    hooks = killed_at(whole.iterations if step is None else step, kind)
    with pytest.raises(Killed):
        go(base, data, tmp_path / "killed", settings, hooks=hooks)
    resumed = go(base, data, tmp_path / "killed", settings, resume=True)
    assert figures(resumed) == figures(whole)
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


def test_patience_counts_validations_and_the_adapter_is_the_best_one(
    base: Path, data: Path, tmp_path: Path, line: Any
) -> None:
    settings = stopping(data, line)
    chat = load(str(base))
    report = train(chat, data, tmp_path / "a", settings)
    losses = {row["iteration"]: row["loss"] for row in rows(tmp_path / "a", "valid")}
    best = min(losses, key=lambda step: losses[step])
    assert report.iterations == best + settings.patience * settings.validate_every < settings.iters
    assert (report.valid_before, report.valid_after, report.best_iteration) == (losses[0], losses[best], best)
    event = rows(tmp_path / "a", "event")[-1]
    assert (event["event"], event["iteration"]) == ("stopped-early", report.iterations)
    short = go(base, data, tmp_path / "short", replace(settings, iters=best, patience=0))
    assert short.valid_after == report.valid_after
    adapters = [mx.load(str(tmp_path / name / "adapters.safetensors")) for name in ("a", "short")]
    for name, value in adapters[0].items():
        np.testing.assert_array_equal(np.array(value), np.array(adapters[1][name]))
    again = load(str(base), tmp_path / "a").model
    tokens = mx.array([[5, 6, 7]])
    assert mx.array_equal(chat.model(tokens), again(tokens)).item(), "the model in memory carries the best weights too"


def test_patience_asks_for_something_to_watch(base: Path, data: Path, tmp_path: Path) -> None:
    (data / "valid.jsonl").unlink()
    with pytest.raises(UserError, match=r"--patience needs .*valid\.jsonl"):
        go(base, data, tmp_path / "a", replace(QUICK, patience=2))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leads_to_a_checkpoint_of_that_very_step(
    number: signal.Signals, base: Path, data: Path, tmp_path: Path
) -> None:
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def on_metric(row: dict[str, Any]) -> None:
        if row["iteration"] == 5:
            signal.raise_signal(number)

    with pytest.raises(Incomplete, match=r"^interrupted after iteration 5 of 8;[^.]*--resume\.$"):
        go(base, data, tmp_path / "stopped", hooks=Hooks(on_metric=on_metric))
    assert json.loads((tmp_path / "stopped" / "checkpoint.json").read_text())["progress"]["step"] == 5
    assert {s: signal.getsignal(s) for s in handlers} == handlers
    whole = go(base, data, tmp_path / "whole")
    assert figures(go(base, data, tmp_path / "stopped", resume=True)) == figures(whole)
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


def test_a_signal_during_the_first_validation_waits_for_the_first_checkpoint(
    base: Path, data: Path, tmp_path: Path
) -> None:
    def on_metric(row: dict[str, Any]) -> None:
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Incomplete, match="interrupted after iteration 0 of 8"):
        go(base, data, tmp_path / "a", hooks=Hooks(on_metric=on_metric))
    whole = go(base, data, tmp_path / "whole")
    assert figures(go(base, data, tmp_path / "a", resume=True)) == figures(whole)
    assert outcome(tmp_path / "a") == outcome(tmp_path / "whole")


def test_a_signal_in_the_last_step_lets_it_finish(base: Path, data: Path, tmp_path: Path) -> None:
    def on_metric(row: dict[str, Any]) -> None:
        if (row["kind"], row["iteration"]) == ("train", 8):
            signal.raise_signal(signal.SIGINT)

    report = go(base, data, tmp_path / "a", hooks=Hooks(on_metric=on_metric))
    assert report.iterations == 8
    assert (tmp_path / "a" / "adapters.safetensors").is_file()


def test_a_second_signal_acts_at_once(base: Path, data: Path, tmp_path: Path) -> None:
    def on_metric(row: dict[str, Any]) -> None:
        if row["iteration"] == 5:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        go(base, data, tmp_path / "a", hooks=Hooks(on_metric=on_metric))
    assert json.loads((tmp_path / "a" / "checkpoint.json").read_text())["progress"]["step"] == 3
    whole = go(base, data, tmp_path / "whole")
    assert figures(go(base, data, tmp_path / "a", resume=True)) == figures(whole)


@pytest.mark.parametrize("left", ["nothing", "first-validation", "torn-tensors", "no-marker"])
def test_killed_before_the_first_checkpoint_it_starts_anew(left: str, base: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "a"
    if left != "nothing":
        with pytest.raises(Killed):
            go(base, data, output, hooks=killed_at(0, "valid"))
        (output / "loss.png").write_bytes(b"a curve of one point")
        (output / "probes").mkdir()
        (output / "probes" / "0000000.jsonl").write_text("{}\n")
        (output / "metrics.jsonl").write_bytes((output / "metrics.jsonl").read_bytes() + b'{"kind": "tr')
    if left == "torn-tensors":
        (output / ".0000000_adapters.tmp.safetensors").write_bytes(b"half a file")
        (output / ".checkpoint.json.abcdefgh.tmp").write_bytes(b"half a file")
    if left == "no-marker":
        (output / "0000000_adapters.safetensors").write_bytes(b"whole, says nobody")
        (output / "0000000_optimizer.safetensors").write_bytes(b"whole, says nobody")
    resumed = go(base, data, output, resume=True)
    assert figures(resumed) == figures(go(base, data, tmp_path / "whole"))
    assert outcome(output) == outcome(tmp_path / "whole")
    assert not list(output.glob(".*tmp*"))


def test_a_finished_training_is_left_alone(base: Path, data: Path, tmp_path: Path, line: Any) -> None:
    settings = stopping(data, line)
    whole = go(base, data, tmp_path / "a", settings)
    before, times = bytes_of(tmp_path / "a"), {p: p.stat().st_mtime_ns for p in (tmp_path / "a").iterdir()}
    seen: list[Any] = []
    chat = load(str(base))
    again = train(
        chat, data, tmp_path / "a", settings, resume=True,
        hooks=Hooks(on_metric=seen.append, on_evaluate=lambda step: {"n": 1}),
    )  # fmt: skip
    assert (again.was_finished, whole.was_finished) == (True, False)
    assert figures(again) == figures(whole)
    assert seen == []
    assert bytes_of(tmp_path / "a") == before
    assert {p: p.stat().st_mtime_ns for p in times if p.name != ".lock"} == {
        p: time for p, time in times.items() if p.name != ".lock"
    }
    tokens = mx.array([[5, 6, 7]])
    assert mx.array_equal(chat.model(tokens), load(str(base), tmp_path / "a").model(tokens)).item()


def refused(
    folder: Path, base: Path, data: Path, what: type[LemError], pattern: str, settings: TrainingSettings = QUICK,
    **options: Any,
) -> None:  # fmt: skip
    before = bytes_of(folder)
    with pytest.raises(what, match=pattern) as error:
        go(base, data, folder, settings, resume=True, **options)
    text = str(error.value)
    assert text.endswith(".")
    assert ". " not in text, "one sentence"
    assert bytes_of(folder) == before


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"learning_rate": 1e-3}, "settings.learning_rate"), ({"iters": 9}, "settings.iters"),
        ({"dropout": 0.1}, "settings.dropout"), ({"seed": 1}, "settings.seed"), ({"rank": 2}, "settings.rank"),
        ({"method": "dora"}, "settings.method"), ({"targets": ("q_proj",)}, "settings.targets"),
        ({"epochs": 3}, "settings.iters"), ({"validate_every": 2}, "settings.validate_every"),
    ],
)  # fmt: skip
def test_other_settings_are_refused_by_name(
    changed: dict[str, Any], name: str, base: Path, data: Path, killed: Path
) -> None:
    refused(killed, base, data, ResumeMismatch, rf"another {name} \(", replace(QUICK, **changed))


def test_other_data_bases_and_parents_are_refused_by_name(
    base: Path, data: Path, killed: Path, tmp_path: Path, line: Any
) -> None:
    other = make_model(tmp_path / "other", "llama", layers=3, seed=1)
    refused(killed, other, data, ResumeMismatch, r"another base_model \(")
    go(base, data, tmp_path / "parent", replace(QUICK, iters=1))
    refused(killed, base, data, ResumeMismatch, "another parent_adapter", from_adapter=tmp_path / "parent")
    text = (data / "valid.jsonl").read_text()
    (data / "valid.jsonl").write_text(text.replace("Aye", "Nay"))
    refused(killed, base, data, ResumeMismatch, r"another data\.valid\.jsonl \(")
    (data / "valid.jsonl").unlink()
    refused(killed, base, data, ResumeMismatch, r"another data\.valid\.jsonl \(.*now null\)")
    (data / "valid.jsonl").write_text(text)
    (data / "train.jsonl").write_text(text + line("Five?", "New."))
    refused(killed, base, data, ResumeMismatch, r"another data\.train\.jsonl \(")


def test_another_kernel_is_refused_by_name(base: Path, data: Path, tmp_path: Path) -> None:
    settings = replace(QUICK, format="sandwich")
    with pytest.raises(Killed):
        go(base, data, tmp_path / "a", settings, sandwich=SANDWICH, hooks=killed_at(1))
    for other in (Sandwich("Be cruel.", SANDWICH.signature), Sandwich(SANDWICH.kernel, "Or not.")):
        refused(tmp_path / "a", base, data, ResumeMismatch, r"another kernel \(", settings, sandwich=other)


def test_intervals_may_change_on_the_way(base: Path, data: Path, killed: Path, tmp_path: Path) -> None:
    go(base, data, killed, replace(QUICK, save_every=2, report_every=3), resume=True)
    go(base, data, tmp_path / "whole")
    ours, theirs = outcome(killed), outcome(tmp_path / "whole")
    assert ours["adapters.safetensors"] == theirs["adapters.safetensors"]
    assert ours["0000008_optimizer.safetensors"] == theirs["0000008_optimizer.safetensors"]


def test_gradient_checkpointing_may_be_switched_on_where_there_is_no_dropout(
    base: Path, data: Path, killed: Path, tmp_path: Path
) -> None:
    go(base, data, killed, replace(QUICK, grad_checkpoint=True), resume=True)
    go(base, data, tmp_path / "whole")
    ours, theirs = outcome(killed), outcome(tmp_path / "whole")
    assert ours["adapters.safetensors"] == theirs["adapters.safetensors"]
    drop = replace(QUICK, dropout=0.1)
    with pytest.raises(Killed):
        go(base, data, tmp_path / "drop", drop, hooks=killed_at(2))
    name = r"another settings\.grad_checkpoint \(false, now true\)"
    refused(tmp_path / "drop", base, data, ResumeMismatch, name, replace(drop, grad_checkpoint=True))


def test_more_threads_are_worth_a_warning(
    base: Path, data: Path, killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = [{"user_api": "blas", "internal_api": "openblas", "num_threads": 64}]
    monkeypatch.setattr(prepare, "threadpool_info", lambda: threads)
    with pytest.warns(UserWarning, match="blas changed since the checkpoint.*not the same to the bit"):
        report = go(base, data, killed, resume=True)
    assert report.iterations == 8


def test_the_same_machine_is_no_warning(base: Path, data: Path, killed: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        go(base, data, killed, resume=True)


DAMAGE = {
    "truncated": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "a list": lambda text: "[]",
    "another schema": lambda text: text.replace('"schema": 1', '"schema": 99'),
    "a changed counter": lambda text: text.replace('"trained_tokens": ', '"trained_tokens": 1'),
    "no files": lambda text: json.dumps({**json.loads(text), "files": {}}),
    "files of another kind": lambda text: json.dumps({**json.loads(text), "files": 3}),
    "no identity": lambda text: json.dumps({**json.loads(text), "identity": None}),
    "an unknown counter": lambda text: text.replace('"n_worse"', '"n_better"'),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_marker_is_refused(how: str, base: Path, data: Path, killed: Path) -> None:
    marker = killed / "checkpoint.json"
    text = marker.read_text()
    marker.write_text(DAMAGE[how](text))
    assert marker.read_text() != text
    refused(killed, base, data, DataError, r"checkpoint\.json")


@pytest.mark.parametrize("kind", ["adapters", "optimizer"])
def test_a_changed_or_missing_tensor_file_is_refused(kind: str, base: Path, data: Path, killed: Path) -> None:
    path = killed / f"0000003_{kind}.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    refused(killed, base, data, DataError, rf"0000003_{kind}\.safetensors: missing or changed")
    path.unlink()
    refused(killed, base, data, DataError, rf"0000003_{kind}\.safetensors: missing or changed")


def test_lost_metrics_are_refused(base: Path, data: Path, killed: Path) -> None:
    path = killed / "metrics.jsonl"
    path.write_bytes(path.read_bytes().split(b"\n", 1)[0] + b"\n")
    refused(killed, base, data, DataError, r"metrics\.jsonl: .*rows")
    path.unlink()
    refused(killed, base, data, DataError, r"metrics\.jsonl: .*rows")


@pytest.mark.parametrize(
    "name", ["notes.txt", "adapters.safetensors", "0000100_adapters.safetensors", "model.safetensors"]
)
def test_a_folder_of_somebody_else_is_refused(
    name: str, chat: ChatModel, base: Path, data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "a"
    output.mkdir()
    (output / "adapter_config.json").write_text("{}")
    (output / name).write_text("mine")
    refused(output, base, data, UserError, "holds no checkpoint of a training; choose another --adapter-path")


def test_a_training_that_lies_there_is_not_trained_over(base: Path, data: Path, killed: Path) -> None:
    before = bytes_of(killed)
    with pytest.raises(UserError, match=r"is not empty; .*go on with it by --resume.*nothing was touched\.$"):
        go(base, data, killed)
    assert bytes_of(killed) == before
