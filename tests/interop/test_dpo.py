"""Preference pairs: only what is scored, whole and far enough apart, and never evaluation probes by accident."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lem.errors import UserError
from lem.interop.dpo import write_pairs
from lem.records import Judgement, Key, Record, RunContents, RunInfo, Score, text_sha


def make_run(values, kind="distill", probes=("P1", "P2")):
    """Answers `arm/probe/repeat` with these v2 values by (arm, probe, repeat); None: unscored."""
    arms = list(dict.fromkeys(arm for arm, _, _ in values))
    info = RunInfo("r", kind, arms={arm: {"model": "m"} for arm in arms})
    info.probes = [{"id": probe, "domain": "d", "prompt": f"ask {probe}"} for probe in probes]
    info.settings = {"repeats": 1 + max(repeat for _, _, repeat in values)}
    kernel = ({"role": "system", "content": "KERNEL"},)
    records = [Record("r", *key, "/".join(map(str, key)), messages=kernel) for key in values]
    scores = [
        Score(*key, "v2", "v2.0", value, {}, "too short" if value is None else None, text_sha("/".join(map(str, key))))
        for key, value in values.items()
    ]
    return RunContents(info, records, {"v2": scores})


ARMS = {
    ("base", "P1", 0): 1.0, ("json", "P1", 0): 4.0,
    ("base", "P2", 0): 3.0, ("json", "P2", 0): 3.5,
}  # fmt: skip
REPEATS = {("base", "P1", 0): 1.0, ("base", "P1", 1): 5.0, ("base", "P1", 2): 2.0, ("base", "P2", 0): 2.0,
           ("base", "P2", 1): None, ("base", "P2", 2): 2.5}  # fmt: skip


def pairs(run, tmp_path, **options):
    counts = write_pairs(run, tmp_path / "pairs.jsonl", metric=options.pop("metric", "v2"), **options)
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert len(rows) == counts.written
    return rows, dict(counts.left_out)


def test_arms_are_paired_by_probe_and_repeat_with_the_prompt_alone(tmp_path):
    rows, left_out = pairs(make_run(ARMS), tmp_path, margin=1.0, chosen="json", rejected="base")
    assert rows == [
        {
            "prompt": [{"role": "user", "content": "ask P1"}],
            "chosen": [{"role": "assistant", "content": "json/P1/0"}],
            "rejected": [{"role": "assistant", "content": "base/P1/0"}],
            "metric": "v2",
            "margin": 3.0,
            "arms": ["json", "base"],
            "repeats": [0, 0],
            "values": [4.0, 1.0],
            "run": "r",
            "probe_id": "P1",
            "evaluation_probe": False,
        }
    ]
    assert left_out == {"closer than the margin": 1}


def test_the_margin_itself_is_enough_and_the_wrong_way_round_is_counted(tmp_path):
    rows, _ = pairs(make_run(ARMS), tmp_path, margin=0.5, chosen="json", rejected="base")
    assert [row["margin"] for row in rows] == [3.0, 0.5]
    (tmp_path / "pairs.jsonl").unlink()
    with pytest.raises(UserError, match="2 the rejected arm was better"):
        pairs(make_run(ARMS), tmp_path, margin=0.5, chosen="base", rejected="json")
    rows, _ = pairs(make_run(ARMS), tmp_path, margin=0.5, chosen="base", rejected="json", lower_is_better=True)
    assert [row["values"] for row in rows] == [[1.0, 4.0], [3.0, 3.5]]


def test_without_arms_the_best_and_worst_repeat_of_a_probe_are_paired(tmp_path):
    rows, left_out = pairs(make_run(REPEATS), tmp_path, margin=1.0)
    assert [(row["repeats"], row["values"], row["arms"]) for row in rows] == [([1, 0], [5.0, 1.0], ["base", "base"])]
    assert left_out == {"closer than the margin": 1}


def test_runs_over_probes_are_refused_and_rows_say_when_they_were_allowed(tmp_path):
    for kind in ("benchmark", "import", "joined"):
        with pytest.raises(UserError, match="can no longer be evaluated"):
            pairs(make_run(ARMS, kind), tmp_path, margin=1.0, chosen="json", rejected="base")
    assert not (tmp_path / "pairs.jsonl").exists()
    options = {"margin": 1.0, "chosen": "json", "rejected": "base"}
    rows, _ = pairs(make_run(ARMS, "benchmark"), tmp_path, allow_probes=True, **options)
    assert [row["evaluation_probe"] for row in rows] == [True]


@pytest.mark.parametrize(
    "change",
    [{"finish_reason": "length"}, {"response": " "}, {"response": "base/P1/0"}, {"response": "\ud800"}],
)
def test_answers_that_cannot_be_trained_on_make_no_pair(tmp_path, change):
    run = make_run(ARMS)
    run.records[1] = replace(run.records[1], **change)
    run.scores["v2"][1] = replace(run.scores["v2"][1], record_sha="")
    rows, left_out = pairs(run, tmp_path, margin=0.5, chosen="json", rejected="base")
    assert [row["probe_id"] for row in rows] == ["P2"]
    assert left_out == {"truncated, empty, identical or not valid text": 1}


def test_unscored_failed_missing_and_stale_answers_make_no_pair(tmp_path):
    run = make_run({**ARMS, ("base", "P3", 0): None, ("json", "P3", 0): 9.0}, probes=("P1", "P2", "P3", "P4"))
    run.records[2] = replace(run.records[2], response=None, error="killed")
    run.records[1] = replace(run.records[1], response="changed since it was scored")
    with pytest.raises(UserError, match=r"no pair .* qualifies by 'v2' \(4 not both scored\)"):
        pairs(run, tmp_path, margin=0.5, chosen="json", rejected="base")
    assert list(tmp_path.iterdir()) == []


def test_a_probe_without_its_text_makes_no_pair(tmp_path):
    run = make_run(ARMS)
    run.info.probes[0]["prompt"] = ""
    rows, left_out = pairs(run, tmp_path, margin=0.5, chosen="json", rejected="base")
    assert ([row["probe_id"] for row in rows], left_out) == (["P2"], {"the prompt is not known": 1})


BAD = {
    "no such metric": ({"metric": "charm", "margin": 1.0}, "no metric 'charm'; it has v2"),
    "no margin": ({}, "needs a margin of more than 0"),
    "margin zero": ({"margin": 0.0}, "needs a margin of more than 0"),
    "margin NaN": ({"margin": float("nan")}, "needs a margin of more than 0"),
    "one arm": ({"margin": 1.0, "chosen": "json"}, "two different arms"),
    "the same arm": ({"margin": 1.0, "chosen": "json", "rejected": "json"}, "two different arms"),
    "unknown arm": ({"margin": 1.0, "chosen": "json", "rejected": "txt"}, "no arm 'txt'; it has base, json"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_options_are_refused_and_write_nothing(tmp_path, name):
    options, complaint = BAD[name]
    with pytest.raises(UserError) as caught:
        pairs(make_run(ARMS), tmp_path, **options)
    assert complaint in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_not_replaced(tmp_path):
    (tmp_path / "pairs.jsonl").write_text("mine")
    with pytest.raises(UserError, match="nothing was touched"):
        pairs(make_run(ARMS), tmp_path, margin=1.0)
    assert (tmp_path / "pairs.jsonl").read_text() == "mine"


def compare(probe, order, value, judge="j", **more):
    return Judgement("json", probe, 0, judge, "better", value, order=order, **more)


def test_comparisons_count_only_when_both_orders_of_every_judge_agree(tmp_path):
    probes = ("P1", "P2", "P3", "P4", "P5", "P6", "P7")
    run = make_run({(arm, probe, 0): 1.0 for probe in probes for arm in ("base", "json")}, probes=probes)
    judgements = [
        compare("P1", "ab", 1.0), compare("P1", "ba", 1.0),
        compare("P2", "ab", 1.0), compare("P2", "ba", 0.0),  # the judge prefers a place, not an answer
        compare("P3", "ab", 0.0), compare("P3", "ba", 0.0),
        compare("P4", "ab", 0.5), compare("P4", "ba", 0.5),
        compare("P5", "ab", 1.0),
        compare("P6", "ab", 1.0), compare("P6", "ba", None, unscored="no verdict"),
        compare("P7", "ab", 1.0), compare("P7", "ba", 1.0),
        compare("P7", "ab", 0.0, "k"), compare("P7", "ba", 0.0, "k"),
    ]  # fmt: skip
    run = replace(run, judgements=judgements)
    rows, left_out = pairs(run, tmp_path, metric="better", chosen="json", rejected="base")
    assert [(row["probe_id"], row["arms"], row["margin"]) for row in rows] == [
        ("P1", ["json", "base"], None),
        ("P3", ["base", "json"], None),
    ]
    assert left_out == {"not the same verdict in both orders": 4, "not both scored": 1}


def test_comparisons_need_their_arms_and_have_no_margin(tmp_path):
    run = replace(make_run(ARMS), judgements=[compare("P1", "ab", 1.0), compare("P1", "ba", 1.0)])
    for options in ({}, {"chosen": "json", "rejected": "base", "margin": 1.0}):
        with pytest.raises(UserError, match="judged by comparison"):
            pairs(run, tmp_path, metric="better", **options)


VALUES = st.none() | st.floats(-20, 20).map(lambda x: round(x, 1))
KEYS = [(arm, probe, repeat) for arm in ("base", "json") for probe in ("P1", "P2") for repeat in range(2)]


@settings(deadline=None, max_examples=100)
@given(values=st.fixed_dictionaries(dict.fromkeys(KEYS, VALUES)), margin=st.sampled_from([0.1, 1.0, 5.0]))
def test_pairs_are_exactly_those_that_a_plain_count_finds(tmp_path_factory, values, margin):
    expected = {
        (probe, repeat)
        for probe in ("P1", "P2")
        for repeat in range(2)
        if None not in (values["json", probe, repeat], values["base", probe, repeat])
        and values["json", probe, repeat] - values["base", probe, repeat] >= margin
    }
    try:
        folder = tmp_path_factory.mktemp("dpo")
        rows, _ = pairs(make_run(values), folder, margin=margin, chosen="json", rejected="base")
    except UserError:
        rows = []
    assert {(row["probe_id"], row["repeats"][0]) for row in rows} == expected
    assert all(Key("json", row["probe_id"], row["repeats"][0]) for row in rows)


def test_the_datasets_library_reads_the_pairs(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows, _ = pairs(make_run(ARMS), tmp_path, margin=0.5, chosen="json", rejected="base")
    loaded = datasets.load_dataset(
        "json", data_files=str(tmp_path / "pairs.jsonl"), cache_dir=str(tmp_path / "cache"), split="train"
    )
    assert [loaded[n]["chosen"] for n in range(2)] == [row["chosen"] for row in rows]
    assert set(loaded.column_names) == set(rows[0])
