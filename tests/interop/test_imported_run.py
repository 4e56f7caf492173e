"""Imports as runs: what is written reads back the same, nothing is overwritten, and large files are streamed."""

import json
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lem.errors import DataError, LemError, UserError
from lem.interop import read_ab, read_answers, read_answers_file, read_standard_results, write_ab, write_run
from lem.interop.lines import LineStream, file_sha
from lem.records import Judgement, Key, Score, metrics_of, read_contents

FILES = Path(__file__).parent / "files"


def as_sets(contents):
    scores = {row for rows in contents.scores.values() for row in (json.dumps(s.to_row()) for s in rows)}
    return set(contents.records), scores, set(contents.judgements)


def test_an_imported_standard_folder_survives_as_a_run(tmp_path):
    imported = read_answers_file(FILES / "standard")
    write_run(imported, tmp_path / "run")
    back = read_contents(tmp_path / "run")
    assert as_sets(back) == as_sets(imported.contents)
    assert back.info.probes == imported.info.probes
    assert (back.info.kind, back.info.arms) == ("import", imported.info.arms)
    assert back.info.created
    names = [(m.name, [(c.key, c.outcome, c.value) for c in m.cells]) for m in metrics_of(back)]
    assert names == [(m.name, [(c.key, c.outcome, c.value) for c in m.cells]) for m in metrics_of(imported.contents)]
    again = read_answers_file(tmp_path / "run")
    assert again.notes == imported.notes
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "judgements", "records.jsonl", "run.json", "scores",
    ]  # fmt: skip


def test_published_scores_and_sources_of_an_ab_file_survive_as_a_run(tmp_path):
    imported = read_ab(FILES / "published_ab.jsonl")
    probes = [{**probe, "source": "T00_ORIGIN"} for probe in imported.info.probes]
    write_ab(tmp_path / "ab.jsonl", replace(imported.info, probes=probes), imported.records, {})
    rephrased = read_ab(tmp_path / "ab.jsonl")
    assert [probe["source"] for probe in rephrased.info.probes] == ["T00_ORIGIN", "T00_ORIGIN"]
    imported = replace(imported, info=replace(imported.info, probes=probes))
    write_run(imported, tmp_path / "run")
    again = read_answers_file(tmp_path / "run")
    assert again.published_scores == imported.published_scores
    assert len(again.published_scores) == 4
    assert again.info.probes == probes
    # v2 is counted from the texts, so the published values do not stand in its place.
    assert again.contents.scores == {}


def test_an_occupied_folder_is_refused_and_stays_as_it_was(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="nothing was touched"):
        write_run(read_answers_file(FILES / "standard"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_scorers_of_other_tools_get_names_that_can_be_files(tmp_path):
    imported = read_answers_file(FILES / "standard")
    row = Score("plain", "GSM_1", 0, "tools/exact", "1", 1.0, {})
    write_run(replace(imported, scores={"tools/exact": [row]}), tmp_path / "run")
    assert read_contents(tmp_path / "run").scores == {"tools-exact": [replace(row, scorer="tools-exact")]}
    twins = {"Exact": [replace(row, scorer="Exact")], "exact": [replace(row, scorer="exact")]}
    with pytest.raises(DataError, match="would share one file"):
        write_run(replace(imported, scores=twins), tmp_path / "twins")
    assert not (tmp_path / "twins").exists()


def test_judges_with_the_same_last_name_keep_their_own_judgements(tmp_path):
    imported = read_answers_file(FILES / "standard")
    rows = [Judgement("plain", "TRU_1", 0, judge, "truthfulness", 3.0) for judge in ("a/judge", "b/judge")]
    write_run(replace(imported, judgements=rows), tmp_path / "run")
    assert read_contents(tmp_path / "run").judgements == rows


def test_a_damaged_list_of_published_scores_is_named(tmp_path):
    write_run(read_ab(FILES / "published_ab.jsonl"), tmp_path / "run")
    file = tmp_path / "run" / "published_scores.jsonl"
    file.write_text(file.read_text().replace('"lek_score": ', '"score": '))
    with pytest.raises(DataError, match=r"published_scores\.jsonl line 1: fields 'repeat' and 'lek_score'"):
        read_answers_file(tmp_path / "run")


TEXT = st.text(max_size=20) | st.sampled_from(["\ud800", "\u2028", "a\nb", "\x00"])
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(str.strip)


@settings(deadline=None, max_examples=60)
@given(answers=st.dictionaries(st.tuples(NAMES, NAMES), TEXT, min_size=1, max_size=5))
def test_any_answers_survive_as_a_run(tmp_path_factory, answers):
    folder = tmp_path_factory.mktemp("run")
    rows = [{"id": probe, "arm": arm, "response": text} for (arm, probe), text in answers.items()]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    imported = read_answers(folder / "a.jsonl")
    write_run(imported, folder / "out")
    back = read_contents(folder / "out")
    assert {r.key: r.response for r in back.records} == {Key(a, p, 0): text for (a, p), text in answers.items()}


def test_a_scores_file_may_have_another_name(tmp_path):
    shutil.copytree(FILES / "standard", tmp_path / "s")
    moved = (tmp_path / "s" / "standard_scores.json").rename(tmp_path / "s" / "mine.json")
    assert read_answers_file(moved).info.run_id == "mine"


# --- streaming -------------------------------------------------------------------------------------------------


def write_large(path, lines, size):
    with path.open("w") as file:
        for number in range(lines):
            row = {"id": f"P{number}", "benchmark": "b", "model": "m", "prompt": "p", "response": "x" * size}
            file.write(json.dumps(row) + "\n")
    return path.stat().st_size


def peak_of(action):
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_reading_line_by_line_holds_one_line_and_no_more(tmp_path):
    total = write_large(tmp_path / "a.jsonl", 400, 50_000)
    assert total > 20_000_000

    def walk():
        assert sum(len(line.row["response"]) for line in LineStream(tmp_path / "a.jsonl")) == 400 * 50_000

    assert peak_of(walk) < 2_000_000
    assert peak_of(lambda: file_sha(tmp_path / "a.jsonl")) < 4_000_000
    assert peak_of(lambda: LineStream(tmp_path / "a.jsonl").first()) < 2_000_000


@pytest.mark.parametrize("read", [read_standard_results, read_answers_file])
def test_an_import_holds_the_text_of_the_file_once(tmp_path, read):
    total = write_large(tmp_path / "a.jsonl", 400, 50_000)
    kept = []
    assert peak_of(lambda: kept.append(read(tmp_path / "a.jsonl"))) < 1.3 * total
    assert len(kept[0].records) == 400


def test_plain_answers_and_ab_results_hold_their_text_once_too(tmp_path):
    text = "x" * 50_000
    plain = "".join(json.dumps({"id": n, "response": text}) + "\n" for n in range(300))
    ab = "".join(
        json.dumps({"type": "probe", "id": n, "prompt": "p", "conditions": {"baseline": {"response": text}}}) + "\n"
        for n in range(300)
    )
    for name, content, read in (("plain", plain, read_answers), ("ab", ab, read_ab)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(content)
        total = len(content)
        assert peak_of(lambda path=path, read=read: read(path)) < 1.3 * total


def test_a_file_in_one_endless_line_is_refused_without_reading_it_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("lem.interop.lines.MAX_LINE_BYTES", 1000)
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "A", "response": "x"}\n' + "{" + " " * 100_000)
    with pytest.raises(DataError, match="line 2: longer than"):
        read_answers_file(path)


@settings(deadline=None, max_examples=100)
@given(
    texts=st.lists(st.text(st.characters(exclude_characters="\0"), max_size=6), max_size=6),
    end=st.sampled_from(["", "\n", "\r\n"]),
)
def test_lines_are_numbered_as_an_editor_does_and_are_those_of_the_whole_text(tmp_path_factory, texts, end):
    """The stream against the plain definition: split the decoded text at line feeds, parse what is not blank."""
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    rows = [json.dumps({"t": text}) if number % 2 else text.strip() and "" for number, text in enumerate(texts)]
    content = "\n".join(rows) + end
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    expected = [(n, json.loads(line)) for n, line in enumerate(content.split("\n"), start=1) if line.strip()]
    try:
        found = [(line.number, line.row) for line in LineStream(path)]
    except LemError:
        found = []
    assert found == expected
