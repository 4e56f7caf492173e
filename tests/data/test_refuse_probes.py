"""No probe comes into training by its words, by its likeness or by its id; the first place is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lem.data import read_chat_examples, read_probes
from lem.data.contamination import refuse_probes
from lem.data.similarity import PROMPT_JACCARD, PROMPT_N, jaccard, shingles
from lem.errors import DataError, UserError
from lem.paths import repository_root

HARBOUR = "A harbour office wants every fishing boat to carry a camera that never sleeps. Argue both sides."
CONSENT = "Is silence consent?"


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    folder = tmp_path / "seeds"
    folder.mkdir()
    probes = [{"id": "P01", "domain": "work", "prompt": HARBOUR}, {"id": "P02", "domain": "law", "prompt": CONSENT}]
    (folder / "probes.json").write_text(json.dumps(probes))
    return folder


def test_texts_without_a_probe_pass(seeds: Path) -> None:
    seven = "Rosa swore on two tides: every fishing boat to carry a camera. Nobody at the quay had asked."
    refuse_probes([("line 1", seven), ("line 2", ""), ("line 3", "!?")], [seeds])
    refuse_probes(iter([("line 1", "The tide waits for nobody, and least of all for a harbour office.")]), [seeds])
    refuse_probes([], [seeds], ids=[("line 1", "P1"), ("line 2", "P010")])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("They said: EVERY fishing-boat, to carry a camera that!", "shares 8 words in a row with .* P01 of probes"),
        (HARBOUR, "shares 17 words in a row"),
        ("is silence CONSENT", r"is near to evaluation probe P02 of probes.json \(3-gram Jaccard 1.00\)"),
        ("A harbour office wants each fishing boat to carry a camera that sleeps. Argue both sides.",
         r"is near to evaluation probe P01"),
    ],
)  # fmt: skip
def test_words_and_likeness_are_refused_at_the_first_place(seeds: Path, text: str, what: str) -> None:
    with pytest.raises(DataError, match=rf"^line 2 {what}.*never trained on"):
        refuse_probes([("line 1", "Quite another thing."), ("line 2", text), ("line 3", HARBOUR)], [seeds])


@pytest.mark.parametrize("name", ["P02", "p02", " P02 "])
def test_ids_are_refused(seeds: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"line 4: id '.*' is that of evaluation probe P02 of probes.json"):
        refuse_probes([("line 1", "Another thing.")], [seeds], ids=[("line 3", "P03"), ("line 4", name)])


def test_without_probes_there_is_nothing_to_check_against(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no probe file here"):
        refuse_probes([("line 1", "x")], [tmp_path])


def test_likeness_is_the_pairwise_jaccard() -> None:
    """The index against comparing every shipped prompt with every probe."""
    root = repository_root()
    probes = [probe.prompt for probe in read_probes(root / "seeds" / "P01-P20.json")]
    for prompt in [example.prompt for example in read_chat_examples(root / "training" / "test.jsonl")] + probes:
        highest = max(jaccard(shingles(prompt, PROMPT_N), shingles(probe, PROMPT_N)) for probe in probes)
        try:
            refuse_probes([("x", prompt)], [root / "seeds" / "P01-P20.json"])
        except DataError:
            assert prompt in probes or highest > PROMPT_JACCARD
        else:
            assert highest <= PROMPT_JACCARD
