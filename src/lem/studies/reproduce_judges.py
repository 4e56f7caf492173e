"""The judges of a reproduction, looked at before anything is trained: are they there, and of no arm's lineage?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lem.chat.load import load
from lem.judges.manifest import check_pedigree
from lem.judges.spec import JudgeSpec, open_judge
from lem.records import RunInfo


def check_judges(specs: Sequence[JudgeSpec], models: Sequence[Mapping[str, str]], *, allow_self_judge: bool) -> None:
    """Open every judge and close it again.

    Args:  models: for each run that is to be judged, arm -> model.
    Raises: UserError for a missing key, model or server, and for kinship with an arm unless that is allowed.
    """
    runs = [RunInfo(run_id="", kind="eval", arms={arm: _facts(arms[arm]) for arm in arms}) for arms in models]
    for spec in specs:
        with open_judge(spec) as judge:
            for info in runs:
                check_pedigree(judge.identity, info, allow_self_judge=allow_self_judge)


def _facts(model: str) -> dict[str, object]:
    """What `run.json` says of an arm that is a model alone; no weights are loaded."""
    chat = load(model, need_template=False, weights=False)
    return {"model": chat.name, "model_sha": chat.model_sha, "identity": chat.identity}
