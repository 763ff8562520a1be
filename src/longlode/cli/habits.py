"""Behaviour common to all commands: `-q`, `--json`, and the quoting of commands to copy."""

import functools
import inspect
import shlex
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from longlode.cli.console import echo_json, showing
from longlode.core.processes import started_rank

Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print nothing but errors and what --json asks for.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead, on standard output.")]

Summary = Mapping[str, Any]


class Ended(typer.Exit):
    """End of a command that has a summary but a failing exit status."""

    def __init__(self, code: int, summary: Summary) -> None:
        """Args: code, the exit status; summary, what `--json` prints."""
        super().__init__(code)
        self.summary = summary


def shell(*words: object) -> str:
    """A command line to copy, every word quoted where a shell would need it."""
    return shlex.join(str(word) for word in words)


def with_habits(command: Callable[..., Summary | None], *, shows: bool = False) -> Callable[..., None]:
    """Give a command the options --quiet and --json.

    Args: command, returns what --json prints; shows, whether its only result is what it prints, so that --quiet
      leaves that on standard output.
    """

    @functools.wraps(command)
    def run(*args: Any, quiet: bool = False, as_json: bool = False, **kwargs: Any) -> None:
        speaks = started_rank() == 0  # of the ranks of a training run, which torchrun starts
        with showing(results=speaks and not as_json and (shows or not quiet), remarks=speaks and not quiet):
            try:
                summary = command(*args, **kwargs)
            except Ended as ended:
                _print(ended.summary if as_json else None)
                raise
        _print(summary if as_json and speaks else None)

    own = {"quiet": Quiet, "as_json": AsJson}
    known = inspect.signature(command)
    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in own.items()
    ]
    run.__signature__ = known.replace(parameters=[*known.parameters.values(), *extra])  # type: ignore[attr-defined]
    run.__annotations__ = {**command.__annotations__, **own}
    return run


def _print(summary: Summary | None) -> None:
    if summary is not None:
        echo_json(summary)
