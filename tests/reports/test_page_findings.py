"""Findings on the page: verdicts and their licence, what is withheld, what was declared, and what cannot be read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from page_tools import Elements, index_of
from small_comparison import DECODING, DEVIATION, NO_PLACEBO, make_comparison, write_comparison
from small_run import SmallRun

from lem.ab.compare import compare
from lem.ab.comparison_file import to_json
from lem.errors import DataError
from lem.records import read_contents
from lem.reports import leaderboard, write_report
from lem.reports.comparison_file import read_comparison
from lem.reports.formats import TOY_NOTICE, number


def page_of(run: SmallRun, **options: Any) -> str:
    write_comparison(run.path, **options)
    return write_report(run.path).read_text(encoding="utf-8")


def section(page: str, name: str) -> str:
    return page.split(f'<section id="{name}"')[1].split("</section>")[0]


def difference(run: SmallRun, arm: str, scorer: str = "v2") -> str:
    row = next(row for row in leaderboard(run.info, run.records, run.scores[scorer]) if row.arm == arm)
    assert row.delta
    return number(row.delta.difference.value, signed=True)


def test_without_a_comparison_there_are_no_findings(run: SmallRun) -> None:
    page = write_report(run.path).read_text(encoding="utf-8")
    assert 'id="findings"' not in page
    assert "Command of the comparison" not in page


def test_every_verdict_is_told_with_its_family(run: SmallRun) -> None:
    page = page_of(run, refused=None, codes={"json": "improved", "trained": "worse"})
    text = Elements(section(page, "findings")).text
    for contrast in json.loads((run.path / "comparison.json").read_text())["contrasts"]:
        assert contrast["verdict"]["sentence"] in text
    assert text.count("primary ") >= 2
    assert text.count("exploratory ") >= 2
    assert "2 primary p-values are corrected by Holm's method, 2 exploratory" in text
    assert page.index('id="findings"') < page.index('id="leaderboard"')


def test_objections_stand_above_everything(run: SmallRun) -> None:
    text = Elements(page_of(run)).text
    head = text[: text.index("The primary contrasts were declared")]
    assert f"Withheld {DECODING}" in head
    assert f"Watermark {NO_PLACEBO}" in head
    assert TOY_NOTICE in head
    assert head.index("Withheld") < head.index("Watermark"), "refusals first"


def test_a_refused_contrast_shows_no_number(run: SmallRun) -> None:
    shown = page_of(run, refused=None)
    hidden = page_of(run, refused="trained")
    for scorer in ("v2", "v3"):
        figure = difference(run, "trained", scorer)
        for name in ("findings", "leaderboard"):
            assert re.search(rf"{re.escape(figure)}(?!\d)", Elements(section(shown, name)).text), (name, figure)
            assert not re.search(rf"{re.escape(figure)}(?!\d)", Elements(section(hidden, name)).text), (name, figure)
    assert "cannot be compared" in section(hidden, "findings")
    assert section(hidden, "leaderboard").count(">withheld<") == 2
    assert "trained" not in section(hidden, "domains").split("<h4>Means</h4>")[0].split("<tbody>")[0]
    assert "trained against base</h4>" not in hidden
    assert "trained against base</figcaption>" not in hidden


def test_figures_behind_a_verdict_are_there(run: SmallRun) -> None:
    page = page_of(run)
    text = Elements(section(page, "findings")).text
    for words in (
        "p, before correction < 0.001", "p, Holm over 2 0.040", "would have been seen with 80% power 0.90",
        "margin 1.00", "if every unscored answer were worst or best -1.50 to +2.50",
        "design effect of the domains 1.20",
        "answers of base 20 scored, 1 unscored, 0 failed, 2 missing",
    ):  # fmt: skip
        assert words in text, words
    best = next(c for c in make_comparison(run.path)["contrasts"] if c["treatment"] == "json")["best"]
    links = [attributes["href"] for tag, attributes in Elements(page).tags if tag == "a"]
    assert all(f"#probe={row['probe_id']}" in links for row in best)


def test_the_plan_and_what_departed_from_it(run: SmallRun) -> None:
    facts = Elements(section(page_of(run), "facts")).text
    assert "v2: json; v2: trained" in facts
    assert "P99" in facts
    assert "ab" * 32 in facts
    assert DEVIATION in facts
    assert "./lem compare small" in facts
    plain = Elements(section(page_of(run, declared=None), "facts")).text
    assert "No plan was made before this run." in plain


def test_a_comparison_older_than_the_run_is_called_so(run: SmallRun) -> None:
    assert "older than the run" not in Elements(page_of(run)).text
    assert "The comparison is older than the run" in Elements(page_of(run, created="2020-01-01T00:00:00+00:00")).text


def test_less_can_be_better(run: SmallRun) -> None:
    document = make_comparison(run.path, refused=None)
    for contrast in document["contrasts"]:
        contrast["lower_is_better"] = True
    (run.path / "comparison.json").write_text(json.dumps(document))
    page = write_report(run.path).read_text(encoding="utf-8")
    assert all(metric["lower"] for metric in index_of(page)["metrics"])
    row = next(row for row in leaderboard(run.info, run.records, run.scores["v2"]) if row.arm == "json")
    assert row.delta
    cells = re.findall(r'data-name="(up|down)" class="num">(\d+)<', section(page, "leaderboard").split("<tr")[2])
    assert dict(cells) == {"up": str(row.delta.regressed), "down": str(row.delta.improved)}


def test_names_in_a_comparison_are_escaped(run: SmallRun) -> None:
    document = make_comparison(run.path)
    document["objections"][0]["sentence"] = document["contrasts"][0]["verdict"]["sentence"] = "<img src=x>"
    document["contrasts"][0]["best"] = [{"probe_id": '"><u>', "domain": "<i>", "difference": 1.0}]
    (run.path / "comparison.json").write_text(json.dumps(document))
    page = write_report(run.path).read_text(encoding="utf-8")
    assert "<img" not in page
    assert "<u>" not in page


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "not readable"),
        ("[]", "not a comparison"),
        ('{"kind": "plan"}', "not a comparison"),
        ('{"kind": "comparison", "schema": 2}', r"schema 2 is newer than this version reads \(1\)"),
        ('{"kind": "comparison", "schema": 1, "contrasts": [{}]}', "not readable"),
    ],
)
def test_a_file_that_is_no_comparison_is_a_sentence(run: SmallRun, content: str, sentence: str) -> None:
    (run.path / "comparison.json").write_text(content)
    with pytest.raises(DataError, match=sentence):
        write_report(run.path)
    assert not (run.path / "report.html").exists()


def test_a_run_without_the_file_has_no_comparison(tmp_path: Path) -> None:
    assert read_comparison(tmp_path) is None


def test_what_was_declared_late_is_not_called_a_plan(run: SmallRun) -> None:
    document = make_comparison(run.path)
    late = {"code": "declared-late", "severity": "watermark", "sentence": "declared late.", "arms": []}
    document["objections"].append(late)
    (run.path / "comparison.json").write_text(json.dumps({**document, "deviations": []}))
    text = Elements(write_report(run.path).read_text(encoding="utf-8")).text
    assert "The primary contrasts were declared after the run." in text
    assert "declared before the run" not in text
    assert "Nothing departed from the plan" not in text


def test_the_file_that_compare_writes_is_drawn(run: SmallRun) -> None:
    comparison = compare(read_contents(run.path))
    document = to_json(comparison, [{"name": "small", "path": "small"}], ["./lem", "compare", "small"])
    (run.path / "comparison.json").write_text(json.dumps(document))
    page = write_report(run.path).read_text(encoding="utf-8")
    text = Elements(section(page, "findings")).text
    assert len(comparison.contrasts) == 4
    for found, verdict in zip(comparison.contrasts, comparison.verdicts, strict=True):
        assert verdict.sentence in text
        assert f"difference, headline interval {number(found.difference.value, signed=True)}" in text
    assert all(" ".join(o.sentence.split())[1:] in Elements(page).text for o in comparison.objections)
