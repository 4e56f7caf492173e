"""What lm-eval asks for, in our terms: generation settings, stop sequences, batch sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lem.errors import UserError

if TYPE_CHECKING:
    from lem.chat.generate import GenerationSettings

MODEL_ARGS = (
    "model", "adapter", "adapter_scale", "kernel", "inject", "max_length", "max_gen_toks", "batch_size", "seed",
)  # fmt: skip
DEFAULT_MAX_LENGTH = 2048  # for models that do not say how much they read
GENERATION_KEYS = ("do_sample", "max_gen_toks", "temperature", "top_p", "until")


def read_settings(options: Mapping[str, Any], max_gen_toks: int, max_length: int) -> GenerationSettings:
    """Generation settings of a task, normalised as lm-eval's own models do; without do_sample decoding is greedy.

    Args:  max_gen_toks: for tasks that set no limit.  max_length: tokens that the model reads.
    Raises: UserError for a setting that would not be honoured, or a limit that leaves no room for a prompt.
    """
    from lm_eval.models.utils import normalize_gen_kwargs  # type: ignore[import-untyped]

    from lem.chat.generate import GenerationSettings

    kwargs: Any = normalize_gen_kwargs(dict(options), max_gen_toks)
    unknown = sorted(key for key in set(kwargs) - set(GENERATION_KEYS) if kwargs[key] is not None)
    if unknown:
        raise UserError(
            f"generation_kwargs: {unknown[0]}={kwargs[unknown[0]]} is not supported; supported are "
            f"{', '.join(GENERATION_KEYS)}."
        )
    limit, temperature, top_p = kwargs["max_gen_toks"], kwargs.get("temperature"), kwargs.get("top_p")
    if not 1 <= limit < max_length:
        raise UserError(
            f"max_gen_toks={limit} must be at least 1 and leave room for a prompt in the {max_length} tokens that the "
            "model reads; set it with --gen_kwargs max_gen_toks=N."
        )
    return GenerationSettings(limit, float(temperature or 0.0), 1.0 if top_p is None else float(top_p))


def read_stops(options: Mapping[str, Any]) -> list[str]:
    """The stop sequences of a task; one that is not a list counts as one."""
    until = options.get("until") or []
    return [until] if isinstance(until, str) else [str(stop) for stop in until]


def read_batch_size(wanted: int | str | None, most: int | None) -> int | None:
    """Rows in one batch; None leaves it to free memory.   Raises: UserError for what is no count."""
    text = "auto" if wanted is None else str(wanted)
    if text.partition(":")[0] == "auto":
        return most
    if not text.isdigit() or int(text) < 1:
        raise UserError(f"--batch_size {wanted}: must be a whole number from 1 on, or auto.")
    return int(text)
