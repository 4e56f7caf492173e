"""What a finished demo run shows: the object of `paper/data/demo.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lem.ab.compare import Declared, Options, compare
from lem.ab.plan_deviations import deviations
from lem.errors import UserError
from lem.paths import display_path
from lem.records import RunContents, read_contents
from lem.studies.paper_data import SCHEMA, contrast_row, estimate_row, method, rounded


def demonstration(run: Path) -> dict[str, Any]:
    """What a finished demo run shows: set-up, its contrasts with verdicts, held-out loss of its adapter.

    Raises: UserError if the run is not finished or has no trained arm.
    """
    from lem.studies.demo import held_out_loss

    contents = read_contents(run)
    info = contents.info
    if info.status != "done" or "trained" not in info.arms or not contents.scores:
        raise UserError(f"{display_path(run)}: not a finished demo run; make one with `./lem demo`, and score it.")
    declared, departures = _declared(contents)
    comparison = compare(contents, Options(baseline="base"), declared, departures)
    adapter = Path(str(info.arms["trained"]["adapter"]))
    configuration = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    folder = Path(configuration["data"])
    loss = held_out_loss(str(info.arms["trained"]["model"]), adapter, folder / "test.jsonl")
    pairs = zip(comparison.contrasts, comparison.verdicts, strict=True)
    data: dict[str, Any] = rounded({
        "schema": SCHEMA, "kind": "paper data", "title": "demonstration",
        "model": Path(str(info.arms["base"]["model"])).name,
        "settings": {name: info.settings[name] for name in ("max_tokens", "temperature", "top_p", "seed", "repeats")
                     if name in info.settings},
        "probe_sha": info.data["probe_sha"],
        "n_probes": len(info.probes), "n_domains": len({probe["domain"] for probe in info.probes}),
        "training": {
            "examples": _rows(folder / "train.jsonl"), "held_out": _rows(folder / "test.jsonl"),
            **{name: configuration["training"][name] for name in ("iters", "batch_size", "learning_rate")},
        },
        "held_out_loss": {"base": estimate_row(loss.base), "trained": estimate_row(loss.trained),
                          "change": estimate_row(loss.change.difference)},
        "arms": {arm.name: {"answers": arm.answered, "truncated": arm.truncated.value,
                            "mean_words": arm.mean_words.value} for arm in comparison.arms},
        "method": method(),
        "contrasts": [
            {name: value for name, value in contrast_row(found, said).items() if name != "differences"}
            for found, said in pairs
        ],
        "n_primary": comparison.n_primary, "n_exploratory": comparison.n_exploratory,
        "objections": [found.sentence for found in comparison.objections],
        "deviations": list(comparison.deviations),
    })  # fmt: skip
    return data


def _rows(path: Path) -> int:
    return sum(1 for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


def _declared(contents: RunContents) -> tuple[Declared | None, list[str]]:
    """What the plan of a run declared, and where the run departs from it; (None, []) for a run without a plan."""
    plan = contents.info.plan
    if not plan:
        return None, []
    exclusions = {entry["probe_id"]: entry["reason"] for entry in plan["exclusions"]}
    pairs = tuple((str(metric), str(arm)) for metric, arm in plan["primary"])
    return Declared(pairs, dict(plan["margins"]), exclusions, str(plan["sha"])), deviations(plan, contents)
