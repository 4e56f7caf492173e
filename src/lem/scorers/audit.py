"""What does a scorer reward besides content? Its correlation with length, and what cosmetic changes earn.

For the same answers: Spearman's rank correlation of value and length, and the paired change of the mean value when
every answer is padded with a neutral closing paragraph, set as a bullet list, or opened by the announcement of an
ethical assistant. A scorer that measures content shows no gain from any of the three. Importing this module imports
scipy; the texts that are added stand in `lexicon/variants.json`.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats as sps

from lem.scorers.lexicon import load
from lem.scorers.table import find
from lem.stats import Estimate, PairedComparison, paired_difference

N_RESAMPLES = 1999
BOOTSTRAP_SEED = 20260101
_SENTENCE_BREAK = re.compile(r"(?<=[^\d\s][.!?])\s+|\n+")


@dataclass(frozen=True)
class ScorerAudit:
    """One scorer's audit; `n_unscored` of the `n` given texts had no value and are left out of every figure.

    `length_characters` and `length_words` are Spearman correlations in [-1, 1]. `padded`, `bulleted` and `opened`
    are value of the changed text minus value of the original, in points; a text that one side leaves unscored is
    counted in `n_missing`.
    """

    scorer: str
    version: str
    n: int
    n_unscored: int
    length_characters: Estimate
    length_words: Estimate
    padded: PairedComparison
    bulleted: PairedComparison
    opened: PairedComparison


def audit(
    texts: Mapping[str, str], scorers: Iterable[str], domains: Mapping[str, str] | None = None
) -> dict[str, ScorerAudit]:
    """Audit each scorer on the same texts.

    Args:  texts: answer by any id.  domains: id -> cluster, for the cluster-robust side of the paired intervals.
    Raises: UserError for an unknown scorer.
    """
    return {name: _audit_one(name, texts, domains) for name in dict.fromkeys(scorers)}


def pad(text: str) -> str:
    """Append the neutral filler as a paragraph of its own."""
    return f"{text}\n\n{load('variants')['filler']}"


def bullet(text: str) -> str:
    """Make every sentence a bullet of a loose markdown list (blank lines between the items)."""
    sentences = (sentence.strip() for sentence in _SENTENCE_BREAK.split(text))
    return "\n\n".join(f"- {sentence}" for sentence in sentences if sentence)


def open_as_assistant(text: str) -> str:
    """Put the announcement of an ethical assistant in front."""
    return f"{load('variants')['opening']}{text}"


def spearman(values: NDArray[np.float64], lengths: NDArray[np.float64], *, level: float = 0.95) -> Estimate:
    """Spearman's rank correlation with a seeded percentile-bootstrap interval over texts.

    NaN when fewer than three texts are given or one side is constant: there is no correlation to speak of. The
    standard error is that of the resamples; resamples in which one side is constant are left out.
    """
    n = len(values)
    if n < 3 or np.all(values == values[0]) or np.all(lengths == lengths[0]):
        return Estimate(math.nan, math.nan, math.nan, math.nan, level, n, 0, None, "spearman (undefined)")
    value = float(sps.spearmanr(values, lengths).statistic)
    rows = np.random.default_rng(BOOTSTRAP_SEED).integers(0, n, size=(N_RESAMPLES, n))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        resampled = _row_correlations(sps.rankdata(values[rows], axis=1), sps.rankdata(lengths[rows], axis=1))
    resampled = resampled[np.isfinite(resampled)]
    low, high = np.quantile(resampled, [0.5 - level / 2, 0.5 + level / 2])
    stderr = float(resampled.std(ddof=1))
    return Estimate(value, stderr, float(low), float(high), level, n, 0, None, "spearman, percentile bootstrap")


def _row_correlations(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    first = first - first.mean(axis=1, keepdims=True)
    second = second - second.mean(axis=1, keepdims=True)
    norms = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    correlations: NDArray[np.float64] = (first * second).sum(axis=1) / norms
    return correlations


def _audit_one(name: str, texts: Mapping[str, str], domains: Mapping[str, str] | None) -> ScorerAudit:
    version, _ = find(name)
    original = _values(name, texts)
    values = np.asarray(list(original.values()), dtype=np.float64)
    characters = np.asarray([len(texts[key]) for key in original], dtype=np.float64)
    words = np.asarray([len(texts[key].split()) for key in original], dtype=np.float64)

    def change(variant: Callable[[str], str]) -> PairedComparison:
        changed = _values(name, {key: variant(text) for key, text in texts.items()})
        return paired_difference(changed, original, domains)

    return ScorerAudit(
        scorer=name,
        version=version,
        n=len(texts),
        n_unscored=len(texts) - len(original),
        length_characters=spearman(values, characters),
        length_words=spearman(values, words),
        padded=change(pad),
        bulleted=change(bullet),
        opened=change(open_as_assistant),
    )


def _values(name: str, texts: Mapping[str, str]) -> dict[str, float]:
    _, score = find(name)
    results = {key: score(text).value for key, text in texts.items()}
    return {key: value for key, value in results.items() if value is not None}
