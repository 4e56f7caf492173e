"""Rows that are too long: the prompt gives way, the reply never does, and everything left out is counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import template_models as like
from hypothesis import given, settings
from hypothesis import strategies as st

from lem.chat.load import ChatModel
from lem.data import ChatExample
from lem.errors import DataError, UserError
from lem.training.dataset import Outcome, Sandwich, TrainingRow, encode_example, encode_file
from lem.training.mask import make_form

END = like.END
Line = Callable[..., str]
HEADERS = {"system": "<|turn|>system\n<|end|>\n", "user": "<|turn|>user\n<|end|>\n", "assistant": "<|turn|>assistant\n"}


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    """One token a byte, so that every length can be worked out by hand."""
    return like.chat_with(tmp_path_factory.mktemp("dataset") / "plain", like.PLAIN, "bytes")


@pytest.fixture(scope="module")
def rewriting(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    return like.chat_with(tmp_path_factory.mktemp("dataset") / "rewriting", like.SHORTENS_HISTORY, "bytes")


def n_bytes(text: str) -> int:
    """Tokens of a text in which every special token counts one and every other byte one."""
    for name in like.SPECIALS:
        text = text.replace(name, "\0")
    return len(text.encode())


def messages_of(chat: ChatModel, row: TrainingRow) -> list[tuple[str, str]]:
    """Roles and texts of a row, read back from its tokens."""
    turns = chat.tokenizer.decode(list(row.tokens)).split("<|turn|>")[1:]
    return [(turn.split("\n", 1)[0], turn.split("\n", 1)[1].split(END)[0]) for turn in turns]


def counted(chat: ChatModel, row: TrainingRow) -> str:
    return str(chat.tokenizer.decode([t for t, flag in zip(row.tokens, row.reply, strict=True) if flag]))


def fitted(chat: ChatModel, turns: Sequence[str], limit: int, system: str | None = None, **options: object) -> Outcome:
    roles = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]
    opening = [{"role": "system", "content": system}] if system else []
    sandwich = options.pop("sandwich", None)
    assert sandwich is None or isinstance(sandwich, Sandwich)
    return encode_example(make_form(chat, sandwich=sandwich), ChatExample((*opening, *roles), 1), limit, **options)  # type: ignore[arg-type]


OVERHEAD = n_bytes("<|turn|>user\n<|end|>\n<|turn|>assistant\n<|end|>\n")


@pytest.mark.parametrize("kept", [1, 2, 37, 199])
def test_the_prompt_keeps_as_much_of_its_end_as_fits(chat: ChatModel, kept: int) -> None:
    question, reply = "".join(chr(97 + i % 26) for i in range(200)), "The whole reply."
    found = fitted(chat, [question, reply], OVERHEAD + len(reply) + kept)
    assert [messages_of(chat, row) for row in found.rows] == [[("user", question[-kept:]), ("assistant", reply)]]
    assert len(found.rows[0].tokens) == OVERHEAD + len(reply) + kept
    assert counted(chat, found.rows[0]) == reply + END
    assert (found.truncated, found.too_long, found.no_reply) == (True, False, "")


def test_what_fits_is_left_alone(chat: ChatModel) -> None:
    found = fitted(chat, ["q" * 20, "Yes."], OVERHEAD + 24)
    assert (len(found.rows[0].tokens), found.truncated) == (OVERHEAD + 24, False)
    assert fitted(chat, ["q" * 20, "Yes."], OVERHEAD + 23).truncated


def test_the_cut_begins_with_a_whole_word(chat: ChatModel) -> None:
    question = "Seven swans swim silently southward"
    found = fitted(chat, [question, "Yes."], OVERHEAD + 4 + len("wim silently southward"))
    assert messages_of(chat, found.rows[0])[0] == ("user", "silently southward")
    found = fitted(chat, [question, "Yes."], OVERHEAD + 4 + len("swim silently southward"))
    assert messages_of(chat, found.rows[0])[0] == ("user", "swim silently southward")


@pytest.mark.parametrize(
    ("room", "lengths"),
    [(180, (60, 60, 60)), (200, (60, 60, 80)), (350, (60, 60, 230)), (90, (30, 30, 30)), (4, (1, 1, 1))],
)
def test_the_longest_turns_are_levelled_first(chat: ChatModel, room: int, lengths: tuple[int, ...]) -> None:
    """System 60, questions 60 and 300 characters: the longest gives way until the others are as long as it."""
    replies = ["First reply.", "Second reply."]
    overhead = 2 * OVERHEAD + n_bytes(HEADERS["system"]) + sum(map(len, replies))
    found = fitted(chat, ["u" * 60, replies[0], "v" * 300, replies[1]], overhead + room, system="s" * 60)
    assert [messages_of(chat, row) for row in found.rows] == [
        [("system", "s" * lengths[0]), ("user", "u" * lengths[1]), ("assistant", replies[0]),
         ("user", "v" * lengths[2]), ("assistant", replies[1])]
    ]  # fmt: skip
    assert counted(chat, found.rows[0]) == "First reply.<|end|>Second reply.<|end|>"


def test_a_reply_that_does_not_fit_by_itself_is_left_out_and_never_cut(chat: ChatModel) -> None:
    found = fitted(chat, ["Why?", "y" * 200], OVERHEAD + 200)
    assert (found.rows, found.too_long, found.truncated, found.no_reply) == ((), True, False, "")
    assert len(fitted(chat, ["Why?", "y" * 200], OVERHEAD + 201).rows) == 1


def test_the_policy_drop_cuts_nothing(chat: ChatModel) -> None:
    found = fitted(chat, ["q" * 200, "Yes."], 100, too_long="drop")
    assert (found.rows, found.too_long, found.truncated) == ((), True, False)
    assert len(fitted(chat, ["q" * 20, "Yes."], 100, too_long="drop").rows) == 1


def test_exchanges_that_do_not_fit_together_are_parted_with_the_system_turn_in_both(chat: ChatModel) -> None:
    turns = [text for name in "abcd" for text in (f"{name}?", name * 50)]
    limit = 2 * OVERHEAD + n_bytes(HEADERS["system"]) + 2 * 50 + 2 * 2 + len("Be kind.")
    found = fitted(chat, turns, limit, system="Be kind.")
    assert [messages_of(chat, row) for row in found.rows] == [
        [("system", "Be kind."), *[pair for n in names for pair in (("user", f"{n}?"), ("assistant", n * 50))]]
        for names in ("ab", "cd")
    ]
    assert [counted(chat, row) for row in found.rows] == [f"{a * 50}{END}{b * 50}{END}" for a, b in ("ab", "cd")]
    assert (found.truncated, found.too_long) == (True, False)
    alone = fitted(chat, ["a?", "a" * 50, "b?", "b" * 500, "c?", "c" * 50], limit)
    assert [counted(chat, row) for row in alone.rows] == ["a" * 50 + END, "c" * 50 + END]
    assert (alone.truncated, alone.too_long) == (True, True), "one of three replies is missing"


def test_rows_of_a_reply_each_lose_their_oldest_exchanges(rewriting: ChatModel) -> None:
    turns = ["a" * 60, "one and more", "b" * 60, "two and more", "c" * 60, "x" * 90]
    found = fitted(rewriting, turns, 150)
    assert [counted(rewriting, row) for row in found.rows] == [text + END for text in turns[1::2]]
    assert all(len(row.tokens) <= 150 for row in found.rows)
    assert [role for role, _ in messages_of(rewriting, found.rows[2])] == ["user", "assistant"] * 2
    assert found.truncated


def test_a_kernel_is_whole_or_the_row_is_left_out(chat: ChatModel) -> None:
    sandwich = Sandwich("k" * 80, "s" * 20)
    parts = OVERHEAD + 80 + 2 + 2 + 20 + len("Yes.")
    found = fitted(chat, ["q" * 60, "Yes."], parts + 25, sandwich=sandwich)
    assert messages_of(chat, found.rows[0])[0] == ("user", f"{'k' * 80}\n\n{'q' * 25}\n\n{'s' * 20}")
    assert found.truncated
    assert (
        messages_of(chat, fitted(chat, ["q" * 60, "Yes."], parts + 1, sandwich=sandwich).rows[0])[0][1].count("q") == 1
    )
    gone = fitted(chat, ["q" * 60, "Yes."], parts, sandwich=sandwich)
    assert (gone.rows, gone.too_long) == ((), True)


words = st.text("abc .ä", min_size=1, max_size=60).filter(str.strip)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(words, words), min_size=1, max_size=4), st.none() | words, st.integers(50, 400),
    st.booleans(), st.sampled_from(["truncate", "drop"]), st.booleans(),
)  # fmt: skip
def test_every_reply_is_there_in_full_or_counted_as_left_out(
    chat: ChatModel, rewriting: ChatModel, exchanges: list[tuple[str, str]], system: str | None, limit: int,
    sandwiched: bool, policy: str, rewrites: bool,
) -> None:  # fmt: skip
    model = rewriting if rewrites else chat
    sandwich = Sandwich("Kernel, whole.", "Signed.") if sandwiched else None
    turns = [text for exchange in exchanges for text in exchange]
    found = fitted(model, turns, limit, system, too_long=policy, sandwich=sandwich)
    assert all(len(row.tokens) <= limit for row in found.rows)
    trained = "".join(counted(model, row) for row in found.rows).split(END)[:-1]
    wanted = list(turns[1::2])
    for reply in trained:
        assert reply in wanted
        del wanted[: wanted.index(reply) + 1]  # in the order of the conversation, each at most once
    assert found.too_long == (len(trained) < len(exchanges))
    for row in found.rows:
        messages = messages_of(model, row)
        roles = [role for role, _ in messages]
        assert roles[system is not None :] == ["user", "assistant"] * (len(roles) // 2)
        assert sum(text.startswith("Kernel, whole.\n\n") and text.endswith("\n\nSigned.") for _, text in messages) == (
            1 if sandwiched else 0
        )
        if policy == "drop" and not sandwiched:
            assert {text for role, text in messages if role == "user"} <= set(turns[::2])


def test_a_file_is_counted_by_kind_with_its_lines(chat: ChatModel, tmp_path: Path, line: Line) -> None:
    path = tmp_path / "train.jsonl"
    lines = [
        line("Hi?", "Yes."), line("h" * 200, "Yes."), "\n", line("Hi?", "y" * 200), line("Hi?", "Stop <|end|> it"),
        line("And?", "So."),
    ]  # fmt: skip
    path.write_text("".join(lines))
    found = encode_file(chat, path, 80)
    assert [row.line for row in found.rows] == [1, 2, 6]
    assert (found.n_dropped, found.n_too_long, found.n_truncated) == (1, 1, 1)
    assert found.notes() == [
        "1 example left out, no reply to train on (line 5).",
        "1 example with a reply left out that does not fit (line 4).",
        "1 example with a shortened prompt (line 2).",
    ]
    assert [counted(chat, row) for row in found.rows] == ["Yes.<|end|>", "Yes.<|end|>", "So.<|end|>"]
    dropped = encode_file(chat, path, 80, too_long="drop")
    assert ([row.line for row in dropped.rows], dropped.n_too_long, dropped.n_truncated) == ([1, 6], 2, 0)
    roomy = encode_file(chat, path, 1000)
    assert ([row.line for row in roomy.rows], roomy.n_too_long, roomy.n_truncated) == ([1, 2, 4, 6], 0, 0)


def test_notes_name_the_first_lines_only(chat: ChatModel, tmp_path: Path, line: Line) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(line("Hi?", "Yes.") + line("h" * 200, "Yes.") * 7)
    assert encode_file(chat, path, 80).notes() == ["7 examples with a shortened prompt (lines 2, 3, 4, 5, 6, ...)."]


def test_a_file_of_which_nothing_is_left_is_refused(chat: ChatModel, tmp_path: Path, line: Line) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(line("Hi?", "y" * 200))
    with pytest.raises(UserError, match=r"train.jsonl: no row keeps a reply within 60 tokens; raise --max-seq-length"):
        encode_file(chat, path, 60)
    path.write_text(line("Hi?", "Yes."))
    with pytest.raises(UserError, match=r"within 60 tokens \(the kernel alone has 300\); raise"):
        encode_file(chat, path, 60, sandwich=Sandwich("k" * 300))
    path.write_text(line("Hi?", "Stop <|end|> it"))
    with pytest.raises(UserError, match=r"no example has a reply to train on \(line 1: .*stop token <\|end\|>"):
        encode_file(chat, path, 60)


def test_a_row_that_the_template_refuses_is_named(tmp_path: Path, line: Line) -> None:
    refuses = like.PLAIN.replace(
        "{{ m['content'] }}", "{{ raise_exception('bad word') if 'cellar' in m['content'] else m['content'] }}"
    )
    chat = like.chat_with(tmp_path / "model", refuses)
    path = tmp_path / "train.jsonl"
    path.write_text(line("Hi?", "Yes.") + line("Hi?", "In the cellar."))
    with pytest.raises(DataError, match=r"train.jsonl line 2: .*refuses the roles user, assistant \(bad word\)"):
        encode_file(chat, path, 60)


def test_without_the_mask_too_the_prompt_gives_way(chat: ChatModel, tmp_path: Path, line: Line) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(line("h" * 200, "Yes."))
    found = encode_file(chat, path, 80, mask_prompt=False)
    assert (len(found.rows[0].tokens), found.rows[0].n_reply, found.n_truncated) == (80, 79, 1)
    assert messages_of(chat, found.rows[0])[1] == ("assistant", "Yes.")
