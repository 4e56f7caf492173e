"""What `lem benchmark` runs: its arms from the options, and what a plan file adds and holds against them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lem.errors import DataError, UserError

if TYPE_CHECKING:
    from lem.config import Config
    from lem.data import Kernel, Probe
    from lem.runs.plan import Arm, RunPlan


def choose_arms(
    config: Config, model: str, *, kernels: Sequence[str], adapters: Sequence[str], trained: Sequence[str],
    placebo: bool, design: str | None, adapter_scale: str | None, axioms: Sequence[str],
) -> list[Arm]:  # fmt: skip
    """Build the arms that the options ask for; without any, base and the configuration's default kernel."""
    from lem.ab.arms import build_arms, distinct, dose_arms, kernel_arms, parse_scales
    from lem.ab.designs import build_design
    from lem.data.axioms import axiom_kernels

    folder = Path(config.kernel_dir)
    placebos = {"placebo-json": folder / "placebo.json", "placebo-txt": folder / "placebo.txt"}
    parts = axiom_kernels(_kernel_with_axioms(config, kernels), axioms) if axioms else []
    if design is None:
        if not (kernels or adapters or trained or placebo or axioms):
            kernels = (config.default_kernel,)
        controls = list(placebos.values()) if placebo else []
        arms = build_arms(model, kernels=kernels, adapters=adapters, trained=trained, placebos=controls)
    else:
        texts = {"json": Path(config.default_kernel), "txt": folder / "lek-1-kernel.txt", **placebos}
        arms = build_design(design, model, texts, kernels=kernels, adapters=adapters, trained=trained)
    if adapter_scale is not None:
        scales = parse_scales(adapter_scale)
        if design is not None and 1 not in scales:  # a design is made of whole adapters, the doses stand beside them
            scales.append(1.0)
        arms = dose_arms(arms, scales)
    return distinct([*arms, *kernel_arms(model, parts)])


def _kernel_with_axioms(config: Config, kernels: Sequence[str]) -> Kernel:
    """The kernel that --axioms takes apart: the one JSON file among --kernel, else the configuration's default.

    Raises: UserError if none or several of the kernels are JSON files.
    """
    from lem.ab.arms import parse_named
    from lem.data import read_kernel

    given = [Path(parse_named(text, "--kernel").value).expanduser() for text in kernels]
    found = [path for path in given if path.suffix.lower() == ".json"] if given else [Path(config.default_kernel)]
    if len(found) != 1:
        raise UserError(
            f"--axioms takes one JSON kernel apart and --kernel names {len(found) or 'none'}; give one .json kernel "
            "with a list 'axioms', or no --kernel for the default one."
        )
    return read_kernel(found[0])


def read_declared(plan_file: str | None) -> dict[str, Any]:
    """The plan that a run is made under, with its `sha`; {} without one.   Raises: DataError for a damaged file."""
    from lem.ab.plan_file import read_plan

    return {} if plan_file is None else read_plan(Path(plan_file).expanduser())


def planned(declared: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a plan under the names of the options; {} without a plan."""
    if not declared:
        return {}
    settings = {name: declared["settings"].get(name) for name in ("max_tokens", "temperature", "top_p", "seed")}
    return {**settings, "repeats": declared["repeats"], "prompts": declared["probe_file"]}


def choose_probes(file: Path, limit: int | None, declared: Mapping[str, Any]) -> list[Probe]:
    """The first `limit` probes of a file; of the file of a plan, without a limit, those that were planned.

    Raises: DataError if the file has none of them.
    """
    from lem.data import read_probes

    probes = read_probes(file, limit)
    if limit is not None or not declared:
        return probes
    wanted = {probe["id"] for probe in declared["probes"]}
    kept = [probe for probe in probes if probe.id in wanted]
    if not kept:
        raise DataError(f"{file} holds none of the planned probes; name the planned file with --prompts.")
    return kept


def warn_of_deviations(plan: RunPlan, *, whole: bool) -> None:
    """Warn in one line where a run differs from the plan it is made under.

    Args:  whole: the run has all arms that were asked for, so an arm that is not there is a deviation too.
    """
    from lem.runs.plan import settings_of

    if not plan.declared:
        return
    declared, here = planned(plan.declared), settings_of(plan)
    found = [
        f"{name.replace('_', '-')} {here[name]} instead of {declared[name]}"
        for name in ("max_tokens", "temperature", "top_p", "seed", "repeats")
        if declared[name] is not None and declared[name] != here[name]
    ]
    ours = {probe.id for probe in plan.probes}
    if plan.probe_sha != plan.declared["probe_sha"]:
        found.append("another probe file")
    elif missing := sum(probe["id"] not in ours for probe in plan.declared["probes"]):
        found.append(f"{missing} of the planned probes left out")
    if whole:
        arms = {arm.name for arm in plan.arms}
        wanted = {arm["name"] for arm in plan.declared["arms"]}
        found += [f"no arm '{name}'" for name in sorted(wanted - arms)]
        found += [f"the arm '{name}', which was not planned" for name in sorted(arms - wanted)]
    if found:
        warnings.warn(f"this run differs from its plan, which every report will say: {', '.join(found)}.", stacklevel=2)
