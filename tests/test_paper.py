"""The paper: rendered byte for byte, no number by hand, its data recomputed by other means, its claims true in them."""

import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lem.data.published_figures import read_published
from lem.errors import DataError, UserError
from lem.interop import read_answers_file
from lem.studies.paper import build, render
from lem.studies.paper_data import as_text, rounded, simulation
from lem.studies.paper_demo import demonstration
from lem.studies.paper_extraction import extraction
from lem.studies.paper_reanalysis import reanalyse

ROOT = Path(__file__).resolve().parents[1]
PAPER = ROOT / "paper"
DATA = {path.stem: json.loads(path.read_text()) for path in (PAPER / "data").glob("*.json")}
CONTRASTS = DATA["reanalysis"]["contrasts"]
SUMS = DATA["gsm8k_extraction"]
NUMBER_WORDS = {
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
    *("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred", "thousand", "million"),
}


def contrast(metric: str, treatment: str) -> dict[str, Any]:
    [found] = [c for c in CONTRASTS if (c["metric"], c["treatment"]) == (metric, treatment)]
    return found


def column(name: str, rows: list[dict[str, Any]] | None = None) -> list[float]:
    return [row[name] for row in rows or CONTRASTS]


def test_committed_paper_is_what_its_data_give() -> None:
    assert render(ROOT) == (PAPER / "PAPER.md").read_text(encoding="utf-8")


def test_build_without_options_writes_the_same_bytes_elsewhere(tmp_path: Path) -> None:
    shutil.copytree(PAPER, tmp_path / "paper")
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks")
    (tmp_path / "paper" / "PAPER.md").write_text("old")
    assert build(tmp_path, None, None, None) == [tmp_path / "paper" / "PAPER.md"]
    assert (tmp_path / "paper" / "PAPER.md").read_bytes() == (PAPER / "PAPER.md").read_bytes()
    (tmp_path / "paper" / "data" / "demo.json").unlink()
    with pytest.raises(DataError, match="missing"):
        render(tmp_path)


def test_no_number_is_typed_into_the_template() -> None:
    """Left are the numbers of sections and years; what stands in an expression is code, and v2 or GSM8K are names."""
    text = (PAPER / "PAPER.md.j2").read_text(encoding="utf-8")
    text = re.sub(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", " ", text, flags=re.DOTALL)
    text = re.sub(r"(?m)^#+ \d+ |\bsections? \d+|\b(19|20)\d\d\b", " ", text)
    assert re.findall(r"(?<![A-Za-z0-9])[-+]?\d[\d.,]*%?(?![A-Za-z])", text) == []
    assert [word for word in re.findall(r"[a-z]+", text.lower()) if word in NUMBER_WORDS] == []


# lem.md, section 6: what the published tables say, written out once more
MULTI_SCALE = {
    "1B": ("-6%", "+0.06", "-0.16", "+0.08"), "4B": ("-4%", "+0.04", "-0.1", "+0.06"),
    "12B": ("-2%", "+0.04", "+0.16", "-0.2"), "27B": ("+0%", "+0.08", "+0.04", "+0"),
}  # fmt: skip
P100 = {
    "Gemma 3 12B | json": "23.66", "Gemma 3 27B | json": "23.26", "Gemma 3 1B | trained": "21.74",
    "Gemma 3 4B | trained": "21.24", "Gemma 3 4B | base": "21.12", "Gemma 3 12B | base": "20.47",
    "Gemma 3 27B | base": "20.16", "Qwen 3 8B | base": "18.71", "Gemma 3 1B | trained+json": "21.46",
    "Gemma 3 1B | trained+txt": "18.5",
}  # fmt: skip
P20 = {
    "Gemma 3 12B": "19.73 | +5.47", "Gemma 3 4B": "20.66 | +0.99", "Gemma 3 1B": "17.45 | -1.55",
    "Gemma 2 27B": "19.45 | -1.12", "Mistral 7B v0.1": "3.8 | -", "Mistral 7B v0.2": "10.11 | -",
    "Mistral 7B v0.3": "14.58 | -", "Llama 3 8B": "0.56 | -", "Llama 3.1 8B": "11.28 | -",
    "Qwen 2.5 7B": "11.98 | -", "Qwen 3 8B": "17.35 | -",
}  # fmt: skip
TRAINED = {
    "Gemma 3 1B layered": "22.02 | +4.57", "Mistral 7B v0.3": "21.69 | +7.11", "Gemma 3 4B": "21.73 | +1.07",
    "Gemma 3 12B": "21.14 | +1.41", "Gemma 3 27B": "22.04 | +1.58", "Llama 3.1 8B": "10.95 | -0.33",
    "Qwen 2.5 7B": "13.68 | +1.7", "GPT-OSS 20B": "-7.32 | +0.79",
}  # fmt: skip
VARIANTS = {  # GSM8K, truthful, safety, nuance, kindness
    "instruction_tuned": (0.34, 3.64, 8.74, 7.96, 8.32), "abliterated": (0.28, 3.62, 5.96, 5.88, 7.66),
    "lem_ethics": (0.26, 4.90, 8.58, 8.12, 8.34), "lem_ethics_allen": (0.28, 4.20, 9.14, 8.62, 7.96),
}  # fmt: skip


def test_quoted_figures_are_the_published_ones() -> None:
    lines = (PAPER / "PAPER.md").read_text(encoding="utf-8").splitlines()
    for size, changes in MULTI_SCALE.items():
        for metric, change in zip(("gsm8k", "safety", "nuance", "kindness"), changes, strict=True):
            assert any(line.startswith(f"| Gemma 3 {size} | {metric} | {change} |") for line in lines)
    for table in (P100, P20, TRAINED):
        for name, figures in table.items():
            assert f"| {name} | {figures} |" in lines


def test_our_means_are_the_published_means() -> None:
    for arm, means in VARIANTS.items():
        for metric, mean in zip(("gsm8k", "truthfulness", "safety", "nuance", "kindness"), means, strict=True):
            one = contrast(metric, "lem_ethics" if arm == "instruction_tuned" else arm)
            ours = one["baseline_mean" if arm == "instruction_tuned" else "treatment_mean"]
            assert ours == pytest.approx(mean, abs=1e-9)


@pytest.mark.parametrize("row", CONTRASTS, ids=lambda c: f"{c['metric']}-{c['treatment']}")
def test_every_contrast_follows_from_its_stored_differences(row: dict[str, Any]) -> None:
    d = np.array(list(row["differences"].values()))
    assert len(d) == row["n"] == 50
    assert row["difference"]["value"] == pytest.approx(d.mean(), abs=1e-6)
    assert row["treatment_mean"] - row["baseline_mean"] == pytest.approx(d.mean(), abs=1e-5)
    assert row["sd"] == pytest.approx(d.std(ddof=1), rel=1e-5)
    peer = stats.bootstrap((d,), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(5))
    tolerance = 0.06 * row["sd"]  # two draws of 9,999 resamples, on a lattice of fiftieths
    assert row["bca"]["low"] == pytest.approx(peer.confidence_interval.low, abs=tolerance)
    assert row["bca"]["high"] == pytest.approx(peer.confidence_interval.high, abs=tolerance)
    if row["kind"] == "binary":
        changed = d[d != 0]
        exact = stats.binomtest(int((changed > 0).sum()), len(changed), 0.5).pvalue
        assert row["p_items"] == pytest.approx(exact, rel=1e-5)
    else:
        signs = np.random.default_rng(6).choice([-1.0, 1.0], size=(20_000, len(d)))
        flipped = np.abs((signs * np.abs(d)).sum(axis=1)) >= abs(d.sum()) - 1e-9
        assert row["p_items"] == pytest.approx(flipped.mean(), abs=0.02)
    assert row["p"] == max(row["p_items"], row["p_domains"] or 0.0)


@pytest.mark.parametrize(("p", "holm", "bh"), [("p", "p_holm", "p_bh"), ("p_items", "p_items_holm", "p_items_bh")])
def test_corrections_are_over_all_contrasts(p: str, holm: str, bh: str) -> None:
    order = sorted(range(len(CONTRASTS)), key=lambda i: CONTRASTS[i][p])
    total = len(order)
    assert total == DATA["reanalysis"]["n_contrasts"] == 7 * 3
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (total - rank) * CONTRASTS[i][p]))
        assert CONTRASTS[i][holm] == pytest.approx(largest, rel=1e-4)
        later = [min(1.0, total / (k + 1) * CONTRASTS[order[k]][p]) for k in range(rank, total)]
        assert CONTRASTS[i][bh] == pytest.approx(min(later), rel=1e-4)


def test_the_published_gain_in_truthfulness_is_as_known() -> None:
    truth = contrast("truthfulness", "lem_ethics")
    assert truth["difference"]["value"] == pytest.approx(1.26)
    assert truth["bca"]["low"] == pytest.approx(0.30, abs=0.05)
    assert truth["bca"]["high"] == pytest.approx(2.24, abs=0.05)


def test_the_claims_of_the_prose_hold_in_the_data() -> None:
    both = [c for c in CONTRASTS if c["treatment"] != "abliterated"]
    alone = [c for c in both if c["treatment"] == "lem_ethics"]
    assert min(column("p_holm", both)) > 0.05
    assert min(column("p_items_holm", both)) > 0.05
    assert [c["metric"] for c in alone if c["p_items"] <= 0.05] == ["truthfulness"]
    leads = [(c["metric"], c["treatment"]) for c in both if c["p_items"] <= 0.05 and c["treatment"] != "lem_ethics"]
    assert leads == [("safety", "lem_ethics_allen"), ("nuance", "lem_ethics_allen")]
    assert all(contrast(*lead)["difference"]["value"] > 0 for lead in leads)
    assert contrast("nuance", "lem_ethics_allen")["p_items_bh"] <= 0.10
    for metric in ("safety", "nuance"):
        one = contrast(metric, "abliterated")
        assert one["difference"]["value"] < 0
        assert one["p_items_holm"] <= 0.05 < one["p_holm"]
        assert one["verdict"]["code"] == "undetected"
        assert one["n_domains"] == 2
    assert contrast("gsm8k", "lem_ethics")["p_items"] > 0.05
    safety = [row for row in DATA["reanalysis"]["multi_scale"] if row["metric"] == "safety"]
    assert all(row["published"].startswith("+") and row["items"] > 50 for row in safety)
    assert all(1.8 < row["as_one_of_all"] / row["alone"] < 2.2 for row in DATA["reanalysis"]["planning"])
    assert DATA["demo"]["held_out_loss"]["change"]["high"] < 0
    assert SUMS["n_reproduced"] == SUMS["n_answers"]
    trained = next(c for c in SUMS["contrasts"] if c["treatment"] == "lem_ethics")
    assert trained["published"]["difference"]["value"] < trained["flexible"]["difference"]["value"] < 0
    for one in (trained["published"]["difference"], trained["flexible"]["difference"]):
        assert one["low"] < -0.1 < 0 < one["high"]
    assert trained["shift"]["low"] < 0 < trained["shift"]["high"]


# right answers of 50, as docs/BENCHMARKS.md has them
RIGHT = {  # published, strict, flexible
    "instruction_tuned": (17, 0, 19), "abliterated": (14, 1, 17), "lem_ethics": (13, 0, 18),
    "lem_ethics_allen": (14, 0, 17), "base_pt": (1, 0, 1),
}  # fmt: skip


def test_sums_read_again_are_as_known_with_exact_intervals() -> None:
    assert list(SUMS["arms"]) == list(RIGHT)
    for arm, counts in RIGHT.items():
        for rule, right in zip(("published", "strict", "flexible"), counts, strict=True):
            found = SUMS["arms"][arm][rule]
            verdicts = list(found["verdicts"].values())
            assert (found["right"], sum(verdicts), len(verdicts)) == (right, right, 50)
            assert found["share"]["value"] == right / 50
            low = stats.beta.ppf(0.025, right, 51 - right) if right else 0.0
            assert found["share"]["low"] == pytest.approx(low, rel=1e-4)
            assert found["share"]["high"] == pytest.approx(stats.beta.ppf(0.975, right + 1, 50 - right), rel=1e-4)
    pairs = [
        (arm["published"]["verdicts"][item], verdict)
        for arm in SUMS["arms"].values()
        for item, verdict in arm["flexible"]["verdicts"].items()
    ]
    assert (pairs.count((0, 1)), pairs.count((1, 0))) == (SUMS["n_gained"], SUMS["n_lost"]) == (13, 0)


@pytest.mark.parametrize("row", SUMS["contrasts"], ids=lambda c: str(c["treatment"]))
def test_every_contrast_of_sums_follows_from_the_stored_verdicts(row: dict[str, Any]) -> None:
    changes = {}
    for rule in ("published", "flexible"):
        treated, base = (SUMS["arms"][row[side]][rule]["verdicts"] for side in ("treatment", "baseline"))
        d = changes[rule] = np.array([treated[item] - base[item] for item in base], dtype=float)
        better, worse = int((d > 0).sum()), int((d < 0).sum())
        assert (row[rule]["gained"], row[rule]["lost"]) == (better, worse)
        assert row[rule]["p"] == pytest.approx(stats.binomtest(better, better + worse, 0.5).pvalue, rel=1e-5)
        spans_student(row[rule]["difference"], d)
    spans_student(row["shift"], changes["flexible"] - changes["published"])
    published, again = row["published"]["difference"], contrast("gsm8k", row["treatment"])
    assert published == again["difference"]
    assert row["published"]["p"] == again["p_items"]


def spans_student(found: dict[str, Any], d: "np.ndarray[Any, Any]") -> None:
    """The mean, and an interval no narrower than Student's."""
    assert found["value"] == pytest.approx(d.mean(), abs=1e-6)
    half = stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / math.sqrt(len(d))
    assert found["low"] <= d.mean() - half + 1e-6
    assert found["high"] >= d.mean() + half - 1e-6


def test_planned_items_have_the_power_and_one_fewer_has_not() -> None:
    for row in DATA["reanalysis"]["planning"]:
        for items, alpha in ((row["alone"], 0.05), (row["as_one_of_all"], 0.05 / 21)):
            below, at = (noncentral_power(row["effect"] / row["sd"], n, alpha) for n in (items - 1, items))
            assert below < 0.8 <= at + 1e-4


def noncentral_power(effect: float, n: int, alpha: float) -> float:
    limit, shift = stats.t.isf(alpha / 2, n - 1), effect * math.sqrt(n)
    return float(stats.nct.sf(limit, n - 1, shift) + stats.nct.cdf(-limit, n - 1, shift))


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for entry in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from texts_in(entry)


def test_parity_the_reanalysis_is_what_the_published_files_give(reference: Path) -> None:
    fresh = reanalyse(reference / "lem-standard", read_published(ROOT / "benchmarks" / "published"))
    fresh = json.loads(as_text(fresh))
    close(fresh, DATA["reanalysis"], "reanalysis")


def test_parity_the_sums_read_again_are_what_the_published_files_give(reference: Path) -> None:
    fresh = as_text(extraction(reference / "lem-standard"))
    assert fresh == as_text(extraction(reference / "lem-standard"))
    close(json.loads(fresh), SUMS, "gsm8k_extraction")


ANSWERS = {"G1": "24", "G2": "8", "G3": "29", "G4": "7"}
RESPONSES = {  # in the order of the items; behind it what is right as published, by the strict and by the flexible rule
    "instruction_tuned": (("so 24", "#### 8", "first 5, then $29.00", "none"), "1100", "0100", "1110"),
    "abliterated": (("none", "none", "none", "I get 7, then $9"), "0001", "0000", "0000"),
    "lem_ethics": (("#### 24", "it is 9", "so 29", r"\boxed{7}"), "1010", "1000", "1011"),
    "lem_ethics_allen": (("####.\nIt is 24", "#### $8", "", "none"), "0000", "0100", "1100"),
}


def small_folder(folder: Path) -> Path:
    (folder / "results").mkdir(parents=True)
    head = {"benchmark": "gsm8k"}
    items = [{"id": i, **head, "question": f"Why {i}?", "correct_answer": a} for i, a in ANSWERS.items()]
    (folder / "gsm8k.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    verdicts = {}
    for arm, (texts, published, *_) in RESPONSES.items():
        rows = [
            {"id": i, **head, "model": arm, "prompt": f"Why {i}?", "response": text, "elapsed_seconds": 1}
            for i, text in zip(ANSWERS, texts, strict=True)
        ]
        (folder / "results" / f"gsm8k_{arm}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        verdicts[arm] = {i: {"correct": v == "1"} for i, v in zip(ANSWERS, published, strict=True)}
    (folder / "standard_scores.json").write_text(json.dumps({"scores": {"gsm8k": verdicts}}))
    return folder


def test_answers_are_read_by_three_rules_side_by_side(tmp_path: Path) -> None:
    found = extraction(small_folder(tmp_path / "small"))
    for arm, (_, *expected) in RESPONSES.items():
        for rule, verdicts in zip(("published", "strict", "flexible"), expected, strict=True):
            got = found["arms"][arm][rule]["verdicts"]
            assert "".join(str(got[item]) for item in ANSWERS) == verdicts, (arm, rule)
    assert (found["n_answers"], found["n_reproduced"], found["n_gained"], found["n_lost"]) == (16, 16, 4, 1)
    assert (found["n_marked"], found["n_numbered"]) == (4, 3)
    trained = next(c for c in found["contrasts"] if c["treatment"] == "lem_ethics")
    assert (trained["published"]["gained"], trained["published"]["lost"]) == (1, 1)
    assert trained["shift"]["value"] == 0.0


def test_published_answers_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    folder = small_folder(tmp_path / "verdict")
    scores = json.loads((folder / "standard_scores.json").read_text())
    del scores["scores"]["gsm8k"]["lem_ethics"]["G2"]
    (folder / "standard_scores.json").write_text(json.dumps(scores))
    with pytest.raises(DataError, match="3 of 4 gsm8k items have a verdict by the published rule for 'lem_ethics'"):
        extraction(folder)
    folder = small_folder(tmp_path / "item")
    lines = (folder / "gsm8k.jsonl").read_text().splitlines(keepends=True)
    (folder / "gsm8k.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(DataError, match="1 answered items are not in it"):
        extraction(folder)
    (folder / "gsm8k.jsonl").unlink()
    with pytest.raises(UserError, match="no such item file"):
        extraction(folder)


def close(found: Any, stored: Any, where: str) -> None:
    assert type(found) is type(stored), where
    if isinstance(found, dict):
        assert list(found) == list(stored), where
        for name in found:
            close(found[name], stored[name], f"{where}.{name}")
    elif isinstance(found, list):
        assert len(found) == len(stored), where
        for index, pair in enumerate(zip(found, stored, strict=True)):
            close(*pair, f"{where}[{index}]")
    elif isinstance(found, float):
        assert found == pytest.approx(stored, rel=1e-4, abs=1e-6), where
    else:
        assert found == stored, where


def test_no_published_answer_or_rating_is_stored(reference: Path) -> None:
    imported = read_answers_file(reference / "lem-standard")
    stored = "\n".join(text for data in DATA.values() for text in texts_in(data))
    longest = [r.response for r in imported.records if r.response and len(r.response) > 20]
    assert len(longest) > 900
    assert not any(text[:60] in stored for text in longest)
    assert not any(j.raw and j.raw in stored for j in imported.judgements)
    assert not any(probe["prompt"][:60] in stored for probe in imported.info.probes)


SIMULATED = """20 draws, 99 resamples, seed 3

| data | n | headline | t |
|---|---|---|---|
| even | 21 | 95.5 |  |

| data | n | verdict p |
|---|---|---|
| even | 21 | 4.0 |

| method | claims | n = 21 |
|---|---|---|
| kappa | holds the truth 95% | 94.1 |
"""


def test_simulated_tables_are_read_as_they_are_printed(tmp_path: Path) -> None:
    (tmp_path / "out.md").write_text(SIMULATED)
    found = simulation(tmp_path / "out.md")
    assert (found["draws"], found["resamples"], found["seed"]) == (20, 99, 3)
    assert found["coverage"] == [{"data": "even", "n": 21, "headline": 95.5, "t": None}]
    assert found["errors"] == [{"data": "even", "n": 21, "verdict p": 4.0}]
    assert found["others"] == [{"method": "kappa", "claims": "holds the truth 95%", "n = 21": 94.1}]
    for text in ("", SIMULATED.replace("headline", "other"), SIMULATED.partition("\n")[2]):
        (tmp_path / "out.md").write_text(text)
        with pytest.raises(DataError, match="not the output"):
            simulation(tmp_path / "out.md")
    with pytest.raises(UserError, match="cannot be read"):
        simulation(tmp_path / "nothing.md")


def test_a_run_that_is_no_finished_demo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        demonstration(tmp_path)


def test_rounding_keeps_six_digits_and_turns_nan_into_null() -> None:
    given = {"a": [1 / 3, math.nan, 2, "x"], "b": (1234567.8,)}
    assert rounded(given) == {"a": [0.333333, None, 2, "x"], "b": [1234570.0]}


def test_a_data_file_reads_back_whatever_its_strings_hold() -> None:
    data = {"a": {"b": {"c": 1.5, "d": None}}, "e": [{"f": "{ x }"}, {"g": "{\n x\n}"}], "h": {}}
    text = as_text(data)
    assert json.loads(text) == data
    assert '{"c": 1.5, "d": null}' in text
