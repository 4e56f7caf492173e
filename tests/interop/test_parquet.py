"""Tidy tables: read back by pandas and by `datasets` they hold the run's values, and the four outcomes apart."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lem.errors import UserError
from lem.interop import read_answers_file
from lem.interop.parquet import SCHEMAS, write_parquet
from lem.records import Judgement, Record, RunContents, RunInfo, Score, text_sha

FILES = Path(__file__).parent / "files"


def make_run(texts=("first", "second"), repeats=2):
    """Two arms: all answered in `base`; in `json` one failed, one missing. v2 scores, one of them unscored."""
    info = RunInfo("r1", "benchmark", arms={"base": {"model": "org/m"}, "json": {"model": "org/m", "adapter": "a/b"}})
    info.settings = {"repeats": repeats}
    info.probes = [
        {"id": "P1", "domain": "d1", "prompt": "Why?"},
        {"id": "P2", "domain": "d2", "prompt": "Say why.", "source": "P1"},
    ]
    records = [
        Record("r1", arm, probe, repeat, text, seed="ab", n_tokens=5, finish_reason="stop", ts="2025-01-01T00:00:00")
        for arm in info.arms
        for probe, text in zip(("P1", "P2"), texts, strict=True)
        for repeat in range(repeats)
    ]
    records[4] = replace(records[4], response=None, error="killed", n_tokens=None)
    missing = records.pop(7)
    assert (missing.arm, missing.probe_id, missing.repeat) == ("json", "P2", 1)
    scores = [
        Score(*record.key, "v2", "v2.0", float(number), {"nuance": 2.0, "words": 0.1}, None, text_sha(record.response))
        for number, record in enumerate(records)
        if record.response is not None
    ]
    scores[1] = replace(scores[1], value=None, signals={}, unscored="truncated while thinking")
    return RunContents(info, records, {"v2": scores})


def read(folder, table):
    found = pd.read_parquet(folder / f"{table}.parquet")
    return found.astype(object).where(found.notna(), None)


def test_generations_have_a_row_per_planned_cell_with_its_outcome(tmp_path):
    counts = write_parquet(make_run(), tmp_path / "out")
    table = read(tmp_path / "out", "generations")
    assert counts == {"generations": 8, "scores": 8, "judgements": 0}
    assert Counter(zip(table["arm"], table["outcome"], strict=True)) == {
        ("base", "answered"): 4, ("json", "answered"): 2, ("json", "failed"): 1, ("json", "missing"): 1,
    }  # fmt: skip
    failed = table[table["outcome"] == "failed"].iloc[0]
    assert (failed["probe_id"], failed["repeat"], failed["error"], failed["response"]) == ("P1", 0, "killed", None)
    row = table.iloc[2]
    assert (row["run"], row["probe_id"], row["domain"], row["source"]) == ("r1", "P2", "d2", "P1")
    assert (row["prompt"], row["response"], row["model"], row["adapter"]) == ("Say why.", "second", "org/m", None)
    assert set(table[table["arm"] == "json"]["adapter"]) == {"a/b"}
    missing = table[table["outcome"] == "missing"].iloc[0]
    assert missing["response"] is None
    assert missing["n_tokens"] is None


def test_scores_keep_values_signals_and_the_four_outcomes(tmp_path):
    run = make_run()
    write_parquet(run, tmp_path / "out")
    table = read(tmp_path / "out", "scores")
    assert Counter(table["outcome"]) == {"scored": 5, "unscored": 1, "failed": 1, "missing": 1}
    scored = table[table["outcome"] == "scored"]
    found = {(r.arm, r.probe_id, r.repeat): r.value for r in scored.itertuples()}
    assert found == {tuple(s.key): s.value for s in run.scores["v2"] if s.value is not None}
    assert table[table["outcome"] != "scored"]["value"].isna().all()
    assert set(table[table["outcome"] == "unscored"]["reason"]) == {"truncated while thinking"}
    assert list(scored.iloc[0]["signals"]) == [{"name": "nuance", "value": 2.0}, {"name": "words", "value": 0.1}]


def test_an_answer_changed_after_scoring_is_unscored_here_too(tmp_path):
    run = make_run()
    run.records[0] = replace(run.records[0], response="another text")
    write_parquet(run, tmp_path / "out")
    row = read(tmp_path / "out", "scores").iloc[0]
    assert row["outcome"] == "unscored"
    assert "earlier answer" in row["reason"]


def test_judgements_of_an_imported_folder_keep_ratings_and_reasons(tmp_path):
    contents = read_answers_file(FILES / "standard").contents
    counts = write_parquet(contents, tmp_path / "out")
    table = read(tmp_path / "out", "judgements")
    assert counts == {"generations": 14, "scores": 4, "judgements": 20}
    expected = {(*j.key, j.judge, j.dimension): j for j in contents.judgements}
    assert len(table) == len(expected)
    for row in table.itertuples():
        judgement = expected[row.arm, row.probe_id, row.repeat, row.judge, row.dimension]
        assert (row.outcome, row.raw, row.low, row.high) == (
            "scored" if judgement.value is not None else "unscored", judgement.raw, 1.0, 10.0,
        )  # fmt: skip
        assert row.value == judgement.value
    assert set(table[table["outcome"] == "unscored"]["reason"]) == {"API failed"}
    assert set(table["order"]) == {""}


def test_comparisons_in_both_orders_and_failed_calls_stand_apart(tmp_path):
    run = make_run()
    rows = [
        Judgement("base", "P1", 0, "j", "better", 1.0, order="ab", raw="the first"),
        Judgement("base", "P1", 0, "j", "better", None, order="ba", unscored="no verdict found"),
        Judgement("base", "P2", 0, "j", "better", None, order="ab", error="timeout"),
        Judgement("base", "P1", 1, "j", "depth", None, error="timeout"),
    ]
    write_parquet(replace(run, judgements=rows), tmp_path / "out")
    table = read(tmp_path / "out", "judgements")
    pairs = table[table["order"] != ""]
    assert list(zip(pairs["order"], pairs["outcome"], pairs["reason"], strict=True)) == [
        ("ab", "scored", None), ("ba", "unscored", "no verdict found"), ("ab", "failed", "timeout"),
    ]  # fmt: skip
    depth = table[table["dimension"] == "depth"]
    assert Counter(depth["outcome"]) == {"failed": 2, "unscored": 5, "missing": 1}


@pytest.mark.parametrize("source", ["made", "imported"])
def test_the_datasets_library_reads_every_table_by_its_name(tmp_path, source):
    datasets = pytest.importorskip("datasets")
    run = make_run() if source == "made" else read_answers_file(FILES / "standard").contents
    counts = write_parquet(run, tmp_path / "out")
    held = {table: n for table, n in counts.items() if n}
    assert set(held) == {"generations", "scores"} | ({"judgements"} if run.judgements else set())
    assert datasets.get_dataset_config_names(str(tmp_path / "out")) == list(held)
    for table, expected in held.items():
        loaded = datasets.load_dataset(str(tmp_path / "out"), table, cache_dir=str(tmp_path / "cache"))
        assert list(loaded) == ["train"]
        assert loaded["train"].num_rows == expected
        assert loaded["train"].column_names == SCHEMAS[table].names
        assert loaded["train"]["outcome"][:] == list(read(tmp_path / "out", table)["outcome"])
    scores = datasets.load_dataset(str(tmp_path / "out"), "scores", cache_dir=str(tmp_path / "cache"))["train"]
    found = {(row["arm"], row["probe_id"], row["repeat"]): row["value"] for row in scores if row["outcome"] == "scored"}
    assert found == {tuple(s.key): s.value for rows in run.scores.values() for s in rows if s.value is not None}


def test_the_card_counts_what_the_tables_hold_and_names_arms_and_notes(tmp_path):
    run = replace(make_run(), notes=("the run r1 is incomplete; some of its cells may be missing.",))
    write_parquet(run, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| generations | 8 | 6 answered, 1 failed, 1 missing |" in card
    assert "| scores | 8 | 1 failed, 1 missing, 5 scored, 1 unscored |" in card
    assert "| judgements | 0 | none |" in card
    assert "- `json`: org/m" in card
    assert "- the run r1 is incomplete" in card
    assert "$" not in card


def test_an_occupied_folder_is_refused(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(UserError, match="nothing was touched"):
        write_parquet(make_run(), tmp_path)


def test_every_column_of_every_table_is_explained_in_the_card(tmp_path):
    write_parquet(make_run(), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    for schema in SCHEMAS.values():
        for name in schema.names:
            assert f"`{name}`" in card, name


TEXT = st.text(max_size=15) | st.sampled_from(["\ud800", "a\ud800b", "\x00", "\u2028", "$x ${y}", ""])


@settings(deadline=None, max_examples=40)
@given(texts=st.tuples(TEXT, TEXT))
def test_any_text_survives_and_half_characters_are_escaped_and_counted(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("out") / "x"
    write_parquet(make_run(texts), folder)
    table = read(folder, "generations")
    base = table[(table["arm"] == "base") & (table["repeat"] == 0)]
    assert list(base["response"]) == [text.encode("utf-8", "backslashreplace").decode() for text in texts]
    broken = sum("\ud800" in text for text in texts)
    assert ("half surrogate pairs" in (folder / "README.md").read_text()) == (broken > 0)


def test_the_name_of_a_run_cannot_break_the_front_matter(tmp_path):
    datasets = pytest.importorskip("datasets")
    run = make_run()
    run.info.run_id = 'a: "b" # c'
    write_parquet(run, tmp_path / "out")
    assert json.dumps('LEM run a: "b" # c') in (tmp_path / "out" / "README.md").read_text()
    loaded = datasets.load_dataset(str(tmp_path / "out"), "scores", cache_dir=str(tmp_path / "cache"))
    assert loaded["train"][0]["run"] == 'a: "b" # c'
