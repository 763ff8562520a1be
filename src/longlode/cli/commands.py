"""The `longlode` command: its list of subcommands and its entry point."""

import inspect
import io
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperCommand

from longlode import __version__
from longlode.cli import (
    bench,
    compare,
    convert,
    demo,
    doctor,
    evaluate,
    explain,
    fit_score,
    generate,
    pack,
    report,
    score,
    select,
    show,
    status,
    train,
)
from longlode.cli.console import PlainFormatter
from longlode.cli.guard import guarded
from longlode.cli.habits import with_habits

_PANELS = {
    "The order of work": (score, select, pack, train, evaluate, compare, generate, convert, bench),
    "Look and check": (show, status, explain, fit_score, report, demo, doctor),
}

_SHOWING = (compare, generate, show, status, explain, doctor)
"""Commands whose only result is their output: --quiet leaves it on standard output."""

app = typer.Typer(
    name="longlode",
    help="Find the long-range dependency in a corpus, train linear-time language models on it, and see "
    "whether they use it.\n\nThe order of work: [bold]score[/] -> [bold]select[/] -> [bold]pack[/] -> "
    "[bold]train[/] -> [bold]evaluate[/] -> [bold]report[/]. New here? Run [bold]longlode demo[/]. Every "
    "command explains itself: longlode score --help",
    rich_markup_mode="rich",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"longlode {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Options of `longlode` itself; the help text is in `app`."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _help(doc: str, examples: Sequence[str]) -> str:
    """Help of a command: its docstring, lines joined, then its examples, one per line (\\b keeps the line breaks)."""
    paragraphs = [escape(part.replace("\n", " ")) for part in inspect.cleandoc(doc).split("\n\n")]
    return "\n\n".join(
        [*paragraphs, "\b[bold]Examples[/]\n" + "\n".join(f"  {escape(line)}" for line in examples)]
    )


class _Command(TyperCommand):
    """Command whose usage errors name the value it got; typer's own errors do not where pydantic checks the values."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As of every command."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            cause = error.__cause__
            if hasattr(error, "message") and isinstance(cause, ValueError) and hasattr(cause, "errors"):
                problem = cause.errors()[0]
                error.message = (
                    f"got {problem['input']!r}; {problem['msg'].replace('Input should', 'it should')}."
                )
            raise


for _panel, _modules in _PANELS.items():
    for _module in _modules:
        _command = getattr(_module, _module.__name__.rsplit(".", 1)[1])
        _habitual = with_habits(_command, shows=_module in _SHOWING)
        _guarded = guarded(_habitual, _module.interrupted)
        app.command(cls=_Command, help=_help(_command.__doc__, _module.EXAMPLES), rich_help_panel=_panel)(
            _guarded
        )


@app.command(hidden=True)
def version() -> None:
    """Print the version, as `longlode --version` does."""
    _print_version(True)


@app.command(name="help", hidden=True)
def show_help(context: typer.Context, command: Annotated[str | None, typer.Argument()] = None) -> None:
    """Print the help of longlode, or of a command, as --help does."""
    above = context.parent
    assert above is not None
    asked = ["--help"] if command is None else [command, "--help"]
    above.command.main(asked, prog_name=above.info_name)


_ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    # By default a thread of torch that waits for another spins. When other programs hold the cores, it spins away the
    # very time that the other thread needs: scoring on a busy two-core machine took more than 15 times longer.
    "GOMP_SPINCOUNT": "1000",
    "KMP_BLOCKTIME": "1",
}


def run() -> None:
    """Run the command line, after setting the environment variables that torch reads when it is loaded."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # where ids and texts may hold what the encoding does not
            stream.reconfigure(errors="backslashreplace")
    debug = bool(os.environ.get("LONGLODE_DEBUG"))
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter("%(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO if debug else logging.WARNING, handlers=[handler])
    if not debug:
        warnings.filterwarnings("ignore", module=r"(torch|transformers|huggingface_hub)\b")
    app()
