"""`lem info` and `lem doctor`."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from typing import Any

import click

from lem.cli.options import json_option, print_json
from lem.errors import CheckFailed


@click.command("info")
@json_option
def info(as_json: bool) -> None:
    """Show machine, device, BLAS, versions, free memory and disk."""
    facts = collect_info()
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        click.echo(f"{name:<14} {value}")
    if "slow" in str(facts["blas"]):
        click.echo(
            "\nA fast BLAS makes the CPU some fifteen times faster: apt-get install libopenblas0-pthread, "
            "and start through ./lem, which loads it."
        )


def collect_info() -> dict[str, Any]:
    """Facts about this machine and installation, as shown by `lem info`."""
    from lem import __version__
    from lem.chat.device import describe_device, free_memory_bytes
    from lem.config import load_config
    from lem.paths import display_path, repository_root
    from lem.records.run import versions

    config = load_config()
    disk = shutil.disk_usage(repository_root())
    return {
        "lem": __version__,
        **describe_device(),
        **versions(),
        "free_memory": f"{free_memory_bytes() / 1e9:.1f} GB",
        "free_disk": f"{disk.free / 1e9:.1f} GB",
        "default_model": config.default_model,
        "repository": display_path(repository_root()),
    }


@click.command("doctor")
@click.argument("model", required=False)
@click.option("--adapter", metavar="DIR", help="Check the model with this adapter.")
@json_option
def doctor(model: str | None, adapter: str | None, as_json: bool) -> None:
    """Check a model: chat template, stop tokens, prefix cache, batch against alone, sampling."""
    from lem.chat.doctor import examine
    from lem.chat.load import load
    from lem.config import load_config, resolve_model

    chat = load(resolve_model(load_config(), model), adapter)
    checks = examine(chat)
    failed = [check.name for check in checks if check.ok is False]
    if as_json:
        print_json({"model": chat.name, "model_sha": chat.model_sha, "checks": [asdict(check) for check in checks]})
    else:
        click.echo(f"{chat.name}  ({chat.config.get('model_type')}, weights {chat.model_sha[:12]})")
        for check in checks:
            mark = {True: "ok  ", False: "FAIL", None: "note"}[check.ok]
            click.echo(f"  {mark}  {check.name:<15} {check.detail}")
    if failed:
        raise CheckFailed(f"{chat.name}: {', '.join(failed)} failed; do not trust a comparison made with it here.")
