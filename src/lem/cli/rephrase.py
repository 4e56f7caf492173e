"""`lem rephrase`: write variants of probes, for evaluation."""

from __future__ import annotations

from pathlib import Path

import click

from lem.cli.options import existing_path, json_option, print_json, seed_option
from lem.errors import UserError
from lem.paths import display_path


@click.command("rephrase")
@click.option("--prompts", metavar="FILE", help="Probe file.  [default: default_probes of the config]")
@click.option("--output", metavar="FILE", help="The new probe file, .json, outside the training folder; required.")
@click.option("--kinds", default="perspective,urgency,culture", show_default=True, help="Kinds, separated by commas.")
@click.option("--limit", type=int, help="Use the first LIMIT probes of the file only.")
@seed_option
@json_option
def rephrase(
    prompts: str | None, output: str | None, kinds: str, limit: int | None, seed: int | None, as_json: bool
) -> None:
    """Write three variants of each probe: asked from another seat, under pressure of time, in another community.

    The text of the probe stays as it is; a seeded choice of frames stands around it. The variants are for evaluation
    only, as the probes are, and each names its source probe.
    """
    from lem.config import load_config
    from lem.data.probes import read_probes
    from lem.data.rephrase import USE, check_output, parse_kinds, probe_file_text, rephrase_probes
    from lem.records import write_atomic

    if output is None:
        raise UserError("no output named; give --output FILE.json, for example runs/rephrased.json.")
    config = load_config()
    chosen = parse_kinds(kinds)
    source = existing_path(prompts or config.default_probes)
    target = existing_path(output)
    check_output(target, Path(config.training_dir))
    probes = read_probes(source, limit)
    seed = config.seed if seed is None else seed
    variants = rephrase_probes(probes, chosen, seed)
    try:
        write_atomic(target, probe_file_text(variants))
    except OSError as error:
        raise UserError(f"--output {target}: could not write ({error.strerror}); give a place that can be.") from None
    if as_json:
        print_json(
            {
                "output": str(target), "probe_file": str(source), "n_probes": len(probes), "kinds": list(chosen),
                "n_variants": len(variants), "seed": seed, "use": USE,
            }
        )  # fmt: skip
        return
    click.echo(f"{len(probes)} probes x {len(chosen)} kinds = {len(variants)} variants: {display_path(target)}")
    click.echo("For evaluation only; the variants of one probe are one observation, not several.")
