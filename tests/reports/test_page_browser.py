"""The page in a real browser, opened from disk: no errors, filters, keyboard, both colour schemes, two widths."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from browser_page import Opened, contrast, luminance
from small_comparison import write_comparison
from small_run import (
    ARMS,
    DOMAINS,
    FAILED,
    HOSTILE,
    HOSTILE_TEXT,
    MISSING,
    N_PROBES,
    TRUNCATED,
    SmallRun,
    keys,
    response_of,
)

from lem.reports import leaderboard, write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


@pytest.fixture
def opened(browser: Browser, run: SmallRun) -> Iterator[Opened]:
    view = Opened(browser, write_report(run.path))
    yield view
    assert view.complaints == []
    assert len(view.requests) == 1
    view.close()


def test_every_answer_of_every_arm_can_be_seen(opened: Opened) -> None:
    opened.choose("#repeat", "all repeats")
    for number in range(N_PROBES):
        opened.page.locator("#probes [role=option]").nth(number).click()
        opened.settle()
        cards, probe = opened.cards(), opened.title()
        expected = [key for key in keys() if key.probe_id == probe]
        assert len(cards) == len(expected)
        shown = opened.page.locator("#cards .card > .text").all_text_contents()
        for key in expected:
            if key == HOSTILE:  # a lone surrogate reaches Python as a replacement character
                assert any(text.startswith(HOSTILE_TEXT[:60]) for text in shown)
            elif key not in (FAILED, *MISSING):
                assert response_of(key) in shown


def test_keys_and_buttons_step_through_probes(opened: Opened) -> None:
    page = opened.page
    assert opened.title() == "P00"
    assert page.locator("#previous").is_disabled()
    opened.press("ArrowRight", "j")
    assert opened.title() == "P02"
    opened.press("k", "ArrowLeft", "ArrowRight")
    assert opened.title() == "P01"
    page.click("#next")
    opened.settle()
    assert opened.title() == "P02"
    page.focus("#probes")
    opened.press("ArrowDown")
    assert opened.title() == "P03"
    assert page.locator("#probes [aria-selected=true] b").inner_text() == "P03"
    assert page.get_attribute("#probes", "aria-activedescendant") == "probe-3"


def focused(opened: Opened) -> str:
    found = opened.page.evaluate("document.activeElement.id")
    assert isinstance(found, str)
    return found


def test_enter_slash_and_escape_move_the_focus(opened: Opened) -> None:
    opened.press("/")
    assert focused(opened) == "search"
    opened.page.keyboard.type("jk/7")
    opened.settle()
    assert (opened.page.input_value("#search"), opened.listed()) == ("jk/7", [])
    opened.press("Escape")
    assert (opened.page.input_value("#search"), len(opened.listed())) == ("", N_PROBES)
    opened.press("Escape")
    assert focused(opened) == "probes"
    opened.press("j", "Enter")
    assert (focused(opened), opened.title()) == ("probe-title", "P01")
    opened.press("Escape")
    assert focused(opened) == "probes"


def test_letters_can_be_switched_off_as_keys(opened: Opened) -> None:
    opened.page.locator("#letter-keys").uncheck()
    opened.page.focus("#probes")
    opened.press("j", "/")
    assert (opened.title(), focused(opened)) == ("P00", "probes")
    opened.press("ArrowRight")
    assert opened.title() == "P01"


def test_the_selected_probe_is_in_view_in_the_list(opened: Opened) -> None:
    for _ in range(N_PROBES + 3):
        opened.press("ArrowRight")
    assert opened.title() == f"P{N_PROBES - 1:02d}"
    assert opened.page.locator("#next").is_disabled()
    inside = """() => { const pane = document.getElementById('pane').getBoundingClientRect();
        const row = document.querySelector('[aria-selected=true]').getBoundingClientRect();
        return row.top >= pane.top - 1 && row.bottom <= pane.bottom + 2; }"""
    assert opened.page.evaluate(inside)


def test_filters_narrow_the_list(opened: Opened) -> None:
    opened.choose("#domain", "work")
    assert opened.listed() == ["P01", "P04", "P07", "P10"]
    assert "4 of 12" in opened.page.locator("#count").inner_text()
    opened.type("question 7")
    assert opened.listed() == ["P07"]
    assert opened.title() == "P07"
    opened.type("nothing says this")
    assert opened.listed() == []
    assert "No probe matches" in opened.page.locator("#probe-title").inner_text()
    assert opened.cards() == []
    opened.type("trained answers P04")
    assert opened.listed() == ["P04"]
    opened.arm("trained")
    assert opened.listed() == [], "what is not shown is not searched"
    opened.type("")
    opened.choose("#domain", "all domains")
    assert len(opened.listed()) == N_PROBES


def test_outcome_filter_and_badges(opened: Opened) -> None:
    opened.choose("#repeat", "all repeats")
    cases = {
        "truncated": TRUNCATED.probe_id, "failed": FAILED.probe_id, "missing": MISSING[0].probe_id, "unscored": "P05",
    }  # fmt: skip
    for outcome, probe in cases.items():
        opened.choose("#outcome", outcome)
        assert opened.listed() == [probe]
        assert opened.page.locator("#cards .badge", has_text=outcome).count() >= 1
    opened.choose("#outcome", "failed")
    assert any("the server hung up" in card for card in opened.cards())


@pytest.mark.parametrize("scorer", ["v2", "v3"])
@pytest.mark.parametrize("arm", ["json", "trained"])
def test_the_change_filter_finds_what_the_leaderboard_counts(
    opened: Opened, run: SmallRun, arm: str, scorer: str
) -> None:
    row = next(row for row in leaderboard(run.info, run.records, run.scores[scorer]) if row.arm == arm)
    assert row.delta
    for other in set(ARMS) - {arm, "base"}:
        opened.arm(other)
    opened.choose("#metric", scorer)
    for kind, count in (
        ("improved", row.delta.improved), ("regressed", row.delta.regressed), ("unchanged", row.delta.unchanged),
    ):  # fmt: skip
        opened.choose("#change", kind)
        assert len(opened.listed()) == count, kind


def test_arm_filter_hides_cards(opened: Opened) -> None:
    opened.arm("json")
    assert [card.split()[0] for card in opened.cards()] == ["base", "trained"]
    for arm in ("base", "trained"):
        opened.arm(arm)
    assert "No arm is chosen" in opened.page.locator("#cards").inner_text()


def test_probes_that_moved_most_are_links_to_their_answers(browser: Browser, run: SmallRun) -> None:
    written = write_comparison(run.path)
    view = Opened(browser, write_report(run.path))
    view.choose("#domain", DOMAINS[0])
    worst = next(row for row in written["contrasts"] if row["treatment"] == "json")["best"][0]["probe_id"]
    view.page.locator("#findings summary", has_text="Probes that moved most").first.click()
    view.page.locator("#findings .moved a", has_text=worst).first.click()
    # The page follows a link a moment after the click, when the browser tells it of the new address.
    view.page.wait_for_function("document.activeElement.id === 'probe-title'")
    view.settle()
    assert (view.title(), focused(view)) == (worst, "probe-title")
    assert view.complaints == []
    view.close()


def test_scores_signals_and_messages_unfold(opened: Opened) -> None:
    opened.choose("#repeat", "1")
    card = opened.page.locator("#cards .card", has=opened.page.locator("h4", has_text="json"))
    card.locator("summary", has_text="Messages sent").click()
    assert "never coercion" in card.inner_text().replace("<b>", "").replace("</b>", "")
    card.locator("summary", has_text="Scores and signals").click()
    assert "nuance" in card.inner_text()
    assert "v3" in card.inner_text()


def test_a_hostile_answer_is_shown_and_never_run(opened: Opened) -> None:
    opened.press("ArrowRight")
    assert "</script><script>window.pwned = 1" in opened.page.locator("#cards").inner_text()
    assert opened.page.evaluate("typeof window.pwned") == "undefined"
    assert opened.page.locator("#cards img, #cards script").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_both_schemes_and_widths_are_legible(browser: Browser, run: SmallRun, width: int, scheme: str) -> None:
    view = Opened(browser, write_report(run.path), width, scheme)
    assert view.page.evaluate("document.documentElement.scrollWidth") <= width
    colours = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    ground, ink = view.page.evaluate(colours)
    assert (luminance(ground) < luminance(ink)) == (scheme == "dark")
    assert contrast(ground, ink) > 7
    assert view.page.locator("#leaderboard .board").first.is_visible()
    assert all(arm in view.page.locator("#leaderboard").inner_text() for arm in ARMS)
    assert view.complaints == []
    view.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_training_curve_is_legible_in_both_schemes_and_widths(
    browser: Browser, trained_run: SmallRun, width: int, scheme: str
) -> None:
    view = Opened(browser, write_report(trained_run.path), width, scheme)
    curve = view.page.locator("#training svg.curve")
    box = curve.bounding_box()
    assert box
    assert 300 < box["width"] <= width
    assert box["height"] > 200
    texts = "nodes => nodes.map(node => [node.textContent.trim(), getComputedStyle(node).fill, " + (
        "node.getBoundingClientRect().height, node.getBoundingClientRect().left, node.getBoundingClientRect().right])"
    )
    ground = view.page.evaluate("getComputedStyle(document.body).backgroundColor")
    found = view.page.locator("#training svg text").evaluate_all(texts)
    assert {"training", "validation", "v2", "v3", "early stop at 120"} <= {text for text, *_ in found}
    for text, fill, height, left, right in found:
        assert contrast(ground, fill) > 4.5, text
        assert height >= 9, text
        assert box["x"] - 1 <= left <= right <= box["x"] + box["width"] + 1, text
    paths = view.page.locator("#training svg path")
    strokes = paths.evaluate_all("nodes => nodes.map(node => getComputedStyle(node).stroke)")
    grid_lines = view.page.evaluate("getComputedStyle(document.getElementById('h-training')).borderBottomColor")
    for stroke in {stroke for stroke in strokes if stroke.startswith("rgb(")} - {grid_lines}:
        assert contrast(ground, stroke) > 3, stroke
    assert view.page.evaluate("document.documentElement.scrollWidth") <= width
    assert (view.complaints, len(view.requests)) == ([], 1)
    view.close()


def test_a_run_without_scores_still_shows_its_answers(browser: Browser, run: SmallRun) -> None:
    shutil.rmtree(run.path / "scores")
    view = Opened(browser, write_report(run.path))
    assert len(view.cards()) == len(ARMS)
    assert view.complaints == []
    view.close()


def test_a_withheld_contrast_shows_no_change_of_its_answers(browser: Browser, run: SmallRun) -> None:
    def changes(view: Opened) -> list[int]:
        return [view.page.locator("#cards .card", has_text=arm).locator(".score small").count() for arm in ARMS]

    shown = Opened(browser, write_report(run.path))
    assert changes(shown) == [0, 1, 1]
    shown.close()
    write_comparison(run.path, refused="trained")
    view = Opened(browser, write_report(run.path))
    assert changes(view) == [0, 1, 0]
    view.arm("json")
    for kind in ("improved", "regressed", "unchanged"):
        view.choose("#change", kind)
        assert view.listed() == []
    assert view.complaints == []
    view.close()
