"""The page's promises: self-contained, inert whatever a model wrote, honest about what a run lacks."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from page_tools import Elements, answers_of, index_of, parts_of
from small_run import ARMS, FAILED, HOSTILE, HOSTILE_TEXT, KERNEL, MISSING, SmallRun, keys, probes
from small_training import train_rows, write_training

from lem.errors import DataError, UserError
from lem.records import Judgement, Key, RunContents
from lem.reports import write_report
from lem.reports.formats import TOY_NOTICE
from lem.reports.page import render_page
from lem.reports.page_facts import duplicate_repeats
from lem.reports.viewer import as_json


def page_of(run: SmallRun) -> str:
    return write_report(run.path).read_text(encoding="utf-8")


def rendered(run: SmallRun, **changes: Any) -> str:
    """The page of a run whose manifest, records or scores were changed."""
    contents = RunContents(**{"info": run.info, "records": run.records, "scores": run.scores} | changes)
    return render_page(contents, run=run.path)


@pytest.mark.parametrize("name", ["run", "trained_run"])
def test_the_page_needs_nothing_but_itself(name: str, request: pytest.FixtureRequest) -> None:
    page = page_of(request.getfixturevalue(name))
    assert not re.search(r"https?://|//[a-z]+\.|\bsrc\s*=\s*[\"'](?!x )|@import|url\(", page)
    elements = Elements(page)
    assert {tag for tag, _ in elements.tags}.isdisjoint({"img", "link", "iframe", "object", "base", "embed"})
    links = [attributes["href"] for _, attributes in elements.tags if attributes.get("href")]
    assert all(link and link.startswith("#") for link in links)


def test_hostile_texts_stay_data(run: SmallRun) -> None:
    page = page_of(run)
    elements = Elements(page)
    assert [tag for tag, _ in elements.tags].count("script") == 3
    assert not any(name.startswith("on") for _, attributes in elements.tags for name in attributes)
    assert answers_of(index_of(page), parts_of(page))[HOSTILE]["t"] == HOSTILE_TEXT


def test_the_policy_allows_this_script_and_no_other(run: SmallRun) -> None:
    page = page_of(run)
    script = page.rsplit("<script>", 1)[1].split("</script>", 1)[0]
    sha = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(a["content"] for t, a in Elements(page).tags if t == "meta" and a.get("http-equiv"))
    assert policy
    assert f"script-src 'sha256-{sha}'" in policy
    assert "default-src 'none'" in policy


def test_names_in_the_run_are_escaped(run: SmallRun) -> None:
    bad = "<img src=x onerror=alert(1)>"
    info = dataclasses.replace(
        run.info,
        run_id=bad,
        arms={**run.info.arms, bad: {"model": bad}},
        settings={bad: bad},
        command=["lem", bad],
        probes=[{"id": "P00", "domain": bad, "prompt": bad}, *run.info.probes[1:]],
    )
    page = rendered(run, info=info)
    assert "<img" not in page
    assert "&lt;img" in page


def test_embedded_json_survives_anything() -> None:
    nasty = ["</script>", "<!--", "]]>", "\u2028\u2029", "\ud83d", "\x00\x1f", "\U0001f600", "&amp;"]
    text = as_json(nasty)
    assert text.encode("utf-8")
    assert json.loads(text) == nasty
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_json([math.nan])


def test_every_answer_is_embedded_once(run: SmallRun) -> None:
    page = page_of(run)
    index, parts = index_of(page), parts_of(page)
    answers = answers_of(index, parts)
    for record in run.records:
        assert answers[record.key].get("t") == record.response
    (texts,) = [part["texts"] for part in parts]
    assert len(texts) == len(set(texts))
    assert texts.count(KERNEL) == 1
    assert len(index["outcomes"]) == len(keys())
    counts = {letter: index["outcomes"].count(letter) for letter in "atfm-"}
    assert counts == {"a": 68, "t": 1, "f": 1, "m": len(MISSING), "-": 0}
    assert answers[FAILED]["e"] == "the server hung up"


def test_the_index_holds_every_value_in_its_place(run: SmallRun) -> None:
    index = index_of(page_of(run))
    places = [Key(arm, probe, repeat) for probe in index["ids"] for arm in index["arms"] for repeat in index["repeats"]]
    for metric, values in zip(index["metrics"], index["values"], strict=True):
        stored = {score.key: score.value for score in run.scores[metric["name"]]}
        for key, value in zip(places, values, strict=True):
            wanted = stored.get(key, "")
            assert value == (pytest.approx(wanted) if isinstance(wanted, float) else wanted), key


def test_messages_are_what_was_sent(run: SmallRun) -> None:
    merged = dataclasses.replace(
        run.records[0], messages=({"role": "user", "content": f"{KERNEL}\n\n{probes()[0]['prompt']} Sign here."},)
    )
    page = rendered(run, records=[merged, *run.records[1:]])
    parts = parts_of(page)
    answers = answers_of(index_of(page), parts)
    for record in [merged, *run.records[1:]]:
        assert answers[record.key]["m"] == list(record.messages)
    assert merged.messages[0]["content"] not in parts[0]["texts"]


def test_an_incomplete_run_says_so_before_any_number(run: SmallRun) -> None:
    text = Elements(page_of(run)).text
    assert "status 'incomplete'" in text
    assert "of 72 planned answers 69 are stored, 1 failed and 2 are missing" in text
    assert "the server hung up" in text
    assert text.index("not complete") < text.index("Leaderboard")
    assert TOY_NOTICE in text


def test_a_complete_run_makes_no_excuses(complete_run: SmallRun) -> None:
    text = Elements(page_of(complete_run)).text
    assert "not complete" not in text
    assert TOY_NOTICE not in text
    assert "has not been scored" not in text


def test_a_run_without_scores_names_the_command(run: SmallRun) -> None:
    shutil.rmtree(run.path / "scores")
    page = page_of(run)
    text = Elements(page).text
    assert "has not been scored" in text
    assert "./lem score " in text
    assert "<table" not in page
    assert index_of(page)["metrics"] == []


def test_answers_newer_than_their_scores_are_reported(run: SmallRun) -> None:
    page = rendered(run, scores={"v2": run.scores["v2"][2:]})
    assert "2 answers have no current v2 score" in Elements(page).text


def test_an_empty_run_renders(run: SmallRun) -> None:
    info = dataclasses.replace(run.info, arms={}, probes=[], status="new")
    text = Elements(rendered(run, info=info, records=[], scores={})).text
    assert "0 of 0 answered" in text
    assert "status 'new'" in text


def test_v2_comes_first_and_every_arm_has_a_row(run: SmallRun) -> None:
    page = page_of(run)
    assert page.index("Leaderboard, v2") < page.index("Leaderboard, v3")
    assert [metric["name"] for metric in index_of(page)["metrics"]] == ["v2", "v3"]
    for arm in ARMS:
        assert re.search(rf'scope="row">{arm}\b', page)


def test_output_is_replaced_in_one_step_and_run_files_are_left_alone(run: SmallRun, tmp_path: Path) -> None:
    before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    target = tmp_path / "elsewhere" / "page.html"
    assert write_report(run.path, target) == target
    assert write_report(run.path, target).is_file()
    assert [file.name for file in target.parent.iterdir()] == ["page.html"]
    assert {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()} == before


def test_bad_input_is_a_sentence(run: SmallRun, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no run\.json"):
        write_report(tmp_path)
    with pytest.raises(UserError, match="is a directory"):
        write_report(run.path, tmp_path)
    with pytest.raises(UserError, match="nobase"):
        write_report(run.path, baseline="nobase")
    with (run.path / "scores" / "v2.jsonl").open("a") as file:
        file.write('{"arm": "base"}\n')
    with pytest.raises(DataError, match=r"v2\.jsonl line \d+: not a score"):
        write_report(run.path)


def test_duplicate_repeats_are_counted(run: SmallRun) -> None:
    assert duplicate_repeats(run.records) == 0
    same = dataclasses.replace(run.records[0], repeat=1)
    others = [record for record in run.records if record.key != same.key]
    assert duplicate_repeats([*others, same]) == 1


def training_text(page: str) -> str:
    """The visible text of the training section."""
    return Elements(page.split('<section id="training"')[1].split("</section>")[0]).text


def test_each_adapter_has_its_training_in_a_line_and_a_curve(trained_run: SmallRun) -> None:
    page = page_of(trained_run)
    assert page.split('id="training"')[1].count("<svg") == 1
    text = training_text(page)
    assert (
        "Validation loss 6.500 to 2.000 nats per reply token (best 1.750 at iteration 80); 120 iterations, stopped "
        "early; 10,800 reply tokens; peak memory 1.50 GB; 2 skipped steps, 1 roll-back."
    ) in text
    assert "data: train.jsonl (df42b8ea), valid.jsonl (44912cf4)" in text
    assert "The adapter's folder adapters/gone is not here any more, so its training is not shown." in text
    assert page.index('id="training"') < page.index('id="answers"')


def test_arms_that_share_an_adapter_share_its_training(trained_run: SmallRun) -> None:
    arms = {**trained_run.info.arms, "json": trained_run.info.arms["trained"]}
    info = dataclasses.replace(trained_run.info, arms=arms)
    page = rendered(trained_run, info=info)
    assert page.split('id="training"')[1].count("<svg") == 1
    assert "json, trained adapters/lek-first" in training_text(page)


def test_an_adapter_is_named_as_seen_from_here(trained_run: SmallRun, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = trained_run.path.parent
    trained = {**trained_run.info.arms["trained"], "adapter": str(folder / "adapters" / "lek-first")}
    info = dataclasses.replace(trained_run.info, arms={**trained_run.info.arms, "trained": trained})
    monkeypatch.chdir(folder)
    page = rendered(trained_run, info=info)
    assert "trained adapters/lek-first" in training_text(page)


def test_a_training_that_cannot_be_shown_says_why(trained_run: SmallRun) -> None:
    adapter = trained_run.path.parent / "adapters" / "lek-first"
    write_training(adapter, base_sha="0" * 64)
    page = page_of(trained_run)
    assert "<svg" not in page.split('id="training"')[1]
    assert "now holds an adapter of another base" in training_text(page)
    write_training(adapter, [{**train_rows()[0], "iteration": "ten"}])
    assert "metrics.jsonl line 1: needs 'kind' and a whole 'iteration'" in training_text(page_of(trained_run))
    (adapter / "metrics.jsonl").unlink()
    assert "adapters/lek-first holds no metrics.jsonl" in training_text(page_of(trained_run))


def test_a_run_without_adapters_has_no_training_section(run: SmallRun) -> None:
    assert 'id="training"' not in page_of(run)


def test_a_judge_has_its_board_and_its_words(run: SmallRun) -> None:
    said = "It is <b>safe</b>."
    ratings = [
        Judgement(record.arm, record.probe_id, record.repeat, "judge-a", "safety", 5.0, raw=said, low=1.0, high=10.0)
        for record in run.records
        if not record.failed and record.probe_id != "P04"
    ]
    page = rendered(run, judgements=ratings)
    assert "Leaderboard, safety" in page
    assert "judge judge-a" in page
    index = index_of(page)
    assert [metric["name"] for metric in index["metrics"]] == ["v2", "v3", "safety"]
    assert index["metrics"][2]["threshold"] == 0.0
    cell = answers_of(index, parts_of(page))["json", "P00", 0]
    assert cell["s"][2] == [None, [], said]
    assert answers_of(index, parts_of(page))["json", "P04", 0]["s"][2] == ["no score stored yet", []]


def test_a_metric_that_does_not_apply_is_not_unscored(run: SmallRun) -> None:
    """v3 has rows for one benchmark of two: on the other probes it has no value, and nothing is missing."""
    mixed = [{**probe, "benchmark": "even" if i % 2 == 0 else "odd"} for i, probe in enumerate(run.info.probes)]
    even = {probe["id"] for probe in mixed if probe["benchmark"] == "even"}
    scores = {**run.scores, "v3": [score for score in run.scores["v3"] if score.probe_id in even]}
    page = rendered(run, info=dataclasses.replace(run.info, probes=mixed), scores=scores)
    index = index_of(page)
    v3 = index["values"][[metric["name"] for metric in index["metrics"]].index("v3")]
    each = len(index["arms"]) * len(index["repeats"])
    for number, probe in enumerate(index["ids"]):
        found = v3[number * each : (number + 1) * each]
        assert all(value == "" for value in found) != (probe in even)
    assert "no current v3 score" not in page
