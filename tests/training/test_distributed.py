"""Data-parallel training: two real processes on loopback against one process with the same global batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from trainings import QUICK, go, rows

from lem.training.settings import TrainingSettings

LAUNCH = Path(sys.executable).with_name("mlx.launch")
# Five rows in batches of four: the second step of an epoch has one row, and the second process none.
SETTINGS = replace(QUICK, iters=20, batch_size=4, report_every=1, validate_every=10, save_every=10)

PAIRS = (
    ("One?", "Aye."), ("Two, then?", "Never."), ("And what of three?", "Perhaps, with consent."), ("Four?", "Ask."),
    ("Five or so?", "Perhaps never, with consent."),
)  # fmt: skip


def _line(question: str, answer: str) -> str:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": messages}) + "\n"


def launch(base: Path, data: Path, output: Path, settings: TrainingSettings) -> subprocess.CompletedProcess[str]:
    """Train in two processes, through the command line."""
    options = [
        "train", "--model", str(base), "--data", str(data), "--adapter-path", str(output), "--iters",
        str(settings.iters), "--batch-size", str(settings.batch_size), "--learning-rate", str(settings.learning_rate),
        "--rank", str(settings.rank), "--save-every", str(settings.save_every), "--report-every", "1",
        "--validate-every", str(settings.validate_every), "--seed", str(settings.seed),
    ]  # fmt: skip
    command = [str(LAUNCH), "-n", "2", "--backend", "ring", "--", sys.executable, "-m", "lem.cli.main", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=os.environ.copy())


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, base: Path) -> tuple[Path, Path, str]:
    """The folders of one process and of two, and what the two printed."""
    folder = tmp_path_factory.mktemp("ranks")
    data = folder / "data"
    data.mkdir()
    for name in ("train.jsonl", "valid.jsonl"):
        (data / name).write_text("".join(_line(question, answer) for question, answer in PAIRS))
    go(base, data, folder / "one", SETTINGS)
    done = launch(base, data, folder / "two", SETTINGS)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "one", folder / "two", done.stdout


def test_two_processes_have_the_losses_of_one(pair: tuple[Path, Path, str]) -> None:
    one, two, _ = pair
    for kind, expected in (("train", 20), ("valid", 3)):
        alone, together = rows(one, kind), rows(two, kind)
        assert [row["iteration"] for row in together] == [row["iteration"] for row in alone]
        assert len(alone) == expected
        assert [row["n_tokens"] for row in together] == [row["n_tokens"] for row in alone]
        for name in ("loss", "grad_norm") if kind == "train" else ("loss",):
            np.testing.assert_allclose([row[name] for row in together], [row[name] for row in alone], atol=1e-4)
    assert len({round(row["loss"], 3) for row in rows(one, "train")}) > 10  # a training, not twenty equal numbers


def test_the_adapters_agree_and_the_first_process_alone_wrote(pair: tuple[Path, Path, str]) -> None:
    one, two, printed = pair
    weights = [mx.load(str(folder / "adapters.safetensors")) for folder in (one, two)]
    assert set(weights[0]) == set(weights[1])
    for name in weights[0]:
        np.testing.assert_allclose(np.array(weights[0][name]), np.array(weights[1][name]), atol=1e-4)
    assert len(rows(two)) == len(rows(one))
    assert printed.count("adapter:") == 1
