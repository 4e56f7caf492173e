"""What must not be gained by asking in another way: late margins, edited plans, joins, empty placebos, --anyway."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lem.ab.compare import Declared, Options, compare
from lem.ab.join import join_runs
from lem.ab.plan_file import plan_sha
from lem.cli.main import main
from lem.errors import UserError
from made_runs import DECODED, made_run, save

RNG = np.random.default_rng(23)
BASE = [float(value) for value in RNG.normal(10, 2, 30)]
SAME = [value + float(noise) for value, noise in zip(BASE, RNG.normal(0, 0.3, 30), strict=True)]
Command = Callable[..., int]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`lem ARGUMENTS` in an empty folder; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lem.config.json").write_text("{}")
    monkeypatch.setenv("LEM_CONFIG", str(tmp_path / "lem.config.json"))

    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        return int(ended.value.code or 0)

    return run


def codes(comparison: Any) -> list[str]:
    return [objection.code for objection in comparison.objections]


def test_a_margin_named_when_comparing_is_marked_as_late() -> None:
    run = made_run({"base": BASE, "kernel": SAME})
    late = compare(run, declared=Declared(margins={"v3": 1.0}))
    assert codes(late) == ["declared-late"]
    assert codes(compare(run, declared=Declared(margins={"v3": 1.0}, plan_sha="x", baseline="base"))) == []


def test_margins_are_corrected_over_the_contrasts_that_have_one_and_never_exploratory() -> None:
    arms = {f"k{i}": [b + float(e) for b, e in zip(BASE, RNG.normal(0, 2.2, 30), strict=True)] for i in range(3)}
    run = made_run({"base": BASE, **arms})
    found = compare(run, declared=Declared(margins={"v3": 1.2}, primary=(("v3", "k0"), ("v3", "k1")))).contrasts
    primary = sorted((c for c in found if c.family == "primary"), key=lambda c: c.non_inferiority.p)  # type: ignore[union-attr]
    raw = [c.non_inferiority.p for c in primary]  # type: ignore[union-attr]
    assert [c.margin_p[0] for c in primary] == pytest.approx([min(1, 2 * raw[0]), max(min(1, 2 * raw[0]), raw[1])])
    (other,) = [c for c in found if c.family == "exploratory"]
    assert np.isnan(other.margin_p).all()


def test_primary_contrasts_are_those_against_the_planned_baseline() -> None:
    run = made_run({"base": BASE, "kernel": SAME, "placebo-kernel": BASE})
    declared = Declared(primary=(("v3", "kernel"),), plan_sha="x", baseline="base")
    turned = compare(run, Options(baseline="placebo-kernel", treatments=("kernel",)), declared)
    assert turned.n_primary == 0
    assert any("planned against 'base', not 'placebo-kernel'" in sentence for sentence in turned.deviations)
    assert compare(run, Options(treatments=("kernel",)), declared).n_primary == 1


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        (Declared(primary=(("v9", "kernel"),)), "no metric 'v9' to declare"),
        (Declared(margins={"v9": 1.0}), "no metric 'v9' to declare"),
        (Declared(primary=(("v3", "typo"),)), "'typo' is no treatment"),
    ],
)
def test_what_is_declared_on_the_spot_has_to_exist(declared: Declared, said: str) -> None:
    with pytest.raises(UserError, match=said):
        compare(made_run({"base": BASE, "kernel": SAME}), declared=declared)


def test_a_stored_plan_that_was_edited_is_refused(tmp_path: Path, command: Command, capsys: Any) -> None:
    path = save(made_run({"base": BASE, "kernel": SAME}), tmp_path / "made")
    plan: dict[str, Any] = {"kind": "plan", "baseline": "base", "primary": [["v3", "kernel"]], "margins": {"v3": 0.01}}
    info = json.loads((path / "run.json").read_text())
    info["plan"] = {**plan, "margins": {"v3": 5.0}, "sha": plan_sha(plan)}
    (path / "run.json").write_text(json.dumps(info))
    assert command("compare", "made") == 2
    assert "the plan stored in the run was changed after it was made" in capsys.readouterr().err


def test_a_refused_comparison_leaves_the_older_one_alone(tmp_path: Path, command: Command) -> None:
    save(made_run({"base": BASE}), tmp_path / "one")
    save(made_run({"kernel": SAME}, settings={**DECODED, "max_tokens": 8}), tmp_path / "two")
    assert command("compare", "one", "two", "--output", "c.json") == 2
    assert not (tmp_path / "c.json").exists()
    assert command("compare", "one", "two", "--output", "c.json", "--anyway") == 0
    (contrast,) = json.loads((tmp_path / "c.json").read_text())["contrasts"]
    assert "(not comparable, printed anyway)" in contrast["verdict"]["sentence"]


def test_a_refused_contrast_is_written_without_its_numbers(tmp_path: Path, command: Command) -> None:
    arms = {"base": {"bits": 16}, "small": {"bits": 4}, "kernel": {"bits": 16}}
    save(made_run({"base": BASE, "small": SAME, "kernel": SAME}, arms=arms), tmp_path / "made")
    assert command("compare", "made") == 0
    rows = {
        row["treatment"]: row for row in json.loads((tmp_path / "made" / "comparison.json").read_text())["contrasts"]
    }
    assert rows["small"]["verdict"]["code"] == "refused"
    assert (rows["small"]["difference"]["value"], rows["small"]["p"], rows["small"]["differences"]) == (None, None, {})
    assert rows["kernel"]["difference"]["value"] == pytest.approx(np.mean(np.subtract(SAME, BASE)))


def test_a_pair_is_judged_by_its_own_two_arms() -> None:
    arms = {"base": {"bits": 16}, "json": {"bits": 4, "kernel": "k"}, "placebo-json": {"bits": 4, "kernel": "p"}}
    comparison = compare(made_run({"base": BASE, "json": SAME, "placebo-json": BASE}, arms=arms))
    pairs = zip(comparison.contrasts, comparison.verdicts, strict=True)
    refused = {(c.treatment, c.baseline): v.code == "refused" for c, v in pairs}
    assert refused[("json", "base")]
    assert not refused[("json", "placebo-json")]


def test_a_placebo_without_answers_stands_in_nobodys_way() -> None:
    arms = {"json": {"kernel": "k"}, "placebo-json": {"kernel": "p"}}
    missing: Sequence[Any] = ["missing"] * 30
    run = made_run({"base": BASE, "json": SAME, "placebo-json": missing}, arms=arms)
    (only,) = compare(run, Options(treatments=("json",))).contrasts
    assert only.baseline == "base"


def test_joining_never_puts_one_arm_over_another() -> None:
    first = made_run({"base": [1, 2, 3], "json": [9, 9, 9]})
    second = made_run({"base": [4, 4, 4]})
    joined = join_runs([("x", first), ("json", second)])
    assert list(joined.info.arms) == ["x:base", "json", "json:base"]
    assert {score.arm: score.value for score in joined.scores["v3"]} == {"x:base": 3.0, "json": 9.0, "json:base": 4.0}


def test_an_empty_answer_has_no_words_and_keeps_the_length_control() -> None:
    words = {"base": [5] * 30, "kernel": [i % 7 for i in range(30)]}
    run = made_run({"base": BASE, "kernel": SAME}, words=words)
    empty = next(record for record in run.records if record.arm == "kernel")
    run.records[run.records.index(empty)] = replace(empty, response="")
    (found,) = compare(run).contrasts
    assert found.length is not None
    assert found.word_differences[empty.probe_id] == -7  # the made answers end in two words, arm and repeat


def test_so_few_probes_that_nothing_could_be_seen_are_said_to_be_so() -> None:
    comparison = compare(made_run({"base": [1.0, 2.0, 3.0, 4.0], "kernel": [2.0, 2.5, 3.2, 4.1]}))
    assert "no effect could have been seen with so few probes" in comparison.verdicts[0].sentence
