"""Win rates for a terminal of 80 columns: a row per comparison, what order and length did to it, and all its counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lem.reports.formats import percent

LEGEND = (
    "Win rate of the treatment over probes with its 95% interval; ties count half. Worst..best: where it would lie if "
    "every unscored pair were lost, and won. u/f/m: pairs unscored (no verdict in both orders, not judged yet, or an "
    "answer cut off while thinking), failed and missing (an answer failed, or is not there). Both orders are judged, "
    "and a verdict that changed with the order is a tie (not consistent). 'At equal length': the length difference "
    "taken out; read it first where it is marked *. 'First': share of verdicts for the answer read first, 50% without "
    "a bias."
)


def win_rates_rich(rates: Sequence[Mapping[str, Any]], watermarks: Sequence[str] = ()) -> RenderableType:
    """The win rates stored in a run's `judgements/<judge>.pairs.json` files, under the watermarks of their judges."""
    if not rates:
        return Text("no comparison of two arms is stored in this run.")
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), header_style="bold")
    table.add_column("treatment vs\nbaseline", overflow="fold")
    table.add_column("judge", overflow="fold")
    for name in ("win rate\nworst..best", "at equal\nlength", "won/tied/\nlost, u/f/m", "consistent\nfirst"):
        table.add_column(Text(name), justify="right", no_wrap=True)
    for rate in rates:
        table.add_row(
            Text(f"{rate['treatment']}\nvs {rate['baseline']}", "bold"),
            Text(str(rate["judge"])),
            Text("\n".join((shown(rate["estimate"]), *_between(rate["bounds"])))),
            Text(at_equal_length(rate)),
            Text(f"{rate['wins']}/{rate['ties']}/{rate['losses']}\n", end="").append_text(_lost(rate)),
            Text(f"{_percent(rate['consistency']['value'])}\n{_percent(rate['first_slot']['value'])}"),
        )
    told = [Text(sentence) for sentence in unscored_sentences(rates)]
    return Group(*(Text(mark, "bold red") for mark in watermarks), table, *told, Text(LEGEND, "dim"))


def unscored_sentences(rates: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Why pairs are unscored, comparison by comparison."""
    for rate in rates:
        if rate["unscored"]:
            reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(rate["unscored"].items()))
            yield f"unscored: {rate['treatment']} vs {rate['baseline']}, judge {rate['judge']}: {reasons}"


def shown(estimate: Mapping[str, Any]) -> str:
    """An estimate of a share in two lines: the value and its interval, in percent."""
    low, high = estimate.get("low"), estimate.get("high")
    ends = "no interval" if low is None or high is None else f"[{_percent(low)}, {_percent(high)}]"
    return f"{_percent(estimate.get('value'))}\n{ends}"


def at_equal_length(rate: Mapping[str, Any]) -> str:
    """The win rate at equal length, marked where it takes the place of the plain one."""
    controlled = rate.get("controlled")
    if not controlled:
        return "-"
    value, _, ends = shown(controlled["estimate"]).partition("\n")
    return f"{value}{' *' if rate.get('length_matters') else ''}\n{ends}"


def _between(bounds: Sequence[float] | None) -> list[str]:
    return [] if bounds is None else [f"{_percent(bounds[0])} .. {_percent(bounds[1])}"]


def _lost(rate: Mapping[str, Any]) -> Text:
    counts = (sum(rate["unscored"].values()), rate["n_failed"], rate["n_missing"])
    return Text("/".join(map(str, counts)), "yellow" if any(counts) else "")


def _percent(value: float | None) -> str:
    return "-" if value is None else percent(value)
