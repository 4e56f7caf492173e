"""Can everyone use the page: names, contrast, headings, tables, focus, and no text cut, at two widths and schemes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from browser_page import Opened, contrast
from small_comparison import write_comparison
from small_run import SmallRun

from lem.reports import write_report
from lem.scorers.highlight import highlights

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

# What a reader's software says of a control: its label, aria-label, title or text.
NAMES = """nodes => nodes.map(node => [node.outerHTML.slice(0, 90),
    node.getAttribute('aria-label') || [...(node.labels || [])].map(label => label.innerText).join(' ')
    || document.getElementById(node.getAttribute('aria-labelledby'))?.innerText || node.innerText || ''])"""
# Every piece of text with its colour, on the nearest grounds behind it laid over each other.
COLOURS = """() => {
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    canvas.canvas.width = canvas.canvas.height = 1;
    const paint = colours => {
        canvas.clearRect(0, 0, 1, 1);
        for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
        return 'rgb(' + [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).join(', ') + ')';
    };
    const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const node = walker.currentNode.parentElement, style = getComputedStyle(node);
        const text = walker.currentNode.data.trim();
        if (!text || !node.checkVisibility() || node.closest('.skip, .hidden, script, style, :disabled')) continue;
        const grounds = [];
        for (let up = node; up; up = up.parentElement) grounds.unshift(getComputedStyle(up).backgroundColor);
        const ground = paint(grounds), svg = node.closest('svg');
        found.push([text.slice(0, 40), ground, paint([ground, svg ? style.fill : style.color])]);
    }
    return found;
}"""
UNHIDE = "document.querySelectorAll('details').forEach(node => { node.open = true; })"


@pytest.fixture(params=[(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")], ids=str)
def opened(browser: Browser, trained_run: SmallRun, request: pytest.FixtureRequest) -> Iterator[Opened]:
    write_comparison(trained_run.path, codes={"json": "improved"})
    view = Opened(browser, write_report(trained_run.path, highlights=highlights()), *request.param)
    view.page.evaluate(UNHIDE)
    yield view
    assert view.complaints == []
    view.close()


def attributes(opened: Opened, selector: str, script: str) -> list[Any]:
    found = opened.page.locator(selector).evaluate_all(f"nodes => nodes.map(node => {script})")
    assert isinstance(found, list)
    return found


def test_all_text_has_contrast(opened: Opened) -> None:
    found = opened.page.evaluate(COLOURS)
    assert len(found) > 300
    poor = {(text, ground, ink) for text, ground, ink in found if contrast(ground, ink) < 4.5}
    assert not poor


def test_every_control_has_a_name(opened: Opened) -> None:
    selector = "a, button, input, select, summary, [tabindex='0'], [role=listbox], [role=region], svg, nav, article"
    named = opened.page.locator(selector).evaluate_all(NAMES)
    assert len(named) > 40
    assert not [control for control, name in named if not name.strip()]


def test_headings_go_down_one_level_at_a_time(opened: Opened) -> None:
    levels = [int(tag[1]) for tag in attributes(opened, "h1, h2, h3, h4, h5, h6", "node.tagName")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_tables_have_headers_and_ids_are_unique(opened: Opened) -> None:
    rows = attributes(opened, "main table", "node.querySelectorAll('tbody tr').length")
    assert len(rows) >= 6
    assert attributes(opened, "main table", "node.querySelectorAll('tbody th[scope=row]').length") == rows
    assert all(scope == "col" for scope in attributes(opened, "thead th", "node.getAttribute('scope')"))
    ids = attributes(opened, "[id]", "node.id")
    assert len(ids) == len(set(ids))
    references = attributes(opened, "[aria-labelledby]", "node.getAttribute('aria-labelledby')")
    assert set(references) <= set(ids)


def test_tab_reaches_every_control_in_order_and_shows_where_it_is(opened: Opened) -> None:
    page = opened.page
    reachable = """[...document.querySelectorAll('a, button, input, select, summary, [tabindex="0"]')]
        .filter(node => node.checkVisibility() && !node.disabled)"""
    n_reachable = page.evaluate(f"({reachable}).length")
    page.evaluate("document.body.focus()")
    places = []
    for _ in range(n_reachable):
        page.keyboard.press("Tab")
        place, drawn = page.evaluate(
            f"""() => {{ const node = document.activeElement, shown = node.id === 'probes' ? node.parentElement : node;
            return [({reachable}).indexOf(node), getComputedStyle(shown).outlineStyle]; }}"""
        )
        assert drawn in ("solid", "auto"), place
        places.append(place)
    assert places == list(range(n_reachable))


def test_nothing_is_wider_than_the_page(opened: Opened) -> None:
    width = opened.page.viewport_size["width"]  # type: ignore[index]
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    wide = """nodes => nodes.filter(node => node.checkVisibility()
        && !node.closest('.scroll, .hidden, .skip, #probes, pre')
        && node.scrollWidth > node.clientWidth + 1 && getComputedStyle(node).display !== 'inline')
        .map(node => node.outerHTML.slice(0, 80))"""
    assert opened.page.locator("main *:not(svg, svg *)").evaluate_all(wide) == []


def test_what_scrolls_can_be_reached_by_key(opened: Opened) -> None:
    opened.page.evaluate(UNHIDE)
    scrolling = """nodes => nodes.filter(node => /auto|scroll/.test(getComputedStyle(node).overflow))
        .map(node => node.tabIndex === 0 || node.querySelector('[tabindex="0"]') !== null)"""
    found = opened.page.locator("main *").evaluate_all(scrolling)
    assert len(found) > 5
    assert all(found)


def test_buttons_are_large_enough_to_hit(opened: Opened) -> None:
    sizes = attributes(opened, "button, select, input[type=search]", "node.getBoundingClientRect().height")
    assert min(sizes) >= 24
