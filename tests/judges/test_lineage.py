"""Kinship of judges: by hashes that training and fusing leave, by names, by families; and what is not known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapters import edit, write_adapter
from lem.chat.load import adapter_identity, load, model_identity
from lem.judges.ancestry import Ancestry, ancestry_of
from lem.judges.lineage import FAMILY, NAME, WEIGHTS, Kin, arm_ancestry, kinship, lineage_notes, unknown_lineage
from lem.judges.protocol import JudgeIdentity
from lem.records import RunInfo
from lem.training.fuse import FuseSettings, fuse_adapter
from lem.training.methods import Applied
from lem.training.prepare import adapter_config
from lem.training.settings import TrainingSettings
from tiny import make_model

NANO = Path(__file__).resolve().parents[2] / "models" / "lem-nano"


def run_of(**arms: dict[str, Any]) -> RunInfo:
    return RunInfo("r", "eval", arms=arms)


def facts(model: str, adapter: Path | None = None) -> dict[str, Any]:
    """What `run.json` holds of an arm, by the code that writes it there."""
    chat = load(model, adapter, weights=False)
    return {
        "model": chat.name, "model_sha": chat.model_sha, "adapter": chat.adapter, "adapter_sha": chat.adapter_sha,
        "identity": chat.identity,
    }  # fmt: skip


def remote(model: str, name: str = "the-judge") -> JudgeIdentity:
    return JudgeIdentity(name, "openai", model)


def local(path: Path) -> JudgeIdentity:
    return JudgeIdentity(path.name, "mlx", str(path), lineage={"sha": [model_identity(path)], "names": [path.name]})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "unnamed", "llama")


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    return write_adapter(base, base.parent / "taught")


@pytest.fixture(scope="module")
def fused(base: Path, adapter: Path) -> Path:
    fuse_adapter(str(base), adapter, base.parent / "merged", FuseSettings(n_prompts=2))
    return base.parent / "merged"


def test_a_judge_is_kin_of_every_arm_on_its_own_weights(base: Path, adapter: Path) -> None:
    other = make_model(base.parent / "stranger", "llama", seed=5)
    info = run_of(base=facts(str(base)), trained=facts(str(base), adapter), stranger=facts(str(other)))
    sha = model_identity(base)[:12]
    why = f"the weights {sha} are the model of the judge and the model of the arm"
    assert kinship(local(base), info) == [Kin("base", why, WEIGHTS), Kin("trained", why, WEIGHTS)]
    assert [kin.arm for kin in kinship(local(other), info)] == ["stranger"]


def test_a_judge_with_an_adapter_is_kin_of_whoever_has_either(base: Path, adapter: Path) -> None:
    chat = load(str(base), adapter, weights=False)
    shas = {"sha": [chat.model_sha, str(chat.adapter_sha)]}
    judge = JudgeIdentity("j", "mlx", "elsewhere", settings=chat.identity, lineage=shas)
    info = run_of(trained=facts(str(base), adapter), copied={"adapter_sha": chat.adapter_sha})
    assert [kin.arm for kin in kinship(judge, info)] == ["trained", "copied"]
    assert kinship(judge, info)[1].why.endswith("are the adapter of the judge and the adapter of the arm")


def test_weights_are_known_by_their_hash_whatever_they_are_called(base: Path, tmp_path: Path) -> None:
    copy = make_model(tmp_path / "renamed", "llama")
    assert [kin.kind for kin in kinship(local(copy), run_of(base=facts(str(base))))] == [WEIGHTS]
    served = JudgeIdentity("j", "openai", "whatever", lineage={"sha": [model_identity(base)]})
    assert [kin.kind for kin in kinship(served, run_of(base=facts(str(base))))] == [WEIGHTS]


def test_a_fused_model_is_kin_of_what_it_was_fused_from(base: Path, adapter: Path, fused: Path) -> None:
    info = run_of(base=facts(str(base)), trained=facts(str(base), adapter))
    found = kinship(local(fused), info)
    assert [(kin.arm, kin.kind) for kin in found] == [("base", WEIGHTS), ("trained", WEIGHTS)]
    assert "the origin of the judge and the model of the arm" in found[0].why
    assert [kin.arm for kin in kinship(local(base), run_of(merged=facts(str(fused))))] == ["merged"]


def test_ancestry_goes_on_through_several_generations(base: Path, fused: Path, tmp_path: Path) -> None:
    second = write_adapter(fused, tmp_path / "second")
    fuse_adapter(str(fused), second, tmp_path / "twice", FuseSettings(n_prompts=2))
    assert model_identity(base) in ancestry_of(str(tmp_path / "twice"), {}).shas
    assert [kin.arm for kin in kinship(local(tmp_path / "twice"), run_of(base=facts(str(base))))] == ["base"]


def test_a_proof_of_other_weights_is_not_believed(base: Path, fused: Path, tmp_path: Path) -> None:
    replaced = make_model(tmp_path / "replaced", "llama", seed=9)
    (replaced / "fuse_proof.json").write_bytes((fused / "fuse_proof.json").read_bytes())
    assert kinship(local(replaced), run_of(base=facts(str(base)))) == []


def test_an_adapter_is_kin_of_the_one_it_was_trained_on_from(base: Path, adapter: Path, tmp_path: Path) -> None:
    """Even where neither base can be seen: the judge holds only the parent adapter's hash."""
    chat, parent = load(str(base), weights=False), adapter_identity(adapter)
    child = write_adapter(base, tmp_path / "child", size=0.1)
    applied = Applied(2, None, 1, 1)
    text = adapter_config(chat, tmp_path, {}, TrainingSettings(rank=3, scale=1.7), applied, parent)
    (child / "adapter_config.json").write_text(text)
    arm = facts(str(base), child)
    judge = JudgeIdentity("j", "mlx", "gone", lineage={"sha": ["f" * 64, parent]})
    why = f"the weights {parent[:12]} are an ancestor of the judge and the start of the adapter of the arm"
    assert kinship(judge, run_of(trained=arm)) == [Kin("trained", why, WEIGHTS)]
    edit(child / "adapter_config.json", num_layers=1)  # another adapter than the one that answered
    assert kinship(judge, run_of(trained=arm)) == []


def test_a_converted_model_is_kin_of_its_source_where_provenance_says_so(base: Path, tmp_path: Path) -> None:
    converted = make_model(tmp_path / "converted", "llama", seed=3)
    assert kinship(local(converted), run_of(base=facts(str(base)))) == []
    made = {"model": str(base), "base_model_sha": model_identity(base), "model_sha": model_identity(converted)}
    (converted / "lem_provenance.json").write_text(json.dumps(made))
    assert [kin.kind for kin in kinship(local(converted), run_of(base=facts(str(base))))] == [WEIGHTS]


@pytest.mark.parametrize(
    ("model", "arm", "family"),
    [
        ("mlx-community/Qwen3-32B-4bit", {"model": "Qwen/Qwen2.5-0.5B"}, "qwen"),
        ("google/gemma-3-27b-it", {"model": "lthn/LEM-Gemma3-4B"}, "gemma"),
        ("Qwen/Qwen3-8B", {"model": "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"}, "qwen"),
        ("models/lem-nano", {"model": "mine", "adapter": "adapters/demo-lem-nano-1"}, "lem-nano"),
        ("gemma-3-1b", {"model": None, "published_name": "gemma-3-12b-lek"}, "gemma"),
    ],
)
def test_a_judge_is_kin_of_its_family(model: str, arm: dict[str, Any], family: str) -> None:
    (kin,) = kinship(remote(model), run_of(arm=arm))
    assert kin.kind == FAMILY
    assert kin.why.startswith(f"both are of the family {family}, the judge by the name ")


def test_strangers_are_no_kin() -> None:
    info = run_of(base={"model": "mlx-community/gemma-3-1b-it-4bit"}, other={"model": "Qwen/Qwen3-4B"}, odd={})
    assert kinship(remote("gemini-2.5-flash"), info) == []
    assert kinship(remote("meta-llama/Llama-3.3-70B-Instruct"), info) == []


def test_one_name_is_kin_even_where_nothing_else_is_known() -> None:
    info = run_of(a={"model": "runs/made/my-model"}, b={"model": "elsewhere/model"}, c={"model": "my-model-2"})
    assert kinship(remote("served/My-Model"), info) == [
        Kin("a", "the judge and the arm's model have one name, my-model", NAME)
    ]
    assert kinship(remote("model"), info) == []  # a name that anything may have


def test_the_hash_is_the_reason_before_the_family(base: Path) -> None:
    sha = {"model_sha": "a" * 64}
    info = run_of(one={"model": "gemma-3-4b", **sha}, two={"model": "gemma-2-2b", "model_sha": "b" * 64})
    judge = JudgeIdentity("j", "mlx", "gemma-3-4b-4bit", lineage={"sha": ["a" * 64]})
    assert [(kin.arm, kin.kind) for kin in kinship(judge, info)] == [("one", WEIGHTS), ("two", FAMILY)]


def test_files_beside_the_weights_declare_a_family(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "nameless", "llama")
    assert ancestry_of(str(folder), {}).families == {}
    edit(folder / "config.json", _name_or_path="meta-llama/Llama-3.2-1B")
    assert ancestry_of(str(folder), {}).families == {"llama": "llama-3.2-1b"}
    (folder / "README.md").write_text("---\nbase_model:\n- Qwen/Qwen3-8B\n- x/phi-4\ntags: []\n---\n# gemma\n")
    assert list(ancestry_of(str(folder), {}).families) == ["llama", "qwen", "phi"]
    (folder / "README.md").write_text("---\nbase_model: google/gemma-3-1b-it\n---\n")
    assert list(ancestry_of(str(folder), {}).families) == ["llama", "gemma"]


@pytest.mark.parametrize(
    "card",
    [
        "",
        "---\n",
        "---\nbase_model: [\n---\n",
        "---\n- a\n---\n",
        "---\nbase_model: 3\n---\n",
        "---\ndate: 2024-13-45\n---\n",
    ],
)
def test_a_card_that_says_nothing_is_no_fault(tmp_path: Path, card: str) -> None:
    (tmp_path / "README.md").write_text(card)
    (tmp_path / "config.json").write_text("[1]")
    (tmp_path / "fuse_proof.json").write_text("{torn")
    assert ancestry_of(str(tmp_path), {}) == Ancestry(models=[str(tmp_path)], names=[str(tmp_path)])


def test_a_peft_adapter_and_a_hub_card_in_the_cache_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "README.md").write_text("---\nbase_model: Qwen/Qwen3-8B\n---\n")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, file: str(snapshot / file))
    assert list(arm_ancestry({"model": "someone/their-finetune"}).families) == ["qwen"]
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "microsoft/phi-4"}))
    assert list(arm_ancestry({"model": "m", "adapter": str(tmp_path)}).families) == ["phi"]


def test_architecture_alone_is_no_family(base: Path) -> None:
    nano = ancestry_of(str(NANO), {})
    assert (nano.architecture, list(nano.families)) == ("gemma3_text", ["lem-nano"])
    assert kinship(local(NANO), run_of(base={"model": "google/gemma-3-1b-it"})) == []
    sentence = unknown_lineage(local(base))
    assert sentence is not None
    assert "its architecture, llama, is no origin" in sentence
    assert kinship(local(base), run_of(base={"model": "meta-llama/Llama-3.2-1B"})) == []


def test_an_unknown_remote_judge_is_said_to_be_unknown() -> None:
    assert unknown_lineage(remote("gpt-4o")) is None
    assert unknown_lineage(remote("corporate-model-7")) == (
        "nothing is known of the lineage of the judge 'the-judge': its model name 'corporate-model-7' is of no known "
        "family, so it may be related to any arm."
    )
    declared = JudgeIdentity("j", "openai", "corporate-model-7", lineage={"names": ["Qwen/Qwen3-32B"]})
    assert unknown_lineage(declared) is None
    assert len(kinship(declared, run_of(a={"model": "qwen2.5"}))) == 1


def test_notes_tell_makers_and_what_could_go_unseen() -> None:
    info = run_of(
        base={"model": "gemma-3-1b"}, json={"model": "gemma-3-1b"}, odd={"model": "x"}, other={"model": "qwen3"}
    )
    assert lineage_notes(remote("gemini-2.5-pro"), info) == [
        "kinship of 'the-judge' with 'odd' may go unseen: no family of theirs is known.",
        "'the-judge' (gemini) and 'base', 'json' (gemma) have the same maker, Google: another lineage, perhaps not "
        "another taste.",
    ]
    assert lineage_notes(remote("qwen2.5-72b"), run_of(a={"model": "qwen3"})) == []  # kin, which is no note
    assert lineage_notes(remote("claude-sonnet-4-5"), run_of(a={"model": "qwen3"})) == []
    assert lineage_notes(remote("who"), run_of(a={"model": "qwen3"})) == [unknown_lineage(remote("who"))]


def test_a_judge_is_kin_of_an_arm_by_the_model_that_it_answers_as() -> None:
    """A name that says nothing of the judge, and a reply that does."""
    info = run_of(base={"model": "google/gemma-3-1b-it"}, other={"model": "Qwen/Qwen3-8B"})
    judge = remote("default_model")
    assert kinship(judge, info) == []
    (kin,) = kinship(judge, info, ["nobody/knows", "google/gemma-3-27b-it"])
    assert (kin.arm, kin.kind) == ("base", FAMILY)
    assert "gemma-3-27b-it" in kin.why
    assert [(kin.arm, kin.kind) for kin in kinship(judge, info, ["Qwen3-8B"])] == [("other", NAME)]
    assert kinship(remote("google/gemma-3-4b-it"), info, ["nobody/knows"])[0].arm == "base", "its own name still counts"


def test_a_folder_that_a_server_answers_as_is_read(base: Path, fused: Path) -> None:
    assert kinship(remote("default_model"), run_of(base=facts(str(base))), [str(fused)])[0].kind == WEIGHTS


def test_the_hashes_that_a_local_judge_answers_as_are_no_names(base: Path, tmp_path: Path) -> None:
    judge = local(make_model(tmp_path / "unlike", "qwen2"))
    assert kinship(judge, run_of(base={"model": "org/x"}), ["org/x"]) == []


def test_a_judge_of_no_name_is_not_unknown_once_a_known_model_has_answered() -> None:
    info = run_of(base={"model": "Qwen/Qwen3-8B"})
    assert any("nothing is known" in note for note in lineage_notes(remote("default_model"), info))
    assert lineage_notes(remote("default_model"), info, ["google/gemma-3-27b-it"]) == []
