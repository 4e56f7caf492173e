"""Designs and doses: which arms there are, that they share seeds, and that nothing of an adapter changes no text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters import edit, write_adapter
from lem.ab.arms import build_arms, dose_arms, parse_scales
from lem.ab.benchmark import run_benchmark
from lem.ab.designs import TEXTS, build_design
from lem.errors import ResumeMismatch, UserError
from lem.records.run import read_manifest
from lem.runs.plan import Arm, RunPlan, preview, render_plan
from small_plan import bytes_of, cells, rows_of, small_plan, write_kernel
from tiny import make_model

FULL = ["base", "json", "txt", "placebo-json", "placebo-txt", "trained", "trained-placebo", "trained+json"]
OPTIONS = ("trained=a", "trained-placebo=b")


@pytest.fixture
def texts(tmp_path: Path) -> dict[str, Path]:
    """The four texts of a design, each with words of its own."""
    files = zip(TEXTS, ("axioms.json", "lek.txt", "placebo.json", "placebo.txt"), strict=True)
    return {name: write_kernel(tmp_path / file, f"The words of {name}.") for name, file in files}


@pytest.fixture
def adapters(tmp_path: Path, model: Path) -> tuple[Path, Path]:
    """Two adapters of the model, one of whose layers says more than the other's."""
    sizes = {"lek": 0.4, "lek-placebo": 0.2}
    first, second = (write_adapter(model, tmp_path / name, size=size) for name, size in sizes.items())
    return first, second


def with_arms(model: Path, probes: Path, arms: Sequence[Arm], **options: Any) -> RunPlan:
    return replace(small_plan(model, probes, **options), arms=tuple(arms))


def test_the_full_design_is_that_of_the_documentation(texts: dict[str, Path]) -> None:
    arms = {arm.name: arm for arm in build_design("full", "m", texts, adapters=OPTIONS)}
    assert list(arms) == FULL
    assert list(build_design("kernel", "m", texts)) == [arms[name] for name in FULL[:5]]
    injected = {name: arm.kernel.text for name, arm in arms.items() if arm.kernel}
    assert injected == {name: texts[name].read_text() for name in TEXTS} | {"trained+json": texts["json"].read_text()}
    assert {name: arm.adapter for name, arm in arms.items() if arm.adapter} == {
        "trained": "a", "trained-placebo": "b", "trained+json": "a"
    }  # fmt: skip
    assert {arm.model for arm in arms.values()} == {"m"}


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({}, ["lacks trained and trained-placebo", "--data training --adapter-path adapters/lek`",
              "--data training/placebo --adapter-path adapters/lek-placebo`", "--adapter trained=adapters/lek "]),
        ({"adapters": ("trained=a",)},
         ["lacks trained-placebo: train with `./lem train --model m --data training/placebo --adapter-path "
          "adapters/lek-placebo`, the same settings for both adapters, then add --adapter trained-placebo="]),
        ({"adapters": ("trained=a", "trained-placebo=a")}, ["are the same weights, so the second controls nothing"]),
        ({"adapters": OPTIONS, "trained": ("trained=other",)}, ["two arms are named 'trained'"]),
        ({"adapters": (*OPTIONS, "json=c")}, ["two arms are named 'json'"]),
    ],
)  # fmt: skip
def test_what_a_full_design_lacks_is_a_sentence(texts: dict[str, Path], options: Any, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        build_design("full", "m", texts, **options)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_a_kernel_of_ones_own_takes_its_place_and_more_arms_follow(texts: dict[str, Path], tmp_path: Path) -> None:
    mine, extra = write_kernel(tmp_path / "mine.json", "Mine."), write_kernel(tmp_path / "extra.md", "Extra.")
    arms = build_design(
        "full", "m", texts, kernels=(f"json={mine}", str(extra)), adapters=("trained-placebo=b", "late=c"),
        trained=("trained=published",),
    )  # fmt: skip
    assert [arm.name for arm in arms] == [*FULL, "extra", "late"]
    by_name = {arm.name: arm for arm in arms}
    for name in ("json", "trained+json"):
        kernel = by_name[name].kernel
        assert kernel is not None
        assert kernel.text == mine.read_text()
    assert [(by_name[name].model, by_name[name].adapter) for name in ("trained", "trained+json")] == [
        ("published", None), ("published", None)
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "0,,1", "a", "-1", "nan", "inf", "0.5 1"])
def test_scales_that_are_none_are_a_sentence(text: str) -> None:
    with pytest.raises(UserError, match=r"^--adapter-scale .* is no number of 0 or more; write for example 0,0.25"):
        parse_scales(text)


def test_doses_are_arms_of_their_own_and_kernels_on_top_are_not_dosed(texts: dict[str, Path]) -> None:
    arms = build_arms("m", kernels=(f"json={texts['json']}",), adapters=("trained=a", "late=b"), trained=("pub=m2",))
    dosed = dose_arms(arms, parse_scales("0, 0.25,1,2"))
    assert [(arm.name, arm.adapter_scale) for arm in dosed] == [
        ("base", 1), ("json", 1), ("trained@0", 0), ("trained@0.25", 0.25), ("trained", 1), ("trained@2", 2),
        ("late@0", 0), ("late@0.25", 0.25), ("late", 1), ("late@2", 2), ("pub", 1),
    ]  # fmt: skip
    full = dose_arms(build_design("full", "m", texts, adapters=OPTIONS), [0.5, 1])
    assert [arm.name for arm in full] == [
        *FULL[:5], "trained@0.5", "trained", "trained-placebo@0.5", "trained-placebo", "trained+json"
    ]  # fmt: skip
    with pytest.raises(UserError, match="--adapter-scale needs an adapter"):
        dose_arms(build_arms("m", trained=("pub=m2",)), [0.5])
    with pytest.raises(UserError, match=r"two arms are named 'trained@0\.5'"):
        dose_arms(arms, parse_scales("0.5,0.50"))


def test_a_full_design_runs_with_the_same_seeds_in_every_arm(
    tmp_path: Path, model: Path, probes: Path, texts: dict[str, Path], adapters: tuple[Path, Path]
) -> None:
    given = (f"trained={adapters[0]}", f"trained-placebo={adapters[1]}")
    arms = build_design("full", str(model), texts, adapters=given)
    loaded: list[str] = []
    run_benchmark(with_arms(model, probes, arms, limit=4, repeats=2), tmp_path / "run", on_load=loaded.append)
    found = cells(tmp_path / "run")
    assert {arm for arm, _, _ in found} == set(FULL)
    for (_, probe, repeat), row in found.items():
        assert row["seed"] == found["base", probe, repeat]["seed"]
    assert len({row["seed"] for row in found.values()}) == 4 * 2
    assert loaded == [str(model), f"{model} + {adapters[0]}", f"{model} + {adapters[1]}"]
    texts_of = {arm: tuple(row["response"] for row in rows_of(tmp_path / "run") if row["arm"] == arm) for arm in FULL}
    assert len(set(texts_of.values())) == len(FULL), "eight arms that answer differently"


def test_at_nothing_an_adapter_gives_the_texts_of_the_base_and_each_scale_is_loaded_once(
    tmp_path: Path, model: Path, probes: Path, adapters: tuple[Path, Path]
) -> None:
    given = build_arms(str(model), adapters=(f"trained={adapters[0]}",))
    plan = with_arms(model, probes, dose_arms(given, [0.0, 0.25, 1.0]), repeats=2, max_tokens=16)
    loaded: list[str] = []
    run_benchmark(plan, tmp_path / "run", on_load=loaded.append)
    with_adapter = f"{model} + {adapters[0]}"
    assert loaded == [str(model), f"{with_adapter} at 0.0", f"{with_adapter} at 0.25", with_adapter]
    found: dict[str, dict[tuple[str, int], str]] = {}
    for (arm, probe, repeat), row in cells(tmp_path / "run").items():
        found.setdefault(arm, {})[probe, repeat] = row["response"]
    assert found["trained@0"] == found["base"]
    assert len({tuple(found[arm].values()) for arm in ("base", "trained@0.25", "trained")}) == 3
    facts = read_manifest(tmp_path / "run").arms
    assert {name: fact.get("adapter_scale", "whole") for name, fact in facts.items()} == {
        "base": "whole", "trained@0": 0.0, "trained@0.25": 0.25, "trained": "whole"
    }  # fmt: skip
    assert {fact["bits"] for fact in facts.values()} == {32}
    assert len({row["fingerprint"] for row in rows_of(tmp_path / "run")}) == 4 * 8


def test_the_whole_adapter_resumes_a_run_that_knew_no_scales(
    tmp_path: Path, model: Path, probes: Path, adapters: tuple[Path, Path]
) -> None:
    arms = build_arms(str(model), adapters=(f"trained={adapters[0]}",))
    plan = with_arms(model, probes, arms, max_tokens=3)
    assert run_benchmark(plan, tmp_path / "run").written == 16
    dosed = with_arms(model, probes, dose_arms(arms, [0.5, 1.0]), max_tokens=3)
    assert run_benchmark(dosed, tmp_path / "run").written == 8
    assert plan.short_hash == with_arms(model, probes, dose_arms(arms, [1.0]), max_tokens=3).short_hash
    assert plan.short_hash != dosed.short_hash
    other = replace(dosed, arms=tuple(replace(a, adapter_scale=0.75) if "@" in a.name else a for a in dosed.arms))
    assert other.short_hash != dosed.short_hash
    before = bytes_of(tmp_path / "run")
    with pytest.raises(ResumeMismatch, match=r"arm 'trained@0\.5' was made with other weights"):
        run_benchmark(other, tmp_path / "run")
    assert bytes_of(tmp_path / "run") == before


def test_an_adapter_of_whole_weights_is_refused_before_anything_is_made(
    tmp_path: Path, model: Path, probes: Path, adapters: tuple[Path, Path]
) -> None:
    edit(adapters[0] / "adapter_config.json", fine_tune_type="full")
    arms = dose_arms(build_arms(str(model), adapters=(f"trained={adapters[0]}",)), [0.5])
    with pytest.raises(UserError, match="holds whole weights"):
        run_benchmark(with_arms(model, probes, arms), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_declared_plan_names_a_run_and_changes_no_answer(tmp_path: Path, model: Path, probes: Path) -> None:
    plan = small_plan(model, probes, limit=3, max_tokens=3)
    declared = replace(plan, declared={"kind": "plan", "baseline": "base", "sha": "a" * 64})
    fingerprints = [[r.fingerprint for arm in render_plan(p) for r in arm.requests.values()] for p in (plan, declared)]
    assert fingerprints[0] == fingerprints[1]
    assert plan.short_hash != declared.short_hash
    run_benchmark(declared, tmp_path / "run")
    assert read_manifest(tmp_path / "run").plan == declared.declared
    assert run_benchmark(plan, tmp_path / "run").written == 0, "the same run, and it keeps its plan"
    assert read_manifest(tmp_path / "run").plan == declared.declared
    before = bytes_of(tmp_path / "run")
    with pytest.raises(
        ResumeMismatch, match=r"another plan \(hash a{12}, not b{12}\); give a new --output, nothing was touched"
    ):
        run_benchmark(replace(plan, declared={"kind": "plan", "baseline": "base", "sha": "b" * 64}), tmp_path / "run")
    assert bytes_of(tmp_path / "run") == before


def test_a_plan_that_follows_the_answers_is_refused(tmp_path: Path, model: Path, probes: Path) -> None:
    plan = small_plan(model, probes, limit=3, max_tokens=3)
    run_benchmark(plan, tmp_path / "run")
    before = bytes_of(tmp_path / "run")
    with pytest.raises(ResumeMismatch, match=r"one that follows the answers declares nothing; leave out --plan"):
        run_benchmark(replace(plan, declared={"kind": "plan", "baseline": "base", "sha": "a" * 64}), tmp_path / "run")
    assert bytes_of(tmp_path / "run") == before


def test_a_model_that_cannot_be_batched_is_announced_and_answers_all_the_same(tmp_path: Path, probes: Path) -> None:
    model = make_model(tmp_path / "gemma2", "gemma2-grouped")
    plan = small_plan(model, probes, limit=4, max_tokens=3, temperature=0.0, group_size=2)
    with pytest.warns(UserWarning, match=r"gemma2: mlx-lm cannot decode several rows .* one by one; expect a slower"):
        assert run_benchmark(plan, tmp_path / "together").failed == 0
    with pytest.warns(UserWarning, match="one by one"):
        run_benchmark(replace(plan, group_size=1), tmp_path / "alone")
    answers = [{key: row["response"] for key, row in cells(tmp_path / name).items()} for name in ("together", "alone")]
    assert answers[0] == answers[1]
    assert read_manifest(tmp_path / "together").group_size == 2


def test_a_preview_counts_the_arms_of_doses(model: Path, probes: Path, adapters: tuple[Path, Path]) -> None:
    arms = dose_arms(build_arms(str(model), adapters=(f"trained={adapters[0]}",)), [0.0, 0.5])
    found = preview(with_arms(model, probes, arms, limit=3))
    assert [arm["name"] for arm in found["arms"]] == ["base", "trained@0", "trained@0.5"]
    assert found["n_requests"] == 9
