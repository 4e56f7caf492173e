"""lem-nano's model card, written from the build's own figures and one benchmark run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import accept

_CARD = """# lem-nano

**What it is.** A toy chat model of {parameters:,} parameters, embedded in this repository so that every part of LEM
can be tried in minutes on any machine: training, A/B tests, steering, judging. It copies words of a question into
sentences of a fixed flavour. It knows nothing, reasons about nothing and must not be used for advice; **scores
obtained with it say nothing about the method** that is being tried out on it.

**Architecture.** Gemma-3 text model (`gemma3_text` in mlx-lm): width {hidden_size}, {num_hidden_layers} layers, of
which the last is global and the others have a sliding window of {sliding_window} tokens, {num_attention_heads} heads of
{head_dim}, gated MLP of {intermediate_size}, tied embeddings, float32. Context {max_position_embeddings:,} tokens,
of which training used about 2,800. Byte-level BPE, {vocab_size:,} entries. Chat template with system, user and
assistant turns; `<|end|>` ends a turn and is the end-of-sequence token.

**How it was made.** `scripts/build_nano.py all` builds it from scratch, in MLX, with fixed seeds (corpus seed
{seed}). The text is our own and is in `scripts/nano/text`: a lexicon, question and sentence frames, hand-written
exchanges and unrelated system prompts. A generator grows {rows:,} rows from it, of which training sees {steps:,}
batches of about {tokens_per_step:,} tokens, each row once: words to say back, framed questions whose answers share
their fillers, loose questions of odd shape whose answers lift phrases out of them, short notices, and hand-written
exchanges; part of the rows carry a long unrelated system prompt. Nothing comes from `training/`, `seeds/` or the
kernels; single words that `training/` uses were added to the lexicon.

In the second half of training part of the rows are roughened (`scripts/nano/rough.py`): a few tokens are repeated,
with no loss on the repetition, so that the model learns to leave a loop; words are split into odd pieces; and in the
last third, rows whose answers copy words of several tokens are left out, so that the model leaves such words alone.
Three attention heads start as a circuit that finds what followed a word before, so that copying need not be
discovered first. AdamW, peak rate {peak_rate}, cosine to zero, about an hour on one CPU core. The shipped weights
come from one such training, stopped and resumed from its checkpoints while the roughening was added (LOG.md); its
schedule is the script's, but a rebuild from scratch has not been compared with it byte for byte.

**Held-out loss.** {held_out_nll:.3f} nats per answer token on {held_out} generated rows with another seed
(hand-written exchanges left out). The corpus is synthetic, so this figure says how well the model learned our
generator, not how well it knows English.

## Acceptance
{acceptance}

## Answers to the first five probes, before and after training
Sampled at temperature 0.7, top-p 0.95, from the run that the table above was made from. Nothing was picked by hand.

{samples}
"""


def write(folder: Path, result: dict[str, Any], run: Path | None, probes: Path, root: Path, extra: str) -> str:
    """The card's text; without a run the acceptance and sample sections say that they are missing."""
    config = json.loads((folder / "config.json").read_text())
    acceptance, samples = "Not measured yet.", "No run was given."
    if run is not None:
        prompts = accept.read_probes(probes)
        answers = accept.read_answers(run)
        vocabulary = accept.shipped_vocabulary(root)
        acceptance = accept.table(accept.figures(arm, rows, prompts, vocabulary) for arm, rows in answers.items())
        samples = _samples(answers, prompts)
    return _CARD.format(**config, **result, acceptance=acceptance + ("\n\n" + extra if extra else ""), samples=samples)


def _samples(answers: dict[str, list[tuple[str, str]]], prompts: dict[str, str]) -> str:
    parts = []
    for probe in sorted(prompts)[:5]:
        parts.append(f"### {probe}\n> {prompts[probe]}")
        for arm in ("base", "trained"):
            text = next((text for name, text in answers.get(arm, []) if name == probe), None)
            if text is not None:
                parts.append(f"**{arm}:** {text}")
    return "\n\n".join(parts)
