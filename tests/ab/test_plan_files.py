"""Plan files and price tables: written once, read strictly, every damage named in a sentence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from lem.ab.plan_file import plan_sha, read_plan, write_plan
from lem.ab.prices import cost_entry, judge_cost
from lem.data.prices import Price, read_prices
from lem.errors import DataError, UserError


def plan(**changes: Any) -> dict[str, Any]:
    made = {
        "schema": 1, "kind": "plan", "created": "2026-01-05T11:00:00.000+00:00", "command": ["lem", "plan"],
        "arms": [{"name": "base", "model_sha": "a"}, {"name": "json", "model_sha": "a", "kernel_sha": "k"}],
        "baseline": "base", "primary": [["v2", "json"]], "margins": {"v2": 1.0},
        "exclusions": [{"probe_id": "P01", "reason": "seen in training"}], "n_probes": 2,
        "probes": [{"id": "P00", "domain": "d", "sha": "0" * 16}, {"id": "P01", "domain": "d", "sha": "1" * 16}],
        "probe_file": "seeds/x.json", "probe_sha": "f" * 64, "repeats": 2,
        "settings": {"max_tokens": 4, "temperature": 0.7, "top_p": 0.95, "seed": 42},
        "expected": {"requests": 8, "memory": {"free_bytes": 1}}, "mde": {}, "cost": {}, "notes": [],
    }  # fmt: skip
    return {**made, **changes}


def test_the_hash_is_that_of_the_canonical_json(tmp_path: Path) -> None:
    stored = write_plan(tmp_path / "plan.json", plan())
    canonical = json.dumps(plan(), sort_keys=True, separators=(",", ":")).encode()
    assert stored["sha"] == hashlib.sha256(canonical).hexdigest()
    assert read_plan(tmp_path / "plan.json") == stored == {**plan(), "sha": stored["sha"]}
    assert plan_sha(dict(reversed(plan().items()))) == stored["sha"]


def test_the_same_plan_again_leaves_the_first(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    first = write_plan(file, plan())
    before = file.read_bytes()
    later = plan(created="2026-02-01T00:00:00.000+00:00", command=["x"])
    later["expected"] = {"requests": 8, "memory": {"free_bytes": 2}}
    assert write_plan(file, later) == first
    assert file.read_bytes() == before


@pytest.mark.parametrize("changes", [{"primary": [["v3", "json"]]}, {"margins": {}}, {"repeats": 5}])
def test_another_plan_never_replaces_it(tmp_path: Path, changes: dict[str, Any]) -> None:
    file = tmp_path / "plan.json"
    write_plan(file, plan())
    before = file.read_bytes()
    with pytest.raises(UserError, match=r"holds another plan .* a plan is never replaced"):
        write_plan(file, plan(**changes))
    assert file.read_bytes() == before


@pytest.mark.parametrize("content", ["", "[]", "hello", '{"kind": "plan"}', '{"schema": 9, "kind": "plan"}'])
def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path, content: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(content)
    with pytest.raises(UserError, match="choose another --output, nothing was touched"):
        write_plan(file, plan())
    assert file.read_text() == content


def test_a_changed_plan_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    write_plan(file, plan())
    file.write_text(file.read_text().replace('"v2"', '"v3"', 1))
    with pytest.raises(DataError, match="changed after it was written"):
        read_plan(file)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"schema": 2}, "schema 2 is newer"),
        ({"schema": "1"}, "field 'schema'"),
        ({"kind": "comparison"}, "not a plan"),
        ({"repeats": "2"}, "field 'repeats' must be a whole number"),
        ({"repeats": True}, "field 'repeats'"),
        ({"primary": [["v2"]]}, "field 'primary' has an entry"),
        ({"margins": {"v2": -1}}, "field 'margins' has an entry"),
        ({"exclusions": [{"probe_id": "P01"}]}, "field 'exclusions' has an entry"),
        ({"arms": ["base"]}, "field 'arms' has an entry"),
        ({"probes": None}, "field 'probes' must be a list"),
    ],
)
def test_a_malformed_plan_is_named(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    file = tmp_path / "plan.json"
    whole = plan(**changes)
    file.write_text(json.dumps({**whole, "sha": plan_sha(whole)}))
    with pytest.raises(DataError, match=sentence):
        read_plan(file)


def test_a_plan_with_nan_or_of_bytes_is_no_plan(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({**plan(), "mde": {"x": float("nan")}}))
    with pytest.raises(DataError, match="holds NaN, which is no number"):
        read_plan(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not readable as a plan"):
        read_plan(file)
    with pytest.raises(DataError, match="no such plan"):
        read_plan(tmp_path / "none.json")
    with pytest.raises(DataError, match="is a folder"):
        read_plan(tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_plan(tmp_path / "new.json", plan(mde={"x": float("nan")}))
    assert not (tmp_path / "new.json").exists()


GOOD = "{input: 2, output: 10.5, currency: USD, date: 2026-11-01}"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.yaml", f"j1: {GOOD}\n"),
        ("p.json", '{"j1": {"input": 2, "output": 10.5, "currency": "USD", "date": "2026-11-01"}}'),
    ],
)
def test_a_price_table(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    assert read_prices(file) == {"j1": Price(2.0, 10.5, "USD", "2026-11-01")}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is a mapping"),
        ("- 1", "is a mapping"),
        ("j1: [", "not valid YAML"),
        (f"j1: {GOOD}\nj1: {GOOD}\n", "'j1' is written twice"),
        ("j1: {input: 2}", "needs exactly the keys input, output, currency, date"),
        ("j1: " + GOOD.replace("2,", ".nan,", 1), "input: must be a price"),
        ("j1: " + GOOD.replace("2,", "-1,", 1), "input: must be a price"),
        ("j1: " + GOOD.replace("10.5", "cheap"), "output: must be a price"),
        ("j1: " + GOOD.replace("10.5", "true"), "output: must be a price"),
        ("j1: " + GOOD.replace("USD", "''"), "currency: must be a name"),
        ("j1: " + GOOD.replace("2026-11-01", "soon"), "date: must be a day"),
    ],
)
def test_a_malformed_price_table_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    with pytest.raises(DataError, match=sentence):
        read_prices(file)


def test_malformed_json_prices_and_a_missing_file(tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text('{"j1": 1, "j1": 2}')
    with pytest.raises(DataError, match="written twice"):
        read_prices(file)
    file.write_text("{")
    with pytest.raises(DataError, match="line 1: not valid JSON"):
        read_prices(file)
    file.write_bytes(b"\xff")
    with pytest.raises(DataError, match="not UTF-8"):
        read_prices(file)
    with pytest.raises(UserError, match="no such price table"):
        read_prices(tmp_path / "none.yaml")


def test_the_cost_of_a_judge_and_what_is_not_known() -> None:
    prices = {"j1": Price(2.0, 10.0, "USD", "2026-11-01"), "free": Price(0.0, 0.0, "EUR", "2026-11-01")}
    known = judge_cost("j1", 1000, 3, (600.0, 80.0), 200.0, prices)
    assert (known.calls, known.input_tokens, known.output_tokens) == (3000, 2_400_000, 240_000)
    assert known.cost == pytest.approx(2.4 * 2 + 0.24 * 10)
    free = judge_cost("free", 1000, 1, (600.0, 80.0), 200.0, prices)
    entry = cost_entry([known, free], priced=True, tokens_known=True, answers_known=True)
    assert entry["total"] == {"USD": pytest.approx(7.2), "EUR": 0.0}
    stranger = judge_cost("j2", 1000, 1, (600.0, 80.0), 200.0, prices)
    assert stranger.cost is None
    entry = cost_entry([known, stranger], priced=True, tokens_known=True, answers_known=True)
    assert entry["total"] is None
    assert entry["unknown"] == ["the price table has no judge 'j2'"]
    assert judge_cost("j1", 1000, 3, None, 200.0, prices).cost is None
    assert judge_cost("j1", 1000, 3, (600.0, 80.0), None, prices).cost is None
    unknown = cost_entry([known], priced=False, tokens_known=False, answers_known=False)["unknown"]
    assert len(unknown) == 3
