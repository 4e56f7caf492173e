"""Rankings: order, ties, shares of first places, and which probes count."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lem.ab.join import join_runs
from lem.ab.ranking import family_and_size, rankings
from made_runs import made_run


def test_the_share_of_first_places_is_that_of_resampled_probes() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(5.2, 1, 25), rng.normal(5.0, 1, 25)
    rows = {row.arm: row for row in rankings(made_run({"a": list(a), "b": list(b)}))["v3"]}
    draws = rng.integers(0, 25, size=(20_000, 25))
    longhand = np.mean(a[draws].mean(axis=1) > b[draws].mean(axis=1))
    assert rows["a"].first == pytest.approx(longhand, abs=0.03)
    assert rows["a"].first + rows["b"].first == pytest.approx(1.0)
    assert {row.rank for row in rows.values()} == {1.0, 2.0}


def test_equal_arms_share_rank_and_first_place() -> None:
    column = [1.0, 2.0, 5.0]
    rows = rankings(made_run({"a": column, "b": column, "c": [0.0, 0.0, 0.0]}))["v3"]
    assert [(row.arm, row.rank, row.first) for row in rows] == [("a", 1.5, 0.5), ("b", 1.5, 0.5), ("c", 3.0, 0.0)]
    assert (rows[2].rank_low, rows[2].rank_high) == (3.0, 3.0)


def places(columns: dict[str, list[float]]) -> dict[str, tuple[float, float]]:
    rows = rankings(made_run({arm: list(column) for arm, column in columns.items()}))["v3"]
    return {row.arm: (row.rank_low, row.rank_high) for row in rows}


def test_arms_that_never_differ_may_hold_any_of_the_places_they_share() -> None:
    """1 + how many are better, to how many are not worse; what the draws leave open is added at both ends."""
    same = [4.0, 5.0, 6.0, 5.0]
    assert places({"a": same, "b": same, "c": same}) == {"a": (1, 3), "b": (1, 3), "c": (1, 3)}
    between = {"best": [9.0] * 4, "a": same, "b": same, "worst": [0.0] * 4}
    assert places(between) == {"best": (1, 1), "a": (2, 3), "b": (2, 3), "worst": (4, 4)}
    unsure = [1.0, 9.0, 1.0, 9.0]
    assert places({"a": same, "b": same, "unsure": unsure}) == {"a": (1, 3), "b": (1, 3), "unsure": (1, 3)}


def test_less_can_be_better() -> None:
    rows = rankings(made_run({"a": [1, 2, 3], "b": [0, 0, 0]}), lower_is_better=("v3",))["v3"]
    assert [row.arm for row in rows] == ["b", "a"]
    assert rows[0].first == 1.0


def test_only_probes_that_all_have_count_for_the_order_and_an_arm_without_values_has_no_rank() -> None:
    one = made_run({"a": [9, 1, 1, "failed"], "b": [None, 2, 2, 2]}, name="one")
    two = made_run({"c": [None, None, None, None]}, name="two")
    rows = rankings(join_runs([("one", one), ("two", two)]))["v3"]
    assert [(row.arm, row.n_shared) for row in rows] == [("b", 2), ("a", 2), ("c", 2)]
    by_arm = {row.arm: row for row in rows}
    assert (by_arm["b"].rank, by_arm["a"].rank) == (1.0, 2.0)
    assert by_arm["a"].mean.value == pytest.approx(11 / 3)
    assert (by_arm["a"].n_failed, by_arm["b"].n_unscored, by_arm["c"].n_unscored) == (1, 1, 4)
    assert math.isnan(by_arm["c"].rank)


@pytest.mark.parametrize(
    ("model", "family", "size"),
    [
        ("mlx-community/gemma-3-1b-it-qat-4bit", "Gemma 3", "1B"),
        ("Llama-3.1-8B-Instruct", "Llama 3.1", "8B"),
        ("Qwen2.5-7B", "Qwen 2.5", "7B"),
        ("google/gemma-3-270m-it", "Gemma 3", "270M"),
        ("gpt-oss-20b", "Gpt-oss", "20B"),
        ("models/lem-nano", "", ""),
        ("Mistral-7B-v0.3", "Mistral", "7B"),
    ],
)
def test_family_and_size_are_read_off_the_name_or_left_empty(model: str, family: str, size: str) -> None:
    assert family_and_size(model) == (family, size)
