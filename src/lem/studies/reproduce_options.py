"""What a reproduction is asked for: the table, models, judges, items; and what of it does not go together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lem.ab.arms import BASE, parse_named
from lem.config import Config, resolve_model
from lem.errors import UserError
from lem.judges.spec import JudgeSpec, parse_spec
from lem.studies.reproduce import TRAINED, TRAINED_PLACEBO, specification, table_names

# An arm with a second, short training on top -> the arm that it goes on from.
CONTINUED = {"trained+composure": TRAINED, "trained+composure-placebo": TRAINED_PLACEBO}


@dataclass(frozen=True)
class Extras:
    """What these tables may be given, as texts of the command line.

    `judges`, `items` and what ratings may cost are as for `lem eval`; `variants` are other models as arms (NAME=MODEL).
    """

    judges: tuple[str, ...] = ()
    allow_self_judge: bool = False
    items: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    max_cost: float | None = None
    prices: str | None = None


@dataclass(frozen=True)
class Options:
    """What is asked for: the table, its models as NAME=MODEL, or a folder of published answers; where it goes.

    `extras` belong to the tables on standard benchmarks.
    """

    table: str
    models: tuple[str, ...] = ()
    answers: Path | None = None
    output: Path | None = None
    quick: bool = False
    dry_run: bool = False
    extras: Extras = Extras()


def on_benchmarks(options: Options) -> bool:
    """Whether the table is one of those that rest on standard benchmarks."""
    return options.table in specification()["standard_tables"]


def refuse_misfits(options: Options) -> None:
    """Refuse what does not go together.   Raises: UserError."""
    if options.table not in table_names():
        raise UserError(f"--table {options.table}: there is no such table; there are {', '.join(table_names())}.")
    named = ", ".join(specification()["standard_tables"])
    if options.extras != Extras() and not on_benchmarks(options):
        raise UserError(f"judges, --items and --variant belong to the tables {named}; leave them out, or ask for one.")
    if options.answers is not None:
        if options.table != "variants":
            raise UserError("--published-answers belongs to --table variants; leave it out, or ask for that table.")
        if options.models or options.quick or options.extras != Extras():
            raise UserError("--published-answers analyses what is there; leave out --models, --quick and --judge.")
        if not options.answers.is_dir():
            raise UserError(f"{options.answers}: no such folder of published answers; check the path.")
    elif options.table == "variants" and not options.models:
        raise UserError("no model given; write --models NAME=MODEL, or --published-answers FOLDER to analyse those.")


def judge_specs(extras: Extras) -> list[JudgeSpec]:
    """The judges that were named.   Raises: UserError for a bad one, or two of one name."""
    found: dict[str, JudgeSpec] = {}
    for text in extras.judges:
        spec = parse_spec(text)
        if spec.name in found:
            raise UserError(f"two judges are named '{spec.name}'; name them apart with --judge NAME=SPEC.")
        found[spec.name] = spec
    return list(found.values())


def variant_models(config: Config, extras: Extras) -> dict[str, str]:
    """Arm -> model of every --variant.   Raises: UserError for another form, or an arm that is there already."""
    found: dict[str, str] = {}
    for text in extras.variants:
        named = parse_named(text, "--variant")
        if not named.given:
            raise UserError(f"--variant {text}: write NAME=MODEL, for example abliterated=FOLDER.")
        if named.name in {BASE, TRAINED, TRAINED_PLACEBO, *CONTINUED, *found}:
            raise UserError(f"--variant {text}: there is an arm '{named.name}' already; give another name.")
        found[named.name] = resolve_model(config, named.value)
    return found
