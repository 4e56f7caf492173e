"""`lem curriculum` on a tiny model: real training, real answers, gates, exit codes, and kills in the middle."""

from __future__ import annotations

import json
import runpy
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Place, Result, signal_at

from lem.chat.load import adapter_identity
from lem.scorers import v2
from lem.training.child import ChildKilled
from small_plan import KERNEL, cells, write_probes

ROOT = Path(__file__).resolve().parents[2]
PAIRS = [("One?", "Aye."), ("Two, then?", "Never."), ("And three?", "Perhaps, with consent."), ("Four?", "Ask.")]
LOOSE = [{"gate": "not-worse", "margin": 100}]
PHASES: list[dict[str, Any]] = [
    {"number": 0, "name": "first", "format": "sandwich", "data": "pairs.jsonl", "gates": LOOSE},
    {"number": 1, "name": "second", "format": "freeflow", "data": "pairs.jsonl", "gates": LOOSE},
]


@pytest.fixture
def file(place: Place) -> Callable[..., Path]:
    """Write the curriculum and its data beside the configuration."""
    turns = [[{"role": "user", "content": ask}, {"role": "assistant", "content": say}] for ask, say in PAIRS]
    (place.folder / "pairs.jsonl").write_text("".join(json.dumps({"messages": pair}) + "\n" for pair in turns))
    write_probes(place.folder / "probes.json", 8)

    def write(*phases: dict[str, Any], **keys: Any) -> Path:
        path = place.folder / "steps.yaml"
        content = {
            "probes": "probes.json", "kernel": "kernel/axioms.json", "signature": "kernel/lek-1-sig.txt",
            "settings": {"iters": 6, "learning_rate": 1e-3, "save_every": 2, "report_every": 1},
            "generation": {"max_tokens": 6, "temperature": 0.9},
            "quick": {"iters": 2, "probes": "probes.json", "max_tokens": 4},
        }  # fmt: skip
        path.write_text(yaml.safe_dump({**content, "phases": list(phases or PHASES), **keys}))
        return path

    return write


Lem = Callable[..., Result]
File = Callable[..., Path]


def log_of(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "curriculum.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in ("ts", "command")} for row in rows]


def test_two_phases_are_trained_asked_and_shown(lem: Lem, place: Place, file: File) -> None:
    result = lem("curriculum", file(), "--output", "run")
    assert result.code == 0, result.err
    assert "All phases passed their gates." in result.out
    assert max(len(line) for line in result.out.split("\nmodel: ")[1].split("\ntable: ")[0].splitlines()) <= 80
    run = place.folder / "run"
    arms = ["base", "base+sandwich", "phase-0.1", "phase-0.1+sandwich", "phase-1.1"]
    assert list(json.loads((run / "eval/run.json").read_text())["arms"]) == arms
    records = cells(run / "eval")
    assert len(records) == 5 * 8
    asked = records[("phase-0.1+sandwich", "P00", 0)]["messages"][0]["content"]
    assert asked.startswith(json.dumps({"kernel": KERNEL}))
    assert asked.endswith("The text of lek-1-sig.txt is about the weather.")
    means = {row["arm"]: row for line in log_of(run)[1:] for row in line["arms"]}
    for arm in arms:  # the means in the log are those of the answers on disk
        values = [v2.score(row["response"])["lek_score"] for key, row in records.items() if key[0] == arm]
        assert means[arm]["scores"]["v2"]["value"] == pytest.approx(sum(values) / 8)
    assert records[("phase-1.1", "P00", 0)]["response"] != records[("base", "P00", 0)]["response"]


def test_a_phase_continues_the_adapter_before_it(lem: Lem, place: Place, file: File) -> None:
    assert lem("curriculum", file(), "--output", "run").code == 0
    first, second = (place.folder / "run" / name / "attempt-1" for name in ("phase-0-first", "phase-1-second"))
    configs = [json.loads((folder / "adapter_config.json").read_text()) for folder in (first, second)]
    assert [config["parent_adapter_sha"] for config in configs] == [None, adapter_identity(first)]
    assert [config["training"]["format"] for config in configs] == ["sandwich", "freeflow"]
    assert [row["adapter_sha"] for row in log_of(place.folder / "run")[2:]] == [
        adapter_identity(first), adapter_identity(second),
    ]  # fmt: skip


def test_scoring_on_the_way_leaves_answers_and_the_same_adapters(lem: Lem, place: Place, file: File) -> None:
    settings = {"iters": 6, "learning_rate": 1e-3, "save_every": 2, "report_every": 1}
    assert lem("curriculum", file(settings=settings), "--output", "plain", "--phase", 0).code == 0
    path = file(settings={**settings, "eval_every": 3})
    assert lem("curriculum", path, "--output", "scored", "--phase", 0).code == 0
    attempt = place.folder / "scored/phase-0-first/attempt-1"
    assert sorted(entry.name for entry in (attempt / "probes").iterdir()) == [
        "0000000.jsonl", "0000003.jsonl", "0000006.jsonl",
    ]  # fmt: skip
    shas = [log_of(place.folder / name)[2]["adapter_sha"] for name in ("plain", "scored")]
    assert shas[0] == shas[1]


def test_the_same_command_again_does_nothing_and_shows_the_same(lem: Lem, place: Place, file: File) -> None:
    first = lem("curriculum", file(), "--output", "run")
    before = {path: path.stat().st_mtime_ns for path in (place.folder / "run").rglob("*.safetensors")}
    again = lem("curriculum", file(), "--output", "run")
    assert again.code == 0
    assert again.out.split("\nmodel: ")[1] == first.out.split("\nmodel: ")[1]
    assert {path: path.stat().st_mtime_ns for path in (place.folder / "run").rglob("*.safetensors")} == before
    picture = (place.folder / "run/curriculum.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert "- 1.1 second: finished." in (place.folder / "run/curriculum.md").read_text()


def test_a_gate_that_stops_is_exit_code_one(lem: Lem, place: Place, file: File) -> None:
    high = {**PHASES[1], "target": {"value": 90}, "max_attempts": 2, "on_fail": "repeat", "repeat": {"iters": 3}}
    path = file(high)
    result = lem("curriculum", path, "--output", "run", "--json")
    assert result.code == 1
    summary = json.loads(result.out)
    assert (summary["status"], summary["accepted"], summary["adapter"]) == ("stopped", [], None)
    assert [row["action"] for row in summary["decisions"]] == ["repeat", "stop"]
    assert summary["decisions"][1]["gates"][0]["gate"] == "target"
    config = json.loads((place.folder / "run/phase-1-second/attempt-2/adapter_config.json").read_text())
    assert (config["training"]["iters"], config["seed"]) == (3, 43)
    assert config["parent_adapter_sha"] is None
    assert "Stopped: phase 1 failed target" in lem("curriculum", path, "--output", "run").out


def test_phases_one_by_one_equal_the_whole(lem: Lem, place: Place, file: File) -> None:
    path = file()
    assert lem("curriculum", path, "--output", "whole").code == 0
    early = lem("curriculum", path, "--output", "parts", "--phase", 1)
    assert early.code == 2
    assert "phase 1 continues phase 0, which has not passed" in early.err
    first = lem("curriculum", path, "--output", "parts", "--phase", 0)
    assert (first.code, "Next: phase 1.1" in first.out) == (0, True)
    assert lem("curriculum", path, "--output", "parts", "--phase", 1).code == 0
    assert log_of(place.folder / "parts") == log_of(place.folder / "whole")


def test_a_dry_run_counts_and_writes_nothing(lem: Lem, place: Place, file: File) -> None:
    result = lem("curriculum", file(), "--quick", "--dry-run")
    assert result.code == 0
    assert "5 arms x 8 probes of up to 4 tokens" in result.out
    assert "first: sandwich, 4 examples, 2 steps of 2" in result.out
    assert not (place.folder / "runs").exists()
    facts = json.loads(lem("curriculum", file(), "--dry-run", "--json", "--limit", 3, "--max-tokens", 9).out)
    assert (facts["n_probes"], facts["generation"]["max_tokens"], facts["quick"]) == (3, 9, False)
    assert [phase["settings"]["iters"] for phase in facts["phases"]] == [6, 6]
    assert facts["output"] == "runs/curriculum/tiny-llama-steps"


def test_quick_says_so_and_has_a_folder_of_its_own(lem: Lem, place: Place, file: File) -> None:
    result = lem("curriculum", file(), "--quick")
    assert result.code == 0
    assert "Quick run: 2 iterations a phase" in result.out
    assert (place.folder / "runs/curriculum/tiny-llama-steps-quick/curriculum.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nothing.yaml"], "no such curriculum file"),
        (["steps.yaml", "--phase", "7"], "--phase 7: no such phase"),
        (["steps.yaml", "--model", "./none"], "no such model"),
        (["steps.yaml", "--probes", "none.json"], "no such probe file"),
        (["steps.yaml", "--limit", "1"], "no interval"),
        (["steps.yaml", "--output", "kernel"], "is not empty and holds no curriculum.jsonl"),
    ],
)
def test_what_a_person_can_mend_is_one_sentence(lem: Lem, file: File, arguments: list[str], sentence: str) -> None:
    file()
    result = lem("curriculum", *arguments)
    assert result.code == 2
    assert sentence in result.err
    assert result.err.startswith("Error: ")
    assert result.err.count("\n") == 1


def test_another_file_in_the_same_output_is_refused(lem: Lem, place: Place, file: File) -> None:
    assert lem("curriculum", file(), "--output", "run", "--phase", 0).code == 0
    before = (place.folder / "run/curriculum.jsonl").read_bytes()
    result = lem("curriculum", file(seed=7), "--output", "run")
    assert result.code == 2
    assert "was started with another version of curriculum file" in result.err
    assert (place.folder / "run/curriculum.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("watched", "n_lines"),
    [
        ("eval/records.jsonl", 3),  # while the base is asked
        ("phase-0-first/attempt-1/metrics.jsonl", 1),  # in the first training
        ("eval/records.jsonl", 20),  # while the first attempt is asked
        ("curriculum.jsonl", 3),  # right after the first decision
        ("phase-1-second/attempt-1/metrics.jsonl", 3),  # in the second training
    ],
)
def test_killed_anywhere_it_ends_as_if_undisturbed(
    lem: Lem, place: Place, file: File, watched: str, n_lines: int
) -> None:
    path = file()
    assert lem("curriculum", path, "--output", "whole").code == 0
    words = ["curriculum", path, "--output", "killed"]
    killed_at = signal_at(place, words, place.folder / "killed" / watched, n_lines, signal.SIGKILL)
    assert killed_at.code == -signal.SIGKILL
    again = lem("curriculum", path, "--output", "killed")
    assert again.code == 0, again.err
    whole, killed = place.folder / "whole", place.folder / "killed"
    assert log_of(killed) == log_of(whole)  # with the adapters' hashes in it
    assert _texts(killed) == _texts(whole)


def _texts(run: Path) -> dict[Any, str]:
    return {key: row["response"] for key, row in cells(run / "eval").items()}


def test_ctrl_c_while_training_is_incomplete_and_goes_on(lem: Lem, place: Place, file: File) -> None:
    path = file(settings={"iters": 150, "learning_rate": 1e-3, "save_every": 20, "report_every": 1})
    metrics = place.folder / "run/phase-0-first/attempt-1/metrics.jsonl"
    words = ["curriculum", path, "--output", "run", "--phase", 0]
    stopped = signal_at(place, words, metrics, 2, signal.SIGINT)
    assert stopped.code == 3, stopped.err
    assert "interrupted while phase 0.1 first was training" in stopped.err
    assert not (metrics.parent / "adapters.safetensors").exists()
    steps = json.loads(metrics.read_text().splitlines()[-1])["iteration"]
    assert 0 < steps < 150
    assert lem("curriculum", path, "--output", "run", "--phase", 0).code == 0
    iterations = [json.loads(line)["iteration"] for line in metrics.read_text().splitlines()]
    assert iterations == list(range(1, 151))


def test_where_it_runs_in_a_child_the_childs_end_is_its_own(
    lem: Lem, place: Place, file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lem.chat.device.on_metal", lambda: True)
    high = {**PHASES[1], "target": {"value": 90}}
    assert lem("curriculum", file(high), "--output", "run").code == 1
    assert log_of(place.folder / "run")[-1]["action"] == "stop"

    def killed(*args: object) -> int:
        raise ChildKilled("x")

    monkeypatch.setattr("lem.training.child.supervise", killed)
    result = lem("curriculum", file(high), "--output", "run")
    assert (result.code, "the same command goes on" in result.err) == (3, True)


def test_the_published_script_translates_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    script = ROOT / "scripts" / "train_mistral_lek.py"
    arguments = runpy.run_path(str(script))["arguments"]
    monkeypatch.setattr("sys.argv", [str(script), "--model", "M", "--phase", "2", "--quick"])
    words = arguments()
    assert words[0] == "curriculum"
    assert Path(words[1]) == ROOT / "training" / "curriculum.yaml"
    assert words[2:] == ["--model", "M", "--phase", "2", "--quick"]
