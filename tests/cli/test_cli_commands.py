"""What the commands do when all is well, what they print, and the exit codes 0, 1 and 3."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Place, Result

import lem as package
from lem.chat import generate as engine
from small_plan import bytes_of, cells, rows_of
from tiny import CHATML, make_model

Lem = Callable[..., Result]


def test_a_benchmark_answers_every_cell(lem: Lem, place: Place) -> None:
    result = lem(
        "ab", "--kernel", place.kernel, "--placebo", "--repeats", "2", "--limit", "3", "--output", "run", "--json"
    )
    assert result.code == 0, result
    summary = json.loads(result.out)
    assert (summary["planned"], summary["answered"], summary["failed"], summary["missing"]) == (24, 24, 0, 0)
    arms = ["base", "json", "placebo-json", "placebo-txt"]
    assert set(cells(place.folder / "run")) == {(a, f"P0{i}", r) for a in arms for i in range(3) for r in range(2)}
    text = lem("ab", "--kernel", place.kernel, "--output", "run")
    assert text.code == 0
    assert "run: " in text.out
    assert len(cells(place.folder / "run")) == 24 + 4 + 4 + 0 * 8, "two more probes for base and json, twice"


def test_only_the_named_arms_are_run_and_the_others_can_follow(lem: Lem, place: Place) -> None:
    common = ("benchmark", "--kernel", f"json={place.kernel}", "--output", "run", "--limit", "2")
    assert lem(*common, "--arm", "json").code == 0
    assert {arm for arm, _, _ in cells(place.folder / "run")} == {"json"}
    assert lem(*common).code == 0
    assert {arm for arm, _, _ in cells(place.folder / "run")} == {"base", "json"}


def test_a_run_without_a_name_is_found_again(lem: Lem, place: Place) -> None:
    first = json.loads(lem("benchmark", "--json", "--limit", "2").out)
    again = json.loads(lem("benchmark", "--json").out)
    assert first["run"] == again["run"]
    assert Path(first["run"]).parent == Path("runs/benchmark")
    assert Path(first["run"]).name.startswith("tiny-llama-")
    assert (first["answered"], again["answered"]) == (4, 10), "base and the default kernel"
    other = json.loads(lem("benchmark", "--json", "--seed", "1").out)
    assert other["run"] != first["run"]


def test_a_published_file_and_its_run(lem: Lem, place: Place) -> None:
    result = lem("benchmark", "--output", "out.jsonl", "--kernel", place.kernel)
    assert result.code == 0, result
    assert len(cells(place.folder / "runs" / "benchmark" / "out")) == 10
    lines = [json.loads(line) for line in (place.folder / "out.jsonl").read_text().splitlines()]
    assert sum(line.get("type") == "probe" for line in lines) == 5
    assert lem("benchmark", "--output", "out.jsonl", "--kernel", place.kernel).code == 0, "our own file is replaced"


@pytest.mark.parametrize("as_json", [True, False])
def test_a_dry_run_writes_nothing_and_loads_no_weights(lem: Lem, place: Place, as_json: bool) -> None:
    broken = make_model(place.folder / "weightless", "llama")
    (broken / "model.safetensors").write_bytes(b"")
    before = bytes_of(place.folder)
    flags = ["--json"] if as_json else []
    result = lem("benchmark", "--model", broken, "--kernel", place.kernel, "--dry-run", *flags)
    assert result.code == 0, result
    assert bytes_of(place.folder) == before
    assert not (place.folder / "runs").exists()
    if as_json:
        assert json.loads(result.out)["n_requests"] == 10
    else:
        assert "2 arms x 5 probes x 1 repeats" in result.out
        assert "= 10 answers of at most 4 tokens" in result.out
        assert place.kernel.read_text() in result.out, "the example shows the kernel"


def test_failed_answers_end_with_exit_code_three_and_are_tried_again(
    lem: Lem, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine, "_decode", broken)
    result = lem("benchmark", "--output", "run", "--json")
    assert result.code == 3
    assert "10 failed and 0 missing (in base, json); run the command with these arms again" in result.err
    assert json.loads(result.out)["failed"] == 10
    monkeypatch.undo()
    assert lem("benchmark", "--output", str(place.folder / "run"), "--prompts", place.probes,
               "--model", place.model, "--max-tokens", "4").code == 0  # fmt: skip
    assert len(rows_of(place.folder / "run")) == 20, "ten failures and their ten answers"


def test_strict_decodes_row_by_row(lem: Lem, place: Place) -> None:
    assert lem("benchmark", "--strict", "--output", "run").code == 0
    info = json.loads((place.folder / "run" / "run.json").read_text())
    assert {len(group["probes"]) for group in info["groups"].values()} == {1}


def test_sandwich_puts_the_signature_behind_the_probe(lem: Lem, place: Place) -> None:
    assert (
        lem("benchmark", "--kernel", place.kernel, "--inject", "sandwich", "--limit", "1", "--output", "run").code == 0
    )
    signature = (place.folder / "kernel" / "lek-1-sig.txt").read_text().strip()
    asked = {row["arm"]: row["messages"][0]["content"] for row in rows_of(place.folder / "run")}
    assert asked["json"] == f"{place.kernel.read_text()}\n\n{asked['base']}\n\n{signature}"


def test_info_is_readable_by_machines(lem: Lem, place: Place) -> None:
    facts = json.loads(lem("info", "--json").out)
    assert facts["lem"] == package.__version__
    assert facts["python"] == platform.python_version()
    assert facts["device"] in ("cpu", "gpu")
    assert facts["blas"]
    text = lem("info")
    assert text.code == 0
    assert platform.python_version() in text.out


def test_the_doctor_sends_a_healthy_model_home(lem: Lem, place: Place) -> None:
    result = lem("doctor", "tiny", "--json")
    assert result.code == 0, result
    report = json.loads(result.out)
    assert {check["ok"] for check in report["checks"]} == {True, None}
    assert len(report["model_sha"]) == 64


def test_the_doctor_ends_with_exit_code_one_on_a_broken_model(lem: Lem, place: Place) -> None:
    template = CHATML.replace(
        "<|end|>\n{% endfor %}", "{% if m['role'] != 'assistant' %}<|end|>{% endif %}\n{% endfor %}"
    )
    make_model(place.folder / "endless", "llama", template=template)
    result = lem("doctor", "endless")
    assert result.code == 1
    assert "FAIL  stop tokens" in result.out
    assert "does NOT end" in result.out
    assert "stop tokens failed; do not trust a comparison made with it here" in result.err


def test_training_benchmarking_and_fusing_an_adapter(lem: Lem, place: Place) -> None:
    """The way through: train, A/B the adapter, fuse it, and the fused model answers what the adapter answered."""
    data = place.folder / "data"
    data.mkdir()
    turns = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yes, gladly."}]
    for name in ("train.jsonl", "valid.jsonl"):
        (data / name).write_text((json.dumps({"messages": turns}) + "\n") * 3)
    trained = lem(
        "train", "--data", "data", "--adapter-path", "adapter", "--iters", "8", "--learning-rate", "0.01",
        "--num-layers", "16", "--save-every", "4", "--json",
    )  # fmt: skip
    assert trained.code == 0, trained
    report = json.loads(trained.out)
    assert (report["num_layers"], report["n_train"]) == (2, 3)
    assert report["valid_after"] < report["valid_before"]
    assert (place.folder / "adapter" / "0000004_adapters.safetensors").is_file()
    assert lem("fuse", "--adapter", "adapter", "--output", "fused").code == 0
    result = lem(
        "benchmark", "--adapter", "trained=adapter", "--trained", "fused=fused", "--output", "run",
        "--temperature", "0",
    )  # fmt: skip
    assert result.code == 0, result
    found = {key: row["response"] for key, row in cells(place.folder / "run").items()}
    probes = [f"P0{i}" for i in range(5)]
    assert [found["trained", p, 0] for p in probes] == [found["fused", p, 0] for p in probes]
    assert [found["trained", p, 0] for p in probes] != [found["base", p, 0] for p in probes]
    assert lem("fuse", "--adapter", "adapter", "--output", "fused").code == 2, "an existing folder is not overwritten"


def test_a_conversion_that_mlx_cannot_do_is_a_sentence(lem: Lem, place: Place) -> None:
    assert lem("convert", "--model", "nowhere/at/all", "--output", "x").code == 2
    result = lem("convert", "--model", "tiny", "--output", "converted")
    assert result.code == 0, result
    assert (place.folder / "converted" / "config.json").is_file()
    assert lem("convert", "--model", "tiny", "--output", "converted").code == 2
