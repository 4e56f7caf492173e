"""What stands against a comparison: a refusal withholds its verdict, a watermark goes with every one of its numbers.

Refused: arms that were decoded differently, stored at different bits, or whose adapter was trained on the probes
themselves. Watermarked: what weakens a claim without emptying it. Each check returns sentences; none guesses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lem.ab.arm_facts import ArmFacts
from lem.ab.contrast import Contrast
from lem.ab.join import SETTINGS
from lem.ab.roles import is_placebo, placebo_of
from lem.ab.training_data import training_objection
from lem.records import RunInfo
from lem.stats import Estimate

REFUSAL, WATERMARK = "refusal", "watermark"
DECODING = ("temperature", "top_p", "max_tokens")
UNSCORED_GAP = 0.02
TRUNCATED_GAP = 0.05
DUPLICATED = 0.05
FEW_DOMAINS = 5
MOSTLY_TRUNCATED = 0.5


@dataclass(frozen=True)
class Objection:
    """One reason not to take a comparison at its word.

    `arms` are those it is about: it concerns the contrasts that have all of them (none: every contrast), under the
    `metrics` that it names (none: every metric).
    `overridden` is True for a refusal that `--anyway` set aside.
    """

    code: str
    severity: str
    sentence: str
    arms: tuple[str, ...] = ()
    overridden: bool = False
    metrics: tuple[str, ...] = ()

    def concerns(self, *names: str) -> bool:
        """True for a contrast between these arms."""
        return set(self.arms) <= set(names)


def objections(
    info: RunInfo, arms: Mapping[str, ArmFacts], treatments: Sequence[str], contrasts: Sequence[Contrast]
) -> list[Objection]:
    """Everything that stands against these contrasts, refusals first.

    Args:  arms: facts of every arm that takes part.  treatments: those that a causal claim may be made of.
    """
    found: list[Objection] = []
    for treatment, against in dict.fromkeys((contrast.treatment, contrast.baseline) for contrast in contrasts):
        found += _unlike(_facts(info, against), _facts(info, treatment), against, treatment)
        found += _endings(arms[against], arms[treatment])
        found += _other_probes(info, treatment, against)
    found += _mostly_cut_off(arms, contrasts)
    for treatment in treatments:
        found += _no_placebo(info, treatment, arms)
    for name, facts in arms.items():
        found += _holes(facts)
        if objection := training_objection(info, name):
            found.append(Objection(*objection, (name,)))
    for contrast in contrasts:
        found += _unscored_gap(contrast)
    found += _few_domains(contrasts)
    return sorted(found, key=lambda objection: objection.severity != REFUSAL)


def _facts(info: RunInfo, arm: str) -> dict[str, Any]:
    """What is known of an arm, with the settings it was decoded with (those of the run unless it has its own)."""
    return {SETTINGS: info.settings, **info.arms.get(arm, {})}


def _unlike(base: Mapping[str, Any], other: Mapping[str, Any], baseline: str, treatment: str) -> Iterator[Objection]:
    """Decoding, sampled range, bits and floating type must be the same."""
    ours, theirs = base.get(SETTINGS, {}), other.get(SETTINGS, {})
    pair = (treatment, baseline)
    different = [
        f"{name} {ours[name]:g} and {theirs[name]:g}"
        for name in DECODING
        if _number(ours.get(name)) and _number(theirs.get(name)) and ours[name] != theirs[name]
    ]
    if different:
        sentence = f"'{baseline}' and '{treatment}' were decoded differently ({', '.join(different)})."
        yield Objection("decoding", REFUSAL, sentence, pair)
    unknown = [name for name in DECODING if not (_number(ours.get(name)) and _number(theirs.get(name)))]
    if unknown and not different:
        names = ", ".join(name.replace("_", "-") for name in unknown)
        sentence = f"it is not known whether '{baseline}' and '{treatment}' were decoded alike ({names} not given)."
        yield Objection("decoding-unknown", WATERMARK, sentence, pair)
    if _number(base.get("bits")) and _number(other.get("bits")) and base["bits"] != other["bits"]:
        sentence = (
            f"'{baseline}' is stored at {base['bits']} bits and '{treatment}' at {other['bits']}; compare models at "
            "equal bits."
        )
        yield Objection("bits", REFUSAL, sentence, pair)
    types = [(facts.get("identity") or {}).get("dtype") for facts in (base, other)]
    if all(types) and types[0] != types[1]:
        sentence = f"'{baseline}' was run in {types[0]} and '{treatment}' in {types[1]}."
        yield Objection("dtype", REFUSAL, sentence, pair)


def unlike_arms(info: RunInfo) -> list[str]:
    """What sets the first arm apart from the others in decoding, bits or floating type, as sentences."""
    names = list(info.arms)
    pairs = [(names[0], other) for other in names[1:]]
    found = [o for first, other in pairs for o in _unlike(_facts(info, first), _facts(info, other), first, other)]
    return [objection.sentence for objection in found]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _no_placebo(info: RunInfo, treatment: str, arms: Mapping[str, ArmFacts]) -> Iterator[Objection]:
    """A kernel or an adapter that was not compared with a placebo of its kind allows no causal sentence."""
    facts = info.arms.get(treatment, {})
    steered = facts.get("kernel") or facts.get("adapter") or facts.get("published_name")
    if not steered or is_placebo(treatment) or placebo_of(treatment, info.arms) is not None:
        return
    sentence = (
        f"'{treatment}' has no placebo arm beside it, so a change says that the answers differ, not that the content "
        "of the kernel did it."
    )
    yield Objection("no-placebo", WATERMARK, sentence, (treatment,))


def _endings(base: ArmFacts, other: ArmFacts) -> Iterator[Objection]:
    gap = other.truncated.value - base.truncated.value
    if abs(gap) > TRUNCATED_GAP:
        sentence = (
            f"{_share(other.truncated)} of the answers of '{other.name}' were cut off by the token limit and "
            f"{_share(base.truncated)} of those of '{base.name}'; scores that depend on length are not comparable."
        )
        yield Objection("truncation", WATERMARK, sentence, (other.name, base.name))


def _mostly_cut_off(arms: Mapping[str, ArmFacts], contrasts: Sequence[Contrast]) -> Iterator[Objection]:
    """Pairs of arms of which most answers were cut off alike; one sentence where that is so of every pair."""
    pairs = list(dict.fromkeys((arms[c.baseline], arms[c.treatment]) for c in contrasts))
    cut = [pair for pair in pairs if min(arm.truncated.value for arm in pair) > MOSTLY_TRUNCATED]
    alike = [pair for pair in cut if abs(pair[0].truncated.value - pair[1].truncated.value) <= TRUNCATED_GAP]
    whole = len(alike) == len(pairs) > 1
    for group in [tuple(dict.fromkeys(arm for pair in pairs for arm in pair))] if whole else alike:
        names = " and ".join([", ".join(f"'{arm.name}'" for arm in group[:-1]), f"'{group[-1].name}'"])
        shares = " and ".join([", ".join(_share(arm.truncated) for arm in group[:-1]), _share(group[-1].truncated)])
        sentence = (
            f"most answers of {names} were cut off by the token limit ({shares}), so beginnings are compared, not "
            "answers."
        )
        concerned = () if whole else tuple(arm.name for arm in reversed(group))
        yield Objection("cut-off", WATERMARK, sentence, concerned)


def _other_probes(info: RunInfo, treatment: str, against: str) -> Iterator[Objection]:
    """Runs that were asked different probes: only the shared ones are compared."""
    asked: dict[str, set[str]] = {treatment: set(), against: set()}
    for group in info.groups.values():
        if group["arm"] in asked:
            asked[group["arm"]].update(group["probes"])
    first, second = asked[treatment], asked[against]
    if first and second and first != second:
        sentence = (
            f"'{treatment}' was asked {len(first)} probes and '{against}' {len(second)}; "
            f"only the {len(first & second)} that both were asked are compared."
        )
        yield Objection("probes", WATERMARK, sentence, (treatment, against))


def _share(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.0f}%"


def _holes(facts: ArmFacts) -> Iterator[Objection]:
    if facts.missing or facts.failed:
        sentence = (
            f"'{facts.name}' has {facts.answered} of {facts.planned} planned answers ({facts.failed} failed, "
            f"{facts.missing} missing); probes without an answer in both arms are left out of every difference."
        )
        yield Objection("missing", WATERMARK, sentence, (facts.name,))
    if facts.duplicates > DUPLICATED * facts.answered:
        sentence = (
            f"{facts.duplicates} of {facts.answered} answers of '{facts.name}' equal another repeat of the same "
            "probe, so its repeats carry less information than their number."
        )
        yield Objection("duplicates", WATERMARK, sentence, (facts.name,))


def _unscored_gap(contrast: Contrast) -> Iterator[Objection]:
    shares = {}
    for arm, counts in contrast.counts.items():
        answered = counts.scored + counts.unscored
        shares[arm] = counts.unscored / answered if answered else 0.0
    gap = shares[contrast.treatment] - shares[contrast.baseline]
    if abs(gap) > UNSCORED_GAP:
        sentence = (
            f"{contrast.metric} could not be scored on {100 * shares[contrast.treatment]:.0f}% of the answers of "
            f"'{contrast.treatment}' and {100 * shares[contrast.baseline]:.0f}% of those of '{contrast.baseline}'."
        )
        yield Objection("unscored", WATERMARK, sentence, (contrast.treatment, contrast.baseline))


def _few_domains(contrasts: Sequence[Contrast]) -> Iterator[Objection]:
    """With so few domains the cluster-robust interval is wide for want of knowledge, and that has to be said."""
    few: dict[int, list[str]] = {}
    for metric, found in {contrast.metric: contrast.cluster for contrast in contrasts}.items():
        if found is not None and found.n_clusters is not None and found.n_clusters < FEW_DOMAINS:
            few.setdefault(found.n_clusters, []).append(metric)
    for n_domains, metrics in few.items():
        sentence = (
            f"the probes of {', '.join(metrics)} are of {n_domains} domains only, too few to know how alike the "
            "answers within one are; the headline interval is as wide as that makes it, the BCa interval takes the "
            "probes as independent."
        )
        yield Objection("few-domains", WATERMARK, sentence, metrics=tuple(metrics))
