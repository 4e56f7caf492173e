"""Rankings across runs as one pandas table: our rows with their uncertainty, published figures marked as such."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pandas as pd

from lem.reports.formats import ABSENT, number

COLUMNS = [
    "metric", "model", "family", "size", "arm", "n", "mean", "low", "high", "rank", "rank_low", "rank_high", "first",
    "n_shared", "unscored", "failed", "missing", "origin", "watermark",
]  # fmt: skip
SHOWN = {
    "model": "model", "arm": "arm", "n": "n", "value": "mean [95%]", "order": "rank [95%]", "first_share": "first",
    "lost": "lost",
}  # fmt: skip


def ranking_frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """A table of one row per arm and metric; `origin` is "ours" or the source of a published figure."""
    return pd.DataFrame(rows, columns=COLUMNS).fillna({"watermark": ""})


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """The same rows as people read them: value with interval, rank with interval, share of first places."""
    text = pd.DataFrame(index=frame.index)
    text["model"] = frame["model"].replace("", "?")
    text["arm"] = frame["arm"]
    text["n"] = [ABSENT if pd.isna(n) else str(int(n)) for n in frame["n"]]
    text["value"] = [_with_limits(*map(number, (row.mean, row.low, row.high))) for row in _rows(frame)]
    text["order"] = [
        _with_limits(_rank(row.rank), _rank(row.rank_low, math.floor), _rank(row.rank_high, math.ceil))
        for row in _rows(frame)
    ]
    text["first_share"] = [number(value) for value in frame["first"]]
    text["lost"] = [_lost(row) for row in _rows(frame)]
    published = frame["origin"] != "ours"
    text.loc[published, "order"] = "published"
    text.loc[published, "lost"] = ""
    if not text["lost"].any():
        text = text.drop(columns="lost")
    if (text["model"] == text["arm"]).all():
        text = text.drop(columns="model")
    return text.rename(columns=SHOWN)


def markdown(frame: pd.DataFrame) -> str:
    """The readable table in markdown; a '|' in a name is escaped."""
    head = [str(name) for name in frame.columns]
    lines = [head, ["---"] * len(head), *(list(map(str, row)) for row in frame.itertuples(index=False))]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _rows(frame: pd.DataFrame) -> list[SimpleNamespace]:
    return [SimpleNamespace(**{str(name): value for name, value in row.items()}) for row in frame.to_dict("records")]


def _with_limits(value: str, low: str, high: str) -> str:
    return value if ABSENT in (low, high) else f"{value} [{low}, {high}]"


def _rank(value: float, towards: Callable[[float], int] = round) -> str:
    """A rank in whole and half places, since ties share the middle of theirs; a limit goes to the half outside it."""
    if value is None or math.isnan(value):
        return ABSENT
    halves = round(2 * value, 9)  # without the dust of the quantiles, which would move a limit by half a place
    return f"{towards(halves) / 2:g}"


def _lost(row: SimpleNamespace) -> str:
    found = [f"{count} {name}" for name in ("unscored", "failed", "missing") if (count := getattr(row, name))]
    return ", ".join(found)
