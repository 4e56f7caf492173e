"""Row-keyed sampling: the right distribution, and a draw that nobody else in the batch can change."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.sample_utils import apply_top_p
from scipy import stats as sps

from lem.chat.sampling import CANDIDATES, RowSampler, row_seed

LOGITS = np.asarray([2.0, 1.7, 1.1, 0.4, 0.3, 0.0, -0.2, -0.9, -1.5, -3.0, -4.0, -30.0])


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def expected(logits: np.ndarray, temperature: float, top_p: float) -> np.ndarray:
    """Longhand: most likely first until the mass reaches top_p, then the temperature over what is left."""
    logprobs = log_softmax(logits)
    kept, mass = [], 0.0
    for token in np.argsort(-logprobs):
        kept.append(token)
        mass += np.exp(logprobs[token])
        if mass >= top_p:
            break
    weights = np.zeros(len(logits))
    weights[kept] = np.exp(logprobs[kept] / temperature)
    return weights / weights.sum()


def draw(logits: np.ndarray, seeds: list[int], temperature: float, top_p: float, steps: int = 1) -> np.ndarray:
    """(steps, B) tokens from the same logits in every row and at every step."""
    sampler = RowSampler(seeds, temperature, top_p)
    rows = mx.array(np.tile(log_softmax(logits), (len(seeds), 1)).astype(np.float32))
    return np.stack([np.array(sampler(rows)) for _ in range(steps)])


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.9), (1.6, 0.95), (0.7, 0.5), (1.0, 0.2)])
def test_draws_follow_softmax_and_nucleus(temperature: float, top_p: float) -> None:
    seeds = [row_seed(5, f"P{i}", 0) for i in range(12_000)]
    counts = np.bincount(draw(LOGITS, seeds, temperature, top_p)[0], minlength=len(LOGITS))
    shares = expected(LOGITS, temperature, top_p)
    assert counts[shares == 0].sum() == 0, "nothing outside the nucleus is drawn"
    enough = shares * len(seeds) >= 5
    if enough.sum() > 1:
        kept = counts[enough]
        assert sps.chisquare(kept, shares[enough] / shares[enough].sum() * kept.sum()).pvalue > 1e-4


def test_the_draws_of_one_row_are_independent_of_each_other() -> None:
    """Pairs of successive tokens of many keys: a contingency table without association."""
    first, second = draw(LOGITS, [row_seed(1, f"P{i}", 0) for i in range(8000)], 1.0, 1.0, steps=2)
    table = np.zeros((len(LOGITS), len(LOGITS)))
    np.add.at(table, (first, second), 1)
    common = table.sum(axis=0) > 150
    assert sps.chi2_contingency(table[np.ix_(common, common)]).pvalue > 1e-4


def flat_and_peaked(vocabulary: int) -> np.ndarray:
    """Log-probabilities (6 rows, 5 steps, V): half of the rows spread over everything, half over a few tokens."""
    spread = np.asarray([0.1, 4.0, 0.3, 3.0, 0.2, 5.0])[:, None, None]
    return log_softmax(np.random.default_rng(3).normal(0, 1, (6, 5, vocabulary)) * spread).astype(np.float32)


@pytest.mark.parametrize("vocabulary", [40, 3 * CANDIDATES])
def test_a_draw_depends_neither_on_neighbours_nor_on_their_order(vocabulary: int) -> None:
    """A row draws the same alone, in any order, and after other rows have ended."""
    logprobs = flat_and_peaked(vocabulary)
    seeds = [row_seed(9, f"P{i}", 0) for i in range(6)]
    alone = {}
    for row in range(6):
        sampler = RowSampler([seeds[row]], 0.9, 0.95)
        alone[row] = [int(sampler(mx.array(logprobs[row, step][None]))[0].item()) for step in range(5)]

    @settings(max_examples=25, deadline=None)
    @given(st.permutations(range(6)), st.sets(st.integers(0, 5), min_size=1), st.integers(0, 4))
    def check(order: list[int], survivors: set[int], before: int) -> None:
        sampler = RowSampler([seeds[row] for row in order], 0.9, 0.95)
        living = list(order)
        for step in range(5):
            if step == before:
                kept = [place for place, row in enumerate(living) if row in survivors]
                sampler.keep(kept)
                living = [living[place] for place in kept]
            drawn = np.array(sampler(mx.array(logprobs[living, step])))
            assert drawn.tolist() == [alone[row][step] for row in living]

    check()


def test_equal_probabilities_are_drawn_the_same_beside_any_neighbour() -> None:
    """Ties: a flat neighbour makes all tokens be ranked, which must not change the order of a tied row."""
    rng = np.random.default_rng(5)
    tied = log_softmax(rng.integers(-1, 2, (40, 4 * CANDIDATES)) * 6.0).astype(np.float32)
    tied = tied[:, rng.permutation(4 * CANDIDATES)]
    few = log_softmax(np.where(rng.random((40, 4 * CANDIDATES)) < 0.05, 9.0, -9.0)).astype(np.float32)
    flat = np.zeros((1, 4 * CANDIDATES), dtype=np.float32) - np.log(4 * CANDIDATES).astype(np.float32)
    seeds = [row_seed(2, f"P{i}", 0) for i in range(40)]
    for rows in (tied, few):
        alone = np.array(RowSampler(seeds, 1.0, 0.9)(mx.array(rows)))
        beside = np.array(RowSampler([*seeds, 1], 1.0, 0.9)(mx.array(np.concatenate([rows, flat]))))[:40]
        assert alone.tolist() == beside.tolist()


@pytest.mark.parametrize(("spread", "top_p"), [(0.1, 1.0), (0.1, 0.95), (0.1, 0.5), (4.0, 0.95)])
def test_large_vocabularies_follow_softmax_and_nucleus_too(spread: float, top_p: float) -> None:
    """More tokens than are ranked at first: nucleus inside the candidates (0.95 of a peaked row) and beyond them."""
    logits = np.random.default_rng(8).normal(0, 1, 2 * CANDIDATES) * spread
    shares = expected(logits, 0.8, top_p)
    seeds = [row_seed(6, f"P{i}", 0) for i in range(12_000)]
    counts = np.bincount(draw(logits, seeds, 0.8, top_p)[0], minlength=len(logits))
    assert counts[shares == 0].sum() == 0
    enough = shares * len(seeds) >= 5
    kept = counts[enough]
    assert sps.chisquare(kept, shares[enough] / shares[enough].sum() * kept.sum()).pvalue > 1e-4


def test_keys_are_the_documented_ones() -> None:
    """Gumbel-max by rank, longhand: the key of a row's n-th token is (word 0, word 1 + n) of its 64-bit seed."""
    seed = 0x0123456789ABCDEF
    tokens = draw(LOGITS, [seed], 0.8, 1.0, steps=4)[:, 0]
    ranked = np.argsort(-LOGITS)
    for step, token in enumerate(tokens):
        key = mx.array([0x01234567, (0x89ABCDEF + step) % 2**32], dtype=mx.uint32)
        noise = np.array(mx.random.gumbel((len(LOGITS),), key=key), dtype=np.float64)
        assert token == ranked[np.argmax(log_softmax(LOGITS)[ranked] / 0.8 + noise)]


def test_the_token_counter_may_run_over_the_word() -> None:
    assert len(set(draw(LOGITS, [0x00000000FFFFFFFF], 3.0, 1.0, steps=20)[:, 0])) > 3


def test_mlx_random_state_is_neither_read_nor_moved() -> None:
    mx.random.seed(1)
    untouched = mx.random.uniform(shape=(3,)).tolist()
    mx.random.seed(1)
    first = draw(LOGITS, [4, 5, 6], 1.0, 0.9, steps=3)
    assert mx.random.uniform(shape=(3,)).tolist() == untouched
    mx.random.seed(99)
    assert (draw(LOGITS, [4, 5, 6], 1.0, 0.9, steps=3) == first).all()


def test_temperature_zero_is_the_most_likely_token() -> None:
    logprobs = log_softmax(np.random.default_rng(0).normal(0, 3, (50, 30)))
    drawn = RowSampler(list(range(50)), 0.0, 0.5)(mx.array(logprobs.astype(np.float32)))
    assert np.array(drawn).tolist() == logprobs.argmax(axis=1).tolist()


@pytest.mark.parametrize("top_p", [1e-3, 1e-6, 1e-9])
def test_a_tiny_nucleus_still_holds_the_most_likely_token(top_p: float) -> None:
    logprobs = log_softmax(np.random.default_rng(0).normal(0, 3, (50, 500)))
    drawn = RowSampler(list(range(50)), 1.0, top_p)(mx.array(logprobs.astype(np.float32)))
    assert np.array(drawn).tolist() == logprobs.argmax(axis=1).tolist()


@pytest.mark.parametrize("vocabulary", [64, 2 * CANDIDATES])
@pytest.mark.parametrize("top_p", [0.3, 0.95])
def test_the_nucleus_is_mlx_lms(vocabulary: int, top_p: float) -> None:
    """No key draws outside mlx-lm's nucleus, and every token inside with a fair share is drawn by some key."""
    seeds = [row_seed(4, f"P{i}", 0) for i in range(3000)]
    for spread in (0.3, 1.0, 2.5):
        logits = np.random.default_rng(int(10 * spread)).normal(0, spread, vocabulary)
        peer = np.isfinite(np.array(apply_top_p(mx.array(log_softmax(logits).astype(np.float32))[None], top_p))[0])
        counts = np.bincount(draw(logits, seeds, 1.0, top_p)[0], minlength=vocabulary)
        assert counts[~peer].sum() == 0
        shares = np.where(peer, np.exp(log_softmax(logits)), 0)
        assert (counts[shares / shares.sum() > 0.005] > 0).all()


def test_a_wrong_number_of_rows_is_a_bug_that_speaks() -> None:
    with pytest.raises(RuntimeError, match="2 rows to sample but 3 keys"):
        RowSampler([1, 2, 3], 1.0, 1.0)(mx.zeros((2, 5)))


def test_seeds_differ_between_repeats_probes_and_runs_and_do_not_know_the_arm() -> None:
    seeds = [row_seed(run, f"P{p:02d}", repeat) for run in range(5) for p in range(30) for repeat in range(10)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert row_seed(1, "2", 3) != row_seed(12, "", 3)
