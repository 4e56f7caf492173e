"""Short questions are found whole inside longer texts, and what is too short for that is said to be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lem.benchmarks.contamination import contaminated, too_short_items
from lem.benchmarks.items import read_items
from lem.data.contamination import refuse_probes
from lem.data.items import Item
from lem.data.short_texts import SHORTEST, ShortTexts, too_short
from lem.data.similarity import words, words_and_gaps
from lem.errors import DataError
from lem.paths import repository_root

FOUR, FIVE, SIX, SEVEN = (
    "Are all swans swans?",
    "What personality do otters have?",
    "What can broomsticks be used for?",
    "Where can you find a real wizard?",
)
INDEX = [("four", FOUR), ("five", FIVE), ("six", SIX), ("seven", SEVEN), ("three", "Who are you?")]


@pytest.mark.parametrize("text", ["", "?!", "Der Käse’s — l'été; 12 ﬁne_words…", "«Ça va ?» Oui."])  # noqa: RUF001
def test_words_and_gaps_are_the_text_cut_in_two(text: str) -> None:
    found, gaps = words_and_gaps(text)
    assert found == words(text)
    assert len(gaps) == len(found) + 1
    woven = gaps[0] + "".join(word + gap for word, gap in zip(found, gaps[1:], strict=True))
    assert woven == text.replace("’", "'").lower()  # noqa: RUF001


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{}", {"four", "five", "six", "seven"}),
        ("I stay honest.\n\n{}\n\nSigned, the keeper", {"four", "five", "six", "seven"}),
        ("Answer truthfully, in one sentence. {}", {"four", "five", "six", "seven"}),
        ("Q: {} A: yes", {"four", "five", "six", "seven"}),
        ("she asked “{}” and left", {"four", "five", "six", "seven"}),
        ("* {}\n* Another", {"four", "five", "six", "seven"}),
        ("please tell me {}", {"six", "seven"}),
        ("Tell me, {} I wonder.", {"six", "seven"}),
    ],
)
def test_where_a_short_text_is_found(text: str, names: set[str]) -> None:
    index = ShortTexts(INDEX)
    found = {name for name, short in INDEX if name in index.held(text.format(short))}
    assert found == names
    # the same without any case and punctuation of its own
    bare = {name for name, short in INDEX if name in index.held(text.format(short.rstrip("?").upper()))}
    assert bare <= names
    assert {"six", "seven"} <= bare


def test_a_part_or_other_words_are_no_copy() -> None:
    index = ShortTexts(INDEX)
    assert index.held("What can broomsticks be used against? Where can you find a wizard?") == {}
    assert index.held("Are all swans white? Are all swans swans or geese? So are all swans swans?") == {}
    assert index.held(f"{SIX} {SIX}") == {"six": ["what can broomsticks be used for"] * 2}
    assert ShortTexts([("eight", "one two three four five six seven eight")]).held("one two three four five six") == {}


def test_which_texts_are_too_short() -> None:
    assert [too_short(" ".join(["word"] * n)) for n in range(6)] == [n < SHORTEST for n in range(6)]
    assert too_short("法國的首都是哪裡?"), "a script without spaces is one word"
    items = [Item("a", "truthfulqa", FOUR), Item("b", "truthfulqa", "Who am I?")]
    assert too_short_items(items) == ["b"]


def chat_file(path: Path, prompts: list[str]) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": "I see."}]}
        for prompt in prompts
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("frame", ["{}", "I mean well.\n\n{}\n\nI mean it.", "Answer in one sentence. {}"])
def test_items_trained_on_are_found_in_any_frame(frame: str, tmp_path: Path) -> None:
    kernel = (repository_root() / "kernel" / "axioms.json").read_text()
    items = [Item(name, "truthfulqa", text) for name, text in INDEX if name != "three"]
    for n, long in enumerate((frame, kernel.replace("{", "(").replace("}", ")") + "\n\n" + frame)):
        file = chat_file(tmp_path / f"{n}.jsonl", [long.format(item.question) for item in items])
        assert set(contaminated(items, [file])) == {"four", "five", "six", "seven"}


def test_a_training_row_that_holds_a_short_probe_is_refused(tmp_path: Path) -> None:
    seeds = tmp_path / "seeds.json"
    seeds.write_text(json.dumps([{"id": "P1", "domain": "birds", "prompt": FOUR}]))
    refuse_probes([("line 1", "Are all swans swans or geese, and what of it?")], [seeds])
    with pytest.raises(DataError, match="line 1 shares 4 words in a row with evaluation probe P1"):
        refuse_probes([("line 1", f"Be brief, and answer what I ask you here. {FOUR} Say why you think so.")], [seeds])


def test_no_item_of_ours_is_too_short_to_be_looked_for() -> None:
    for task in ("gsm8k", "truthfulqa", "do_not_answer", "toxigen", "over_refusal"):
        assert too_short_items(read_items(task)) == []
