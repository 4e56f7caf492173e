"""Benchmarks: ours and a peer in one run, medians, one line per figure (`NAME ours A, peer B, ratio R.RRx`).

    .venv/bin/python scripts/bench.py ab|engine [--model DIR] [--runs 3] [--lengths 48,128,256]
    .venv/bin/python scripts/bench.py train [--runs 3] [--parts freeflow,sandwich,nano,scaling] [--rows 8] [--layers 6]
    .venv/bin/python scripts/bench.py mc [--model DIR] [--runs 3] [--probes 40]
    .venv/bin/python scripts/bench.py scale [--sizes 5500,11000,22000,44000,88000] [--stages v2,v2-one]

ab      A/B over the probes (base, json, txt): our engine against one-by-one `mlx_lm.generate`, same prompts, same
        number of new tokens (stop tokens off), same sampling settings, prefill included on both sides. Loading and
        starting (weights, worker processes) happens before the clock starts, on both sides.
engine  our `generate` against a bare `BatchGenerator` with the same groups, prefix cache and one sampler per row.
mc      log-likelihoods of multiple-choice answers against one forward pass for each; see scripts/bench_mc.py.
train   our trainer against mlx-lm's, time and peak memory; see scripts/bench_training.py.
scale   writing, reading, scoring and comparing runs of up to 88,000 probes x 2 arms; see scripts/bench_scale.py.

A ratio above 1 means that ours is faster. Times include everything from tokens to text. Nothing here fails by the
clock: benchmarks report, tests check.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import mlx.core as mx
from mlx_lm import generate as peer_generate
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.sample_utils import make_sampler

from bench_mc import bench_mc
from bench_scale import bench_scale
from bench_training import bench_training
from lem.ab.arms import build_arms
from lem.chat.generate import GenerationSettings, Prefix, Request, generate, prefix_of
from lem.chat.load import ChatModel, load
from lem.data import read_probes
from lem.paths import repository_root
from lem.records import Key
from lem.runs.groups import MAX_GROUP, Row, cut_groups
from lem.runs.plan import RenderedArm, RunPlan, render_arm
from lem.runs.workers import Decoder, Job, WorkerPool, open_decoder

ROOT = repository_root()
KERNELS = (f"json={ROOT / 'kernel/axioms.json'}", f"txt={ROOT / 'kernel/lek-1-kernel.txt'}")


@dataclass(frozen=True)
class Workload:
    """An arm's requests, cut into the decoding groups that a real run would use."""

    arm: str
    groups: list[list[Request]]

    @property
    def requests(self) -> list[Request]:
        """All requests, group after group."""
        return [request for group in self.groups for request in group]

    @property
    def jobs(self) -> list[Job]:
        """The groups as jobs that share the arm's prefix."""
        prefix = prefix_of([request.tokens for request in self.requests])
        return [Job(f"{self.arm}/{number}", tuple(group), prefix) for number, group in enumerate(self.groups)]


def workloads(chat: ChatModel, model: str, n_probes: int | None, settings: GenerationSettings) -> list[Workload]:
    """Render base, json and txt over the probes and cut them as `lem benchmark` does."""
    probes = read_probes(ROOT / "seeds" / "P01-P100.json", n_probes)
    plan = RunPlan(tuple(build_arms(model, kernels=KERNELS)), tuple(probes), "P01-P100.json", settings)
    return [_workload(render_arm(plan, arm, chat)) for arm in plan.arms]


def _workload(rendered: RenderedArm) -> Workload:
    rows = [Row(key, len(request.tokens)) for key, request in rendered.requests.items()]
    groups = cut_groups(rows, {}, MAX_GROUP)
    keyed = [[Key(group["arm"], probe, 0) for probe in group["probes"]] for group in groups.values()]
    requests = {key: Request(key, r.tokens, r.seed) for key, r in rendered.requests.items()}
    return Workload(rendered.arm.name, [[requests[key] for key in keys] for keys in keyed])


Side = Callable[[ChatModel, Workload, GenerationSettings], int]


def ours(chat: ChatModel, work: Workload, settings: GenerationSettings) -> int:
    """Our engine in this process; returns the number of new tokens."""
    return sum(len(done.tokens) for done in generate(chat, work.groups, settings))


def ours_as_run(decoder: Decoder | WorkerPool) -> Side:
    """What `lem benchmark` does with the same groups: in worker processes on a CPU, in this process on a GPU."""

    def decode(chat: ChatModel, work: Workload, settings: GenerationSettings) -> int:
        answers = decoder.decode(work.jobs, settings)
        return sum(len(completion.tokens) for _, completion in answers if completion is not None)

    return decode


def one_by_one(chat: ChatModel, work: Workload, settings: GenerationSettings) -> int:
    """`mlx_lm.generate`, one prompt after another, without stop tokens."""
    stop, chat.tokenizer._eos_token_ids = chat.tokenizer._eos_token_ids, set()
    try:
        for request in work.requests:
            sampler = make_sampler(temp=settings.temperature, top_p=settings.top_p)
            peer_generate(
                chat.model, chat.tokenizer, list(request.tokens), max_tokens=settings.max_tokens, sampler=sampler
            )
    finally:
        chat.tokenizer._eos_token_ids = stop
    return len(work.requests) * settings.max_tokens


def bare_batch(chat: ChatModel, work: Workload, settings: GenerationSettings) -> int:
    """A bare `BatchGenerator` on the same groups: prefix cache copied per row, one keyed sampler per row."""
    prefix = prefix_of([request.tokens for request in work.requests])
    cache = Prefix(prefix).cache(chat)
    count = 0
    for group in work.groups:
        batch = BatchGenerator(chat.model, completion_batch_size=len(group), prefill_batch_size=len(group))
        batch.insert(
            [list(request.tokens[len(prefix) :]) for request in group],
            max_tokens=[settings.max_tokens] * len(group),
            caches=[cache] * len(group) if cache else [make_prompt_cache(chat.model) for _ in group],
            samplers=[_row_sampler(request.seed, settings) for request in group],
        )
        texts: dict[int, list[int]] = {}
        while responses := batch.next_generated():
            for response in responses:
                texts.setdefault(response.uid, []).append(response.token)
                count += 1
        for tokens in texts.values():
            chat.tokenizer.decode(tokens)
        batch.close()
    return count


def _row_sampler(seed: int, settings: GenerationSettings) -> Callable[[mx.array], mx.array]:
    """A sampler with its own key, built from mlx-lm's parts."""
    from mlx_lm.sample_utils import apply_top_p

    state = [mx.random.key(seed % 2**32)]

    def sample(logprobs: mx.array) -> mx.array:
        state[0], key = mx.random.split(state[0])
        kept = apply_top_p(logprobs, settings.top_p) if settings.top_p < 1 else logprobs
        return mx.random.categorical(kept / settings.temperature, key=key)

    return sample


def measure(
    chat: ChatModel, work: Workload, settings: GenerationSettings, sides: tuple[Side, Side], runs: int
) -> tuple[float, float]:
    """Median seconds of each side over `runs` interleaved runs; both must make the same number of tokens."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        counts = []
        for side, found in zip(sides, times, strict=True):
            start = perf_counter()
            counts.append(side(chat, work, settings))
            found.append(perf_counter() - start)
        if counts[0] != counts[1]:
            raise SystemExit(f"{work.arm}: {counts[0]} tokens against {counts[1]}; the comparison would be unfair")
    return statistics.median(times[0]), statistics.median(times[1])


def bench(name: str, lengths: list[int], options: argparse.Namespace) -> None:
    """Measure every arm at every length and print one line each, and one for all arms together."""
    chat = load(options.model)
    warm = GenerationSettings(max_tokens=2, temperature=0.7, top_p=0.95, stop=False)
    for length in lengths:
        settings = GenerationSettings(max_tokens=length, temperature=0.7, top_p=0.95, stop=False)
        works = workloads(chat, options.model, options.probes, settings)
        jobs = [job for work in works for job in work.jobs]
        with open_decoder(options.model, None, jobs, settings) as decoder:
            sides = (ours_as_run(decoder), one_by_one) if name == "ab" else (ours, bare_batch)
            for side in sides:
                side(chat, Workload("warm-up", [group[:2] for group in works[0].groups]), warm)
            total = [0.0, 0.0]
            for work in works:
                seconds = measure(chat, work, settings, sides, options.runs)
                total = [total[0] + seconds[0], total[1] + seconds[1]]
                _print(f"{name}-{work.arm}-{length}", *seconds)
            _print(f"{name}-all-{length}", total[0], total[1])


def _print(name: str, mine: float, peer: float) -> None:
    print(f"{name} ours {mine:.2f} s, peer {peer:.2f} s, ratio {peer / mine:.2f}x", flush=True)


def main() -> None:
    """Parse the command line and run one benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["ab", "engine", "mc", "train", "scale"])
    parser.add_argument("--model", default=str(ROOT / "models" / "lem-nano"))
    parser.add_argument("--runs", type=int, default=3, help="runs of each side; the median counts")
    parser.add_argument("--probes", type=int, help="first N probes only; of mc: questions, 40 by default")
    parser.add_argument("--lengths", default=None, help="new tokens, comma-separated")
    parser.add_argument("--parts", default="freeflow,sandwich,nano,scaling", help="of train")
    parser.add_argument("--rows", type=int, default=8, help="of train: examples, two a step")
    parser.add_argument("--layers", type=int, default=6, help="of train: blocks of the random model")
    parser.add_argument("--sizes", default="5500,11000,22000,44000,88000", help="of scale: probes, two arms each")
    parser.add_argument("--stages", help="of scale: some of them, comma-separated; see scripts/bench_scale.py")
    options = parser.parse_args()
    others = {"mc": bench_mc, "train": bench_training, "scale": bench_scale}
    if options.what in others:
        others[options.what](options)
        return
    lengths = [
        int(part) for part in (options.lengths or {"ab": "48,128,256", "engine": "128"}[options.what]).split(",")
    ]
    if not Path(options.model).exists():
        raise SystemExit(f"{options.model}: no such model folder")
    bench(options.what, lengths, options)


if __name__ == "__main__":
    main()
