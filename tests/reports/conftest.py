"""Fixtures: the hand-made run of `small_run`, and a complete one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser_page import ARGUMENTS, CHROMIUM_NAMES, PATIENCE_MS
from small_run import ARMS, N_PROBES, SmallRun, load, probe_id, probes, record_of, score_of, write_run, write_scores
from small_training import write_training

from lem.records import Key, Record, open_run, read_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for one file: while it runs, no other test of this process can start an event loop (`asyncio.run`)."""
    api = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
    with api.sync_playwright() as playwright:
        installed = [shutil.which(name) for name in CHROMIUM_NAMES] + [playwright.chromium.executable_path]
        chromium = next((path for path in installed if path and Path(path).is_file()), None)
        if chromium is None:
            pytest.skip("needs the system package chromium")
        # Not the BLAS that ./lem preloads: Chromium ends at its first page with a foreign library in it.
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        found = playwright.chromium.launch(
            executable_path=chromium, args=ARGUMENTS, env=environment, timeout=PATIENCE_MS
        )
        yield found
        found.close()


@pytest.fixture
def run(tmp_path: Path) -> SmallRun:
    path = tmp_path / "small"
    write_run(path)
    return load(path)


@pytest.fixture
def complete_run(tmp_path: Path) -> SmallRun:
    """A finished run of another model: one repeat, nothing failed, missing or unscored."""
    path = tmp_path / "complete"
    with open_run(path, "benchmark", "complete") as run:
        run.info.arms = {arm: {"model": "big-model", "model_sha": "c" * 64} for arm in ("base", "json")}
        run.info.probes = probes()
        run.info.settings = {"repeats": 1}
        chosen = [Key(arm, probe_id(i), 0) for arm in ("base", "json") for i in range(N_PROBES)]
        for key in chosen:
            row = asdict(record_of(key)) | {"error": None, "response": f"An answer to {key.probe_id} by {key.arm}."}
            run.append(Record.from_row(row))
        run.save("done")
    scores = [score_of(record, "v2") for record in read_run(path)[1]]
    write_scores(path, "v2", scores)
    return load(path)


@pytest.fixture
def trained_run(run: SmallRun, tmp_path: Path) -> SmallRun:
    """The hand-made run with adapters: json's folder is gone, trained's lies beside the runs, as a relative path."""
    facts = {arm: dict(run.info.arms[arm]) for arm in ARMS}
    facts["json"]["adapter"], facts["trained"]["adapter"] = "adapters/gone", "adapters/lek-first"
    write_training(tmp_path / "adapters" / "lek-first")
    manifest = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**manifest, "arms": facts}))
    return load(run.path)
