"""One contrast: treatment minus baseline under one metric, with every estimate and test that stands behind a verdict.

The order is fixed: repeats are averaged per probe, variants per source, then one difference per (source) probe. The
p-value of a verdict is the larger of the test over probes and the cluster-robust one over domains, as the headline
interval spans both kinds, because each alone errs on some shapes of data (docs/METHODS.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lem.ab.values import ArmValues, Outcomes, counts_of, outcome_bounds
from lem.records import Metric
from lem.stats import (
    Estimate,
    LengthControlled,
    MarginTest,
    PValue,
    cliffs_delta,
    cluster_freedom,
    cluster_t_interval,
    cluster_t_test,
    design_effect,
    detectable_effect,
    equivalent,
    fixed_set_difference,
    length_controlled,
    mcnemar,
    mean_bca,
    mean_on_scale,
    non_inferior,
    per_source,
    sign_flip,
    source_domains,
    t_interval,
    wilcoxon_signed_rank,
)
from lem.stats.hypotheses import N_FLIPS

N_LISTED = 10
ALPHA = 0.05


@dataclass(frozen=True)
class Change:
    """The difference of one probe (the mean over its variants, if it has some)."""

    probe_id: str
    domain: str
    difference: float


@dataclass(frozen=True)
class Contrast:
    """Treatment minus baseline under one metric; every estimate is over (source) probes that both arms have.

    Differences are signed so that more of the metric is positive, whatever is better. `p` is the p-value that a
    verdict uses, `p_holm` and `p_bh` the same after correction over `n_tests` contrasts of its family. `bounds` are
    the mean differences if every unscored answer had the worst or the best value of the scale for the treatment.
    `mde` is the effect that this comparison would have seen with 80% power, at the corrected level (NaN: no effect
    could have been, or nothing varies). `margin_p` are the corrected p-values of the two margin tests.
    """

    metric: str
    source: str
    kind: str
    version: str
    treatment: str
    baseline: str
    n: int
    n_missing: int
    counts: dict[str, Outcomes]
    baseline_mean: Estimate
    treatment_mean: Estimate
    difference: Estimate
    bca: Estimate
    cluster: Estimate | None
    fixed_set: Estimate | None
    sign_flip: PValue
    cluster_t: PValue | None
    wilcoxon: PValue | None
    cliffs_delta: Estimate | None
    mcnemar: PValue | None
    p: float
    length: LengthControlled | None
    design_effect: float
    mde: float
    margin: float | None
    non_inferiority: MarginTest | None
    equivalence: MarginTest | None
    bounds: tuple[float, float] | None
    improved: int
    regressed: int
    unchanged: int
    lower_is_better: bool
    changes: tuple[Change, ...] = field(repr=False)
    word_differences: dict[str, float] = field(repr=False)
    family: str = "primary"
    n_tests: int = 1
    p_holm: float = math.nan
    p_bh: float = math.nan
    margin_p: tuple[float, float] = (math.nan, math.nan)

    @property
    def identical(self) -> bool:
        """True when no probe changed at all."""
        return self.n > 0 and all(change.difference == 0 for change in self.changes)

    def listed(self, *, best: bool) -> tuple[Change, ...]:
        """The ten probes that moved most for the better, or for the worse; only such as moved that way."""
        sign = (1 if best else -1) * (-1 if self.lower_is_better else 1)
        moved = [change for change in self.changes if change.difference * sign > 0]
        return tuple(sorted(moved, key=lambda change: (-change.difference * sign, change.probe_id))[:N_LISTED])


@dataclass(frozen=True)
class ContrastSettings:
    """What is asked of a contrast beside its arms: threshold of a counted change, margin, direction, level."""

    threshold: float = 0.5
    margin: float | None = None
    lower_is_better: bool = False
    level: float = 0.95


def contrast(
    metric: Metric,
    treatment: ArmValues,
    baseline: ArmValues,
    domains: Mapping[str, str],
    sources: Mapping[str, str],
    settings: ContrastSettings = ContrastSettings(),
) -> Contrast:
    """Compare two arms under one metric.

    Args:  domains: probe -> domain; used as clusters when there are at least two among the probes compared.
           sources: probe -> id of the probe that it rephrases; a probe without one stands for itself.
    """
    shared = sorted(set(treatment.values) & set(baseline.values))
    paired = per_source({probe: treatment.values[probe] - baseline.values[probe] for probe in shared}, sources)
    units = sorted(paired)
    differences = [paired[unit] for unit in units]
    domain_of = source_domains({probe: domains.get(probe, "") for probe in shared}, sources)
    clusters = _clusters([domain_of.get(unit, "") for unit in units])
    binary = metric.kind == "binary" and _single_shots(treatment, baseline, shared)
    cluster_t = cluster_t_test(differences, clusters) if clusters else None
    flip = sign_flip(differences)
    exact = mcnemar(*_sides(treatment, baseline, shared)) if binary and len(units) == len(shared) else None
    words = _word_differences(treatment, baseline, shared, sources)
    changes = tuple(Change(unit, domain_of.get(unit, ""), paired[unit]) for unit in units)
    unpaired = set(treatment.values) ^ set(baseline.values)
    least, most = _ends_of_difference(metric)
    difference = mean_on_scale(
        differences, clusters, low=least, high=most, level=settings.level, n_unscored=len(unpaired)
    )
    effect = design_effect(differences, clusters) if clusters else 1.0
    sides = [per_source({probe: arm.values[probe] for probe in shared}, sources) for arm in (treatment, baseline)]
    ordinal, sign = metric.kind == "ordinal", -1 if settings.lower_is_better else 1
    return Contrast(
        metric=metric.name, source=metric.source, kind=metric.kind, version=metric.version,
        treatment=treatment.arm, baseline=baseline.arm,
        n=len(units), n_missing=len(unpaired),
        counts={arm.arm: counts_of(arm, metric.kind) for arm in (baseline, treatment)},
        baseline_mean=_arm_mean([sides[1][unit] for unit in units], clusters, metric),
        treatment_mean=_arm_mean([sides[0][unit] for unit in units], clusters, metric),
        difference=difference,
        bca=mean_bca(differences, level=settings.level),
        cluster=cluster_t_interval(differences, clusters, level=settings.level) if clusters else None,
        fixed_set=_fixed_set(treatment, baseline, shared, sources, settings.level),
        sign_flip=flip, cluster_t=cluster_t,
        wilcoxon=wilcoxon_signed_rank(differences) if ordinal else None,
        cliffs_delta=cliffs_delta([sides[0][u] for u in units], [sides[1][u] for u in units]) if ordinal else None,
        mcnemar=exact,
        p=_larger(exact.p if exact else flip.p, cluster_t.p if cluster_t else math.nan),
        length=length_controlled(differences, [words[unit] for unit in units], clusters) if words else None,
        design_effect=effect,
        mde=_mde(differences, clusters, flip, 1),
        margin=settings.margin,
        non_inferiority=_non_inferior(differences, clusters, settings),
        equivalence=equivalent(differences, settings.margin, clusters) if settings.margin is not None else None,
        bounds=_turned(outcome_bounds(metric, treatment, baseline, sources), settings.lower_is_better),
        improved=sum(sign * difference > settings.threshold for difference in differences),
        regressed=sum(sign * difference < -settings.threshold for difference in differences),
        unchanged=sum(abs(difference) <= settings.threshold for difference in differences),
        lower_is_better=settings.lower_is_better,
        changes=changes,
        word_differences=words,
    )  # fmt: skip


def corrected(
    contrast: Contrast, family: str, n_tests: int, p_holm: float, p_bh: float, margin_p: tuple[float, float]
) -> Contrast:
    """The same contrast as one of a family of `n_tests`: corrected p-values, and the effect it could still see."""
    differences = [change.difference for change in contrast.changes]
    clusters = _clusters([change.domain for change in contrast.changes])
    mde = _mde(differences, clusters, contrast.sign_flip, n_tests)
    return replace(contrast, family=family, n_tests=n_tests, p_holm=p_holm, p_bh=p_bh, margin_p=margin_p, mde=mde)


def _arm_mean(values: Sequence[float], clusters: Sequence[str] | None, metric: Metric) -> Estimate:
    """Mean of one arm, on the metric's scale."""
    return mean_on_scale(values, clusters, low=metric.low, high=metric.high)


def _ends_of_difference(metric: Metric) -> tuple[float | None, float | None]:
    """The greatest differences that the metric's scale allows."""
    if metric.low is None or metric.high is None:
        return None, None
    return metric.low - metric.high, metric.high - metric.low


def _clusters(domains: Sequence[str]) -> list[str] | None:
    return list(domains) if len(set(domains)) > 1 else None


def _single_shots(treatment: ArmValues, baseline: ArmValues, shared: Sequence[str]) -> bool:
    """True when every compared value is one 0 or 1, so that McNemar's test applies."""
    return all(arm.values[probe] in (0.0, 1.0) for arm in (treatment, baseline) for probe in shared)


def _sides(treatment: ArmValues, baseline: ArmValues, shared: Sequence[str]) -> tuple[list[float], list[float]]:
    return [treatment.values[probe] for probe in shared], [baseline.values[probe] for probe in shared]


def _word_differences(
    treatment: ArmValues, baseline: ArmValues, shared: Sequence[str], sources: Mapping[str, str]
) -> dict[str, float]:
    """Words of the treatment's answer minus words of the baseline's, per unit; empty when some answer has no text."""
    if any(probe not in arm.words for arm in (treatment, baseline) for probe in shared):
        return {}
    return per_source({probe: treatment.words[probe] - baseline.words[probe] for probe in shared}, sources)


def _fixed_set(
    treatment: ArmValues, baseline: ArmValues, shared: Sequence[str], sources: Mapping[str, str], level: float
) -> Estimate | None:
    """The estimate for exactly these probes; None without at least two repeats of every probe in both arms."""
    sides = [{probe: arm.repeats[probe] for probe in shared} for arm in (treatment, baseline)]
    if not shared or any(len(values) < 2 for side in sides for values in side.values()):
        return None
    return fixed_set_difference(sides[0], sides[1], level=level, sources=sources)


def _turned(bounds: tuple[float, float] | None, lower_is_better: bool) -> tuple[float, float] | None:
    """(worst, best) for the treatment: with a metric of which less is better, the ends change places."""
    return (bounds[1], bounds[0]) if bounds and lower_is_better else bounds


def _non_inferior(
    differences: Sequence[float], clusters: Sequence[str] | None, settings: ContrastSettings
) -> MarginTest | None:
    if settings.margin is None:
        return None
    sign = -1 if settings.lower_is_better else 1
    return non_inferior([sign * difference for difference in differences], settings.margin, clusters)


def _mde(differences: Sequence[float], clusters: Sequence[str] | None, flip: PValue, n_tests: int) -> float:
    """The effect that both tests behind a verdict would have found: the larger of what each of them could see.

    NaN where nothing varies, and where even the clearest change could not reach the corrected level.
    """
    n = len(differences)
    least_p = 2.0 ** (1 - n) if flip.exact else 2 / (N_FLIPS + 1)
    if n < 2 or least_p > ALPHA / n_tests or len(set(differences)) == 1:
        return math.nan
    plain = t_interval(differences)
    found = [detectable_effect(plain.stderr, n - 1, alpha=ALPHA, n_tests=n_tests)]
    if clusters:
        robust = cluster_t_interval(differences, clusters)
        found.append(detectable_effect(robust.stderr, cluster_freedom(clusters), alpha=ALPHA, n_tests=n_tests))
    return max(found)


def _larger(first: float, second: float) -> float:
    return first if math.isnan(second) else second if math.isnan(first) else max(first, second)
