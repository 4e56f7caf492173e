"""Published formats: what is read is what stands there, what is wrong is named by line, what is written reads back."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lem.errors import DataError, LemError, UserError
from lem.interop import (
    merge_by_benchmark,
    read_ab,
    read_answers,
    read_answers_file,
    read_standard_results,
    write_ab,
)
from lem.interop.detect import ACCEPTED
from lem.records import Key, Record, RunInfo, Score, open_run
from lem.scorers.passes import score_records

AB_FILE = Path(__file__).parent / "files" / "published_ab.jsonl"


def write_rows(path, rows, end="\n"):
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + end
    path.write_bytes(text.encode("utf-8"))
    return path


def probe(probe_id="A", prompt="Why?", **conditions):
    conditions = conditions or {"baseline": {"response": "Because.", "lek_score": 1.5}}
    return {"type": "probe", "id": probe_id, "category": "c", "prompt": prompt, "conditions": conditions}


def standard(probe_id="Q1", model="m1", benchmark="sums", response="4", prompt="2+2?", **more):
    row = {"id": probe_id, "benchmark": benchmark, "model": model, "prompt": prompt, "response": response}
    return {**row, "elapsed_seconds": 0.5, **more}


def make_run(arms, probes, repeats=1):
    """A run in memory with one answer per cell, `arm/probe/repeat` as its text."""
    records = [
        Record("r", arm, probe_id, repeat, f"{arm}/{probe_id}/{repeat}", ts="2025-02-01T10:00:00+00:00")
        for arm in arms
        for probe_id in probes
        for repeat in range(repeats)
    ]
    info = RunInfo("r", "benchmark", arms={arm: {"model": "some/model"} for arm in arms})
    info.probes = [{"id": probe_id, "domain": "d", "prompt": f"ask {probe_id}"} for probe_id in probes]
    info.settings = {"max_tokens": 64, "repeats": repeats}
    return info, records


def v2(key, value, unscored=None):
    signals = {} if value is None else {"nuance": 2.0}
    return Score(*key, scorer="v2", version="v2.0", value=value, signals=signals, unscored=unscored)


def read_back(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


# --- A/B results -----------------------------------------------------------------------------------------------


def test_published_ab_file_reads_with_base_mapped_and_scores_kept():
    imported = read_ab(AB_FILE)
    assert list(imported.info.arms) == ["base", "json"]
    assert imported.info.arms["base"] == {"model": "example/small-it", "published_name": "baseline"}
    assert [p["id"] for p in imported.info.probes] == ["T01_WELL", "T02_LETTER"]
    assert [p["domain"] for p in imported.info.probes] == ["commons", "privacy"]
    assert imported.info.settings == {"max_tokens": 1024, "repeats": 1}
    assert (imported.info.kind, imported.info.status) == ("import", "done")
    assert imported.published_scores[Key("base", "T02_LETTER", 0)] == -19.0
    assert imported.published_scores[Key("json", "T02_LETTER", 0)] == 3.0
    assert imported.notes == ["1 of 4 responses are empty; they count as answers."]
    assert imported.records[2].response == ""
    assert len(imported.info.data["sources"][0]["sha256"]) == 64


def test_rescoring_an_imported_empty_answer_gives_the_published_score():
    imported = read_ab(AB_FILE)
    scores = {score.key: score.value for score in score_records(imported.records, "v2")}
    key = Key("base", "T02_LETTER", 0)
    assert scores[key] == imported.published_scores[key] == -19.0


def test_interrupted_ab_run_reads_as_incomplete(tmp_path):
    whole = AB_FILE.read_text().split("\n")
    no_summary = read_ab(write_rows(tmp_path / "a.jsonl", whole[:2]))
    assert no_summary.info.status == "incomplete"
    assert "no summary" in no_summary.notes[0]
    torn = read_ab(write_rows(tmp_path / "b.jsonl", [whole[0], whole[1][:50]], end=""))
    assert [p["id"] for p in torn.info.probes] == ["T01_WELL"]
    assert "torn" in torn.notes[0]
    last_line_unended = read_ab(write_rows(tmp_path / "c.jsonl", whole[:3], end=""))
    assert last_line_unended.info.status == "done"


def test_summary_that_announces_more_probes_makes_the_import_incomplete(tmp_path):
    imported = read_ab(write_rows(tmp_path / "a.jsonl", [probe(), {"type": "summary", "total_probes": 7}]))
    assert imported.info.status == "incomplete"
    assert "announces 7 probes and holds 1" in imported.notes[0]


def test_arm_missing_from_a_probe_is_noted_not_invented(tmp_path):
    both = probe("A", baseline={"response": "x"}, json={"response": "y"})
    rows = [both, probe("B"), {"type": "summary"}]
    imported = read_ab(write_rows(tmp_path / "a.jsonl", rows))
    assert imported.info.status == "incomplete"
    assert imported.notes == ["arm 'json' has 1 of 2 probes; the others are missing, not wrong."]
    assert len(imported.records) == 3


def test_failed_condition_becomes_a_failed_record(tmp_path):
    row = probe("A", baseline={"response": None, "error": "out of memory", "lek_score": None})
    imported = read_ab(write_rows(tmp_path / "a.jsonl", [row, {"type": "summary"}]))
    assert (imported.records[0].response, imported.records[0].error) == (None, "out of memory")
    assert imported.published_scores == {}
    assert imported.info.status == "incomplete"


BAD_AB = {
    "broken JSON": ([probe(), '{"type": "probe", ', probe("B")], "line 2: not valid JSON"),
    "not an object": ([probe(), "[1, 2]"], "line 2: not a JSON object"),
    "unknown type": ([probe(), {"type": "note"}], "line 2: type 'note'"),
    "no type": ([probe(), {"id": "B"}], "line 2: field 'type' is missing"),
    "no id": ([{**probe(), "id": None}], "line 1: field 'id' is empty"),
    "blank id": ([{**probe(), "id": "  "}], "line 1: field 'id' is empty"),
    "boolean id": ([{**probe(), "id": True}], "line 1: field 'id'"),
    "no prompt": ([{**probe(), "prompt": None}], "line 1: field 'prompt' is missing"),
    "no conditions": ([{**probe(), "conditions": {}}], "line 1: field 'conditions'"),
    "condition no object": ([probe(json="text")], "line 1: condition 'json' is not an object"),
    "nameless condition": ([probe(**{" ": {"response": "x"}})], "line 1: a condition has an empty name"),
    "no response": ([probe(json={"lek_score": 1})], "line 1 condition 'json': field 'response' is missing"),
    "null response": ([probe(), probe("B", json={"response": None})], "line 2 condition 'json': the response is null"),
    "number response": ([probe(json={"response": 4})], "neither a string nor null"),
    "response and error": ([probe(json={"response": "x", "error": "y"})], "a response and an error"),
    "score a string": ([probe(json={"response": "x", "lek_score": "9"})], "field 'lek_score' is '9'"),
    "score infinite": (['{"type":"probe","id":"A","prompt":"p","conditions":{"j":{"response":"x","lek_score":1e999}}}'],
                       "finite number"),
    "both bases": ([probe(base={"response": "x"}, baseline={"response": "y"})], "both the base arm"),
    "probe twice": ([probe(), probe("B"), "", probe()], "lines 1 and 4: arm 'base' answers probe 'A' twice"),
    "two runs": ([probe(), {"type": "summary"}, probe("B"), {"type": "summary"}], "line 3: it follows the summary"),
    "summary alone": ([{"type": "summary"}], "a summary and no probe"),
    "bad total": ([probe(), {"type": "summary", "total_probes": -1}], "line 2: field 'total_probes' is -1"),
    "bottomless": (["[" * 100_000], "line 1: not valid JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_AB)
def test_malformed_ab_file_is_refused_with_its_line(tmp_path, name):
    rows, complaint = BAD_AB[name]
    path = write_rows(tmp_path / "bad.jsonl", rows)
    with pytest.raises(DataError) as caught:
        read_ab(path)
    assert complaint in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# --- writing ---------------------------------------------------------------------------------------------------


def test_written_file_has_probe_lines_in_probe_order_and_the_published_summary(tmp_path):
    info, records = make_run(["base", "json"], ["P2", "P1", "P3"])
    info.probes[2]["domain"] = "other"
    values = {"base": [1.0, 2.0, 3.0], "json": [2.0, 2.5, 1.0]}
    scores = {
        Key(arm, probe_id, 0): v2(Key(arm, probe_id, 0), value)
        for arm, of_arm in values.items()
        for probe_id, value in zip(["P2", "P1", "P3"], of_arm, strict=True)
    }
    path = tmp_path / "out.jsonl"
    write_ab(path, info, list(reversed(records)), scores)
    *probes, summary = read_back(path)
    assert [row["id"] for row in probes] == ["P2", "P1", "P3"]
    assert list(probes[0]["conditions"]) == ["baseline", "json"]
    cell = probes[0]["conditions"]["json"]
    assert cell["lek_score"] == 2.0
    assert cell["heuristic"] == {"nuance": 2.0, "lek_score": 2.0}
    assert (cell["chars"], cell["time_s"]) == (len("json/P2/0"), None)
    base, json_arm = summary["conditions"]
    assert (base["name"], base["avg_lek"], base["delta_vs_baseline"]) == ("baseline", 2.0, 0.0)
    # Changes are +1, +0.5 and -2: half a point is not yet an improvement.
    assert (json_arm["avg_lek"], json_arm["delta_vs_baseline"]) == (1.83, -0.17)
    assert (json_arm["improved"], json_arm["regressed"], json_arm["unchanged"]) == (1, 1, 1)
    assert summary["categories"] == {"d": {"baseline": 1.5, "json": 2.25}, "other": {"baseline": 3.0, "json": 1.0}}
    assert (summary["total_probes"], summary["max_tokens"], summary["repeats"]) == (3, 64, 1)
    assert (summary["model"], summary["duration"]) == ("some/model", "0s")


def test_failed_unscored_and_missing_cells_stay_three_things(tmp_path):
    info, records = make_run(["base", "json"], ["P1", "P2", "P3"])
    failed = replace(records[3], response=None, error="killed")
    scores = {
        Key("base", "P1", 0): v2(Key("base", "P1", 0), 4.0),
        Key("base", "P2", 0): v2(Key("base", "P2", 0), None, "truncated while thinking"),
    }
    path = tmp_path / "out.jsonl"
    write_ab(path, info, [*records[:2], failed, records[4]], scores)
    first, second, summary = read_back(path)
    assert first["conditions"]["json"]["response"] is None
    assert first["conditions"]["json"]["error"] == "killed"
    assert second["conditions"]["baseline"]["lek_score"] is None
    assert second["conditions"]["baseline"]["unscored"] == "truncated while thinking"
    assert second["conditions"]["json"]["unscored"] == "not scored"
    counts = {c["name"]: (c["n_scored"], c["n_unscored"], c["n_failed"]) for c in summary["conditions"]}
    assert counts == {"baseline": (1, 1, 0), "json": (0, 1, 1)}
    assert summary["conditions"][1]["avg_lek"] is None
    assert summary["conditions"][1]["delta_vs_baseline"] is None
    imported = read_ab(path)
    assert imported.info.status == "incomplete"
    assert {r.key for r in imported.records if r.failed} == {Key("json", "P1", 0)}
    assert imported.published_scores == {Key("base", "P1", 0): 4.0}


def test_repeats_beyond_the_first_are_left_out_and_announced(tmp_path):
    info, records = make_run(["base"], ["P1"], repeats=3)
    scores = {record.key: v2(record.key, float(record.repeat)) for record in records}
    path = tmp_path / "out.jsonl"
    write_ab(path, info, records, scores)
    row, summary = read_back(path)
    assert row["conditions"]["baseline"]["response"] == "base/P1/0"
    assert row["conditions"]["baseline"]["lek_score"] == 0.0
    assert (summary["repeats"], summary["conditions"][0]["avg_lek"]) == (3, 0.0)


def test_answer_cut_off_while_thinking_is_still_unscored_after_a_round_trip(tmp_path):
    info, records = make_run(["base"], ["P1"])
    cut = replace(records[0], response="", thinking="Let me see", finish_reason="length")
    write_ab(tmp_path / "out.jsonl", info, [cut], {s.key: s for s in score_records([cut], "v2")})
    back = read_ab(tmp_path / "out.jsonl")
    assert [score.value for score in score_records(back.records, "v2")] == [None]


def test_models_of_separately_trained_arms_survive_a_round_trip(tmp_path):
    info, records = make_run(["base", "trained"], ["P1"])
    info.arms["trained"] = {"model": "other/model"}
    write_ab(tmp_path / "out.jsonl", info, records, {})
    arms = read_ab(tmp_path / "out.jsonl").info.arms
    assert [arms[name]["model"] for name in ("base", "trained")] == ["some/model", "other/model"]


def test_writer_refuses_what_the_format_cannot_say(tmp_path):
    info, records = make_run(["base", "baseline"], ["P1"])
    with pytest.raises(DataError, match="another name"):
        write_ab(tmp_path / "a.jsonl", info, records, {})
    info, records = make_run(["base"], ["P1"])
    with pytest.raises(ValueError, match="v2 scores, not v3"):
        write_ab(tmp_path / "a.jsonl", info, records, {records[0].key: replace(v2(records[0].key, 1.0), scorer="v3")})
    with pytest.raises(ValueError, match="the run does not have: P9"):
        write_ab(tmp_path / "a.jsonl", info, [replace(records[0], probe_id="P9")], {})
    assert list(tmp_path.iterdir()) == []


def test_not_a_number_is_written_as_null(tmp_path):
    info, records = make_run(["base"], ["P1"])
    write_ab(tmp_path / "a.jsonl", info, records, {records[0].key: v2(records[0].key, float("nan"))})
    assert read_back(tmp_path / "a.jsonl")[0]["conditions"]["baseline"]["lek_score"] is None


# Every code point, lone surrogates too, except that a high and a low surrogate side by side are one character
# in JSON; and what tends to break line formats more often than chance would have it.
AWKWARD = st.sampled_from(["\n", "\r\n", "\u2028", "\x85", "\ufeff", '"', "\\", "\x00", "\ud800", "\U0001f4ec", "{}"])
TEXT = st.lists(st.text(max_size=20) | AWKWARD, max_size=6).map("".join)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)


@settings(deadline=None, max_examples=150)
@given(
    arms=st.lists(NAMES.filter(lambda name: name != "baseline"), min_size=1, max_size=3, unique=True),
    probes=st.dictionaries(NAMES, TEXT, min_size=1, max_size=4),
    data=st.data(),
)
def test_writing_and_reading_back_keeps_ids_prompts_responses_and_scores(tmp_path_factory, arms, probes, data):
    info = RunInfo("r", "benchmark", arms={arm: {"model": None} for arm in arms})
    info.probes = [{"id": probe_id, "domain": "d", "prompt": prompt} for probe_id, prompt in probes.items()]
    records = [Record("r", arm, probe_id, 0, data.draw(TEXT)) for arm in arms for probe_id in probes]
    scores = {r.key: v2(r.key, data.draw(st.none() | st.floats(-50, 50).map(lambda x: round(x, 2)))) for r in records}
    path = tmp_path_factory.mktemp("ab") / "out.jsonl"
    write_ab(path, info, records, scores)
    path.read_text(encoding="utf-8")  # valid UTF-8 for every other reader
    back = read_ab(path)
    assert back.info.probes == info.probes
    assert {r.key: r.response for r in back.records} == {r.key: r.response for r in records}
    assert back.published_scores == {key: score.value for key, score in scores.items() if score.value is not None}
    assert set(back.info.arms) == set(arms)
    assert back.info.status == "done"


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_read_or_refused_in_one_sentence(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("bytes") / "x.jsonl"
    path.write_bytes(data)
    with pytest.raises(LemError):
        read_answers_file(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("id", "response", "error", "model", "arm", "benchmark", "prompt", "domain", "repeat")


@settings(deadline=None, max_examples=300)
@given(st.lists(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=9), min_size=1, max_size=3))
def test_rows_of_odd_types_are_read_or_refused_never_a_crash(tmp_path_factory, rows):
    path = write_rows(tmp_path_factory.mktemp("rows") / "x.jsonl", rows)
    try:
        imported = read_answers_file(path)
    except LemError as refusal:
        said = str(refusal)
    else:
        said = f"{path}"
        assert len(imported.records) == len(rows)
    assert str(path) in said


# --- standard results and plain answers ------------------------------------------------------------------------


def test_standard_results_have_the_model_as_arm_and_the_benchmark_as_domain(tmp_path):
    rows = [standard("Q1"), standard("Q2", response=""), standard("Q1", model="m2", response=None, error="timeout")]
    imported = read_standard_results(write_rows(tmp_path / "s.jsonl", rows))
    assert list(imported.info.arms) == ["m1", "m2"]
    assert imported.info.probes[0] == {"id": "Q1", "domain": "sums", "prompt": "2+2?"}
    assert [(r.arm, r.response, r.error) for r in imported.records] == [
        ("m1", "4", None),
        ("m1", "", None),
        ("m2", None, "timeout"),
    ]
    assert imported.info.data["benchmarks"] == ["sums"]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([standard(), standard(response="5")], "lines 1 and 2: arm 'm1' answers probe 'Q1' twice"),
        ([standard(), standard(model="m2", prompt="3+3?")], "lines 1 and 2: probe 'Q1' has two different prompts"),
        ([standard(), standard(model="m2", benchmark="b")], "lines 1 and 2: probe 'Q1' has two different domains"),
        ([standard(), standard("Q2", response=None)], "line 2: the response is null"),
        ([standard(), standard("Q2", model="")], "line 2: field 'model' is empty"),
        ([standard(), {"id": "Q2", "response": "x"}], "line 2: field 'model' is missing"),
        ([standard(), json.dumps(standard("Q2"))[:40]], "line 2: not valid JSON"),
    ],
)
def test_malformed_standard_results_are_refused_with_their_line(tmp_path, rows, complaint):
    path = write_rows(tmp_path / "s.jsonl", rows, end="")
    with pytest.raises(DataError) as caught:
        read_standard_results(path)
    assert complaint in str(caught.value)


def test_plain_answers_take_the_file_name_as_arm(tmp_path):
    rows = [{"id": "A", "response": "x"}, {"id": 7, "response": "y", "prompt": "why", "domain": "d"}]
    imported = read_answers(write_rows(tmp_path / "my model.jsonl", rows))
    assert imported.info.arms == {"my model": {"model": None}}
    assert imported.info.probes == [
        {"id": "A", "domain": "", "prompt": ""},
        {"id": "7", "domain": "d", "prompt": "why"},
    ]


def test_plain_answers_take_arm_model_and_repeat_from_the_row(tmp_path):
    rows = [
        {"id": "A", "response": "x", "arm": "k", "model": "m"},
        {"id": "A", "response": "y", "arm": "k", "model": "m", "repeat": 1},
        {"id": "A", "response": "z", "arm": "j", "model": "m"},
    ]
    imported = read_answers(write_rows(tmp_path / "a.jsonl", rows))
    assert [r.key for r in imported.records] == [("k", "A", 0), ("k", "A", 1), ("j", "A", 0)]
    assert imported.info.arms == {"k": {"model": "m"}, "j": {"model": "m"}}
    assert imported.info.settings["repeats"] == 2


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([{"id": "A", "response": "x"}, {"id": "A", "response": "y"}],
         "lines 1 and 2: arm 'a' answers probe 'A' twice"),
        ([{"id": 1, "response": "x"}, {"id": "1", "response": "y"}], "lines 1 and 2"),
        ([{"id": "A", "response": "x"}, {"id": "B", "response": "y", "model": "m"}], "line 2: its labels (model)"),
        ([{"id": "A", "response": "x", "model": "m"}, {"id": "B", "response": "y"}], "line 2: its labels (none)"),
        ([{"id": "A", "response": "x", "arm": "k", "model": "m"},
          {"id": "B", "response": "y", "arm": "k", "model": "n"}],
         "line 2: arm 'k' has the models 'm' and 'n'"),
        ([{"id": "A", "response": "x", "repeat": -1}], "line 1: field 'repeat' is -1"),
        ([{"id": "A", "response": None, "error": None}], "line 1: the response is null"),
        ([{"id": "A", "response": "x", "prompt": 3}], "line 1: field 'prompt' is not a string"),
    ],
)  # fmt: skip
def test_malformed_answers_are_refused_with_their_line(tmp_path, rows, complaint):
    with pytest.raises(DataError) as caught:
        read_answers(write_rows(tmp_path / "a.jsonl", rows))
    assert complaint in str(caught.value)


# --- merging ---------------------------------------------------------------------------------------------------


def test_results_of_one_benchmark_merge_into_arms_and_leave_the_inputs_alone(tmp_path):
    first = read_standard_results(write_rows(tmp_path / "a.jsonl", [standard("Q1"), standard("Q2")]))
    second = read_standard_results(write_rows(tmp_path / "b.jsonl", [standard("Q2", "m2"), standard("Q1", "m2")]))
    other = read_standard_results(write_rows(tmp_path / "c.jsonl", [standard("Q1", benchmark="facts", prompt="Who?")]))
    answers = read_answers(write_rows(tmp_path / "d.jsonl", [{"id": "Q1", "response": "x"}]))
    merged = merge_by_benchmark([answers, first, other, second])
    assert [one.info.run_id for one in merged] == ["sums", "facts", "d"]
    sums = merged[0]
    assert list(sums.info.arms) == ["m1", "m2"]
    assert [p["id"] for p in sums.info.probes] == ["Q1", "Q2"]
    assert len(sums.info.data["sources"]) == 2
    assert sums.info.status == "done"
    assert len(first.records) == 2
    assert merged[2] is answers


def test_one_file_with_two_benchmarks_is_taken_apart(tmp_path):
    rows = [standard("Q1"), standard("F1", benchmark="facts")]
    merged = merge_by_benchmark([read_standard_results(write_rows(tmp_path / "a.jsonl", rows))])
    assert [(one.info.run_id, len(one.records)) for one in merged] == [("sums", 1), ("facts", 1)]


def test_merging_refuses_a_cell_answered_by_two_files_and_names_both(tmp_path):
    first = read_standard_results(write_rows(tmp_path / "a.jsonl", [standard()]))
    second = read_standard_results(write_rows(tmp_path / "b.jsonl", [standard()]))
    with pytest.raises(DataError, match=r"a\.jsonl and .*b\.jsonl: arm 'm1' answers probe 'Q1' twice"):
        merge_by_benchmark([first, second])
    other = read_standard_results(write_rows(tmp_path / "c.jsonl", [standard(model="m2", prompt="Different?")]))
    with pytest.raises(DataError, match="two different prompts"):
        merge_by_benchmark([first, other])


# --- detection -------------------------------------------------------------------------------------------------


def test_each_format_is_known_by_its_first_line(tmp_path):
    assert read_answers_file(AB_FILE).format == "published A/B results"
    path = write_rows(tmp_path / "s.jsonl", ["", standard()])
    assert read_answers_file(path).format == "published standard results"
    path = tmp_path / "bom.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": "A", "response": "x"}\r\n')
    assert read_answers_file(path).format == "answers"


def test_a_run_directory_and_its_records_file_are_the_run(tmp_path):
    with open_run(tmp_path / "run", "benchmark", "run") as run:
        run.append(Record("run", "base", "P1", 0, "x"))
        run.save("incomplete")
    for path in (tmp_path / "run", tmp_path / "run" / "records.jsonl"):
        imported = read_answers_file(path)
        assert (imported.format, len(imported.records)) == ("LEM run", 1)
        assert "incomplete" in imported.notes[0]


def test_unknown_keys_are_answered_with_the_accepted_formats(tmp_path):
    path = write_rows(tmp_path / "x.jsonl", [{"question": "q", "answer": "a"}])
    with pytest.raises(DataError) as caught:
        read_answers_file(path)
    assert "has the keys question, answer" in str(caught.value)
    assert all(accepted in str(caught.value) for accepted in ACCEPTED)


def test_things_that_are_no_answers_get_one_sentence_each(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "blank.jsonl").write_text("\n \n")
    (tmp_path / "zero.jsonl").write_bytes(b"\x00\x01")
    (tmp_path / "zip.jsonl").write_bytes(gzip.compress(b'{"id": "A", "response": "x"}\n', mtime=0))
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "A", "response": "caf\xe9"}\n')
    (tmp_path / "array.json").write_text('[\n {"id": "A", "response": "x"}\n]\n')
    (tmp_path / "folder").mkdir()
    expected = {
        "empty.jsonl": "is empty",
        "blank.jsonl": "is empty",
        "zero.jsonl": "binary",
        "zip.jsonl": "binary",
        "latin.jsonl": "not UTF-8",
        "array.json": "JSON Lines",
        "folder": "not a run directory",
        "absent.jsonl": "no such file",
    }
    for name, complaint in expected.items():
        with pytest.raises(UserError) as caught:
            read_answers_file(tmp_path / name)
        assert complaint in str(caught.value), name
        assert "\n" not in str(caught.value)


# --- real published files --------------------------------------------------------------------------------------


def test_every_published_result_file_reads_and_merges_into_four_leaderboards_of_five_models(reference):
    results = reference / "lem-standard" / "results"
    imported = [read_answers_file(path) for path in sorted(results.glob("*.jsonl"))]
    assert len(imported) == 20
    assert {one.format for one in imported} == {"published standard results"}
    assert {(len(one.records), len(one.info.arms), one.info.status) for one in imported} == {(50, 1, "done")}
    merged = merge_by_benchmark(imported)
    assert sorted(one.info.run_id for one in merged) == ["do_not_answer", "gsm8k", "toxigen", "truthfulqa"]
    for one in merged:
        assert (len(one.info.arms), len(one.info.probes), len(one.records)) == (5, 50, 250)
        assert one.info.status == "done"


def test_published_results_survive_the_ab_format(tmp_path, reference):
    files = sorted((reference / "lem-standard" / "results").glob("toxigen_*.jsonl"))
    merged = merge_by_benchmark([read_answers_file(path) for path in files])[0]
    scores = {score.key: score for score in score_records(merged.records, "v2")}
    write_ab(tmp_path / "t.jsonl", merged.info, merged.records, scores)
    back = read_ab(tmp_path / "t.jsonl")
    assert {r.key: r.response for r in back.records} == {r.key: r.response for r in merged.records}
    assert back.info.probes == merged.info.probes
    assert back.published_scores == {key: score.value for key, score in scores.items()}
    assert any(record.response == "" for record in back.records)
