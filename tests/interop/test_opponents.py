"""Comparisons with several opponents keep them apart: in tables, in logs, in pairs to train on, and in joined runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lem.ab.join import join_runs
from lem.errors import UserError
from lem.interop.dpo import write_pairs
from lem.interop.parquet import write_parquet
from lem.records import Judgement, Key, Record, RunContents, RunInfo, Score, text_sha
from lem.records.model import LIKELIHOOD

ARMS = ("base", "placebo", "kernel")
# The kernel's arm wins against base in both orders, and loses against placebo.
VALUES = {"base": 1.0, "placebo": 0.0}


def compared() -> RunContents:
    """One probe, three arms, and the comparisons of `kernel` with both others."""
    info = RunInfo("r", "distill", "done", {arm: {"model": "m"} for arm in ARMS}, {"repeats": 1})
    info.probes = [{"id": "p", "domain": "d", "prompt": "ask p"}]
    records = [Record("r", arm, "p", 0, f"{arm} answers", finish_reason="stop") for arm in ARMS]
    rows = [
        Judgement(
            "kernel", "p", 0, "j", "preference", value, order, raw=f"{order} {against}", low=0.0, high=1.0,
            version="v", against=against, model="judge-1-a", prompt_sha=f"{order}{against}", n_prompt_tokens=11,
            n_tokens=5, cost=0.5,
        )
        for against, value in VALUES.items()
        for order in ("ab", "ba")
    ]  # fmt: skip
    return RunContents(info, records, {}, rows)


def test_the_table_of_judgements_names_the_opponent_and_what_the_call_took(tmp_path: Path) -> None:
    contents = compared()
    assert write_parquet(contents, tmp_path / "out")["judgements"] == 4
    rows = pq.read_table(tmp_path / "out" / "judgements.parquet").to_pylist()
    for row, judgement in zip(rows, contents.judgements, strict=True):
        for name in ("against", "order", "value", "raw", "model", "prompt_sha", "n_prompt_tokens", "n_tokens", "cost"):
            assert row[name] == getattr(judgement, name)
        assert row["outcome"] == "scored"


def test_a_log_of_inspect_gives_every_comparison_back(tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai")
    from lem.interop.inspect_logs import read_inspect
    from lem.interop.inspect_write import write_inspect

    contents = compared()
    found = [one for path in write_inspect(contents, tmp_path / "logs") for one in read_inspect(path).judgements]
    for judgement in found:
        assert judgement.record_sha == text_sha("kernel answers")
    kept = ("order", "against", "value", "raw", "low", "high", "version", "model", "prompt_sha", "judge", "dimension")
    assert {tuple(getattr(one, name) for name in kept) for one in found} == {
        tuple(getattr(one, name) for name in kept) for one in contents.judgements
    }


def pairs(contents: RunContents, folder: Path, chosen: str, rejected: str) -> list[list[str]]:
    output = folder / f"{chosen}-{rejected}.jsonl"
    write_pairs(contents, output, metric="preference", chosen=chosen, rejected=rejected)
    return [json.loads(line)["arms"] for line in output.read_text().splitlines()]


def test_a_pair_rests_on_the_comparisons_of_its_two_arms_alone(tmp_path: Path) -> None:
    assert pairs(compared(), tmp_path, "kernel", "base") == [["kernel", "base"]]
    assert pairs(compared(), tmp_path, "kernel", "placebo") == [["placebo", "kernel"]]
    with pytest.raises(UserError, match="no pair"):
        pairs(compared(), tmp_path, "base", "placebo")


def test_measured_choices_are_no_answers_to_train_on(tmp_path: Path) -> None:
    texts = {arm: json.dumps({"loglikelihoods": [-1.0, -2.0], "arm": arm}) for arm in ("base", "kernel")}
    info = RunInfo("r", "distill", "done", {arm: {"model": "m"} for arm in texts}, {"repeats": 1})
    info.probes = [{"id": "p", "domain": "d", "prompt": "ask p"}]
    records = [Record("r", arm, "p", 0, text, finish_reason=LIKELIHOOD) for arm, text in texts.items()]
    scores = [
        Score(*Key(arm, "p", 0), "truthfulqa_mc2", "1", value, {}, None, text_sha(texts[arm]))
        for arm, value in (("base", 0.1), ("kernel", 0.9))
    ]
    contents = RunContents(info, records, {"truthfulqa_mc2": scores})
    with pytest.raises(UserError, match="no pair"):
        write_pairs(
            contents, tmp_path / "out.jsonl", metric="truthfulqa_mc2", margin=0.1, chosen="kernel", rejected="base"
        )


def test_joined_runs_rename_opponents_and_kin_with_their_arms() -> None:
    kin = {"j": {"judge": "j", "kin": [{"arm": "kernel", "why": "weights"}]}}
    audits = {"j": {"judge": "j", "verdict": "trustworthy"}}
    one = replace(compared(), judges=kin, audits=audits)
    other = replace(one, audits={"j": {"judge": "j", "verdict": "not trustworthy"}})
    joined = join_runs([("first", one), ("second", other)])
    assert {(row.arm, row.against) for row in joined.judgements} == {
        (f"{run}:kernel", f"{run}:{against}") for run in ("first", "second") for against in VALUES
    }
    assert [entry["arm"] for entry in joined.judges["j"]["kin"]] == ["first:kernel", "second:kernel"]
    assert joined.audits["j"]["verdict"] == "not trustworthy", "the audit that speaks most against a judge counts"
