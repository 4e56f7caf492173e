"""`lem fuse`, `lem convert` and `lem adapter` as a person types them: tables, JSON, exit codes, one-line errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import Place, Result

from adapters import MIXTRAL, edit, logits, make_other, tensors, write_adapter
from lem.cli.fuse import proof_lines
from lem.stats import mean_bca, rate
from lem.training.parity import Bars, Distance, Proof
from small_plan import bytes_of

Lem = Callable[..., Result]


@pytest.fixture
def adapter(place: Place, model: Path) -> Path:
    return write_adapter(model, place.folder / "adapter", size=0.1)


def assert_sentence(result: Result, code: int, *parts: str) -> None:
    assert result.code == code, result
    assert result.out == ""
    assert result.err.startswith("Error: ")
    assert result.err.count("\n") == 1
    for part in parts:
        assert part in result.err


def test_fusing_prints_the_proof_and_saves_the_model(lem: Lem, place: Place, model: Path, adapter: Path) -> None:
    result = lem("fuse", "--adapter", "adapter", "--output", "models/fused", "--prompts", "6")
    assert result.code == 0, result
    lines = result.out.splitlines()
    assert lines[0] == "fused model: models/fused (14 layers merged; float32)"
    assert lines[1].startswith("against base + adapter: 6 prompts, ")
    assert lines[2].split() == ["fused", "base", "alone"]
    assert lines[3].startswith("same greedy token         1.0000 [")
    assert lines[4].startswith("KL, nats per token")
    assert lines[5].split()[:6] == ["KL", "/", "KL", "of", "base", "alone"]
    assert len(lines) == 6
    np.testing.assert_allclose(logits(place.folder / "models" / "fused"), logits(model, adapter), atol=1e-4)
    again = lem("fuse", "--adapter", "adapter", "--output", "models/fused")
    assert_sentence(again, 2, "models/fused exists and is not empty; choose a new --output, nothing was touched")


def test_fusing_as_json(lem: Lem, place: Place, adapter: Path) -> None:
    (place.folder / "own.txt").write_text("Hello?\nAnd now?\n")
    result = lem(
        "fuse", "--adapter", "adapter", "--output", "f", "--prompt-file", "own.txt", "--prompts", "2", "--json"
    )
    report = json.loads(result.out)
    assert (report["proof"]["passed"], report["proof"]["candidate"]["kl_nats"]["n"]) == (True, 2)
    assert report["merged"] == {"n_merged": 14, "n_dequantised": 0, "dtypes": ["float32"], "quantised": False}
    assert (
        report["proof"]["candidate"]
        == json.loads((place.folder / "f/fuse_proof.json").read_text())["proof"]["candidate"]
    )


def test_a_fused_model_below_the_bar_is_refused(lem: Lem, place: Place, adapter: Path) -> None:
    assert lem("convert", "-q", "4", "--group-size", "32", "--output", "q4").code == 0
    small = write_adapter(place.folder / "q4", place.folder / "small", size=0.01)
    before = bytes_of(place.folder)
    lost = lem("fuse", "--model", "q4", "--adapter", small, "--output", "fused", "--keep-quantised")
    assert_sentence(lost, 1, "does not behave like base + adapter: greedy agreement 0.", "nothing was kept")
    strict = lem(
        "fuse", "--adapter", "adapter", "--output", "fused", "--prompts", "2", "--dtype", "bfloat16", "--max-kl", "0"
    )
    assert_sentence(strict, 1, "(bar 0)", "fuse with --dtype float32")
    assert bytes_of(place.folder) == before
    assert not (place.folder / "fused").exists()
    kept = lem("fuse", "--model", "q4", "--adapter", small, "--output", "fused", "--prompts", "4")
    assert kept.code == 0, kept
    assert "(14 layers merged, 2 de-quantised; float32)" in kept.out


def test_converting_there_and_back(lem: Lem, place: Place, model: Path) -> None:
    quantised = lem("convert", "-q", "8", "--group-size", "32", "--output", "q8")
    assert quantised.out == "converted model: q8 (16 of 16 layers in 8 bits, groups of 32)\n"
    back = lem("convert", "--model", "q8", "--to", "hf", "--output", "hf", "--prompts", "2")
    assert back.code == 0, back
    assert back.out.startswith("converted model: hf (16 layers de-quantised; float32)\nagainst q8: 2 prompts, ")
    assert "same greedy token         1.0000 [" in back.out
    assert "base alone" not in back.out
    assert back.out.endswith("transformers needs torch, which lem does not install.\n")
    assert set(tensors(place.folder / "hf")) == set(tensors(model))
    report = json.loads(lem("convert", "--to", "hf", "--output", "hf2", "--prompts", "2", "--json").out)
    assert (report["target"], report["n_dequantised"], report["proof"]["passed"]) == ("hf", 0, True)
    assert json.loads(lem("convert", "--output", "copy", "--json").out)["proof"] is None


def test_conversions_that_cannot_be(lem: Lem, place: Place) -> None:
    make_other(place.folder / "moe", "mixtral", MIXTRAL)
    before = bytes_of(place.folder)
    for arguments, message in (
        (("--to", "hf", "-q", "4"), "-q does not go with --to hf"),
        (("--group-size", "32"), "--group-size goes with -q, which is not given"),
        (("--model", "moe", "--to", "hf"), "mlx-lm stacked or transposed model.layers.0.block_sparse_moe"),
        (("--to", "hf", "--prompts", "99"), "ask for 1 to 40"),
        (("--to", "hf", "--prompt-file", "none.txt"), "none.txt: no such prompt file"),
        (("--model", "./nowhere"), "no such model"),
        (("-q", "4", "--group-size", "128"), "no layer's width is a multiple of 128; use --group-size 32"),
    ):
        assert_sentence(lem("convert", "--output", "x", *arguments), 2, message)
    assert bytes_of(place.folder) == before
    assert not (place.folder / "x").exists()


def test_an_adapter_goes_to_peft_and_back(lem: Lem, place: Place, model: Path, adapter: Path) -> None:
    out = lem("adapter", "export", "adapter", "--to", "peft", "--output", "peft")
    assert out.code == 0, out
    assert out.out == "PEFT adapter: peft (lora, 14 layers, rank 3, scale 1.7)\n"
    back = lem("adapter", "import", "peft", "--from", "peft", "--output", "back", "--json")
    assert json.loads(back.out)["n_layers"] == 14
    np.testing.assert_array_equal(logits(model, place.folder / "back"), logits(model, adapter))
    edit(place.folder / "peft" / "adapter_config.json", alpha_pattern={"k_proj": 1})
    moved = lem("adapter", "import", "peft", "--model", "tiny", "--output", "other")
    assert "2 layers of another scale had the difference multiplied into lora_b" in moved.out


def test_adapters_that_cannot_be_moved(lem: Lem, place: Place, adapter: Path) -> None:
    assert lem("adapter", "export", "adapter", "--output", "peft", "--model", "tiny").code == 0
    edit(place.folder / "peft" / "adapter_config.json", modules_to_save=["lm_head"])
    before = bytes_of(place.folder)
    for arguments, message in (
        (("export", "nowhere", "--output", "x"), "nowhere: no adapter_config.json here"),
        (("export", "adapter", "--output", "peft"), "peft exists and is not empty"),
        (("export", "adapter", "--output", "x", "--model", "./nowhere"), "no such model"),
        (("import", "nowhere", "--output", "x"), "nowhere: no such folder"),
        (("import", "peft", "--output", "x"), 'the PEFT option modules_to_save = ["lm_head"] cannot be mapped'),
    ):
        assert_sentence(lem("adapter", *arguments), 2, message)
    assert lem("adapter", "export", "adapter", "--to", "gguf", "--output", "x").code == 2
    assert lem("adapter").code == 2
    assert bytes_of(place.folder) == before


def test_the_table_says_when_the_adapter_changes_nothing() -> None:
    still = Distance(rate(32, 32), mean_bca([0.0, 0.0]))
    lines = proof_lines(Proof(still, still, Bars()), "base + adapter", "fused")
    assert lines[-1].endswith("the adapter changes nothing on these prompts")
    one = Distance(rate(32, 32), mean_bca([0.25]))
    assert proof_lines(Proof(one, None, Bars()), "m", "converted")[-1] == "KL, nats per token        0.25"
