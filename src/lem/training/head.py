"""The output head of a model, split off so that logits need never exist for a whole batch.

    tokens --body--> hidden states --head--> raw logits --soft cap--> logits

The split follows the structure that mlx-lm's models share and is then proven: body and head together must give the
model's own logits on a few tokens. A model that does other things to its logits (a scale, a second head), or whose
head is being trained, has no split; it is trained through its full logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from lem.training.methods import flat

_TOLERANCE = 2e-3  # of the largest logit: bfloat16 sums in another order differ by less, a missing scale by more


@dataclass(frozen=True)
class Head:
    """A frozen output head: `body(tokens, cache)` gives hidden states (B, T, H); `weight` is the head's module.

    `soft_cap` is Gemma's final cap c, logits = c tanh(raw / c); None leaves them as they are.
    """

    body: Callable[..., mx.array]
    weight: Any
    tied: bool
    soft_cap: float | None

    @property
    def n_vocabulary(self) -> int:
        """Rows of the head's weight."""
        return int(self.weight.weight.shape[0])

    def raw_logits(self, hidden: mx.array, block: slice = slice(None)) -> mx.array:
        """Logits before the soft cap of a block of the vocabulary, in float32: (N, H) -> (N, block)."""
        module = self.weight
        if _is_quantized(module):
            biases = module.get("biases")
            raw = mx.quantized_matmul(
                hidden, module.weight[block], module.scales[block], None if biases is None else biases[block],
                transpose=True, group_size=module.group_size, bits=module.bits, mode=module.mode,
            )  # fmt: skip
        else:
            raw = hidden @ module.weight[block].T
        if "bias" in module:
            raw = raw + module.bias[block]
        return raw.astype(mx.float32)

    def logits(self, hidden: mx.array, block: slice = slice(None)) -> mx.array:
        """The model's logits of a block of the vocabulary, in float32: (N, H) -> (N, block)."""
        return self._capped(self.raw_logits(hidden, block))

    def _capped(self, raw: mx.array) -> mx.array:
        return raw if self.soft_cap is None else mx.tanh(raw / self.soft_cap) * self.soft_cap

    def through_cap(self, vector: mx.array, logits: mx.array) -> mx.array:
        """Gradient in logits carried to the raw logits: times the slope of the soft cap, at its own output."""
        return vector if self.soft_cap is None else vector * (1 - mx.square(logits / self.soft_cap))

    def pull_back(self, vector: mx.array, hidden: mx.array, block: slice = slice(None)) -> mx.array:
        """Gradient in a block's raw logits carried to these hidden states: (N, block) -> (N, H), float32.

        The head is linear, so this is `vector` times its weight, in the precision and the packing that it has.
        """
        _, back = mx.vjp(lambda given: self.raw_logits(given, block), [hidden], [vector])
        gradient: mx.array = back[0]
        return gradient.astype(mx.float32)

    def rows(self, tokens: mx.array) -> mx.array:
        """The head's weight rows of these tokens: (N,) -> (N, H), float32."""
        module = self.weight
        if not _is_quantized(module):
            dense: mx.array = module.weight[tokens]
            return dense.astype(mx.float32)
        biases = module.get("biases")
        rows = mx.dequantize(
            module.weight[tokens], module.scales[tokens], None if biases is None else biases[tokens],
            group_size=module.group_size, bits=module.bits, mode=module.mode,
        )  # fmt: skip
        return rows.astype(mx.float32)


def _trained(module: Any) -> bool:
    return bool(flat(module.trainable_parameters()))


def _is_quantized(module: Any) -> bool:
    return isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding)


def split_head(model: Any, for_gradient: bool = True) -> Head | None:
    """Split a model's head from its body, or return None where the split is unknown or the head is trained.

    Args:  for_gradient: false where no gradient is taken, so that a head may be split which is not frozen.
    """
    wrapper = getattr(model, "language_model", model)
    body = getattr(wrapper, "model", None)
    embedding = getattr(body, "embed_tokens", None)
    if body is None or embedding is None:
        return None
    own = wrapper.get("lm_head") if isinstance(wrapper, nn.Module) else None
    if getattr(wrapper, "tie_word_embeddings", False) or getattr(wrapper.args, "tie_word_embeddings", False):
        own = None
    module = embedding if own is None else own
    plain = nn.Embedding | nn.QuantizedEmbedding if own is None else nn.Linear | nn.QuantizedLinear
    if not isinstance(module, plain) or (for_gradient and _trained(module)):
        return None
    soft_cap = getattr(wrapper, "final_logit_softcapping", None) or getattr(
        wrapper.args, "final_logit_softcapping", None
    )
    head = Head(body, module, own is None, soft_cap)
    return head if _agrees(model, head) else None


def _agrees(model: Any, head: Head) -> bool:
    """Whether body and head give the model's logits on a few tokens, dropout off."""
    was_training = model.training
    model.eval()
    try:
        tokens = mx.array([[1, 2, 3, 5, 7, 11, 13, 17]]) % head.n_vocabulary
        expected = model(tokens)[0].astype(mx.float32)
        found = head.logits(head.body(tokens, None)[0])
        if found.shape != expected.shape or not mx.isfinite(expected).all().item():
            return False
        largest = mx.maximum(mx.abs(expected).max(), 1e-6)
        return bool((mx.abs(found - expected).max() <= _TOLERANCE * largest).item())
    except (TypeError, ValueError, AttributeError):  # a body of another signature has no split
        return False
    finally:
        model.train(was_training)
        mx.clear_cache()
