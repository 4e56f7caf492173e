"""Loading: what is missing, unknown or does not fit is one sentence, and identities follow the bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from lem.chat.load import ChatModel, load, model_identity, resolve_model_path
from lem.errors import UserError
from tiny import make_model


@pytest.fixture
def folder(tmp_path: Path, model_folders: dict[str, Path]) -> Path:
    """A copy of the Gemma model that a test may damage."""
    return Path(shutil.copytree(model_folders["gemma3_text"], tmp_path / "model"))


def make_adapter(path: Path, base: Path, *, rank: int = 4, layers: int = 2, seed: int = 5) -> Path:
    """A LoRA adapter with random weights in both factors, in mlx-lm's format."""
    chat = load(str(base))
    parameters = {"rank": rank, "scale": 2.0, "dropout": 0.0}
    mx.random.seed(seed)
    chat.model.freeze()
    linear_to_lora_layers(chat.model, layers, parameters)
    weights = {n: mx.random.normal(w.shape) for n, w in tree_flatten(chat.model.trainable_parameters())}
    path.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(path / "adapters.safetensors"), weights)
    config = {"fine_tune_type": "lora", "num_layers": layers, "lora_parameters": parameters}
    (path / "adapter_config.json").write_text(json.dumps({**config, "base_model_sha": chat.model_sha}))
    return path


def edit(path: Path, **changes: object) -> None:
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, **changes}))


def logits(chat: ChatModel) -> list[float]:
    return list(chat.model(mx.array([[1, 2, 3]]))[0, -1].tolist())


@pytest.mark.parametrize("model", ["/no/such/folder", "./nothing", "~/nothing-here", "nothing-here", "a/b/c/d"])
def test_a_missing_model_is_a_sentence(model: str) -> None:
    with pytest.raises(UserError, match="no such model; give --model a folder"):
        load(model)


def test_a_folder_that_is_no_model_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no config\.json, so it is not a model"):
        resolve_model_path(str(tmp_path))


def test_a_hub_model_that_cannot_be_fetched_is_a_sentence() -> None:
    with pytest.raises(UserError, match=r"nobody/no-such-model: could not fetch this model from the hub"):
        load("nobody/no-such-model")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: edit(f / "config.json", model_type="perceptron9000"), "cannot load this model.*perceptron9000"),
        (lambda f: (f / "config.json").write_text('{"model_type": '), "cannot load this model"),
        (lambda f: (f / "tokenizer.json").unlink(), "cannot load this model"),
        (lambda f: (f / "tokenizer_config.json").write_text('{"eos_token"'), "cannot load this model"),
        (lambda f: (f / "model.safetensors").unlink(), "the model folder is incomplete"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x00" * 40), "cannot load this model"),
        (lambda f: edit(f / "config.json", num_hidden_layers=3), "cannot load this model"),
        (lambda f: edit(f / "config.json", intermediate_size=80), "cannot load this model"),
    ],
    ids=["architecture", "broken config", "no tokenizer", "broken tokenizer config", "no weights", "broken weights",
         "a layer too many", "another shape"],
)  # fmt: skip
def test_a_damaged_model_is_a_sentence(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        load(str(folder))
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_model_without_a_template_is_for_plain_text_only(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "base", "llama", template=None)
    with pytest.raises(UserError, match="has no chat template; use an instruction-tuned model"):
        load(str(folder))
    assert load(str(folder), need_template=False).model is not None


def test_without_weights_everything_but_the_module_is_known(folder: Path) -> None:
    light, full = load(str(folder), weights=False), load(str(folder))
    assert light.model is None
    assert (light.identity, light.name, light.stop_token_ids) == (full.identity, full.name, full.stop_token_ids)


def test_identity_follows_every_file_that_shapes_an_answer_and_no_other(folder: Path) -> None:
    seen = {model_identity(folder)}
    (folder / "README.md").write_text("a card")
    assert {model_identity(folder)} == seen
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        with (folder / name).open("ab") as file:
            file.write(b" ")
        seen.add(model_identity(folder))
    (folder / "chat_template.jinja").write_text("x")
    seen.add(model_identity(folder))
    assert len(seen) == 6


def test_an_adapter_changes_the_answers_and_the_identity(tmp_path: Path, folder: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", folder)
    bare, adapted = load(str(folder)), load(str(folder), adapter)
    assert logits(bare) != logits(adapted)
    assert bare.identity["adapter"] is None
    assert adapted.identity["adapter"] == load(str(folder), adapter, weights=False).identity["adapter"]
    other = load(str(folder), make_adapter(tmp_path / "other", folder, seed=6), weights=False)
    edit(adapter / "adapter_config.json", lora_parameters={"rank": 4, "scale": 3.0, "dropout": 0.0})
    rescaled = load(str(folder), adapter, weights=False)
    assert len({bare.adapter_sha, adapted.adapter_sha, other.adapter_sha, rescaled.adapter_sha}) == 4


def test_an_adapter_of_another_base_is_refused(tmp_path: Path, folder: Path) -> None:
    other = make_model(tmp_path / "other", seed=9)
    adapter = make_adapter(tmp_path / "adapter", other)
    for weights in (True, False):
        with pytest.raises(UserError, match=r"was trained on .*, not on .*; use the base it belongs to"):
            load(str(folder), adapter, weights=weights)


def drop_tensor(adapter: Path) -> None:
    weights = mx.load(str(adapter / "adapters.safetensors"))
    mx.save_safetensors(str(adapter / "adapters.safetensors"), dict(sorted(weights.items())[1:]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda a: edit(a / "adapter_config.json", num_layers=5), "has 5 layers but .* has 2"),
        (lambda a: edit(a / "adapter_config.json", lora_parameters={"rank": 7, "scale": 1.0, "dropout": 0.0}),
         "does not fit"),
        (lambda a: edit(a / "adapter_config.json", num_layers=1), "does not fit"),
        (lambda a: edit(a / "adapter_config.json", lora_parameters=None), "does not fit"),
        (drop_tensor, "lacks 1 tensors of its own layers"),
        (lambda a: (a / "adapters.safetensors").write_bytes(b"\x00" * 40), "does not fit"),
        (lambda a: (a / "adapters.safetensors").unlink(), r"no adapters\.safetensors here"),
        (lambda a: (a / "adapter_config.json").unlink(), r"no adapter_config\.json here"),
        (lambda a: (a / "adapter_config.json").write_text('{"num_layers": 2,\n oops}'),
         r"adapter_config\.json line 2: not valid JSON"),
        (lambda a: (a / "adapter_config.json").write_text("[]"), "must be one JSON object"),
        (lambda a: shutil.rmtree(a), "no such adapter directory"),
    ],
    ids=["too many layers", "rank", "too few layers", "no parameters", "a tensor missing", "broken weights",
         "no weights", "no config", "broken config", "config is a list", "nothing there"],
)  # fmt: skip
def test_an_adapter_that_does_not_fit_is_a_sentence(
    tmp_path: Path, folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    adapter = make_adapter(tmp_path / "adapter", folder)
    damage(adapter)
    with pytest.raises(UserError, match=message) as caught:
        load(str(folder), adapter)
    assert "\n" not in str(caught.value)
