"""Fusing: weights are W + scale * B A, the saved model behaves like base + adapter, a lost adapter is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest

from adapters import MIXTRAL, edit, in_type, logits, make_other, tensors, write_adapter
from lem.chat.load import load
from lem.errors import CheckFailed, UserError
from lem.records import staged
from lem.stats import rate
from lem.training import parity
from lem.training.convert import convert_to_mlx
from lem.training.fuse import FuseSettings, fuse_adapter
from lem.training.parity import Bars, Distance, Proof, kl_nats, mean_kl, read_prompts
from small_plan import bytes_of
from tiny import make_model

QUICK = FuseSettings(n_prompts=4)


@pytest.fixture(scope="module")
def quantised(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantised") / "q4"
    convert_to_mlx(str(base), folder, 4, 32)
    return folder


def longhand(base: Path, adapter: Path, scale: float) -> dict[str, np.ndarray]:
    """W + scale * (A B)^T in float64; with DoRA each row is stretched to the length m."""
    weights, parts = tensors(base), tensors(adapter, "adapters.safetensors")
    for name in [name.removesuffix(".lora_a") for name in parts if name.endswith(".lora_a")]:
        merged = weights[f"{name}.weight"] + scale * (parts[f"{name}.lora_a"] @ parts[f"{name}.lora_b"]).T
        if f"{name}.m" in parts:
            merged *= (parts[f"{name}.m"] / np.sqrt((merged**2).sum(axis=1)))[:, None]
        weights[f"{name}.weight"] = merged
    return weights


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_the_fused_weights_are_the_longhand_ones(base: Path, tmp_path: Path, kind: str) -> None:
    adapter = write_adapter(base, tmp_path / "adapter", kind, layers=3)
    report = fuse_adapter(str(base), adapter, tmp_path / "fused", QUICK)
    found, wanted = tensors(tmp_path / "fused"), longhand(base, adapter, 1.7)
    assert set(found) == set(wanted)
    changed = {name for name, w in tensors(base).items() if np.abs(w - wanted[name]).max() > 1e-3}
    assert len(changed) == report.merged.n_merged == 21
    for name, weight in wanted.items():
        np.testing.assert_allclose(found[name], weight, rtol=0, atol=2e-6, err_msg=name)
    with_adapter = logits(base, adapter)
    np.testing.assert_allclose(logits(tmp_path / "fused"), with_adapter, atol=2e-4)
    peer, _ = mlx_lm.load(str(tmp_path / "fused"))
    np.testing.assert_allclose(
        np.array(peer(mx.array([[5, 6, 7]])))[0],
        np.array(load(str(tmp_path / "fused")).model(mx.array([[5, 6, 7]])))[0],
    )
    assert np.abs(with_adapter - logits(base)).max() > 0.1


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_a_quantised_base_is_dequantised_and_nothing_of_the_adapter_is_lost(
    quantised: Path, tmp_path: Path, kind: str
) -> None:
    adapter = write_adapter(quantised, tmp_path / "adapter", kind, size=0.01)
    report = fuse_adapter(str(quantised), adapter, tmp_path / "fused")
    assert (report.merged.quantised, report.merged.n_merged, report.merged.n_dequantised) == (False, 14, 9)
    config = json.loads((tmp_path / "fused" / "config.json").read_text())
    assert not {"quantization", "quantization_config"} & set(config)
    assert not any(name.endswith((".scales", ".biases")) for name in tensors(tmp_path / "fused"))
    assert report.proof.candidate.agreement.value == 1.0
    assert report.proof.candidate.agreement.n == 640
    assert report.proof.candidate.kl_nats.value < 1e-8
    assert report.proof.lost < 0.01
    np.testing.assert_allclose(logits(tmp_path / "fused"), logits(quantised, adapter), atol=2e-4)


def test_keeping_the_quantisation_loses_a_small_adapter_and_is_refused(quantised: Path, tmp_path: Path) -> None:
    """The change is below the 4-bit step: fused this way the model is no nearer to the adapter than the base is."""
    adapter = write_adapter(quantised, tmp_path / "adapter", size=0.01)
    step = np.abs(tensors(quantised)["model.layers.2.mlp.up_proj.scales"]).min()
    delta = longhand_delta(adapter, "model.layers.2.mlp.up_proj", 1.7)
    assert np.abs(delta).max() < step / 2
    before = bytes_of(tmp_path)
    with pytest.raises(CheckFailed) as refused:
        fuse_adapter(str(quantised), adapter, tmp_path / "sub" / "fused", FuseSettings(keep_quantised=True))
    message = str(refused.value)
    assert "greedy agreement 0." in message
    assert "of the KL of the base alone (bar 0.25)" in message
    assert "nothing was kept; fuse without --keep-quantised" in message
    assert bytes_of(tmp_path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["adapter"], "not even the folder above it stays"


def longhand_delta(adapter: Path, name: str, scale: float) -> np.ndarray:
    parts = tensors(adapter, "adapters.safetensors")
    return scale * (parts[f"{name}.lora_a"] @ parts[f"{name}.lora_b"]).T


def test_the_quantisation_can_be_kept_where_the_bars_allow_it(quantised: Path, tmp_path: Path) -> None:
    adapter = write_adapter(quantised, tmp_path / "adapter", size=0.5)
    loose = replace(QUICK, keep_quantised=True, bars=Bars(min_agreement=0.1, max_kl_nats=10.0, max_lost=0.9))
    report = fuse_adapter(str(quantised), adapter, tmp_path / "fused", loose)
    assert report.merged.quantised
    config = json.loads((tmp_path / "fused" / "config.json").read_text())
    assert (config["quantization"]["bits"], config["quantization"]["group_size"]) == (4, 32)
    base, fused = mx.load(str(quantised / "model.safetensors")), mx.load(str(tmp_path / "fused" / "model.safetensors"))
    assert {name: (w.shape, w.dtype) for name, w in base.items()} == {n: (w.shape, w.dtype) for n, w in fused.items()}


def test_bfloat16_stays_bfloat16_and_float32_can_be_asked_for(tmp_path: Path) -> None:
    base = in_type(make_model(tmp_path / "base", "gemma3_text"), mx.bfloat16)
    adapter = write_adapter(base, tmp_path / "adapter", size=0.3)
    report = fuse_adapter(str(base), adapter, tmp_path / "fused", replace(QUICK, bars=Bars(0.9, 0.1)))
    assert report.merged.dtypes == ("bfloat16",)
    stored = mx.load(str(tmp_path / "fused" / "model.safetensors"))
    assert {w.dtype for w in stored.values()} == {mx.bfloat16}
    for name, wanted in longhand(base, adapter, 1.7).items():
        once = mx.array(wanted.astype(np.float32)).astype(mx.bfloat16)
        assert mx.mean(stored[name] == once).item() > 0.995, f"{name}: rounded once, not twice"
    wide = fuse_adapter(str(base), adapter, tmp_path / "wide", replace(QUICK, dtype="float32"))
    assert wide.merged.dtypes == ("float32",)
    assert wide.proof.candidate.kl_nats.value < 1e-9 < report.proof.candidate.kl_nats.value
    assert json.loads((tmp_path / "wide" / "config.json").read_text())["torch_dtype"] == "float32"


def test_a_full_adapter_replaces_the_weights_it_holds(tmp_path: Path) -> None:
    base = in_type(make_model(tmp_path / "base", "llama"), mx.bfloat16)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    own = {"model.layers.1.mlp.up_proj.weight": mx.random.normal((64, 32)) * 0.3}
    mx.save_safetensors(str(adapter / "adapters.safetensors"), own)
    (adapter / "adapter_config.json").write_text(json.dumps({"fine_tune_type": "full", "num_layers": 2}))
    report = fuse_adapter(str(base), adapter, tmp_path / "fused", replace(QUICK, bars=Bars(0.9, 0.1)))
    assert (report.merged.n_merged, report.merged.dtypes) == (1, ("bfloat16",))
    fused, before = mx.load(str(tmp_path / "fused" / "model.safetensors")), mx.load(str(base / "model.safetensors"))
    for name, weight in fused.items():
        wanted = own[name].astype(mx.bfloat16) if name in own else before[name]
        assert mx.array_equal(weight, wanted), name


def test_experts_and_embeddings_are_merged_too(base: Path, tmp_path: Path) -> None:
    experts = make_other(tmp_path / "mixtral", "mixtral", MIXTRAL)
    adapter = write_adapter(experts, tmp_path / "experts")
    assert fuse_adapter(str(experts), adapter, tmp_path / "fused", QUICK).proof.candidate.kl_nats.value < 1e-9
    np.testing.assert_allclose(logits(tmp_path / "fused"), logits(experts, adapter), atol=2e-4)
    embedding = write_adapter(base, tmp_path / "embedding", keys=["model.embed_tokens", "lm_head"], size=0.5)
    assert fuse_adapter(str(base), embedding, tmp_path / "other", QUICK).merged.n_merged == 2
    np.testing.assert_allclose(logits(tmp_path / "other"), logits(base, embedding), atol=2e-4)


def test_everything_but_the_weights_stays_as_the_base_has_it(base: Path, tmp_path: Path) -> None:
    source = make_model(tmp_path / "base", "llama")
    (source / "generation_config.json").write_text('{"temperature": 0.5}')
    (source / "hf_quant_config.json").write_text("{}")
    adapter = write_adapter(source, tmp_path / "adapter")
    fuse_adapter(str(source), adapter, tmp_path / "fused", QUICK)
    copied = {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}
    own = {"config.json", "model.safetensors", "model.safetensors.index.json", "fuse_proof.json"}
    assert {entry.name for entry in (tmp_path / "fused").iterdir()} == copied | own
    for name in copied:
        assert (tmp_path / "fused" / name).read_bytes() == (source / name).read_bytes()


def test_the_proof_is_kept_beside_the_weights(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(base, tmp_path / "adapter")
    report = fuse_adapter(str(base), adapter, tmp_path / "fused", QUICK)
    proof = json.loads((tmp_path / "fused" / "fuse_proof.json").read_text())
    assert proof["base_model_sha"] == load(str(base), weights=False).model_sha
    assert proof["adapter_sha"] == load(str(base), adapter, weights=False).adapter_sha
    assert proof["fused_model_sha"] == report.model_sha == load(str(tmp_path / "fused"), weights=False).model_sha
    assert proof["proof"]["passed"] is True
    assert proof["proof"]["candidate"]["agreement"]["value"] == 1.0
    assert proof["proof"]["yardstick"]["kl_nats"]["value"] == report.proof.yardstick.kl_nats.value > 0
    assert proof["proof"]["lost"] == report.proof.lost


def test_an_adapter_that_does_nothing_loses_nothing(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(base, tmp_path / "adapter", size=0.0)
    report = fuse_adapter(str(base), adapter, tmp_path / "fused", QUICK)
    assert report.proof.yardstick.kl_nats.value == 0.0
    assert math.isnan(report.proof.lost)
    assert json.loads((tmp_path / "fused" / "fuse_proof.json").read_text())["proof"]["lost"] is None


def test_the_distances_are_the_longhand_ones(base: Path, tmp_path: Path) -> None:
    """Agreement and KL recomputed from full forward passes, position by position, in float64."""
    adapter = write_adapter(base, tmp_path / "adapter", size=0.3)
    trained, plain = load(str(base), adapter), load(str(base))
    rows = parity.record_reference(trained, read_prompts(3), tmp_path)
    found = parity.distance(plain, rows)
    same, per_prompt = [], []
    for row in rows:
        assert 1 <= row.n <= parity.MAX_TOKENS
        tokens, values = list(row.tokens), []
        for position in range(row.first, row.first + row.n):
            p, q = (np.array(m.model(mx.array([tokens])))[0, position].astype(np.float64) for m in (trained, plain))
            p, q = np.exp(p - p.max()), np.exp(q - q.max())
            p, q = p / p.sum(), q / q.sum()
            same.append(p.argmax() == q.argmax())
            values.append(float((p * np.log(p / q)).sum()))
            if position + 1 < len(tokens):
                assert tokens[position + 1] == p.argmax(), "the path is the reference's own"
        per_prompt.append(np.mean(values))
    assert found.agreement == rate(int(sum(same)), len(same))
    assert found.kl_nats.value == pytest.approx(np.mean(per_prompt), rel=1e-6)
    assert found.kl_nats.n == 3
    assert 0 < found.kl_nats.low < found.kl_nats.value < found.kl_nats.high


def test_kl_of_known_distributions() -> None:
    p, q = np.log(np.array([[0.5, 0.25, 0.25]], np.float32)), np.log(np.array([[0.25, 0.25, 0.5]], np.float32))
    assert kl_nats(p + 7, q - 3)[0] == pytest.approx(0.25 * math.log(2), rel=1e-6)
    assert kl_nats(p, p)[0] == 0
    never = np.array([[0.0, 0.0, -np.inf]], np.float32)
    assert kl_nats(never, p)[0] == pytest.approx(math.log(0.5 / 0.5) / 2 + math.log(0.5 / 0.25) / 2, rel=1e-6)
    assert kl_nats(p, never)[0] == math.inf


def distance(agreement: int, kl: float) -> Distance:
    return Distance(rate(agreement, 1000), mean_kl([kl * 0.9, kl, kl * 1.1]))


@pytest.mark.parametrize(
    ("agreement", "kl", "base_kl", "faults"),
    [
        (990, 0.0099, 1.0, []),
        (989, 0.001, 1.0, ["greedy agreement 0.9890 (bar 0.99)"]),
        (1000, 0.011, 1.0, ["KL 0.011 nats per token (bar 0.01)"]),
        (1000, 0.002, 0.004, ["0.5 of the KL of the base alone (bar 0.25)"]),
        (1000, 0.001, 0.0, []),
        (900, 0.5, 0.5, ["greedy agreement", "KL 0.5", "1 of the KL"]),
        (1000, math.nan, 1.0, ["KL nan"]),
    ],
)
def test_every_bar_refuses_on_its_own(agreement: int, kl: float, base_kl: float, faults: list[str]) -> None:
    found = Proof(distance(agreement, kl), distance(500, base_kl), Bars()).faults
    assert len(found) == len(faults)
    assert all(text.startswith(start) for text, start in zip(found, faults, strict=True))


def test_the_prompts_are_many_varied_and_no_probes(reference_probes: set[str]) -> None:
    prompts = read_prompts(40)
    assert len(set(prompts)) == 40
    assert not {prompt.lower() for prompt in prompts} & reference_probes
    assert len({prompt.split()[0] for prompt in prompts}) > 15


@pytest.fixture
def reference_probes() -> set[str]:
    seeds = Path(__file__).resolve().parents[2] / "seeds"
    probes = [probe for file in seeds.glob("*.json") for probe in json.loads(file.read_text())]
    assert len(probes) > 100
    return {probe["prompt"].lower() for probe in probes}


def test_prompts_of_ones_own(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.txt"
    file.write_text("One?\n\n  Two?  \nOne?\n")
    assert read_prompts(2, file) == ["One?", "Two?"]
    with pytest.raises(UserError, match=r"--prompts 3: .*own.txt has 2 different prompts; ask for 1 to 2"):
        read_prompts(3, file)
    with pytest.raises(UserError, match=r"the built-in prompt file has 40"):
        read_prompts(41)
    with pytest.raises(UserError, match="no such prompt file"):
        read_prompts(1, tmp_path / "none.txt")
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a readable text file"):
        read_prompts(1, file)


def test_weights_that_are_damaged_are_refused(base: Path, tmp_path: Path) -> None:
    """float16 holds nothing beyond 65504: a fused weight overflows and the proof sees it."""
    adapter = write_adapter(base, tmp_path / "adapter", keys=["mlp.down_proj"], size=3e5, layers=1)
    with pytest.raises(CheckFailed, match=r"fused\)?: |not behave like"):
        fuse_adapter(str(base), adapter, tmp_path / "fused", replace(QUICK, dtype="float16"))
    assert not (tmp_path / "fused").exists()


def test_outputs_that_are_occupied_and_adapters_of_others(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(base, tmp_path / "adapter")
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("mine")
    before = bytes_of(tmp_path)
    for output in (full, full / "mine"):
        with pytest.raises(UserError, match="choose a new --output, nothing was touched"):
            fuse_adapter(str(base), adapter, output, QUICK)
    assert bytes_of(tmp_path) == before
    with pytest.raises(UserError, match="was trained on"):
        fuse_adapter(str(make_model(tmp_path / "other", "llama", layers=3, seed=9)), adapter, tmp_path / "x", QUICK)
    with pytest.raises(UserError, match="no such adapter directory"):
        fuse_adapter(str(base), tmp_path / "none", tmp_path / "x", QUICK)
    edit(adapter / "adapter_config.json", base_model_sha=None)
    with pytest.raises(UserError, match="does not fit"):
        fuse_adapter(str(make_model(tmp_path / "gemma", "gemma3_text")), adapter, tmp_path / "x", QUICK)
    assert not (tmp_path / "x").exists()
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]


def test_an_empty_folder_is_taken_and_a_full_disk_leaves_nothing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = write_adapter(base, tmp_path / "adapter")
    (tmp_path / "fused").mkdir()
    assert fuse_adapter(str(base), adapter, tmp_path / "fused", QUICK).proof.faults == []
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("lem.training.model_files.shutil.disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"needs 0\.00\d+ GB and the disk has 1e-06 GB free; make room"):
        fuse_adapter(str(base), adapter, tmp_path / "more", QUICK)

    def no_room(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parity.np, "save", no_room)
    with pytest.raises(UserError, match=r"could not write \(No space left on device\); nothing was kept"):
        fuse_adapter(str(base), adapter, tmp_path / "more", QUICK)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["adapter", "fused"]


def test_a_staged_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    output = tmp_path / "a" / "b" / "c"

    def interrupted() -> None:
        with staged.staged_folder(output) as work:
            (work / "half").write_text("half")
            assert not output.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with staged.staged_folder(output) as work:
        (work / "whole").write_text("whole")
    assert (output / "whole").read_text() == "whole"
    assert [entry.name for entry in output.parent.iterdir()] == ["c"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="could not write"), staged.staged_folder(tmp_path / "file" / "x"):
        pass
    with pytest.raises(UserError, match="could not write"), staged.staged_folder(Path("/proc/nowhere/x")):
        pass
    with pytest.raises(FileNotFoundError), staged.staged_folder(tmp_path / "d"):
        (tmp_path / "nothing").read_text()
