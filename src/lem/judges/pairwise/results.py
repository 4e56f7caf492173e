"""The win rates of a run as files: `judgements/<judge>.pairs.json`, derived from the comparisons and remade at will."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lem.judges.pairwise.outcomes import comparisons_of, pair_judges
from lem.judges.pairwise.pairs import PREFERENCE
from lem.judges.pairwise.panel import panel_win_rate
from lem.judges.pairwise.win_rates import win_rate
from lem.judges.panel import PANEL
from lem.paths import slug
from lem.records import RunContents, write_atomic
from lem.records.contents import read_contents
from lem.records.judge_files import PAIRS


def write_pair_results(run: Path) -> dict[str, list[dict[str, Any]]]:
    """Compute the win rate of every comparison that a judge was asked for, the panel's too, and write a file per judge.

    The panel are the judges that have verdicts. Files of judges whose comparisons are gone are removed.

    Returns: what was written, by judge.
    """
    contents = read_contents(run)
    found: dict[str, list[dict[str, Any]]] = {}
    for (baseline, treatment), asked in comparisons_of(contents).items():
        for judge in asked:
            rate = asdict(win_rate(contents, baseline, treatment, judge=judge))
            found.setdefault(judge, []).append(rate)
        judges = pair_judges(contents, baseline, treatment)
        if len(judges) > 1:
            found.setdefault(PANEL, []).append(_panel(contents, baseline, treatment, judges))
    names = {f"{slug(judge)}{PAIRS}.json" for judge in found}
    for file in (run / "judgements").glob(f"*{PAIRS}.json"):
        if file.name not in names:
            file.unlink()
    for judge, rates in found.items():
        text = json.dumps(_plain(rates), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomic(run / "judgements" / f"{slug(judge)}.pairs.json", text)
    return found


def _panel(contents: RunContents, baseline: str, treatment: str, judges: list[str]) -> dict[str, Any]:
    """The majority's win rate, with the rates without each judge and those that the outcome hangs on."""
    panel = panel_win_rate(contents, baseline, treatment, judges=judges, dimension=PREFERENCE)
    without = {judge: asdict(rate) for judge, rate in panel.without.items()}
    return {**asdict(panel.rate), "judges": list(panel.judges), "without": without, "dependent": list(panel.dependent)}


def _plain(value: Any) -> Any:
    """The value with null for every number that does not exist."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
