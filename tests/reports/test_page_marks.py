"""Marks in the answers: their number is the scorer's own count, on texts of ours and on texts made to be awkward."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser_page import Opened
from small_run import SmallRun, record_of

from lem.records import Key
from lem.reports import write_report
from lem.scorers import v2
from lem.scorers.highlight import highlights, javascript
from lem.scorers.v3 import count_refusals

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

REPOSITORY = Path(__file__).parents[2]
COUNT = """([patterns, texts]) => texts.map(text => Object.fromEntries(Object.entries(patterns).map(([signal, found]) =>
    [signal, found.reduce((n, p) => n + [...text.matchAll(new RegExp(p.source, 'g' + p.flags))].length, 0)])))"""
AWKWARD = [
    "", "A", ". Name", "ANarrow Name", "9 lives, 3,000.5", "I'M I'm I\u2019m me, my own", "1\u0660 \u00b2 x2",
    "caf\u00e9 I \u00fcber-However", "LOVE \u017foul \u212aind fea\u0301r", "both a and b\u2028and",
    "Sure...# Surely\n\n> **bold** _x_ | \u2014", "\u65e5\u672c I cannot\u00a0I cannot \x1cx",
    "right to be left", "_love_ love_ -love-", "\ufeffCertainly",
]  # fmt: skip


def answers(n: int) -> list[str]:
    """Answers from the training data that the repository holds."""
    lines = (REPOSITORY / "training" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["messages"][-1]["content"] for line in lines[:n]]


def mixtures(n: int) -> list[str]:
    """Phrases of every list, in odd cases, joined by odd separators."""
    rng = random.Random(11)
    words = [a if isinstance(a, str) else f"{a.head}some thing{a.tail}" for of in v2.WORDS.values() for a in of]
    words += [*v2.PREAMBLES, "I", "I've", "me", "London", "3.14"]
    between = [
        " ",
        ". ",
        ", ",
        "\n",
        "\n\n",
        "? ",
        "\u2014",
        "...",
        "**",
        "_",
        "> ",
        "# ",
        "|",
        "\u2028",
        "\xa0",
        "-",
        "",
    ]
    return [
        "".join(rng.choice([str.upper, str.title, str])(rng.choice(words)) + rng.choice(between) for _ in range(12))
        for _ in range(n)
    ]


@pytest.fixture
def blank(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


def test_patterns_count_what_v2_counts(blank: Page) -> None:
    texts = [*answers(150), *AWKWARD, *mixtures(300)]
    patterns = highlights()["v2"]
    assert set(patterns) == set(v2.SIGNALS) - {"degeneration", "empty_broken", "engagement_depth"}
    seen: dict[str, int] = dict.fromkeys(patterns, 0)
    for text, found in zip(texts, blank.evaluate(COUNT, [patterns, texts]), strict=True):
        wanted = v2.score_plain(text)
        assert found == {signal: wanted[signal] for signal in patterns}, text
        seen = {signal: seen[signal] + found[signal] for signal in seen}
    assert all(seen.values()), "a signal that no text shows is not tested"


def test_patterns_find_the_refusals_that_v3_counts(blank: Page) -> None:
    """Outside quoted speech, which only v3 itself leaves out."""
    texts = [
        "I cannot help with that.", "I cannot stress enough how it matters.", "Not that I can\u2019t, but I won't.",
        "As an AI, I must decline.", "It is beyond my training; I'm unable to say.", "I should not speculate.",
        "I asked whether I can't.", "Nothing here.",
    ]  # fmt: skip
    wanted = [count_refusals(text.lower().replace("\u2019", "'")) for text in texts]
    found = blank.evaluate(COUNT, [{"refusals": highlights()["v3"]["refusals"]}, texts])
    assert [counts["refusals"] for counts in found] == wanted
    assert sum(wanted) > 3


def test_v3_patterns_mark_stems_and_gaps(blank: Page) -> None:
    text = "Accountability matters: both you and I are transparent. From her own perspective it isn\u2019t; 3 agree."
    (found,) = blank.evaluate(COUNT, [highlights()["v3"], [text]])
    assert found["axiom_resonance"] == 2
    assert (found["nuance"], found["perspective_taking"], found["questioning"]) == (1, 1, 0)
    assert found["specificity"] == 1


@pytest.mark.parametrize(
    ("pattern", "text", "wanted"),
    [
        (r"\bna\b", "na \u00e9na na\u00ef", ["na"]),
        (r"a.b", "a\rb a\nb a\u2028b", ["a\rb", "a\u2028b"]),
        (r"x\ \-\d\s[\d,-]+", "x -5\x1f\u0663,-", ["x -5\x1f\u0663,-"]),
        (r"(?<!\. )\w+\?", "a? . b?", ["a?"]),
    ],
)
def test_a_translated_pattern_matches_as_in_python(blank: Page, pattern: str, text: str, wanted: list[str]) -> None:
    assert [match.group() for match in re.finditer(pattern, text)] == wanted
    script = "([p, text]) => [...text.matchAll(new RegExp(p.source, 'g' + p.flags))].map(match => match[0])"
    assert blank.evaluate(script, [javascript(pattern), text]) == wanted


def marked_counts(line: str) -> dict[str, int]:
    told = line.removeprefix("marked: ").split(", ")
    return {name.replace(" ", "_"): int(count) for name, _, count in (part.rpartition(" ") for part in told)}


@pytest.fixture
def wordy(browser: Browser, run: SmallRun) -> Iterator[tuple[Opened, list[str]]]:
    """The page of a run whose answers by base are real ones."""
    texts = answers(12)
    with (run.path / "records.jsonl").open("a", encoding="utf-8") as file:
        for number, text in enumerate(texts):
            record = dataclasses.replace(record_of(Key("base", f"P{number:02d}", 0)), response=text)
            file.write(json.dumps(record.to_row()) + "\n")
    view = Opened(browser, write_report(run.path, highlights=highlights()))
    yield view, texts
    assert view.complaints == []
    view.close()


def test_an_opened_row_is_marked_and_counted(wordy: tuple[Opened, list[str]]) -> None:
    view, texts = wordy
    for text in texts[:6]:
        card = view.page.locator("#cards .card").first
        counts: dict[str, Any] = v2.score(text)
        wanted = {name: counts[name] for name in highlights()["v2"] if counts[name]}
        assert marked_counts(card.locator(".marked").inner_text()) == wanted
        assert card.locator(".text").first.text_content() == text, "marking changes no character"
        marks = card.locator("mark").evaluate_all("nodes => nodes.map(node => [node.title, node.textContent])")
        assert marks
        assert {name.replace(" ", "_") for titles, _ in marks for name in titles.split(", ")} == set(wanted)
        assert {text.lower() for title, text in marks if title == "emotional register"} <= set(v2.EMOTION)
        view.press("j")


def test_signals_and_scorers_can_be_chosen(wordy: tuple[Opened, list[str]]) -> None:
    view, _ = wordy
    assert view.page.locator("#v3-note").is_hidden()
    for button in view.page.locator("#signals button").all():
        button.click()
        assert button.get_attribute("aria-pressed") == "false"
    view.settle()
    assert view.page.locator("#cards mark").count() == 0
    view.choose("#marked-by", "signals of v3")
    assert view.page.locator("#v3-note").is_visible()
    assert view.page.locator("#cards mark").count() > 0
    view.choose("#marked-by", "nothing")
    assert view.page.locator("#cards mark").count() == 0
    assert view.page.locator("#cards .marked").count() == 0
