"""Comparisons: the numbers against longhand, the families, the verdicts, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sps

from lem.ab.compare import Comparison, Declared, Options, compare
from lem.ab.join import join_runs
from lem.errors import UserError
from lem.records import RunContents
from made_runs import DECODED, judged, made_run

RNG = np.random.default_rng(7)


def only(comparison: Comparison, treatment: str = "kernel", baseline: str = "base") -> Any:
    """The one contrast between these arms, with its verdict."""
    pairs = zip(comparison.contrasts, comparison.verdicts, strict=True)
    ((found, said),) = [p for p in pairs if (p[0].treatment, p[0].baseline) == (treatment, baseline)]
    return found, said


def two_arms(difference: float, n: int = 40, noise: float = 1.0, **more: Any) -> RunContents:
    base = RNG.normal(10, 2, n)
    return made_run({"base": list(base), "kernel": list(base + difference + RNG.normal(0, noise, n))}, **more)


def test_the_difference_is_that_of_the_means_per_probe() -> None:
    run = made_run({"base": [[1, 3], [4, 4], [0, 0]], "kernel": [[2, 4], [4, 10], [0, 3]]})
    found, _ = only(compare(run))
    longhand = [(2 + 4) / 2 - (1 + 3) / 2, (4 + 10) / 2 - 4, 1.5]
    assert found.difference.value == pytest.approx(np.mean(longhand))
    assert found.n == 3
    assert (found.improved, found.regressed, found.unchanged) == (3, 0, 0)
    assert found.fixed_set is not None


def test_the_p_of_a_verdict_is_the_larger_of_the_two_tests() -> None:
    domains = [f"d{i % 4}" for i in range(40)]
    found, _ = only(compare(two_arms(0.4, domains=domains)))
    changes = np.array([change.difference for change in found.changes])
    groups = [changes[[d == f"d{k}" for d in domains]] for k in range(4)]
    sums = np.array([np.sum(group - changes.mean()) for group in groups])
    stderr = math.sqrt(np.sum(sums**2 / (1 - np.array([len(g) for g in groups]) / 40))) / 40
    clustered = 2 * sps.t.sf(abs(changes.mean() / stderr), 3)
    assert found.cluster_t.p == pytest.approx(clustered, rel=1e-9)
    assert found.p == max(found.cluster_t.p, found.sign_flip.p)


def test_variants_of_a_source_are_one_observation() -> None:
    run = made_run({"base": [1, 1, 5, 7], "kernel": [3, 5, 5, 8]}, sources=["A", "A", "B", "C"])
    found, _ = only(compare(run))
    assert {change.probe_id: change.difference for change in found.changes} == {"A": 3.0, "B": 0.0, "C": 1.0}
    assert found.n == 3


def test_a_clear_change_is_improved_or_worse_and_its_direction_can_be_turned() -> None:
    up, down = two_arms(3.0), two_arms(-3.0)
    assert only(compare(up))[1].code == "improved"
    assert only(compare(down))[1].code == "worse"
    assert only(compare(down, Options(lower_is_better=("v3",))))[1].code == "improved"
    found, said = only(compare(up))
    assert f"improved by {found.difference.value:+.2f} [{found.difference.low:+.2f}, {found.difference.high:+.2f}]" in (
        said.sentence
    )


def test_no_detectable_effect_names_what_would_have_been_seen() -> None:
    found, said = only(compare(two_arms(0.0, noise=2.0)))
    assert said.code == "undetected"
    sd = np.std([change.difference for change in found.changes], ddof=1)
    assert found.mde == pytest.approx((sps.norm.ppf(0.975) + sps.norm.ppf(0.8)) * sd / math.sqrt(40), rel=0.06)
    assert f"{found.mde:.2f} would have been seen with 80% power" in said.sentence


def test_a_margin_has_to_be_declared_to_be_shown() -> None:
    run = two_arms(0.1, noise=0.6)
    assert only(compare(run, declared=Declared(margins={"v3": 1.0})))[1].code == "equivalent"
    found, said = only(compare(run))
    assert (found.equivalence, said.code) == (None, "undetected")
    wide = two_arms(0.5, noise=2.0, n=60)
    found, said = only(compare(wide, declared=Declared(margins={"v3": 0.6}, primary=(("v3", "kernel"),))))
    assert found.non_inferiority is not None
    assert (said.code == "no_worse") == (found.non_inferiority.passed and not found.equivalence.passed)


def test_families_are_corrected_apart_and_say_how_many_tests() -> None:
    base = list(RNG.normal(0, 1, 30))
    values = {"base": base, **{f"k{i}": list(RNG.normal(0.3, 1, 30)) for i in range(4)}}
    comparison = compare(made_run(values), declared=Declared(primary=(("v3", "k1"),)))
    by_arm = {found.treatment: found for found in comparison.contrasts}
    assert (comparison.n_primary, comparison.n_exploratory) == (1, 3)
    assert by_arm["k1"].p_holm == by_arm["k1"].p
    others = sorted((by_arm[f"k{i}"].p, f"k{i}") for i in (0, 2, 3))
    longhand = [min(1.0, min(p * 3 / (j + 1) for j, (p, _) in list(enumerate(others))[i:])) for i in range(3)]
    assert [by_arm[name].p_bh for _, name in others] == pytest.approx(longhand)
    undeclared = compare(made_run(values))
    assert (undeclared.n_primary, undeclared.n_exploratory) == (4, 0)
    assert "Holm over 4" in undeclared.verdicts[0].sentence


def test_excluded_probes_do_not_exist() -> None:
    run = made_run({"base": [0, 0, 0, 0], "kernel": [1, 1, 1, 100]})
    found, _ = only(compare(run, declared=Declared(exclusions={"P003": "broken prompt"})))
    assert (found.n, found.difference.value) == (3, 1.0)


def test_wrong_unscored_failed_and_missing_are_counted_apart() -> None:
    run = made_run({"base": [1, 0, 1, 1, 0], "kernel": [1, 0, None, "failed", "missing"]}, scorer="gsm8k")
    found, _ = only(compare(run))
    kernel = found.counts["kernel"]
    assert (kernel.scored, kernel.unscored, kernel.failed, kernel.missing, kernel.wrong) == (2, 1, 1, 1, 1)
    assert (found.n, found.n_missing, found.kind) == (2, 3, "binary")
    codes = {objection.code for objection in compare(run).objections}
    assert {"missing", "unscored"} <= codes


def test_unscored_ratings_are_bounded_by_the_ends_of_the_scale() -> None:
    run = judged(made_run({"base": [0] * 4, "kernel": [0] * 4}), "safety", {
        "base": [5.0, 5.0, 5.0, None], "kernel": [6.0, 6.0, None, 7.0],
    })  # fmt: skip
    comparison = compare(run, Options(metrics=("safety",)))
    found, _ = only(comparison)
    assert found.difference.value == 1.0
    # worst: the treatment's missing rating is 1 and the baseline's 10; best: 10 and 1
    assert found.bounds == pytest.approx(((1 + 1 + (1 - 5) + (7 - 10)) / 4, (1 + 1 + (10 - 5) + (7 - 1)) / 4))
    assert found.kind == "ordinal"
    assert found.wilcoxon is not None
    assert found.cliffs_delta is not None


def test_the_probes_that_moved_most_are_listed_for_better_and_worse() -> None:
    run = made_run({"base": [0] * 30, "kernel": [*range(-15, 0), *range(1, 16)]})
    found, _ = only(compare(run))
    assert [change.difference for change in found.listed(best=True)] == list(range(15, 5, -1))
    assert [change.difference for change in found.listed(best=False)] == list(range(-15, -5))


def test_a_placebo_is_a_second_baseline_and_silences_the_note() -> None:
    arms = {"json": {"kernel": "axioms.json"}, "placebo-json": {"kernel": "placebo.json"}}
    column = list(RNG.normal(0, 1, 20))
    alone = compare(made_run({"base": column, "json": column}, arms=arms))
    assert "no-placebo" in {objection.code for objection in alone.objections}
    both = compare(made_run({"base": column, "json": column, "placebo-json": column}, arms=arms))
    assert "no-placebo" not in {objection.code for objection in both.objections}
    assert ("json", "placebo-json") in {(found.treatment, found.baseline) for found in both.contrasts}


@pytest.mark.parametrize(
    ("facts", "other", "code"),
    [
        ({"bits": 4}, {"bits": 16}, "bits"),
        ({"identity": {"dtype": "float32"}}, {"identity": {"dtype": "bfloat16"}}, "dtype"),
    ],
)
def test_unlike_arms_are_refused_or_watermarked(facts: dict[str, Any], other: dict[str, Any], code: str) -> None:
    run = two_arms(3.0, arms={"base": facts, "kernel": other})
    comparison = compare(run)
    assert [(o.code, o.severity) for o in comparison.objections] == [(code, "refusal")]
    assert only(comparison)[1].code == "refused"
    assert comparison.refused
    anyway = compare(run, Options(anyway=True))
    assert [(o.code, o.severity, o.overridden) for o in anyway.objections] == [(code, "refusal", True)]
    assert only(anyway)[1].code == "improved"
    assert "(not comparable, printed anyway)" in only(anyway)[1].sentence


def test_other_decoding_is_refused_across_runs_and_unknown_decoding_is_said() -> None:
    first = made_run({"base": [1, 2, 3]}, name="one")
    other = made_run({"kernel": [1, 2, 4]}, name="two", settings={**DECODED, "temperature": 0.0})
    comparison = compare(join_runs([("one", first), ("two", other)]))
    assert [o.code for o in comparison.objections if o.severity == "refusal"] == ["decoding"]
    assert "temperature 0.7 and 0" in comparison.objections[0].sentence
    unknown = made_run({"kernel": [1, 2, 4]}, name="two", settings={})
    joined = compare(join_runs([("one", first), ("two", unknown)]))
    assert [o.code for o in joined.objections] == ["decoding-unknown"]


def test_runs_are_joined_by_probe_and_arms_of_one_name_kept_apart() -> None:
    first = made_run({"base": [1, 2, 3], "json": [2, 3, 4]}, name="one")
    second = made_run({"base": [5, 5, 5]}, name="two")
    joined = join_runs([("one", first), ("two", second)])
    assert list(joined.info.arms) == ["one:base", "json", "two"]
    comparison = compare(joined, Options(baseline="one:base"))
    assert {found.treatment: found.difference.value for found in comparison.contrasts} == {"json": 1.0, "two": 3.0}


def test_another_text_under_the_same_id_is_refused() -> None:
    first, second = made_run({"base": [1, 2]}), made_run({"kernel": [1, 2]}, prompts=["q 0", "another"])
    with pytest.raises(UserError, match="P001 has another text in b than in a"):
        join_runs([("a", first), ("b", second)])


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (made_run({"base": [1, 2]}), "needs two arms"),
        (made_run({"base": [1, 2], "kernel": ["missing", "missing"]}), "arm 'kernel' has no answer"),
        (made_run({"base": [1, 2], "kernel": ["failed", "failed"]}), "arm 'kernel' has no answer"),
        (made_run({"base": [1, 2], "kernel": [1, 2]}, ids=["p1", "P1"]), "differ only in case"),
        (made_run({"a": [1, 2], "b": [1, 2], "c": [1, 2]}), "there is no arm 'base'"),
    ],
)
def test_what_cannot_be_compared_is_a_sentence(run: RunContents, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare(run)


def test_one_probe_is_no_finding() -> None:
    found, said = only(compare(made_run({"base": [1], "kernel": [9]})))
    assert said.code == "refused"
    assert "only one probe has a value in both arms" in said.sentence
    assert math.isnan(found.difference.low)


def test_all_equal_scores_are_no_change_at_all() -> None:
    _, said = only(compare(made_run({"base": [2] * 9, "kernel": [2] * 9})))
    assert said.code == "undetected"
    assert "every one of 9 differences is 0" in said.sentence


def test_nothing_scored_in_common_is_refused() -> None:
    found, said = only(compare(made_run({"base": [1, None], "kernel": [None, 1]})))
    assert (found.n, said.code) == (0, "refused")


def test_length_is_held_constant_beside_the_raw_effect() -> None:
    n = 60
    words = {"base": [50] * n, "kernel": [50 + 3 * (i % 11) for i in range(n)]}
    gain = [(w - 50) * 0.2 + e for w, e in zip(words["kernel"], RNG.normal(0, 0.3, n), strict=True)]
    found, said = only(compare(made_run({"base": [0] * n, "kernel": gain}, words=words)))
    assert found.length is not None
    assert abs(found.length.effect.value) < 0.4
    assert found.length.slope.value == pytest.approx(0.2, abs=0.03)
    assert said.code == "improved"
    assert "At equal length" in said.sentence


@settings(max_examples=40, deadline=None)
@given(
    base=st.lists(st.sampled_from([None, "failed", "missing", 0.0, 1.0, 2.5]), min_size=2, max_size=12),
    data=st.data(),
)
def test_counts_always_add_up_and_nothing_is_invented(base: list[Any], data: Any) -> None:
    kernel = data.draw(
        st.lists(st.sampled_from([None, "failed", "missing", 0.0, 1.0, 2.5]), min_size=len(base), max_size=len(base))
    )
    run = made_run({"base": base, "kernel": kernel})
    if not any(isinstance(value, float) or value is None for value in base) or not any(
        isinstance(value, float) or value is None for value in kernel
    ):
        with pytest.raises(UserError, match="has no answer"):
            compare(run)
        return
    comparison = compare(run)
    found, said = only(comparison)
    for counts in found.counts.values():
        assert counts.scored + counts.unscored + counts.failed + counts.missing == len(base)
    both = [(b, k) for b, k in zip(base, kernel, strict=True) if isinstance(b, float) and isinstance(k, float)]
    assert found.n == len(both)
    if len(both) >= 2:
        assert found.difference.value == pytest.approx(np.mean([k - b for b, k in both]))
    else:
        assert said.code == "refused"
