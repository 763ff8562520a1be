"""What the commands print: results on stdout, progress and notes on stderr, both good without a terminal."""

import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

_WIDTH_WITHOUT_TERMINAL = 110
_SECONDS_BETWEEN_LINES = 10.0


def stdout() -> Console:
    """The console for results. Made anew each time, so that redirected streams are respected."""
    return _console(stderr=False)


def stderr() -> Console:
    """The console for progress, notes and errors."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_WITHOUT_TERMINAL
    return console


def plain(text: str) -> str:
    """`text` with control characters made visible: corpus text must not steer the terminal."""
    return "".join(
        character if character in "\n\t" or unicodedata.category(character)[0] != "C" else "\ufffd"
        for character in text
    )


def say(text: str) -> None:
    """Print one line of result; rich markup in `text` counts, so escape what came from outside."""
    stdout().print(text, soft_wrap=True)


def note(text: str) -> None:
    """Print one line for the person watching (stderr); no markup."""
    stderr().print(plain(text), soft_wrap=True, markup=False, style="dim")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table of results: figures flush right, the rest flush left."""
    grid = Table(
        title=title, title_justify="left", title_style="bold", header_style="bold", box=box.SIMPLE_HEAD
    )
    for number, column in enumerate(columns):
        figures = all(isinstance(row[number], int | float | None) for row in rows)
        grid.add_column(column, justify="right" if figures else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(escape(plain(_cell(value))) for value in row))
    stdout().print(grid)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def finish(where: str, *, then: Sequence[str] = ()) -> None:
    """Say where the results lie and what to run next."""
    say(f"[bold green]Done.[/] {escape(where)}")
    for number, command in enumerate(then):
        say(f"{'Next:' if number == 0 else '     '} {escape(command)}")


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int | None, str], None]]:
    """Yield `update(done, total, remark)`. A bar on a terminal; else a line about every ten seconds."""
    console = stderr()
    if not console.is_terminal:
        yield _line_printer(label)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=None, remark="")

        def update(done: int, total: int | None, remark: str = "") -> None:
            bar.update(task, completed=done, total=total, remark=plain(remark))

        yield update


def _line_printer(label: str) -> Callable[[int, int | None, str], None]:
    last = time.monotonic()

    def update(done: int, total: int | None, remark: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            of_all = f" of {total:,}" if total else ""
            note(f"{label}: {done:,}{of_all} {remark}".rstrip())

    return update
