"""`scripts/bench.py train`: our trainer against mlx-lm's on the same rows, each side in a process of its own.

    freeflow, sandwich   a random Gemma-3-270M-shaped model (hidden 640, vocabulary 262,144, fewer layers), examples of
                         training/train.jsonl, batch 2; time of the steps, and peak memory beyond the weights
    nano                 lem-nano on the same file
    scaling              one row of 512, 1024, 2048 and 4096 tokens, half of them reply

mlx-lm's side is `mlx_lm.tuner.trainer.train` with the data classes and the optimiser that `mlx_lm lora` uses. Every
side trains one step before the clock starts. Validation and saving are off on both sides.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lem.paths import repository_root

ROOT = repository_root()
NANO = ROOT / "models" / "lem-nano"
SCALING = (512, 1024, 2048, 4096)


def make_gemma(folder: Path, layers: int) -> None:
    """Write a random float32 model of Gemma-3-270M's shape, with `layers` blocks and lem-nano's tokenizer."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.models import gemma3_text

    config = {
        "model_type": "gemma3_text", "hidden_size": 640, "num_hidden_layers": layers, "intermediate_size": 2048,
        "num_attention_heads": 4, "head_dim": 256, "num_key_value_heads": 1, "rms_norm_eps": 1e-6,
        "vocab_size": 262144, "sliding_window": 512, "sliding_window_pattern": 6, "max_position_embeddings": 32768,
        "query_pre_attn_scalar": 256, "rope_theta": 1000000.0, "tie_word_embeddings": True,
    }  # fmt: skip
    mx.random.seed(0)
    model = gemma3_text.Model(gemma3_text.ModelArgs.from_dict(config))
    folder.mkdir(parents=True)
    weights: Any = dict(tree_flatten(model.parameters()))
    weights.pop("lm_head.weight", None)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": _nano_config()["eos_token_id"]}))
    for file in NANO.iterdir():
        if file.name.startswith(("tokenizer", "special_tokens", "chat_template")):
            shutil.copy(file, folder / file.name)


def _nano_config() -> dict[str, Any]:
    config: dict[str, Any] = json.loads((NANO / "config.json").read_text())
    return config


def write_data(folder: Path, n: int | None, kernel: bool) -> None:
    """Every k-th row of training/train.jsonl, as it is or as a sandwich with the axioms kernel."""
    from lem.chat.render import conversation

    lines = (ROOT / "training" / "train.jsonl").read_text().splitlines()
    step = 1 if n is None else len(lines) // n
    axioms = (ROOT / "kernel" / "axioms.json").read_text().strip()
    signature = (ROOT / "kernel" / "lek-1-sig.txt").read_text().strip()
    folder.mkdir(parents=True)
    with open(folder / "train.jsonl", "w") as file:
        for line in lines[::step][:n]:
            messages = json.loads(line)["messages"]
            if kernel:
                messages = [*conversation(messages[0]["content"], axioms, "sandwich", signature), *messages[1:]]
            file.write(json.dumps({"messages": messages}) + "\n")


def run_side(side: str, job: dict[str, Any]) -> dict[str, float]:
    """Run one side in a fresh process; returns seconds, reply tokens and peak bytes beyond the weights."""
    code = [sys.executable, str(Path(__file__).resolve()), side, json.dumps(job)]
    done = subprocess.run(code, capture_output=True, text=True, env=os.environ, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{side} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def ours(job: dict[str, Any]) -> dict[str, float]:
    """Our trainer on a job."""
    import mlx.core as mx

    from lem.chat.load import load
    from lem.training.loop import Hooks
    from lem.training.settings import make_settings
    from lem.training.train import train

    peak = 0
    metrics: list[dict[str, Any]] = []
    base = 0
    for data, iters in ((job["warm"], 1), (job["data"], job["iters"])):
        chat = load(job["model"])
        mx.clear_cache()
        base = mx.get_active_memory()
        mx.reset_peak_memory()
        metrics = []
        settings = make_settings(
            {"iters": iters, "batch_size": job["batch"], "bias_correction": False, "report_every": 1,
             "save_every": 10**6, "max_seq_length": 8192}
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            train(chat, Path(data), Path(folder) / "a", settings, hooks=Hooks(on_metric=metrics.append))
        peak = mx.get_peak_memory() - base
        del chat
    rows = [row for row in metrics if row["kind"] == "train"]
    seconds = sum(row["n_tokens"] / row["tokens_per_s"] for row in rows)
    return {"seconds": seconds, "tokens": sum(row["n_tokens"] for row in rows), "peak": peak}


def peer(job: dict[str, Any]) -> dict[str, float]:
    """mlx-lm's trainer on the same rows, settings and number of steps."""
    import mlx.core as mx
    import mlx.optimizers as optim
    from mlx_lm.tuner.callbacks import TrainingCallback
    from mlx_lm.tuner.datasets import CacheDataset, ChatDataset
    from mlx_lm.tuner.trainer import TrainingArgs, train
    from mlx_lm.tuner.utils import linear_to_lora_layers

    from lem.chat.load import load

    reports: list[dict[str, Any]] = []

    class Collect(TrainingCallback):  # type: ignore[misc]
        def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
            reports.append(train_info)

    base = peak = 0
    for data, iters in ((job["warm"], 1), (job["data"], job["iters"])):
        chat = load(job["model"])
        mx.clear_cache()
        base = mx.get_active_memory()
        mx.reset_peak_memory()
        reports.clear()
        chat.model.freeze()
        linear_to_lora_layers(chat.model, len(chat.model.layers), {"rank": 8, "scale": 20.0, "dropout": 0.0})
        rows = [json.loads(line) for line in (Path(data) / "train.jsonl").read_text().splitlines()]
        dataset = CacheDataset(ChatDataset(rows, chat.tokenizer, mask_prompt=True))
        with tempfile.TemporaryDirectory() as folder:
            args = TrainingArgs(
                batch_size=job["batch"], iters=iters, steps_per_report=1, steps_per_save=10**6, max_seq_length=8192,
                adapter_file=str(Path(folder) / "adapters.safetensors"),
            )  # fmt: skip
            train(chat.model, optim.Adam(learning_rate=1e-5), dataset, None, args, training_callback=Collect())
        peak = mx.get_peak_memory() - base
        del chat
    seconds = sum(1 / report["iterations_per_second"] for report in reports)
    return {"seconds": seconds, "tokens": reports[-1]["trained_tokens"], "peak": peak}


def compare(name: str, job: dict[str, Any], runs: int) -> None:
    """Run both sides `runs` times in turn; print the ratio of median times and of peak memory."""
    import statistics

    sides: dict[str, list[dict[str, float]]] = {"ours": [], "peer": []}
    for _ in range(runs):
        for side, found in sides.items():
            found.append(run_side(side, job))
    mine, other = (statistics.median(run["seconds"] for run in sides[side]) for side in ("ours", "peer"))
    peak, peak_other = (max(run["peak"] for run in sides[side]) / 1e9 for side in ("ours", "peer"))
    tokens = sides["ours"][0]["tokens"]
    print(
        f"train-{name}-time ours {mine:.2f} s, peer {other:.2f} s, ratio {other / mine:.2f}x   "
        f"({tokens / mine:.0f} reply tokens/s)\n"
        f"train-{name}-memory ours {peak:.3f} GB, peer {peak_other:.3f} GB, ratio {peak / peak_other:.2f}x",
        flush=True,
    )


def write_scaling(folder: Path, n_tokens: int) -> None:
    """One chat row of about `n_tokens` tokens of lem-nano's tokenizer, half of them reply."""
    from lem.chat.load import load

    text = " ".join(
        json.loads(line)["messages"][1]["content"]
        for line in (ROOT / "training" / "train.jsonl").read_text().splitlines()
    )
    tokenizer = load(str(NANO), weights=False).tokenizer
    tokens = tokenizer.encode(text, add_special_tokens=False)
    half = n_tokens // 2 - 8
    turns = [tokenizer.decode(tokens[:half]), tokenizer.decode(tokens[half : 2 * half])]
    folder.mkdir(parents=True)
    messages = [{"role": role, "content": turn} for role, turn in zip(("user", "assistant"), turns, strict=True)]
    (folder / "train.jsonl").write_text(json.dumps({"messages": messages}) + "\n")


def bench_training(options: Namespace) -> None:
    """Run the chosen parts."""
    parts: Sequence[str] = options.parts.split(",")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = folder / "gemma"
        make_gemma(model, options.layers)
        for kind in ("freeflow", "sandwich"):
            write_data(folder / f"warm-{kind}", 2, kind == "sandwich")
            write_data(folder / kind, options.rows, kind == "sandwich")
            if kind in parts:
                job = {"model": str(model), "warm": str(folder / f"warm-{kind}"), "data": str(folder / kind),
                       "iters": options.rows // 2, "batch": 2}  # fmt: skip
                compare(kind, job, options.runs)
        if "nano" in parts:
            write_data(folder / "all", None, False)
            job = {"model": str(NANO), "warm": str(folder / "warm-freeflow"), "data": str(folder / "all"),
                   "iters": 80, "batch": 2}  # fmt: skip
            compare("nano", job, options.runs)
        if "scaling" in parts:
            for length in SCALING:
                write_scaling(folder / f"row-{length}", length)
                data = str(folder / f"row-{length}")
                compare(
                    f"{length}-tokens", {"model": str(model), "warm": data, "data": data, "iters": 1, "batch": 1}, 1
                )


if __name__ == "__main__":
    print(json.dumps({"ours": ours, "peer": peer}[sys.argv[1]](json.loads(sys.argv[2]))))
