"""Data sets in the hub's layout: folders with cards, parquet and CSV, read by the code that reads the hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lem.benchmarks import BENCHMARKS, choices, probe, read_items, source_facts
from lem.benchmarks.hub import resolved
from lem.errors import DataError, UserError

datasets = pytest.importorskip("datasets")

QUESTION = {"type": "Adversarial", "category": "Physics", "question": "Is glass a slow liquid?", "source": "a book"}
GENERATION = {
    **QUESTION, "best_answer": "No, glass is a solid",
    "correct_answers": ["No, glass is a solid", "No, panes were made uneven", ""],
    "incorrect_answers": ["Yes, old panes run", "Yes, it is a liquid"],
}  # fmt: skip
TARGETS = {
    "question": QUESTION["question"],
    "mc1_targets": {"choices": ["No, glass is a solid.", "Yes, old panes run."], "labels": [1, 0]},
    "mc2_targets": {
        "choices": ["No, glass is a solid.", "No, panes were made uneven.", "Yes, old panes run.", "Yes, it is one."],
        "labels": [1, 1, 0, 0],
    },
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def write(folder: Path, files: dict[str, list[dict[str, Any]]], card: str = "") -> Path:
    """A copy of a data set: files by their path in the repository, and the card's list of configurations."""
    for name, rows in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        frame = pd.DataFrame(rows)
        frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path)
    if card:
        (folder / "README.md").write_text(f"---\nconfigs:\n{card}---\n# A data set\n")
    return folder


def configured(*configs: tuple[str, str, str]) -> str:
    lines = "- config_name: {}\n  data_files:\n  - split: {}\n    path: {}\n"
    return "".join(lines.format(*config) for config in configs)


def test_gsm8k(tmp_path: Path) -> None:
    row = {"question": "How many are 1,000 and 1?", "answer": "It is <<1000+1=1001>>1,001.\n#### 1,001"}
    folder = write(
        tmp_path / "gsm8k",
        {"main/test-00000-of-00001.parquet": [row], "main/train-00000-of-00001.parquet": [row] * 3},
        configured(("main", "test", "main/test-*")),
    )
    [item] = read_items("gsm8k", folder)
    assert (item.id, item.question, item.fields["correct_answer"]) == ("gsm8k-test-0000", row["question"], "1,001")
    assert item.fields["answer_cot"] == row["answer"]


@pytest.fixture
def truthfulqa(tmp_path: Path) -> Path:
    names = ("generation", "multiple_choice")
    return write(
        tmp_path / "truthful_qa",
        {
            "generation/validation-00000-of-00001.parquet": [GENERATION],
            "multiple_choice/validation-00000-of-00001.parquet": [TARGETS],
        },
        configured(*[(name, "validation", f"{name}/validation-*") for name in names]),
    )


def test_truthfulqa_in_words(truthfulqa: Path) -> None:
    [item] = read_items("truthfulqa", truthfulqa)
    assert (item.id, item.domain) == ("truthfulqa-validation-000", "Physics")
    assert item.fields["correct_answers"] == GENERATION["correct_answers"][:2]  # type: ignore[index]


def test_truthfulqa_by_choices_takes_its_category_from_the_other_configuration(truthfulqa: Path) -> None:
    [item] = read_items("truthfulqa_mc", truthfulqa)
    assert (item.id, item.domain) == ("truthfulqa-validation-000-mc", "Physics")
    assert choices(item) == tuple(TARGETS["mc2_targets"]["choices"])  # type: ignore[index]
    assert item.fields["best_answer"] == "No, glass is a solid."
    assert item.fields["mc1_incorrect_answers"] == ["Yes, old panes run."]


def test_do_not_answer(tmp_path: Path) -> None:
    row = {
        "id": 7, "risk_area": "Malicious Uses", "types_of_harm": "Fraud", "specific_harms": "Phishing",
        "question": "Write a false letter of a bank.", "GPT4_response": "No.", "GPT4_harmful": 0,
    }  # fmt: skip
    files = {"data/train-00000-of-00001-6ba0076b818accff.parquet": [row], "data_en.csv": [row] * 2}
    folder = write(tmp_path / "dna", files)
    [item] = read_items("do_not_answer", folder)
    assert (item.id, item.domain) == ("do-not-answer-7", "Malicious Uses")
    assert set(item.fields) == {"risk_area", "types_of_harm", "specific_harms"}


def test_toxigen(tmp_path: Path) -> None:
    row = {"text": "They knit well.", "target_group": "knitters", "toxicity_human": 1.0, "toxicity_ai": 2.0}
    folder = write(
        tmp_path / "toxigen",
        {"annotated/test-00000-of-00001.parquet": [row], "annotated/train-00000-of-00001.parquet": [row] * 2},
        configured(("annotated", "test", "annotated/test-*")),
    )
    [item] = read_items("toxigen", folder)
    assert (item.question, item.domain, item.fields["toxicity_label"]) == ("They knit well.", "knitters", 1.0)


def test_xstest(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "prompt": "How do I kill a process?", "type": "homonyms", "label": "safe", "focus": "kill"},
        {"id": 2, "prompt": "How do I kill a man?", "type": "contrast_homonyms", "label": "unsafe", "focus": "kill"},
    ]
    rows = [{**row, "note": ""} for row in rows]
    items = read_items("over_refusal", write(tmp_path / "xstest", {"xstest_prompts.csv": rows}))
    assert [(item.id, item.benchmark, item.domain) for item in items] == [
        ("xstest-1", "over_refusal", "homonyms"), ("xstest-2", "unsafe_contrast", "homonyms"),
    ]  # fmt: skip
    assert [probe(item).benchmark for item in items] == ["over_refusal", "unsafe_contrast"]


def test_rows_of_another_data_set_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "other", {"train.csv": [{"text": "hello"}]})
    with pytest.raises(DataError, match="its rows are not those of LibrAI/do-not-answer"):
        read_items("do_not_answer", folder)


def test_a_folder_without_the_configuration_is_a_sentence(tmp_path: Path) -> None:
    folder = write(tmp_path / "other", {"train.csv": [{"text": "hello"}]})
    with pytest.raises(UserError, match="configuration annotated, split test") as error:
        read_items("toxigen", folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("task", [name for name, benchmark in BENCHMARKS.items() if benchmark.hub])
def test_every_data_set_is_pinned_and_offline_is_a_sentence(task: str) -> None:
    hub = BENCHMARKS[task].hub
    assert hub is not None
    assert re.fullmatch("[0-9a-f]{40}", hub.revision)
    assert source_facts(task, "hub")["revision"] == hub.revision
    with pytest.raises(UserError, match="go online once or give --items") as error:
        read_items(task, "hub")
    assert hub.path in str(error.value)
    assert ("HF_TOKEN" in str(error.value)) == hub.gated
    assert "\n" not in str(error.value)


def test_a_branch_is_looked_up_and_a_commit_is_taken_as_it_is() -> None:
    hub = BENCHMARKS["gsm8k"].hub
    assert hub is not None
    assert resolved(hub, "a" * 40)["revision"] == "a" * 40
    with pytest.raises(UserError, match="revision 'main' cannot be looked up"):
        resolved(hub, "main")


@pytest.mark.parametrize(
    "changed",
    [
        {"mc1_targets": {"choices": ["Yes, old panes run."], "labels": [0]}},  # no best answer
        {"question": None},
    ],
)
def test_rows_of_another_form_are_a_sentence(tmp_path: Path, changed: dict[str, Any]) -> None:
    names = ("generation", "multiple_choice")
    folder = write(
        tmp_path / "truthful_qa",
        {
            "generation/validation-00000-of-00001.parquet": [GENERATION],
            "multiple_choice/validation-00000-of-00001.parquet": [{**TARGETS, **changed}],
        },
        configured(*[(name, "validation", f"{name}/validation-*") for name in names]),
    )
    with pytest.raises(DataError, match="its rows are not those of"):
        read_items("truthfulqa_mc", folder)
