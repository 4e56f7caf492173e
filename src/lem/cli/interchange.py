"""`lem import` and `lem export`: answers of other tools as runs, and runs as files of other tools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lem.cli.options import existing_path, json_option, print_json
from lem.errors import DataError, UserError
from lem.paths import display_path

if TYPE_CHECKING:
    from lem.interop import Imported
    from lem.records import RunContents

TARGETS = ("inspect", "lm-eval", "parquet", "dpo", "ab")
PAIRS = ("metric", "margin", "chosen", "rejected", "lower_is_better", "allow_probes")


@click.command("import")
@click.argument("inputs", nargs=-1, required=True, metavar="PATH...")
@click.option("--output", required=True, metavar="RUN", help="Run directory to write; must be new.")
@click.option("--name", "names", multiple=True, metavar="ARM", help="Name of the arm; repeatable, one per PATH.")
@json_option
def import_command(inputs: tuple[str, ...], output: str, names: tuple[str, ...], as_json: bool) -> None:
    """Read answers and scores of other tools into a run that score, compare and report take.

    Reads logs of Inspect (.eval, .json), samples, results or output folders of lm-eval, published LEM files, and
    {id, response} rows. Several paths become the arms of one run, paired by probe id.
    """
    from lem.interop import write_run

    paths, target = [existing_path(text) for text in inputs], existing_path(output)
    imported = read_together(paths, names)
    write_run(imported, target)
    contents = imported.contents
    if as_json:
        print_json({"output": display_path(target), "format": imported.format, **counts(contents)})
    else:
        _print_import(contents, imported.format, target)


def read_together(paths: Sequence[Path], names: Sequence[str]) -> Imported:
    """Read every path and join them into one run; `names` rename the arms of files that have one.

    Raises: UserError for names that do not go with the paths, or for files whose probes do not agree; DataError if
    one scorer comes in several versions.
    """
    from dataclasses import replace

    from lem.ab.join import join_runs
    from lem.cli.compare import input_names
    from lem.interop import Imported, read_answers_file
    from lem.records.contaminated import joined_contaminated
    from lem.records.judge_files import joined_judges

    if names and len(names) != len(paths):
        raise UserError(f"there are {len(paths)} paths and {len(names)} of --name; give one --name per path, or none.")
    if len(set(names)) < len(names):
        raise UserError("two of --name are the same; give each path an arm of its own.")
    read = [read_answers_file(path) for path in paths]
    if names:
        read = [_renamed(one, name, path) for one, name, path in zip(read, names, paths, strict=True)]
    if len(read) == 1:
        return read[0]
    joined = join_runs([(name, one.contents) for name, one in zip(input_names(paths), read, strict=True)])
    _refuse_versions(joined)
    form = " + ".join(dict.fromkeys(one.format for one in read))
    sources = [source for one in read for source in one.info.data.get("sources", [])]
    met = joined_contaminated(one.info.data for one in read)
    data = {"format": form, "sources": sources, "n_probes": len(joined.info.probes), **met}
    info = replace(joined.info, kind="import", data=data)
    notes = list(dict.fromkeys(note for one in read for note in one.notes))
    judges = joined_judges([joined.judges])
    return Imported(info, joined.records, form, notes, {}, joined.scores, joined.judgements, judges, joined.audits)


def _renamed(one: Imported, name: str, path: Path) -> Imported:
    from dataclasses import replace

    from lem.records.judge_files import with_arms_renamed

    if len(one.info.arms) != 1:
        raise UserError(f"{path} holds the arms {', '.join(one.info.arms)}; --name is for files of one arm.")
    if not name.strip():
        raise UserError("--name is empty; give the arm a name.")
    [(old, facts)] = one.info.arms.items()
    groups = {key: {**group, "arm": name} for key, group in one.info.groups.items()}
    return replace(
        one,
        info=replace(one.info, arms={name: {**facts, "imported_as": old}}, groups=groups),
        records=[replace(record, arm=name) for record in one.records],
        published_scores={key._replace(arm=name): value for key, value in one.published_scores.items()},
        scores={scorer: [replace(row, arm=name) for row in rows] for scorer, rows in one.scores.items()},
        judgements=[replace(judgement, arm=name) for judgement in one.judgements],
        judges={judge: with_arms_renamed(manifest, {old: name}) for judge, manifest in one.judges.items()},
    )


def _refuse_versions(contents: RunContents) -> None:
    for scorer, rows in contents.scores.items():
        versions = sorted({row.version for row in rows})
        if len(versions) > 1:
            raise DataError(
                f"the files hold values of '{scorer}' in the versions {', '.join(versions)}, which are not comparable; "
                "import them into runs of their own."
            )


def counts(contents: RunContents) -> dict[str, Any]:
    """What a run holds: arms, probes, repeats, answers by outcome, and scored and unscored values by metric."""
    from lem.records.judge_files import judge_notes
    from lem.records.metrics import metrics_of

    outcomes = Counter("failed" if r.failed or r.response is None else "answered" for r in contents.records)
    return {
        "arms": list(contents.info.arms),
        "probes": len(contents.info.probes),
        "repeats": int(contents.info.settings.get("repeats", 1)),
        "answered": outcomes["answered"],
        "failed": outcomes["failed"],
        "status": contents.info.status,
        "metrics": {
            metric.name: dict(Counter(str(c.outcome) for c in metric.cells)) for metric in metrics_of(contents)
        },
        "notes": [*contents.notes, *judge_notes(contents.judges, contents.audits)],
    }


def _print_import(contents: RunContents, form: str, target: Path) -> None:
    found = counts(contents)
    first = ", ".join(found["arms"][:8]) + (", ..." if len(found["arms"]) > 8 else "")
    click.echo(f"{display_path(target)}: {form}")
    click.echo(f"arms: {first}")
    click.echo(f"probes: {found['probes']}, repeats: {found['repeats']}")
    click.echo(f"answers: {found['answered']}, failed: {found['failed']}")
    for name, outcomes in found["metrics"].items():
        kinds = ("scored", "unscored", "failed", "missing")
        shown = [f"{outcomes[kind]} {kind}" for kind in kinds if outcomes.get(kind)]
        click.echo(f"{name}: {', '.join(shown)}")
    for note in found["notes"]:
        click.echo(f"note: {note}")
    where = display_path(target)
    compared = "" if "base" in found["arms"] or len(found["arms"]) < 2 else f" --baseline {_quoted(found['arms'][0])}"
    click.echo(f"next: ./lem score {_quoted(where)}")
    if len(found["arms"]) > 1:
        click.echo(f"      ./lem compare {_quoted(where)}{compared}")
    click.echo(f"      ./lem report {_quoted(where)}")


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)


@click.command("export")
@click.argument("run", metavar="RUN")
@click.option("--to", "target", type=click.Choice(TARGETS), required=True, help="Format to write.")
@click.option("--output", required=True, metavar="PATH", help="New folder; a new file for dpo and ab.")
@click.option("--metric", metavar="NAME", help="dpo: what decides which answer is better.  [default: v2]")
@click.option("--margin", type=float, metavar="X", help="dpo: least difference that makes a pair.")
@click.option("--chosen", metavar="ARM", help="dpo: arm with the better answers.  [default: pairs among repeats]")
@click.option("--rejected", metavar="ARM", help="dpo: arm with the worse answers.")
@click.option("--lower-is-better", is_flag=True, help="dpo: less of the metric is better.")
@click.option("--allow-probes", is_flag=True, help="dpo: make pairs of answers to evaluation probes, marked as such.")
@json_option
def export_command(run: str, target: str, output: str, as_json: bool, **options: Any) -> None:
    """Write a run as Inspect logs, lm-eval results, Parquet tables, DPO pairs, or published A/B results.

    RUN may also be a foreign file that `lem import` reads.
    """
    from lem.interop import read_answers_file
    from lem.records.judge_files import judge_notes
    from lem.reports.watermarks import contamination, sentences_of

    given = [name for name in PAIRS if options[name] not in (None, False)]
    if target != "dpo" and given:
        raise UserError(f"--{given[0].replace('_', '-')} is for --to dpo; leave it out.")
    contents = read_answers_file(existing_path(run)).contents
    place = existing_path(output)
    written = _write(contents, target, place, options)
    met = contamination(contents.info, {probe["id"] for probe in contents.info.probes}, contents.info.run_id)
    notes = [*judge_notes(contents.judges, contents.audits), *sentences_of(met)]
    if as_json:
        print_json({"output": display_path(place), "to": target, **written, **({"notes": notes} if notes else {})})
        return
    for note in notes:
        click.echo(f"note: {note}")
    if not contents.scores and not contents.judgements:
        click.echo(f"note: the run has no scores; `./lem score {_quoted(run)}` makes them.")
    for name, value in written.items():
        for line in value if isinstance(value, list) else [value]:
            click.echo(f"{name}: {line}")


def _write(contents: RunContents, target: str, output: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Call the writer of a format; returns what it wrote, by name."""
    if target == "inspect":
        from lem.interop.inspect_write import write_inspect

        return {"log": [display_path(path) for path in write_inspect(contents, output)]}
    if target == "lm-eval":
        from lem.interop.harness_write import write_harness

        return {"folder": [display_path(path) for path in write_harness(contents, output)]}
    if target == "parquet":
        from lem.interop.parquet import write_parquet

        return {
            f"{display_path(output / name)}.parquet": f"{n} rows" for name, n in write_parquet(contents, output).items()
        }
    if target == "dpo":
        from lem.interop.dpo import write_pairs

        pairs = write_pairs(contents, output, **{**options, "metric": options["metric"] or "v2"})
        left_out = [f"{number} {reason}" for reason, number in pairs.left_out.items()]
        return {display_path(output): f"{pairs.written} pairs", "left out": left_out}
    from lem.interop import write_ab

    if output.exists():
        raise UserError(f"{output} exists; choose a new --output, nothing was touched.")
    write_ab(output, contents.info, contents.records, {score.key: score for score in contents.scores.get("v2", [])})
    return {display_path(output): f"{len(contents.info.probes)} probes"}
