"""A judge's manifest in a run: who it is, by which rubrics, in kin with which arms, and what its calls took."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lem.errors import ResumeMismatch, UserError
from lem.judges.lineage import LOCAL, Kin, kinship, lineage_notes
from lem.judges.panel import PANEL, panel_judgements
from lem.judges.protocol import JudgeIdentity
from lem.paths import slug
from lem.records import Judgement, RunInfo, write_atomic
from lem.records.contents import read_contents, read_judgements
from lem.records.judge_files import PAIRS, read_judge_manifests
from lem.records.run import now


@dataclass(frozen=True)
class Pedigree:
    """What binds a judge to the arms that it judges, and what is not known of it."""

    kin: tuple[Kin, ...]
    notes: tuple[str, ...]


def check_pedigree(identity: JudgeIdentity, info: RunInfo, *, allow_self_judge: bool) -> Pedigree:
    """Refuse a judge of one lineage with a contestant, and a name that its files cannot have.

    Raises: UserError naming judge, arm and reason, unless self-judging is allowed, which every table then says.
    """
    _check_name(identity.name)
    kin = tuple(kinship(identity, info))
    if kin and not allow_self_judge:
        raise UserError(
            f"the judge '{identity.name}' is of one lineage with arm '{kin[0].arm}' ({kin[0].why.rstrip('.')}), and "
            "models rate their own kind too well; take another --judge, or --allow-self-judge, which watermarks every "
            "table."
        )
    return Pedigree(kin, tuple(lineage_notes(identity, info)))


SCORER = "scorer"  # what a metric says of its source where no judge stands behind it


def _check_name(name: str) -> None:
    """Refuse a name whose files would be those of something else.   Raises: UserError."""
    folded = name.casefold()  # files of one name but for its case are one file on some disks
    if folded in (PANEL, SCORER) or folded.endswith(PAIRS) or slug(name) != name:
        raise UserError(
            f"'{name}' is no name for a judge, because its files would not be told apart from others; give another one "
            "with --judge NAME=SPEC."
        )


def check_same_judge(run: Path, identity: JudgeIdentity) -> None:
    """Refuse another model or setting under the name of a judge that has judged this run already.

    Raises: ResumeMismatch.
    """
    manifests = read_judge_manifests(run)
    twin = next((n for n in manifests if n != identity.name and n.casefold() == identity.name.casefold()), None)
    if twin is not None:
        raise ResumeMismatch(
            f"{run}: a judge '{twin}' has judged here, and '{identity.name}' differs from it in case only; give this "
            "judge another name with --judge NAME=..., nothing was touched."
        )
    before = manifests.get(identity.name)
    if before is None or not any(one.judge == identity.name for one in read_judgements(run)):
        return
    if not same_judge(before, identity):
        raise ResumeMismatch(
            f"{run}: the judge '{identity.name}' has judged here as {before.get('backend')} {before.get('model')}, "
            f"with another model or other settings than this {identity.backend} {identity.model}; give this judge a "
            "name of its own with --judge NAME=..., nothing was touched."
        )


def same_judge(stored: Mapping[str, Any], identity: JudgeIdentity) -> bool:
    """Whether backend, model and settings that are stored of a judge are this one's.

    Of a local judge the path is no part, because its settings have the hashes of the weights.
    """
    by_model = identity.backend != LOCAL
    now_is = json.loads(json.dumps([identity.backend, identity.settings, identity.model if by_model else None]))
    was = [stored.get("backend"), stored.get("settings"), stored.get("model") if by_model else None]
    return bool(was == now_is)


def remove_unused(run: Path, identity: JudgeIdentity) -> None:
    """Remove the manifest of a judge that has said nothing."""
    if not any(one.judge == identity.name for one in read_judgements(run)):
        (run / "judgements" / f"{slug(identity.name)}.json").unlink(missing_ok=True)


def write_manifest(
    run: Path, identity: JudgeIdentity, pedigree: Pedigree, *, rubrics: Mapping[str, str], command: Sequence[str],
    currency: str = "", adapted: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Write `judgements/<judge>.json` over what is stored; rubrics and kin of earlier passes stay in it.

    Args:  rubrics: dimension -> version and hash of its rubric.  adapted: what the service refused of a request.
    Returns: the manifest.
    """
    before = read_judge_manifests(run).get(identity.name, {})
    stored = [one for one in read_judgements(run) if one.judge == identity.name]
    known = {entry["arm"]: entry for entry in before.get("kin", [])}
    manifest = {
        **asdict(identity),
        "judge": identity.name,
        "reported_models": sorted({one.model for one in stored if one.model}),
        "rubrics": {**before.get("rubrics", {}), **rubrics},
        "kin": list({**known, **{kin.arm: asdict(kin) for kin in pedigree.kin}}.values()),
        "allow_self_judge": bool(pedigree.kin) or before.get("allow_self_judge", False),
        "notes": list(dict.fromkeys([*before.get("notes", []), *pedigree.notes])),
        "adapted": list(dict.fromkeys([*before.get("adapted", []), *adapted])),
        **totals(stored),
        "currency": currency or before.get("currency", ""),
        "command": list(command),
        "created": before.get("created") or now(),
        "updated": now(),
    }
    path = run / "judgements" / f"{slug(identity.name)}.json"
    write_atomic(path, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return manifest


def totals(stored: Iterable[Judgement]) -> dict[str, Any]:
    """Calls, tokens and cost of stored judgements; a sum is None where a part of it is not known.

    The judgements of one call have one prompt, and the first of them holds its tokens and cost.
    """
    calls: dict[tuple[Any, ...], Judgement] = {}
    unscored: Counter[str] = Counter()
    for one in stored:
        calls.setdefault((*one.key, one.order, one.against, one.prompt_sha), one)
        unscored.update([one.unscored] if one.unscored else [])

    def total(name: str) -> Any:
        parts = [getattr(one, name) for one in calls.values()]
        return None if any(part is None for part in parts) else sum(parts)

    return {
        "calls": len(calls),
        "n_prompt_tokens": total("n_prompt_tokens"),
        "n_tokens": total("n_tokens"),
        "cost": total("cost"),
        "unscored": dict(unscored),
    }


def write_panel(run: Path) -> None:
    """Derive the ratings of the panel from those of its judges: `judgements/panel.jsonl`, gone with fewer than two."""
    path = run / "judgements" / f"{PANEL}.jsonl"
    rows = panel_judgements(read_contents(run))
    if rows:
        write_atomic(
            path, "".join(json.dumps(row.to_row(), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        )
    else:
        path.unlink(missing_ok=True)
