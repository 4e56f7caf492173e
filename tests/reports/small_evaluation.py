"""A benchmark run with judges, made by hand: every answer, score, verdict and gap is chosen, nothing is generated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lem.data.items import Item, items_text
from lem.records import Judgement, Record, RunContents, RunInfo, Score, text_sha
from made_runs import save

ARMS = ("base", "kernel", "trained")
STRICT, KIND = "gemini-flash", "nano"
SIZES = {"gsm8k": 20, "truthfulqa_mc": 8, "do_not_answer": 24, "over_refusal": 20, "unsafe_contrast": 12}
DOMAINS = ("first", "second", "third", "fourth")
CHOICES = ["Nobody knows.", "Caesar burned it down in one night.", "A mob did, in a day."]
# Share of right (or, for refusals, of refused) answers per arm.
SHARES = {
    "gsm8k_strict": (0.35, 0.30, 0.45),
    "gsm8k_flexible": (0.55, 0.50, 0.60),
    "truthfulqa_mc1": (0.4, 0.5, 0.6),
    "over_refusal": (0.05, 0.35, 0.10),
    "unsafe_refusal": (0.5, 0.9, 0.75),
}
ON = {
    "gsm8k_strict": "gsm8k",
    "gsm8k_flexible": "gsm8k",
    "truthfulqa_mc1": "truthfulqa_mc",
    "over_refusal": "over_refusal",
    "unsafe_refusal": "unsafe_contrast",
}
LOST = {  # (judge, dimension, arm) -> reasons, for the first answers of the arm
    (STRICT, "safety", "kernel"): ("blocked", "blocked", "unparsable"),
    (STRICT, "safety", "trained"): ("failed: no reply within 60 s",),
    (KIND, "safety", "base"): ("truncated", "refused", "out of range"),
}


@dataclass(frozen=True)
class SmallEvaluation:
    """The run as written to disk and as it was made."""

    path: Path
    contents: RunContents


def probes() -> list[dict[str, Any]]:
    """The entries of `run.json`, benchmark by benchmark."""
    found = []
    for benchmark, size in SIZES.items():
        for number in range(size):
            prompt = f"{benchmark} question {number}: what became of the library?"
            entry = {"id": f"{benchmark}-{number:02d}", "domain": DOMAINS[number % 4], "prompt": prompt}
            choices = {"choices": CHOICES} if benchmark == "truthfulqa_mc" else {}
            found.append({**entry, "benchmark": benchmark, **choices})
    return found


def evaluation(model: str = "models/lem-nano") -> RunContents:
    """Three arms over five tasks, two of them judged by two judges, the second of one lineage with an arm."""
    rng = np.random.default_rng(7)
    records = [_record(arm, entry) for arm in ARMS for entry in probes()]
    scores = {name: list(_scores(name, records, rng)) for name in ON}
    judgements = [
        one
        for judge in (STRICT, KIND)
        for dimension, level in (("safety", 6.5), ("nuance", 5.0))
        for one in _ratings(judge, dimension, level, records, rng)
    ]
    info = RunInfo(
        run_id="lem-nano-9f31", kind="eval", status="done",
        arms={arm: {"model": model, "kernel": "lek-1" if arm == "kernel" else None} for arm in ARMS},
        settings={"temperature": 0.0, "max_tokens": 256, "repeats": 1}, probes=probes(),
        command=["./lem", "eval", "gsm8k", "do_not_answer", "over_refusal", "--model", "lem-nano"],
    )  # fmt: skip
    return RunContents(info, records, scores, judgements)


def manifest(judge: str, *, kin: tuple[str, ...] = ()) -> dict[str, Any]:
    """A judge's manifest as a grading pass writes it."""
    local = judge == KIND
    return {
        "judge": judge, "name": judge, "backend": "mlx" if local else "gemini",
        "model": "lem-nano" if local else "gemini-flash-latest",
        "reported_models": ["lem-nano"] if local else ["gemini-flash-001", "gemini-flash-002"],
        "settings": {"temperature": 0, "method": "grammar"}, "lineage": {"sha": [], "names": []},
        "kin": [{"arm": arm, "why": "the same base weights"} for arm in kin], "allow_self_judge": bool(kin),
        "notes": [] if local else ["The lineage of gemini-flash-latest is not known."],
        "rubrics": {"safety": "1 (0f1e2d3c)", "nuance": "1 (a1b2c3d4)"}, "calls": 144, "n_prompt_tokens": 61234,
        "n_tokens": 5120, "cost": None if local else 0.0421, "currency": "" if local else "USD",
        "unscored": {}, "command": ["./lem", "judge", "grade"],
    }  # fmt: skip


def estimate(value: float, low: float, high: float, method: str = "t") -> dict[str, Any]:
    """An estimate as it is stored."""
    return {"value": value, "stderr": 0.05, "low": low, "high": high, "level": 0.95, "n": 24, "n_unscored": 0,
            "n_clusters": 4, "method": method}  # fmt: skip


def pair_result(baseline: str = "base", treatment: str = "trained") -> dict[str, Any]:
    """A win rate as `lem judge pairs` writes it."""
    return {
        "judge": STRICT, "dimension": "preference", "baseline": baseline, "treatment": treatment,
        "estimate": estimate(0.61, 0.44, 0.78), "p": 0.18, "n_pairs": 29, "wins": 11, "ties": 7, "losses": 5,
        "inconsistent": 5, "unscored": {"blocked": 1}, "n_failed": 2, "n_missing": 3, "bounds": [0.58, 0.63],
        "consistency": estimate(0.79, 0.58, 0.93), "slot_lean": estimate(0.8, 0.3, 0.99),
        "first_slot": estimate(0.57, 0.41, 0.73), "length_matters": False,
        "controlled": {"estimate": estimate(0.55, 0.36, 0.74, "glm"), "unit": "tokens"},
    }  # fmt: skip


def audit(verdict: str = "not trustworthy") -> dict[str, Any]:
    """The result of an audit as `lem judge audit` writes it."""
    failed = verdict == "not trustworthy"
    checks = [
        {"name": "pair: swap", "about": "real pairs judged alike in both orders", "unit": "share",
         "estimate": estimate(0.49, 0.31, 0.67), "counts": {}, "status": "failed" if failed else "passed",
         "bound": [0.8, 1], "reason": "below, one comparison in five is decided by the order"},
        {"name": "rating: padded", "about": "a copy with more words", "unit": "points",
         "estimate": estimate(0.25, -0.1, 0.6), "counts": {}, "status": "not shown", "bound": [None, 0.5],
         "reason": "half a point is what a small effect looks like; more for no content is bias"},
        {"name": "pair: first slot", "about": "verdicts for the answer read first", "unit": "share",
         "estimate": estimate(0.5, 0.42, 0.58), "counts": {}, "status": "passed", "bound": [0.4, 0.6], "reason": ""},
    ]  # fmt: skip
    agreement = {"dimension": "safety", "against": "", "judges": [STRICT, KIND], "conclusion": "no headline",
                 "alpha": estimate(0.41, 0.2, 0.58)}  # fmt: skip
    return {
        "schema": 1, "judge": STRICT, "verdict": verdict, "sentence": f"the judge '{STRICT}' is {verdict}: see below.",
        "checks": checks, "others": [], "judges": [agreement], "humans": [], "unscored": {"blocked": 2}, "failed": 1,
        "missing": 0, "notes": ["the run holds 12 usable answers of the 20 asked for"],
    }  # fmt: skip


def write_evaluation(folder: Path, *, verdict: str | None = None) -> SmallEvaluation:
    """Write the run with its judges' files, and with the audit of the first judge where a verdict is given."""
    contents = evaluation()
    path = save(contents, folder / contents.info.run_id)
    (path / "judgements" / "j.jsonl").unlink()
    for judge in (STRICT, KIND):
        rows = [one.to_row() for one in contents.judgements if one.judge == judge]
        _write_lines(path / "judgements" / f"{judge}.jsonl", rows)
        kin = ("base", "kernel", "trained") if judge == KIND else ()
        _write(path / "judgements" / f"{judge}.json", manifest(judge, kin=kin))
    _write(path / "judgements" / f"{STRICT}.pairs.json", [pair_result()])
    items = [
        Item(entry["id"], "truthfulqa_mc", entry["prompt"], entry["domain"], {"correct_answers": ["Nobody knows"]})
        for entry in probes()
        if "choices" in entry
    ]
    (path / "items.jsonl").write_text(items_text(items))
    if verdict is not None:
        _write(path / "audits" / f"{STRICT}.json", audit(verdict))
    return SmallEvaluation(path, contents)


def _record(arm: str, entry: dict[str, Any]) -> Record:
    if entry["benchmark"] == "truthfulqa_mc":
        number = int(entry["id"][-2:])
        measured = {
            "loglikelihoods": [-8.5 - number, -11.25, -14.0],
            "n_tokens": [4, 9, 8],
            "greedy": [True] + [False] * 2,
        }
        return Record("e", arm, entry["id"], 0, json.dumps(measured), finish_reason="likelihood")
    cut = entry["id"] == "gsm8k-00" and arm == "base"
    failed = entry["id"] == "do_not_answer-23" and arm == "base"
    text = f"An answer by {arm} about {entry['benchmark']}, thought through. #### 12"
    return Record(
        "e", arm, entry["id"], 0, None if failed else text, finish_reason="length" if cut else "stop", n_tokens=18,
        messages=({"role": "user", "content": entry["prompt"]},), error="out of memory" if failed else None,
    )  # fmt: skip


def _scores(name: str, records: list[Record], rng: np.random.Generator) -> Iterator[Score]:
    for record in records:
        if record.probe_id.startswith(ON[name] + "-"):
            value = float(rng.random() < SHARES[name][ARMS.index(record.arm)])
            if name == "over_refusal" and record.probe_id.endswith("3"):
                value = 0.5
            sha = text_sha(record.response or "")
            yield Score(record.arm, record.probe_id, 0, name, "1", value, {"extracted": 1.0}, None, sha)


def _ratings(
    judge: str, dimension: str, level: float, records: list[Record], rng: np.random.Generator
) -> Iterator[Judgement]:
    for record in records:
        if record.probe_id.startswith("do_not_answer") and record.response is not None:
            lost = LOST.get((judge, dimension, record.arm), ())
            number = int(record.probe_id[-2:])
            reason = lost[number] if number < len(lost) else None
            rating = float(np.clip(round(rng.normal(level + 0.8 * ARMS.index(record.arm), 1.6)), 1, 10))
            yield Judgement(
                record.arm, record.probe_id, 0, judge, dimension, None if reason else rating, unscored=reason,
                raw=json.dumps({"rationale": "It declines kindly.", dimension: rating}), low=1.0, high=10.0,
                version="abc123", record_sha=text_sha(record.response), model="gemini-flash-002", n_prompt_tokens=420,
                n_tokens=36, cost=0.0003 if judge == STRICT else None,
                error="no reply within 60 s" if reason and reason.startswith("failed") else None,
            )  # fmt: skip


def _write(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
