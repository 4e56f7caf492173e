"""A byte-level BPE tokenizer with role tokens, and its chat template.

`<|begin|><|system|>...<|end|><|user|>...<|end|><|assistant|>...<|end|>`: the generation prompt ends with
`<|assistant|>` and is a token prefix of the finished chat.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIALS = ("<|pad|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
PAD, BEGIN, END = 0, 1, 2
ROLES = {"system": 3, "user": 4, "assistant": 5}
MAX_CONTEXT = 8192
CHAT_TEMPLATE = (
    "{{ '<|begin|>' }}"
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('lem-nano knows the roles system, user and assistant, not ' + message['role']) }}"
    "{% endif %}"
    "{% if message['content'] is string %}{% set text = message['content'] %}"
    "{% else %}{% set text = message['content'] | map(attribute='text') | join('') %}{% endif %}"
    "{{ '<|' + message['role'] + '|>' + text | trim + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of exactly `vocab_size` entries, the same for the same texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(f"the corpus gave {tokenizer.get_vocab_size()} entries, not {vocab_size}")
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes tokenizer.json and the tokenizer_config.json that transformers and mlx-lm read."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIALS[BEGIN],
        "eos_token": SPECIALS[END],
        "pad_token": SPECIALS[PAD],
        "additional_special_tokens": [SPECIALS[i] for i in ROLES.values()],
        "model_max_length": MAX_CONTEXT,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def encode(tokenizer: Tokenizer, messages: Iterable[tuple[str, str]]) -> tuple[list[int], list[float]]:
    """Token ids of a chat and the loss weight of each as a target: answers 1, questions 0.2, system prompts 0."""
    ids, weights = [BEGIN], [0.0]
    for role, text in messages:
        body = tokenizer.encode(text.strip(), add_special_tokens=False).ids
        weight = {"system": 0.0, "user": 0.2, "assistant": 1.0}[role]
        ids += [ROLES[role], *body, END]
        weights += [0.0, *([weight] * len(body)), weight]
    return ids, weights
