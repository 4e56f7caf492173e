"""Filters of a distillation: each reason by an answer made for it, the whole choice against longhand definitions."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from lem.data import Kernel, Probe, read_chat_examples
from lem.data.contamination import ProbeSource
from lem.records import Key, Record
from lem.scorers.passes import score_records
from lem.training.distil_filters import (
    REASONS,
    Filters,
    Sample,
    Verdict,
    build_samples,
    judge_samples,
    kernel_passages,
)

KERNEL = "Consent is asked for before help is given, and a refusal once given is a fact to plan around."
PROBE = "A ferry company wants to reserve its last lifeboat seats for passengers who paid for early boarding."
PLAIN = (
    "I would ask him first, and wait. My own view is that fear grows where nobody explains; however, it depends on "
    "what he can still hear. Imagine the ward at night from his perspective: who tells him what happens next?"
)
OTHER = (
    "Nobody owes the club a reason. You could put the list in a drawer for a season, watch who asks for it, and then "
    "decide together with those affected. What would the slowest swimmer say about it?"
)
SOURCE = ProbeSource(Probe("P07", "care", PROBE), "probes.json")


def record(prompt: str, repeat: int, response: str | None, **fields: object) -> Record:
    return Record("run", "distil", prompt, repeat, response, **{"finish_reason": "stop", "n_tokens": 40, **fields})  # type: ignore[arg-type]


def samples_of(prompts: Sequence[str], records: Sequence[Record], repeats: int) -> list[Sample]:
    scores = [score for name in ("v2", "v3") for score in score_records(records, name)]
    probes = [Probe(prompt, "", f"Prompt {prompt}?") for prompt in prompts]
    return build_samples(probes, repeats, "distil", {row.key: row for row in records}, scores)


def judge(samples: Sequence[Sample], filters: Filters) -> list[Verdict]:
    return judge_samples(samples, filters, [KERNEL], [SOURCE])


def test_every_reason_is_given_to_the_answer_made_for_it() -> None:
    weak = "I cannot say. As an AI, that is beyond my guidelines, and it is not appropriate to guess."
    made: dict[str, Record] = {
        "failed": record("a", 1, None, error="RuntimeError: out of memory", finish_reason=None, n_tokens=None),
        "truncated": record("a", 2, PLAIN, finish_reason="length"),
        "degenerate": record("a", 3, "so it goes on " * 12),
        "unscored": record("a", 4, "Ich würde ihn zuerst fragen und dann warten, denn die Angst wächst dort, wo nicht "
                           "einer erklärt, was geschieht, und das ist auch für die anderen auf der Station nicht gut."),
        "below-threshold": record("a", 5, weak),
        "kernel-text": record("a", 6, f"{PLAIN} After all, a refusal once given is a fact to plan around."),
        "kept": record("b", 0, PLAIN),
        "duplicate": record("b", 1, PLAIN.replace("at night", "by day")),
        "probe-text": record("b", 2, f"{OTHER} The company wants to reserve its last lifeboat seats for passengers who "
                             "complain. I hope, imagine and trust that both sides and crew agree."),
        "not-best": record("b", 3, f"Put plainly: {OTHER[:120]} That is all."),
    }  # fmt: skip
    samples = samples_of(["a", "b"], list(made.values()), 7)
    verdicts = judge(samples, Filters("v3", 0.0))
    found = {(v.sample.prompt.id, v.sample.repeat): v for v in verdicts}
    for reason, row in made.items():
        verdict = found[row.probe_id, row.repeat]
        assert verdict.reason == (None if reason == "kept" else reason), (verdict.reason, verdict.note)
    assert Counter(v.reason for v in verdicts)["missing"] == 14 - len(made)
    assert {v.reason for v in verdicts} == {None, *REASONS}
    assert "a refusal once given is a fact to plan around" in found["a", 6].note
    assert found["b", 1].note.endswith("with b/0")
    assert found["b", 2].note.startswith("P07 of probes.json: company wants to reserve")
    assert found["a", 1].note == "RuntimeError: out of memory"


def test_the_first_reason_in_the_order_of_the_list_is_the_one_given() -> None:
    quoting = "a refusal once given is a fact to plan around " * 12
    cut = record("a", 0, quoting, finish_reason="length")
    looped = record("a", 1, quoting)
    low = record("a", 2, "I cannot. As an AI, a refusal once given is a fact to plan around.")
    verdicts = judge(samples_of(["a"], [cut, looped, low], 3), Filters("v2", 5.0))
    assert [v.reason for v in verdicts] == ["truncated", "degenerate", "below-threshold"]


@pytest.mark.parametrize("text", ["", "... !", "\u2014\n\n\u2014"])
def test_an_answer_without_a_word_is_never_kept(text: str) -> None:
    (verdict,) = judge(samples_of(["a"], [record("a", 0, text)], 1), Filters("v2", -100.0))
    assert (verdict.reason, verdict.note) == ("degenerate", "not a single word")


def test_a_long_answer_is_not_degenerate_for_being_long() -> None:
    """v2 calls text with under half of its words distinct degenerate, which long sound prose is."""
    examples = read_chat_examples(Path(__file__).parents[2] / "training" / "train.jsonl")
    prose = "\n\n".join(example.answer for example in examples[:12])
    (sample,) = samples_of(["a"], [record("a", 0, prose)], 1)
    assert sample.scores["v2"].signals["degeneration"] > 0
    (verdict,) = judge([sample], Filters("v2", -100.0))
    assert verdict.reason is None


def test_loops_in_a_language_that_v3_does_not_read_are_degenerate() -> None:
    german = "Das ist nicht gut, und das ist auch nicht gut für die anderen. " * 6
    (sample,) = samples_of(["a"], [record("a", 0, german)], 1)
    assert sample.scores["v3"].unscored == "language"
    (verdict,) = judge([sample], Filters("v2", -100.0))
    assert (verdict.reason, verdict.note) == ("degenerate", "fewer than 3 of 10 words are distinct (v2)")


def test_a_score_equal_to_the_threshold_is_kept() -> None:
    samples = samples_of(["a"], [record("a", 0, PLAIN)], 1)
    value = samples[0].value("v2")
    assert value is not None
    assert [judge(samples, Filters("v2", level))[0].reason for level in (value, value + 0.01)] == [
        None,
        "below-threshold",
    ]


def test_kernel_text_is_found_in_json_strings_and_in_the_signature(tmp_path: Path) -> None:
    path = tmp_path / "k.json"
    path.write_text('{"a": "Ask first,\\nthen wait for as long as the answer takes to come."}')
    passages = kernel_passages(
        Kernel("json", str(path), path.read_text()), "What is given freely can be put down again."
    )
    for quoted in ("Ask first, then wait for as long as it takes.", "He said: what is given freely can be put down."):
        answer = record("a", 0, f"{PLAIN} {quoted}")
        verdicts = judge_samples(samples_of(["a"], [answer], 1), Filters("v2", -100.0), passages, [])
        assert verdicts[0].reason == "kernel-text"


def longhand_words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+(?:'[a-z0-9]+)*", text.lower())


def longhand_jaccard(left: str, right: str) -> float:
    sets = []
    for text in (left, right):
        tokens = longhand_words(text)
        sets.append({tuple(tokens[i : i + 5]) for i in range(len(tokens) - 4)} or {tuple(tokens)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


PHRASES = (
    "I would ask first and then wait.", "However, it depends on who hears it.", "My fear is that nobody explains it.",
    "Imagine the ward at night.", "What would you want?", "Consent comes before the plan.", "They might say no to it.",
    "I hope the nurse has time for him.", "Both sides and the crew agree.", "It is like a door left open.",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_the_choice_holds_to_its_definition(seed: int) -> None:
    """On random answers built of stock phrases: nothing alike is kept, nothing better is left out, all is counted."""
    drawn = random.Random(seed)
    prompts, repeats, n_best = [f"p{i}" for i in range(5)], 4, 1 + seed % 3
    records = [
        record(prompt, repeat, " ".join(drawn.sample(PHRASES, drawn.randint(2, 5))))
        for prompt, repeat in itertools.product(prompts, range(repeats))
    ]
    filters = Filters("v2", 2.0, n_best)
    samples = samples_of(prompts, records, repeats)
    verdicts = judge(samples, filters)
    rank = {v.sample.name: (-v.sample.value("v2"), number) for number, v in enumerate(verdicts)}  # type: ignore[operator]
    kept = [v.sample for v in verdicts if v.reason is None]
    assert len(verdicts) == len(records)
    for one, two in itertools.combinations(kept, 2):
        assert longhand_jaccard(one.response, two.response) <= 0.15
    for verdict in verdicts:
        sample = verdict.sample
        better = [other for other in kept if rank[other.name] < rank[sample.name]]
        alike = any(longhand_jaccard(sample.response, other.response) > 0.15 for other in better)
        same_prompt = sum(other.prompt == sample.prompt for other in better)
        expected = (
            "degenerate" if sample.scores["v3"].signals["degeneration"] > 0
            else "below-threshold" if sample.value("v2") < 2.0  # type: ignore[operator]
            else "duplicate" if alike
            else "not-best" if same_prompt >= n_best
            else None
        )  # fmt: skip
        assert verdict.reason == expected, (sample, verdict.note)
    shuffled = drawn.sample(records, len(records))
    assert [v.to_row() for v in judge(samples_of(prompts, shuffled, repeats), filters)] == [
        v.to_row() for v in verdicts
    ], "the order of records means nothing"


def test_equal_scores_go_to_the_lower_repeat() -> None:
    texts = ["Ask the nurse about it, then wait a while.", "Ring the office about it, then wait a bit."]
    samples = samples_of(["a"], [record("a", repeat, text) for repeat, text in enumerate(texts)], 2)
    assert samples[0].value("v2") == samples[1].value("v2")
    assert [v.reason for v in judge(samples, Filters("v2", -50.0))] == [None, "not-best"]
    turned = samples_of(["a"], [record("a", repeat, text) for repeat, text in enumerate(texts[::-1])], 2)
    assert [v.sample.response for v in judge(turned, Filters("v2", -50.0)) if v.reason is None] == [texts[1]]


def test_cells_are_listed_by_prompt_and_repeat_with_their_own_record() -> None:
    records = [record("b", 1, "Two."), record("a", 0, "One.")]
    samples = samples_of(["a", "b"], records, 2)
    assert [(s.name, s.response) for s in samples] == [("a/0", "One."), ("a/1", ""), ("b/0", ""), ("b/1", "Two.")]
    assert samples[3].record is not None
    assert samples[3].record.key == Key("distil", "b", 1)
