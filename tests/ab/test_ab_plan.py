"""Arms, names, and what a dry run counts."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from lem.ab.arms import build_arms, parse_named, select_arms
from lem.chat.load import load
from lem.errors import DataError, UserError
from lem.runs.plan import preview
from small_plan import KERNEL, small_plan, write_kernel, write_probes


@pytest.mark.parametrize(
    ("text", "name", "value", "given"),
    [
        ("json=kernel/axioms.json", "json", "kernel/axioms.json", True),
        ("kernel/axioms.json", "json", "kernel/axioms.json", False),
        ("lek-1.txt", "txt", "lek-1.txt", False),
        ("adapters/lek", "lek", "adapters/lek", False),
        ("trained+json=a=b", "trained+json", "a=b", True),
    ],
)
def test_names_of_arms(text: str, name: str, value: str, given: bool) -> None:
    found = parse_named(text, "--kernel")
    assert (found.name, found.value, found.given) == (name, value, given)


@pytest.mark.parametrize("text", ["=x", "a b=x", "../x=y", "-x=y", "json="])
def test_unusable_names_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--kernel"):
        parse_named(text, "--kernel")


def test_arms_come_in_the_order_of_the_documentation(tmp_path: Path) -> None:
    a, b = write_kernel(tmp_path / "axioms.json"), write_kernel(tmp_path / "lek.txt")
    p, q = write_kernel(tmp_path / "placebo.json"), write_kernel(tmp_path / "placebo.txt")
    arms = build_arms(
        "m", kernels=(str(a), f"mine={b}"), placebos=(p, q), adapters=("trained=ad",), trained=("pub=m2",)
    )
    assert [arm.name for arm in arms] == ["base", "json", "mine", "placebo-json", "placebo-txt", "trained", "pub"]
    assert [(arm.model, arm.adapter) for arm in arms[-2:]] == [("m", "ad"), ("m2", None)]
    assert arms[2].kernel is not None
    assert arms[2].kernel.text == KERNEL


@pytest.mark.parametrize(
    "options",
    [{"kernels": ("x.txt", "y.txt")}, {"kernels": ("base=x.txt",)}, {"adapters": ("t=a",), "trained": ("t=b",)}],
)
def test_two_arms_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Any) -> None:
    monkeypatch.chdir(tmp_path)
    write_kernel(tmp_path / "x.txt")
    write_kernel(tmp_path / "y.txt")
    with pytest.raises(UserError, match=r"two arms are named '.*'; name them apart with NAME=PATH"):
        build_arms("m", **options)


def test_unknown_arms_are_answered_with_the_known_ones(tmp_path: Path) -> None:
    arms = build_arms("m", kernels=(str(write_kernel(tmp_path / "x.txt")),))
    assert [arm.name for arm in select_arms(arms, ("txt",))] == ["txt"]
    assert select_arms(arms, ()) == arms
    with pytest.raises(UserError, match=r"--arm json: unknown arm; this run has base, txt\."):
        select_arms(arms, ("base", "json"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("k.txt", b" \n\t", "the kernel is empty"),
        ("k.json", b'{\n "a": }', "line 2: not valid JSON"),
        ("k.txt", b"\xff\xfe", "not UTF-8 text"),
        ("none.txt", None, "no such kernel file"),
    ],
)
def test_kernels_that_cannot_be_used(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((UserError, DataError), match=message):
        build_arms("m", kernels=(str(tmp_path / name),))


def longhand_counts(model: Path, plan: Any) -> dict[str, list[int]]:
    """Prompt tokens of each request of each arm, by rendering the template by hand (one byte is one token)."""
    chat = load(str(model), weights=False)
    counts = {}
    for arm in plan.arms:
        system = f"<|turn|>system\n{arm.kernel.text}<|end|>\n" if arm.kernel else ""
        texts = [f"{system}<|turn|>user\n{p.prompt}<|end|>\n<|turn|>assistant\n" for p in plan.probes] * plan.repeats
        tokens = [chat.tokenizer.encode(text, add_special_tokens=False) for text in texts]
        shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*tokens, strict=False)))
        counts[arm.name] = [sum(map(len, tokens)), min(shared, min(map(len, tokens)) - 1), len(tokens)]
    return counts


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_preview_counts_what_the_run_would_do(
    tmp_path: Path, model: Path, probes: Path, kernel: Path, repeats: int
) -> None:
    plan = small_plan(model, probes, kernels=(f"json={kernel}",), limit=5, repeats=repeats, max_tokens=9)
    found = preview(plan)
    counts = longhand_counts(model, plan)
    assert (found["n_arms"], found["n_probes"], found["repeats"], found["n_requests"]) == (2, 5, repeats, 10 * repeats)
    assert found["max_new_tokens"] == 10 * repeats * 9
    assert [arm["prompt_tokens"] for arm in found["arms"]] == [counts["base"][0], counts["json"][0]]
    assert found["prompt_tokens"] == counts["base"][0] + counts["json"][0]
    assert counts["base"][1] < 16 < counts["json"][1], "one prefix too short to be shared, one long enough"
    assert [arm["shared_prefix"] for arm in found["arms"]] == [0, counts["json"][1]]
    total, shared, n = counts["json"]
    assert found["prefill_tokens"] == counts["base"][0] + total - shared * (n - 1)
    example = found["example"]
    assert (example["arm"], example["probe_id"]) == ("json", "P00")
    assert kernel.read_text() in example["text"]
    assert example["text"].endswith("<|turn|>assistant\n")


def test_the_default_run_is_named_after_everything_that_decides_its_answers(
    model: Path, probes: Path, kernel: Path
) -> None:
    plan = small_plan(model, probes)
    other = small_plan(model, probes, kernels=(str(kernel),))
    changed = [
        plan, other, replace(plan, seed=1), replace(plan, inject="user"), replace(plan, probe_sha="other"),
        replace(plan, settings=replace(plan.settings, max_tokens=7)),
    ]  # fmt: skip
    assert len({each.short_hash for each in changed}) == len(changed)
    same = replace(
        plan, repeats=4, group_size=7, command=("x",), probes=plan.probes[:2], probe_file="../elsewhere.json"
    )
    assert same.short_hash == plan.short_hash


def test_the_name_does_not_depend_on_the_working_directory(
    model: Path, probes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = set()
    for folder, path in ((model.parent, model.name), (model, "."), (model, "../" + model.name)):
        monkeypatch.chdir(folder)
        names.add(small_plan(Path(path), probes).short_hash)
    assert names == {small_plan(model, probes).short_hash}


def test_another_number_of_probes_is_the_same_run(tmp_path: Path, model: Path) -> None:
    probes = write_probes(tmp_path / "p.json", 6)
    assert small_plan(model, probes, limit=2).short_hash == small_plan(model, probes).short_hash
