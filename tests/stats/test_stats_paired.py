"""Paired comparison: repeats averaged first, variants of a source too, missing pairs counted and left out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lem.stats import headline, paired_difference, per_probe, per_source, source_domains

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


def test_variants_are_paired_one_by_one_and_then_averaged_per_source() -> None:
    """A has both its pairs, B lost one of two, C lost all, D is a probe of its own."""
    sources = {"A~x": "A", "A~y": "A", "B~x": "B", "B~y": "B", "C~x": "C", "C~y": "C", "D": "D"}
    domains = {"A~x": "one", "A~y": "one", "B~x": "two", "B~y": "two", "C~x": "two", "C~y": "two", "D": "two"}
    treatment = {"A~x": 3.0, "A~y": 2.0, "B~x": 9.0, "B~y": 1.0, "C~x": 7.0, "D": -2.0}
    baseline = {"A~x": 1.0, "A~y": 2.5, "B~y": 1.25, "C~y": 5.0, "D": 0.0}
    found = paired_difference(treatment, baseline, domains, sources=sources, threshold=0.5)
    means = [(2.0 - 0.5) / 2, 1.0 - 1.25, -2.0]
    assert found.difference == headline(means, ["one", "two", "two"], n_unscored=1), "C is the source left out"
    assert found.n_missing == 3, "B~x, C~x and C~y have no partner"
    assert (found.improved, found.regressed, found.unchanged) == (1, 1, 1)
    assert found.difference.n == 3


def test_the_order_of_the_probes_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    values = {f"P{i:02d}~{kind}": float(rng.normal()) for i in range(8) for kind in "xyz"}
    sources = {probe: probe.split("~")[0] for probe in values}
    baseline = dict.fromkeys(values, 0.0)
    other = dict(sorted(values.items(), key=lambda item: item[1]))
    assert paired_difference(values, baseline, sources=sources) == paired_difference(other, baseline, sources=sources)


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(st.sampled_from([f"P{i}" for i in range(12)]), st.floats(-5, 5), max_size=10),
    st.dictionaries(st.sampled_from([f"P{i}" for i in range(12)]), st.floats(-5, 5), max_size=10),
)
def test_probes_that_are_their_own_source_give_the_same_bits(left: dict[str, float], right: dict[str, float]) -> None:
    domains = {f"P{i}": f"d{i % 3}" for i in range(12)}
    own = {probe: probe for probe in domains}
    shared, n_lost = sorted(set(left) & set(right)), len(set(left) ^ set(right))
    differences = [left[probe] - right[probe] for probe in shared]
    expected = headline(differences, [domains[probe] for probe in shared], n_unscored=n_lost)
    for sources in (None, {}, own):
        found = paired_difference(left, right, domains, sources=sources)
        assert repr(found.difference) == repr(expected), "repr, because NaN is not equal to itself"
        assert (found.improved, found.n_missing) == (sum(d > 0.5 for d in differences), n_lost)
    assert repr(per_source({**left, "P12": -0.0}, own)) == repr({**left, "P12": -0.0})
    assert source_domains(domains, own) == domains


def test_a_source_has_the_domain_of_its_probe_or_of_its_first_variant() -> None:
    sources = {"P1": "P1", "P1~x": "P1", "P2~y": "P2", "P2~x": "P2", "P3~x": "P3"}
    domains = {"P1~x": "other", "P1": "own", "P2~y": "later", "P2~x": "first"}
    assert source_domains(domains, sources) == {"P1": "own", "P2": "first"}
    assert per_source({"P1": 1.0, "P2~x": 4.0, "P1~x": 2.0, "Q": 7.0}, sources) == {"P1": 1.5, "P2": 4.0, "Q": 7.0}


def test_intervals_over_sources_cover_and_intervals_over_variants_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """30 sources, 3 variants each, correlation 0.9 inside a source: 90 variants say hardly more than 30 probes."""
    monkeypatch.setattr("lem.stats.estimate.N_RESAMPLES", 999)
    rng = np.random.default_rng(5)
    draws, truth = 400, 0.4
    probes = [f"P{i:02d}~{kind}" for i in range(30) for kind in "xyz"]
    sources = {probe: probe.split("~")[0] for probe in probes}
    baseline = dict.fromkeys(probes, 0.0)
    covered = naive = 0
    for _ in range(draws):
        values = truth + np.repeat(rng.normal(0, math.sqrt(0.9), 30), 3) + rng.normal(0, math.sqrt(0.1), 90)
        treatment = dict(zip(probes, values.tolist(), strict=True))
        merged = paired_difference(treatment, baseline, sources=sources).difference
        assert merged.value == pytest.approx(values.mean())
        assert merged.n == 30
        covered += not merged.excludes(truth)
        naive += not paired_difference(treatment, baseline).difference.excludes(truth)
    assert 0.91 * draws <= covered <= 0.98 * draws, covered
    assert naive <= 0.80 * draws, naive
