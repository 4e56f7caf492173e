"""Published figures: every number of the specification's tables is there, marked and sourced; the reader is strict."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lem.data.published_figures import read_published
from lem.errors import DataError, LemError, UserError

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "published"


@pytest.fixture(scope="module")
def figures():
    return read_published(FOLDER)


def lookup(figures, table, quantity="mean"):
    return {
        (f.model, f.arm, f.metric): (f.value, f.shown) for f in figures if f.table == table and f.quantity == quantity
    }


def test_every_file_is_marked_published_with_source_date_and_n():
    files = sorted(FOLDER.glob("*.json"))
    assert [file.stem for file in files] == ["multi_scale", "v2_p100", "v2_p20", "v2_trained", "variants_1b"]
    for file in files:
        table = json.loads(file.read_text())
        assert table["published"] is True
        assert "LetheanNetwork/LEM" in table["source"]
        assert table["date"].startswith("2026")
        assert table["n"] in (21, 50, 101)


def test_multi_scale_differences_stand_as_published(figures):
    found = lookup(figures, "multi_scale", "difference")
    expected = {
        "1B": ("-6%", 0.06, -0.16, 0.08),
        "4B": ("-4%", 0.04, -0.10, 0.06),
        "12B": ("-2%", 0.04, 0.16, -0.20),
        "27B": ("+0%", 0.08, 0.04, 0.00),
    }
    assert len(found) == 16
    for size, (gsm8k, *others) in expected.items():
        model = f"Gemma 3 {size}"
        assert found[model, "trained", "gsm8k"][1] == gsm8k
        assert [found[model, "trained", name][0] for name in ("safety", "nuance", "kindness")] == others
    assert found["Gemma 3 1B", "trained", "gsm8k"][0] == pytest.approx(-0.06)


def test_v2_figures_agree_with_each_other_where_two_tables_give_them(figures):
    """The change by training is the difference of two published means: three tables, one arithmetic."""
    base = lookup(figures, "v2_p20")
    means, changes = lookup(figures, "v2_trained"), lookup(figures, "v2_trained", "difference")
    assert len(means) == len(changes) == 8
    checked = 0
    for (model, arm, _), (value, _) in means.items():
        plain = base.get((model.removesuffix(" layered"), "base", "v2"))
        if plain is not None:
            assert value - plain[0] == pytest.approx(changes[model, arm, "v2"][0], abs=0.005), model
            checked += 1
    assert checked == 6  # the base of the 27B and of GPT-OSS are in no table
    assert lookup(figures, "v2_p100")["Gemma 3 1B", "trained", "v2"][1] == "21.74"
    assert len(lookup(figures, "v2_p100")) == 10
    assert (len(base), len(lookup(figures, "v2_p20", "difference"))) == (11, 4)


def test_figures_of_the_1b_variants_are_the_means_of_the_published_scores(figures, reference):
    scores = json.loads((reference / "lem-standard" / "standard_scores.json").read_text())["scores"]
    labels = {"base": "instruction_tuned", "abliterated": "abliterated", "trained": "lem_ethics",
              "trained+composure": "lem_ethics_allen"}  # fmt: skip
    found = [f for f in figures if f.table == "variants_1b"]
    assert len(found) == 20
    for figure in found:
        rows = scores[figure.benchmark][labels[figure.arm]].values()
        field = "correct" if figure.metric == "gsm8k" else figure.metric
        assert len(rows) == figure.n
        assert sum(row[field] for row in rows) / len(rows) == pytest.approx(figure.value, abs=1e-9)


def table(**changes):
    row = {"model": "m", "arm": "base", "benchmark": "b", "metric": "v2", "value": 1.5}
    whole = {
        "schema": 1, "kind": "published figures", "published": True, "table": "t", "title": "T", "source": "S",
        "date": "2026", "n": 5, "n_means": "items", "quantity": "mean", "figures": [row],
    }  # fmt: skip
    figure = changes.pop("figure", {})
    whole.update(changes)
    if isinstance(whole["figures"], list) and whole["figures"] == [row]:
        whole["figures"] = [{**row, **figure}]
    return {name: value for name, value in whole.items() if value != "drop"}


def write(folder, content, name="t"):
    (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_a_difference_in_percent_is_read_as_a_share_and_shown_with_its_sign(tmp_path):
    figure = {"value": -6, "unit": "percent", "quantity": "difference", "baseline": "base", "n": 7}
    found = read_published(write(tmp_path, table(figure=figure)))[0]
    assert (found.value, found.shown, found.baseline, found.n) == (-0.06, "-6%", "base", 7)


BAD = {
    "not JSON": ("{", "not valid JSON"),
    "not marked": (table(published=False), '"published": true'),
    "another kind": (table(kind="ours"), '"kind": "published figures"'),
    "a list": ("[]", "not a table of published figures"),
    "newer schema": (table(schema=2), "schema 2 is not 1"),
    "no source": (table(source="drop"), "field 'source' is missing"),
    "blank date": (table(date=" "), "field 'date' is empty"),
    "unknown field": (table(stars=5), "field 'stars' is unknown"),
    "no figures": (table(figures=[]), "'figures' is not a list"),
    "another table's name": (table(table="u"), "its table is named 'u'"),
    "value a text": (table(figure={"value": "1"}), "figure 1: value '1' is not a finite number"),
    "value infinite": (table(figure={"value": float("inf")}), "not a finite number"),
    "n zero": (table(n=0), "figure 1: n is 0"),
    "unknown unit": (table(figure={"unit": "points"}), "unit 'points' is unknown"),
    "unknown quantity": (table(quantity="median"), "quantity 'median' is neither"),
    "difference from nothing": (table(quantity="difference"), "needs the field 'baseline'"),
    "blank model": (table(figure={"model": ""}), "figure 1: field 'model' is empty"),
    "unknown field of a figure": (table(figure={"stderr": 1}), "figure 1: field 'stderr' is unknown"),
    "figure no object": (table(figures=[1]), "figure 1: not an object"),
    "twice": (table(figures=table()["figures"] * 2), "is given twice"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_table_is_refused_with_its_place(tmp_path, name):
    content, complaint = BAD[name]
    with pytest.raises(DataError) as caught:
        read_published(write(tmp_path, content))
    assert complaint in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_folder_is_an_error_and_an_empty_one_has_no_figures(tmp_path):
    assert read_published(tmp_path) == []
    with pytest.raises(UserError, match="no such folder"):
        read_published(tmp_path / "absent")


@settings(deadline=None, max_examples=100)
@given(
    st.dictionaries(st.sampled_from(sorted(table())), st.none() | st.integers() | st.text(max_size=3) | st.just([{}])),
    st.dictionaries(st.sampled_from(["model", "value", "n", "unit", "quantity"]), st.none() | st.floats() | st.text()),
)
def test_any_table_is_read_or_refused(tmp_path_factory, head, figure):
    folder = tmp_path_factory.mktemp("published")
    write(folder, table(figure=figure, **head))
    try:
        said = f"{folder}" if read_published(folder) else ""
    except LemError as refusal:
        said = str(refusal)
    assert str(folder) in said
