"""The page's findings: verdicts, what stands against them, forest plots and the figures behind each contrast."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lem.reports.comparison_file import ComparisonView, Effect
from lem.reports.formats import interval, number
from lem.reports.plots_forest import forest_figure
from lem.reports.plots_length import change_figure
from lem.reports.svg import inline_svg
from lem.stats import Estimate

CODES = {
    "improved": "improved",
    "worse": "worse",
    "no_worse": "no worse",
    "equivalent": "the same",
    "undetected": "no effect seen",
    "refused": "withheld",
}


@dataclass(frozen=True)
class Finding:
    """One metric's verdicts, primary ones first, with its forest plot and the plots of length-controlled effects."""

    metric: str
    effects: list[Effect]
    forest: Markup
    lengths: list[tuple[Effect, Markup]]
    figures: list[tuple[Effect, list[tuple[str, str]]]]


def findings(comparison: ComparisonView) -> list[Finding]:
    """One entry per metric, in the order of the comparison."""
    return [_finding(metric, comparison.of(metric)) for metric in comparison.metrics]


def _finding(metric: str, effects: Sequence[Effect]) -> Finding:
    ordered = sorted(effects, key=lambda effect: not effect.primary)
    label = f"Forest plot of {metric}: " + "; ".join(effect.sentence for effect in ordered)
    return Finding(
        metric=metric,
        effects=ordered,
        forest=inline_svg(forest_figure(metric, ordered), label),
        lengths=[(effect, drawn) for effect in ordered if (drawn := _length_plot(effect)) is not None],
        figures=[(effect, _figures(effect)) for effect in ordered if not effect.refused],
    )


def _length_plot(effect: Effect) -> Markup | None:
    """Drawn for primary contrasts whose numbers may be shown."""
    controlled, slope = effect.estimate("length_controlled"), effect.estimate("length_slope")
    if effect.refused or not effect.primary or controlled is None or slope is None:
        return None
    words: Mapping[str, float] = effect.raw.get("word_differences") or {}
    changed: Mapping[str, float] = effect.raw.get("differences") or {}
    points = [(words[probe], changed[probe]) for probe in changed if probe in words]
    figure = change_figure(effect.metric, points, controlled.value, slope.value)
    label = f"Change in {effect.metric} against change in length, {effect.treatment} against {effect.baseline}"
    return inline_svg(figure, label) if figure else None


def _figures(effect: Effect) -> list[tuple[str, str]]:
    """Every figure behind a verdict, as (name, text); what the comparison does not hold is left out."""
    raw = effect.raw
    rows = [
        ("difference, headline interval", _signed(effect.difference)),
        ("probes", f"{effect.n}, {raw.get('n_missing', 0)} without a pair"),
        (f"mean of {effect.baseline}", _plain(effect.estimate("baseline_mean"))),
        (f"mean of {effect.treatment}", _plain(effect.estimate("treatment_mean"))),
        ("interval over probes (BCa)", _signed(effect.estimate("bca"))),
        ("interval over domains (CR2)", _signed(effect.estimate("cluster"))),
        ("for exactly these probes", _signed(effect.estimate("fixed_set"))),
        ("p, before correction", p_value(effect.number("p"))),
        (f"p, {raw.get('correction')} over {raw.get('n_tests')}", p_value(effect.number("p_adjusted"))),
        ("at equal length", _signed(effect.estimate("length_controlled"))),
        ("Cliff's delta", _signed(effect.estimate("cliffs_delta"))),
        *[(name, p_value(float(test["p"]))) for name in ("wilcoxon", "mcnemar") if (test := _test(raw, name))],
        ("design effect of the domains", number(effect.number("design_effect"))),
        ("would have been seen with 80% power", number(effect.number("mde"))),
        ("margin", number(effect.number("margin"))),
        ("if every unscored answer were worst or best", _bounds(raw.get("bounds"))),
        ("improved, regressed, unchanged", " / ".join(str(raw.get(n)) for n in ("improved", "regressed", "unchanged"))),
    ]
    rows += [(f"answers of {arm}", _counts(counts)) for arm, counts in (raw.get("counts") or {}).items()]
    return [(name, text) for name, text in rows if text not in ("", "-")]


def p_value(p: float) -> str:
    """A p-value with three digits, '-' for NaN, never 0."""
    return "< 0.001" if p < 0.001 else number(p, 3)


def _test(raw: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    test = raw.get(name)
    return test if isinstance(test, dict) and test.get("p") is not None else None


def _signed(estimate: Estimate | None) -> str:
    return f"{number(estimate.value, signed=True)} {interval(estimate, signed=True)}" if estimate else ""


def _plain(estimate: Estimate | None) -> str:
    return f"{number(estimate.value)} {interval(estimate)}" if estimate else ""


def _bounds(bounds: Sequence[float] | None) -> str:
    return f"{number(bounds[0], signed=True)} to {number(bounds[1], signed=True)}" if bounds else ""


def _counts(counts: Mapping[str, Any]) -> str:
    named = [f"{value} {name}" for name, value in counts.items() if value is not None]
    return ", ".join(named)


def plan_facts(comparison: ComparisonView) -> list[tuple[str, str]]:
    """What was declared before the run, as (name, text); empty when nothing was."""
    declared = comparison.declared
    if not declared:
        return []
    margins: Mapping[str, float] = declared.get("margins") or {}
    exclusions = declared.get("exclusions") or []
    return [
        ("primary contrasts", "; ".join(f"{metric}: {arm}" for metric, arm in declared.get("primary") or ()) or "none"),
        ("margins", "; ".join(f"{metric}: {margin:g}" for metric, margin in margins.items()) or "none"),
        ("excluded probes", ", ".join(str(probe) for probe in exclusions) or "none"),
        ("hash of the plan", str(declared.get("plan_sha") or "not recorded")),
    ]


def tally(effects: Sequence[Effect]) -> str:
    """How many contrasts ended in which verdict, in a few words."""
    counts = Counter(CODES.get(effect.code, effect.code) for effect in effects)
    return ", ".join(f"{n} {name}" for name, n in counts.items())
