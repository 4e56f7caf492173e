"""`scripts/bench.py scale`: store and scoring of large runs, and that their cost grows with the number of records.

A run of N probes x {base, json} is written with made answers of about 1.4 kB (sentences of the training data in random
order), through the writer that `lem benchmark` uses. Then, each stage in a process of its own, with its time and its
peak memory:

    write     appending the records, one by one, and the manifest
    read      `read_run`
    v2, v3    `score_run` in as many processes as there are cores, with reading and writing; the peer is the same pass
              in one process
    join      `read_contents` and one outcome for every cell and metric
    compare   `lem.ab.compare.compare` with both scorers

A line for each scorer and size; then the curve: seconds, processor microseconds a record (which other work on the
machine disturbs least), and peak memory. v3's peer and the comparison are left out at larger sizes once they took a
minute; a stage may use 8 GB.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from lem.paths import repository_root

ROOT = repository_root()
ARMS = ("base", "json")
ANSWER_CHARS = 1_400
STAGES = ("write", "read", "v2", "v2-one", "v3", "v3-one", "join", "compare")
SLOW = {"v3-one", "compare"}
ENOUGH_S = 60.0
MEMORY_BYTES = 8 * 10**9
NOTHING = {"seconds": float("nan"), "cpu_s": float("nan"), "peak_mb": float("nan")}


def bench_scale(options: Namespace) -> None:
    """Measure every stage at every size; print one line a figure, then the curve."""
    curve: list[dict[str, Any]] = []
    stages = STAGES if options.stages is None else tuple(options.stages.split(","))
    for size in (int(word) for word in options.sizes.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            left_out = {stage for stage in SLOW if curve and not curve[-1][stage]["seconds"] < ENOUGH_S}
            wanted = {"write", *stages} - left_out
            found = {
                stage: _apart(stage, Path(folder) / "run", size) if stage in wanted else NOTHING for stage in STAGES
            }
            found["write"]["bytes"] = (Path(folder) / "run" / "records.jsonl").stat().st_size
        for scorer in ("v2", "v3"):
            mine, peer = found[scorer]["seconds"], found[f"{scorer}-one"]["seconds"]
            if scorer not in wanted:
                continue
            print(f"scale-{scorer}-{size} ours {mine:.2f} s, peer {peer:.2f} s, ratio {peer / mine:.2f}x", flush=True)
        curve.append({"probes": size, **found})
    _print_curve(curve)


def _apart(stage: str, run: Path, size: int) -> dict[str, Any]:
    """Run one stage in a process of its own; returns its seconds and peak megabytes (without worker processes)."""
    command = [sys.executable, __file__, stage, str(run), str(size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return NOTHING  # its traceback is on standard error
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _print_curve(curve: list[dict[str, Any]]) -> None:
    print("\n| probes x arms | MB | " + " | ".join(f"{stage}, s" for stage in STAGES) + " |")
    print("|---" * (len(STAGES) + 2) + "|")
    for row in curve:
        cells = [f"{row[stage]['seconds']:.2f}" for stage in STAGES]
        print(f"| {row['probes']:,} x 2 | {row['write']['bytes'] / 1e6:.0f} | " + " | ".join(cells) + " |")
    for title, cell in (("processor microseconds a record", _micros), ("peak memory, MB", _peak)):
        print(f"\n| {title} | " + " | ".join(STAGES) + " |")
        print("|---" * (len(STAGES) + 1) + "|")
        for row in curve:
            print(f"| {row['probes']:,} x 2 | " + " | ".join(cell(row, stage) for stage in STAGES) + " |")


def _micros(row: dict[str, Any], stage: str) -> str:
    return f"{1e6 * row[stage]['cpu_s'] / (len(ARMS) * row['probes']):.0f}"


def _peak(row: dict[str, Any], stage: str) -> str:
    return f"{row[stage]['peak_mb']:.0f}"


def sentences() -> list[str]:
    """Sentences of the training data's replies, in the order of the file."""
    replies = [
        turn["content"]
        for line in (ROOT / "training" / "train.jsonl").read_text(encoding="utf-8").splitlines()
        for turn in json.loads(line)["messages"]
        if turn["role"] == "assistant"
    ]
    return [sentence for reply in replies for sentence in re.split(r"(?<=[.!?])\s+", reply) if sentence]


def answer(known: list[str], number: int) -> str:
    """About 1.4 kB of sentences in paragraphs; the same for the same number."""
    draw = random.Random(number)
    parts: list[str] = []
    length = 0
    while length < ANSWER_CHARS:
        parts.append(known[draw.randrange(len(known))] + draw.choice((" ", " ", " ", "\n\n")))
        length += len(parts[-1])
    return "".join(parts).strip()


def write_run(path: Path, n_probes: int) -> float:
    """Write the run; returns the seconds of the writing alone."""
    from lem.records import Key, Record, open_run, text_sha
    from lem.records.run import now
    from lem.runs.groups import Row, cut_groups

    known = sentences()
    asked = json.loads((ROOT / "seeds" / "P01-P100.json").read_text(encoding="utf-8"))
    probes = [{**asked[i % len(asked)], "id": f"S{i:06d}"} for i in range(n_probes)]
    kernel = {"role": "system", "content": (ROOT / "kernel" / "axioms.json").read_text(encoding="utf-8").strip()}
    spent = 0.0
    with open_run(path, "benchmark", path.name) as run:
        rows = [Row(Key(arm, probe["id"], 0), len(probe["prompt"]) // 4) for arm in ARMS for probe in probes]
        run.info.groups = cut_groups(rows, {}, 64)
        for group in run.info.groups.values():
            group["prefix_tokens"] = 0
        run.info.arms = {arm: {"model": "made", "identity": {"model": "made"}, "kernel": None} for arm in ARMS}
        run.info.probes = [{name: probe[name] for name in ("id", "domain", "prompt")} for probe in probes]
        run.info.settings = {"max_tokens": 512, "temperature": 0.7, "top_p": 0.95, "repeats": 1, "seed": 42}
        run.info.data = {"probe_file": "made", "probe_sha": "", "n_probes": n_probes}
        texts = {probe["id"]: probe["prompt"] for probe in probes}
        number = 0
        for name, group in run.info.groups.items():
            head = (kernel,) if group["arm"] == "json" else ()
            for probe in group["probes"]:
                number += 1
                text = answer(known, number)
                messages = (*head, {"role": "user", "content": texts[probe]})
                record = Record(
                    run_id=path.name, arm=group["arm"], probe_id=probe, repeat=0, response=text, group=name,
                    fingerprint=text_sha(texts[probe])[:16], messages=messages, prompt_sha=text_sha(texts[probe]),
                    finish_reason="stop", n_prompt_tokens=100, n_tokens=350, seed="0" * 16, ts=now(),
                )  # fmt: skip
                start = perf_counter()
                run.append(record)
                spent += perf_counter() - start
            start = perf_counter()
            run.store.sync()
            spent += perf_counter() - start
        start = perf_counter()
        run.save("done")
        return spent + perf_counter() - start


def _read(path: Path) -> None:
    from lem.records import read_run

    read_run(path)


def _score(scorer: str, one: bool) -> Callable[[Path], None]:
    def score(path: Path) -> None:
        from lem.scorers import passes

        if one:
            passes.POOL_FROM_S = float("inf")
        passes.score_run(path, [scorer])

    return score


def _join(path: Path) -> None:
    from lem.records import metrics_of
    from lem.records.contents import read_contents

    assert all(metric.cells for metric in metrics_of(read_contents(path)))


def _compare(path: Path) -> None:
    from lem.ab.compare import Options, compare
    from lem.records.contents import read_contents

    compare(read_contents(path), Options(baseline="base"))


WORK: dict[str, Callable[[Path], None]] = {
    "read": _read,
    "v2": _score("v2", False),
    "v2-one": _score("v2", True),
    "v3": _score("v3", False),
    "v3-one": _score("v3", True),
    "join": _join,
    "compare": _compare,
}


def peak_mb() -> float:
    """This process's peak resident memory in megabytes (10^6 bytes)."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024 / 1e6
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


def main() -> None:
    """Run one stage and print its figures as JSON."""
    import resource

    stage, path, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    if stage == "write":
        seconds = write_run(path, size)
    else:
        start = perf_counter()
        WORK[stage](path)
        seconds = perf_counter() - start
    used = os.times()
    cpu = used.user + used.system + used.children_user + used.children_system
    print(json.dumps({"seconds": seconds, "cpu_s": cpu, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()
