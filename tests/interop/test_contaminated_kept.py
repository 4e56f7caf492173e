"""An export says which items an adapter was trained on, and what is read back or joined says it too."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from lem.ab.join import join_runs
from lem.errors import DataError
from lem.interop.detect import read_answers_file
from lem.interop.harness_write import write_harness
from lem.interop.parquet import write_parquet
from lem.records import RunContents
from lem.records.contaminated import contaminated_items, joined_contaminated
from lem.records.metrics import metrics_of
from lem.records.run import RunInfo, read_manifest
from lem.reports.watermarks import metric_watermarks
from made_runs import made_run

MET = {"P001": ["adapters/a"], "P002": ["adapters/a", "adapters/b"]}


def contaminated(name: str = "made", met: dict[str, list[str]] = MET) -> RunContents:
    contents = made_run({"base": [1, 2, 3], "trained": [2, 3, 5]}, name=name)
    return replace(contents, info=replace(contents.info, data={"contaminated": met}))


def as_logs(contents: RunContents, folder: Path) -> list[Path]:
    pytest.importorskip("inspect_ai")
    from lem.interop.inspect_write import write_inspect

    return write_inspect(contents, folder)


Export = Callable[[RunContents, Path], list[Path]]
EXPORTS = pytest.mark.parametrize("export", [as_logs, write_harness], ids=["inspect", "lm"])


def words(contents: RunContents) -> set[str]:
    return {mark.word for metric in metrics_of(contents) for mark in metric_watermarks(contents, metric)}


@EXPORTS
def test_read_back_an_export_is_as_contaminated_as_the_run(tmp_path: Path, export: Export) -> None:
    contents = contaminated()
    paths = export(contents, tmp_path / "out")
    back = join_runs([(path.name, read_answers_file(path).contents) for path in paths])
    assert contaminated_items(back.info.data) == MET
    assert words(contents) == words(back) == {"CONTAMINATED"}


@EXPORTS
def test_an_export_of_a_clean_run_says_nothing(tmp_path: Path, export: Export) -> None:
    for path in export(made_run({"base": [1, 2], "trained": [2, 3]}), tmp_path / "out"):
        assert "contaminated" not in read_answers_file(path).contents.info.data


def test_a_damaged_list_is_an_error_and_never_a_clean_run(tmp_path: Path) -> None:
    (path, *_) = write_harness(contaminated(), tmp_path / "out")
    (results,) = path.rglob("results_*.json") if path.is_dir() else path.parent.glob("results_*.json")
    kept = json.loads(results.read_text())
    assert kept["lem"]["contaminated"] == MET
    kept["lem"]["contaminated"] = ["P001"]
    results.write_text(json.dumps(kept))
    with pytest.raises(DataError, match="its field 'contaminated' does not say which items"):
        read_answers_file(path)


def test_joined_runs_are_contaminated_where_one_of_them_is() -> None:
    clean = made_run({"base": [1, 2, 3]}, name="clean")
    runs = [("clean", clean), ("one", contaminated("one")), ("two", contaminated("two", {"P001": ["adapters/c"]}))]
    joined = join_runs(runs)
    assert contaminated_items(joined.info.data) == {**MET, "P001": ["adapters/a", "adapters/c"]}
    assert MET["P001"] == ["adapters/a"], "what was given is as it was"
    assert words(joined) == {"CONTAMINATED"}
    assert joined_contaminated([{}, clean.info.data]) == {}


def test_tables_name_the_adapters_beside_the_item_and_the_card_warns(tmp_path: Path) -> None:
    write_parquet(contaminated(), tmp_path / "out")
    table = pd.read_parquet(tmp_path / "out" / "generations.parquet")
    found = {row.probe_id: row.contaminated for row in table.itertuples()}
    assert found["P000"] is None
    assert {probe: list(found[probe]) for probe in MET} == MET
    card = (tmp_path / "out" / "README.md").read_text()
    assert "**CONTAMINATED: weights of this run were trained on 2 of its items; see `contaminated`.**" in card
    assert "| | `contaminated` | the adapters and models whose" in card
    write_parquet(made_run({"base": [1, 2]}), tmp_path / "clean")
    assert "contaminated" not in (tmp_path / "clean" / "README.md").read_text().lower()
    assert "contaminated" not in pd.read_parquet(tmp_path / "clean" / "generations.parquet").columns


@pytest.mark.parametrize("damaged", [["P001"], {"P001": "adapters/a"}, {"P001": []}, {"P001": [1]}])
def test_a_manifest_with_a_damaged_list_is_refused(tmp_path: Path, damaged: object) -> None:
    info = RunInfo("r", "eval", data={"contaminated": damaged})
    (tmp_path / "run.json").write_text(json.dumps(info.__dict__))
    with pytest.raises(DataError, match="the field 'contaminated' does not list adapters by item"):
        read_manifest(tmp_path)
