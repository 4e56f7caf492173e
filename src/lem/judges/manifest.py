"""A judge's manifest in a run: who it is, by which rubrics, in kin with which arms, and what its calls took."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lem.errors import ResumeMismatch, UserError
from lem.judges.backends.faults import was_refused
from lem.judges.lineage import LOCAL, Kin, kinship, lineage_notes
from lem.judges.panel import PANEL, panel_judgements
from lem.judges.protocol import JudgeIdentity
from lem.paths import slug
from lem.records import Judgement, RunInfo, write_atomic
from lem.records.contents import read_contents, read_judgements
from lem.records.judge_files import PAIRS, Rated, joined_compared, joined_rated, read_judge_manifests, with_arms
from lem.records.run import now, read_manifest
from lem.records.store import read_jsonl


@dataclass(frozen=True)
class Pedigree:
    """What binds a judge to the arms that it judges, and what is not known of it.

    It is `refused` where kin showed itself only in a reply, and self-judging was not allowed.
    """

    kin: tuple[Kin, ...]
    notes: tuple[str, ...]
    refused: bool = False


def check_pedigree(
    identity: JudgeIdentity, info: RunInfo, *, allow_self_judge: bool, reported: Sequence[str] = ()
) -> Pedigree:
    """Refuse a judge of one lineage with a contestant, and a name that its files cannot have.

    Args:  reported: the models that its replies are said to be of.
    Raises: UserError naming judge, arm and reason, unless self-judging is allowed, which every table then says.
    """
    _check_name(identity.name)
    kin = tuple(kinship(identity, info, reported))
    if kin and not allow_self_judge:
        raise UserError(
            f"the judge '{identity.name}' is of one lineage with arm '{kin[0].arm}' ({kin[0].why.rstrip('.')}), and "
            "models rate their own kind too well; take another --judge, or --allow-self-judge, which watermarks every "
            "table."
        )
    return Pedigree(kin, tuple(lineage_notes(identity, info, reported)))


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
            f"and {what_differs(before, identity)}"
        )


def same_judge(stored: Mapping[str, Any], identity: JudgeIdentity) -> bool:
    """Whether backend, model and settings that are stored of a judge are this one's.

    Of a local judge the path is no part, because its settings have the hashes of the weights.
    """
    return not _differences(stored, identity)


def what_differs(stored: Mapping[str, Any], identity: JudgeIdentity) -> str:
    """The end of a refusal: in what this judge is another one than the one that is stored, and what to do."""
    parts = [f"{name}: {_word(now)} instead of {_word(was)}" for name, was, now in _differences(stored, identity)]
    return (
        f"this is another one ({', '.join(parts)}); give this judge a name of its own with --judge NAME=..., nothing "
        "was touched."
    )


def _differences(stored: Mapping[str, Any], identity: JudgeIdentity) -> list[tuple[str, Any, Any]]:
    """(name, what is stored, what is now) of backend, model and settings, where they differ."""
    was: dict[str, Any] = {**(stored.get("settings") or {}), "backend": stored.get("backend")}
    now_is: dict[str, Any] = {**json.loads(json.dumps(identity.settings)), "backend": identity.backend}
    if identity.backend != LOCAL:
        was["model"], now_is["model"] = stored.get("model"), identity.model
    names = dict.fromkeys(["backend", "model", *was, *now_is])
    return [(name, was.get(name), now_is.get(name)) for name in names if was.get(name) != now_is.get(name)]


def _word(value: Any) -> str:
    """A setting for a sentence."""
    if value is None:
        return "nothing"
    return " ".join(value.split()) if isinstance(value, str) else json.dumps(value)


def reported_models(run: Path, judge: str) -> list[str]:
    """The models that a judge's verdicts in a run are said to be of, sorted."""
    return sorted({one.model for one in read_judgements(run) if one.judge == judge and one.model})


def remove_unused(run: Path, identity: JudgeIdentity) -> None:
    """Remove the manifest of a judge that has said nothing and cost nothing."""
    spent = read_judge_manifests(run).get(identity.name, {}).get("cost")
    if not spent and not any(one.judge == identity.name for one in read_judgements(run)):
        (run / "judgements" / f"{slug(identity.name)}.json").unlink(missing_ok=True)


def write_manifest(
    run: Path, identity: JudgeIdentity, pedigree: Pedigree, *, rubrics: Mapping[str, str], command: Sequence[str],
    currency: str = "", adapted: Sequence[str] = (), cut_off: float = 0.0, asked: Mapping[str, Any] | None = None,
    rated: Rated | None = None, compared: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:  # fmt: skip
    """Write `judgements/<judge>.json` over what is stored; rubrics and kin of earlier passes stay in it.

    Args:  rubrics: dimension -> version and hash of its rubric.  adapted: what the service refused of a request.
           cut_off: what calls without a verdict on disk may have cost since the last writing.
           asked: dimension -> manner of asking.  rated: dimension -> benchmark -> arms that were to be rated.
           compared: `treatment`, `baseline` and `tasks` that were asked for.
    Returns: the manifest.
    """
    before = with_arms(read_judge_manifests(run).get(identity.name, {}), read_manifest(run).arms)
    unscored = Counter(one.unscored for one in read_judgements(run) if one.judge == identity.name and one.unscored)
    took, lost = totals(asked_lines(run, identity.name)), before.get("cost_cut_off", 0.0) + cut_off
    known = {entry["arm"]: entry for entry in before.get("kin", [])}
    manifest = {
        **asdict(identity),
        "judge": identity.name,
        "reported_models": reported_models(run, identity.name),
        "rubrics": {**before.get("rubrics", {}), **rubrics},
        "asked": {**before.get("asked", {}), **(asked or {})},
        "rated": joined_rated(before.get("rated", {}), rated or {}),
        "compared": joined_compared([*before.get("compared", []), *compared]),
        "kin": list({**known, **{kin.arm: asdict(kin) for kin in pedigree.kin}}.values()),
        "allow_self_judge": bool(pedigree.kin and not pedigree.refused) or before.get("allow_self_judge", False),
        "notes": list(dict.fromkeys([*before.get("notes", []), *pedigree.notes])),
        "adapted": list(dict.fromkeys([*before.get("adapted", []), *adapted])),
        **took,
        "cost": None if took["cost"] is None else took["cost"] + lost,
        "cost_cut_off": lost,
        "unscored": dict(unscored),
        "currency": currency or before.get("currency", ""),
        "command": list(command),
        "created": before.get("created") or now(),
        "updated": now(),
    }
    path = run / "judgements" / f"{slug(identity.name)}.json"
    write_atomic(path, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return manifest


def asked_lines(run: Path, judge: str) -> list[Judgement]:
    """Every line that a judge's calls have left, in file order: also of those that were asked again since."""
    path = run / "judgements" / f"{slug(judge)}.jsonl"
    rows = read_jsonl(path)[0] if path.is_file() else []
    return [Judgement(**row) for row in rows if row.get("judge") == judge]


def totals(lines: Iterable[Judgement]) -> dict[str, Any]:
    """Calls, tokens and cost behind lines of a judge's file; a sum is None where a part of it is not known.

    The lines of one call stand together, have one prompt and one dimension each, and the first holds its tokens and
    cost. Tokens are those of replies: a call that failed without one adds none, and where a price is known, one that
    the service refused adds no cost.
    """
    calls: list[Judgement] = []
    call: tuple[Any, ...] = ()
    dimensions: set[str] = set()
    for one in lines:
        if (*one.key, one.order, one.against, one.prompt_sha) != call or one.dimension in dimensions:
            call, dimensions = (*one.key, one.order, one.against, one.prompt_sha), set()
            calls.append(one)
        dimensions.add(one.dimension)

    def total(name: str, of: Iterable[Judgement]) -> Any:
        parts = [getattr(one, name) for one in of]
        return None if any(part is None for part in parts) else sum(parts)

    replies = [one for one in calls if one.error is None or one.n_tokens is not None]
    priced = any(one.cost is not None for one in calls)
    charged = [one for one in calls if not (priced and one.cost is None and was_refused(one.error))]
    return {
        "calls": len(calls),
        "n_prompt_tokens": total("n_prompt_tokens", replies),
        "n_tokens": total("n_tokens", replies),
        "cost": total("cost", charged),
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
