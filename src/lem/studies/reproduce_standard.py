"""Which commands repeat a published table on the standard benchmarks: train, ask, let judges rate, compare.

The answers are made without a judge, and each judge is a step of its own, so that one who is added later rates the
answers that are there.
"""

from __future__ import annotations

from pathlib import Path

from lem.config import Config
from lem.paths import display_path
from lem.studies.reproduce import (
    TRAINED,
    TRAINED_PLACEBO,
    Step,
    Subject,
    adapter_of,
    recipe_of,
    specification,
    training_steps,
)
from lem.studies.reproduce_options import CONTINUED, Extras, judge_specs, variant_models


def judge_step(name: str) -> str:
    """What the step of a judge is called."""
    return f"judge {name}"


def standard_steps(
    config: Config, table: str, subject: Subject, folder: Path, extras: Extras, *, quick: bool
) -> list[Step]:
    """The commands that make the figures of one model, in order; everything they write lies in `folder`."""
    wanted, short = specification()["standard"], specification()["standard"]["quick"]
    run = display_path(folder / "run")
    made = training_steps(config, subject, folder, placebo=False, quick=quick)
    made += training_steps(config, subject, folder, placebo=True, quick=quick)
    arms = [TRAINED, TRAINED_PLACEBO]
    if specification()["standard_tables"][table]["composure"]:
        made += [_continued(config, subject, folder, arm, quick=quick) for arm in CONTINUED]
        arms += CONTINUED
    words = ["eval", *wanted["tasks"], "--model", subject.model]
    words += [word for arm in arms for word in ("--adapter", f"{arm}={display_path(adapter_of(folder, arm))}")]
    words += [word for arm, model in variant_models(config, extras).items() for word in ("--trained", f"{arm}={model}")]
    words += [word for text in extras.items for word in ("--items", text)]
    words += ["--limit", str(short["limit"]), "--max-tokens", str(short["max_tokens"])] if quick else []
    made.append(Step("eval", (*words, "--no-judge", "--output", run)))
    how = ["--allow-self-judge"] if extras.allow_self_judge else []
    how += ["--max-cost", f"{extras.max_cost:g}"] if extras.max_cost is not None else []
    how += ["--prices", extras.prices] if extras.prices is not None else []
    for spec in judge_specs(extras):
        made.append(Step(judge_step(spec.name), ("judge", "grade", run, "--judge", spec.text, *how)))
    made.append(Step("compare", ("compare", run, "--no-details")))
    return made


def _continued(config: Config, subject: Subject, folder: Path, arm: str, *, quick: bool) -> Step:
    """The second training of an arm: the short set on the adapter of the arm before it."""
    preset = specification()["standard"]["second_stage"]
    before = adapter_of(folder, CONTINUED[arm])
    words = ["train", "--model", subject.model]
    words += ["--data", display_path(Path(config.training_dir) / specification()["second_stages"][preset])]
    words += ["--adapter-path", display_path(adapter_of(folder, arm)), "--resume", "--preset", preset]
    if recipe_of(subject) == [None]:  # an adapter can only be continued with the layers that it has
        words += ["--num-layers", str(config.training.num_layers)]
    words += ["--from-adapter", display_path(before)]
    words += ["--iters", str(specification()["quick"]["second_stage_iters"])] if quick else []
    return Step(f"train {arm}", tuple(words))
