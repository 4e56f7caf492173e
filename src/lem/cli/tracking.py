"""`--track trackio[:PROJECT]`: a second copy of the metrics rows in trackio's store on this machine.

Trackio can also send to a Space, a bucket, a server or a webhook when the environment names one. Here nothing leaves
the machine: such a variable is refused with a sentence, hardware logging stays off, and the one look-up that trackio
makes by itself (the name behind a stored Hugging Face token) is switched off while a run begins.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from lem.errors import UserError
from lem.paths import display_path, repository_root

Metric = dict[str, Any]
DEFAULT_PROJECT = "lem"
REMOTE_VARIABLES = (
    "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID", "TRACKIO_DATASET_ID", "TRACKIO_WEBHOOK_URL",
)  # fmt: skip


@contextlib.contextmanager
def open_tracker(
    spec: str | None, config: Mapping[str, Any], *, name: str | None = None, resume: bool = False
) -> Iterator[Callable[[Metric], None]]:
    """Open the tracker that `spec` names, `trackio` or `trackio:PROJECT`; without one, rows go nowhere.

    Args:  config: what is tried out, shown beside the curves.  name: the run's name, else trackio invents one.
           resume: go on with the newest run of this name, if there is one.
    Yields: a function that takes a metrics row; `loss` of a row of kind `train` is stored as `train/loss`.
    Raises: UserError for an unknown tracker, a missing package or a variable that would send the metrics elsewhere.
    """
    if spec is None:
        yield lambda row: None
        return
    tracker, _, project = spec.partition(":")
    if tracker != "trackio":
        raise UserError(f"--track {spec}: unknown tracker '{tracker}'; write trackio or trackio:PROJECT.")
    _refuse_remote()
    run = _begin(project or DEFAULT_PROJECT, config, name, resume)
    try:
        yield lambda row: run.log(_figures(row), step=row["iteration"])
    finally:
        _end()


def _refuse_remote() -> None:
    named = [name for name in REMOTE_VARIABLES if os.environ.get(name)]
    if named:
        raise UserError(
            f"--track keeps the metrics on this machine, but {' and '.join(named)} would send them elsewhere; "
            f"start again with `env -u {' -u '.join(named)} ./lem ...`."
        )


def _begin(project: str, config: Mapping[str, Any], name: str | None, resume: bool) -> Any:
    if find_spec("trackio") is None:
        raise UserError(f"--track trackio: the package trackio is not installed; get it with `{_install_command()}`.")
    with _quietly(), _no_look_ups():
        import trackio

        try:
            run = trackio.init(
                project, name=name, config=dict(config), resume="allow" if resume and name else "never", embed=False,
                auto_log_gpu=False, auto_log_cpu=False,
            )  # fmt: skip
        except (ValueError, OSError) as error:
            raise UserError(f"--track trackio:{project}: {error}") from None
    viewer = shlex.quote(display_path(Path(sys.executable).parent / "trackio"))
    click.echo(f"tracking: run '{run.name}', to be seen with `{viewer} show --project {project}`", err=True)
    return run


def _end() -> None:
    """Write what is still queued; trackio then has no run left to end, and talk about, when the program exits."""
    import trackio

    with _quietly():
        trackio.finish()


def _install_command() -> str:
    """How to add the package to this environment, which has no pip when uv made it."""
    python = shlex.quote(sys.executable)
    installer = f"{python} -m pip install" if find_spec("pip") else f"uv pip install --python {python}"
    return f"{installer} -c {shlex.quote(display_path(repository_root() / 'requirements-dev.lock'))} trackio"


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Trackio talks on standard output, where `--json` belongs."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def _no_look_ups() -> Iterator[None]:
    """Hugging Face's own offline switch, thrown for the moment and set back."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _figures(row: Metric) -> Metric:
    """The fields of a row under the name of its kind; an event is a 1 under its own name, with its note beside it."""
    if row["kind"] == "event":
        return {f"event/{row.get('event', 'event')}": 1, "event/note": row.get("note", "")}
    kept = {name: value for name, value in row.items() if name not in ("kind", "iteration") and value is not None}
    return {f"{row['kind']}/{name}": value for name, value in kept.items()}
