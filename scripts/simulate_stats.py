#!/usr/bin/env python3
"""Measures what the statistics of `lem compare` do where the truth is known: coverage of intervals, errors of tests.

    .venv/bin/python scripts/simulate_stats.py [--draws 2000] [--resamples 999] [--seed 1]

Prints three markdown tables for docs/METHODS.md. Every figure is a percentage of the draws: how often a 95% interval
holds the true value, and how often a test at 5% finds something where there is nothing. Twice the Monte Carlo error
of 2,000 draws is one percentage point at 95%.
"""

from __future__ import annotations

import argparse
import gc
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from krippendorff import alpha
from scipy import stats as sps

from lem.stats import (
    Estimate,
    benjamini_hochberg,
    cliffs_delta,
    cluster_bootstrap,
    cluster_t_test,
    corrected_rate,
    equivalent,
    fixed_set_difference,
    holm,
    krippendorff_alpha,
    length_controlled,
    mcnemar,
    non_inferior,
    rate,
    sign_flip,
    weighted_kappa,
    wilcoxon_signed_rank,
)
from lem.stats.headline import spanned_intervals
from stats_designs import DESIGNS, Array, Draw, continuous

SIZES = (101, 21)
COVERAGE = ("headline", "t", "bca", "bootstrap-t", "cr2-t", "cluster bootstrap")
ERRORS = ("verdict p", "sign flip", "sign flip, whole clusters", "cluster t", "Wilcoxon", "McNemar")
REPEATS = 5


@dataclass(frozen=True)
class Settings:
    """How much is simulated: draws per design and size, resamples per interval or test, the seed of everything."""

    draws: int = 2000
    resamples: int = 999
    seed: int = 1


@dataclass(frozen=True)
class Rate:
    """How often something happened: a method on a design at n, hits out of trials, and what it claims."""

    design: str
    n: int
    method: str
    hits: int
    trials: int
    claim: float

    @property
    def share(self) -> float:
        """Hits over trials."""
        return self.hits / self.trials


def holds(found: Estimate, truth: float) -> bool:
    """True when the interval holds the truth; an interval of no width holds what it is (rounding apart)."""
    return found.low - 1e-9 <= truth <= found.high + 1e-9


def _intervals(draw: Draw, resamples: int) -> dict[str, bool]:
    """Which intervals of the mean difference hold 0; the headline's is worked out from those it spans."""
    spanned = spanned_intervals(draw.differences, draw.clusters, n_resamples=resamples)
    found = {each.method.removesuffix(" (no variation)"): holds(each, 0.0) for each in spanned}
    low, high = min(each.low for each in spanned), max(each.high for each in spanned)
    found["headline"] = low - 1e-9 <= 0 <= high + 1e-9
    if draw.clusters:
        found["cluster bootstrap"] = holds(cluster_bootstrap(draw.differences, draw.clusters, n_resamples=resamples), 0)
    return found


def _tests(draw: Draw, kind: str, resamples: int) -> dict[str, bool]:
    """Which tests call the difference of two arms that are alike a difference, at 5%."""
    differences = draw.differences
    p = {"sign flip": sign_flip(differences, n_resamples=resamples).p}
    if kind == "binary":
        p["McNemar"] = mcnemar(draw.treatment, draw.baseline).p
    else:
        p["Wilcoxon"] = wilcoxon_signed_rank(differences).p
    p["verdict p"] = p.get("McNemar", p["sign flip"])
    if draw.clusters:
        p["sign flip, whole clusters"] = sign_flip(differences, draw.clusters, n_resamples=resamples).p
        p["cluster t"] = cluster_t_test(differences, draw.clusters).p
        p["verdict p"] = max(p["verdict p"], p["cluster t"])
    return {name: value <= 0.05 for name, value in p.items()}


def _counted(design: str, n: int, claim: float, outcomes: Iterable[dict[str, bool]]) -> list[Rate]:
    hits: Counter[str] = Counter()
    trials: Counter[str] = Counter()
    for outcome in outcomes:
        trials.update(outcome.keys())
        hits.update(name for name, hit in outcome.items() if hit)
    return [Rate(design, n, name, hits[name], trials[name], claim) for name in trials]


def differences(settings: Settings, designs: Sequence[str] = tuple(DESIGNS)) -> list[Rate]:
    """Coverage of every interval of the mean difference, and errors of every test of it, on every design."""
    found: list[Rate] = []
    for number, name in enumerate(DESIGNS):
        for n in SIZES if name in designs else ():
            rng = np.random.default_rng([settings.seed, number, n])
            draws = [DESIGNS[name].make(rng, n) for _ in range(settings.draws)]
            found += _counted(name, n, 0.95, (_intervals(draw, settings.resamples) for draw in draws))
            found += _counted(
                name, n, 0.05,
                (_tests(draw, DESIGNS[name].kind, settings.resamples) for draw in draws if draw.exchangeable),
            )  # fmt: skip
    return found


def _repeated(rng: np.random.Generator, truths: Array) -> dict[str, Array]:
    return {f"P{row:03d}": truth + rng.normal(0, 2, REPEATS) for row, truth in enumerate(truths)}


def fixed_set(rng: np.random.Generator, n: int, resamples: int) -> dict[str, bool]:
    """The true differences vary among probes; the truth is their mean on these probes."""
    base, effects = rng.normal(14, 3, n), rng.normal(0, 1, n)
    found = fixed_set_difference(_repeated(rng, base + effects), _repeated(rng, base))
    return {"fixed set t": holds(found, float(effects.mean()))}


def length(rng: np.random.Generator, n: int, resamples: int) -> dict[str, bool]:
    """Longer answers score more by 0.02 a word and are longer by 30; at equal length there is no effect."""
    words, noise = rng.normal(30, 40, n), rng.normal(0, 1, n)
    labels = np.arange(n) % 10
    alike = math.sqrt(0.1) * rng.normal(0, 1, 10)[labels] + math.sqrt(0.9) * noise
    return {
        "length-controlled, HC3 t": holds(length_controlled(0.02 * words + noise, words).effect, 0.0),
        "length-controlled in 10 domains, CR2 t": holds(
            length_controlled(0.02 * words + alike, words, list(labels)).effect, 0.0
        ),
    }


def ranks(rng: np.random.Generator, n: int, resamples: int) -> dict[str, bool]:
    """Cliff's delta of two arms that are alike is 0."""
    draws = {kind: DESIGNS[kind].make(rng, n) for kind in ("continuous", "ordinal 1-10")}
    return {
        f"Cliff's delta, {kind}": holds(cliffs_delta(draw.treatment, draw.baseline, n_resamples=resamples), 0.0)
        for kind, draw in draws.items()
    }


def shares(rng: np.random.Generator, n: int, resamples: int) -> dict[str, bool]:
    """Shares of 5 and of 60 in a hundred."""
    return {f"Clopper-Pearson, share {p}": holds(rate(int(rng.binomial(n, p)), n), p) for p in (0.05, 0.6)}


def margins(rng: np.random.Generator, n: int, resamples: int) -> dict[str, bool]:
    """The true difference lies on the margin, so that passing is an error."""
    at_margin = continuous(rng, n).differences - 2.0
    skewed = -(rng.exponential(2, n) - 2) - 2.0
    return {
        "non-inferiority at the margin": non_inferior(at_margin, 2.0, n_resamples=resamples).passed,
        "non-inferiority at the margin, skewed": non_inferior(skewed, 2.0, n_resamples=resamples).passed,
        "equivalence (TOST) at the margin": equivalent(at_margin, 2.0, n_resamples=resamples).passed,
    }


def families(rng: np.random.Generator, n: int, resamples: int) -> dict[str, bool]:
    """Any finding among eight correlated metrics without an effect."""
    table = rng.normal(0, 1, (n, 8)) + rng.normal(0, 1, (n, 1))
    p = [float(value) for value in sps.ttest_1samp(table, 0.0).pvalue]
    return {
        "any of 8 metrics, uncorrected": min(p) <= 0.05,
        "any of 8 metrics, Holm": min(holm(p)) <= 0.05,
        "any of 8 metrics, Benjamini-Hochberg": min(benjamini_hochberg(p)) <= 0.05,
    }


def _ratings(rng: np.random.Generator, n: int) -> Array:
    """Two raters on a scale of five, who see the same thing through noise."""
    truth = rng.normal(3, 1, n)
    return np.asarray([np.clip(np.round(truth + rng.normal(0, 0.7, n)), 1, 5) for _ in range(2)])


def agreement(rng: np.random.Generator, n: int, resamples: int) -> dict[str, bool]:
    """Alpha and kappa of many more units than any run has are the truth."""
    table = _ratings(rng, n)
    return {
        "Krippendorff's alpha, ordinal": holds(krippendorff_alpha(table), TRUE_AGREEMENT["alpha"]),
        "weighted kappa, quadratic": holds(weighted_kappa(*table), TRUE_AGREEMENT["kappa"]),
    }


def _true_agreement() -> dict[str, float]:
    table = _ratings(np.random.default_rng(0), 400_000)
    apart, anyhow = ((table[0] - table[1]) ** 2).mean(), table.var(axis=1).sum() + np.diff(table.mean(axis=1))[0] ** 2
    return {
        "alpha": float(alpha(reliability_data=table, level_of_measurement="ordinal")),
        "kappa": float(1 - apart / anyhow),
    }


def corrected(rng: np.random.Generator, n: int, resamples: int) -> dict[str, bool]:
    """A judge of sensitivity 0.85 and specificity 0.9 on n answers of which 40% are positive; 100 others are labelled.

    A rate that is not identified holds nothing, and so counts as a miss.
    """
    seen = int(rng.binomial(n, 0.4 * 0.85 + 0.6 * 0.1))
    found = {}
    for n_positive, n_negative in ((50, 50), (10, 90)):
        labelled = (int(rng.binomial(n_positive, 0.85)), n_positive, int(rng.binomial(n_negative, 0.9)), n_negative)
        name = f"corrected share, {n_positive} and {n_negative} labels"
        found[name] = holds(corrected_rate(seen, n, *labelled).corrected, 0.4)
    return found


TRUE_AGREEMENT: dict[str, float] = {}
COVERING = {
    "fixed set": fixed_set, "length": length, "ranks": ranks, "shares": shares, "agreement": agreement,
    "corrected": corrected,
}  # fmt: skip
ERRING = {"margins": margins, "families": families}
# The place of a part is in its seed: a new one goes to the end, so that the figures of the others stay as they are.
PARTS = ("fixed set", "length", "ranks", "shares", "agreement", "margins", "families", "corrected")


def others(settings: Settings, parts: Sequence[str] = PARTS) -> list[Rate]:
    """Coverage and errors of the methods that are not intervals or tests of one mean difference.

    Agreement is computed anew without each unit, and therefore gets a quarter of the draws.
    """
    gc.freeze()  # statsmodels collects garbage at every correction, and all that was imported would be looked through
    if "agreement" in parts and not TRUE_AGREEMENT:
        TRUE_AGREEMENT.update(_true_agreement())
    found: list[Rate] = []
    for number, name in enumerate(PARTS):
        part = {**COVERING, **ERRING}[name]
        for n in SIZES if name in parts else ():
            rng = np.random.default_rng([settings.seed, 1000 + number, n])
            draws = settings.draws // (4 if name == "agreement" else 1)
            outcomes = (part(rng, n, settings.resamples) for _ in range(draws))
            found += _counted("", n, 0.95 if name in COVERING else 0.05, outcomes)
    gc.unfreeze()
    return found


def table(rates: Sequence[Rate], methods: Sequence[str]) -> str:
    """Markdown: a row per design and n, a column per method; empty where a method doesn't apply."""
    cells = {(each.design, each.n, each.method): f"{100 * each.share:.1f}" for each in rates}
    lines = ["| data | n | " + " | ".join(methods) + " |", "|---|---|" + "---|" * len(methods)]
    for design, n in dict.fromkeys((each.design, each.n) for each in rates if each.method in methods):
        row = [cells.get((design, n, method), "") for method in methods]
        lines.append(f"| {design} | {n} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def list_table(rates: Sequence[Rate]) -> str:
    """Markdown: a row per method, its claim, a column per n."""
    cells = {(each.method, each.n): f"{100 * each.share:.1f}" for each in rates}
    lines = ["| method | claims | " + " | ".join(f"n = {n}" for n in SIZES) + " |", "|---|---|" + "---|" * len(SIZES)]
    for method, claim in dict.fromkeys((each.method, each.claim) for each in rates):
        claimed = f"holds the truth {100 * claim:.0f}%" if claim > 0.5 else f"errs at most {100 * claim:.0f}%"
        lines.append(f"| {method} | {claimed} | " + " | ".join(cells[method, n] for n in SIZES) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=Settings.draws)
    parser.add_argument("--resamples", type=int, default=Settings.resamples)
    parser.add_argument("--seed", type=int, default=Settings.seed)
    settings = Settings(**vars(parser.parse_args()))
    print(f"{settings.draws} draws, {settings.resamples} resamples, seed {settings.seed}\n", flush=True)
    rates = differences(settings)
    print(table(rates, COVERAGE), table(rates, ERRORS), sep="\n\n", flush=True)
    print("\n" + list_table(others(settings)))


if __name__ == "__main__":
    main()
