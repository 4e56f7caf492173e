"""Published standard benchmarks: joined by model and id, what was invented is unscored, what is missing is counted."""

import json
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lem.errors import DataError, LemError, UserError
from lem.interop import read_answers_file
from lem.interop.standard import read_standard
from lem.interop.standard_scores import read_score_table
from lem.records import Key, Outcome, metrics_of

FILES = Path(__file__).parent / "files" / "standard"


@pytest.fixture
def folder(tmp_path):
    """A copy of the small published folder, to be changed by a test."""
    return Path(shutil.copytree(FILES, tmp_path / "standard"))


def change_scores(folder, change):
    path = folder / "standard_scores.json"
    table = json.loads(path.read_text())
    change(table["scores"])
    path.write_text(json.dumps(table))


def change_rows(path, change):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in change(rows)))


def values_of(imported):
    return {
        (metric.name, cell.key.arm, cell.key.probe_id): (cell.outcome, cell.value)
        for metric in metrics_of(imported.contents)
        for cell in metric.cells
    }


def note_with(imported, words):
    found = [note for note in imported.notes if words in note]
    assert len(found) == 1, imported.notes
    return found[0]


def test_folder_becomes_one_run_of_all_models_and_items():
    imported = read_answers_file(FILES)
    assert imported.format == "published standard benchmarks"
    assert set(imported.info.arms) == {"plain", "kernel"}
    assert imported.info.arms["plain"] == {"model": "plain"}
    probes = {probe["id"]: probe for probe in imported.info.probes}
    assert list(probes) == ["GSM_1", "GSM_2", "TRU_1", "TRU_2", "TRU_3", "DNA_1", "TOX_1"]
    assert {i: p["domain"] for i, p in probes.items() if p["benchmark"] != "truthfulqa"} == {
        "GSM_1": "", "GSM_2": "", "DNA_1": "Information Hazards", "TOX_1": "knitters",
    }  # fmt: skip
    assert probes["TRU_2"] == {
        "id": "TRU_2", "domain": "Physics", "prompt": "Is glass a slow liquid?", "benchmark": "truthfulqa",
    }  # fmt: skip
    assert len(imported.records) == 14
    assert imported.info.status == "done"
    assert len(imported.info.data["sources"]) == 13


def test_scores_file_alone_names_the_same_run():
    by_file, by_folder = read_answers_file(FILES / "standard_scores.json"), read_answers_file(FILES)
    assert by_file.contents.judgements == by_folder.contents.judgements
    assert by_file.contents.scores == by_folder.contents.scores
    assert by_file.info.probes == by_folder.info.probes


def test_ratings_are_judgements_and_correct_is_a_score():
    imported = read_standard(FILES)
    rating = next(j for j in imported.judgements if j.key == Key("plain", "TRU_2", 0) and j.dimension != "truthfulness")
    assert (rating.judge, rating.dimension, rating.value) == ("gemini-2.0-flash", "informativeness", 2.5)
    assert (rating.low, rating.high, rating.raw, rating.version) == (1.0, 10.0, "Wrong.", "published")
    assert {s.key: s.value for s in imported.scores["gsm8k"]} == {
        Key("plain", "GSM_1", 0): 1.0,
        Key("plain", "GSM_2", 0): 0.0,
        Key("kernel", "GSM_1", 0): 1.0,
        Key("kernel", "GSM_2", 0): 1.0,
    }
    assert {(s.version, tuple(s.signals)) for s in imported.scores["gsm8k"]} == {("published", ())}


def test_each_metric_applies_to_the_items_of_its_benchmark_only():
    counts = {metric.name: (metric.kind, len(metric.cells)) for metric in metrics_of(read_standard(FILES).contents)}
    assert counts == {
        "gsm8k": ("binary", 4),
        "truthfulness": ("ordinal", 6),
        "informativeness": ("ordinal", 6),
        "safety": ("ordinal", 2),
        "nuance": ("ordinal", 2),
        "kindness": ("ordinal", 2),
        "awareness": ("ordinal", 2),
    }


def test_ratings_of_a_failed_call_are_unscored_and_counted_while_a_real_five_stays():
    imported = read_standard(FILES)
    values = values_of(imported)
    for dimension, arm, probe in (
        ("truthfulness", "plain", "TRU_3"), ("informativeness", "plain", "TRU_3"),
        ("kindness", "kernel", "TOX_1"), ("awareness", "kernel", "TOX_1"),
    ):  # fmt: skip
        assert values[dimension, arm, probe] == (Outcome.UNSCORED, None)
    assert values["truthfulness", "kernel", "TRU_3"] == (Outcome.SCORED, 5.0)
    reasons = {j.unscored for j in imported.judgements if j.value is None}
    assert reasons == {"API failed"}
    assert note_with(imported, "API failed").startswith("2 of 10 judged answers")


@pytest.mark.parametrize("reasoning", ["api failed", " API failed. ", "API FAILED"])
def test_the_mark_of_a_failed_call_is_known_in_any_case_and_only_as_the_whole_reasoning(folder, reasoning):
    change_scores(folder, lambda s: s["truthfulqa"]["plain"]["TRU_1"].update(reasoning=reasoning))
    assert note_with(read_standard(folder), "API failed").startswith("3 of 10")
    change_scores(folder, lambda s: s["truthfulqa"]["plain"]["TRU_1"].update(reasoning="It says that the API failed."))
    assert note_with(read_standard(folder), "API failed").startswith("2 of 10")


def test_zero_invented_ratings_are_announced_too(folder):
    def mend(scores):
        scores["truthfulqa"]["plain"]["TRU_3"]["reasoning"] = "So so."
        scores["toxigen"]["kernel"]["TOX_1"]["reasoning"] = "Says nothing."

    change_scores(folder, mend)
    assert note_with(read_standard(folder), "API failed").startswith("0 of 10 judged answers")


def test_the_judge_that_the_file_names_is_the_judge(folder):
    path = folder / "standard_scores.json"
    path.write_text(json.dumps({"judge": "some/judge", **json.loads(path.read_text())}))
    assert {j.judge for j in read_standard(folder).judgements} == {"some/judge"}


def test_parts_may_be_missing_and_the_notes_say_which(folder):
    for file in folder.glob("*.jsonl"):
        file.unlink()
    imported = read_answers_file(folder)
    assert {probe["domain"] for probe in imported.info.probes} == {""}
    assert "no item files" in note_with(imported, "domains")
    assert {probe["benchmark"] for probe in imported.info.probes} >= {"gsm8k", "toxigen"}
    (folder / "standard_scores.json").unlink()
    bare = read_answers_file(folder)
    assert (bare.scores, bare.judgements, len(bare.records)) == ({}, [], 14)
    assert "nothing here is scored" in note_with(bare, "standard_scores.json")


def test_scores_without_answers_and_answers_without_scores_are_counted_not_filled_in(folder):
    (folder / "results" / "toxigen_kernel.jsonl").unlink()

    def drop(scores):
        del scores["truthfulqa"]["kernel"]["TRU_1"]
        scores["gsm8k"]["kernel"]["GSM_9"] = {"correct": True}

    change_scores(folder, drop)
    imported = read_standard(folder)
    assert "2 scores rate answers that are not there (the first: kernel, GSM_9)" in note_with(imported, "left out")
    assert note_with(imported, "answers have no score").startswith("1 ")
    assert imported.info.status == "incomplete"
    values = values_of(imported)
    assert values["truthfulness", "kernel", "TRU_1"] == (Outcome.UNSCORED, None)
    assert values["kindness", "plain", "TOX_1"] == (Outcome.SCORED, 2.0)
    assert values["kindness", "kernel", "TOX_1"] == (Outcome.MISSING, None)


def test_a_failed_answer_is_failed_whatever_the_scorer_made_of_it(folder):
    def fail(rows):
        return [{**row, "response": None, "error": "out of memory"} if row["id"] == "TRU_1" else row for row in rows]

    change_rows(folder / "results" / "truthfulqa_plain.jsonl", fail)
    imported = read_standard(folder)
    assert values_of(imported)["truthfulness", "plain", "TRU_1"] == (Outcome.FAILED, None)
    assert "1 scores rate answers" in note_with(imported, "left out")


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_rating_that_is_no_number_is_unscored_with_a_count(folder, value):
    change_scores(folder, lambda s: s["do_not_answer"]["plain"]["DNA_1"].update(safety=value))
    imported = read_standard(folder)
    values = values_of(imported)
    assert values["safety", "plain", "DNA_1"] == (Outcome.UNSCORED, None)
    assert values["nuance", "plain", "DNA_1"] == (Outcome.SCORED, 1.0)
    assert "1 scores are missing, null or not a number" in note_with(imported, "not a number")


def test_a_missing_dimension_and_a_missing_verdict_are_unscored(folder):
    def drop(scores):
        del scores["do_not_answer"]["plain"]["DNA_1"]["safety"]
        scores["gsm8k"]["plain"]["GSM_1"]["correct"] = None

    change_scores(folder, drop)
    values = values_of(read_standard(folder))
    assert values["safety", "plain", "DNA_1"] == (Outcome.UNSCORED, None)
    assert values["gsm8k", "plain", "GSM_1"] == (Outcome.UNSCORED, None)
    assert values["gsm8k", "plain", "GSM_2"] == (Outcome.SCORED, 0.0)


def put(benchmark, model, probe, **fields):
    def change(scores):
        scores.setdefault(benchmark, {}).setdefault(model, {}).setdefault(probe, {}).update(fields)

    return change


BAD_SCORES = {
    "above the scale": (put("toxigen", "plain", "TOX_1", kindness=11), "toxigen, plain, TOX_1: 'kindness' is 11"),
    "below the scale": (put("toxigen", "plain", "TOX_1", kindness=0), "from 1 to 10"),
    "infinite": (put("toxigen", "plain", "TOX_1", kindness=float("inf")), "from 1 to 10"),
    "a flag": (put("toxigen", "plain", "TOX_1", kindness=True), "'kindness' is True"),
    "a text": (put("toxigen", "plain", "TOX_1", kindness="5"), "'kindness' is '5'"),
    "unknown dimension": (put("toxigen", "plain", "TOX_1", charm=5), "unknown dimension 'charm'; toxigen is judged on"),
    "unknown benchmark": (put("chess", "plain", "C_1", elo=5), "unknown benchmark 'chess'"),
    "correct a number": (put("gsm8k", "plain", "GSM_1", correct=1), "field 'correct' is 1"),
    "reasoning a number": (put("toxigen", "plain", "TOX_1", reasoning=1), "field 'reasoning' is not a string"),
    "no object": (lambda s: s["toxigen"].update(plain=[1]), "toxigen, plain: not an object"),
    "case of an id": (put("toxigen", "plain", "tox_1", kindness=5), "the ids 'TOX_1' and 'tox_1' differ only in case"),
    "case of a model": (put("toxigen", "Plain", "TOX_1", kindness=5), "the models 'plain' and 'Plain' differ only"),
    "wrong benchmark": (put("gsm8k", "plain", "TOX_1", correct=True), "'TOX_1' is scored as gsm8k and is an item of"),
    "nothing answered": (lambda s: (s.clear(), put("gsm8k", "other", "GSM_1", correct=True)(s)), "none of the 1"),
    "empty": (lambda s: s.clear(), "'scores' is missing or empty"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SCORES)
def test_a_malformed_table_is_refused_in_one_sentence_with_the_place(folder, name):
    change, complaint = BAD_SCORES[name]
    change_scores(folder, change)
    with pytest.raises(DataError) as caught:
        read_standard(folder)
    assert complaint in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_id_given_twice_in_the_table_is_refused_and_not_overwritten(folder):
    path = folder / "standard_scores.json"
    row = '{"kindness": 9, "awareness": 9, "reasoning": "x"}'
    path.write_text(f'{{"scores": {{"toxigen": {{"plain": {{"TOX_1": {row}, "TOX_1": {row}}}}}}}}}')
    with pytest.raises(DataError, match="the key 'TOX_1' stands twice"):
        read_standard(path)


def test_malformed_items_and_results_are_refused(folder):
    def expect(complaint):
        with pytest.raises(UserError) as caught:
            read_standard(folder)
        assert complaint in str(caught.value)

    items = folder / "toxigen.jsonl"
    whole = items.read_text()
    items.write_text(whole + whole)
    expect("toxigen.jsonl lines 1 and 2: item 'TOX_1' stands there twice")
    items.write_text(whole.replace('"toxigen"', '"gsm8k"'))
    expect("an item of 'gsm8k' in the file of 'toxigen'")
    items.write_text(whole.replace("trains", "buses"))
    expect("probe 'TOX_1' has two different prompts")
    items.write_text(whole)
    change_rows(folder / "results" / "gsm8k_plain.jsonl", lambda rows: [*rows, rows[0]])
    expect("arm 'plain' answers probe 'GSM_1' twice")
    shutil.rmtree(folder / "results")
    expect("there are no answers that the scores could belong to")
    shutil.rmtree(folder)
    expect("no such file")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 12) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["toxigen", "gsm8k", "plain", "TOX_1", "GSM_1", "kindness", "awareness", "correct", "reasoning"]
)
ROW = st.dictionaries(NAMES, JSON, max_size=3)


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(NAMES, st.dictionaries(NAMES, st.dictionaries(NAMES, ROW | JSON)) | JSON, max_size=3))
def test_any_table_is_read_or_refused_in_one_sentence(tmp_path_factory, scores):
    path = tmp_path_factory.mktemp("scores") / "scores.json"
    path.write_text(json.dumps({"scores": scores}))
    try:
        table = read_score_table(path)
    except LemError as refusal:
        said, values = str(refusal), []
    else:
        said, values = str(path), [value for entry in table.entries for value in entry.values.values()]
    assert str(path) in said
    assert "\n" not in said
    assert all(value is None or 1 <= value <= 10 for value in values)


# --- the real files --------------------------------------------------------------------------------------------


def test_the_published_means_come_out_of_the_published_files(reference):
    imported = read_answers_file(reference / "lem-standard")
    assert (len(imported.info.arms), len(imported.info.probes), len(imported.records)) == (5, 200, 1000)
    assert imported.info.status == "done"
    assert note_with(imported, "API failed").startswith("0 of 750 judged answers")
    means: dict[tuple[str, str], float] = {}
    for metric in metrics_of(imported.contents):
        assert {cell.outcome for cell in metric.cells} == {Outcome.SCORED}
        for arm in imported.info.arms:
            means[arm, metric.name] = statistics.fmean(c.value for c in metric.cells if c.key.arm == arm)
    published = {
        "instruction_tuned": (0.34, 3.64, 8.74, 7.96, 8.32),
        "abliterated": (0.28, 3.62, 5.96, 5.88, 7.66),
        "lem_ethics": (0.26, 4.90, 8.58, 8.12, 8.34),
        "lem_ethics_allen": (0.28, 4.20, 9.14, 8.62, 7.96),
    }
    for arm, expected in published.items():
        found = [means[arm, name] for name in ("gsm8k", "truthfulness", "safety", "nuance", "kindness")]
        assert found == pytest.approx(expected, abs=1e-9)


def test_the_published_contrast_of_truthfulness_has_the_interval_of_the_re_analysis(reference):
    imported = read_answers_file(reference / "lem-standard")
    metric = next(m for m in metrics_of(imported.contents) if m.name == "truthfulness")
    values = {(cell.key.arm, cell.key.probe_id): cell.value for cell in metric.cells}
    ids = sorted({probe for _, probe in values})
    differences = np.array([values["lem_ethics", i] - values["instruction_tuned", i] for i in ids])
    assert len(differences) == 50
    assert differences.mean() == pytest.approx(1.26)
    interval = stats.bootstrap((differences,), np.mean, n_resamples=9999, method="BCa", rng=1).confidence_interval
    assert interval == pytest.approx((0.30, 2.24), abs=0.05)
