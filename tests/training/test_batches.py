"""Batches: every row once an epoch, the same for a seed, shared out over ranks without loss, little padding."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from longhand import n_counted, random_rows

from lem.training.batches import Batch, PackedCache, Schedule, make_batch, make_packed_batch, pack
from lem.training.dataset import TrainingRow


def rows_of(lengths: list[int]) -> tuple[TrainingRow, ...]:
    """Rows that can be told apart: row i holds only the token i + 1, and counts its second half."""
    return tuple(
        TrainingRow((index + 1,) * length, tuple(place >= max(1, length // 2) for place in range(length)))
        for index, length in enumerate(lengths)
    )


def skewed(n: int, seed: int = 0) -> list[int]:
    return [int(length) for length in np.clip(np.random.default_rng(seed).lognormal(4, 0.9, n), 5, 1500)]


def seen(batches: list[Batch]) -> Counter[int]:
    """How often each row of `rows_of` stands in these batches."""
    count: Counter[int] = Counter()
    for batch in batches:
        for sequence in batch.tokens:
            count.update(int(token) - 1 for token in np.unique(sequence[sequence > 0]))
    return count


def widths(schedule: Schedule, epoch: int) -> list[int]:
    first = epoch * schedule.steps_per_epoch
    steps = range(first + 1, first + schedule.steps_per_epoch + 1)
    return [batch.tokens.shape[1] for step in steps for batch in schedule.micro_batches(step)]


@pytest.mark.parametrize("pack_to", [None, 400])
@pytest.mark.parametrize(("batch_size", "accumulation"), [(1, 1), (2, 1), (4, 3), (7, 2), (64, 1)])
def test_every_row_exactly_once_an_epoch(batch_size: int, accumulation: int, pack_to: int | None) -> None:
    rows = rows_of(skewed(101))
    schedule = Schedule(rows, batch_size, accumulation, seed=3, pack_to=pack_to)
    for epoch in range(3):
        first = epoch * schedule.steps_per_epoch + 1
        steps = range(first, first + schedule.steps_per_epoch)
        assert seen([b for step in steps for b in schedule.micro_batches(step)]) == Counter(range(101))
        assert sum(schedule.n_targets(step) for step in steps) == n_counted(rows)
        for step in steps:
            batches = schedule.micro_batches(step)
            assert 1 <= len(batches) <= accumulation
            assert all(1 <= len(batch.tokens) <= batch_size for batch in batches)
            assert sum(batch.n_targets for batch in batches) == schedule.n_targets(step)


def test_the_last_step_of_an_epoch_takes_what_is_left() -> None:
    schedule = Schedule(rows_of([9] * 10), 2, 2, seed=0)
    assert schedule.steps_per_epoch == 3
    sizes = sorted(sum(len(cut) for cut in schedule.row_indices(step)) for step in (1, 2, 3))
    assert sizes == [2, 4, 4]
    one = Schedule(rows_of([9] * 3), 8, 4, seed=0)
    assert one.steps_per_epoch == 1
    for step in (1, 2):
        assert sorted(unit[0] for cut in one.row_indices(step) for unit in cut) == [0, 1, 2]


def test_a_step_is_a_function_of_rows_settings_and_seed() -> None:
    rows = rows_of(skewed(60))
    steps = range(1, 100)
    first, again = (Schedule(rows, 4, 2, seed=5) for _ in range(2))
    forwards = [first.row_indices(step) for step in steps]
    assert forwards == [again.row_indices(step) for step in reversed(steps)][::-1]
    assert forwards != [Schedule(rows, 4, 2, seed=6).row_indices(step) for step in steps]
    n = first.steps_per_epoch
    assert forwards[:n] != forwards[n : 2 * n] != forwards[2 * n : 3 * n]


def test_the_order_of_batches_is_not_the_order_of_lengths() -> None:
    schedule = Schedule(rows_of(skewed(400)), 4, 1, seed=1)
    found = widths(schedule, 1)
    rising = sum(one < other for one, other in pairwise(found)) / len(found)
    assert 0.3 < rising < 0.7
    assert len(set(found[:10])) > 3


def test_neighbours_change_from_epoch_to_epoch() -> None:
    schedule = Schedule(rows_of(skewed(400)), 4, 1, seed=1)
    n = schedule.steps_per_epoch

    def together(epoch: int) -> set[frozenset[int]]:
        steps = range(epoch * n + 1, (epoch + 1) * n + 1)
        return {frozenset(unit[0] for unit in cut) for step in steps for cut in schedule.row_indices(step)}

    assert len(together(1) & together(2)) < 0.05 * n


@pytest.mark.parametrize("accumulation", [1, 3])
def test_the_first_batch_holds_the_longest_rows(accumulation: int) -> None:
    lengths = skewed(97, seed=4)
    schedule = Schedule(rows_of(lengths), 4, accumulation, seed=9)
    first = [unit[0] for cut in schedule.row_indices(1) for unit in cut]
    assert sorted(lengths[row] for row in first) == sorted(lengths)[-4 * accumulation :]
    longest = schedule.longest_batch()
    assert longest.tokens.shape == schedule.micro_batches(1)[0].tokens.shape
    for step in range(1, 3 * schedule.steps_per_epoch + 1):
        for batch in schedule.micro_batches(step):
            assert batch.tokens.size <= longest.tokens.size
    later = [unit[0] for cut in schedule.row_indices(schedule.steps_per_epoch + 1) for unit in cut]
    assert set(later) != set(first)


@pytest.mark.parametrize("pack_to", [None, 300])
@pytest.mark.parametrize("n_ranks", [1, 2, 3, 8])
def test_the_ranks_together_compute_the_whole_step(n_ranks: int, pack_to: int | None) -> None:
    rows = rows_of(skewed(41))
    schedule = Schedule(rows, 4, 2, seed=2, pack_to=pack_to)
    for step in range(1, 2 * schedule.steps_per_epoch + 1):
        parts = [batch for rank in range(n_ranks) for batch in schedule.micro_batches(step, rank, n_ranks)]
        assert seen(parts) == seen(schedule.micro_batches(step))
        assert sum(batch.n_targets for batch in parts) == schedule.n_targets(step)


def test_a_rank_without_a_row_has_no_batch() -> None:
    schedule = Schedule(rows_of([9]), 4, 1, seed=2)
    assert [len(schedule.micro_batches(1, rank, 3)) for rank in range(3)] == [1, 0, 0]


@pytest.mark.parametrize("batch_size", [2, 4, 16])
def test_padding_is_far_below_that_of_a_random_order(batch_size: int) -> None:
    lengths = skewed(800)
    rows = rows_of(lengths)
    generator = np.random.default_rng(0)

    def padding(order: list[int]) -> float:
        groups = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
        read = sum(len(group) * max(lengths[row] for row in group) for group in groups)
        return 1 - sum(lengths) / read

    at_random = np.mean([padding([int(i) for i in generator.permutation(len(rows))]) for _ in range(5)])
    schedule = Schedule(rows, batch_size, 1, seed=7)
    steps = range(schedule.steps_per_epoch + 1, 2 * schedule.steps_per_epoch + 1)  # an epoch without the longest first
    order = [unit[0] for step in steps for cut in schedule.row_indices(step) for unit in cut]
    assert padding(order) < 0.6 * at_random
    assert schedule.describe()["padding"] < 0.8 * at_random


@pytest.mark.parametrize("pack_to", [None, 300])
def test_the_description_counts_what_is_read(pack_to: int | None) -> None:
    lengths = skewed(50)
    schedule = Schedule(rows_of(lengths), 4, 1, seed=7, pack_to=pack_to)
    batches = [b for step in range(1, schedule.steps_per_epoch + 1) for b in schedule.micro_batches(step)]
    found = schedule.describe()
    assert found["padding"] == pytest.approx(1 - sum(lengths) / sum(batch.tokens.size for batch in batches))
    assert found["sequences"] == sum(len(batch.tokens) for batch in batches)
    assert (found["rows"], found["steps_per_epoch"]) == (50, schedule.steps_per_epoch)


@pytest.mark.parametrize("length", [2, 32, 33, 34, 65])
def test_a_batch_holds_the_rows_and_pads_on_the_right(length: int) -> None:
    rows = [*random_rows(2, longest=30), TrainingRow(tuple(range(length)), (False,) * (length - 1) + (True,))]
    batch = make_batch(rows)
    assert (batch.tokens.shape[1] - 1) % 32 == 0
    assert batch.tokens.shape[1] - 32 < max(len(row.tokens) for row in rows) <= batch.tokens.shape[1]
    for index, row in enumerate(rows):
        n = len(row.tokens)
        assert tuple(batch.tokens[index, :n]) == row.tokens
        assert tuple(batch.targets[index, : n - 1]) == row.reply[1:]
        assert not batch.targets[index, n - 1 :].any()
    assert batch.n_targets == n_counted(rows)


def test_a_packed_batch_never_predicts_the_first_token_of_a_row() -> None:
    rows = (TrainingRow((1, 2, 3), (True, True, True)), TrainingRow((4, 5), (True, True)), TrainingRow((6,), (True,)))
    batch = make_packed_batch([rows])
    assert batch.segments is not None
    assert tuple(batch.tokens[0, :7]) == (1, 2, 3, 4, 5, 6, 0)
    assert tuple(batch.segments[0, :7]) == (0, 0, 0, 1, 1, 2, -1)
    assert [int(batch.tokens[0, place + 1]) for place in np.flatnonzero(batch.targets[0])] == [2, 3, 5]


@pytest.mark.parametrize("window", [None, 1, 4, 100])
def test_the_mask_is_causal_within_each_row_and_within_the_window(window: int | None) -> None:
    segments = np.array([[0, 0, 0, 0, 0, 1, 1, 1, -1, -1], [0, 1, 1, 1, 1, 1, 1, 2, 2, 2]], dtype=np.int32)
    mask = np.array(PackedCache(segments).make_mask(10, window_size=window))
    assert mask.shape == (2, 1, 10, 10)
    for b in range(2):
        for q in range(10):
            for k in range(10):
                near = window is None or q - k < window
                assert mask[b, 0, q, k] == (segments[b, q] == segments[b, k] and k <= q and near)


def test_bins_are_full_and_none_too_full() -> None:
    lengths = [min(length, 300) for length in skewed(200)]
    bins = pack(lengths, 300)
    assert sorted(index for bin_ in bins for index in bin_) == list(range(200))
    filled = [sum(lengths[index] for index in bin_) for bin_ in bins]
    assert max(filled) <= 300
    assert len(bins) <= 11 / 9 * -(-sum(lengths) // 300) + 1  # first-fit decreasing's bound, over the least possible
    assert pack([500, 10, 10], 100) == [[0], [1, 2]]
