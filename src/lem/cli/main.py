"""`lem`: the command table, lazy loading, and the one place where errors become sentences and exit codes.

A command's module is imported when the command runs, so `lem --help` stays fast; its one-line help therefore
stands in the table below.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Any, NoReturn

import click

from lem import __version__
from lem.errors import EXIT_INCOMPLETE, EXIT_USAGE, LemError

COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": ("lem.cli.demo", "demo", "Train, A/B, score and report with the embedded model, start to end."),
    "test": ("lem.cli.test", "test", "Run the test suite."),
    "train": ("lem.cli.train", "train", "Train an adapter: LoRA, DoRA, on a quantised base, or the blocks in full."),
    "curriculum": ("lem.cli.curriculum", "curriculum", "Train phase after phase, each behind its gates."),
    "distill": ("lem.cli.distill", "distill", "Make training data from a kernel's best answers."),
    "rephrase": ("lem.cli.rephrase", "rephrase", "Write three variants of each probe: perspective, urgency, culture."),
    "fuse": ("lem.cli.fuse", "fuse", "Merge an adapter into its base model, and prove it."),
    "convert": ("lem.cli.fuse", "convert", "Convert a model to MLX, optionally quantised, or back to Hugging Face."),
    "adapter": ("lem.cli.adapter", "adapter_group", "Export adapters to PEFT and import them from it."),
    "benchmark": ("lem.cli.benchmark", "benchmark", "A/B run: base, kernels, placebos and adapters over the probes."),
    "eval": ("lem.cli.eval", "eval_command", "Standard benchmarks: GSM8K, TruthfulQA, Do-Not-Answer, ToxiGen, ..."),
    "judge": ("lem.cli.judge", "judge_group", "Have judges rate or compare answers, and test the judges."),
    "label": ("lem.cli.label", "label", "Label answers yourself, blind, in the terminal: the anchor for judges."),
    "plan": ("lem.cli.plan", "plan", "Before a run: what it can show, what it costs; declare the primary contrast."),
    "score": ("lem.cli.score", "score", "Score runs or answer files and print the leaderboard."),
    "compare": ("lem.cli.compare", "compare", "Compare arms of runs or foreign logs; say what the numbers allow."),
    "leaderboard": ("lem.cli.leaderboard", "leaderboard", "Rank arms across runs, with the uncertainty of the order."),
    "report": ("lem.cli.report", "report", "Write one self-contained HTML page for a run."),
    "import": ("lem.cli.interchange", "import_command", "Read logs of other tools into a run."),
    "export": ("lem.cli.interchange", "export_command", "Write a run for Inspect, lm-eval, datasets or as DPO pairs."),
    "data": ("lem.cli.data", "data_group", "Check training data, or show the exact tokens that are trained."),
    "info": ("lem.cli.info", "info", "Show machine, device, BLAS, versions, free memory and disk."),
    "doctor": ("lem.cli.info", "doctor", "Check a model: template, stop tokens, prefix cache, batching, sampling."),
}
ALIASES = {"ab": "benchmark"}


class LazyGroup(click.Group):
    """A group whose commands are imported from `COMMANDS` when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All command names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None if there is none of that name."""
        entry = COMMANDS.get(ALIASES.get(cmd_name, cmd_name))
        if entry is None:
            return None
        command: click.Command = getattr(importlib.import_module(entry[0]), entry[1])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with the help lines of the table, importing none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one is answered with the list of the known ones."""
        name = args[0]
        if name in COMMANDS or name in ALIASES or name.startswith("-"):
            return super().resolve_command(ctx, args)
        raise click.UsageError(f"no command '{name}'; there are {', '.join(COMMANDS)}.")


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="lem")
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Train, steer and evaluate ethical-kernel language models; print only results that can be believed."""
    ctx.ensure_object(dict)
    ctx.obj["debug"] = debug


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 a check failed, 2 usage or input error, 3 incomplete."""
    arguments = sys.argv[1:] if argv is None else argv
    debug = "--debug" in arguments
    warnings.showwarning = _show_warning
    sys.exit(_run(arguments, debug))


def _run(arguments: list[str], debug: bool) -> int:
    try:
        # --debug is accepted anywhere on the line, because it is typed after the fact.
        arguments = (["--debug"] if debug else []) + [word for word in arguments if word != "--debug"]
        outcome: Any = cli.main(args=arguments, prog_name="lem", standalone_mode=False, obj={"arguments": arguments})
        return outcome if isinstance(outcome, int) else 0
    except click.exceptions.Abort:
        return _interrupted()
    except KeyboardInterrupt:
        return _interrupted()
    except click.ClickException as error:
        error.show(file=sys.stderr)
        return EXIT_USAGE
    except LemError as error:
        if debug:
            raise
        click.echo(f"Error: {error}", err=True)
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def _interrupted() -> int:
    click.echo("Interrupted; what was finished is on disk.", err=True)
    return EXIT_INCOMPLETE


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    click.echo(f"Warning: {message}", err=True)


if __name__ == "__main__":
    main()
