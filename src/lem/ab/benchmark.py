"""`lem benchmark`: an A/B run is a run of the kind "benchmark" (see `lem.runs.conduct`)."""

from __future__ import annotations

from functools import partial

from lem.runs.conduct import conduct

KIND = "benchmark"

run_benchmark = partial(conduct, kind=KIND)
"""Execute a plan into a run directory, resuming what is there; arguments, result and errors as in `conduct`."""
