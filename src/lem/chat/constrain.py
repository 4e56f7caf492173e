"""Grammar-constrained decoding: rows that can only write what a grammar allows, by llguidance.

    grammar + tokenizer --compile--> state per row --mask--> log-probabilities of allowed tokens --sampler--> token
                                        ^------------------------------------------------------------------'

Forbidden tokens get probability 0 and the rest is normalised again, so that temperature and nucleus mean what they
mean without a grammar. A stop token is allowed exactly where the grammar accepts the text. Rows without a grammar keep
their log-probabilities bit for bit. The mask is a plain `where`: llguidance's own kernel runs on Metal only, and the
network takes most of a step anyway.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from llguidance import LLMatcher, LLTokenizer
from llguidance.gbnf_to_lark import gbnf_to_lark
from numpy.typing import NDArray

from lem.chat.grammar import Grammar
from lem.chat.load import ChatModel
from lem.chat.sampling import RowSampler
from lem.errors import UserError

_ESCAPE = re.compile(r"\\(\\|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})")
_KEPT_TOKENIZERS = 4
_tokenizers: dict[tuple[Any, ...], LLTokenizer] = {}


def lltokenizer(chat: ChatModel) -> LLTokenizer:
    """The model's tokenizer as llguidance reads it, with the model's stop tokens; the last few are kept.

    Raises: UserError if the tokenizer is not one of the `tokenizers` library or no token ends an answer.
    """
    from llguidance.hf import from_tokenizer  # loads transformers, which chatters unless mlx_lm was loaded before

    key = (chat.model_sha, *chat.stop_token_ids)
    if key not in _tokenizers:
        if not chat.stop_token_ids:
            raise UserError(f"{chat.name}: no token of this model ends an answer, so it cannot follow a grammar.")
        try:
            made = from_tokenizer(chat.tokenizer._tokenizer, eos_token=chat.stop_token_ids)
        except (ValueError, TypeError, AttributeError) as error:
            reason = _flat(str(error))
            raise UserError(
                f"{chat.name}: a grammar cannot be followed with this tokenizer ({reason}); use a model whose folder "
                "holds a tokenizer.json."
            ) from None
        while len(_tokenizers) >= _KEPT_TOKENIZERS:
            del _tokenizers[next(iter(_tokenizers))]
        _tokenizers[key] = made
    return _tokenizers[key]


def matcher(tokenizer: LLTokenizer, grammar: Grammar) -> LLMatcher:
    """Compile a grammar for a tokenizer.   Raises: UserError for a grammar that is malformed or not supported."""
    try:
        text = _COMPILERS[grammar.kind](grammar.text)
    except Exception as error:  # the readers of others' notations raise whatever they like
        raise _refused(grammar, str(error) or type(error).__name__) from None
    made = LLMatcher(tokenizer, text, log_level=0)
    if made.is_error():
        raise _refused(grammar, made.get_error())
    return made


def text_of(chat: ChatModel, tokens: Sequence[int]) -> str:
    """The text that a grammar saw: the tokens' bytes but for stop tokens, without the clean-up of tokenizers."""
    stops = set(chat.stop_token_ids)
    return lltokenizer(chat).decode_str([token for token in tokens if token not in stops])


class GrammarState:
    """Where one answer stands in its grammar.

    `matcher` must be fresh. Once a stop token was read only stop tokens are allowed.
    """

    def __init__(self, tokenizer: LLTokenizer, matcher: LLMatcher) -> None:
        self._stops = np.array(tokenizer.eos_tokens)
        self._vocab_size = tokenizer.vocab_size
        self._matcher = matcher
        self._ended = False

    def read(self, token: int) -> None:
        """Go on by a token that `allowed` allowed.   Raises: RuntimeError for another one."""
        if self._ended or token in self._stops:
            self._ended = True
        elif not self._matcher.consume_token(token):
            raise RuntimeError(f"token {token} does not follow the grammar: {_flat(self._matcher.get_error())}")

    @property
    def accepts(self) -> bool:
        """Whether the text so far is a whole text of the grammar."""
        return self._ended or self._matcher.is_accepting()

    def allowed(self, width: int) -> NDArray[np.bool_]:
        """Which of `width` token ids may come next; ids beyond the tokenizer's vocabulary never may.

        Where the grammar leaves no choice, only the token with which the tokenizer itself would go on.
        Raises: RuntimeError if none may: the tokenizer has no tokens for what the grammar demands, or following the
        grammar exceeds llguidance's limits.
        """
        found = np.zeros(width, dtype=np.bool_)
        stops = self._stops[self._stops < width]
        if not self._ended:
            bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
            known = min(width, self._vocab_size)
            found[:known] = bits[:known]
        found[stops] = self.accepts
        if self._matcher.is_error() or not found.any():
            reason = _flat(self._matcher.get_error()) or "the tokenizer has no token for what must come next"
            raise RuntimeError(f"the grammar cannot be followed any further: {reason}")
        return found


class ConstrainedSampler:
    """A row sampler whose rows obey their grammars; the interface of `RowSampler`.

    Args:  tokenizer: of `lltokenizer`.  grammars: one per row, None for a free row.  inner: draws from what is left.
    Raises: UserError for a grammar that does not compile.
    The batch asks for the token after a row's last one before it drops the row, so each call first reads the tokens
    that the call before drew: exactly those which the network has read.
    """

    def __init__(self, tokenizer: LLTokenizer, grammars: Sequence[Grammar | None], inner: RowSampler) -> None:
        compiled = {grammar: matcher(tokenizer, grammar) for grammar in set(grammars) if grammar is not None}
        self._states = [
            None if grammar is None else GrammarState(tokenizer, compiled[grammar].deep_copy()) for grammar in grammars
        ]
        self._inner = inner
        self._drawn: mx.array | None = None

    def keep(self, indices: Sequence[int]) -> None:
        """Forget all rows but these positions."""
        self._states = [self._states[index] for index in indices]
        if self._drawn is not None:
            self._drawn = self._drawn[mx.array(list(indices), dtype=mx.uint32)]
        self._inner.keep(indices)

    def __call__(self, logprobs: mx.array) -> mx.array:
        """Draw one token per row.   Args: logprobs (B, V), normalised.   Returns: (B,) token ids."""
        if logprobs.shape[0] != len(self._states):
            raise RuntimeError(f"{logprobs.shape[0]} rows to sample but {len(self._states)} grammar states")
        mx.async_eval(logprobs)  # the network runs while the grammars are followed
        if self._drawn is not None:
            drawn: Any = self._drawn.tolist()
            for state, token in zip(self._states, drawn, strict=True):
                if state is not None:
                    state.read(token)
        self._drawn = self._inner(self.constrain(logprobs))
        return self._drawn

    def constrain(self, logprobs: mx.array) -> mx.array:
        """Log-probabilities (B, V) under the grammars, normalised; rows without one come back as they were."""
        bound = [row for row, state in enumerate(self._states) if state is not None]
        if not bound:
            return logprobs
        allowed = np.ones(logprobs.shape, dtype=np.bool_)
        for row, state in enumerate(self._states):
            if state is not None:
                allowed[row] = state.allowed(logprobs.shape[1])
        values = logprobs.astype(mx.float32)
        masked = mx.where(mx.array(allowed), values, -mx.inf)
        is_bound = np.array([[state is not None] for state in self._states])
        return mx.where(mx.array(is_bound), masked - mx.logsumexp(masked, axis=-1, keepdims=True), values)


def _json_schema(text: str) -> str:
    schema = json.loads(text)
    if not isinstance(schema, dict | bool):
        raise ValueError("a JSON schema is an object")
    # JSON as most texts write it: free white space would let a small model write blanks without end.
    return LLMatcher.grammar_from_json_schema(
        text, defaults={"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    )


def _gbnf(text: str) -> str:
    return gbnf_to_lark(_ESCAPE.sub(_plain_character, text))


def _plain_character(escape: re.Match[str]) -> str:
    """A numbered character as the converter passes it on intact: it strips zeros, which Lark needs."""
    if escape[1] == "\\":
        return escape[0]
    code = int(escape[1][1:], 16)
    return chr(code) if code >= 0xA0 else f"\\x{code:02x}"


_COMPILERS: dict[str, Callable[[str], str]] = {
    "json_schema": _json_schema,
    "gbnf": _gbnf,
    "lark": LLMatcher.grammar_from_lark,
    "regex": LLMatcher.grammar_from_regex,
}
_NAMES = {"json_schema": "JSON schema", "gbnf": "GBNF grammar", "lark": "Lark grammar", "regex": "regular expression"}


def _refused(grammar: Grammar, reason: str) -> UserError:
    shown = _flat(grammar.text)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return UserError(f"the {_NAMES[grammar.kind]} {shown} cannot be followed ({_flat(reason)}); correct the grammar.")


def _flat(text: str) -> str:
    return " ".join(text.split())[:200]
