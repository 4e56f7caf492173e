"""How the scores of an arm are spread: one small histogram per arm on a common scale, with the mean and its interval.

The size of the drawing does not depend on the number of probes.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lem.reports.drawing import BLUE, INK, QUIET, row_text, tidy_rows
from lem.stats import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

N_BINS = 32
FEW_VALUES = 12
WIDTH = 4.6


def spread_figure(metric: str, values: Mapping[str, Sequence[float]], means: Mapping[str, Estimate]) -> Figure | None:
    """Draw one histogram per arm of its values per probe; None when no arm has a value."""
    from matplotlib.figure import Figure

    shown = {arm: np.asarray(found, dtype=np.float64) for arm, found in values.items() if len(found)}
    if not shown:
        return None
    edges = bin_edges(np.concatenate(list(shown.values())))
    figure = Figure(figsize=(WIDTH, 0.65 + 0.52 * len(shown)), dpi=200, layout="constrained")
    axes = figure.subplots()
    axes.set_label("spread")
    tidy_rows(axes)
    shares = {arm: np.histogram(found, edges)[0] / len(found) for arm, found in shown.items()}
    tallest = max(float(share.max()) for share in shares.values())
    for place, (arm, share) in enumerate(shares.items()):
        _draw(axes, arm, len(shown[arm]), edges, 0.62 * share / tallest, -float(place))
        _draw_mean(axes, means.get(arm), -float(place))
    axes.set_ylim(-len(shares) + 0.85, 0.95)
    axes.set_xlabel(f"{textwrap.shorten(metric, 40)} per probe", color=QUIET, fontsize=8.5, parse_math=False)
    return figure


def bin_edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Edges of the bins: one bin for each value where there are few, evenly spaced ones, else 32 over the range."""
    distinct = np.unique(values)
    if len(distinct) == 1:
        return np.array([distinct[0] - 0.5, distinct[0] + 0.5])
    steps = np.diff(distinct)
    if len(distinct) <= FEW_VALUES and np.allclose(steps / steps.min(), np.round(steps / steps.min())):
        step = float(steps.min())
        return np.arange(distinct[0] - step / 2, distinct[-1] + step, step)
    return np.linspace(distinct[0], distinct[-1], N_BINS + 1)


def _draw(axes: Axes, arm: str, n: int, edges: NDArray[np.float64], heights: NDArray[np.float64], at: float) -> None:
    axes.stairs(at + heights, edges, baseline=at, fill=True, color=BLUE, alpha=0.3, lw=0)
    axes.stairs(at + heights, edges, baseline=at, color=BLUE, lw=1)
    row_text(axes, at + 0.66, textwrap.shorten(arm, 40, placeholder="..."), INK)
    row_text(axes, at + 0.66, f"n {n}", QUIET, right=True)


def _draw_mean(axes: Axes, mean: Estimate | None, at: float) -> None:
    if mean is None or math.isnan(mean.value):
        return
    if not math.isnan(mean.low):
        axes.hlines([at - 0.06], [mean.low], [mean.high], colors=INK, lw=1.6)
    axes.plot([mean.value], [at - 0.06], ls="", marker="o", ms=4.5, color=INK)
