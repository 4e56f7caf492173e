"""`lem fuse` and `lem convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lem.cli.options import existing_path, json_option, model_option, print_json, progress
from lem.paths import display_path

_prompts_option = click.option(
    "--prompts", "n_prompts", type=click.IntRange(min=1), default=20, show_default=True, help="Prompts of the proof."
)
_prompt_file_option = click.option(
    "--prompt-file", metavar="FILE", help="Prompts of your own, one a line.  [default: 40 that come with lem]"
)


@click.command("fuse")
@model_option
@click.option("--adapter", required=True, metavar="DIR", help="Adapter to merge: LoRA, DoRA or full.")
@click.option("--output", required=True, metavar="DIR", help="Folder for the fused model; must be new.")
@_prompts_option
@_prompt_file_option
@click.option("--keep-quantised", is_flag=True, help="Quantise the merged layers again; may lose the adapter.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="Float type.  [default: base's]")
@click.option(
    "--min-agreement", type=click.FloatRange(0, 1), default=0.99, show_default=True, help="Lowest greedy agreement."
)
@click.option("--max-kl", type=click.FloatRange(min=0), default=0.01, show_default=True, help="Highest KL, nats/token.")
@json_option
def fuse(
    model: str | None, adapter: str, output: str, n_prompts: int, prompt_file: str | None, keep_quantised: bool,
    dtype: str | None, min_agreement: float, max_kl: float, as_json: bool,
) -> None:  # fmt: skip
    """Merge an adapter into its base, de-quantised, and prove that the saved model behaves like base + adapter.

    Exit status: 0 proven and saved, 1 the fused model behaves differently (nothing is kept), 2 wrong input.
    """
    from dataclasses import asdict

    from lem.config import load_config, resolve_model
    from lem.training.fuse import STEPS, FuseSettings, fuse_adapter
    from lem.training.parity import Bars

    settings = FuseSettings(
        keep_quantised, dtype, n_prompts, None if prompt_file is None else existing_path(prompt_file),
        Bars(min_agreement, max_kl),
    )  # fmt: skip
    base, target = resolve_model(load_config(), model), existing_path(output)
    with progress("fusing", len(STEPS), "steps") as advance:

        def on_step(step: str) -> None:
            advance(0 if step == STEPS[0] else 1, note=step)

        report = fuse_adapter(base, existing_path(adapter), target, settings, on_step)
    if as_json:
        print_json({**asdict(report), "proof": report.proof.to_dict()})
        return
    merged = report.merged
    plain = f", {merged.n_dequantised} de-quantised" if merged.n_dequantised else ""
    form = "quantised" if merged.quantised else ", ".join(merged.dtypes)
    click.echo(f"fused model: {display_path(target)} ({merged.n_merged} layers merged{plain}; {form})")
    click.echo("\n".join(proof_lines(report.proof, "base + adapter", "fused")))


@click.command("convert")
@model_option
@click.option("--output", required=True, metavar="DIR", help="Folder for the converted model; must be new.")
@click.option(
    "--to", "target", type=click.Choice(["mlx", "hf"]), default="mlx", show_default=True,
    help="mlx, or Hugging Face safetensors (de-quantised).",
)  # fmt: skip
@click.option(
    "-q", "--quantize", "bits", type=click.Choice(["2", "3", "4", "6", "8"]), help="Quantise to this many bits."
)
@click.option(
    "--group-size", type=click.Choice(["32", "64", "128"]), help="Weights that share a scale; with -q.  [default: 64]"
)
@_prompts_option
@_prompt_file_option
@json_option
def convert(
    model: str | None, output: str, target: str, bits: str | None, group_size: str | None, n_prompts: int,
    prompt_file: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Convert a model to MLX, optionally quantised, or back to Hugging Face safetensors, proven by its logits."""
    from dataclasses import asdict

    from lem.config import load_config, resolve_model
    from lem.errors import UserError
    from lem.training.convert import convert_to_hf, convert_to_mlx

    if group_size is not None and bits is None:
        raise UserError("--group-size goes with -q, which is not given; add -q BITS or leave it out.")
    if target == "hf" and bits is not None:
        raise UserError("-q does not go with --to hf, which writes de-quantised weights; leave one of the two out.")
    base, folder = resolve_model(load_config(), model), existing_path(output)
    if target == "mlx":
        report = convert_to_mlx(base, folder, None if bits is None else int(bits), int(group_size or 64))
    else:
        own = None if prompt_file is None else existing_path(prompt_file)
        report = convert_to_hf(base, folder, n_prompts=n_prompts, prompt_file=own)
    if as_json:
        print_json({**asdict(report), "proof": report.proof and report.proof.to_dict()})
        return
    click.echo(f"converted model: {display_path(folder)} ({_conversion(report, bits, group_size)})")
    if report.proof is not None:
        click.echo("\n".join(proof_lines(report.proof, display_path(Path(base)), "converted")))
        click.echo("Read back with MLX only; transformers needs torch, which lem does not install.")


def _conversion(report: Any, bits: str | None, group_size: str | None) -> str:
    if report.n_quantised:
        return f"{report.n_quantised} of {report.n_layers} layers in {bits} bits, groups of {group_size or 64}"
    plain = f"{report.n_dequantised} layers de-quantised; " if report.n_dequantised else ""
    return plain + ", ".join(report.dtypes)


def proof_lines(proof: Any, reference: str, candidate: str) -> list[str]:
    """The proof as a small table: one column for the new model and, where there is one, for the base alone."""
    columns = [(candidate, proof.candidate)] + ([("base alone", proof.yardstick)] if proof.yardstick else [])
    n_prompts, n_positions = proof.candidate.kl_nats.n, proof.candidate.agreement.n
    lines = [
        f"against {reference}: {n_prompts} prompts, {n_positions} positions, 95 % intervals",
        f"{'':<26}" + "".join(f"{name:<32}" for name, _ in columns).rstrip(),
        f"{'same greedy token':<26}" + "".join(f"{_cell(d.agreement, '.4f'):<32}" for _, d in columns).rstrip(),
        f"{'KL, nats per token':<26}" + "".join(f"{_cell(d.kl_nats, '.3g'):<32}" for _, d in columns).rstrip(),
    ]
    if proof.yardstick is not None:
        nothing = proof.yardstick.kl_nats.value == 0
        share = "the adapter changes nothing on these prompts" if nothing else f"{proof.lost:.2g}  (1: adapter lost)"
        lines.append(f"{'KL / KL of base alone':<26}{share}")
    return lines


def _cell(estimate: Any, form: str) -> str:
    if estimate.low != estimate.low:
        return f"{estimate.value:{form}}"
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"
