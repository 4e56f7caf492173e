"""Size and paging: a full run fits one file under 5 MB, a larger one lies in files beside its page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser_page import Opened
from large_run import write_large_run
from page_tools import answers_of, index_of, unpack

from lem.errors import UserError
from lem.records import read_run
from lem.reports import parts, write_report
from lem.scorers.highlight import highlights

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ARMS = ("base", "json", "txt", "placebo-json", "placebo-txt", "trained", "trained+json")


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that make a run of a few hundred answers a large one."""
    monkeypatch.setattr(parts, "MOST_EMBEDDED_BYTES", 1000)
    monkeypatch.setattr(parts, "EMBEDDED_PART_CHARACTERS", 20_000)
    monkeypatch.setattr(parts, "MOST_EMBEDDED_CHARACTERS", 100_000)
    monkeypatch.setattr(parts, "PAGED_PART_CHARACTERS", 20_000)


@pytest.fixture
def paged(tmp_path: Path, small_parts: None) -> Path:
    write_large_run(tmp_path / "paged", 300, ("base", "json"), 1, 300)
    return tmp_path / "paged"


def test_a_full_run_is_one_file_below_5_mb(tmp_path: Path) -> None:
    """101 probes x 7 arms x 5 repeats of 1.4 kB, in words as compressible as answers are."""
    write_large_run(tmp_path / "full", 101, ARMS, 5)
    page = write_report(tmp_path / "full", highlights=highlights())
    assert sum(len(record.response or "") for record in read_run(tmp_path / "full")[1]) > 4_500_000
    assert page.stat().st_size < 5_000_000
    assert not parts.data_folder(page).exists()
    index = index_of(page.read_text(encoding="utf-8"))
    assert len(index["starts"]) > 5, "a row is opened without unpacking everything"


def parts_beside(page: Path) -> list[dict[str, object]]:
    found = []
    for file in sorted(parts.data_folder(page).iterdir()):
        match = re.fullmatch(
            r'/\* LEM report data \*/\nlemReportPart\("([0-9a-f]{16})",(\d+),"([\w+/=]+)"\);\n', file.read_text()
        )
        assert match
        assert file.name == f"{int(match[2]) + 1:04d}.js"
        assert match[1] == index_of(page.read_text(encoding="utf-8"))["id"]
        found.append(unpack(match[3]))
    return found


def test_a_large_run_lies_in_files_beside_its_page(paged: Path) -> None:
    page = write_report(paged)
    html = page.read_text(encoding="utf-8")
    index, found = index_of(html), parts_beside(page)
    assert index["folder"] == "report-data"
    assert len(found) == len(index["starts"]) > 5
    answers = answers_of(index, found)  # type: ignore[arg-type]
    for record in read_run(paged)[1]:
        assert answers[record.key]["t"] == record.response
        assert str(record.response)[:40] not in html
    assert "'strict-dynamic'" in html
    assert "in the folder report-data beside this page" in html


def test_a_run_that_only_packs_too_large_is_paged_too(paged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST_EMBEDDED_CHARACTERS", 10**9)
    assert len(parts_beside(write_report(paged))) > 5


def test_files_of_an_earlier_report_are_taken_away(paged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = write_report(paged)
    n_before = len(parts_beside(page))
    monkeypatch.setattr(parts, "PAGED_PART_CHARACTERS", 60_000)
    write_report(paged)
    assert len(parts_beside(page)) < n_before
    monkeypatch.setattr(parts, "MOST_EMBEDDED_BYTES", 10**9)
    monkeypatch.setattr(parts, "MOST_EMBEDDED_CHARACTERS", 10**9)
    write_report(paged)
    assert not parts.data_folder(page).exists()


def test_what_we_did_not_make_is_never_touched(paged: Path, tmp_path: Path) -> None:
    folder = paged / "report-data"
    folder.mkdir()
    (folder / "0001.js").write_text("console.log('mine')")
    with pytest.raises(UserError, match=r"0001\.js was not made by a report"):
        write_report(paged)
    assert (folder / "0001.js").read_text() == "console.log('mine')"
    assert not (paged / "report.html").exists()
    (tmp_path / "page-data").write_text("a file")
    with pytest.raises(UserError, match="page-data is in the way"):
        write_report(paged, tmp_path / "page.html")
    mine = tmp_path / "letter.html"
    mine.write_text("<p>Dear</p>")
    with pytest.raises(UserError, match="is no report of ours"):
        write_report(paged, mine)
    assert mine.read_text() == "<p>Dear</p>"


@pytest.fixture
def opened(browser: Browser, paged: Path) -> Iterator[Opened]:
    view = Opened(browser, write_report(paged, paged / "my page.html"))
    yield view
    assert view.complaints == []
    view.close()


@pytest.mark.browser
def test_a_paged_report_opens_scrolls_and_searches(opened: Opened, paged: Path) -> None:
    records = {record.key: record for record in read_run(paged)[1]}
    assert len(opened.requests) == 2, "the page, and the file of the first row"
    assert opened.page.locator("#count").inner_text() == "300 probes"
    assert 10 < len(opened.listed()) < 40, "rows out of sight do not exist"
    opened.page.evaluate("document.getElementById('pane').scrollTop = 1e9")
    opened.page.locator("#probes b", has_text="P00299").click()
    opened.settle()
    shown = opened.page.locator("#cards .card > .text").all_text_contents()
    assert shown == [records["base", "P00299", 0].response, records["json", "P00299", 0].response]
    row = opened.page.locator("#probes [aria-selected=true]")
    assert (row.get_attribute("aria-posinset"), row.get_attribute("aria-setsize")) == ("300", "300")
    words = str(records["json", "P00150", 0].response)[20:60]
    opened.type(words)
    assert opened.listed() == ["P00150"]
    assert all("my%20page-data/" in url for url in opened.requests[1:])
    assert opened.page.locator("head script").count() == 0


@pytest.mark.browser
def test_files_that_are_gone_or_of_another_report_are_told(browser: Browser, paged: Path) -> None:
    page = write_report(paged)
    first = paged / "report-data" / "0001.js"
    first.write_text(first.read_text().replace(index_of(page.read_text(encoding="utf-8"))["id"], "0" * 16))
    view = Opened(browser, page)
    assert "belong to another report" in view.page.locator("#cards").inner_text()
    view.close()
    for file in (paged / "report-data").iterdir():
        file.unlink()
    view = Opened(browser, page)
    assert "The folder report-data with the texts is not beside this page." in view.page.locator("#cards").inner_text()
    view.close()
