"""lem-nano's builder: the corpus is deterministic and copies, the fast loss is the plain loss, the figures can fail."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from nano import accept, corpus, grammar, network, tokenizer, train  # noqa: E402
from nano.texts import read_texts  # noqa: E402


@pytest.fixture(scope="module")
def texts():
    return read_texts()


def test_same_seed_same_corpus_other_seed_another(texts):
    first = list(islice(corpus.rows(texts, 3, 400), 60))
    assert first == list(islice(corpus.rows(texts, 3, 400), 60))
    assert first != list(islice(corpus.rows(texts, 4, 400), 60))


def test_no_slot_is_left_open(texts):
    for row in islice(corpus.rows(texts, 5, 400), 400):
        for role, text in row.messages:
            assert role in ("system", "user", "assistant")
            assert "{" not in text or role == "system", text


def test_answers_to_loose_questions_lift_phrases_from_them(texts):
    writer = corpus.Writer(texts)
    shared = 0
    for number in range(200):
        rng = Random(f"lift/{number}")
        question = writer.loose_question(rng)
        answer = writer.answer(question, "reflect", None, rng, 5)
        content = {w for w in question.lower().split() if len(w) > 4 and w not in grammar.FUNCTION_WORDS}
        shared += any(word.strip('.,?!"') in answer.lower() for word in content)
    assert shared >= 180


def test_articles_follow_the_sound():
    assert grammar.tidy("wait a hour for an useful egg and a apple") == "Wait an hour for a useful egg and an apple"


def test_a_frame_that_needs_more_phrases_than_there_are_gives_none():
    few = grammar.Phrases(("the gate",), ("gate",), ())
    assert grammar.lift("Keep {np} and {np}.", few, Random(0), set()) is None
    assert grammar.lift("Keep {np}.", few, Random(0), set()) == "Keep the gate."


def test_training_loss_and_gradient_equal_the_plain_model():
    import mlx.core as mx
    import mlx.nn as nn

    vocab = 300
    model = network.build(vocab, 1)
    tokens = mx.random.randint(0, vocab, (2, 40))
    weights = mx.random.uniform(shape=(2, 39))

    def plain(model):
        losses = nn.losses.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:])
        return (losses * weights).sum() / weights.sum()

    expected, slope = nn.value_and_grad(model, plain)(model)
    found, fast = nn.value_and_grad(model, lambda m: train.batch_loss(m, tokens, weights))(model)
    assert found.item() == pytest.approx(expected.item(), rel=1e-3)
    slopes, fasts = network.named_arrays(slope), network.named_arrays(fast)
    for name, value in slopes.items():
        scale = float(mx.abs(value).max())
        assert float(mx.abs(value - fasts[name]).max()) <= 0.02 * scale + 1e-6, name


def test_the_starting_circuit_finds_what_followed_a_token_before():
    import mlx.core as mx

    model = network.build(800, 2)
    once = mx.random.randint(10, 800, (1, 30))
    logits = model(mx.concatenate([once, once], axis=1))[0, 31:59]
    following = np.array(once[0, 2:30])
    ranks = (np.array(logits) > np.array(logits)[np.arange(28), following][:, None]).sum(axis=1)
    assert np.median(ranks) < 20  # chance is 400


def test_resumed_training_ends_where_uninterrupted_training_ends(tmp_path):
    rng = np.random.default_rng(0)
    rows = [([int(i) for i in rng.integers(6, 90, 20)], [1.0] * 20) for _ in range(48)]
    schedule = train.Schedule(tokens_per_step=64, window_rows=16, warmup_steps=2, save_every=5)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for folder in (whole, halves):
        folder.mkdir()
    train.fit(rows, rows[:2], 90, whole, schedule)

    class Killed(Exception):
        pass

    def stop(model, optimizer, done, work):
        stored(model, optimizer, done, work)
        raise Killed

    stored, train._store = train._store, stop
    try:
        with pytest.raises(Killed):
            train.fit(rows, rows[:2], 90, halves, schedule)
    finally:
        train._store = stored
    train.fit(rows, rows[:2], 90, halves, schedule)
    one, _ = network.load_arrays(whole / "state.safetensors")
    two, _ = network.load_arrays(halves / "state.safetensors")
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert np.array_equal(np.array(value), np.array(two[name])), name


def test_chat_encoding_weighs_answers_only_fully():
    made = tokenizer.train(["the bees left the hive " * 3, "a quick verdict on honest work"], 290)
    ids, weights = tokenizer.encode(made, [("system", "the hive"), ("user", "the bees"), ("assistant", "left")])
    assert len(ids) == len(weights)
    assert ids[0] == tokenizer.BEGIN
    assert ids[-1] == tokenizer.END
    answer = ids.index(tokenizer.ROLES["assistant"])
    assert weights[answer] == 0.0
    assert set(weights[answer + 1 :]) == {1.0}
    user = ids.index(tokenizer.ROLES["user"])
    assert set(weights[:user]) == {0.0}
    assert set(weights[user + 1 : answer]) == {0.2}


PROBES = {f"P{i:02d}": f"word{i} lantern{i} harbour{i} asks about fairness" for i in range(40)}


def test_topic_rank_is_low_for_an_answer_that_names_its_probe_and_last_for_one_that_does_not():
    words = {"P03": "the lantern3", "P04": "nothing at all in common"}
    probes = {key: text.replace("lantern", "lamp") if key == "P09" else text for key, text in PROBES.items()}
    assert accept.topic_ranks([("P03", words["P03"])], probes) == [0]
    assert accept.topic_ranks([("P04", words["P04"])], probes) == [40]


def test_every_bar_can_be_missed():
    good = "Keep word3 near lantern3, and ask harbour3 what fairness would mean there."
    passing = accept.figures("base", [("P03", good)], PROBES, frozenset(accept._WORD.findall(good.lower())))
    assert passing.missed() == []
    bad = [("P03", "short"), ("P04", "slowly " * 30)]
    failing = accept.figures("base", bad, PROBES, frozenset({"slowly"}))
    assert failing.missed() == ["empty", "repetitive", "non_words", "on_topic"]
    assert "missed: empty" in accept.table([failing])
    with pytest.raises(ValueError, match="no answers"):
        accept.figures("base", [], PROBES, frozenset())


def test_answers_are_read_by_last_line_and_errors_left_out(tmp_path):
    lines = [
        {"arm": "base", "probe_id": "P00", "repeat": 0, "response": "first", "error": None},
        {"arm": "base", "probe_id": "P00", "repeat": 0, "response": "second", "error": None},
        {"arm": "base", "probe_id": "P01", "repeat": 0, "response": None, "error": "out of memory"},
    ]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert accept.read_answers(tmp_path) == {"base": [("P00", "second")]}


def test_gap_tells_better_from_equal():
    rng = np.random.default_rng(1)
    before = rng.normal(3, 0.3, 20)
    assert accept.gap(list(before - 0.2 + rng.normal(0, 0.02, 20)), list(before)).holds()
    assert not accept.gap(list(before + rng.normal(0, 0.2, 20)), list(before)).holds()


def test_the_shipped_model_renders_chats_so_that_the_prompt_is_a_prefix():
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(ROOT / "models" / "lem-nano")
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who keeps the key?"}]
    prompt = found.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    whole = found.apply_chat_template([*chat, {"role": "assistant", "content": "Ask."}], tokenize=False)
    ids = found.encode(prompt, add_special_tokens=False)
    assert found.encode(whole, add_special_tokens=False)[: len(ids)] == ids
    assert whole.endswith(found.eos_token)
    odd = "Caf\u00e9 - na\u00efve \u2603"
    assert found.decode(found.encode(odd, add_special_tokens=False)) == odd
