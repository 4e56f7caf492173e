"""A real server of a real model: mlx_lm.server with lem-nano, asked over HTTP as any OpenAI-compatible judge."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest
from asking import call

from holding import PATIENCE_S
from lem.judges.backends.budget import Budget
from lem.judges.protocol import Ending
from lem.judges.spec import open_judge, parse_spec
from local_server import free_ports

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "lem-nano"
BLAS = Path("/usr/lib/x86_64-linux-gnu/libopenblas.so.0")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of mlx_lm.server while it runs."""
    port = free_ports()
    log = tmp_path_factory.mktemp("served") / "log"
    cache = tmp_path_factory.mktemp("hub")  # the server lists what lies in the hub's cache
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    if BLAS.is_file():
        environment["LD_PRELOAD"] = str(BLAS)
    command = [sys.executable, "-m", "mlx_lm", "server", "--model", str(MODEL), "--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        try:
            until = time.monotonic() + PATIENCE_S
            while not answers(f"http://127.0.0.1:{port}/health"):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()
            process.wait()


def test_a_served_model_judges_over_http(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    spec = parse_spec(f"nano=openai:{MODEL}@{server}")
    calls = [call(f"How kind is answer {number}? Say it as JSON.", max_tokens=12) for number in range(5)]
    with open_judge(spec, concurrency=2, budget=Budget()) as judge:
        replies = list(judge.replies(calls, {one.id for one in calls}))
    assert sorted(reply.id for reply in replies) == sorted(one.id for one in calls)
    for reply in replies:
        assert reply.ending in (Ending.COMPLETE, Ending.TRUNCATED)
        assert reply.text.strip()
        assert reply.n_prompt_tokens is not None
        assert reply.n_prompt_tokens > 10
        assert reply.n_tokens is not None
        assert 1 <= reply.n_tokens <= 12
    assert judge.identity.backend == "openai"


def test_a_model_that_the_server_cannot_load_is_a_sentence(server: str, tmp_path: Path) -> None:
    from lem.errors import UserError

    spec = parse_spec(f"openai:{tmp_path / 'nothing'}@{server}")
    with open_judge(spec) as judge, pytest.raises(UserError, match="there is no model"):
        list(judge.replies([call("q")], {"q"}))
