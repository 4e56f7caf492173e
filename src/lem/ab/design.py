"""The plan of an A/B run is the plan of any run: several arms over the same probes (see `lem.runs.plan`)."""

from __future__ import annotations

from lem.runs.plan import RenderedArm, preview, render_arm, render_plan
from lem.runs.plan import RunPlan as BenchmarkPlan

__all__ = ["BenchmarkPlan", "RenderedArm", "preview", "render_arm", "render_plan"]
