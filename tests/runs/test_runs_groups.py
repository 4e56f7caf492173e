"""Decoding groups: every row in exactly one, balanced, the same on every machine, and never cut again."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lem.records import Key
from lem.runs.groups import MAX_GROUP, Row, choose_group_size, cut_groups

keys = st.builds(
    Key, st.sampled_from(["base", "json"]), st.sampled_from([f"P{i:02d}" for i in range(30)]), st.integers(0, 2)
)
rows_of_a_plan = st.dictionaries(keys, st.integers(1, 50), max_size=60).map(
    lambda lengths: [Row(key, length) for key, length in lengths.items()]
)
sizes = st.integers(1, 12)


def placed(groups: dict[str, dict[str, object]]) -> list[Key]:
    return [Key(g["arm"], probe, g["repeat"]) for g in groups.values() for probe in g["probes"]]  # type: ignore


@given(rows_of_a_plan, sizes)
def test_every_row_is_in_one_group_of_its_arm_and_repeat(rows: list[Row], size: int) -> None:
    groups = cut_groups(rows, {}, size)
    assert sorted(placed(groups)) == sorted(row.key for row in rows)
    members: dict[tuple[str, int], list[int]] = {}
    for group in groups.values():
        members.setdefault((group["arm"], group["repeat"]), []).append(len(group["probes"]))
    for lengths in members.values():
        assert max(lengths) <= size
        assert max(lengths) - min(lengths) <= 1, "the parts are equal to within a row"
        assert len(lengths) == math.ceil(sum(lengths) / size)


@given(rows_of_a_plan, sizes, st.randoms(use_true_random=False))
def test_the_cut_does_not_depend_on_the_order_of_the_rows(rows: list[Row], size: int, random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert cut_groups(shuffled, {}, size) == cut_groups(rows, {}, size)


@given(rows_of_a_plan, sizes)
def test_rows_of_one_group_have_neighbouring_lengths(rows: list[Row], size: int) -> None:
    length = {row.key: row.n_prompt_tokens for row in rows}
    for arm in ("base", "json"):
        for repeat in range(3):
            ordered = [
                (length[Key(arm, probe, repeat)], probe)
                for group in cut_groups(rows, {}, size).values()
                if (group["arm"], group["repeat"]) == (arm, repeat)
                for probe in group["probes"]
            ]
            assert ordered == sorted(ordered)


@given(rows_of_a_plan, rows_of_a_plan, sizes, sizes)
def test_existing_groups_stay_as_they_are(first: list[Row], more: list[Row], size: int, other: int) -> None:
    before = cut_groups(first, {}, size)
    known = {row.key for row in first}
    after = cut_groups([*first, *(row for row in more if row.key not in known)], before, other)
    assert {name: after[name] for name in before} == before
    assert list(after)[: len(before)] == list(before)
    everything = placed(after)
    assert len(everything) == len(set(everything))
    assert set(everything) == known | {row.key for row in more}
    assert cut_groups([*first, *more], after, size) == after


def test_a_group_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        cut_groups([], {}, 0)


CONFIG = {"num_key_value_heads": 2, "head_dim": 64, "num_hidden_layers": 10, "vocab_size": 1000}


def test_the_group_size_is_what_half_of_the_free_memory_holds() -> None:
    row = 4 * (2 * 10 * 2 * 64 * 300 + 4 * 1000)  # float32: keys and values of 300 tokens, four copies of the logits
    assert choose_group_size(CONFIG, 300, 2 * 20 * row) == 20
    assert choose_group_size({"text_config": CONFIG}, 300, 2 * 20 * row + 1) == 20
    assert choose_group_size(CONFIG, 300, 2 * 20 * row - 2 * row // 2) == 19
    assert choose_group_size(CONFIG, 300, 10**15) == MAX_GROUP
    assert choose_group_size(CONFIG, 300, 0) == 1


def test_heads_and_head_size_are_worked_out_where_a_config_leaves_them_out() -> None:
    short = {"num_attention_heads": 4, "hidden_size": 256, "num_hidden_layers": 10, "vocab_size": 1000}
    full = {**short, "num_key_value_heads": 4, "head_dim": 64}
    for free in (10**7, 10**8):
        assert choose_group_size(short, 300, free) == choose_group_size(full, 300, free)
