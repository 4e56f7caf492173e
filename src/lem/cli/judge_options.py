"""The options of every command that asks a judge, and the judges that they open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lem.cli.options import existing_path
from lem.errors import UserError

if TYPE_CHECKING:
    from lem.data.prices import Price
    from lem.judges.backends.budget import Budget
    from lem.judges.calls import Asking
    from lem.judges.protocol import Judge
    from lem.judges.spec import JudgeSpec

Command = TypeVar("Command", bound=Callable[..., Any])
SPEC = "[NAME=]SPEC"
NAME_ONE = "give --judge gemini, --judge openai:MODEL@URL or --judge mlx:PATH (a local model)"
WITHOUT_JUDGE = "leave judging out with --no-judge"  # of commands that have this option
REMEDY = f"{NAME_ONE}, or {WITHOUT_JUDGE}"

_OPTIONS = (
    click.option("--judge", "judges", multiple=True, metavar=SPEC,
                 help="gemini[:M], openai:M@URL or mlx[:MODEL]; repeatable."),
    click.option("--together", is_flag=True, help="Ask for all dimensions of a benchmark in one call."),
    click.option("--no-rationale", is_flag=True, help="Ask for the verdict alone (cheaper, less considered)."),
    click.option("--judge-method", type=click.Choice(["grammar", "labels"]), default="grammar", show_default=True,
                 help="How a local judge is held to a verdict."),
    click.option("--judge-max-tokens", type=click.IntRange(min=16), default=512, show_default=True,
                 help="Token limit of a judge's reply."),
    click.option("--concurrency", type=click.IntRange(1, 256), default=8, show_default=True,
                 help="Calls under way at once (services only)."),
    click.option("--timeout", "timeout_s", type=click.FloatRange(min=0.1), default=60.0, show_default=True,
                 help="Seconds that one call may take."),
    click.option("--max-cost", type=click.FloatRange(min=0, min_open=True),
                 help="Stop asking services before this sum is spent."),
    click.option("--prices", metavar="FILE", help="Price table (YAML or JSON), needed for costs."),
    click.option("--allow-self-judge", is_flag=True, help="Let a judge rate its own lineage; watermarks every table."),
)  # fmt: skip


@dataclass(frozen=True)
class JudgeOptions:
    """The values of the judge options; `can_do_without` is True of a command that has `--no-judge`."""

    judges: tuple[str, ...] = ()
    together: bool = False
    no_rationale: bool = False
    judge_method: str = "grammar"
    judge_max_tokens: int = 512
    concurrency: int = 8
    timeout_s: float = 60.0
    max_cost: float | None = None
    prices: str | None = None
    allow_self_judge: bool = False
    can_do_without: bool = False

    @property
    def asking(self) -> Asking:
        """How ratings are asked for."""
        from lem.judges.calls import Asking

        return Asking(self.together, not self.no_rationale, self.judge_max_tokens)

    def specs(self) -> list[JudgeSpec]:
        """The judges that were named.   Raises: UserError for a bad one, for two of one name, and for none."""
        from lem.judges.spec import parse_spec

        if not self.judges:
            raise UserError(f"no judge was named; {REMEDY if self.can_do_without else NAME_ONE}.")
        found = [parse_spec(text) for text in self.judges]
        names = [spec.name for spec in found]
        alike = [name.casefold() for name in names]  # their files must differ on any file system
        twice = next((name for name in names if alike.count(name.casefold()) > 1), None)
        if twice is not None:
            raise UserError(f"two judges are named '{twice}'; name them apart with --judge NAME=SPEC.")
        if self.judge_method == "labels" and (self.together or not self.no_rationale):
            raise UserError(
                "--judge-method labels reads one rating off the next token, so it takes one dimension a call and no "
                "rationale; add --no-rationale and leave out --together."
            )
        return found


def judge_options(command: Command) -> Command:
    """Add the options of `JudgeOptions` to a command; `take_judge_options` collects their values."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take_judge_options(options: dict[str, Any]) -> JudgeOptions:
    """Take the values of the judge options out of a command's options."""
    names = JudgeOptions.__dataclass_fields__.keys() - {"can_do_without"}
    return JudgeOptions(**{name: options.pop(name) for name in names}, can_do_without="no_judge" in options)


def budget_of(spec: JudgeSpec, options: JudgeOptions, spent: float = 0.0) -> Budget:
    """The budget of one judge, of which the judges before have spent so much; a local one costs nothing.

    Raises: UserError for a limit without a price.
    """
    from lem.judges.backends.budget import Budget
    from lem.judges.calls import LOCAL

    budget = Budget(None if spec.backend == LOCAL else options.max_cost, price_of(spec, options))
    budget.spent = spent
    return budget


@contextmanager
def opened(spec: JudgeSpec, options: JudgeOptions, spent: float = 0.0, budget: Budget | None = None) -> Iterator[Judge]:
    """Open one judge with what is left of the budget (default: the one of `budget_of`).

    Raises: UserError before any call.
    """
    from lem.judges.spec import open_judge

    budget = budget or budget_of(spec, options, spent)
    try:
        found = open_judge(
            spec, concurrency=options.concurrency, timeout_s=options.timeout_s, budget=budget,
            method=options.judge_method,
        )  # fmt: skip
    except UserError as error:
        if not options.can_do_without:
            raise
        raise UserError(f"{str(error).removesuffix('.')}, or {WITHOUT_JUDGE}.") from None
    with found as judge:
        yield judge


def price_of(spec: JudgeSpec, options: JudgeOptions) -> Price | None:
    """The price of a judge in the price table, by its name or its model; None without a table or an entry."""
    from lem.data.prices import read_prices

    if options.prices is None:
        return None
    table = read_prices(existing_path(options.prices))
    return table.get(spec.name) or table.get(spec.model)
