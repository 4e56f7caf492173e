"""Paired comparison: repeats averaged first, one difference per probe, missing pairs counted and left out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lem.stats import headline, paired_difference, per_probe

values = st.one_of(st.none(), st.floats(-10, 10), st.just(math.nan))


@given(st.lists(st.tuples(st.sampled_from(["P01", "P02", "P03", "P04"]), values), max_size=20))
def test_a_probe_is_the_mean_of_its_scored_repeats(rows: list[tuple[str, float | None]]) -> None:
    found = per_probe(rows)
    for probe in ("P01", "P02", "P03", "P04"):
        scored = [v for p, v in rows if p == probe and v is not None and v == v]
        assert (probe in found) == bool(scored)
        if scored:
            assert found[probe] == pytest.approx(np.mean(scored))


def test_repeats_are_averaged_before_the_difference() -> None:
    """A probe with many repeats weighs no more than one with a single repeat."""
    treatment = per_probe([("P01", 10.0)] * 9 + [("P02", 0.0)])
    baseline = per_probe([("P01", 0.0), ("P02", 0.0), ("P02", 4.0)])
    found = paired_difference(treatment, baseline)
    assert found.difference.value == pytest.approx((10.0 - 0.0 + 0.0 - 2.0) / 2)
    assert found.difference.n == 2


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(st.integers(0, 12), st.floats(-5, 5), max_size=10),
    st.dictionaries(st.integers(0, 12), st.floats(-5, 5), max_size=10),
    st.floats(0, 2),
)
def test_counts_and_mean_are_those_of_the_shared_probes(
    left: dict[int, float], right: dict[int, float], threshold: float
) -> None:
    found = paired_difference(
        {str(k): v for k, v in left.items()}, {str(k): v for k, v in right.items()}, threshold=threshold
    )
    differences = np.asarray([left[k] - right[k] for k in left if k in right])
    assert found.difference.n == len(differences)
    assert found.improved == (differences > threshold).sum()
    assert found.regressed == (differences < -threshold).sum()
    assert found.improved + found.regressed + found.unchanged == len(differences)
    assert found.n_missing == found.difference.n_unscored == len(left) + len(right) - 2 * len(differences)
    if len(differences):
        assert found.difference.value == pytest.approx(differences.mean(), abs=1e-12)
    else:
        assert math.isnan(found.difference.value)


def test_domains_are_the_clusters() -> None:
    probes = [f"P{i:02d}" for i in range(12)]
    domain = {probe: f"d{i % 3}" for i, probe in enumerate(probes)}
    treatment = {probe: float(i % 3) + 0.01 * i for i, probe in enumerate(probes)}
    baseline = dict.fromkeys(probes, 0.0)
    found = paired_difference(treatment, baseline, domain)
    expected = headline([treatment[p] for p in probes], [domain[p] for p in probes])
    assert found.difference == expected
    assert found.difference.n_clusters == 3
    assert found.difference.method == "cr2-t", "the domains differ far more than the probes inside them"
    some = paired_difference(treatment, baseline, {probe: domain[probe] for probe in probes[:6]})
    assert some.difference.n_clusters == 4, "probes without a domain are one cluster of their own"
    assert paired_difference(treatment, baseline).difference.n_clusters is None


def test_one_shared_probe_has_a_value_and_no_interval() -> None:
    found = paired_difference({"a": 2.0, "b": 1.0}, {"a": 1.0, "c": 1.0})
    assert found.difference.value == 1.0
    assert math.isnan(found.difference.low)
    assert (found.improved, found.n_missing) == (1, 2)
