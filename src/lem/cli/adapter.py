"""`lem adapter`: adapters from and to the formats of other tools."""

from __future__ import annotations

from typing import Any

import click

from lem.cli.options import existing_path, json_option, model_option, print_json
from lem.paths import display_path


@click.group("adapter")
def adapter_group() -> None:
    """Export adapters to other tools and import theirs."""


@adapter_group.command("export")
@click.argument("adapter", metavar="ADAPTER")
@click.option("--to", "target", type=click.Choice(["peft"]), default="peft", show_default=True, help="Target format.")
@click.option("--output", required=True, metavar="DIR", help="Folder for the exported adapter; must be new.")
@click.option("--model", help="Base model.  [default: the one named in the adapter's configuration]")
@json_option
def export(adapter: str, target: str, output: str, model: str | None, as_json: bool) -> None:
    """Write the mlx-lm ADAPTER directory as a PEFT adapter."""
    from lem.config import load_config, resolve_model
    from lem.interop.peft_export import export_peft

    base = None if model is None else resolve_model(load_config(), model)
    report = export_peft(existing_path(adapter), existing_path(output), base)
    _show(report, "PEFT adapter", as_json)


@adapter_group.command("import")
@click.argument("directory", metavar="DIR")
@click.option("--from", "source", type=click.Choice(["peft"]), default="peft", show_default=True, help="Its format.")
@model_option
@click.option("--output", required=True, metavar="DIR", help="Folder for the imported adapter; must be new.")
@json_option
def import_(directory: str, source: str, model: str | None, output: str, as_json: bool) -> None:
    """Write the PEFT adapter in DIR as an adapter that lem and mlx-lm read."""
    from lem.config import load_config, resolve_model
    from lem.interop.peft import import_peft

    base = resolve_model(load_config(), model)
    report = import_peft(existing_path(directory), base, existing_path(output))
    _show(report, "adapter", as_json)


def _show(report: Any, what: str, as_json: bool) -> None:
    from dataclasses import asdict
    from pathlib import Path

    if as_json:
        print_json(asdict(report))
        return
    click.echo(
        f"{what}: {display_path(Path(report.output))} ({report.method}, {report.n_layers} layers, rank {report.rank}, "
        f"scale {report.scale:g})"
    )
    if report.n_padded:
        click.echo(f"{report.n_padded} layers of smaller rank were filled up with zeros to rank {report.rank}")
    if report.n_rescaled:
        click.echo(f"{report.n_rescaled} layers of another scale had the difference multiplied into lora_b")
