"""Which commands repeat a published table: for each model plan, train where the table needs it, run, score, compare.

A study is a list of steps, each one command of `lem`, so that a reader can copy any of them. What the tables need
stands in `reproduce_tables.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lem.config import Config
from lem.data.published_figures import PublishedFigure
from lem.errors import UserError
from lem.paths import display_path, slug

PLACEBO_JSON, TRAINED, TRAINED_PLACEBO, ON_TOP = "placebo-json", "trained", "trained-placebo", "trained+json"


@dataclass(frozen=True)
class Subject:
    """A model to run: its name in the tables, and a folder, hub id or short name of the configuration.

    `published` is the name under which figures of it were published, or None.
    """

    name: str
    model: str
    published: str | None


@dataclass(frozen=True)
class Step:
    """One command: what it is for, and the words after `lem`."""

    name: str
    words: tuple[str, ...]


@cache
def specification() -> dict[str, Any]:
    """The object of `reproduce_tables.json`."""
    text = (Path(__file__).parent / "reproduce_tables.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def table_names() -> list[str]:
    """Every table that can be asked for."""
    return [*specification()["tables"], *specification()["standard_tables"]]


def parse_subjects(texts: Sequence[str], figures: Sequence[PublishedFigure]) -> list[Subject]:
    """Read NAME=MODEL options; a bare MODEL is its own name.   Raises: UserError for an empty or repeated name."""
    found: list[Subject] = []
    for text in texts:
        name, separator, model = text.partition("=")
        name, model = (name.strip(), model.strip()) if separator else (slug(text), text.strip())
        if not name or not model:
            raise UserError(f"--models {text}: write NAME=MODEL, for example 'Gemma 3 1B=mlx-community/gemma-3-1b-it'.")
        if _plain(name) in {_plain(other.name) for other in found}:
            raise UserError(f"--models {text}: there are two models named '{name}'; name them apart.")
        found.append(Subject(name, model, match_name(name, [figure.model for figure in figures])))
    if not found:
        raise UserError("no model given; write --models NAME=MODEL.")
    return found


def match_name(name: str, published: Sequence[str]) -> str | None:
    """The published model name that `name` stands for: the same letters and digits in the same order, or None."""
    return next((known for known in published if _plain(known) == _plain(name)), None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.casefold())


def needs_training(table: str, subject: Subject) -> bool:
    """Whether a table has a trained arm for this model; for a model it does not know, whether it has one at all."""
    wanted = specification()["tables"][table]
    only = wanted.get("train_only")
    return bool(wanted["trained"] and (subject.published is None or only is None or subject.published in only))


def recipe_of(subject: Subject) -> list[str | None]:
    """The presets to train with, one after the other; [None] is the recipe of the configuration."""
    found: list[str | None] = list(specification()["recipes"].get(subject.published, []))
    return found or [None]


def steps(config: Config, table: str, subject: Subject, folder: Path, *, quick: bool) -> list[Step]:
    """The commands that make the figures of one model, in order; everything they write lies in `folder`."""
    wanted = specification()["tables"][table]
    trained = needs_training(table, subject)
    run = display_path(folder / "run")
    run_options = _run_options(config, wanted, subject, folder, trained=trained, quick=quick)
    primary = [word for arm in wanted["primary"] if arm != TRAINED or trained for word in ("--primary", f"v2:{arm}")]
    plan_file = display_path(folder / "plan.json")
    spread = [word for metric, sd in specification()["assumed_sd"].items() for word in ("--sd", f"{metric}={sd}")]
    made = [Step("plan", ("plan", *run_options, *primary, *spread, "--output", plan_file))]
    if trained:
        made += training_steps(config, subject, folder, placebo=False, quick=quick)
        made += training_steps(config, subject, folder, placebo=True, quick=quick)
    made.append(Step("benchmark", ("benchmark", *run_options, "--plan", plan_file, "--output", run)))
    made.append(Step("score", ("score", "--input", run, "--scorer", "v2")))
    made.append(Step("compare", ("compare", run, "--no-details")))
    return made


def variant_steps(answers: Path, folder: Path) -> list[Step]:
    """The commands that analyse published answers again."""
    wanted = specification()["variants"]
    run = display_path(folder / "run")
    treatments = [word for arm in wanted["arms"] if arm != wanted["baseline"] for word in ("--treatment", arm)]
    return [
        Step("import", ("import", display_path(answers), "--output", run)),
        Step("compare", ("compare", run, "--baseline", wanted["baseline"], *treatments, "--no-details")),
    ]


def _run_options(
    config: Config, wanted: dict[str, Any], subject: Subject, folder: Path, *, trained: bool, quick: bool
) -> list[str]:
    """The options that `lem plan` and `lem benchmark` share: model, arms, probes, token limit."""
    short = specification()["quick"]
    options = ["--model", subject.model]
    arms = ["base"]
    if wanted["kernel"]:
        options += ["--kernel", f"json={display_path(Path(config.default_kernel))}"]
        arms += ["json", PLACEBO_JSON]
    if trained:
        for arm in (TRAINED, TRAINED_PLACEBO):
            options += ["--adapter", f"{arm}={display_path(adapter_of(folder, arm))}"]
        arms += [TRAINED, TRAINED_PLACEBO]
    if trained and wanted["on_top"]:
        options += ["--design", "full"]
        arms.append(ON_TOP)
    elif wanted["kernel"]:
        options.append("--placebo")
    options += [word for arm in arms for word in ("--arm", arm)]
    probes = short["probes"] if quick else wanted["probes"]
    options += ["--prompts", display_path(Path(config.seeds_dir) / probes)]
    return [*options, "--max-tokens", str(short["max_tokens"] if quick else config.max_tokens)]


def adapter_of(folder: Path, arm: str) -> Path:
    """Where the finished adapter of an arm lies."""
    return folder / f"adapter-{arm}"


def training_steps(config: Config, subject: Subject, folder: Path, *, placebo: bool, quick: bool) -> list[Step]:
    """One command per preset of the recipe, each continuing the adapter of the one before it."""
    spec = specification()
    arm = TRAINED_PLACEBO if placebo else TRAINED
    recipe = recipe_of(subject)
    made: list[Step] = []
    before: Path | None = None
    for number, preset in enumerate(recipe, start=1):
        last = number == len(recipe)
        target = adapter_of(folder, arm) if last else folder / f"adapter-{arm}-stage-{number}"
        second = spec["second_stages"].get(preset)
        data = Path(config.training_dir) / (second or ("placebo" if placebo else ""))
        words = ["train", "--model", subject.model, "--data", display_path(data)]
        words += ["--adapter-path", display_path(target), "--resume"]
        words += ["--preset", preset] if preset else []
        words += ["--from-adapter", display_path(before)] if before else []
        if quick:
            words += ["--iters", str(spec["quick"]["second_stage_iters" if second else "iters"])]
        made.append(Step(f"train {arm}" + ("" if last else f", stage {number}"), tuple(words)))
        before = target
    return made
