"""`lem data show`: every token is to be seen, and the trained ones can be told from the others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Place, Result
from rich.text import Text

from lem.chat.load import ChatModel, load
from lem.data import ChatExample
from lem.training.dataset import encode
from lem.training.marked import WIDTH, flow, units
from lem.training.mask import TrainingRow

Lem = Callable[..., Result]
END = "<|end|>"


def chat_line(*turns: str, system: str | None = None) -> str:
    roles = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
    opening = [{"role": "system", "content": system}] if system else []
    return json.dumps({"messages": [*opening, *roles]}) + "\n"


@pytest.fixture
def file(place: Place) -> Path:
    path = place.folder / "train.jsonl"
    lines = [
        chat_line("Why?", "The tide.\n\nIt turns."), "\n", chat_line("And?", "So."), chat_line("a", "b", "c", "d"),
        chat_line("e", "f"), chat_line("g" * 90, "Stop <|end|> it."),
    ]  # fmt: skip
    path.write_text("".join(lines))
    return path


@pytest.fixture
def chat(place: Place) -> ChatModel:
    return load(str(place.model), weights=False)


def test_the_trained_tokens_stand_between_marks(lem: Lem, file: Path, place: Place) -> None:
    shown = lem("data", "show", file, "--row", "1")
    assert shown.code == 0, shown.err
    assert shown.out.split("\n\n", 1)[1] == (
        "line 1: 45 tokens, 21 trained (47%)\n"
        "<|turn|>user↵\nWhy?<|end|>↵\n<|turn|>assistant↵\n⟦The·tide.↵\n↵\nIt·turns.<|end|>⟧↵\n"
    ), "one token a byte: the spaces are tokens of their own"
    header = shown.out.split("\n\n", 1)[0].split("\n")
    assert header[0] == "train.jsonl"
    assert re.fullmatch(r"model .*tiny-llama, template [0-9a-f]{12}", header[1])
    assert header[2] == "1 of 5 examples, 1 row, 45 tokens, 21 trained (47%)"


def test_without_a_choice_the_whole_file_is_counted_and_its_first_examples_shown(lem: Lem, file: Path) -> None:
    shown = lem("data", "show", file).out
    assert [int(n) for n in re.findall(r"^line (\d+):", shown, re.M)] == [1, 3, 4]
    assert "5 examples, 4 rows," in shown
    assert "1 example left out, no reply to train on (line 6)." in shown
    assert shown.endswith("2 examples more; --row N or --rows A-B (lines of the file) shows them.\n")


def test_rows_are_chosen_by_the_lines_of_the_file(lem: Lem, file: Path) -> None:
    for option, lines in (("--rows", "3-5"), ("--row", "4")):
        shown = lem("data", "show", file, option, lines).out
        expected = [3, 4, 5] if "-" in lines else [4]
        assert [int(n) for n in re.findall(r"^line (\d+):", shown, re.M)] == expected
    assert "⟦b<|end|>⟧" in shown
    assert "⟦d<|end|>⟧" in shown


def test_what_is_left_out_or_shortened_is_said(lem: Lem, file: Path) -> None:
    shown = lem("data", "show", file, "--row", "6").out
    assert "\nline 6: left out: the reply holds the text of the stop token <|end|>" in shown
    short = lem("data", "show", file, "--row", "1", "--max-seq-length", "43").out
    assert "line 1: the prompt was shortened to fit" in short
    assert "1 row, 43 tokens, 21 trained" in short
    dropped = lem("data", "show", file, "--row", "1", "--max-seq-length", "43", "--too-long", "drop").out
    assert "line 1: a reply is left out: it does not fit" in dropped
    assert "0 rows, 0 tokens, 0 trained\n" in dropped


def test_a_sandwich_shows_the_kernel(lem: Lem, file: Path, place: Place) -> None:
    shown = lem("data", "show", file, "--row", "3", "--format", "sandwich", "--kernel", place.kernel).out
    unfolded = re.sub(r"(?<!↵)\n", "", shown).replace("·", " ")
    assert place.kernel.read_text()[:60] in unfolded
    assert "The text of lek-1-sig.txt is about the weather." in unfolded
    assert "⟦So.<|end|>⟧" in shown


def test_json_holds_the_rows_exactly(lem: Lem, file: Path, chat: ChatModel) -> None:
    found = json.loads(lem("data", "show", file, "--rows", "1-4", "--json").out)
    assert [entry["line"] for entry in found["examples"]] == [1, 3, 4]
    turns = {"messages": [("user", "Why?"), ("assistant", "The tide.\n\nIt turns.")]}["messages"]
    row = encode(chat, ChatExample(tuple({"role": role, "content": text} for role, text in turns), 1))
    shown = found["examples"][0]["rows"][0]
    assert (tuple(shown["tokens"]), [bool(flag) for flag in shown["trained"]]) == (row.tokens, list(row.reply))
    assert "".join(text for _, text in shown["units"]) == chat.tokenizer.decode(list(row.tokens))
    assert [index for ids, _ in shown["units"] for index in ids] == list(row.tokens)
    assert (found["n_examples"], found["n_shown"], found["n_trained"]) == (5, 3, 21 + 4 + 4)


def test_ids_give_a_line_to_every_token(lem: Lem, file: Path, chat: ChatModel) -> None:
    lines = lem("data", "show", file, "--row", "3", "--ids").out.split("\n\n", 1)[1].split("\n")[1:-1]
    tokens = [int(line[8:16]) for line in lines]
    assert chat.tokenizer.decode(tokens) == "<|turn|>user\nAnd?<|end|>\n<|turn|>assistant\nSo.<|end|>\n"
    assert [int(line[:6]) for line in lines] == list(range(len(tokens)))
    assert [line.split("*")[1].strip() for line in lines if "*" in line] == ["S", "o", ".", END]


def test_colours_carry_the_same_text(lem: Lem, file: Path) -> None:
    marked = lem("data", "show", file, "--row", "1", "--no-color").out
    coloured = lem("data", "show", file, "--row", "1", "--color").out
    assert "\x1b[" in coloured
    assert "\x1b[" not in marked
    body = Text.from_ansi(coloured.split("\n\n", 1)[1])
    assert body.plain.strip() == re.sub("[⟦⟧]", "", marked.split("\n\n", 1)[1]).strip()
    green = "".join(body.plain[span.start : span.end] for span in body.spans if "on color(10)" in str(span.style))
    assert green == "The·tide.↵↵It·turns.<|end|>"


def test_nothing_of_a_token_is_hidden_or_obeyed_by_the_terminal(lem: Lem, place: Place, chat: ChatModel) -> None:
    path = place.folder / "odd.jsonl"
    path.write_text(chat_line("tab\there", "   \x1b[31mred\r 漢字🚣 \u202eback\u200b"))
    shown = lem("data", "show", path, "--row", "1").out
    assert "tab⇥here" in shown
    assert "⟦···\\x1b[31mred\\r·漢字🚣·\\u202eback\\u200b<|end|>⟧" in shown.replace(" ", "·")
    assert "\x1b" not in shown


def test_a_character_of_several_tokens_is_one_unit_but_never_across_the_mask(chat: ChatModel) -> None:
    boat = chat.tokenizer.encode("🚣", add_special_tokens=False)
    assert len(boat) == 4
    whole = TrainingRow(tuple(boat * 2), (False,) * 4 + (True,) * 4)
    assert [(u.ids, u.text, u.trained) for u in units(chat, whole)] == [
        (tuple(boat), "🚣", False), (tuple(boat), "🚣", True),
    ]  # fmt: skip
    torn = TrainingRow(tuple(boat), (False, False, True, True))
    assert units(chat, torn)[0].ids == tuple(boat[:2])
    assert [index for unit in units(chat, torn) for index in unit.ids] == boat


@pytest.mark.parametrize("text", ["word " * 60, "x" * 300, "漢" * 100, "a\n\nb " * 40, " " * 200])
def test_lines_are_at_most_80_columns_and_lose_no_character(chat: ChatModel, text: str) -> None:
    from rich.cells import cell_len

    tokens = chat.tokenizer.encode(text, add_special_tokens=False)
    page = flow(units(chat, TrainingRow(tuple(tokens), (False,) * len(tokens))), colour=False).plain
    assert max(cell_len(line) for line in page.split("\n")) <= WIDTH
    assert page.replace("↵\n", "\r").replace("\n", "").replace("\r", "\n").replace("·", " ") == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--row", "2"), "no example there; the examples stand on lines 1 to 6"),
        (("--rows", "5-3"), r"take a line or a range of lines, as 7 or 3-9 \(got 5-3\)"),
        (("--row", "first"), r"\(got first\)"),
        (("--kernel", "kernel/axioms.json"), "--kernel is for --format sandwich"),
        (("--format", "sandwich", "--kernel", "nowhere.txt"), "no such kernel file"),
        (("--model", "nowhere/at/all"), "no such model"),
    ],
)
def test_wrong_options_are_one_sentence(lem: Lem, file: Path, arguments: tuple[Any, ...], message: str) -> None:
    shown = lem("data", "show", file, *arguments)
    assert (shown.code, shown.out) == (2, "")
    assert re.search(message, shown.err), shown.err
    assert len(shown.err.strip().split("\n")) == 1


def test_a_malformed_line_is_named(lem: Lem, place: Place) -> None:
    path = place.folder / "bad.jsonl"
    path.write_text(chat_line("a", "b") + "{\n")
    shown = lem("data", "show", path)
    assert shown.code == 2
    assert "bad.jsonl line 2: not valid JSON" in shown.err
    assert lem("data", "show", place.folder / "absent.jsonl").code == 2
