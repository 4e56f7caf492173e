"""The stages of scripts/build_nano.py; each returns an exit code."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from random import Random

import tokenizers

from . import accept, card, corpus, network, rough, tokenizer, train
from .texts import read_texts

ROWS = 92_000
SEED = 11
VOCABULARY = 5632
HELD_OUT = 300
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")


@dataclass(frozen=True)
class Plan:
    """Where things are and how much of them."""

    root: Path
    work: Path
    output: Path
    rows: int
    seed: int
    run: Path | None
    adapter: Path | None
    placebo: Path | None


def make_corpus(plan: Plan) -> int:
    """Writes corpus.jsonl and heldout.jsonl and prints how well the corpus covers the words of training/."""
    plan.work.mkdir(parents=True, exist_ok=True)
    texts = read_texts()
    _dump(plan.work / "corpus.jsonl", corpus.rows(texts, plan.seed, plan.rows))
    writer = corpus.Writer(texts)
    fresh = (writer.row(Random(f"held out/{plan.seed}/{i}"), 0.06, 0.12, 1500) for i in range(10 * HELD_OUT))
    _dump(plan.work / "heldout.jsonl", islice((row for row in fresh if row.kind != "passage"), HELD_OUT))
    words: Counter[str] = Counter()
    for messages in _load(plan.work / "corpus.jsonl"):
        for _, text in messages:
            words.update(_WORD.findall(text.lower()))
    print(f"corpus: {plan.rows} rows, {sum(words.values())} words, {len(words)} distinct")
    wanted = training_words(plan.root / "training")
    if wanted:
        share = sum(n for word, n in wanted.items() if words[word] >= 20) / sum(wanted.values())
        print(
            f"coverage: {share:.2%} of {sum(wanted.values())} word tokens of training/ occur 20 times or more (bar 95%)"
        )
    return 0


def training_words(folder: Path) -> Counter[str]:
    """Word counts over every message of every JSONL file under `training/`."""
    found: Counter[str] = Counter()
    for path in sorted(folder.rglob("*.jsonl")):
        for line in path.read_text().splitlines():
            for message in json.loads(line).get("messages", []):
                found.update(_WORD.findall(message["content"].lower()))
    return found


def make_tokenizer(plan: Plan) -> int:
    """Trains the tokenizer on every fourth of the first `PACE` rows of the corpus."""
    sample = islice(_load(plan.work / "corpus.jsonl"), 0, corpus.PACE, 4)
    made = tokenizer.train((text for messages in sample for _, text in messages), VOCABULARY)
    tokenizer.save(made, plan.work)
    tokenizer.save(made, plan.output)
    return 0


def make_model(plan: Plan) -> int:
    """Trains, resuming from the checkpoint in the work folder."""
    made = tokenizers.Tokenizer.from_file(str(plan.work / "tokenizer.json"))
    schedule = train.Schedule()
    numbered = enumerate(_load(plan.work / "corpus.jsonl"))
    encoded = (_encode(made, index, messages, schedule) for index, messages in numbered)
    rows = [row for row in encoded if row is not None]
    held_out = [tokenizer.encode(made, messages) for messages in _load(plan.work / "heldout.jsonl")]
    print(json.dumps({"tokens": sum(len(ids) for ids, _ in rows), **asdict(schedule)}), flush=True)
    model = train.fit(rows, held_out, VOCABULARY, plan.work, schedule)
    (plan.work / "result.json").write_text(
        json.dumps(
            {
                "held_out_nll": train.evaluate(model, held_out),
                "tokens": sum(len(i) for i, _ in rows),
                "held_out": len(held_out),
                "parameters": network.count(model),
                "rows": plan.rows,
                "steps": schedule.steps,
                "seed": plan.seed,
                "peak_rate": schedule.peak_rate,
                "tokens_per_step": schedule.tokens_per_step,
            }
        )
    )
    return 0


def _encode(
    made: tokenizers.Tokenizer, index: int, messages: list[tuple[str, str]], schedule: train.Schedule
) -> train.Encoded | None:
    """A row as it is trained on at its place in the corpus, or None if it is left out there."""
    random = Random(f"rough/{schedule.seed}/{index}")
    whole = index >= schedule.whole_from_row
    if whole and rough.copies_long_words(made, messages):
        return None
    if index >= schedule.rough_from_row and random.random() < schedule.rough_share:
        return rough.encode(made, messages, random, copied=not whole)
    return tokenizer.encode(made, messages)


def export(plan: Plan) -> int:
    """Writes the checkpoint of the work folder as a model that mlx_lm.load reads."""
    model = network.build(VOCABULARY, 0)
    train.load_weights(model, plan.work / "state.safetensors")
    train.export(model, VOCABULARY, plan.output)
    made = tokenizers.Tokenizer.from_file(str(plan.work / "tokenizer.json"))
    tokenizer.save(made, plan.output)
    return 0


def check(plan: Plan) -> int:
    """Prints the acceptance table of a benchmark run and, with adapters, the NLL comparison; 1 if a bar is missed."""
    if plan.run is None:
        raise SystemExit("check needs the run directory of a ./lem benchmark")
    probes = accept.read_probes(plan.root / "seeds" / "P01-P100.json")
    vocabulary = accept.shipped_vocabulary(plan.root)
    rows = [accept.figures(arm, found, probes, vocabulary) for arm, found in accept.read_answers(plan.run).items()]
    print(accept.table(rows))
    text, held = compare_nll(plan)
    print(text)
    plan.work.mkdir(parents=True, exist_ok=True)
    (plan.work / "nll.txt").write_text(text + "\n")
    return int(not held or any(row.missed() for row in rows))


def compare_nll(plan: Plan) -> tuple[str, bool]:
    """One line per comparison of test NLL, and whether all of them hold; without adapters nothing is claimed."""
    if plan.adapter is None:
        return "NLL of training/test.jsonl: not measured (give --adapter and --placebo-adapter)", True
    test = plan.root / "training" / "test.jsonl"
    trained = accept.nll(plan.output, plan.adapter, test)
    lines, held = [_recipe(plan.adapter)], True
    for name, other in (("base", None), ("placebo-trained", plan.placebo)):
        if name != "base" and other is None:
            continue
        losses = accept.nll(plan.output, other, test)
        found = accept.gap(trained, losses)
        held = held and found.holds()
        lines.append(
            f"NLL of training/test.jsonl, trained {sum(trained) / len(trained):.3f} against {name} "
            f"{sum(losses) / len(losses):.3f}: {found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}] "
            f"{'pass' if found.holds() else 'missed'} (paired, 95% BCa, n {len(trained)})"
        )
    return "\n\n".join(lines), held


def _recipe(adapter: Path) -> str:
    """How the trained arm's adapter was made, in one line."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    how, lora = config["training"], config["lora_parameters"]
    return (
        f"Trained arms: LoRA of rank {lora['rank']}, scale {lora['scale']:g}, {how['iters']} iterations of "
        f"{how['batch_size']} conversations, learning rate {how['learning_rate']:g}."
    )


def make_card(plan: Plan) -> int:
    """Writes README.md beside the model, with the run's figures if a run directory is given."""
    result = json.loads((plan.work / "result.json").read_text())
    nll = plan.work / "nll.txt"
    extra = nll.read_text().strip() if nll.exists() else ""
    text = card.write(plan.output, result, plan.run, plan.root / "seeds" / "P01-P100.json", plan.root, extra)
    (plan.output / "README.md").write_text(text)
    return 0


STAGES: dict[str, Callable[[Plan], int]] = {
    "corpus": make_corpus,
    "tokenizer": make_tokenizer,
    "train": make_model,
    "export": export,
    "check": check,
    "card": make_card,
}


def _dump(path: Path, rows: Iterator[corpus.Row]) -> None:
    with path.open("w") as file:
        for row in rows:
            chat = [{"role": role, "content": text} for role, text in row.messages]
            file.write(json.dumps({"kind": row.kind, "messages": chat}) + "\n")


def _load(path: Path) -> Iterator[list[tuple[str, str]]]:
    with path.open() as file:
        for line in file:
            yield [(m["role"], m["content"]) for m in json.loads(line)["messages"]]
