"""The manifest of a judge: sums that say None where a part is not known, and nothing forgotten over passes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lem.errors import ResumeMismatch, UserError
from lem.judges.conduct import Pass, judge_ratings
from lem.judges.lineage import Kin
from lem.judges.manifest import Pedigree, check_pedigree, check_same_judge, totals, write_manifest
from lem.records import Judgement, RunInfo
from lem.records.judge_files import read_judge_manifests
from scripted_judge import IDENTITY, ONE, TWO, ScriptedJudge, evaluated, write_run


def row(probe: str, dimension: str, prompt: str, **fields: object) -> Judgement:
    return Judgement(ONE, probe, 0, "j", dimension, 5.0, prompt_sha=prompt, **fields)  # type: ignore[arg-type]


def test_dimensions_of_one_call_are_one_call() -> None:
    known = {"n_prompt_tokens": 11, "n_tokens": 5, "cost": 0.25}
    together = [row("p", "safety", "x", **known), row("p", "nuance", "x")]
    apart = [row("q", "safety", "y", **known), row("q", "nuance", "z", **known)]
    assert totals([*together, *apart]) == {
        "calls": 3, "n_prompt_tokens": 33, "n_tokens": 15, "cost": 0.75,
    }  # fmt: skip


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    rows = [
        row("p", "safety", "x", n_prompt_tokens=3, n_tokens=1, cost=0.5),
        replace(row("q", "safety", "y", n_prompt_tokens=4), value=None, unscored="blocked"),
        replace(row("r", "safety", "z", n_prompt_tokens=5), value=None, unscored="blocked"),
    ]
    assert totals(rows) == {
        "calls": 3, "n_prompt_tokens": 12, "n_tokens": None, "cost": None,
    }  # fmt: skip


def test_a_call_that_is_asked_again_is_a_call_of_its_own() -> None:
    """A failed call and its repetition, of two dimensions each, then the same once more: three calls, all paid for."""
    failed = [
        replace(row("p", "safety", "x", cost=0.5), value=None, unscored="failed: timeout", error="timeout"),
        replace(row("p", "nuance", "x"), value=None, unscored="failed: timeout", error="timeout"),
    ]
    known = {"n_prompt_tokens": 11, "n_tokens": 5, "cost": 0.25}
    good = [row("p", "safety", "x", **known), row("p", "nuance", "x")]
    assert totals([*failed, *good, *good]) == {"calls": 3, "n_prompt_tokens": 22, "n_tokens": 10, "cost": 1.0}


@pytest.mark.parametrize(
    ("error", "cost", "known"),
    [
        ("HTTP 503 (6 attempts)", 0.25, 0.25),
        ("HTTP 400: too long", 0.25, 0.25),
        ("HTTP 504 (6 attempts)", 0.25, None),
        ("no reply in time (6 attempts)", 0.25, None),
        ("HTTP 503 (6 attempts)", None, None),
    ],
)
def test_a_refused_call_without_a_cost_was_not_charged_where_there_is_a_price(
    error: str, cost: float | None, known: float | None
) -> None:
    """Earlier versions stored no cost of what was not charged; what ran into its time may have been."""
    refused = replace(row("p", "safety", "x"), value=None, unscored=f"failed: {error}", error=error)
    good = row("q", "safety", "y", n_prompt_tokens=11, n_tokens=5, cost=cost)
    assert totals([refused, good])["cost"] == known


def test_orders_and_opponents_are_calls_of_their_own() -> None:
    rows = [row("p", "preference", "x", order=order, against=arm) for order in ("ab", "ba") for arm in ("k", "l")]
    assert totals(rows)["calls"] == 4


def test_nothing_of_earlier_passes_is_forgotten(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", evaluated())
    first = write_manifest(
        run, IDENTITY, Pedigree((Kin(ONE, "one weights"),), ("a note",)), rubrics={"safety": "1 ab"}, command=["a"],
        currency="EUR",
    )  # fmt: skip
    second = write_manifest(
        run, IDENTITY, Pedigree((Kin(TWO, "one name"),), ("a note", "b")), rubrics={"nuance": "1 cd"}, command=["b"]
    )
    assert second == read_judge_manifests(run)["scripted"]
    assert second["rubrics"] == {"safety": "1 ab", "nuance": "1 cd"}
    assert [kin["arm"] for kin in second["kin"]] == [ONE, TWO]
    assert second["notes"] == ["a note", "b"]
    assert (second["currency"], second["created"], second["command"]) == ("EUR", first["created"], ["b"])
    third = write_manifest(run, IDENTITY, Pedigree((), ()), rubrics={}, command=["c"])
    assert third["allow_self_judge"] is True, "what was judged by kin stays so"
    assert [kin["arm"] for kin in third["kin"]] == [ONE, TWO]


def test_kinship_is_refused_and_allowed_by_word(tmp_path: Path) -> None:
    info = RunInfo(run_id="r", kind="eval", arms={ONE: {"model": "folder/other"}, TWO: {"model_sha": "ab" * 32}})
    own = replace(IDENTITY, lineage={"sha": ["ab" * 32], "names": []})
    with pytest.raises(UserError, match=f"'scripted' is of one lineage with arm '{TWO}'") as refused:
        check_pedigree(own, info, allow_self_judge=False)
    assert str(refused.value).count("\n") == 0
    assert [kin.arm for kin in check_pedigree(own, info, allow_self_judge=True).kin] == [TWO]
    assert check_pedigree(IDENTITY, info, allow_self_judge=False).kin == ()


def test_a_manifest_is_json_with_everything_of_the_identity(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", evaluated())
    write_manifest(run, IDENTITY, Pedigree((), ()), rubrics={}, command=[])
    stored = json.loads((run / "judgements" / "scripted.json").read_text())
    for name in ("name", "backend", "model", "settings", "lineage"):
        assert stored[name] == getattr(IDENTITY, name)


@pytest.mark.parametrize("name", ["panel", "Panel", "scorer", "SCORER", "x.pairs", "X.Pairs", "a."])
def test_a_name_that_stands_for_something_else_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="is no name for a judge"):
        check_pedigree(replace(IDENTITY, name=name), RunInfo("r", "eval", arms={ONE: {"model": "org/other"}}),
                       allow_self_judge=False)  # fmt: skip


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"settings": {"temperature": 0.0, "response": "free"}}, r"\(response: free instead of json_schema\)"),
        ({"settings": {"response": "json_schema", "service": "https://a.test/v1", "temperature": 0.0}},
         r"\(service: https://a\.test/v1 instead of nothing\)"),
        ({"settings": {}}, r"\(temperature: nothing instead of 0\.0, response: nothing instead of json_schema\)"),
        ({"model": "org/judge-2"}, r"\(model: org/judge-2 instead of org/judge-1\)"),
        ({"backend": "gemini", "settings": {"temperature": 1, "response": "json_schema"}},
         r"\(backend: gemini instead of openai, temperature: 1 instead of 0\.0\)"),
    ],
)  # fmt: skip
def test_what_differs_from_the_judge_of_before_is_named(tmp_path: Path, now: dict[str, Any], said: str) -> None:
    before = replace(IDENTITY, settings={"temperature": 0.0, "response": "json_schema"})
    run = write_run(tmp_path / "run", evaluated())
    judge_ratings(run, ScriptedJudge(identity=before), Pass(), ["safety"], ["do_not_answer"])
    with pytest.raises(ResumeMismatch, match=f"judged here as openai org/judge-1, .*{said}; give this judge a name"):
        check_same_judge(run, replace(before, **now))


def test_a_name_that_differs_in_case_only_is_refused_where_the_other_has_judged(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", evaluated())
    write_manifest(run, replace(IDENTITY, name="Alpha"), Pedigree((), ()), rubrics={}, command=())
    check_same_judge(run, replace(IDENTITY, name="Alpha"))
    with pytest.raises(ResumeMismatch, match="'Alpha' has judged here, and 'alpha' differs from it in case only"):
        check_same_judge(run, replace(IDENTITY, name="alpha"))
