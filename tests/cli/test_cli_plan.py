"""`lem plan` as a person uses it: from given values, from a pilot run, and what it refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Place, Result, assert_sentence

from lem.ab.plan_file import read_plan
from lem.records import Judgement
from small_pilot import spread_values, write_pilot

Lem = Callable[..., Result]
PRICES = "j1: {input: 2, output: 10, currency: USD, date: 2026-11-01}\n"


@pytest.fixture
def pilot(place: Place) -> Path:
    """Twelve probes, three repeats, scored with v2; 60 new tokens a second, 10 an answer."""
    return write_pilot(place.folder / "pilot", spread_values(12, 3))


def as_json(result: Result) -> Any:
    assert result.code == 0, result
    return json.loads(result.out)


def test_without_a_pilot_what_is_not_known_is_said(lem: Lem, place: Place) -> None:
    result = lem("plan", "--dry-run")
    assert result.code == 0, result
    assert "minutes        not known, for lack of the length of an answer and the speed" in result.out
    assert "SD of a probe's difference" in result.out
    assert "judges         none" in result.out
    assert not (place.folder / "plan.json").exists()
    found = as_json(lem("plan", "--dry-run", "--repeats", 2, "--json"))
    assert found["expected"]["requests"] == 2 * 5 * 2
    assert found["expected"]["max_new_tokens"] == 2 * 5 * 2 * 4
    assert found["expected"]["minutes"] is None
    preview = as_json(lem("benchmark", "--dry-run", "--repeats", 2, "--json"))
    for name in ("prompt_tokens", "prefill_tokens"):
        assert found["expected"][name] == preview[name]


def test_given_values_make_minutes_and_effects(lem: Lem) -> None:
    options = ("--tokens-per-answer", 3, "--tokens-per-second", 2, "--sd", "v2=0.5,1.5", "--primary", "v2:json")
    found = as_json(lem("plan", "--dry-run", "--json", "--repeats", 5, "--detect", "v2=1", *options))
    assert found["expected"]["minutes"]["value"] == pytest.approx(2 * 5 * 5 * 3 / 2 / 60)
    contrast = found["mde"]["contrasts"][0]
    assert contrast["sd_within"] == pytest.approx(1.5 * math.sqrt(2))
    assert contrast["sd"] == pytest.approx(math.sqrt(0.25 + 4.5 / 5))
    assert found["mde"]["n_tests"] == 1
    assert found["mde"]["detect"][0]["probes"] > 5


def test_a_pilot_makes_the_forecast_and_the_plan_is_written(lem: Lem, place: Place, pilot: Path) -> None:
    options = ("--pilot", pilot, "--repeats", 2, "--primary", "v2:json", "--margin", "v2=3", "--exclude", "P03=odd one")
    result = lem("plan", *options)
    assert result.code == 0, result
    assert max(map(len, result.out.splitlines())) <= 80
    plan = read_plan(place.folder / "plan.json")
    assert plan["expected"]["new_tokens"]["value"] == 2 * 5 * 2 * 4  # the plan's limit is below the pilot's 10 tokens
    assert plan["expected"]["minutes"]["value"] == pytest.approx(2 * 5 * 2 * 4 / 60 / 60)
    assert plan["primary"] == [["v2", "json"]]
    assert plan["margins"] == {"v2": 3.0}
    assert plan["exclusions"] == [{"probe_id": "P03", "reason": "odd one"}]
    assert (plan["n_probes"], plan["mde"]["n_probes"]) == (5, 4)
    assert plan["sha"][:12] in result.out
    contrast = plan["mde"]["contrasts"][0]
    assert contrast["n_pilot"] == 12 - 1  # without the excluded probe
    assert contrast["low"] <= contrast["mde"] <= contrast["high"]
    before = (place.folder / "plan.json").read_bytes()
    again = lem("plan", *options)
    assert again.code == 0
    assert "holds this plan already" in again.out
    assert_sentence(lem("plan", *options[:-2]), "plan.json holds another plan", "--dry-run")
    assert (place.folder / "plan.json").read_bytes() == before


def test_the_run_is_made_under_the_plan_and_keeps_to_it(lem: Lem, place: Place, pilot: Path) -> None:
    assert lem("plan", "--pilot", pilot, "--repeats", 2, "--primary", "v2:json").code == 0
    made = lem("benchmark", "--plan", "plan.json", "--output", "run")
    assert made.code == 0, made
    assert lem("score", "--input", "run", "--scorer", "v2").code == 0
    from lem.ab.plan_deviations import deviations
    from lem.records import read_contents

    contents = read_contents(place.folder / "run")
    plan = read_plan(place.folder / "plan.json")
    assert contents.info.plan == plan
    assert deviations(plan, contents) == []


def test_a_plan_may_come_before_its_adapter(lem: Lem, place: Place) -> None:
    result = lem("plan", "--adapter", "trained=later", "--sd", "v2=1", "--primary", "v2:trained", "--json")
    plan = as_json(result)
    arm = next(arm for arm in plan["arms"] if arm["name"] == "trained")
    assert arm["adapter"] == "later"
    assert "adapter_sha" not in arm
    assert any("does not exist yet" in note for note in plan["notes"])


def test_judges_cost_what_the_price_table_says(lem: Lem, place: Place) -> None:
    (place.folder / "prices.yaml").write_text(PRICES)
    judge = ("--judge", "j1", "--judge-calls", 3, "--judge-tokens", "600,80", "--tokens-per-answer", 4)
    found = as_json(lem("plan", "--dry-run", "--json", *judge, "--prices", "prices.yaml"))["cost"]
    calls = 2 * 5 * 3
    assert found["judge_calls"] == calls
    assert found["total"] == {"USD": pytest.approx(calls * (604 * 2 + 80 * 10) / 1e6)}
    unpriced = lem("plan", "--dry-run", *judge)
    assert "not known: no price table was given" in unpriced.out
    assert as_json(lem("plan", "--dry-run", "--json", *judge))["cost"]["total"] is None


def test_a_pilot_with_one_repeat_says_what_it_cannot_tell(lem: Lem, place: Place) -> None:
    pilot = write_pilot(place.folder / "one", spread_values(12, 1))
    result = lem("plan", "--pilot", pilot, "--repeats", 3, "--dry-run")
    assert result.code == 0, result
    text = " ".join(result.out.split())
    assert "the pilot has one repeat and so shows no spread within a probe" in text
    assert "an upper bound" in text
    assert "loading included" in text


def test_what_a_pilot_cannot_do_is_a_sentence(lem: Lem, place: Place, pilot: Path) -> None:
    unscored = write_pilot(place.folder / "unscored", spread_values(12, 2), scored=False)
    assert_sentence(lem("plan", "--pilot", unscored), "no metric with values", "lem score")
    assert_sentence(lem("plan", "--pilot", "nowhere"), "no run.json")
    assert_sentence(lem("plan", "--pilot", pilot, "--primary", "v9:json"), "--primary v9", "known of v2")
    assert_sentence(lem("plan", "--pilot", pilot, "--margin", "v9=1"), "--margin v9")
    assert_sentence(lem("plan", "--pilot", pilot, "--baseline", "txt"), "--baseline txt")
    assert not (place.folder / "plan.json").exists()


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--sd", "v2"), ("--sd v2", "METRIC=X[,WITHIN]")),
        (("--sd", "v2=nan"), ("finite number above 0",)),
        (("--sd", "v2=inf,1"), ("finite number above 0",)),
        (("--sd", "v2=0"), ("above 0",)),
        (("--sd", "v2=0,0"), ("above 0",)),
        (("--sd", "v2=1,x"), ("'x' is no number",)),
        (("--sd", "v2=1", "--sd", "v2=2"), ("given twice",)),
        (("--sd", "v2=1", "--primary", "v2"), ("METRIC:TREATMENT", "v2:json")),
        (("--sd", "v2=1", "--primary", "v2:base"), ("'base' is no treatment", "json")),
        (("--sd", "v2=1", "--primary", "v2:json", "--primary", "v2:json"), ("given twice",)),
        (("--sd", "v2=1", "--margin", "v2=-1"), ("--margin v2=-1", "above 0")),
        (("--sd", "v2=1", "--detect", "v2=0"), ("--detect v2=0",)),
        (("--sd", "v2=1", "--detect", "v2=1e-12"), ("name a larger effect",)),
        (("--sd", "v3=1", "--primary", "v2:json"), ("--primary v2", "--sd v2=X")),
        (("--detect", "v2=1"), ("no spread is known", "--sd v2=X")),
        (("--exclude", "P01"), ("PROBE=REASON",)),
        (("--exclude", "P99=odd"), ("no probe 'P99'",)),
        (("--tokens-per-second", "0"), ("--tokens-per-second",)),
        (("--tokens-per-answer", "nan"), ("--tokens-per-answer",)),
        (("--design-effect", "2"), ("--sd",)),
        (("--sd", "v2=1", "--design-effect", "nan"), ("--design-effect",)),
        (("--judge", "j", "--judge-tokens", "600"), ("IN,OUT",)),
        (("--judge", "j", "--judge-tokens", "600,nan"), ("IN,OUT",)),
        (("--prices", "none.yaml"), ("no such price table",)),
        (("--arm", "base"), ("needs two arms",)),
    ],
)
def test_bad_options_are_a_sentence(lem: Lem, place: Place, options: tuple[str, ...], parts: tuple[str, ...]) -> None:
    assert_sentence(lem("plan", *options), *parts)
    assert not (place.folder / "plan.json").exists()


def test_judges_and_their_calls_come_from_the_pilot(lem: Lem, pilot: Path) -> None:
    rows = [
        Judgement(arm, f"P{i:02d}", 0, "j1", dimension, 3.0 + i % 2).to_row()
        for arm in ("base", "json")
        for i in range(12)
        for dimension in ("truthfulness", "kindness", "nuance")
    ]
    (pilot / "judgements").mkdir()
    (pilot / "judgements" / "j1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = as_json(lem("plan", "--dry-run", "--json", "--pilot", pilot))
    assert found["cost"]["judge_calls"] == 2 * 5 * 3
    assert {row["metric"] for row in found["mde"]["contrasts"]} == {"v2", "truthfulness", "kindness", "nuance"}
    assert found["mde"]["n_tests"] == 4  # none is declared, so all count
    given = as_json(lem("plan", "--dry-run", "--json", "--pilot", pilot, "--judge", "j2", "--judge-calls", 2))
    assert [judge["judge"] for judge in given["cost"]["judges"]] == ["j2"]
    assert given["cost"]["judge_calls"] == 2 * 5 * 2


@pytest.mark.parametrize(("seed", "temperature", "seen"), [(42, 0.7, True), (7, 0.7, False), (7, 0, True)])
def test_answers_that_were_seen_before_are_named(
    lem: Lem, place: Place, seed: int, temperature: float, seen: bool
) -> None:
    pilot = write_pilot(place.folder / "seen", spread_values(4, 2), settings={"seed": 42})
    options = ("--pilot", pilot, "--seed", seed, "--temperature", temperature)
    found = as_json(lem("plan", "--dry-run", "--json", *options))
    assert any("own answers to 4 probes again" in note for note in found["notes"]) == seen


def test_a_contrast_can_be_declared_without_a_pilot(lem: Lem) -> None:
    result = lem("plan", "--primary", "v2:json", "--margin", "v2=1")
    assert result.code == 0, result
    words = " ".join(result.out.split())
    assert "primary v2, json against base" in words
    assert "margin v2: no worse by more than 1; the spread that decides is not known" in words
