"""`--track`: what reaches trackio's store is what the metrics say, nothing leaves the machine, errors are sentences."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lem.cli import tracking
from lem.cli.tracking import REMOTE_VARIABLES, open_tracker
from lem.errors import UserError

ROWS = [
    {"kind": "valid", "iteration": 0, "loss": 6.5, "n_tokens": 900},
    {"kind": "train", "iteration": 10, "loss": 5.25, "grad_norm": None, "learning_rate": 1e-05, "trained_tokens": 1800},
    {"kind": "probe", "iteration": 10, "n": 21, "v2": 9.5, "degenerate": 0.0},
    {"kind": "event", "iteration": 13, "event": "skipped", "note": "the loss was not finite"},
]
EXPECTED = [
    (0, {"valid/loss": 6.5, "valid/n_tokens": 900}),
    (10, {"train/loss": 5.25, "train/learning_rate": 1e-05, "train/trained_tokens": 1800}),
    (10, {"probe/n": 21, "probe/v2": 9.5, "probe/degenerate": 0.0}),
    (13, {"event/skipped": 1, "event/note": "the loss was not finite"}),
]
# Hosts looked up are recorded and refused; a token is stored, which is what makes trackio ask for the name behind it.
PREAMBLE = """
import json, socket, sys
asked = []
def refuse(host, *rest, **named):
    asked.append(str(host))
    raise OSError("there is no network here")
socket.getaddrinfo = refuse
rows = json.loads(sys.argv[1])
"""
OURS = """
from lem.cli.tracking import open_tracker
def track(resume):
    with open_tracker("trackio:proof", {"rank": 8, "targets": ("q",)}, name="first", resume=resume) as send:
        for row in rows:
            send(row)
        raise KeyboardInterrupt
for resume in (False, True):
    try:
        track(resume)
    except KeyboardInterrupt:
        pass
print(json.dumps(asked), file=sys.stderr)
"""
THEIRS = """
import trackio
trackio.init("peer", name="first")
trackio.finish()
print(json.dumps(asked), file=sys.stderr)
"""


def run_script(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run in a process of its own: trackio fixes its folder when it is imported."""
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"TRACKIO_DIR": str(folder), "HF_HOME": str(folder / "hf"), "HF_TOKEN": "hf_made_up"}
    command = [sys.executable, "-c", PREAMBLE + script, json.dumps(ROWS)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=folder)


def stored(folder: Path, query: str) -> list[Any]:
    with sqlite3.connect(folder / "proof.db") as database:
        return database.execute(query).fetchall()


def test_rows_are_stored_as_they_are_and_no_host_is_asked_for(tmp_path: Path) -> None:
    done = run_script(OURS, tmp_path)
    rows = stored(tmp_path, "SELECT step, metrics FROM metrics ORDER BY id")
    assert [(step, json.loads(metrics)) for step, metrics in rows] == EXPECTED * 2, "flushed, though both were cut off"
    assert len(stored(tmp_path, "SELECT DISTINCT run_id FROM metrics")) == 1, "the second went on with the first"
    config = json.loads(stored(tmp_path, "SELECT config FROM configs")[0][0])
    assert (config["rank"], config["targets"]) == (8, ["q"])
    assert json.loads(done.stderr.splitlines()[-1]) == []
    assert "run 'first', to be seen with" in done.stderr
    assert done.stdout == "", "standard output belongs to --json"


def test_trackio_by_itself_does_ask(tmp_path: Path) -> None:
    """Without our switch the same process looks a host up, so that the test above can fail."""
    assert set(json.loads(run_script(THEIRS, tmp_path).stderr.splitlines()[-1])) == {"huggingface.co"}


def test_without_a_tracker_rows_go_nowhere() -> None:
    with open_tracker(None, {}) as send:
        assert send(ROWS[0]) is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize("spec", ["wandb", "wandb:lem", "", ":lem", "Trackio"])
def test_an_unknown_tracker_is_refused(spec: str) -> None:
    with (
        pytest.raises(UserError, match=r"unknown tracker .*; write trackio or trackio:PROJECT"),
        open_tracker(spec, {}),
    ):
        pass


@pytest.mark.parametrize("name", REMOTE_VARIABLES)
def test_a_variable_that_sends_metrics_elsewhere_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "someone/somewhere")
    with pytest.raises(UserError, match=f"env -u {name} ./lem"), open_tracker("trackio", {}):
        pass


@pytest.mark.parametrize(("pip", "command"), [(True, "-m pip install -c"), (False, "uv pip install --python")])
def test_a_missing_package_names_the_command(pip: bool, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: object() if pip and name == "pip" else None)
    with pytest.raises(UserError) as raised, open_tracker("trackio", {}):
        pass
    sentence = str(raised.value)
    assert "trackio is not installed" in sentence
    assert command in sentence
    assert "requirements-dev.lock trackio`" in sentence


def test_a_project_name_that_trackio_refuses_is_a_sentence() -> None:
    refused = pytest.raises(UserError, match=r"--track trackio:registry-x: .*not allowed")
    with refused, open_tracker("trackio:registry-x", {}):
        pass
