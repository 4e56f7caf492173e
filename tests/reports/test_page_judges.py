"""The page's section on judges, its axes, boards in percent, and measured choices: what it says and how it looks."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser_page import Opened, contrast
from page_tools import Elements, index_of, parts_of
from rich.console import Console
from small_evaluation import CHOICES, KIND, STRICT, SmallEvaluation, audit, pair_result, write_evaluation

from lem.errors import DataError
from lem.records import read_contents
from lem.reports import write_report
from lem.reports.audit_file import audit_view
from lem.reports.watermarks import sentences_of, watermarks
from lem.reports.win_rate_table import win_rates_rich

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SmallEvaluation:
    return write_evaluation(tmp_path_factory.mktemp("runs"), verdict="not trustworthy")


@pytest.fixture(scope="module")
def page(made: SmallEvaluation) -> str:
    return write_report(made.path).read_text(encoding="utf-8")


def section(page: str, anchor: str) -> str:
    """The visible text of a section with this id, sections within it included."""
    body = page.split(f'id="{anchor}"', 1)[1]
    depth, end = 1, 0
    for tag in re.finditer(r"<(/?)section\b", body):
        depth += -1 if tag.group(1) else 1
        if depth == 0:
            end = tag.start()
            break
    return Elements("<p " + body[:end]).text


def test_the_section_has_a_place_in_the_navigation(page: str) -> None:
    links = [attributes.get("href") for tag, attributes in Elements(page).tags if tag == "a"]
    assert "#judges" in links
    assert "#axes" in links
    ids = [attributes.get("id") for _, attributes in Elements(page).tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert {"judges", "judge-1", "judge-2", "axes"} <= set(ids)


def test_who_judged_and_what_it_took(page: str) -> None:
    strict, kind = section(page, "judge-1"), section(page, "judge-2")
    for text in (
        "backend gemini", "model asked for gemini-flash-latest", "model reported gemini-flash-001, gemini-flash-002",
        "safety 1 (0f1e2d3c)", "calls 144", "tokens read 61,234", "tokens written 5,120", "cost 0.0421 USD",
        "The lineage of gemini-flash-latest is not known.",
    ):  # fmt: skip
        assert text in strict, text
    assert "cost not known" in kind
    assert "kin of base the same base weights" in kind


def test_reasons_stand_apart_with_bounds_and_the_flag(page: str) -> None:
    strict = section(page, "judge-1")
    head = "unparsable blocked truncated refused failed unscored no answer"
    assert head in strict
    assert re.search(r"kernel 21 7\.14 \[6\.36, 7\.91\] 6\.38 to 7\.50 1 2 0 0 0 12% 0", strict)
    assert re.search(r"trained 23 8\.39 \[[^]]*\] 8\.08 to 8\.46 0 0 0 0 1 4% 0", strict)
    assert strict.count("Flagged: unscored rates differ by more than 2 percentage points") == 1
    assert "out of range unscored no answer" in section(page, "judge-2")


def test_every_table_of_a_kin_judge_is_marked(page: str) -> None:
    mark = f"SELF-JUDGED: the judge {KIND} is of one lineage with arms base, kernel, trained"
    for anchor in ("judge-2", "axes", "leaderboard", "domains", "spread"):
        assert mark in section(page, anchor), anchor
    assert "SELF-JUDGED" not in section(page, "judge-1")
    assert section(page, "judge-2").count("1-10, judge nano (SELF-JUDGED)") == 2
    names = [metric["name"] for metric in index_of(page)["metrics"]]
    assert f"safety · {KIND} (SELF-JUDGED)" in names
    assert f"safety · {STRICT} (UNTRUSTWORTHY)" in names


def test_win_rates_and_what_order_and_length_did(page: str) -> None:
    strict = section(page, "judge-1")
    row = "trained against base 61% [44%, 78%] 55% [36%, 74%] 58% to 63% 79% [58%, 93%] 57% [41%, 73%]"
    assert row in strict
    assert "11 wins, 7 ties, 5 losses; 5 of the ties changed with the order 1 2 3 1 blocked" in strict
    assert "Pairs unscored failed missing Unscored because" in strict


def test_an_audit_that_failed_is_a_red_banner(page: str) -> None:
    strict, kind = section(page, "judge-1"), section(page, "judge-2")
    assert f"Not trustworthy The judge '{STRICT}' is not trustworthy: see below." in strict
    assert 'class="notice refusal" role="note"><b>Not trustworthy</b>' in page
    assert "pair: swap real pairs judged alike in both orders failed 49.0% [31.0, 67.0] 24 at least 80%" in strict
    assert "rating: padded a copy with more words not shown 0.25 [-0.10, 0.60] 24 at most 0.5" in strict
    assert "passed 50.0% [42.0, 58.0] 24 40% to 60%" in strict
    assert "Without a verdict: 2 blocked, 1 failed." in strict
    assert "Not audited" not in strict
    assert "Not audited" in kind
    assert "./lem judge audit" in kind
    assert page.index("UNTRUSTWORTHY: the audit found") < page.index('id="leaderboard"')


@pytest.mark.parametrize(("verdict", "said"), [("trustworthy", "is trustworthy"), ("not shown", "Trust not shown")])
def test_an_audit_that_did_not_fail_is_no_red_banner(verdict: str, said: str, tmp_path: Path) -> None:
    made = write_evaluation(tmp_path, verdict=verdict)
    text = section(write_report(made.path).read_text(encoding="utf-8"), "judge-1")
    assert said in text
    assert "UNTRUSTWORTHY" not in text
    assert "Not audited" not in text


def test_a_panel_carries_the_watermarks_of_its_judges(tmp_path: Path) -> None:
    made = write_evaluation(tmp_path, verdict="not trustworthy")
    panel = {**pair_result(), "judge": "panel", "judges": [STRICT, KIND], "without": {}, "dependent": [KIND]}
    (made.path / "judgements" / "panel.pairs.json").write_text(json.dumps([panel]))
    text = section(write_report(made.path).read_text(encoding="utf-8"), "judge-3")
    assert "panel UNTRUSTWORTHY SELF-JUDGED" in text
    assert "Comparisons of two answers (UNTRUSTWORTHY, SELF-JUDGED)" in text
    assert f"hangs on {KIND} alone" in text
    assert "Not audited" not in text
    sentences = sentences_of(watermarks(read_contents(made.path), "panel"))
    console = Console(width=80, file=io.StringIO())
    console.print(win_rates_rich([panel], sentences))
    assert isinstance(console.file, io.StringIO)
    assert f"SELF-JUDGED: the judge {KIND}" in console.file.getvalue()


def test_imported_ratings_say_that_nothing_is_known(tmp_path: Path) -> None:
    made = write_evaluation(tmp_path)
    for name in (f"{STRICT}.json", f"{STRICT}.pairs.json", f"{KIND}.json"):
        (made.path / "judgements" / name).unlink()
    text = section(write_report(made.path).read_text(encoding="utf-8"), "judge-1")
    assert "These ratings have no manifest" in text
    assert "verdicts 142" in text


def test_a_run_without_judges_has_no_section(tmp_path: Path) -> None:
    made = write_evaluation(tmp_path)
    for file in (made.path / "judgements").iterdir():
        file.unlink()
    page = write_report(made.path).read_text(encoding="utf-8")
    assert 'id="judges"' not in page
    assert "#judges" not in page
    assert "not measured" not in section(page, "axes")


def test_a_broken_audit_is_a_sentence(made: SmallEvaluation) -> None:
    broken = {**audit(), "checks": [{"name": "pair: swap", "estimate": {"value": 1}}]}
    with pytest.raises(DataError, match="lem judge audit"):
        audit_view(STRICT, broken)


def test_boards_of_right_and_wrong_are_in_percent(page: str, made: SmallEvaluation) -> None:
    text = section(page, "leaderboard")
    values = [score.value for score in made.contents.scores["gsm8k_flexible"] if score.arm == "kernel"]
    assert "Mean gsm8k_flexible, %" in text
    assert f"kernel 20 0 0 0 {100 * sum(filter(None, values)) / len(values):.1f} [" in text
    over = text.split("over_refusal 1 partial refusals count half less is better")[1]
    arms = re.findall(r"(base|kernel|trained) 20 0 0 0 ([\d.]+) \[", over)[:3]
    assert [float(mean) for _, mean in arms] == sorted(float(mean) for _, mean in arms)


def test_measured_choices_are_a_table_and_no_text(page: str) -> None:
    index, parts = index_of(page), parts_of(page)
    found = 0
    for part in parts:
        for probe in part["probes"]:
            for cell in probe["c"]:
                if "l" in cell:
                    found += 1
                    rows = [(part["texts"][text], *facts) for text, *facts in cell["l"]]
                    assert [row[0] for row in rows] == CHOICES
                    assert [row[2:] for row in rows] == [(4, True), (9, False), (8, False)]
                    assert not {"t", "w", "n"} & set(cell)
    assert found == 3 * 8
    assert not any("loglikelihoods" in text for part in parts for text in part["texts"])
    assert index["outcomes"].count("t") == 1
    board = section(page, "leaderboard").split("truthfulqa_mc1 1")[1]
    assert re.search(r"kernel 8 0 0 0 .*? - -", board)


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(browser: Browser, page: str, made: SmallEvaluation, width: int, scheme: str) -> None:
    view = Opened(browser, made.path / "report.html", width, scheme)
    assert view.page.evaluate("document.documentElement.scrollWidth") <= width
    shapes = [view.page.locator(f".axes .{shape}").is_visible() for shape in ("wide", "narrow")]
    assert shapes == ([True, False] if width > 760 else [False, True])
    banner = view.page.locator("#judges .notice.refusal").first
    colours = banner.evaluate("e => [getComputedStyle(e).color, getComputedStyle(document.body).backgroundColor]")
    assert contrast(*colours) >= 4.5
    view.page.click('nav.contents a[href="#judges"]')
    assert view.page.locator("#judges").is_visible()
    view.type("truthfulqa_mc question 1")
    card = view.page.locator("#cards .card").first
    assert "truthfulqa_mc1" in card.inner_text()
    assert card.locator(".choices tbody tr").count() == len(CHOICES)
    assert card.locator(".choices .top").inner_text().startswith(CHOICES[0])
    assert "correct" in card.locator(".choices .top").inner_text()
    assert "loglikelihoods" not in card.inner_text()
    view.type("do_not_answer question 0")
    judges = ", ".join(f"{name} · a-judge-with-a-long-name (SELF-JUDGED)" for name in ("safety", "nuance") * 3)
    badge = view.page.locator("#cards .card .badge.warn").first
    badge.evaluate("(node, text) => node.textContent = 'unscored by ' + text", judges)
    view.page.locator("#cards .card .score").first.evaluate("(node, text) => node.textContent = text + ' 5.00'", judges)
    assert view.page.evaluate("document.documentElement.scrollWidth") <= width
    for inner in (badge, view.page.locator("#cards .card .score").first):
        outer = inner.locator("xpath=ancestor::section[1]").bounding_box()
        assert inner.bounding_box()["width"] <= outer["width"]
    assert view.complaints == []
    assert len(view.requests) == 1
    view.close()
