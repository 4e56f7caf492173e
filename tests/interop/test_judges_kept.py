"""What stands against a judge goes with its verdicts into every format, and comes back with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from exported_run import make_contents

from lem.ab.join import join_runs
from lem.ab.judge_objections import judge_notes
from lem.errors import DataError
from lem.interop import Imported, read_answers_file, write_run
from lem.interop.dpo import write_pairs
from lem.interop.harness_write import write_harness
from lem.interop.parquet import write_parquet
from lem.records import Judgement, RunContents, metrics_of, read_contents, text_sha

KIN = [{"arm": "base", "why": "same weights", "kind": "weights"}, {"arm": "txt", "why": "same weights"}]
JUDGES = {
    "gemini": {"judge": "gemini", "model": "g-1", "rubrics": {"truth": {"version": "j1"}}, "kin": KIN},
    "fair": {"judge": "fair", "model": "f-1", "kin": []},
}
AUDITS = {
    "gemini": {"judge": "gemini", "verdict": "not trustworthy", "calls": 12},
    "fair": {"judge": "fair", "verdict": "trustworthy"},
}
NOTES = [
    "SELF-JUDGED: the judge 'gemini' is of one lineage with 'base', 'txt'; its ratings rank nothing.",
    "the audit found the judge 'gemini' not trustworthy.",
]
PARTS = ("sovereignty", "ethical_depth", "creative_expression", "self_concept")


def judged() -> RunContents:
    """The small run with two judges, one of which is kin of both arms and failed its audit."""
    contents = make_contents()
    answers = {record.key: record.response for record in contents.records if record.response is not None}
    fair = [
        Judgement(
            *key, "fair", part, 2.0 + number % 3, low=1.0, high=10.0, version="f", record_sha=text_sha(text),
            n_prompt_tokens=40 + number, n_tokens=7, cost=0.25,
        )
        for number, (key, text) in enumerate(answers.items())
        for part in PARTS
    ]  # fmt: skip
    return replace(contents, judgements=[*contents.judgements, *fair], judges=JUDGES, audits=AUDITS)


def as_run(contents: RunContents, folder: Path) -> Path:
    write_run(
        Imported(
            contents.info, contents.records, "test", [], {}, contents.scores, contents.judgements,
            contents.judges, contents.audits,
        ),
        folder,
    )  # fmt: skip
    return folder


def as_logs(contents: RunContents, folder: Path) -> list[Path]:
    pytest.importorskip("inspect_ai")
    from lem.interop.inspect_write import write_inspect

    return write_inspect(contents, folder)


Export = Callable[[RunContents, Path], list[Path]]
WRITERS: list[Export] = [as_logs, write_harness, lambda contents, folder: [as_run(contents, folder)]]
EXPORTS = pytest.mark.parametrize("export", WRITERS, ids=["inspect", "lm", "run"])


def joined(paths: list[Path]) -> RunContents:
    return join_runs([(path.name, read_answers_file(path).contents) for path in paths])


def values(contents: RunContents) -> dict[str, Any]:
    """Every metric with its judge, scale and the values of its cells."""
    return {
        metric.name: (
            metric.source, metric.version, metric.low, metric.high,
            {cell.key: (cell.value, cell.reason) for cell in metric.cells if cell.score is not None},
        )
        for metric in metrics_of(contents)
    }  # fmt: skip


@EXPORTS
def test_an_export_read_back_says_of_its_judges_what_the_run_says(tmp_path: Path, export: Export) -> None:
    contents = judged()
    back = joined(export(contents, tmp_path / "out"))
    assert judge_notes(contents) == NOTES
    assert judge_notes(back) == NOTES
    assert back.audits == AUDITS
    assert {name: manifest["model"] for name, manifest in back.judges.items()} == {"gemini": "g-1", "fair": "f-1"}
    assert values(back) == values(contents)
    assert {"truth", "ethics"} < values(back).keys()


@EXPORTS
def test_what_a_judge_was_to_rate_and_compare_comes_back_by_arm(tmp_path: Path, export: Export) -> None:
    rated = {"truth": {"truthfulqa": ["base", "txt"], "ethics": ["base"]}}
    compared = [{"treatment": "txt", "baseline": "base", "tasks": ["ethics"]}]
    contents = judged()
    contents = replace(
        contents, judges={**JUDGES, "gemini": {**JUDGES["gemini"], "rated": rated, "compared": compared}}
    )
    back = joined(export(contents, tmp_path / "out"))
    assert (back.judges["gemini"]["rated"], back.judges["gemini"]["compared"]) == (rated, compared)
    assert "rated" not in back.judges["fair"]


def test_a_file_that_lists_benchmarks_without_arms_means_its_own(tmp_path: Path) -> None:
    """As exports were written before."""
    paths = write_harness(judged(), tmp_path / "out")
    for file in tmp_path.rglob("results_*.json"):
        results = json.loads(file.read_text())
        results["lem"]["judges"]["gemini"]["rated"] = {"truth": ["truthfulqa"]}
        file.write_text(json.dumps(results))
    read = [read_answers_file(path).contents for path in paths]
    assert [one.judges["gemini"]["rated"] for one in read] == [
        {"truth": {"truthfulqa": [arm]}} for one in read for arm in one.info.arms
    ]


@EXPORTS
def test_two_judges_of_one_dimension_come_back_as_two(tmp_path: Path, export: Export) -> None:
    contents = judged()
    second = [replace(one, judge="fair", value=1.0) for one in contents.judgements if one.judge == "gemini"]
    contents = replace(contents, judgements=[*contents.judgements, *second])
    back = values(joined(export(contents, tmp_path / "out")))
    assert {name: found for name, found in back.items() if found[0] != "panel"} == values(contents)
    assert {name: back[name][0] for name in ("truth · gemini", "truth · fair")} == {
        "truth · gemini": "gemini",
        "truth · fair": "fair",
    }


@EXPORTS
def test_an_export_of_a_run_without_judges_names_none(tmp_path: Path, export: Export) -> None:
    contents = make_contents()
    paths = export(contents, tmp_path / "out")
    back = joined(paths)
    assert (back.judges, back.audits) == ({}, {})
    for path in tmp_path.rglob("*"):
        assert path.name != "audits"
        assert path.suffix != ".json" or not {"judges", "audits", "judged"} & json.loads(path.read_text()).keys()


def test_the_log_of_one_arm_names_the_kin_that_it_holds(tmp_path: Path) -> None:
    """Its own arm, and the opponents of its comparisons, whose answers the verdicts are about as well."""
    rows = [Judgement("txt", "P02", 0, "gemini", "preference", 1.0, order, against="base") for order in ("ab", "ba")]
    contents = judged()
    contents = replace(contents, judgements=[*contents.judgements, *rows])
    for export in (as_logs, write_harness):
        base, txt = (read_answers_file(p).contents for p in export(contents, tmp_path / export.__name__))
        assert [kin["arm"] for kin in base.judges["gemini"]["kin"]] == ["base"]
        assert [kin["arm"] for kin in txt.judges["gemini"]["kin"]] == ["base", "txt"]
        assert judge_notes(base)[1:] == judge_notes(txt)[1:] == NOTES[1:]


def test_an_output_folder_of_several_arms_has_the_kin_of_all(tmp_path: Path) -> None:
    write_harness(judged(), tmp_path / "out")
    back = read_answers_file(tmp_path / "out").contents
    assert {kin["arm"] for kin in back.judges["gemini"]["kin"]} == {"txt", "base"}
    assert back.audits == AUDITS


def test_what_a_judgement_took_survives_a_log_of_inspect(tmp_path: Path) -> None:
    contents = judged()
    back = joined(as_logs(contents, tmp_path / "logs"))
    given = {one.full_key: one for one in contents.judgements if one.judge == "fair"}
    assert {one.full_key: one for one in back.judgements if one.judge == "fair"} == given
    first = next(iter(given.values()))
    assert (first.n_prompt_tokens, first.n_tokens, first.cost) == (40, 7, 0.25)


def test_judges_whose_names_would_be_one_file_keep_their_own(tmp_path: Path) -> None:
    names = ("a/judge", "b/judge", "c/Judge", "d.pairs")
    judges = {name: {"judge": name, "kin": [{"arm": "txt"}]} for name in names}
    audits = {name: {"judge": name, "verdict": "not trustworthy"} for name in names}
    back = read_contents(as_run(replace(make_contents(), judges=judges, audits=audits), tmp_path / "run"))
    assert (back.judges, back.audits) == (judges, audits)


def test_tables_carry_the_watermark_beside_every_verdict_and_on_the_card(tmp_path: Path) -> None:
    write_parquet(judged(), tmp_path / "out")
    table = pd.read_parquet(tmp_path / "out" / "judgements.parquet")
    assert set(table[table["judge"] == "gemini"]["watermark"]) == {" ".join(NOTES)}
    assert table[table["judge"] == "fair"]["watermark"].isna().all()
    card = (tmp_path / "out" / "README.md").read_text()
    body = card.split("\n---\n")[1]
    assert body.index(NOTES[0]) < body.index(NOTES[1]) < body.index("What one run of LEM holds")
    assert "| `watermark` |" in card


def test_tables_of_a_run_without_judges_have_no_watermark(tmp_path: Path) -> None:
    write_parquet(make_contents(), tmp_path / "out")
    assert "watermark" not in pd.read_parquet(tmp_path / "out" / "judgements.parquet").columns
    assert "watermark" not in (tmp_path / "out" / "README.md").read_text()


def test_the_panel_has_the_watermarks_of_its_judges(tmp_path: Path) -> None:
    contents = judged()
    panel = [replace(one, judge="panel") for one in contents.judgements if one.judge == "gemini"]
    write_parquet(replace(contents, judgements=[*contents.judgements, *panel]), tmp_path / "out")
    table = pd.read_parquet(tmp_path / "out" / "judgements.parquet")
    assert set(table[table["judge"] == "panel"]["watermark"]) == {" ".join(NOTES)}


def pairs(contents: RunContents, output: Path, metric: str, **options: Any) -> list[dict[str, Any]]:
    write_pairs(contents, output, metric=metric, allow_probes=True, **options)
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_pairs_to_train_on_say_what_their_judge_is(tmp_path: Path) -> None:
    contents = judged()
    rows = [Judgement("txt", "P02", 0, "gemini", "preference", 1.0, order, against="base") for order in ("ab", "ba")]
    contents = replace(contents, judgements=[*contents.judgements, *rows])
    by_rating = pairs(contents, tmp_path / "truth.jsonl", "truth", margin=0.5)
    compared = pairs(contents, tmp_path / "pairs.jsonl", "preference", chosen="txt", rejected="base")
    assert by_rating
    assert {row["watermark"] for row in [*by_rating, *compared]} == {" ".join(NOTES)}
    for metric in ("v2", "sovereignty"):
        assert not any("watermark" in row for row in pairs(contents, tmp_path / metric, metric, margin=0.5))


@pytest.mark.parametrize(
    ("field", "damaged"),
    [("judges", {"gemini": {"judge": "gemini", "kin": 3}}), ("judges", []), ("judges", {"gemini": {"judge": "fair"}}),
     ("audits", {"gemini": {"judge": "gemini", "verdict": "fine"}}), ("audits", "none"),
     ("judged", {"truth": {"judge": "gemini"}}), ("judged", 3)],
)  # fmt: skip
def test_damaged_entries_are_an_error_and_never_a_clean_judge(tmp_path: Path, field: str, damaged: Any) -> None:
    write_harness(judged(), tmp_path / "out")
    results = next((tmp_path / "out").rglob("results_*.json"))
    found = json.loads(results.read_text())
    found["lem"][field] = damaged
    results.write_text(json.dumps(found))
    with pytest.raises(DataError, match=rf"results_.*\.json: .*{field}.*export the run again"):
        read_answers_file(results)
    if field == "judged":  # of the format that knows scores alone
        return
    log = relogged(as_logs(judged(), tmp_path / "logs")[0], {field: damaged})
    with pytest.raises(DataError, match=rf"\.json: .*{field}.*export the run again"):
        read_answers_file(log)


def relogged(path: Path, metadata: dict[str, Any], packages: dict[str, str] | None = None) -> Path:
    """The log as .json, with other metadata, and as written by other packages."""
    from inspect_ai.log import read_eval_log, write_eval_log

    log = read_eval_log(path)
    log.eval.metadata |= metadata
    log.eval.packages = log.eval.packages if packages is None else packages
    place = path.with_suffix(".json")
    write_eval_log(log, place)
    return place


def test_judges_in_the_metadata_of_others_are_their_own_business(tmp_path: Path) -> None:
    [path, _] = as_logs(make_contents(), tmp_path / "logs")
    back = read_answers_file(relogged(path, {"judges": 3, "audits": ["mine"]}, {"inspect_ai": "0.3"}))
    assert (back.judges, back.audits) == ({}, {})
