"""The one door: every format that LEM reads is known by what it holds, also those of other tools."""

from pathlib import Path

import pytest
from exported_run import make_contents

from lem.errors import DataError, LemError, UserError
from lem.interop import read_answers_file
from lem.interop.imported import Imported

FILES = Path(__file__).parent / "files"


def answered(imported: Imported) -> set[tuple[str, int, str]]:
    return {(r.probe_id, r.repeat, r.response) for r in imported.records if r.response is not None}


def test_logs_of_inspect_are_known_by_their_ending_and_by_their_keys(tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log")
    from lem.interop.inspect_write import write_inspect

    first, *_ = write_inspect(make_contents(), tmp_path / "logs")
    library = log.read_eval_log(first)
    log.write_eval_log(library, tmp_path / "one.json")
    by_ending, by_keys = read_answers_file(first), read_answers_file(tmp_path / "one.json")
    assert by_ending.format == by_keys.format == "Inspect log"
    assert answered(by_ending) == answered(by_keys)
    assert len(answered(by_ending)) >= 4
    (tmp_path / "compact.json").write_text(library.model_dump_json())
    assert answered(read_answers_file(tmp_path / "compact.json")) == answered(by_ending)
    with pytest.raises(UserError, match="holds 2 logs of Inspect; give them one by one"):
        read_answers_file(tmp_path / "logs")
    for other in sorted((tmp_path / "logs").glob("*.eval"))[1:]:
        other.unlink()
    alone = next((tmp_path / "logs").glob("*.eval"))
    assert answered(read_answers_file(tmp_path / "logs")) == answered(read_answers_file(alone))


def test_output_of_lm_eval_is_known_as_folder_as_samples_and_as_results(tmp_path: Path) -> None:
    from lem.interop.harness_write import write_harness

    write_harness(make_contents(), tmp_path / "out")
    samples = sorted((tmp_path / "out").rglob("samples_*.jsonl"))
    results = sorted((tmp_path / "out").rglob("results_*.json"))
    assert samples
    assert results
    found = [read_answers_file(path) for path in (tmp_path / "out", samples[0], results[0])]
    assert len({one.format for one in found}) == 1
    assert len(answered(found[0])) >= 4
    assert answered(found[1]) <= answered(found[0])


def test_a_truncated_or_foreign_log_is_one_sentence(tmp_path: Path) -> None:
    for name, content in (("a.eval", b"PK\x03\x04 cut"), ("b.eval", b""), ("c.json", b'{"version": 2, "eval": ')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(LemError) as caught:
            read_answers_file(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_folders_are_known_by_what_they_hold(tmp_path: Path) -> None:
    assert read_answers_file(FILES / "standard").format == "published standard benchmarks"
    with pytest.raises(DataError, match="not a run directory"):
        read_answers_file(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "chess.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="not a run directory"):
        read_answers_file(tmp_path)


def test_json_files_are_known_by_their_keys_and_may_be_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    row = '{"id": "A", "response": "x"}\n'
    path.write_text(row)
    assert read_answers_file(path).format == "answers"
    path.write_text(row + row.replace('"A"', '"B"'))
    assert len(read_answers_file(path).records) == 2
    path.write_text('{\n "question": 1,\n "answer": 2\n}\n')
    with pytest.raises(DataError, match="has the keys question, answer"):
        read_answers_file(path)
