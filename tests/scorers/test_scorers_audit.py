"""The audit shows what v2 rewards and what v3 does not, with the statistics of scipy and of `lem.stats`."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as sps

from lem.scorers import v2, v3
from lem.scorers.audit import audit, bullet, open_as_assistant, pad, spearman
from lem.scorers.lexicon import load

SENTENCES = [
    "However calm the water looks, someone who cannot swim sees it differently.", "I hope they ask first.",
    "The ledger lists 14 boats and one ferry.", "Consent given in a hurry is not worth much.",
    "Both the keeper and the visitor lose something here.", "We walked home by the canal.",
    "It rained, as if the week had been kept waiting.", "Who decides that?",
]  # fmt: skip
TEXTS = {
    f"P{number:02}": " ".join(SENTENCES[(number * 3 + step) % 8] for step in range(2 + number % 5))
    for number in range(24)
}
DOMAINS = {key: f"domain {index % 4}" for index, key in enumerate(TEXTS)}


def test_v2_pays_for_padding_bullets_and_announcements_and_v3_does_not() -> None:
    result = audit(TEXTS, ["v2", "v3"], DOMAINS)
    assert result["v2"].version == v2.VERSION
    assert result["v3"].version == v3.VERSION
    for change in (result["v2"].padded, result["v2"].bulleted, result["v2"].opened):
        assert change.difference.low > 0
        assert change.difference.n == len(TEXTS)
        assert change.difference.n_clusters == 4
    assert result["v3"].padded.difference.value <= 0
    assert result["v3"].bulleted.difference.value == 0
    assert result["v3"].opened.difference.high < 0


def test_changes_are_paired_differences_of_the_scores() -> None:
    one = audit(TEXTS, ["v2"])["v2"]
    for variant, found in ((pad, one.padded), (bullet, one.bulleted), (open_as_assistant, one.opened)):
        by_hand = [v2.score(variant(text))["lek_score"] - v2.score(text)["lek_score"] for text in TEXTS.values()]
        assert found.difference.value == pytest.approx(sum(by_hand) / len(by_hand))
        assert found.improved == sum(change > 0.5 for change in by_hand)


def test_correlation_with_length_is_scipys() -> None:
    one = audit(TEXTS, ["v2"])["v2"]
    values = [v2.score(text)["lek_score"] for text in TEXTS.values()]
    for found, lengths in (
        (one.length_characters, [len(text) for text in TEXTS.values()]),
        (one.length_words, [len(text.split()) for text in TEXTS.values()]),
    ):
        assert found.value == pytest.approx(sps.spearmanr(values, lengths).statistic)
        assert found.low < found.value < found.high
        assert found.n == len(TEXTS)


def test_bootstrap_interval_is_scipys_percentile_interval() -> None:
    rng = np.random.default_rng(5)
    first = rng.normal(size=60)
    second = first + rng.normal(size=60)
    ours = spearman(first, second)
    peer = sps.bootstrap((first, second), lambda a, b: sps.spearmanr(a, b).statistic, paired=True, vectorized=False,
                         method="percentile", n_resamples=999, rng=np.random.default_rng(6))  # fmt: skip
    assert ours.low == pytest.approx(peer.confidence_interval.low, abs=0.05)
    assert ours.high == pytest.approx(peer.confidence_interval.high, abs=0.05)
    assert ours.stderr == pytest.approx(peer.standard_error, rel=0.15)


@pytest.mark.parametrize("values", [[], [1.0, 2.0], [3.0, 3.0, 3.0, 3.0]])
def test_no_correlation_without_variation_or_texts(values: list[float]) -> None:
    estimate = spearman(np.asarray(values), np.arange(len(values), dtype=float))
    assert math.isnan(estimate.value)
    assert math.isnan(estimate.low)
    assert estimate.n == len(values)


def test_unscored_texts_are_counted_and_left_out() -> None:
    german = {"G": "Die W\u00fcrde ist nicht verhandelbar, und das wissen wir auch ohne Gesetz."}
    result = audit(TEXTS | german, ["v3"])["v3"]
    assert (result.n, result.n_unscored, result.length_words.n) == (len(TEXTS) + 1, 1, len(TEXTS))


def test_variants() -> None:
    assert bullet("One is 3.5 here. Two?\nThree") == "- One is 3.5 here.\n\n- Two?\n\n- Three"
    assert pad("x").startswith("x\n\n")
    assert open_as_assistant("x").endswith(" x")


def test_filler_is_neutral_for_every_scorer() -> None:
    filler = load("variants")["filler"]
    counts = v2.score(filler)
    assert {name: count for name, count in counts.items() if count} == {"engagement_depth": 1, "lek_score": 1.0}
    rates = v3.score(filler).signals
    assert {name for name, rate in rates.items() if rate} == {"words"}


def test_on_published_answers_v3_gains_nothing_from_the_three_changes(reference: Path) -> None:
    lines = (reference / "v2_scores.jsonl").read_text("utf-8").splitlines()[::8]
    texts = {str(number): json.loads(line)["text"] for number, line in enumerate(lines)}
    result = audit(texts, ["v2", "v3"])
    assert result["v2"].length_characters.low > 0.4
    assert result["v3"].length_characters.value < result["v2"].length_characters.value
    for change in (result["v3"].padded, result["v3"].bulleted, result["v3"].opened):
        assert change.improved == 0
        assert change.difference.value <= 0
        assert change.difference.high < 0.01
