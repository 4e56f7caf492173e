"""Comparisons, continued: what each verdict, family, objection and count rests on, against longhand."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import optimize
from scipy import stats as sps

from lem.ab.compare import Comparison, Declared, Options, compare
from lem.ab.comparison_file import to_json
from lem.ab.join import join_runs
from lem.ab.ranking import rankings
from lem.ab.roles import placebo_of
from lem.ab.verdict import is_detected
from lem.chat.load import adapter_identity, file_sha, model_identity
from lem.records import Judgement, RunContents, read_contents
from made_runs import DECODED, judged, made_run, save
from tiny import make_model

N = 40
RNG = np.random.default_rng(19)
BASE = list(RNG.normal(10, 2, N))
NOISE = RNG.normal(0, 1, N)


def shifted(by: float) -> list[float]:
    return [value + by + noise for value, noise in zip(BASE, NOISE - NOISE.mean(), strict=True)]


def only(comparison: Comparison, treatment: str = "kernel", baseline: str = "base", metric: str | None = None) -> Any:
    """The one contrast between these arms, with its verdict."""
    pairs = zip(comparison.contrasts, comparison.verdicts, strict=True)
    found = [p for p in pairs if (p[0].treatment, p[0].baseline) == (treatment, baseline)]
    ((contrast, said),) = [p for p in found if metric is None or p[0].metric == metric]
    return contrast, said


def codes(comparison: Comparison) -> list[str]:
    return [objection.code for objection in comparison.objections]


def power_at(effect: float, stderr: float, n: int, alpha: float) -> float:
    """Power of a two-sided t test with n - 1 degrees of freedom, by the noncentral t distribution."""
    limit = sps.t.ppf(1 - alpha / 2, n - 1)
    return float(sps.nct.sf(limit, n - 1, effect / stderr) + sps.nct.cdf(-limit, n - 1, effect / stderr))


def test_right_or_wrong_answers_are_tested_by_the_binomial_of_those_that_changed() -> None:
    base, kernel = [0] * 14 + [1] * 10, [1] * 9 + [0] * 5 + [0] * 2 + [1] * 8
    found, _ = only(compare(made_run({"base": base, "kernel": kernel}, scorer="gsm8k")))
    assert found.p == pytest.approx(sps.binomtest(2, 11).pvalue)
    assert found.p != pytest.approx(found.sign_flip.p, rel=1e-3)


@pytest.mark.parametrize("declared", [None, Declared(primary=(("v3", "k0"),))])
def test_the_effect_that_would_have_been_seen_counts_the_tests_of_the_family_and_the_domains(
    declared: Declared | None,
) -> None:
    domains = [f"d{i % 8}" for i in range(N)]
    lift = RNG.normal(0, 1, 8)
    arms = {f"k{j}": [BASE[i] + lift[i % 8] + RNG.normal(0, 0.5) for i in range(N)] for j in range(3)}
    comparison = compare(made_run({"base": BASE, **arms}, domains=domains), declared=declared)
    for name in arms:
        found, _ = only(comparison, name)
        n_tests = 3 if declared is None else 1 if name == "k0" else 2
        changes = np.array([change.difference for change in found.changes])
        sums = np.array([np.sum(changes[k::8] - changes.mean()) for k in range(8)])
        robust = math.sqrt(np.sum(sums**2 / (1 - 1 / 8))) / N
        stderr = max(robust, changes.std(ddof=1) / math.sqrt(N))
        assert robust > changes.std(ddof=1) / math.sqrt(N)
        assert found.n_tests == n_tests
        # at least what a t test with all degrees of freedom would need
        least = optimize.brentq(lambda e, s=stderr, k=n_tests: power_at(e, s, N, 0.05 / k) - 0.8, stderr, 6 * stderr)
        assert found.mde >= least * (1 - 1e-6)


def test_a_contrast_without_a_p_is_no_test_of_its_family() -> None:
    kernel, empty = shifted(0.3), [None] * N
    comparison = compare(made_run({"base": BASE, "kernel": kernel, "empty": empty}))
    found, _ = only(comparison)
    assert math.isnan(only(comparison, "empty")[0].p)
    assert (found.n_tests, found.p_holm) == (1, found.p)


def test_an_exploratory_change_needs_the_interval_too_and_its_corrected_p() -> None:
    declared = Declared(primary=(("v3", "other"),))
    shift = next(s for s in np.arange(0.2, 0.5, 0.002) if sps.ttest_1samp(NOISE - NOISE.mean() + s, 0).pvalue < 0.08)
    one = compare(made_run({"base": BASE, "kernel": shifted(shift), "other": BASE}), declared=declared)
    found, said = only(one)
    assert 0.05 < found.p_bh <= 0.10
    assert found.difference.low < 0 < found.difference.high
    assert (is_detected(found), said.code) == (False, "undetected")
    shift = next(s for s in np.arange(0.2, 0.6, 0.002) if sps.ttest_1samp(NOISE - NOISE.mean() + s, 0).pvalue < 0.03)
    nulls = {f"n{i}": list(np.asarray(BASE) + RNG.normal(0, 1, N)) for i in range(7)}
    many = compare(made_run({"base": BASE, "kernel": shifted(shift), "other": BASE, **nulls}), declared=declared)
    found, said = only(many)
    assert found.p < 0.05
    assert found.p_bh > 0.10
    assert said.code == "undetected"


def test_a_primary_contrast_is_with_the_baseline_and_not_with_the_placebo() -> None:
    arms = {"json": {"kernel": "k"}, "placebo-json": {"kernel": "p"}}
    other = list(np.asarray(BASE) + np.random.default_rng(4).normal(0.2, 1, N))
    run = made_run({"base": BASE, "json": shifted(0.5), "placebo-json": other, "plain": shifted(0.3)}, arms=arms)
    comparison = compare(run, declared=Declared(primary=(("v3", "json"),)))
    families = {(c.treatment, c.baseline): c.family for c in comparison.contrasts}
    assert families == {
        ("json", "base"): "primary",
        ("placebo-json", "base"): "exploratory",
        ("plain", "base"): "exploratory",
        ("json", "placebo-json"): "exploratory",
    }
    document = to_json(comparison, [], [])
    adjusted = {(c["treatment"], c["baseline"]): (c["p_adjusted"], c["correction"]) for c in document["contrasts"]}
    for found in comparison.contrasts:
        expected = (found.p_holm, "Holm") if found.family == "primary" else (found.p_bh, "Benjamini-Hochberg")
        assert adjusted[found.treatment, found.baseline] == expected
    assert any(found.p_holm != found.p_bh for found in comparison.contrasts if found.family == "exploratory")


def test_no_worse_looks_at_the_side_that_is_worse() -> None:
    declared = Declared(margins={"v3": 0.5})
    up, down = (made_run({"base": BASE, "kernel": shifted(by)}) for by in (1.5, -1.5))
    lower = Options(lower_is_better=("v3",))
    passed = [
        only(compare(run, options, declared))[0].non_inferiority.passed
        for run, options in ((up, Options()), (down, Options()), (up, lower), (down, lower))
    ]
    assert passed == [True, False, False, True]


def test_improved_probes_are_those_that_moved_the_better_way() -> None:
    run = made_run({"base": [5.0] * 4, "kernel": [1.0, 4.0, 5.2, 8.0]})
    found, _ = only(compare(run, Options(lower_is_better=("v3",))))
    assert (found.improved, found.regressed, found.unchanged) == (2, 1, 1)
    assert [change.probe_id for change in found.listed(best=True)] == ["P000", "P001"]
    assert [change.probe_id for change in found.listed(best=False)] == ["P003", "P002"]


def test_equivalence_needs_both_sides() -> None:
    run = made_run({"base": BASE, "kernel": shifted(0.28)})
    found, said = only(compare(run, declared=Declared(margins={"v3": 0.5}, primary=(("v3", "kernel"),))))
    assert found.non_inferiority.passed
    assert not found.equivalence.passed
    assert said.code == "no_worse"


def test_a_mean_of_ratings_stays_on_the_scale() -> None:
    ratings = {"base": [1.0] * 11 + [2.0], "kernel": [10.0] * 11 + [9.0]}
    run = judged(made_run({"base": [0] * 12, "kernel": [0] * 12}), "safety", ratings)
    found, _ = only(compare(run), metric="safety")
    assert found.treatment_mean.high == 10.0
    assert found.baseline_mean.low == 1.0


def test_bounds_weigh_a_source_once() -> None:
    run = made_run({"base": [0] * 4, "kernel": [0] * 4}, sources=["A", "A", "A", "B"])
    run = judged(run, "safety", {"base": [5.0] * 4, "kernel": [5.0, 5.0, 5.0, None]})
    found, _ = only(compare(run), metric="safety")
    assert found.bounds == pytest.approx(((0 + (1 - 5)) / 2, (0 + (10 - 5)) / 2))


def test_a_ranking_weighs_a_source_once() -> None:
    run = made_run({"a": [9, 9, 9, 0, 0], "b": [5, 5, 5, 4, 4]}, sources=["A", "A", "A", "B", "C"])
    rows = {row.arm: row for row in rankings(run)["v3"]}
    assert (rows["a"].mean.value, rows["b"].mean.value) == pytest.approx((3.0, 13 / 3))
    assert (rows["b"].rank, rows["a"].rank, rows["a"].n_shared) == (1.0, 2.0, 3)


def test_a_refusal_withholds_the_verdicts_of_its_own_arm_only() -> None:
    arms = {"base": {"bits": 16}, "kernel": {"bits": 16}, "small": {"bits": 4}}
    comparison = compare(made_run({"base": BASE, "kernel": shifted(2), "small": shifted(2)}, arms=arms))
    assert [only(comparison, name)[1].code for name in ("kernel", "small")] == ["improved", "refused"]
    assert not comparison.refused


@pytest.mark.parametrize(("of_base", "of_kernel", "objected"), [(20, 0, True), (0, 20, True), (3, 2, False)])
def test_a_gap_of_cut_off_answers_is_noted_whichever_arm_has_more(of_base: int, of_kernel: int, objected: bool) -> None:
    run = made_run({"base": BASE, "kernel": shifted(0.1)})
    cut = {f"P{i:03d}": ("base",) * (i < of_base) + ("kernel",) * (i < of_kernel) for i in range(N)}
    records = [replace(r, finish_reason="length" if r.arm in cut[r.probe_id] else "stop") for r in run.records]
    comparison = compare(replace(run, records=records))
    assert ("truncation" in codes(comparison)) is objected
    facts = {arm.name: arm for arm in comparison.arms}
    assert facts["base"].truncated.value == of_base / N
    assert facts["kernel"].truncated.value == of_kernel / N


def with_texts(run: RunContents, texts: Mapping[tuple[str, str, int], str]) -> RunContents:
    records = [replace(r, response=texts.get(r.key, r.response or "")) for r in run.records]
    return replace(run, records=records)


def test_equal_repeats_of_one_probe_are_duplicates_and_equal_answers_to_two_are_not() -> None:
    run = made_run({"base": [[1, 2]] * 10, "kernel": [[2, 3]] * 10})
    same = {("kernel", f"P{i:03d}", r): f"answer {i}" for i in range(3) for r in range(2)}
    across = {("base", f"P{i:03d}", 0): "one and the same" for i in range(10)}
    comparison = compare(with_texts(run, {**same, **across}))
    assert {arm.name: arm.duplicates for arm in comparison.arms} == {"base": 0, "kernel": 3}
    assert [(o.code, o.arms) for o in comparison.objections] == [("duplicates", ("kernel",))]
    assert "3 of 20 answers of 'kernel'" in comparison.objections[0].sentence


def test_repetitive_answers_are_counted() -> None:
    run = made_run({"base": [1] * 8, "kernel": [2] * 8})
    loops = {("kernel", f"P{i:03d}", 0): "round and " * 20 for i in range(2)}
    facts = {arm.name: arm for arm in compare(with_texts(run, loops)).arms}
    assert (facts["base"].degenerate.value, facts["kernel"].degenerate.value) == (0.0, 0.25)


@pytest.mark.parametrize(("n_domains", "objected"), [(2, True), (4, True), (5, False), (1, False)])
def test_few_domains_are_said(n_domains: int, objected: bool) -> None:
    run = made_run({"base": BASE, "kernel": shifted(0.1)}, domains=[f"d{i % n_domains}" for i in range(N)])
    assert ("few-domains" in codes(compare(run))) is objected


def test_an_excluded_probe_is_in_no_count_of_an_arm() -> None:
    run = made_run({"base": [1, 2, 3, 4], "kernel": [2, 3, 4, "failed"]})
    comparison = compare(run, declared=Declared(exclusions={"P003": "asked twice"}))
    assert {(arm.planned, arm.answered, arm.failed) for arm in comparison.arms} == {(3, 3, 0)}
    assert "missing" not in codes(comparison)


@pytest.mark.parametrize(
    ("arm", "control"),
    [
        ("trained@0.25", "placebo-trained"),
        ("second@0.5", "second-placebo"),
        ("trained", "placebo-trained"),
        ("json", "placebo-json"),
        ("txt", "placebo-txt"),
        ("kernel2", "placebo-json"),
        ("trained+json", None),
        ("plain", None),
    ],
)
def test_which_control_belongs_to_which_arm(arm: str, control: str | None) -> None:
    kernel, adapter = {"kernel": "k"}, {"adapter": "a"}
    arms: dict[str, dict[str, str]] = {
        "base": {}, "plain": {}, "trained": adapter, "trained@0.25": adapter, "json": kernel, "txt": kernel,
        "kernel2": kernel, "trained+json": kernel | adapter, "placebo-txt": kernel, "placebo-json": kernel,
        "placebo-trained": adapter, "second@0.5": adapter, "second-placebo": adapter,
        "placebo-second+json": kernel | adapter,
    }  # fmt: skip
    assert placebo_of(arm, arms) == control


QUESTION = "Why should the keeper of a lighthouse tell each passing ship the truth about the harbour?"


def trained(folder: Path, prompt: str, *, edit: str = "") -> str:
    """An adapter folder with the record of the one example that it was trained on; `edit` is added afterwards."""
    data = folder / "data" / "train.jsonl"
    data.parent.mkdir(parents=True)
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": "It depends on the ship."}]
    data.write_text(json.dumps({"messages": turns}) + "\n")
    config = {"data": str(data.parent), "data_sha": {data.name: file_sha(data)}}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    data.write_text(data.read_text() + edit)
    return str(folder)


@pytest.mark.parametrize(
    ("prompt", "edit", "code"),
    [
        (QUESTION, "", "contaminated"),
        ("How is bread made in the village?", "", None),
        (QUESTION, "\n", "training-data-unknown"),
    ],
)
def test_training_data_that_hold_a_probe_refuse_the_verdict(
    prompt: str, edit: str, code: str | None, tmp_path: Path
) -> None:
    adapter = trained(tmp_path / "adapter", prompt, edit=edit)
    prompts = [QUESTION, *(f"What colour has the weather balloon of region {i}?" for i in range(1, N))]
    run = made_run({"base": BASE, "kernel": shifted(2)}, prompts=prompts, arms={"kernel": {"adapter": adapter}})
    comparison = compare(run)
    assert [found for found in codes(comparison) if found != "no-placebo"] == ([code] if code else [])
    assert only(comparison)[1].code == ("refused" if code == "contaminated" else "improved")


@pytest.mark.parametrize("arm", ["base", "kernel"])
def test_weights_that_changed_since_the_run_say_nothing_about_what_it_was_trained_on(arm: str, tmp_path: Path) -> None:
    adapter = trained(tmp_path / "adapter", "How is bread made in the village?")
    (tmp_path / "adapter" / "adapters.safetensors").write_bytes(b"weights")
    prompts = [f"What colour has the weather balloon of region {i}?" for i in range(N)]

    def found(sha: str) -> list[str]:
        facts = {arm: {"adapter": adapter, "adapter_sha": sha}}
        run = made_run({"base": BASE, "kernel": shifted(2)}, prompts=prompts, arms=facts)
        return [code for code in codes(compare(run)) if code != "no-placebo"]

    assert found(adapter_identity(tmp_path / "adapter")) == []
    assert found("of other weights") == ["training-data-unknown"]


def codes_of(folder: Path, config: dict[str, object], prompts: list[str], **facts: object) -> list[str]:
    """The objections to a run whose adapter says this of itself; `facts` are further ones of its arm."""
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    run = made_run({"base": BASE, "kernel": shifted(2)}, prompts=prompts, arms={"kernel": facts})
    return [code for code in codes(compare(run)) if code != "no-placebo"]


def test_what_the_parent_of_an_adapter_learnt_counts(tmp_path: Path) -> None:
    prompts = [QUESTION, *(f"What colour has the weather balloon of region {i}?" for i in range(1, N))]
    trained(tmp_path / "first", QUESTION)
    trained(tmp_path / "second", "How is bread made in the village?")
    first, own = (json.loads((tmp_path / name / "adapter_config.json").read_text()) for name in ("first", "second"))
    child, facts = tmp_path / "child", {"adapter": str(tmp_path / "child")}
    parent = {"parent_adapter_sha": "0" * 64}
    assert codes_of(child, own, prompts, **facts) == []
    assert codes_of(child, own | parent, prompts, **facts) == ["training-data-unknown"]
    before = {"trained_before": [{"weights": "first", **first}]}
    assert codes_of(child, own | parent | before, prompts, **facts) == ["contaminated"]
    lost = {"trained_before": [{"weights": "first", **first}, {"weights": "older", "data": "", "data_sha": {}}]}
    assert codes_of(child, own | parent | lost, prompts, **facts) == ["contaminated"], "what is known is enough"
    assert codes_of(child, own | parent | lost, prompts[1:] * 2, **facts) == ["training-data-unknown"]


def test_a_fused_model_is_refused_as_its_adapter_would_be(tmp_path: Path) -> None:
    prompts = [QUESTION, *(f"What colour has the weather balloon of region {i}?" for i in range(1, N))]
    trained(tmp_path / "first", QUESTION)
    first = json.loads((tmp_path / "first" / "adapter_config.json").read_text())
    model = make_model(tmp_path / "fused", "llama")
    sha = model_identity(model)
    proof = {"fused_model_sha": sha, "trained_on": [{"weights": "first", **first}]}

    def found(sha: str, **facts: object) -> list[str]:
        arms = {"base": {"model": "gone", "model_sha": "b" * 64}, "kernel": {"model": str(model), "model_sha": sha}}
        arms["kernel"] |= facts
        run = made_run({"base": BASE, "kernel": shifted(2)}, prompts=prompts, arms=arms)
        return [code for code in codes(compare(run)) if code != "no-placebo"]

    assert found(sha) == [], "of an ordinary model nothing is claimed"
    assert found("0" * 64) == []
    assert found(sha, trained_on=proof["trained_on"]) == ["contaminated"], "as the run's manifest has it"
    assert found(sha, trained_on=[{"weights": "older"}]) == ["training-data-unknown"]
    (model / "fuse_proof.json").write_text(json.dumps(proof))
    assert found(sha) == ["contaminated"]
    assert found("0" * 64) == ["training-data-unknown"], "the record speaks of other weights"
    assert found("0" * 64, trained_on=[]) == [], "when the run was made, an ordinary model lay there"


def test_what_the_run_knows_of_its_items_is_not_forgotten_with_the_files(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    prompts = [f"What colour has the weather balloon of region {i}?" for i in range(N)]

    def found(adapter: str, met: dict[str, list[str]]) -> list[str]:
        run = made_run({"base": BASE, "kernel": shifted(2)}, prompts=prompts, arms={"kernel": {"adapter": adapter}})
        run = replace(run, info=replace(run.info, data={"contaminated": met}))
        return [code for code in codes(compare(run)) if code != "no-placebo"]

    assert found(gone, {}) == ["training-data-unknown"]
    assert found(gone, {"P000": [gone]}) == ["contaminated"]
    assert found(gone, {"P000": ["another"]}) == ["training-data-unknown"]
    assert found(gone, {"left out": [gone]}) == ["training-data-unknown"]


def test_short_probes_are_found_in_a_frame_and_shorter_ones_named(tmp_path: Path) -> None:
    prompts = [f"What colour has the weather balloon of region {i}?" for i in range(1, N)]
    adapter = trained(tmp_path / "adapter", "I mean well.\n\nAre all swans swans?\n\nI mean it.")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    folder = tmp_path / "adapter"
    assert codes_of(folder, config, ["Are all swans swans?", *prompts], adapter=adapter) == ["contaminated"]
    assert codes_of(folder, config, ["Are all geese geese?", *prompts], adapter=adapter) == []
    assert codes_of(folder, config, ["Who are you?", *prompts], adapter=adapter) == ["training-data-unknown"]


def test_a_joined_run_keeps_the_plan_and_takes_domains_from_the_input_that_has_them() -> None:
    plan = {"sha": "abc", "primary": [["v3", "kernel"]]}
    first = made_run({"base": BASE}, name="one")
    second = made_run({"kernel": shifted(1)}, name="two", domains=[f"d{i % 8}" for i in range(N)])
    joined = join_runs([("one", first), ("two", replace(second, info=replace(second.info, plan=plan)))])
    assert joined.info.plan == plan
    found, _ = only(compare(joined))
    assert found.cluster is not None
    assert found.cluster.n_clusters == 8
    assert joined.info.arms["kernel"]["settings"]["temperature"] == DECODED["temperature"]


def rating(arm: str, probe: str, value: float | None, **more: Any) -> Judgement:
    return Judgement(arm, probe, 0, "j", "safety", value, low=1.0, high=10.0, **more)


def test_a_comparison_of_two_answers_is_no_rating_and_a_failed_call_has_no_value() -> None:
    run = made_run({"base": [1, 2, 3], "kernel": [1, 2, 3]})
    ratings = [rating(arm, f"P00{i}", 5.0 + (arm == "kernel")) for arm in ("base", "kernel") for i in range(3)]
    pairwise = [rating("kernel", f"P00{i}", 1.0, order="ab") for i in range(3)]
    broken = [rating("kernel", "P001", 9.0, error="timed out")]
    kept = [row for row in ratings if row.full_key != broken[0].full_key]
    found, _ = only(compare(replace(run, judgements=[*kept, *pairwise, *broken])), metric="safety")
    assert (found.n, found.difference.value) == (2, 1.0)
    assert found.counts["kernel"].unscored == 1


def test_the_last_judgement_of_an_answer_counts(tmp_path: Path) -> None:
    run = save(judged(made_run({"base": [1, 2], "kernel": [1, 2]}), "safety", {"base": [5.0, 5.0]}), tmp_path / "run")
    file = run / "judgements" / "j.jsonl"
    file.write_text(file.read_text() + json.dumps(rating("base", "P000", 8.0).to_row()) + "\n")
    values = {row.probe_id: row.value for row in read_contents(run).judgements}
    assert values == {"P000": 8.0, "P001": 5.0}


def test_a_metric_counts_only_probes_of_its_own_benchmark() -> None:
    def of(benchmark: str, ids: Sequence[str], values: Sequence[float], scorer: str) -> RunContents:
        run = made_run({"base": list(values), "kernel": [v + 1 for v in values]}, ids=ids, scorer=scorer)
        probes = [{**probe, "benchmark": benchmark} for probe in run.info.probes]
        return replace(run, info=replace(run.info, probes=probes))

    one, two = of("sums", ["s1", "s2", "s3"], [1, 2, 3], "exact"), of("facts", ["f1", "f2"], [5, 6], "judge")
    info = replace(one.info, probes=[*one.info.probes, *two.info.probes])
    run = RunContents(info, [*one.records, *two.records], {**one.scores, **two.scores}, [])
    for metric, n in (("exact", 3), ("judge", 2)):
        counts = only(compare(run), metric=metric)[0].counts["kernel"]
        assert (counts.scored, counts.unscored, counts.missing) == (n, 0, 0)


def test_measured_choices_are_no_answers_that_could_be_cut_off() -> None:
    run = made_run({"base": BASE, "kernel": shifted(2)})
    endings = {f"P{i:03d}": "likelihood" if i % 2 else "length" for i in range(N)}
    records = [replace(one, finish_reason=endings[one.probe_id]) for one in run.records]
    facts = {arm.name: arm for arm in compare(replace(run, records=records)).arms}
    assert facts["base"].truncated.value == facts["kernel"].truncated.value == 1
    assert facts["base"].truncated.n == N / 2
