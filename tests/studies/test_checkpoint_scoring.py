"""Scoring checkpoints on the way: the answers are the model's own, the figures hold, and training never notices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from lem.chat.generate import Completion, GenerationSettings
from lem.chat.load import ChatModel, load
from lem.data import Probe, read_probes
from lem.errors import UserError
from lem.scorers import v2, v3
from lem.stats import headline
from lem.studies import checkpoint_scoring
from lem.studies.checkpoint_scoring import probe_evaluator
from lem.training.settings import TrainingSettings
from lem.training.train import Hooks, train
from small_plan import write_probes

ASKING = GenerationSettings(max_tokens=8, temperature=0.9)
# High enough that the answers change within four steps; dropout, because it is what the train mode and random state do.
RECIPE = TrainingSettings(
    iters=4, batch_size=2, learning_rate=1e-2, dropout=0.3, eval_every=2, save_every=2, report_every=1
)


@pytest.fixture
def probes(world: Path) -> list[Probe]:
    """Prompts that open alike, so that a shared prefix is cached."""
    return read_probes(write_probes(world / "long.json", 6, word="please consider"))


def trained(model: Path, world: Path, probes: list[Probe] | None) -> tuple[Path, ChatModel]:
    chat, output = load(str(model)), world / ("scored" if probes else "plain")
    score = probe_evaluator(chat, probes, ASKING, 42, output) if probes else None
    train(chat, world / "data", output, RECIPE, hooks=Hooks(on_evaluate=score))
    return output, chat


def rows_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def answers_of(folder: Path, iteration: int) -> list[dict[str, Any]]:
    text = (folder / "probes" / f"{iteration:07d}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_training_with_and_without_scoring_ends_in_the_same_bits(model: Path, world: Path, probes: list[Probe]) -> None:
    scored, _ = trained(model, world, probes)
    plain, _ = trained(model, world, None)
    assert [row["iteration"] for row in rows_of(scored, "probe")] == [0, 2, 4]
    assert rows_of(plain, "probe") == []
    for name in ("adapters.safetensors", "0000002_adapters.safetensors", "0000004_optimizer.safetensors"):
        assert (scored / name).read_bytes() == (plain / name).read_bytes()
    losses = [[row["loss"] for row in rows_of(folder, "train")] for folder in (scored, plain)]
    assert losses[0] == losses[1]


def test_the_answers_are_those_of_the_saved_checkpoint(model: Path, world: Path, probes: list[Probe]) -> None:
    output, _ = trained(model, world, probes)
    kept = {
        iteration: [
            json.loads(line) for line in (output / "probes" / f"{iteration:07d}.jsonl").read_text().splitlines()
        ]
        for iteration in (0, 2, 4)
    }
    assert [row["probe_id"] for row in kept[4]] == [probe.id for probe in probes]
    assert [row["prompt"] for row in kept[4]] == [probe.prompt for probe in probes]
    again = probe_evaluator(load(str(model), output), probes, ASKING, 42, world / "again")(4)
    assert answers_of(world / "again", 4) == kept[4]
    assert {**again} == rows_of(output, "probe")[-1]
    texts = [[row["response"] for row in kept[iteration]] for iteration in (0, 2, 4)]
    assert texts[0] != texts[1] != texts[2]  # a prefix or cache kept from earlier weights would show here


TEXTS = [
    "The one who asks may wait, however long it takes, and I would rather ask twice than guess once.",
    "no no no no no no no no no no no no no no no no",
    "",
    "Consent is what makes help into help; while it is slow it also lasts.",
    "Nous ne savons pas encore ce que les autres en pensent, et il faut le leur demander avec soin et patience.",
    "A short answer that still has twenty letters in it.",
]


def test_the_row_holds_means_intervals_lengths_and_shares(
    model: Path, probes: list[Probe], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(*args: Any, **options: Any) -> list[Completion]:
        ends = ["stop", "length", "stop", "stop", "length", "stop"]
        made = zip(probes, TEXTS, ends, strict=True)
        return [Completion(probe.id, text, None, (1, 2), end, 3) for probe, text, end in made]

    monkeypatch.setattr(checkpoint_scoring, "generate", answers)
    alone = [Probe(probe.id, probe.id, probe.prompt) for probe in probes]  # own domains: no likeness
    row = probe_evaluator(load(str(model)), alone, ASKING, 42, None)(50)
    expected = [float(v2.score(text)["lek_score"]) for text in TEXTS]
    english = [value for text in TEXTS if (value := v3.score(text).value) is not None]
    assert list(row)[:4] == ["kind", "iteration", "n", "n_unscored"]
    assert (row["kind"], row["iteration"], row["n"], row["n_unscored"], row["n_failed"]) == ("probe", 50, 6, 1, 0)
    assert row["v2"] == pytest.approx(np.mean(expected))
    assert row["v3"] == pytest.approx(np.mean(english))
    assert len(english) == 5
    limits = headline(expected)
    assert (row["v2_low"], row["v2_high"]) == pytest.approx((limits.low, limits.high))
    assert row["words"] == pytest.approx(np.mean([len(text.split()) for text in TEXTS]))
    assert row["degenerate"] == pytest.approx(2 / 6)  # the loop and the empty one
    assert row["truncated"] == pytest.approx(2 / 6)


def test_failed_answers_are_counted_apart_and_without_any_value_is_null(
    model: Path, world: Path, probes: list[Probe], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> list[Completion]:
        return [Completion(probe.id, None, None, (), None, 3, error="out of memory") for probe in probes]

    monkeypatch.setattr(checkpoint_scoring, "generate", fail)
    row = probe_evaluator(load(str(model)), probes, ASKING, 42, world)(1)
    assert (row["n"], row["n_unscored"], row["n_failed"]) == (0, 0, 6)
    assert [row[name] for name in ("v2", "v2_low", "v3", "words", "degenerate", "truncated")] == [None] * 6
    lines = answers_of(world, 1)
    assert {(line["error"], line["response"], line["v2"]) for line in lines} == {("out of memory", None, None)}


def test_modes_random_state_and_weights_are_as_before_even_if_decoding_breaks(
    model: Path, world: Path, probes: list[Probe], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, chat = trained(model, world, None)
    chat.model.train()
    chat.model.layers[0].eval()  # a mixed state must come back mixed
    modes = [module.training for module in chat.model.modules()]
    weights = {name: np.array(value) for name, value in tree_flatten(chat.model.parameters())}
    mx.random.seed(7)
    mx.random.uniform(shape=(3,))
    score = probe_evaluator(chat, probes, ASKING, 42, None)
    state: Any = mx.random.state
    before = state[0].tolist()
    score(1)
    assert state[0].tolist() == before

    def breaks(*args: Any, **options: Any) -> list[Completion]:
        mx.random.uniform(shape=(3,))
        assert not any(module.training for module in chat.model.modules())
        raise RuntimeError("broken")

    monkeypatch.setattr(checkpoint_scoring, "generate", breaks)
    with pytest.raises(RuntimeError, match="broken"):
        score(2)
    assert state[0].tolist() == before
    assert [module.training for module in chat.model.modules()] == modes
    assert set(modes) == {True, False}
    for name, value in tree_flatten(chat.model.parameters()):
        assert np.array_equal(np.array(value), weights[name])


def test_no_probes_is_said(model: Path) -> None:
    with pytest.raises(UserError, match="no probes to score checkpoints with"):
        probe_evaluator(load(str(model)), [], ASKING, 42, None)
