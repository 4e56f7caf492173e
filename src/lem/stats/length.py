"""The effect at equal length: the score difference regressed on the length difference, read at zero."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats as sps

from lem.stats.estimate import Estimate, Values, cluster_index, finite_values


@dataclass(frozen=True)
class LengthControlled:
    """Predicted score difference where lengths are equal, and the points per unit of length.

    `n_clusters` is None where probes were taken as independent.
    """

    effect: Estimate
    slope: Estimate
    n_clusters: int | None


def _cr2(
    design: NDArray[np.float64], residuals: NDArray[np.float64], index: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """CR2 covariance of OLS coefficients and, per coefficient, Bell and McCaffrey's degrees of freedom.

    (I - H_gg)^(-1/2) is applied through the thin singular value decomposition of a cluster's rows, so that no
    matrix grows with the size of a cluster.
    """
    values, vectors = np.linalg.eigh(np.linalg.inv(design.T @ design))
    root = (vectors * np.sqrt(values)) @ vectors.T
    bread = root @ root
    scores, loads, own = [], [], []
    for cluster in range(int(index.max()) + 1):
        rows = design[index == cluster]
        left, singular, _ = np.linalg.svd(rows @ root, full_matrices=False)
        rest = 1 - singular**2
        # A direction that one cluster alone decides leaves no residual to adjust.
        stretch = np.where(rest > 1e-10, 1 / np.sqrt(np.maximum(rest, 1e-10)), 0.0) - 1
        adjusted = (rows + (left * stretch) @ (left.T @ rows)) @ bread
        scores.append(adjusted.T @ residuals[index == cluster])
        loads.append(adjusted.T @ rows)
        own.append((adjusted**2).sum(axis=0))
    meat, norms, spread = np.asarray(scores), np.asarray(own), np.asarray(loads)
    freedom = []
    for k in range(design.shape[1]):
        # Omega = diag(norms) - P bread P' of Bell and McCaffrey, by its trace and squares: never clusters x clusters.
        p, norm = spread[:, k], norms[:, k]
        diagonal = np.einsum("gi,ij,gj->g", p, bread, p)
        cross = p.T @ p @ bread
        squares = (norm**2).sum() - 2 * (norm * diagonal).sum() + np.trace(cross @ cross)
        freedom.append((norm.sum() - diagonal.sum()) ** 2 / squares)
    return meat.T @ meat, np.asarray(freedom)


def _unidentified(values: NDArray[np.float64], n_clusters: int | None, method: str) -> LengthControlled:
    nothing = Estimate(math.nan, math.nan, math.nan, math.nan, 0.95, len(values), 0, n_clusters, method)
    return LengthControlled(nothing, nothing, n_clusters)


def length_controlled(
    differences: Values,
    length_differences: Values,
    clusters: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
) -> LengthControlled:
    """Ordinary least squares (statsmodels) of the score difference on the length difference; effect = value at zero.

    Without clusters the covariance is HC3 with n - 2 degrees of freedom (statsmodels); with them CR2, with Bell and
    McCaffrey's. NaN where lengths don't vary, with fewer than three probes, or with one cluster.

    Args:  differences: score, treatment less baseline, one per probe.  length_differences: likewise, in any unit.
    Raises: ValueError if a value is NaN or the lengths of the arguments differ.
    """
    y, x = finite_values(differences), finite_values(length_differences)
    if len(y) != len(x) or (clusters is not None and len(clusters) != len(y)):
        raise ValueError("differences, length differences and clusters differ in length")
    n_clusters = None if clusters is None else len(set(clusters))
    if len(y) < 3 or n_clusters == 1:
        return _unidentified(y, n_clusters, "ols (too few probes or clusters)")
    scale = float(np.ptp(x))
    if scale <= 1e-9 * max(1.0, float(np.abs(x).max())):
        return _unidentified(y, n_clusters, "ols (lengths do not vary)")
    import statsmodels.api as sm  # two seconds to import

    model = sm.OLS(y, np.column_stack([np.ones(len(x)), x / scale]))
    if clusters is None:
        fitted, method = model.fit(cov_type="HC3", use_t=True), "ols, hc3-t"
        covariance, freedom = np.asarray(fitted.cov_params()), np.full(2, len(y) - 2.0)
    else:
        fitted, method = model.fit(), "ols, cr2-t"
        covariance, freedom = _cr2(model.exog, np.asarray(fitted.resid), cluster_index(clusters))
    estimates = []
    for k, unit in enumerate((1.0, scale)):
        value, stderr = float(fitted.params[k]) / unit, math.sqrt(max(0.0, float(covariance[k, k]))) / unit
        half = float(sps.t.ppf(0.5 + level / 2, freedom[k])) * stderr
        estimates.append(Estimate(value, stderr, value - half, value + half, level, len(y), 0, n_clusters, method))
    return LengthControlled(estimates[0], estimates[1], n_clusters)
