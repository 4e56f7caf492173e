"""`lem leaderboard`: arms of any number of runs in one order, with the uncertainty of that order."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lem.cli.options import existing_path, print_json
from lem.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from lem.ab.ranking import Ranked


@click.command("leaderboard")
@click.argument("inputs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--metric", "metrics", multiple=True, metavar="NAME", help="Scorer or dimension; repeatable.  [default: all]"
)
@click.option("--lower-is-better", "lower", multiple=True, metavar="METRIC", help="Less of this is better; repeatable.")
@click.option("--published/--no-published", default=True, show_default=True, help="Published figures beside ours.")
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV.")
@click.option("--markdown", "form", flag_value="markdown", help="Print markdown.")
def leaderboard(
    inputs: tuple[str, ...], metrics: tuple[str, ...], lower: tuple[str, ...], published: bool, form: str | None
) -> None:
    """Rank the arms of runs or foreign logs under each metric, on the probes that all of them share."""
    frame, notes, headings = ranking(inputs, metrics, lower, published)
    if form == "json":
        print_json({"notes": notes, "rows": frame.to_dict("records")})
    elif form == "csv":
        click.echo(frame.to_csv(index=False), nl=False)
    else:
        _print(frame, notes, headings, markdown=form == "markdown")


def ranking(
    inputs: tuple[str, ...], metrics: tuple[str, ...], lower: tuple[str, ...], with_published: bool
) -> tuple[pd.DataFrame, list[str], dict[str, str]]:
    """The table of all rankings, what its reader must know, and the heading of each metric: judge and watermarks."""
    from lem.ab.join import join_runs
    from lem.ab.judge_objections import judge_notes
    from lem.ab.objections import unlike_arms
    from lem.ab.ranking import rankings
    from lem.cli.compare import input_names, read_input
    from lem.records import metrics_of
    from lem.records.metrics import of_style
    from lem.reports.formats import toy_notice
    from lem.reports.ranking_table import ranking_frame
    from lem.reports.watermarks import contamination, metric_watermarks, sentences_of, words_of

    paths = [existing_path(text) for text in inputs]
    named = [(name, read_input(path)) for name, path in zip(input_names(paths), paths, strict=True)]
    joined = join_runs(named)
    found = rankings(joined, lower_is_better=lower)
    for name in (*metrics, *lower):
        if name not in found:
            raise UserError(f"there is no metric '{name}' here; there are {', '.join(found) or 'none'}.")
    rows: list[dict[str, Any]] = []
    known = metrics_of(joined)
    judged = {metric.name: f", judge {metric.source}" for metric in known if metric.source != "scorer"}
    style = {metric.name for metric in known if of_style(joined.info, metric)}
    marks = {metric.name: metric_watermarks(joined, metric) for metric in known}
    headings = {name: f"{name}{judged.get(name, '')}{words_of(against)}" for name, against in marks.items()}
    for metric, ranked in found.items():
        if metric in metrics or not (metrics or metric in style):
            words = "; ".join(dict.fromkeys(mark.word for mark in marks[metric]))
            rows += [_row(entry) | {"watermark": words} for entry in ranked]
            # ratings by another judge, rubric and items, and style over other probes, are not the same quantity
            rows += _published(metric) if with_published and metric not in judged.keys() | style else []
    toy = toy_notice(str(facts.get("model") or "") for facts in joined.info.arms.values())
    notes = [*([toy] if toy else []), *joined.notes, *unlike_arms(joined.info), *judge_notes(joined)]
    for name, contents in named:
        probes = [probe["id"] for probe in contents.info.probes]
        notes += sentences_of(contamination(contents.info, probes, f"the run {name}"))
    return ranking_frame(rows), notes, headings


def _row(entry: Ranked) -> dict[str, Any]:
    row = dataclasses.asdict(entry)
    mean = row.pop("mean")
    return {
        **row, "n": mean["n"], "mean": mean["value"], "low": mean["low"], "high": mean["high"],
        "unscored": row["n_unscored"], "failed": row["n_failed"], "missing": row["n_missing"], "origin": "ours",
    }  # fmt: skip


def _published(metric: str) -> list[dict[str, Any]]:
    """Published figures under the same metric: other models, other probes, no interval; marked by their source."""
    from lem.ab.ranking import family_and_size
    from lem.config import load_config
    from lem.data.published_figures import read_published

    folder = Path(load_config().benchmarks_dir) / "published"
    rows = []
    for figure in read_published(folder) if folder.is_dir() else []:
        if figure.metric == metric and figure.quantity == "mean":
            family, size = family_and_size(figure.model)
            rows.append(
                {"metric": metric, "model": figure.model, "family": family, "size": size, "arm": figure.arm,
                 "n": figure.n, "mean": figure.value, "origin": figure.source}
            )  # fmt: skip
    return sorted(rows, key=lambda row: -row["mean"])


def _print(frame: pd.DataFrame, notes: list[str], headings: dict[str, str], *, markdown: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from lem.reports import ranking_table

    console = Console(highlight=False)
    for note in notes:
        click.echo(f"> {note}\n") if markdown else console.print(f"note: {note}", markup=False)
    for metric, rows in frame.groupby("metric", sort=False):
        text = ranking_table.readable(rows)
        if markdown:
            click.echo(f"## {headings[str(metric)]}\n\n{ranking_table.markdown(text)}\n")
            continue
        # no title of the table: that is folded to the width of the columns
        console.print(Text(headings[str(metric)], "bold"))
        table = Table(box=None, pad_edge=False)
        for name in text.columns:
            words = name in ("model", "arm", "lost")
            table.add_column(
                str(name),
                overflow="fold",
                no_wrap=not words,
                justify="left" if words else "right",
                min_width=8 if words else None,
            )
        for line in text.itertuples(index=False):
            table.add_row(*(Text(str(cell)) for cell in line))
        console.print(table)
        console.print()
    legend = (
        "rank: on the probes that all arms share, with 95% limits; first: share of bootstrap draws in which the arm is "
        "best; published figures are quoted, not ranked: no interval and no answers stand behind them here."
    )
    click.echo(legend) if markdown else console.print(legend, style="dim", markup=False)
