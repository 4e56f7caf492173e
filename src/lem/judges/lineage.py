"""Is a judge related to what it judges? By hashes of weights and adapters, by name, by declared family of models.

A judge prefers what resembles it, so a verdict on its own kin is worth little, and one on its own answers nothing.
Hashes prove kinship; names only declare it; that nothing was found proves nothing, and `lineage_notes` says where too
little was known to find anything. An architecture is no lineage: it is named only where nothing else is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lem.judges.ancestry import ADAPTER, MODEL, Ancestry, ancestry_of
from lem.judges.families import known_families, maker_of, short_name
from lem.judges.protocol import JudgeIdentity
from lem.records import RunInfo

WEIGHTS, NAME, FAMILY = "weights", "name", "family"
LOCAL = "mlx"
# Names that folders and servers give to whatever they hold.
_ANYBODYS = {"", "model", "models", "default", "default_model", "main"}
_ORDER = (MODEL, ADAPTER)


@dataclass(frozen=True)
class Kin:
    """An arm that is related to a judge, why (a clause), and by what kind of evidence (WEIGHTS, NAME or FAMILY)."""

    arm: str
    why: str
    kind: str = WEIGHTS


def kinship(judge: JudgeIdentity, info: RunInfo, reported: Sequence[str] = ()) -> list[Kin]:
    """Every arm that shares weights, adapter, ancestor, name or declared family with the judge, with the best reason.

    In the order of the run's arms, each at most once. Weights count as shared with every arm that is built on them, be
    it with an adapter or a kernel.

    Args:  reported: the models that a service says have answered; kin of any of them is kin of the judge.
    """
    selves = [judge_ancestry(judge), *(judge_ancestry(one) for one in _answering(judge, reported))]
    found = []
    for arm, facts in info.arms.items():
        other = arm_ancestry(facts)
        why, kind = next((reason for own in selves if (reason := evidence(own, other))[0]), ("", ""))
        found += [Kin(arm, why, kind)] if why else []
    return found


def _answering(judge: JudgeIdentity, reported: Sequence[str]) -> list[JudgeIdentity]:
    """The judge under each model that was reported; a local judge reports its hashes, which are known."""
    known = [] if judge.backend == LOCAL else reported
    names = judge.lineage.get("names", [])
    return [replace(judge, model=model, lineage={**judge.lineage, "names": [*names, model]}) for model in known]


def evidence(own: Ancestry, other: Ancestry) -> tuple[str, str]:
    """(why, kind) of the strongest evidence that a judge and an arm are related; ("", "") without any."""
    shared = [sha for sha in own.shas if sha in other.shas]
    if shared:
        sha = min(shared, key=lambda one: _rank(own.shas[one]) + _rank(other.shas[one]))
        return f"the weights {sha[:12]} are {own.shas[sha]} of the judge and {other.shas[sha]} of the arm", WEIGHTS
    names = _own_names(own) & _own_names(other)
    if names:
        return f"the judge and the arm's model have one name, {sorted(names)[0]}", NAME
    for family, name in own.families.items():
        if family in other.families:
            said = f"the judge by the name {name}, the arm by {other.families[family]}"
            return f"both are of the family {family}, {said}", FAMILY
    return "", ""


def _own_names(found: Ancestry) -> set[str]:
    return {short_name(name) for name in found.models} - _ANYBODYS


def _rank(part: str) -> int:
    return _ORDER.index(part) if part in _ORDER else len(_ORDER)


def judge_ancestry(judge: JudgeIdentity) -> Ancestry:
    """What is known of a judge: its own declaration and, for a local model, the files beside its weights."""
    shas = judge.lineage.get("sha", [])
    parts = {sha: MODEL if number == 0 else "an ancestor" for number, sha in enumerate(shas)}
    adapter = judge.settings.get("adapter")
    if adapter in parts:
        parts[adapter] = ADAPTER
    found = ancestry_of(judge.model, parts)
    found.add_names(judge.lineage.get("names", []))
    return found


def arm_ancestry(facts: Mapping[str, Any]) -> Ancestry:
    """What is known of an arm, from its entry in `run.json` and the folders that it names."""
    identity = facts.get("identity") or {}
    adapter_sha = facts.get("adapter_sha") or identity.get("adapter")
    shas = {facts.get("model_sha"): MODEL, identity.get("model"): MODEL, adapter_sha: ADAPTER}
    found = ancestry_of(facts.get("model"), shas, facts.get("adapter"), adapter_sha)
    found.add_names([facts.get("published_name")])
    return found


def unknown_lineage(judge: JudgeIdentity) -> str | None:
    """A sentence if it is not known what a judge descends from; None when its name, files or card say so.

    A local judge's weights have a hash, so that it is recognised among the arms; its ancestors may still be unknown.
    """
    own = judge_ancestry(judge)
    if own.families:
        return None
    if judge.backend == LOCAL or own.shas:
        built = f" (its architecture, {own.architecture}, is no origin)" if own.architecture else ""
        return (
            f"it is not known what the weights of the judge '{judge.name}' descend from{built}; only identical weights "
            "would show that it is related to an arm."
        )
    return (
        f"nothing is known of the lineage of the judge '{judge.name}': its model name '{judge.model}' is of no known "
        "family, so it may be related to any arm."
    )


def lineage_notes(judge: JudgeIdentity, info: RunInfo, reported: Sequence[str] = ()) -> list[str]:
    """What a reader should know of a judge's lineage though it is no kinship, as sentences.

    An unknown judge, arms of unknown lineage (one sentence for all), and families of one maker.

    Args:  reported: the models that a service says have answered; they speak for the judge in place of its own name.
    """
    selves = _answering(judge, reported)
    if selves:
        return list(dict.fromkeys(note for one in selves for note in lineage_notes(one, info)))
    own = judge_ancestry(judge)
    arms = {arm: arm_ancestry(facts) for arm, facts in info.arms.items()}
    notes = [note] if (note := unknown_lineage(judge)) else []
    unknown = [arm for arm, found in arms.items() if not found.families and not evidence(own, found)[0]]
    if unknown:
        notes.append(f"kinship of '{judge.name}' with {_listed(unknown)} may go unseen: no family of theirs is known.")
    for family in own.families:
        for relative in known_families():
            of_it = [arm for arm, found in arms.items() if relative.name in found.families]
            if of_it and relative.maker == maker_of(family) and relative.name not in own.families:
                notes.append(
                    f"'{judge.name}' ({family}) and {_listed(of_it)} ({relative.name}) have the same maker, "
                    f"{relative.maker}: another lineage, perhaps not another taste."
                )
    return notes


def _listed(arms: list[str]) -> str:
    return ", ".join(f"'{arm}'" for arm in arms)
