"""The network of lem-nano and a training forward pass that is fast on a CPU.

The weights live in mlx-lm's own Gemma-3 text model, so what is trained is what `mlx_lm.load` runs. Only the
three places where MLX's CPU backend is slow are replaced during training: the exponentials of attention, of the
gated activation and of the loss. Each has its derivative written out, so no intermediate is recomputed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.gemma3_text import Model, ModelArgs

SHAPE: dict[str, Any] = {
    "model_type": "gemma3_text",
    "architectures": ["Gemma3ForCausalLM"],
    "hidden_size": 192,
    "num_hidden_layers": 4,
    "intermediate_size": 448,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "query_pre_attn_scalar": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
    "sliding_window": 512,
    "sliding_window_pattern": 4,
    "max_position_embeddings": 8192,
    "hidden_activation": "gelu_pytorch_tanh",
    "attention_bias": False,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}
_SQUARINGS = 8


def build(vocab_size: int, seed: int) -> Model:
    """A fresh model with tied embeddings; norms start at identity, residual branches at half strength."""
    mx.random.seed(seed)
    model = Model(ModelArgs.from_dict({**SHAPE, "vocab_size": vocab_size}))
    model.sanitize({})
    for layer in model.layers:
        for norm in (layer.input_layernorm, layer.pre_feedforward_layernorm):
            norm.weight = mx.zeros_like(norm.weight)
        for norm in (layer.self_attn.q_norm, layer.self_attn.k_norm):
            norm.weight = mx.zeros_like(norm.weight)
        for norm in (layer.post_attention_layernorm, layer.post_feedforward_layernorm):
            norm.weight = mx.full(norm.weight.shape, -0.5)
    model.model.norm.weight = mx.zeros_like(model.model.norm.weight)
    _start_copying(model)
    mx.eval(model.parameters())
    return model


def count(model: Model) -> int:
    """How many parameters the model has."""
    return sum(value.size for value in named_arrays(model.parameters()).values())


def named_arrays(tree: Any) -> dict[str, mx.array]:
    """A tree of arrays as dotted name -> array."""
    return dict(tree_flatten(tree))


def load_arrays(path: Path) -> tuple[dict[str, mx.array], dict[str, str]]:
    """The arrays and the metadata of a safetensors file."""
    arrays, metadata = mx.load(str(path), return_metadata=True)
    return arrays, metadata  # type: ignore[return-value]


def nested(arrays: dict[str, mx.array], room: str) -> Any:
    """The tree of the arrays whose dotted name starts with `room`."""
    return tree_unflatten([(k[len(room) + 1 :], v) for k, v in arrays.items() if k.startswith(room + ".")])


def fast_exp(x: mx.array) -> mx.array:
    """exp(x) for x in [-50, 30] by repeated squaring; relative error about |x|^3 / 4e5.

    MLX's CPU exp costs 11 ns an element; this is a chain of multiplications that `mx.compile` fuses into one loop.
    """
    u = mx.maximum(x, -50.0) * (1.0 / 2**_SQUARINGS)
    p: mx.array = 1.0 + u * (1.0 + 0.5 * u)
    for _ in range(_SQUARINGS):
        p = p * p
    return p


@partial(mx.compile, shapeless=True)
def _shifted_exp(x: mx.array, top: mx.array) -> mx.array:
    return fast_exp(x - top)


@mx.custom_function
def softmax(scores: mx.array) -> mx.array:
    """Softmax over the last axis."""
    e = _shifted_exp(scores, mx.max(scores, axis=-1, keepdims=True))
    return e / mx.sum(e, axis=-1, keepdims=True)


@softmax.vjp
def _softmax_vjp(primals: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
    return output * (cotangent - mx.sum(cotangent * output, axis=-1, keepdims=True))


@partial(mx.compile, shapeless=True)
def _gelu_gate(gate: mx.array, up: mx.array) -> mx.array:
    z = 1.5957691216 * (gate + 0.044715 * gate * gate * gate)
    return gate * up / (1.0 + fast_exp(mx.clip(-z, -30.0, 30.0)))


@partial(mx.compile, shapeless=True)
def _gelu_gate_vjp(gate: mx.array, up: mx.array, cotangent: mx.array) -> tuple[mx.array, mx.array]:
    z = 1.5957691216 * (gate + 0.044715 * gate * gate * gate)
    s = 1.0 / (1.0 + fast_exp(mx.clip(-z, -30.0, 30.0)))
    slope = s + gate * s * (1.0 - s) * 1.5957691216 * (1.0 + 0.134145 * gate * gate)
    return cotangent * up * slope, cotangent * gate * s


@mx.custom_function
def gelu_gate(gate: mx.array, up: mx.array) -> mx.array:
    """gelu(gate) * up with the tanh approximation, written as gate * sigmoid(2z)."""
    return _gelu_gate(gate, up)


@gelu_gate.vjp
def _gelu_gate_rule(
    primals: tuple[mx.array, mx.array], cotangent: mx.array, output: mx.array
) -> tuple[mx.array, mx.array]:
    return _gelu_gate_vjp(primals[0], primals[1], cotangent)


def hidden_states(model: Model, tokens: mx.array) -> mx.array:
    """Final hidden states (batch, length, width) of right-padded tokens, as the plain model computes them."""
    args = model.args
    core = model.model
    batch, length = tokens.shape
    x = core.embed_tokens(tokens) * math.sqrt(args.hidden_size)
    causal, local = _masks(length, args.sliding_window)
    for index, layer in enumerate(model.layers):
        is_global = index % args.sliding_window_pattern == args.sliding_window_pattern - 1
        attention = layer.self_attn
        y = layer.input_layernorm(x)
        heads = [
            proj(y).reshape(batch, length, args.num_attention_heads, args.head_dim).transpose(0, 2, 1, 3)
            for proj in (attention.q_proj, attention.k_proj, attention.v_proj)
        ]
        queries = attention.rope(attention.q_norm(heads[0])) * attention.scale
        keys = attention.rope(attention.k_norm(heads[1]))
        weights = softmax(queries @ keys.swapaxes(-1, -2) + (causal if is_global else local))
        mixed = (weights @ heads[2]).transpose(0, 2, 1, 3).reshape(batch, length, -1)
        x = x + layer.post_attention_layernorm(attention.o_proj(mixed))
        y = layer.pre_feedforward_layernorm(x)
        y = layer.mlp.down_proj(gelu_gate(layer.mlp.gate_proj(y), layer.mlp.up_proj(y)))
        x = x + layer.post_feedforward_layernorm(y)
    final: mx.array = core.norm(x)
    return final


def _masks(length: int, window: int) -> tuple[mx.array, mx.array]:
    rows = mx.arange(length)[:, None]
    columns = mx.arange(length)[None]
    causal = mx.where(rows >= columns, 0.0, -1e9)
    local = causal if length <= window else mx.where(rows < columns + window, causal, -1e9)
    return causal, local


def make_loss(targets: mx.array, weights: mx.array) -> Callable[[mx.array, mx.array], mx.array]:
    """A function (hidden (n, width), embedding (vocab, width)) -> sum of weights * cross-entropy.

    Gradients use the unnormalised exponentials: dH = w (E W / s - W[y]), so the softmax is never formed.
    """

    @mx.custom_function
    def loss(hidden: mx.array, table: mx.array) -> Any:
        logits = hidden @ table.T
        top = mx.max(logits, axis=-1, keepdims=True)
        e = _shifted_exp(logits, top)
        total = mx.sum(e, axis=-1, keepdims=True)
        picked = mx.take_along_axis(logits, targets[:, None], axis=-1)
        value = mx.sum(weights[:, None] * (mx.log(total) + top - picked))
        return value, mx.stop_gradient(e), mx.stop_gradient(total)

    @loss.vjp
    def rule(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, mx.array]:
        hidden, table = primals
        _, e, total = outputs
        scale = (cotangents[0] * weights)[:, None]
        d_hidden = (e @ table) * (scale / total) - scale * table[targets]
        d_table = e.T @ (hidden * (scale / total))
        return d_hidden, d_table.at[targets].add(-scale * hidden)

    whole: Any = loss

    def value(hidden: mx.array, table: mx.array) -> mx.array:
        first: mx.array = whole(hidden, table)[0]
        return first

    return value


def _start_copying(model: Model) -> None:
    """Starts the network from a copying circuit instead of waiting for one to form (measured: millions of tokens).

    Head 0 of layer 0 looks at the previous token: a constant channel of the embedding makes its queries and keys
    depend on position alone, and rotary frequencies near one radian a token make offset 1 the peak. It writes a
    random projection of that token into channels the embedding leaves empty. Head 0 of layers 1 and 2 matches the
    current token against that note, which finds what followed the same token earlier, and passes the finding on.
    Training is free to change all of it.
    """
    args = model.args
    width, size, half = args.hidden_size, args.head_dim, args.head_dim // 2
    note = half
    table = model.model.embed_tokens.weight
    table = mx.where(mx.arange(width) >= width - note, 0.0, table)
    model.model.embed_tokens.weight = mx.where(mx.arange(width) == 0, 3.0 * width**-0.5, table)
    project = mx.random.normal((note, width)) * width**-0.5
    project = mx.where((mx.arange(width) == 0) | (mx.arange(width) >= width - note), 0.0, project)

    first = model.layers[0].self_attn
    fast = mx.arange(6)
    angle = args.rope_local_base_freq ** (-fast / half)
    first.q_proj.weight[:size] = 0.0
    first.k_proj.weight[:size] = 0.0
    first.q_proj.weight[fast, 0] = 0.3 * mx.cos(angle)
    first.q_proj.weight[fast + half, 0] = -0.3 * mx.sin(angle)
    first.k_proj.weight[fast, 0] = 0.3
    for norm in (first.q_norm, first.k_norm):
        norm.weight[fast] = 0.6
        norm.weight[fast + half] = 0.6
    first.v_proj.weight[:note] = project
    first.o_proj.weight = first.o_proj.weight * 0.3
    first.o_proj.weight[:, :size] = 0.0
    first.o_proj.weight[width - note :, :note] = mx.eye(note)

    slow = mx.concatenate([mx.arange(half // 2, half), mx.arange(half + half // 2, size)])
    for layer in model.layers[1:3]:
        attention = layer.self_attn
        attention.q_proj.weight[:size] = 0.0
        attention.k_proj.weight[:size] = 0.0
        attention.q_proj.weight[slow] = project
        attention.k_proj.weight[slow] = mx.eye(note, width, width - note)
        passed = mx.random.normal((size, width)) * width**-0.5
        attention.v_proj.weight[:size] = passed
        attention.o_proj.weight[:, :size] = passed.T
