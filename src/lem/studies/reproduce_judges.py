"""The judges of a reproduction, looked at before anything is trained: are they there, and of no arm's lineage?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lem.chat.load import load
from lem.data.prices import read_prices
from lem.judges.backends.budget import Budget
from lem.judges.lineage import LOCAL
from lem.judges.manifest import check_pedigree
from lem.judges.spec import JudgeSpec, open_judge
from lem.records import RunInfo
from lem.studies.reproduce_options import Extras


def check_judge(spec: JudgeSpec, runs: Sequence[Mapping[str, str]], extras: Extras) -> None:
    """Open a judge and close it again.

    Args:  runs: for each run that it is to rate, arm -> model.
    Raises: UserError for a missing key, model, server or price, and for kinship with an arm unless that is allowed.
    """
    prices = {} if extras.prices is None else read_prices(Path(extras.prices).expanduser())
    limit = None if spec.backend == LOCAL else extras.max_cost  # a local judge costs no money
    budget = Budget(limit, prices.get(spec.name) or prices.get(spec.model))
    with open_judge(spec, budget=budget) as judge:
        for arms in runs:
            info = RunInfo(run_id="", kind="eval", arms={arm: _facts(model) for arm, model in arms.items()})
            check_pedigree(judge.identity, info, allow_self_judge=extras.allow_self_judge)


def _facts(model: str) -> dict[str, object]:
    """What `run.json` says of an arm that is a model alone; no weights are loaded."""
    chat = load(model, need_template=False, weights=False)
    return {"model": chat.name, "model_sha": chat.model_sha, "identity": chat.identity}
