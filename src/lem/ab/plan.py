"""A plan: what a run will take, what it can see, and what is declared before it - as the object of `plan.json`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lem.ab.declared import (
    Declarations,
    check_metrics,
    parse_amounts,
    parse_exclusions,
    parse_primary,
    parse_spreads,
)
from lem.ab.expected import expected_entry, lengths_of, rate_of, render_untrained
from lem.ab.forecast import (
    ALPHA,
    POWER,
    ContrastForecast,
    Size,
    contrasts_first,
    detect,
    forecast,
    in_sds,
    margin_power,
)
from lem.ab.noise import Noise, mean_domain_size, pilot_noise
from lem.ab.plan_file import KIND, PLAN_SCHEMA
from lem.ab.plan_notes import pilot_notes
from lem.ab.prices import cost_entry, judge_cost
from lem.ab.roles import choose_arms
from lem.data import Probe
from lem.data.prices import Price
from lem.errors import UserError
from lem.records import RunContents, text_sha
from lem.records.run import now
from lem.runs.plan import RenderedArm, RunPlan
from lem.stats import source_domains

# Facts of an arm that decide its answers; a run that differs in one of them deviates from its plan.
ARM_FACTS = ("model", "model_sha", "adapter", "adapter_sha", "adapter_scale", "bits", "kernel", "kernel_sha", "inject")


@dataclass(frozen=True)
class Options:
    """What a plan declares and rests on, as option values; see `docs/plan.md`.

    `tokens_per_answer`, `tokens_per_second` and `design_effect` stand in for what the pilot would say. `judges` are
    names in the price table; `judge_tokens` is (read beside the answer, written) of one call.
    """

    baseline: str | None = None
    primary: tuple[str, ...] = ()
    margins: tuple[str, ...] = ()
    exclusions: tuple[str, ...] = ()
    detect: tuple[str, ...] = ()
    spreads: tuple[str, ...] = ()
    design_effect: float = 1.0
    tokens_per_answer: float | None = None
    tokens_per_second: float | None = None
    judges: tuple[str, ...] = ()
    judge_calls: int | None = None
    judge_tokens: tuple[float, float] | None = None
    prices: Mapping[str, Price] | None = None


def make_plan_document(plan: RunPlan, options: Options, pilot: RunContents | None = None) -> dict[str, Any]:
    """Foretell a run and declare what it is for; the object of `plan.json` without its hash.

    Raises: UserError for a declaration that fits no arm, probe or metric, and for a pilot that cannot be used.
    """
    baseline, treatments = choose_arms([arm.name for arm in plan.arms], options.baseline, ())
    exclusions = parse_exclusions(options.exclusions, [probe.id for probe in plan.probes])
    declared = Declarations(
        parse_primary(options.primary, treatments), parse_amounts(options.margins, "--margin"), exclusions
    )
    wanted = parse_amounts(options.detect, "--detect")
    noises = _noises(plan, options, pilot, baseline, treatments, exclusions)
    _check_declared(declared, wanted, noises)
    rendered, waiting = render_untrained(plan)
    lengths = lengths_of([arm.name for arm in plan.arms], pilot, options.tokens_per_answer, plan.settings.max_tokens)
    expected = expected_entry(plan, rendered, lengths, rate_of(pilot, options.tokens_per_second))
    return {
        "schema": PLAN_SCHEMA,
        "kind": KIND,
        "created": now(),
        "command": list(plan.command),
        "arms": [_arm_entry(found) for found in rendered],
        "baseline": baseline,
        "primary": [list(pair) for pair in declared.primary],
        "margins": declared.margins,
        "exclusions": [{"probe_id": probe, "reason": reason} for probe, reason in exclusions.items()],
        "n_probes": len(plan.probes),
        "probes": [_probe_entry(probe) for probe in plan.probes],
        "probe_file": plan.probe_file,
        "probe_sha": plan.probe_sha,
        "repeats": plan.repeats,
        "settings": {**asdict(plan.settings), "seed": plan.seed, "inject": plan.inject},
        "expected": expected,
        "mde": finite_or_null(_mde_entry(plan, declared, wanted, noises, len(treatments))),
        "cost": finite_or_null(_cost_entry(options, pilot, expected)),
        "notes": [*waiting, *(pilot_notes(pilot, plan, rendered, noises, lengths) if pilot else [])],
    }


def _probe_entry(probe: Probe) -> dict[str, str]:
    entry = {"id": probe.id, "domain": probe.domain, "sha": text_sha(probe.prompt)[:16]}
    return entry if probe.source is None else {**entry, "source": probe.source}


def _arm_entry(rendered: RenderedArm) -> dict[str, Any]:
    facts = {key: rendered.facts[key] for key in ARM_FACTS if rendered.facts.get(key) is not None}
    return {"name": rendered.arm.name, **facts}


def _noises(
    plan: RunPlan, options: Options, pilot: RunContents | None, baseline: str, treatments: Sequence[str],
    exclusions: Mapping[str, str],
) -> list[Noise]:  # fmt: skip
    """Spreads that were given, then those of the pilot for the metrics that were not."""
    if not (math.isfinite(options.design_effect) and options.design_effect > 0):
        raise UserError(f"--design-effect must be a finite number above 0 (got {options.design_effect:g}).")
    given = parse_spreads(options.spreads, treatments, plan.repeats, options.design_effect)
    if pilot is None:
        return given
    named = {noise.metric for noise in given}
    measured = pilot_noise(pilot, baseline, treatments, exclusions) if not (given and not _is_scored(pilot)) else []
    return [*given, *(noise for noise in measured if noise.metric not in named)]


def _is_scored(pilot: RunContents) -> bool:
    return bool(any(pilot.scores.values()) or pilot.judgements)


def _check_declared(declared: Declarations, wanted: Mapping[str, float], noises: Sequence[Noise]) -> None:
    """Refuse a metric whose spread is not among those given; without any, all may stand."""
    known = list(dict.fromkeys(noise.metric for noise in noises))
    if known:
        check_metrics({metric: "--primary" for metric, _ in declared.primary}, known)
        check_metrics(dict.fromkeys(declared.margins, "--margin"), known)
    check_metrics(dict.fromkeys(wanted, "--detect"), known)


def _size(plan: RunPlan, excluded: Mapping[str, str], n_tests: int) -> Size:
    """What counts: source probes that are not excluded; excluded ones are asked and enter no comparison."""
    counted = [probe for probe in plan.probes if probe.id not in excluded]
    sources = {probe.id: probe.source or probe.id for probe in counted}
    domains = source_domains({probe.id: probe.domain for probe in counted}, sources)
    return Size(len(domains), plan.repeats, len(plan.arms), mean_domain_size(domains.values()), max(1, n_tests))


def _mde_entry(
    plan: RunPlan, declared: Declarations, wanted: Mapping[str, float], noises: Sequence[Noise], n_treatments: int
) -> dict[str, Any]:
    """The `mde` of a plan. Without declared contrasts every one counts as declared, as `lem compare` corrects them."""
    n_tests = len(declared.primary) or len(noises) or n_treatments
    size = _size(plan, declared.exclusions, n_tests)
    found = contrasts_first(
        [forecast(noise, size, primary=(noise.metric, noise.treatment) in declared.primary) for noise in noises]
    )
    asked = [noise for noise in noises if not declared.primary or (noise.metric, noise.treatment) in declared.primary]
    return {
        "alpha": ALPHA,
        "power": POWER,
        "n_tests": n_tests,
        "n_probes": size.n_probes,
        "repeats": size.repeats,
        "in_sds": in_sds(size),
        "contrasts": [_forecast_entry(entry) for entry in found],
        "detect": [asdict(detect(n, size, wanted[n.metric])) for n in asked if n.metric in wanted],
        "margins": [
            {"metric": n.metric, "treatment": n.treatment, "margin": declared.margins[n.metric],
             "power": margin_power(n, size, declared.margins[n.metric])}
            for n in asked if n.metric in declared.margins
        ],
    }  # fmt: skip


def _forecast_entry(found: ContrastForecast) -> dict[str, Any]:
    entry = asdict(found)
    noise = entry.pop("noise")
    names = ("metric", "treatment", "source", "sd_between", "sd_within")
    pilot = {"n_pilot": noise["n"], "repeats_pilot": noise["repeats"] if noise["n"] is not None else None}
    return {**{name: noise[name] for name in names}, **pilot, **entry}


def _cost_entry(options: Options, pilot: RunContents | None, expected: Mapping[str, Any]) -> dict[str, Any]:
    """Judge calls and what they cost; judges and calls an answer come from the pilot where they are not given."""
    calls = dict.fromkeys(options.judges, options.judge_calls or 1)
    for judge, measured in _pilot_calls(pilot).items():
        if not options.judges or judge in calls:
            calls[judge] = options.judge_calls or measured
    new, n_answers = expected["new_tokens"], int(expected["requests"])
    answer_tokens = None if new is None else new["value"] / n_answers
    judges = [
        judge_cost(judge, n_answers, each, options.judge_tokens, answer_tokens, options.prices)
        for judge, each in calls.items()
    ]
    entry = cost_entry(
        judges, priced=options.prices is not None, tokens_known=options.judge_tokens is not None,
        answers_known=answer_tokens is not None,
    )  # fmt: skip
    return {"judge_calls": sum(judge.calls for judge in judges), **entry}


def _pilot_calls(pilot: RunContents | None) -> dict[str, int]:
    """Calls an answer per judge of the pilot: its verdicts over the answers that it saw, rounded up."""
    found = pilot.judgements if pilot else []
    verdicts = Counter(judgement.judge for judgement in found)
    answers = Counter(judge for judge, _ in {(judgement.judge, judgement.key) for judgement in found})
    return {judge: math.ceil(verdicts[judge] / answers[judge]) for judge in verdicts}


def finite_or_null(value: Any) -> Any:
    """The value with every NaN and infinity in it replaced by None, tuples as lists."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): finite_or_null(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(entry) for entry in value]
    return value
