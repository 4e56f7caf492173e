"""`lem benchmark` with designs, doses, parts of a kernel, and a plan that was declared before."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Place, Result, assert_sentence

from adapters import write_adapter
from lem.ab.plan_file import write_plan
from lem.chat.load import file_sha
from lem.records import text_sha
from small_plan import bytes_of, cells, rows_of, write_kernel, write_probes

Lem = Callable[..., Result]
KERNEL = {"title": "Five", "axioms": [{"say": "one"}, {"say": "two"}, {"say": "three"}]}


@pytest.fixture
def kernel(place: Place) -> Path:
    """The default kernel with axioms to take apart, and the narrative one beside it."""
    write_kernel(place.folder / "kernel" / "lek-1-kernel.txt", "The narrative kernel.")
    path = place.folder / "kernel" / "axioms.json"
    path.write_text(json.dumps(KERNEL, indent=2))
    return path


@pytest.fixture
def trained(place: Place) -> tuple[str, ...]:
    names = ("trained", "trained-placebo")
    for name, size in zip(names, (0.4, 0.2), strict=True):
        write_adapter(place.model, place.folder / name, size=size)
    return tuple(part for name in names for part in ("--adapter", f"{name}={name}"))


def arms_of(run: Path) -> list[str]:
    return list(json.loads((run / "run.json").read_text())["arms"])


def test_a_full_design_is_one_option_and_two_adapters(
    lem: Lem, place: Place, kernel: Path, trained: tuple[str, ...]
) -> None:
    common = ("benchmark", "--design", "full", "--limit", "2", "--output", "run", *trained)
    assert lem(*common).code == 0
    arms = ["base", "json", "txt", "placebo-json", "placebo-txt", "trained", "trained-placebo", "trained+json"]
    assert arms_of(place.folder / "run") == arms
    assert set(cells(place.folder / "run")) == {(arm, f"P0{probe}", 0) for arm in arms for probe in range(2)}
    assert lem(*common, "--adapter-scale", "0,0.5").code == 0, "the run grows by its doses"
    added = [f"{name}@{dose}" for name in ("trained", "trained-placebo") for dose in ("0", "0.5")]
    assert set(arms_of(place.folder / "run")) == {*arms, *added}


def test_what_a_design_lacks_is_said_before_anything_is_made(lem: Lem, place: Place, kernel: Path) -> None:
    result = lem("benchmark", "--design", "full", "--adapter", "trained=a", "--output", "run")
    assert_sentence(
        result, "--design full lacks trained-placebo: train with `./lem train --model tiny-llama --data "
        "training/placebo --adapter-path adapters/lek-placebo`".replace("tiny-llama", str(place.model)),
    )  # fmt: skip
    assert not (place.folder / "run").exists()


def test_a_kernel_design_is_dry_run(lem: Lem, place: Place, kernel: Path) -> None:
    facts = json.loads(lem("benchmark", "--design", "kernel", "--dry-run", "--json").out)
    assert [arm["name"] for arm in facts["arms"]] == ["base", "json", "txt", "placebo-json", "placebo-txt"]


def test_parts_of_the_default_kernel_are_arms(lem: Lem, place: Place, kernel: Path) -> None:
    assert lem("benchmark", "--axioms", "prefixes", "--output", "run", "--limit", "1").code == 0
    info = json.loads((place.folder / "run" / "run.json").read_text())
    assert list(info["arms"]) == ["base", "axioms-1", "axioms-1-2", "axioms-1-3"]
    assert len({facts["kernel_sha"] for facts in info["arms"].values()}) == 4
    system = {row["arm"]: row["messages"][0]["content"] for row in rows_of(place.folder / "run")}
    assert system["axioms-1-3"] == kernel.read_text()
    assert system["axioms-1-2"] == json.dumps({**KERNEL, "axioms": KERNEL["axioms"][:2]}, indent=2)


def test_parts_of_a_kernel_of_ones_own_stand_beside_it(lem: Lem, place: Place, kernel: Path) -> None:
    mine = place.folder / "mine.json"
    mine.write_text(json.dumps({"axioms": ["a", "b"]}))
    facts = json.loads(
        lem("benchmark", "--kernel", f"mine={mine}", "--kernel", place.folder / "kernel" / "lek-1-kernel.txt",
            "--axioms", "leave-one-out", "--dry-run", "--json").out
    )  # fmt: skip
    assert [arm["name"] for arm in facts["arms"]] == [
        "base", "mine", "txt", "axioms-without-1", "axioms-without-2", "axioms-1-2"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--axioms", "prefixes"), ("axioms.json: --axioms takes a JSON kernel with a list 'axioms'",)),
        (("--axioms", "prefixes", "--kernel", "kernel/placebo.txt"), ("--kernel names none; give one .json kernel",)),
        (("--axioms", "prefixes", "--kernel", "kernel/placebo.json", "--kernel", "b=kernel/axioms.json"),
         ("--kernel names 2; give one .json kernel",)),
        (("--adapter-scale", "0.5"), ("--adapter-scale needs an adapter",)),
        (("--adapter", "a=trained", "--adapter-scale", "half"), ("'half' is no number of 0 or more",)),
        (("--plan", "nothing.json"), ("nothing.json: no such plan",)),
        (("--plan", "probes.json"), ("probes.json: not a plan",)),
    ],
)  # fmt: skip
def test_options_that_cannot_be_used_are_sentences(
    lem: Lem, place: Place, options: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    assert_sentence(lem("benchmark", "--output", "run", *options), *parts)
    assert not (place.folder / "run").exists()


def declare(place: Place, name: str = "plan.json", n: int = 3, **changes: Any) -> Path:
    """A plan over the first n probes of the place, two repeats of at most 3 tokens."""
    probes = json.loads(place.probes.read_text())[:n]
    plan = {
        "schema": 1, "kind": "plan", "created": "2025-01-01T00:00:00+00:00",
        "arms": [{"name": "base"}, {"name": "json"}],
        "baseline": "base", "primary": [["v2", "json"]], "margins": {"v2": 1.0}, "exclusions": [],
        "n_probes": n, "probe_file": "probes.json", "probe_sha": file_sha(place.probes), "repeats": 2,
        "probes": [{"id": p["id"], "domain": p["domain"], "sha": text_sha(p["prompt"])[:16]} for p in probes],
        "settings": {"max_tokens": 3, "temperature": 0.5, "top_p": 0.9, "seed": 7}, "expected": {}, "mde": {},
        "cost": {}, **changes,
    }  # fmt: skip
    write_plan(place.folder / name, plan)
    return place.folder / name


def test_a_plan_fills_in_the_settings_and_is_kept_whole(lem: Lem, place: Place) -> None:
    plan = declare(place)
    result = lem("benchmark", "--plan", plan, "--output", "run")
    assert result.code == 0, result
    assert "differs from its plan" not in result.err
    info = json.loads((place.folder / "run" / "run.json").read_text())
    assert info["plan"] == json.loads(plan.read_text())
    assert {name: info["settings"][name] for name in ("max_tokens", "temperature", "top_p", "seed", "repeats")} == {
        "max_tokens": 3, "temperature": 0.5, "top_p": 0.9, "seed": 7, "repeats": 2
    }  # fmt: skip
    assert set(cells(place.folder / "run")) == {
        (a, f"P0{p}", r) for a in ("base", "json") for p in range(3) for r in (0, 1)
    }
    again = lem("benchmark", "--plan", plan, "--output", "run", "--json")
    assert json.loads(again.out)["answered"] == 12
    assert len(rows_of(place.folder / "run")) == 12, "the same plan goes on where it stopped"


def test_what_differs_from_the_plan_is_one_line_and_is_done(lem: Lem, place: Place) -> None:
    plan = declare(place)
    result = lem(
        "benchmark",
        "--plan",
        plan,
        "--output",
        "run",
        "--max-tokens",
        "2",
        "--repeats",
        "1",
        "--limit",
        "2",
        "--placebo",
    )
    assert result.code == 0, result
    assert result.err.splitlines() == [
        "Warning: this run differs from its plan, which every report will say: max-tokens 2 instead of 3, repeats 1 "
        "instead of 2, 1 of the planned probes left out, no arm 'json', the arm 'placebo-json', which was not planned, "
        "the arm 'placebo-txt', which was not planned."
    ]
    info = json.loads((place.folder / "run" / "run.json").read_text())
    assert (info["settings"]["max_tokens"], info["settings"]["temperature"], info["settings"]["repeats"]) == (2, 0.5, 1)


def test_some_arms_of_a_plan_and_another_probe_file(lem: Lem, place: Place) -> None:
    plan = declare(place)
    assert "differs" not in lem("benchmark", "--plan", plan, "--output", "run", "--arm", "json").err
    write_probes(place.folder / "other.json", 2)
    result = lem("benchmark", "--plan", plan, "--output", "other", "--prompts", "other.json")
    assert "another probe file" in result.err
    assert len(cells(place.folder / "other")) == 2 * 2 * 2


def test_a_run_has_one_plan(lem: Lem, place: Place) -> None:
    first, second = declare(place), declare(place, "second.json", margins={"v2": 2.0})
    assert lem("benchmark", "--plan", first, "--output", "run").code == 0
    before = bytes_of(place.folder / "run")
    assert_sentence(lem("benchmark", "--plan", second, "--output", "run"), "run was made under another plan (hash ")
    assert bytes_of(place.folder / "run") == before
    assert lem("benchmark", "--output", "free", "--limit", "1").code == 0
    assert_sentence(
        lem("benchmark", "--plan", first, "--output", "free", "--limit", "1", "--temperature", "0.7", "--top-p", "0.95",
            "--max-tokens", "4", "--seed", "42", "--repeats", "1", "--arm", "base"),
        "free was begun without a plan, and one that follows the answers declares nothing",
    )  # fmt: skip


def test_a_plan_changes_no_fingerprint(lem: Lem, place: Place) -> None:
    plan = declare(place)
    settings = ("--max-tokens", "3", "--temperature", "0.5", "--top-p", "0.9", "--seed", "7", "--repeats", "2")
    assert lem("benchmark", "--plan", plan, "--output", "with").code == 0
    assert lem("benchmark", "--output", "without", "--limit", "3", *settings).code == 0
    runs = [cells(place.folder / name) for name in ("with", "without")]
    kept = [{key: (row["fingerprint"], row["response"]) for key, row in run.items()} for run in runs]
    assert kept[0] == kept[1]


def test_a_plan_whose_probes_are_gone_is_a_sentence(lem: Lem, place: Place) -> None:
    plan = declare(place)
    place.probes.write_text(place.probes.read_text().replace('"P0', '"Q0'))
    assert_sentence(lem("benchmark", "--plan", plan, "--output", "run"), "probes.json holds none of the planned probes")
