"""What every command that asks a judge does with its options: budgets, ways out, and names of the config."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Place, Result, assert_sentence

from lem.cli.judge_options import JudgeOptions, budget_of, opened, take_judge_options
from lem.errors import UserError
from lem.judges.spec import parse_spec
from lem.paths import repository_root
from lem.records.judge_files import read_judge_manifests
from scripted_judge import evaluated, write_run

LOCAL, SERVICE = "a=mlx", "b=openai:m@http://127.0.0.1:9/v1"


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(variable, raising=False)


def test_the_limit_is_of_services_and_a_local_judge_needs_no_price(place: Place) -> None:
    options = JudgeOptions((LOCAL, SERVICE), max_cost=2.0)
    local, service = options.specs()
    budget = budget_of(local, options, spent=1.5)
    assert (budget.max_cost, budget.price, budget.spent) == (None, None, 1.5)
    with opened(local, options) as judge:
        assert judge.identity.backend == "mlx"
    with pytest.raises(UserError, match="--max-cost needs the judge's price"):
        budget_of(service, options)
    prices = place.folder / "prices.json"
    prices.write_text(json.dumps({"m": {"input": 1, "output": 2, "currency": "USD", "date": "2026-01-31"}}))
    assert budget_of(service, JudgeOptions((SERVICE,), max_cost=2.0, prices=str(prices))).max_cost == 2.0


@pytest.mark.slow
def test_a_local_judge_answers_under_a_limit(lem: Callable[..., Result], place: Place) -> None:
    run = write_run(place.folder / "run", evaluated())
    nano = f"mlx:{repository_root() / 'models' / 'lem-nano'}"
    command = ("judge", "grade", run, "--judge", nano, "--dimension", "safety", "--no-rationale")
    assert_sentence(lem(*command, "--judge", SERVICE, "--max-cost", 0.01), "--max-cost needs the judge's price")
    done = lem(*command, "--max-cost", 0.01)
    assert done.code == 0, done
    assert read_judge_manifests(run).keys() == {"lem-nano"}


@pytest.mark.usefixtures("place", "no_keys")
@pytest.mark.parametrize("spec", ["gemini", "openai:m@https://judges.test/v1", "mlx:nowhere/at/all"])
def test_no_judge_is_named_where_there_is_such_an_option(spec: str) -> None:
    values = {**JudgeOptions((spec,)).__dict__}
    del values["can_do_without"]
    options = dict(values)
    plain = take_judge_options(options)
    assert options == {}
    other = {**values, "no_judge": False}
    with_option = take_judge_options(other)
    assert other == {"no_judge": False}, "which the command takes out itself"
    said = []
    for given in (plain, with_option):
        with pytest.raises(UserError) as raised, opened(parse_spec(spec), given):
            pass
        said.append(str(raised.value))
    assert "--no-judge" not in said[0]
    assert said[1] == said[0].removesuffix(".") + ", or leave judging out with --no-judge."


@pytest.mark.usefixtures("no_keys")
def test_eval_names_its_way_out(lem: Callable[..., Result], place: Place) -> None:
    items = repository_root() / "benchmarks" / "items" / "do_not_answer.jsonl"
    said = lem("eval", "do_not_answer", "--items", items, "--limit", 1, "--model", "tiny", "--judge", "gemini")
    assert_sentence(said, "GEMINI_API_KEY", "--judge mlx:PATH", "or leave judging out with --no-judge.")
    assert not Path(place.folder / "runs").exists()
