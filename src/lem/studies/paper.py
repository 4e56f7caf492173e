"""The paper: `paper/PAPER.md` from its template, its data files and the published figures, byte for byte the same.

No number stands in the template: what is ours comes from `paper/data`, what others published from
`benchmarks/published`, where a figure keeps the source it is quoted from.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lem.data.published_figures import PublishedFigure, read_published
from lem.errors import DataError
from lem.paths import display_path
from lem.records import write_atomic
from lem.reports.formats import TOY_NOTICE, number

PAPER, TEMPLATE = "PAPER.md", "PAPER.md.j2"
_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
WIDTH = 120
DATA = ("reanalysis", "gsm8k_extraction", "demo", "simulation")


def build(root: Path, standard: Path | None, demo: Path | None, simulated: Path | None) -> list[Path]:
    """Remake the data that are asked for, then write the paper; returns the files written.

    Raises: UserError or DataError if an input cannot be read or a data file is missing.
    """
    from lem.studies.paper_data import as_text, simulation
    from lem.studies.paper_demo import demonstration
    from lem.studies.paper_extraction import extraction
    from lem.studies.paper_reanalysis import reanalyse

    folder = root / "paper" / "data"
    makers: list[tuple[str, Path | None, Callable[[Path], dict[str, Any]]]] = [
        ("reanalysis", standard, lambda path: reanalyse(path, _published(root))),
        ("gsm8k_extraction", standard, extraction),
        ("demo", demo, demonstration),
        ("simulation", simulated, simulation),
    ]
    # all are made before one is written: data of two inputs that do not belong together would make a false paper
    made = {folder / f"{name}.json": as_text(make(given)) for name, given, make in makers if given is not None}
    for path, text in made.items():
        write_atomic(path, text)
    paper = root / "paper" / PAPER
    write_atomic(paper, render(root))
    return [*made, paper]


def render(root: Path) -> str:
    """The text of the paper from what is stored.   Raises: DataError for a data file that is missing or damaged."""
    environment = Environment(
        loader=FileSystemLoader(root / "paper"), undefined=StrictUndefined, autoescape=False, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters.update(
        num=_num,
        signed=_signed,
        ci=_ci,
        p=_p,
        percent=_percent,
        rise=_rise,
        effect=_effect,
        at=_at,
        words=_words,
        count="{:,}".format,
    )
    figures = _published(root)
    values = {name: _read(root / "paper" / "data" / f"{name}.json") for name in DATA}
    text = environment.get_template(TEMPLATE).render(
        **values, published=_by_table(figures), toy=TOY_NOTICE, find=_finder(values["reanalysis"])
    )
    return "\n\n".join(_filled(block) for block in re.split(r"\n{2,}", text.strip())) + "\n"


def _filled(block: str) -> str:
    """A paragraph or list with its lines filled to the width of the house; headings, tables and code as they are."""
    if block.startswith(("#", "|", "```")):
        return block
    mark = re.match(r"- |> |", block)
    assert mark is not None
    items = re.split(r"\n(?=- )", block) if mark[0] == "- " else [block]
    return "\n".join(_fill(item, " " * len(mark[0]) if mark[0] == "- " else mark[0]) for item in items)


def _fill(text: str, indent: str) -> str:
    words = " ".join(line.removeprefix("> ") if indent == "> " else line for line in text.splitlines())
    return textwrap.fill(
        " ".join(words.split()), WIDTH, initial_indent=indent if indent == "> " else "", subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _published(root: Path) -> list[PublishedFigure]:
    return read_published(root / "benchmarks" / "published")


def _by_table(figures: Iterable[PublishedFigure]) -> dict[str, list[PublishedFigure]]:
    found: dict[str, list[PublishedFigure]] = {}
    for figure in figures:
        found.setdefault(figure.table, []).append(figure)
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{display_path(path)}: missing; make it with scripts/build_paper.py --help.") from None
    except ValueError as error:
        raise DataError(f"{display_path(path)}: not valid JSON ({error}); restore it.") from None
    return found


def _finder(reanalysis: Mapping[str, Any]) -> Callable[[str, str], Mapping[str, Any]]:
    """`find(metric, treatment)`: that contrast of the re-analysis."""
    rows: dict[tuple[str, str], Mapping[str, Any]] = {
        (row["metric"], row["treatment"]): row for row in reanalysis["contrasts"]
    }
    return lambda metric, treatment: rows[metric, treatment]


def _num(value: float | None, digits: int = 2) -> str:
    return number(value, digits)


def _signed(value: float | None, digits: int = 2) -> str:
    return number(value, digits, signed=True)


def _ci(estimate: Mapping[str, Any], digits: int = 2) -> str:
    if estimate["low"] is None or estimate["high"] is None:
        return "no interval"
    return f"[{_signed(estimate['low'], digits)}, {_signed(estimate['high'], digits)}]"


def _effect(estimate: Mapping[str, Any], digits: int = 2) -> str:
    return f"{_signed(estimate['value'], digits)} {_ci(estimate, digits)}"


def _p(value: float | None) -> str:
    return "-" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:g}%"


def _rise(share: float) -> str:
    return f"{100 * share:.0f}%"


def _words(count: int) -> str:
    """Small numbers in words, as in running text."""
    return _WORDS[count] if count < len(_WORDS) else str(count)


def _at(rows: Sequence[Mapping[str, Any]], limit: float, name: str) -> int:
    """How many rows have a value of at most `limit` under `name`."""
    return sum(row[name] is not None and row[name] <= limit for row in rows)
