"""lem-nano's corpus holds nothing of what it will be tested or trained on later, and the check would notice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lem.data.check import check_data
from lem.paths import repository_root
from nano import corpus
from nano.texts import read_texts

ROOT = repository_root()
KERNELS = sorted((ROOT / "kernel").glob("*.txt")) + sorted((ROOT / "kernel").glob("*.json"))


def write_corpus(path: Path, n_rows: int, extra: str = "") -> Path:
    with path.open("w", encoding="utf-8") as file:
        for row in corpus.rows(read_texts(), 11, n_rows):
            messages = [{"role": role, "content": text} for role, text in row.messages]
            file.write(json.dumps({"messages": messages}) + "\n")
        if extra:
            file.write(json.dumps({"messages": [{"role": "assistant", "content": extra}]}) + "\n")
    return path


@pytest.fixture(scope="module")
def clean_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", 2000)


def test_the_corpus_shares_no_eight_words_with_training_seeds_or_kernels(clean_corpus: Path) -> None:
    report = check_data(ROOT / "training", [ROOT / "seeds"], extra=[clean_corpus], kernels=KERNELS)
    assert report.clean, list(report.findings)[:5]


@pytest.mark.parametrize("source", ["training/test.jsonl", "seeds/heldout.json", "kernel/lek-1-kernel.txt"])
def test_nine_words_of_a_protected_text_are_found(tmp_path: Path, source: str) -> None:
    text = (ROOT / source).read_text(encoding="utf-8")
    if source.endswith(".jsonl"):
        text = json.loads(text.splitlines()[0])["messages"][1]["content"]
    elif source.endswith(".json"):
        text = json.loads(text)[0]["prompt"]
    stolen = " ".join(text.split()[20:32])
    path = write_corpus(tmp_path / "corpus.jsonl", 20, extra=f"Well now, {stolen} indeed.")
    report = check_data(ROOT / "training", [ROOT / "seeds"], extra=[path], kernels=KERNELS)
    assert not report.clean
