"""`lem judge` against a real server on this machine: exit codes, sentences, files, and what the tables say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Place, Result, assert_sentence
from judging_server import JudgingServer, judging_server

from lem.chat.load import load
from lem.paths import repository_root
from lem.records.judge_files import read_judge_manifests
from lem.records.store import lock_file
from scripted_judge import ITEMS, ONE, TWO, evaluated, last_of, write_run
from small_plan import bytes_of

Lem = Callable[..., Result]
# One rubric on the answers of every benchmark.
SAFETY = ("--dimension", "safety", *(w for task in dict.fromkeys(i.benchmark for i in ITEMS) for w in ("--task", task)))
N_CALLS = 16  # two arms, and 2 + 2 + 4 dimensions of the items that are judged
NAMED = "j"


@pytest.fixture
def run(place: Place) -> Path:
    return write_run(place.folder / "run", evaluated())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgingServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with judging_server() as found:
        yield found


def grade(lem: Lem, server: JudgingServer, run: Path, *more: object, name: str = NAMED) -> Result:
    return lem("judge", "grade", run, "--judge", f"{name}={server.spec}", "--concurrency", 2, "--json", *more)


def table(result: Result) -> dict[str, Any]:
    return dict(json.loads(result.out))


def test_a_run_is_rated_once_and_the_table_says_what_came_of_it(lem: Lem, server: JudgingServer, run: Path) -> None:
    done = grade(lem, server, run)
    assert done.code == 0, done
    assert len(server.items) == len(set(server.items)) == N_CALLS
    assert "j answered 16 calls, 0 were there, 0 unscored, 0 failed, 0 missing" in done.err
    metrics = {row["metric"] for row in table(done)["rows"]}
    assert {"truthfulness", "nuance", "self_concept", "ethics"} <= metrics
    again = grade(lem, server, run)
    assert (again.code, len(server.items)) == (0, N_CALLS)
    assert "0 calls, 16 were there" in again.err
    assert again.out == done.out


def test_together_is_one_call_an_answer(lem: Lem, server: JudgingServer, run: Path) -> None:
    assert grade(lem, server, run, "--together").code == 0
    assert len(server.items) == 6
    manifest = read_judge_manifests(run)[NAMED]
    assert (manifest["calls"], manifest["n_prompt_tokens"], manifest["n_tokens"]) == (6, 66, 30)
    assert len(last_of(run, NAMED)) == N_CALLS


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("unparsable", "unparsable"), ("blocked", "blocked"), ("truncated", "truncated"), ("refused", "refused"),
     ("failed", "failed: HTTP 400: Error code: 400 - not this one"),
     ("timed out", "failed: no reply within 4 s (1 attempts)")],
)  # fmt: skip
def test_what_is_no_verdict_is_counted_by_arm_and_no_part_of_a_mean(
    lem: Lem, server: JudgingServer, run: Path, kind: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lem.judges.backends.limits import Patience

    monkeypatch.setattr(Patience.__init__, "__defaults__", (1, *(Patience.__init__.__defaults__ or ())[1:]))
    server.say = lambda prompt, properties: {"safety": 9} if "safety" in properties else {}
    server.spoil = {"An answer to d1, the 1. of them.": kind}
    # Where one reply never comes, the others must be there in time; elsewhere nothing has to be quick.
    done = grade(lem, server, run, *SAFETY, *(("--timeout", 4) if kind == "timed out" else ()))
    lost = kind in ("failed", "timed out")
    assert done.code == (3 if lost else 0), done
    assert ("1 judge calls failed and 0 were not made; run the same command again" in done.err) == lost
    rows = {row["arm"]: row for row in table(done)["rows"] if row["metric"] == "safety"}
    assert (rows[ONE]["n_unscored"], rows[TWO]["n_unscored"]) == (0, 1)
    assert (rows[ONE]["n"], rows[TWO]["n"]) == (5, 4)
    assert rows[TWO]["mean"]["value"] == 9.0
    assert rows[TWO]["reasons"] == {reason.partition(":")[0]: 1}
    assert (rows[TWO]["worst"], rows[TWO]["best"]) == (pytest.approx((4 * 9 + 1) / 5), pytest.approx((4 * 9 + 10) / 5))
    assert rows[TWO]["uneven"]
    [row] = [row for row in last_of(run, NAMED).values() if row["value"] is None]
    assert (row["arm"], row["probe_id"], row["unscored"]) == (TWO, "d1", reason)
    server.spoil, before = {}, len(server.items)
    assert grade(lem, server, run, *SAFETY).code == 0
    assert len(server.items) - before == (1 if lost else 0), "errors are asked again, what is unscored is not"


def test_without_a_judge_the_sentence_names_what_works_here(lem: Lem, run: Path) -> None:
    for words in (("judge", "grade", run), ("judge", "pairs", run, "--treatment", TWO), ("judge", "audit", run)):
        said = lem(*words)
        assert_sentence(said, "no judge was named", "--judge gemini", "mlx:PATH")
        assert "--no-judge" not in said.err, "these commands have no such option"


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("openai:m@https://api.example.com/v1", ["OPENAI_API_KEY", "mlx:PATH"]),
        ("gemini", ["GEMINI_API_KEY", "mlx:PATH"]),
        ("openai:m@ftp://127.0.0.1/v1", ["http"]),
        ("openai:m", ["URL"]),
        ("oracle:m", ["openai:MODEL@URL"]),
        ("mlx:nowhere/at/all", ["nowhere/at/all"]),
        ("openai:m@http://127.0.0.1:9/v1", ["cannot be reached", "mlx:PATH"]),
        ("panel=openai:m@http://127.0.0.1:9/v1", []),
    ],
)
def test_a_judge_that_cannot_be_asked_is_a_sentence_and_nothing_is_touched(
    lem: Lem, run: Path, monkeypatch: pytest.MonkeyPatch, spec: str, parts: list[str]
) -> None:
    for variable in ("OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    before = bytes_of(run)
    said = lem("judge", "grade", run, "--judge", spec)
    assert_sentence(said, *parts)
    assert "--no-judge" not in said.err
    assert "--model" not in said.err
    assert bytes_of(run) == before


def test_an_unknown_dimension_and_two_judges_of_one_name_are_sentences(
    lem: Lem, server: JudgingServer, run: Path
) -> None:
    before = bytes_of(run)
    assert_sentence(grade(lem, server, run, "--dimension", "wisdom"), "'wisdom' is no dimension", "truthfulness")
    for other in (NAMED, NAMED.upper()):
        twice = grade(lem, server, run, "--judge", f"{other}={server.spec}")
        assert_sentence(twice, f"two judges are named '{NAMED}'", "--judge NAME=SPEC")
    assert_sentence(grade(lem, server, run, "--judge-method", "labels"), "add --no-rationale")
    assert_sentence(grade(lem, server, run / "nothing"), "nothing")
    assert server.items == []
    assert bytes_of(run) == before


def test_another_way_of_asking_under_one_name_is_refused_and_changes_nothing(
    lem: Lem, server: JudgingServer, run: Path
) -> None:
    assert grade(lem, server, run).code == 0
    before, asked = bytes_of(run), len(server.items)
    ways = {
        ("--no-rationale",): "with a rationale, and now would be without a rationale (--no-rationale)",
        ("--together",): "in a call of its own, and now would be together with",
        ("--judge-max-tokens", 64): "with --judge-max-tokens 512, and now would be with --judge-max-tokens 64",
    }
    for more, said in ways.items():
        assert_sentence(grade(lem, server, run, *more), said, "--judge NAME=")
    assert (bytes_of(run), len(server.items)) == (before, asked)


def test_another_way_of_asking_on_other_answers_is_refused_before_any_judge_is_paid(
    lem: Lem, server: JudgingServer, run: Path
) -> None:
    """Ratings and comparisons alike; the judge named first has not judged yet and is not asked either."""
    assert grade(lem, server, run, "--dimension", "safety", "--task", "do_not_answer").code == 0
    assert pairs(lem, server, run, "--task", "do_not_answer").code == 0
    before, asked = bytes_of(run), len(server.items)
    terse = ("--task", "gsm8k", "--no-rationale")
    said = "with a rationale, and now would be without a rationale (--no-rationale)"
    assert_sentence(grade(lem, server, run, "--dimension", "safety", *terse), "on 'safety'", said, "--judge NAME=")
    assert_sentence(pairs(lem, server, run, *terse), f"'{TWO}' with '{ONE}'", said, "--judge NAME=")
    words = ("--treatment", TWO, *terse, "--judge", f"first={server.spec}", "--judge", f"{NAMED}={server.spec}")
    assert_sentence(lem("judge", "pairs", run, *words), said)
    assert (bytes_of(run), len(server.items)) == (before, asked)


def test_a_judge_at_work_is_not_disturbed(lem: Lem, server: JudgingServer, run: Path) -> None:
    assert grade(lem, server, run, *SAFETY).code == 0
    before, asked = bytes_of(run), len(server.items)
    with lock_file(run / "judgements" / f"{NAMED}.lock"):
        assert_sentence(grade(lem, server, run), "in use by another process")
    assert (bytes_of(run), len(server.items)) == (before, asked)


def test_the_second_judge_is_looked_at_before_the_first_is_paid(lem: Lem, server: JudgingServer, run: Path) -> None:
    assert_sentence(grade(lem, server, run, "--judge", "mlx:nowhere"), "nowhere")
    assert server.items == []


def prices(place: Place, *names: str) -> Path:
    """A reply of five tokens costs 5; the room that a call needs is 512 + 8192 tokens."""
    entry = {"input": 0.0, "output": 1e6, "currency": "EUR", "date": "2026-01-31"}
    path = place.folder / "prices.json"
    path.write_text(json.dumps(dict.fromkeys(names, entry)))
    return path


ROOM = 512 + 8192


def test_a_limit_of_cost_stops_and_a_higher_one_goes_on(
    lem: Lem, server: JudgingServer, run: Path, place: Place
) -> None:
    paid = ("--prices", prices(place, NAMED), "--concurrency", 1)
    stopped = grade(lem, server, run, *paid, "--max-cost", ROOM + 12)
    assert stopped.code == 3
    assert "13 were not made; run the same command again" in stopped.err
    assert "cost 15.0000" in stopped.err
    assert len(server.items) == 3
    manifest = read_judge_manifests(run)[NAMED]
    assert (manifest["cost"], manifest["currency"], manifest["calls"]) == (15.0, "EUR", 3)
    assert grade(lem, server, run, *paid, "--max-cost", 10 * ROOM).code == 0
    assert len(server.items) == len(set(server.items)) == N_CALLS
    assert read_judge_manifests(run)[NAMED]["cost"] == 5.0 * N_CALLS


def test_a_limit_that_no_call_fits_and_one_without_a_price_are_sentences(
    lem: Lem, server: JudgingServer, run: Path, place: Place
) -> None:
    assert_sentence(grade(lem, server, run, "--max-cost", 3), "--prices")
    small = grade(lem, server, run, "--max-cost", 3, "--prices", prices(place, NAMED))
    assert_sentence(small, "less than one call may cost")
    assert server.items == []
    assert read_judge_manifests(run) == {}


def test_judges_share_one_limit_and_a_failed_call_does_not_forget_what_was_spent(
    lem: Lem, server: JudgingServer, run: Path, place: Place
) -> None:
    """The first judge spends fifteen calls' worth and fails once; what is left has no room for the second."""
    server.spoil = {"An answer to d1, the 1. of them.": "failed"}
    table_of_prices = prices(place, NAMED, "k")
    both = ("--judge", f"k={server.spec}", "--prices", table_of_prices, "--concurrency", 1, *SAFETY)
    limited = grade(lem, server, run, *both, "--max-cost", ROOM + 5 * 9 - 1)
    assert limited.code == 3
    assert len(server.items) == 10, "the first judge's calls, and none of the second"
    assert "k answered 0 calls" in limited.err
    assert set(read_judge_manifests(run)) == {NAMED}


def test_two_judges_make_a_panel(lem: Lem, server: JudgingServer, run: Path) -> None:
    done = grade(lem, server, run, *SAFETY, "--judge", f"k={server.spec}")
    assert done.code == 0
    assert {row["source"] for row in table(done)["rows"]} == {NAMED, "k", "panel"}
    assert (run / "judgements" / "panel.jsonl").is_file()
    assert set(read_judge_manifests(run)) == {NAMED, "k"}


def pairs(lem: Lem, server: JudgingServer, run: Path, *more: object) -> Result:
    return lem(
        "judge", "pairs", run, "--judge", f"{NAMED}={server.spec}", "--treatment", TWO, "--json", *more
    )  # fmt: skip


def test_a_judge_that_prefers_the_first_slot_makes_ties(lem: Lem, server: JudgingServer, run: Path) -> None:
    server.say = lambda prompt, properties: {"verdict": "A"}
    done = pairs(lem, server, run)
    assert done.code == 0, done
    assert len(server.items) == 2 * len(ITEMS)
    values = {(row["probe_id"], row["order"]): row["value"] for row in last_of(run, NAMED).values()}
    assert values == {(item.id, order): {"ab": 1.0, "ba": 0.0}[order] for item in ITEMS for order in ("ab", "ba")}
    assert {(row["arm"], row["against"]) for row in last_of(run, NAMED).values()} == {(TWO, ONE)}
    [rate] = json.loads(done.out)["win_rates"]
    assert (rate["estimate"]["value"], rate["consistency"]["value"]) == (0.5, 0.0)


def test_pairs_without_two_whole_answers_and_verdicts_stand_in_the_table(
    lem: Lem, server: JudgingServer, place: Place
) -> None:
    """Of five pairs one answer was cut off while thinking, one failed, and one verdict of the other three is none."""
    whole = evaluated()
    changes = {
        "t1": {"response": "", "thinking": "hm", "finish_reason": "length"},
        "g1": {"response": None, "error": "out of memory", "finish_reason": None},
    }
    records = [replace(r, **changes.get(r.probe_id, {})) if r.arm == TWO else r for r in whole.records]
    run = write_run(place.folder / "lost", replace(whole, records=records))
    server.say = lambda prompt, properties: {"verdict": "tie"}
    server.spoil = {"An answer to d1, the 1. of them.": "unparsable"}
    done = lem("judge", "pairs", run, "--judge", f"{NAMED}={server.spec}", "--treatment", TWO)
    assert done.code == 0, done
    for figure in ("0/2/0", "2/1/0", "25% .. 75%", f"judge {NAMED}: 1 truncated while thinking, 1 unparsable"):
        assert figure in " ".join(done.out.split()), done.out
    [rate] = json.loads(pairs(lem, server, run).out)["win_rates"]
    assert (rate["n_pairs"], rate["n_failed"], rate["n_missing"], rate["bounds"]) == (5, 1, 0, [0.25, 0.75])


def test_a_judge_that_prefers_one_arm_finds_it_in_both_slots_and_is_resumed(
    lem: Lem, server: JudgingServer, run: Path
) -> None:
    """The treatment's answers are "the 1. of them"."""

    def say(prompt: str, properties: dict[str, Any]) -> dict[str, Any]:
        return {"verdict": "A" if prompt.index("the 1. of them") < prompt.index("the 0. of them") else "B"}

    server.say = say
    [rate] = json.loads(pairs(lem, server, run).out)["win_rates"]
    assert (rate["estimate"]["value"], rate["consistency"]["value"]) == (1.0, 1.0)
    assert {row["value"] for row in last_of(run, NAMED).values()} == {1.0}
    asked = len(server.items)
    again = pairs(lem, server, run)
    assert (again.code, json.loads(again.out)["win_rates"], len(server.items)) == (0, [rate], asked)
    assert_sentence(pairs(lem, server, run, "--baseline", TWO), f"both name '{TWO}'")
    assert_sentence(pairs(lem, server, run, "--treatment", "nobody"), "has no arm 'nobody'", ONE)


def test_a_judge_of_the_run_s_own_weights_is_refused_and_else_marked_everywhere(lem: Lem, place: Place) -> None:
    model = repository_root() / "models" / "lem-nano"
    items = [*ITEMS[1:3]]
    contents = evaluated(items)
    sha = load(str(model), weights=False).model_sha
    arms = {arm: {"model": str(model), "model_sha": sha} for arm in contents.info.arms}
    run = write_run(place.folder / "own", replace(contents, info=replace(contents.info, arms=arms)), items)
    words = ("judge", "grade", run, "--judge", f"own=mlx:{model}", "--dimension", "safety", "--task",
             "do_not_answer", "--task", "ethics", "--no-rationale", "--judge-method", "labels")  # fmt: skip
    before = bytes_of(run)
    assert_sentence(lem(*words), f"'own' is of one lineage with arm '{ONE}'", "--allow-self-judge")
    assert bytes_of(run) == before
    allowed = lem(*words, "--allow-self-judge")
    assert allowed.code == 0, allowed
    assert "SELF-JUDGED" in allowed.out
    assert f"{ONE}, {TWO}" in " ".join(allowed.out.split())
    stored = table(lem(*words, "--allow-self-judge", "--json"))
    assert any("SELF-JUDGED" in mark for mark in stored["watermarks"])
    compared = lem("compare", run, "--json")
    assert "self-judged" in compared.out, compared
