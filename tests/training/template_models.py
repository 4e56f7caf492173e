"""Tokenizers of three makes and chat templates in the styles of the model families, without weights.

The templates are our own short ones; each has the one habit of its family that makes reply masks hard.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from lem.chat.load import ChatModel, load

END, USER_TOKEN, BOS = "<|end|>", "<|user|>", "<|bos|>"
SPECIALS = [BOS, "<|turn|>", END, USER_TOKEN, "<|assistant|>", "<think>", "</think>"]
_TURN = "<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n"
_LOOP, _DONE = "{% for m in messages %}", "{% endfor %}"
_GENERATE = "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
_ANSWER_ONLY = "{% set text = m['content'].split('</think>')[-1].lstrip('\n') %}"

PLAIN = _LOOP + _TURN + _DONE + _GENERATE
# A beginning-of-text token, trimmed turns, and a token for the header, as Llama 3 has them.
LLAMA = (
    "{{ bos_token }}" + _LOOP + "<|turn|>{{ m['role'] }}<|turn|>\n\n{{ m['content'] | trim }}<|end|>" + _DONE
    + "{% if add_generation_prompt %}<|turn|>assistant<|turn|>\n\n{% endif %}"
)  # fmt: skip
# No system role at all, trimmed turns, and the assistant under another name, as Gemma has them.
GEMMA = (
    "{{ bos_token }}" + _LOOP + "{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "<|turn|>{{ role }}\n{{ m['content'] | trim }}<|end|>\n" + _DONE
    + "{% if add_generation_prompt %}<|turn|>model\n{% endif %}"
)  # fmt: skip
DROPS_SYSTEM = "{% for m in messages if m['role'] != 'system' %}" + _TURN + _DONE + _GENERATE
# An empty thinking block before the last answer, thoughts removed from history: as Qwen 3.
QWEN3 = (
    _LOOP + "{% if m['role'] != 'assistant' %}" + _TURN + "{% else %}"
    "{% set thought = m['content'].split('</think>')[0].split('<think>')[-1] if '</think>' in m['content'] else '' %}"
    + _ANSWER_ONLY + "<|turn|>assistant\n{% if loop.last %}<think>\n{{ thought | trim }}\n</think>\n\n{% endif %}"
    "{{ text }}<|end|>\n{% endif %}" + _DONE + _GENERATE
)  # fmt: skip
# The same, and the generation prompt opens the block: as the Qwen 3 models that always think.
QWEN3_THINKS = QWEN3.replace(_GENERATE, "{% if add_generation_prompt %}<|turn|>assistant\n<think>\n{% endif %}")
# Marks of thought that no list of known ones has.
OWN_MARKS = QWEN3_THINKS.replace("think>", "muse>")
# Thoughts are removed from every answer, and the generation prompt opens a block: as the R1 distillations.
R1 = (
    _LOOP + "{% if m['role'] != 'assistant' %}" + _TURN + "{% else %}" + _ANSWER_ONLY
    + "<|turn|>assistant\n{{ text }}<|end|>\n{% endif %}" + _DONE
    + "{% if add_generation_prompt %}<|turn|>assistant\n<think>\n{% endif %}"
)  # fmt: skip
STRIPS = R1.replace("assistant\n<think>\n{% endif %}", "assistant\n{% endif %}")  # the same without the opening
# No token ends a turn: the next user turn does, as GLM has it.
GLM = (
    _LOOP + "{% if m['role'] == 'assistant' %}<|assistant|>\n{{ m['content'] | trim }}{% else %}<|user|>\n"
    "{{ m['content'] }}{% endif %}" + _DONE + "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)  # fmt: skip
FOOTER = _LOOP + _TURN + _DONE + "{% if not add_generation_prompt %}-- printed on Monday --{% endif %}" + _GENERATE
# The generation prompt holds something that finished conversations do not.
OTHER_HEADER = _LOOP + _TURN + _DONE + "{% if add_generation_prompt %}<|turn|>assistant now\n{% endif %}"
SHORTENS = PLAIN.replace("{{ m['content'] }}", "{{ m['content'] if m['role'] == 'user' else m['content'][:3] }}")
DROPS_REPLY = PLAIN.replace("{{ m['content'] }}", "{{ m['content'] if m['role'] != 'assistant' }}")
SHORTENS_HISTORY = PLAIN.replace(
    "{{ m['content'] }}", "{{ m['content'] if loop.last or m['role'] != 'assistant' else m['content'][:3] }}"
)
NO_STOP = (
    _LOOP + "{{ m['role'] }}: {{ m['content'] }}\n" + _DONE + "{% if add_generation_prompt %}assistant: {% endif %}"
)


def chat_with(folder: Path, template: str, tokenizer: str = "bytes", stops: tuple[str, ...] = (END,)) -> ChatModel:
    """A model folder with this template and one of the tokenizers `bytes`, `newlines`, `spaces`; no weights."""
    folder.mkdir(parents=True, exist_ok=True)
    text = _tokenizer(tokenizer)
    (folder / "tokenizer.json").write_text(text)
    ids = {entry["content"]: entry["id"] for entry in json.loads(text)["added_tokens"]}
    config = {"model_type": "llama", "vocab_size": len(ids), "eos_token_id": [ids[name] for name in stops]}
    (folder / "config.json").write_text(json.dumps(config))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BOS, "eos_token": stops[0],
        "clean_up_tokenization_spaces": True, "model_max_length": 4096, "chat_template": template,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return load(str(folder), weights=False)


@cache
def _tokenizer(kind: str) -> str:
    from tokenizers import Tokenizer

    made: Tokenizer = {"bytes": _bytes, "newlines": _newlines, "spaces": _spaces}[kind]()
    made.add_special_tokens(SPECIALS)
    return str(made.to_str())


def _bytes() -> Any:
    """One token a byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def _newlines() -> Any:
    """Byte pairs that join line feeds, as large vocabularies do: a reply's first may merge with the prompt's."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    joined = ["\u010a\u010a", "\u010a\u010a\u010a\u010a", "\u0120\u0120", "th", "the", "\u0120the"]  # newline, space
    merges = [("\u010a", "\u010a"), ("\u010a\u010a", "\u010a\u010a"), ("\u0120", "\u0120"), ("t", "h"), ("th", "e"),
              ("\u0120", "the")]  # fmt: skip
    made = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*alphabet, *joined])}, merges=merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\w+|\s*[\r\n]+|\s+|[^\s\w]+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    return made


def _spaces() -> Any:
    """Pieces in the style of SentencePiece: a space of its own before every text, unknown characters as bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    letters = [*map(chr, range(33, 127)), "\u2581the", "th", "the"]
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *letters]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = [("t", "h"), ("th", "e"), ("\u2581", "the")]
    model = models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    made = Tokenizer(model)
    made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return made
