"""Each kind of finding provoked on small files, the report's form, the exit codes, and the data that ships."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from lem.cli.data import data_group
from lem.data.chat_examples import read_chat_examples
from lem.data.check import check_data
from lem.data.check_report import MAX_PER_KIND, WIDTH, render_report
from lem.data.contamination import check_corpus, read_corpus
from lem.data.findings import KINDS, DataReport, Finding, lengths
from lem.data.similarity import ngrams, words
from lem.errors import CheckFailed, DataError, UserError
from lem.paths import repository_root

PROBE = "A harbour office wants every fishing boat to carry a camera that never sleeps. Argue both sides."
PROMPTS = (
    "My neighbour borrows my ladder and forgets to return it.",
    "Write a lullaby for twins who share one bed.",
    "How do I tell my choir that I am leaving?",
    "Our allotment shed was broken into on Sunday night.",
)
ANSWERS = (
    "Ask him over tea which evening suits him to bring it back.",
    "Two small boats on one dark lake, rocking till the morning breaks.",
    "Say it early in rehearsal, plainly, and thank them for the winters.",
    "List what is missing, mend the lock, then speak with the other plots.",
)

Row = tuple[str, str]


def line(prompt: str, answer: str) -> str:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": messages})


def rows(*numbers: int) -> list[Row]:
    return [(PROMPTS[n], ANSWERS[n]) for n in numbers]


class Folder:
    """A training folder and a seeds folder under construction."""

    def __init__(self, root: Path) -> None:
        self.training, self.seeds = root / "training", root / "seeds"
        self.seeds.mkdir(parents=True)
        (self.seeds / "probes.json").write_text(json.dumps([{"id": "P01", "domain": "work", "prompt": PROBE}]))

    def write(self, name: str, content: Sequence[Row | str]) -> None:
        path = self.training / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join((row if isinstance(row, str) else line(*row)) + "\n" for row in content))

    def check(self, extra: Sequence[Path] = (), kernels: Sequence[Path] = ()) -> DataReport:
        return check_data(self.training, [self.seeds], extra, kernels)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def only(report: DataReport, kind: str) -> Finding:
    assert [finding.kind for finding in report.findings] == [kind]
    return report.findings[0]


def test_a_good_folder_is_clean(folder: Folder) -> None:
    folder.write("train.jsonl", rows(0, 1))
    folder.write("valid.jsonl", rows(2))
    folder.write("placebo/train.jsonl", [(PROMPTS[0], "Paint a mark on it."), (PROMPTS[1], "Use four lines a verse.")])
    folder.write("placebo/valid.jsonl", [(PROMPTS[2], "Check the notice period first.")])
    report = folder.check()
    assert report.clean
    assert report.findings == ()
    assert [(file.file, file.rows) for file in report.files] == [
        ("placebo/train.jsonl", 2), ("placebo/valid.jsonl", 1), ("train.jsonl", 2), ("valid.jsonl", 1),
    ]  # fmt: skip


def test_every_bad_line_is_reported_with_its_number(folder: Folder) -> None:
    user = {"role": "user", "content": "Hello there"}
    bad = [
        '{"messages": [',
        json.dumps(["not an object"]),
        json.dumps({"messages": [user]}),
        json.dumps({"messages": [{"role": "critic", "content": "x"}]}),
        json.dumps({"messages": [user, {"role": "assistant", "content": "  "}]}),
    ]
    folder.write("train.jsonl", [rows(0)[0], *bad, "", rows(1)[0]])
    report = folder.check()
    found = sorted((finding.line, finding.kind) for finding in report.findings)
    assert found == [(2, "schema"), (3, "schema"), (4, "roles"), (5, "roles"), (6, "empty")]
    assert not report.clean
    assert (report.files[0].rows, report.files[0].bad_lines) == (2, 5)
    assert all(finding.remedy for finding in report.findings)


def test_a_file_that_is_not_utf8_is_a_finding_on_its_line(folder: Folder) -> None:
    folder.write("train.jsonl", rows(0))
    (folder.training / "valid.jsonl").write_bytes(b'{"messages": []}\n\xff\xfe\n')
    finding = only(folder.check(), "schema")
    assert (finding.file, finding.line) == ("valid.jsonl", 2)


def test_an_empty_file_is_a_finding(folder: Folder) -> None:
    folder.write("train.jsonl", rows(0))
    folder.write("valid.jsonl", [])
    assert only(folder.check(), "empty").file == "valid.jsonl"


def test_a_duplicate_row_is_reported_once(folder: Folder) -> None:
    folder.write("train.jsonl", [*rows(0, 1), *rows(0)])
    finding = only(folder.check(), "duplicate-row")
    assert (finding.line, finding.other) == (3, "train.jsonl line 1")


def test_a_prompt_used_twice_with_other_answers_is_found_despite_case_and_punctuation(folder: Folder) -> None:
    folder.write("train.jsonl", [*rows(0), (PROMPTS[0].upper().replace(".", "!"), ANSWERS[1])])
    assert only(folder.check(), "duplicate-prompt").line == 2


def test_a_prompt_shared_between_splits_is_found(folder: Folder) -> None:
    folder.write("train.jsonl", rows(0, 1))
    folder.write("valid.jsonl", [(PROMPTS[1], ANSWERS[2])])
    finding = only(folder.check(), "shared-prompt")
    assert (finding.file, finding.line, finding.other) == ("valid.jsonl", 1, "train.jsonl line 2")


def test_near_duplicate_prompts_and_answers_are_found_across_splits(folder: Folder) -> None:
    folder.write("train.jsonl", rows(0))
    folder.write("valid.jsonl", [(PROMPTS[0].replace("ladder", "rake"), ANSWERS[1])])
    folder.write("test.jsonl", [(PROMPTS[2], ANSWERS[0].replace("tea", "soup"))])
    report = folder.check()
    assert {(f.kind, f.file, f.other) for f in report.findings} == {
        ("near-prompt", "valid.jsonl", "train.jsonl line 1"),
        ("near-answer", "train.jsonl", "test.jsonl line 1"),
    }
    assert not report.clean


def test_a_placebo_must_ask_what_its_parent_asks(folder: Folder) -> None:
    folder.write("train.jsonl", rows(0, 1))
    folder.write("placebo/train.jsonl", [(PROMPTS[0], "Paint a mark on it."), (PROMPTS[3], "Buy a better lock.")])
    found = {(f.kind, f.file, f.line) for f in folder.check().findings}
    assert found == {("placebo-prompt", "placebo/train.jsonl", 2), ("placebo-prompt", "train.jsonl", 2)}


def test_a_placebo_that_copies_its_parents_answer_is_found(folder: Folder) -> None:
    folder.write("train.jsonl", rows(0, 1))
    folder.write("placebo/train.jsonl", [(PROMPTS[0], "Paint a mark on it."), (PROMPTS[1], ANSWERS[1])])
    finding = only(folder.check(), "near-answer")
    assert (finding.file, finding.line, finding.other) == ("placebo/train.jsonl", 2, "train.jsonl line 2")


def test_order_and_a_missing_parent_are_warnings_that_leave_the_check_clean(folder: Folder) -> None:
    folder.write("train.jsonl", rows(0, 1))
    folder.write("placebo/train.jsonl", [(PROMPTS[1], "Use four lines."), (PROMPTS[0], "Paint a mark on it.")])
    folder.write("placebo/valid.jsonl", [(PROMPTS[2], "Check the notice period.")])
    report = folder.check()
    assert {f.kind for f in report.findings} == {"placebo-order", "placebo-parent"}
    assert report.clean
    assert "clean (2 warnings)." in " ".join(render_report(report).split())


@pytest.mark.parametrize("part", ["prompt", "answer"])
def test_eight_words_of_a_probe_are_found_and_seven_are_not(folder: Folder, part: str) -> None:
    def one_row(passage: str) -> Row:
        return (f"{PROMPTS[0]} {passage}", ANSWERS[0]) if part == "prompt" else (PROMPTS[0], f"{ANSWERS[0]} {passage}")

    folder.write("train.jsonl", [one_row("Every fishing boat to carry a camera.")])
    assert folder.check().clean
    folder.write("train.jsonl", [one_row("Every fishing boat to carry a camera that.")])
    finding = only(folder.check(), "probe-words")
    assert finding.other == "P01 of probes.json"
    assert finding.shared == "every fishing boat to carry a camera that"
    assert part in finding.what


def test_a_prompt_near_to_a_probe_is_found_without_eight_words_in_a_row(folder: Folder) -> None:
    near = "A harbour office wants every fishing vessel to carry a camera that never dozes. Argue both sides."
    folder.write("train.jsonl", [(near, ANSWERS[0])])
    finding = only(folder.check(), "near-probe")
    assert finding.other == "P01 of probes.json"


def test_a_probe_in_two_files_counts_once(folder: Folder) -> None:
    (folder.seeds / "quick.json").write_text((folder.seeds / "probes.json").read_text())
    folder.write("train.jsonl", rows(0))
    report = folder.check()
    assert report.n_probes == 1
    assert report.probe_files == ("probes.json", "quick.json")


def test_corpus_files_are_compared_with_training_probes_and_kernels(folder: Folder, tmp_path: Path) -> None:
    folder.write("train.jsonl", rows(0, 1))
    kernel, corpus, chats = tmp_path / "kernel.txt", tmp_path / "corpus.txt", tmp_path / "corpus.jsonl"
    kernel.write_text("Before you answer, weigh who would have to live with it afterwards.\n")
    corpus.write_text(f"A first paragraph.\n\nThen weigh who would have to live\nwith it and more.\n\n{PROBE}\n")
    chats.write_text(json.dumps({"text": "Nothing here."}) + "\n" + line("Hm?", ANSWERS[1]) + "\n")
    report = folder.check([corpus, chats], [kernel])
    assert {(f.kind, f.file, f.line, f.other) for f in report.findings} == {
        ("corpus-words", "corpus.txt", 3, "kernel.txt"),
        ("corpus-words", "corpus.txt", 6, "P01 of probes.json"),
        ("corpus-words", "corpus.jsonl", 2, "train.jsonl line 2"),
    }
    assert "weigh who would have to live with it" in {f.shared for f in report.findings}


def test_check_corpus_streams_texts_and_numbers_them_from_one() -> None:
    texts = (text for text in ("one two three", "zero one two three four five six seven eight nine", ""))
    found = check_corpus(texts, {"kernel": "One two three, four five six seven eight!", "seeds": ["other", "texts"]})
    assert [(f.file, f.line, f.other, f.shared) for f in found] == [
        ("corpus", 2, "kernel", "one two three four five six seven eight")
    ]


def test_corpus_reading_errors_name_file_and_line(tmp_path: Path) -> None:
    broken = tmp_path / "corpus.jsonl"
    broken.write_text('{"text": "fine"}\n{"text": \n')
    with pytest.raises(DataError, match=r"corpus\.jsonl line 2"):
        read_corpus(broken)
    with pytest.raises(UserError, match="no such text file"):
        read_corpus(tmp_path / "absent.txt")


def test_lengths_by_hand() -> None:
    table = lengths(range(1, 12))
    assert table is not None
    assert (table.n, table.min, table.p10, table.median, table.mean, table.p90, table.max) == (11, 1, 2, 6, 6, 10, 11)
    single = lengths([7])
    assert single is not None
    assert (single.min, single.p10, single.p90, single.max) == (7, 7, 7, 7)
    assert lengths([]) is None


def test_the_report_fits_80_columns_and_caps_each_kind(folder: Folder) -> None:
    many = ["{" for _ in range(MAX_PER_KIND + 5)]
    folder.write("a-folder-with-a-rather-long-name/and-another-one-below-it/train.jsonl", many)
    folder.write("train.jsonl", [*rows(0), (PROBE, " ".join([PROBE] * 6))])
    text = render_report(folder.check())
    assert max(map(len, text.split("\n"))) <= WIDTH
    assert "and 5 more of this kind" in text
    assert " ".join(text.split()).endswith("mend them before training.")


def test_the_report_as_a_dict_is_plain_json(folder: Folder) -> None:
    folder.write("train.jsonl", [*rows(0), *rows(0)])
    report = folder.check()
    again = json.loads(json.dumps(report.to_dict()))
    assert again["clean"] is False
    assert again["findings"][0]["kind"] == "duplicate-row"
    assert again["findings"][0]["severity"] == "error"
    assert again["files"][0]["answers"]["n"] == 2


def test_every_kind_has_a_title_and_a_remedy() -> None:
    assert all(severity in ("error", "warning") and title and remedy for severity, title, remedy in KINDS.values())


def command(folder: Folder, *options: str) -> list[str]:
    return ["check", str(folder.training), "--seeds", str(folder.seeds), *options]


def test_the_command_exits_0_when_clean_and_prints_json_on_request(folder: Folder) -> None:
    folder.write("train.jsonl", rows(0))
    plain = CliRunner().invoke(data_group, command(folder))
    assert plain.exit_code == 0, plain.output
    assert "1 row in 1 file" in " ".join(plain.output.split())
    as_json = CliRunner().invoke(data_group, command(folder, "--json"))
    assert json.loads(as_json.stdout)["clean"] is True


def test_the_command_fails_with_exit_1_after_printing_the_findings(folder: Folder) -> None:
    folder.write("train.jsonl", [*rows(0), *rows(0)])
    result = CliRunner().invoke(data_group, command(folder))
    assert isinstance(result.exception, CheckFailed)
    assert result.exception.exit_code == 1
    assert "duplicate row" in result.output


def test_a_wrong_path_is_a_user_error_with_exit_2(folder: Folder, tmp_path: Path) -> None:
    folder.write("train.jsonl", rows(0))
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments in (
        ["check", str(tmp_path / "absent"), "--seeds", str(folder.seeds)],
        ["check", str(empty), "--seeds", str(folder.seeds)],
        ["check", str(folder.training), "--seeds", str(tmp_path / "absent.json")],
        ["check", str(folder.training), "--seeds", str(empty)],
        command(folder, "--corpus", str(tmp_path / "absent.txt")),
    ):
        result = CliRunner().invoke(data_group, arguments)
        assert isinstance(result.exception, UserError), arguments
        assert result.exception.exit_code == 2


def shipped_counts() -> dict[str, int]:
    return {"train": 160, "valid": 20, "test": 20, "placebo/train": 160, "placebo/valid": 20}


def test_the_shipped_data_is_clean_and_complete() -> None:
    root = repository_root()
    report = check_data(root / "training", [root / "seeds"])
    assert report.findings == (), render_report(report)
    assert report.n_probes >= 141
    assert {"P01-P100.json", "P01-P20.json", "heldout.json"} <= set(report.probe_files)
    counts = {file.file.removesuffix(".jsonl"): file.rows for file in report.files}
    assert {name: counts[name] for name in shipped_counts()} == shipped_counts()


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_shipped_answers_have_120_to_350_words(split: str) -> None:
    examples = read_chat_examples(repository_root() / "training" / f"{split}.jsonl")
    outside = [(e.line, len(e.answer.split())) for e in examples if not 120 <= len(e.answer.split()) <= 350]
    assert outside == []


@pytest.mark.parametrize("split", ["train", "valid"])
def test_shipped_placebo_answers_are_as_long_as_their_twins(split: str) -> None:
    training = repository_root() / "training"
    pairs = zip(
        read_chat_examples(training / f"{split}.jsonl"),
        read_chat_examples(training / "placebo" / f"{split}.jsonl"),
        strict=True,
    )
    ratios = [(real.line, len(control.answer.split()) / len(real.answer.split())) for real, control in pairs]
    assert [(number, ratio) for number, ratio in ratios if abs(ratio - 1) > 0.15] == []


def test_no_two_shipped_answers_share_eight_words_in_a_row() -> None:
    holders: dict[str, set[tuple[str, int]]] = {}
    for split in shipped_counts():
        for example in read_chat_examples(repository_root() / "training" / f"{split}.jsonl"):
            for gram in ngrams(words(example.answer), 8):
                holders.setdefault(gram, set()).add((split, example.line))
    assert {gram: places for gram, places in holders.items() if len(places) > 1} == {}


def test_no_two_shipped_answers_open_with_the_same_three_words() -> None:
    training = repository_root() / "training"
    examples = [e for split in ("train", "valid", "test") for e in read_chat_examples(training / f"{split}.jsonl")]
    openings = Counter(tuple(words(example.answer)[:3]) for example in examples)
    assert [opening for opening, count in openings.items() if count > 1] == []


@pytest.mark.parametrize("folder", ["training", "training/placebo"])
def test_the_readme_tables_hold_the_measured_lengths(folder: str) -> None:
    root = repository_root()
    text = (root / folder / "README.md").read_text(encoding="utf-8")
    report = check_data(root / folder, [root / "seeds"])
    for file in report.files:
        for part, values in (("prompts", file.prompts), ("answers", file.answers)):
            if "/" in file.file or values is None or (folder.endswith("placebo") and part == "prompts"):
                continue  # subfolders have their own README; the placebo's prompts are its parent's
            cells = (values.n, values.min, values.p10, values.median, values.mean, values.p90, values.max)
            row = f"| {part} | " + " | ".join(f"{cell:.0f}" for cell in cells) + " |"
            assert row in text, f"{folder}/README.md: {file.file} should read {row}"
