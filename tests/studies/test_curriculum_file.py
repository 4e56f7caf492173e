"""Curriculum files: what is wrong in one is named by file and key; settings are put together in layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_curriculum import phase

from lem.errors import DataError, UserError
from lem.studies.curriculum_file import read_curriculum, resolve_settings

ROOT = Path(__file__).resolve().parents[2]
Write = Callable[..., Path]


@pytest.mark.parametrize("name", ["curriculum.yaml", "curriculum.nano.yaml"])
def test_the_files_that_ship_have_the_six_published_phases(name: str) -> None:
    curriculum = read_curriculum(ROOT / "training" / name)
    assert [(p.number, p.name, p.format, p.asked) for p in curriculum.phases] == [
        (0, "ethics-0", "sandwich", "sandwich"),
        (1, "zen", "freeflow", "freeflow"),
        (2, "ethics-1", "sandwich", "sandwich"),
        (3, "ethics-2", "freeflow", "freeflow"),
        (4, "tension", "freeflow", "freeflow"),
        (5, "creative", "freeflow", "freeflow"),
    ]
    targets = [phase.target and phase.target.value for phase in curriculum.phases]
    assert targets == ([18, 18, 19, 19, 20, 20] if name == "curriculum.yaml" else [None] * 6)


BITING = {"gate": "biting-point", "phase": 0, "margin": 1}


@pytest.mark.parametrize(
    ("phases", "keys", "where"),
    [
        ([phase(0, colour="red")], {}, "unknown key 'phases.0.colour'; known keys here: number, name, format"),
        ([phase(0)], {"models": "x"}, "unknown key 'models'; known keys here: probes, phases, kernel"),
        ([phase(0, target={"value": 3, "goal": 1})], {}, "'phases.0.target.goal'; known keys here: value, scorer"),
        ([phase(0, gates=[{"gate": "not-worse", "margin": 1, "n": 2}])], {}, "known keys here: scorer, on_fail, gate"),
        ([phase(0, gates=[{"gate": "not-worse"}])], {}, "'phases.0.gates.0.not-worse.margin': field required"),
        ([phase(0, gates=[{"gate": "better"}])], {}, "'phases.0.gates.0': input tag 'better'"),
        ([phase(0, gates=[{"gate": "degeneration", "at_most": 2}])], {}, "at_most': input should be less than or"),
        ([phase(0, target={"value": 1, "scorer": "v9"})], {}, "phase 0: unknown scorer 'v9'; known are v2, v3, v1"),
        ([phase(0, on_fail="give up")], {}, "'phases.0.on_fail': input should be 'repeat', 'stop' or"),
        ([phase(-1)], {}, "'phases.0.number'"),
        ([{**phase(0), "name": "a/b"}], {}, "'phases.0.name'"),
        ([phase(1), phase(0)], {}, "phase numbers must rise without repeating (got [1, 0])"),
        ([phase(0), phase(0)], {}, "phase numbers must rise without repeating (got [0, 0])"),
        ([], {}, "'phases'"),
        ([phase(0, "sandwich")], {"kernel": None}, "the key 'kernel' must name a kernel file"),
        ([phase(0), phase(1, gates=[BITING])], {}, "phase 0 is no earlier phase asked in the sandwich"),
        ([phase(0, "sandwich", gates=[BITING])], {}, "phase 0 is no earlier phase asked in the sandwich"),
        (
            [phase(0), phase(1, gates=[{"gate": "creative-lock", "margin": 1, "against": 7}])], {},
            "there is no earlier phase 7",
        ),
        ([phase(0, on_fail="back-to-diverged")], {}, "on_fail back-to-diverged needs a gate biting-point"),
        ([phase(0, settings={"itters": 3})], {}, "unknown setting 'itters'; known ones are"),
        ([phase(0, settings={"iters": 0})], {}, "phase 0: iters must be a whole number of at least 1"),
        ([phase(0, settings={"format": "sandwich"})], {}, "'format' is no setting here; write it as a key"),
        ([phase(0)], {"settings": {"seed": 1}}, "'seed' is no setting here; write it as a key of the file"),
        ([phase(0, max_attempts=2, repeat={"targets": {"times": 2}})], {}, "repeat: 'targets' is (), which no factor"),
        ([phase(0, max_attempts=2, repeat={"itters": {"times": 2}})], {}, "unknown setting 'itters'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_file_and_key(
    write_file: Write, phases: list[dict[str, Any]], keys: dict[str, Any], where: str
) -> None:
    path = write_file(*phases, **keys)
    with pytest.raises(DataError) as caught:
        read_curriculum(path)
    assert str(path) in str(caught.value)
    assert where in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("phases: [\n", "line 2: not valid YAML"),
        ("probes: a\nprobes: b\n", "line 2: not valid YAML (key 'probes' is written twice)"),
        ("- one\n- two\n", "must be one mapping with the keys probes, phases"),
        ("a: \x07\n", "not valid YAML"),
    ],
)
def test_what_is_no_curriculum_at_all_is_said(tmp_path: Path, text: str, where: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_curriculum(path)
    assert where in str(caught.value)


def test_a_missing_file_and_a_file_that_is_no_text_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such curriculum file"):
        read_curriculum(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_bytes(b"probes: \xff")
    with pytest.raises(DataError, match="not UTF-8 text"):
        read_curriculum(tmp_path / "c.yaml")


def test_settings_are_layered_and_repeats_scale_them(write_file: Write) -> None:
    one = phase(
        1, settings={"learning_rate": 2e-5, "rank": 4}, max_attempts=3,
        repeat={"iters": {"times": 1.5}, "learning_rate": {"times": 0.5}, "dropout": 0.1},
    )  # fmt: skip
    keys = {
        "settings": {"iters": 101, "learning_rate": 1e-5},
        "seed": 7,
        "quick": {"iters": 3, "probes": "probes.json"},
    }
    curriculum = read_curriculum(write_file(phase(0, "sandwich"), one, **keys))
    plain, chosen = curriculum.phases
    first = resolve_settings(curriculum, plain)
    assert (first.iters, first.learning_rate, first.format, first.seed) == (101, 1e-5, "sandwich", 7)
    second = resolve_settings(curriculum, chosen)
    assert (second.iters, second.learning_rate, second.rank, second.dropout) == (101, 2e-5, 4, 0.0)
    third = resolve_settings(curriculum, chosen, attempt=3)
    assert (third.iters, third.learning_rate, third.dropout, third.seed) == (228, 5e-6, 0.1, 9)  # 227.25 rounded up
    assert resolve_settings(curriculum, chosen, quick=True).iters == 3


def test_an_exponent_without_a_dot_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "probes: p.json\nphases:\n- {number: 0, name: a, format: freeflow, data: d.jsonl, "
        "settings: {learning_rate: 4e-6}}\n"
    )
    curriculum = read_curriculum(path)
    assert resolve_settings(curriculum, curriculum.phases[0]).learning_rate == 4e-6
