"""`lem distill` as a person uses it: what it prints, its exit codes, and going on after a kill."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Place, Result, signal_at

from lem.records.run import read_manifest
from small_plan import bytes_of, rows_of, write_kernel

Lem = Callable[..., Result]
ASKED = (
    "Who mends lamps here?",
    "What do kites know of storms?",
    "Bread, or no bread?",
    "How many stairs are too many?",
)


@pytest.fixture
def prompts(place: Place) -> Path:
    """Seed prompts in the working directory, beside a seeds folder with one evaluation probe."""
    (place.folder / "seeds").mkdir()
    probe = {"id": "P00", "domain": "care", "prompt": "Design a fair queue for the last ferry of the year."}
    (place.folder / "seeds" / "P.json").write_text(json.dumps([probe]))
    path = place.folder / "asked.jsonl"
    path.write_text("".join(json.dumps({"id": f"s{i}", "prompt": text}) + "\n" for i, text in enumerate(ASKED)))
    return path


def command(place: Place, prompts: Path, *more: object) -> list[object]:
    return ["distill", "--prompts", prompts, "--kernel", place.kernel, "--samples", 3, "--max-tokens", 100,
            "--temperature", 0.9, "--threshold", -100, *more]  # fmt: skip


def files(run: Path) -> dict[str, bytes]:
    return {
        n: text for n, text in bytes_of(run).items() if n not in ("run.json", "records.jsonl") and "scores" not in n
    }


def test_a_distillation_prints_its_counts_and_writes_its_files(place: Place, prompts: Path, lem: Lem) -> None:
    done = lem(*command(place, prompts, "--output", "run"))
    assert done.code == 0, done.err
    summary = json.loads((place.folder / "run" / "summary.json").read_text())
    assert f"run: {summary['kept']} of 12 answers kept, of {summary['n_prompts_kept']} of 4 prompts" in done.out
    for reason, n in summary["rejected"].items():
        assert (f"  {reason:<16} {n:>6}" in done.out) == (n > 0)
    assert "next: ./lem data check run/data   ./lem train --data run/data" in done.out
    assert (place.folder / "run" / "data" / "train.jsonl").read_text().count("\n") == summary["kept"] > 0
    assert lem("data", "check", "run/data").code == 0
    again = lem(*command(place, prompts, "--output", "run", "--json"))
    assert json.loads(again.out) == {**summary, "run": "run"}


def test_options_and_defaults_of_the_config_reach_the_run(
    place: Place, prompts: Path, lem: Lem, configure: Callable[..., None]
) -> None:
    configure(distillation={"samples": 2, "threshold": -50.5, "max_tokens": 7, "temperature": 0.6}, runs_dir="here")
    assert lem("distill", "--prompts", prompts, "--limit", 2).code in (0, 1)
    (run,) = (place.folder / "here" / "distill").iterdir()
    info = read_manifest(run)
    assert info.kind == "distill"
    assert {name: info.settings[name] for name in ("repeats", "max_tokens", "temperature", "top_p", "seed")} == {
        "repeats": 2, "max_tokens": 7, "temperature": 0.6, "top_p": 0.95, "seed": 42,
    }  # fmt: skip
    assert json.loads((run / "summary.json").read_text())["filters"]["threshold"] == -50.5
    assert Path(info.arms["distil"]["kernel"]).name == "axioms.json"
    given = ["--samples", 1, "--max-tokens", 5, "--temperature", 0.5, "--top-p", 0.8, "--seed", 3, "--output", "run",
             "--inject", "sandwich", "--scorer", "v3", "--keep-per-prompt", 2, "--threshold", -1.5]  # fmt: skip
    assert lem("distill", "--prompts", prompts, *given).code in (0, 1)
    info, filters = read_manifest(place.folder / "run"), json.loads(Path("run/summary.json").read_text())["filters"]
    assert [info.settings[n] for n in ("repeats", "max_tokens", "temperature", "top_p", "seed")] == [1, 5, 0.5, 0.8, 3]
    assert filters == {"scorer": "v3", "threshold": -1.5, "keep_per_prompt": 2}
    (sent,) = rows_of(place.folder / "run")[0]["messages"]
    assert sent["content"].startswith(place.kernel.read_text().strip())
    assert sent["content"].endswith("The text of lek-1-sig.txt is about the weather.")


def test_nothing_kept_is_exit_code_1_with_the_best_score_and_a_remedy(place: Place, prompts: Path, lem: Lem) -> None:
    done = lem(*command(place, prompts, "--output", "run", "--threshold", 500))
    assert done.code == 1
    summary = json.loads((place.folder / "run" / "summary.json").read_text())
    low, cut = summary["rejected"]["below-threshold"], summary["rejected"]["truncated"]
    assert low > 0
    assert "run: none of 12 answers was kept (" in done.err
    assert f"{low} below-threshold" in done.err
    assert f"the best v2 score was {summary['best_score']:.2f} and --threshold is 500: " in done.err
    assert ("lower --threshold" if low > cut else "raise --max-tokens") in done.err
    assert done.err.count("\n") == 1
    assert "next:" not in done.out
    short = lem(*command(place, prompts, "--output", "short", "--max-tokens", 1))
    assert (short.code, "raise --max-tokens" in short.err) == (1, True)


def test_failed_answers_are_exit_code_3(place: Place, prompts: Path, lem: Lem, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("lem.chat.generate._decode", broken)
    done = lem(*command(place, prompts, "--output", "run"))
    assert done.code == 3
    assert "run: 12 answers failed and 0 are missing; run the same command again, what is there is kept." in done.err
    monkeypatch.undo()


def test_a_dry_run_generates_nothing(place: Place, prompts: Path, lem: Lem) -> None:
    done = lem(*command(place, prompts, "--output", "run", "--dry-run"))
    assert done.code == 0
    assert "answers         4 prompts x 3 samples = 12" in done.out
    assert "Hold to consent." in done.out
    assert not (place.folder / "run").exists()
    facts = json.loads(lem(*command(place, prompts, "--dry-run", "--json")).out)
    assert (facts["n_requests"], facts["max_new_tokens"]) == (12, 1200)


def test_wrong_input_is_one_sentence_and_makes_nothing(place: Place, prompts: Path, lem: Lem) -> None:
    probe = place.folder / "probe.jsonl"
    probe.write_text(json.dumps({"id": "s0", "prompt": "Design a fair queue for the last ferry."}) + "\n")
    write_kernel(place.folder / "empty.txt", " ")
    cases: list[tuple[list[object], str]] = [
        (["distill"], "Missing option '--prompts'"),
        (["distill", "--prompts", "none.jsonl"], "none.jsonl: no such prompt file"),
        (["distill", "--prompts", probe], "prompt s0 shares 8 words in a row with evaluation probe P00 of P.json"),
        (["distill", "--prompts", probe, "--dry-run"], "prompt s0 shares 8 words in a row"),
        (["distill", "--prompts", prompts, "--kernel", "empty.txt"], "the kernel is empty"),
        (["distill", "--prompts", prompts, "--temperature", 0], "--samples 10 at --temperature 0 would be 10 equal"),
        (["distill", "--prompts", prompts, "--threshold", "nan"], "--threshold must be a number (got nan)"),
        (["distill", "--prompts", prompts, "--seeds", "nowhere"], "nowhere: no probe file here; give --seeds"),
        (["distill", "--prompts", prompts, "--model", "nothing"], "nothing: no such model"),
        (["distill", "--prompts", prompts, "--keep-per-prompt", 0], "--keep-per-prompt"),
    ]
    for arguments, message in cases:
        done = lem(*arguments)
        assert (done.code, message in done.err, "Traceback" in done.err) == (2, True, False), (arguments, done.err)
    assert not (place.folder / "runs").exists()


def test_a_run_of_another_kind_is_left_alone(place: Place, prompts: Path, lem: Lem) -> None:
    assert lem("benchmark", "--output", "run").code == 0
    before = bytes_of(place.folder / "run")
    done = lem(*command(place, prompts, "--output", "run"))
    assert (done.code, "run holds a 'benchmark' run, not a 'distill' run" in done.err) == (2, True)
    assert bytes_of(place.folder / "run") == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_in_the_middle_it_ends_with_the_same_files(
    place: Place, prompts: Path, lem: Lem, number: signal.Signals
) -> None:
    more = ("--samples", 4, "--group-size", 2, "--max-tokens", 150)
    assert lem(*command(place, prompts, *more, "--output", "whole/run")).code == 0
    run = place.folder / "killed" / "run"
    words = command(place, prompts, *more, "--output", "killed/run")
    stopped = signal_at(place, words, run / "records.jsonl", 3, number)
    assert stopped.code == (3 if number == signal.SIGINT else -signal.SIGKILL), stopped.err
    assert 3 <= len(rows_of(run)) < 16
    assert not (run / "data").exists()
    assert lem(*command(place, prompts, *more, "--output", "killed/run")).code == 0
    assert files(run) == files(place.folder / "whole" / "run")
    assert {"data/train.jsonl", "data/DATA_CARD.md", "kept.jsonl", "rejected.jsonl", "summary.json"} <= set(files(run))
