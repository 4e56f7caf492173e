"""Made-up runs in which nothing is to be found: two arms that are alike, in the shapes that real scores have.

Every draw is a `Draw` of one value per probe and arm, whose true mean difference is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lem.stats import per_source

Array = NDArray[np.float64]
ICC = 0.1
PUBLISHED_SIZES = [15] * 4 + [4] * 7 + [2] * 3 + [1] * 6  # domains of the published probe file
VARIANTS = 3


@dataclass(frozen=True)
class Draw:
    """One value per probe and arm; `clusters` is None where probes are independent.

    `exchangeable` is False where the arms have the same mean and are not alike, so that tests of "alike" don't apply.
    """

    treatment: Array
    baseline: Array
    clusters: list[int] | None = None
    exchangeable: bool = True

    @property
    def differences(self) -> Array:
        """Treatment less baseline, per probe."""
        return self.treatment - self.baseline


@dataclass(frozen=True)
class Design:
    """A shape of data: how it is made, and whether its values are ordinal (1-10) or binary (0/1)."""

    make: Callable[[np.random.Generator, int], Draw]
    kind: str = "continuous"


def continuous(rng: np.random.Generator, n: int) -> Draw:
    """Like v2: probes differ (SD 3), answers differ (SD 4)."""
    probe = rng.normal(14, 3, n)
    return Draw(probe + rng.normal(0, 4, n), probe + rng.normal(0, 4, n))


def ordinal(rng: np.random.Generator, n: int) -> Draw:
    """Whole ratings of 1 to 10, many at the upper end, many unchanged."""
    probe = rng.normal(7.5, 1.5, n)
    first, second = (np.clip(np.round(probe + rng.normal(0, 1, n)), 1, 10) for _ in range(2))
    return Draw(first, second)


def binary(rng: np.random.Generator, n: int) -> Draw:
    """Right or wrong, once per arm; easy and hard probes."""
    chance = rng.beta(2, 1, n)
    first, second = ((rng.random(n) < chance).astype(np.float64) for _ in range(2))
    return Draw(first, second)


def rare(rng: np.random.Generator, n: int) -> Draw:
    """Five probes in a hundred refused, whatever the arm."""
    first, second = ((rng.random(n) < 0.05).astype(np.float64) for _ in range(2))
    return Draw(first, second)


def skewed(rng: np.random.Generator, n: int) -> Draw:
    """Both arms exponential: skewed values, symmetric differences with heavy ends."""
    return Draw(rng.exponential(3, n), rng.exponential(3, n))


def skewed_differences(rng: np.random.Generator, n: int) -> Draw:
    """A few probes gain much, most lose a little, and the mean is 0 (exponential, skew 2)."""
    return Draw(rng.exponential(1, n) - 1, np.zeros(n), exchangeable=False)


def extreme_differences(rng: np.random.Generator, n: int) -> Draw:
    """The same with a skew of 6 (log-normal): more than any data of ours shows."""
    return Draw(rng.lognormal(0, 1, n) - math.exp(0.5), np.zeros(n), exchangeable=False)


def _alike(rng: np.random.Generator, labels: NDArray[np.intp], noise: Array) -> Draw:
    """Differences of variance 1 whose probes correlate by ICC inside a cluster."""
    effects = rng.normal(0, math.sqrt(ICC), int(labels.max()) + 1)[labels]
    return Draw(effects + math.sqrt(1 - ICC) * noise, np.zeros(len(labels)), [int(label) for label in labels])


def ten_domains(rng: np.random.Generator, n: int) -> Draw:
    """Ten domains of like size."""
    return _alike(rng, np.arange(n) % 10, rng.normal(0, 1, n))


def uneven_domains(rng: np.random.Generator, n: int) -> Draw:
    """Twenty domains of the published sizes: four hold most probes, nine hold one or two."""
    ends = np.cumsum(PUBLISHED_SIZES) / sum(PUBLISHED_SIZES)
    labels = np.searchsorted(ends, (np.arange(n) + 0.5) / n)
    return _alike(rng, np.unique(labels, return_inverse=True)[1], rng.normal(0, 1, n))


def four_domains(rng: np.random.Generator, n: int) -> Draw:
    """Four domains of like size."""
    return _alike(rng, np.arange(n) % 4, rng.normal(0, 1, n))


def skewed_domains(rng: np.random.Generator, n: int) -> Draw:
    """Ten domains of like size, with differences as in `skewed_differences` inside them."""
    made = _alike(rng, np.arange(n) % 10, rng.exponential(1, n) - 1)
    return Draw(made.treatment, made.baseline, made.clusters, exchangeable=False)


def paraphrases(rng: np.random.Generator, n: int) -> Draw:
    """Three variants of every probe, whose differences correlate by 0.9; n counts sources, averaged before anything."""
    values = np.repeat(rng.normal(0, math.sqrt(0.9), n), VARIANTS) + rng.normal(0, math.sqrt(0.1), n * VARIANTS)
    sources = {str(row): f"source {row // VARIANTS}" for row in range(n * VARIANTS)}
    merged = per_source({str(row): float(value) for row, value in enumerate(values)}, sources)
    return Draw(np.asarray(list(merged.values())), np.zeros(n))


DESIGNS = {
    "continuous": Design(continuous),
    "ordinal 1-10": Design(ordinal, "ordinal"),
    "binary": Design(binary, "binary"),
    "binary, rare": Design(rare, "binary"),
    "skewed values": Design(skewed),
    "skewed differences": Design(skewed_differences),
    "skew of 6": Design(extreme_differences),
    "10 domains": Design(ten_domains),
    "20 uneven domains": Design(uneven_domains),
    "4 domains": Design(four_domains),
    "10 domains, skewed": Design(skewed_domains),
    "paraphrases": Design(paraphrases),
}
