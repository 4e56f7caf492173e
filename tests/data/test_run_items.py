"""Items of a run: whatever a question holds comes back as it was, and a known id keeps its content."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lem.data.items import RUN_ITEMS, Item, grow_items, items_text, read_run_items
from lem.errors import DataError, ResumeMismatch
from lem.records import write_atomic

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(), lambda inner: st.lists(inner, max_size=3)
)
texts = st.text(st.characters(), min_size=1)
items = st.builds(
    Item, id=texts, benchmark=st.sampled_from(["gsm8k", "ethics"]), question=texts, domain=st.text(),
    fields=st.dictionaries(st.text(), json_values, max_size=3),
)  # fmt: skip


@settings(max_examples=30)
@given(st.lists(items, unique_by=lambda item: item.id, max_size=4))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, found: list[Item]) -> None:
    run = tmp_path_factory.mktemp("run")
    write_atomic(run / RUN_ITEMS, items_text(found))
    assert list(read_run_items(run).values()) == found


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\x85", "\x1c", "\x0b", "\r", "\ud800", "\x00"])
def test_no_character_of_a_question_ends_its_line(tmp_path: Path, odd: str) -> None:
    item = Item("a", "ethics", f"one{odd}two", odd, {"note": odd})
    write_atomic(tmp_path / RUN_ITEMS, items_text([item]))
    assert read_run_items(tmp_path) == {"a": item}


def test_a_run_without_items_has_none(tmp_path: Path) -> None:
    assert read_run_items(tmp_path) == {}


@pytest.mark.parametrize(
    "line", ["{", "3", "null", "[]", '{"id": "a"}', '{"id": "b", "benchmark": "c", "question": "d", "more": 1}',
             '{"id": 3, "benchmark": "c", "question": "d"}', '{"id": "b", "benchmark": "c", "question": null}',
             '{"id": "b", "benchmark": "c", "question": "d", "fields": []}'],
)  # fmt: skip
def test_a_line_that_is_no_item_is_named(tmp_path: Path, line: str) -> None:
    good = items_text([Item("a", "ethics", "q")])
    (tmp_path / RUN_ITEMS).write_text(good + line + "\n")
    with pytest.raises(DataError, match=r"items\.jsonl line 2: not an item"):
        read_run_items(tmp_path)


def test_bytes_that_are_no_text_are_an_error_of_the_file(tmp_path: Path) -> None:
    (tmp_path / RUN_ITEMS).write_bytes(b"\xff\xfe{}\n")
    with pytest.raises(DataError, match=r"items\.jsonl"):
        read_run_items(tmp_path)


def test_items_are_added_and_never_changed(tmp_path: Path) -> None:
    one, two = Item("a", "ethics", "q"), Item("b", "ethics", "r")
    assert grow_items({"a": one}, [one, two], tmp_path) == [one, two]
    assert grow_items({"a": one, "b": two}, [two], tmp_path) == [one, two]
    for other in (Item("a", "ethics", "another"), Item("a", "ethics", "q", fields={"label": "safe"})):
        with pytest.raises(ResumeMismatch, match="another item 'a'; give a new --output"):
            grow_items({"a": one}, [other], tmp_path)


def test_an_item_with_a_number_that_is_none_is_the_same_item_again(tmp_path: Path) -> None:
    """JSON as Python reads it has NaN, which equals nothing."""
    item = Item("a", "ethics", "q", fields={"score": math.nan})
    again = Item("a", "ethics", "q", fields=json.loads('{"score": NaN}'))
    assert len(grow_items({"a": item}, [again], tmp_path)) == 1
