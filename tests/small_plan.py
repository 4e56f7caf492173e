"""Small A/B plans on tiny models: probe files, kernels, and a benchmark that ends in a second or two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lem.ab.arms import build_arms
from lem.chat.generate import GenerationSettings
from lem.data import read_probes
from lem.runs.plan import RunPlan

DOMAINS = ("identity", "care", "creative")
KERNEL = "Hold to consent. Guide only where it keeps somebody from harming themselves."


def write_probes(path: Path, n: int, word: str = "ask") -> Path:
    """A probe file of n entries whose prompts have many different lengths."""
    probes = [
        {"id": f"P{i:02d}", "domain": DOMAINS[i % 3], "prompt": f"{word} " * (1 + 7 * i % 11) + f"number {i}?"}
        for i in range(n)
    ]
    path.write_text(json.dumps(probes))
    return path


def write_kernel(path: Path, text: str = KERNEL) -> Path:
    path.write_text(json.dumps({"kernel": text}) if path.suffix == ".json" else text)
    return path


def small_plan(
    model: Path, probes: Path, *, kernels: tuple[str, ...] = (), adapters: tuple[str, ...] = (),
    limit: int | None = None, max_tokens: int = 6, temperature: float = 0.9, **options: Any,
) -> RunPlan:  # fmt: skip
    """A plan over a probe file with decoding groups of three."""
    return RunPlan(
        arms=tuple(build_arms(str(model), kernels=kernels, adapters=adapters)),
        probes=tuple(read_probes(probes, limit)),
        probe_file=str(probes),
        settings=GenerationSettings(max_tokens=max_tokens, temperature=temperature),
        **{"group_size": 3, **options},
    )


def rows_of(run: Path) -> list[dict[str, Any]]:
    """The lines of records.jsonl, in file order."""
    return [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]


def cells(run: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """The last line of every key without its time of writing, sorted by key."""
    rows = {(row["arm"], row["probe_id"], row["repeat"]): {**row, "ts": None} for row in rows_of(run)}
    return dict(sorted(rows.items()))


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the lock, whose content names the last process that asked for it."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}
