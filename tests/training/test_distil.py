"""Distillation from prompts to training data on a tiny model: resumable, and everything derived can be made anew."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lem.chat import generate as engine
from lem.chat.generate import GenerationSettings
from lem.data import Probe, read_chat_examples, read_kernel
from lem.data.check import check_data
from lem.errors import DataError, ResumeMismatch, UserError
from lem.runs.plan import Arm, RunPlan
from lem.scorers import v2
from lem.training.distil import ARM, choose, distil
from lem.training.distil_filters import REASONS, Filters
from small_plan import bytes_of, rows_of, write_kernel
from tiny import make_model

ALL = Filters(threshold=-100.0)
ASKED = (
    "Who mends lamps here?", "What do kites know of storms?", "Bread, or no bread?",
    "Why does nobody use the well behind our school, and should I?", "Ink!", "How many stairs are too many stairs?",
)  # fmt: skip


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("distil") / "tiny-llama", "llama")


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    folder = tmp_path / "seeds"
    folder.mkdir()
    (folder / "P.json").write_text(
        json.dumps([{"id": "P00", "domain": "care", "prompt": "Design a fair ferry queue."}])
    )
    return folder


def make_plan(tmp_path: Path, model: Path, n: int = 6, samples: int = 4, domain: str = "", **options: Any) -> RunPlan:
    kernel = read_kernel(write_kernel(tmp_path / "k.txt"))
    prompts = tuple(Probe(f"s{i}", domain and f"{domain}{i % 2}", ASKED[i]) for i in range(n))
    settings = GenerationSettings(max_tokens=120, temperature=0.9)
    plan = RunPlan((Arm(ARM, str(model), None, kernel),), prompts, "somewhere/seed.jsonl", settings, repeats=samples)
    return replace(plan, group_size=3, **options)


def derived(run: Path) -> dict[str, bytes]:
    """What is remade from the answers; scores, which stand in the order of the answers, with their lines sorted."""
    files = {name: text for name, text in bytes_of(run).items() if name not in ("records.jsonl", "run.json")}
    return {n: b"".join(sorted(text.splitlines())) if n.startswith("scores") else text for n, text in files.items()}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def test_every_answer_is_kept_or_rejected_with_a_reason(tmp_path: Path, model: Path, seeds: Path) -> None:
    made = distil(make_plan(tmp_path, model), tmp_path / "run", ALL, [seeds])
    kept, rejected = lines(made.run / "kept.jsonl"), lines(made.run / "rejected.jsonl")
    cells = {(f"s{i}", repeat) for i in range(6) for repeat in range(4)}
    assert {(row["prompt_id"], row["repeat"]) for row in kept + rejected} == cells
    assert len(kept) + len(rejected) == len(cells) == made.summary["planned"]
    reasons = Counter(row["reason"] for row in rejected)
    assert made.summary["rejected"] == {reason: reasons[reason] for reason in REASONS}
    assert made.summary["kept"] + sum(made.summary["rejected"].values()) == 24
    assert reasons["truncated"] > 0, "without these the test shows little"
    assert reasons["not-best"] > 0
    stored = {(row["probe_id"], row["repeat"]): row for row in rows_of(made.run)}
    for row in kept + rejected:
        record = stored[row["prompt_id"], row["repeat"]]
        assert row["response"] == record["response"]
        assert row["scores"]["v2"] == v2.score(row["response"])["lek_score"]
        assert (row.get("reason") == "truncated") == (record["finish_reason"] == "length")
    assert len({record["seed"] for record in stored.values()}) == 24


def test_training_rows_are_prompt_and_answer_without_the_kernel(tmp_path: Path, model: Path, seeds: Path) -> None:
    plan = make_plan(tmp_path, model)
    made = distil(plan, tmp_path / "run", ALL, [seeds])
    kept = lines(made.run / "kept.jsonl")
    examples = read_chat_examples(made.data / "train.jsonl")
    assert [[turn["role"] for turn in example.messages] for example in examples] == [["user", "assistant"]] * len(kept)
    assert [(e.prompt, e.answer) for e in examples] == [(row["prompt"], row["response"]) for row in kept]
    assert {e.prompt for e in examples} <= {probe.prompt for probe in plan.probes}
    assert (made.data / "train.jsonl").read_text().find("Hold to consent") == -1
    assert check_data(made.data, [seeds]).clean
    best: dict[str, list[float]] = {}
    for verdict in made.verdicts:
        if verdict.reason in (None, "not-best"):
            best.setdefault(verdict.sample.prompt.id, []).append(verdict.sample.value("v2"))
    assert {row["prompt_id"]: row["scores"]["v2"] for row in kept} == {
        prompt: max(found) for prompt, found in best.items()
    }


def test_a_broken_off_run_ends_with_the_files_of_an_undisturbed_one(tmp_path: Path, model: Path, seeds: Path) -> None:
    plan = make_plan(tmp_path, model)
    whole = distil(plan, tmp_path / "whole" / "run", ALL, [seeds])
    run = tmp_path / "cut" / "run"
    seen: list[str] = []

    def stop(record: Any) -> None:
        seen.append(record.probe_id)
        if len(seen) == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distil(plan, run, ALL, [seeds], on_record=stop)
    assert len(rows_of(run)) == 7
    assert not (run / "kept.jsonl").exists()
    distil(plan, run, ALL, [seeds])
    assert derived(run) == derived(whole.run)
    assert {"data/train.jsonl", "data/DATA_CARD.md", "kept.jsonl", "rejected.jsonl", "summary.json"} <= set(
        derived(run)
    )


def test_another_threshold_chooses_anew_and_generates_nothing(tmp_path: Path, model: Path, seeds: Path) -> None:
    plan = make_plan(tmp_path, model)
    first = distil(plan, tmp_path / "run", ALL, [seeds])
    before, files = (first.run / "records.jsonl").read_bytes(), derived(first.run)
    values = sorted(v.sample.value("v2") or 0 for v in first.verdicts if v.reason is None)
    stricter = distil(plan, first.run, Filters(threshold=values[-1]), [seeds])
    assert 0 < stricter.summary["kept"] < first.summary["kept"]
    distil(plan, first.run, Filters("v3", -100.0), [seeds])
    by_v3 = {row["prompt_id"]: row["scores"]["v3"] for row in lines(first.run / "kept.jsonl")}
    worse = [row for row in lines(first.run / "rejected.jsonl") if row["reason"] == "not-best"]
    assert worse
    assert all(row["scores"]["v3"] <= by_v3[row["prompt_id"]] for row in worse)
    two = distil(plan, first.run, Filters("v2", -100.0, keep_per_prompt=2), [seeds])
    assert first.summary["kept"] < two.summary["kept"]
    assert max(Counter(row["prompt_id"] for row in lines(first.run / "kept.jsonl")).values()) == 2
    distil(plan, first.run, ALL, [seeds])
    assert (first.run / "records.jsonl").read_bytes() == before
    assert derived(first.run) == files


def test_a_run_gains_prompts_and_samples_and_judges_all_of_them(tmp_path: Path, model: Path, seeds: Path) -> None:
    distil(make_plan(tmp_path, model, n=4, samples=2), tmp_path / "run", ALL, [seeds])
    grown = distil(make_plan(tmp_path, model, n=6, samples=3), tmp_path / "run", ALL, [seeds])
    again = distil(make_plan(tmp_path, model, n=2, samples=1), tmp_path / "run", ALL, [seeds])
    assert grown.summary == again.summary
    assert grown.summary["planned"] == 18
    assert len(rows_of(tmp_path / "run")) == 18


def test_another_kernel_is_another_run(tmp_path: Path, model: Path, seeds: Path) -> None:
    plan = make_plan(tmp_path, model, n=2, samples=1)
    distil(plan, tmp_path / "run", ALL, [seeds])
    before = bytes_of(tmp_path / "run")
    other = read_kernel(write_kernel(tmp_path / "other.json", "Another kernel."))
    with pytest.raises(ResumeMismatch, match="give a new --output, nothing was touched"):
        distil(replace(plan, arms=(replace(plan.arms[0], kernel=other),)), tmp_path / "run", ALL, [seeds])
    assert bytes_of(tmp_path / "run") == before


def test_what_cannot_be_distilled_is_refused_before_anything_is_made(tmp_path: Path, model: Path, seeds: Path) -> None:
    plan = make_plan(tmp_path, model, n=2)
    probe = replace(plan, probes=(*plan.probes, Probe("s9", "", "Design a fair ferry queue, Ann.")))
    greedy = replace(plan, settings=replace(plan.settings, temperature=0.0))
    refused: list[tuple[RunPlan, Filters, type[UserError], str]] = [
        (probe, ALL, DataError, "prompt s9 is near to evaluation probe P00 of P.json"),
        (greedy, ALL, UserError, "--samples 4 at --temperature 0 would be 4 equal answers"),
        (plan, Filters(threshold=float("nan")), UserError, r"--threshold must be a number \(got nan\)"),
    ]
    for unusable, filters, kind, message in refused:
        with pytest.raises(kind, match=message):
            distil(unusable, tmp_path / "run", filters, [seeds])
    assert not (tmp_path / "run").exists()


def test_prompts_of_the_run_that_became_probes_are_refused(tmp_path: Path, model: Path, seeds: Path) -> None:
    distil(make_plan(tmp_path, model, n=3, samples=1), tmp_path / "run", ALL, [seeds])
    (seeds / "late.json").write_text(json.dumps([{"id": "P99", "domain": "x", "prompt": "Bread or no bread?"}]))
    with pytest.raises(DataError, match="prompt s2 shares 4 words in a row with evaluation probe P99"):
        choose(make_plan(tmp_path, model, n=2, samples=1), tmp_path / "run", ALL, [seeds])


def test_failed_answers_are_counted_and_made_good_later(
    tmp_path: Path, model: Path, seeds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(tmp_path, model)
    whole = distil(plan, tmp_path / "whole" / "run", ALL, [seeds])
    real, groups = engine._decode, []

    def broken_second_group(*args: Any) -> Any:
        groups.append(1)
        if len(groups) == 2:
            raise RuntimeError("out of memory")
        return real(*args)

    monkeypatch.setattr(engine, "_decode", broken_second_group)
    broken = distil(plan, tmp_path / "broken" / "run", ALL, [seeds])
    assert (broken.summary["failed"], broken.summary["rejected"]["failed"]) == (3, 3)
    assert broken.summary["kept"] + sum(broken.summary["rejected"].values()) == 24
    assert broken.summary["status"] == "incomplete"
    distil(plan, broken.run, ALL, [seeds])
    assert derived(broken.run) == derived(whole.run)


def test_figures_are_means_over_prompts_and_quantiles_over_answers(tmp_path: Path, model: Path, seeds: Path) -> None:
    made = distil(make_plan(tmp_path, model, domain="room"), tmp_path / "run", ALL, [seeds])
    figures = {(row["what"], row["answers"]): row for row in made.summary["figures"]}
    assert set(figures) == {(what, which) for what in ("v2", "v3", "words", "tokens") for which in ("all", "kept")}
    rows = rows_of(made.run)
    kept = {(row["prompt_id"], row["repeat"]) for row in lines(made.run / "kept.jsonl")}
    for which, chosen in (("all", rows), ("kept", [r for r in rows if (r["probe_id"], r["repeat"]) in kept])):
        for what, measure in (
            ("v2", lambda r: v2.score(r["response"])["lek_score"]),
            ("tokens", lambda r: r["n_tokens"]),
        ):
            values = [float(measure(row)) for row in chosen]
            by_prompt: dict[str, list[float]] = {}
            for row, value in zip(chosen, values, strict=True):
                by_prompt.setdefault(row["probe_id"], []).append(value)
            found = figures[what, which]
            assert found["n"] == len(values)
            assert found["mean"]["value"] == pytest.approx(np.mean([np.mean(group) for group in by_prompt.values()]))
            assert found["mean"]["n"] == len(by_prompt)
            assert found["mean"]["n_clusters"] == 2
            assert [found["min"], found["median"], found["max"]] == [min(values), np.median(values), max(values)]
    assert made.summary["best_score"] == figures["v2", "all"]["max"]
    assert {row["domain"]: row["answers"] for row in made.summary["domains"]} == {"room0": 12, "room1": 12}
    assert sum(row["kept"] for row in made.summary["domains"]) == made.summary["kept"]


def test_the_summary_names_the_files_it_belongs_to(tmp_path: Path, model: Path, seeds: Path) -> None:
    made = distil(make_plan(tmp_path, model, n=2, samples=2), tmp_path / "run", ALL, [seeds])
    stored = json.loads((made.run / "summary.json").read_text())
    assert stored == made.summary
    for name, sha in stored["files"].items():
        assert hashlib.sha256((made.run / name).read_bytes()).hexdigest() == sha


def test_the_card_says_what_was_done(tmp_path: Path, model: Path, seeds: Path) -> None:
    plan = make_plan(tmp_path, model, inject="user", domain="room")
    made = distil(plan, tmp_path / "run", ALL, [seeds])
    card, summary = (made.data / "DATA_CARD.md").read_text(), made.summary
    table = dict(re.findall(r"^\| ([a-z-]+) \| (\d+) \|", card, flags=re.MULTILINE))
    assert {reason: int(table[reason]) for reason in REASONS} == summary["rejected"]
    assert (int(table["planned"]), f"| **kept** | **{summary['kept']}** |" in card) == (24, True)
    kernel = plan.arms[0].kernel
    assert kernel is not None
    assert f"k.txt, as user | `{kernel.sha[:16]}`" in card
    assert "4 samples a prompt, temperature 0.9, top-p 0.95, at most 120 tokens, seed 42" in card
    for stated in ("tiny-llama", "seed.jsonl", "| room1 | 12 |", "outputs of tiny-llama", "eight words in a row"):
        assert stated in card
    for sha in (summary["source"]["model_sha"], summary["seeds"]["sha"], summary["prompts"]["sha"]):
        assert f"`{sha[:16]}`" in card
    assert str(tmp_path) not in card
    assert "lem-nano" not in card
    assert "no interval" not in card


def test_the_card_of_the_toy_model_warns(tmp_path: Path, seeds: Path) -> None:
    toy = make_model(tmp_path / "lem-nano", "llama")
    made = distil(make_plan(tmp_path, toy, n=1, samples=1), tmp_path / "run", ALL, [seeds])
    card = (made.data / "DATA_CARD.md").read_text()
    assert "scores mean nothing for the method" in card
    assert "no interval" in card


def test_nothing_kept_leaves_an_empty_set_that_says_so(tmp_path: Path, model: Path, seeds: Path) -> None:
    plan = make_plan(tmp_path, model, n=2, samples=2)
    distil(plan, tmp_path / "run", ALL, [seeds])
    made = distil(plan, tmp_path / "run", Filters(threshold=1000.0), [seeds])
    assert (made.data / "train.jsonl").read_bytes() == b""
    assert "Nothing was kept" in (made.data / "DATA_CARD.md").read_text()
    assert made.summary["kept"] == 0
