"""A real server of a real model: mlx_lm.server with lem-nano, asked over HTTP as any OpenAI-compatible judge."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest
from asking import call

from lem.judges.backends.budget import Budget
from lem.judges.protocol import Ending
from lem.judges.spec import open_judge, parse_spec

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "lem-nano"
BLAS = Path("/usr/lib/x86_64-linux-gnu/libopenblas.so.0")


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of mlx_lm.server while it runs."""
    import time

    port = free_port()
    log = tmp_path_factory.mktemp("served") / "log"
    cache = tmp_path_factory.mktemp("hub")  # the server lists what lies in the hub's cache
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    if BLAS.is_file():
        environment["LD_PRELOAD"] = str(BLAS)
    command = [sys.executable, "-m", "mlx_lm", "server", "--model", str(MODEL), "--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        try:
            for _ in range(600):
                if process.poll() is not None or answers(f"http://127.0.0.1:{port}/health"):
                    break
                time.sleep(0.1)
            assert process.poll() is None, log.read_text()
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(30)


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
