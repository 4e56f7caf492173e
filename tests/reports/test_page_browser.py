"""The page in a real browser, opened from disk: no errors, filters, keyboard, both colour schemes, two widths."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from small_run import ARMS, FAILED, HOSTILE, HOSTILE_TEXT, MISSING, N_PROBES, TRUNCATED, SmallRun, keys, response_of

from lem.reports import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    api = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
    with api.sync_playwright() as playwright:
        installed = [shutil.which(name) for name in CHROMIUM_NAMES] + [playwright.chromium.executable_path]
        chromium = next((path for path in installed if path and Path(path).is_file()), None)
        if chromium is None:
            pytest.skip("needs the system package chromium")
        # Not the BLAS that ./lem preloads: Chromium ends at its first page with a foreign library in it.
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        found = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS, env=environment)
        yield found
        found.close()


class Opened:
    """A page with everything it complained about or asked the network for."""

    def __init__(self, browser: Browser, file: Path, width: int = 1280, scheme: str = "light") -> None:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())

    def cards(self) -> list[str]:
        return self.page.locator("#cards .card").all_inner_texts()

    def listed(self) -> list[str]:
        return self.page.locator("#probes [role=option] b").all_inner_texts()

    def title(self) -> str:
        return self.page.locator("#probe-title").inner_text().split()[0]


@pytest.fixture
def opened(browser: Browser, run: SmallRun) -> Iterator[Opened]:
    view = Opened(browser, write_report(run.path))
    yield view
    assert view.complaints == []
    assert len(view.requests) == 1
    view.page.context.close()


def test_every_answer_of_every_arm_can_be_seen(opened: Opened) -> None:
    opened.page.select_option("#repeat", "")
    for item in opened.page.locator("#probes [role=option]").all():
        item.click()
        cards, probe = opened.cards(), opened.title()
        expected = [key for key in keys() if key.probe_id == probe]
        assert len(cards) == len(expected)
        shown = opened.page.locator("#cards .card > .text").all_text_contents()
        for key in expected:
            if key == HOSTILE:  # a lone surrogate reaches Python as a replacement character
                assert any(text.startswith(HOSTILE_TEXT[:60]) for text in shown)
            elif key not in (FAILED, *MISSING):
                assert response_of(key) in shown


def test_arrow_keys_and_buttons_step_through_probes(opened: Opened) -> None:
    page = opened.page
    assert opened.title() == "P00"
    assert page.locator("#previous").is_disabled()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert opened.title() == "P02"
    page.keyboard.press("ArrowLeft")
    assert opened.title() == "P01"
    page.click("#next")
    assert opened.title() == "P02"
    page.focus("#probes")
    page.keyboard.press("ArrowDown")
    assert opened.title() == "P03"
    assert page.locator("#probes [aria-selected=true] b").inner_text() == "P03"
    page.focus("#search")
    page.keyboard.press("ArrowRight")
    assert opened.title() == "P03"


def test_the_selected_probe_is_in_view_in_the_list(opened: Opened) -> None:
    for _ in range(N_PROBES + 3):
        opened.page.keyboard.press("ArrowRight")
    assert opened.title() == f"P{N_PROBES - 1:02d}"
    assert opened.page.locator("#next").is_disabled()
    inside = "() => { const l = document.getElementById('probes'), s = l.querySelector('[aria-selected=true]');"
    inside += "return s.offsetTop >= l.scrollTop && s.offsetTop + s.offsetHeight <= l.scrollTop + l.clientHeight + 1; }"
    assert opened.page.evaluate(inside)


def test_filters_narrow_the_list(opened: Opened) -> None:
    page = opened.page
    page.select_option("#domain", "work")
    assert opened.listed() == ["P01", "P04", "P07", "P10"]
    assert "4 of 12" in page.locator("#count").inner_text()
    page.fill("#search", "question 7")
    assert opened.listed() == ["P07"]
    assert opened.title() == "P07"
    page.fill("#search", "nothing says this")
    assert opened.listed() == []
    assert "No probe matches" in page.locator("#probe-title").inner_text()
    assert opened.cards() == []
    page.fill("#search", "trained answers P04")
    assert opened.listed() == ["P04"]
    page.fill("#search", "")
    page.select_option("#domain", "")
    assert len(opened.listed()) == N_PROBES


def test_outcome_filter_and_badges(opened: Opened) -> None:
    page = opened.page
    page.select_option("#repeat", "")
    cases = {
        "truncated": TRUNCATED.probe_id, "failed": FAILED.probe_id, "missing": MISSING[0].probe_id, "unscored": "P05",
    }  # fmt: skip
    for outcome, probe in cases.items():
        page.select_option("#outcome", outcome)
        assert opened.listed() == [probe]
        assert page.locator("#cards .badge", has_text=outcome).count() >= 1
    page.select_option("#outcome", "failed")
    assert any("the server hung up" in card for card in opened.cards())


def test_arm_filter_hides_cards(opened: Opened) -> None:
    opened.page.locator("#arms label", has_text="json").locator("input").uncheck()
    assert [card.split()[0] for card in opened.cards()] == ["base", "trained"]
    for arm in ("base", "trained"):
        opened.page.locator("#arms label", has_text=arm).locator("input").uncheck()
    assert "No arm is chosen" in opened.page.locator("#cards").inner_text()


def test_scores_signals_and_messages_unfold(opened: Opened) -> None:
    card = opened.page.locator("#cards .card", has=opened.page.locator("h4", has_text="json"))
    card.locator("summary", has_text="Messages sent").click()
    assert "never coercion" in card.inner_text().replace("<b>", "").replace("</b>", "")
    card.locator("summary", has_text="Scores and signals").click()
    assert "nuance" in card.inner_text()
    assert "v3" in card.inner_text()


def test_a_hostile_answer_is_shown_and_never_run(opened: Opened) -> None:
    opened.page.keyboard.press("ArrowRight")
    assert "</script><script>window.pwned = 1" in opened.page.locator("#cards").inner_text()
    assert opened.page.evaluate("typeof window.pwned") == "undefined"
    assert opened.page.locator("#cards img, #cards script").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_both_schemes_and_widths_are_legible(browser: Browser, run: SmallRun, width: int, scheme: str) -> None:
    view = Opened(browser, write_report(run.path), width, scheme)
    assert view.page.evaluate("document.documentElement.scrollWidth") <= width
    colours = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    ground, ink = (_luminance(colour) for colour in view.page.evaluate(colours))
    assert (ground < ink) == (scheme == "dark")
    assert (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) > 7
    assert view.page.locator("#leaderboard .board").first.is_visible()
    assert all(arm in view.page.locator("#leaderboard").inner_text() for arm in ARMS)
    assert view.complaints == []
    view.page.context.close()


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
    ground = _luminance(view.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    found = view.page.locator("#training svg text").evaluate_all(texts)
    assert {"training", "validation", "v2", "v3", "early stop at 120"} <= {text for text, *_ in found}
    for text, fill, height, left, right in found:
        light, dark = sorted((ground, _luminance(fill)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 4.5, text
        assert height >= 9, text
        assert box["x"] - 1 <= left <= right <= box["x"] + box["width"] + 1, text
    paths = view.page.locator("#training svg path")
    strokes = paths.evaluate_all("nodes => nodes.map(node => getComputedStyle(node).stroke)")
    grid_lines = view.page.evaluate("getComputedStyle(document.getElementById('h-training')).borderBottomColor")
    for stroke in {stroke for stroke in strokes if stroke.startswith("rgb(")} - {grid_lines}:
        light, dark = sorted((ground, _luminance(stroke)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 3, stroke
    assert view.page.evaluate("document.documentElement.scrollWidth") <= width
    assert (view.complaints, len(view.requests)) == ([], 1)
    view.page.context.close()


def test_a_run_without_scores_still_shows_its_answers(browser: Browser, run: SmallRun) -> None:
    shutil.rmtree(run.path / "scores")
    view = Opened(browser, write_report(run.path))
    assert len(view.cards()) == len(ARMS)
    assert view.complaints == []
    view.page.context.close()


def _luminance(colour: str) -> float:
    """WCAG relative luminance of an `rgb(r, g, b)` string."""
    channels = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
