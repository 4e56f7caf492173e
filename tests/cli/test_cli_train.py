"""`lem train` in this process: what it says, what it refuses in one sentence, and that a refusal touches nothing."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Place, Result, assert_sentence

from lem.cli.main import main
from lem.records import lock_directory
from lem.training import child
from lem.training.checkpoint import read_checkpoint
from small_plan import bytes_of, write_probes
from tiny import make_model

Lem = Callable[..., Result]
QUICK = ("--data", "data", "--adapter-path", "new", "--iters", 4, "--learning-rate", 0.002, "--rank", 4)


def chat_line(prompt: str, answer: str, **roles: str) -> str:
    turns = [
        {"role": roles.get("first", "user"), "content": prompt},
        {"role": roles.get("second", "assistant"), "content": answer},
    ]
    return json.dumps({"messages": turns}) + "\n"


@pytest.fixture(autouse=True)
def data(place: Place) -> Path:
    folder = place.folder / "data"
    folder.mkdir()
    for name in ("train.jsonl", "valid.jsonl"):
        (folder / name).write_text(chat_line("Hi?", "Yes.") + chat_line("And then what?", "No.") + chat_line("Q", "A!"))
    return folder


def test_what_it_says(lem: Lem, place: Place) -> None:
    result = lem("train", *QUICK)
    assert result.code == 0, result
    first, second, third = result.out.splitlines()
    assert first.startswith("adapter: new (lora, 2 layers, ")
    assert first.endswith(" trainable parameters, 3 examples)")
    assert second.startswith("validation loss ")
    assert third.startswith("4 iterations, ")
    assert (place.folder / "new" / "loss.png").stat().st_size > 1000
    before = bytes_of(place.folder / "new")
    again = lem("train", *QUICK, "--resume")
    assert again.code == 0
    assert again.out.splitlines()[0] == "this training was finished already, nothing was done"
    assert again.out.splitlines()[1:3] == [first, second]
    assert bytes_of(place.folder / "new") == before
    numbers = [json.loads(lem("train", *QUICK, "--resume", "--json").out) for _ in range(2)]
    assert numbers[0] == numbers[1]
    assert (numbers[0]["was_finished"], numbers[0]["iterations"]) == (True, 4)


def test_it_is_said_which_adapter_early_stopping_kept(lem: Lem, place: Place, data: Path) -> None:
    (data / "valid.jsonl").write_text(chat_line("Hi?", "ZZZZ 999"))
    result = lem(
        "train", "--data", "data", "--adapter-path", "new", "--iters", 60, "--learning-rate", 0.01, "--patience", 2,
        "--validate-every", 1,
    )  # fmt: skip
    assert result.code == 0, result
    left = read_checkpoint(place.folder / "new")
    assert left is not None
    assert left.progress.stopped_early
    assert f"nats per reply token, the best, at iteration {left.progress.best_step}\n" in result.out
    assert f"{left.progress.step} iterations, stopped early, " in result.out


@pytest.mark.parametrize(
    ("policy", "said"), [("truncate", "1 with a shortened prompt)"), ("drop", "1 too long dropped)")]
)
def test_rows_beyond_the_limit_are_counted_in_the_output(
    policy: str, said: str, lem: Lem, place: Place, data: Path
) -> None:
    with (data / "train.jsonl").open("a") as file:
        file.write(chat_line("why " * 60, "Long."))
    limited = (*QUICK, "--max-seq-length", 128, "--too-long", policy)
    result = lem("train", *limited)
    assert result.code == 0, result
    assert result.out.splitlines()[0].endswith(said)
    report = json.loads(lem("train", *limited, "--resume", "--json").out)
    counts = {"truncate": (4, 0, 1), "drop": (3, 1, 0)}
    assert (report["n_train"], report["n_too_long"], report["n_truncated"]) == counts[policy]


def test_a_preview_trains_nothing(lem: Lem, place: Place) -> None:
    result = lem("train", *QUICK, "--dry-run")
    assert result.code == 0, result
    assert "steps: 4 (2 an epoch)" in result.out
    assert json.loads(lem("train", *QUICK, "--dry-run", "--json").out)["iterations"] == 4
    assert not (place.folder / "new").exists()


REFUSALS: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
    "no data folder": (("--data", "nowhere"), ("nowhere/train.jsonl: no such training file",)),
    "no steps": (("--iters", 0), ("--iters",)),
    "no epochs": (("--epochs", 0), ("--epochs",)),
    "no rate": (("--learning-rate", 0), ("--learning-rate",)),
    "no layers": (("--num-layers", 0), ("num_layers must be -1 (all)",)),
    "unknown preset": (("--preset", "lem-2b"), ("lem-2b: no such preset;", "has gentle, harsh.")),
    "unknown target": (("--target", "k_prj"), ("--target k_prj: no such module", "mlp.up_proj", "self_attn.q_proj")),
    "qlora on a plain base": (("--method", "qlora"), ("--method qlora needs a quantised base", "lem convert -q 4")),
    "kernel without use": (("--kernel", "kernel/axioms.json"), ("--kernel is for --format sandwich",)),
    "no kernel": (("--format", "sandwich", "--kernel", "gone.txt"), ("gone.txt",)),
    "no such adapter": (("--from-adapter", "gone"), ("gone: no adapter_config.json here",)),
    "scale and alpha": (("--scale", 2, "--alpha", 4), ("give alpha or scale, not both",)),
    "too short a limit": (("--max-seq-length", 8), ("raise --max-seq-length",)),
    "nobody to track": (("--track", "wandb"), ("unknown tracker 'wandb'",)),
    "scoring nothing": (("--eval-prompts", "probes.json"), ("--eval-prompts is for --eval-every",)),
    "no probes": (("--eval-every", 2, "--eval-prompts", "gone.json"), ("gone.json",)),
    "rephrased probes": (("--eval-every", 2, "--eval-prompts", "variants.json"), ("variants.json", "rephrase")),
    "mlx-lm resumes not": (("--trainer", "mlx-lm", "--resume"), ("--trainer mlx-lm has no --resume",)),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_refused_in_a_sentence_before_anything_is_written(why: str, lem: Lem, place: Place) -> None:
    for name in ("gentle", "harsh"):
        (place.folder / "training" / "presets").mkdir(parents=True, exist_ok=True)
        (place.folder / "training" / "presets" / f"{name}.yaml").write_text("")
    variant = {"id": "V1", "domain": "care", "prompt": "And if it were you?", "source": "P00"}
    (place.folder / "variants.json").write_text(json.dumps([variant]))
    before = bytes_of(place.folder)
    arguments, parts = REFUSALS[why]
    assert_sentence(lem("train", *QUICK, *arguments), *parts)
    assert bytes_of(place.folder) == before
    assert not (place.folder / "new").exists()


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("{", ("train.jsonl line 4: not valid JSON",)),
        ("[]", ("train.jsonl line 4",)),
        (chat_line("Hi?", "Yes.", second="robot"), ("train.jsonl line 4", "robot")),
        (chat_line("Hi?", "Yes.", second="user"), ("train.jsonl line 4",)),
        (chat_line("Hi?", "Yes.", first="assistant"), ("train.jsonl line 4",)),
        ('{"messages": []}', ("train.jsonl line 4",)),
        (chat_line("Hello?", " "), ("train.jsonl line 4: message 2 (assistant) has no text",)),
        ('{"prompt": "Hi?"}', ("train.jsonl line 4",)),
        (chat_line("ask ask ask ask ask ask ask ask number 1?", "Yes."), ("train.jsonl line 4 shares", "P01 of")),
        (chat_line("What do they say?", "They ask ask ask ask ask ask ask ask number 1?"), ("line 4 shares", "P01")),
    ],
)
def test_data_are_refused_by_file_and_line(
    line: str, parts: tuple[str, ...], lem: Lem, place: Place, data: Path
) -> None:
    (place.folder / "seeds").mkdir()
    write_probes(place.folder / "seeds" / "P01-P20.json", 3)
    with (data / "train.jsonl").open("a") as file:
        file.write(line.strip() + "\n")
    before = bytes_of(place.folder)
    assert_sentence(lem("train", *QUICK), *parts)
    assert bytes_of(place.folder) == before


def test_an_adapter_of_another_base_or_shape_is_no_start(lem: Lem, place: Place) -> None:
    assert lem("train", *QUICK).code == 0
    make_model(place.folder / "other", "llama", seed=5)
    start = ("--from-adapter", "new", "--adapter-path", "next")
    cases: dict[tuple[object, ...], str] = {
        ("--model", "other"): "another base",
        ("--scale", 3): "give --scale 20",
        ("--rank", 2): "--rank",
        ("--num-layers", 1): "with the layers",
        ("--method", "dora"): "--method lora",
    }
    for arguments, part in cases.items():
        assert_sentence(lem("train", *QUICK, *start, *arguments), "new: ", part)
    assert not (place.folder / "next").exists()
    result = lem("train", *QUICK, *start)
    assert result.code == 0, result
    config = json.loads((place.folder / "next" / "adapter_config.json").read_text())
    assert len(config["parent_adapter_sha"]) == 64
    first = json.loads((place.folder / "new" / "adapter_config.json").read_text())
    assert (config["parent_adapter"], first["trained_before"]) == ("new", [])
    [before] = config["trained_before"]
    assert (before["weights"], before["data_sha"]) == ("new", first["data_sha"])
    assert Path(before["data"]) == (place.folder / first["data"]).resolve()


def test_a_folder_in_the_way_is_left_as_it_is(lem: Lem, place: Place) -> None:
    folder = place.folder / "new"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    assert_sentence(lem("train", *QUICK), "new is not empty; choose another --adapter-path or remove it")
    assert_sentence(lem("train", *QUICK, "--resume"), "new holds no checkpoint of a training")
    assert bytes_of(folder) == {"notes.txt": b"mine"}


def test_a_full_disk_is_a_sentence_and_the_training_goes_on(lem: Lem, place: Place) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, before[1]))  # the weights do not fit, the rest does
    try:
        full = lem("train", *QUICK)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_sentence(full, "0000000_adapters.safetensors: could not write", "make room", "--resume")
    assert full.err.count("\n") == 1
    assert lem("train", *QUICK, "--resume").code == 0


def test_a_folder_in_use_is_refused(lem: Lem, place: Place) -> None:
    with lock_directory(place.folder / "new"):
        assert_sentence(lem("train", *QUICK), f"new is in use by another process (pid {os.getpid()})")
    assert bytes_of(place.folder / "new") == {}


def test_a_refused_resume_draws_no_curve(lem: Lem, place: Place) -> None:
    assert lem("train", *QUICK).code == 0
    (place.folder / "new" / "loss.png").unlink()
    before = bytes_of(place.folder / "new")
    assert_sentence(lem("train", *QUICK), "is not empty", "--resume")
    assert_sentence(lem("train", *QUICK, "--resume", "--rank", 2), "another settings.rank (4, now 2)")
    assert bytes_of(place.folder / "new") == before


def test_probes_are_answered_on_the_way(lem: Lem, place: Place) -> None:
    result = lem(
        "train", *QUICK, "--eval-every", 2, "--eval-prompts", "probes.json", "--eval-limit", 2, "--eval-max-tokens", 4
    )
    assert result.code == 0, result
    found = [json.loads(line) for line in (place.folder / "new" / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in found if row["kind"] == "probe"] == [0, 2, 4]
    assert all(row["n"] == 2 for row in found if row["kind"] == "probe")


def test_an_error_of_the_device_is_a_sentence_and_any_other_a_bug(
    lem: Lem, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lem.training import loop

    for text, said in {
        "[METAL] Command buffer execution failed: Insufficient Memory": "the device gave up ([METAL] Command",
        "[ring] connection to a peer was lost": "another process of this training ended",
    }.items():

        def fail(*args: object, text: str = text, **kwargs: object) -> None:
            raise RuntimeError(text)

        monkeypatch.setattr(loop, "gradient", fail)
        result = lem("train", *QUICK, "--resume")
        assert (result.code, result.err.count("\n")) == (3, 1)
        assert said in result.err
        assert "--resume" in result.err
    monkeypatch.setattr(loop, "gradient", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main([str(word) for word in ("train", *QUICK, "--resume")])


@pytest.mark.parametrize(("status", "code"), [(0, 0), (2, 2), (3, 3)])
def test_a_childs_status_is_the_parents(
    status: int, code: int, lem: Lem, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[object] = []

    def supervise(arguments: list[str], output: Path) -> int:
        called.append((arguments, output.name))
        return status

    monkeypatch.setattr(child, "supervise", supervise)
    arguments = ("train", *QUICK, "--child", "--json")
    assert lem(*arguments).code == code
    assert called == [([str(word) for word in arguments], "new")]
    assert not (place.folder / "new").exists()
