"""`lem import` and `lem export`: what is printed, what is written, and what is refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Result, assert_sentence, run_in_process

from lem.interop import Imported, write_run
from lem.records import Judgement, Record, RunInfo, Score, read_contents

STAMP = "2025-03-01T10-00-00.000001"
CONDITIONS = ("baseline", "json")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def answers(path: Path, tag: str, **more: Any) -> Path:
    rows = [{"id": f"P{i}", "response": f"{tag} answers {i}.", "prompt": f"Ask {i}?", **more} for i in range(3)]
    return write_rows(path, rows)


def samples(folder: Path, value: float, temperature: float = 0.0) -> Path:
    sent = {"gen_args_0": {"arg_0": "Well?", "arg_1": {"temperature": temperature, "max_gen_toks": 8}}}
    first = {"doc_id": 0, "doc": {}, "target": "", "arguments": sent, "resps": [["yes"]], "filtered_resps": ["yes"]}
    return write_rows(
        folder / f"samples_t_{STAMP}.jsonl", [{**first, "filter": "none", "metrics": ["acc"], "acc": value}]
    )


@pytest.fixture
def lem(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        return run_in_process(arguments, capsys)

    return run


def test_two_files_become_the_arms_of_one_run(lem: Any, tmp_path: Path) -> None:
    answers(tmp_path / "a.jsonl", "a")
    answers(tmp_path / "b.jsonl", "b")
    done = lem("import", "a.jsonl", "b.jsonl", "--output", "run")
    assert done.code == 0, done
    assert "arms: a, b\nprobes: 3, repeats: 1\nanswers: 6, failed: 0\n" in done.out
    assert "next: ./lem score run\n      ./lem compare run --baseline a\n" in done.out
    contents = read_contents(tmp_path / "run")
    assert {(r.arm, r.probe_id): r.response for r in contents.records} == {
        (arm, f"P{i}"): f"{arm} answers {i}." for arm in "ab" for i in range(3)
    }
    assert len(contents.info.data["sources"]) == 2
    assert lem("score", "run").code == 0


def test_name_renames_the_arm_everywhere(lem: Any, tmp_path: Path) -> None:
    samples(tmp_path / "m", 1.0)
    samples(tmp_path / "n", 0.0)
    done = lem("import", "m", "n", "--name", "base", "--name", "trained", "--output", "run", "--json")
    found = json.loads(done.out)
    assert found["arms"] == ["base", "trained"]
    assert found["metrics"] == {"acc": {"scored": 2}}
    contents = read_contents(tmp_path / "run")
    assert {score.arm: score.value for score in contents.scores["acc"]} == {"base": 1.0, "trained": 0.0}
    assert contents.info.arms["trained"]["imported_as"] == "n"


def test_the_invented_ratings_of_the_published_scorer_are_counted(lem: Any, reference: Path) -> None:
    done = lem("import", reference / "lem-standard", "--output", "run")
    assert done.code == 0
    assert "note: 0 of 750 judged answers have the reasoning 'API failed'" in done.out


def test_paths_that_do_not_go_together_are_sentences(lem: Any, tmp_path: Path) -> None:
    one = answers(tmp_path / "a.jsonl", "a")
    other = answers(tmp_path / "b.jsonl", "b", prompt="Something else?")
    write_rows(tmp_path / "case.jsonl", [{"id": "p0", "response": "x"}])
    two = write_rows(tmp_path / "two.jsonl", [{"id": "P0", "arm": arm, "response": "x"} for arm in "xy"])
    assert_sentence(lem("import", one, other, "--output", "run"), "has another text")
    assert_sentence(lem("import", one, "case.jsonl", "--output", "run"), "differ only in case")
    assert_sentence(lem("import", one, two, "--name", "a", "--output", "run"), "2 paths and 1 of --name")
    assert_sentence(lem("import", one, two, "--name", "a", "--name", "a", "--output", "run"), "two of --name")
    assert_sentence(lem("import", two, "--name", "a", "--output", "run"), "holds the arms x, y")
    assert_sentence(lem("import", "none.jsonl", "--output", "run"), "no such file")
    assert not (tmp_path / "run").exists()


def test_values_of_two_versions_are_not_put_into_one_run(lem: Any, tmp_path: Path) -> None:
    for name, version in (("m", 1.0), ("n", 2.0)):
        samples(tmp_path / name, 1.0)
        results = {"results": {}, "configs": {}, "versions": {"t": version}, "model_name": name}
        (tmp_path / name / f"results_{STAMP}.json").write_text(json.dumps(results))
    refused = lem("import", "m", "n", "--output", "run")
    assert_sentence(refused, "values of 'acc' in the versions lm-eval t 1.0, lm-eval t 2.0")


def test_an_occupied_run_is_left_alone(lem: Any, tmp_path: Path) -> None:
    answers(tmp_path / "a.jsonl", "a")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("x")
    assert_sentence(lem("import", "a.jsonl", "--output", "run"), "not empty")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine"]


def test_published_answers_go_through_every_format_and_come_back(lem: Any, tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai")
    cell = {"lek_score": 1.5, "heuristic": {}, "chars": 4, "time_s": 1}
    rows: list[dict[str, Any]] = [
        {
            "type": "probe", "id": f"P{i}", "category": "commons", "prompt": f"Ask {i}?", "ts": "",
            "conditions": {name: {"response": f"{name} {i}", **cell} for name in CONDITIONS},
        }
        for i in range(2)
    ]  # fmt: skip
    write_rows(tmp_path / "ab.jsonl", [*rows, {"type": "summary", "total_probes": 2}])
    assert lem("import", "ab.jsonl", "--output", "run").code == 0
    assert lem("score", "run").code == 0
    first = read_contents(tmp_path / "run")
    expected = {(r.key, r.response) for r in first.records}
    assert len(expected) == 4
    for target, place in (("inspect", "logs"), ("lm-eval", "out"), ("ab", "again.jsonl")):
        done = lem("export", "run", "--to", target, "--output", place)
        assert done.code == 0, done
        paths = sorted((tmp_path / "logs").glob("*.eval")) if target == "inspect" else [place]
        assert lem("import", *paths, "--output", f"back-{target}").code == 0
        back = read_contents(tmp_path / f"back-{target}")
        assert {(r.key, r.response) for r in back.records} == expected
        if target != "ab":  # whose scores are counted again
            for name, given in first.scores.items():
                assert {s.key: (s.value, s.version) for s in back.scores[name]} == {
                    s.key: (s.value, s.version) for s in given
                }
        assert {p["id"]: (p["domain"], p["prompt"]) for p in back.info.probes} == {
            f"P{i}": ("commons", f"Ask {i}?") for i in range(2)
        }
    assert lem("export", "run", "--to", "parquet", "--output", "tables").code == 0
    assert (tmp_path / "tables" / "generations.parquet").is_file()


def test_exports_that_cannot_be_are_sentences(lem: Any, tmp_path: Path) -> None:
    answers(tmp_path / "a.jsonl", "a")
    assert lem("import", "a.jsonl", "--output", "run").code == 0
    assert_sentence(
        lem("export", "run", "--to", "inspect", "--output", "x", "--margin", "1"), "--margin is for --to dpo"
    )
    assert_sentence(lem("export", "run", "--to", "ab", "--output", "a.jsonl"), "a.jsonl exists")
    assert_sentence(lem("export", "run", "--to", "dpo", "--output", "p.jsonl", "--margin", "1"), "evaluation probes")
    assert_sentence(lem("export", "run", "--to", "parquet", "--output", "run"), "not empty")
    assert_sentence(lem("export", "none", "--to", "ab", "--output", "x"), "none")
    done = lem("export", "run", "--to", "ab", "--output", "x.jsonl")
    assert done.code == 0
    assert "the run has no scores" in done.out


NOTES = [
    "SELF-JUDGED: the judge 'j' is of one lineage with 'json'; its ratings rank nothing.",
    "the audit found the judge 'j' not trustworthy.",
]


def judged_run(folder: Path) -> Path:
    """Two arms over twelve probes, rated by a judge that is kin of one of them and failed its audit."""
    info = RunInfo("r", "distill", "done", {arm: {"model": "m"} for arm in ("base", "json")}, {"repeats": 1})
    info.probes = [{"id": f"P{i}", "domain": f"d{i % 4}", "prompt": f"Ask {i}?"} for i in range(12)]
    cells = [(arm, i) for arm in info.arms for i in range(12)]
    records = [Record("r", arm, f"P{i}", 0, f"{arm} answers {i}.", finish_reason="stop") for arm, i in cells]
    values = [1.0 + i % 3 + 5 * (arm == "json") for arm, i in cells]
    scores = [Score(*r.key, "v2", "v2.0", value, {}) for r, value in zip(records, values, strict=True)]
    rows = [
        Judgement(*r.key, "j", "kindness", value, low=1.0, high=10.0, version="1")
        for r, value in zip(records, values, strict=True)
    ]
    judges = {"j": {"judge": "j", "kin": [{"arm": "json", "why": "same weights"}]}}
    audits = {"j": {"judge": "j", "verdict": "not trustworthy"}}
    write_run(Imported(info, records, "test", [], {}, {"v2": scores}, rows, judges, audits), folder)
    return folder


def objections(lem: Any, *paths: object) -> set[tuple[str, str]]:
    done = lem("compare", *paths, "--metric", "kindness", "--output", "c.json", "--json", "--anyway")
    assert done.code == 0, done
    found = json.loads(done.out)["objections"]
    assert {entry["code"] for entry in found} >= {"self-judged", "judge-untrustworthy"}
    return {(entry["code"], entry["sentence"]) for entry in found if "judge" in entry["code"]}


def test_a_comparison_of_exports_objects_to_the_judge_as_that_of_the_run_does(lem: Any, tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai")
    of_run = objections(lem, judged_run(tmp_path / "run"))
    for target, place in (("inspect", "logs"), ("lm-eval", "out")):
        done = lem("export", "run", "--to", target, "--output", place)
        assert done.out.startswith("".join(f"note: {note}\n" for note in NOTES))
        paths = sorted((tmp_path / place).iterdir())
        assert len(paths) == 2
        assert objections(lem, *paths) == of_run
        assert lem("import", *paths, "--output", f"back-{target}").code == 0
        assert objections(lem, f"back-{target}") == of_run


def test_exports_without_a_place_for_it_say_what_stands_against_a_judge(lem: Any, tmp_path: Path) -> None:
    judged_run(tmp_path / "run")
    pairs = ("--metric", "kindness", "--margin", "1", "--chosen", "json", "--rejected", "base", "--allow-probes")
    for target, more in (("ab", ()), ("dpo", pairs)):
        printed = lem("export", "run", "--to", target, "--output", f"{target}.jsonl", *more).out
        assert all(f"note: {note}\n" in printed for note in NOTES)
        shown = json.loads(lem("export", "run", "--to", target, "--output", f"{target}-2.jsonl", *more, "--json").out)
        assert shown["notes"] == NOTES


def test_the_items_that_weights_were_trained_on_go_with_exports_and_come_back(lem: Any, tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai")
    manifest = judged_run(tmp_path / "run") / "run.json"
    found = json.loads(manifest.read_text())
    met = {"P1": ["adapters/json"], "P2": ["adapters/json", "m"]}
    manifest.write_text(json.dumps({**found, "data": {**found["data"], "contaminated": met}}))
    what = "weights of this run were trained on 2 of the 12 items of r"
    sentence = f"CONTAMINATED: {what}; its values on them show nothing."
    for target, place in (("inspect", "logs"), ("lm-eval", "out"), ("ab", "ab.jsonl")):
        done = lem("export", "run", "--to", target, "--output", place)
        assert done.out.startswith("".join(f"note: {note}\n" for note in [*NOTES, sentence])), done
    shown = json.loads(lem("export", "run", "--to", "ab", "--output", "again.jsonl", "--json").out)
    assert shown["notes"] == [*NOTES, sentence]
    for place in ("logs", "out"):
        paths = sorted((tmp_path / place).iterdir())
        assert len(paths) == 2
        assert lem("import", *paths, "--name", "plain", "--name", "trained", "--output", f"back-{place}").code == 0
        assert read_contents(tmp_path / f"back-{place}").info.data["contaminated"] == met


def test_name_renames_the_kin_of_judges(lem: Any, tmp_path: Path) -> None:
    judged_run(tmp_path / "run")
    manifest = tmp_path / "run" / "judgements" / "j.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "rated": {"kindness": ["ethics"]}}))
    assert lem("export", "run", "--to", "lm-eval", "--output", "out").code == 0
    paths = sorted((tmp_path / "out").iterdir())
    done = lem("import", *paths, "--name", "plain", "--name", "trained", "--output", "back")
    assert f"note: {NOTES[0].replace('json', 'trained')}\n" in done.out
    back = read_contents(tmp_path / "back")
    assert [kin["arm"] for kin in back.judges["j"]["kin"]] == ["trained"]
    assert back.judges["j"]["rated"] == {"kindness": {"ethics": ["plain", "trained"]}}
    assert back.audits["j"]["verdict"] == "not trustworthy"
