"""Settings of the simulations that the tests make, and the script that makes them.

The seed is fixed. With 400 draws the Monte Carlo error of a coverage of 95% is 1.1 percentage points; the bands allow
for four of them, since some two hundred figures are held against them.
"""

from __future__ import annotations

import math
import sys

from lem.paths import repository_root

sys.path.insert(0, str(repository_root() / "scripts"))
import simulate_stats as simulation

SETTINGS = simulation.Settings(draws=400, resamples=199, seed=1)
BAND = 4 * math.sqrt(0.05 * 0.95 / 400)
Shares = dict[tuple[str, int, str], float]
