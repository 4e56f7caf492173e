"""Logs of Inspect: what the library itself wrote reads as it stands there, and what we write the library reads."""

from __future__ import annotations

import json
import math
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from exported_run import PROBES, SETTINGS, make_contents
from hypothesis import given, settings
from hypothesis import strategies as st

from lem.errors import DataError, UserError
from lem.interop.inspect_logs import read_inspect
from lem.interop.inspect_values import number_of
from lem.interop.inspect_write import write_inspect
from lem.records import Key, RunContents
from lem.records.model import LIKELIHOOD
from lem.scorers.passes import score_records

pytest.importorskip("inspect_ai")
from inspect_ai import Task, eval
from inspect_ai.analysis import samples_df
from inspect_ai.dataset import Sample
from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalError,
    EvalLog,
    EvalSample,
    EvalSpec,
    list_eval_logs,
    read_eval_log,
    write_eval_log,
)
from inspect_ai.model import (
    ChatMessageUser,
    ContentReasoning,
    ContentText,
    ModelOutput,
    ModelUsage,
    get_model,
)
from inspect_ai.scorer import Score, includes, value_to_float
from inspect_ai.solver import generate, system_message


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EvalLog]:
    """A log that Inspect wrote itself: two samples, two epochs, a mock model, one scorer."""
    folder = tmp_path_factory.mktemp("logs")
    samples = [
        Sample(input="Two and two?", target="4", id="sum", metadata={"domain": "sums"}),
        Sample(input="The capital of France?", target="Paris", id=7, metadata={"domain": "places"}),
    ]
    usage = ModelUsage(input_tokens=9, output_tokens=2, total_tokens=11)  # else Inspect counts with a tokenizer online
    texts = ("4.", "Rome", "5", "Paris")
    answers = [ModelOutput.from_content("mockllm/model", text).model_copy(update={"usage": usage}) for text in texts]
    task = Task(dataset=samples, solver=[system_message("Be short."), generate()], scorer=includes(), name="small")
    model = get_model("mockllm/model", custom_outputs=answers)
    [log] = eval(
        task, model=model, epochs=2, log_dir=str(folder), display="none", temperature=0.5, max_tokens=20,
        max_samples=1, score_display=False, metadata={"condition": "kind"},
    )  # fmt: skip
    assert log.status == "success", log.error
    [path] = folder.glob("*.eval")
    return path, read_eval_log(path)


def make_log(*samples: EvalSample, **more: Any) -> EvalLog:
    spec = EvalSpec(
        created="2025-01-01T00:00:00+00:00",
        task="t",
        model="some/model",
        dataset=EvalDataset(name="d", samples=len({sample.id for sample in samples})),
        config=EvalConfig(),
    )
    return EvalLog(**{"version": 2, "status": "success", "eval": spec, "samples": list(samples), **more})


def make_sample(text: str = "yes", **more: Any) -> EvalSample:
    message = ChatMessageUser(content="Well?")
    output = ModelOutput.from_content("some/model", text)
    return EvalSample(
        **{"id": "a", "epoch": 1, "input": "Well?", "target": "", "messages": [message], "output": output, **more}
    )


def written(folder: Path, log: EvalLog, name: str = "log.eval") -> Path:
    write_eval_log(log, folder / name)
    return folder / name


def rezip(path: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """Rewrite the members of an `.eval`; None leaves one out."""
    with zipfile.ZipFile(path) as old:
        members = {name: change(name, old.read(name)) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, data in members.items():
            if data is not None:
                new.writestr(name, data)


# --- logs that Inspect wrote -----------------------------------------------------------------------------------


def test_a_log_of_a_real_evaluation_reads_as_it_stands_there(evaluated: tuple[Path, EvalLog]) -> None:
    path, log = evaluated
    imported = read_inspect(path)
    assert list(imported.info.arms) == ["kind"]
    assert imported.info.arms["kind"]["model"] == "mockllm/model"
    assert imported.info.settings == {"temperature": 0.5, "max_tokens": 20, "repeats": 2}
    assert {p["id"]: (p["domain"], p["prompt"]) for p in imported.info.probes} == {
        "sum": ("sums", "Two and two?"),
        "7": ("places", "The capital of France?"),
    }
    assert imported.info.status == "done"
    given = {Key("kind", str(s.id), s.epoch - 1): s for s in log.samples}
    assert {record.key: record.response for record in imported.records} == {
        key: sample.output.completion for key, sample in given.items()
    }
    to_float = value_to_float()
    assert {score.key: score.value for score in imported.scores["includes"]} == {
        key: to_float(sample.scores["includes"].value) for key, sample in given.items()
    }
    assert {score.value for score in imported.scores["includes"]} == {0.0, 1.0}
    assert all(record.messages[0] == {"role": "system", "content": "Be short."} for record in imported.records)
    assert all(record.messages[-1]["role"] == "user" for record in imported.records)


def test_json_and_eval_read_the_same(evaluated: tuple[Path, EvalLog], tmp_path: Path) -> None:
    path, log = evaluated
    twin = written(tmp_path, log, path.stem + ".json")
    first, second = read_inspect(path), read_inspect(twin)
    assert (first.records, first.scores, first.info.probes) == (second.records, second.scores, second.info.probes)


def test_long_texts_that_the_log_keeps_apart_are_put_back(tmp_path: Path) -> None:
    text = "A long answer. " * 400
    path = written(tmp_path, make_log(make_sample(text, input="Q" * 3000)))
    assert read_inspect(path).records[0].response == text
    assert read_inspect(path).info.probes[0]["prompt"] == "Q" * 3000


# --- outcomes --------------------------------------------------------------------------------------------------


def test_wrong_unscored_failed_stay_apart(tmp_path: Path) -> None:
    samples = [
        make_sample(id="wrong", scores={"match": Score(value="I")}),
        make_sample(id="partly", scores={"match": Score(value="P")}),
        make_sample(id="nan", scores={"match": Score.unscored(reason="grader_failed")}),
        make_sample(id="word", scores={"match": Score(value="splendid")}),
        make_sample(id="gap", scores={}),
        make_sample(id="out", scores={"match": Score(value="C")}, invalidation={"author": "x", "reason": "bad"}),
        make_sample(id="broken", error=EvalError(message="no memory", traceback="", traceback_ansi="")),
        make_sample(id="silent", output=ModelOutput(model="m")),
        make_sample(id="refused", output=ModelOutput(model="m", error="blocked by the filter")),
        make_sample(id="empty", text="", scores={"match": Score(value=False)}),
    ]
    imported = read_inspect(written(tmp_path, make_log(*samples)))
    scores = {score.probe_id: (score.value, score.unscored) for score in imported.scores["match"]}
    assert scores["wrong"] == (0.0, None)
    assert scores["partly"] == (0.5, None)
    assert scores["nan"] == (None, "grader_failed")
    assert scores["word"] == (None, "the scorer's value 'splendid' is no number")
    assert scores["gap"] == (None, "the log holds no score of this scorer for this answer")
    assert scores["out"] == (None, "the sample was invalidated in its log")
    assert scores["empty"] == (0.0, None)
    assert not {"broken", "silent", "refused"} & scores.keys()
    errors = {record.probe_id: record.error for record in imported.records if record.failed}
    assert errors == {
        "broken": "no memory",
        "silent": "the log holds no output for this sample",
        "refused": "blocked by the filter",
    }
    assert imported.info.status == "incomplete"


def test_a_scorer_is_meant_for_the_benchmarks_it_scored(tmp_path: Path) -> None:
    sums, talk = {"benchmark": "sums"}, {"benchmark": "talk"}
    samples = [
        make_sample(id="a", metadata=sums, scores={"right": Score(value="C")}),
        make_sample(id="b", metadata=sums, scores={}),
        make_sample(id="c", metadata=talk, scores={"kind": Score(value=3)}),
    ]
    imported = read_inspect(written(tmp_path, make_log(*samples)))
    found = {name: {row.probe_id: row.value for row in rows} for name, rows in imported.scores.items()}
    assert found == {"right": {"a": 1.0, "b": None}, "kind": {"c": 3.0}}


def test_values_by_name_become_a_scorer_each(tmp_path: Path) -> None:
    value = {"care": 4, "truth": True, "style": None}
    imported = read_inspect(written(tmp_path, make_log(make_sample(scores={"pkg/judge": Score(value=value)}))))
    found = {name: rows[0].value for name, rows in imported.scores.items()}
    assert found == {"pkg-judge.care": 4.0, "pkg-judge.truth": 1.0, "pkg-judge.style": None}
    assert imported.scores["pkg-judge.style"][0].unscored == "the scorer gave no value"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("stop", "stop"), ("max_tokens", "length"), ("model_length", "length"), ("content_filter", None)],
)
def test_how_an_answer_ended(tmp_path: Path, theirs: str, ours: str | None) -> None:
    output = ModelOutput.from_content("m", "yes", stop_reason=theirs)
    imported = read_inspect(written(tmp_path, make_log(make_sample(output=output))))
    assert imported.records[0].finish_reason == ours


def test_thinking_is_kept_apart_from_the_answer(tmp_path: Path) -> None:
    content = [ContentReasoning(reasoning="Let me see."), ContentText(text="Yes.")]
    imported = read_inspect(written(tmp_path, make_log(make_sample(output=ModelOutput.from_content("m", content)))))
    assert (imported.records[0].thinking, imported.records[0].response) == ("Let me see.", "Yes.")


@pytest.mark.parametrize("status", ["started", "cancelled", "error"])
def test_a_log_that_did_not_end_says_so(tmp_path: Path, status: str) -> None:
    imported = read_inspect(written(tmp_path, make_log(make_sample(), status=status)))
    assert imported.info.status == "incomplete"
    assert any(f"status '{status}'" in note for note in imported.notes)


@given(st.one_of(st.floats(), st.integers(), st.booleans(), st.text(max_size=8), st.sampled_from(list("CIPN"))))
@settings(deadline=None, max_examples=300)
def test_a_number_is_inspects_number_and_never_its_fallback(value: float | str) -> None:
    number, reason = number_of(value)
    assert (number is None) != (reason is None)
    if number is not None:
        assert math.isfinite(number)
        assert number == value_to_float()(value)


# --- bad input -------------------------------------------------------------------------------------------------


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def newer(path: Path) -> None:
    def change(name: str, data: bytes) -> bytes:
        if name in ("header.json", "_journal/start.json"):
            return json.dumps({**json.loads(data), "version": 3}).encode()
        return data

    rezip(path, change)


def cut_member(path: Path) -> None:
    rezip(path, lambda name, data: data[:60] if name.startswith("samples/") else data)


def without_samples(path: Path) -> None:
    rezip(path, lambda name, data: None if name.startswith("samples/") else data)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (truncated, "not a whole log of Inspect"),
        (newer, "log format 3 is newer than the installed inspect-ai reads; update inspect-ai"),
        (cut_member, "not a whole log of Inspect"),
        (without_samples, "holds no samples"),
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_text("hello"), "not a whole log of Inspect"),
    ],
)
def test_a_log_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, damage: Callable[[Path], object], sentence: str
) -> None:
    path = written(tmp_path, make_log(make_sample()))
    damage(path)
    with pytest.raises(DataError) as caught:
        read_inspect(path)
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_of_a_newer_version_or_cut_short(tmp_path: Path) -> None:
    path = written(tmp_path, make_log(make_sample()), "log.json")
    text = path.read_text()
    path.write_text(json.dumps({**json.loads(text), "version": 9}))
    with pytest.raises(DataError, match="log format 9 is newer"):
        read_inspect(path)
    path.write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match="not a whole log"):
        read_inspect(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path = written(tmp_path_factory.mktemp("damaged"), make_log(make_sample("an answer", scores={"m": Score(value=3)})))
    return path, path.read_bytes()


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 255), st.floats(0, 1))
@settings(deadline=None, max_examples=100)
def test_a_damaged_log_is_a_sentence_and_never_another_answer(
    whole: tuple[Path, bytes], place: float, change: int, kept: float
) -> None:
    path, data = whole
    raw = bytearray(data)
    raw[int(place * len(raw))] ^= change
    path.write_bytes(bytes(raw[: max(1, round((0.5 + kept) * len(raw)))]))
    sentence, imported = "", None
    try:
        imported = read_inspect(path)
    except DataError as error:
        sentence = str(error)
    assert "\n" not in sentence
    if imported is not None:
        assert [record.response for record in imported.records] == ["an answer"]
        assert [score.value for score in imported.scores["m"]] == [3.0]


def test_no_file_and_no_package_are_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_inspect(tmp_path / "none.eval")
    path = written(tmp_path, make_log(make_sample()))
    for name in [name for name in sys.modules if name.partition(".")[0] == "inspect_ai"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    with pytest.raises(
        UserError, match=r"inspect-ai, which is not installed; get it with `.*-m pip install inspect-ai`"
    ):
        read_inspect(path)


# --- logs that we write ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunContents, list[Path]]:
    contents = make_contents()
    return contents, write_inspect(contents, tmp_path_factory.mktemp("export") / "logs")


def test_what_was_written_comes_back(exported: tuple[RunContents, list[Path]]) -> None:
    contents, paths = exported
    assert len(paths) == 2
    for arm, path in zip(contents.info.arms, paths, strict=True):
        back = read_inspect(path)
        assert list(back.info.arms) == [arm]
        assert back.info.arms[arm] | contents.info.arms[arm] == back.info.arms[arm]
        assert back.info.settings == SETTINGS
        assert back.info.probes == [p for p in PROBES if p["id"] in {record.probe_id for record in back.records}]
        kept = ("key", "response", "error", "messages", "thinking", "finish_reason", "n_tokens")
        assert {record.key: [getattr(record, name) for name in kept] for record in back.records} == {
            record.key: [getattr(record, name) for name in kept] for record in contents.records if record.arm == arm
        }
        for scorer, rows in contents.scores.items():
            assert {row.key: row for row in back.scores[scorer]} == {row.key: row for row in rows if row.arm == arm}
        assert {j.full_key: j for j in back.judgements} == {
            j.full_key: j for j in contents.judgements if j.arm == arm and not (j.unscored and j.raw)
        }


def test_measured_choices_come_back_as_such_from_our_logs_alone(tmp_path: Path) -> None:
    contents = make_contents()
    measured = replace(contents.records[0], response='{"loglikelihoods": [-1.0, -2.0]}', finish_reason=LIKELIHOOD)
    [path] = write_inspect(RunContents(replace(contents.info, arms={"base": {}}), [measured]), tmp_path / "logs")
    back = read_inspect(path).records
    assert [(record.response, record.finish_reason) for record in back] == [(measured.response, LIKELIHOOD)]
    assert score_records(back, "v2") == []
    log = read_eval_log(path)
    del log.eval.packages["lem"]
    assert [record.finish_reason for record in read_inspect(written(tmp_path, log)).records] == [None]


def test_the_library_accepts_what_we_write(exported: tuple[RunContents, list[Path]], tmp_path: Path) -> None:
    _, paths = exported
    logs = [read_eval_log(path) for path in paths]
    assert [log.eval.metadata["condition"] for log in logs] == ["base", "txt"]
    assert logs[0].eval.dataset.sample_ids == logs[1].eval.dataset.sample_ids == ["P01", "P02", "P03"]
    assert logs[0].eval.task == logs[1].eval.task
    assert logs[0].eval.config.epochs == 2
    assert [log.status for log in logs] == ["success", "cancelled"]
    assert [log.results.total_samples for log in logs] == [6, 6]
    assert [log.results.completed_samples for log in logs] == [5, 5]
    [truth] = [score for score in logs[1].results.scores if score.name == "truth · gemini"]
    assert (truth.scored_samples, truth.unscored_samples) == (2, 1)
    found = {(s.id, s.epoch): s for s in logs[0].samples}
    unscored = found["P02", 1].scores["v3"]
    assert math.isnan(unscored.value)
    assert unscored.reason == "not in English"
    assert found["P03", 1].error.message == "out of memory"
    assert found["P03", 1].scores is None
    assert found["P01", 2].input == "Who owns the well?"
    assert [info.task for info in list_eval_logs(str(paths[0].parent))] == ["lem-benchmark", "lem-benchmark"]
    rows = samples_df([str(path) for path in paths])
    assert len(rows) == 11
    assert set(rows["metadata_domain"]) == {"commons", "privacy"}


def test_logs_keep_to_the_schema_that_inspect_publishes(
    exported: tuple[RunContents, list[Path]], tmp_path: Path
) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = EvalLog.model_json_schema(mode="serialization")
    for path in exported[1]:
        written(tmp_path, read_eval_log(path), "log.json")
        # NaN is written as a constant, which no JSON schema knows; the reason beside it is checked above.
        found = json.loads((tmp_path / "log.json").read_text(), parse_constant=lambda _: 0.0)
        jsonschema.validate(found, schema)


def test_means_and_errors_of_a_log_are_over_probes(exported: tuple[RunContents, list[Path]]) -> None:
    contents, paths = exported
    by_probe: dict[str, list[float]] = {}
    for score in contents.scores["v2"]:
        if score.arm == "base":
            by_probe.setdefault(score.probe_id, []).append(score.value)
    means = [sum(values) / len(values) for values in by_probe.values()]
    centre = sum(means) / 3
    stderr = math.sqrt(sum((mean - centre) ** 2 for mean in means) / 2 / 3)
    [v2] = [score for score in read_eval_log(paths[0]).results.scores if score.name == "v2"]
    assert v2.metrics["mean"].value == pytest.approx(centre)
    assert v2.metrics["stderr"].value == pytest.approx(stderr)


def test_an_occupied_folder_and_an_empty_run_are_refused(tmp_path: Path) -> None:
    contents = make_contents()
    (tmp_path / "kept").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        write_inspect(contents, tmp_path)
    with pytest.raises(DataError, match="holds no records"):
        write_inspect(RunContents(contents.info, []), tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
