"""Families by name: what real models are called, and words that only look like a family."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from lem.judges import families
from lem.judges.families import families_of, known_families, maker_of, short_name

NAMES = {
    "lthn/LEM-Gemma3-4B": "gemma",
    "lthn/LEK-Gemma3-1B-layered": "gemma",
    "lthn/LEK-GPT-OSS-20B": "gpt-oss",
    "mlx-community/gemma-3-1b-it-4bit": "gemma",
    "google/gemma-3n-E4B-it": "gemma",
    "gemma3n:e4b": "gemma",
    "google/gemma-2b": "gemma",
    "google/medgemma-27b-text-it": "gemma",
    "google/codegemma-7b": "gemma",
    "unsloth/gemma-3-4b-it-GGUF/gemma-3-4b-it-Q4_K_M.gguf": "gemma",
    "gemini-2.5-flash": "gemini",
    "models/gemini-2.0-flash-001": "gemini",
    "mlx-community/Qwen3-8B-4bit": "qwen",
    "Qwen/Qwen2.5-Coder-32B-Instruct": "qwen",
    "Qwen/QwQ-32B": "qwen",
    "opencompass/CompassJudger-1-7B-Instruct": "qwen",
    "Unbabel/M-Prometheus-7B": "qwen",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": "deepseek qwen",
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": "deepseek llama",
    "deepseek-ai/DeepSeek-V3": "deepseek",
    "NousResearch/Hermes-3-Llama-3.1-8B": "llama",
    "meta-llama/Meta-Llama-3-8B": "llama",
    "codellama/CodeLlama-7b-hf": "llama",
    "us.meta.llama3-1-8b-instruct-v1:0": "llama",
    "accounts/fireworks/models/llama-v3p1-8b-instruct": "llama",
    "lmsys/vicuna-7b-v1.5": "llama",
    "nvidia/Llama-3_3-Nemotron-Super-49B-v1": "llama nemotron",
    "AtlaAI/Selene-1-Mini-Llama-3.1-8B": "llama",
    "cognitivecomputations/dolphin-2.9-llama3-8b": "llama",
    "cognitivecomputations/dolphin-2_6-phi-2": "phi",
    "cognitivecomputations/Dolphin3.0-Mistral-24B": "mistral",
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": "tinyllama",
    "openlm-research/open_llama_3b": "open-llama",
    "mistralai/Mistral-7B-Instruct-v0.3": "mistral",
    "mistralai/Mixtral-8x7B-Instruct-v0.1": "mistral",
    "mistralai/Ministral-8B-Instruct-2410": "mistral",
    "mistralai/Devstral-Small-2505": "mistral",
    "BioMistral/BioMistral-7B": "mistral",
    "HuggingFaceH4/zephyr-7b-beta": "mistral",
    "HuggingFaceH4/zephyr-7b-gemma-v0.1": "gemma",
    "stabilityai/stablelm-zephyr-3b": "stablelm",
    "upstage/SOLAR-10.7B-Instruct-v1.0": "mistral",
    "prometheus-eval/prometheus-7b-v2.0": "mistral",
    "prometheus-eval/prometheus-13b-v1.0": "llama",
    "microsoft/Phi-3.5-mini-instruct": "phi",
    "microsoft/phi-1_5": "phi",
    "mlabonne/phixtral-2x2_8": "phi",
    "flowaicom/Flow-Judge-v0.1": "phi",
    "openai/gpt-oss-20b": "gpt-oss",
    "gpt-4o-mini-2024-07-18": "gpt",
    "gpt-5": "gpt",
    "o3-mini": "gpt",
    "o1-2024-12-17": "gpt",
    "openai-community/gpt2-xl": "gpt-2",
    "EleutherAI/gpt-neox-20b": "gpt-neo",
    "anthropic/claude-sonnet-4-5": "claude",
    "swiss-ai/Apertus-8B-Instruct-2509": "apertus",
    "allenai/OLMo-2-1124-7B-Instruct": "olmo",
    "allenai/OLMoE-1B-7B-0924": "olmo",
    "allenai/Llama-3.1-Tulu-3-8B": "llama",
    "allenai/tulu-2-dpo-70b": "llama",
    "WizardLMTeam/WizardLM-13B-V1.2": "llama",
    "TheBloke/WizardLM-30B-Uncensored-GPTQ": "llama",
    "alpindale/WizardLM-2-8x22B": "mistral",
    "lucyknada/microsoft_WizardLM-2-7B": "mistral",
    "wizardlm2:7b": "mistral",
    "WizardLM-2-70B": "llama",
    "microsoft/Orca-2-13b": "llama",
    "orca2:7b": "llama",
    "openchat/openchat-3.5-0106": "mistral",
    "openchat/openchat_3.5": "mistral",
    "openchat:7b": "mistral",
    "openchat/openchat-3.5-0106-gemma": "gemma",
    "openchat/openchat-3.6-8b-20240522": "llama",
    "openchat/openchat_v3.2_super": "llama",
    "models/lem-nano": "lem-nano",
    "adapters/demo-lem-nano-bad36e29": "lem-nano",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "smollm",
    "01-ai/Yi-1.5-9B-Chat": "yi",
    "ibm-granite/granite-3.3-8b-instruct": "granite",
    "CohereLabs/c4ai-command-r-plus": "command",
    "zai-org/GLM-4.5-Air": "glm",
    "THUDM/chatglm3-6b": "glm",
    "google/flan-t5-base": "t5",
    "facebook/opt-1.3b": "opt",
    "LiquidAI/LFM2-1.2B": "lfm",
    "baichuan-inc/Baichuan2-13B-Chat": "baichuan",
    "bigscience/bloomz-7b1": "bloom",
    "baidu/ERNIE-4.5-21B-A3B-PT": "ernie",
    "utter-project/EuroLLM-9B-Instruct": "eurollm",
    "LGAI-EXAONE/EXAONE-4.0-32B": "exaone",
    "tiiuae/Falcon3-10B-Instruct": "falcon",
    "grok-4-fast": "grok",
    "tencent/Hunyuan-7B-Instruct": "hunyuan",
    "internlm/internlm3-8b-instruct": "internlm",
    "ai21labs/AI21-Jamba-1.5-Mini": "jamba",
    "moonshotai/Kimi-K2-Instruct": "kimi",
    "openbmb/MiniCPM4-8B": "minicpm",
    "MiniMaxAI/MiniMax-M1-80k": "minimax",
    "mosaicml/mpt-7b-chat": "mpt",
    "us.amazon.nova-pro-v1:0": "nova",
    "EleutherAI/pythia-1.4b": "pythia",
    "RWKV/rwkv-6-world-7b": "rwkv",
    "BSC-LT/salamandra-7b-instruct": "salamandra",
}  # fmt: skip
NO_FAMILY = (
    "", "model", "my-finetune", "adapters/lek", "philosophy-7b", "delphi", "sapphire-3b", "dolphin-2.9",
    "allenai/Molmo-7B-D-0924", "gemmatimonas", "AIDC-AI/Marco-o1", "nomic-ai/gpt4all-j", "yield-3", "optimum-2",
    "llava-hf/llava-1.5-7b-hf", "neutral-7b", "orchestral", "dolma-1b", "commander-3", "grokking-2l", "llamafile",
    "s1-32B", "mamba-130m", "M4-ai/Orca-2.0-Tau-1.8B", "killer-orca-20b",
)  # fmt: skip


@pytest.mark.parametrize(("name", "expected"), NAMES.items())
def test_a_name_tells_its_families(name: str, expected: str) -> None:
    assert " ".join(families_of(name)) == expected


@pytest.mark.parametrize("name", NO_FAMILY)
def test_a_name_without_a_family_has_none(name: str) -> None:
    assert families_of(name) == ()


@pytest.mark.parametrize(
    "name", ["ollama/qwen3:8b", "ollama-qwen3", "Qwen-LLaMAfied-7B", "qwen3.llamafile", "qwen3-llama.cpp"]
)
def test_programs_and_formats_named_after_llama_are_no_llama(name: str) -> None:
    assert families_of(name) == ("qwen",)


def test_a_folder_above_the_model_says_nothing() -> None:
    assert families_of("gemma-experiments/llama/mine") == ()
    assert families_of("C:\\models\\qwen\\phi-4\\") == ("phi",)


def test_a_hub_snapshot_is_known_by_the_name_in_the_cache() -> None:
    path = "~/.cache/huggingface/hub/models--mlx-community--gemma-3-1b-it-4bit/snapshots/0d7a5c8e"
    assert short_name(path) == "gemma-3-1b-it-4bit"
    assert families_of(path) == ("gemma",)


def test_every_family_is_sorted_in_and_has_a_real_member_here() -> None:
    with Path(families.__file__).with_name("families.toml").open("rb") as file:
        entries = tomllib.load(file)["family"]
    names = [entry["name"] for entry in entries]
    assert names == sorted(set(names))
    assert [family.name for family in known_families()] == names
    assert {family for expected in NAMES.values() for family in expected.split()} == set(names)
    for entry in entries:
        assert set(entry) == {"name", "maker", "patterns"}
        assert all(re.compile(pattern).pattern == pattern.lower() for pattern in entry["patterns"])
        assert maker_of(entry["name"]) == entry["maker"]


def test_gemini_and_gemma_are_two_families_of_one_maker() -> None:
    assert families_of("gemini-2.5-pro") != families_of("gemma-3-27b-it")
    assert maker_of("gemini") == maker_of("gemma") == "Google"
