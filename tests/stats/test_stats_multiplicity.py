"""Holm and Benjamini-Hochberg against their definitions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lem.stats import benjamini_hochberg, holm

p_values = st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=12)


def holm_longhand(p: float, tested: list[float]) -> float:
    """The largest of (tests not smaller) x p over the p-values up to this one."""
    return min(1.0, max(q * sum(r >= q for r in tested) for q in tested if q <= p))


def bh_longhand(p: float, tested: list[float]) -> float:
    """The smallest of m x p / (tests not larger) over the p-values from this one on."""
    return min(1.0, min(q * len(tested) / sum(r <= q for r in tested) for q in tested if q >= p))


@settings(max_examples=50, deadline=None)
@given(p_values)
def test_both_agree_with_their_definitions(values: list[float]) -> None:
    tested = [p for p in values if not math.isnan(p)]
    for found, longhand in ((holm(values), holm_longhand), (benjamini_hochberg(values), bh_longhand)):
        assert len(found) == len(values)
        for adjusted, p in zip(found, values, strict=True):
            if math.isnan(p):
                assert math.isnan(adjusted)
            else:
                assert adjusted == pytest.approx(longhand(p, tested), abs=1e-12)


def test_the_values_of_r() -> None:
    """p.adjust(c(.01, .02, .03, .04, .05), "holm") and "BH"."""
    p = [0.01, 0.02, 0.03, 0.04, 0.05]
    assert holm(p) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert benjamini_hochberg(p) == pytest.approx([0.05] * 5)
    assert holm([0.04, math.nan, 0.01]) == pytest.approx([0.04, math.nan, 0.02], nan_ok=True)


def test_nothing_and_nonsense() -> None:
    assert holm([]) == benjamini_hochberg([]) == []
    assert all(math.isnan(p) for p in holm([math.nan, math.nan]))
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([1.5])
