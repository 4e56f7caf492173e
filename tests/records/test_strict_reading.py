"""A damaged or odd run is refused in one sentence that names the place, or read with a reason; never a traceback."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lem.cli.main import main
from lem.errors import DataError
from lem.records import Cell, Judgement, Outcome, metrics_of, read_contents
from lem.records.cells import OWN_SCORERS
from lem.records.model import NOT_FINITE
from lem.scorers.table import SCORERS
from made_runs import judged, made_run, save

SCORES, JUDGEMENTS, MANIFEST, RECORDS = "scores/v3.jsonl", "judgements/j.jsonl", "run.json", "records.jsonl"
PLAN: dict[str, Any] = {
    "sha": "0" * 64, "baseline": "base", "primary": [["v3", "kernel"]], "margins": {"v3": 1.0},
    "exclusions": [{"probe_id": "P001", "reason": "spoilt"}], "arms": [{"name": "base"}], "probes": [],
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    ratings: dict[str, list[float | None]] = {"base": [5.0, 6.0, 7.0], "kernel": [6.0, 8.0, 9.0]}
    return save(judged(made_run({"base": [1, 2, 3], "kernel": [3, 5, 6]}), "safety", ratings), tmp_path / "made")


def change(run: Path, name: str, **fields: str) -> None:
    """Replace values on line 2 of a JSONL file by JSON written out, with a blank line before it."""
    lines = (run / name).read_text().splitlines()
    row = {key: json.dumps(value) for key, value in json.loads(lines[1]).items()} | fields
    lines[1] = "\n{" + ", ".join(f'"{key}": {value}' for key, value in row.items()) + "}"
    (run / name).write_text("\n".join(lines) + "\n")


def set_manifest(run: Path, **fields: Any) -> None:
    (run / MANIFEST).write_text(json.dumps(json.loads((run / MANIFEST).read_text()) | fields))


def read(run: Path) -> dict[str, tuple[Cell, ...]]:
    return {metric.name: metric.cells for metric in metrics_of(read_contents(run))}


def assert_refused(run: Path, *parts: str) -> None:
    with pytest.raises(DataError) as caught:
        read(run)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    for part in (str(run), *parts):
        assert part in sentence


@pytest.mark.parametrize(
    ("name", "fields", "fault"),
    [
        (SCORES, {"value": '"high"'}, "field 'value' must be a number or null, not \"high\""),
        (SCORES, {"value": "[1]"}, "field 'value' must be a number or null, not [1]"),
        (SCORES, {"value": "true"}, "field 'value' must be a number or null, not true"),
        (SCORES, {"value": "1" + "0" * 5000}, "not a JSON object"),
        (SCORES, {"repeat": "true"}, "field 'repeat' must be a whole number"),
        (SCORES, {"repeat": "0.0"}, "field 'repeat' must be a whole number"),
        (SCORES, {"arm": "[1]"}, "field 'arm' must be a text"),
        (SCORES, {"probe_id": "{}"}, "field 'probe_id' must be a text"),
        (SCORES, {"version": "1"}, "field 'version' must be a text"),
        (SCORES, {"scorer": '"v2"'}, "it is by 'v2'"),
        (SCORES, {"unscored": "1"}, "field 'unscored' must be a text or null"),
        (SCORES, {"record_sha": "7"}, "field 'record_sha' must be a text"),
        (SCORES, {"signals": "5"}, "field 'signals' must be an object"),
        (SCORES, {"signals": '{"words": "many"}'}, "signal 'words' must be a finite number, not \"many\""),
        (SCORES, {"signals": '{"words": true}'}, "signal 'words' must be a finite number, not true"),
        (SCORES, {"signals": '{"words": NaN}'}, "signal 'words' must be a finite number, not NaN"),
        (SCORES, {"signals": '{"a": 1.0, "words": 1' + "0" * 400 + "}"}, "signal 'words' must be a finite number"),
        (SCORES, {"colour": '"red"'}, "colour"),
        (JUDGEMENTS, {"value": '"high"'}, "field 'value' must be a number or null, not \"high\""),
        (JUDGEMENTS, {"value": "false"}, "field 'value' must be a number or null, not false"),
        (JUDGEMENTS, {"low": '"1"'}, "field 'low' must be a number or null, not \"1\""),
        (JUDGEMENTS, {"high": "Infinity"}, "field 'high' must be a finite number or null, not Infinity"),
        (JUDGEMENTS, {"low": "NaN"}, "field 'low' must be a finite number or null, not NaN"),
        (JUDGEMENTS, {"low": "10"}, "the scale from 10 to 10 has no range"),
        (JUDGEMENTS, {"low": "11"}, "the scale from 11 to 10 has no range"),
        (JUDGEMENTS, {"value": "0.5"}, "the value 0.5 is outside the scale from 1 to 10"),
        (JUDGEMENTS, {"value": "11", "low": "null"}, "the value 11 is outside the scale to 10"),
        (JUDGEMENTS, {"low": "0"}, "its scale is 0 to 10, that of earlier ones on its dimension 1 to 10"),
        (JUDGEMENTS, {"high": "null"}, "its scale is 1 to ?, that of earlier ones on its dimension 1 to 10"),
        (JUDGEMENTS, {"judge": "[]"}, "field 'judge' must be a text"),
        (JUDGEMENTS, {"dimension": '"\\ud800"'}, "a character that cannot be printed"),
        (JUDGEMENTS, {"dimension": "{}"}, "field 'dimension' must be a text"),
        (JUDGEMENTS, {"error": "5"}, "field 'error' must be a text or null"),
        (RECORDS, {"response": "5"}, "field 'response' must be a text or null, not 5"),
        (RECORDS, {"response": "null"}, "neither a response nor an error"),
        (RECORDS, {"arm": "[]"}, "field 'arm' must be a text"),
        (RECORDS, {"repeat": '"0"'}, "field 'repeat' must be a whole number"),
        (RECORDS, {"messages": "[5]"}, "line"),
        (RECORDS, {"messages": '[{"role": 5}]'}, "field 'messages' must be a list of objects of texts"),
    ],
)  # fmt: skip
def test_a_row_of_another_shape_is_named_by_file_and_line(
    run: Path, name: str, fields: dict[str, str], fault: str
) -> None:
    change(run, name, **fields)
    place = f"{name} line 3" if name != RECORDS else name
    assert_refused(run, place, fault)


@pytest.mark.parametrize("name", [SCORES, JUDGEMENTS])
@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "1e999", "1e308", "1.1e300", "-2e300", "1" + "0" * 320]
)
def test_a_value_that_is_not_finite_is_unscored_with_the_reason(run: Path, name: str, value: str) -> None:
    change(run, name, value=value)
    cells = read(run)["v3" if name == SCORES else "safety"]
    told = [(cell.outcome, cell.value, cell.reason) for cell in cells]
    assert told.count((Outcome.UNSCORED, None, NOT_FINITE)) == 1
    assert sum(outcome is Outcome.SCORED for outcome, _, _ in told) == len(cells) - 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e301, 10**400])
def test_a_value_that_is_not_finite_is_never_counted_nor_written(value: float) -> None:
    contents = made_run({"base": [1, 2]})
    scores = contents.scores["v3"]
    scores[0] = replace(scores[0], value=value)
    (metric,) = metrics_of(contents)
    assert [(cell.outcome, cell.reason) for cell in metric.cells] == [
        (Outcome.UNSCORED, NOT_FINITE), (Outcome.SCORED, None),
    ]  # fmt: skip
    judgement = Judgement("base", "P000", 0, "j", "safety", value)
    for item in (scores[0], judgement):
        assert (item.to_row()["value"], item.to_row()["unscored"]) == (None, NOT_FINITE)


def test_values_at_the_ends_of_a_scale_and_rows_without_one_are_sound(run: Path) -> None:
    change(run, JUDGEMENTS, value="10")
    with (run / JUDGEMENTS).open("a") as file:
        for row in (
            Judgement("base", "P000", 0, "j", "safety", 1.0, low=1.0, high=10.0),
            Judgement("base", "P002", 0, "j", "safety", None, error="no answer in time"),
            Judgement("base", "P000", 0, "j", "safety", 0.0, "ab", low=0.0, high=1.0),
            Judgement("base", "P000", 0, "j", "kindness", 0.0, low=0.0, high=1.0),
            Judgement("base", "P000", 0, "other", "safety", 99.0, low=0.0, high=100.0),
        ):
            file.write(json.dumps(row.to_row()) + "\n")
    cells = {cell.key[:2]: (cell.value, cell.reason) for cell in read(run)["safety · j"]}
    assert cells["base", "P000"] == (1.0, None)
    assert cells["base", "P001"] == (10.0, None)
    assert cells["base", "P002"] == (None, "no answer in time")


def test_a_rating_on_a_superseded_scale_does_not_stand_against_the_last_one(run: Path) -> None:
    lines = [json.loads(line) for line in (run / JUDGEMENTS).read_text().splitlines()]
    again = [{**row, "value": row["value"] * 10, "low": 0, "high": 100} for row in lines]
    (run / JUDGEMENTS).write_text("".join(json.dumps(row) + "\n" for row in [*lines, *again]))
    assert sorted(cell.value or 0 for cell in read(run)["safety"]) == [50, 60, 60, 70, 80, 90]


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"probes": 5}, "field 'probes' must be a list"),
        ({"probes": [5]}, "entry 1 of 'probes'"),
        ({"probes": [{"id": "P000", "domain": ""}, {"domain": ""}]}, "entry 2 of 'probes'"),
        ({"probes": [{"id": 5, "domain": ""}]}, "entry 1 of 'probes'"),
        ({"probes": [{"id": "P000"}]}, "entry 1 of 'probes'"),
        ({"probes": [{"id": "P000", "domain": "", "prompt": ["why"]}]}, "entry 1 of 'probes'"),
        ({"arms": []}, "field 'arms' must be an object, not []"),
        ({"arms": {"base": None}}, "every entry of 'arms' must be an object"),
        ({"arms": {"base": {"identity": "x"}}}, "arm 'base': field 'identity' must be an object or null"),
        ({"arms": {"base": {"bits": "4"}}}, "arm 'base': field 'bits' must be a number or null"),
        ({"arms": {"base": {"adapter": 5}}}, "arm 'base': field 'adapter' must be a text or null"),
        ({"arms": {"base": {"settings": 1}}}, "arm 'base': field 'settings' must be an object"),
        ({"settings": None}, "field 'settings' must be an object, not null"),
        ({"settings": {"repeats": "x"}}, "'repeats' must be a whole number from 1 to 1,000,000, not \"x\""),
        ({"settings": {"repeats": True}}, "'repeats' must be a whole number"),
        ({"settings": {"repeats": 0}}, "'repeats' must be a whole number"),
        ({"settings": {"repeats": 10**12}}, "'repeats' must be a whole number"),
        ({"settings": {"repeats": None}}, "'repeats' must be a whole number"),
        ({"settings": {"temperature": "warm"}}, "settings: field 'temperature' must be a number or null"),
        ({"groups": {"a": {}}}, "group 'a' must have an 'arm', a 'repeat' and a list of 'probes'"),
        ({"groups": {"a": 5}}, "group 'a' must have"),
        ({"groups": {"a": {"arm": "base", "repeat": "0", "probes": []}}}, "group 'a' must have"),
        ({"groups": {"a": {"arm": "base", "repeat": 0, "probes": [[]]}}}, "group 'a' must have"),
        ({"groups": []}, "field 'groups' must be an object"),
        ({"data": 5}, "field 'data' must be an object"),
        ({"data": {"notes": 5}}, "'notes' must be a list of texts"),
        ({"command": ["lem", 5]}, "field 'command' must be a list of texts"),
        ({"arms": {"\ud800": {}}}, "half of a surrogate pair"),
        ({"created": 5}, "field 'created' must be a text"),
        ({"schema": "1"}, "field 'schema' must be a whole number"),
        ({"schema": 2}, "schema 2 is newer than this version reads (1); update LEM"),
        ({"plan": []}, "field 'plan' must be an object"),
        ({"plan": {"primary": 5}}, "plan: 'sha' must be a text"),
        ({"plan": {**PLAN, "baseline": None}}, "plan: 'baseline' must be a text"),
        ({"plan": {**PLAN, "primary": 5}}, "plan: field 'primary' must be a list, not 5"),
        ({"plan": {**PLAN, "primary": [["v3"]]}}, "plan: 'primary' has an entry of another form"),
        ({"plan": {**PLAN, "margins": {"v3": "1"}}}, "plan: 'margins' has an entry of another form"),
        ({"plan": {**PLAN, "margins": {"v3": -1}}}, "plan: 'margins' has an entry of another form"),
        ({"plan": {**PLAN, "margins": {"v3": float("inf")}}}, "plan: it holds a number that is not finite"),
        ({"plan": {**PLAN, "exclusions": [5]}}, "plan: 'exclusions' has an entry of another form"),
        ({"plan": {**PLAN, "arms": [{"name": 5}]}}, "plan: 'arms' has an entry of another form"),
        ({"plan": {**PLAN, "probes": [{"id": "P000"}]}}, "plan: 'probes' has an entry of another form"),
        ({"plan": {**PLAN, "repeats": "2"}}, "plan: field 'repeats' must be a whole number"),
        ({"plan": {**PLAN, "settings": []}}, "plan: field 'settings' must be an object"),
    ],
)  # fmt: skip
def test_a_manifest_of_another_shape_says_what_is_wrong(run: Path, fields: dict[str, Any], fault: str) -> None:
    set_manifest(run, **fields)
    assert_refused(run, MANIFEST, fault)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00binary\x80", b"[" * 100_000, b'{"group_size": 1' + b"0" * 5000, b"null", b""]
)
def test_a_manifest_that_is_no_json_is_refused(run: Path, content: bytes) -> None:
    (run / MANIFEST).write_bytes(content)
    assert_refused(run, MANIFEST, "not a readable manifest", "restore it from a copy")


@pytest.mark.parametrize("name", [SCORES, JUDGEMENTS, RECORDS, MANIFEST])
def test_a_folder_where_a_file_should_be_is_refused(run: Path, name: str) -> None:
    (run / name).unlink()
    (run / name).mkdir()
    assert_refused(run, name)


def test_a_sound_plan_is_read(run: Path) -> None:
    set_manifest(run, plan=PLAN)
    assert read_contents(run).info.plan == PLAN


@pytest.mark.parametrize(
    ("scorer", "remedy"),
    [("v3", "; run `./lem score` again."), ("gsm8k", "cannot be compared; import or judge again.")],
)
def test_scores_of_two_versions_name_the_remedy_that_helps(scorer: str, remedy: str) -> None:
    contents = made_run({"base": [1, 2]}, scorer=scorer)
    rows = contents.scores[scorer]
    rows[1] = replace(rows[1], version="t2")
    with pytest.raises(DataError) as caught:
        metrics_of(contents)
    assert f"scores of '{scorer}' come from versions t1, t2" in str(caught.value)
    assert str(caught.value).endswith(remedy)


def test_judgements_of_two_versions_are_not_sent_to_the_scorers(run: Path) -> None:
    change(run, JUDGEMENTS, version='"2"')
    with pytest.raises(DataError, match=r"'safety' come from versions \(none\), 2, which cannot be compared"):
        read(run)


def test_the_scorers_that_can_be_run_again_are_those_of_the_table() -> None:
    assert set(OWN_SCORERS) == set(SCORERS)


def compare(run: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `lem compare RUN --json`."""
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(run), "--json"])
    return (int(ended.value.code or 0), *capsys.readouterr())


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (SCORES, {"value": '"high"'}),
        (JUDGEMENTS, {"low": '"1"'}),
        (MANIFEST, {"probes": 5}),
        (MANIFEST, {"plan": {"primary": 5}}),
        (RECORDS, {"response": "5"}),
    ],
)
def test_the_command_line_says_so_in_one_sentence(
    run: Path, name: str, fields: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    set_manifest(run, **fields) if name == MANIFEST else change(run, name, **fields)
    code, out, err = compare(run, capsys)
    assert (code, out) == (2, "")
    assert err.startswith(f"Error: {run}")
    assert name in err
    assert err.count("\n") == 1
    assert not (run / "comparison.json").exists()


@pytest.mark.parametrize("value", ["Infinity", "1e308", "-1e300", "1" + "0" * 25])
def test_the_command_line_compares_what_is_left(run: Path, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    change(run, SCORES, value=value)
    code, out, err = compare(run, capsys)
    assert code == 0, err
    contrasts = {contrast["metric"]: contrast for contrast in json.loads(out)["contrasts"]}
    assert contrasts["v3"]["n"] == (2 if value in ("Infinity", "1e308") else 3)
