"""Compare arms: under every metric a contrast per treatment, corrected together, with what stands against each.

Nothing is printed here and nothing is generated: the result is a `Comparison` (`comparison_file` writes it).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lem.ab.arm_facts import ArmFacts, arm_facts
from lem.ab.contrast import Contrast, ContrastSettings, contrast, corrected
from lem.ab.join import refuse_case_twins
from lem.ab.judge_objections import judge_objections
from lem.ab.objections import REFUSAL, WATERMARK, Objection, objections
from lem.ab.roles import choose_arms, is_placebo, placebo_of, role_of
from lem.ab.values import ArmValues, arm_values
from lem.ab.verdict import Verdict, verdict
from lem.errors import UserError
from lem.records import Cell, Metric, RunContents, join_cells, metrics_of
from lem.records.metrics import LOWER_IS_BETTER, of_style
from lem.stats import benjamini_hochberg, holm

DECLARED_LATE = (
    "the primary contrasts were named when comparing, not in a plan stored with the run before it was made, so nothing "
    "shows that they were chosen before the results were seen."
)


@dataclass(frozen=True)
class Declared:
    """What was fixed before the run: primary (metric, treatment) pairs, margins, excluded probes.

    `plan_sha` is the hash of the plan it stands in, "" when it was named on the spot; `baseline` the arm that the
    primary contrasts are against (None: that of the comparison).
    """

    primary: tuple[tuple[str, str], ...] = ()
    margins: Mapping[str, float] = field(default_factory=dict)
    exclusions: Mapping[str, str] = field(default_factory=dict)
    plan_sha: str = ""
    baseline: str | None = None


@dataclass(frozen=True)
class Options:
    """How to compare; `metrics` are those to keep (none: all), `anyway` sets refusals aside."""

    baseline: str | None = None
    treatments: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    lower_is_better: tuple[str, ...] = ()
    threshold: float = 0.5
    anyway: bool = False


@dataclass(frozen=True)
class Comparison:
    """The whole comparison; `contrasts` carry their verdicts in `verdicts`, one each, in the same order."""

    baseline: str
    treatments: tuple[str, ...]
    declared: Declared | None
    arms: tuple[ArmFacts, ...]
    contrasts: tuple[Contrast, ...]
    verdicts: tuple[Verdict, ...]
    objections: tuple[Objection, ...]
    deviations: tuple[str, ...] = ()

    @property
    def n_primary(self) -> int:
        """How many contrasts were corrected together by Holm's method; one without a p-value is no test."""
        return sum(found.family == "primary" and not math.isnan(found.p) for found in self.contrasts)

    @property
    def n_exploratory(self) -> int:
        """How many contrasts were corrected together by Benjamini and Hochberg's."""
        return sum(found.family != "primary" and not math.isnan(found.p) for found in self.contrasts)

    @property
    def refused(self) -> bool:
        """True when no contrast has a verdict."""
        return all(found.code == "refused" for found in self.verdicts)


def compare(
    contents: RunContents, options: Options = Options(), declared: Declared | None = None,
    deviations: Sequence[str] = (),
) -> Comparison:  # fmt: skip
    """Compare the arms of a run (or of several joined by `join_runs`).

    Args:  deviations: of the run from its plan, as sentences.
    Every treatment is held against the baseline, and against its placebo where there is one. Without anything
    declared all contrasts are corrected together, as if all of them were primary.
    Raises: UserError for an unknown arm or metric, an arm without answers, nothing scored in two arms, or ids that
    differ only in case; DataError for scores that do not fit the records.
    """
    refuse_case_twins([probe["id"] for probe in contents.info.probes])
    planned = declared.baseline if declared else None
    baseline, treatments = choose_arms(contents.info.arms, options.baseline or planned, options.treatments)
    excluded = frozenset(declared.exclusions) if declared else frozenset()
    arms = _describe(contents, baseline, treatments, excluded)
    contrasts = []
    metrics = _known_metrics(contents, options)
    _check_declared(declared, metrics, treatments)
    for metric in metrics:
        values = arm_values(metric, excluded)
        for treatment, against in _pairs(contents, baseline, treatments):
            if treatment in values and against in values and against in arms:
                contrasts.append(_contrast(contents, metric, values[treatment], values[against], options, declared))
    # corrected before the metrics are chosen: looking at fewer does not make fewer tests
    contrasts = [
        c for c in _correct(contrasts, baseline, declared) if not options.metrics or c.metric in options.metrics
    ]
    if not contrasts:
        raise UserError("no metric has cells in both arms of any contrast, so there is nothing to compare.")
    found = [*objections(contents.info, arms, treatments, contrasts), *judge_objections(contents, contrasts, excluded)]
    if declared and (declared.primary or declared.margins) and not declared.plan_sha:
        found.append(Objection("declared-late", WATERMARK, DECLARED_LATE))
    if options.anyway:
        found = [replace(o, overridden=True) if o.severity == REFUSAL else o for o in found]
    if planned is not None and planned != baseline:
        deviations = [*deviations, f"the primary contrasts were planned against '{planned}', not '{baseline}'."]
    verdicts = tuple(verdict(one, found) for one in contrasts)
    return Comparison(
        baseline, tuple(treatments), declared, tuple(arms.values()), tuple(contrasts), verdicts, tuple(found),
        tuple(deviations),
    )  # fmt: skip


def _describe(
    contents: RunContents, baseline: str, treatments: Sequence[str], excluded: frozenset[str]
) -> dict[str, ArmFacts]:
    """Facts of the arms that take part.   Raises: UserError for one without a single answer."""
    info = contents.info
    sources = _sources(contents)
    cells: dict[str, list[Cell]] = {}
    for cell in join_cells(info, contents.records, []):
        if cell.key.probe_id not in excluded:
            cells.setdefault(cell.key.arm, []).append(cell)
    wanted = [baseline, *treatments]
    wanted += [name for t in treatments if (name := placebo_of(t, info.arms)) and name not in wanted]
    found = {}
    for name in dict.fromkeys(wanted):
        role = role_of(name, baseline, treatments)
        facts = arm_facts(name, info.arms.get(name, {}), role, cells.get(name, []), sources)
        if facts.answered:
            found[name] = facts
        elif name == baseline or name in treatments:
            raise UserError(
                f"arm '{name}' has no answer, so there is nothing to compare; run it, or name the others with "
                "--treatment."
            )
    return found


def _known_metrics(contents: RunContents, options: Options) -> list[Metric]:
    metrics = metrics_of(contents)
    known = [metric.name for metric in metrics]
    for name in (*options.metrics, *options.lower_is_better):
        if name not in known:
            raise UserError(f"there is no metric '{name}' here; there are {', '.join(known) or 'none'}.")
    if not metrics:
        raise UserError("nothing here has been scored or judged; run `./lem score` on it first.")
    return [metric for metric in metrics if metric.name in options.metrics or not of_style(contents.info, metric)]


def _pairs(contents: RunContents, baseline: str, treatments: Sequence[str]) -> list[tuple[str, str]]:
    """(treatment, what it is held against): the baseline for all, then its placebo for each that has one."""
    pairs = [(treatment, baseline) for treatment in treatments]
    for treatment in treatments:
        control = None if is_placebo(treatment) else placebo_of(treatment, contents.info.arms)
        if control is not None and control != baseline:
            pairs.append((treatment, control))
    return pairs


def _contrast(
    contents: RunContents, metric: Metric, treatment: ArmValues, baseline: ArmValues, options: Options,
    declared: Declared | None,
) -> Contrast:  # fmt: skip
    settings = ContrastSettings(
        threshold=0.0 if metric.kind == "binary" else options.threshold,
        margin=declared.margins.get(metric.name) if declared else None,
        lower_is_better=metric.name in (*options.lower_is_better, *LOWER_IS_BETTER),
    )
    domains = {probe["id"]: probe.get("domain", "") for probe in contents.info.probes}
    return contrast(metric, treatment, baseline, domains, _sources(contents), settings)


def _sources(contents: RunContents) -> dict[str, str]:
    return {probe["id"]: probe["source"] for probe in contents.info.probes if probe.get("source")}


def _check_declared(declared: Declared | None, metrics: Sequence[Metric], treatments: Sequence[str]) -> None:
    """Refuse what was named on the spot and does not exist; a plan's own unknowns are deviations.

    Raises: UserError naming it.
    """
    if declared is None or declared.plan_sha:
        return
    known = [metric.name for metric in metrics]
    for name in (*(metric for metric, _ in declared.primary), *declared.margins):
        if name not in known:
            raise UserError(f"there is no metric '{name}' to declare here; there are {', '.join(known)}.")
    for metric, treatment in declared.primary:
        if treatment not in treatments:
            raise UserError(f"--primary {metric}:{treatment}: '{treatment}' is no treatment of this comparison.")


def _correct(contrasts: Sequence[Contrast], baseline: str, declared: Declared | None) -> list[Contrast]:
    """Correct each family together: Holm for the primary contrasts, Benjamini-Hochberg for the others."""
    primary = set(declared.primary) if declared and declared.primary else None
    against = (declared.baseline if declared else None) or baseline
    families = [
        "primary" if primary is None or (c.baseline == against and (c.metric, c.treatment) in primary)
        else "exploratory"
        for c in contrasts
    ]  # fmt: skip
    found: dict[int, Contrast] = {}
    for family in ("primary", "exploratory"):
        members = [index for index, name in enumerate(families) if name == family]
        p_values = [contrasts[index].p for index in members]
        n_tests = sum(not math.isnan(p) for p in p_values)
        margins = list(zip(*_margin_p([contrasts[index] for index in members], family), strict=True))
        p_adjusted = zip(holm(p_values), benjamini_hochberg(p_values), strict=True)
        for index, (p_holm, p_bh), margin_p in zip(members, p_adjusted, margins, strict=True):
            found[index] = corrected(contrasts[index], family, max(1, n_tests), p_holm, p_bh, margin_p)
    return [found[index] for index in range(len(contrasts))]


def _margin_p(contrasts: Sequence[Contrast], family: str) -> tuple[list[float], list[float]]:
    """Holm-corrected p-values of non-inferiority and of equivalence; NaN (no claim) for exploratory contrasts."""
    if family != "primary":
        return [math.nan] * len(contrasts), [math.nan] * len(contrasts)
    kinds = ([c.non_inferiority for c in contrasts], [c.equivalence for c in contrasts])
    inferior, same = ([math.nan if test is None else test.p for test in tests] for tests in kinds)
    return holm(inferior), holm(same)
