"""PEFT adapters: what is written is PEFT's formula, what is read computes it, and what cannot be mapped is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapters import GEMMA_TEXT, MIXTRAL, TOKENS, edit, logits, make_other, tensors, write_adapter
from lem.errors import DataError, UserError
from lem.interop.peft import import_peft
from lem.interop.peft_config import read_peft_config
from lem.interop.peft_export import export_peft
from lem.training.convert import convert_to_mlx
from small_plan import bytes_of
from tiny import make_model

K, UP, DOWN, HEAD = "model.layers.{}.self_attn.k_proj", "model.layers.{}.mlp.up_proj", "mlp.down_proj", "lm_head"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hidden 32, inner 64, one key/value head of 16: up, down, key and value matrices are rectangular."""
    folder = make_model(tmp_path_factory.mktemp("peft") / "base", "llama")
    shapes = {name: w.shape for name, w in tensors(folder).items()}
    assert (shapes[f"{K.format(0)}.weight"], shapes[f"{UP.format(0)}.weight"]) == ((16, 32), (64, 32))
    return folder


def applied(base: Path, peft: Path, output: Path) -> Path:
    """PEFT's definition in longhand, from its two files alone: W + lora_alpha / r * B A, with DoRA normed to m."""
    config = json.loads((peft / "adapter_config.json").read_text())
    parts, weights = load_file(peft / "adapter_model.safetensors"), tensors(base)
    names = {re.sub(r"\.lora_A\.weight$", "", name) for name in parts if name.endswith("lora_A.weight")}
    for name in names:
        a, b = (parts[f"{name}.lora_{x}.weight"].astype(np.float64) for x in "AB")
        rank, alpha = config["r"], config["lora_alpha"]
        for kind, patterns in (("rank", config.get("rank_pattern")), ("alpha", config.get("alpha_pattern"))):
            for pattern, value in (patterns or {}).items():
                if re.fullmatch(rf"(.*\.)?({pattern})", name):
                    rank, alpha = (value, alpha) if kind == "rank" else (rank, value)
        assert a.shape[0] == b.shape[1] == rank
        key = name.removeprefix("base_model.model.") + ".weight"
        merged = weights[key] + alpha / (np.sqrt(rank) if config.get("use_rslora") else rank) * (b @ a)
        if config["use_dora"]:
            merged *= (parts[f"{name}.lora_magnitude_vector"] / np.linalg.norm(merged, axis=1))[:, None]
        weights[key] = merged
    shutil.copytree(base, output)
    save_file({name: w.astype(np.float32) for name, w in weights.items()}, output / "model.safetensors")
    return output


def write_peft(folder: Path, ranks: dict[str, int], base: Path, **config: Any) -> Path:
    """A PEFT adapter with random matrices of the given ranks, made with numpy and safetensors alone."""
    rng, parts = np.random.default_rng(11), {}
    for module, rank in ranks.items():
        n_out, n_in = tensors(base)[f"{module}.weight"].shape
        name = f"base_model.model.{module}"
        parts[f"{name}.lora_A.weight"] = rng.normal(size=(rank, n_in)).astype(np.float32) * 0.3
        parts[f"{name}.lora_B.weight"] = rng.normal(size=(n_out, rank)).astype(np.float32) * 0.1
        if config.get("use_dora"):
            length = np.linalg.norm(tensors(base)[f"{module}.weight"], axis=1)
            parts[f"{name}.lora_magnitude_vector"] = (length * rng.uniform(0.8, 1.2, n_out)).astype(np.float32)
    folder.mkdir()
    save_file(parts, folder / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 9, "lora_dropout": 0.05, "bias": "none",
        "target_modules": sorted(ranks), "use_dora": False, "use_rslora": False, "rank_pattern": {},
        "alpha_pattern": {}, "init_lora_weights": True, "modules_to_save": None, "loftq_config": {},
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(settings | config))
    return folder


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_an_exported_adapter_is_pefts_formula(base: Path, tmp_path: Path, kind: str) -> None:
    adapter = write_adapter(base, tmp_path / "adapter", kind)
    report = export_peft(adapter, tmp_path / "peft")
    assert (report.n_layers, report.rank, report.scale, report.method) == (14, 3, 1.7, kind)
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert config["lora_alpha"] == pytest.approx(1.7 * 3)
    assert (config["peft_type"], config["r"], config["use_dora"]) == ("LORA", 3, kind == "dora")
    with_adapter = logits(base, adapter)
    np.testing.assert_allclose(logits(applied(base, tmp_path / "peft", tmp_path / "x")), with_adapter, atol=1e-4)
    assert np.abs(with_adapter - logits(base)).max() > 0.05
    stored, written = tensors(adapter, "adapters.safetensors"), load_file(tmp_path / "peft/adapter_model.safetensors")
    assert written[f"base_model.model.{UP.format(1)}.lora_A.weight"].shape == (3, 32)
    assert written[f"base_model.model.{UP.format(1)}.lora_B.weight"].shape == (64, 3)
    np.testing.assert_array_equal(
        written[f"base_model.model.{UP.format(1)}.lora_B.weight"], stored[f"{UP.format(1)}.lora_b"].T
    )
    assert len(written) == (3 if kind == "dora" else 2) * 14


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("keys", [None, ["mlp.down_proj", "self_attn.k_proj"], [UP.format(0), K.format(1), HEAD]])
@pytest.mark.parametrize("layers", [1, 2])
def test_there_and_back_is_the_same_adapter_to_the_bit(
    base: Path, tmp_path: Path, kind: str, keys: list[str] | None, layers: int
) -> None:
    adapter = write_adapter(base, tmp_path / "adapter", kind, keys=keys, layers=layers)
    export_peft(adapter, tmp_path / "peft")
    import_peft(tmp_path / "peft", str(base), tmp_path / "back")
    stored, back = (mx.load(str(d / "adapters.safetensors")) for d in (adapter, tmp_path / "back"))
    assert set(stored) == set(back)
    assert all(mx.array_equal(stored[name], back[name]) and stored[name].dtype == back[name].dtype for name in stored)
    settings = json.loads((tmp_path / "back" / "adapter_config.json").read_text())["lora_parameters"]
    assert (settings["rank"], np.float32(settings["scale"])) == (3, np.float32(1.7))
    np.testing.assert_array_equal(logits(base, tmp_path / "back"), logits(base, adapter))
    peer, _ = mlx_lm.load(str(base), adapter_path=str(tmp_path / "back"))
    np.testing.assert_array_equal(np.array(peer(mx.array([TOKENS]))[0]), logits(base, adapter))


@pytest.mark.parametrize(
    ("keys", "layers", "wanted"),
    [
        (["mlp.down_proj", "self_attn.k_proj"], 2, (["down_proj", "k_proj"], None)),
        (["mlp.down_proj"], 1, (["down_proj"], [1])),
        ([UP.format(0), K.format(1)], 2, ([UP.format(0), K.format(1)], None)),
        (["mlp.down_proj", HEAD], 2, (["down_proj", "lm_head"], None)),
    ],
)
def test_the_targets_name_exactly_the_adapted_modules(
    base: Path, tmp_path: Path, keys: list[str], layers: int, wanted: tuple[list[str], list[int] | None]
) -> None:
    adapter = write_adapter(base, tmp_path / "adapter", keys=keys, layers=layers)
    export_peft(adapter, tmp_path / "peft", str(base))
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert (sorted(config["target_modules"]), config["layers_to_transform"]) == (sorted(wanted[0]), wanted[1])
    modules = {name.removesuffix(".weight") for name in tensors(base) if name.endswith("proj.weight") or HEAD in name}
    chosen = {name for name in modules if pefts_rule(name, config["target_modules"], config["layers_to_transform"])}
    stored = {name.rsplit(".", 1)[0] for name in tensors(adapter, "adapters.safetensors")}
    assert chosen == stored


def pefts_rule(name: str, targets: list[str], layers: list[int] | None) -> bool:
    """How PEFT decides (`check_target_module_exists`): a full name, or an ending within the layers asked for."""
    if name in targets:
        return True
    number = re.match(r".*?\.[^.]*\.(\d+)\.", name)
    fits = any(name.endswith(f".{target}") for target in targets)
    return fits and (layers is None or (number is not None and int(number[1]) in layers))


ALL = {UP.format(0): 4, UP.format(1): 4, K.format(0): 4, K.format(1): 4}


@pytest.mark.parametrize(
    ("ranks", "config", "padded", "rescaled"),
    [
        (ALL, {}, 0, 0),
        (ALL, {"use_rslora": True}, 0, 0),
        (ALL, {"use_dora": True}, 0, 0),
        (ALL | {K.format(0): 2, UP.format(1): 6}, {"rank_pattern": {r"0.*\.k_proj": 2, UP.format(1): 6}}, 3, 2),
        (ALL | {K.format(0): 2, K.format(1): 2},
         {"rank_pattern": {"k_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 30}, "use_rslora": True}, 2, 2),
        (ALL | {HEAD: 4}, {"use_dora": True, "alpha_pattern": {HEAD: 3}}, 0, 1),
        ({UP.format(0): 4, K.format(1): 4}, {"lora_alpha": 0.5}, 0, 0),
    ],
    ids=["plain", "rslora", "dora", "ranks", "ranks, alphas and rslora", "dora and head", "single layers"],
)  # fmt: skip
def test_an_imported_adapter_computes_pefts_formula(
    base: Path, tmp_path: Path, ranks: dict[str, int], config: dict[str, Any], padded: int, rescaled: int
) -> None:
    peft = write_peft(tmp_path / "peft", ranks, base, **config)
    report = import_peft(peft, str(base), tmp_path / "adapter")
    assert (report.n_layers, report.n_padded, report.n_rescaled) == (len(ranks), padded, rescaled)
    assert report.rank == max(ranks.values())
    found = logits(base, tmp_path / "adapter")
    np.testing.assert_allclose(found, logits(applied(base, peft, tmp_path / "x")), atol=1e-4)
    assert np.abs(found - logits(base)).max() > 0.02
    peer, _ = mlx_lm.load(str(base), adapter_path=str(tmp_path / "adapter"))
    np.testing.assert_array_equal(np.array(peer(mx.array([TOKENS]))[0]), found)


def test_an_imported_adapter_says_where_it_comes_from(base: Path, tmp_path: Path) -> None:
    peft = write_peft(tmp_path / "somebodys-lora", ALL, base)
    import_peft(peft, str(base), tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["lora_parameters"] == {
        "rank": 4, "scale": 2.25, "dropout": 0.05, "keys": ["mlp.up_proj", "self_attn.k_proj"],
    }  # fmt: skip
    assert (config["fine_tune_type"], config["num_layers"]) == ("lora", 2)
    assert config["imported_from"] == "peft:somebodys-lora"
    assert set(config["imported_sha"]) == {"adapter_config.json", "adapter_model.safetensors"}
    with pytest.raises(UserError, match="was trained on"):
        logits(make_model(tmp_path / "other", "llama", seed=5), tmp_path / "adapter")


def test_a_multimodal_base_has_other_names_in_peft(tmp_path: Path) -> None:
    config = {"text_config": {**GEMMA_TEXT, "model_type": "gemma3_text"}, "vocab_size": 259}
    base = make_other(tmp_path / "gemma3", "gemma3", config)
    adapter = write_adapter(base, tmp_path / "adapter", keys=["mlp.up_proj"])
    export_peft(adapter, tmp_path / "peft")
    names = {f"model.language_model.layers.{number}.mlp.up_proj" for number in range(2)}
    written = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    assert set(written) == {f"base_model.model.{name}.lora_{x}.weight" for name in names for x in "AB"}
    assert set(json.loads((tmp_path / "peft" / "adapter_config.json").read_text())["target_modules"]) == names
    import_peft(tmp_path / "peft", str(base), tmp_path / "back")
    np.testing.assert_array_equal(logits(base, tmp_path / "back"), logits(base, adapter))


def test_a_quantised_base_takes_an_imported_adapter(base: Path, tmp_path: Path) -> None:
    convert_to_mlx(str(base), tmp_path / "q8", 8, 32)
    peft = write_peft(tmp_path / "peft", ALL, base)
    import_peft(peft, str(tmp_path / "q8"), tmp_path / "adapter")
    found = logits(tmp_path / "q8", tmp_path / "adapter")
    np.testing.assert_allclose(found, logits(applied(base, peft, tmp_path / "x")), atol=0.2)
    assert np.abs(found - logits(tmp_path / "q8")).max() > 0.02


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "LOHA"}, "its peft_type is 'LOHA'; only LORA"),
        ({"modules_to_save": ["lm_head"]}, 'option modules_to_save = ["lm_head"] cannot be mapped'),
        ({"target_parameters": ["experts.w1"]}, "option target_parameters"),
        ({"lora_bias": True}, "option lora_bias = true"),
        ({"fan_in_fan_out": True}, "option fan_in_fan_out = true"),
        ({"trainable_token_indices": [1]}, "option trainable_token_indices = [1]"),
        ({"option_of_2031": {"x": 1}}, 'option option_of_2031 = {"x": 1}'),
        ({"bias": "lora_only"}, "bias = 'lora_only' trains biases"),
        ({"init_lora_weights": "pissa_niter_4"}, "also changes the base model's weights"),
        ({"lora_alpha": 0}, "its lora_alpha is 0"),
        ({"r": 0}, "ranks must be at least 1"),
        ({"r": "many"}, "r, lora_alpha or a pattern is missing or wrong"),
        ({"rank_pattern": {"(": 2}}, "r, lora_alpha or a pattern is missing or wrong"),
        ({"lora_alpha": None}, "r, lora_alpha or a pattern is missing or wrong"),
        ({"r": 5}, "lora_A of model.layers.0.mlp.up_proj has shape (4, 32), and rank and model ask for (5, 32)"),
        ({"use_dora": True}, "has lora_A, lora_B but needs lora_A, lora_B, lora_magnitude_vector"),
    ],
)
def test_what_mlx_lm_cannot_express_is_refused_by_name(
    base: Path, tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    peft = write_peft(tmp_path / "peft", ALL, base)
    edit(peft / "adapter_config.json", **config)
    with pytest.raises(UserError, match=re.escape(message)):
        import_peft(peft, str(base), tmp_path / "adapter")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["peft"]


UP_A = f"base_model.model.{UP.format(0)}.lora_A.weight"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("base_model.model.model.embed_tokens.lora_embedding_A", np.zeros((4, 259)), "adapts an embedding"),
        ("base_model.model.lm_head.modules_to_save.weight", np.zeros((259, 32)), "is a whole trained module"),
        ("base_model.model.lm_head.base_layer.weight", np.zeros((259, 32)), "is a copy of a base layer"),
        (f"base_model.model.{UP.format(0)}.lora_B.bias", np.zeros(64), "is a bias"),
        (f"{UP.format(0)}.lora_A.weight", np.zeros((4, 32)), "is not a LoRA matrix of a module"),
        (f"base_model.model.{UP.format(0)}.lora_A.weight.weight", np.zeros((4, 32)), "is not a LoRA matrix"),
        ("base_model.model.model.layers.0.mlp.experts.3.w1.lora_A.weight", np.zeros((4, 32)), "no such module"),
        ("base_model.model.model.embed_tokens.lora_A.weight", np.zeros((4, 32)), "a module of type Embedding there"),
        (UP_A, np.zeros((32, 4)), "lora_A of model.layers.0.mlp.up_proj has shape (32, 4)"),
        (UP_A, np.full((4, 32), np.nan), "holds values that are not finite"),
        (f"base_model.model.{UP.format(0)}.lora_magnitude_vector", np.ones(64), "has lora_A, lora_B, lora_magnitude"),
    ],
)
def test_tensors_that_do_not_belong_are_named(
    base: Path, tmp_path: Path, name: str, value: np.ndarray, message: str
) -> None:
    peft = write_peft(tmp_path / "peft", ALL, base)
    parts = load_file(peft / "adapter_model.safetensors")
    save_file(parts | {name: value.astype(np.float32)}, peft / "adapter_model.safetensors")
    with pytest.raises(UserError, match=re.escape(message)):
        import_peft(peft, str(base), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_files_that_are_missing_or_broken(base: Path, tmp_path: Path) -> None:
    peft = write_peft(tmp_path / "peft", ALL, base)

    def refused(message: str, folder: Path = peft, kind: type[UserError] = UserError) -> None:
        with pytest.raises(kind, match=message):
            import_peft(folder, str(base), tmp_path / "adapter")

    refused("no such folder; give the PEFT adapter's directory", tmp_path / "none")
    refused("no adapter_model.safetensors here; it is not a PEFT adapter", base)
    text = (peft / "adapter_config.json").read_text()
    (peft / "adapter_config.json").write_text("{")
    refused("not valid JSON", kind=DataError)
    (peft / "adapter_config.json").write_text("[]")
    refused("must be one JSON object", kind=DataError)
    (peft / "adapter_config.json").unlink()
    refused("no adapter_config.json here")
    (peft / "adapter_config.json").write_text(text)
    weights = (peft / "adapter_model.safetensors").read_bytes()
    (peft / "adapter_model.safetensors").write_bytes(weights[:100])
    refused("not a readable safetensors file", kind=DataError)
    save_file({}, peft / "adapter_model.safetensors")
    refused("holds no tensors", kind=DataError)
    (peft / "adapter_model.safetensors").rename(peft / "adapter_model.bin")
    refused("save the adapter as safetensors, a pickle is not opened")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "mine").write_text("mine")
    refused("is not empty; choose a new --output")


def test_an_exported_adapter_remembers_its_base(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(base, tmp_path / "adapter")
    export_peft(adapter, tmp_path / "peft")
    other = make_model(tmp_path / "other", "llama", seed=5)
    with pytest.raises(UserError, match=r"belongs to a base with weights [0-9a-f]{12}, not to .*give --model its own"):
        import_peft(tmp_path / "peft", str(other), tmp_path / "back")
    (tmp_path / "peft" / "lem_provenance.json").write_text("[")
    with pytest.raises(DataError, match="not a readable provenance"):
        import_peft(tmp_path / "peft", str(base), tmp_path / "back")
    (tmp_path / "peft" / "lem_provenance.json").unlink()
    assert import_peft(tmp_path / "peft", str(other), tmp_path / "back").n_layers == 14


def test_adapters_that_peft_has_no_form_for(base: Path, tmp_path: Path) -> None:
    def refused(adapter: Path, message: str, model: str | None = None) -> None:
        before = bytes_of(tmp_path)
        with pytest.raises(UserError, match=message):
            export_peft(adapter, tmp_path / "peft", model)
        assert bytes_of(tmp_path) == before
        assert not (tmp_path / "peft").exists()

    experts = make_other(tmp_path / "mixtral", "mixtral", MIXTRAL)
    refused(write_adapter(experts, tmp_path / "moe"), r"switch_mlp\.\w+ is adapted by LoRASwitchLinear")
    refused(write_adapter(experts, tmp_path / "dense", keys=["self_attn.k_proj"]), "stacked or transposed")
    embedding = write_adapter(base, tmp_path / "embedding", keys=["model.embed_tokens"])
    refused(embedding, r"model\.embed_tokens is adapted by LoRAEmbedding")
    adapter = write_adapter(base, tmp_path / "adapter")
    refused(adapter, "was trained on", str(make_model(tmp_path / "other", "llama", seed=5)))
    edit(adapter / "adapter_config.json", model=None)
    refused(adapter, "does not name the base model; give --model")
    edit(adapter / "adapter_config.json", fine_tune_type="full")
    refused(adapter, "a 'full' adapter has no PEFT form; merge it with `lem fuse`", str(base))
    refused(tmp_path / "none", "no adapter_config.json here")


def test_options_that_only_say_how_it_was_made_are_read_over(base: Path, tmp_path: Path) -> None:
    """The configuration that PEFT 0.21.2 writes for a plain LoRA, all its options included."""
    peft = write_peft(tmp_path / "peft", ALL, base)
    edit(
        peft / "adapter_config.json", alora_invocation_tokens=None, arrow_config=None, auto_mapping=None,
        corda_config=None, ensure_weight_tying=False, eva_config=None, exclude_modules=None, fan_in_fan_out=False,
        inference_mode=True, layer_replication=None, layers_pattern=None, layers_to_transform=None, lora_bias=False,
        lora_ga_config=None, megatron_config=None, megatron_core="megatron.core", modules_to_save=None,
        peft_version="0.21.2", qalora_group_size=16, revision=None, target_parameters=None, use_bdlora=None,
        use_qalora=False, trainable_token_indices=None,
    )  # fmt: skip
    settings = read_peft_config(peft)
    assert (settings.rank, settings.alpha, settings.scale_of(K.format(0))) == (4, 9.0, 2.25)
