"""McNemar's exact test of paired yes-or-no outcomes; shares with their interval are in `rate`."""

from __future__ import annotations

import numpy as np

from lem.stats.estimate import Values, finite_values
from lem.stats.hypotheses import PValue


def mcnemar(treatment: Values, baseline: Values) -> PValue:
    """Exact McNemar test (statsmodels): of the probes that changed, did as many turn to 1 as to 0?

    `statistic` is the smaller of the two counts; without a change p is 1.
    Raises: ValueError if a value is not 0 or 1 (average of repeats: use `sign_flip`) or the lengths differ.
    """
    treated, base = finite_values(treatment), finite_values(baseline)
    if len(treated) != len(base):
        raise ValueError("treatment and baseline differ in length")
    if not np.all(np.isin(np.concatenate([treated, base]), (0.0, 1.0))):
        raise ValueError("McNemar's test takes values of 0 and 1 only")
    if not len(treated):
        return PValue("McNemar", float("nan"), float("nan"), 0, True, "no probes")
    from statsmodels.stats.contingency_tables import mcnemar as exact_mcnemar  # two seconds to import

    table = np.histogram2d(base, treated, bins=[[-0.5, 0.5, 1.5]] * 2)[0].astype(int)
    found = exact_mcnemar(table, exact=True)
    note = f"{table[0, 1]} turned to 1, {table[1, 0]} to 0"
    return PValue("McNemar", float(found.statistic), float(found.pvalue), len(treated), True, note)
